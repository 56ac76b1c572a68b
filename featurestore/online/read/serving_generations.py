"""Which generation answers for each view, looked at again when what is known is a second old.

For readers that have no thread of their own to watch the store, such as the Feast SDK in somebody's process: the look
happens on the way of a read, in at most one of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from featurestore.clock import Clock
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import Reader
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
        lane_count: number of lanes that it is laid out in.
        generations: the serving generation of each stream view that has one.
        known: views of which the store has any generation, whatever its state.
    """

    reader: Reader
    lane_count: int
    generations: Mapping[str, Generation]
    known: frozenset[str] = frozenset()


class ServingGenerations:
    """The serving generations of one project.

    Args:
        store: the online store.
        project: Feast project.
        clock: decides when to look again.
    """

    def __init__(self, store: OnlineStore, project: str, clock: Clock) -> None:
        self._store = store
        self._project = project
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
            self._known = look(self._store, self._project, {} if self._known is None else self._known.generations)
            self._looked_at_ns = now_ns
        return self._known


def look(store: OnlineStore, project: str, known: Mapping[str, Generation]) -> ServedViews:
    """Ask the store what can be read.

    Args:
        store: the online store.
        project: Feast project.
        known: what served before; those that still do stay the same objects, whose calculators are compiled already.

    Raises:
        OnlineStoreDown, CorruptData, StoreMismatch: see GenerationCatalog.
    """
    catalog = GenerationCatalog(store, project)
    # Asking for the lane count would fix it where nobody has yet, and that is the writer's choice. Before that the
    # store is empty, and any number finds nothing.
    is_laid_out = store.read_groups([[layout_key(project)]])[0] is not None
    lane_count = catalog.lane_count() if is_laid_out else DEFAULT_LANE_COUNT
    stored = catalog.all()
    serving = {
        name: known[name] if known.get(name) == found else found
        for name, generations in stored.items()
        for found in generations
        if found.state is GenerationState.SERVING
    }
    return ServedViews(Reader(store, lane_count), lane_count, serving, frozenset(stored))
