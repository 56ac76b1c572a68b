"""The registered definitions, of which a stream that runs does not let go: it notices others, and outlives mistakes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

from dataflows.run_outcome import Conductor, RunOutcome
from featurestore.clock import NS_PER_MS, Clock
from featurestore.core.spec import RepoSpec
from featurestore.definitions.registry import open_registry, read_registry
from featurestore.errors import CorruptData, DefinitionError, FeatureStoreError, Unavailable

WATCH_INTERVAL_MS = 1_000

_logger = logging.getLogger(__name__)


class Definitions:
    """What the registry says, or said when it could be used last.

    Args:
        registry: path or URL.
        project: Feast project.

    Attributes:
        is_current: whether what was read last is what the registry says.

    Raises:
        InvalidRequest: it is in an object store.
    """

    def __init__(self, registry: str, project: str) -> None:
        self._address = registry
        self._project = project
        self._watched = open_registry(registry, project)
        self._stamp: Hashable = None
        self._last: RepoSpec | None = None
        self._trouble = ""
        self.is_current = True

    def read(self) -> RepoSpec:
        """The project's definitions as they are now, for a plan; with a mistake in them, as they were before.

        Raises:
            Unavailable: the registry does not answer.
            FeatureStoreError: it cannot be used, and never could.
        """
        try:
            self._last = read_registry(self._address, project=self._project)
        except Unavailable:
            raise
        except FeatureStoreError as error:
            if self._last is None:
                raise
            self.is_current = False
            self.complain(error)
        else:
            self.is_current, self._trouble = True, ""
        return self._last

    def changed(self) -> RepoSpec | None:
        """The definitions if the registry has changed since this was asked last; cheap, and a few seconds late.

        Raises:
            FeatureStoreError: it cannot be used.
        """
        stamp = self._watched.stamp()
        if stamp == self._stamp:
            return None
        try:
            found = self._watched.read()
        except (DefinitionError, CorruptData):
            self._stamp = stamp  # what has mistakes is not compiled again until it changes
            raise
        self._stamp = stamp
        return found

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
            found = self._definitions.changed()
            if found is not None and self._wanted(found) != self._planned:
                self._conductor.end(RunOutcome.REBUILD, "other definitions were applied")
        except FeatureStoreError as error:
            self._definitions.complain(error)
