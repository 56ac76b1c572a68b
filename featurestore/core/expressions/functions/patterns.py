r"""LIKE and ILIKE: `%` is any run of characters, `_` any one, the escape character makes the next one plain.

Matching is linear in the text for a given pattern, whatever the pattern: each run between two `%` is found at its
leftmost place and never reconsidered (an atomic group), which is right because `%` can absorb all that lies before.
A pattern such as '%a%a%a%b' would otherwise be a way of stopping the stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from featurestore.core.expressions.functions.each_text import to_condition_or_null
from featurestore.core.expressions.functions.text import decoded, lower
from featurestore.core.expressions.kinds import Kind
from featurestore.core.expressions.overload import Overloads, fixed

PATTERNS_KEPT_MAX = 1_024
"""Compiled patterns that are remembered; a column of patterns may hold any number."""

_ANY_ONE = rb"(?:[\x00-\x7f]|[\xc0-\xff][\x80-\xbf]*)"
"""One code point in UTF-8."""


def like(value: bytes, pattern: bytes, escape: bytes = b"") -> bool | None:
    """Whether the whole value matches; None when the pattern ends in its escape character, or that is two."""
    matches = _matcher(pattern, escape)
    return None if matches is None else matches(value)


def _ilike(value: bytes, pattern: bytes, escape: bytes = b"") -> bool | None:
    return like(lower(value), lower(pattern), lower(escape))


@lru_cache(maxsize=PATTERNS_KEPT_MAX)
def _matcher(pattern: bytes, escape: bytes) -> Callable[[bytes], bool] | None:
    runs = _runs(decoded(pattern), decoded(escape))
    if runs is None:
        return None
    first, *others = runs
    if not others:
        compiled = re.compile(_expression(first) + rb"\Z", re.DOTALL)
    else:
        middle = b"".join(rb"(?>.*?" + _expression(run) + rb")" for run in others[:-1] if run)
        # The last run has to end the text, so it is looked for from the end, behind everything found so far.
        compiled = re.compile(_expression(first) + middle + rb".*" + _expression(others[-1]) + rb"\Z", re.DOTALL)
    return lambda value: compiled.match(value) is not None


def _runs(pattern: str, escape: str) -> list[list[str | None]] | None:
    """The pieces between `%`, each a list of characters, None for `_`; None if the escape is misused."""
    if len(escape) > 1:
        return None
    runs: list[list[str | None]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            plain = next(characters, None)
            if plain is None:
                return None
            runs[-1].append(plain)
        elif character == "%":
            runs.append([])
        else:
            runs[-1].append(None if character == "_" else character)
    return runs


def _expression(run: list[str | None]) -> bytes:
    return b"".join(_ANY_ONE if character is None else re.escape(character.encode()) for character in run)


_TWO, _THREE = (Kind.TEXT, Kind.TEXT), (Kind.TEXT, Kind.TEXT, Kind.TEXT)

OVERLOADS: Overloads = {
    name: tuple(fixed(*kinds, gives=Kind.BOOL, kernel=to_condition_or_null(match)) for kinds in (_TWO, _THREE))
    for name, match in {"LIKE": like, "ILIKE": _ilike}.items()
}
