"""Windows that are more than a duration, for the `over` of `aggregate` and `count`.

    over=["1h", LIFETIME, today("Europe/Berlin"), this_month("Europe/Berlin"), session(gap="30m"), series("1h", 24)]

Each is the length for Feast's time_window and tags for the Field, see `compile_window`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from featurestore.core.spec import CalendarUnit
from featurestore.definitions.compile_window import (
    GAP_TAG,
    LIFETIME,
    SERIES_TAG,
    SESSION,
    SESSION_MAX_TAG,
    TIMEZONE_TAG,
    WINDOW_TAG,
)


@dataclass(frozen=True, slots=True)
class NamedWindow:
    """A window as it is written into Feast objects.

    Attributes:
        name: what feature names end with.
        length: duration text for time_window; "" for none.
        tags: of the Field.
    """

    name: str
    length: str
    tags: Mapping[str, str]


def today(timezone: str) -> NamedWindow:
    """Since midnight in a time zone, such as "Europe/Berlin"."""
    return _calendar(CalendarUnit.DAY, timezone)


def this_week(timezone: str) -> NamedWindow:
    """Since Monday in a time zone."""
    return _calendar(CalendarUnit.WEEK, timezone)


def this_month(timezone: str) -> NamedWindow:
    """Since the first of the month in a time zone."""
    return _calendar(CalendarUnit.MONTH, timezone)


def this_year(timezone: str) -> NamedWindow:
    """Since the first of January in a time zone."""
    return _calendar(CalendarUnit.YEAR, timezone)


def session(*, gap: str, longest: str = "") -> NamedWindow:
    """The session that is open when asked.

    Args:
        gap: longest silence within it, such as "30m".
        longest: how far back it is followed; default a hundred gaps, but no more than a day.
    """
    tags = {WINDOW_TAG: SESSION, GAP_TAG: gap}
    return NamedWindow(f"{SESSION}_{gap}", "", tags | ({SESSION_MAX_TAG: longest} if longest else {}))


def series(each: str, count: int) -> NamedWindow:
    """The last `count` windows of a length, such as 24 of "1h": the answer is a list, oldest first."""
    return NamedWindow(f"{count}x{each}", each, {SERIES_TAG: str(count)})


def named(window: str | NamedWindow) -> NamedWindow:
    """A window given as a duration or LIFETIME, too."""
    if isinstance(window, NamedWindow):
        return window
    if window == LIFETIME:
        return NamedWindow(LIFETIME, "", {WINDOW_TAG: LIFETIME})
    return NamedWindow(window, window, {})


def _calendar(unit: CalendarUnit, timezone: str) -> NamedWindow:
    return NamedWindow(unit.value, "", {WINDOW_TAG: unit.value, TIMEZONE_TAG: timezone})
