"""What the event log's flow looks at now and then: files to compact."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from dataflows.logs.sources import Shared
from dataflows.run_outcome import Conductor
from featurestore.errors import Unavailable
from featurestore.offline.event_log.address import TablePlace
from featurestore.offline.event_log.upkeep import compact, vacuum

VACUUM_INTERVAL_NS = 24 * 3_600 * 10**9
"""Files are deleted a week after they were replaced: to look once a day is soon enough."""

_logger = logging.getLogger(__name__)


class CompactionWatch:
    """Compacts the logs at intervals, in a thread of its own, and once a day deletes what nobody needs any more.

    Args:
        logs: where each source's log is, by the source's name.
        shared: what all steps of this process share.
        minutes: between the end of a compaction and the next.
    """

    def __init__(self, logs: Mapping[str, TablePlace], shared: Shared, *, minutes: float) -> None:
        self._logs = logs
        self._shared = shared
        self._interval_ns = int(minutes * 60e9)
        self._next_ns = shared.clock.monotonic_ns() + self._interval_ns
        self._next_vacuum_ns = self._next_ns
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compact")
        self._running: Future[None] | None = None

    def tick(self) -> None:
        """Start a compaction when it is time to; raises what ended the one before."""
        now_ns = self._shared.clock.monotonic_ns()
        if self._running is not None:
            if not self._running.done():
                return
            running, self._running = self._running, None
            self._next_ns = now_ns + self._interval_ns
            try:
                running.result()
            except Unavailable as error:
                _logger.warning("%s; compacting later", error.message)
        if now_ns >= self._next_ns:
            is_vacuum_due = now_ns >= self._next_vacuum_ns
            if is_vacuum_due:
                self._next_vacuum_ns = now_ns + VACUUM_INTERVAL_NS
            self._running = self._thread.submit(self._compact, is_vacuum_due)

    def _compact(self, is_vacuum_due: bool) -> None:
        """All logs, one after the other, until the flow ends."""
        conductor: Conductor = self._shared.conductor
        for name, place in self._logs.items():
            for done in compact(place):
                _logger.info(
                    'event log "%s" of %s: %d files became %d',
                    name,
                    done.event_date.isoformat(),
                    done.files_before,
                    done.files_after,
                )
                if conductor.is_ending:
                    return
            if is_vacuum_due:
                deleted = vacuum(place)
                _logger.info('event log "%s": %d files that no version needs were deleted', name, deleted)
