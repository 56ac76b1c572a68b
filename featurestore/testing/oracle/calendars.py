"""The naive oracle's calendars: when the local day, week, month or year of a moment began.

A day begins at the first second at which the zone's clocks show its date or a later one. That is midnight, or where
clocks jump over it. The standard library is asked anew for every read; there are no tables.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

from featurestore.core.spec import CalendarUnit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS, _SECOND, _DAY = timedelta(milliseconds=1), timedelta(seconds=1), timedelta(days=1)


def unit_begin_ms(unit: CalendarUnit, timezone: str, time_ms: int) -> int:
    """When the unit that is current at a moment began, at or before the moment.

    Args:
        unit: day, week, month or year.
        timezone: IANA name of the zone whose clocks count.
        time_ms: the moment.
    """
    zone = _zone(timezone)
    today = (_EPOCH + time_ms * _MS).astimezone(zone).date()
    # Clocks that are set back over midnight show yesterday once more, after today has begun.
    begins_ms = [_date_begin_ms(_first_date(unit, day), zone) for day in (today, today + _DAY)]
    return max(begin_ms for begin_ms in begins_ms if begin_ms <= time_ms)


def _first_date(unit: CalendarUnit, day: date) -> date:
    """The first day of the day's unit; weeks begin on Monday."""
    if unit is CalendarUnit.WEEK:
        return day - day.weekday() * _DAY
    if unit is CalendarUnit.MONTH:
        return day.replace(day=1)
    return day.replace(month=1, day=1) if unit is CalendarUnit.YEAR else day


def _date_begin_ms(day: date, zone: ZoneInfo) -> int:
    """The first second at which clocks show that date or a later one."""
    begin = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    while (begin - _SECOND).astimezone(zone).date() >= day:
        begin -= _SECOND
    return (begin - _EPOCH) // _MS


@cache
def _zone(name: str) -> ZoneInfo:
    """The zone's rules in the `tzdata` package; ZoneInfo(name) would take those of the machine."""
    with resources.files("tzdata").joinpath("zoneinfo", name).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)
