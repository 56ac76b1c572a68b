"""Multisets: the values of a column with their counts; of too many distinct ones, registers that tell how many.

    values of 1 2 3 3     tag | 1 x1, 2 x1, 3 x2        while no more than `limit` are distinct; none: no byte
    1,001 values          TOO_MANY | 4,096 registers    HyperLogLog of all of them, as `approx_count_distinct` keeps it
    merging               counts are added up; once one side is registers, or the keys of both are too many, the keys
                          that are left are hashed into registers, and of each register the highest stays

    laws              either form is a function of what was merged and of no order: which one it is depends on the
                      number of distinct values, the counts on how often each came, the registers on the set of values
    space             one entry a value, then 4,097 bytes whatever comes
    error             1.04 / 2**(LG_K / 2) = 1.6 % (standard error)

Functions of counts are null over registers. All bounds up to SHARED_BOUND share one part, so a column's values are
stored once.

Source: see `approx_count_distinct`. Why its coupons are not used here: a multiset already holds what they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from featurestore.core.aggregations.keyed.distinct_kernels import (
    coupons_of,
    estimate_distinct,
    fill_registers_by_coupons,
)
from featurestore.core.aggregations.keyed.kernels import TEXT_KEYS, TOO_MANY, decode_rows
from featurestore.core.aggregations.keyed.states import (
    SHARED_WINDOWS_MAX,
    Entries,
    StateLayout,
    ValueCounts,
    is_too_many,
    read_state,
    replace_too_many,
)
from featurestore.core.events import BlobRow, ColumnValues, Int64Array
from featurestore.core.spec import Column
from featurestore.core.tiles.parts import Array

SHARED_BOUND = 1_000
"""Fewest distinct values that a part holds; functions of counts are null above a lower bound all the same."""

DISTINCT_MAX = 10_000
"""Highest bound: some 100 KB a tile of numbers."""

LG_K = 12
"""An error of 1.6 % takes about as many bytes as a thousand numbers with their counts: who overflows pays no more."""


class Multiset(ValueCounts):
    """Non-null values of a column with their counts; see the module docstring.

    Args:
        column: whose values.
        bound: number of distinct values of which an answer is wanted.
    """

    def __init__(self, column: Column, bound: int) -> None:
        held = held_values(bound)
        super().__init__(f"multiset({column.name},{held})", column, limit=held)

    def merge_states(self, states: BlobRow, lows: Int64Array, highs: Int64Array, windows_a_span: int) -> BlobRow:
        """As of any keyed part, but too many values become registers."""
        merged = super().merge_states(states, lows, highs, windows_a_span)
        many = np.flatnonzero(merged.ends - merged.begins == 1)
        if not len(many):
            return merged
        return replace_too_many(merged, many, _registers_of(states, lows[many], highs[many], self.layout))


def held_values(bound: int) -> int:
    """How many distinct values are held, and counted exactly, by the part of a function with that bound."""
    return max(bound, SHARED_BOUND)


def each_multiset(states: Array, bound: int) -> Iterator[tuple[tuple[int, int], Entries]]:
    """Place and entries of every state that is not empty and holds at most `bound` values; (K, R) states."""
    for place, state in np.ndenumerate(states):
        if state and not is_too_many(state):
            entries = read_state(state)
            if len(entries) <= bound:
                yield (place[0], place[1]), entries


def count_of(state: bytes, held: int) -> int:
    """How many distinct values a state that is not empty has seen.

    Args:
        state: as a `Multiset` keeps it.
        held: number of values that it may hold.

    Returns:
        The number itself up to `held`; above, the estimate, but no less than `held` + 1, as that many there were.
    """
    if is_too_many(state):
        return max(held + 1, round(estimate_distinct(np.frombuffer(state, np.uint8), LG_K)))
    return len(read_state(state))


def _registers_of(states: BlobRow, lows: Int64Array, highs: Int64Array, layout: StateLayout) -> Array:
    """(W, 1 + 2**LG_K) states of W ranges of rows that hold too many values; ranges may share rows.

    Some ranges at a time, as many as a lookup has: history asks for thousands, and their values take memory.
    """
    out = np.zeros((len(lows), 1 + (1 << LG_K)), dtype=np.uint8)
    out[:, 0] = TOO_MANY
    for first in range(0, len(lows), SHARED_WINDOWS_MAX):
        some = slice(first, first + SHARED_WINDOWS_MAX)
        _fill_registers(states, lows[some], highs[some], layout, out[some])
    return out


def _fill_registers(states: BlobRow, lows: Int64Array, highs: Int64Array, layout: StateLayout, out: Array) -> None:
    """Of W ranges, into their rows of `out`; the values of a row are hashed once, however many ranges it is in."""
    low, high = int(lows.min()), int(highs.max())
    begins, ends = states.begins[low:high], states.ends[low:high]
    covering = np.zeros(high - low + 1, dtype=np.int64)
    np.add.at(covering, lows - low, 1)
    np.add.at(covering, highs - low, -1)
    is_read = (np.cumsum(covering[:-1]) > 0) & (ends > begins)
    places = np.append(0, np.cumsum(is_read))
    rows = BlobRow(states.buffer, begins[is_read], ends[is_read])
    coupons, firsts = _coupons_of_rows(rows, layout)
    data, ranges = np.frombuffer(rows.buffer, np.uint8), (places[lows - low], places[highs - low])
    wrong = fill_registers_by_coupons(coupons, firsts, data, rows.begins, rows.ends, *ranges, LG_K, out.reshape(-1))
    assert wrong == 0, "a state of too many values has its registers"


def _coupons_of_rows(rows: BlobRow, layout: StateLayout) -> tuple[Int64Array, Int64Array]:
    """Coupons of all values of N states, and (N + 1,) where each state's begin; those of too many have none."""
    data = np.frombuffer(rows.buffer, np.uint8)
    is_whole = data[rows.begins] == layout.tag
    room = int((rows.ends - rows.begins)[is_whole].sum()) // layout.entry_bytes_min + 1
    keys, ends, bits = np.empty(room, np.int64), np.empty(room, np.int64), np.empty((1, room), np.int64)
    firsts = np.empty(len(rows) + 1, dtype=np.int64)
    count = decode_rows(data, rows.begins, rows.ends, layout.shape, keys, ends, bits, firsts)
    if layout.kind == TEXT_KEYS:
        return coupons_of(BlobRow(rows.buffer, keys[:count], ends[:count])), firsts
    return coupons_of(ColumnValues(keys[:count])), firsts
