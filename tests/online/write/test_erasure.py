"""What was erased is gone, and stays so whatever comes later; everything else is as if nothing had happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.core.spec import PlainViewSpec, ViewSpec
from featurestore.errors import CorruptTile
from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import RedisStore
from featurestore.online.store import LaneCommit, LaneOutcome
from featurestore.online.write import compaction, new_rows, pack_folding
from featurestore.online.write.bootstrap import fill_lanes
from featurestore.online.write.erasure.book import ErasureBook
from featurestore.online.write.erasure.project import StoreEraser, erase_again
from featurestore.online.write.lanes import LaneErased
from featurestore.online.write.plain_writer import PlainValues, PlainWriter
from featurestore.online.write.writer import ViewWriter
from featurestore.testing import writers
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE
from featurestore.wire.entity_key import encode_key, lane_of, pack_of, split_key
from tests.online.write.test_bootstrap import recorded
from tests.online.write.writing import LANES, PROJECT, answers, assert_equals_oracle, view_of

COLUMNS = {column.name: column for column in SOURCE.columns}
CARD, MARKET = COLUMNS["card_id"], COLUMNS["market"]
BY_CARD = replace(view_of(DAY_MS, 60_000), join_keys=(CARD,))
BY_PAIR = replace(view_of(DAY_MS, 60_000), name="card_markets", join_keys=(MARKET, CARD))
LATER_MS = ANCHOR_MS + 3_600_000
CARDS = ("c-1", "c-2", "1:c")


class Stand:
    """A stream that writes two views, in packs or not, and whoever erases cards beside it."""

    def __init__(self, store: RedisStore, packs: int) -> None:
        self.store = store
        self.clock = ManualClock(now_ms=ANCHOR_MS)
        catalog = GenerationCatalog(store, PROJECT, packs=packs)
        catalog.lane_count(LANES)
        self.writers = [
            writers.open_writer(store, catalog.register(view), LANES, self.clock) for view in (BY_CARD, BY_PAIR)
        ]
        self.events: list[NaiveEvent] = []
        self.before_ms: dict[str, int] = {}
        self.uncut = 0

    def send(self, card: str, market: str, event_time_ms: int) -> None:
        """An event, which is not written yet."""
        number = len(self.events)
        self.events.append(NaiveEvent(encode_key([market, card]), event_time_ms, b"id-%d" % number, {"amount": number}))

    def write(self, begin: int) -> None:
        """Commit the events from one on; as the stream does, again after an erasure."""
        for one in self.writers:
            while True:
                try:
                    one.write([self.batch(one, self.events[begin:], begin)])
                    break
                except LaneErased:
                    one.open(goes_on=True)

    def batch(self, one: ViewWriter, events: Sequence[NaiveEvent], begin: int) -> Any:
        """A read of the source."""
        mine = self.of_view(one.generation.view, events)
        return keyed_batch(one.generation.view, mine, from_offset=begin, lane_count=LANES)

    def of_view(self, view: ViewSpec, events: Sequence[NaiveEvent]) -> list[NaiveEvent]:
        """Events with the entity key that a view gives them."""
        return events_of_pairs(events) if view is BY_CARD or view.name == BY_CARD.name else list(events)

    def erase(self, card: str, store: RedisStore | None = None) -> int:
        """As the command does; how many entities had anything."""
        eraser = self.eraser(card, store)
        done = eraser.erase()
        self.before_ms[card] = done.record.before_ms
        assert eraser.remaining(done.record.before_ms) == []
        return sum(one.entities for one in done.views)

    def erase_before(self, card: str, before_ms: int) -> int:
        """Only what is older than a moment; how many entities are left as they were, as a tile of theirs spans it."""
        eraser = self.eraser(card)
        done = eraser.erase_before(before_ms)
        self.before_ms[card] = done.record.before_ms
        uncut = sum(one.uncut for one in done.views)
        self.uncut += uncut
        assert uncut or eraser.remaining(done.record.before_ms) == []
        return uncut

    def eraser(self, card: str, store: RedisStore | None = None) -> StoreEraser:
        """Of a card."""
        return StoreEraser(store or self.store, PROJECT, (), "card_id", card.encode(), self.clock)

    def left(self, view: ViewSpec) -> list[NaiveEvent]:
        """What the oracle is to know: by the rule, and by nothing else."""
        kept = [
            event
            for event in self.events
            if event.event_time_ms >= self.before_ms.get(split_key(event.key, 2)[1].decode(), 0)
        ]
        return self.of_view(view, kept)

    def judge(self) -> None:
        """Every entity of both views, also those that were erased."""
        for one in self.writers:
            assert_equals_oracle(self.store, one, self.left(one.generation.view), LATER_MS)
            for key in {event.key for event in self.of_view(one.generation.view, self.events)}:
                if key not in {event.key for event in self.left(one.generation.view)}:
                    assert not any(answers(self.store, one.generation, key, LATER_MS))


def events_of_pairs(events: Sequence[NaiveEvent]) -> list[NaiveEvent]:
    """The events by card alone."""
    return [replace(event, key=split_key(event.key, 2)[1]) for event in events]


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(CARDS),
            st.sampled_from(("SE", "DE")),
            st.sampled_from((0, -1, -5, -70_000, 1, 3_000)),
            st.integers(1, 7),
        ),
        st.sampled_from(("commit", "erase c-1", "erase 1:c", "pass")),
        st.tuples(st.just("before"), st.sampled_from(CARDS), st.sampled_from((0, -1, -3, -60_000))),
    ),
    max_size=40,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, packs=st.sampled_from((0, 2)))
def test_what_is_left_is_what_the_oracle_knows_without_the_erased(
    redis_url: str, steps: Sequence[Any], packs: int
) -> None:
    """Late events, and those dated ahead, before, between and after erasures; also computed from all events anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "HEAD_ROWS_MAX", 3)
        patch.setattr(pack_folding, "ENTITY_ROWS_MAX", 4)
        patch.setattr(pack_folding, "PACK_ROWS_MAX", 9)
        patch.setattr(new_rows, "PACK_HEAD_BYTES_MAX", 1)
        store = RedisStore(redis_url)
        store.delete(list(store.scan(b"*")))
        stand, begin = Stand(store, packs), 0
        for step in (*steps, "commit"):
            if step == "commit":
                stand.write(begin)
                begin = len(stand.events)
            elif step == "pass":
                stand.clock.advance_ms(5)
            elif isinstance(step, str):
                stand.erase(step.removeprefix("erase "))
            elif step[0] == "before":
                _, card, ahead_ms = step
                stand.erase_before(card, stand.clock.now_ms() + ahead_ms)
            else:
                card, market, ahead_ms, count = step
                for _ in range(count):
                    stand.send(card, market, stand.clock.now_ms() + ahead_ms)
        if not stand.uncut:
            stand.judge()
        for one in stand.writers:
            view = one.generation.view
            again = GenerationCatalog(store, PROJECT, packs=packs).begin_bootstrap(view, is_anew=True)
            fill_lanes(store, again, recorded(view, stand.of_view(view, stand.events)), range(LANES), stand.clock)
            assert_equals_oracle(store, reading(one, again), stand.left(view), LATER_MS)
        store.close()


def reading(one: ViewWriter, generation: Generation) -> ViewWriter:
    """Whatever the comparison takes to read another generation."""
    return ViewWriter(one.store, generation, lanes=(), clock=ManualClock(now_ms=ANCHOR_MS))


class _Between:
    """A store in which something happens just before some commit."""

    def __init__(self, store: RedisStore, happens: Any, *, before: int = 1) -> None:
        self._store = store
        self._happens = happens
        self._left = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, lanes: Sequence[LaneCommit]) -> list[LaneOutcome]:
        """As the real one, after what happens."""
        self._left -= 1
        if self._left == 0:
            self._happens()
        return self._store.commit(lanes)


@pytest.mark.parametrize("packs", [0, 2])
def test_what_a_stream_had_prepared_does_not_bring_it_back(
    store: RedisStore, packs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows in flight, a body of the old one, a pack: the commit is refused. Nor is an event lost that comes between."""
    monkeypatch.setattr(compaction, "HEAD_ROWS_MAX", 3)
    monkeypatch.setattr(pack_folding, "ENTITY_ROWS_MAX", 4)
    monkeypatch.setattr(new_rows, "PACK_HEAD_BYTES_MAX", 1)
    stand = Stand(store, packs)
    for number in range(24):
        stand.send(CARDS[number % 2], "SE", ANCHOR_MS - number)
    stand.write(0)
    for number in range(6):
        stand.send(CARDS[number % 2], "SE", ANCHOR_MS - number)
    [by_card, _] = stand.writers
    prepared = by_card.prepare([stand.batch(by_card, stand.events[24:], 24)])
    assert prepared.report.entities_compacted
    assert stand.erase("c-1") == 2
    outcomes = store.commit([commit for _, _, commit in prepared.commits])
    with pytest.raises(LaneErased):
        by_card.settle(prepared.commits, outcomes)
    by_card.open(goes_on=True)
    stand.write(24)
    stand.judge()

    def send_another() -> None:
        stand.clock.advance_ms(50)
        stand.send("c-2", "SE", stand.clock.now_ms())
        stand.write(len(stand.events) - 1)

    # The event is newer than the erasure that begins: the next round takes it along.
    assert stand.erase("c-2", _Between(store, send_another)) == 2  # type: ignore[arg-type]  # all that it asks for
    assert stand.before_ms["c-2"] > stand.clock.now_ms()
    stand.clock.advance_ms(60_000)
    stand.send("c-2", "SE", stand.clock.now_ms())
    stand.write(len(stand.events) - 1)
    stand.judge()
    assert stand.left(BY_CARD)[-1].key == b"c-2"


def test_a_bootstrap_computes_a_lane_anew_that_somebody_is_erased_from(store: RedisStore) -> None:
    """The rest of the lane is whole, and the card is not there."""
    stand = Stand(store, 0)
    for number in range(40):
        stand.send(f"c-{number}", "SE", ANCHOR_MS - number)
    again = GenerationCatalog(store, PROJECT).begin_bootstrap(BY_CARD, is_anew=True)
    between = _Between(store, lambda: stand.erase("c-7"), before=2 * lane_of(b"c-7", LANES) + 2)
    events = recorded(BY_CARD, events_of_pairs(stand.events))
    fill_lanes(between, again, events, range(LANES), stand.clock)

    assert stand.before_ms
    assert_equals_oracle(store, reading(stand.writers[0], again), stand.left(BY_CARD), LATER_MS)
    assert not any(answers(store, again, b"c-7", LATER_MS))


def test_values_of_plain_views_go_and_damage_is_told(store: RedisStore) -> None:
    """Of keys of pairs those with the value; a pack that nobody can read is refused instead of taken for clean."""
    stand = Stand(store, 1)
    views = (PlainViewSpec("profile", (CARD,), (MARKET,)), PlainViewSpec("limits", (MARKET, CARD), (MARKET,)))
    plain = PlainWriter(store, PROJECT, LANES, stand.clock)
    plain.write("profile", [PlainValues(b"c-1", ANCHOR_MS, {"market": "SE"})], ttl_ms=None, progress=int)
    pairs = [encode_key(["SE", card]) for card in ("c-1", "c-2")]
    plain.write("limits", [PlainValues(key, ANCHOR_MS, {"market": "SE"}) for key in pairs], ttl_ms=None, progress=int)
    eraser = StoreEraser(store, PROJECT, views, "card_id", b"c-1", stand.clock)
    before = {one.view: one.entities for one in eraser.remaining(ANCHOR_MS + 1)}
    done = eraser.erase()

    assert before == {"profile": 1, "limits": 1}
    assert {one.view: one.entities for one in done.views if one.entities} == before
    assert eraser.remaining(done.record.before_ms) == []
    assert len(list(store.scan(b"*/p/*"))) == 1
    stand.send("c-1", "SE", stand.clock.now_ms() + 5)
    stand.write(0)
    keys, lane = stand.writers[0].generation.keys, lane_of(b"c-1", LANES)
    head = keys.pack_head_prefix(lane) + b"%d" % pack_of(b"c-1", 1)
    store._client().setrange(head, 3, b"\x00\x00\x00")
    with pytest.raises(CorruptTile, match="pack of"):
        stand.erase("c-1")


@pytest.mark.parametrize("packs", [0, 2])
def test_only_what_is_older_goes_and_a_tile_that_spans_the_moment_is_told(
    store: RedisStore, packs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of head, body and pack; what comes late afterwards is left out, what is later counts."""
    monkeypatch.setattr(compaction, "HEAD_ROWS_MAX", 3)
    monkeypatch.setattr(pack_folding, "ENTITY_ROWS_MAX", 40)
    stand = Stand(store, packs)
    for number in range(20):
        stand.send(CARDS[number % 2], ("SE", "DE")[number % 3 % 2], ANCHOR_MS - 1_000 * number)
        stand.write(number)
    assert 0 == stand.erase_before("c-1", ANCHOR_MS - 4_000)
    stand.send("c-1", "SE", ANCHOR_MS - 7_000)
    stand.send("c-1", "SE", ANCHOR_MS - 4_000)
    stand.write(20)

    assert 10 > len([event for event in stand.left(BY_CARD) if event.key == b"c-1"]) > 2
    stand.judge()

    if not packs:
        stand.clock.advance_ms(DAY_MS // 2)
        for number in range(5):
            stand.send("c-2", "SE", stand.clock.now_ms() - number)
            stand.write(21 + number)
        before = answers(store, stand.writers[0].generation, b"c-2", stand.clock.now_ms())

        assert 0 < stand.erase_before("c-2", ANCHOR_MS - 2_500)
        assert before == answers(store, stand.writers[0].generation, b"c-2", stand.clock.now_ms())


def test_a_copy_of_before_is_cleaned_by_what_is_on_record(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's value is known: all keys are gone through, also of plain views; and what is newer stays."""
    monkeypatch.setattr(compaction, "HEAD_ROWS_MAX", 3)
    stand = Stand(store, packs=2)
    for number in range(30):
        stand.send(CARDS[number % 3], "SE", ANCHOR_MS - 1_000 * number)
        stand.write(number)
    view = PlainViewSpec("profiles", (CARD,), (), None)
    values = [PlainValues(card.encode(), ANCHOR_MS - 5_000, {"one": 1}) for card in CARDS]
    PlainWriter(store, PROJECT, LANES, stand.clock).write(view.name, values, ttl_ms=None, progress=int)
    copy = {key: store._client().dump(key) for key in store.scan(b"*")}
    stand.erase("c-1")
    stand.erase_before("c-2", ANCHOR_MS - 7_500)
    records = ErasureBook(store, PROJECT).all()
    store.delete(list(store.scan(b"*")))
    for key, value in copy.items():
        store._client().restore(key, 0, value)
    for one in records:
        ErasureBook(store, PROJECT).keep(one)
    done = erase_again(store, PROJECT, (view,), stand.clock)

    assert {"card_markets": 2, BY_CARD.name: 2, "profiles": 1} == {one.view: one.entities for one in done}
    assert not any(one.uncut for one in done)
    stand.judge()
    assert not any(one.entities for one in erase_again(store, PROJECT, (view,), stand.clock))
