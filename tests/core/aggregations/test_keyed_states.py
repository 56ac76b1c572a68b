"""Keyed states: their bytes, their bounds, and that the order of merging never shows.

events    [ ][ ][ ][ ][ ][ ][ ][ ]     one state each
groups     merged in any tree ..... = merged at once = what a lookup merges
"""

from collections.abc import Sequence

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import resolve
from featurestore.core.aggregations.keyed.distinct_kernels import coupons_of
from featurestore.core.aggregations.keyed.states import KeyedPart
from featurestore.core.events import BlobRow, ColumnValues, Int64Array
from featurestore.core.spec import Column, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.tiles.parts import EventRows
from featurestore.core.tiles.tiles import TileLayout
from featurestore.core.view import CompiledView
from featurestore.errors import InvalidRequest
from featurestore.testing.batches import event_columns, keyed_batch
from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue
from featurestore.testing.strategies import SOURCE

COLUMNS = {
    "amount": Column("amount", ValueType.INT64),
    "price": Column("price", ValueType.FLOAT64),
    "market": Column("market", ValueType.STRING),
    "is_declined": Column("is_declined", ValueType.BOOL),
}

EXACT = (
    ("count_distinct(1000)", "amount"),
    ("histogram(10)", "market"),
    ("approx_count_distinct(8)", "amount"),
    ("approx_percentile(0.5)", "price"),
    ("top_k(5)", "price"),
    ("bottom_k_by(5, amount)", "market"),
    ("sum by market(20)", "amount"),
    ("max by amount(2000)", "price"),
)
"""Functions whose states are equal to the bit whatever was merged first, over a column."""


def part_of(function: str, column: str) -> KeyedPart:
    """The only part of a function over one of COLUMNS."""
    aggregation = resolve(function)
    (part,) = aggregation.parts(COLUMNS[column], [COLUMNS[name] for name in aggregation.further_columns])
    assert isinstance(part, KeyedPart)
    return part


def rows_of(values: dict[str, Sequence[NaiveValue | None]], ids: Sequence[bytes] | None = None) -> EventRows:
    """N events a second apart; columns that are not given are not there."""
    count = len(next(iter(values.values())))
    events = [NaiveEvent(b"k", 0, None, {name: values[name][row] for name in values}) for row in range(count)]
    listed = np.empty(count, dtype=np.object_)
    listed[:] = [b"%d" % row for row in range(count)] if ids is None else ids
    return EventRows(np.arange(count) * 1_000, listed, event_columns([COLUMNS[name] for name in values], events))


def lift(part: KeyedPart, rows: EventRows) -> BlobRow:
    """The states of events."""
    states = part.lift(rows)["state"]
    assert isinstance(states, BlobRow)
    return states


def merge(part: KeyedPart, states: BlobRow, starts: Sequence[int] | Int64Array = (0,)) -> BlobRow:
    """The states of runs of rows."""
    (merged,) = part.merge_groups([states], [], np.asarray(starts, dtype=np.int64))
    assert isinstance(merged, BlobRow)
    return merged


def answer(function: str, states: BlobRow, row: int = 0) -> object:
    """What a state is lowered to; None for null."""
    fields = np.empty((1, 1), dtype=np.object_)
    fields[0, 0] = states[row]
    lowered = resolve(function).lower([fields], np.zeros(1, dtype=np.int64))
    return None if lowered.null is not None and lowered.null[0, 0] else lowered.values[0, 0]


def random_rows(count: int, seed: int) -> EventRows:
    """Events with values that repeat."""
    random = np.random.default_rng(seed)
    return rows_of(
        {
            "amount": random.integers(-700, 700, count).tolist(),
            "price": (random.integers(-40, 400, count) / 4).tolist(),
            "market": [f"market-{number}" for number in random.integers(0, 12, count)],
        }
    )


@pytest.mark.parametrize(("function", "column"), EXACT)
def test_any_tree_of_merges_gives_equal_bytes(function: str, column: str) -> None:
    """Two thousand events merged in runs of any length and order, twice over, and at once."""
    part, random = part_of(function, column), np.random.default_rng(5)
    states = lift(part, random_rows(2_000, 1))
    at_once = merge(part, states).values()
    for _ in range(5):
        cuts = np.unique(random.integers(1, 2_000, 300))
        some = merge(part, states[random.permutation(2_000)], np.append(0, cuts))
        fewer = merge(part, some[random.permutation(len(some))], [0, 7, 50, 51, len(some) // 2])

        assert at_once == merge(part, fewer).values()


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(("function", "column"), EXACT)
def test_windows_are_the_merged_groups(function: str, column: str, many: bool) -> None:
    """Ranges that overlap, end early, hold one row or none give what each gives alone; so do many."""
    part = part_of(function, column)
    tiles = merge(part, lift(part, random_rows(600, 2)), np.arange(0, 600, 6))
    ranges = [(0, 100), (95, 100), (3, 90), (40, 41), (50, 50), (99, 100), (0, 0), (60, 20)] * (10 if many else 1)
    lows, highs = (np.array(edges, dtype=np.int64) for edges in zip(*ranges, strict=True))
    (merged,) = part.merge_ranges([tiles], lows, highs)
    assert isinstance(merged, BlobRow)
    expected = [merge(part, tiles[np.arange(low, high)]).values()[0] if low < high else b"" for low, high in ranges]

    assert expected == merged.values()


def test_states_have_these_bytes() -> None:
    """The layout is pinned: stored bodies hold such states."""
    rows = rows_of(
        {"amount": [300, -1, 300, None], "market": ["SE", None, "DE", "DE"], "price": [0.5, -0.0, 0.0, None]}
    )
    amounts, prices = part_of("histogram", "amount"), part_of("histogram", "price")
    sums = part_of("sum by market", "amount")

    assert [b"\x01" + b"\x01\x02" + b"\xad\x02\x04"] == merge(amounts, lift(amounts, rows)).values()
    assert [b"\x02" + b"\x00\x04" + b"\x80\x80\x80\x80\x80\x80\x80\xf0\x3f\x02"] == merge(
        prices, lift(prices, rows)
    ).values()
    # Type of the summed column (INT64: 1) x 8 + TEXT; key, upper and lower half of the sum.
    assert [b"\x0b" + b"\x02DE\x00\xd8\x04" + b"\x02SE\x00\xd8\x04"] == merge(sums, lift(sums, rows)).values()


def test_null_values_leave_no_state() -> None:
    """Nulls are skipped: of the column, and of the secondary key."""
    rows = rows_of({"amount": [None, 1, None], "market": ["DE", None, None]})

    assert [b"", b"", b""] == lift(part_of("sum by market", "amount"), rows).values()
    assert [True, False, True] == [state == b"" for state in lift(part_of("top_k(3)", "amount"), rows).values()]


def test_exact_answers_end_at_their_bound() -> None:
    """As many distinct values as the bound have an answer, one more has none."""
    rows = rows_of({"amount": [1, 2, 3, 3, 4]})
    part = part_of("histogram(3)", "amount")
    states = merge(part, lift(part, rows), [0, 4])
    everything = merge(part, states)

    assert {"1": 1, "2": 1, "3": 2} == answer("histogram(3)", states)
    assert 3 == answer("mode(3)", states)
    assert [None] * 3 == [answer(f"{name}(3)", everything) for name in ("histogram", "mode", "entropy")]


def test_a_state_that_held_too_many_keys_absorbs() -> None:
    """Once a tile has forgotten its keys, no window over it has an answer, and it stays one byte."""
    part = part_of("count by amount(1000)", "amount")
    full = merge(part, lift(part, rows_of({"amount": list(range(1_001))})))
    later = merge(part, BlobRow.of([*full.values(), *lift(part, rows_of({"amount": [5]})).values()]))

    assert [b"\0"] == full.values() == later.values()
    assert answer("count by amount(1000)", later) is None


def test_functions_of_a_columns_values_share_one_part() -> None:
    """Distinct count, histogram, mode and entropy store the values once; a higher bound stores them anew."""
    texts = ("count_distinct(1000)", "histogram(100)", "mode(50)", "entropy(1000)", "histogram(5000)")
    parts = [part for text in texts for part in resolve(text).parts(COLUMNS["amount"])]

    assert ["multiset(amount,1000)", "multiset(amount,5000)"] == [one.part.key for one in TileLayout(parts).parts]


def test_ties_among_ranked_values_are_broken_by_time_then_id() -> None:
    """Newest first in descending order; ids compare as bytes, those with zero bytes too."""
    rows = rows_of({"market": list("abcde"), "amount": [7] * 5}, [b"z", b"a", b"a\0", b"a\0\1", b"b"])
    same_time = EventRows(np.array([5, 9, 9, 9, 9]), rows.event_ids, rows.columns)
    top, bottom = "top_k_by(9, amount)", "bottom_k_by(2, amount)"

    assert list("edcba") == answer(top, merge(part_of(top, "market"), lift(part_of(top, "market"), same_time)))
    assert list("ab") == answer(bottom, merge(part_of(bottom, "market"), lift(part_of(bottom, "market"), same_time)))


def test_top_lists_keep_duplicates_and_signs() -> None:
    """The n most extreme values, each as often as it occurs."""
    rows = rows_of({"amount": [5, -(2**63), 5, 2**63 - 1, 5, 4], "price": [-1.5, 0.25, -1.5, -0.0, 1e300, None]})
    amounts, prices = part_of("top_k(3)", "amount"), part_of("bottom_k(3)", "price")

    assert [2**63 - 1, 5, 5] == answer("top_k(3)", merge(amounts, lift(amounts, rows)))
    assert [-1.5, -1.5, 0.0] == answer("bottom_k(3)", merge(prices, lift(prices, rows)))


def test_a_secondary_key_has_a_default_bound_and_keeps_its_case() -> None:
    """The canonical text says everything."""
    assert ["count by Country(100)", "sum by b(3)"] == [
        resolve(text).name for text in ("COUNT  By Country", "sum by b( 3 )")
    ]


@pytest.mark.parametrize("function", ["stddev_pop", "last", "histogram", "count by market", "top_k_by(3, amount)"])
def test_a_secondary_key_takes_sums_and_extremes_only(function: str) -> None:
    """Others are refused with the reason."""
    with pytest.raises(InvalidRequest, match="cannot be taken by a secondary key"):
        resolve(f"{function} by market")


@pytest.mark.parametrize("text", ["sum by market(0)", "sum by market(10001)", "sum by market(x)", "sum by"])
def test_a_secondary_key_with_a_wrong_bound_is_refused(text: str) -> None:
    """Refused where it is written, not where it is read."""
    with pytest.raises(InvalidRequest):
        resolve(text)


def test_a_condition_reaches_keyed_states() -> None:
    """Events that fail it leave nothing: neither a value, nor a key, nor a rank."""
    texts = (("count by market(9)", None), ("top_k_by(2, amount)", "market"), ("count_distinct(9)", "is_declined"))
    features = [
        FeatureSpec(name, name, column, Window(None), output, "amount > 2")
        for name, column in texts
        if (output := resolve(name).output_type(COLUMNS[column].type if column else None)) is not None
    ]
    view = CompiledView(ViewSpec("v", (), SOURCE, tuple(features), None))
    markets = ("SE", "DE", "SE", None, "FI")
    events = [
        NaiveEvent(b"k", 1_000 * row, b"%d" % row, {"amount": row + 1, "market": market, "is_declined": row == 0})
        for row, market in enumerate(markets)
    ]
    batch = keyed_batch(view.spec, events)
    answer = view.answer(view.layout.lift(EventRows(batch.event_time_ms, batch.event_ids, batch.columns)), 9_000)

    assert [{"FI": 1, "SE": 1}, ["FI", "SE"]] == [answer.objects[0], answer.objects[1]]
    assert 1 == answer.ints[2]


def test_texts_do_not_rank() -> None:
    """The column that ranks is a number or a moment."""
    with pytest.raises(InvalidRequest, match='column "market" of type string cannot rank'):
        part_of("top_k_by(3, market)", "amount")


@settings(max_examples=50)
@given(texts=st.lists(st.binary(max_size=100), min_size=1, max_size=5))
def test_hashes_are_those_of_xxh64(texts: list[bytes]) -> None:
    """The compiled loop equals the library, whatever the length."""
    prefixes = [xxhash.xxh64_intdigest(text) >> 38 for text in texts]

    assert prefixes == (coupons_of(BlobRow.of(texts)) >> 6).tolist()


def test_integers_are_hashed_as_eight_bytes() -> None:
    """So that a count of numbers does not depend on how they are written."""
    numbers = ColumnValues(np.array([0, -1, 2**63 - 1]))
    prefixes = [xxhash.xxh64_intdigest(n.to_bytes(8, "little", signed=True)) >> 38 for n in (0, -1, 2**63 - 1)]

    assert prefixes == (coupons_of(numbers) >> 6).tolist()
