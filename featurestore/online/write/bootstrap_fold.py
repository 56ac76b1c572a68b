"""Events of many entities become what the store holds of them: a head for a few events, a body for many.

    events, any order ─ by (entity, time) ─ each id once ─┬─ few events ──> head: the events themselves
                                                          └─ many ──> lift ─ compact, a chunk at a time ──> body

It is what the stream would have left behind, had it read the same events and then compacted: readers cannot tell.
Memory: the events that are given, and the tiles of one chunk of FOLD_ROWS events. Time: O(N log N).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.core.point_in_time.rows import EntityEvents, first_of_ids
from featurestore.core.tiles.parts import EventRows
from featurestore.core.tiles.roll_up import EntityTiles
from featurestore.core.tiles.tiles import concatenate
from featurestore.online.generation import Generation
from featurestore.online.write.compaction import HEAD_ROWS_MAX
from featurestore.wire.codecs.body import encode_body
from featurestore.wire.codecs.head import head_codec

FOLD_ROWS = 1 << 16
"""Events that are lifted at once: with a hundred fields their tiles take 50 MB."""


@dataclass(frozen=True, slots=True)
class StoredEntity:
    """What the store shall hold of one entity: one of the two is empty.

    Attributes:
        key: of the entity.
        head, body: their bytes.
        rows: how many events a head has.
    """

    key: bytes
    head: bytes
    body: bytes
    rows: int = 0


class EntityFolder:
    """Folds the events of one generation.

    Args:
        generation: decides columns, tiles and ids.
        now_ms: the clock; no tile is aged beyond it.
    """

    def __init__(self, generation: Generation, now_ms: int) -> None:
        self._generation = generation
        self._now_ms = now_ms
        self._codec = head_codec(generation.compiled)
        self._horizon_ms = generation.view.source.dedup_horizon_ms

    def fold(self, keys: Sequence[bytes], events: EntityEvents) -> Iterator[StoredEntity]:
        """Every entity that has events to store.

        Args:
            keys: canonical entity keys.
            events: N events; `entity` is an index into `keys`, the order that of arrival.
        """
        # Stable: of events that tie in time those that arrived first come first, which is what decides about repeats.
        rows: Int64Array = np.lexsort((events.event_time_ms, events.entity))
        if self._horizon_ms and events.id_hashes is not None and len(rows):
            rows = rows[first_of_ids(events, rows, self._horizon_ms)]
        counts = np.bincount(events.entity[rows], minlength=len(keys))
        is_short = counts[events.entity[rows]] < HEAD_ROWS_MAX
        yield from self._heads(keys, events, rows[is_short])
        yield from self._bodies(keys, events, rows[~is_short])

    def _heads(self, keys: Sequence[bytes], events: EntityEvents, rows: Int64Array) -> Iterator[StoredEntity]:
        """Entities of few events; `rows` by entity."""
        for part in _whole_entities(events.entity, rows):
            entity = events.entity[part]
            encoded = self._codec.encode(_event_rows(events.take(part)))
            starts = np.flatnonzero(np.diff(entity, prepend=-1))
            heads = encoded.joined(np.append(starts, len(entity)))
            counts = np.diff(starts, append=len(entity))
            for index, head, count in zip(entity[starts].tolist(), heads, counts.tolist(), strict=True):
                yield StoredEntity(keys[index], head, b"", count)

    def _bodies(self, keys: Sequence[bytes], events: EntityEvents, rows: Int64Array) -> Iterator[StoredEntity]:
        """Entities of many events; `rows` by entity and time."""
        roll_up = self._generation.compiled.roll_up
        for part in _whole_entities(events.entity, rows):
            entities, index = np.unique(events.entity[part], return_inverse=True)
            newest = np.full(len(entities), np.iinfo(np.int64).min)
            np.maximum.at(newest, index, events.event_time_ms[part])
            # An event dated ahead must not age the tiles of its entity.
            newest = np.minimum(newest, self._now_ms)
            merged = self._compact(events, part, index, newest)
            table = merged.table.normalize()
            for at, (low, high) in zip(
                merged.entities.tolist(), itertools.pairwise(merged.bounds.tolist()), strict=True
            ):
                tiles = table.take(slice(low, high))
                body = encode_body(replace(tiles, dropped_before_ms=roll_up.dropped_before_ms(int(newest[at]))))
                yield StoredEntity(keys[int(entities[at])], b"", body)

    def _compact(self, events: EntityEvents, rows: Int64Array, index: Int64Array, newest: Int64Array) -> EntityTiles:
        """Tiles of some entities; those of an entity of very many events are merged from several chunks."""
        compiled = self._generation.compiled
        parts = []
        for begin in range(0, len(rows), FOLD_ROWS):
            chunk = slice(begin, begin + FOLD_ROWS)
            lifted = compiled.layout.lift(_event_rows(events.take(rows[chunk])))
            parts.append(compiled.roll_up.compact(lifted, index[chunk], newest))
        if len(parts) == 1:
            return parts[0]
        entity = np.concatenate([np.repeat(part.entities, np.diff(part.bounds)) for part in parts])
        return compiled.roll_up.compact(concatenate([part.table for part in parts]), entity, newest)


def _whole_entities(entity: Int64Array, rows: Int64Array) -> Iterator[Int64Array]:
    """Rows, which are by entity, in parts of whole entities of FOLD_ROWS or less, unless one entity has more."""
    starts = np.flatnonzero(np.diff(entity[rows], prepend=-1))
    bounds = np.append(starts, len(rows))
    begin = 0
    while begin < len(starts):
        end = int(np.searchsorted(bounds, bounds[begin] + FOLD_ROWS, side="right")) - 1
        end = max(end, begin + 1)
        yield rows[bounds[begin] : bounds[end]]
        begin = end


def _event_rows(events: EntityEvents) -> EventRows:
    """Events as the layout lifts them and as heads hold them."""
    return EventRows(events.event_time_ms, events.event_ids, events.columns)
