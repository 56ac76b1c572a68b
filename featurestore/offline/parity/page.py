"""A parity report as one HTML page that needs nothing else: tables, plots, and examples of what nothing explains."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from string import Template

from featurestore.offline.parity.plots import plot_features, plot_freshness, plot_times
from featurestore.offline.parity.report import Example, ParityReport, ValueOutcome, kinds_of

VALUE_CHARACTERS_MAX = 200
"""Of a value in the table of examples: lists and maps can be long."""

_MS_PER_SECOND = 1_000

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #e3e3e3; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.verdict { display: inline-block; padding: .2rem .7rem; border-radius: .3rem; color: white; background: #3c7a5f; }
.scroll { overflow-x: auto; } svg { max-width: 100%; height: auto; } code { font-size: 12px; }
tr.bad td { background: #fbeae8; }
.verdict.bad { background: #c0392b; }"""
"""Of all reports."""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
<h1>$title</h1>
<p>$span</p>
<p><span class="$verdict_class">$verdict</span></p>
$content
</body>
</html>
""")

_CONTENT = Template("""<h2>What came of the values</h2>
<table><tr><th>outcome</th><th class="number">values</th><th class="number">share</th></tr>$outcomes</table>
<h2>Features</h2>
$feature_plot
<div class="scroll"><table>
<tr><th>service</th><th>view</th><th>feature</th><th class="number">values</th><th class="number">equal</th>
<th class="number">explained</th><th class="number">unexplained</th><th>causes</th></tr>$features</table></div>
<h2>Differences by time</h2>
$time_plot
<h2>Freshness</h2>
<p>How old the newest event behind a row was when it was read.</p>
$freshness_plot
<h2>Unexplained values</h2>
$examples""")


def render_page(report: ParityReport, project: str) -> str:
    """The page.

    Args:
        report: what was found.
        project: whose features they are.
    """
    total = report.total
    unexplained = total[ValueOutcome.UNEXPLAINED]
    compared = sum(kinds_of(total))
    verdict = f"{unexplained:,} values are unexplained" if unexplained else "every difference is explained"
    content = _CONTENT.substitute(
        outcomes="".join(
            table_row([escape(outcome.text), f"{count:,}", f"{count / total.total():.2%}"], numbers=(1, 2))
            for outcome, count in sorted(total.items())
        ),
        feature_plot=plot_features(report),
        features="".join(_feature_rows(report)),
        time_plot=plot_times(report),
        freshness_plot=plot_freshness(report),
        examples=_examples(report.examples),
    )
    return html_page(
        f"Parity of {project}",
        span=f"{report.row_count:,} logged rows, {compared:,} values compared, read from "
        f"{moment_text(report.first_ms)} to {moment_text(report.last_ms)}"
        + "".join(f"; event log {escape(uri)}, version {version}" for uri, version in report.event_logs.items()),
        verdict=verdict if compared else "nothing was compared",
        is_bad=bool(unexplained),
        content=content,
    )


def html_page(title: str, *, span: str, verdict: str, is_bad: bool, content: str) -> str:
    """A report as a page that needs nothing else.

    Args:
        title: text.
        span: of what it is, HTML.
        verdict: in a few words, HTML.
        is_bad: whether that is bad news.
        content: all the rest, HTML.
    """
    return _PAGE.substitute(
        title=escape(title),
        style=_STYLE,
        span=span,
        verdict_class="verdict bad" if is_bad else "verdict",
        verdict=verdict,
        content=content,
    )


def moment_text(moment_ms: int) -> str:
    """ISO 8601 to the millisecond."""
    moment = datetime.fromtimestamp(moment_ms // _MS_PER_SECOND, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment_ms % _MS_PER_SECOND:03d}Z"


def _feature_rows(report: ParityReport) -> Iterable[str]:
    """A row for each feature."""
    for name, outcomes in report.outcomes.items():
        equal, explained, unexplained = kinds_of(outcomes)
        causes = "<br>".join(
            f"{count:,} {escape(outcome.text)}"
            for outcome, count in sorted(outcomes.items())
            if outcome not in (ValueOutcome.EQUAL, ValueOutcome.UNEXPLAINED)
        )
        cells = [escape(name.service), escape(name.view), escape(name.feature), f"{sum(outcomes.values()):,}"]
        cells += [f"{equal:,}", f"{explained:,}", f"{unexplained:,}", causes]
        yield table_row(cells, numbers=(3, 4, 5, 6), is_bad=unexplained > 0)


def _examples(examples: Iterable[Example]) -> str:
    """A table of examples, or that there are none."""
    rows = [
        table_row(
            [
                escape(f"{example.name.view}:{example.name.feature}"),
                f"<code>{escape(example.entity_text)}</code>",
                moment_text(example.as_of_ms),
                *(_value(each) for each in (example.logged, example.recomputed, example.at_positions)),
                f"<code>{escape(example.positions_text)}</code>",
                f"<code>{escape(example.request_id)}/{example.request_row}</code>",
            ]
        )
        for example in examples
    ]
    if not rows:
        return "<p>None.</p>"
    names = ("feature", "entity", "read time", "logged", "recomputed", "at its positions", "positions", "request/row")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _value(value: object) -> str:
    """A value as text, cut where it is long."""
    text = "null" if value is None else repr(value) if isinstance(value, float) else str(value)
    shown = text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + " ..."
    return f"<code>{escape(shown)}</code>"


def table_row(cells: Iterable[str], *, numbers: tuple[int, ...] = (), is_bad: bool = False) -> str:
    """A table row of HTML cells."""
    tags = "".join(
        f'<td class="number">{cell}</td>' if index in numbers else f"<td>{cell}</td>"
        for index, cell in enumerate(cells)
    )
    return f'<tr class="bad">{tags}</tr>' if is_bad else f"<tr>{tags}</tr>"
