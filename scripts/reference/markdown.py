"""Docstrings in, Markdown out: what the two pages of reference have in common."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType

LINE_CHARACTERS_MAX = 120

_HEADING = re.compile(r"^(Args|Attributes|Returns|Raises):\n", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w+): ", re.MULTILINE)
_DEFAULT = re.compile(r"(?:^|[;,.] )[dD]efault:? (.+?)\.?$")
_PLAIN_WORD = re.compile(r"(?!librdkafka\b)[a-z]+(?:[ ,;.-]|$)")
_PLACEHOLDER = re.compile(r"\{\{([\w ]+)\}\}")


@dataclass(frozen=True, slots=True)
class Documented:
    """A Google-style docstring, taken apart.

    Attributes:
        text: what comes before the first section.
        entries: section -> name -> meaning, of Args, Attributes and Raises.
        returns: text of Returns, "" for none.
    """

    text: str
    entries: Mapping[str, Mapping[str, str]]
    returns: str


def documented(thing: object) -> Documented:
    """The docstring of a function or class."""
    text, *sections = _HEADING.split(inspect.getdoc(thing) or "")
    found = dict(zip(sections[::2], sections[1::2], strict=True))
    returns = " ".join(found.get("Returns", "").split())
    return Documented(text.strip(), {name: _entries(body) for name, body in found.items()}, returns)


def attribute_docs(module: ModuleType) -> dict[str, str]:
    """Constant -> the docstring under it, on one line, of the constants of a module that have one."""
    body = ast.parse(inspect.getsource(module)).body
    docs = {}
    for statement, below in pairwise(body):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
        if isinstance(target, ast.Name) and isinstance(text, str):
            docs[target.id] = " ".join(text.split())
    return docs


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A template of this directory with its {{names}} replaced; a name that is no part is a mistake."""
    text = (Path(__file__).parent / template).read_text(encoding="utf-8")
    return _PLACEHOLDER.sub(lambda found: parts[found[1]].rstrip("\n"), text)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a column that is empty in all rows is left out."""
    cells = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in rows]
    shown = [at for at in range(len(headings)) if any(row[at] for row in cells)]
    lines = [[headings[at] for at in shown], ["---"] * len(shown), *([row[at] for at in shown] for row in cells)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def part_default(meaning: str) -> tuple[str, str]:
    """A meaning without the default that ends it, and the default."""
    found = _DEFAULT.search(meaning)
    return (meaning, "") if found is None else (meaning[: found.start()], found[1])


def sentence(text: str) -> str:
    """A fragment as a sentence; names, addresses and code keep their first letter."""
    first = text[:1].upper() if _PLAIN_WORD.match(text) else text[:1]
    return first + text[1:] + ("" if not text or text[-1] in ".!?" else ".")


def wrapped(paragraph: str) -> str:
    """A paragraph in lines."""
    return textwrap.fill(paragraph, LINE_CHARACTERS_MAX, break_long_words=False, break_on_hyphens=False)


def _entries(body: str) -> dict[str, str]:
    """Name -> meaning, from lines of "    name: meaning" and what continues them."""
    _, *parts = _ENTRY.split(body)
    return {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}
