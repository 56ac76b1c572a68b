"""ISO 8601 texts to integer milliseconds UTC, a column at a time.

Producers nearly always write one layout per topic, so a column whose texts all look like
`2026-11-22T10:00:00.123Z` (or the same without milliseconds) is read as a matrix of digits: one byte a cell, some
20 ns a row. Whatever does not fit that picture goes through `datetime.fromisoformat`, one text at a time, and both
ways give the same number. A text without a zone is UTC. Digits beyond milliseconds are cut off towards the past, so
that an event never moves into its own future.

Days from the calendar: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" (days_from_civil).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from featurestore.core.events import BoolArray, Int64Array

LAYOUTS: dict[int, bytes] = {
    20: b"0000-00-00T00:00:00Z",
    24: b"0000-00-00T00:00:00.000Z",
}
"""Texts that are read as a matrix, by length; 0 stands for any digit."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_ZERO = ord("0")
_DAYS_IN_MONTH = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)


def parse_column(texts: Sequence[str]) -> tuple[Int64Array, BoolArray]:
    """Milliseconds UTC of N texts.

    Returns:
        (N,) milliseconds, 0 where a text is not ISO 8601, and (N,) True where it is.

    >>> parse_column(["1970-01-01T00:00:01.500Z", "1970-01-01T01:00:00+01:00", "yesterday"])
    (array([1500,    0,    0]), array([ True,  True, False]))
    """
    matrix = _as_matrix(texts)
    if matrix is None:
        times_ms, parsed = np.zeros(len(texts), dtype=np.int64), np.zeros(len(texts), dtype=np.bool_)
    else:
        times_ms, parsed = _parse_matrix(matrix)
    for row in np.flatnonzero(~parsed).tolist():
        value = parse_text(texts[row])
        if value is not None:
            times_ms[row], parsed[row] = value, True
    return times_ms, parsed


def parse_text(text: str) -> int | None:
    """Milliseconds UTC of one text, None when it is not ISO 8601.

    >>> parse_text("1969-12-31T23:59:59.9999Z"), parse_text("2026-02-30"), parse_text("1712051012345")
    (-1, None, None)
    """
    if len(text) > 8 and text[:9].isdecimal():
        return None  # a number, whose digits `fromisoformat` may take for a date, any one as separator, and a time
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLISECOND


def _as_matrix(texts: Sequence[str]) -> NDArray[np.uint8] | None:
    """(N, length) characters when all N texts are ASCII and of one known length."""
    lengths = set(map(len, texts))
    if len(lengths) != 1 or not lengths <= LAYOUTS.keys():
        return None
    joined = "".join(texts)
    if not joined.isascii():
        return None
    return np.frombuffer(joined.encode("ascii"), dtype=np.uint8).reshape(len(texts), -1)


def _parse_matrix(matrix: NDArray[np.uint8]) -> tuple[Int64Array, BoolArray]:
    """Times of the rows that follow their layout to the letter; the others are marked, not judged."""
    layout = np.frombuffer(LAYOUTS[matrix.shape[1]], dtype=np.uint8)
    is_digit_place = layout == _ZERO
    digits = matrix - np.uint8(_ZERO)  # wraps around below "0", which is then above 9 as well
    parsed = np.all(digits[:, is_digit_place] <= 9, axis=1)
    parsed &= np.all(matrix[:, ~is_digit_place] == layout[~is_digit_place], axis=1)

    def number(first: int, width: int) -> Int64Array:
        """The decimal number in `width` columns from `first`."""
        value = digits[:, first].astype(np.int64)
        for place in range(first + 1, first + width):
            value = value * 10 + digits[:, place]
        return value

    year, month, day = number(0, 4), number(5, 2), number(8, 2)
    hour, minute, second = number(11, 2), number(14, 2), number(17, 2)
    parsed &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    parsed &= (hour <= 23) & (minute <= 59) & (second <= 59)
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    month_length = _DAYS_IN_MONTH[np.clip(month, 0, 12)] - ((month == 2) & ~is_leap)
    parsed &= day <= month_length
    times_ms = ((_days_from_civil(year, month, day) * 24 + hour) * 60 + minute) * 60_000 + second * 1_000
    if matrix.shape[1] == 24:
        times_ms += number(20, 3)
    times_ms[~parsed] = 0
    return times_ms, parsed


def _days_from_civil(year: Int64Array, month: Int64Array, day: Int64Array) -> Int64Array:
    """Days since 1970-01-01 in the proleptic Gregorian calendar; years begin in March, so leap days come last."""
    year = year - (month <= 2)
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    days: Int64Array = era * 146_097 + day_of_era - 719_468
    return days
