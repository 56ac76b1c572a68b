"""What to say after an unknown name: those that are like it, else those that there are.

Like it are names of the same words in another order (`distinct_count`, `count_distinct`), and those of almost the same
letters (`difflib`). One place for all who refuse a name, so that they do it in the same words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

NEAR_NAMES_MAX = 3
"""Similar names offered for an unknown one."""

KNOWN_NAMES_MAX = 12
"""Known names listed when none is similar."""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Known names that are like a name, the most similar first; letter case does not matter.

    >>> near_names("distinct_count", ["count", "count_distinct", "sum"])
    ['count_distinct']
    >>> near_names("Amuont", ["amount", "currency"])
    ['amount']
    """
    known = list(dict.fromkeys(known))
    reordered = [one for one in known if _words(one) == _words(name)]
    if reordered:
        return reordered[:NEAR_NAMES_MAX]
    close = difflib.get_close_matches(name.lower(), list(dict.fromkeys(one.lower() for one in known)), n=NEAR_NAMES_MAX)
    return [one for lower in close for one in known if one.lower() == lower][:NEAR_NAMES_MAX]


def suggest(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown name: the similar ones, else the known ones.

    >>> suggest("amuont", ["amount", "currency"])
    'did you mean "amount"?'
    >>> suggest("x", ["amount", "currency"])
    'known are "amount", "currency"'
    """
    known = list(dict.fromkeys(known))
    near = near_names(name, known)
    if near:
        return f"did you mean {' or '.join(quoted(near))}?"
    if not known:
        return "none is known"
    more = f" and {len(known) - KNOWN_NAMES_MAX} more" if len(known) > KNOWN_NAMES_MAX else ""
    return f"known are {', '.join(quoted(known[:KNOWN_NAMES_MAX]))}{more}"


def quoted(names: Iterable[str]) -> list[str]:
    """Each name in double quotes."""
    return [f'"{name}"' for name in names]


def _words(name: str) -> list[str]:
    """The words of a name, sorted."""
    return sorted(re.split(r"[^a-z0-9]+", name.lower()))
