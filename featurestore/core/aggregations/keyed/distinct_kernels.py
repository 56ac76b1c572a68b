"""Compiled loops of distinct counts: XXH64 of values, HyperLogLog's registers, and Ertl's estimate.

A hash h of 64 bits becomes a coupon of 32: its first 26 bits, then the rank (position of the first 1, from 1) of the
38 bits that follow. A sketch of 2**lg_k registers reads from a coupon which register it is for (the first lg_k bits)
and the rank of all bits behind, so a coupon says whatever any register could want to know of its hash.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import BYTES, FLAGS, FLOAT, INT, INTS, compiled, inlined
from featurestore.core.events import BlobRow, ColumnValues, Int64Array
from featurestore.core.tiles.parts import Array

SPARSE, DENSE = 1, 2
"""First byte of a sketch: coupons as an ascending list (see `kernels`), or a byte for each register."""

COUPON_BITS = 26
RANK_BITS = 6

_NUMBER_BYTES = 8
_REST_BITS = 64 - COUPON_BITS
_PRIME_1, _PRIME_2, _PRIME_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_PRIME_4, _PRIME_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


@inlined
def _rotate(word: Any, by: int) -> Any:
    """To the left."""
    return (word << np.uint64(by)) | (word >> np.uint64(64 - by))


@inlined
def _word(data: Array, at: int, size: int) -> Any:
    """A little-endian unsigned integer."""
    value = np.uint64(0)
    for index in range(size):
        value |= np.uint64(data[at + index]) << np.uint64(8 * index)
    return value


@inlined
def _round(total: Any, word: Any) -> Any:
    """One step of XXH64."""
    return _rotate(total + word * np.uint64(_PRIME_2), 31) * np.uint64(_PRIME_1)


@inlined
def _xxh64(data: Array, at: int, end: int) -> Any:
    """XXH64 of some bytes with seed 0, as published by Yann Collet; `xxhash.xxh64_intdigest` gives the same."""
    size = np.uint64(end - at)
    total = np.uint64(_PRIME_5)
    if end - at >= 32:
        one, two = np.uint64(_PRIME_1) + np.uint64(_PRIME_2), np.uint64(_PRIME_2)
        three, four = np.uint64(0), np.uint64(0) - np.uint64(_PRIME_1)
        while end - at >= 32:
            one = _round(one, _word(data, at, 8))
            two = _round(two, _word(data, at + 8, 8))
            three = _round(three, _word(data, at + 16, 8))
            four = _round(four, _word(data, at + 24, 8))
            at += 32
        total = _rotate(one, 1) + _rotate(two, 7) + _rotate(three, 12) + _rotate(four, 18)
        for lane in (one, two, three, four):
            total = (total ^ _round(np.uint64(0), lane)) * np.uint64(_PRIME_1) + np.uint64(_PRIME_4)
    total += size
    while end - at >= 8:
        mixed = total ^ _round(np.uint64(0), _word(data, at, 8))
        total = _rotate(mixed, 27) * np.uint64(_PRIME_1) + np.uint64(_PRIME_4)
        at += 8
    if end - at >= 4:
        mixed = total ^ (_word(data, at, 4) * np.uint64(_PRIME_1))
        total = _rotate(mixed, 23) * np.uint64(_PRIME_2) + np.uint64(_PRIME_3)
        at += 4
    while at < end:
        total = _rotate(total ^ (np.uint64(data[at]) * np.uint64(_PRIME_5)), 11) * np.uint64(_PRIME_1)
        at += 1
    total = (total ^ (total >> np.uint64(33))) * np.uint64(_PRIME_2)
    total = (total ^ (total >> np.uint64(29))) * np.uint64(_PRIME_3)
    return total ^ (total >> np.uint64(32))


@inlined
def _rank(word: Any, bits: int) -> Any:
    """Position of the first 1 in the lowest `bits` bits, from 1; bits + 1 when there is none."""
    rank = 1
    while rank <= bits and (word >> np.uint64(bits - rank)) & np.uint64(1) == np.uint64(0):
        rank += 1
    return rank


@inlined
def _read_coupon(coupon: Any, lg_k: int) -> Any:
    """Which register a coupon is for, and the rank that it says."""
    between = COUPON_BITS - lg_k
    prefix = coupon >> np.uint64(RANK_BITS)
    rank: Any = _rank(prefix, between)
    if rank > between:
        rank = between + np.int64(coupon & np.uint64((1 << RANK_BITS) - 1))
    return np.int64(prefix >> np.uint64(between)), np.uint8(rank)


@inlined
def _raise_all(mine: Array, other: Array) -> Any:
    """The maximum of each register; returns how many there are."""
    for register in range(len(mine)):
        mine[register] = max(mine[register], other[register])
    return len(mine)


def coupons_of(keys: ColumnValues | BlobRow) -> Int64Array:
    """(N,) coupons of texts, or of numbers as 8 bytes."""
    if not isinstance(keys, BlobRow):
        numbers = np.asarray(keys.values)
        begins = _NUMBER_BYTES * np.arange(len(numbers))
        keys = BlobRow(numbers.astype("<i8").tobytes(), begins, begins + _NUMBER_BYTES)
    coupons = np.empty(len(keys), dtype=np.int64)
    spans = np.ascontiguousarray(keys.begins), np.ascontiguousarray(keys.ends)
    hash_coupons(np.frombuffer(keys.buffer, np.uint8), *spans, coupons)
    return coupons


@compiled(INT, BYTES, INTS, INTS, INTS)
def hash_coupons(data: Array, begins: Int64Array, ends: Int64Array, coupons: Int64Array) -> int:
    """The coupons of N byte strings.

    Args:
        data: holds the strings.
        begins: (N,) where each begins.
        ends: (N,) where it ends.
        coupons: (N,) receives the coupons.
    """
    for row in range(len(begins)):
        word = _xxh64(data, begins[row], ends[row])
        prefix = np.int64(word >> np.uint64(_REST_BITS))
        coupons[row] = (prefix << RANK_BITS) | _rank(word, _REST_BITS)
    return 0


@compiled(INT, BYTES, INTS, INTS, INTS, INTS, INT, FLAGS)
def fill_registers(
    data: Array,
    begins: Int64Array,
    row_ends: Int64Array,
    lows: Int64Array,
    highs: Int64Array,
    lg_k: int,
    out: Array,
) -> int:
    """Merge ranges of rows into dense sketches.

    Args:
        data: holds the sketches of the rows.
        begins: (N,) where each begins.
        row_ends: (N,) where it ends.
        lows: (W,) first row of each range.
        highs: (W,) row behind its last.
        lg_k: binary logarithm of the number of registers.
        out: (W * (1 + 2**lg_k),) receives the sketches, one after another.
    """
    registers = 1 << lg_k
    for window in range(len(lows)):
        base = window * (registers + 1)
        out[base] = DENSE
        mine = out[base + 1 : base + 1 + registers]
        mine[:] = 0
        for row in range(lows[window], highs[window]):
            at, end = begins[row], row_ends[row]
            if at < end and data[at] == DENSE:
                _raise_all(mine, data[at + 1 : end])
                continue
            coupon, is_first = np.uint64(0), True
            at += 1
            while at < end:
                number, shift = np.uint64(0), np.uint64(0)
                while data[at] >= 0x80:
                    number |= (np.uint64(data[at]) & np.uint64(0x7F)) << shift
                    shift += np.uint64(7)
                    at += 1
                number |= np.uint64(data[at]) << shift
                at += 1
                coupon = number >> np.uint64(1) if is_first else coupon + number
                is_first = False
                place, rank = _read_coupon(coupon, lg_k)
                mine[place] = max(mine[place], rank)
    return 0


@compiled(INT, INTS, INTS, BYTES, INTS, INTS, INTS, INTS, INT, FLAGS)
def fill_registers_by_coupons(
    coupons: Int64Array,
    firsts: Int64Array,
    data: Array,
    begins: Int64Array,
    row_ends: Int64Array,
    lows: Int64Array,
    highs: Int64Array,
    lg_k: int,
    out: Array,
) -> int:
    """Count ranges of rows that have coupons or registers; returns the number of rows that have neither.

    Args:
        coupons: of all rows, one row after another.
        firsts: (N + 1,) where each row's begin.
        data: holds the registers of rows without coupons, each behind a byte.
        begins: (N,) where each row's bytes begin.
        row_ends: (N,) where they end.
        lows: (W,) first row of each range.
        highs: (W,) row behind its last.
        lg_k: binary logarithm of the number of registers.
        out: (W * (1 + 2**lg_k),) zeros; receives the registers, each range's behind a byte that stays.
    """
    registers, wrong = 1 << lg_k, 0
    places, ranks = np.empty(len(coupons), np.uint16), np.empty(len(coupons), np.uint8)
    for index in range(len(coupons)):
        places[index], ranks[index] = _read_coupon(np.uint64(coupons[index]), lg_k)
    for window in range(len(lows)):
        base = window * (registers + 1)
        mine = out[base + 1 : base + 1 + registers]
        for row in range(lows[window], highs[window]):
            for index in range(firsts[row], firsts[row + 1]):
                mine[places[index]] = max(mine[places[index]], ranks[index])
            if firsts[row] < firsts[row + 1]:
                continue
            if row_ends[row] - begins[row] == registers + 1:
                _raise_all(mine, data[begins[row] + 1 : row_ends[row]])
            else:
                wrong += 1
    return wrong


@compiled(FLOAT, BYTES, INT)
def estimate_distinct(sketch: Array, lg_k: int) -> float:
    """How many distinct values filled 2**lg_k registers, which stand behind a byte as in a dense sketch.

    Source: Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6: unbiased from
    zero up, without tables and without a switch between estimators.
    """
    registers, rest = 1 << lg_k, 64 - lg_k
    having = np.zeros(rest + 2, dtype=np.int64)
    for index in range(1, registers + 1):
        having[sketch[index]] += 1
    saturated = 1.0 - having[rest + 1] / registers
    tau = 0.0
    if 0.0 < saturated < 1.0:
        weight, before = 1.0, -1.0
        tau = 1.0 - saturated
        while tau != before:
            saturated = np.sqrt(saturated)
            before = tau
            weight *= 0.5
            tau -= (1.0 - saturated) ** 2 * weight
        tau /= 3.0
    total = registers * tau
    for rank in range(rest, 0, -1):
        total = 0.5 * (total + having[rank])
    empty = having[0] / registers
    if empty == 1.0:
        return 0.0
    weight, before, sigma = 1.0, -1.0, empty
    while sigma != before:
        empty *= empty
        before = sigma
        sigma += empty * weight
        weight += weight
    total += registers * sigma
    return float(registers / (2.0 * np.log(2.0)) * registers / total)
