"""The catalog for people, in as many columns as their terminal has: 80 where nobody can tell."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featurestore.definitions.governance.catalog import Item

WIDTH_MIN, WIDTH_MAX = 40, 120
INDENT = "    "


def listed(items: Sequence[Item]) -> str:
    """A heading each, and below it what it is."""
    if not items:
        return "nothing"
    lines = list[str]()
    for item in items:
        one = item.about
        marks = ", ".join(text for text in (one.contact, one.pii and f"PII {one.pii}") if text)
        lines += _wrapped(f"{item.kind} {item.name}" + (f"  ({marks})" if marks else ""), "", INDENT)
        lines += _wrapped(one.description or item.meaning, INDENT, INDENT)
    return "\n".join(lines)


def described(item: Item, features: Sequence[Item]) -> str:
    """Everything about one item, its features last."""
    lines = [f"{item.kind} {item.name}"]
    if item.about.description:
        lines += _wrapped(item.about.description, "  ", "  ")
    lines += _wrapped(item.meaning, "  ", "  ")
    one = item.about
    said = {"owner": one.owner, "on call": one.on_call, "tier": one.tier, "PII": one.pii, "use case": one.use_case}
    facts = {**said, "docs": one.docs, **item.facts}
    width = max(map(len, facts))
    for name, text in facts.items():
        if text:
            lines += _wrapped(text, f"  {name:<{width}}  ", " " * (width + 4))
    for feature in features:
        about, name = feature.about, feature.name
        own = [text for text in (about.owner,) if text not in ("", one.owner)]
        own += [f"PII {about.pii}"] if about.pii not in ("", one.pii) else []
        short = name.partition(":")[2] if item.kind == "view" else name
        lines += _wrapped(f"{short}  {', '.join((feature.facts.get('type', ''), *own))}", "  ", INDENT)
        if about.description:
            lines += _wrapped(about.description, INDENT, INDENT)
        lines += _wrapped(feature.meaning, INDENT, INDENT)
    return "\n".join(lines)


def _wrapped(text: str, first: str, then: str) -> list[str]:
    """A text in lines that fit."""
    width = min(max(shutil.get_terminal_size().columns, WIDTH_MIN), WIDTH_MAX)
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=then, break_on_hyphens=False)
