"""Notices that definitions were applied while the stream runs: the flow is planned again, and exactly once holds."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence

from dataflows.run_outcome import Conductor, RunOutcome
from featurestore.clock import NS_PER_MS, Clock
from featurestore.core.spec import ViewSpec
from featurestore.definitions.registry import Registry
from featurestore.errors import FeatureStoreError

WATCH_INTERVAL_MS = 1_000

_logger = logging.getLogger(__name__)


class RegistryWatch:
    """Looks at the registry now and then.

    Args:
        registry: where definitions come from.
        views: what the running flow was planned for.
        conductor: told to plan again.
        clock: processing time.
    """

    def __init__(self, registry: Registry, views: Sequence[ViewSpec], conductor: Conductor, clock: Clock) -> None:
        self._registry = registry
        self._views = tuple(views)
        self._conductor = conductor
        self._clock = clock
        self._next_ns = 0
        self._stamp: Hashable = None
        self._trouble = ""

    def tick(self) -> None:
        """Look, if it is time to; a registry that cannot be read or has mistakes leaves what runs as it is."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + WATCH_INTERVAL_MS * NS_PER_MS
        try:
            stamp = self._registry.stamp()
            if stamp == self._stamp:
                return
            self._stamp = stamp  # also of one with mistakes, which is not compiled again until it changes
            views = self._registry.read().views
        except FeatureStoreError as error:
            if error.message != self._trouble:
                self._trouble = error.message
                _logger.error("the registry cannot be used, the stream goes on with what it has: %s", error)
            return
        self._trouble = ""
        if views != self._views:
            self._conductor.end(RunOutcome.REBUILD, "other definitions were applied")
