"""The naive oracle's windows: where each kind begins and ends, worked out anew for every read.

No tables, no tiles: calendars ask the standard library, sessions look at every event.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from featurestore.core.spec import CalendarUnit, Window
from featurestore.core.windows.time_zones import zone_rules

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS, _SECOND, _DAY = timedelta(milliseconds=1), timedelta(seconds=1), timedelta(days=1)


def window_edges(window: Window, as_of_ms: int, event_times_ms: Iterable[int] = ()) -> tuple[float, int]:
    """First moment inside and first moment after a window, ms; the first is -inf for lifetime.

    Args:
        window: any but a series.
        as_of_ms: read time.
        event_times_ms: of all events of the entity, which sessions depend on, in any order.
    """
    if window.length_ms is None:
        return -math.inf, as_of_ms
    if window.calendar is not None:
        return _calendar_begin_ms(window.calendar, zone_rules(window.timezone), as_of_ms), as_of_ms
    start_ms = (as_of_ms - window.offset_ms - window.length_ms) // window.hop_ms * window.hop_ms
    if window.gap_ms:
        return _session_begin_ms(window.gap_ms, start_ms, as_of_ms, event_times_ms), as_of_ms
    if window.offset_ms == 0:
        return start_ms, as_of_ms
    return start_ms, (as_of_ms - window.offset_ms) // window.hop_ms * window.hop_ms


def series_windows(window: Window) -> list[Window]:
    """The windows of a series, oldest first."""
    assert window.length_ms is not None, "a series has a length"
    offsets_ms = [window.offset_ms + number * window.length_ms for number in range(window.series)]
    return [replace(window, series=0, offset_ms=offset_ms) for offset_ms in sorted(offsets_ms, reverse=True)]


def _session_begin_ms(gap_ms: int, oldest_ms: int, as_of_ms: int, event_times_ms: Iterable[int]) -> int:
    """Event time of the oldest event of the open session, or the read time when none is open."""
    begin_ms = as_of_ms
    for time_ms in sorted(event_times_ms, reverse=True):
        if oldest_ms <= time_ms < as_of_ms:
            if begin_ms - time_ms > gap_ms:
                break
            begin_ms = time_ms
    return begin_ms


def _calendar_begin_ms(unit: CalendarUnit, zone: ZoneInfo, as_of_ms: int) -> int:
    """When the local unit that is current at the read time began."""
    today = (_EPOCH + as_of_ms * _MS).astimezone(zone).date()
    begins = [_date_begin_ms(_first_date(unit, day), zone) for day in (today + _DAY, today)]
    return max(begin_ms for begin_ms in begins if begin_ms <= as_of_ms)


def _first_date(unit: CalendarUnit, day: date) -> date:
    """The first day of a day's unit."""
    if unit is CalendarUnit.WEEK:
        return day - day.weekday() * _DAY
    if unit is CalendarUnit.MONTH:
        return day.replace(day=1)
    return day.replace(month=1, day=1) if unit is CalendarUnit.YEAR else day


def _date_begin_ms(day: date, zone: ZoneInfo) -> int:
    """The first second at which clocks show that date or a later one: midnight, or where they jump over it."""
    begin = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    while (begin - _SECOND).astimezone(zone).date() >= day:
        begin -= _SECOND
    return (begin - _EPOCH) // _MS
