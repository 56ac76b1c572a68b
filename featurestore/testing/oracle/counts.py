"""The naive oracle's counts by value, percentiles, top lists, distinct counts and secondary keys.

Nothing is shared with `core`: buckets of logarithms are found by exact powers of rational numbers, hashes come from
the `xxhash` package, HyperLogLog registers are a list of integers.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

import xxhash

from featurestore.testing.oracle.values import NaiveAnswer, NaiveFunction, NaiveRow, NaiveValue

BUCKETS_PER_OCTAVE = 35


def lower_with_further(
    function: str,
    rows: Sequence[NaiveRow],
    others: Sequence[NaiveValue | None],
    lower: Callable[[str, Sequence[NaiveRow]], NaiveAnswer | None],
) -> NaiveAnswer | None:
    """The answer of a function that reads a further column.

    Args:
        function: its text, such as "top_k_by(3, amount)" or "sum by market(100)".
        rows: the rows inside the window.
        others: value of the further column of each.
        lower: the answer of a function without one.
    """
    present = [(row, other) for row, other in zip(rows, others, strict=True) if other is not None and other == other]
    inner, by, listed = function.partition(" by ")
    if by:
        return _by(inner, present, int(listed.rpartition("(")[2].rstrip(")")), lower)
    name, _, listed = function.partition("(")
    ranked = sorted((other, *row) for row, other in present)
    if name == "top_k_by":
        ranked.reverse()
    values = [value for *_, value in ranked[: int(listed.partition(",")[0])]]
    return _list(values)


def further_column(function: str) -> str | None:
    """Name of the column that a function reads beside its own; None for most."""
    _, by, listed = function.partition(" by ")
    if by:
        return listed.partition("(")[0]
    name, _, listed = function.partition("(")
    return listed.rstrip(")").partition(",")[2].strip() if name in {"top_k_by", "bottom_k_by"} else None


def _by(
    inner: str,
    present: Sequence[tuple[NaiveRow, NaiveValue]],
    bound: int,
    lower: Callable[[str, Sequence[NaiveRow]], NaiveAnswer | None],
) -> dict[str, int] | dict[str, float] | None:
    """The function over the rows of each key."""
    groups: dict[NaiveValue, list[NaiveRow]] = {}
    for row, key in present:
        groups.setdefault(key, []).append(row)
    if not groups or len(groups) > bound:
        return None
    answers: dict[str, float] = {}
    for key, rows in groups.items():
        answer = lower(inner, rows)
        if isinstance(answer, int | float):
            answers[_text(key)] = answer
    return answers


def _counts(rows: Sequence[NaiveRow], bound: str) -> Counter[NaiveValue] | None:
    """How often each value occurs; null when there is none, or more than the bound."""
    counts = Counter(value for _, _, value in rows)
    return counts if 0 < len(counts) <= int(bound) else None


def _histogram(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> dict[str, int] | None:
    counts = _counts(rows, arguments[0])
    return None if counts is None else {_text(value): count for value, count in counts.items()}


def _mode(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> NaiveValue | None:
    counts = _counts(rows, arguments[0])
    if counts is None:
        return None
    most = max(counts.values())
    return min((value for value, count in counts.items() if count == most), key=_order)


def _entropy(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> float | None:
    counts = _counts(rows, arguments[0])
    if counts is None:
        return None
    return -sum(n / len(rows) * math.log2(n / len(rows)) for n in counts.values()) + 0.0


def _count_distinct(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> int | None:
    distinct = len({value for _, _, value in rows})
    return distinct if distinct <= int(arguments[0]) else None


def _heavy_hitters(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> dict[str, int] | None:
    """The exact counts: what the sketch gives while it has a counter for each value."""
    counts = Counter(value for _, _, value in rows)
    heaviest = sorted(counts, key=lambda value: (-counts[value], _order(value)))[: int(arguments[0])]
    return {_text(value): counts[value] for value in heaviest} or None


def _extremes(*, is_top: bool) -> NaiveFunction:
    """The n largest or smallest values."""

    def lower(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> NaiveAnswer | None:
        values = sorted((value for _, _, value in rows), reverse=is_top)
        return _list([_positive_zero(value) for value in values[: int(arguments[0])]])

    return lower


def _percentiles(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> float | list[float] | None:
    """The middle of the bucket of the value of nearest rank."""
    if not rows:
        return None
    values = sorted(Fraction(value) for _, _, value in rows)
    ranks = [max(1, math.ceil(Fraction(share) * len(values))) for share in arguments]
    answers = [_middle(values[rank - 1]) for rank in ranks]
    return answers[0] if len(answers) == 1 else answers


def _median(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> float | list[float] | None:
    return _percentiles(rows, as_of_ms, ["0.5"])


def _middle(value: Fraction) -> float:
    """What the bucket [2**(e + j / 35), 2**(e + (j + 1) / 35)) of a value answers with."""
    if value == 0:
        return 0.0
    size = abs(value)
    octave = math.frexp(float(size))[1] - 1  # the float, since that is what sketches see of large integers
    within = Fraction(float(size)) / Fraction(2) ** octave
    cut = max(j for j in range(BUCKETS_PER_OCTAVE) if 2**j <= within**BUCKETS_PER_OCTAVE)
    low, high = 2 ** (cut / BUCKETS_PER_OCTAVE), 2 ** ((cut + 1) / BUCKETS_PER_OCTAVE)
    middle = math.ldexp(2 * low * high / (low + high), octave)
    return middle if value > 0 else -middle


def _approximate_distinct(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> int:
    """HyperLogLog from the set of all hashes at once."""
    lg_k = int(arguments[0])
    hashes = {xxhash.xxh64_intdigest(_hashed_bytes(value)) for _, _, value in rows}
    coupons = {(word >> 38, _first_one(word & (1 << 38) - 1, 38)) for word in hashes}
    if len(coupons) <= (1 << lg_k) // 4:
        return len(coupons)
    registers = [0] * (1 << lg_k)
    for word in hashes:
        register = word >> (64 - lg_k)
        registers[register] = max(registers[register], _first_one(word & (1 << 64 - lg_k) - 1, 64 - lg_k))
    return round(_ertl(registers, 64 - lg_k))


def _first_one(word: int, bits: int) -> int:
    """Position of the first 1 among so many bits, from 1."""
    return bits - word.bit_length() + 1


def _ertl(registers: Sequence[int], rank_max: int) -> float:
    """Ertl 2017, algorithm 6, as published."""
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


def _hashed_bytes(value: NaiveValue) -> bytes:
    """Text as UTF-8, integers as 8 bytes, floats as the bits whose order as integers is that of the floats."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        return value.to_bytes(8, "little", signed=True)
    (bits,) = struct.unpack("<q", struct.pack("<d", value + 0.0))
    return struct.pack("<q", bits if bits >= 0 else bits ^ (1 << 63) - 1)


def _text(value: NaiveValue) -> str:
    """A value as the key of a map."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(_positive_zero(value))


def _positive_zero(value: NaiveValue) -> NaiveValue:
    """-0.0 is 0.0."""
    return value + 0.0 if isinstance(value, float) else value


def _order(value: NaiveValue) -> NaiveValue | bytes:
    """Texts in the order of UTF-8."""
    return value.encode() if isinstance(value, str) else value


def _list(values: Sequence[NaiveValue]) -> NaiveAnswer | None:
    """Some values; null when there are none."""
    listed: list[NaiveValue] = list(values)
    return listed or None  # type: ignore[return-value]  # values of one column have one type


COUNTED: dict[str, NaiveFunction] = {
    "histogram": _histogram,
    "mode": _mode,
    "entropy": _entropy,
    "count_distinct": _count_distinct,
    "approx_count_distinct": _approximate_distinct,
    "approx_percentile": _percentiles,
    "median": _median,
    "top_k": _extremes(is_top=True),
    "bottom_k": _extremes(is_top=False),
    "approx_heavy_hitters": _heavy_hitters,
}
"""The functions by name."""
