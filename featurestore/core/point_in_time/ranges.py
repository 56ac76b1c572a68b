"""Sums, minima and maxima of many windows over sorted rows, each field and window in one pass.

    integer sums    one running sum of the chunk, high minus low: wrapping arithmetic makes that exact
    float sums      one running sum of each entity as a pair of doubles (what a double cannot hold is in the second), so
                    the difference is right to 2**-100 of what was added, far below the last digit of a double
    extremes        never subtracted: as windows only move on, a queue of the rows that may still be the extreme

Source: Knuth, TAOCP 2, 4.2.2 (two-sum); Hida, Li and Bailey, "Library for double-double and quad-double arithmetic",
2001; Lemire, "Streaming maximum-minimum filter using no more than three comparisons per element", 2006.
Ordering required: rows by (entity, time), windows ascending within an entity. Time: O(N + R) a field and window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.core.compiled import FLOAT, FLOATS, INT, INTS, compiled_for_bulk, inlined
from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.point_in_time.bounds import ChunkWindows
from featurestore.core.tiles.parts import Array, Field, Merge, Storage
from featurestore.core.tiles.ranges import Ask, Gathered
from featurestore.core.tiles.tiles import MERGE_UFUNCS, TileLayout, TileTable


@dataclass(frozen=True, slots=True)
class _Pick:
    """One field over one window."""

    window: int
    slot: int
    in_flight: bool


class BlockMerges:
    """Fields that merge by ADD, MIN or MAX.

    Args:
        layout: of the rows.
        asks: parts all of whose fields merge that way; their positions are those of another layout.
    """

    def __init__(self, layout: TileLayout, asks: Sequence[Ask]) -> None:
        self._fields: dict[tuple[Storage, int], tuple[Field, list[_Pick]]] = {}
        for ask in asks:
            placed = layout.position_of(ask.part.part)
            read = [pair for pair in zip(ask.part.part.fields, placed.fields, strict=True) if pair[0].is_read]
            for (field, at), slot in zip(read, ask.slots, strict=True):
                _, picks = self._fields.setdefault((at.storage, at.row), (field, []))
                picks.append(_Pick(ask.window, slot, ask.in_flight))

    def merge(self, table: TileTable, entity: Int64Array, windows: ChunkWindows, out: Gathered) -> None:
        """Merge all that was asked.

        Args:
            table: N rows, one an event.
            entity: (N,) of each.
            windows: ranges of rows at R moments.
            out: receives them, (slots, R).
        """
        for (storage, row), (field, picks) in self._fields.items():
            if storage is Storage.INT:
                _merge_ints(table.ints[row], field, picks, windows, out.ints)
            else:
                _merge_floats(table.floats[row], entity, field, picks, windows, out.floats)

    def add(self, events: TileTable, is_event: BoolArray, out: Gathered) -> None:
        """Count events in flight, where they are asked for.

        Args:
            events: R rows, for each moment one.
            is_event: (R,) whether there is one.
            out: what was merged of the events before.
        """
        for (storage, row), (field, picks) in self._fields.items():
            slots = [pick.slot for pick in picks if pick.in_flight]
            if slots:
                block, mine = (out.ints, events.ints) if storage is Storage.INT else (out.floats, events.floats)
                block[slots] = MERGE_UFUNCS[field.merge](block[slots], np.where(is_event, mine[row], field.identity))


def _merge_ints(
    values: Int64Array, field: Field, picks: Sequence[_Pick], windows: ChunkWindows, out: Int64Array
) -> None:
    """One integer field over its windows."""
    if field.merge is Merge.ADD:
        running = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(values, out=running[1:])
        for pick in picks:
            _int_sums(running, windows.lows[pick.window], windows.highs[pick.window], out[pick.slot])
        return
    # The maximum is the minimum of the complements, which unlike negatives all exist.
    mirrored = values if field.merge is Merge.MIN else ~values
    identity = int(field.identity) if field.merge is Merge.MIN else ~int(field.identity)
    queue = np.empty(len(values) + 1, dtype=np.int64)
    for pick in picks:
        _smallest_ints(mirrored, windows.lows[pick.window], windows.highs[pick.window], identity, queue, out[pick.slot])
        if field.merge is Merge.MAX:
            np.invert(out[pick.slot], out=out[pick.slot])


def _merge_floats(
    values: Float64Array,
    entity: Int64Array,
    field: Field,
    picks: Sequence[_Pick],
    windows: ChunkWindows,
    out: Float64Array,
) -> None:
    """One float field over its windows."""
    if field.merge is Merge.ADD:
        upper, lower = np.empty(len(values), dtype=np.float64), np.empty(len(values), dtype=np.float64)
        _running_sums(values, entity, upper, lower)
        for pick in picks:
            _float_sums(
                values, entity, upper, lower, windows.lows[pick.window], windows.highs[pick.window], out[pick.slot]
            )
        return
    mirrored = values if field.merge is Merge.MIN else -values
    identity = float(field.identity) if field.merge is Merge.MIN else -float(field.identity)
    queue = np.empty(len(values) + 1, dtype=np.int64)
    for pick in picks:
        _smallest_floats(
            mirrored, windows.lows[pick.window], windows.highs[pick.window], identity, queue, out[pick.slot]
        )
        if field.merge is Merge.MAX:
            np.negative(out[pick.slot], out=out[pick.slot])


@compiled_for_bulk(INT, INTS, INTS, INTS, INTS)
def _int_sums(running: Int64Array, lows: Int64Array, highs: Int64Array, out: Int64Array) -> int:
    """Differences of running sums."""
    for index in range(len(lows)):
        out[index] = running[highs[index]] - running[lows[index]]
    return 0


@compiled_for_bulk(INT, FLOATS, INTS, FLOATS, FLOATS)
def _running_sums(values: Float64Array, entity: Int64Array, upper: Float64Array, lower: Float64Array) -> int:
    """Sums of each entity's rows up to and with each row, as upper + lower, |lower| at most half an ulp of upper."""
    high, low = 0.0, 0.0
    for row in range(len(values)):
        if row == 0 or entity[row] != entity[row - 1]:
            high, low = 0.0, 0.0
        value = values[row]
        total = high + value
        part = total - high
        low += (high - (total - part)) + (value - part)
        high = total + low
        low -= high - total
        upper[row], lower[row] = high, low
    return 0


@compiled_for_bulk(INT, FLOATS, INTS, FLOATS, FLOATS, INTS, INTS, FLOATS)
def _float_sums(
    values: Float64Array,
    entity: Int64Array,
    upper: Float64Array,
    lower: Float64Array,
    lows: Int64Array,
    highs: Int64Array,
    out: Float64Array,
) -> int:
    """Differences of running sums; where those overflowed, the rows themselves."""
    for index in range(len(lows)):
        low, high = lows[index], highs[index]
        value = 0.0
        if high > low:
            value = upper[high - 1] + lower[high - 1]
            if low > 0 and entity[low - 1] == entity[low]:
                left, right = upper[high - 1], -upper[low - 1]
                total = left + right
                part = total - left
                rest = (left - (total - part)) + (right - part)
                value = total + (rest + (lower[high - 1] - lower[low - 1]))
            if not np.isfinite(value):
                value = 0.0
                for row in range(low, high):
                    value += values[row]
        out[index] = value
    return 0


@inlined
def _smallest(values: Array, lows: Int64Array, highs: Int64Array, identity: Any, queue: Int64Array, out: Array) -> int:
    """Smallest value of each window, no NaN; `queue` holds rows whose values rise, the smallest at its front."""
    front, back, reached = 0, 0, np.int64(0)
    for index in range(len(lows)):
        low, high = lows[index], highs[index]
        if high <= low:
            out[index] = identity
            continue
        if low >= reached:
            front = back = 0
            reached = low
        while reached < high:
            while back > front and values[queue[back - 1]] >= values[reached]:
                back -= 1
            queue[back] = reached
            back += 1
            reached += 1
        while queue[front] < low:
            front += 1
        out[index] = values[queue[front]]
    return 0


@compiled_for_bulk(INT, INTS, INTS, INTS, INT, INTS, INTS)
def _smallest_ints(
    values: Int64Array, lows: Int64Array, highs: Int64Array, identity: int, queue: Int64Array, out: Int64Array
) -> int:
    """`_smallest` of integers."""
    return _smallest(values, lows, highs, identity, queue, out)


@compiled_for_bulk(INT, FLOATS, INTS, INTS, FLOAT, INTS, FLOATS)
def _smallest_floats(
    values: Float64Array, lows: Int64Array, highs: Int64Array, identity: float, queue: Int64Array, out: Float64Array
) -> int:
    """`_smallest` of floats."""
    return _smallest(values, lows, highs, identity, queue, out)
