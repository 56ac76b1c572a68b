"""Multisets across their limit: what they were, how they were merged and when they overflowed never shows.

events    1 2 2 3 4 5 6 6 7 8 9 ...
tiles     [...][......][...][...]      counts by value, as long as there are few
windows     ....[...................)  TOO_MANY | registers, from the keys of the one and the registers of the other
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import resolve
from featurestore.core.aggregations.keyed.kernels import TOO_MANY
from featurestore.core.aggregations.keyed.multiset import LG_K, SHARED_BOUND, Multiset, count_of
from featurestore.core.aggregations.keyed.states import ValueCounts, ordered_bits, read_state
from featurestore.core.events import BlobRow, ColumnValues, Int64Array, ObjectArray
from featurestore.core.spec import Column, FeatureSpec, ValueType, Window
from featurestore.core.tiles.parts import EventRows
from featurestore.testing.batches import event_columns
from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue, naive_value

Values = Sequence[NaiveValue]

STATE_BYTES = 1 + 2**LG_K
TYPES = (ValueType.INT64, ValueType.FLOAT64, ValueType.STRING, ValueType.TIMESTAMP)
"""All that can have more than two values."""

few_values: dict[ValueType, st.SearchStrategy[NaiveValue]] = {
    ValueType.INT64: st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9),
    ValueType.FLOAT64: st.sampled_from([-0.0, 0.0, -1.5, 1e300, 5e-324]) | st.integers(-9, 9).map(float),
    ValueType.STRING: st.text(max_size=40) | st.sampled_from("abcdefghijkl"),
    ValueType.TIMESTAMP: st.integers(0, 20),
}


class SmallMultiset(Multiset):
    """One that overflows above as few values as a test likes."""

    def __init__(self, column: Column, held: int) -> None:
        ValueCounts.__init__(self, "small", column, limit=held)


def states_of(part: Multiset, values: Values) -> BlobRow:
    """A state for each value."""
    events = [NaiveEvent(b"k", 0, None, {part.column.name: value}) for value in values]
    rows = EventRows(np.zeros(len(values), dtype=np.int64), None, event_columns([part.column], events))
    states = part.lift(rows)["state"]
    assert isinstance(states, BlobRow)
    return states


def merge(part: Multiset, states: BlobRow, starts: Sequence[int] | Int64Array = (0,)) -> BlobRow:
    """The states of runs of rows."""
    (merged,) = part.merge_groups([states], [], np.asarray(starts, dtype=np.int64))
    assert isinstance(merged, BlobRow)
    return merged


def merge_ranges(part: Multiset, states: BlobRow, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The states of ranges of rows."""
    lows, highs = (np.array(edges, dtype=np.int64) for edges in zip(*ranges, strict=True))
    (merged,) = part.merge_ranges([states], lows, highs)
    assert isinstance(merged, BlobRow)
    return merged.values()


def overflowed(values: Values) -> bytes:
    """Registers of values, by plain loops over published hashes."""
    registers = bytearray(2**LG_K)
    for value in values:
        word = xxhash.xxh64_intdigest(hashed_bytes(value))
        rest = word % 2 ** (64 - LG_K)
        place = word >> (64 - LG_K)
        registers[place] = max(registers[place], 64 - LG_K - rest.bit_length() + 1)
    return bytes([TOO_MANY]) + registers


def hashed_bytes(value: NaiveValue) -> bytes:
    """UTF-8, or a number of 8 bytes."""
    if isinstance(value, str):
        return value.encode()
    number = int(ordered_bits(np.array([value]))[0]) if isinstance(value, float) else value
    return number.to_bytes(8, "little", signed=True)


def objects(state: bytes) -> ObjectArray:
    """One state as what `lower` takes."""
    fields: ObjectArray = np.empty((1, 1), dtype=np.object_)
    fields[0, 0] = state
    return fields


def answer(function: str, state: bytes) -> object:
    """What a state is lowered to; None for null."""
    lowered = resolve(function).lower([objects(state)], np.zeros(1, dtype=np.int64))
    return None if lowered.null is not None and lowered.null[0, 0] else lowered.values[0, 0]


def naive_answer(function: str, values: Values) -> object:
    """The oracle's."""
    events = [NaiveEvent(b"k", at, b"%d" % at, {"value": value}) for at, value in enumerate(values)]
    return naive_value(FeatureSpec("f", function, "value", Window(None), ValueType.INT64), events, len(values))


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data(), held=st.integers(1, 8))
def test_any_tree_of_merges_across_a_small_limit_gives_equal_bytes(
    kind: ValueType, data: st.DataObject, held: int
) -> None:
    """Whole tiles, overflowed ones and empty ones, in any order and grouping; the bytes are what loops would make."""
    part = SmallMultiset(Column("value", kind), held)
    values = data.draw(st.lists(few_values[kind], min_size=1, max_size=30))
    distinct = set(values)
    states = BlobRow.of([*states_of(part, values).values(), b""])
    at_once = merge(part, states).values()[0]
    while len(states) > 1:
        order = np.array(data.draw(st.permutations(range(len(states)))), dtype=np.int64)
        cuts = data.draw(st.sets(st.integers(0, len(states) - 1), max_size=len(states) // 2))
        states = merge(part, states[order], sorted({0, *cuts}))

    assert at_once == states[0]
    if len(distinct) > held:
        assert overflowed(list(distinct)) == at_once
        assert count_of(at_once, held) > held
        return
    assert len(distinct) == count_of(at_once, held)
    assert sorted(Counter(values).values()) == sorted(read_state(at_once).ints[0].tolist())


@given(data=st.data(), held=st.integers(1, 8))
def test_windows_over_whole_and_overflowed_tiles_are_what_each_gives_alone(data: st.DataObject, held: int) -> None:
    """Windows that share rows, overlap, are empty or end before they begin; few at once, and many."""
    part = SmallMultiset(Column("value", ValueType.STRING), held)
    values = data.draw(st.lists(few_values[ValueType.STRING], min_size=1, max_size=40))
    cuts = data.draw(st.sets(st.integers(0, len(values) - 1), max_size=12))
    tiles = BlobRow.of([b"", *merge(part, states_of(part, values), sorted({0, *cuts})).values(), b""])
    edge = st.integers(0, len(tiles))
    ranges = data.draw(st.lists(st.tuples(edge, edge), min_size=1, max_size=6)) * data.draw(st.sampled_from((1, 30)))
    alone = [merge(part, tiles[np.arange(low, high)]).values()[0] if low < high else b"" for low, high in ranges]

    assert alone == merge_ranges(part, tiles, ranges)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("distinct", [1_000, 1_001, 1_500, 6_000])
def test_thousands_of_values_are_counted_like_the_oracle_counts_them(kind: ValueType, distinct: int) -> None:
    """A third of them twice, in forty tiles or so, whole and overflowed, merged in several orders."""
    random, part = np.random.default_rng(distinct), Multiset(Column("value", kind), 1)
    numbers = random.choice(10**12, distinct, replace=False)
    numbers = random.permutation(np.append(numbers, numbers[::3]))
    values: list[NaiveValue] = numbers.tolist()
    if kind is ValueType.FLOAT64:
        values = (numbers / 64 - 10**9).tolist()
    elif kind is ValueType.STRING:
        values = [f"händler {number} " + "." * (number % 50) for number in numbers.tolist()]
    states, ends = states_of(part, values), set()
    for _ in range(4):
        cuts = np.unique(np.append(0, random.choice(len(values), 40)))
        cuts = cuts[(cuts < 1_200) | (cuts > 1_200 + distinct // 4)]  # one tile is long
        tiles = merge(part, states[random.permutation(len(states))], cuts)
        halves = merge(part, tiles[random.permutation(len(tiles))], [0, len(tiles) // 3])
        ends |= {*merge(part, halves[np.array([1, 0])]).values(), *merge_ranges(part, tiles, [(0, len(tiles))] * 2)}
    (state,) = ends

    assert naive_answer("count_distinct(7)", values) == answer("count_distinct(7)", state)
    assert abs(count_of(state, SHARED_BOUND) - distinct) <= 4 * 0.01625 * distinct
    assert (len(state) == STATE_BYTES) == (distinct > SHARED_BOUND)


def test_what_is_counted_exactly_ends_at_the_bound_or_at_a_thousand() -> None:
    """A bound below a thousand is one of a thousand; a higher one holds as many as it says."""
    for bound, held in ((1, 1_000), (1_000, 1_000), (1_001, 1_001), (2_500, 2_500)):
        part, function = Multiset(Column("value", ValueType.INT64), bound), f"count_distinct({bound})"
        at, above = (merge(part, states_of(part, range(size)))[0] for size in (held, held + 1))

        assert held == answer(function, at)
        assert naive_answer(function, range(held + 1)) == answer(function, above)
        assert STATE_BYTES == len(above)
    assert 0 == answer("count_distinct", b"")


def test_an_estimate_is_never_less_than_what_is_known() -> None:
    """Registers that have seen one value, and say that they stand for more than a thousand."""
    registers = overflowed([1])

    assert [1_001, 5_001] == [answer(f"count_distinct({bound})", registers) for bound in (10, 5_000)]


@pytest.mark.parametrize("function", ["histogram(1000)", "mode(1000)", "entropy(1000)"])
def test_functions_of_counts_have_no_answer_beyond_the_bound(function: str) -> None:
    """Registers hold no counts, and are no answer; the thousandth value has one."""
    part = Multiset(Column("value", ValueType.INT64), 1_000)
    at, above = (merge(part, states_of(part, range(size)))[0] for size in (1_000, 1_001))

    assert answer(function, at) is not None
    assert answer(function, above) is None


def test_two_truths_never_overflow() -> None:
    """Flags have two values, and count like integers."""
    part = Multiset(Column("value", ValueType.BOOL), 1)
    events = EventRows(np.zeros(3, dtype=np.int64), None, {"value": ColumnValues(np.array([1, 0, 1]))})
    states = part.lift(events)["state"]
    assert isinstance(states, BlobRow)

    assert 2 == answer("count_distinct(1)", merge(part, states)[0])
    small = SmallMultiset(Column("value", ValueType.BOOL), 1)
    assert overflowed([0, 1]) == merge(small, states)[0]
