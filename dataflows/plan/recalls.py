"""From where partitions are read again whose events replace one another, and who may share what is remembered of them.

    begin ────────── first ───── until ────────>      first, until: positions of the hindmost and the foremost lane
      │ read again     │ lanes that are ahead skip
      └ all versions that can still be replaced

Generations of one source share a decoder, and so a memory. Not with one that began where versions of others are still
held: it has never counted those, and must not take them back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from dataflows.logs.sources import SourceLog
from dataflows.plan.tile_store import Positions, TileStore
from featurestore.core.events import Horizon
from featurestore.core.spec import REPLACE, SourceSpec
from featurestore.online.generation import Generation, GenerationDamaged
from featurestore.wire.changes.versions import Recall

Place: TypeAlias = tuple[str, int]
"""(topic, partition)."""

Memory: TypeAlias = tuple[tuple[Place, int], ...]
"""Generations that have the same may share what is remembered: where each of its partitions began, if that matters."""

_UNREAD = -1


@dataclass(frozen=True, slots=True)
class Recalls:
    """What the generations of a stage have to know again.

    Attributes:
        of: recall of each partition, by the memory that is shared.
        memories: that of each generation, by view and number; none where its events replace nothing.
        begins: the first offset to read of each partition, where that is before all positions.
    """

    of: Mapping[Memory, Mapping[Place, Recall]] = field(default_factory=dict)
    memories: Mapping[tuple[str, int], Memory] = field(default_factory=dict)
    begins: Mapping[Place, int] = field(default_factory=dict)

    def of_generation(self, generation: Generation) -> Mapping[Place, Recall]:
        """Those of the memory that a generation has."""
        return self.of.get(self.memory_of(generation), {})

    def memory_of(self, generation: Generation) -> Memory:
        """Which memory it has."""
        return self.memories.get((generation.view.name, generation.number), ())


@dataclass(frozen=True, slots=True)
class _Reader:
    """A lane, or all of a memory: how far it has come in one partition."""

    first: int
    until: int
    horizon: Horizon


def recalls_of(
    store: TileStore,
    generations: Sequence[Generation],
    lanes: Mapping[tuple[str, int], Sequence[Positions]],
    log: SourceLog,
) -> Recalls:
    """What some generations have to know again.

    Args:
        store: the online store.
        generations: of one stage.
        lanes: how far each lane of each of them has come, by view and number.
        log: where the events are.

    Raises:
        GenerationDamaged: one has read a partition, and does not say where its horizon stood.
        Unavailable: the store or the log does not answer.
    """
    memories: dict[tuple[str, int], Memory] = {}
    found: dict[Memory, dict[Place, list[_Reader]]] = {}
    is_unread: dict[Memory, set[Place]] = {}
    replacing = [one for one in generations if one.view.source.changes == REPLACE]
    # Also those that one of them has not begun with: it shares no memory with who has.
    begun = {place for one in replacing for of_lane in lanes[one.view.name, one.number] for place in of_lane}
    for one in replacing:
        of_lanes = lanes[one.view.name, one.number]
        places = {place for place in begun if place[0] in one.view.source.topics}
        readers = _readers(one, of_lanes, store.lane_horizons(one))
        unread = {place for place in places if len(readers.get(place, ())) < len(of_lanes)}
        memory = memories[one.view.name, one.number] = _memory(readers, unread)
        is_unread.setdefault(memory, set()).update(unread)
        for place, reader in readers.items():
            found.setdefault(memory, {}).setdefault(place, []).extend(reader)
    sources = {source.topic: source for one in generations for source in one.view.source.per_topic}
    of = {
        memory: {place: _recall(readers, place in is_unread[memory]) for place, readers in places.items()}
        for memory, places in found.items()
    }
    return Recalls(of, memories, _begins(of, sources, log))


def _readers(
    generation: Generation, lanes: Sequence[Positions], horizons: Sequence[Mapping[Place, Horizon]]
) -> dict[Place, list[_Reader]]:
    """How far the lanes of a generation have come, by partition."""
    readers: dict[Place, list[_Reader]] = {}
    for lane, (positions, known) in enumerate(zip(lanes, horizons, strict=True)):
        for place, offset in positions.items():
            if place not in known:
                fact = f"lane {lane} does not say where the horizon of {place[0]}[{place[1]}] stood"
                raise GenerationDamaged(generation, fact)
            readers.setdefault(place, []).append(_Reader(offset, offset, known[place]))
    return readers


def _memory(readers: Mapping[Place, Sequence[_Reader]], unread: set[Place]) -> Memory:
    """See `Memory`."""
    young = {
        place: min(one.horizon.begin for one in found)
        for place, found in readers.items()
        if not all(one.horizon.is_whole for one in found)
    }
    return tuple(sorted((young | dict.fromkeys(unread, _UNREAD)).items()))


def _recall(readers: Sequence[_Reader], reads_all: bool) -> Recall:
    """What to know again of a partition, for all who share a memory of it."""
    horizon = Horizon(
        min(one.horizon.begin for one in readers),
        max(one.horizon.newest_ms for one in readers),
        min(one.horizon.refused_ms for one in readers),
        all(one.horizon.is_whole for one in readers),
    )
    return Recall(horizon, min(one.first for one in readers), max(one.until for one in readers), reads_all)


def _begins(
    of: Mapping[Memory, Mapping[Place, Recall]], sources: Mapping[str, SourceSpec], log: SourceLog
) -> dict[Place, int]:
    """Where to begin in each partition, as far as the log still has it."""
    wanted: dict[Place, int] = {}
    for recalls in of.values():
        for place, recall in recalls.items():
            wanted[place] = min(recall.horizon.begin, wanted.get(place, recall.horizon.begin))
    lost = {
        (topic, partition)
        for topic, source in sources.items()
        for partition in log.lost(
            source, {number: begin for (of_topic, number), begin in wanted.items() if of_topic == topic}
        )
    }
    return {place: begin for place, begin in wanted.items() if place not in lost}
