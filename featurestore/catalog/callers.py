"""Who asks a service, by the audit log; read no more often than people can tell, as a month of it is long."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from featurestore.clock import Clock
from featurestore.definitions.governance.audit.reading import ServiceCaller, callers_of
from featurestore.errors import FeatureStoreError

DAYS = 30
"""So far back it is looked."""

KEPT_MS = 60_000
"""How old an answer may be."""

_MS_PER_DAY = 86_400_000


class ServiceCallers:
    """Looks callers up; safe to share between threads.

    Args:
        directory: of the audit log.
        clock: tells how old an answer is.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory, self._clock = directory, clock
        self._lock = threading.Lock()
        self._found: dict[str, tuple[int, Sequence[ServiceCaller] | FeatureStoreError]] = {}

    def of(self, service: str) -> Sequence[ServiceCaller] | FeatureStoreError:
        """Who has asked it, most rows first; or why nobody can tell."""
        now_ms = self._clock.now_ms()
        with self._lock:
            kept = self._found.get(service)
            if kept is None or now_ms - kept[0] >= KEPT_MS:
                kept = self._found[service] = now_ms, self._read(service, now_ms - DAYS * _MS_PER_DAY)
            return kept[1]

    def _read(self, service: str, since_ms: int) -> Sequence[ServiceCaller] | FeatureStoreError:
        try:
            return callers_of(self._directory, service, since_ms)
        except FeatureStoreError as error:
            return error
