"""The naive oracle: what a feature's value is, in plain loops and exact arithmetic.

Every fast path (tiles, sawtooth windows, replay, Redis, gRPC, history) is compared with this. It is slow on purpose:
no numpy, no tiles, no sharing with `core/`, rational numbers where floats would round.

    value = lower(every event e of one entity, each event id once, with
                  floor(t - w, h) <= e.event_time_ms < t                      no offset: the head is exact
                  floor(t - o - w, h) <= e.event_time_ms < floor(t - o, h)    offset: both edges on the hop grid
                  e.event_time_ms < t)                                        lifetime

Calendars, sessions and series are in `naive_windows`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec, presence_hop_ms
from featurestore.testing.oracle.counts import COUNTED, further_column, lower_with_further
from featurestore.testing.oracle.ordered import ORDERED
from featurestore.testing.oracle.values import NaiveAnswer as NaiveAnswer
from featurestore.testing.oracle.values import NaiveFunction, NaiveRow
from featurestore.testing.oracle.values import NaiveValue as NaiveValue
from featurestore.testing.oracle.windows import series_windows
from featurestore.testing.oracle.windows import window_edges as window_edges

FUNCTIONS: dict[str, NaiveFunction] = {**ORDERED, **COUNTED}
"""Functions by name that have their loops in a file of their own."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class NaiveEvent:
    """One event as its producer meant it.

    Attributes:
        key: canonical bytes of the entity key.
        event_time_ms: when it happened.
        event_id: canonical bytes of the event id; None where the source declares none, then nothing is a duplicate.
        columns: value of each column; None or absent is null, and so is NaN.
    """

    key: bytes
    event_time_ms: int
    event_id: bytes | None = None
    columns: dict[str, NaiveValue | None] = field(default_factory=dict)


def naive_value(feature: FeatureSpec, events: Iterable[NaiveEvent], as_of_ms: int) -> NaiveAnswer | None:
    """The value of one feature of one entity at a moment.

    Args:
        feature: the definition.
        events: the entity's events in arrival order (of equal ids the first counts); order matters for nothing else.
        as_of_ms: read time, exclusive.

    Returns:
        The value; None is null. An integer sum that does not fit in 64 bits is null too.
    """
    events = _distinct(events)
    if feature.window.series:
        parts = [replace(feature, window=window) for window in series_windows(feature.window)]
        return _list([naive_value(part, events, as_of_ms) for part in parts], feature.type)
    start_ms, end_ms = window_edges(feature.window, as_of_ms, [event.event_time_ms for event in events])
    rows: list[NaiveRow] = []
    others: list[NaiveValue | None] = []
    further = further_column(feature.function)
    for event in events:
        value = 1 if feature.column is None else event.columns.get(feature.column)
        if value is None or value != value or not start_ms <= event.event_time_ms < end_ms:
            continue
        rows.append((event.event_time_ms, event.event_id or b"", value))
        others.append(None if further is None else event.columns.get(further))
    if further is not None:
        return lower_with_further(feature.function, rows, others, lambda inner, mine: _lower(inner, mine, as_of_ms))
    return _lower(feature.function, rows, as_of_ms)


def naive_values(view: ViewSpec, events: Sequence[NaiveEvent], as_of_ms: int) -> dict[str, NaiveAnswer | None]:
    """`naive_value` of every feature of a view, by feature name."""
    return {feature.name: naive_value(feature, events, as_of_ms) for feature in view.features}


def naive_found(view: ViewSpec, events: Iterable[NaiveEvent], as_of_ms: int) -> bool:
    """Whether the entity has an event before `as_of_ms` that is within the view's retention, on its presence grid."""
    start_ms = -math.inf
    if view.retention_ms is not None:
        hop_ms = presence_hop_ms(view.retention_ms)
        start_ms = (as_of_ms - view.retention_ms) // hop_ms * hop_ms
    return any(start_ms <= event.event_time_ms < as_of_ms for event in events)


def _distinct(events: Iterable[NaiveEvent]) -> list[NaiveEvent]:
    """The first event of each id, and all without one."""
    seen: set[bytes] = set()
    distinct = []
    for event in events:
        if event.event_id is None or event.event_id not in seen:
            distinct.append(event)
        if event.event_id is not None:
            seen.add(event.event_id)
    return distinct


def _list(values: list[Any], list_type: ValueType) -> list[Any] | None:
    """The answer of a series: NaN for a null among floats; a null among integers leaves no answer."""
    if list_type is ValueType.FLOAT64_LIST:
        return [math.nan if value is None else value for value in values]
    return None if None in values else values


def _lower(function: str, rows: Sequence[NaiveRow], as_of_ms: int) -> NaiveAnswer | None:
    """Answer over the non-null rows inside the window."""
    name, _, listed = function.partition("(")
    if name in FUNCTIONS:
        arguments = [text.strip() for text in listed.rstrip(")").split(",") if text.strip()]
        return FUNCTIONS[name](rows, as_of_ms, arguments)
    values = [value for _, _, value in rows]
    if function == "count":
        return len(values)
    if function == "sum":
        return _sum(values)
    if not values:
        return None
    if function == "first":
        return min(rows)[2]
    if function == "last":
        return max(rows)[2]
    if function == "min":
        return min(values)
    if function == "max":
        return max(values)
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    if function == "mean":
        return float(mean)
    squares = sum((value - mean) ** 2 for value in exact)
    if function == "stddev_pop":
        return math.sqrt(squares / len(exact))
    if function == "stddev_samp":
        return None if len(exact) < 2 else math.sqrt(squares / (len(exact) - 1))
    raise NotImplementedError(f"the naive oracle does not know the function {function!r}")


def _sum(values: list[NaiveValue]) -> int | float | None:
    """Exact sum, rounded once when the values are floats; null when integers do not fit in 64 bits."""
    if all(isinstance(value, int) for value in values):
        total = sum(int(value) for value in values)
        return total if INT64_MIN <= total <= INT64_MAX else None
    return float(sum(Fraction(value) for value in values))
