"""Generations that can go on where they stopped: those whose topics are still the ones that they have read."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dataflows.logs.incarnations import anew, found_incarnations, made_anew
from dataflows.logs.sources import SourceLog
from dataflows.plan.tile_store import TileStore
from featurestore.core.spec import SourceSpec
from featurestore.online.generation import Generation, GenerationState

_logger = logging.getLogger(__name__)


def generations_of_same_topics(store: TileStore, log: SourceLog, generations: Sequence[Generation]) -> list[Generation]:
    """The generations to feed; the store remembers their topics before a record of them is committed.

    One that fills beside another is parked when a topic that it has read was made anew. One that serves, or is the
    first of its view, is left as it is if another generation can be filled to take its place.

    Args:
        store: the online store.
        log: where events come from.
        generations: all that are fed.

    Raises:
        EventsLost: a topic was made anew, and what serves would miss its first records.
        GenerationDamaged: the checkpoint of a lane is lost or spoilt.
        Unavailable: the store or the log does not answer.
    """
    sources: dict[str, SourceSpec] = {
        source.topic: source for one in generations for source in reversed(one.view.source.per_topic)
    }
    found = found_incarnations(log, sources.values())
    same: list[Generation] = []
    stopped: dict[Generation, tuple[str, int]] = {}
    for one in generations:
        read = store.partitions_begun(one)
        own = {place: which for place, which in found.items() if place[0] in one.view.source.topics}
        while True:
            kept = store.incarnations(one)
            if replaced := made_anew(kept, own, read):
                stopped[one] = replaced[0]
                break
            if kept.items() >= own.items() or store.keep_incarnations(one, kept, {**kept, **own}):
                same.append(one)
                break
    for one in sorted(stopped, key=lambda generation: generation.state is not GenerationState.FILLING):
        topic, partition = stopped[one]
        error = anew(topic, partition, f"run `featurestore bootstrap {one.view.name} --anew`, or use a new project")
        of_view = [other for other in generations if other is not one and other.view.name == one.view.name]
        if one.state is GenerationState.FILLING and of_view:
            store.park(one)
        elif not any(other in same for other in of_view):
            raise error
        _logger.error('feature view "%s" generation %d is read no further\n%s', one.view.name, one.number, error)
    return same
