"""Where the local day, week, month or year of a moment began: the tails of calendar windows.

A local day begins at the first instant at which the zone's clocks show its date or a later one. That is midnight, but

    midnight skipped    23:59:59 ── 01:00:00      the day begins with the change (Santiago in September)
    midnight twice      00:00 .. 01:00 ── 00:00   it begins with the first of the two (Havana in November)
    day skipped         Thursday ── Saturday      Friday and Saturday begin together (Apia in 2011)

so days begin in order, each once, and the day of a moment is the last that has begun. Weeks, months and years begin
with their first day. Begins are kept as one sorted list for ten years of a zone, so that a lookup is a bisection.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.core.spec import CalendarUnit, Window
from featurestore.core.windows.time_zones import (
    BLOCK_MS,
    CALENDAR_CYCLE_MS,
    DAY_MS,
    MEAN_TIME_MS,
    RULES_ONLY_MS,
    zone_names,
    zone_offsets,
)
from featurestore.errors import InvalidRequest

GRID_SINCE_MS = 0
"""1970: the grid of a calendar window divides every begin since; before, clocks kept local mean time."""

_LISTS_KEPT_MAX = 10_000
_MEAN_TIME_CYCLE_MS = MEAN_TIME_MS - CALENDAR_CYCLE_MS
_DAYS_BEFORE_MAX = 368
"""The unit of a moment began at most that many days before it, on any clock."""
_THURSDAY_IS_3 = 3
_WEEK_DAYS = 7


def calendar_window(unit: CalendarUnit, timezone: str) -> Window:
    """The window that covers the current unit of a zone's calendar.

    Its length is that of the longest unit since 1970 (a day of 25 hours, a leap year), and its hop the coarsest grid on
    which all of them began: 1 h in Berlin, 30 min in Kolkata, 1 d in UTC. Tiles of that width are never cut.

    Raises:
        InvalidRequest: no zone has that name.
    """
    if timezone not in zone_names():
        raise InvalidRequest(f'"{timezone}" is not a time zone', hint='give an IANA name, such as "Europe/Berlin"')
    length_ms, hop_ms = _length_and_grid_ms(unit, timezone)
    return Window(length_ms, hop_ms, calendar=unit, timezone=timezone)


def begin_ms(unit: CalendarUnit, timezone: str, time_ms: int) -> int:
    """When the unit that a moment belongs to began, milliseconds UTC, at or before the moment.

    Args:
        unit: day, week, month or year.
        timezone: a name of the IANA database.
        time_ms: any moment; rules are extended to all times, as the calendar is.
    """
    known_ms = time_ms
    if time_ms >= RULES_ONLY_MS:
        known_ms = (time_ms - RULES_ONLY_MS) % CALENDAR_CYCLE_MS + RULES_ONLY_MS
    elif time_ms < _MEAN_TIME_CYCLE_MS:
        known_ms = (time_ms - _MEAN_TIME_CYCLE_MS) % CALENDAR_CYCLE_MS + _MEAN_TIME_CYCLE_MS
    begins = _begins(unit, timezone, known_ms // BLOCK_MS)
    return begins[bisect_right(begins, known_ms) - 1] + time_ms - known_ms


@lru_cache(maxsize=_LISTS_KEPT_MAX)
def _begins(unit: CalendarUnit, timezone: str, block: int) -> list[int]:
    """Ascending begins of all units that moments of a block of ten years belong to."""
    first_day = block * BLOCK_MS // DAY_MS - _DAYS_BEFORE_MAX
    last_day = (block + 1) * BLOCK_MS // DAY_MS + 2
    midnights = _first_days(unit, first_day, last_day) * DAY_MS
    blocks = midnights // BLOCK_MS
    begins = [_instants(midnights[blocks == each], timezone, each) for each in np.unique(blocks).tolist()]
    return [int(begin) for begin in np.concatenate(begins)]


def _first_days(unit: CalendarUnit, first_day: int, last_day: int) -> Int64Array:
    """Days since 1970-01-01 in [first, last] on which a unit begins."""
    days = np.arange(first_day, last_day + 1, dtype=np.int64)
    if unit is CalendarUnit.DAY:
        return days
    if unit is CalendarUnit.WEEK:
        is_first = (days + _THURSDAY_IS_3) % _WEEK_DAYS == 0
    else:
        dates = days.astype("datetime64[D]")
        units = dates.astype("datetime64[M]" if unit is CalendarUnit.MONTH else "datetime64[Y]")
        is_first = units.astype("datetime64[D]") == dates
    first: Int64Array = days[is_first]
    return first


def _instants(walls_ms: Int64Array, timezone: str, block: int) -> Int64Array:
    """The first instant at which clocks show each local time of a block, or a later one."""
    begins_ms, offsets_ms = zone_offsets(timezone, block)
    # While an offset holds, walls run up to the local time at which the next one begins; a wall set back shows nothing
    # new until it has caught up, hence the running maximum.
    reached_ms = np.maximum.accumulate(begins_ms[1:] + offsets_ms[:-1])
    at = np.searchsorted(reached_ms, walls_ms, side="right")
    instants: Int64Array = np.maximum(begins_ms[at], walls_ms - offsets_ms[at])
    return instants


@lru_cache(maxsize=_LISTS_KEPT_MAX)
def _length_and_grid_ms(unit: CalendarUnit, timezone: str) -> tuple[int, int]:
    """Longest unit and greatest common divisor of all begins from 1970 to 2100, when only yearly rules are left."""
    blocks = range(GRID_SINCE_MS // BLOCK_MS, RULES_ONLY_MS // BLOCK_MS + 1)
    begins = np.unique(np.concatenate([_begins(unit, timezone, block) for block in blocks]))
    since = begins[begins >= GRID_SINCE_MS]
    return int(np.diff(begins).max()), int(np.gcd.reduce(np.append(since, DAY_MS)))
