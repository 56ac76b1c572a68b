"""Central moments: M2 = sum((x - mean)**2), M3 and M4 likewise, merged without ever subtracting large powers.

A tile keeps count, sum and the moments around its own mean. Moving a tile's moments to another mean at distance d
(Chan, Golub and LeVeque 1979 for the second; Pébay 2008, "Formulas for robust, one-pass parallel computation of
covariances and arbitrary-order statistical moments", for the others):

    M2' = M2 + n d**2          M3' = M3 + 3 d M2 + n d**3          M4' = M4 + 4 d M3 + 6 d**2 M2 + n d**4

so any number of tiles merge by moving all to the mean of all and adding up. Sums of integers are exact, and their
distances are taken from an integer near the mean, which costs no digit: a constant column has moments of exactly 0, and
steps of 1 on 2**60 are as visible as on 0. Sums of floats are rounded, and so are the distances, by as much as the mean
is. What the deviations from the mean still add up to is taken out of the moments again, as in the second pass of the
two-pass algorithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.core.aggregations.numbers.sums import SAFELY_INT64, mean_of, sum_part
from featurestore.core.compiled import FLOAT_MATRIX, FLOATS, INT, INT_MATRIX, INTS, borrowing, compiled
from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.spec import Column
from featurestore.core.tiles.parts import (
    LOW_BITS,
    Array,
    Field,
    FieldValues,
    Lift,
    Merge,
    Part,
    PartBase,
    RangeFamily,
    Storage,
    ValueCount,
    join_float,
)
from featurestore.core.tiles.ranges import Ask, Gathered

if TYPE_CHECKING:
    from featurestore.core.tiles.tiles import TileLayout, TileTable


REFERENCE_MAX = float((1 << 63) - 1024)
"""Largest double that is an int64."""


@dataclass(frozen=True, slots=True)
class Moment(PartBase):
    """One central moment of a column, power 2 to 4; merging reads the count, the sum and the lower moments."""

    column: Column
    power: int

    @property
    def key(self) -> str:
        """Canonical text."""
        return f"moment{self.power}({self.column.name})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """One float."""
        return (Field("sum", Storage.FLOAT, Merge.OWN, 0.0, Lift.NOTHING),)

    @property
    def requires(self) -> tuple[Part, ...]:
        """Count of values, their sum, and the lower moments."""
        lower = tuple(Moment(self.column, power) for power in range(2, self.power))
        return (ValueCount(self.column.name), sum_part(self.column), *lower)

    @property
    def family(self) -> RangeFamily | None:
        """All moments of a view."""
        return MomentRanges

    def merge_groups(
        self, mine: Sequence[FieldValues], required: Sequence[FieldValues], starts: Int64Array
    ) -> tuple[FieldValues, ...]:
        """The merge of the module docstring for each run of rows; infinite or NaN beyond the range of doubles."""
        arrays = [np.asarray(field) for field in required]
        sums = arrays[: len(arrays) - (self.power - 2)]
        moments = [*arrays[len(sums) :], np.asarray(mine[0])]
        with np.errstate(over="ignore", invalid="ignore"):
            return (self._merged(sums, moments, starts),)

    def _merged(self, sums: Sequence[Array], moments: Sequence[Array], starts: Int64Array) -> Array:
        """The moment of each run."""
        merged = [np.add.reduceat(field, starts) for field in sums]
        sizes = np.diff(starts, append=len(sums[0]))
        distance = _distances(sums, merged, starts, sizes)
        weighted = sums[0] * distance
        bias = np.add.reduceat(weighted, starts) / np.maximum(merged[0], 1)
        squared = weighted * distance
        squares = np.add.reduceat(moments[0] + squared, starts)
        if self.power == 2:
            return np.maximum(squares - bias * bias * merged[0], 0.0)
        cubes = np.add.reduceat(moments[1] + distance * (3 * moments[0] + squared), starts) - 3 * bias * squares
        if self.power == 3:
            return np.asarray(cubes)
        fourths = moments[2] + distance * (4 * moments[1] + distance * (6 * moments[0] + squared))
        return np.maximum(np.add.reduceat(fourths, starts) - 4 * bias * cubes, 0.0)


def _distances(sums: Sequence[Array], merged: Sequence[Array], starts: Int64Array, sizes: Int64Array) -> Array:
    """(N,) mean of each row less the mean of its run."""
    means = mean_of(merged)
    if sums[1].dtype.kind == "f":
        return np.asarray(mean_of(sums) - np.repeat(means, sizes))
    count, low = sums[0], sums[-1]
    high = sums[1] if len(sums) == 3 else np.zeros_like(low)
    reference = np.repeat(np.rint(means.clip(-REFERENCE_MAX, REFERENCE_MAX)).astype(np.int64), sizes)
    estimate = join_float(high, low) - count * reference.astype(np.float64)
    # Wrapping arithmetic is exact wherever the result fits.
    rest = np.where(np.abs(estimate) < SAFELY_INT64, (high << LOW_BITS) + low - count * reference, estimate)
    mean_rest = np.add.reduceat(rest, starts) / np.maximum(merged[0], 1)
    return np.asarray(rest / np.maximum(count, 1) - np.repeat(mean_rest, sizes))


class MomentRanges:
    """The moments of any number of columns and windows in one compiled loop.

    Attributes:
        picks: what `merge_moments` is asked for.
    """

    def __init__(self, layout: TileLayout, asks: Sequence[Ask]) -> None:
        picks = []
        for ask in asks:
            part = ask.part.part
            assert isinstance(part, Moment)
            lower = part.power - 2
            count, *others = ask.part.required
            sums, moments = others[: len(others) - lower], [*others[len(others) - lower :], *ask.part.fields]
            kind = _FLOAT_SUM if sums[0].storage is Storage.FLOAT else _INT_SUM if len(sums) == 1 else _SPLIT_SUM
            rows = [moment.row for moment in moments] + [0] * (3 - len(moments))
            picks.append(
                (count.row, kind, sums[0].row, sums[-1].row, *rows, part.power, ask.window, ask.slots[0]),
            )
        self.picks = np.array(picks, dtype=np.int64)

    def __call__(self, table: TileTable, bounds: Int64Array, out: Gathered, row: int) -> None:
        """Merge."""
        rests = np.empty(table.count, dtype=np.float64)
        merge_moments(table.ints, table.floats, bounds, self.picks, rests, out.floats, row)


_FLOAT_SUM, _INT_SUM, _SPLIT_SUM = 0, 1, 2


@borrowing
def _take_rests(
    ints: Int64Array, floats: Float64Array, begin: int, end: int, pick: Int64Array, rests: Float64Array
) -> Any:
    """Sums of rows less count times a number near the mean of all; returns the mean of the rests."""
    count, kind, high, low = pick[0], pick[1], pick[2], pick[3]
    unit = float(1 << LOW_BITS)
    number, upper, lower, summed = np.int64(0), np.int64(0), np.int64(0), 0.0
    for row in range(begin, end):
        number += ints[count, row]
        if kind == _FLOAT_SUM:
            rests[row] = floats[high, row]
            summed += rests[row]
        else:
            lower += ints[low, row]
            if kind == _SPLIT_SUM:
                upper += ints[high, row]
    many_in_all = float(number) if number > 0 else 1.0
    if kind == _FLOAT_SUM:
        return summed / many_in_all
    mean = (upper * unit + lower) / many_in_all
    reference = np.int64(np.rint(min(max(mean, -REFERENCE_MAX), REFERENCE_MAX)))
    summed = 0.0
    for row in range(begin, end):
        most = ints[high, row] if kind == _SPLIT_SUM else np.int64(0)
        rests[row] = most * unit + ints[low, row] - float(ints[count, row]) * float(reference)
        # Wrapping arithmetic is exact wherever the result fits.
        if abs(rests[row]) < SAFELY_INT64:
            rests[row] = float((most << LOW_BITS) + ints[low, row] - ints[count, row] * reference)
        summed += rests[row]
    return summed / many_in_all


@compiled(INT, INT_MATRIX, FLOAT_MATRIX, INTS, INT_MATRIX, FLOATS, FLOAT_MATRIX, INT, allocates=False)
def merge_moments(
    ints: Int64Array,
    floats: Float64Array,
    bounds: Int64Array,
    picks: Int64Array,
    rests: Float64Array,
    out: Float64Array,
    out_row: int,
) -> int:
    """Picks (K, 10): count field, kind of sum, its two fields, three moment fields, power, window, slot.

    `rests` is room for N numbers.
    """
    width = len(bounds) // 2
    for index in range(len(picks)):
        count, second, third, fourth = picks[index, 0], picks[index, 4], picks[index, 5], picks[index, 6]
        power, window = picks[index, 7], picks[index, 8]
        begin, end = bounds[window], bounds[width + window]
        mean = _take_rests(ints, floats, begin, end, picks[index], rests)
        number = np.int64(0)
        bias, squares, cubes, fourths = 0.0, 0.0, 0.0, 0.0
        for row in range(begin, end):
            many = ints[count, row]
            number += many
            distance = rests[row] / (many if many > 0 else 1) - mean
            weighted = many * distance
            squared = weighted * distance
            bias += weighted
            squares += floats[second, row] + squared
            if power >= 3:
                cubes += floats[third, row] + distance * (3.0 * floats[second, row] + squared)
            if power >= 4:
                inner = 4.0 * floats[third, row] + distance * (6.0 * floats[second, row] + squared)
                fourths += floats[fourth, row] + distance * inner
        bias /= number if number > 0 else 1
        if power == 2:
            value = max(squares - bias * bias * number, 0.0)
        else:
            value = cubes - 3.0 * bias * squares
        if power == 4:
            value = max(fourths - 4.0 * bias * value, 0.0)
        out[picks[index, 9], out_row] = value
    return 0
