"""What was served of a view or service: statistics of its values, and the last comparison with what a model knows."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError
from featurestore.offline.health.drift import DriftReport
from featurestore.offline.health.readers import last_drift, statistics_of
from featurestore.offline.health.statistics import FeatureStatistics

HOURS = 24
"""So far back statistics go."""

KEPT_MS = 60_000
"""How old they may be: the log is written by the minute."""

_MS_PER_HOUR = 3_600_000


class ServedValues:
    """Reads a feature log; safe to share between threads.

    Args:
        log: the feature log of a server, with what `featurestore drift` keeps beside it.
        clock: tells how old an answer is.
    """

    def __init__(self, log: Path, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._lock = threading.Lock()
        self._found: dict[str, tuple[int, Mapping[str, FeatureStatistics] | FeatureStoreError]] = {}

    def of_view(self, view: str) -> Mapping[str, FeatureStatistics] | FeatureStoreError:
        """Feature -> what was served of it in a day; or why nobody can tell."""
        now_ms = self._clock.now_ms()
        with self._lock:
            kept = self._found.get(view)
            if kept is None or now_ms - kept[0] >= KEPT_MS:
                kept = self._found[view] = now_ms, self._read(view, now_ms - HOURS * _MS_PER_HOUR)
            return kept[1]

    def drift_of(self, service: str) -> DriftReport | FeatureStoreError | None:
        """What `featurestore drift check` found last; None before the first."""
        try:
            return last_drift(self._log, service)
        except FeatureStoreError as error:
            return error

    def _read(self, view: str, since_ms: int) -> Mapping[str, FeatureStatistics] | FeatureStoreError:
        try:
            return {one.feature: one for one in statistics_of(self._log, view, since_ms=since_ms)}
        except FeatureStoreError as error:
            return error
