"""Integers as moments: milliseconds since 1970 unless a source declares another unit, and what they cannot be.

    1795996740000    ms    2026-11-30
    1795996740       as milliseconds of January 1970: seconds, in all but name
    1795996740000000 as milliseconds of the year 58,000: microseconds

One rule for streams, event logs, files and labels: an integer is a moment from March 1973 on (or as long before 1970),
in the years 1 to 9999. In every unit that is a thousand times larger or smaller, all of today is outside of that. Who
means a moment of those three years writes a text or a timestamp.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from featurestore.core.events import BoolArray, Int64Array

EVENT_TIME_MS_MIN = -62_135_596_800_000
"""First millisecond of the year 1: earlier event times are mistakes, and would overflow the arithmetic of windows."""

EVENT_TIME_MS_MAX = 253_402_300_799_999
"""Last millisecond of the year 9999."""

SECONDS_BELOW = 100_000_000_000
"""Milliseconds below this are before March 1973: where a person gives such a number, it is seconds in all but name."""

MILLISECONDS = "ms"

UNITS: Mapping[str, str] = {"s": "seconds", MILLISECONDS: "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
"""Units that a source can declare, and their names."""

_MS_PER_SECOND = 1_000
_SECONDS_MAX = ((1 << 63) - 1) // _MS_PER_SECOND
_PER_MS = {MILLISECONDS: 1, "us": 1_000, "ns": 1_000_000}


def as_ms(numbers: Int64Array, unit: str) -> Int64Array:
    """(N,) numbers of a unit as milliseconds; finer parts are cut off towards the past.

    >>> as_ms(np.array([1, -1]), "s"), as_ms(np.array([1_999, -1]), "us")
    (array([ 1000, -1000]), array([ 1, -1]))
    """
    if unit != "s":
        return numbers // _PER_MS[unit]
    # Seconds may be too many to be milliseconds, and would come round to a moment that nobody meant.
    return np.clip(numbers, -_SECONDS_MAX, _SECONDS_MAX) * _MS_PER_SECOND


def are_moments(times_ms: Int64Array) -> BoolArray:
    """(N,) True where an integer can be meant as a moment."""
    is_late_enough = (times_ms >= SECONDS_BELOW) | (times_ms <= -SECONDS_BELOW)
    are_in_years: BoolArray = is_late_enough & (times_ms >= EVENT_TIME_MS_MIN) & (times_ms <= EVENT_TIME_MS_MAX)
    return are_in_years


def likely_unit(number: int) -> str:
    """Of which unit a number is a moment of our time.

    >>> [likely_unit(1_795_996_740 * 1_000**power) for power in range(4)]
    ['s', 'ms', 'us', 'ns']
    """
    size = abs(number)
    return next((unit for power, unit in enumerate(("s", "ms", "us")) if size < SECONDS_BELOW * 1_000**power), "ns")


def not_a_moment(number: int, unit: str) -> str:
    """What is wrong with a number that is no moment in the declared unit, and how it is put right.

    >>> not_a_moment(1_795_996_740, "ms")
    'is 1795996740 milliseconds, which looks like seconds: declare event_time_unit="s" at its source'
    """
    likely = likely_unit(number)
    if number == 0 or likely == unit:
        return f"is {number} {UNITS[unit]}, which is no moment of an event"
    return (
        f'is {number} {UNITS[unit]}, which looks like {UNITS[likely]}: declare event_time_unit="{likely}" at its source'
    )
