"""Windows as authors write them: tags of a Field, the helpers that write those, and what plan says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from feast import Entity, KafkaSource, ValueType
from feast.types import Array, Float64, Int64

from featurestore.core.spec import CalendarUnit, Window
from featurestore.core.windows.calendar_windows import calendar_window
from featurestore.core.windows.windows import session_window
from featurestore.definitions.authoring import (
    aggregate,
    count,
    kafka_source,
    last_events,
    series,
    session,
    stream_view,
    this_month,
    this_week,
    this_year,
    today,
)
from featurestore.definitions.changes import compare
from featurestore.definitions.compile.repo import compile_repo
from featurestore.definitions.problems import MISTAKE_TAG
from featurestore.wire.codecs.view_json import decode_view, definition_hash, encode_view
from featurestore.wire.feast.registry import RegisteredView
from tests.definitions.records import HOUR_NS, MS_NS, aggregation, field, repo, view

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
DAY_MS = 24 * HOUR_MS

BERLIN = {"window": "today", "timezone": "Europe/Berlin"}
SESSION = {"window": "session", "gap": "30m"}


def named(tags: Mapping[str, str], *, function: str = "sum", value_type: str = "INT64") -> RegisteredView:
    """A view with one feature whose window is in tags alone."""
    return view([aggregation(function, window_ns=None)], [field(value_type=value_type, tags=tags)])


def lengthy(tags: Mapping[str, str], *, function: str = "sum", value_type: str = "INT64_LIST") -> RegisteredView:
    """A view with one feature over an hour, with tags."""
    return view([aggregation(function)], [field(value_type=value_type, tags=tags)])


SOUND = {
    "calendar": (named(BERLIN), calendar_window(CalendarUnit.DAY, "Europe/Berlin")),
    "session": (named(SESSION), session_window(30 * MINUTE_MS)),
    "session with a longest": (
        named({**SESSION, "session_max": "2h"}),
        Window(2 * HOUR_MS, 15 * MINUTE_MS, gap_ms=30 * MINUTE_MS),
    ),
    "series": (lengthy({"series": "24"}), Window(HOUR_MS, MINUTE_MS, series=24)),
    "delayed series": (lengthy({"series": "3", "offset": "7d"}), Window(HOUR_MS, MINUTE_MS, 7 * DAY_MS, series=3)),
    "series on a grid of its own": (
        view([aggregation(slide_ns=HOUR_NS // 4)], [field(value_type="INT64_LIST", tags={"series": "24"})]),
        Window(HOUR_MS, 15 * MINUTE_MS, series=24),
    ),
    "series of floats": (
        lengthy({"series": "2"}, function="mean", value_type="DOUBLE_LIST"),
        Window(HOUR_MS, MINUTE_MS, series=2),
    ),
}


@pytest.mark.parametrize(("registered", "expected"), SOUND.values(), ids=SOUND.keys())
def test_tags_of_a_field_become_its_window(registered: RegisteredView, expected: Window) -> None:
    """And survive the JSON in which generations keep their definitions."""
    compilation = compile_repo(repo(registered))
    assert compilation.problems == ()
    (spec,) = compilation.spec.views

    assert expected == spec.features[0].window
    assert spec == decode_view(encode_view(spec))
    assert spec.retention_ms is not None
    assert spec.retention_ms >= expected.reach_ms


MISTAKES = {
    "calendar without a zone": (named({"window": "today"}), "and none is given", 'add the tag "timezone"'),
    "unknown zone": (named({**BERLIN, "timezone": "Berlin"}), '"Berlin" is not a time zone', "give an IANA name"),
    "calendar with a length": (view(fields=[field(tags=BERLIN)]), "is tagged today and has a time_window", "remove"),
    "calendar with an offset": (
        named({**BERLIN, "offset": "1d"}),
        'tag "offset" does not go with "today"',
        'remove the tag "offset"',
    ),
    "session without a gap": (named({"window": "session"}), "a session needs a gap", 'add the tag "gap"'),
    "session without any gap": (named({"window": "session", "gap": "0s"}), 'tag "gap" is 0s', "at least 1ms"),
    "session shorter than its gap": (
        named({**SESSION, "session_max": "29m"}),
        'tag "session_max" is 29m for a gap of 30m',
        "make it 30m to 500h",
    ),
    "session too long for its gap": (
        named({"window": "session", "gap": "1s", "session_max": "1d"}),
        'tag "session_max" is 1d for a gap of 1s',
        "tiles are never wider than the gap",
    ),
    "gap of a sliding window": (lengthy({"gap": "1m"}), 'tag "gap" does not go with a time_window', "remove"),
    "zone of a session": (named({**SESSION, "timezone": "UTC"}), 'tag "timezone" does not go with a session', "remove"),
    "series that is no number": (lengthy({"series": "many"}), 'tag "series" is "many"', "from 1 to 1000"),
    "series of nothing": (lengthy({"series": "0"}), 'tag "series" is "0"', "from 1 to 1000"),
    "series of decades": (
        view([aggregation(window_ns=8_760 * HOUR_NS)], [field(value_type="INT64_LIST", tags={"series": "11"})]),
        "its 11 windows reach back 4015d",
        "stay within 3660d",
    ),
    "series of a lifetime": (
        named({"window": "lifetime", "series": "2"}, value_type="INT64_LIST"),
        'tag "series" does not go with a lifetime',
        "remove",
    ),
    "series of integers that may be null": (
        lengthy({"series": "24"}, function="max"),
        "a series cannot hold the answers of max, of type int64, which is null over no events",
        "use a function that answers float64",
    ),
    "series of what makes no list": (
        view([aggregation("last", "market")], [field(value_type="STRING_LIST", tags={"series": "24"})]),
        "a series cannot hold the answers of last, of type string",
        "use a function that answers float64",
    ),
    "series with the type of its elements": (
        lengthy({"series": "24"}, value_type="INT64"),
        "the Field is of type INT64, but sum of a series over int64 column",
        "write dtype=Array(Int64)",
    ),
    "ttl shorter than a series": (
        view(fields=[field(value_type="INT64_LIST", tags={"series": "24"})], ttl_ns=23 * HOUR_NS),
        "it reaches back 1d, but the view's ttl is 23h",
        "make it 1d or longer",
    ),
    "last events of no number": (
        view([aggregation("sum over last_events(0)")], [field()]),
        '"0" is not a valid number of last events',
        "give a number from 1 to 100",
    ),
    "list of the last events": (
        view([aggregation("top_k(3) over last_events(5)")], [field()]),
        'function "top_k(3)" is not taken over the last events',
        "or last_n(5), and take it from the list",
    ),
    "undo of the last events": (
        view([aggregation("sum over last_events(5)")], [field()], tags={"undo": "amount < 0"}),
        "but sum over last_events(5) cannot take an event back",
        "move the feature",
    ),
    "nulls under a condition": (
        view([aggregation("last respect nulls")], [field(tags={"where": "amount > 0"})]),
        'tag "where" does not go with last respect nulls',
        "make it the view's where",
    ),
    "fraction of a millisecond": (
        view([aggregation(slide_ns=MS_NS // 2)], [field(value_type="INT64_LIST", tags={"series": "2"})]),
        "its hop is 0.5 ms",
        "use whole milliseconds",
    ),
}


@pytest.mark.parametrize(("registered", "fact", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_window_that_cannot_be_is_reported_with_its_reason(
    registered: RegisteredView, fact: str, remedy: str
) -> None:
    """Once, at the feature, with what to write instead."""
    texts = [str(problem) for problem in compile_repo(repo(registered)).problems]

    matching = [text for text in texts if fact in text]
    assert len(matching) == 1, texts
    assert remedy in matching[0]


def test_every_window_has_a_hash_of_its_own() -> None:
    """Another zone, unit, gap, longest session or number of windows is another definition."""
    views = [
        *(registered for registered, _ in SOUND.values()),
        named({**BERLIN, "timezone": "Europe/Paris"}),
        named({**BERLIN, "window": "this_week"}),
        named({**SESSION, "gap": "31m"}),
        lengthy({"series": "25"}),
    ]

    assert len(views) == len({definition_hash(compile_repo(repo(each)).spec.views[0]) for each in views})


def test_plan_says_which_window() -> None:
    """In the words of the tags."""
    empty = compile_repo(repo()).spec
    before = compile_repo(repo(view())).spec
    texts = {
        "sum(amount) over today in Europe/Berlin, int64": named(BERLIN),
        "sum(amount) over session, gap 30m, at most 1d, int64": named(SESSION),
        "sum(amount) over 24 times 1h, hop 1m, list<int64>": lengthy({"series": "24"}),
        "sum(amount) over last_events(3) over 1h, hop 1m, int64": lengthy(
            {}, function="sum over last_events(3)", value_type="INT64"
        ),
    }

    assert not compare(empty, before).is_empty
    for text, registered in texts.items():
        (change,) = compare(before, compile_repo(repo(registered)).spec).changes
        assert f"~ feature total: sum(amount) over 1h, hop 1m, int64 -> {text}" in change.details


def test_helpers_write_the_tags() -> None:
    """Names say the window; answers of a series are arrays."""
    source: KafkaSource = kafka_source(
        name="payments",
        topic="payments",
        columns={"at": "timestamp", "card_id": "string", "amount": "bigint"},
        event_time="at",
    )
    calendars = [make("Europe/Berlin") for make in (today, this_week, this_month, this_year)]
    written = stream_view(
        name="activity",
        entities=[Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)],
        source=source,
        features=[
            *count(over=calendars),
            *aggregate("amount", "sum", over=[session(gap="30m"), session(gap="5m", longest="1h")]),
            *aggregate("amount", ["sum", "mean"], over=series("1h", 24), offset="7d"),
            *aggregate("amount", "sum", over=last_events(10, within=session(gap="30m"))),
            *aggregate("amount", "last", over="1d", ignore_nulls=False),
        ],
    )
    zone = {"timezone": "Europe/Berlin"}

    assert [
        ("count_today", Int64, {"window": "today", **zone}),
        ("count_this_week", Int64, {"window": "this_week", **zone}),
        ("count_this_month", Int64, {"window": "this_month", **zone}),
        ("count_this_year", Int64, {"window": "this_year", **zone}),
        ("amount_sum_session_30m", Int64, SESSION),
        ("amount_sum_session_5m", Int64, {"window": "session", "gap": "5m", "session_max": "1h"}),
        ("amount_sum_24x1h_offset_7d", Array(Int64), {"series": "24", "offset": "7d"}),
        ("amount_mean_24x1h_offset_7d", Array(Float64), {"series": "24", "offset": "7d"}),
        ("amount_sum_last_10_session_30m", Int64, SESSION),
        ("amount_last_1d", Int64, {}),
    ] == [(each.name, each.dtype, each.tags) for each in written.features]
    functions = [each.function for each in written.aggregations]
    assert ["sum over last_events(10)", "last respect nulls"] == functions[-2:]
    twice = last_events(1, within=last_events(2, within="1h"))
    assert "it is over the last 1 of the last 2 events" in twice.tags[MISTAKE_TAG]
