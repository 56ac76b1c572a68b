"""Results as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.scenario import Line, Result, Size

_HEAD = """# Results

Written by `python -m benchmarks --{size}`; do not edit. Absolute figures belong to the machine below; ratios carry,
because both sides of each were measured in one run.
"""


def markdown(results: Sequence[Result], machine: Mapping[str, str], size: Size) -> str:
    """The page."""
    parts = [_HEAD.format(size=size), "".join(f"* {label}: {text}\n" for label, text in machine.items())]
    parts += [_section(result) for result in results]
    return "\n".join(parts)


def _section(result: Result) -> str:
    table = ["| figure | value | unit | ratio |", "|---|---:|---|---|", *map(_row, result.lines)]
    checked = f"Answer `{result.answer_hash}`: {result.checked}."
    notes = "".join(f"* {note}\n" for note in result.notes)
    return f"## {result.scenario}\n\n{result.question}\n\n" + "\n".join(table) + f"\n\n{checked}\n\n{notes}"


def _row(line: Line) -> str:
    ratio = "" if line.ratio is None else f"{_number(line.ratio)} x {line.of}"
    return f"| {line.what} | {_number(line.value)} | {line.unit} | {ratio} |"


def _number(value: float) -> str:
    """Three significant digits; whole numbers with thousands apart."""
    if abs(value) >= 1_000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
