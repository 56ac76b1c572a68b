"""Hypothesis strategies: views and event streams that go where windows, tiles and codecs break.

What the streams hold, each in every few examples:

    ties            several events of an entity in one millisecond
    window edges    events exactly on, one before and one after the edges of the view's windows and hops
    late            arrival order is not time order, by up to several windows
    duplicates      an event repeated, at once or much later
    missing         null columns, NaN
    extremes        negative, zero, near the ends of int64; empty and non-ASCII text
    collisions      a handful of entity keys
    clock changes   calendar windows of zones whose clocks change in the midst of the stream

Times are near ANCHOR_MS, which lies on every hop grid up to one day, or near a change of clocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import names, resolve
from featurestore.core.lowering.series import series_type
from featurestore.core.spec import (
    HOP_LADDER_MS,
    CalendarUnit,
    Column,
    FeatureSpec,
    SourceSpec,
    ValueType,
    ViewSpec,
    Window,
    default_hop_ms,
)
from featurestore.core.windows.calendar_windows import calendar_window
from featurestore.core.windows.windows import session_window
from featurestore.testing.oracle.naive import INT64_MAX, INT64_MIN, NaiveEvent, NaiveValue, window_edges
from featurestore.wire.entity_key import encode_key

ANCHOR_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""

DAY_MS = 86_400_000

SOURCE = SourceSpec(
    name="events",
    topic="events",
    columns=(
        Column("event_id", ValueType.STRING),
        Column("event_time", ValueType.TIMESTAMP),
        Column("card_id", ValueType.STRING),
        Column("amount", ValueType.INT64),
        Column("price", ValueType.FLOAT64),
        Column("is_declined", ValueType.BOOL),
        Column("market", ValueType.STRING),
        Column("opened_at", ValueType.TIMESTAMP),
    ),
    event_time_column="event_time",
    event_id_column="event_id",
    dedup_horizon_ms=365 * DAY_MS,
)
"""A source with a column of every type; its horizon is longer than any stream generated here."""

CARD_IDS = ("card-1", "card-2", "кард", "4:c", "x" * 60)
"""Few, so that streams collide; some look like parts of a composite key or are not ASCII."""

_FEATURE_COLUMNS = tuple(
    column for column in SOURCE.columns if column.name not in {"event_id", "event_time", "card_id"}
)

CLOCK_CHANGES_MS: Mapping[str, tuple[int, ...]] = {
    "UTC": (),
    "Asia/Kolkata": (),
    "Europe/Berlin": (1_774_746_000_000, 1_792_890_000_000),
    "America/New_York": (1_772_953_200_000, 1_793_512_800_000),
    "Australia/Lord_Howe": (1_775_314_800_000, 1_791_041_400_000),  # by half an hour
    "Asia/Kathmandu": (504_901_800_000,),  # by a quarter of an hour, for ever, as 1986 begins
    "America/Santiago": (1_788_667_200_000,),  # midnight is skipped
    "America/Havana": (1_730_610_000_000,),  # midnight comes twice
    "Pacific/Apia": (1_325_239_200_000,),  # a day is skipped
    "America/St_Johns": (1_289_097_060_000,),  # a minute after midnight it is the day before again
}
"""Zones of calendar windows, with moments at which their clocks change."""

SESSION_GAPS_MS = (1, 7, 499, 1_000, 1_001, 45_000, 1_800_000, DAY_MS)

_WINDOW_LENGTHS_MS = (1, 2, 7, 10, 1_000, 60_000, 600_000, 3_600_000, DAY_MS, 7 * DAY_MS, 30 * DAY_MS, 90 * DAY_MS)


@dataclass(frozen=True, slots=True)
class StreamCase:
    """A view, what happened, and when somebody asks.

    Attributes:
        view: the definition.
        events: arrival order.
        as_of_ms: read times, ascending, none older than the view's lookback before the newest event.
    """

    view: ViewSpec
    events: tuple[NaiveEvent, ...]
    as_of_ms: tuple[int, ...]


@st.composite
def stream_cases(draw: st.DrawFn, *, functions: Sequence[str] = (), events_max: int = 40) -> StreamCase:
    """A view with a stream made to hit its edges, and read times at those edges.

    Args:
        draw: Hypothesis's.
        functions: function texts to choose from; empty takes the whole catalog.
        events_max: longest stream.
    """
    view = draw(view_specs(functions=functions))
    events = draw(event_streams(view, events_max=events_max))
    return StreamCase(view, events, draw(read_times(view, events)))


@st.composite
def view_specs(draw: st.DrawFn, *, functions: Sequence[str] = (), features_max: int = 8) -> ViewSpec:
    """A view over SOURCE keyed by card_id, with features that share and do not share components."""
    features = draw(st.lists(feature_specs(functions=functions), min_size=1, max_size=features_max))
    lookback_ms = draw(st.sampled_from((0, 1, 60_000, DAY_MS)))
    numbered = tuple(replace(feature, name=f"feature_{index}") for index, feature in enumerate(features))
    is_kept_for_ever = any(feature.window.length_ms is None for feature in numbered)
    reach_ms = max(feature.window.reach_ms for feature in numbered)
    return ViewSpec(
        name="card_activity",
        join_keys=(Column("card_id", ValueType.STRING),),
        source=SOURCE,
        features=numbered,
        retention_ms=None if is_kept_for_ever else reach_ms + lookback_ms,
        lookback_ms=lookback_ms,
    )


@st.composite
def feature_specs(draw: st.DrawFn, *, functions: Sequence[str] = ()) -> FeatureSpec:
    """One feature: any function over any column that it can take, any window."""
    aggregation = resolve(draw(st.sampled_from(tuple(functions) or names())))
    columns: list[Column | None] = [c for c in _FEATURE_COLUMNS if aggregation.output_type(c.type) is not None]
    if not aggregation.requires_column:
        columns.append(None)
    column = draw(st.sampled_from(columns))
    output_type = aggregation.output_type(None if column is None else column.type)
    assert output_type is not None, "only columns that the function takes are drawn"
    window = draw(windows())
    if window.series:
        further = [column for column in SOURCE.columns if column.name in aggregation.further_columns]
        list_type = series_type(aggregation, output_type, column, further)
        output_type, window = (output_type, replace(window, series=0)) if list_type is None else (list_type, window)
    in_flight, fixed = draw(st.booleans()), draw(st.booleans())
    name = column.name if column else None
    return FeatureSpec("feature", aggregation.name, name, window, output_type, "", in_flight, fixed)


def windows() -> st.SearchStrategy[Window]:
    """Any window; half of them sliding or lifetime."""
    series = st.builds(
        lambda window, count: window if window.length_ms is None else replace(window, series=count),
        sliding_windows(),
        st.integers(1, 5),
    )
    calendars = st.builds(
        calendar_window, st.sampled_from(tuple(CalendarUnit)), st.sampled_from(tuple(CLOCK_CHANGES_MS))
    )
    return st.one_of(sliding_windows(), sliding_windows(), sliding_windows(), series, calendars, session_windows())


@st.composite
def session_windows(draw: st.DrawFn) -> Window:
    """A gap, with the default for the longest session or one that cuts soon."""
    gap_ms = draw(st.sampled_from(SESSION_GAPS_MS))
    return session_window(gap_ms, draw(st.sampled_from((None, gap_ms, 3 * gap_ms + 1))))


@st.composite
def sliding_windows(draw: st.DrawFn) -> Window:
    """Lifetime, or a length with a hop that divides it (1 ms and all of it included), with or without offset."""
    length_ms = draw(st.one_of(st.none(), st.sampled_from(_WINDOW_LENGTHS_MS)))
    if length_ms is None:
        return Window(None)
    rungs = [hop_ms for hop_ms in (*HOP_LADDER_MS, 2, 5, 250) if hop_ms <= length_ms and length_ms % hop_ms == 0]
    hop_ms = draw(st.sampled_from((default_hop_ms(length_ms), 1, length_ms, *rungs)))
    offset_ms = draw(st.sampled_from((0, 0, 0, 1, hop_ms, length_ms, 3 * hop_ms + 1, DAY_MS)))
    return Window(length_ms, hop_ms, offset_ms)


@st.composite
def event_streams(draw: st.DrawFn, view: ViewSpec, *, events_max: int = 40) -> tuple[NaiveEvent, ...]:
    """Events of a view in arrival order, duplicates included; `events_max` counts them before duplication."""
    anchor_ms = draw(st.sampled_from(_anchors_ms(view)))
    times = draw(st.lists(event_times(view, anchor_ms), max_size=events_max))
    # Ids are unrelated to time and arrival: ties are broken by id, and that must not look like arrival order.
    ids = draw(st.permutations(range(len(times))))
    events = [
        NaiveEvent(
            key=encode_key([draw(st.sampled_from(CARD_IDS))]),
            event_time_ms=time_ms,
            event_id=b"id-%d" % number,
            columns={column.name: draw(column_values(column.type)) for column in _FEATURE_COLUMNS},
        )
        for time_ms, number in zip(times, ids, strict=True)
    ]
    for _ in range(draw(st.integers(0, 3)) if events else 0):
        original = draw(st.integers(0, len(events) - 1))
        events.insert(draw(st.integers(original + 1, len(events))), events[original])
    return tuple(events)


@st.composite
def event_times(draw: st.DrawFn, view: ViewSpec, anchor_ms: int = ANCHOR_MS) -> int:
    """A moment near the anchor: on, beside or between the edges of the view's windows and hops."""
    windows_of_view = [feature.window for feature in view.features]
    steps = {1, 1_000}.union(
        *((window.hop_ms, window.length_ms or DAY_MS, window.offset_ms, window.gap_ms) for window in windows_of_view)
    )
    step_ms = draw(st.sampled_from(sorted(steps)))
    beside_ms = draw(st.sampled_from((0, 0, -1, 1, 13, 499)))
    return anchor_ms + draw(st.integers(-3, 3)) * step_ms + beside_ms


def _anchors_ms(view: ViewSpec) -> list[int]:
    """Where the streams of a view may lie: at ANCHOR_MS, or where clocks change or local days begin around that."""
    anchors = [ANCHOR_MS]
    for window in (feature.window for feature in view.features):
        for change_ms in CLOCK_CHANGES_MS.get(window.timezone, ()):
            begins = (window_edges(window, change_ms + beside_ms)[0] for beside_ms in (-1, 0, DAY_MS))
            anchors += [change_ms, *(int(begin_ms) for begin_ms in begins)]
    return anchors


@st.composite
def read_times(draw: st.DrawFn, view: ViewSpec, events: Sequence[NaiveEvent]) -> tuple[int, ...]:
    """One to four read times for a stream, ascending: at its events, at window edges after them, far later."""
    newest_ms = max((event.event_time_ms for event in events), default=ANCHOR_MS)
    oldest_ms = newest_ms - view.lookback_ms
    lengths = sorted({feature.window.reach_ms for feature in view.features} | {1_000})
    near_events = [event.event_time_ms + beside for event in events for beside in (0, 1)] or [newest_ms]
    one = st.one_of(
        st.sampled_from((newest_ms, newest_ms + 1, oldest_ms)),
        st.sampled_from(near_events),
        st.builds(
            lambda time_ms, length_ms: time_ms + length_ms, st.sampled_from(near_events), st.sampled_from(lengths)
        ),
        st.integers(newest_ms, newest_ms + 200 * DAY_MS),
    )
    drawn = draw(st.lists(one, min_size=1, max_size=4))
    return tuple(sorted(max(time_ms, oldest_ms) for time_ms in drawn))


def column_values(column_type: ValueType) -> st.SearchStrategy[NaiveValue | None]:
    """Values of a column, null about every fourth time."""
    return st.one_of(_PRESENT[column_type], _PRESENT[column_type], _PRESENT[column_type], st.none())


_PRESENT: dict[ValueType, st.SearchStrategy[NaiveValue]] = {
    ValueType.INT64: st.one_of(
        st.integers(-5, 5),
        st.integers(0, 100_000),
        st.sampled_from((INT64_MIN, INT64_MIN + 1, INT64_MAX - 1, INT64_MAX, 2**53 + 1)),
    ),
    # Bounded, so that sums stay finite; the quarter-valued ones make ties and exact cancellation.
    ValueType.FLOAT64: st.one_of(
        st.integers(-8, 8).map(lambda quarters: quarters / 4),
        st.floats(-1e9, 1e9, allow_nan=False),
        st.sampled_from((-0.0, 1e-300, 1e15, float("nan"))),
    ),
    ValueType.BOOL: st.booleans(),
    ValueType.TIMESTAMP: st.integers(ANCHOR_MS - 400 * DAY_MS, ANCHOR_MS),
    ValueType.STRING: st.one_of(
        st.sampled_from(("", "DE", "SE", "日本", "é", "e\u0301", "💳", "null")),
        st.text(st.characters(codec="utf-8"), max_size=6),
    ),
}
