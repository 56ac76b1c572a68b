"""Lists of the oldest and newest values: order, ties, distinct values, and the bound of their state."""

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import resolve
from featurestore.core.events import BlobRow, ColumnValues
from featurestore.core.spec import Column, FeatureSpec, ValueType, Window
from featurestore.core.tiles.parts import EventRows
from featurestore.core.tiles.tiles import TileLayout, TileTable
from featurestore.errors import InvalidRequest
from featurestore.testing.laws import Algebra
from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue, naive_value
from featurestore.testing.strategies import ANCHOR_MS

FUNCTIONS = ("first_n", "last_n", "first_distinct_n", "last_distinct_n")


def answer(function: str, column_type: ValueType, events: Sequence[NaiveEvent]) -> object:
    """The function over all events."""
    algebra = Algebra(function, Column("value", column_type))
    return algebra.lower(reduce(algebra.merge, map(algebra.lift, events), algebra.identity()))


def payment(second: int, event_id: bytes, value: NaiveValue | None) -> NaiveEvent:
    """An event with a value."""
    return NaiveEvent(b"k", ANCHOR_MS + 1_000 * second, event_id, {"value": value})


def test_first_lists_oldest_first_and_last_newest_first() -> None:
    """Whatever the order of arrival.

    second      1    2    2    3    4
    id          a    b    c    d    e
    value       DE   SE   FI   DE   null
    """
    events = [
        payment(3, b"d", "DE"),
        payment(2, b"c", "FI"),
        payment(4, b"e", None),
        payment(1, b"a", "DE"),
        payment(2, b"b", "SE"),
    ]

    assert ["DE", "SE", "FI"] == answer("first_n(3)", ValueType.STRING, events)
    assert ["DE", "FI", "SE"] == answer("last_n(3)", ValueType.STRING, events)
    assert ["DE", "SE"] == answer("first_distinct_n(2)", ValueType.STRING, events)
    assert ["DE", "FI", "SE"] == answer("last_distinct_n(9)", ValueType.STRING, events)
    assert ["DE", "SE", "FI", "DE"] == answer("first_n(100)", ValueType.STRING, events)


def test_floats_of_all_signs_come_back_as_they_went_in() -> None:
    """Infinities included, in the order of events and of values where events tie; -0.0 and 0.0 are one value."""
    values = [-0.0, 0.0, -1.5, float("-inf"), float("inf"), 1e-300, -1e300]
    events = [payment(0, b"", value) for value in values]
    ordered = sorted(values)

    assert ordered == answer("first_n(9)", ValueType.FLOAT64, events)
    assert ordered[::-1] == answer("last_n(9)", ValueType.FLOAT64, events)
    assert sorted(set(values)) == answer("first_distinct_n(9)", ValueType.FLOAT64, events)


def test_ids_and_texts_may_be_as_long_as_a_head_row_holds() -> None:
    """Two equal events but for the last byte of 65,535."""
    long = b"i" * 65_534
    events = [payment(0, long + b"b", "é" * 32_000), payment(0, long + b"a", "")]

    assert ["", "é" * 32_000] == answer("first_n(2)", ValueType.STRING, events)


@pytest.mark.parametrize("function", FUNCTIONS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_bulk_merges_of_many_entities_equal_the_oracle(function: str, data: st.DataObject) -> None:
    """Runs of events of several entities, in any order within a run, merged at once and then merged again."""
    limit = data.draw(st.sampled_from((1, 2, 5, 100)))
    events = [
        payment(data.draw(st.integers(0, 4)), b"%d" % number, data.draw(st.one_of(st.none(), st.text(max_size=2))))
        for number in data.draw(st.permutations(range(data.draw(st.integers(1, 30)))))
    ]
    cuts = data.draw(st.sets(st.integers(1, len(events)), max_size=5))
    starts = np.array(sorted({0} | {cut for cut in cuts if cut < len(events)}))
    name = f"{function}({limit})"
    algebra = Algebra(name, Column("value", ValueType.STRING))
    table = lifted(algebra.layout, events)
    merged = table.merge_groups(starts, table.start_ms[starts], table.end_ms[starts])
    again = merged.merge_groups(np.zeros(1, dtype=np.int64), merged.start_ms[:1], merged.end_ms[:1])
    feature = FeatureSpec("f", name, "value", Window(None), ValueType.STRING_LIST)

    for table_of_runs, runs in ((merged, np.split(np.arange(len(events)), starts[1:])), (again, [range(len(events))])):
        states = np.array(table_of_runs.blobs.row(0).values(), dtype=object).reshape(1, -1)
        lowered = resolve(name).lower([states], np.zeros(states.shape[1], dtype=np.int64))
        assert lowered.null is not None
        actual = [None if gone else value for value, gone in zip(lowered.values[0], lowered.null[0], strict=True)]
        assert [naive_value(feature, [events[row] for row in run], ANCHOR_MS + 10**6) for run in runs] == actual


def lifted(layout: TileLayout, events: Sequence[NaiveEvent]) -> TileTable:
    """One tile an event, lifted in bulk with texts and ids as spans."""
    values = [event.columns["value"] for event in events]
    valid = np.array([value is not None for value in values])
    texts = BlobRow.of([str(value or "").encode() for value in values])
    times = np.array([event.event_time_ms for event in events])
    ids = BlobRow.of([event.event_id or b"" for event in events])
    return layout.lift(EventRows(times, ids, {"value": ColumnValues(texts, valid)}))


def test_a_tile_keeps_no_more_than_n_entries() -> None:
    """A thousand events cost what three cost."""
    algebra = Algebra("last_n(3)", Column("value", ValueType.INT64))
    events = [payment(number, b"id-%04d" % number, number) for number in range(1_000)]
    table = lifted_numbers(algebra.layout, events)
    merged = table.merge_groups(np.zeros(1, dtype=np.int64), table.start_ms[:1], table.end_ms[:1])
    first_three = table.take(slice(0, 3))
    small = first_three.merge_groups(np.zeros(1, dtype=np.int64), table.start_ms[:1], table.end_ms[:1])

    assert len(small.blobs.row(0)[0]) == len(merged.blobs.row(0)[0])


def lifted_numbers(layout: TileLayout, events: Sequence[NaiveEvent]) -> TileTable:
    """One tile an event, lifted in bulk."""
    values = np.array([event.columns["value"] for event in events], dtype=np.int64)
    times = np.array([event.event_time_ms for event in events])
    ids = BlobRow.of([event.event_id or b"" for event in events])
    return layout.lift(EventRows(times, ids, {"value": ColumnValues(values)}))


def test_the_last_events_are_the_newest_values_and_a_null_is_an_edge_only_on_demand() -> None:
    """Ties are broken by id, and where that is the same a null is behind every value.

    second      1    2    2    3      3 (no id)  3 (no id)
    value       8    4    1    null   -5         null
    """
    events = [payment(2, b"b", 4), payment(1, b"a", 8), payment(2, b"c", 1), payment(3, b"d", None)]
    tied = [*events[:3], payment(3, b"", -5), payment(3, b"", None)]

    for function, expected in {
        "sum": 5,
        "mean": 2.5,
        "max": 4,
        "first": 4,
        "count": 2,
        "first_event_time": ANCHOR_MS + 2_000,
    }.items():
        assert expected == answer(f"{function} over last_events(2)", ValueType.INT64, events), function
    assert 1 == answer("last", ValueType.INT64, events)
    assert answer("last respect nulls", ValueType.INT64, events) is None
    assert answer("last respect nulls", ValueType.INT64, tied) is None
    assert -5 == answer("last respect nulls", ValueType.INT64, tied[:4])
    ascending: Mapping[ValueType, Sequence[NaiveValue]] = {
        ValueType.STRING: ("", "é" * 32_767, "\U0010ffff"),
        ValueType.INT64: (-(1 << 63), -1, 0, (1 << 63) - 1),
        ValueType.FLOAT64: (float("-inf"), -1.5, 0.0, 1e-300, float("inf")),
    }
    for kind, values in ascending.items():
        for low, high in pairwise(values):
            two = [payment(0, b"", high), payment(0, b"", low), payment(1, b"", low)]
            assert (low, high) == (
                answer("first respect nulls", kind, two),
                answer("last respect nulls", kind, two[:2]),
            )


@pytest.mark.parametrize(
    "text", ["first_n", "last_n(0)", "last_n(101)", "first_distinct_n(x)", "last_n(1, 2)", "sum over last_events(101)"]
)
def test_a_length_that_cannot_be_kept_is_refused(text: str) -> None:
    """The message shows how to write it."""
    with pytest.raises(InvalidRequest) as refused:
        resolve(text)

    assert refused.value.hint
