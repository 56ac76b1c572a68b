"""The event log that a bootstrap computes from: what was sent, up to some offset of each partition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.events import BlobRow, Horizon, Int64Array
from featurestore.core.point_in_time.rows import EntityEvents, hash_history_ids
from featurestore.core.spec import ViewSpec
from featurestore.definitions.compile.storage_groups import member_views
from featurestore.testing.batches import keyed_batch
from featurestore.testing.oracle.events import NaiveEvent
from featurestore.testing.simulation.definitions import CONDITIONS
from featurestore.testing.simulation.stand_ins.log import SimulatedLog
from featurestore.wire.entity_key import lane_of


@dataclass(frozen=True, slots=True)
class RecordedPart:
    """See `featurestore.online.write.bootstrap.EventPart`."""

    keys: Sequence[bytes]
    events: EntityEvents
    recent_ids: BlobRow | None
    recent_entity: Int64Array | None


class RecordedLog:
    """See `featurestore.online.write.bootstrap.RecordedEvents`.

    Args:
        log: what was sent, removed records included: an event log keeps them.
        view: whose events.
        lane_count: lanes of the store.
        ends: offset behind the last recorded one of each partition.
    """

    def __init__(self, log: SimulatedLog, view: ViewSpec, lane_count: int, ends: Mapping[int, int]) -> None:
        self._view = view
        self.horizons: Mapping[tuple[str, int], Horizon] = {}
        self.incarnations = {(view.source.topic, number): f"topic-{log.incarnation}" for number in ends}
        self._lane_count = lane_count
        self.positions = {(view.source.topic, number): end for number, end in ends.items()}
        self._events: list[NaiveEvent] = []
        self._is_recent: list[bool] = []
        for number, end in ends.items():
            events = [one.event for one in log.at(number).records if one.offset < end and one.event is not None]
            newest_ms = max((event.event_time_ms for event in events), default=0)
            is_recent = False
            for event in events:
                # From where the partition came within a horizon of where it is now.
                is_recent = is_recent or event.event_time_ms >= newest_ms - view.source.dedup_horizon_ms
                if not any(not one.where or CONDITIONS[one.where](event.columns) for one in member_views(view)):
                    continue
                self._events.append(event)
                self._is_recent.append(is_recent)

    def parts(self, lane: int) -> Iterator[RecordedPart]:
        """See RecordedEvents: an entity a part."""
        mine = [(e, r) for e, r in zip(self._events, self._is_recent, strict=True) if self._lane(e) == lane]
        for key in dict.fromkeys(event.key for event, _ in mine):
            events = [event for event, _ in mine if event.key == key]
            recent = np.flatnonzero([is_recent for event, is_recent in mine if event.key == key])
            batch = keyed_batch(self._view, events, lane_count=self._lane_count)
            assert batch.event_ids is not None, "the source has ids"
            ids = BlobRow.of(batch.event_ids)
            rows = EntityEvents(
                batch.key_index, batch.event_time_ms, hash_history_ids(ids), batch.event_ids, batch.columns
            )
            yield RecordedPart(batch.keys, rows, ids[recent], batch.key_index[recent])

    def _lane(self, event: NaiveEvent) -> int:
        """Where its entity is."""
        return lane_of(event.key, self._lane_count)
