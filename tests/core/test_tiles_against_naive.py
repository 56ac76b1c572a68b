"""Tiles, roll-ups and windows against the naive oracle.

arrival     | batch | batch | batch |        any cut of the stream into batches
roll-up         ^               ^            at any moments between them
read                                 t t     at lookback or later
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import names
from featurestore.core.events import Int64Array
from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.tiles.parts import EventRows
from featurestore.core.tiles.tiles import TileTable, concatenate
from featurestore.core.view import CompiledView
from featurestore.errors import AsOfTooOld
from featurestore.testing.answers import answer_values
from featurestore.testing.batches import keyed_batch
from featurestore.testing.oracle.naive import NaiveEvent, naive_found, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import ANCHOR_MS, SOURCE, StreamCase, stream_cases


def distinct(events: Sequence[NaiveEvent]) -> list[NaiveEvent]:
    """The first event of each id: de-duplication happens before folding."""
    return list({event.event_id: event for event in reversed(events)}.values())[::-1]


def fold(compiled: CompiledView, events: Sequence[NaiveEvent]) -> TileTable:
    """Events of one entity as tiles of one millisecond."""
    batch = keyed_batch(compiled.spec, events)
    return compiled.layout.lift(EventRows(batch.event_time_ms, batch.event_ids, batch.columns))


def by_start(table: TileTable) -> TileTable:
    """As a reader sorts it."""
    return table.take(table.start_ms.argsort(kind="stable"))


def roll_up(compiled: CompiledView, table: TileTable, newest_ms: int) -> TileTable:
    """Compact one entity."""
    entity: Int64Array = np.zeros(table.count, dtype=np.int64)
    rolled = compiled.roll_up.compact(table, entity, np.array([newest_ms])).table.normalize()
    return dataclasses.replace(rolled, dropped_before_ms=compiled.roll_up.dropped_before_ms(newest_ms))


def assert_answers(compiled: CompiledView, table: TileTable, events: Sequence[NaiveEvent], as_of_ms: int) -> None:
    """Every feature equals the oracle."""
    answer = compiled.answer(by_start(table), as_of_ms)
    found = naive_found(compiled.spec, events, as_of_ms)
    assert answer.found == found
    actual_of = answer_values(compiled.spec, answer)
    for feature in compiled.spec.features:
        expected = naive_value(feature, events, as_of_ms) if found else naive_value(feature, (), as_of_ms)
        actual = actual_of[feature.name]
        assert agrees(expected, actual, scale=magnitude(feature, events, as_of_ms)), (
            feature,
            expected,
            actual,
            as_of_ms,
        )


@pytest.mark.parametrize("function", names())
@settings(max_examples=15, deadline=None)  # for each of some fifty functions
@given(data=st.data())
def test_any_batches_and_roll_ups_give_the_oracles_answer(function: str, data: st.DataObject) -> None:
    """Cutting a stream anywhere and rolling up at any time never changes a value that may be read."""
    case: StreamCase = data.draw(stream_cases(functions=(function,)))
    compiled = CompiledView(case.view)
    for key in {event.key for event in case.events}:
        events = distinct([event for event in case.events if event.key == key])
        table, done = compiled.layout.empty(), 0
        while done < len(events):
            size = data.draw(st.integers(1, len(events) - done), label="batch")
            table = concatenate([table, fold(compiled, events[done : done + size])])
            done += size
            if data.draw(st.booleans(), label="roll up"):
                table = roll_up(compiled, table, max(event.event_time_ms for event in events[:done]))
        newest_ms = max(event.event_time_ms for event in case.events)
        for as_of_ms in case.as_of_ms:
            assert as_of_ms >= newest_ms - case.view.lookback_ms
            assert_answers(compiled, table, events, as_of_ms)


@settings(deadline=None)
@given(case=stream_cases())
def test_a_read_is_exact_or_refused(case: StreamCase) -> None:
    """At any older moment a rolled-up entity answers like the oracle, or says that it cannot."""
    compiled = CompiledView(case.view)
    for key in {event.key for event in case.events}:
        events = distinct([event for event in case.events if event.key == key])
        newest_ms = max(event.event_time_ms for event in events)
        table = roll_up(compiled, fold(compiled, events), newest_ms)
        for as_of_ms in {event.event_time_ms + step for event in events for step in (-1, 0, 1, 1_000)}:
            try:
                compiled.answer(by_start(table), as_of_ms)
            except AsOfTooOld:
                assert as_of_ms < newest_ms - case.view.lookback_ms
                continue
            assert_answers(compiled, table, events, as_of_ms)


def test_the_head_of_a_window_is_exact_and_its_tail_on_the_hop_grid() -> None:
    """A 10 s window with a 5 s hop, read at 12 s and at 15 s.

    events        1s  4s     6s        11s   12s
    read at 12 s  [0s .............)12s          the event at 12 s is not in its own past
    read at 15 s         [5s ...............)15s
    """
    feature = _count_feature(Window(10_000, 5_000))
    compiled = CompiledView(ViewSpec("v", (), SOURCE, (feature,), 20_000))
    events = [NaiveEvent(b"k", ANCHOR_MS + second * 1_000, b"%d" % second, {}) for second in (1, 4, 6, 11, 12)]
    table = fold(compiled, events)

    assert [4, 3] == [int(compiled.answer(table, ANCHOR_MS + at).ints[0]) for at in (12_000, 15_000)]


def test_old_tiles_widen_and_are_dropped() -> None:
    """Events a minute apart for three hours cost far fewer tiles once the windows over them allow wide ones."""
    feature = _count_feature(Window(3_600_000, 60_000))
    compiled = CompiledView(ViewSpec("v", (), SOURCE, (feature,), 3_660_000, 0))
    events = [NaiveEvent(b"k", ANCHOR_MS + second * 1_000, b"%d" % second, {}) for second in range(3 * 3600)]
    table = roll_up(compiled, fold(compiled, events), events[-1].event_time_ms)

    assert 50 < table.count < 150
    assert_answers(compiled, table, events, events[-1].event_time_ms + 1)


def _count_feature(window: Window) -> FeatureSpec:
    """Rows in a window."""
    return FeatureSpec("count", "count", None, window, ValueType.INT64)
