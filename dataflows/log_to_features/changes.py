"""Which entities a read has something new of, and what must be in the store before their vectors are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from dataflows.logs.sources import Shared, SourceItem
from dataflows.retry import patiently
from dataflows.run_outcome import PartitionEnd
from featurestore.core.events import BoolArray, EventBatch, Int64Array
from featurestore.core.inputs import view_inputs
from featurestore.core.spec import Column, SourceSpec, ViewSpec
from featurestore.wire.changes.decoder import decoder_of
from featurestore.wire.entity_key import KEY_BYTES_MAX
from featurestore.wire.entity_routing import columns_read, entity_keys, with_computed
from featurestore.wire.formats.columns import Schemas
from featurestore.wire.moments import EVENT_TIME_MS_MIN
from featurestore.wire.payloads import RawBatch

PUBLISHER = "publisher"
"""The one key of the flow: vectors of all partitions go out in one transaction."""

Place: TypeAlias = tuple[str, int]
"""(topic, partition)."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is new of an entity in one partition.

    Attributes:
        next_offset: behind its newest record.
        event_time_ms: of its newest event.
    """

    next_offset: int
    event_time_ms: int


@dataclass(frozen=True, slots=True)
class ChangedEntities:
    """What a read has of entities.

    Attributes:
        place: where it was read.
        next_offset: where the next read begins.
        changes: by entity key of the service.
    """

    place: Place
    next_offset: int
    changes: Mapping[bytes, Change]


ChangeItem: TypeAlias = tuple[str, ChangedEntities | PartitionEnd]


class ChangeStep:
    """RawBatch -> the entities of which some view of the service takes an event.

    What cannot be decoded is the stream's dead letter; here it is passed over.

    Args:
        source: whose records.
        views: of the service, that read it.
        join_keys: of the service; columns of the source.
        schemas: of payloads.
        shared: what all steps of this process share.
    """

    def __init__(
        self,
        source: SourceSpec,
        views: Sequence[ViewSpec],
        join_keys: Sequence[Column],
        schemas: Mapping[str, Schemas],
        shared: Shared,
    ) -> None:
        self._views = tuple(views)
        self._join_keys = tuple(join_keys)
        self._shared = shared
        payload = {column.name for column in source.columns}
        names = {name for view in views for name in columns_read(view)}
        names |= {key.name for key in join_keys if key.name in payload}
        self._decoders = {one.topic: decoder_of(one, names, schemas[one.topic]) for one in source.per_topic}

    def __call__(self, item: SourceItem) -> list[ChangeItem]:
        """One item for each read."""
        conductor = self._shared.conductor
        if isinstance(item, PartitionEnd):
            return [(PUBLISHER, item)]
        if conductor.drops_batches:
            return []
        try:
            return [(PUBLISHER, self._changed(item))]
        except Exception as error:  # noqa: BLE001  # process edge: whatever it is, the flow must end in order
            conductor.fail(error)
            return []

    def _changed(self, raw: RawBatch) -> ChangedEntities:
        """The entities of a read."""
        now_ms = self._shared.clock.now_ms()
        decode = partial(self._decoders[raw.topic].decode, raw, now_ms=now_ms)
        events = with_computed(patiently(self._shared, decode, place=raw.topic).events, self._views)
        rows = np.flatnonzero(self._are_taken(events))
        keys, key_index = entity_keys([events.columns[key.name].take(rows) for key in self._join_keys])
        next_offset: Int64Array = np.zeros(len(keys), dtype=np.int64)
        np.maximum.at(next_offset, key_index, events.offsets[rows] + 1)
        newest_ms: Int64Array = np.full(len(keys), EVENT_TIME_MS_MIN, dtype=np.int64)
        np.maximum.at(newest_ms, key_index, events.event_time_ms[rows])
        found = zip(keys, next_offset.tolist(), newest_ms.tolist(), strict=True)
        # The stream has a dead letter of longer ones.
        changes = {key: Change(offset, time_ms) for key, offset, time_ms in found if len(key) <= KEY_BYTES_MAX}
        return ChangedEntities((raw.topic, raw.partition), raw.next_offset, changes)

    def _are_taken(self, events: EventBatch) -> BoolArray:
        """(N,) whether any view takes the event, and it names the entity."""
        count = len(events.offsets)
        taken: BoolArray = np.zeros(count, dtype=np.bool_)
        for view in self._views:
            selected = view_inputs(view).selected(events.columns, count)
            taken |= True if selected is None else selected
        for key in self._join_keys:
            valid = events.columns[key.name].valid
            if valid is not None:
                taken &= valid
        return taken
