"""A bootstrap that is late, beside another one or beside the stream: what serves stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

import featurestore.online.write.bootstrap_fold as bootstrap_fold
from featurestore.errors import WriterFenced
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import RedisStore
from featurestore.online.store import LaneCommit, LaneOutcome, OnlineStore
from featurestore.online.write.bootstrap import fill_lanes, hand_over, missing_lanes
from featurestore.online.write.writer import ViewWriter
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS
from tests.online.write.test_bootstrap import TOPIC, Recorded, begin, clock, recorded, writer_of
from tests.online.write.writing import LANES, PROJECT, assert_equals_oracle, copy_of, events_of, view_of

VIEW = view_of(60_000, DAY_MS)
EVENTS = events_of(300, keys=9)
AS_OF_MS = ANCHOR_MS + 300_001


def completed(store: RedisStore, generation: Generation) -> ViewWriter:
    """Another bootstrap completes the generation, and the stream takes it and serves."""
    fill_lanes(store, generation, recorded(VIEW, EVENTS), range(LANES), clock())
    ready = GenerationCatalog(store, PROJECT).promote(hand_over(store, generation, LANES))
    return writer_of(store, ready)


@pytest.mark.parametrize("is_opened", [True, False], ids=["the stream writes it", "the stream has not begun"])
def test_a_bootstrap_that_knows_other_partitions_leaves_a_complete_generation_alone(
    store: RedisStore, is_opened: bool
) -> None:
    """It would compute every lane anew, for the lanes know other partitions; but they are not its own any more."""
    generation = begin(store, VIEW)
    fill_lanes(store, generation, recorded(VIEW, EVENTS), range(LANES), clock())
    ready = GenerationCatalog(store, PROJECT).promote(hand_over(store, generation, LANES))
    if is_opened:
        writer_of(store, ready)
    before = copy_of(store)
    late = Recorded(VIEW, EVENTS[:10], {(TOPIC, 0): 10, (TOPIC, 1): 0})
    lanes = missing_lanes(store, generation, LANES, late.positions)

    assert lanes == list(range(LANES))
    with pytest.raises(WriterFenced, match="is not being bootstrapped any more"):
        fill_lanes(store, generation, late, lanes, clock())
    assert copy_of(store) == before
    assert_equals_oracle(store, writer_of(store, ready), EVENTS, AS_OF_MS)


def test_a_lane_that_the_streams_writer_holds_is_not_taken(store: RedisStore) -> None:
    """Whatever the record of the generation says: the token tells who holds the lane."""
    generation = begin(store, VIEW)
    writer_of(store, generation)
    before = copy_of(store)

    with pytest.raises(WriterFenced, match="is not being bootstrapped any more"):
        fill_lanes(store, generation, recorded(VIEW, EVENTS), range(LANES), clock())
    assert copy_of(store) == before


def test_a_bootstrap_that_sleeps_before_it_cleans_up_deletes_nothing(store: RedisStore) -> None:
    """What it finds in the lane when it wakes up is another one's, and serves."""
    generation = begin(store, VIEW)
    writers: list[ViewWriter] = []

    class Asleep(_Through):
        """Sleeps between taking a lane and looking for what an unfinished run left in it."""

        def scan(self, pattern: bytes) -> Iterator[bytes]:
            if not writers:
                writers.append(completed(store, generation))
            return self.real.scan(pattern)

    with pytest.raises(KeyboardInterrupt):
        fill_lanes(store, generation, _Killed(VIEW, EVENTS, {(TOPIC, 0): 300}), range(LANES), clock())
    with pytest.raises(WriterFenced):
        fill_lanes(cast(OnlineStore, Asleep(store)), generation, recorded(VIEW, EVENTS[:5]), range(LANES), clock())

    assert_equals_oracle(store, writers[0], EVENTS, AS_OF_MS)


def test_a_generation_with_an_incomplete_lane_is_not_handed_over(store: RedisStore) -> None:
    """Of one lane that nobody has begun, or that was computed from other partitions, the others would not know."""
    catalog, generation = GenerationCatalog(store, PROJECT), begin(store, VIEW)
    fill_lanes(store, generation, recorded(VIEW, EVENTS), range(LANES - 1), clock())
    with pytest.raises(WriterFenced, match=f"lane {LANES - 1} .* is not complete"):
        hand_over(store, generation, LANES)
    grown = Recorded(VIEW, EVENTS, {(TOPIC, 0): 300, (TOPIC, 1): 0})
    fill_lanes(store, generation, grown, [LANES - 1], clock())
    with pytest.raises(WriterFenced, match=f"lane {LANES - 1} .* is not complete"):
        hand_over(store, generation, LANES)
    assert catalog.generations(VIEW.name)[-1].state is GenerationState.BOOTSTRAPPING

    fill_lanes(store, generation, grown, missing_lanes(store, generation, LANES, grown.positions), clock())
    assert hand_over(store, generation, LANES).state is GenerationState.FILLING


@pytest.mark.parametrize("number", range(1, 2 * LANES + 1))
def test_a_commit_whose_answer_was_lost_is_known_again(store: RedisStore, number: int) -> None:
    """The connection sends it again and is answered with the very bytes it wrote: no other bootstrap was there."""
    generation = begin(store, VIEW)
    lost = cast(OnlineStore, _LosesAnswer(store, number))
    fill_lanes(lost, generation, recorded(VIEW, EVENTS), range(LANES), clock())

    assert_equals_oracle(store, writer_of(store, hand_over(store, generation, LANES)), EVENTS, AS_OF_MS)


def test_an_event_dated_ahead_does_not_age_the_tiles_of_its_entity(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows are as fine around the clock as they are without it."""
    monkeypatch.setattr(bootstrap_fold, "HEAD_ROWS_MAX", 1)
    generation = begin(store, VIEW)
    ahead = NaiveEvent(b"card-0", AS_OF_MS + 60 * DAY_MS, b"ahead", {"amount": 7})
    now = ManualClock(now_ms=AS_OF_MS)
    fill_lanes(store, generation, recorded(VIEW, [*EVENTS, ahead]), range(LANES), now)

    writer = writer_of(store, hand_over(store, generation, LANES))
    assert_equals_oracle(store, writer, [*EVENTS, ahead], AS_OF_MS)


class _Through:
    """A store that is as the real one but for what a subclass changes."""

    def __init__(self, store: RedisStore) -> None:
        self.real = store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(self.real, name)
        return found


class _LosesAnswer(_Through):
    """The answer to one commit is lost; the second sending finds what the first has written."""

    def __init__(self, store: RedisStore, number: int) -> None:
        super().__init__(store)
        self._left = number

    def commit(self, lanes: Sequence[LaneCommit]) -> list[LaneOutcome]:
        """As the connection does it."""
        outcomes = self.real.commit(lanes)
        self._left -= 1
        return self.real.commit(lanes) if self._left == 0 else outcomes


class _Killed(Recorded):
    """The process is killed in its first lane."""

    def parts(self, lane: int) -> Iterator[Any]:
        """The end."""
        raise KeyboardInterrupt
