"""A writer of all lanes, for tests and benchmarks that have no stream."""

from __future__ import annotations

from featurestore.clock import Clock
from featurestore.online.generation import Generation
from featurestore.online.store import OnlineStore
from featurestore.online.write.lanes import open_lanes
from featurestore.online.write.writer import ViewWriter


def open_writer(
    store: OnlineStore, generation: Generation, lane_count: int, clock: Clock, *, compaction_pause_ms: int = 0
) -> ViewWriter:
    """The only writer of a generation, open.

    Args:
        store: the online store.
        generation: what to write.
        lane_count: lanes of the store.
        clock: processing time.
        compaction_pause_ms: see ViewWriter.
    """
    open_lanes(store, generation, lane_count, clock.now_ms())
    writer = ViewWriter(
        store, generation, lanes=range(lane_count), clock=clock, compaction_pause_ms=compaction_pause_ms
    )
    writer.open()
    return writer
