"""What authors put together before it is Feast's: windows for the `over` of `aggregate` and `count`, and features.

    over=["1h", LIFETIME, today("Europe/Berlin"), this_month("Europe/Berlin"), session(gap="30m"), series("1h", 24)]

A window is the length for Feast's time_window, and tags for the Field, which `compile.window` reads. A feature becomes
an Aggregation and a Field in its view, under a name with the view's prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypedDict

from featurestore.core.spec import CalendarUnit
from featurestore.core.windows.durations import parse_duration_ms
from featurestore.definitions.compile.window import (
    GAP_TAG,
    LIFETIME,
    SERIES_TAG,
    SESSION,
    SESSION_MAX_TAG,
    TIMEZONE_TAG,
    WINDOW_TAG,
)
from featurestore.definitions.problems import MISTAKE_TAG, mistake_text
from featurestore.errors import InvalidRequest

DURATION_REMEDY = 'write a whole number and a unit, such as "15m" or "7d"'
WINDOW_REMEDY = f"{DURATION_REMEDY}, or LIFETIME, today(...), session(...), series(...) or last_events(...)"


_NAMES = re.compile(r"""'(?:[^']|'')*'|"(?P<quoted>[^"]*)"|(?<!\w)(?P<name>[A-Za-z_]\w*)(?!\w*\s*\()""")
"""Texts, quoted names and plain names of an SQL expression, but not what is called as a function."""


class Named(TypedDict):
    """What all objects of Feast have."""

    name: str
    description: str
    owner: str
    tags: dict[str, str]


class ReadFrom(TypedDict):
    """What says of a source where its events are, and when they happened."""

    topic: str
    kafka_bootstrap_servers: str
    timestamp_field: str


@dataclass(frozen=True, slots=True)
class NamedWindow:
    """A window as it is written into Feast objects.

    Attributes:
        name: what feature names end with.
        length: duration text for time_window; "" for none.
        tags: of the Field.
        last_events: how many of the newest events in it a function is of, as its text has it; "" for all.
    """

    name: str
    length: str
    tags: Mapping[str, str]
    last_events: str = ""

    def function(self, text: str) -> str:
        """A function over the window, for Aggregation.function."""
        return f"{text} over last_events({self.last_events})" if self.last_events else text


@dataclass(frozen=True, slots=True)
class WindowedFeature:
    """One feature before its view is known; `stream_view` makes an Aggregation and a Field of it.

    Attributes:
        name: of the feature.
        function: text for Aggregation.function.
        column: source column, "" to count rows.
        window: what it covers.
        hop: duration text, "" for the default grid.
        offset: duration text, "" for none.
        where: SQL condition under which events count, "" for all.
        in_flight: whether the payment in flight counts; None leaves it to the function.
        description: of the Field.
        more_tags: of the Field, beside those that say what it computes.
    """

    name: str
    function: str
    column: str
    window: NamedWindow
    hop: str = ""
    offset: str = ""
    where: str = ""
    in_flight: bool | None = None
    description: str = ""
    more_tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DerivedFeature:
    """A feature that is an SQL expression over other features of its view, made by `derive`.

    Attributes:
        name: of the feature.
        expression: SQL over the names of the other features.
        description: of the Field.
        more_tags: of the Field.
    """

    name: str
    expression: str
    description: str = ""
    more_tags: Mapping[str, str] = field(default_factory=dict)


def today(timezone: str) -> NamedWindow:
    """Since midnight.

    Args:
        timezone: IANA name of the zone whose clocks say when a day begins, such as "Europe/Berlin".
    """
    return _calendar(CalendarUnit.DAY, timezone)


def this_week(timezone: str) -> NamedWindow:
    """Since Monday.

    Args:
        timezone: IANA name of the zone whose clocks say when a week begins.
    """
    return _calendar(CalendarUnit.WEEK, timezone)


def this_month(timezone: str) -> NamedWindow:
    """Since the first of the month.

    Args:
        timezone: IANA name of the zone whose clocks say when a month begins.
    """
    return _calendar(CalendarUnit.MONTH, timezone)


def this_year(timezone: str) -> NamedWindow:
    """Since the first of January.

    Args:
        timezone: IANA name of the zone whose clocks say when a year begins.
    """
    return _calendar(CalendarUnit.YEAR, timezone)


def session(*, gap: str, longest: str = "") -> NamedWindow:
    """The session that is open when asked: a run of events without a longer silence than the gap.

    Args:
        gap: longest silence within it, such as "30m".
        longest: how far back it is followed; default: a hundred gaps, but no more than a day (or the gap, if longer).
    """
    # Texts, whatever was given: what is no duration is reported by the plan.
    tags = {WINDOW_TAG: SESSION, GAP_TAG: str(gap)}
    return NamedWindow(f"{SESSION}_{gap}", "", tags | ({SESSION_MAX_TAG: str(longest)} if longest else {}))


def series(each: str, count: int) -> NamedWindow:
    """Several windows, one after another: the answer is a list, oldest first.

    Args:
        each: length of one, such as "1h".
        count: how many, such as 24.
    """
    return _lengthy(f"{count}x{each}", each, {SERIES_TAG: str(count)})


def last_events(count: int, *, within: str | NamedWindow) -> NamedWindow:
    """The newest events of a window: no more than so many, and none older than the window.

    Args:
        count: how many at most, from 1 to 100.
        within: the window, such as "30d".
    """
    window = named(within)
    if window.last_events:
        fact = f"it is over the last {count} of the last {window.last_events} events"
        mistake = mistake_text(fact, 'give last_events a window, such as within="30d"')
        return replace(window, tags={**window.tags, MISTAKE_TAG: mistake})
    return replace(window, name=f"last_{count}_{window.name}", last_events=str(count))


def windows_of(over: object) -> list[NamedWindow]:
    """The windows that `over` names; at least one, so that a mistake has a feature to be reported with."""
    if isinstance(over, str | NamedWindow) or not isinstance(over, Iterable):
        return [named(over)]
    return [named(window) for window in over] or [named([])]


def named(window: object) -> NamedWindow:
    """A window given as a duration or LIFETIME, too; anything else is a window that carries the mistake."""
    if isinstance(window, NamedWindow):
        return window
    if window == LIFETIME:
        return NamedWindow(LIFETIME, "", {WINDOW_TAG: LIFETIME})
    return _lengthy(str(window), window, {})


def duration_mistake(what: str, duration: object, remedy: str = DURATION_REMEDY) -> str:
    """What is wrong with a duration, as the text of a MISTAKE_TAG; "" when nothing is.

    Args:
        what: it is, such as "window".
        duration: as the author gave it.
        remedy: what to write instead.
    """
    if not isinstance(duration, str):
        return mistake_text(f"its {what} is {duration!r}, not a duration", remedy)
    try:
        timedelta(milliseconds=parse_duration_ms(duration))
    except InvalidRequest:
        return mistake_text(f'its {what} is "{duration}", not a duration', remedy)
    except OverflowError:
        return mistake_text(f'its {what} is "{duration}", which is too long', "shorten it")
    return ""


def timedelta_of(duration: str) -> timedelta | None:
    """A duration for Feast; None for none, and for a mistake, which is in a tag then."""
    if not duration or duration_mistake("duration", duration):
        return None
    return timedelta(milliseconds=parse_duration_ms(duration))


def usable_features(features: object) -> tuple[list[WindowedFeature | DerivedFeature], list[str]]:
    """The features of a view's list, and what is wrong with the list as a whole."""
    given = list(features) if isinstance(features, Iterable) else []
    usable = [one for one in given if isinstance(one, WindowedFeature | DerivedFeature)]
    others = [one for one in given if one not in usable]
    if others:
        what = "a list" if isinstance(others[0], list) else repr(others[0])
        return usable, [mistake_text(f"one of its features is {what}", "write *count(...), *aggregate(...)")]
    if not any(isinstance(one, WindowedFeature) for one in usable):
        return usable, [mistake_text("it has no windowed features", "give at least one count(...) or aggregate(...)")]
    return usable, []


def prefixed_feature(
    feature: WindowedFeature | DerivedFeature, prefix: str, names: set[str]
) -> WindowedFeature | DerivedFeature:
    """A feature under its full name; an expression may call the others by theirs, or by those without the prefix."""
    if isinstance(feature, WindowedFeature) or not prefix:
        return replace(feature, name=prefix + feature.name)
    full = {prefix + name for name in names}

    def completed(found: re.Match[str]) -> str:
        name = found["name"] or found["quoted"] or ""
        return found[0].replace(name, prefix + name) if name in names - full else found[0]

    return replace(feature, name=prefix + feature.name, expression=_NAMES.sub(completed, str(feature.expression)))


def _lengthy(name: str, length: object, tags: Mapping[str, str]) -> NamedWindow:
    """A window of a length."""
    mistake = duration_mistake("window", length, WINDOW_REMEDY)
    return NamedWindow(name, "", {**tags, MISTAKE_TAG: mistake}) if mistake else NamedWindow(name, str(length), tags)


def _calendar(unit: CalendarUnit, timezone: str) -> NamedWindow:
    return NamedWindow(unit.value, "", {WINDOW_TAG: unit.value, TIMEZONE_TAG: timezone})


def several(names: str | Sequence[str]) -> list[str]:
    """One name or several, as a list."""
    return [names] if isinstance(names, str) else list(names)
