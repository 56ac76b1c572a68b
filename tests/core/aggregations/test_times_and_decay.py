"""Event times, gaps and decayed sums: read times, bounds, and what is left of very old events."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import resolve
from featurestore.core.events import ColumnValues
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import EventRows
from featurestore.errors import InvalidRequest
from featurestore.testing.laws import Algebra
from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS

AMOUNT = Column("value", ValueType.INT64)


def answer(function: str, events: Sequence[NaiveEvent], as_of_ms: int, column: Column | None = AMOUNT) -> object:
    """The function over all events, at a read time."""
    algebra = Algebra(function, column)
    return algebra.lower(reduce(algebra.merge, map(algebra.lift, events), algebra.identity()), as_of_ms)


def payment(time_ms: int, value: NaiveValue | None = 1) -> NaiveEvent:
    """An event so long after the anchor."""
    return NaiveEvent(b"k", ANCHOR_MS + time_ms, b"%d" % time_ms, {"value": value})


def test_time_since_goes_on_while_nothing_happens() -> None:
    """Seconds since the last payment are right at the read, not at the last event.

    events       0     40         70(null)          read at 100 and 250
    """
    events = [payment(40), payment(0), payment(70, None)]

    assert [60, 210] == [answer("time_since_last", events, ANCHOR_MS + at) for at in (100, 250)]
    assert [100, 250] == [answer("time_since_first", events, ANCHOR_MS + at) for at in (100, 250)]
    assert 30 == answer("time_since_last", events, ANCHOR_MS + 100, column=None)
    assert ANCHOR_MS + 40 == answer("last_event_time", events, ANCHOR_MS + 100)
    assert ANCHOR_MS == answer("first_event_time", events, ANCHOR_MS + 100)


def test_a_late_event_splits_the_longest_gap() -> None:
    """0 .. 100 .. 130: the longest gap is 100, until an event at 60 arrives."""
    events = [payment(0), payment(100), payment(130)]

    assert [100, 30, 65.0] == [answer(f, events, ANCHOR_MS + 200) for f in ("max_gap", "min_gap", "mean_gap")]
    events.append(payment(60))
    assert [60, 30] == [answer(f, events, ANCHOR_MS + 200) for f in ("max_gap", "min_gap")]


def test_gaps_need_two_events_and_no_more_than_the_bound() -> None:
    """Five events are within a bound of five, six are not; one event has no gap, two of one millisecond one of 0."""
    events = [payment(10 * n) for n in range(6)]

    assert [None, 10, 10, None] == [answer("max_gap(5)", events[:n], ANCHOR_MS + 100) for n in (1, 2, 5, 6)]
    assert 0 == answer("min_gap", [payment(3), NaiveEvent(b"k", ANCHOR_MS + 3, b"x", {"value": 1})], ANCHOR_MS + 9)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_bulk_merges_of_times_equal_sorting_them(data: st.DataObject) -> None:
    """Runs of events of several entities merged at once, with distances from 0 ms to decades."""
    bound = data.draw(st.sampled_from((2, 5, 256)))
    distances = st.sampled_from((0, 1, 127, 128, 16_384, 2**31, 2**40, -1, -(2**33)))
    times = np.array([ANCHOR_MS + data.draw(distances) for _ in range(data.draw(st.integers(1, 30)))])
    cuts = data.draw(st.sets(st.integers(1, len(times)), max_size=5))
    starts = np.array(sorted({0} | {cut for cut in cuts if cut < len(times)}))
    valid = np.array([data.draw(st.booleans()) for _ in times])
    layout = Algebra(f"max_gap({bound})", AMOUNT).layout
    table = layout.lift(EventRows(times, None, {"value": ColumnValues(np.ones(len(times), dtype=np.int64), valid)}))
    merged = table.merge_groups(starts, table.start_ms[starts], table.end_ms[starts])
    states = np.array(merged.blobs.row(0).values(), dtype=object).reshape(1, -1)

    for function, pick in ((f"max_gap({bound})", max), (f"min_gap({bound})", min)):
        lowered = resolve(function).lower([states], np.zeros(states.shape[1], dtype=np.int64))
        assert lowered.null is not None
        actual = [None if gone else int(v) for v, gone in zip(lowered.values[0], lowered.null[0], strict=True)]
        assert [
            pick(np.diff(np.sort(run[ok])).tolist()) if 2 <= ok.sum() <= bound else None
            for run, ok in zip(np.split(times, starts[1:]), np.split(valid, starts[1:]), strict=True)
        ] == actual


def test_values_lose_half_their_weight_in_a_half_life() -> None:
    """8 two minutes ago, 4 one minute ago, 2 now: 2 + 2 + 2, a minute later half of it."""
    events = [payment(0, 8), payment(60_000, 4), payment(120_000, 2), payment(120_000, None)]

    assert [6.0, 3.0] == [answer("ewma_sum(1m)", events, ANCHOR_MS + at) for at in (120_000, 180_000)]
    assert [1.75, 0.875] == [answer("ewma_count(1m)", events, ANCHOR_MS + at) for at in (120_000, 180_000)]
    assert [6.0 / 1.75] * 2 == [answer("ewma_mean(60s)", events, ANCHOR_MS + at) for at in (120_000, 180_000)]


def test_what_has_decayed_away_is_nothing_and_harms_nothing() -> None:
    """After years of a half-life of 1 ms sum and count are 0, and the mean is still that of the newest values."""
    old, new = payment(0, -(2**60)), [payment(2_000 * DAY_MS, 3), payment(2_000 * DAY_MS + 1, 6)]
    events = [new[1], old, new[0]]
    as_of_ms = ANCHOR_MS + 4_000 * DAY_MS

    assert 0.0 == answer("ewma_sum(1ms)", events, as_of_ms)
    assert 0.0 == answer("ewma_count(1ms)", events, as_of_ms)
    assert (6 + 1.5) / 1.5 == answer("ewma_mean(1ms)", events, as_of_ms)
    assert 7.5 == answer("ewma_sum(1ms)", events, ANCHOR_MS + 2_000 * DAY_MS + 1)


def test_half_lives_have_one_canonical_text() -> None:
    """Equal half-lives are one function and share their state."""
    names = {resolve(f"ewma_sum({text})").name for text in ("60s", "1m", " 60000ms ")}

    assert {"ewma_sum(1m)"} == names
    assert "ewma_mean(14d)" == resolve("EWMA_mean(2w)").name


@pytest.mark.parametrize("text", ["ewma_sum", "ewma_sum(15)", "ewma_mean(0s)", "max_gap(1)", "min_gap(5000)"])
def test_parameters_out_of_range_are_refused(text: str) -> None:
    """The message shows how to write it."""
    with pytest.raises(InvalidRequest) as refused:
        resolve(text)

    assert refused.value.hint
