"""Takes generations out of the stream that can never be brought up to date, so that the others go on."""

from __future__ import annotations

import logging

from dataflows.logs.sources import PartitionStart
from dataflows.plan.stream_plan import Stage
from dataflows.plan.tile_store import TileStore
from featurestore.errors import EventsLost
from featurestore.online.generation import GenerationState

_logger = logging.getLogger(__name__)


def park_lost(store: TileStore, stage: Stage, start: PartitionStart, error: EventsLost) -> bool:
    """Park the generations of a catch-up stage that wait for events which the source does not have any more.

    Nobody reads them yet. A generation that serves and is far behind is in that stage too, and is left alone: what
    readers see must not lose events without anybody deciding so.

    Args:
        store: the online store.
        stage: which generations read the partition.
        start: the partition.
        error: what is missing.

    Returns:
        Whether all that wait for those events were parked.

    Raises:
        OnlineStoreDown: the store does not answer.
    """
    partition = (start.source.topic, start.partition)
    readers = [one for one in stage.generations if start.source.topic in one.view.source.topics]
    positions = [store.positions(one).get(partition) for one in readers]
    known = [position for position in positions if position is not None]
    waiting = [one for one, position in zip(readers, positions, strict=True) if known and position == min(known)]
    if not waiting or any(one.state is not GenerationState.FILLING for one in waiting):
        return False
    for one in waiting:
        store.park(one)
        _logger.error(
            'feature view "%s" generation %d cannot be brought up to date and is parked; the others go on\n%s\n%s\n'
            "hint: keep the event log filled, and run `featurestore bootstrap %s` again",
            one.view.name,
            one.number,
            error.message,
            error.detail,
            one.view.name,
        )
    return True
