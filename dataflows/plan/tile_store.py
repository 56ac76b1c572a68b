"""What a stream needs of the online store: generations, positions, writers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from featurestore.clock import Clock
from featurestore.core.events import Horizon
from featurestore.core.spec import ViewSpec
from featurestore.errors import CorruptData
from featurestore.online.eviction import StoreMemory, refuse_eviction
from featurestore.online.generation import Generation, GenerationDamaged
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.registration import MERGE_AFTER_MS, due_merges, fed_names, register_views
from featurestore.online.store import OnlineStore
from featurestore.online.write.lanes import open_lanes
from featurestore.online.write.writer import ViewWriter
from featurestore.wire.incarnations import Incarnations, decode_incarnations, encode_incarnations
from featurestore.wire.store_layout import (
    contracts_field,
    contracts_key,
    freshness_field,
    freshness_key,
    rights_key,
    smallest_positions,
)

COMPACTION_PAUSE_MS = 500
"""At thousands of events a second some heads grow long in every commit; folded at once they would be half its cost."""

_logger = logging.getLogger(__name__)

Positions = dict[tuple[str, int], int]
"""Next offset by (topic, partition); an absent partition has never been read."""


class TileStore(Protocol):
    """The store as the dataflow sees it."""

    @property
    def lane_count(self) -> int:
        """Lanes of the store."""
        ...

    def require_usable(self) -> None:
        """Refuse a store that evicts, or a user who may not write.

        Raises:
            StoreMismatch: it evicts keys.
            OnlineStoreDown: it does not answer, or this user lacks rights, all of which are named.
        """
        ...

    def memory(self) -> StoreMemory | None:
        """Memory of the store's servers, and whether they evict; None where that may not be seen."""
        ...

    def register(self, views: Sequence[ViewSpec]) -> frozenset[str]:
        """Make sure that every view has a generation of this definition, and that no other view is fed or served.

        Returns:
            Names of what is to be fed: views, and storage groups of several.
        """
        ...

    def fed_names(self, views: Sequence[ViewSpec]) -> frozenset[str]:
        """Names of all that is fed of some views, which may be outdated."""
        ...

    def due_merges(self, known: Mapping[str, Sequence[Generation]], views: Sequence[ViewSpec]) -> Sequence[str]:
        """Names of the storage groups that are to fill anew, with views that are stored by themselves until now."""
        ...

    def generations(self) -> list[Generation]:
        """Generations of all views that are serving or filling."""
        ...

    def known(self) -> Mapping[str, Sequence[Generation]]:
        """All generations of all views that the store knows, fed or not, by the view's name."""
        ...

    def positions(self, generation: Generation) -> Positions:
        """How far every lane of a generation has come: the smallest next offset of its lanes.

        Raises:
            GenerationDamaged: the checkpoint of a lane is lost or spoilt.
        """
        ...

    def lane_positions(self, generation: Generation) -> list[Positions]:
        """How far each lane of a generation has come.

        Raises:
            GenerationDamaged: the checkpoint of a lane is lost or spoilt.
        """
        ...

    def lane_horizons(self, generation: Generation) -> list[Mapping[tuple[str, int], Horizon]]:
        """Where each lane of a generation has the horizons of partitions whose events replace one another.

        Raises:
            GenerationDamaged: the checkpoint of a lane is lost or spoilt.
        """
        ...

    def incarnations(self, generation: Generation) -> list[Incarnations]:
        """Which topics the positions of each lane belong to.

        Raises:
            GenerationDamaged: what says so is spoilt.
        """
        ...

    def keep_incarnations(self, generation: Generation, lane: int, kept: Incarnations, wanted: Incarnations) -> bool:
        """Replace those of a lane; False when somebody else did meanwhile."""
        ...

    def replace_damaged(self, damage: GenerationDamaged) -> None:
        """Let another generation fill in the place of one that is not whole any more."""
        ...

    def refill(self, generation: Generation, damaged: Sequence[str]) -> None:
        """Let another generation fill beside one that serves, some entities of which are damaged."""
        ...

    def promote(self, generation: Generation) -> None:
        """Make a generation the serving one."""
        ...

    def park(self, generation: Generation) -> None:
        """Feed a filling generation no more, and fill its definition not anew either."""
        ...

    def writer(self, generation: Generation, lanes: Sequence[int], read_from: Positions) -> ViewWriter:
        """A writer for some lanes of a generation, which gets all records from some positions on; not opened yet."""
        ...

    def contract_counts(self, topic: str, partition: int) -> bytes | None:
        """How a partition's records have kept their contract; None before the first."""
        ...

    def keep_contract_counts(self, topic: str, partition: int, expected: bytes | None, counts: bytes) -> bool:
        """Replace that; False when somebody else did meanwhile."""
        ...

    def freshness_counts(self, view: str, slot: int) -> bytes | None:
        """How a view's events have kept its promise of freshness on a day; None before the first."""
        ...

    def keep_freshness_counts(self, view: str, slot: int, expected: bytes | None, counts: bytes) -> bool:
        """Replace that; False when somebody else did meanwhile."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


class OnlineTileStore:
    """A TileStore over Redis or Valkey.

    Args:
        store: the connection.
        project: Feast project.
        clock: processing time.
        merge_after_ms: how long a view is stored by itself before its storage group takes it in.
    """

    def __init__(self, store: OnlineStore, project: str, clock: Clock, *, merge_after_ms: int = MERGE_AFTER_MS) -> None:
        self._merge_after_ms = merge_after_ms
        self._store = store
        self._catalog = GenerationCatalog(store, project)
        self._clock = clock
        self._lane_count: int | None = None

    @property
    def lane_count(self) -> int:
        """Lanes of the store; the first process to ask fixes them."""
        if self._lane_count is None:
            self._lane_count = self._catalog.lane_count()
        return self._lane_count

    def require_usable(self) -> None:
        """Refuse a store that evicts, or a user who may not write."""
        self._store.require_rights(rights_key(self._catalog.project))
        refuse_eviction(self._store.memory())

    def memory(self) -> StoreMemory | None:
        """Memory of the store's servers, and whether they evict; None where that may not be seen."""
        return self._store.memory()

    def register(self, views: Sequence[ViewSpec]) -> frozenset[str]:
        """Make sure that every view has a generation of this definition, and that no other view is fed or served."""
        return register_views(self._catalog, views, self._clock.now_ms(), merge_after_ms=self._merge_after_ms)

    def fed_names(self, views: Sequence[ViewSpec]) -> frozenset[str]:
        """Names of all that is fed of some views, which may be outdated."""
        return fed_names(self._catalog.all(), views)

    def due_merges(self, known: Mapping[str, Sequence[Generation]], views: Sequence[ViewSpec]) -> Sequence[str]:
        """Names of the storage groups that are to fill anew."""
        return due_merges(known, views, self._clock.now_ms(), self._merge_after_ms)

    def generations(self) -> list[Generation]:
        """Serving and filling generations of all views, by view and number."""
        return [
            generation
            for _, generations in sorted(self._catalog.all().items())
            for generation in generations
            if generation.state.is_fed
        ]

    def positions(self, generation: Generation) -> Positions:
        """Smallest next offset over all lanes; a partition that some lane has never seen is left out."""
        return smallest_positions(self.lane_positions(generation))

    def known(self) -> Mapping[str, Sequence[Generation]]:
        """All generations of all views that the store knows, fed or not, by the view's name."""
        return self._catalog.all()

    def lane_positions(self, generation: Generation) -> list[Positions]:
        """How far each lane of a generation has come."""
        checkpoints = open_lanes(self._store, generation, self.lane_count, self._clock.now_ms())
        return [checkpoint.next_offsets() for checkpoint in checkpoints]

    def lane_horizons(self, generation: Generation) -> list[Mapping[tuple[str, int], Horizon]]:
        """Where each lane of a generation has the horizons of partitions whose events replace one another."""
        checkpoints = open_lanes(self._store, generation, self.lane_count, self._clock.now_ms())
        return [checkpoint.horizon_of() for checkpoint in checkpoints]

    def incarnations(self, generation: Generation) -> list[Incarnations]:
        """Which topics the positions of each lane belong to."""
        keys = [[generation.keys.incarnations(lane)] for lane in range(self.lane_count)]
        found: list[Incarnations] = []
        for [key], data in zip(keys, self._store.read_groups(keys), strict=True):
            try:
                found.append(decode_incarnations(data))
            except CorruptData as error:
                what = f'what says which topics it has read is spoilt (key "{key.decode()}")'
                raise GenerationDamaged(generation, what, detail=error.detail) from error
        return found

    def keep_incarnations(self, generation: Generation, lane: int, kept: Incarnations, wanted: Incarnations) -> bool:
        """Replace those of a lane; False when somebody else did meanwhile."""
        expected = encode_incarnations(kept) if kept else None
        return self._store.compare_and_set(generation.keys.incarnations(lane), expected, encode_incarnations(wanted))

    def replace_damaged(self, damage: GenerationDamaged) -> None:
        """Let another generation fill in the place of one that is not whole any more."""
        _logger.error("%s", damage)
        self._catalog.replace_damaged(damage.generation)

    def refill(self, generation: Generation, damaged: Sequence[str]) -> None:
        """Let another generation fill beside one that serves, some entities of which are damaged."""
        self._catalog.refill(generation, damaged)

    def promote(self, generation: Generation) -> None:
        """Make a generation the serving one."""
        self._catalog.promote(generation)

    def park(self, generation: Generation) -> None:
        """Feed a filling generation no more, and fill its definition not anew either."""
        self._catalog.park(generation)

    def writer(self, generation: Generation, lanes: Sequence[int], read_from: Positions) -> ViewWriter:
        """A writer for some lanes of a generation, which gets all records from some positions on; not opened yet."""
        return ViewWriter(
            self._store,
            generation,
            lanes=lanes,
            clock=self._clock,
            read_from=read_from,
            compaction_pause_ms=COMPACTION_PAUSE_MS,
        )

    def contract_counts(self, topic: str, partition: int) -> bytes | None:
        """How a partition's records have kept their contract; None before the first."""
        return self._store.hash_field(contracts_key(self._catalog.project), contracts_field(topic, partition))

    def keep_contract_counts(self, topic: str, partition: int, expected: bytes | None, counts: bytes) -> bool:
        """Replace that; False when somebody else did meanwhile."""
        key, field = contracts_key(self._catalog.project), contracts_field(topic, partition)
        return self._store.compare_and_set_field(key, field, expected, counts)

    def freshness_counts(self, view: str, slot: int) -> bytes | None:
        """See TileStore."""
        return self._store.hash_field(freshness_key(self._catalog.project), freshness_field(view, slot))

    def keep_freshness_counts(self, view: str, slot: int, expected: bytes | None, counts: bytes) -> bool:
        """See TileStore."""
        key, field = freshness_key(self._catalog.project), freshness_field(view, slot)
        return self._store.compare_and_set_field(key, field, expected, counts)

    def close(self) -> None:
        """Give connections back."""
        self._store.close()
