"""How soon events are servable: counted at every commit, for Prometheus and, of what is promised, in the store.

    commit ──> clock minus event time ──> featurestore_stream_event_delay_seconds{view}       what is stored together
                                     └──> more than promised? featurestore_freshness_..{view} each view's promise
                                                          └─> {payments}/freshness, by hour   for `featurestore status`

Only what is served counts: a generation that fills reads what is long past. Nothing of this holds the stream up. What
cannot be kept is kept with the next figures.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from featurestore.clock import Clock
from featurestore.core.events import Int64Array
from featurestore.core.spec import FreshnessPromise
from featurestore.errors import CorruptData, FeatureStoreError
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.serving_view import serving_views
from featurestore.online.write.report import WriteReport
from featurestore.wire.counts.freshness import (
    DAYS_KEPT,
    HOUR_MS,
    HOURS_PER_DAY,
    DayCounts,
    decode_day,
    encode_day,
    new_day,
)

KEEP_SECONDS = 5.0
KEPT_AT_ONCE_MAX = 4
"""Each is two round trips, for which reading waits: the figures of many views are kept some at a time."""

DELAY_BOUNDS_MS = (10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000)

EVENTS = Counter("featurestore_freshness_events", "Events of a view with a promise that became servable.", ["view"])
LATE = Counter("featurestore_freshness_late_events", "Those of them that took longer than is promised.", ["view"])
PROMISE = Gauge("featurestore_freshness_promise_seconds", "How soon an event is promised to be servable.", ["view"])

_logger = logging.getLogger(__name__)


class FreshnessStore(Protocol):
    """Keeps the counts of views, a day each."""

    def freshness_counts(self, view: str, slot: int) -> bytes | None:
        """What is kept."""
        ...

    def keep_freshness_counts(self, view: str, slot: int, expected: bytes | None, counts: bytes) -> bool:
        """Replace it; False where somebody else did meanwhile."""
        ...


class EventDelays(Collector):
    """A histogram for each view or storage group, of many events at once. Thread safe."""

    def __init__(self) -> None:
        self._bounds = np.array(DELAY_BOUNDS_MS, dtype=np.int64)
        self._lock = threading.Lock()
        self._counts: dict[str, Int64Array] = {}
        self._sums_ms: dict[str, int] = {}

    def observe(self, name: str, delays_ms: Int64Array) -> None:
        """Count (N,) events."""
        counts = np.bincount(np.searchsorted(self._bounds, delays_ms), minlength=len(self._bounds) + 1)
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + counts
            self._sums_ms[name] = self._sums_ms.get(name, 0) + int(delays_ms.sum())

    def collect(self) -> Iterator[Metric]:
        """All of it, as it is now."""
        family = HistogramMetricFamily(
            "featurestore_stream_event_delay_seconds",
            "From when an event happened to the commit after which it is servable.",
            labels=("view",),
        )
        names = [*(str(bound / 1_000) for bound in DELAY_BOUNDS_MS), "+Inf"]
        with self._lock:
            for name, counts in self._counts.items():
                cumulated = map(float, itertools.accumulate(counts.tolist()))
                family.add_metric((name,), list(zip(names, cumulated, strict=True)), self._sums_ms[name] / 1_000)
        yield family


DELAYS = EventDelays()
REGISTRY.register(DELAYS)


class FreshnessFigures:
    """Counts what this process commits. Thread safe.

    Args:
        store: of the counts.
        clock: processing time.
        promises: what is promised.
        generations: what is written; those of them that serve count.
    """

    def __init__(
        self,
        store: FreshnessStore,
        clock: Clock,
        promises: Sequence[FreshnessPromise],
        generations: Sequence[Generation],
    ) -> None:
        self._store = store
        self._clock = clock
        self._promises = {one.view: one for one in promises}
        # Two generations can hold a view for a while. The one that answers for it counts.
        answering = serving_views({one.view.name: [one] for one in generations})
        self._promised: dict[str, list[FreshnessPromise]] = {}
        for one in promises:
            if one.view in answering:
                self._promised.setdefault(answering[one.view].generation.view.name, []).append(one)
        self._lock = threading.Lock()
        self._counted: dict[str, dict[int, list[int]]] = {one.view: {} for one in promises}
        self._due_ns = dict.fromkeys(self._promises, 0)
        PROMISE.clear()
        for one in promises:
            PROMISE.labels(one.view).set(one.freshness_ms / 1_000)
            EVENTS.labels(one.view)
            LATE.labels(one.view)

    def note(self, generation: Generation, report: WriteReport) -> None:
        """Events of a generation are servable now."""
        if generation.state is not GenerationState.SERVING or not report.events_applied:
            return
        now_ms = self._clock.now_ms()
        delays_ms = np.maximum(now_ms - report.event_time_ms, 0)
        DELAYS.observe(generation.view.name, delays_ms)
        for promise in self._promised.get(generation.view.name, ()):
            late = int(np.count_nonzero(delays_ms > promise.freshness_ms))
            EVENTS.labels(promise.view).inc(len(delays_ms))
            LATE.labels(promise.view).inc(late)
            self._count(promise.view, now_ms // HOUR_MS, len(delays_ms), late)

    def tick(self, is_last: bool = False) -> None:
        """Keep the figures of some views, if it is time to; of all at last."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            due = [view for view, due_ns in self._due_ns.items() if is_last or now_ns >= due_ns]
            due = due if is_last else due[:KEPT_AT_ONCE_MAX]
            for view in due:
                self._due_ns[view] = now_ns + int(KEEP_SECONDS * 1e9)
        for view in due:
            if not self._keep_all(view):
                return

    def _count(self, view: str, hour: int, events: int, late: int) -> None:
        """Events of an hour since 1970."""
        with self._lock:
            counted = self._counted[view].setdefault(hour, [0, 0])
            counted[0] += events
            counted[1] += late

    def _keep_all(self, view: str) -> bool:
        """What is counted of a view, and that somebody counts; whether the store answers."""
        with self._lock:
            counted, self._counted[view] = self._counted[view], {}
        by_day: dict[int, dict[int, list[int]]] = {self._clock.now_ms() // HOUR_MS // HOURS_PER_DAY: {}}
        for hour, counts in counted.items():
            by_day.setdefault(hour // HOURS_PER_DAY, {})[hour % HOURS_PER_DAY] = counts
        for day, hours in sorted(by_day.items()):
            is_kept, answers = False, True
            try:
                is_kept = self._keep(view, day, hours)
            except FeatureStoreError as error:
                _logger.warning("figures of the freshness of %s are kept later: %s", view, error)
                answers = False
            if not is_kept:
                for hour, (events, late) in hours.items():
                    self._count(view, day * HOURS_PER_DAY + hour, events, late)
            if not answers:
                return False
        return True

    def _keep(self, view: str, day: int, hours: Mapping[int, Sequence[int]]) -> bool:
        """Add a day's; False where somebody else did meanwhile."""
        promise_ms, slot = self._promises[view].freshness_ms, day % DAYS_KEPT
        kept = self._store.freshness_counts(view, slot)
        counts = self._decoded(view, kept)
        if counts is None or (counts.promise_ms, counts.day) != (promise_ms, day):
            counts = new_day(promise_ms, day)
        for hour, (events, late) in hours.items():
            counts.add(hour, events, late)
        counts.reported_ms = self._clock.now_ms()
        return self._store.keep_freshness_counts(view, slot, kept, encode_day(counts))

    def _decoded(self, view: str, kept: bytes | None) -> DayCounts | None:
        """What is kept; None for nothing, or where it is spoilt."""
        try:
            return None if kept is None else decode_day(kept)
        except CorruptData as error:
            _logger.warning("%s: %s; counted anew", view, error.message)
            return None
