"""The writer and its store: exactly once, fenced, healed; the same suite on a standalone server and on a cluster."""

import os
import threading
from collections.abc import Iterator, Sequence
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec, Window
from featurestore.errors import (
    AsOfTooOld,
    CorruptTile,
    InvalidRequest,
    InvariantBroken,
    OnlineStoreDown,
    StoreRolledBack,
    WriterFenced,
)
from featurestore.online.generations import Generation, GenerationCatalog, GenerationState
from featurestore.online.reader import EntityBytes, EntityRead, Reader
from featurestore.online.redis_store import RedisStore, connect
from featurestore.online.writer import ViewWriter
from featurestore.testing.agreement import agrees, magnitude
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.naive import NaiveEvent, NaiveValue, naive_found, naive_value
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE, StreamCase, stream_cases
from featurestore.wire.store_layout import decode_checkpoint
from featurestore.wire.tile_codec import decode_entity

PROJECT = "tests"
LANES = 4


@pytest.fixture(params=["standalone", "cluster"])
def store(request: pytest.FixtureRequest) -> Iterator[RedisStore]:
    """An empty online store of either kind."""
    is_cluster = request.param == "cluster"
    url = request.getfixturevalue("redis_cluster_url" if is_cluster else "redis_url")
    connected = connect(url, cluster=is_cluster)
    yield connected
    connected.close()


def view_of(*windows_ms: int, retention_ms: int | None = 90 * DAY_MS, functions: Sequence[str] = ("sum",)) -> ViewSpec:
    """Counts and functions of amount over some windows, by card."""
    features = []
    for length in windows_ms or (DAY_MS,):
        window = Window(length, min(length, 60_000))
        features.append(FeatureSpec(f"count_{length}", "count", None, window, ValueType.INT64))
        features += [
            FeatureSpec(f"amount_{function}_{length}", function, "amount", window, ValueType.INT64)
            for function in functions
        ]
    return ViewSpec("card_activity", (), SOURCE, tuple(features), retention_ms)


def open_writer(store: RedisStore, view: ViewSpec, clock: ManualClock | None = None) -> ViewWriter:
    """A writer of all lanes of the view's generation."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(LANES)
    writer = ViewWriter(
        store, catalog.register(view), lanes=range(LANES), clock=clock or ManualClock(now_ms=ANCHOR_MS + 1_000 * DAY_MS)
    )
    writer.open()
    return writer


def events_of(count: int, *, keys: int = 5, step_ms: int = 1_000, first: int = 0) -> list[NaiveEvent]:
    """Events of a few cards at a steady pace, amounts 0, 1, 2, ..."""
    return [
        NaiveEvent(b"card-%d" % (n % keys), ANCHOR_MS + n * step_ms, b"id-%d" % n, {"amount": n})
        for n in range(first, first + count)
    ]


def answers(store: RedisStore, generation: Generation, key: bytes, as_of_ms: int) -> list[NaiveValue | None]:
    """What a lookup would say, feature by feature."""
    [read] = Reader(store, LANES).read([EntityRead(generation, key)])
    assert isinstance(read, EntityBytes)
    compiled = generation.compiled
    answer = compiled.answer(decode_entity(compiled, read.body, read.head), as_of_ms)
    return [
        None
        if answer.null[index]
        else answer.texts[index]
        if feature.type is ValueType.STRING
        else float(answer.floats[index])
        if feature.type is ValueType.FLOAT64
        else int(answer.ints[index])
        for index, feature in enumerate(compiled.spec.features)
    ]


def assert_equals_oracle(store: RedisStore, writer: ViewWriter, events: Sequence[NaiveEvent], as_of_ms: int) -> None:
    """Every entity's every feature."""
    view = writer.generation.view
    for key in {event.key for event in events}:
        mine = [event for event in events if event.key == key]
        seen = mine if naive_found(view, mine, as_of_ms) else []
        for feature, actual in zip(view.features, answers(store, writer.generation, key, as_of_ms), strict=True):
            expected = naive_value(feature, seen, as_of_ms)
            assert agrees(expected, actual, scale=magnitude(feature, mine)), (key, feature, expected, actual)


def test_written_events_are_servable_and_counted(store: RedisStore) -> None:
    """What write() returned for can be read, and the report says how much it was."""
    writer, events = open_writer(store, view_of(60_000, DAY_MS)), events_of(100)
    report = writer.write([keyed_batch(writer.generation.view, events, lane_count=LANES)])

    assert (100, 0, 0) == (report.events_applied, report.duplicates_dropped, report.replayed_skipped)
    assert events[-1].event_time_ms == report.newest_event_time_ms
    assert_equals_oracle(store, writer, events, ANCHOR_MS + 99_001)
    assert_equals_oracle(store, writer, events, ANCHOR_MS + 130_000)


def test_long_heads_are_folded_into_bodies_without_changing_a_value(store: RedisStore) -> None:
    """Thousands of events of one card leave a body, a short head and the oracle's values."""
    writer, events, total = open_writer(store, view_of(60_000, 3_600_000, DAY_MS)), [], 0
    for batch in range(30):
        chunk = events_of(100, keys=2, step_ms=700, first=batch * 100)
        report = writer.write([keyed_batch(writer.generation.view, chunk, from_offset=batch * 100, lane_count=LANES)])
        events += chunk
        total += report.entities_compacted

    assert total >= 20
    assert_equals_oracle(store, writer, events, events[-1].event_time_ms + 1)
    [read] = Reader(store, LANES).read([EntityRead(writer.generation, b"card-0")])
    assert isinstance(read, EntityBytes)
    assert read.body is not None
    assert len(read.body) < 30_000


def test_replayed_offsets_are_skipped_by_the_lanes_that_have_them(store: RedisStore) -> None:
    """A writer that starts over from the beginning changes nothing."""
    view, events = view_of(), events_of(60)
    open_writer(store, view).write([keyed_batch(view, events[:40], lane_count=LANES)])
    successor = open_writer(store, view)
    report = successor.write([keyed_batch(view, events, lane_count=LANES)])

    assert (20, 40) == (report.events_applied, report.replayed_skipped)
    assert_equals_oracle(store, successor, events, ANCHOR_MS + DAY_MS)


def test_producers_duplicates_count_once_also_across_a_crash(store: RedisStore) -> None:
    """A retry at another offset is dropped: in the same batch, in a later one, and by a successor that never saw it."""
    view, events = view_of(), events_of(30)
    first = open_writer(store, view)
    same_batch = first.write([keyed_batch(view, [*events, *events[:5]], lane_count=LANES)])
    later = first.write([keyed_batch(view, events[5:9], from_offset=35, lane_count=LANES)])
    successor = open_writer(store, view)
    resume = successor.positions()[SOURCE.topic, 0]
    after_crash = successor.write([keyed_batch(view, events[5:], from_offset=resume, lane_count=LANES)])

    assert resume == 35
    assert (5, 4, 25) == (same_batch.duplicates_dropped, later.duplicates_dropped, after_crash.duplicates_dropped)
    assert_equals_oracle(store, first, events, ANCHOR_MS + DAY_MS)


def test_a_second_writer_takes_over_and_the_first_stops(store: RedisStore) -> None:
    """The zombie's commit changes nothing and names what happened."""
    view, events = view_of(), events_of(30)
    zombie = open_writer(store, view)
    zombie.write([keyed_batch(view, events[:10], lane_count=LANES)])
    successor = open_writer(store, view)
    with pytest.raises(WriterFenced, match="another writer took over lane"):
        zombie.write([keyed_batch(view, events[10:20], from_offset=10, lane_count=LANES)])
    with pytest.raises(InvariantBroken, match="not open"):
        zombie.write([])
    successor.write([keyed_batch(view, events[10:], from_offset=10, lane_count=LANES)])

    assert_equals_oracle(store, successor, events, ANCHOR_MS + DAY_MS)


def test_a_writer_that_opens_again_does_not_take_lanes_back(store: RedisStore) -> None:
    """After an outage the old process finds its successor and stops, instead of fencing it."""
    view, events = view_of(), events_of(20)
    old = open_writer(store, view)
    old.write([keyed_batch(view, events[:10], lane_count=LANES)])
    old.open()
    successor = open_writer(store, view)
    with pytest.raises(WriterFenced, match="another writer took over"):
        old.open()
    successor.write([keyed_batch(view, events[10:], from_offset=10, lane_count=LANES)])

    assert_equals_oracle(store, successor, events, ANCHOR_MS + DAY_MS)


def test_an_opening_that_failed_midway_forgets_nothing(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither that the store went back in time, nor that a successor took the lanes."""
    view, events = view_of(), events_of(60)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events[:40], lane_count=LANES)])
    _restore(store, {})
    with monkeypatch.context() as broken:
        broken.setattr(store, "commit", _refuse_commit)
        with pytest.raises(OnlineStoreDown):
            writer.open()
    writer.open()
    with pytest.raises(StoreRolledBack):
        writer.write([keyed_batch(view, events[40:], from_offset=40, lane_count=LANES)])
    with monkeypatch.context() as broken:
        broken.setattr(store, "commit", _refuse_commit)
        with pytest.raises(OnlineStoreDown):
            writer.open()
    open_writer(store, view)
    with pytest.raises(WriterFenced):
        writer.open()


def test_entities_of_before_1970_are_compacted_like_others(store: RedisStore) -> None:
    """Negative event times are times."""
    view = view_of()
    writer = open_writer(store, view)
    events = [NaiveEvent(b"old", -(10**12) + n * 1_000, b"id-%d" % n, {"amount": n}) for n in range(100)]
    writer.write([keyed_batch(view, events, lane_count=LANES)])
    report = writer.write([])

    assert report.entities_compacted == 1
    assert_equals_oracle(store, writer, events, events[-1].event_time_ms + 1)


def test_an_append_keeps_the_body_alive(store: RedisStore) -> None:
    """Body and head of an entity that is written to expire together."""
    view = view_of(DAY_MS, retention_ms=2 * DAY_MS)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events_of(100, keys=1), lane_count=LANES)])
    writer.write([])
    [body] = [key for key in store.scan(b"*") if b"/b/" in key]
    store._client().pexpire(body, 60_000)
    writer.write([keyed_batch(view, events_of(1, keys=1, first=100), from_offset=100, lane_count=LANES)])

    assert store._client().pttl(body) > 2 * DAY_MS


def test_what_was_dropped_stays_refused_when_the_clock_steps_back(store: RedisStore) -> None:
    """A later compaction with an earlier clock must not promise what an earlier one has dropped."""
    view, clock = view_of(60_000, retention_ms=600_000), ManualClock(now_ms=ANCHOR_MS + 3_000_000)
    writer, events = open_writer(store, view, clock), events_of(3_000, keys=1)
    writer.write([keyed_batch(view, events, lane_count=LANES)])
    writer.write([])
    clock.set_now_ms(ANCHOR_MS + 1_500_000)
    more = events_of(60, keys=1, first=3_000)
    writer.write([keyed_batch(view, more, from_offset=3_000, lane_count=LANES)])
    assert writer.write([]).entities_compacted == 1

    with pytest.raises(AsOfTooOld):
        answers(store, writer.generation, b"card-0", ANCHOR_MS + 1_500_000)


def test_connections_are_not_shared_with_a_forked_process_nor_kept_by_ended_threads(redis_url: str) -> None:
    """Each process reads its own answers, and sixty short threads leave one connection behind."""
    store = connect(redis_url)
    for name in (b"parent", b"child"):
        store.compare_and_set(name, None, name)
    child = os.fork()
    if child == 0:
        is_mine = all(store.read_groups([[b"child"]]) == [b"child"] for _ in range(200))
        os._exit(0 if is_mine else 1)
    is_mine = all(store.read_groups([[b"parent"]]) == [b"parent"] for _ in range(200))
    status = os.waitpid(child, 0)[1]
    for _ in range(60):
        thread = threading.Thread(target=store.ping)
        thread.start()
        thread.join()

    assert is_mine
    assert os.waitstatus_to_exitcode(status) == 0
    assert store._client().info("clients")["connected_clients"] <= 4
    store.close()


def test_plain_values_are_compared_by_signed_event_time(store: RedisStore) -> None:
    """A value of before 1970 is older than one of today, and an older one never replaces a newer."""
    for event_time_ms, value in ((-5, b"old"), (1_700_000_000_000, b"new"), (255, b"older"), (-(1 << 40), b"oldest")):
        store.write_newer([(b"{t}k", event_time_ms, value, 0)])

    assert (store.read_groups([[b"{t}k"]])[0] or b"")[8:] == b"new"


def test_a_generation_that_is_gone_is_not_promoted(store: RedisStore) -> None:
    """The serving one stays; a newer definition had replaced the one that was filling."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(LANES)
    serving = catalog.register(view_of(60_000))
    replaced = catalog.register(view_of(60_000, DAY_MS))
    catalog.register(view_of(60_000, 2 * DAY_MS))
    with pytest.raises(InvalidRequest, match="gone or retired"):
        catalog.promote(replaced)

    assert serving == catalog.serving("card_activity")


def test_offsets_that_idle_lanes_owe_are_read_again_after_an_outage(store: RedisStore) -> None:
    """A lane without events commits its offsets late; a writer that opens again asks for them and is not broken."""
    view, events = view_of(), events_of(30, keys=1)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events[:10], lane_count=LANES)])
    writer.write([keyed_batch(view, events[10:20], from_offset=10, lane_count=LANES)])
    writer.open()
    with pytest.raises(StoreRolledBack):
        writer.write([keyed_batch(view, events[20:], from_offset=20, lane_count=LANES)])
    writer.open()
    resume = writer.positions()[SOURCE.topic, 0]
    writer.write([keyed_batch(view, events[resume:], from_offset=resume, lane_count=LANES)])

    assert 10 == resume
    assert_equals_oracle(store, writer, events, ANCHOR_MS + DAY_MS)


def test_a_retry_counts_once_however_far_other_partitions_have_come(store: RedisStore) -> None:
    """Partitions are read at different speeds: an id is kept for a horizon of its own partition, restarts included."""
    view, horizon_ms = view_of(), SOURCE.dedup_horizon_ms
    event = NaiveEvent(b"card-0", ANCHOR_MS, b"retried", {"amount": 7})
    ahead = [NaiveEvent(b"card-1", ANCHOR_MS + n * horizon_ms, b"id-%d" % n, {"amount": 1}) for n in range(6)]
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, [event], partition=0, lane_count=LANES)])
    for offset, other in enumerate(ahead):
        if offset == 3:
            writer.close()
            writer = open_writer(store, view)
        writer.write([keyed_batch(view, [other], partition=1, from_offset=offset, lane_count=LANES)])

    report = writer.write([keyed_batch(view, [event], partition=0, from_offset=1, lane_count=LANES)])

    assert 1 == report.duplicates_dropped
    assert [1, 7] == answers(store, writer.generation, b"card-0", ANCHOR_MS + 1)


def test_a_store_that_went_back_in_time_is_noticed_and_healed(store: RedisStore) -> None:
    """After a restore from an older copy the next commit fails; re-reading from the store's checkpoint heals it."""
    view, events = view_of(), events_of(60)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events[:20], lane_count=LANES)])
    copy = _copy(store)
    writer.write([keyed_batch(view, events[20:40], from_offset=20, lane_count=LANES)])
    _restore(store, copy)
    with pytest.raises(StoreRolledBack, match="went back in time"):
        writer.write([keyed_batch(view, events[40:], from_offset=40, lane_count=LANES)])
    writer.open()
    resume = writer.positions()[SOURCE.topic, 0]
    writer.write([keyed_batch(view, events[resume:], from_offset=resume, lane_count=LANES)])

    assert 20 == resume
    assert_equals_oracle(store, writer, events, ANCHOR_MS + DAY_MS)


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_store_that_came_back_older_after_an_outage_is_noticed(store: RedisStore, is_empty: bool) -> None:
    """Opening again succeeds; writing on from where the stream was does not, since the store needs older events."""
    view, events = view_of(), events_of(60)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events[:20], lane_count=LANES)])
    copy = {} if is_empty else _copy(store)
    writer.write([keyed_batch(view, events[20:40], from_offset=20, lane_count=LANES)])
    _restore(store, copy)
    writer.open()
    with pytest.raises(StoreRolledBack, match="came back older"):
        writer.write([keyed_batch(view, events[40:], from_offset=40, lane_count=LANES)])


def test_an_emptied_store_is_noticed_too(store: RedisStore) -> None:
    """A store without the checkpoint is an older copy as well."""
    view, events = view_of(), events_of(20)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events[:10], lane_count=LANES)])
    _restore(store, {})
    with pytest.raises(StoreRolledBack):
        writer.write([keyed_batch(view, events[10:], from_offset=10, lane_count=LANES)])


def test_a_gap_of_offsets_is_refused(store: RedisStore) -> None:
    """A source that skips events is a bug, and nothing is committed past it."""
    view, events = view_of(), events_of(30)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events[:10], lane_count=LANES)])
    with pytest.raises(InvariantBroken, match="jumped to offset 20"):
        writer.write([keyed_batch(view, events[20:], from_offset=20, lane_count=LANES)])


def test_batches_of_several_partitions_commit_together(store: RedisStore) -> None:
    """Positions are kept for each partition, and two reads of one partition may follow each other in one write."""
    view, events = view_of(), events_of(40)
    writer = open_writer(store, view)
    writer.write(
        [
            keyed_batch(view, events[:10], partition=0, lane_count=LANES),
            keyed_batch(view, events[10:20], partition=1, from_offset=500, lane_count=LANES),
            keyed_batch(view, events[20:40], partition=0, from_offset=10, lane_count=LANES),
        ]
    )

    assert {(SOURCE.topic, 0): 30, (SOURCE.topic, 1): 510} == open_writer(store, view).positions()
    assert_equals_oracle(store, writer, events, ANCHOR_MS + DAY_MS)


def test_keys_expire_one_retention_after_their_last_write(store: RedisStore) -> None:
    """Heads get the view's retention as time to live; lifetime views keep theirs for ever."""
    for retention_ms, is_kept in ((2 * DAY_MS, False), (None, True)):
        view = view_of(DAY_MS, retention_ms=retention_ms)
        if is_kept:
            view = ViewSpec("kept", (), SOURCE, (FeatureSpec("n", "count", None, Window(None), ValueType.INT64),), None)
        writer = open_writer(store, view)
        writer.write([keyed_batch(view, events_of(3, keys=1), lane_count=LANES)])
        [key] = [key for key in store.scan(b"*") if b"/h/" in key and view.name.encode() in key]
        left_ms = store._client().pttl(key)

        assert (left_ms == -1) == is_kept
        assert is_kept or 2 * DAY_MS < left_ms < 3 * DAY_MS


def test_a_damaged_head_stops_compaction_with_its_key(store: RedisStore) -> None:
    """Corrupt bytes are named, and not overwritten."""
    view = view_of()
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events_of(100, keys=1), lane_count=LANES)])
    [key] = [key for key in store.scan(b"*") if b"/h/" in key]
    store._client().append(key, b"rubbish")
    with pytest.raises(CorruptTile, match="card-0"):
        writer.write([keyed_batch(view, events_of(5, first=100), from_offset=100, lane_count=LANES)])


def test_an_event_dated_ahead_does_not_age_the_entity(store: RedisStore) -> None:
    """Roll-ups follow the clock, so reads at the real time stay exact."""
    view, clock = view_of(60_000, 3_600_000), ManualClock(now_ms=ANCHOR_MS + 200_000)
    writer, events = open_writer(store, view, clock), events_of(200, keys=1)
    ahead = NaiveEvent(b"card-0", ANCHOR_MS + 500_000, b"ahead", {"amount": 1})
    writer.write([keyed_batch(view, [*events, ahead], lane_count=LANES)])
    assert writer.write([]).entities_compacted == 1

    assert_equals_oracle(store, writer, [*events, ahead], ANCHOR_MS + 200_000)
    with pytest.raises(AsOfTooOld):
        answers(store, writer.generation, b"card-0", ANCHOR_MS + 30_500)


def test_generations_are_filled_beside_the_serving_one_and_promoted(store: RedisStore) -> None:
    """A changed definition gets a number of its own; both are readable; the retired one can be dropped."""
    catalog, old_view, new_view = GenerationCatalog(store, PROJECT), view_of(60_000), view_of(60_000, DAY_MS)
    events = events_of(30)
    old = open_writer(store, old_view)
    old.write([keyed_batch(old_view, events, lane_count=LANES)])
    new = open_writer(store, new_view)
    new.write([keyed_batch(new_view, events, lane_count=LANES)])
    states_before = [one.state for one in catalog.generations("card_activity")]
    assert_equals_oracle(store, old, events, ANCHOR_MS + DAY_MS)
    assert_equals_oracle(store, new, events, ANCHOR_MS + DAY_MS)
    catalog.promote(new.generation)
    retired, serving = catalog.generations("card_activity")

    assert [GenerationState.SERVING, GenerationState.FILLING] == states_before
    assert [GenerationState.RETIRED, GenerationState.SERVING] == [retired.state, serving.state]
    assert old_view == retired.view
    assert catalog.drop(retired) > 5
    assert [serving] == list(catalog.generations("card_activity"))
    assert_equals_oracle(store, new, events, ANCHOR_MS + DAY_MS)


def test_the_lane_count_is_fixed_by_the_first_writer(store: RedisStore) -> None:
    """Later wishes do not matter: entity keys would be looked for in the wrong lanes."""
    catalog = GenerationCatalog(store, PROJECT)

    assert [8, 8] == [catalog.lane_count(8), catalog.lane_count(32)]


def test_a_checkpoint_is_read_in_the_same_step_as_the_tiles(store: RedisStore) -> None:
    """The position beside an answer is the position of that answer."""
    view = view_of()
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events_of(10, keys=1), lane_count=LANES)])
    [read] = Reader(store, LANES).read([EntityRead(writer.generation, b"card-0")], with_checkpoint=True)
    assert isinstance(read, EntityBytes)

    assert ((SOURCE.topic, 0, 10),) == decode_checkpoint(read.checkpoint).positions


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=stream_cases(), data=st.data())
def test_any_stream_with_crashes_gives_the_oracles_answers(
    redis_url: str, case: StreamCase, data: st.DataObject
) -> None:
    """Whatever batches, partitions, restarts and replays: the values are the oracle's."""
    store = connect(redis_url)
    store._client().flushall()
    writer, done = open_writer(store, case.view), 0
    while done < len(case.events):
        size = data.draw(st.integers(1, len(case.events) - done), label="batch")
        if data.draw(st.booleans(), label="crash"):
            writer = open_writer(store, case.view)
            done = writer.positions().get((SOURCE.topic, 0), 0)
        batch = keyed_batch(case.view, case.events[done : done + size], from_offset=done, lane_count=LANES)
        writer.write([batch])
        done += size
    for as_of_ms in case.as_of_ms:
        assert_equals_oracle(store, writer, case.events, as_of_ms)
    store.close()


def _refuse_commit(lanes: object) -> NoReturn:
    """A store that answers reads and not writes."""
    raise OnlineStoreDown("read only")


def _copy(store: RedisStore) -> dict[bytes, bytes]:
    """All lanes' strings, as a backup would have them."""
    values = {}
    for key in store.scan(b"*/[0-9]*}*"):
        values[key] = store.read_groups([[key]])[0] or b""
    return values


def _restore(store: RedisStore, copy: dict[bytes, bytes]) -> None:
    """Bring the lanes back to a copy."""
    store.delete(list(store.scan(b"*/[0-9]*}*")))
    for key, value in copy.items():
        store._client().set(key, value)
