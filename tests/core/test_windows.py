"""Calendars, sessions and series: timelines that can be done in one's head, then streams against the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from featurestore.core.spec import CalendarUnit, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.tiles.tiles import TileTable, concatenate
from featurestore.core.view import CompiledView
from featurestore.core.windows.calendar_windows import begin_ms, calendar_window
from featurestore.core.windows.time_zones import zone_names, zone_rules
from featurestore.core.windows.windows import element_windows, session_window
from featurestore.errors import AsOfTooOld, InvalidRequest
from featurestore.testing.answers import answer_values
from featurestore.testing.oracle.naive import NaiveEvent, window_edges
from featurestore.testing.strategies import (
    ANCHOR_MS,
    CLOCK_CHANGES_MS,
    DAY_MS,
    SOURCE,
    StreamCase,
    event_streams,
    read_times,
    session_windows,
    sliding_windows,
)
from tests.core.test_tiles_against_naive import assert_answers, by_start, distinct, fold, roll_up

HOUR_MS = 3_600_000
MINUTE_MS = 60_000

calendars = st.builds(calendar_window, st.sampled_from(tuple(CalendarUnit)), st.sampled_from(tuple(CLOCK_CHANGES_MS)))
KINDS: dict[str, st.SearchStrategy[Window]] = {
    "calendar": calendars,
    "session": session_windows(),
    "series": st.builds(
        lambda window, count: Window(window.length_ms, window.hop_ms, window.offset_ms, series=count),
        sliding_windows().filter(lambda window: window.length_ms is not None),
        st.integers(1, 6),
    ),
}


def local_ms(text: str, zone: str) -> int:
    """A local time as milliseconds UTC; of a time that comes twice the first."""
    return int(datetime.fromisoformat(text).replace(tzinfo=zone_rules(zone)).timestamp()) * 1_000


def view_of(*features: FeatureSpec, lookback_ms: int = 0) -> ViewSpec:
    """A view that keeps what its features need."""
    reach_ms = max(feature.window.reach_ms for feature in features)
    return ViewSpec("card_activity", (), SOURCE, features, reach_ms + lookback_ms, lookback_ms)


def counted(window: Window) -> FeatureSpec:
    """Rows in a window."""
    list_type = ValueType.INT64_LIST if window.series else ValueType.INT64
    return FeatureSpec("count", "count", None, window, list_type)


def answers(feature: FeatureSpec, times_ms: Sequence[int], reads_ms: Sequence[int]) -> list[object]:
    """A feature over events at those times, with amounts 1, 2, 4 ..., at each read time."""
    compiled = CompiledView(view_of(feature))
    events = [
        NaiveEvent(b"k", time_ms, b"%04d" % number, {"amount": 1 << number, "price": float(1 << number)})
        for number, time_ms in enumerate(times_ms)
    ]
    table = by_start(fold(compiled, events))
    return [answer_values(compiled.spec, compiled.answer(table, as_of_ms))[feature.name] for as_of_ms in reads_ms]


def test_today_begins_at_local_midnight_on_days_of_23_and_25_hours() -> None:
    """Berlin: the clocks go forward on 2026-03-29 and back on 2026-10-25.

    day            events at 00:30 and 12:00     read just before midnight, and just after
    23 hours       [0:30 ... 12:00 ........ )24:00[
    """
    zone = "Europe/Berlin"
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25)):
        midnight_ms = local_ms(f"{day}T00:00", zone)
        times_ms = [midnight_ms - 1, midnight_ms, midnight_ms + 1, midnight_ms + hours * HOUR_MS - 1]
        reads_ms = [midnight_ms, midnight_ms + 1, midnight_ms + hours * HOUR_MS - 1, midnight_ms + hours * HOUR_MS + 1]

        assert [0, 1, 2, 0] == answers(counted(calendar_window(CalendarUnit.DAY, zone)), times_ms, reads_ms)


def test_weeks_begin_on_monday_and_months_and_years_on_their_first() -> None:
    """Thursday 2026-01-01 in New York belongs to the week of Monday 2025-12-29."""
    zone = "America/New_York"
    read_ms = local_ms("2026-01-01T09:00", zone)
    expected = {
        CalendarUnit.DAY: "2026-01-01T00:00",
        CalendarUnit.WEEK: "2025-12-29T00:00",
        CalendarUnit.MONTH: "2026-01-01T00:00",
        CalendarUnit.YEAR: "2026-01-01T00:00",
    }

    assert {unit: local_ms(text, zone) for unit, text in expected.items()} == {
        unit: begin_ms(unit, zone, read_ms) for unit in CalendarUnit
    }


@pytest.mark.parametrize(
    ("zone", "first", "begins"),
    [
        ("America/Santiago", "2026-09-05T12:00", ["2026-09-05T04:00", "2026-09-06T04:00", "2026-09-07T03:00"]),
        ("America/Havana", "2024-11-02T12:00", ["2024-11-02T04:00", "2024-11-03T04:00", "2024-11-04T05:00"]),
        ("Pacific/Apia", "2011-12-29T12:00", ["2011-12-29T10:00", "2011-12-30T10:00", "2011-12-31T10:00"]),
    ],
)
def test_days_without_a_midnight_or_with_two_begin_once(zone: str, first: str, begins: list[str]) -> None:
    """Midnight skipped, midnight twice, and a Friday that never was: begins in UTC of three days in a row."""
    noon_ms = local_ms(first, zone)

    assert [local_ms(text, "UTC") for text in begins] == [
        begin_ms(CalendarUnit.DAY, zone, noon_ms + days * DAY_MS) for days in range(3)
    ]


@settings(max_examples=300, deadline=None)
@given(
    unit=st.sampled_from(tuple(CalendarUnit)),
    zone=st.one_of(st.sampled_from(tuple(CLOCK_CHANGES_MS)), st.sampled_from(("Africa/Monrovia", "Antarctica/Casey"))),
    time_ms=st.one_of(
        st.sampled_from(sorted(change for changes in CLOCK_CHANGES_MS.values() for change in changes)).flatmap(
            lambda change_ms: st.integers(change_ms - 2 * DAY_MS, change_ms + 2 * DAY_MS)
        ),
        st.integers(-10_000 * DAY_MS, 60_000 * DAY_MS),
    ),
)
def test_begins_are_those_of_the_standard_library(unit: CalendarUnit, zone: str, time_ms: int) -> None:
    """The tables say the same as zoneinfo asked anew, and since 1970 each begin lies on the window's grid."""
    window = calendar_window(unit, zone)
    expected = window_edges(window, time_ms)[0]
    actual = begin_ms(unit, zone, time_ms)
    assert window.length_ms is not None

    assert expected == actual
    assert actual <= time_ms
    if actual >= 0:
        assert actual % window.hop_ms == 0
        assert time_ms - actual < window.length_ms


@given(time_ms=st.integers(-(1 << 53), 1 << 53))
def test_calendars_answer_for_any_read_time(time_ms: int) -> None:
    """Beyond the years that dates can hold, the calendar repeats itself."""
    for unit, days_max in ((CalendarUnit.DAY, 2), (CalendarUnit.YEAR, 367)):
        assert 0 <= time_ms - begin_ms(unit, "Europe/Berlin", time_ms) < days_max * DAY_MS


def test_the_grid_of_a_calendar_is_as_coarse_as_the_zone_allows() -> None:
    """Tiles of a year so far may be a day wide in UTC, an hour in Berlin, a quarter of an hour in Kathmandu."""
    zones = {"UTC": 1_440, "Europe/Berlin": 60, "Asia/Kolkata": 30, "Asia/Kathmandu": 15}

    assert [minutes * MINUTE_MS for minutes in zones.values()] == [
        calendar_window(CalendarUnit.YEAR, zone).hop_ms for zone in zones
    ]
    assert 25 * HOUR_MS == calendar_window(CalendarUnit.DAY, "Europe/Berlin").length_ms


def test_an_unknown_time_zone_is_refused() -> None:
    """A name that the database does not have, and never a path."""
    for name in ("Europe/Atlantis", "", "../UTC"):
        assert name not in zone_names()
        with pytest.raises(InvalidRequest, match="is not a time zone"):
            calendar_window(CalendarUnit.DAY, name)


def test_a_session_ends_where_the_silence_is_longer_than_its_gap() -> None:
    """A gap of 30 s, times in minutes and seconds.

    events    0:00  0:20        1:00  1:30  1:59            3:00
    read at   1:00 -> none open but 0:20 is 40 s away
              1:01 -> 1:00                      2:10 -> 1:00 1:30 1:59          2:30 -> silence
    """
    times_ms = [ANCHOR_MS + seconds * 1_000 for seconds in (0, 20, 60, 90, 119, 180)]
    reads_ms = [ANCHOR_MS + seconds * 1_000 for seconds in (20, 50, 60, 61, 130, 149, 150, 181)]

    assert [1, 2, 0, 1, 3, 3, 0, 1] == answers(counted(session_window(30_000)), times_ms, reads_ms)


def test_a_late_event_joins_two_sessions() -> None:
    """40 s apart they are two; the event that arrives last, between them, makes them one."""
    seconds = (0, 40, 20)
    for count, expected in ((2, 1), (3, 3)):
        times_ms = [ANCHOR_MS + second * 1_000 for second in seconds[:count]]

        assert [expected] == answers(counted(session_window(30_000)), times_ms, [ANCHOR_MS + 41_000])


def test_a_session_is_followed_no_further_than_its_longest() -> None:
    """An event every second for ten minutes: the session of at most a minute holds its last sixty events."""
    window = session_window(10_000, MINUTE_MS)
    times_ms = [ANCHOR_MS + second * 1_000 for second in range(600)]
    feature = FeatureSpec("count", "count", None, window, ValueType.INT64)

    # The cut is on the grid of 5 s, so it is up to 5 s longer.
    assert [60, 62] == answers(feature, times_ms, [ANCHOR_MS + 600_000, ANCHOR_MS + 592_000])


def test_a_late_event_in_a_rolled_up_hop_does_not_hide_the_newer_ones() -> None:
    """A gap of 1 s, milliseconds; the tile of 100 and 900 was rolled up before 200 arrived.

    rows by start   [0: 100 .. 900)   200   1850        1850 is 950 after 900, but 1650 after the row before it
    """
    compiled = CompiledView(view_of(counted(session_window(1_000))))
    events = [NaiveEvent(b"k", ANCHOR_MS + time_ms, b"%d" % time_ms, {}) for time_ms in (100, 900, 1_850, 200)]
    table = roll_up(compiled, fold(compiled, events[:3]), events[2].event_time_ms)
    table = by_start(_joined(compiled, table, events[3:]))

    assert [1_000, 1, 1] == (table.end_ms - table.start_ms).tolist()
    assert_answers(compiled, table, events, ANCHOR_MS + 1_851)
    assert 4 == compiled.answer(table, ANCHOR_MS + 1_851).ints[0]


def test_a_tile_that_may_hide_a_gap_is_refused() -> None:
    """A later minute made one tile of 0, 3000 and 4900, which no longer tells that the session is 4900 alone.

    The day by 5 s beside the session keeps tiles 5 s wide, so that no edge cuts this one.
    """
    features = (counted(session_window(1_000, 10_000)), replace(counted(Window(DAY_MS, 5_000)), name="beside"))
    compiled = CompiledView(view_of(*features))
    events = [NaiveEvent(b"k", ANCHOR_MS + time_ms, b"%d" % time_ms, {}) for time_ms in (0, 3_000, 4_900, MINUTE_MS)]
    fresh = fold(compiled, events)

    rolled = roll_up(compiled, fresh, events[-1].event_time_ms)

    assert [5_000, 1] == (rolled.end_ms - rolled.start_ms).tolist()
    assert 1 == compiled.answer(fresh, ANCHOR_MS + 5_500).ints[0]
    with pytest.raises(AsOfTooOld):
        compiled.answer(rolled, ANCHOR_MS + 5_500)


def test_the_sum_of_a_session_reads_its_events_only() -> None:
    """Amounts 1, 2, 4, 8; the first two belong to an earlier session."""
    feature = FeatureSpec("sum", "sum", "amount", session_window(30_000), ValueType.INT64)
    times_ms = [ANCHOR_MS + second * 1_000 for second in (0, 20, 60, 90)]

    assert [4 + 8] == answers(feature, times_ms, [ANCHOR_MS + 91_000])


def test_a_series_is_the_same_window_once_each_length_back() -> None:
    """Hours by the minute, oldest first; amounts 1, 2, 4.

    events    0:10 (1)      1:10 (2)                 3:05 (4)
    t = 3:30  [0:30 .. 1:30)      [1:30 .. 2:30)     [2:30 .. 3:30)
    """
    times_ms = [ANCHOR_MS + minutes * MINUTE_MS for minutes in (10, 70, 185)]
    window = Window(HOUR_MS, MINUTE_MS, series=3)
    read_ms = ANCHOR_MS + 210 * MINUTE_MS
    sums = FeatureSpec("sum", "sum", "amount", window, ValueType.INT64_LIST)
    means = FeatureSpec("mean", "mean", "price", window, ValueType.FLOAT64_LIST)

    assert [[2, 0, 4]] == answers(sums, times_ms, [read_ms])
    assert ["[2.0, nan, 4.0]"] == [str(answer) for answer in answers(means, times_ms, [read_ms])]
    assert [Window(HOUR_MS, MINUTE_MS, hours * HOUR_MS) for hours in (2, 1, 0)] == list(element_windows(window))


def test_a_series_with_a_sum_that_does_not_fit_is_null() -> None:
    """Lists cannot hold a null, and no integer may stand for one."""
    window = Window(1_000, 1_000, series=2)
    feature = FeatureSpec("sum", "sum", "amount", window, ValueType.INT64_LIST)
    compiled = CompiledView(view_of(feature))
    events = [NaiveEvent(b"k", ANCHOR_MS + n, b"%d" % n, {"amount": (1 << 63) - 1}) for n in range(2)]
    table = fold(compiled, events)

    assert {"sum": None} == answer_values(compiled.spec, compiled.answer(table, ANCHOR_MS + 10))
    assert {"sum": [0, 0]} == answer_values(compiled.spec, compiled.answer(table, ANCHOR_MS + 10_000))


@st.composite
def cases(draw: st.DrawFn, kind: str) -> StreamCase:
    """A view whose features all share one window of a kind, perhaps beside a finer one."""
    window = draw(KINDS[kind])
    of = {
        "count": ("count", None, ValueType.INT64),
        "sum": ("sum", "amount", ValueType.INT64),
        "mean": ("mean", "price", ValueType.FLOAT64),
        "last": ("last", "market", ValueType.STRING),
    }
    lists = {ValueType.INT64: ValueType.INT64_LIST, ValueType.FLOAT64: ValueType.FLOAT64_LIST}
    features = [
        FeatureSpec(name, function, column, window, lists[value_type] if window.series else value_type)
        for name, (function, column, value_type) in of.items()
        if not window.series or value_type in lists
    ]
    if draw(st.booleans()):
        features.append(FeatureSpec("beside", "count", None, draw(sliding_windows()), ValueType.INT64))
    lookback_ms = draw(st.sampled_from((0, 1, 60_000, DAY_MS)))
    is_kept_for_ever = any(feature.window.length_ms is None for feature in features)
    reach_ms = max(feature.window.reach_ms for feature in features)
    retention_ms = None if is_kept_for_ever else reach_ms + lookback_ms
    view = ViewSpec("card_activity", (), SOURCE, tuple(features), retention_ms, lookback_ms)
    events = draw(event_streams(view, events_max=60))
    return StreamCase(view, events, draw(read_times(view, events)))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_kind_of_window_gives_the_oracles_answer(kind: str, data: st.DataObject) -> None:
    """Whatever the order of arrival and however often tiles were rolled up; older reads are exact or refused."""
    case = data.draw(cases(kind))
    events = distinct(case.events)
    assume(events)
    compiled = CompiledView(case.view)
    table = compiled.layout.empty()
    done = 0
    while done < len(events):
        size = data.draw(st.integers(1, len(events) - done), label="batch")
        newest_ms = max(event.event_time_ms for event in events[: done + size])
        table = roll_up(compiled, _joined(compiled, table, events[done : done + size]), newest_ms)
        done += size
    for as_of_ms in case.as_of_ms:
        assert_answers(compiled, table, events, as_of_ms)
    for as_of_ms in {event.event_time_ms + step for event in events for step in (0, 1, 1_000)}:
        try:
            compiled.answer(by_start(table), as_of_ms)
        except AsOfTooOld:
            assert as_of_ms < newest_ms - case.view.lookback_ms
            continue
        assert_answers(compiled, table, events, as_of_ms)


def _joined(compiled: CompiledView, table: TileTable, events: Sequence[NaiveEvent]) -> TileTable:
    """A table with more events behind it."""
    return concatenate([table, fold(compiled, events)])
