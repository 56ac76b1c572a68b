"""How far answers that are the same may be apart: see `core.tolerance`. Here: the size of the numbers that went in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from featurestore.core.spec import FeatureSpec
from featurestore.core.tolerance import RELATIVE_TOLERANCE, SHAPE_TOLERANCE, agrees
from featurestore.testing.oracle.naive import NaiveAnswer, NaiveEvent, naive_value

__all__ = ["RELATIVE_TOLERANCE", "agrees", "magnitude"]


def magnitude(
    feature: FeatureSpec,
    events: Iterable[NaiveEvent],
    as_of_ms: int | None = None,
    in_flight: NaiveEvent | None = None,
) -> float:
    """Size of the numbers that a feature's answer is made of, for `agrees`.

    Args:
        feature: what is asked.
        events: the entity's events.
        as_of_ms: read time; without it decays and shapes, whose rounding depends on what is in the window, are
            compared as closely as other functions of the largest number.
        in_flight: an event at the read time, as in `naive_value`.

    Returns:
        The largest absolute number that the feature's column holds, 0.0 for other columns; its square for variances,
        the decayed sum of absolute numbers for a decayed sum, and what one rounding of the largest number means to a
        shape.
    """
    events = list(events)
    feature = replace(feature, where="")  # a condition takes numbers away, never adds one
    seen = events if in_flight is None else [*events, in_flight]
    values = [event.columns.get(feature.column) for event in seen] if feature.column else []
    largest = max((abs(value) for value in values if isinstance(value, int | float) and value == value), default=0.0)
    name = feature.function.partition("(")[0]
    if name in {"var_pop", "var_samp"}:
        return float(largest) ** 2
    if as_of_ms is None:
        return largest
    if name == "ewma_sum":
        absolute = None if in_flight is None else _absolute(in_flight)
        return _number(naive_value(feature, [_absolute(event) for event in events], as_of_ms, in_flight=absolute))
    if name == "ewma_count":
        return 0.0
    if name in {"skew", "kurtosis"}:
        deviations = replace(feature, function="stddev_pop")
        deviation = _number(naive_value(deviations, events, as_of_ms, in_flight=in_flight))
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
