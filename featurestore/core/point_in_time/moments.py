"""Central moments of many windows over sorted rows, by two stacks: no subtraction, and one merge a row and moment.

    rows        0   1   2   3   4   5   6   7
    window          [.......................)      moves on only
    front           [1..3]  [2..3]  [3]            merged from the split backwards, one result a row
    back                                [4 .. 7)   merged from the split forwards, one result
    answer      front at the window's first row, merged with the back

When the window has left the front behind, what is in it becomes the new front, walked once backwards; so a row is
merged at most twice in all. Moments must not be subtracted: a large value that has left would take the digits of the
small ones that stay with it.

Source: two stacks are folklore, see Tangwongsan, Hirzel and Schneider, "Low-latency sliding-window aggregation in
worst-case constant time", DEBS 2017. The merge is that of `aggregations.moments`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from featurestore.core.aggregations.numbers.moments import Moment
from featurestore.core.aggregations.numbers.sums import SAFELY_INT64, sum_part
from featurestore.core.compiled import FLOAT_MATRIX, FLOATS, INT, INTS, compiled_for_bulk, inlined
from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.point_in_time.bounds import ChunkWindows
from featurestore.core.spec import Column
from featurestore.core.tiles.parts import LOW_BITS, Storage, ValueCount, join_float
from featurestore.core.tiles.ranges import Ask, Gathered
from featurestore.core.tiles.tiles import TileLayout, TileTable


class MomentMerges:
    """Second to fourth moments.

    Args:
        layout: of the rows.
        asks: of Moment parts; their positions are those of another layout.
    """

    def __init__(self, layout: TileLayout, asks: Sequence[Ask]) -> None:
        self._layout = layout
        self._asks: dict[Column, dict[int, list[tuple[int, int]]]] = {}
        for ask in asks:
            part = ask.part.part
            assert isinstance(part, Moment)
            of_window = self._asks.setdefault(part.column, {}).setdefault(ask.window, [])
            of_window.append((part.power, ask.slots[0]))

    def merge(self, table: TileTable, windows: ChunkWindows, out: Gathered) -> None:
        """Merge all that was asked; arguments as of `BlockMerges.merge`."""
        front = np.empty((table.count, 5), dtype=np.float64)
        found = np.empty((windows.moment_count, 3), dtype=np.float64)
        for column, of_windows in self._asks.items():
            (count,) = self._layout.position_of(ValueCount(column.name)).fields
            values = self._values(column, table)
            for window, picks in of_windows.items():
                power = max(power for power, _ in picks)
                spans = windows.lows[window], windows.highs[window]
                _merge_moments(table.ints[count.row], *values, *spans, power, front, found)
                for each, slot in picks:
                    out.floats[slot] = found[:, each - 2]

    def _values(self, column: Column, table: TileTable) -> tuple[Float64Array, Int64Array]:
        """(N,) values of a column as doubles, 0 where it has none; and as integers, which are empty for floats."""
        fields = self._layout.position_of(sum_part(column)).fields
        if fields[0].storage is Storage.FLOAT:
            return np.asarray(table.floats[fields[0].row], dtype=np.float64), np.empty(0, dtype=np.int64)
        if len(fields) == 1:
            exact = np.asarray(table.ints[fields[0].row])
            return exact.astype(np.float64), np.ascontiguousarray(exact)
        high, low = table.ints[fields[0].row], table.ints[fields[1].row]
        # A row is one event, so its sum is an int64.
        return np.asarray(join_float(high, low)), np.ascontiguousarray((high << LOW_BITS) + low)


@inlined
def _add(
    left: Float64Array, at: int, number: float, total: float, second: float, third: float, fourth: float, power: int
) -> Any:
    """Two accumulators together: row `at` of a matrix and the given one; count, sum, moments."""
    left_number, left_total = left[at, 0], left[at, 1]
    if number == 0.0:
        return left_number, left_total, left[at, 2], left[at, 3], left[at, 4]
    if left_number == 0.0:
        return number, total, second, third, fourth
    all_number, all_total = left_number + number, left_total + total
    mean = all_total / all_number
    one, other = left_total / left_number - mean, total / number - mean
    one_squared, other_squared = left_number * one * one, number * other * other
    bias = (left_number * one + number * other) / all_number
    squares = left[at, 2] + second + one_squared + other_squared
    cubes, fourths = 0.0, 0.0
    if power >= 3:
        cubes = left[at, 3] + third + one * (3.0 * left[at, 2] + one_squared) + other * (3.0 * second + other_squared)
        cubes -= 3.0 * bias * squares
    if power >= 4:
        fourths = left[at, 4] + one * (4.0 * left[at, 3] + one * (6.0 * left[at, 2] + one_squared))
        fourths += fourth + other * (4.0 * third + other * (6.0 * second + other_squared))
        fourths = max(fourths - 4.0 * bias * cubes, 0.0)
    return all_number, all_total, max(squares - bias * bias * all_number, 0.0), cubes, fourths


@inlined
def _rest(count: Int64Array, values: Float64Array, exact: Int64Array, row: Any, reference: Any) -> Any:
    """A row's sum less its count times a number near it: moments do not mind, and doubles hold all its digits."""
    if len(exact) == 0 or count[row] == 0:
        return values[row]
    rest = values[row] - float(reference)
    # Wrapping arithmetic is exact wherever the result fits.
    return float(exact[row] - reference) if abs(rest) < SAFELY_INT64 else rest


@inlined
def _reference(count: Int64Array, exact: Int64Array, low: int, high: int) -> Any:
    """The newest integer of some rows; 0 for floats."""
    if len(exact):
        for row in range(high - 1, low - 1, -1):
            if count[row]:
                return exact[row]
    return np.int64(0)


@compiled_for_bulk(INT, INTS, FLOATS, INTS, INTS, INTS, INT, FLOAT_MATRIX, FLOAT_MATRIX)
def _merge_moments(
    count: Int64Array,
    values: Float64Array,
    exact: Int64Array,
    lows: Int64Array,
    highs: Int64Array,
    power: int,
    front: Float64Array,
    found: Float64Array,
) -> int:
    """Found (R, 3) receives the moments; front (N, 5) is room for accumulators of rows up to the split."""
    back = np.zeros((1, 5), dtype=np.float64)
    row_state = np.zeros((1, 5), dtype=np.float64)
    split, reached, reference = np.int64(0), np.int64(0), np.int64(0)
    for index in range(len(lows)):
        low, high = lows[index], highs[index]
        if high <= low:
            found[index, :] = 0.0
            continue
        if low >= split:
            # Rows up to the split and behind it are of one entity, and go by one number until the next split.
            reference = _reference(count, exact, low, high)
            for row in range(high - 1, low - 1, -1):
                row_state[0, 0] = float(count[row])
                row_state[0, 1] = _rest(count, values, exact, row, reference)
                if row == high - 1:
                    front[row, :] = row_state[0]
                    continue
                after = front[row + 1]
                merged = _add(row_state, 0, after[0], after[1], after[2], after[3], after[4], power)
                for place in range(5):
                    front[row, place] = merged[place]
            split = reached = high
            back[0, :] = 0.0
        while reached < high:
            rest = _rest(count, values, exact, reached, reference)
            merged = _add(back, 0, float(count[reached]), rest, 0.0, 0.0, 0.0, power)
            for place in range(5):
                back[0, place] = merged[place]
            reached += 1
        merged = _add(front, low, back[0, 0], back[0, 1], back[0, 2], back[0, 3], back[0, 4], power)
        found[index, 0], found[index, 1], found[index, 2] = merged[2], merged[3], merged[4]
    return 0
