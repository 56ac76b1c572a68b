"""New partitions of a topic that a flow reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dataflows.logs.sources import Shared, SourceLog
from dataflows.run_outcome import RunOutcome
from featurestore.core.spec import SourceSpec
from featurestore.errors import Unavailable

PARTITION_WATCH_INTERVAL_MS = 30_000

_logger = logging.getLogger(__name__)


class PartitionWatch:
    """Ends the flow, to be planned again, when a topic has got more partitions.

    Args:
        partitions: what the flow reads.
        log: where events come from.
        shared: what all steps of this process share.
    """

    def __init__(self, partitions: Iterable[tuple[SourceSpec, int]], log: SourceLog, shared: Shared) -> None:
        self._planned: dict[SourceSpec, set[int]] = {}
        for source, partition in partitions:
            self._planned.setdefault(source, set()).add(partition)
        self._log = log
        self._shared = shared
        self._next_check_ns = self._next_ns()

    def tick(self) -> None:
        """Look, if it is time to; what does not answer is asked again at the next look."""
        if self._shared.clock.monotonic_ns() < self._next_check_ns:
            return
        self._next_check_ns = self._next_ns()
        try:
            for source, planned in self._planned.items():
                if set(self._log.partitions(source)) - planned:
                    self._shared.conductor.end(RunOutcome.REBUILD, f'topic "{source.topic}" has new partitions')
        except Unavailable as error:
            _logger.warning("%s; looking again later", error.message)

    def _next_ns(self) -> int:
        return self._shared.clock.monotonic_ns() + PARTITION_WATCH_INTERVAL_MS * 1_000_000
