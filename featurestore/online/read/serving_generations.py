"""What answers for each view, looked at again when what is known is a second old.

For readers that have no thread of their own to watch the store, such as the Feast SDK in somebody's process: the look
happens on the way of a read, in at most one of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from featurestore.clock import Clock
from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import Reader
from featurestore.online.serving_view import Definition, ServingView, served_definitions, serving_views, views_of
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
        views: what answers for each stream view that is served.
        known: views of which the store has any generation, whatever its state.
        definitions: what answers for each definition that is served, whatever the view is by now.
    """

    reader: Reader
    lane_count: int
    views: Mapping[str, ServingView]
    known: frozenset[str] = frozenset()
    definitions: Mapping[Definition, ServingView] = field(default_factory=dict)


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
            self._known = look(self._store, self._catalog, {} if self._known is None else self._known.views)
            self._looked_at_ns = now_ns
        return self._known


def look(store: OnlineStore, catalog: GenerationCatalog, known: Mapping[str, ServingView]) -> ServedViews:
    """Ask the store what can be read.

    Args:
        store: the online store.
        catalog: of the project; what it has seen before it does not read again.
        known: what served before; those that still do stay the same objects, whose calculators are compiled already.

    Raises:
        OnlineStoreDown, CorruptData, StoreMismatch: see GenerationCatalog.
    """
    # Asking for the lane count would fix it where nobody has yet, and that is the writer's choice. Before that the
    # store is empty, and any number finds nothing.
    is_laid_out = store.read_groups([[layout_key(catalog.project)]])[0] is not None
    lane_count = catalog.lane_count() if is_laid_out else DEFAULT_LANE_COUNT
    stored = catalog.all()
    serving = {
        name: known[name] if known.get(name) == found else found for name, found in serving_views(stored).items()
    }
    # Members of a group share its generation, and with it what was compiled for it.
    compiled = {one.generation.keys.stem: one.generation for one in known.values()}
    serving = {
        name: one if one is known.get(name) else replace(one, generation=_same(one.generation, compiled))
        for name, one in serving.items()
    }
    names = frozenset(
        each.view.name for generations in stored.values() for one in generations for each in views_of(one)
    )
    compiled.update((one.generation.keys.stem, one.generation) for one in serving.values())
    definitions = {
        definition: replace(found[0], generation=_same(found[0].generation, compiled))
        for definition, found in served_definitions(stored).items()
    }
    return ServedViews(Reader(store, lane_count), lane_count, serving, names, definitions)


def _same(found: Generation, known: Mapping[str, Generation]) -> Generation:
    """The generation as it is known, if it is."""
    before = known.get(found.keys.stem)
    return before if before == found and before is not None else found
