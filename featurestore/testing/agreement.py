"""When two answers are the same: integers, texts and nulls exactly, floats to 1e-9 of the numbers that went in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from featurestore.core.spec import FeatureSpec
from featurestore.testing.naive import NaiveAnswer, NaiveEvent, naive_value

RELATIVE_TOLERANCE = 1e-9
"""Between answers of two paths, relative."""

SHAPE_TOLERANCE = 1e-12
"""Between skews and kurtoses, for values as large as their standard deviation; in proportion for larger ones."""


def agrees(expected: object, actual: object, *, scale: float = 0.0) -> bool:
    """Whether two answers of one feature are the same; lists and maps element by element.

    Args:
        expected: of the naive oracle.
        actual: of the path under test.
        scale: magnitude of the numbers that went in, see `magnitude`. Rounding is relative to what is added, not to
            what is left: (1e9 + 0.1) - 1e9 cannot be 0.1 to nine digits in doubles.

    >>> agrees(2, 2), agrees(2**60, 2**60 + 1), agrees(None, 0), agrees(0.1 + 0.2, 0.3)
    (True, False, False, True)
    >>> agrees([0.1 + 0.2], [0.3]), agrees([1, 2], [1]), agrees({"a": 1}, {"b": 1}), agrees(float("nan"), float("nan"))
    (True, False, False, True)
    """
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(
            agrees(left, right, scale=scale) for left, right in zip(expected, actual, strict=True)
        )
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            agrees(value, actual[key], scale=scale) for key, value in expected.items()
        )
    if not isinstance(expected, float) or not isinstance(actual, float | int):
        return expected == actual
    if expected != expected:
        return actual != actual
    return abs(expected - actual) <= RELATIVE_TOLERANCE * max(abs(expected), scale)


def magnitude(feature: FeatureSpec, events: Iterable[NaiveEvent], as_of_ms: int | None = None) -> float:
    """Size of the numbers that a feature's answer is made of, for `agrees`.

    Args:
        feature: what is asked.
        events: the entity's events.
        as_of_ms: read time; without it decays and shapes, whose rounding depends on what is in the window, are
            compared as closely as other functions of the largest number.

    Returns:
        The largest absolute number that the feature's column holds, 0.0 for other columns; its square for variances,
        the decayed sum of absolute numbers for a decayed sum, and what one rounding of the largest number means to a
        shape.
    """
    events = list(events)
    values = [event.columns.get(feature.column) for event in events] if feature.column else []
    largest = max((abs(value) for value in values if isinstance(value, int | float) and value == value), default=0.0)
    name = feature.function.partition("(")[0]
    if name in {"var_pop", "var_samp"}:
        return float(largest) ** 2
    if as_of_ms is None:
        return largest
    if name == "ewma_sum":
        return _number(naive_value(feature, [_absolute(event) for event in events], as_of_ms))
    if name == "ewma_count":
        return 0.0
    if name in {"skew", "kurtosis"}:
        deviation = _number(naive_value(replace(feature, function="stddev_pop"), events, as_of_ms))
        return SHAPE_TOLERANCE / RELATIVE_TOLERANCE * largest / deviation if deviation else 0.0
    return largest


def _absolute(event: NaiveEvent) -> NaiveEvent:
    """The event with absolute numbers."""
    columns = {name: abs(value) if isinstance(value, int | float) else value for name, value in event.columns.items()}
    return replace(event, columns=columns)


def _number(answer: NaiveAnswer | None) -> float:
    """A float answer, 0.0 for null; the largest element of a series."""
    if isinstance(answer, list):
        return max((_number(element) for element in answer if element == element), default=0.0)
    return float(answer) if isinstance(answer, int | float) else 0.0
