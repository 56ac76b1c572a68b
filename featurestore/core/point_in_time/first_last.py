"""First and last values of many windows: two passes over the rows answer every window.

    values     a   -   b   c   -        rows of an entity, - is null
    newest     0   0   2   3   3        the newest row with a value, up to here      a window's last: newest[high - 1]
    oldest     0   2   2   3   .        the oldest from here on                      a window's first: oldest[low]

Windows begin and end between milliseconds, never within one, so events that tie in time are all inside or all outside,
and the one that their ids choose is chosen for every window. Time: O(N + R).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from featurestore.core.aggregations.ordered.first_last import EdgeValue
from featurestore.core.compiled import BYTES, FLOATS, INT, INTS, compiled_for_bulk, inlined
from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.point_in_time.bounds import ChunkWindows
from featurestore.core.tiles.parts import Array, Storage
from featurestore.core.tiles.ranges import Ask, Gathered
from featurestore.core.tiles.tiles import FieldPosition, TileLayout, TileTable


class EdgeMerges:
    """First and last values.

    Args:
        layout: of the rows.
        asks: of EdgeValue parts; their positions are those of another layout.
    """

    def __init__(self, layout: TileLayout, asks: Sequence[Ask]) -> None:
        self._layout = layout
        self._asks: dict[EdgeValue, list[tuple[int, int]]] = {}
        for ask in asks:
            part = ask.part.part
            assert isinstance(part, EdgeValue)
            self._asks.setdefault(part, []).append((ask.window, ask.slots[0]))

    def merge(self, table: TileTable, entity: Int64Array, windows: ChunkWindows, out: Gathered) -> None:
        """Merge all that was asked; arguments as of `BlockMerges.merge`."""
        for part, asks in self._asks.items():
            chosen = self._chosen(part, table, entity)
            value = self._layout.position_of(part).fields[2]
            for window, slot in asks:
                low, high = windows.lows[window], windows.highs[window]
                self._put(value, table, _pick(chosen, low, high, part.is_newest), slot, out)

    def _put(self, value: FieldPosition, table: TileTable, rows: Int64Array, slot: int, out: Gathered) -> None:
        """The values of (R,) chosen rows; -1 is none."""
        at = np.flatnonzero(rows >= 0)
        rows = rows[at]
        if value.storage is Storage.BLOB:
            out.objects[slot] = b""
            out.objects[slot, at] = np.array([*table.blobs.row(value.row)[rows].values(), None], dtype=np.object_)[:-1]
            return
        values = (table.ints if value.storage is Storage.INT else table.floats)[value.row]
        merged = (out.ints if value.storage is Storage.INT else out.floats)[slot]
        merged[:] = 0
        merged[at] = values[rows]

    def _chosen(self, part: EdgeValue, table: TileTable, entity: Int64Array) -> Int64Array:
        """(N,) the newest row with a value up to each row, or the oldest from it on; -1 for none."""
        time, ids, value = self._layout.position_of(part).fields
        time_ms = table.ints[time.row]
        id_row = table.blobs.row(ids.row)
        chosen = np.empty(len(time_ms), dtype=np.int64)
        nothing = np.empty(0, dtype=np.int64)
        ints, floats, texts = nothing, np.empty(0, dtype=np.float64), (nothing, nothing)
        if value.storage is Storage.INT:
            ints = table.ints[value.row]
        elif value.storage is Storage.FLOAT:
            floats = table.floats[value.row]
        else:
            row = table.blobs.row(value.row)
            texts = np.ascontiguousarray(row.begins), np.ascontiguousarray(row.ends)
        _choose(
            np.frombuffer(id_row.buffer, dtype=np.uint8),
            np.ascontiguousarray(id_row.begins),
            np.ascontiguousarray(id_row.ends),
            entity,
            time_ms,
            int(part.fields[0].identity),
            ints,
            floats,
            *texts,
            int(part.is_newest),
            chosen,
        )
        return chosen


def _pick(chosen: Int64Array, lows: Int64Array, highs: Int64Array, is_newest: bool) -> Int64Array:
    """(R,) the chosen row of each window, -1 where it has none."""
    if not len(chosen):
        return np.full(len(lows), -1, dtype=np.int64)
    at = np.clip(highs - 1 if is_newest else lows, 0, len(chosen) - 1)
    rows = chosen[at]
    inside = (rows >= lows) & (rows < highs)
    picked: Int64Array = np.where(inside, rows, -1)
    return picked


@inlined
def _compare_bytes(buffer: Array, begins: Int64Array, ends: Int64Array, left: int, right: int) -> Any:
    """Sign of left - right, as bytes compare."""
    at, to = begins[left], ends[left]
    other, other_to = begins[right], ends[right]
    while at < to and other < other_to:
        if buffer[at] != buffer[other]:
            return 1 if buffer[at] > buffer[other] else -1
        at += 1
        other += 1
    return 1 if at < to else (-1 if other < other_to else 0)


@compiled_for_bulk(INT, BYTES, INTS, INTS, INTS, INTS, INT, INTS, FLOATS, INTS, INTS, INT, INTS)
def _choose(
    buffer: Array,
    id_begins: Int64Array,
    id_ends: Int64Array,
    entity: Int64Array,
    time_ms: Int64Array,
    nothing_ms: int,
    ints: Int64Array,
    floats: Float64Array,
    text_begins: Int64Array,
    text_ends: Int64Array,
    newest: int,
    chosen: Int64Array,
) -> int:
    """Forwards for the newest, backwards for the oldest; of the three kinds of values one is not empty."""
    count = len(time_ms)
    best: Any = np.int64(-1)
    for step in range(count):
        row = step if newest == 1 else count - 1 - step
        if best >= 0 and entity[best] != entity[row]:
            best = np.int64(-1)
        if time_ms[row] != nothing_ms:
            order = 0
            if best >= 0 and time_ms[row] == time_ms[best]:
                order = _compare_bytes(buffer, id_begins, id_ends, row, best)
                if order == 0 and len(ints) > 0:
                    order = 1 if ints[row] > ints[best] else -1
                elif order == 0 and len(floats) > 0:
                    order = 1 if floats[row] > floats[best] else -1
                elif order == 0:
                    order = _compare_bytes(buffer, text_begins, text_ends, row, best)
            else:
                order = 1 if newest == 1 else -1
            if (order > 0) == (newest == 1):
                best = np.int64(row)
        chosen[row] = best
    return 0
