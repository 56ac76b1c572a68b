"""Generations that can go on where they stopped: the log still has the topics that they have read, and what is next.

Of the others, one that fills is parked: nobody reads it yet, and the rest go on. One that serves is fed no more if
another one of its view can take its place, with all of its history; otherwise what readers see would stand still
without anybody deciding so, and the stream stops.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from dataflows.logs.incarnations import anew, found_incarnations, made_anew
from dataflows.logs.sources import SourceLog
from dataflows.plan.tile_store import Positions, TileStore
from featurestore.core.spec import SourceSpec
from featurestore.errors import EventsLost
from featurestore.online.generation import Generation, GenerationState
from featurestore.wire.incarnations import Incarnations

_logger = logging.getLogger(__name__)


def readable_generations(
    store: TileStore,
    log: SourceLog,
    generations: Sequence[Generation],
    lanes: Mapping[tuple[str, int], Sequence[Positions]],
) -> list[Generation]:
    """The generations to feed; the store remembers their topics before a record of them is committed.

    Args:
        store: the online store.
        log: where events come from.
        generations: all that are fed.
        lanes: how far each lane of each of them has come, by view and number.

    Raises:
        EventsLost: what serves can be brought up to date no more, and nothing can take its place.
        GenerationDamaged: what says which topics one has read is spoilt.
        Unavailable: the store or the log does not answer.
    """
    sources: dict[str, SourceSpec] = {
        source.topic: source for one in generations for source in reversed(one.view.source.per_topic)
    }
    partitions = {topic: frozenset(log.partitions(source)) for topic, source in sources.items()}
    found = found_incarnations(log, sources.values())
    readable: list[Generation] = []
    stopped: dict[Generation, EventsLost] = {}
    for one in generations:
        topics = one.view.source.topics
        of_lanes = lanes[one.view.name, one.number]
        own = {place: which for place, which in found.items() if place[0] in topics}
        lost = (
            _vanished(of_lanes, {topic: partitions[topic] for topic in topics})
            or _made_anew(store, one, own, of_lanes)
            or _removed(log, one, of_lanes)
        )
        if lost is None:
            readable.append(one)
        else:
            stopped[one] = lost
    for one in sorted(stopped, key=lambda generation: generation.state is not GenerationState.FILLING):
        error = stopped[one]
        name = f"{one.view.title} generation {one.number}"
        if one.state is GenerationState.FILLING:
            store.park(one)
            _logger.error(
                "%s cannot be brought up to date and is parked; the others go on\n%s\n%s\n"
                "hint: keep the event log filled, and run `featurestore bootstrap %s` again",
                name,
                error.message,
                error.detail,
                one.view.name,
            )
        elif any(other.view.name == one.view.name and _has_history(log, other, partitions) for other in readable):
            _logger.error("%s is read no further\n%s", name, error)
        else:
            raise error
    return readable


def _has_history(log: SourceLog, generation: Generation, partitions: Mapping[str, frozenset[int]]) -> bool:
    """Whether one that fills will have seen all that its windows reach: from the event log, or from a whole topic."""
    return generation.is_bootstrapped or all(
        log.reaches_back(source, partitions[source.topic], 0) for source in generation.view.source.per_topic
    )


def _vanished(lanes: Sequence[Positions], partitions: Mapping[str, frozenset[int]]) -> EventsLost | None:
    """Partitions that were read, of topics that have fewer by now."""
    gone = sorted(
        (topic, number)
        for topic, number in {place for positions in lanes for place in positions}
        if topic in partitions and number not in partitions[topic]
    )
    if not gone:
        return None
    topic, number = gone[0]
    return EventsLost(
        f'topic "{topic}" has no partition {number}, which the store has read from',
        hint="restore the topic, or bootstrap the view from its event log",
    )


def _made_anew(
    store: TileStore, generation: Generation, own: Incarnations, lanes: Sequence[Positions]
) -> EventsLost | None:
    """Topics of another incarnation than the one that was read; what was not read before is remembered from now on."""
    while True:
        is_kept = True
        for lane, (kept, positions) in enumerate(zip(store.incarnations(generation), lanes, strict=True)):
            if replaced := made_anew(kept, own, [place for place, offset in positions.items() if offset > 0]):
                remedy = f"run `featurestore bootstrap {generation.view.name} --anew`, or use a new project"
                return anew(*replaced[0], remedy)
            if not kept.items() >= own.items():
                is_kept &= store.keep_incarnations(generation, lane, kept, {**kept, **own})
        if is_kept:
            return None


def _removed(log: SourceLog, generation: Generation, lanes: Sequence[Positions]) -> EventsLost | None:
    """Records that come next and are not there any more, or never were."""
    for source in generation.view.source.per_topic:
        needed: dict[int, int] = {}
        for positions in lanes:
            for (topic, number), offset in positions.items():
                if topic == source.topic:
                    needed[number] = min(offset, needed.get(number, offset))
        for error in log.lost(source, needed).values():
            return error
    return None
