"""Compile the window of one feature: time_window and slide_interval of its Aggregation, and tags of its Field.

    time_window=1h                                           the last hour, slide_interval its hop
    time_window=1h   hop="1h"                                the same, with a hop that slide_interval cannot say
    time_window=1h   offset="7d"                             the same hour a week ago
    time_window=1h   series="24"                             the last 24 hours by the hour, as a list
                     window="lifetime"                       everything
                     window="today", timezone="Europe/Berlin"         or this_week, this_month, this_year
                     window="session", gap="30m", session_max="1d"    the session that is open now

A tag that does not go with the window is a mistake, not ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from featurestore.core.spec import CalendarUnit, Window, default_hop_ms
from featurestore.core.windows.calendar_windows import calendar_window
from featurestore.core.windows.durations import format_duration, parse_duration_ms
from featurestore.core.windows.windows import session_window
from featurestore.definitions import limits
from featurestore.definitions.compile.source import duration_tag
from featurestore.definitions.problems import Place, ProblemList, quoted
from featurestore.errors import InvalidRequest
from featurestore.wire.feast.registry import RegisteredAggregation

WINDOW_TAG = "window"
"""Tag of a Field: a window that time_window cannot say."""

LIFETIME = "lifetime"
SESSION = "session"

HOP_TAG = "hop"
"""Tag of a Field: its window's hop, where that is as long as the window: Feast takes such a slide_interval for none."""

OFFSET_TAG = "offset"
"""Tag of a Field: how far back its window ends."""

SERIES_TAG = "series"
"""Tag of a Field: number of windows, one after another, whose values make a list."""

TIMEZONE_TAG = "timezone"
"""Tag of a Field: IANA name of the time zone of a calendar window."""

GAP_TAG = "gap"
"""Tag of a Field: the longest silence within a session."""

SESSION_MAX_TAG = "session_max"
"""Tag of a Field: how far back a session is followed."""

NANOSECONDS_PER_MS = 1_000_000

_CALENDARS = tuple(unit.value for unit in CalendarUnit)
_TAGS_OF = {
    "": frozenset({HOP_TAG, OFFSET_TAG, SERIES_TAG}),
    LIFETIME: frozenset[str](),
    SESSION: frozenset({GAP_TAG, SESSION_MAX_TAG}),
    **dict.fromkeys(_CALENDARS, frozenset({TIMEZONE_TAG})),
}
"""For each value of the window tag, the tags that go with it."""


IN_FLIGHT_TAG = "in_flight"
"""Tag of a Field: whether it counts the payment in flight, "true" or "false". Of a feature service: whether
its features do, where their Fields do not say."""


def read_in_flight(tags: Mapping[str, str], place: Place, problems: ProblemList) -> bool | None:
    """What the tag says; None where there is none, or it is a mistake, which goes into `problems`."""
    text = tags.get(IN_FLIGHT_TAG)
    if text not in (None, "true", "false"):
        problems.add(place, f'tag "{IN_FLIGHT_TAG}" is "{text}"', 'write "true" or "false"')
        return None
    return None if text is None else text == "true"


def compile_in_flight(
    tags: Mapping[str, str], window: Window, *, by_default: bool, place: Place, problems: ProblemList
) -> bool:
    """Whether a feature counts the payment in flight.

    Args:
        tags: of its Field.
        window: what it covers.
        by_default: what its function does where nothing is said.
        place: of the feature.
        problems: receives a mistake.
    """
    said = read_in_flight(tags, place, problems)
    if said and window.offset_ms:
        fact = f'tag "{IN_FLIGHT_TAG}" is "true", but its window ends before the payment'
        problems.add(place, fact, f'remove the tag "{IN_FLIGHT_TAG}", or the offset')
    return by_default if said is None else said


def compile_window(
    aggregation: RegisteredAggregation, tags: Mapping[str, str], place: Place, problems: ProblemList
) -> Window | None:
    """The window of a feature; None when it has a mistake, which is then in `problems`."""
    found_before = len(problems.found)
    if problems.add_mistake(place, tags):
        return None
    kind = tags.get(WINDOW_TAG, "")
    if kind not in _TAGS_OF:
        fact = f'tag "{WINDOW_TAG}" is "{kind}"'
        known = ", ".join(quoted((LIFETIME, SESSION, *_CALENDARS)))
        problems.add(place, fact, f"its values are {known}; lengths go into time_window")
        return None
    _check_tags(kind, tags, place, problems)
    if kind and aggregation.window_ns is not None:
        problems.add(place, f"it is tagged {kind} and has a time_window", "remove one of the two")
    elif kind and aggregation.slide_ns is not None and HOP_TAG not in tags:
        problems.add(place, f"slide_interval does not go with {_called(kind)}", "leave it out")
    window: Window | None
    if kind == LIFETIME:
        window = Window(None)
    elif kind == SESSION:
        window = _session(tags, place, problems)
    elif kind:
        window = _calendar(CalendarUnit(kind), tags, place, problems)
    else:
        window = _sliding(aggregation, tags, place, problems)
    return window if len(problems.found) == found_before else None


def _check_tags(kind: str, tags: Mapping[str, str], place: Place, problems: ProblemList) -> None:
    """Refuse tags of other kinds of windows."""
    what = _called(kind)
    for tag in (HOP_TAG, OFFSET_TAG, SERIES_TAG, TIMEZONE_TAG, GAP_TAG, SESSION_MAX_TAG):
        if tag not in tags or tag in _TAGS_OF[kind]:
            continue
        fact = "a lifetime has no end to offset" if (kind, tag) == (LIFETIME, OFFSET_TAG) else ""
        remedy = f'remove the tag "{tag}"' + (
            ", or declare this window in a call without hop" if tag == HOP_TAG else ""
        )
        problems.add(place, fact or f'tag "{tag}" does not go with {what}', remedy)


def _called(kind: str) -> str:
    """A kind of window in a sentence."""
    return {"": "a time_window", LIFETIME: "a lifetime", SESSION: "a session"}.get(kind, f'"{kind}"')


def _calendar(unit: CalendarUnit, tags: Mapping[str, str], place: Place, problems: ProblemList) -> Window | None:
    """The current day, week, month or year."""
    timezone = tags.get(TIMEZONE_TAG, "")
    if not timezone:
        remedy = f'add the tag "{TIMEZONE_TAG}" with an IANA name, such as "Europe/Berlin"'
        problems.add(place, f'"{unit.value}" begins at another time in every time zone, and none is given', remedy)
        return None
    try:
        return calendar_window(unit, timezone)
    except InvalidRequest as error:
        problems.add(place, f'tag "{TIMEZONE_TAG}": {error.message}', error.hint)
        return None


def _session(tags: Mapping[str, str], place: Place, problems: ProblemList) -> Window | None:
    """The open session."""
    if GAP_TAG not in tags:
        remedy = f'add the tag "{GAP_TAG}" with the longest silence within a session, such as "30m"'
        problems.add(place, "a session needs a gap", remedy)
        return None
    found_before = len(problems.found)
    gap_ms = duration_tag(tags, GAP_TAG, place, problems, default=0, maximum=limits.WINDOW_MS_MAX)
    longest_ms = duration_tag(tags, SESSION_MAX_TAG, place, problems, default=0, maximum=limits.WINDOW_MS_MAX)
    if len(problems.found) > found_before:
        return None
    if not gap_ms:
        problems.add(place, f'tag "{GAP_TAG}" is {tags[GAP_TAG]}', "give a gap of at least 1ms")
        return None
    if SESSION_MAX_TAG in tags and not gap_ms <= longest_ms <= limits.SESSION_GAPS_MAX * gap_ms:
        least, most = format_duration(gap_ms), format_duration(limits.SESSION_GAPS_MAX * gap_ms)
        fact = f'tag "{SESSION_MAX_TAG}" is {tags[SESSION_MAX_TAG]} for a gap of {least}'
        problems.add(place, fact, f"make it {least} to {most}: tiles are never wider than the gap")
        return None
    return session_window(gap_ms, longest_ms or None)


def _sliding(
    aggregation: RegisteredAggregation, tags: Mapping[str, str], place: Place, problems: ProblemList
) -> Window | None:
    """A length, perhaps with an offset, perhaps several times."""
    offset_ms = duration_tag(tags, OFFSET_TAG, place, problems, default=0, maximum=limits.WINDOW_MS_MAX)
    if aggregation.window_ns is None:
        remedy = f'give time_window, or Field(tags={{"{WINDOW_TAG}": "{LIFETIME}"}}) if all of time is meant'
        problems.add(place, "it has no window", remedy)
        return None
    length_ms = _whole_ms(aggregation.window_ns, "window", place, problems)
    hop_ms = _hop_ms(aggregation, tags, length_ms or 0, place, problems)
    if length_ms is None or hop_ms is None:
        return None
    _check_hop(length_ms, hop_ms, place, problems)
    window = Window(length_ms, hop_ms, offset_ms)
    return window if SERIES_TAG not in tags else _series(window, tags[SERIES_TAG], place, problems)


def _hop_ms(
    aggregation: RegisteredAggregation, tags: Mapping[str, str], length_ms: int, place: Place, problems: ProblemList
) -> int | None:
    """The hop that the author gave, else the default."""
    is_given = aggregation.slide_ns is not None and aggregation.slide_ns != aggregation.window_ns
    slide_ms = _whole_ms(aggregation.slide_ns or 0, "hop", place, problems) if is_given else None
    if is_given and slide_ms is None:
        return None
    if HOP_TAG not in tags:
        # Feast fills an unset slide_interval with time_window, so equality is all that "unset" looks like.
        return slide_ms or default_hop_ms(length_ms)
    try:
        hop_ms = _whole_ms(parse_duration_ms(tags[HOP_TAG]) * NANOSECONDS_PER_MS, "hop", place, problems)
    except InvalidRequest as error:
        problems.add(place, f'tag "{HOP_TAG}": {error.message}', error.hint)
        return None
    if slide_ms is not None and slide_ms != hop_ms:
        fact = f'its tag "{HOP_TAG}" is {tags[HOP_TAG]}, but its slide_interval is {format_duration(slide_ms)}'
        problems.add(place, fact, "leave out one of the two")
    return hop_ms


def has_unsaid_hop(aggregation: RegisteredAggregation, tags: Mapping[str, str]) -> bool:
    """Whether its slide_interval is as long as its window, and nothing tells if the author wrote it or Feast."""
    window_ns = aggregation.window_ns
    if window_ns is None or aggregation.slide_ns != window_ns or HOP_TAG in tags or tags.get(WINDOW_TAG):
        return False
    return default_hop_ms(window_ns // NANOSECONDS_PER_MS) * NANOSECONDS_PER_MS != window_ns


def _series(window: Window, text: str, place: Place, problems: ProblemList) -> Window | None:
    """The window several times, each a length further back."""
    count = int(text) if text.isascii() and text.isdigit() and len(text) < len(str(limits.WINDOW_MS_MAX)) else 0
    if not 1 <= count <= limits.SERIES_WINDOWS_MAX:
        remedy = f"give a number of windows from 1 to {limits.SERIES_WINDOWS_MAX}"
        problems.add(place, f'tag "{SERIES_TAG}" is "{text}"', remedy)
        return None
    series = replace(window, series=count)
    if series.span_ms > limits.WINDOW_MS_MAX:
        fact = f"its {count} windows reach back {format_duration(series.span_ms)}"
        problems.add(place, fact, f"stay within {format_duration(limits.WINDOW_MS_MAX)}")
    return series


def _whole_ms(duration_ns: int, what: str, place: Place, problems: ProblemList) -> int | None:
    duration_ms, rest = divmod(duration_ns, NANOSECONDS_PER_MS)
    if rest or duration_ms < 1 or duration_ms > limits.WINDOW_MS_MAX:
        most = format_duration(limits.WINDOW_MS_MAX)
        remedy = f"use whole milliseconds from 1 ms to {most}, or lifetime"
        problems.add(place, f"its {what} is {duration_ns / NANOSECONDS_PER_MS:g} ms", remedy)
        return None
    return duration_ms


def _check_hop(length_ms: int, hop_ms: int, place: Place, problems: ProblemList) -> None:
    length, hop = format_duration(length_ms), format_duration(hop_ms)
    default = format_duration(default_hop_ms(length_ms))
    remedy = f"leave slide_interval out ({default}), or make it a divisor of {length}"
    if hop_ms > length_ms:
        problems.add(place, f"its hop of {hop} is longer than its window of {length}", remedy)
    elif length_ms % hop_ms:
        problems.add(place, f"its hop of {hop} does not divide its window of {length}", remedy)
