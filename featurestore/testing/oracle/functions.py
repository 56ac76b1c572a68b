"""The naive oracle's functions: each a few lines over the rows inside the window, and a table of them by name.

Numbers come first, then order and time, then values and how often they occur. Rational numbers stand where floats would
round; a float is rounded once, at the end. Nulls never get here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import pairwise

from featurestore.testing.oracle.events import INT64_MAX, INT64_MIN, NaiveAnswer, NaiveValue, Row, Rows
from featurestore.testing.oracle.sketches import approx_count_distinct, approx_percentile, count_distinct, median

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


RESPECT_NULLS = " respect nulls"
"""What a function ends with that is given rows without a value, too: NaN stands for it."""


def answer(function: str, rows: Rows) -> NaiveAnswer | None:
    """What a function answers over rows; None is null.

    Args:
        function: its canonical text, such as "sum", "top_k_by(3, amount)", "sum by market(100)", "last respect nulls"
            or "sum over last_events(10)".
        rows: those inside the window.
    """
    inner, over, count = function.partition(" over last_events(")
    if over:
        return answer(inner, sorted(rows, key=_place, reverse=True)[: int(count.removesuffix(")"))])
    if function.endswith(RESPECT_NULLS):
        found = answer(function.removesuffix(RESPECT_NULLS), rows)
        return None if found != found else found
    inner, by, key = function.partition(" by ")
    if by:
        return _by_key(rows, inner, *_name_and_arguments(key))
    name, *arguments = _name_and_arguments(function)
    return FUNCTIONS[name](rows, *arguments)


def _name_and_arguments(call: str) -> list[str]:
    """The words of "name(argument, argument)"."""
    return [word.strip() for word in re.split(r"[(,)]", call) if word.strip()]


def _by_key(rows: Rows, inner: str, column: str, bound: str) -> dict[str, int] | dict[str, float] | None:
    """The inner function over the rows of each value of a further column; null for more of them than the bound."""
    groups: dict[NaiveValue, list[Row]] = {}
    for key, row in _with_further(rows, column):
        groups.setdefault(key, []).append(row)
    answers: dict[str, float] = {}
    for key, some in groups.items():
        value = answer(inner, some)
        if isinstance(value, int | float):
            answers[_text(key)] = value
    return answers if 0 < len(groups) <= int(bound) else None


def _count(rows: Rows) -> int:
    return sum(row.sign for row in rows)


def _sum(rows: Rows) -> int | float | None:
    """Null when integers do not fit in 64 bits."""
    total = _exact_sum(rows)
    if any(isinstance(row.value, float) for row in rows):
        return float(total)
    return int(total) if INT64_MIN <= total <= INT64_MAX else None


def _mean(rows: Rows) -> float | None:
    """Null unless more was done than taken back."""
    return float(_exact_sum(rows) / _count(rows)) if _count(rows) > 0 else None


def _min(rows: Rows) -> NaiveValue | None:
    return min((row.value for row in rows), default=None)


def _max(rows: Rows) -> NaiveValue | None:
    return max((row.value for row in rows), default=None)


def _var_pop(rows: Rows) -> float | None:
    return float(_deviations(rows, 2) / len(rows)) if rows else None


def _var_samp(rows: Rows) -> float | None:
    return float(_deviations(rows, 2) / (len(rows) - 1)) if len(rows) > 1 else None


def _stddev_pop(rows: Rows) -> float | None:
    return math.sqrt(_deviations(rows, 2) / len(rows)) if rows else None


def _stddev_samp(rows: Rows) -> float | None:
    return math.sqrt(_deviations(rows, 2) / (len(rows) - 1)) if len(rows) > 1 else None


def _skew(rows: Rows) -> float | None:
    """g1, the mean cube in units of the standard deviation."""
    if len(rows) < 3 or _is_constant(rows):
        return None
    squares, cubes = _deviations(rows, 2), _deviations(rows, 3)
    return math.sqrt(len(rows)) * float(cubes / squares) / math.sqrt(squares)


def _kurtosis(rows: Rows) -> float | None:
    """g2, the mean fourth power in units of the squared variance, less the 3 of a normal distribution."""
    if len(rows) < 4 or _is_constant(rows):
        return None
    return len(rows) * float(_deviations(rows, 4) / _deviations(rows, 2) ** 2) - 3


def _is_constant(rows: Rows) -> bool:
    """Whether the deviation is no more than adding up floats may round, or too small for floats to the fourth power."""
    noise = Fraction(10) ** -70
    if any(isinstance(row.value, float) for row in rows):
        noise = max(noise, Fraction(2) ** -52 * abs(_exact_sum(rows)))
    return _deviations(rows, 2) <= len(rows) * noise**2


def _deviations(rows: Rows, power: int) -> Fraction:
    """Sum of the powers of what the values differ from their mean."""
    mean = _exact_sum(rows) / len(rows)
    return sum(((_exact(row) - mean) ** power for row in rows), Fraction())


def _exact_sum(rows: Rows) -> Fraction:
    return Fraction(sum(_exact(row) for row in rows))


def _exact(row: Row) -> int | Fraction:
    """The value as the rational number that it is, negative where the event takes back."""
    if isinstance(row.value, float):
        return row.sign * Fraction(row.value)
    return row.sign * int(row.value)


def _first(rows: Rows) -> NaiveValue | None:
    return min(rows, key=_place).value if rows else None


def _last(rows: Rows) -> NaiveValue | None:
    return max(rows, key=_place).value if rows else None


def _first_n(rows: Rows, n: str) -> NaiveAnswer | None:
    return _list([row.value for row in sorted(rows, key=_place)][: int(n)])


def _last_n(rows: Rows, n: str) -> NaiveAnswer | None:
    return _list([row.value for row in sorted(rows, key=_place, reverse=True)][: int(n)])


def _first_distinct_n(rows: Rows, n: str) -> NaiveAnswer | None:
    return _list(list(dict.fromkeys(row.value for row in sorted(rows, key=_place)))[: int(n)])


def _last_distinct_n(rows: Rows, n: str) -> NaiveAnswer | None:
    return _list(list(dict.fromkeys(row.value for row in sorted(rows, key=_place, reverse=True)))[: int(n)])


def _first_event_time(rows: Rows) -> int | None:
    return min((row.event_time_ms for row in rows), default=None)


def _last_event_time(rows: Rows) -> int | None:
    return max((row.event_time_ms for row in rows), default=None)


def _time_since_first(rows: Rows) -> int | None:
    return max((row.since_ms for row in rows), default=None)


def _time_since_last(rows: Rows) -> int | None:
    return min((row.since_ms for row in rows), default=None)


def _mean_gap(rows: Rows) -> float | None:
    return float(Fraction(sum(_gaps_ms(rows)), len(rows) - 1)) if len(rows) > 1 else None


def _max_gap(rows: Rows, bound: str) -> int | None:
    return max(_gaps_ms(rows), default=None) if len(rows) <= int(bound) else None


def _min_gap(rows: Rows, bound: str) -> int | None:
    return min(_gaps_ms(rows), default=None) if len(rows) <= int(bound) else None


def _ewma_sum(rows: Rows, half_life: str) -> float:
    return math.fsum(float(row.value) * _weight(row.since_ms, half_life) for row in rows)


def _ewma_count(rows: Rows, half_life: str) -> float:
    return math.fsum(_weight(row.since_ms, half_life) for row in rows)


def _ewma_mean(rows: Rows, half_life: str) -> float | None:
    """Read at the newest event: the read time cancels, and there one weight is 1, so that not all can vanish."""
    if not rows:
        return None
    since_newest_ms = min(row.since_ms for row in rows)
    rows = [row._replace(since_ms=row.since_ms - since_newest_ms) for row in rows]
    return _ewma_sum(rows, half_life) / _ewma_count(rows, half_life)


def _place(row: Row) -> tuple[int, bytes, bool, NaiveValue]:
    """Events are ordered by time, then id; the value decides where ids are missing, and no value is behind all."""
    is_null = row.value != row.value
    return row.event_time_ms, row.event_id, is_null, 0 if is_null else row.value


def _gaps_ms(rows: Rows) -> list[int]:
    return [later - earlier for earlier, later in pairwise(sorted(row.event_time_ms for row in rows))]


def _weight(since_ms: int, half_life: str) -> float:
    number, unit = re.findall(r"\d+|[a-z]+", half_life)
    return math.exp2(-float(Fraction(since_ms, int(number) * UNITS_MS[unit])))


def _histogram(rows: Rows, bound: str) -> dict[str, int] | None:
    counts = _counts(rows, bound)
    return {_text(value): count for value, count in counts.items()} or None


def _mode(rows: Rows, bound: str) -> NaiveValue | None:
    """The smallest of the most frequent."""
    counts = _counts(rows, bound)
    most = max(counts.values(), default=0)
    return min((value for value, count in counts.items() if count == most), default=None)


def _entropy(rows: Rows, bound: str) -> float | None:
    counts = _counts(rows, bound)
    return -sum(n / len(rows) * math.log2(n / len(rows)) for n in counts.values()) + 0.0 if counts else None


def _heavy_hitters(rows: Rows, n: str) -> dict[str, int] | None:
    """The exact counts: what the sketch gives while it has a counter for each value."""
    counts = Counter(row.value for row in rows)
    heaviest = sorted(counts, key=lambda value: (-counts[value], value))[: int(n)]
    return {_text(value): counts[value] for value in heaviest} or None


def _top_k(rows: Rows, n: str) -> NaiveAnswer | None:
    return _list(sorted((_positive_zero(row.value) for row in rows), reverse=True)[: int(n)])


def _bottom_k(rows: Rows, n: str) -> NaiveAnswer | None:
    return _list(sorted(_positive_zero(row.value) for row in rows)[: int(n)])


def _top_k_by(rows: Rows, n: str, column: str) -> NaiveAnswer | None:
    """Of equal ranks the newest first."""
    ranked = sorted(((rank, _place(row)) for rank, row in _with_further(rows, column)), reverse=True)
    return _list([value for _, (_, _, _, value) in ranked][: int(n)])


def _bottom_k_by(rows: Rows, n: str, column: str) -> NaiveAnswer | None:
    """Of equal ranks the oldest first."""
    ranked = sorted((rank, _place(row)) for rank, row in _with_further(rows, column))
    return _list([value for _, (_, _, _, value) in ranked][: int(n)])


def _counts(rows: Rows, bound: str) -> Counter[NaiveValue]:
    """How often each value occurs; nothing when there are more values than the bound."""
    counts = Counter(row.value for row in rows)
    return counts if len(counts) <= int(bound) else Counter()


def _with_further(rows: Rows, column: str) -> Iterable[tuple[NaiveValue, Row]]:
    """The rows whose further column is not null either, behind its value."""
    for row in rows:
        further = row.columns.get(column)
        if further is not None and further == further:
            yield further, row


def _text(value: NaiveValue) -> str:
    """A value as the key of a map."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(_positive_zero(value))


def _positive_zero(value: NaiveValue) -> NaiveValue:
    """-0.0 is 0.0."""
    return value + 0.0 if isinstance(value, float) else value


def _list(values: list[NaiveValue]) -> NaiveAnswer | None:
    """The values; null when there are none."""
    return values or None  # type: ignore[return-value]  # values of one column have one type


FUNCTIONS: dict[str, Callable[..., NaiveAnswer | None]] = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "min": _min,
    "max": _max,
    "var_pop": _var_pop,
    "var_samp": _var_samp,
    "stddev_pop": _stddev_pop,
    "stddev_samp": _stddev_samp,
    "skew": _skew,
    "kurtosis": _kurtosis,
    "first": _first,
    "last": _last,
    "first_n": _first_n,
    "last_n": _last_n,
    "first_distinct_n": _first_distinct_n,
    "last_distinct_n": _last_distinct_n,
    "first_event_time": _first_event_time,
    "last_event_time": _last_event_time,
    "time_since_first": _time_since_first,
    "time_since_last": _time_since_last,
    "mean_gap": _mean_gap,
    "max_gap": _max_gap,
    "min_gap": _min_gap,
    "ewma_sum": _ewma_sum,
    "ewma_count": _ewma_count,
    "ewma_mean": _ewma_mean,
    "count_distinct": count_distinct,
    "histogram": _histogram,
    "mode": _mode,
    "entropy": _entropy,
    "approx_heavy_hitters": _heavy_hitters,
    "top_k": _top_k,
    "bottom_k": _bottom_k,
    "top_k_by": _top_k_by,
    "bottom_k_by": _bottom_k_by,
    "approx_percentile": approx_percentile,
    "median": median,
    "approx_count_distinct": approx_count_distinct,
}
"""The functions by name; their arguments come as text."""
