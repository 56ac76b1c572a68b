"""Values at many moments at once, against the lookup's calculator and the naive oracle."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import names
from featurestore.core.aggregations.ordered.newest_events import FUNCTIONS as NEWEST_FUNCTIONS
from featurestore.core.events import BlobRow
from featurestore.core.lowering.lowering import INT_TYPES
from featurestore.core.point_in_time.answer import PointInTime
from featurestore.core.point_in_time.rows import (
    EntityEvents,
    EventsInFlight,
    Moments,
    chunks,
    first_of_ids,
    hash_history_ids,
)
from featurestore.core.spec import Column, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.view import CompiledView
from featurestore.testing.answers import answer_values
from featurestore.testing.batches import event_columns, keyed_batch
from featurestore.testing.oracle.naive import INT64_MAX, NaiveAnswer, NaiveEvent, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE, StreamCase, stream_cases
from tests.core.test_tiles_against_naive import by_start, distinct, fold

Ask = tuple[bytes, int]
"""Entity key and read time."""


def point_in_time(
    view: ViewSpec,
    events: Sequence[NaiveEvent],
    asks: Sequence[Ask],
    *,
    rows_max: int = 1 << 17,
    in_flight: Sequence[NaiveEvent | None] = (),
) -> list[list[NaiveAnswer | None]]:
    """The answers of all features for each ask, in its order; with the event in flight of each, if it has one."""
    batch = keyed_batch(view, events)
    keys = [*batch.keys, *sorted({key for key, _ in asks} - set(batch.keys))]
    moments = Moments(
        np.array([keys.index(key) for key, _ in asks], dtype=np.int64),
        np.array([as_of_ms for _, as_of_ms in asks], dtype=np.int64),
    )
    assert batch.event_ids is not None
    hashes = hash_history_ids(BlobRow.of(batch.event_ids))
    rows = EntityEvents(batch.key_index, batch.event_time_ms, hashes, batch.event_ids, batch.columns)
    engine = PointInTime(CompiledView(view), counts_in_flight=bool(in_flight))
    own = None
    if in_flight:
        stand_ins = [one or NaiveEvent(key, as_of_ms) for one, (key, as_of_ms) in zip(in_flight, asks, strict=True)]
        columns = event_columns([each for each in view.source.columns if each.name in rows.columns], stand_ins)
        own = EventsInFlight(np.array([one is not None for one in in_flight]), columns)
    found: list[list[NaiveAnswer | None]] = [[]] * len(asks)
    for chunk in chunks(rows, moments, len(keys), rows_max):
        answers = engine.answer(chunk, own)
        for index, row in enumerate(chunk.moment_rows.tolist()):
            values: list[NaiveAnswer | None] = []
            for at, column in enumerate(view.answers):
                if answers.null[at, index]:
                    values.append(None)
                elif column.type in INT_TYPES:
                    values.append(int(answers.ints[at, index]))
                elif column.type is ValueType.FLOAT64:
                    values.append(float(answers.floats[at, index]))
                else:
                    values.append(answers.objects[at][index])  # type: ignore[arg-type]  # as lowered
            found[row] = values
    return found


def asks_of(case: StreamCase, data: st.DataObject) -> list[Ask]:
    """Read times at, beside and after events, of entities with and without any."""
    times = {time_ms + beside for event in case.events for time_ms in (event.event_time_ms,) for beside in (0, 1)}
    times |= {*case.as_of_ms, ANCHOR_MS}
    keys = sorted({event.key for event in case.events} | {b"nobody"})
    return data.draw(
        st.lists(st.tuples(st.sampled_from(keys), st.sampled_from(sorted(times))), min_size=1, max_size=30)
    )


@pytest.mark.parametrize("function", names())
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_moment_has_the_oracles_answer(function: str, data: st.DataObject) -> None:
    """Whatever the order of arrival, of late events and of repeats; the lookup's calculator says the same."""
    assert_every_moment_is_right(data.draw(stream_cases(functions=(function,))), data)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_functions_of_the_newest_events_and_edges_with_nulls_are_right_at_every_moment(data: st.DataObject) -> None:
    """All that are taken over the last n, for few and for more than there are, and first and last of any event."""
    count = data.draw(st.sampled_from((1, 2, 3, 100)))
    functions = [f"{name} over last_events({count})" for name in NEWEST_FUNCTIONS]
    chosen = data.draw(st.sampled_from([*functions, "first respect nulls", "last respect nulls"]))
    assert_every_moment_is_right(data.draw(stream_cases(functions=(chosen,))), data)


def assert_every_moment_is_right(case: StreamCase, data: st.DataObject) -> None:
    """History, the lookup's calculator and the oracle say the same of some entities and moments."""
    asks = asks_of(case, data)
    compiled = CompiledView(case.view)
    answers = point_in_time(case.view, case.events, asks, rows_max=data.draw(st.sampled_from((1, 5, 1 << 17))))
    for (key, as_of_ms), values in zip(asks, answers, strict=True):
        mine = distinct([event for event in case.events if event.key == key])
        looked_up = compiled.answer(by_start(fold(compiled, mine)), as_of_ms)
        same_of = answer_values(case.view, looked_up)
        for index, feature in enumerate(case.view.features):
            scale = magnitude(feature, mine, as_of_ms)
            expected = naive_value(feature, mine, as_of_ms)
            assert agrees(expected, values[index], scale=scale), (feature, expected, values[index], as_of_ms)
            same = same_of[feature.name]
            assert agrees(same, values[index], scale=scale), (feature, same, values[index], as_of_ms)


@pytest.mark.parametrize("function", names())
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_moment_counts_its_own_event_in_flight(function: str, data: st.DataObject) -> None:
    """It and no other one, whether it is among the events or not; features that do not count it are as without."""
    case: StreamCase = data.draw(stream_cases(functions=(function,)))
    asks = asks_of(case, data)
    columns = [event.columns for event in case.events] or [{}]
    in_flight: list[NaiveEvent | None] = [
        NaiveEvent(key, as_of_ms, b"in flight", data.draw(st.sampled_from(columns)))
        if data.draw(st.integers(0, 3))
        else None
        for key, as_of_ms in asks
    ]
    chunk_rows = data.draw(st.sampled_from((1, 5, 1 << 17)))
    answers = point_in_time(case.view, case.events, asks, rows_max=chunk_rows, in_flight=in_flight)
    for (key, as_of_ms), own, values in zip(asks, in_flight, answers, strict=True):
        mine = distinct([event for event in case.events if event.key == key])
        for index, feature in enumerate(case.view.features):
            scale = magnitude(feature, mine, as_of_ms, own)
            expected = naive_value(feature, mine, as_of_ms, in_flight=own)
            assert agrees(expected, values[index], scale=scale), (feature, expected, values[index], as_of_ms, own)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_mixture_of_features_is_answered_like_a_lookup(data: st.DataObject) -> None:
    """Views with several functions and windows at once, read at many moments, in chunks of any size."""
    case: StreamCase = data.draw(stream_cases())
    asks = asks_of(case, data)
    compiled = CompiledView(case.view)
    answers = point_in_time(case.view, case.events, asks, rows_max=data.draw(st.sampled_from((1, 5, 1 << 17))))
    for (key, as_of_ms), values in zip(asks, answers, strict=True):
        mine = distinct([event for event in case.events if event.key == key])
        looked_up = compiled.answer(by_start(fold(compiled, mine)), as_of_ms)
        same_of = answer_values(case.view, looked_up)
        for index, feature in enumerate(case.view.features):
            same = same_of[feature.name]
            scale = magnitude(feature, mine, as_of_ms)
            assert agrees(same, values[index], scale=scale), (feature, same, values[index], as_of_ms)


def test_float_sums_keep_their_digits_behind_large_numbers() -> None:
    """A window of cents after a sum of 1e15: the difference of running sums has every digit."""
    prices = [1e15, -3e14, *(0.01 * number for number in range(1, 200))]
    feature = FeatureSpec("sum", "sum", "price", Window(100, 1), ValueType.FLOAT64)
    view = ViewSpec("v", (Column("card_id", ValueType.STRING),), SOURCE, (feature,), None)
    events = [
        NaiveEvent(b"c", ANCHOR_MS + number, b"%d" % number, {"price": price}) for number, price in enumerate(prices)
    ]
    moments = [ANCHOR_MS + number for number in range(150, 200)]
    answers = point_in_time(view, events, [(b"c", moment) for moment in moments])

    for moment, (value,) in zip(moments, answers, strict=True):
        assert agrees(naive_value(feature, events, moment), value), moment


def test_many_events_of_one_entity_in_any_order() -> None:
    """Two thousand events that arrive in random order are too many to sort by insertion; the answers do not show it."""
    feature = FeatureSpec("last", "last", "amount", Window(500, 1), ValueType.INT64)
    count = FeatureSpec("count", "count", None, Window(500, 1), ValueType.INT64)
    view = ViewSpec("v", (Column("card_id", ValueType.STRING),), SOURCE, (feature, count), None)
    times = np.random.default_rng(7).permutation(2_000).tolist()
    events = [NaiveEvent(b"c", ANCHOR_MS + at, b"%d" % at, {"amount": at}) for at in times]
    asks = [(b"c", ANCHOR_MS + at) for at in range(0, 2_100, 70)]

    answers = point_in_time(view, events, asks)

    expected = [[at - 1 if at else None, min(at, 500)] for at in range(0, 2_001, 70)]
    assert expected == answers[: len(expected)]


@pytest.mark.parametrize("horizon_ms", [1, 40, 5_000])
def test_repeats_are_found_among_few_and_among_many_events(horizon_ms: int) -> None:
    """A row counts unless its entity had the same id at most a horizon before, however many events lie between."""
    draw = np.random.default_rng(3)
    count = 3_000
    entity = np.sort(draw.integers(0, 3, count))
    times_ms = np.concatenate([np.sort(draw.integers(0, 5_000, size)) for size in np.bincount(entity, minlength=3)])
    hashes = draw.integers(0, 400, count)
    events = EntityEvents(entity, times_ms, hashes, None, {})

    kept = first_of_ids(events, np.arange(count), horizon_ms)

    newest: dict[tuple[int, int], int] = {}
    expected = []
    for key, time_ms in zip(zip(entity.tolist(), hashes.tolist(), strict=True), times_ms.tolist(), strict=True):
        expected.append(key not in newest or time_ms - newest[key] > horizon_ms)
        newest[key] = time_ms
    assert expected == kept.tolist()
    assert 400 < sum(expected)


@pytest.mark.parametrize("function", ["stddev_pop", "skew", "kurtosis"])
def test_neighbours_among_the_largest_integers_are_told_apart(function: str) -> None:
    """Doubles do not tell them apart; both calculators count from an integer near them."""
    values = [INT64_MAX - 1, INT64_MAX - 1, INT64_MAX - 1, INT64_MAX, None, INT64_MAX - 3, 5]
    feature = FeatureSpec("f", function, "amount", Window(DAY_MS, 1), ValueType.FLOAT64)
    view = ViewSpec("v", (Column("card_id", ValueType.STRING),), SOURCE, (feature,), DAY_MS)
    events = [
        NaiveEvent(b"c", ANCHOR_MS + number, b"id-%d" % number, {"amount": value})
        for number, value in enumerate(values)
    ]
    asks = [(b"c", ANCHOR_MS + number) for number in range(1, len(values) + 1)]

    for (_, as_of_ms), [found] in zip(asks, point_in_time(view, events, asks, rows_max=100), strict=True):
        assert agrees(naive_value(feature, events, as_of_ms), found), as_of_ms
