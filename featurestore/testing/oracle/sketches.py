"""The naive oracle's sketches: what approximations answer, from their published definitions and all values at once.

Percentiles answer with the middle of a logarithmic bucket, which is found by exact powers of rational numbers. Distinct
counts are HyperLogLog over hashes of the `xxhash` package, with registers in a list: of all values, or where counting
them one by one ends.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction

import xxhash

from featurestore.testing.oracle.events import NaiveValue, Rows

BUCKETS_PER_OCTAVE = 35

COUNTED_MIN = 1_000
"""Distinct values that are counted exactly, however low the bound."""


def approx_percentile(rows: Rows, *shares: str) -> float | list[float] | None:
    """The value of the nearest rank, as its bucket tells it; a list for several shares."""
    if not rows:
        return None
    values = sorted(Fraction(row.value) for row in rows)
    ranks = [max(1, math.ceil(Fraction(share) * len(values))) for share in shares]
    answers = [_bucket_middle(float(values[rank - 1])) for rank in ranks]
    return answers[0] if len(answers) == 1 else answers


def median(rows: Rows) -> float | list[float] | None:
    """The percentile of a half."""
    return approx_percentile(rows, "0.5")


def approx_count_distinct(rows: Rows, lg_k: str) -> int:
    """HyperLogLog of 2**lg_k registers, from the set of all hashes.

    While there are few, the distinct coupons count: 26 bits of the hash, and where behind them the first 1 is.
    """
    hashes = _hashes(rows)
    coupons = {(word >> 38, _first_one(word, 38)) for word in hashes}
    if len(coupons) <= (1 << int(lg_k)) // 4:
        return len(coupons)
    return _estimate(hashes, int(lg_k))


def count_distinct(rows: Rows, bound: str) -> int:
    """The number itself up to the bound; above, HyperLogLog's of 4,096 registers, but more than the bound."""
    distinct, counted_max = len({row.value for row in rows}), max(int(bound), COUNTED_MIN)
    return distinct if distinct <= counted_max else max(counted_max + 1, _estimate(_hashes(rows), 12))


def _hashes(rows: Rows) -> set[int]:
    """XXH64 of all values."""
    return {xxhash.xxh64_intdigest(_hashed_bytes(row.value)) for row in rows}


def _estimate(hashes: Iterable[int], lg_k: int) -> int:
    """HyperLogLog of 2**lg_k registers."""
    width, registers = 64 - lg_k, [0] * (1 << lg_k)
    for word in hashes:
        registers[word >> width] = max(registers[word >> width], _first_one(word, width))
    return round(_ertl(registers, width))


def _bucket_middle(number: float) -> float:
    """The harmonic middle of the bucket [2**(e + j / 35), 2**(e + (j + 1) / 35)) of a number; 0 is its own."""
    if number == 0:
        return 0.0
    octave = math.frexp(number)[1] - 1
    within = abs(Fraction(number)) / Fraction(2) ** octave
    bucket = max(j for j in range(BUCKETS_PER_OCTAVE) if 2**j <= within**BUCKETS_PER_OCTAVE)
    low, high = 2 ** (bucket / BUCKETS_PER_OCTAVE), 2 ** ((bucket + 1) / BUCKETS_PER_OCTAVE)
    return math.copysign(math.ldexp(2 * low * high / (low + high), octave), number)


def _hashed_bytes(value: NaiveValue) -> bytes:
    """Text as UTF-8, integers as 8 bytes, floats as the bits whose order as integers is that of the floats."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        return value.to_bytes(8, "little", signed=True)
    (bits,) = struct.unpack("<q", struct.pack("<d", value + 0.0))  # -0.0 is 0.0
    return struct.pack("<q", bits if bits >= 0 else bits ^ (2**63 - 1))


def _first_one(word: int, bits: int) -> int:
    """Position, from 1, of the first 1 among the last so many bits."""
    return bits - (word % (1 << bits)).bit_length() + 1


def _ertl(registers: Sequence[int], rank_max: int) -> float:
    """Ertl 2017, "New cardinality estimation algorithms for HyperLogLog sketches", algorithm 6, as published."""
    size, having = len(registers), Counter(registers)
    total = size * _tau(1 - having[rank_max + 1] / size)
    for rank in range(rank_max, 0, -1):
        total = 0.5 * (total + having[rank])
    return size / (2 * math.log(2)) * size / (total + size * _sigma(having[0] / size))


def _sigma(x: float) -> float:
    if x == 1:
        return math.inf
    y, z, before = 1.0, x, None
    while z != before:
        x, before = x * x, z
        z, y = z + x * y, y + y
    return z


def _tau(x: float) -> float:
    if x in {0, 1}:
        return 0.0
    y, z, before = 1.0, 1 - x, None
    while z != before:
        x, before, y = math.sqrt(x), z, 0.5 * y
        z -= (1 - x) ** 2 * y
    return z / 3
