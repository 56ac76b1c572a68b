"""When two answers are the same: integers, texts and nulls exactly, floats to 1e-9 of the numbers that went in."""

from __future__ import annotations

from collections.abc import Iterable

from featurestore.core.spec import FeatureSpec
from featurestore.testing.naive import NaiveEvent, NaiveValue

RELATIVE_TOLERANCE = 1e-9
"""Between answers of two paths, relative."""


def agrees(expected: NaiveValue | None, actual: NaiveValue | None, *, scale: float = 0.0) -> bool:
    """Whether two answers of one feature are the same.

    Args:
        expected: of the naive oracle.
        actual: of the path under test.
        scale: magnitude of the numbers that went in, see `magnitude`. Rounding is relative to what is added, not to
            what is left: (1e9 + 0.1) - 1e9 cannot be 0.1 to nine digits in doubles.

    >>> agrees(2, 2), agrees(2**60, 2**60 + 1), agrees(None, 0), agrees(0.1 + 0.2, 0.3)
    (True, False, False, True)
    """
    if not isinstance(expected, float) or not isinstance(actual, float | int):
        return expected == actual
    return abs(expected - actual) <= RELATIVE_TOLERANCE * max(abs(expected), scale)


def magnitude(feature: FeatureSpec, events: Iterable[NaiveEvent]) -> float:
    """Largest absolute number that the feature's column holds, 0.0 for other columns."""
    values = [event.columns.get(feature.column) for event in events] if feature.column else []
    return max((abs(value) for value in values if isinstance(value, int | float) and value == value), default=0.0)
