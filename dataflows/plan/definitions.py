"""The registered definitions, of which a stream that runs does not let go: it notices others, and outlives mistakes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

from dataflows.run_outcome import Conductor, RunOutcome
from featurestore.clock import NS_PER_MS, Clock
from featurestore.core.spec import RepoSpec
from featurestore.definitions.registry import open_registry
from featurestore.errors import FeatureStoreError

WATCH_INTERVAL_MS = 1_000

_logger = logging.getLogger(__name__)


class Definitions:
    """What the registry says, or said when it could be read last.

    Args:
        registry: path or URL.
        project: Feast project.

    Raises:
        InvalidRequest: it is in an object store.
    """

    def __init__(self, registry: str, project: str) -> None:
        self._registry = open_registry(registry, project)
        self._stamp: Hashable = None
        self._last: RepoSpec | None = None
        self._trouble = ""

    def read(self) -> RepoSpec:
        """The project's definitions; cheap where they have not changed.

        Raises:
            FeatureStoreError: they cannot be read, and never could.
        """
        try:
            stamp = self._registry.stamp()
            if self._last is None or stamp != self._stamp:
                self._stamp = stamp  # also of one with mistakes, which is not compiled again until it changes
                self._last = self._registry.read()
                self._trouble = ""
        except FeatureStoreError as error:
            if self._last is None:
                raise
            self.complain(error)
        return self._last

    def complain(self, error: FeatureStoreError) -> None:
        """Say once that the registry is of no use as it is."""
        if error.message != self._trouble:
            self._trouble = error.message
            _logger.error("the registry cannot be used, the stream goes on with what it has: %s", error)


class RegistryWatch:
    """Notices that definitions were applied while the stream runs: the flow is planned again, and exactly once holds.

    Args:
        definitions: the registered ones.
        wanted: what of them the flow is planned for; may raise a FeatureStoreError, like a registry with mistakes.
        planned: the same, when it was planned.
        conductor: told to plan again.
        clock: processing time.
    """

    def __init__(
        self,
        definitions: Definitions,
        wanted: Callable[[RepoSpec], object],
        planned: object,
        conductor: Conductor,
        clock: Clock,
    ) -> None:
        self._definitions = definitions
        self._wanted = wanted
        self._planned = planned
        self._conductor = conductor
        self._clock = clock
        self._next_ns = 0

    def tick(self) -> None:
        """Look, if it is time to; a registry that cannot be read or has mistakes leaves what runs as it is."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + WATCH_INTERVAL_MS * NS_PER_MS
        try:
            if self._wanted(self._definitions.read()) != self._planned:
                self._conductor.end(RunOutcome.REBUILD, "other definitions were applied")
        except FeatureStoreError as error:
            self._definitions.complain(error)
