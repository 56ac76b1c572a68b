"""What the store holds of a view right now, looked at no more often than people can tell.

Looking costs a read of every lane's checkpoint; sizes cost a scan of keys, so they are older, and say so. A store that
does not answer is said to, and the rest of the page stands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from featurestore.clock import Clock
from featurestore.core.spec import RepoSpec
from featurestore.definitions.compile.versions import stored_views
from featurestore.errors import FeatureStoreError
from featurestore.online.read.store_sizes import MemoryOverview
from featurestore.online.read.store_status import Ends, GenerationOverview, PinOverview, StoreOverview, look_over
from featurestore.online.store import OnlineStore
from featurestore.wire.counts.contracts import ExpectationState, UsualState
from featurestore.wire.counts.freshness import PromiseState

LOOK_MS, MEASURE_MS = 2_000, 60_000
"""How old a look, and a measurement of sizes, may be before another one is worth its reads."""


@dataclass(frozen=True, slots=True)
class ViewNow:
    """What the store holds of a view or a source.

    Attributes:
        as_of_ms: when it was looked at; 0 where there is no store to look at.
        trouble: why nothing is known; "" otherwise.
        generations: of the view, newest first; of a group that stores it.
        pins: versions of it that services pin.
        plain: size of a materialized view; None for others.
        is_unstreamed: it is registered, and nothing streams it.
        contracts, usual_hours: of its source.
        measured_ms: when sizes were measured; 0 where they were not.
        promise: how what is promised of its freshness is kept; None where nothing is.
    """

    as_of_ms: int = 0
    trouble: str = ""
    generations: tuple[GenerationOverview, ...] = ()
    pins: tuple[PinOverview, ...] = ()
    plain: MemoryOverview | None = None
    is_unstreamed: bool = False
    contracts: tuple[ExpectationState, ...] = ()
    usual_hours: tuple[UsualState, ...] = ()
    measured_ms: int = 0
    promise: PromiseState | None = None


@dataclass
class _Looked:
    """The last looks."""

    spec: RepoSpec | None = None
    overview: StoreOverview | None = None
    as_of_ms: int = 0
    sizes: Mapping[tuple[str, int], MemoryOverview] = field(default_factory=dict)
    plain: Mapping[str, MemoryOverview] = field(default_factory=dict)
    measured_ms: int = 0


class LiveStore:
    """Looks at a store for the pages; safe to share between threads.

    Args:
        open_store: connects to it; asked again after it has failed.
        clock: tells how old a look is.
        find_ends: where the sources end, for the lag; None where that is not known.
    """

    def __init__(
        self, open_store: Callable[[], OnlineStore], clock: Clock, find_ends: Callable[[], Ends] | None = None
    ) -> None:
        self._open, self._clock, self._find_ends = open_store, clock, find_ends
        self._lock, self._measuring = threading.Lock(), threading.Lock()
        self._store: OnlineStore | None = None
        self._looked = _Looked()

    def view(self, spec: RepoSpec, name: str) -> ViewNow:
        """What is held of a view of a project."""
        seen, trouble = self._look(spec)
        if seen is None:
            return ViewNow(trouble=trouble)
        looked = self._looked
        mine = [one for one in seen.generations if name in one.views]
        sized = [replace(one, memory=looked.sizes.get((one.view, one.number))) for one in mine]
        view = spec.view(name)
        source = "" if view is None else view.source.name
        return ViewNow(
            as_of_ms=seen.as_of_ms,
            generations=tuple(sorted(sized, key=lambda one: -one.number)),
            pins=tuple(one for one in seen.pins if one.version.partition("@")[0] == name),
            plain=looked.plain.get(name),
            is_unstreamed=name in seen.unstreamed,
            contracts=tuple(one for one in seen.contracts if one.source == source),
            usual_hours=tuple(one for one in seen.usual_hours if one.source == source),
            measured_ms=looked.measured_ms,
            promise=next((one for one in seen.promises if one.view == name), None),
        )

    def source(self, spec: RepoSpec, name: str) -> ViewNow:
        """How the records of a source keep its contract."""
        seen, trouble = self._look(spec)
        if seen is None:
            return ViewNow(trouble=trouble)
        return ViewNow(
            as_of_ms=seen.as_of_ms,
            contracts=tuple(one for one in seen.contracts if one.source == name),
            usual_hours=tuple(one for one in seen.usual_hours if one.source == name),
        )

    def measure(self, spec: RepoSpec) -> None:
        """Measure sizes if nobody has for a while, and nobody does now; it may take seconds."""
        if self._clock.now_ms() - self._looked.measured_ms < MEASURE_MS or not self._measuring.acquire(blocking=False):
            return
        try:
            seen = self._look_over(spec, measures_memory=True)
            sizes = {(one.view, one.number): one.memory for one in seen.generations if one.memory is not None}
            self._looked.sizes, self._looked.plain, self._looked.measured_ms = sizes, seen.plain, seen.as_of_ms
        except FeatureStoreError:
            pass  # the next look says so
        finally:
            self._measuring.release()

    def _look(self, spec: RepoSpec) -> tuple[StoreOverview | None, str]:
        """The last look if it is young, else another one."""
        with self._lock:
            looked, now_ms = self._looked, self._clock.now_ms()
            if looked.overview is None or looked.spec is not spec or now_ms - looked.as_of_ms >= LOOK_MS:
                try:
                    looked.overview = self._look_over(spec, measures_memory=False)
                except FeatureStoreError as error:
                    self._store = None
                    return None, str(error)
                looked.spec, looked.as_of_ms = spec, now_ms
            return looked.overview, ""

    def _look_over(self, spec: RepoSpec, *, measures_memory: bool) -> StoreOverview:
        store = self._store
        if store is None:
            store = self._store = self._open()
        return look_over(
            store,
            spec.project,
            self._clock,
            registered=stored_views(spec),
            pinned=spec.pinned,
            expectations=spec.expectations,
            usual_hours=spec.usual_hours,
            promises=spec.promises,
            ends=None if self._find_ends is None else self._find_ends(),
            measures_memory=measures_memory,
        )
