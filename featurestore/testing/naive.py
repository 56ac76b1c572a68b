"""The naive oracle: what a feature's value is, in plain loops and exact arithmetic.

Every fast path (tiles, sawtooth windows, replay, Redis, gRPC, history) is compared with this. It is slow on purpose:
no numpy, no tiles, no sharing with `core/`, rational numbers where floats would round.

    value = lower(every event e of one entity, each event id once, with
                  floor(t - w, h) <= e.event_time_ms < t                      no offset: the head is exact
                  floor(t - o - w, h) <= e.event_time_ms < floor(t - o, h)    offset: both edges on the hop grid
                  e.event_time_ms < t)                                        lifetime
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from featurestore.core.spec import FeatureSpec, ViewSpec, Window, presence_hop_ms

NaiveValue = int | float | str
"""INT64, BOOL (0/1) and TIMESTAMP (ms) as int, FLOAT64 as float, STRING as str."""

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


def naive_value(feature: FeatureSpec, events: Iterable[NaiveEvent], as_of_ms: int) -> NaiveValue | None:
    """The value of one feature of one entity at a moment.

    Args:
        feature: the definition.
        events: the entity's events in arrival order (of equal ids the first counts); order matters for nothing else.
        as_of_ms: read time, exclusive.

    Returns:
        The value; None is null. An integer sum that does not fit in 64 bits is null too.
    """
    start_ms, end_ms = window_edges(feature.window, as_of_ms)
    seen: set[bytes] = set()
    rows: list[tuple[int, bytes, NaiveValue]] = []
    for event in events:
        if event.event_id is not None:
            if event.event_id in seen:
                continue
            seen.add(event.event_id)
        value = 1 if feature.column is None else event.columns.get(feature.column)
        if value is None or value != value or not start_ms <= event.event_time_ms < end_ms:
            continue
        rows.append((event.event_time_ms, event.event_id or b"", value))
    return _lower(feature.function, rows)


def naive_values(view: ViewSpec, events: Sequence[NaiveEvent], as_of_ms: int) -> dict[str, NaiveValue | None]:
    """`naive_value` of every feature of a view, by feature name."""
    return {feature.name: naive_value(feature, events, as_of_ms) for feature in view.features}


def naive_found(view: ViewSpec, events: Iterable[NaiveEvent], as_of_ms: int) -> bool:
    """Whether the entity has an event before `as_of_ms` that is within the view's retention, on its presence grid."""
    start_ms = -math.inf
    if view.retention_ms is not None:
        hop_ms = presence_hop_ms(view.retention_ms)
        start_ms = (as_of_ms - view.retention_ms) // hop_ms * hop_ms
    return any(start_ms <= event.event_time_ms < as_of_ms for event in events)


def window_edges(window: Window, as_of_ms: int) -> tuple[float, int]:
    """First moment inside and first moment after a window, ms; the first is -inf for lifetime."""
    if window.length_ms is None:
        return -math.inf, as_of_ms
    start_ms = (as_of_ms - window.offset_ms - window.length_ms) // window.hop_ms * window.hop_ms
    if window.offset_ms == 0:
        return start_ms, as_of_ms
    return start_ms, (as_of_ms - window.offset_ms) // window.hop_ms * window.hop_ms


def _lower(function: str, rows: list[tuple[int, bytes, NaiveValue]]) -> NaiveValue | None:
    """Answer over (event time, event id, value) of the non-null rows inside the window."""
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
