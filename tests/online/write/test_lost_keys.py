"""Keys that vanish by themselves: evicted, or deleted by hand. What is left never answers for the whole."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from featurestore.errors import StoreRolledBack, TileLost
from featurestore.online.generation import GenerationDamaged, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityBytes, EntityRead, Reader
from featurestore.online.redis.store import RedisStore
from featurestore.online.write.lanes import open_lanes
from featurestore.online.write.writer import ViewWriter
from featurestore.testing.answers import stored_answers
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE
from featurestore.wire.codecs.body import decode_entity
from featurestore.wire.entity_key import fingerprint, lane_of
from featurestore.wire.store_layout import generations_key
from tests.online.write.writing import LANES, PROJECT, answers, assert_equals_oracle, events_of, open_writer, view_of

CARD = b"card-0"
NOW_MS = ANCHOR_MS + DAY_MS


@pytest.fixture
def clock() -> ManualClock:
    """Processing time."""
    return ManualClock(now_ms=NOW_MS)


@pytest.fixture
def writer(store: RedisStore, clock: ManualClock) -> ViewWriter:
    """One card with a body of a hundred events and a head of ten."""
    opened = open_writer(store, view_of(), clock)
    opened.write([keyed_batch(view_of(), events_of(100, keys=1), lane_count=LANES)])
    opened.write([keyed_batch(view_of(), events_of(10, keys=1, first=100), from_offset=100, lane_count=LANES)])
    return opened


def keys_of(writer: ViewWriter) -> tuple[bytes, bytes, bytes]:
    """Body, head and checkpoint of the card."""
    lane, keys = lane_of(CARD, LANES), writer.generation.keys
    return keys.body_prefix(lane) + CARD, keys.head_prefix(lane) + CARD, keys.checkpoint(lane)


def read(store: RedisStore, writer: ViewWriter) -> EntityBytes:
    """What the store holds of the card."""
    (found,) = Reader(store, LANES).read([EntityRead(writer.generation, CARD)])
    assert isinstance(found, EntityBytes)
    return found


def delete(store: RedisStore, key: bytes) -> None:
    """As eviction does."""
    assert 1 == store.delete([key])


def replace_by_list(store: RedisStore, key: bytes) -> None:
    """As somebody else's program might."""
    delete(store, key)
    store._client().lpush(key, b"not ours")


@pytest.mark.parametrize("vanish", [delete, replace_by_list])
@pytest.mark.parametrize("place", [0, 1], ids=["body", "head"])
def test_half_of_an_entity_is_refused(
    store: RedisStore, writer: ViewWriter, vanish: Callable[[RedisStore, bytes], None], place: int
) -> None:
    """Either half knows of the other, so neither answers alone."""
    whole = read(store, writer)
    assert whole.body is not None
    assert whole.head is not None
    assert 110 == answers(store, writer.generation, CARD, NOW_MS)[0]
    vanish(store, keys_of(writer)[place])

    found = read(store, writer)
    with pytest.raises(TileLost, match=f"the {('body', 'head')[place]} of the entity is gone"):
        decode_entity(writer.generation.compiled, found.body, found.head)


def test_halves_go_on_knowing_of_each_other_through_compactions(store: RedisStore, writer: ViewWriter) -> None:
    """Head, body, both, again: at every step the entity is whole and equals the oracle."""
    events = events_of(110, keys=1)
    for first in range(110, 400, 7):
        more = events_of(7, keys=1, first=first)
        events += more
        writer.write([keyed_batch(view_of(), more, from_offset=first, lane_count=LANES)])
        assert_equals_oracle(store, writer, events, NOW_MS)


def test_a_failed_commit_leaves_no_mark_behind(store: RedisStore, writer: ViewWriter) -> None:
    """What a script took back may not make the body wait for a head that never began."""
    _, head, _ = keys_of(writer)
    writer.write([keyed_batch(view_of(), events_of(60, keys=1, first=110), from_offset=110, lane_count=LANES)])
    writer.write([])
    assert store.read_groups([[head]]) == [None]
    bucket = writer.generation.keys.id_bucket(lane_of(CARD, LANES), 0)
    ids = store.read_groups([[bucket]])[0]
    assert ids is not None
    replace_by_list(store, bucket)
    with pytest.raises(GenerationDamaged):
        writer.write([keyed_batch(view_of(), events_of(1, keys=1, first=170), from_offset=170, lane_count=LANES)])

    assert 170 == answers(store, writer.generation, CARD, NOW_MS)[0]


@pytest.mark.parametrize("is_idle", [False, True])
def test_a_lost_checkpoint_is_noticed_by_a_running_writer(
    store: RedisStore, writer: ViewWriter, clock: ManualClock, is_idle: bool
) -> None:
    """With the next event, or while nothing arrives; and opening again does not begin the lane anew."""
    delete(store, keys_of(writer)[2])
    clock.advance_ms(1_000)
    events = [] if is_idle else events_of(5, keys=1, first=110)
    with pytest.raises(StoreRolledBack):
        writer.write([keyed_batch(view_of(), events, from_offset=110, lane_count=LANES)] if events else [])
    with pytest.raises(GenerationDamaged, match=r"the checkpoint of lane . is gone"):
        writer.open()


def test_a_lost_checkpoint_is_noticed_by_a_new_process(store: RedisStore, writer: ViewWriter) -> None:
    """Once every lane has been opened, a lane without a checkpoint has lost it."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.note_opened(writer.generation, 1)
    delete(store, keys_of(writer)[2])
    with pytest.raises(GenerationDamaged, match="is gone"):
        open_writer(store, view_of())


def test_spoilt_bytes_of_a_checkpoint_name_key_lane_and_view(store: RedisStore, writer: ViewWriter) -> None:
    """Whoever is paged knows where to look."""
    key = keys_of(writer)[2]
    store._client().set(key, b"{not json")
    with pytest.raises(GenerationDamaged) as raised:
        open_writer(store, view_of())

    message = raised.value.message
    assert 'feature view "card_activity" generation 1' in message
    assert f"lane {lane_of(CARD, LANES)}" in message
    assert key.decode() in message


def test_lost_event_ids_are_noticed_when_a_lane_is_opened(store: RedisStore, writer: ViewWriter) -> None:
    """Without them a producer's retry would count again."""
    delete(store, writer.generation.keys.id_bucket(lane_of(CARD, LANES), 0))
    with pytest.raises(GenerationDamaged, match="event ids of lane"):
        open_writer(store, view_of())


def test_event_ids_that_are_lost_and_begun_anew_are_noticed(store: RedisStore, writer: ViewWriter) -> None:
    """The next commit appends under the key that is gone; the checkpoint has counted more."""
    delete(store, writer.generation.keys.id_bucket(lane_of(CARD, LANES), 0))
    writer.write([keyed_batch(view_of(), events_of(5, keys=1, first=110), from_offset=110, lane_count=LANES)])
    with pytest.raises(GenerationDamaged, match="of 115 event ids of lane"):
        open_writer(store, view_of())


def test_lanes_witness_each_other(store: RedisStore, writer: ViewWriter) -> None:
    """A lane without a checkpoint is no beginning if another one has read, whatever the record of it says."""
    key, view = generations_key(PROJECT), view_of()
    record = store.hash_fields(key)[view.name.encode()]
    delete(store, keys_of(writer)[2])
    store._client().hset(key, view.name, re.sub(rb'"opened_ms":[0-9]+', b'"opened_ms":0', record))
    with pytest.raises(GenerationDamaged, match="is gone"):
        open_writer(store, view)


def test_lanes_are_not_begun_twice(store: RedisStore, clock: ManualClock) -> None:
    """All of them lost at once: the record knows, also one that was read before they were opened."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(LANES)
    early = catalog.register(view_of())
    assert not early.is_opened
    open_lanes(store, early, LANES, clock.now_ms())
    for lane in range(LANES):
        delete(store, early.keys.checkpoint(lane))
    with pytest.raises(GenerationDamaged, match="the checkpoint of lane 0 is gone"):
        open_lanes(store, early, LANES, clock.now_ms())


def test_a_store_that_goes_back_between_plan_and_opening_is_noticed(
    store: RedisStore, writer: ViewWriter, clock: ManualClock
) -> None:
    """Lanes that are behind what the reader was told to begin with lack what comes before it."""
    writer.close()  # lanes without events owe their offset until then
    planned = {(SOURCE.topic, 0): 110}
    for next_offset, is_behind in ((110, False), (111, True)):
        planned[SOURCE.topic, 0] = next_offset
        later = ViewWriter(store, writer.generation, lanes=range(LANES), clock=clock, read_from=planned)
        later.open()
        assert later.has_gone_back == is_behind


@pytest.mark.parametrize(("oldest", "is_lost"), [(109, False), (110, False), (111, True)])
def test_a_partition_that_another_writer_began_since_the_plan_is_not_read_with_a_hole(
    store: RedisStore, writer: ViewWriter, clock: ManualClock, oldest: int, is_lost: bool
) -> None:
    """Whoever reads it began with the oldest record there was, which may lie behind what lanes wait for."""
    writer.close()  # lanes without events owe their offset until then
    later = ViewWriter(store, writer.generation, lanes=range(LANES), clock=clock)
    later.open()
    batch = keyed_batch(view_of(), events_of(20), from_offset=oldest, lane_count=LANES)
    if not is_lost:
        later.write([batch])
        return
    with pytest.raises(StoreRolledBack, match=f"jumped to offset {oldest}") as raised:
        later.write([batch])
    assert "another writer began the partition" in raised.value.detail


def test_a_number_is_passed_over_under_which_the_store_holds_something(
    store: RedisStore, writer: ViewWriter, clock: ManualClock
) -> None:
    """A record that was lost had given it out: what is left of it is not the new generation's."""
    catalog = GenerationCatalog(store, PROJECT)
    second = catalog.begin_bootstrap(view_of())
    open_lanes(store, second, LANES, clock.now_ms())
    delete(store, generations_key(PROJECT))

    assert 1 == catalog.register(view_of()).number, "what the store holds of the first is all that there was"
    assert 3 == catalog.begin_bootstrap(view_of()).number


def test_compaction_does_not_bless_what_is_left(store: RedisStore, writer: ViewWriter) -> None:
    """A head that grew long without its body is not made into the whole entity: it is set aside, and refused on."""
    delete(store, keys_of(writer)[0])
    writer.write([keyed_batch(view_of(), events_of(60, keys=1, first=110), from_offset=110, lane_count=LANES)])
    report = writer.write([])

    assert report.damaged[0] == f"the body of the entity is gone (entity {fingerprint(b'card-0')})"
    assert not writer.write([]).damaged, "it is told once"
    with pytest.raises(TileLost):
        stored_answers(Reader(store, LANES), writer.generation, [b"card-0"], ANCHOR_MS + DAY_MS)


def test_another_generation_fills_beside_one_with_damaged_entities(store: RedisStore, writer: ViewWriter) -> None:
    """It goes on serving until that one is promoted; more damage begins no third one."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.refill(writer.generation, ["a"])
    catalog.refill(writer.generation, ["b", "a"])
    old, new = catalog.generations("card_activity")

    assert (GenerationState.SERVING, ("a", "b")) == (old.state, old.damaged)
    assert (GenerationState.FILLING, ()) == (new.state, new.damaged)
    assert old.definition_hash == new.definition_hash
    assert old == catalog.register(view_of()), "planning again leaves both as they are"
    assert [old, new] == list(catalog.generations("card_activity"))
    catalog.promote(new)
    assert [GenerationState.RETIRED, GenerationState.SERVING] == [
        one.state for one in catalog.generations("card_activity")
    ]


def test_a_damaged_generation_is_replaced_by_one_that_fills(store: RedisStore, writer: ViewWriter) -> None:
    """Nobody reads it any more, and its successor begins with the first record; told twice, it is done once."""
    catalog = GenerationCatalog(store, PROJECT)
    for _ in range(2):
        catalog.replace_damaged(writer.generation)

    old, new = catalog.generations("card_activity")
    assert (GenerationState.RETIRED, GenerationState.FILLING) == (old.state, new.state)
    assert catalog.serving("card_activity") is None
    assert new.number == catalog.register(view_of()).number
