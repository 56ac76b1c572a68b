"""Parts of a time, and truncation to a part: the proleptic Gregorian calendar on integer milliseconds.

They work on moments (TIMESTAMP columns, read as UTC) and on local times (after AT TIME ZONE) alike. A week begins on
Monday and belongs to the year of its Thursday (ISO 8601).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.expressions.kinds import Kind
from featurestore.core.expressions.overload import Overloads, fixed
from featurestore.core.expressions.vector import Array, partial, strict

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
WEEK_DAYS = 7
EPOCH_YEAR = 1970

_THURSDAY_IS_0 = 3
"""Days since Monday of 1970-01-01, a Thursday."""


def _days(times_ms: Int64Array) -> Int64Array:
    return times_ms // DAY_MS


def _months_since_epoch(days: Int64Array) -> Int64Array:
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def _years_since_epoch(days: Int64Array) -> Int64Array:
    return days.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64)


def _first_day(periods: Int64Array, unit: str) -> Int64Array:
    """Day since the epoch on which a year (Y) or month (M) since the epoch begins."""
    return periods.astype(f"datetime64[{unit}]").astype("datetime64[D]").astype(np.int64)


def _monday(days: Int64Array) -> Int64Array:
    return days - (days + _THURSDAY_IS_0) % WEEK_DAYS


def _year(times_ms: Int64Array) -> Int64Array:
    return _years_since_epoch(_days(times_ms)) + EPOCH_YEAR


def _quarter(times_ms: Int64Array) -> Int64Array:
    return _months_since_epoch(_days(times_ms)) % 12 // 3 + 1


def _month(times_ms: Int64Array) -> Int64Array:
    return _months_since_epoch(_days(times_ms)) % 12 + 1


def _week(times_ms: Int64Array) -> Int64Array:
    thursday = _monday(_days(times_ms)) + _THURSDAY_IS_0
    return (thursday - _first_day(_years_since_epoch(thursday), "Y")) // WEEK_DAYS + 1


def _day(times_ms: Int64Array) -> Int64Array:
    days = _days(times_ms)
    return days - _first_day(_months_since_epoch(days), "M") + 1


def _day_of_year(times_ms: Int64Array) -> Int64Array:
    days = _days(times_ms)
    return days - _first_day(_years_since_epoch(days), "Y") + 1


def _day_of_week(times_ms: Int64Array) -> Int64Array:
    return (_days(times_ms) + _THURSDAY_IS_0 + 1) % WEEK_DAYS


def _iso_day_of_week(times_ms: Int64Array) -> Int64Array:
    return (_days(times_ms) + _THURSDAY_IS_0) % WEEK_DAYS + 1


def _seconds(times_ms: Int64Array) -> Float64Array:
    return times_ms / SECOND_MS


def _clock(unit_ms: int, per: int) -> Callable[[Int64Array], Int64Array]:
    return lambda times_ms: times_ms // unit_ms % per


def _down(unit_ms: int) -> Callable[[Int64Array], Int64Array]:
    return lambda times_ms: times_ms - times_ms % unit_ms


def _to_monday(times_ms: Int64Array) -> Int64Array:
    return _monday(_days(times_ms)) * DAY_MS


def _to_month(times_ms: Int64Array) -> Int64Array:
    return _first_day(_months_since_epoch(_days(times_ms)), "M") * DAY_MS


def _to_quarter(times_ms: Int64Array) -> Int64Array:
    months = _months_since_epoch(_days(times_ms))
    return _first_day(months - months % 3, "M") * DAY_MS


def _to_year(times_ms: Int64Array) -> Int64Array:
    return _first_day(_years_since_epoch(_days(times_ms)), "Y") * DAY_MS


def _within_int64(
    truncate: Callable[[Int64Array], Int64Array],
) -> Callable[[Int64Array], tuple[Int64Array, BoolArray]]:
    """Null in the first period that 64 bits can hold: what began before it would wrap."""

    def truncated(times_ms: Int64Array) -> tuple[Int64Array, BoolArray]:
        begins_ms = truncate(times_ms)
        return begins_ms, begins_ms <= times_ms

    return truncated


PARTS: dict[str, Callable[[Int64Array], Array]] = {
    "YEAR": _year,
    "QUARTER": _quarter,
    "MONTH": _month,
    "WEEK": _week,
    "DAY": _day,
    "HOUR": _clock(HOUR_MS, 24),
    "MINUTE": _clock(MINUTE_MS, 60),
    "SECOND": _clock(SECOND_MS, 60),
    "DOW": _day_of_week,
    "ISODOW": _iso_day_of_week,
    "DOY": _day_of_year,
    "EPOCH": _seconds,
}
"""What EXTRACT knows; DOW is 0 on Sunday, ISODOW 7."""

TRUNCATIONS: dict[str, Callable[[Int64Array], Int64Array]] = {
    "SECOND": _down(SECOND_MS),
    "MINUTE": _down(MINUTE_MS),
    "HOUR": _down(HOUR_MS),
    "DAY": _down(DAY_MS),
    "WEEK": _to_monday,
    "MONTH": _to_month,
    "QUARTER": _to_quarter,
    "YEAR": _to_year,
}
"""What DATE_TRUNC knows."""

_TIMES = (Kind.INSTANT, Kind.LOCAL)

OVERLOADS: Overloads = (
    {
        f"EXTRACT {name}": tuple(
            fixed(kind, gives=Kind.FLOAT if name == "EPOCH" else Kind.INT, kernel=strict(part)) for kind in _TIMES
        )
        for name, part in PARTS.items()
    }
    | {
        f"DATE_TRUNC {name}": tuple(fixed(kind, gives=kind, kernel=partial(_within_int64(truncate))) for kind in _TIMES)
        for name, truncate in TRUNCATIONS.items()
    }
    | {
        "EPOCH_MS": (
            fixed(Kind.INSTANT, gives=Kind.INT, kernel=strict(np.positive)),
            fixed(Kind.LOCAL, gives=Kind.INT, kernel=strict(np.positive)),
            fixed(Kind.INT, gives=Kind.INSTANT, kernel=strict(np.positive)),
        )
    }
)
