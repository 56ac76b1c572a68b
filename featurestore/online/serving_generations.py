"""Which generation answers for each view, looked at again when what is known is a second old.

For readers that have no thread of their own to watch the store, such as the Feast SDK in somebody's process: the look
happens on the way of a read, in at most one of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from featurestore.clock import Clock
from featurestore.online.generations import Generation, GenerationCatalog, GenerationState
from featurestore.online.reader import Reader
from featurestore.online.store import OnlineStore
from featurestore.wire.store_layout import DEFAULT_LANE_COUNT, layout_key

AGE_MS_MAX = 1_000
"""A promoted generation is noticed within this time."""

_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class ServedViews:
    """What can be read now.

    Attributes:
        reader: reads the store as it is laid out.
        generations: the serving generation of each stream view that has one.
    """

    reader: Reader
    generations: Mapping[str, Generation]


class ServingGenerations:
    """The serving generations of one project.

    Args:
        store: the online store.
        project: Feast project.
        clock: decides when to look again.
    """

    def __init__(self, store: OnlineStore, project: str, clock: Clock) -> None:
        self._store = store
        self._catalog = GenerationCatalog(store, project)
        self._clock = clock
        self._looked_at_ns = 0
        self._known: ServedViews | None = None

    def current(self) -> ServedViews:
        """What can be read now; threads that look at the same time find the same.

        Raises:
            OnlineStoreDown, CorruptData, StoreMismatch: see GenerationCatalog.
        """
        now_ns = self._clock.monotonic_ns()
        if self._known is None or now_ns - self._looked_at_ns >= AGE_MS_MAX * _NS_PER_MS:
            self._known = self._look(self._known)
            self._looked_at_ns = now_ns
        return self._known

    def _look(self, known: ServedViews | None) -> ServedViews:
        """Ask the store."""
        # Asking for the lane count would fix it where nobody has yet, and that is the writer's choice. Before that
        # the store is empty, and any number finds nothing.
        is_laid_out = self._store.read_groups([[layout_key(self._catalog.project)]])[0] is not None
        lane_count = self._catalog.lane_count() if is_laid_out else DEFAULT_LANE_COUNT
        compiled = {} if known is None else known.generations
        serving = {}
        for name, generations in self._catalog.all().items():
            for found in generations:
                if found.state is GenerationState.SERVING:
                    # The known object has its calculator compiled already.
                    serving[name] = compiled[name] if compiled.get(name) == found else found
        return ServedViews(Reader(self._store, lane_count), serving)
