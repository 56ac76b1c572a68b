"""The oracle's calendars, where clocks change."""

from __future__ import annotations

import zoneinfo
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path

from featurestore.core.spec import CalendarUnit
from featurestore.testing.oracle.calendars import unit_begin_ms

HOUR_MS = 3_600_000


def utc_ms(text: str) -> int:
    """A moment as milliseconds."""
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * 1_000


def test_a_day_begins_where_clocks_first_show_its_date_or_a_later_one() -> None:
    """Midnight may be skipped, come twice, lie within a jump, or come a minute before the day before comes again.

    Santiago    2026-09-05 23:59:59 -> 2026-09-06 01:00     at 04:00 UTC
    Havana      2024-11-03 00:59:59 -> 2024-11-03 00:00     at 05:00 UTC; the day began at 04:00
    Toronto     1919-03-30 23:29:59 -> 1919-03-31 00:30     at 04:30 UTC; midnight would have been at 05:00
    St. John's  2010-11-07 00:00:59 -> 2010-11-06 23:01     at 02:31 UTC; the day began at 02:30
    Apia        2011-12-29 23:59:59 -> 2011-12-31 00:00     at 10:00 UTC of the 30th
    """
    for zone, begin, after in (
        ("America/Santiago", "2026-09-06T04:00", "2026-09-06T04:00"),
        ("America/Havana", "2024-11-03T04:00", "2024-11-03T05:30"),
        ("America/Toronto", "1919-03-31T04:30", "1919-03-31T04:59"),
        ("America/St_Johns", "2010-11-07T02:30", "2010-11-07T02:32"),
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-31T09:59"),
    ):
        assert unit_begin_ms(CalendarUnit.DAY, zone, utc_ms(after)) == utc_ms(begin)
        assert unit_begin_ms(CalendarUnit.DAY, zone, utc_ms(begin)) == utc_ms(begin)
        assert unit_begin_ms(CalendarUnit.DAY, zone, utc_ms(begin) - 1) < utc_ms(begin) - 20 * HOUR_MS


def test_weeks_months_and_years_begin_with_their_first_day() -> None:
    """Thursday, 1 October 2026 lies in the week of Monday, 28 September."""
    begins = {
        CalendarUnit.DAY: "2026-10-01T00:00",
        CalendarUnit.WEEK: "2026-09-28T00:00",
        CalendarUnit.MONTH: "2026-10-01T00:00",
        CalendarUnit.YEAR: "2026-01-01T00:00",
    }

    for unit, begin in begins.items():
        assert unit_begin_ms(unit, "UTC", utc_ms("2026-10-01T12:00")) == utc_ms(begin)
        assert unit_begin_ms(unit, "UTC", utc_ms(begin)) == utc_ms(begin)


def test_the_rules_of_zones_are_not_the_machines(tmp_path: Path) -> None:
    """On a machine that takes Nairobi for Tokyo, the day in Nairobi still begins at 21:00 UTC, not at 15:00."""
    (tmp_path / "Africa").mkdir()
    tokyo = resources.files("tzdata").joinpath("zoneinfo", "Asia", "Tokyo").read_bytes()
    (tmp_path / "Africa" / "Nairobi").write_bytes(tokyo)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([tmp_path])
    try:
        begin_ms = unit_begin_ms(CalendarUnit.DAY, "Africa/Nairobi", utc_ms("2026-01-01T22:00"))
        of_machine = zoneinfo.ZoneInfo.no_cache("Africa/Nairobi").utcoffset(datetime(2026, 1, 1))
    finally:
        zoneinfo.reset_tzpath(before)

    assert of_machine == timedelta(hours=9)
    assert begin_ms == utc_ms("2026-01-01T21:00")
