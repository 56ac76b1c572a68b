"""Entities of few events share the keys of a pack, and leave it when they grow: whatever happens, answers are right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.errors import CorruptData, OnlineStoreDown, TileLost
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityRead, Reader
from featurestore.online.redis.store import RedisStore
from featurestore.online.write import new_rows, pack_folding
from featurestore.online.write.bootstrap import fill_lanes, missing_lanes
from featurestore.online.write.writer import ViewWriter
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE
from featurestore.wire.codecs.pack_members import read_packs
from featurestore.wire.entity_key import lane_of, pack_of
from featurestore.wire.store_layout import generations_key
from tests.online.write.test_bootstrap import Part, Recorded, dying, writer_of
from tests.online.write.writing import (
    LANES,
    PROJECT,
    answers,
    assert_equals_oracle,
    events_of,
    open_writer,
    view_of,
)

PACKS = 2


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packs a lane, which are folded all the time."""
    monkeypatch.setattr(GenerationCatalog.__init__, "__kwdefaults__", {"packs": PACKS})
    monkeypatch.setattr(pack_folding, "ENTITY_ROWS_MAX", 4)
    monkeypatch.setattr(pack_folding, "PACK_ROWS_MAX", 9)
    monkeypatch.setattr(new_rows, "PACK_HEAD_BYTES_MAX", 1)


def kinds(store: RedisStore, generation: Generation) -> dict[str, int]:
    """How many keys of each kind a generation has."""
    found = dict.fromkeys("hbHB", 0)
    for key in store.scan(generation.keys.pattern()):
        kind = key.removeprefix(key.partition(b"}")[0] + b"}" + generation.keys.stem.encode())[1:2].decode()
        found[kind] = found.get(kind, 0) + 1
    return found


def own_keys(generation: Generation, key: bytes) -> tuple[bytes, bytes]:
    """Body and head of an entity."""
    lane, keys = lane_of(key, LANES), generation.keys
    return keys.body_prefix(lane) + key, keys.head_prefix(lane) + key


def pack_keys(generation: Generation, key: bytes) -> tuple[bytes, bytes]:
    """Body and head of its pack."""
    lane, keys, name = lane_of(key, LANES), generation.keys, b"%d" % pack_of(key, generation.packs)
    return keys.pack_body_prefix(lane) + name, keys.pack_head_prefix(lane) + name


def fold(one: ViewWriter) -> None:
    """Fold whatever has grown."""
    one.write([])


def write_one_by_one(one: ViewWriter, events: list[NaiveEvent], *, at_once: int, begin: int = 0) -> None:
    """Commits of a few events each, at consecutive offsets."""
    for offset in range(0, len(events), at_once):
        chunk = events[offset : offset + at_once]
        one.write([keyed_batch(one.generation.view, chunk, from_offset=begin + offset, lane_count=LANES)])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    owners=st.lists(st.sampled_from((0, 0, 0, 1, 2, 3, 4, 5, 6, 7)), min_size=1, max_size=60),
    late=st.lists(st.integers(0, 100_000), min_size=60, max_size=60),
    at_once=st.sampled_from((1, 3, 20)),
)
def test_answers_equal_the_oracle_wherever_entities_are(
    redis_url: str, owners: list[int], late: list[int], at_once: int
) -> None:
    """In heads and bodies of packs, on their way out, and by themselves; events in any order."""
    store = RedisStore(redis_url)
    store.delete(list(store.scan(b"*")))
    one = open_writer(store, view_of(DAY_MS, 60_000))
    events = [
        NaiveEvent(b"card-%d" % owner, ANCHOR_MS + late[n], b"id-%d" % n, {"amount": n})
        for n, owner in enumerate(owners)
    ]
    for end in range(at_once, len(events) + at_once, at_once):
        chunk = events[end - at_once : end]
        one.write([keyed_batch(one.generation.view, chunk, from_offset=end - at_once, lane_count=LANES)])
        assert_equals_oracle(store, one, events[:end], ANCHOR_MS + 100_001)
    store.close()


def test_small_entities_share_keys_and_leave_them_when_they_grow(store: RedisStore) -> None:
    """Sixteen cards in eight packs at most; the one with more events than the others has a body by itself."""
    one, events = open_writer(store, view_of()), events_of(16, keys=16)
    write_one_by_one(one, events, at_once=16)
    before = kinds(store, one.generation)
    more = [NaiveEvent(b"card-3", ANCHOR_MS + n, b"more-%d" % n, {"amount": n}) for n in range(5)]
    write_one_by_one(one, more, at_once=5, begin=16)
    fold(one)
    after = kinds(store, one.generation)
    body, head = store.read_groups([own_keys(one.generation, b"card-3")])

    assert (0, 0) == (before["h"], before["b"])
    assert 1 <= before["H"] <= LANES * PACKS
    assert (0, 1) == (after["h"], after["b"])
    assert body is not None
    assert head is None
    assert_equals_oracle(store, one, events + more, ANCHOR_MS + DAY_MS)


def test_a_pack_that_is_full_lets_the_largest_leave(store: RedisStore) -> None:
    """What does not fit gets keys of its own; nobody is lost."""
    one, events = open_writer(store, view_of()), events_of(240, keys=120)
    write_one_by_one(one, events, at_once=240)
    fold(one)
    found = kinds(store, one.generation)

    assert found["B"] == LANES * PACKS
    assert found["b"] >= 120 - LANES * PACKS * 9 // 2
    assert found["h"] == 0
    assert_equals_oracle(store, one, events, ANCHOR_MS + DAY_MS)


def test_what_no_window_can_reach_leaves_a_pack_that_goes_on(store: RedisStore) -> None:
    """The pack lives as long as anybody in it is written; a card without events for a retention does not."""
    clock = ManualClock(now_ms=ANCHOR_MS + 1_000 * DAY_MS)
    one = open_writer(store, view_of(retention_ms=2 * DAY_MS), clock)
    cards = [b"card-%d" % n for n in range(40)]
    [old, young] = [card for card in cards if own_place(card) == own_place(b"card-0")][:2]
    first = NaiveEvent(old, ANCHOR_MS, b"first", {"amount": 1})
    later = [NaiveEvent(young, ANCHOR_MS + n * DAY_MS, b"later-%d" % n, {"amount": n}) for n in (1, 4)]
    write_one_by_one(one, [first, later[0]], at_once=1)
    fold(one)
    [early, _] = store.read_groups([pack_keys(one.generation, old)])
    write_one_by_one(one, [later[1]], at_once=1, begin=2)
    fold(one)
    [late, _] = store.read_groups([pack_keys(one.generation, old)])

    assert {old, young} == members_of(one, early)
    assert {young} == members_of(one, late)
    assert [None, None] == answers_or_none(store, one, old)
    assert_equals_oracle(store, one, [first, *later], ANCHOR_MS + 4 * DAY_MS + 1)


def members_of(one: ViewWriter, body: bytes | None) -> set[bytes]:
    """The entities of the body of a pack."""
    packs, _ = read_packs(one.generation.compiled, [(body, None)])
    return {packs.key(entity) for entity in range(len(packs.counts))}


def own_place(key: bytes) -> tuple[int, int]:
    """Lane and pack of an entity."""
    return lane_of(key, LANES), pack_of(key, PACKS)


def answers_or_none(store: RedisStore, one: ViewWriter, key: bytes) -> list[object]:
    """What a reader of today gets; None for the zero of a count of nothing."""
    return [value or None for value in answers(store, one.generation, key, ANCHOR_MS + 4 * DAY_MS + 1)]


def test_packs_expire_one_retention_after_their_last_write(store: RedisStore) -> None:
    """Head and body together, as those of an entity do."""
    one = open_writer(store, view_of(retention_ms=90 * DAY_MS), ManualClock(now_ms=ANCHOR_MS))
    write_one_by_one(one, events_of(2, keys=1), at_once=1)
    body, head = pack_keys(one.generation, b"card-0")
    lives = [store._client().pttl(key) for key in (body, head)]
    expire_ms = one.generation.expire_ms(0)

    assert all(expire_ms - 60_000 < left <= expire_ms * 9 // 8 + 10_000 for left in lives)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_half_of_a_pack_is_missed(store: RedisStore, lost: int) -> None:
    """All of its entities are refused; those of other packs, and those that have left it, are answered."""
    one, events = open_writer(store, view_of()), events_of(80, keys=20)
    # Thrice: in bodies, and in heads that began beside them.
    write_one_by_one(one, events, at_once=27)
    names = pack_keys(one.generation, b"card-0")
    assert all(store.read_groups([names]))
    store.delete([names[lost]])
    refused = 0
    for number in range(20):
        key = b"card-%d" % number
        mine, by_itself = pack_keys(one.generation, key), any(store.read_groups([own_keys(one.generation, key)]))
        if mine == names and not by_itself:
            refused += 1
            with pytest.raises(TileLost):
                answers(store, one.generation, key, ANCHOR_MS + DAY_MS)
        else:
            answers(store, one.generation, key, ANCHOR_MS + DAY_MS)

    assert refused
    damaged = one.write([]).damaged
    assert 1 == len(damaged)
    assert "is gone (pack " in damaged[0]


def test_an_entity_that_is_still_in_the_pack_that_it_left_is_not_written_back(store: RedisStore) -> None:
    """A server that failed between the two: its own keys count, and the copy in the pack never replaces them."""
    one, events = open_writer(store, view_of()), events_of(6, keys=1)
    write_one_by_one(one, events[:4], at_once=4)
    write_one_by_one(one, [events[4]], at_once=1, begin=4)
    pack = pack_keys(one.generation, b"card-0")
    before = dict(zip(pack, store.read_groups([pack]), strict=True))
    fold(one)
    assert 1 == kinds(store, one.generation)["b"]
    # The pack as it was, beside what has left it.
    for key, value in before.items():
        if value is not None:
            store._client().set(key, value)
    write_one_by_one(one, [events[5]], at_once=1, begin=5)
    assert_equals_oracle(store, one, events, ANCHOR_MS + DAY_MS)
    one._compactor.schedule_packs(lane_of(b"card-0", LANES), [b"%d" % pack_of(b"card-0", PACKS)])
    fold(one)

    assert_equals_oracle(store, one, events, ANCHOR_MS + DAY_MS)
    assert [None, None] == store.read_groups([pack])


def test_a_commit_that_fails_takes_back_what_it_appended_to_packs(store: RedisStore) -> None:
    """Nothing counts twice when it is sent again."""
    one, events = open_writer(store, view_of()), events_of(12, keys=6)
    write_one_by_one(one, events[:6], at_once=6)
    prepared = one.prepare([keyed_batch(one.generation.view, events[6:], from_offset=6, lane_count=LANES)])
    commits = [commit for _, _, commit in prepared.commits if commit.entities]
    spoiled = [commit.id_appends[0][0] for commit in commits]
    kept = store.read_groups([[key] for key in spoiled])
    store.delete(spoiled)
    for key in spoiled:
        store._client().lpush(key, b"not ours")
    for commit in commits:
        with pytest.raises(CorruptData):
            store.commit([commit])
    store.delete(spoiled)
    for key, value in zip(spoiled, kept, strict=True):
        if value is not None:
            store._client().set(key, value)
    assert_equals_oracle(store, one, events[:6], ANCHOR_MS + DAY_MS)
    one.settle(prepared.commits, store.commit([commit for _, _, commit in prepared.commits]))

    assert_equals_oracle(store, one, events, ANCHOR_MS + DAY_MS)


def test_a_release_that_knows_no_packs_refuses_their_generations(store: RedisStore) -> None:
    """It would find nothing of small entities, and say so: the state of such a generation is none that it knows."""

    class RecordOfBefore(msgspec.Struct):
        number: int
        state: GenerationState

    generation = GenerationCatalog(store, PROJECT).register(view_of())
    old = GenerationCatalog(store, "other", packs=0).register(view_of())
    stored, of_before = (
        store.hash_field(generations_key(project), b"card_activity") or b"" for project in (PROJECT, "other")
    )
    decoder = msgspec.json.Decoder(tuple[RecordOfBefore, ...])

    with pytest.raises(msgspec.ValidationError, match="serving in packs"):
        decoder.decode(stored)
    assert GenerationState.SERVING is decoder.decode(of_before)[0].state
    assert [(PACKS, GenerationState.SERVING), (0, GenerationState.SERVING)] == [
        (one.packs, one.state) for one in (GenerationCatalog(store, PROJECT).serving("card_activity") or old, old)
    ]
    assert generation == GenerationCatalog(store, PROJECT).serving("card_activity")


def test_a_record_that_was_lost_is_not_made_anew_with_other_packs(store: RedisStore) -> None:
    """Entities would be looked for in the wrong ones: the names say how many packs there are."""
    one = open_writer(store, view_of())
    write_one_by_one(one, events_of(12), at_once=12)
    store.delete([generations_key(PROJECT), generations_key(PROJECT) + b"/history"])
    again = GenerationCatalog(store, PROJECT).register(view_of())
    store.delete([generations_key(PROJECT), generations_key(PROJECT) + b"/history"])
    other = GenerationCatalog(store, PROJECT, packs=PACKS + 1).register(view_of())
    reads = [[EntityRead(each, b"card-0")] for each in (again, other)]
    [[found], [missing]] = (Reader(store, LANES).read(read) for read in reads)

    assert one.generation == again
    assert found.body is not None  # type: ignore[union-attr]  # of a stream view
    assert missing.body is None  # type: ignore[union-attr]  # likewise


@dataclass(frozen=True)
class InThreeParts(Recorded):
    """The entities of a lane in three parts, as those of a long log."""

    def parts(self, lane: int) -> Iterator[Part]:
        """Each entity in one of them."""
        for number in range(3):
            rows = [event for event in self.rows if sum(event.key) % 3 == number]
            yield from Recorded(self.view, rows).parts(lane)


def test_another_number_of_expected_entities_fills_beside(store: RedisStore) -> None:
    """As another definition does; once: promoted or rolled back, or told the same again, nothing begins."""
    catalog = GenerationCatalog(store, PROJECT, packs=None)
    views = [replace(view_of(), expected_entities=number) for number in (0, 480, 4_800)]
    first = catalog.register(views[0])
    second = catalog.register(views[1])
    third = catalog.register(views[2])

    assert [(0, GenerationState.SERVING), (1, GenerationState.FILLING), (10, GenerationState.FILLING)] == [
        (one.packs, one.state) for one in (first, second, third)
    ]
    assert first.definition_hash == third.definition_hash
    assert [1, 2, 3] == [one.number for one in (first, second, third)]
    assert GenerationState.RETIRED is catalog.generations(first.view.name)[1].state
    assert third == catalog.register(views[2])
    assert [third] == [catalog.promote(third)]
    assert third == catalog.register(views[2])
    catalog.roll_back(first.view.name)
    assert third == catalog.register(views[2])
    assert 3 == len(catalog.generations(first.view.name))
    assert (4, 10) == (catalog.begin_bootstrap(views[2]).number, catalog.begin_bootstrap(views[2]).packs)


def test_a_generation_of_before_goes_on_until_its_author_expects_entities(store: RedisStore) -> None:
    """Also where a lane would get another number of packs today."""
    old = GenerationCatalog(store, PROJECT, packs=7).register(replace(view_of(), expected_entities=480))
    catalog = GenerationCatalog(store, PROJECT, packs=None)

    assert old == catalog.register(replace(view_of(), expected_entities=480))
    assert (2, 0) == ((same := catalog.register(view_of())).number, same.packs)


@pytest.mark.parametrize("commits", [1_000, 5, 12, 23])
def test_a_bootstrap_puts_small_entities_into_packs(store: RedisStore, commits: int) -> None:
    """Also into those of an earlier part, and beginning anew after it died; the stream goes on with them."""
    view, events = view_of(60_000, DAY_MS), [*events_of(80, keys=40), *events_of(120, keys=3)[100:]]
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(LANES)
    generation = catalog.begin_bootstrap(view)
    of_log = InThreeParts(view, events, {(SOURCE.topic, 0): len(events)})
    clock = ManualClock(now_ms=ANCHOR_MS + 1_000 * DAY_MS)
    with contextlib.suppress(OnlineStoreDown):
        fill_lanes(dying(store, commits, is_applied=True), generation, of_log, range(LANES), clock)
    fill_lanes(store, generation, of_log, missing_lanes(store, generation, LANES, of_log.positions), clock)
    found = kinds(store, generation)
    one = writer_of(store, catalog.hand_over(generation))
    more = [replace(event, event_id=b"more-" + (event.event_id or b"")) for event in events_of(40, keys=20)]
    write_one_by_one(one, more, at_once=10, begin=len(events))
    fold(one)

    assert 1 <= found["B"] <= LANES * PACKS
    assert 3 <= found["h"] < 40 - found["B"]
    assert (0, 0) == (found["H"], found["b"])
    assert_equals_oracle(store, one, events + more, ANCHOR_MS + DAY_MS)
