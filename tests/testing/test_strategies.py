"""The generated streams hold what they promise, and their columns say the same as their events."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis.errors import NoSuchExample

from featurestore.core.spec import ValueType, ViewSpec
from featurestore.testing.batches import event_batch, keyed_batch, payloads
from featurestore.testing.oracle.naive import INT64_MAX, NaiveEvent, window_edges
from featurestore.testing.strategies import CLOCK_CHANGES_MS, StreamCase, stream_cases
from featurestore.wire.entity_key import lane_of

FIND = settings(max_examples=2_000, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)


def _has_tie(case: StreamCase) -> bool:
    moments = {(e.key, e.event_time_ms, e.event_id) for e in case.events}
    return len({(key, time_ms) for key, time_ms, _ in moments}) < len(moments)


def _is_on_an_edge(case: StreamCase) -> bool:
    edges = {edge for t in case.as_of_ms for f in case.view.features for edge in window_edges(f.window, t)}
    return any(e.event_time_ms in edges for e in case.events)


def _has_late(case: StreamCase) -> bool:
    return any(
        later.event_time_ms < earlier.event_time_ms
        for earlier, later in zip(case.events, case.events[1:], strict=False)
    )


def _has_duplicate(case: StreamCase) -> bool:
    return len({e.event_id for e in case.events}) < len(case.events)


def _spans_a_change_of_clocks(case: StreamCase) -> bool:
    times_ms = [e.event_time_ms for e in case.events]
    zones = {f.window.timezone for f in case.view.features if f.window.timezone}
    return any(
        min(times_ms) < change < max(times_ms) for zone in zones for change in CLOCK_CHANGES_MS[zone] if times_ms
    )


def _column_has(name: str, is_wanted: Callable[[object], bool]) -> Callable[[StreamCase], bool]:
    return lambda case: any(is_wanted(e.columns[name]) for e in case.events)


HAZARDS: dict[str, Callable[[StreamCase], bool]] = {
    "ties": _has_tie,
    "window_edge": _is_on_an_edge,
    "late": _has_late,
    "duplicate": _has_duplicate,
    "null": _column_has("amount", lambda value: value is None),
    "nan": _column_has("price", lambda value: value != value),
    "negative": _column_has("amount", lambda value: isinstance(value, int) and value < 0),
    "huge": _column_has("amount", lambda value: value == INT64_MAX),
    "empty_text": _column_has("market", lambda value: value == ""),
    "unicode": _column_has("market", lambda value: isinstance(value, str) and not value.isascii()),
    "collision": lambda case: len({e.key for e in case.events}) < len({e.event_id for e in case.events}),
    "lifetime": lambda case: any(f.window.length_ms is None for f in case.view.features),
    "one_ms_hop": lambda case: any(f.window.hop_ms == 1 for f in case.view.features),
    "offset": lambda case: any(f.window.offset_ms > 0 for f in case.view.features),
    "calendar": lambda case: any(f.window.calendar is not None for f in case.view.features),
    "session": lambda case: any(f.window.gap_ms > 0 for f in case.view.features),
    "series": lambda case: any(f.window.series > 1 for f in case.view.features),
    "clock_change": _spans_a_change_of_clocks,
    "empty_stream": lambda case: not case.events,
}


def test_every_hazard_is_generated() -> None:
    """All promised difficulties turn up within a couple of thousand examples."""
    missing = dict(HAZARDS)

    def are_complete(case: StreamCase) -> bool:
        for name in [name for name, has_it in missing.items() if has_it(case)]:
            del missing[name]
        return not missing

    with contextlib.suppress(NoSuchExample):
        find(stream_cases(), are_complete, settings=FIND)

    assert {} == missing


@settings(max_examples=50, deadline=None)
@given(case=stream_cases())
def test_columns_repeat_the_events(case: StreamCase) -> None:
    """EventBatch, KeyedBatch and payloads hold the same rows, in arrival order, with gapless offsets."""
    batch = event_batch(case.view, case.events, partition=3, from_offset=100)
    keyed = keyed_batch(case.view, case.events, partition=3, from_offset=100)
    records = [json.loads(payload) for payload in payloads(case.view, case.events)]

    assert batch.offsets.tolist() == list(range(100, batch.next_offset))
    assert [keyed.keys[index] for index in keyed.key_index] == [e.key for e in case.events]
    assert [record["card_id"].encode() for record in records] == [e.key for e in case.events]
    assert keyed.key_lanes.tolist() == [lane_of(key, 16) for key in keyed.keys]
    for name, values in keyed.columns.items():
        is_valid = [True] * len(case.events) if values.valid is None else values.valid.tolist()
        assert is_valid == [record[name] is not None for record in records]
        assert [_plain(case.view, name, e) for e, ok in zip(case.events, is_valid, strict=True) if ok] == [
            value for value, ok in zip(np.asarray(values.values).tolist(), is_valid, strict=True) if ok
        ]


def _plain(view: ViewSpec, name: str, event: NaiveEvent) -> object:
    column = view.source.column(name)
    assert column is not None
    value = event.columns[name]
    return str(value).encode() if column.type is ValueType.STRING else value
