"""The naive oracle: what the value of a feature is. Everything fast is compared with this page.

One entity, a feature with function f, column c, condition p and a window, read at time t:

    value = f( e.c of every event e, each event id once,
               with begin <= e.event_time_ms < end, p(e) true and e.c not null; without c each counts as 1 )

"first respect nulls" and "last respect nulls" are over the events without a value of c, too.

    window      begin                              end                  w length, h hop, o offset
    sliding     floor(t - w, h)                    t                    tail on the hop grid, head exact
    offset      floor(t - o - w, h)                floor(t - o, h)      both edges on the hop grid
    lifetime    -infinity                          t
    calendar    begin of the local day .. year     t
    session     its first event                    t                    no gap in it is longer than the window's
    series      a list of sliding or offset windows, one length apart, oldest first

A payment in flight e is an event at t itself. A feature that counts it has the events of its window and e, if the
window ends at t; of a series that is the last. The others, and windows with an offset, do not see it.

An event for which the view's `undo` is true counts with a sign of -1. The functions f are in `functions.py`. All of it
is slow on purpose: no numpy, no tiles, exact arithmetic. With what it judges it shares nothing but `core.spec`, which
says what is asked. SQL is not its business: conditions are given as Python, derived features are not here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from featurestore.core.spec import HOP_LADDER_MS, HOPS_PER_WINDOW_MIN, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.testing.oracle.calendars import unit_begin_ms
from featurestore.testing.oracle.events import INT64_MAX as INT64_MAX
from featurestore.testing.oracle.events import INT64_MIN as INT64_MIN
from featurestore.testing.oracle.events import Conditions, Row
from featurestore.testing.oracle.events import NaiveAnswer as NaiveAnswer
from featurestore.testing.oracle.events import NaiveEvent as NaiveEvent
from featurestore.testing.oracle.events import NaiveValue as NaiveValue
from featurestore.testing.oracle.functions import RESPECT_NULLS, answer

NO_CONDITIONS: Conditions = {}


def naive_values(
    view: ViewSpec,
    events: Sequence[NaiveEvent],
    as_of_ms: int,
    conditions: Conditions = NO_CONDITIONS,
    in_flight: NaiveEvent | None = None,
) -> dict[str, NaiveAnswer | None]:
    """`naive_value` of every feature of a view, by feature name."""
    values = {}
    for feature in view.features:
        values[feature.name] = naive_value(feature, events, as_of_ms, conditions, view.undo, in_flight)
    return values


def naive_value(
    feature: FeatureSpec,
    events: Iterable[NaiveEvent],
    as_of_ms: int,
    conditions: Conditions = NO_CONDITIONS,
    undo: str = "",
    in_flight: NaiveEvent | None = None,
) -> NaiveAnswer | None:
    """The value of one feature of one entity at a moment; None is null.

    Args:
        feature: the definition.
        events: the entity's events of the view in arrival order, which decides which of an id is the first, no more.
        as_of_ms: read time t.
        conditions: what `feature.where` and `undo` mean.
        undo: events for which it is true take back what an equal event added; "" for none.
        in_flight: an event of the entity and the view at t, whatever its id.
    """
    events = _first_of_each_id(events)
    if feature.window.series:
        each = [replace(feature, window=window) for window in _windows_of(feature.window)]
        return _series([naive_value(one, events, as_of_ms, conditions, undo, in_flight) for one in each], feature.type)
    begin_ms, end_ms = window_edges(feature.window, as_of_ms, [event.event_time_ms for event in events])
    inside = [event for event in events if begin_ms <= event.event_time_ms < end_ms]
    if in_flight is not None and feature.in_flight and not feature.window.offset_ms:
        assert in_flight.event_time_ms == as_of_ms, "a payment in flight is read at its own time"
        inside.append(in_flight)
    rows = []
    for event in inside:
        if feature.where and not conditions[feature.where](event.columns):
            continue
        value = 1 if feature.column is None else event.columns.get(feature.column)
        if value is None or value != value:
            if not feature.function.endswith(RESPECT_NULLS):
                continue
            value = math.nan
        sign = -1 if undo and conditions[undo](event.columns) else 1
        since_ms = as_of_ms - event.event_time_ms
        rows.append(Row(event.event_time_ms, event.event_id or b"", value, since_ms, event.columns, sign))
    return answer(feature.function, rows)


def window_edges(window: Window, as_of_ms: int, event_times_ms: Iterable[int] = ()) -> tuple[float, int]:
    """Begin and end of any window but a series; sessions depend on the times of all the entity's events."""
    if window.length_ms is None:
        return -math.inf, as_of_ms
    if window.calendar is not None:
        return unit_begin_ms(window.calendar, window.timezone, as_of_ms), as_of_ms
    begin_ms = _floor(as_of_ms - window.offset_ms - window.length_ms, window.hop_ms)
    if window.gap_ms:
        return _session_begin_ms(window.gap_ms, begin_ms, as_of_ms, event_times_ms), as_of_ms
    if window.offset_ms:
        return begin_ms, _floor(as_of_ms - window.offset_ms, window.hop_ms)
    return begin_ms, as_of_ms


def naive_found(view: ViewSpec, events: Iterable[NaiveEvent], as_of_ms: int) -> bool:
    """Whether an event lies before t and within retention, whose grid is the widest that is at most 1/60 of it.

    A view with a payment in flight is found anyway.
    """
    begin_ms = -math.inf
    if view.retention_ms is not None:
        hops_ms = [hop_ms for hop_ms in HOP_LADDER_MS if hop_ms * HOPS_PER_WINDOW_MIN <= view.retention_ms]
        begin_ms = _floor(as_of_ms - view.retention_ms, max(hops_ms, default=1))
    return any(begin_ms <= event.event_time_ms < as_of_ms for event in events)


def _first_of_each_id(events: Iterable[NaiveEvent]) -> list[NaiveEvent]:
    first: dict[object, NaiveEvent] = {}
    for number, event in enumerate(events):
        first.setdefault(number if event.event_id is None else event.event_id, event)
    return list(first.values())


def _floor(time_ms: int, hop_ms: int) -> int:
    return time_ms // hop_ms * hop_ms


def _session_begin_ms(gap_ms: int, oldest_ms: int, as_of_ms: int, event_times_ms: Iterable[int]) -> int:
    """From t back, event by event, until the silence before one is longer than the gap; t when no session is open."""
    begin_ms = as_of_ms
    for time_ms in sorted(event_times_ms, reverse=True):
        if oldest_ms <= time_ms < as_of_ms:
            if begin_ms - time_ms > gap_ms:
                break
            begin_ms = time_ms
    return begin_ms


def _windows_of(series: Window) -> list[Window]:
    assert series.length_ms is not None, "a series has a length"
    offsets_ms = [series.offset_ms + number * series.length_ms for number in reversed(range(series.series))]
    return [replace(series, series=0, offset_ms=offset_ms) for offset_ms in offsets_ms]


def _series(values: list[NaiveAnswer | None], list_type: ValueType) -> NaiveAnswer | None:
    """NaN for a null among floats; integers have no such value, so a null among them leaves no answer."""
    if list_type is ValueType.FLOAT64_LIST:
        return [math.nan if value is None else value for value in values]  # type: ignore[return-value]  # all floats
    return None if None in values else values  # type: ignore[return-value]  # all of one type
