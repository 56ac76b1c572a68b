"""Merging the ranges of tiles that windows are, straight into the places where lowering wants the results.

    asks       sum(amount), window 1 h -> slots 4, 5    max(amount), window 1 d -> slot 9    ...
    bounds     first row of each window, then the row behind its last
    gathered   [  |  |  |  | 4 | 5 |  |  |  | 9 | ... ]      ints, floats and objects, one column a request's row

Parts of one kind are a family, and a family merges everything it is asked in one call of a compiled loop. Blocks (ADD,
MIN, MAX) are one family; parts with OWN fields name theirs, or are merged one by one by `Part.merge_ranges`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from featurestore.core.compiled import FLOAT_MATRIX, FLOATS, INT, INT_MATRIX, INTS, compiled
from featurestore.core.events import BlobRow, Float64Array, Int64Array, ObjectArray
from featurestore.core.tiles.parts import Merge, Storage
from featurestore.core.tiles.tiles import PartPosition

if TYPE_CHECKING:
    from featurestore.core.tiles.tiles import TileLayout, TileTable


@dataclass(frozen=True, slots=True)
class Ask:
    """One part over one window.

    Attributes:
        part: what is merged.
        window: index of the window.
        slots: for each of the part's fields that are read, its slot in the gathered values of its storage.
        in_flight: whether an event in flight counts.
    """

    part: PartPosition
    window: int
    slots: tuple[int, ...]
    in_flight: bool


@dataclass(frozen=True, slots=True)
class Gathered:
    """Merged fields in the order in which they are lowered: (slots, R) for R rows of a request."""

    ints: Int64Array
    floats: Float64Array
    objects: ObjectArray


class RangeMerge(Protocol):
    """Merges what a family was asked for."""

    def __call__(self, table: TileTable, bounds: Int64Array, out: Gathered, row: int) -> None:
        """Merge ranges of the table's rows into column `row` of `out`.

        Args:
            table: N tiles, ascending by start.
            bounds: (2W,) first row of each window, then the end of each.
            out: receives the merged fields.
            row: which column of it.
        """
        ...


def range_merges(layout: TileLayout, asks: Sequence[Ask]) -> tuple[RangeMerge, ...]:
    """One merge for each family that is asked for something."""
    families: dict[Callable[[TileLayout, Sequence[Ask]], RangeMerge], list[Ask]] = {}
    for ask in asks:
        family = ask.part.part.family or (OneByOne if ask.part.has_own_merge else BlockRanges)
        families.setdefault(family, []).append(ask)
    return tuple(family(layout, members) for family, members in families.items())


class BlockRanges:
    """Fields that merge by ADD, MIN or MAX.

    Integer sums come from one running sum and a subtraction, which is exact in wrapping arithmetic. Floats, minima and
    maxima are never subtracted: just the rows of each range are merged.

    Attributes:
        int_picks, float_picks: what `merge_int_blocks` and `merge_float_blocks` are asked for.
        int_identities, float_identities: of the layout's fields.
    """

    def __init__(self, layout: TileLayout, asks: Sequence[Ask]) -> None:
        picks: dict[Storage, list[tuple[int, int, int, int]]] = {Storage.INT: [], Storage.FLOAT: []}
        for ask in asks:
            read = [pair for pair in zip(ask.part.part.fields, ask.part.fields, strict=True) if pair[0].is_read]
            for (field, at), slot in zip(read, ask.slots, strict=True):
                picks[at.storage].append((at.row, _KERNEL_CODES[field.merge], ask.window, slot))
        self.int_picks, self.float_picks = (
            # Ascending by field, so that one running sum serves all windows of a field.
            np.array(sorted(picks[storage]), dtype=np.int64).reshape(-1, 4)
            for storage in (Storage.INT, Storage.FLOAT)
        )
        self.int_identities = layout.int_identities
        self.float_identities = np.array([field.identity for field in layout.float_fields], dtype=np.float64)

    def __call__(self, table: TileTable, bounds: Int64Array, out: Gathered, row: int) -> None:
        """Merge."""
        if len(self.int_picks):
            running = np.empty(table.count + 1, dtype=np.int64)
            merge_int_blocks(table.ints, bounds, self.int_picks, self.int_identities, running, out.ints, row)
        if len(self.float_picks):
            merge_float_blocks(table.floats, bounds, self.float_picks, self.float_identities, out.floats, row)


class OneByOne:
    """Parts that merge ranges themselves, each once for all windows that ask."""

    def __init__(self, layout: TileLayout, asks: Sequence[Ask]) -> None:
        parts = {ask.part.part.key: ask.part for ask in asks}
        self._members = [
            (part, [ask for ask in asks if ask.part.part.key == key]) for key, part in sorted(parts.items())
        ]
        distinct = [np.unique([ask.window for ask in mine], return_inverse=True) for _, mine in self._members]
        self._windows = [windows.astype(np.int64) for windows, _ in distinct]
        self._window_of_ask = [inverse for _, inverse in distinct]

    def __call__(self, table: TileTable, bounds: Int64Array, out: Gathered, row: int) -> None:
        """Merge."""
        width = len(bounds) // 2
        for (placed, asks), windows, of_ask in zip(self._members, self._windows, self._window_of_ask, strict=True):
            lows, highs = bounds.take(windows), bounds.take(windows + width)
            merged = placed.part.merge_ranges(table.fields(placed.fields), lows, highs)
            read = [
                (at, values)
                for field, at, values in zip(placed.part.fields, placed.fields, merged, strict=True)
                if field.is_read
            ]
            for index, (at, values) in enumerate(read):
                slots = [ask.slots[index] for ask in asks]
                if isinstance(values, BlobRow):
                    states = values.values()
                    for slot, window in zip(slots, of_ask.tolist(), strict=True):
                        out.objects[slot, row] = states[window]
                elif values is not None:
                    (out.ints if at.storage is Storage.INT else out.floats)[slots, row] = values[of_ask]


_ADD, _MIN, _MAX = 0, 1, 2
_KERNEL_CODES = {Merge.ADD: _ADD, Merge.MIN: _MIN, Merge.MAX: _MAX}


@compiled(INT, INTS, INT, INTS, INTS, INTS, allocates=False)
def find_bounds(
    start_ms: Int64Array, as_of_ms: int, shift_ms: Int64Array, grid_ms: Int64Array, bounds: Int64Array
) -> int:
    """Rows at which windows begin and end: the first tile at or after each edge.

    Args:
        start_ms: (N,) ascending.
        as_of_ms: read time t.
        shift_ms: (2W,) an edge is (t - shift) floored to its grid.
        grid_ms: (2W,) see there.
        bounds: (2W,) receives the rows.
    """
    for index in range(len(shift_ms)):
        edge = as_of_ms - shift_ms[index]
        edge -= edge % grid_ms[index]
        low, high = 0, len(start_ms)
        while low < high:
            middle = (low + high) >> 1
            if start_ms[middle] < edge:
                low = middle + 1
            else:
                high = middle
        bounds[index] = low
    return 0


@compiled(INT, INT_MATRIX, INTS, INT_MATRIX, INTS, INTS, INT_MATRIX, INT, allocates=False)
def merge_int_blocks(
    ints: Int64Array,
    bounds: Int64Array,
    picks: Int64Array,
    identities: Int64Array,
    running: Int64Array,
    out: Int64Array,
    out_row: int,
) -> int:
    """Merge ranges of integer fields.

    Args:
        ints: (fields, N).
        bounds: (2W,).
        picks: (K, 4) field, merge, window, slot; ascending by field.
        identities: (fields,).
        running: room for N + 1 numbers.
        out: (slots, R) receives the merged fields.
        out_row: in which column.
    """
    count, width = ints.shape[1], len(bounds) // 2
    summed = -1
    for index in range(len(picks)):
        field, merge, window, slot = picks[index, 0], picks[index, 1], picks[index, 2], picks[index, 3]
        low, high = bounds[window], bounds[width + window]
        if merge == _ADD:
            if field != summed:
                total = np.int64(0)
                running[0] = 0
                for row in range(count):
                    total += ints[field, row]
                    running[row + 1] = total
                summed = field
            out[slot, out_row] = running[high] - running[low]
            continue
        value = identities[field]
        for row in range(low, high):
            if (ints[field, row] < value) == (merge == _MIN):
                value = ints[field, row]
        out[slot, out_row] = value
    return 0


@compiled(INT, FLOAT_MATRIX, INTS, INT_MATRIX, FLOATS, FLOAT_MATRIX, INT, allocates=False)
def merge_float_blocks(
    floats: Float64Array,
    bounds: Int64Array,
    picks: Int64Array,
    identities: Float64Array,
    out: Float64Array,
    out_row: int,
) -> int:
    """As `merge_int_blocks`, but sums are added up row by row."""
    width = len(bounds) // 2
    for index in range(len(picks)):
        field, merge, window, slot = picks[index, 0], picks[index, 1], picks[index, 2], picks[index, 3]
        value = identities[field]
        for row in range(bounds[window], bounds[width + window]):
            one = floats[field, row]
            if merge == _ADD:
                value += one
            elif np.isnan(one) or (one < value if merge == _MIN else one > value):
                # NaN wins as it does in numpy's minimum and maximum.
                value = one
                if np.isnan(one):
                    break
        out[slot, out_row] = value
    return 0
