"""Crashes, takeovers, outages and stores that go back in time: nothing is lost and nothing counts twice."""

from dataclasses import replace
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.errors import (
    InvariantBroken,
    OnlineStoreDown,
    StoreRolledBack,
    WriterFenced,
)
from featurestore.online.generation import GenerationDamaged
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.batches import keyed_batch
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE, StreamCase, stream_cases
from featurestore.wire.entity_key import lanes_of
from tests.online.write.writing import LANES, assert_equals_oracle, copy_of, events_of, open_writer, restore, view_of


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


def test_ids_are_kept_while_what_idle_lanes_owe_is_read_again(store: RedisStore) -> None:
    """A lane without events falls behind; reading again from there must not age the ids of the lanes that are ahead."""
    view = replace(view_of(), source=replace(SOURCE, dedup_horizon_ms=1_000))
    busy, idle = b"card-0", next(key for key in (b"card-%d" % n for n in range(99)) if _lane(key) != _lane(b"card-0"))
    events = [replace(event, key=idle if n == 0 else busy) for n, event in enumerate(events_of(60))]
    batches = [keyed_batch(view, events[n : n + 2], from_offset=n, lane_count=LANES) for n in range(0, 60, 2)]
    writer = open_writer(store, view)
    for batch in batches:
        writer.write([batch])

    successor = open_writer(store, view)
    begin = successor.positions()["events", 0]
    assert begin < 50, "the idle lane must be behind"
    for batch in batches:
        if batch.from_offset >= begin:
            successor.write([batch])
    report = successor.write([keyed_batch(view, events[-1:], from_offset=60, lane_count=LANES)])

    assert (0, 1) == (report.events_applied, report.duplicates_dropped)


def _lane(key: bytes) -> int:
    """Lane of an entity key."""
    return int(lanes_of([key], LANES)[0])


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
    writer.write([keyed_batch(view, events[:20], lane_count=LANES)])
    older = copy_of(store)
    writer.write([keyed_batch(view, events[20:40], from_offset=20, lane_count=LANES)])
    restore(store, older)
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


def test_a_store_that_went_back_in_time_is_noticed_and_healed(store: RedisStore) -> None:
    """After a restore from an older copy the next commit fails; re-reading from the store's checkpoint heals it."""
    view, events = view_of(), events_of(60)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events[:20], lane_count=LANES)])
    copy = copy_of(store)
    writer.write([keyed_batch(view, events[20:40], from_offset=20, lane_count=LANES)])
    restore(store, copy)
    with pytest.raises(StoreRolledBack, match="went back in time"):
        writer.write([keyed_batch(view, events[40:], from_offset=40, lane_count=LANES)])
    writer.open()
    resume = writer.positions()[SOURCE.topic, 0]
    writer.write([keyed_batch(view, events[resume:], from_offset=resume, lane_count=LANES)])

    assert 20 == resume
    assert_equals_oracle(store, writer, events, ANCHOR_MS + DAY_MS)


def test_a_store_that_came_back_older_after_an_outage_is_noticed(store: RedisStore) -> None:
    """Opening again succeeds; writing on from where the stream was does not, since the store needs older events."""
    view, events = view_of(), events_of(60)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events[:20], lane_count=LANES)])
    copy = copy_of(store)
    writer.write([keyed_batch(view, events[20:40], from_offset=20, lane_count=LANES)])
    restore(store, copy)
    writer.open()
    with pytest.raises(StoreRolledBack, match="came back older"):
        writer.write([keyed_batch(view, events[40:], from_offset=40, lane_count=LANES)])


def test_a_store_that_came_back_empty_after_an_outage_is_noticed(store: RedisStore) -> None:
    """A lane that had a checkpoint does not begin anew in silence."""
    view, events = view_of(), events_of(60)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events[:20], lane_count=LANES)])
    restore(store, {})
    with pytest.raises(GenerationDamaged, match="the checkpoint of lane 0 is gone"):
        writer.open()


def test_an_emptied_store_is_noticed_too(store: RedisStore) -> None:
    """A store without the checkpoint is an older copy as well."""
    view, events = view_of(), events_of(20)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events[:10], lane_count=LANES)])
    restore(store, {})
    with pytest.raises(StoreRolledBack):
        writer.write([keyed_batch(view, events[10:], from_offset=10, lane_count=LANES)])


def test_a_gap_of_offsets_is_refused(store: RedisStore) -> None:
    """A source that skips events is a bug, and nothing is committed past it."""
    view, events = view_of(), events_of(30)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events[:10], lane_count=LANES)])
    with pytest.raises(InvariantBroken, match="jumped to offset 20"):
        writer.write([keyed_batch(view, events[20:], from_offset=20, lane_count=LANES)])


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
