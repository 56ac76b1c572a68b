"""Old tiles become wider tiles, and what is beyond retention goes.

An event is a tile of one millisecond at first, so that the newest edge of a window is exact. As its entity's newest
event moves on, tiles widen that no edge of any window can cut any more:

    age         newer than lookback | older than all windows whose hop is no multiple of 1 s | ... of 1 h | retention
    width       1 ms                | 1 s                                                     ... 1 h      dropped

Rolling up never changes a value that a read at or after newest - lookback may ask for; the property tests hold it
against the naive oracle. The input needs no order. Time: O(N log N), a sort and one merge, for all entities at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.core.spec import HOP_LADDER_MS, ViewSpec, presence_hop_ms
from featurestore.core.tiles.tiles import NOTHING_DROPPED_MS, TileTable

_NEVER_MS = 1 << 62
_WIDTHS_MS = np.array([1, *HOP_LADDER_MS], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class EntityTiles:
    """Tiles of many entity keys, grouped: rows [bounds[i], bounds[i + 1]) belong to entity `entities[i]`.

    Attributes:
        table: N rows, ascending by (entity, start).
        entities: (E,) ascending indices of the entities that have rows.
        bounds: (E + 1,) row bounds.
    """

    table: TileTable
    entities: Int64Array
    bounds: Int64Array


class RollUp:
    """When tiles of a view may be widened or dropped.

    Args:
        view: decides the cut-offs by its windows, retention and lookback.

    Attributes:
        widths_ms: rungs, finest first, without the 1 ms of single events.
        ages_ms: an R-wide tile may exist once it ends this long before the entity's newest event.
        lifetime_age_ms: tiles that end this long before it become one lifetime tile; None without lifetime features.
        retention_ms, retention_hop_ms: presence counts from floor(t - retention, hop); None keeps everything.
    """

    def __init__(self, view: ViewSpec) -> None:
        windows = {feature.window for feature in view.features}
        reach_and_hop = [(window.reach_ms, window.hop_ms) for window in windows if window.length_ms is not None]
        self.retention_ms = view.retention_ms
        self.retention_hop_ms = 0
        if view.retention_ms is not None:
            self.retention_hop_ms = presence_hop_ms(view.retention_ms)
            reach_and_hop.append((view.retention_ms + self.retention_hop_ms, self.retention_hop_ms))
        self.lookback_ms = view.lookback_ms
        self.widths_ms = HOP_LADDER_MS
        self.ages_ms = tuple(
            view.lookback_ms + max((reach for reach, hop in reach_and_hop if hop % width), default=0)
            for width in HOP_LADDER_MS
        )
        has_lifetime = any(window.length_ms is None for window in windows)
        oldest_reach = max((reach for reach, _ in reach_and_hop), default=0)
        self.lifetime_age_ms = view.lookback_ms + oldest_reach if has_lifetime else None

    def compact(self, table: TileTable, entity_index: Int64Array, newest_ms: Int64Array) -> EntityTiles:
        """Roll up, merge and drop, for many entities at once.

        Args:
            table: N tiles, bodies and heads of the entities, any order.
            entity_index: (N,) entity of each row.
            newest_ms: (entities,) time up to which each entity may be rolled up: its newest event, never in the future.

        Returns:
            The merged tiles. `table.dropped_before_ms` of the result is not set: see `dropped_before_ms`.
        """
        now = newest_ms[entity_index]
        start, end = table.start_ms.copy(), table.end_ms.copy()
        for width, age in zip(self.widths_ms, self.ages_ms, strict=True):
            wide_start = start - start % width
            fits = (wide_start + width <= now - age) & (end <= wide_start + width)
            start = np.where(fits, wide_start, start)
            end = np.where(fits, wide_start + width, end)
        if self.lifetime_age_ms is not None:
            self._gather_lifetime(start, end, entity_index, now - self.lifetime_age_ms, len(newest_ms))
        order = np.lexsort((end, start, entity_index))
        start, end, entity = start[order], end[order], entity_index[order]
        merged = _merge_equal(table.take(order), entity, start, end)
        if self.retention_ms is None:
            return merged
        return self._drop(merged, newest_ms)

    def dropped_before_ms(self, newest_ms: int) -> int:
        """Tiles that end at or before this are beyond retention for every answerable read of the entity."""
        if self.retention_ms is None:
            return NOTHING_DROPPED_MS
        edge = newest_ms - self.lookback_ms - self.retention_ms
        return edge - edge % self.retention_hop_ms

    def _gather_lifetime(
        self, start: Int64Array, end: Int64Array, entity: Int64Array, cutoff: Int64Array, entities: int
    ) -> None:
        """Give all tiles that only lifetime windows can reach one common span for each entity, in place."""
        # The clock that bounds the cut-off may step back; a lifetime tile, once made, keeps taking in what is older.
        is_lifetime = ~np.isin(end - start, _WIDTHS_MS)
        made_until = np.full(entities, -_NEVER_MS, dtype=np.int64)
        np.maximum.at(made_until, entity[is_lifetime], end[is_lifetime])
        old = end <= np.maximum(cutoff, made_until[entity])
        earliest = np.full(entities, _NEVER_MS, dtype=np.int64)
        latest = np.full(entities, -_NEVER_MS, dtype=np.int64)
        np.minimum.at(earliest, entity[old], start[old])
        np.maximum.at(latest, entity[old], end[old])
        start[old] = earliest[entity[old]]
        end[old] = latest[entity[old]]

    def _drop(self, merged: EntityTiles, newest_ms: Int64Array) -> EntityTiles:
        """Leave out tiles beyond retention; entities left without any are gone from the result."""
        sizes = np.diff(merged.bounds)
        edge = newest_ms[merged.entities] - self.lookback_ms - (self.retention_ms or 0)
        edge -= edge % self.retention_hop_ms
        keep = merged.table.end_ms > np.repeat(edge, sizes)
        if keep.all():
            return merged
        entity = np.repeat(merged.entities, sizes)[keep]
        table = merged.table.take(keep)
        bounds = np.flatnonzero(np.diff(entity, prepend=-1))
        return EntityTiles(table, entity[bounds], np.append(bounds, table.count))


def _merge_equal(table: TileTable, entity: Int64Array, start_ms: Int64Array, end_ms: Int64Array) -> EntityTiles:
    """Merge neighbours with equal (entity, start, end); rows are ascending by them."""
    new_entity = np.diff(entity, prepend=-1) != 0
    is_first = new_entity | (np.diff(start_ms, prepend=-1) != 0) | (np.diff(end_ms, prepend=-1) != 0)
    starts = np.flatnonzero(is_first)
    if len(starts) < table.count:
        table = table.merge_groups(starts, start_ms[starts], end_ms[starts])
    elif start_ms is not table.start_ms:
        table = TileTable(
            table.layout, start_ms, end_ms, table.ints, table.floats, table.blobs, table.dropped_before_ms
        )
    bounds = np.flatnonzero(new_entity[starts])
    return EntityTiles(table, entity[starts][bounds], np.append(bounds, table.count))
