"""The naive oracle's moments, ordered values, times and decayed sums, in exact arithmetic where that is possible."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from featurestore.testing.oracle.values import NaiveFunction, NaiveRow

DAY_MS = 86_400_000
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}


def _variance(*, is_sample: bool) -> NaiveFunction:
    """Mean squared deviation, over n or n - 1."""

    def lower(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> float | None:
        degrees = len(rows) - is_sample
        return float(_central(rows, 2) / degrees) if degrees > 0 else None

    return lower


def _shape(power: int) -> NaiveFunction:
    """g1 or g2; null below 3 or 4 values and where the values cannot be told from a constant."""

    def lower(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> float | None:
        count = len(rows)
        if count < power:
            return None
        roundings = count if any(isinstance(value, float) for _, _, value in rows) else 0
        noise = max(roundings * Fraction(2) ** -52 * abs(_mean(rows)), Fraction(10) ** -70)
        squares = _central(rows, 2)
        if squares <= count * noise**2:
            return None
        standardized = float(_central(rows, power) / squares / (squares if power == 4 else 1))
        return count * standardized - 3 if power == 4 else math.sqrt(count) * standardized / math.sqrt(squares)

    return lower


def _values(*, is_newest: bool, is_distinct: bool) -> NaiveFunction:
    """Values of the first n events in order of (time, id, value), or the reverse; each once where distinct."""

    def lower(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> list[Any] | None:
        values: list[Any] = []
        for _, _, value in sorted(rows, reverse=is_newest):
            if not is_distinct or value not in values:
                values.append(value)
        return values[: int(arguments[0])] or None

    return lower


def _first_event_time(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> int | None:
    return min((time_ms for time_ms, _, _ in rows), default=None)


def _last_event_time(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> int | None:
    return max((time_ms for time_ms, _, _ in rows), default=None)


def _time_since_first(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> int | None:
    return max((as_of_ms - time_ms for time_ms, _, _ in rows), default=None)


def _time_since_last(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> int | None:
    return min((as_of_ms - time_ms for time_ms, _, _ in rows), default=None)


def _mean_gap(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> float | None:
    gaps = _gaps(rows)
    return float(Fraction(sum(gaps), len(gaps))) if gaps else None


def _max_gap(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> int | None:
    return max(_gaps(rows), default=None) if len(rows) <= int(arguments[0]) else None


def _min_gap(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> int | None:
    return min(_gaps(rows), default=None) if len(rows) <= int(arguments[0]) else None


def _decayed_sum(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> float:
    return math.fsum(_number(value) * _weight(as_of_ms - time_ms, arguments[0]) for time_ms, _, value in rows)


def _decayed_count(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> float:
    return math.fsum(_weight(as_of_ms - time_ms, arguments[0]) for time_ms, _, _ in rows)


def _decayed_mean(rows: Sequence[NaiveRow], as_of_ms: int, arguments: Sequence[str]) -> float | None:
    """Weighted as of the newest event: the read time cancels, and from there no weight can vanish altogether."""
    newest_ms = max((time_ms for time_ms, _, _ in rows), default=0)
    count = _decayed_count(rows, newest_ms, arguments)
    return _decayed_sum(rows, newest_ms, arguments) / count if rows else None


def _mean(rows: Sequence[NaiveRow]) -> Fraction:
    return sum((Fraction(value) for _, _, value in rows), Fraction()) / len(rows)


def _central(rows: Sequence[NaiveRow], power: int) -> Fraction:
    """Sum of the deviations' powers, in units of 1 / (n x a common denominator): whole numbers need no reducing."""
    exact = [Fraction(value) for _, _, value in rows]
    unit = math.lcm(*(value.denominator for value in exact))
    whole = [value.numerator * (unit // value.denominator) for value in exact]
    total = sum(whole)
    powers = sum((len(whole) * value - total) ** power for value in whole)
    return Fraction(powers, (max(len(whole), 1) * unit) ** power)


def _gaps(rows: Sequence[NaiveRow]) -> list[int]:
    times = sorted(time_ms for time_ms, _, _ in rows)
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def _weight(age_ms: int, half_life: str) -> float:
    match = re.fullmatch(r"(\d+)([a-z]+)", half_life)
    assert match is not None, half_life
    return math.exp2(-float(Fraction(age_ms, int(match[1]) * _UNIT_MS[match[2]])))


def _number(value: object) -> float:
    assert isinstance(value, int | float), value
    return float(value)


ORDERED: dict[str, NaiveFunction] = {
    "var_pop": _variance(is_sample=False),
    "var_samp": _variance(is_sample=True),
    "skew": _shape(3),
    "kurtosis": _shape(4),
    "first_n": _values(is_newest=False, is_distinct=False),
    "last_n": _values(is_newest=True, is_distinct=False),
    "first_distinct_n": _values(is_newest=False, is_distinct=True),
    "last_distinct_n": _values(is_newest=True, is_distinct=True),
    "first_event_time": _first_event_time,
    "last_event_time": _last_event_time,
    "time_since_first": _time_since_first,
    "time_since_last": _time_since_last,
    "mean_gap": _mean_gap,
    "max_gap": _max_gap,
    "min_gap": _min_gap,
    "ewma_sum": _decayed_sum,
    "ewma_count": _decayed_count,
    "ewma_mean": _decayed_mean,
}
"""The functions by name."""
