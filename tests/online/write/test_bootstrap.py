"""A generation that is filled from recorded events, and the stream that goes on from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings

import featurestore.online.write.bootstrap as bootstrap
import featurestore.online.write.bootstrap_fold as bootstrap_fold
from featurestore.core.events import BlobRow, Horizon, Int64Array
from featurestore.core.point_in_time.rows import EntityEvents, hash_history_ids
from featurestore.core.spec import ViewSpec
from featurestore.errors import InvalidRequest, OnlineStoreDown, WriterFenced
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import RedisStore
from featurestore.online.store import LaneCommit, LaneOutcome, OnlineStore
from featurestore.online.write.bootstrap import fill_lanes, missing_lanes
from featurestore.online.write.bootstrap_fold import EntityFolder
from featurestore.online.write.writer import ViewWriter
from featurestore.testing.answers import answer_values
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent, naive_found, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE, StreamCase, stream_cases
from featurestore.testing.writers import open_writer
from featurestore.wire.codecs.body import decode_entity
from featurestore.wire.entity_key import lane_of
from tests.online.write.writing import LANES, PROJECT, assert_equals_oracle, copy_of, events_of, view_of

TOPIC = SOURCE.topic


@dataclass(frozen=True)
class Part:
    """See EventPart."""

    keys: Sequence[bytes]
    events: EntityEvents
    recent_ids: BlobRow | None
    recent_entity: Int64Array | None


@dataclass(frozen=True)
class Recorded:
    """Events at rest, of one partition."""

    view: ViewSpec
    rows: Sequence[NaiveEvent]
    positions: Mapping[tuple[str, int], int] = field(default_factory=dict)
    incarnations: Mapping[tuple[str, int], str] = field(default_factory=dict)
    horizons: Mapping[tuple[str, int], Horizon] = field(default_factory=dict)

    def parts(self, lane: int) -> Iterator[Part]:
        """All events of the lane in one part."""
        mine = [event for event in self.rows if lane_of(event.key, LANES) == lane]
        if mine:
            keys, events = entity_events(self.view, mine)
            yield Part(keys, events, BlobRow.of([event.event_id or b"" for event in mine]), events.entity)


def recorded(view: ViewSpec, events: Sequence[NaiveEvent]) -> Recorded:
    """All of these events, at offsets from 0."""
    return Recorded(view, events, {(TOPIC, 0): len(events)})


def entity_events(view: ViewSpec, events: Sequence[NaiveEvent]) -> tuple[Sequence[bytes], EntityEvents]:
    """Events as columns."""
    batch = keyed_batch(view, events)
    hashes = None if batch.event_ids is None else hash_history_ids(BlobRow.of(batch.event_ids))
    return batch.keys, EntityEvents(batch.key_index, batch.event_time_ms, hashes, batch.event_ids, batch.columns)


def begin(store: RedisStore, view: ViewSpec) -> Generation:
    """A bootstrapping generation of a store with LANES lanes."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(LANES)
    return catalog.begin_bootstrap(view)


def clock() -> ManualClock:
    """Later than all events."""
    return ManualClock(now_ms=ANCHOR_MS + 1_000 * DAY_MS)


def writer_of(store: RedisStore, generation: Generation) -> ViewWriter:
    """The stream's writer of a generation."""
    return open_writer(store, generation, LANES, clock())


def dying(store: RedisStore, commits: int, *, is_applied: bool) -> OnlineStore:
    """A store whose user dies at a commit, which may have been applied or not."""
    return cast(OnlineStore, _DyingStore(store, commits, is_applied=is_applied))


class _DyingStore:
    """See `dying`."""

    def __init__(self, store: RedisStore, commits: int, *, is_applied: bool) -> None:
        self._store = store
        self._commits_left = commits
        self._is_applied = is_applied

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, lanes: Sequence[LaneCommit]) -> list[LaneOutcome]:
        """As the real one, until the end comes."""
        self._commits_left -= 1
        if self._commits_left == 0 and self._is_applied:
            self._store.commit(lanes)
        if self._commits_left <= 0:
            raise OnlineStoreDown("the process ended here")
        return self._store.commit(lanes)


@pytest.mark.parametrize("head_rows", [1, 4, 48])
@settings(max_examples=60)
@given(case=stream_cases())
def test_folded_events_answer_as_the_oracle_does(head_rows: int, case: StreamCase) -> None:
    """Any function, any window, repeats and late events included; as head or as body, in chunks of any size."""
    generation = Generation(PROJECT, case.view, 1, "")
    compiled = generation.compiled
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap_fold, "HEAD_ROWS_MAX", head_rows)
        patch.setattr(bootstrap_fold, "FOLD_ROWS", 5)
        keys, events = entity_events(case.view, case.events)
        stored = {one.key: one for one in EntityFolder(generation, clock().now_ms()).fold(keys, events)}

    assert {event.key for event in case.events} == set(stored)
    for key, one in stored.items():
        mine = [event for event in case.events if event.key == key]
        distinct = list({event.event_id: event for event in mine}.values())
        assert bool(one.head) != bool(one.body)
        assert (len(distinct) < head_rows) == bool(one.head)
        table = decode_entity(compiled, one.body, one.head)
        for as_of_ms in case.as_of_ms:
            answer = compiled.answer(table, as_of_ms)
            assert naive_found(case.view, distinct, as_of_ms) == answer.found
            actual = answer_values(case.view, answer)
            for feature in case.view.features:
                expected = naive_value(feature, distinct if answer.found else (), as_of_ms)
                assert agrees(expected, actual[feature.name], scale=magnitude(feature, distinct, as_of_ms)), (
                    feature,
                    expected,
                )


def test_the_stream_goes_on_where_the_recorded_events_end(store: RedisStore) -> None:
    """No gap and no overlap: what it reads again is skipped, what is new is applied, a late retry does not count."""
    view, events = view_of(60_000, DAY_MS, functions=("sum", "last")), events_of(1_000, keys=9)
    generation = begin(store, view)
    fill_lanes(store, generation, recorded(view, events[:700]), range(LANES), clock())
    ready = GenerationCatalog(store, PROJECT).hand_over(generation)
    writer = writer_of(store, ready)
    again = [*events[600:], replace(events[650], columns={"amount": 10**9})]
    report = writer.write([keyed_batch(view, again, from_offset=600, lane_count=LANES)])

    assert GenerationState.FILLING == ready.state
    assert (300, 1, 100) == (report.events_applied, report.duplicates_dropped, report.replayed_skipped)
    assert {(TOPIC, 0): 1_001} == writer.positions()
    assert_equals_oracle(store, writer, events, ANCHOR_MS + 1_000_001)


@pytest.mark.parametrize("is_applied", [False, True], ids=["lost", "unacknowledged"])
@pytest.mark.parametrize("commits", range(1, 13))
def test_a_bootstrap_that_dies_at_any_commit_is_continued(
    store: RedisStore, commits: int, is_applied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run keeps complete lanes, computes the others from a log that has grown, and all values are exact."""
    monkeypatch.setattr(bootstrap, "COMMIT_ENTITIES", 2)
    view, events = view_of(60_000, DAY_MS), events_of(400, keys=9)
    generation = begin(store, view)
    dies = dying(store, commits, is_applied=is_applied)
    with pytest.raises(OnlineStoreDown):
        fill_lanes(dies, generation, recorded(view, events[:300]), range(LANES), clock())
    assert GenerationCatalog(store, PROJECT).serving(view.name) is None

    assert generation == begin(store, view)
    left = missing_lanes(store, generation, LANES, {(TOPIC, 0): 350})
    fill_lanes(store, generation, recorded(view, events[:350]), left, clock())
    assert [] == missing_lanes(store, generation, LANES, {(TOPIC, 0): 350})
    writer = writer_of(store, GenerationCatalog(store, PROJECT).hand_over(generation))
    resume = writer.positions()[TOPIC, 0]
    writer.write([keyed_batch(view, events[resume:], from_offset=resume, lane_count=LANES)])

    assert resume == (350 if len(left) == LANES else 300)
    assert_equals_oracle(store, writer, events, ANCHOR_MS + 400_001)


def test_what_an_unfinished_run_left_is_deleted(store: RedisStore) -> None:
    """A lane that is computed anew holds nothing of an entity that the log does not have any more."""
    view, events = view_of(DAY_MS), events_of(300, keys=9)
    generation = begin(store, view)
    with pytest.raises(OnlineStoreDown):
        fill_lanes(dying(store, 3, is_applied=False), generation, recorded(view, events), range(LANES), clock())
    fill_lanes(store, generation, recorded(view, events[:1]), range(LANES), clock())

    held = [key for key in copy_of(store) if b"/h/" in key or b"/b/" in key]
    assert [generation.keys.head_prefix(lane_of(b"card-0", LANES)) + b"card-0"] == held


def test_a_second_bootstrap_fences_the_first(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two at work on one lane the one that came later goes on, and the other stops without writing."""
    monkeypatch.setattr(bootstrap, "COMMIT_ENTITIES", 1)
    view, events = view_of(DAY_MS), events_of(300, keys=40)
    generation = begin(store, view)
    everything = recorded(view, events)

    class Overtaken(Recorded):
        """While the first is in the midst of a lane, the second does all of them."""

        def parts(self, lane: int) -> Iterator[Part]:
            for part in super().parts(lane):
                fill_lanes(store, generation, everything, range(LANES), clock())
                yield part

    with pytest.raises(WriterFenced, match="another bootstrap took over lane 0"):
        fill_lanes(store, generation, Overtaken(view, events[:100], everything.positions), range(LANES), clock())

    writer = writer_of(store, GenerationCatalog(store, PROJECT).hand_over(generation))
    assert_equals_oracle(store, writer, events, ANCHOR_MS + 300_001)


def test_a_bootstrap_that_wakes_up_after_the_hand_over_is_fenced(store: RedisStore) -> None:
    """The stream's writer holds a newer epoch: nothing of the sleeper's arrives."""
    view, events = view_of(DAY_MS), events_of(300, keys=9)
    generation = begin(store, view)

    class Asleep(Recorded):
        """Sleeps while another one completes the generation and the stream takes it."""

        def parts(self, lane: int) -> Iterator[Part]:
            for part in super().parts(lane):
                fill_lanes(store, generation, recorded(view, events), range(LANES), clock())
                writer_of(store, GenerationCatalog(store, PROJECT).hand_over(generation))
                yield part

    with pytest.raises(WriterFenced):
        fill_lanes(store, generation, Asleep(view, events[:10], {(TOPIC, 0): 10}), range(LANES), clock())

    writer = writer_of(store, generation)
    assert {(TOPIC, 0): 300} == writer.positions()
    assert_equals_oracle(store, writer, events, ANCHOR_MS + 300_001)


def test_keys_expire_as_the_streams_do(store: RedisStore) -> None:
    """One retention after the write, the checkpoint never."""
    view = view_of(DAY_MS, retention_ms=DAY_MS)
    generation = begin(store, view)
    fill_lanes(store, generation, recorded(view, events_of(300, keys=5)), range(LANES), clock())

    lives_ms = {key: store._client().pttl(key) for key in copy_of(store)}
    entities = {key for key in lives_ms if b"/h/" in key or b"/b/" in key}
    assert 5 == len(entities)
    assert all(DAY_MS < lives_ms[key] <= generation.expire_ms(0) * 9 // 8 for key in entities)
    assert {-1} == {lives_ms[key] for key in lives_ms.keys() - entities}


def test_the_stream_leaves_a_bootstrapping_generation_alone(store: RedisStore) -> None:
    """Registering the definition makes no other generation of it; a newer definition ends the bootstrap."""
    catalog = GenerationCatalog(store, PROJECT)
    old, new = view_of(60_000), view_of(DAY_MS)
    catalog.register(old)
    begun = catalog.begin_bootstrap(new)

    assert begun == catalog.register(new)
    assert not begun.state.is_fed
    assert begun == catalog.begin_bootstrap(new)
    assert begun != catalog.begin_bootstrap(new, is_anew=True)
    catalog.register(old)
    with pytest.raises(InvalidRequest, match="no bootstrap of generation 2"):
        catalog.hand_over(begun)
    states = [one.state for one in catalog.generations(new.name)]
    assert [GenerationState.SERVING, GenerationState.RETIRED, GenerationState.RETIRED] == states


def test_a_generation_that_the_stream_had_begun_to_fill_gives_way(store: RedisStore) -> None:
    """Whether the stream or the bootstrap was first, the history comes from the event log; a second run knows it."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.register(view_of(60_000))
    filling = catalog.register(view_of(DAY_MS))
    begun = catalog.begin_bootstrap(view_of(DAY_MS))
    ready = catalog.hand_over(begun)

    assert [GenerationState.SERVING, GenerationState.RETIRED, GenerationState.FILLING] == [
        one.state for one in catalog.generations(filling.view.name)
    ]
    assert ready.is_bootstrapped
    assert ready == catalog.begin_bootstrap(view_of(DAY_MS))
    with pytest.raises(InvalidRequest, match="is gone or retired"):
        catalog.promote(filling)


def test_a_rollback_returns_to_the_generation_before_and_a_second_one_back_again(store: RedisStore) -> None:
    """The new definition is known as rolled back, so that registering it, as each stream does, undoes nothing."""
    catalog = GenerationCatalog(store, PROJECT)
    old, new = catalog.register(view_of(60_000)), view_of(DAY_MS)
    with pytest.raises(InvalidRequest, match="no earlier generation"):
        catalog.roll_back(new.name)
    promoted = catalog.promote(catalog.hand_over(catalog.begin_bootstrap(new)))

    serves, away = catalog.roll_back(new.name)
    assert (old, promoted) == (serves, away)
    assert promoted == catalog.register(new)
    assert old == catalog.serving(new.name)
    assert GenerationState.ROLLED_BACK == catalog.generations(new.name)[-1].state

    assert (promoted, old) == catalog.roll_back(new.name)
    catalog.roll_back(new.name)
    catalog.register(view_of(2 * DAY_MS))
    states = [one.state for one in catalog.generations(new.name)]
    assert [GenerationState.SERVING, GenerationState.RETIRED, GenerationState.FILLING] == states


def test_recent_ids_are_handed_on_once(store: RedisStore) -> None:
    """A lane's bucket holds each id's hash once, and the checkpoint names the bucket."""
    view, events = view_of(DAY_MS), events_of(100, keys=3)
    generation = begin(store, view)
    reports: list[bootstrap.LaneReport] = []
    fill_lanes(store, generation, recorded(view, [*events, *events[:10]]), range(LANES), clock(), reports.append)

    assert 100 == sum(report.ids for report in reports)
    assert 110 == sum(report.events for report in reports)
    stored = [value for key, value in copy_of(store).items() if b"/i/" in key]
    assert 100 == len(np.frombuffer(b"".join(stored), dtype="<u8"))
