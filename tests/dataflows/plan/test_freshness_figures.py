"""What is left of an error budget, against a plain sum over every event; streams that share a view on a real store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from dataflows.plan.freshness_figures import FreshnessFigures
from dataflows.plan.tile_store import OnlineTileStore
from featurestore.core.spec import FreshnessPromise
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.store_status import read_promises
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.write.report import WriteReport
from featurestore.testing.clock import ManualClock
from featurestore.wire.counts.freshness import BUDGET_DAYS, DAY_MS, HOUR_MS
from tests.serving.payments import MERCHANT_ACTIVITY, NOW_MS, PROJECT

PROMISE = FreshnessPromise(MERCHANT_ACTIVITY.name, 30_000, 0.9)


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    """An empty store."""
    connected = connect(redis_url)
    yield connected
    connected.close()


@pytest.fixture
def generation(store: RedisStore) -> Generation:
    """That of a view, serving."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(2)
    found = catalog.register(MERCHANT_ACTIVITY)
    assert found.state is GenerationState.SERVING
    return found


def stream(
    store: RedisStore, clock: ManualClock, generation: Generation, promise: FreshnessPromise
) -> FreshnessFigures:
    """The figures of one process."""
    return FreshnessFigures(OnlineTileStore(store, PROJECT, clock), clock, [promise], [generation])


def committed(clock: ManualClock, delays_ms: list[int]) -> WriteReport:
    """What a commit says now of events that happened so long ago."""
    times = clock.now_ms() - np.array(delays_ms, dtype=np.int64)
    return WriteReport(len(delays_ms), 0, 0, 0, 1, 0, event_time_ms=times)


def test_what_several_streams_count_is_the_sum_over_every_event(store: RedisStore, generation: Generation) -> None:
    """Hours pass, two processes keep the same day in turn, days go round: the budget is that of the last 30 days."""
    clock = ManualClock(now_ms=NOW_MS)
    streams = [stream(store, clock, generation, PROMISE) for _ in range(2)]
    seen: list[tuple[int, int]] = []
    draw = np.random.default_rng(7)

    for step in range(60):
        one = streams[step % 2]
        delays = draw.integers(29_000, 30_200, size=5).tolist()
        one.note(generation, committed(clock, delays))
        seen += [(clock.now_ms() // HOUR_MS, delay) for delay in delays]
        if step % 3 == 0:
            one.tick(is_last=True)
        if step == 29:
            clock.advance_ms(25 * DAY_MS)
        clock.advance_ms(7 * HOUR_MS)
    for one in streams:
        one.tick(is_last=True)

    (state,) = read_promises(store, PROJECT, [PROMISE], clock.now_ms())
    hour = clock.now_ms() // HOUR_MS
    mine = [delay for at, delay in seen if hour - BUDGET_DAYS * 24 < at <= hour]
    late = sum(delay > 30_000 for delay in mine)
    assert (state.events, state.late) == (len(mine), late)
    assert 0 < len(mine) < len(seen)
    assert state.budget_left == pytest.approx(1 - late / len(mine) / 0.1)
    assert not state.is_silent
    clock.advance_ms(61_000)
    (silent,) = read_promises(store, PROJECT, [PROMISE], clock.now_ms())
    assert (silent.is_silent, silent.is_kept) == (True, False)


def test_another_promise_begins_another_budget_and_what_fills_counts_for_none(
    store: RedisStore, generation: Generation
) -> None:
    """Nobody knows which of the events before kept what is promised now."""
    clock = ManualClock(now_ms=NOW_MS)
    first = stream(store, clock, generation, PROMISE)
    first.note(generation, committed(clock, [1, 31_000]))
    first.tick(is_last=True)
    shorter = FreshnessPromise(PROMISE.view, 500, 0.99)

    (before,) = read_promises(store, PROJECT, [shorter], clock.now_ms())
    second = stream(store, clock, generation, shorter)
    second.note(generation, committed(clock, [1, 501]))
    second.note(replace(generation, state=GenerationState.FILLING), committed(clock, [DAY_MS]))
    second.tick()
    (after,) = read_promises(store, PROJECT, [shorter], clock.now_ms())

    assert (before.events, before.is_kept) == (0, False)
    assert (after.events, after.late, after.events_1h) == (2, 1, 2)
