"""The writer: what it wrote is servable, once, compacted and expired; the same suite on a server and on a cluster."""

from dataclasses import replace

import pytest

from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec, Window
from featurestore.errors import (
    AsOfTooOld,
)
from featurestore.online.generation import GenerationDamaged
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityBytes, EntityRead, Reader
from featurestore.online.redis.store import RedisStore
from featurestore.online.write.compaction import ENTITIES_AT_ONCE
from featurestore.online.write.writer import SET_ASIDE_MAX
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE
from featurestore.wire.entity_key import fingerprint, lane_of
from tests.online.write.writing import LANES, PROJECT, answers, assert_equals_oracle, events_of, open_writer, view_of


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


def test_a_few_long_heads_wait_for_others_and_many_do_not(store: RedisStore) -> None:
    """With a pause between compactions: few are folded when it is over, a crowd at once, and no value changes."""
    view, clock = view_of(60_000, 3_600_000), ManualClock(now_ms=ANCHOR_MS + DAY_MS)
    writer, events = open_writer(store, view, clock, compaction_pause_ms=500), list[NaiveEvent]()

    def compacted(count: int, keys: int) -> int:
        chunk = events_of(count, keys=keys, step_ms=50, first=len(events))
        writer.write([keyed_batch(view, chunk, from_offset=len(events), lane_count=LANES)])
        events.extend(chunk)
        return writer.write([]).entities_compacted

    assert compacted(200, keys=2) == 2
    assert compacted(200, keys=2) == 0
    clock.advance_ms(499)
    assert writer.write([]).entities_compacted == 0
    clock.advance_ms(1)
    assert writer.write([]).entities_compacted == 2
    assert compacted(ENTITIES_AT_ONCE * 60, keys=ENTITIES_AT_ONCE) == ENTITIES_AT_ONCE
    assert_equals_oracle(store, writer, events, events[-1].event_time_ms + 1)


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
    """Body and head of an entity that is written to expire together: given time anew when they have too little left."""
    view = view_of(DAY_MS, retention_ms=2 * DAY_MS)
    writer, client = open_writer(store, view), store._client()
    least_ms = writer.generation.expire_ms(0)

    def write_one(offset: int) -> None:
        event = events_of(1, keys=1, first=offset)
        writer.write([keyed_batch(view, event, from_offset=offset, lane_count=LANES)])

    writer.write([keyed_batch(view, events_of(100, keys=1), lane_count=LANES)])
    writer.write([])
    [body] = [key for key in store.scan(b"*") if b"/b/" in key]
    client.pexpire(body, 60_000)
    write_one(100)  # a head begins
    head = body.replace(b"/b/", b"/h/")
    for key in (head, body):
        assert least_ms < client.pttl(key) <= least_ms * 9 // 8

    for key in (head, body):
        client.pexpire(key, least_ms - 1_000)
    write_one(101)
    assert min(client.pttl(head), client.pttl(body)) > least_ms
    for key in (head, body):
        client.pexpire(key, least_ms + 60_000)
    write_one(102)
    assert least_ms < min(client.pttl(head), client.pttl(body)) <= least_ms + 60_000, "there is enough left"


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


def test_an_id_repeats_an_event_of_its_own_entity_only(store: RedisStore) -> None:
    """Two legs of a transfer may share an id; however many writers there are, each card's counts."""
    view = view_of()
    legs = [NaiveEvent(b"card-%d" % n, ANCHOR_MS, b"transfer", {"amount": n}) for n in range(6)]
    writer = open_writer(store, view)
    report = writer.write([keyed_batch(view, [*legs, legs[0]], lane_count=LANES)])

    assert 1 == report.duplicates_dropped
    for n, leg in enumerate(legs):
        assert [1, n] == answers(store, writer.generation, leg.key, ANCHOR_MS + 1)


def test_a_commit_that_fails_in_the_middle_applies_nothing(store: RedisStore) -> None:
    """Redis undoes nothing of a script that errs: a key of another type must not let its lane count twice.

    The first card has events already, which stay; the second one's key is spoiled.
    """
    view, keys = view_of(), [b"card-0", b"card-1"]
    lane_of_first = lane_of(keys[0], LANES)
    keys[1] = next(key for key in (b"other-%d" % n for n in range(10_000)) if lane_of(key, LANES) == lane_of_first)
    events = [NaiveEvent(key, ANCHOR_MS, b"id-%d" % n, {"amount": 7}) for n, key in enumerate(keys)]
    earlier = [NaiveEvent(keys[0], ANCHOR_MS, b"earlier", {"amount": 5})]
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, earlier, lane_count=LANES)])
    spoiled = writer.generation.keys.head_prefix(lane_of_first) + keys[1]
    store._client().lpush(spoiled, "not a head")
    for _ in range(3):
        with pytest.raises(GenerationDamaged):
            open_writer(store, view).write([keyed_batch(view, events, from_offset=1, lane_count=LANES)])
    assert [1, 5] == answers(store, writer.generation, keys[0], ANCHOR_MS + 1)
    store._client().delete(spoiled)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events, from_offset=1, lane_count=LANES)])

    assert [2, 12] == answers(store, writer.generation, keys[0], ANCHOR_MS + 1)
    assert [1, 7] == answers(store, writer.generation, keys[1], ANCHOR_MS + 1)


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


def test_a_damaged_head_is_set_aside_and_the_others_go_on(store: RedisStore) -> None:
    """Corrupt bytes are named, and not overwritten; what comes for others is compacted."""
    view, events = view_of(), events_of(200, keys=2)
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events, lane_count=LANES)])
    [key] = [key for key in store.scan(b"*") if key.endswith(b"/h/card-0")]
    store._client().append(key, b"rubbish")
    more = events_of(10, keys=2, first=200)
    report = writer.write([keyed_batch(view, more, from_offset=200, lane_count=LANES)])

    assert 1 == report.entities_compacted
    assert 1 == len(report.damaged)
    assert "head of 1807 bytes ends inside a row (entity #ec25cf0a)" == report.damaged[0]
    events = [event for event in (*events, *more) if event.key == b"card-1"]
    assert_equals_oracle(store, writer, events, events[-1].event_time_ms + 1)
    assert not writer.write(
        [keyed_batch(view, events_of(4, keys=2, first=210), from_offset=210, lane_count=LANES)]
    ).damaged


def test_damage_to_what_nobody_reads_yet_is_no_reason_to_go_on(store: RedisStore) -> None:
    """A generation that fills is begun anew; so is one of which many entities are damaged."""
    view, count = view_of(), SET_ASIDE_MAX + 1
    writer = open_writer(store, view)
    events = events_of(100 * count, keys=count)
    writer.write([keyed_batch(view, events, lane_count=LANES)])
    for key in [key for key in store.scan(b"*") if b"/h/" in key]:
        store._client().append(key, b"rubbish")
    with pytest.raises(GenerationDamaged, match="entity #"):
        writer.write([])

    catalog = GenerationCatalog(store, PROJECT)
    filling = open_writer(store, replace(view, lookback_ms=1))
    assert filling.generation in catalog.generations(view.name)
    filling.write([keyed_batch(view, events_of(100, keys=1), lane_count=LANES)])
    [key] = [key for key in store.scan(filling.generation.keys.pattern()) if b"/h/" in key]
    store._client().append(key, b"rubbish")
    with pytest.raises(GenerationDamaged, match=fingerprint(b"card-0")):
        filling.write([])


def test_a_list_under_a_key_of_ours_is_damage_and_no_reason_to_end(store: RedisStore) -> None:
    """The generation is named, so that another one can fill in its place."""
    view = view_of()
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events_of(5, keys=1), lane_count=LANES)])
    [key] = [key for key in store.scan(b"*") if b"/h/" in key]
    store._client().delete(key)
    store._client().rpush(key, "not ours")
    with pytest.raises(GenerationDamaged, match="refused a command") as raised:
        writer.write([keyed_batch(view, events_of(5, keys=1, first=5), from_offset=5, lane_count=LANES)])
    assert writer.generation == raised.value.generation


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
