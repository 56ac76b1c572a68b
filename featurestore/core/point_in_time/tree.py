"""Parts that merge in their own way, over many windows: a tree of merged rows.

    level 2    [       0 .. 15       )[ ...             each node is the merge of FAN_OUT nodes below it
    level 1    [0..3)[4..7)[8..11)[12..15)[ ...
    level 0     0 1 2 3 4 5 6 7 8 9 ...                 a row an event
    window            ^.......................^         rows 3, 14; nodes 1:1, 1:2 and 12, 13: few, whatever its length

A window is covered by at most 2 (FAN_OUT - 1) nodes of each level. The covers of all windows are laid one after
another and merged by one call of `merge_groups`, the operation that folding and compaction use, so that every part
works here without knowing it, sketches and texts included. Time: O(N) to build, O(log N) merges a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.compiled import INT, INTS, compiled_for_bulk
from featurestore.core.events import BlobRow, BoolArray, Int64Array
from featurestore.core.point_in_time.bounds import ChunkWindows
from featurestore.core.tiles.parts import FieldValues, Merge, Storage
from featurestore.core.tiles.ranges import Ask, Gathered
from featurestore.core.tiles.tiles import MERGE_UFUNCS, FieldPosition, PartPosition, TileLayout, TileTable, concatenate

FAN_OUT = 4
"""Nodes under a node: with 2 a window has the fewest nodes, with 4 the tree has half the rows of a binary one."""

BATCH_NODES = 1 << 20
"""Nodes of covers that are merged at once; bounds the memory of a chunk with many moments."""


_NO_NODE = -1
"""Of a window without an event in flight."""


class TreeMerges:
    """All parts but blocks, first and last.

    Args:
        layout: of the rows; has these parts and what they require.
        asks: what is asked; positions are those of another layout.
    """

    def __init__(self, layout: TileLayout, asks: Sequence[Ask]) -> None:
        self._asks: dict[tuple[int, bool], list[tuple[PartPosition, tuple[int, ...]]]] = {}
        for ask in asks:
            of_window = self._asks.setdefault((ask.window, ask.in_flight), [])
            of_window.append((layout.position_of(ask.part.part), ask.slots))

    @property
    def is_asked(self) -> bool:
        """Whether there is anything to merge."""
        return bool(self._asks)

    def merge(
        self,
        table: TileTable,
        windows: ChunkWindows,
        out: Gathered,
        events: TileTable | None = None,
        is_event: BoolArray | None = None,
    ) -> None:
        """Merge all that was asked.

        Args:
            table: N rows, one an event.
            windows: ranges of rows at R moments.
            out: receives them, (slots, R).
            events: events in flight, R rows; each is one node more of the windows that count it.
            is_event: (R,) whether there is one.
        """
        longest = max(int((windows.highs[each] - windows.lows[each]).max(initial=0)) for each, _ in self._asks)
        tree = _grow(table, longest)
        nodes, without = tree.nodes, np.full(windows.moment_count, _NO_NODE, dtype=np.int64)
        with_event = without
        if events is not None and is_event is not None:
            with_event = np.where(is_event, nodes.count + np.arange(events.count), _NO_NODE)
            nodes = concatenate([nodes, events])
        for (window, in_flight), asks in self._asks.items():
            lows, highs = windows.lows[window], windows.highs[window]
            for placed, slots in asks:
                _put_identities(placed, slots, out)
            for cover in _covers(lows, highs, with_event if in_flight else without, tree.level_starts):
                for placed, slots in asks:
                    _merge_part(nodes, placed, slots, cover, out)


@dataclass(frozen=True, slots=True)
class _Tree:
    """Nodes of all levels, and where each level begins."""

    nodes: TileTable
    level_starts: Int64Array


@dataclass(frozen=True, slots=True)
class _Cover:
    """Nodes that make up some windows.

    Attributes:
        moments: (G,) moments whose windows are not empty.
        nodes: their nodes, one window after another.
        starts: (G,) where each window's begin.
    """

    moments: Int64Array
    nodes: Int64Array
    starts: Int64Array


def _grow(table: TileTable, longest: int) -> _Tree:
    """Merge levels until one node holds more rows than any window."""
    levels, width = [table], FAN_OUT
    while width <= longest:
        below = levels[-1]
        starts = np.arange(0, below.count, FAN_OUT, dtype=np.int64)
        ends = np.minimum(starts + FAN_OUT, below.count) - 1
        levels.append(below.merge_groups(starts, below.start_ms[starts], below.end_ms[ends]))
        width *= FAN_OUT
    sizes = np.array([0, *(level.count for level in levels[:-1])], dtype=np.int64)
    return _Tree(concatenate(levels), np.cumsum(sizes))


def _covers(lows: Int64Array, highs: Int64Array, own_nodes: Int64Array, level_starts: Int64Array) -> Iterator[_Cover]:
    """Covers of all windows that are not empty, each with a node of its own if it has one, in batches."""
    moments = np.flatnonzero((highs > lows) | (own_nodes != _NO_NODE))
    lows, highs, own_nodes = lows[moments], highs[moments], own_nodes[moments]
    counts = np.empty(len(moments), dtype=np.int64)
    _cover(lows, highs, own_nodes, level_starts, counts, np.empty(0, dtype=np.int64))
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(moments):
        before = int(ends[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(ends, before + BATCH_NODES, side="right")), begin + 1)
        part = slice(begin, end)
        nodes = np.empty(int(ends[end - 1]) - before, dtype=np.int64)
        _cover(lows[part], highs[part], own_nodes[part], level_starts, counts[part], nodes)
        yield _Cover(moments[part], nodes, ends[part] - counts[part] - before)
        begin = end


def _merge_part(nodes: TileTable, placed: PartPosition, slots: tuple[int, ...], cover: _Cover, out: Gathered) -> None:
    """One part over the windows of a cover."""
    mine, required = ([_values(nodes, at)[cover.nodes] for at in ats] for ats in (placed.fields, placed.required))
    merged = placed.part.merge_groups(mine, required, cover.starts)
    read = [each for each in zip(placed.part.fields, placed.fields, merged, mine, strict=True) if each[0].is_read]
    for (field, at, values, unmerged), slot in zip(read, slots, strict=True):
        if field.merge is not Merge.OWN:
            values = MERGE_UFUNCS[field.merge].reduceat(np.asarray(unmerged), cover.starts)
        if isinstance(values, BlobRow):
            out.objects[slot, cover.moments] = np.array([*values.values(), None], dtype=np.object_)[:-1]
        else:
            (out.ints if at.storage is Storage.INT else out.floats)[slot, cover.moments] = values


def _values(nodes: TileTable, at: FieldPosition) -> FieldValues:
    """One field of all nodes."""
    if at.storage is Storage.BLOB:
        return nodes.blobs.row(at.row)
    values: FieldValues = (nodes.ints if at.storage is Storage.INT else nodes.floats)[at.row]
    return values


def _put_identities(placed: PartPosition, slots: tuple[int, ...], out: Gathered) -> None:
    """What windows without events have."""
    read = [pair for pair in zip(placed.part.fields, placed.fields, strict=True) if pair[0].is_read]
    for (field, at), slot in zip(read, slots, strict=True):
        target = {Storage.INT: out.ints, Storage.FLOAT: out.floats, Storage.BLOB: out.objects}[at.storage]
        target[slot] = field.identity


@compiled_for_bulk(INT, INTS, INTS, INTS, INTS, INTS, INTS)
def _cover(
    lows: Int64Array,
    highs: Int64Array,
    own_nodes: Int64Array,
    level_starts: Int64Array,
    counts: Int64Array,
    nodes: Int64Array,
) -> int:
    """Nodes that make up each range of rows, and its own; counts them when `nodes` is empty, else writes them."""
    top = len(level_starts) - 1
    fills = len(nodes) > 0
    cursor = 0
    for index in range(len(lows)):
        low, high, level, begin = lows[index], highs[index], 0, cursor
        while low < high:
            while low < high and (low % FAN_OUT != 0 or level == top):
                if fills:
                    nodes[cursor] = level_starts[level] + low
                cursor += 1
                low += 1
            while low < high and high % FAN_OUT != 0:
                high -= 1
                if fills:
                    nodes[cursor] = level_starts[level] + high
                cursor += 1
            low //= FAN_OUT
            high //= FAN_OUT
            level += 1
        if own_nodes[index] != _NO_NODE:
            if fills:
                nodes[cursor] = own_nodes[index]
            cursor += 1
        if not fills:
            counts[index] = cursor - begin
    return cursor
