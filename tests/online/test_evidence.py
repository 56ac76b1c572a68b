"""What is shown behind a value is what it was made of: the oracle, given no more than that, comes to the same value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.clock import Deadline
from featurestore.core.spec import (
    ComputedColumn,
    FeatureReference,
    FeatureSpec,
    RepoSpec,
    ValueType,
    ViewSpec,
    Window,
)
from featurestore.core.windows.windows import session_window
from featurestore.definitions.compile.storage_groups import plan_storage, storage_group
from featurestore.errors import AsOfTooOld, InvalidRequest
from featurestore.online.answer.assembly import Answer, Assembly, DistinctReads
from featurestore.online.answer.explaining.evidence import TILES_SHOWN_MAX, PartEvidence
from featurestore.online.answer.explaining.explainer import AnsweredRow, answered_value, explain
from featurestore.online.answer.explaining.explanation import (
    CutKind,
    ExplainedFeature,
    ExplainedTile,
    ExplainedValue,
    ExplainedView,
    Explanation,
)
from featurestore.online.answer.in_flight.payments import InFlight
from featurestore.online.answer.schema import FeatureStatus
from featurestore.online.answer.service_plan import ServicePlan, make_service_plan
from featurestore.online.generation import Generation
from featurestore.online.read.reader import EntityBytes
from featurestore.online.serving_view import ServingView, views_of
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent, naive_value, window_edges
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, event_streams, read_times, view_specs
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.entity_key import encode_key
from tests.online.test_in_flight import given_column
from tests.online.test_storage_groups import companions, stored
from tests.serving.payments import CARD_ACTIVITY, CARD_ID, event_of

HOUR_MS = 3_600_000
MINUTE_MS = 60_000


@dataclass(frozen=True)
class Asked:
    """A service over some views of cards.

    Attributes:
        plan: of all their features.
        repo: the registry.
        serving: what answers.
        generation: the one that stores them all.
    """

    plan: ServicePlan
    repo: RepoSpec
    serving: dict[str, ServingView]
    generation: Generation

    @staticmethod
    def of(views: Sequence[ViewSpec]) -> Asked:
        """All features of one view, or of a storage group of several."""
        storing = views[0]
        if len(views) > 1:
            [(name, members)] = plan_storage(views).groups.items()
            storing = storage_group(name, members)
        generation = Generation("test", storing, 3, definition_hash(storing))
        serving = {one.view.name: one for one in views_of(generation)}
        references = tuple(
            FeatureReference(view.name, answer.name, f"{view.name}__{answer.name}")
            for view in views
            for answer in view.answers
        )
        repo = RepoSpec("test", tuple(views), (), ())
        return Asked(make_service_plan("cards", references, (CARD_ID,), repo, serving), repo, serving, generation)

    def row(
        self,
        card_id: str,
        body: bytes | None,
        head: bytes | None,
        as_of_ms: int,
        event: NaiveEvent | None = None,
    ) -> AnsweredRow:
        """One card, answered from those bytes, or refused; with a payment in flight, if there is one."""
        reads = DistinctReads(self.plan, [[card_id]], 1)
        found = [EntityBytes(body, head, None)]
        deadline = Deadline.after(ManualClock(now_ms=as_of_ms), 1_000)
        in_flight = None if event is None else self.in_flight(event)
        assembly = Assembly(self.plan, reads, found, (as_of_ms,), deadline, is_as_of_given=True, in_flight=in_flight)
        answer: Answer | None = None
        refusal = ""
        try:
            answer = assembly.answer(with_checkpoint=True)
        except AsOfTooOld as error:
            refusal = str(error)
        entity = {"card_id": card_id}
        return AnsweredRow(
            *(self.plan, self.repo, self.serving, entity, reads, found, as_of_ms, answer, answer, refusal),
            in_flight=in_flight,
        )

    def in_flight(self, event: NaiveEvent) -> InFlight:
        """A payment as a request brings it."""
        (reader,) = self.plan.in_flight.readers
        columns = {name: given_column(event.columns.get(name)) for name in reader.read}
        columns |= {name: given_column(event.key.decode()) for name in reader.keys.values() if name in columns}
        columns[reader.source.event_time_column] = given_column(event.event_time_ms)
        return self.plan.in_flight.take({reader.source.name: columns}, [[event.key.decode()]], 1)


def cards_with(
    data: st.DataObject, views: Sequence[ViewSpec]
) -> tuple[Asked, list[tuple[AnsweredRow, list[NaiveEvent], bool]]]:
    """Some stream in the store, partly compacted: each card's row at some moments, its events, whether all are rows."""
    asked = Asked.of(views)
    drawn = data.draw(event_streams(data.draw(st.sampled_from(views))))
    events = list({event.event_id: event for event in reversed(drawn)}.values())[::-1]
    early = {event.event_id for event in events[: data.draw(st.one_of(st.just(0), st.integers(0, len(events))))]}
    rows: list[tuple[AnsweredRow, list[NaiveEvent], bool]] = []
    for card_id in {bytes(event.key) for event in events}:
        mine = [event for event in events if event.key == card_id]
        old, new = ([one for one in mine if (one.event_id in early) is is_early] for is_early in (True, False))
        body, head = stored(asked.generation.view, old, new)
        moments = data.draw(read_times(asked.generation.view, mine))
        rows += [(asked.row(card_id.decode(), body, head, as_of_ms), mine, body is None) for as_of_ms in moments]
    return asked, rows


def tiles_of(explanation: Explanation, feature: ExplainedFeature) -> tuple[ExplainedTile, ...]:
    """Those that its partials are of."""
    return explanation.views[feature.view].tiles[feature.first_tile : feature.end_tile]


def spec_of(asked: Asked, feature: ExplainedFeature) -> FeatureSpec:
    """Its definition."""
    view, name = feature.name.split("__")
    spec = asked.repo.view(view)
    assert spec is not None
    return next(one for one in spec.features if one.name == name)


def as_event(tile: ExplainedTile, number: int) -> NaiveEvent:
    """An event made of what is shown of one, and of nothing else."""
    columns = {name: value for name, value in tile.columns.items() if name != "event id"}
    event_id = str(tile.columns.get("event id", number)).encode()
    return NaiveEvent(b"", tile.start_ms, event_id, columns)  # type: ignore[arg-type]  # scalars, as events have them


@settings(max_examples=60)
@given(view=view_specs(), data=st.data())
def test_values_are_those_that_are_answered_and_windows_the_oracles(view: ViewSpec, data: st.DataObject) -> None:
    """To the bit: what is merged for showing is what a lookup merges. Edges are those between which events count."""
    asked, rows = cards_with(data, [view])
    for row, events, _ in rows:
        explanation, answer = explain(row), row.answer
        assert answer is not None
        found = row.found[0]
        assert isinstance(found, EntityBytes)
        part = PartEvidence(row.plan.stream_parts[0], found, row.as_of_ms)
        outputs = range(len(view.features))
        _, evidence = part.show([part.index_of(output) for output in outputs])
        assert not part.is_refused
        for at, (slot, feature) in enumerate(zip(row.plan.schema.features, explanation.features, strict=True)):
            assert repr(feature.value) == repr(answered_value(answer, slot, at))
            assert repr(feature.value) == repr(evidence[part.index_of(at)].value)
            window = spec_of(asked, feature).window
            assert len(feature.windows) == (window.series or 1)
            if not window.series:
                begin, end = window_edges(window, row.as_of_ms, [event.event_time_ms for event in events])
                assert feature.windows[0].end_ms == end
                assert feature.windows[0].begin_ms == (None if window.length_ms is None else begin)


@settings(max_examples=60)
@given(view=view_specs(), data=st.data())
def test_the_oracle_comes_to_each_share_from_the_events_of_its_tile(view: ViewSpec, data: st.DataObject) -> None:
    """A tile's share is the function over its events alone, and its count is how many these are."""
    asked, rows = cards_with(data, [view])
    for row, events, _ in rows:
        explanation = explain(row)
        for feature in explanation.features:
            tiles = tiles_of(explanation, feature)
            assert len(tiles) == len(feature.partials)
            if any(left.end_ms > right.start_ms for left, right in pairwise(tiles)):
                continue  # a late event beside a wide tile: which of them holds an event cannot be told by its time
            spec = replace(spec_of(asked, feature), window=Window(None))
            if spec_of(asked, feature).window.series:
                continue
            for tile, partial in zip(tiles, feature.partials, strict=True):
                mine = [event for event in events if tile.start_ms <= event.event_time_ms < tile.end_ms]
                expected = naive_value(spec, mine, row.as_of_ms)
                assert agrees(expected, partial, scale=magnitude(spec, mine, row.as_of_ms)), (feature, tile)
                assert tile.event_count in (None, len(mine))
                assert tile.is_event <= (len(mine) == 1)


@settings(max_examples=60)
@given(view=view_specs(), data=st.data())
def test_the_oracle_comes_to_the_value_from_the_rows_that_are_shown(view: ViewSpec, data: st.DataObject) -> None:
    """Where all is in the head, the rows that are shown are all that anybody needs to recompute a value."""
    asked, rows = cards_with(data, [view])
    for row, _, is_all_shown in rows:
        explanation = explain(row)
        for feature in explanation.features:
            tiles = tiles_of(explanation, feature)
            spec = spec_of(asked, feature)
            if not is_all_shown or spec.window.gap_ms:
                continue
            assert all(tile.is_event for tile in tiles)
            shown = [as_event(tile, number) for number, tile in enumerate(tiles)]
            expected = naive_value(spec, shown, row.as_of_ms)
            assert agrees(expected, feature.value, scale=magnitude(spec, shown, row.as_of_ms)), feature


@settings(max_examples=60)
@given(views=companions(), data=st.data())
def test_sums_counts_and_extremes_merge_by_hand(views: list[ViewSpec], data: st.DataObject) -> None:
    """Adding the shares up, or taking the smallest or largest of them, gives the value: also in storage groups."""
    plan = plan_storage(views)
    if len(plan.groups) != 1 or plan.apart:
        return
    merges: dict[str, Callable[[list[int]], int]] = {"count": sum, "sum": sum, "min": min, "max": max}
    asked, rows = cards_with(data, views)
    for row, _, _ in rows:
        for feature in explain(row).features:
            spec = spec_of(asked, feature)
            merge = merges.get(spec.function)
            shares = [one for one in feature.partials if isinstance(one, int)]
            if merge is None or feature.type not in (ValueType.INT64, ValueType.TIMESTAMP) or not shares:
                continue
            if len(shares) < len(feature.partials) and spec.function == "sum":
                continue  # null is no value, or a sum that does not fit
            expected = merge(shares)
            if abs(expected) < 1 << 63:
                assert expected == feature.value, feature


def an_hour_of(function: str, column: str | None, value_type: ValueType, **changes: object) -> FeatureSpec:
    """A feature of the last hour."""
    feature = FeatureSpec(f"{column}_{function}", function, column, Window(HOUR_MS, MINUTE_MS), value_type)
    return dataclasses.replace(feature, **changes)  # type: ignore[arg-type]  # what is shown is typed wider


VIEW = ViewSpec(
    "card_activity",
    (CARD_ID,),
    CARD_ACTIVITY.source,
    (
        an_hour_of("count", None, ValueType.INT64, name="count_1h"),
        an_hour_of("sum", "amount", ValueType.INT64, name="sum_1h"),
        an_hour_of("last", "market", ValueType.STRING, name="market_1h"),
    ),
    DAY_MS,
    derived=(ComputedColumn("mean_1h", ValueType.FLOAT64, "sum_1h / count_1h"),),
)
KEY = encode_key(["c-1"])
NOW_MS = ANCHOR_MS + HOUR_MS


def explained(view: ViewSpec, events: Sequence[NaiveEvent], as_of_ms: int, *, old: int = 0) -> Explanation:
    """The card "c-1", the first `old` of its events compacted."""
    asked = Asked.of([view])
    body, head = stored(view, events[:old], events[old:])
    return explain(asked.row("c-1", body, head, as_of_ms))


def test_a_derived_feature_shows_what_it_reads() -> None:
    """Each of them with its window and shares, and its sentence."""
    events = [event_of(KEY, NOW_MS - 60_000, amount=30), event_of(KEY, NOW_MS - 1, amount=12)]

    explanation = explained(VIEW, events, NOW_MS)
    derived = explanation.features[3]

    assert (derived.value, derived.windows, derived.partials) == (21.0, (), ())
    assert derived.meaning == "sum_1h / count_1h, of a card_id, computed when it is read"
    assert [("sum_1h", 42, (30, 12)), ("count_1h", 2, (1, 1))] == sorted(
        [(read.name, read.value, read.partials) for read in derived.reads], reverse=True
    )


def test_an_event_of_the_head_is_shown_with_what_is_kept_of_it() -> None:
    """Its columns, null or not; a tile of the body has none."""
    old, new = event_of(KEY, NOW_MS - 30 * MINUTE_MS, amount=5), event_of(KEY, NOW_MS - 1, amount=None, market="SE")
    explanation = explained(VIEW, [old, new], NOW_MS, old=1)
    tile, event = explanation.views[0].tiles

    assert (tile.is_event, tile.columns) == (False, {})
    assert (event.is_event, event.start_ms, event.event_count) == (True, NOW_MS - 1, 1)
    assert event.columns["amount"] is None
    assert event.columns["market"] == "SE"
    assert event.columns["event id"] == (new.event_id or b"").decode()


def test_events_of_one_millisecond_are_told_apart() -> None:
    """Behind a tile of the body that begins with them, in the order in which they came."""
    amounts = [5, 3, 9, 4]
    events = [event_of(KEY, NOW_MS - 1, amount=amount) for amount in amounts]

    tiles = explained(VIEW, events, NOW_MS, old=1).views[0].tiles

    assert [tile.is_event for tile in tiles] == [False, True, True, True]
    assert [tile.columns["amount"] for tile in tiles[1:]] == amounts[1:]


def test_a_moment_that_is_refused_shows_the_tile_in_the_way() -> None:
    """A wide tile lies across the window's edge; no value is claimed, and the sentence says how far back reads go."""
    times = [NOW_MS - 20 * HOUR_MS + minute * 60_000 for minute in range(600)]
    events = [event_of(KEY, moment) for moment in [*times, NOW_MS]]
    view = replace(VIEW, retention_ms=30 * DAY_MS)

    explanation = explained(view, events, times[550] + 1, old=len(events))
    count = explanation.features[0]
    (window,) = count.windows

    assert "is older than the tiles" in explanation.refusal
    assert (count.value, count.status) == (None, None)
    assert window.cut is not None
    assert window.cut.kind is CutKind.EDGE
    assert window.begin_ms is not None
    assert any(window.cut.start_ms < edge < window.cut.end_ms for edge in (window.begin_ms, window.end_ms))
    assert "lookback of 1 min" in explanation.views[0].state


def test_a_refused_session_shows_the_tile_that_may_hide_its_begin() -> None:
    """Of sessions it is not the edge that counts, but the silence that a tile may hide."""
    feature = an_hour_of("count", None, ValueType.INT64, name="session", window=session_window(5_000, 60_000))
    view = replace(VIEW, features=(feature,), derived=(), retention_ms=30 * DAY_MS)
    times = [NOW_MS - 20 * HOUR_MS + second * 10_000 for second in range(60)]
    events = [event_of(KEY, moment) for moment in [*times, NOW_MS]]

    explanation = explained(view, events, times[40] + 1, old=len(events))
    (window,) = explanation.features[0].windows

    assert explanation.refusal
    assert window.cut is not None
    assert window.cut.end_ms - window.cut.start_ms > 5_000


def test_what_was_dropped_is_told_from_what_was_rolled_up() -> None:
    """A window that begins before the retention of the newest event cannot be answered, and no tile is in the way."""
    view = replace(VIEW, retention_ms=HOUR_MS, features=VIEW.features[:1], derived=())
    events = [event_of(KEY, NOW_MS - 2 * DAY_MS), event_of(KEY, NOW_MS)]

    explanation = explained(view, events, NOW_MS - DAY_MS, old=2)
    (window,) = explanation.features[0].windows

    assert window.cut is not None
    assert window.cut.kind is CutKind.DROPPED
    assert "within what is kept cannot be told" in explanation.views[0].state


def states_of(explanation: Explanation) -> list[tuple[FeatureStatus | None, str]]:
    """Status and sentence of each feature's view."""
    return [(feature.status, explanation.views[feature.view].state) for feature in explanation.features[:1]]


def test_an_unknown_entity_says_why() -> None:
    """Nothing stored, or nothing within what the view keeps."""
    events = [event_of(KEY, NOW_MS - 30 * DAY_MS)]

    ((never, nothing),) = states_of(explained(VIEW, [], NOW_MS))
    ((late, forgotten),) = states_of(explained(VIEW, events, NOW_MS))
    ((known, _),) = states_of(explained(VIEW, [event_of(KEY, NOW_MS - 1)], NOW_MS))

    assert [never, late, known] == [FeatureStatus.NOT_FOUND, FeatureStatus.NOT_FOUND, FeatureStatus.PRESENT]
    assert nothing.startswith("nothing is stored of this entity")
    assert forgotten == "no event of this entity within the 1 day that the view keeps before the read time"


def test_many_tiles_are_shown_as_few() -> None:
    """The newest alone, older ones together; what they come to is the same, window by window."""
    week = an_hour_of("count", None, ValueType.INT64, name="count_7d", window=Window(7 * DAY_MS, HOUR_MS))
    view = replace(VIEW, features=(*VIEW.features, week), derived=(), retention_ms=8 * DAY_MS)
    events = [event_of(KEY, NOW_MS - number * 10_000, amount=number) for number in range(900, 0, -1)]

    explanation = explained(view, events, NOW_MS)
    tiles = explanation.views[0].tiles
    by_name = {feature.name: feature for feature in explanation.features}

    assert len(tiles) < TILES_SHOWN_MAX + 4
    assert sum(tile.merged for tile in tiles) == 900
    assert {tile.merged for tile in tiles[-TILES_SHOWN_MAX:]} == {1}
    for name in ("card_activity__count_1h", "card_activity__sum_1h", "card_activity__count_7d"):
        shares: list[ExplainedValue] = list(by_name[name].partials)
        assert sum(int(share) for share in shares if isinstance(share, int)) == by_name[name].value
    assert by_name["card_activity__count_1h"].value == 360


def test_only_wanted_features_and_their_views_are_explained() -> None:
    """By their names in the answer or with their views; an unknown one is named, with those that are like it."""
    asked = Asked.of([VIEW, replace(VIEW, name="card_other", where="is_declined", derived=())])
    row = asked.row("c-1", *stored(asked.generation.view, [], [event_of(KEY, NOW_MS - 1)]), NOW_MS)

    by_answer = explain(row, ["card_other__sum_1h"])
    by_view = explain(row, ["card_other:sum_1h"])

    assert by_answer == by_view
    assert [feature.name for feature in by_view.features] == ["card_other__sum_1h"]
    assert [view.name for view in by_view.views] == ["card_other"]
    with pytest.raises(InvalidRequest, match='no feature "card_other:sum_1"') as raised:
        explain(row, ["card_other:sum_1"])
    assert "card_other:sum_1h" in raised.value.hint


def test_a_member_of_a_storage_group_says_where_it_is_stored() -> None:
    """Its own name and hash, the group's generation; its state is its own, whatever the others have."""
    declined = replace(VIEW, name="card_declines", where="is_declined", derived=())
    asked = Asked.of([VIEW, declined])
    event = event_of(KEY, NOW_MS - 2)  # an even time: not declined
    explanation = explain(asked.row("c-1", *stored(asked.generation.view, [], [event]), NOW_MS))
    views: dict[str, ExplainedView] = {view.name: view for view in explanation.views}

    assert {view.stored_as for view in views.values()} == {asked.generation.view.name}
    assert {view.generation for view in views.values()} == {3}
    assert views["card_declines"].definition_hash == definition_hash(declined)
    assert views["card_activity"].state == "the entity is known"
    assert views["card_declines"].state.startswith("no event of this entity within")
    assert views["card_declines"].event_time_ms == 0
    assert views["card_activity"].freshness_ms == 2
