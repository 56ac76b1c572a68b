"""stddev_pop and stddev_samp: algebraic, by sums of squared deviations that never subtract large squares.

A tile keeps count, sum and the spread M2 = sum((x - mean)**2). Merging tiles i adds how far their means lie from the
mean of all, which is the pairwise update of Chan, Golub and LeVeque for any number of sides at once:

    M2 = sum(M2_i) + sum(count_i * (mean_i - mean)**2)

Integer sums are exact, so a constant column has equal means everywhere and M2 is exactly 0. The mean of all is rounded,
so what the deviations from it still add up to is taken out again (`_without_bias`); beyond 2**53 the tiles' own means
are rounded too, and digits are lost.

Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import NUMBERS, Lowered
from featurestore.core.aggregations.sums import mean_of, sum_part
from featurestore.core.events import Int64Array
from featurestore.core.parts import Array, EventRows, Field, FieldValues, Merge, Part, Storage, ValueCount
from featurestore.core.spec import Column, ValueType

_ZERO = np.zeros(1)


def _without_bias(squares: Array, deviations: Array, counts: Array) -> Array:
    """Squares around a mean that was rounded, as squares around the mean: the second pass of the two-pass algorithm."""
    return np.maximum(squares - deviations * deviations / np.maximum(counts, 1), 0.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """M2 of a column; reads the count and the sum that are stored beside it."""

    column: Column

    @property
    def key(self) -> str:
        """Canonical text."""
        return f"spread({self.column.name})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """One float."""
        return (Field("m2", Storage.FLOAT, Merge.OWN, 0.0),)

    @property
    def requires(self) -> tuple[Part, ...]:
        """Count of values and their sum."""
        return (ValueCount(self.column.name), sum_part(self.column))

    @property
    def reads_event_ids(self) -> bool:
        """No."""
        return False

    def lift(self, rows: EventRows) -> tuple[FieldValues, ...]:
        """0: one value does not deviate from itself."""
        return (_ZERO,)

    def merge_groups(
        self, mine: Sequence[FieldValues], required: Sequence[FieldValues], starts: Int64Array
    ) -> tuple[FieldValues, ...]:
        """The merge of the module docstring for each run of rows."""
        spread, sums = np.asarray(mine[0]), [np.asarray(field) for field in required]
        merged = [np.add.reduceat(field, starts) for field in sums]
        sizes = np.diff(starts, append=len(spread))
        deviation = mean_of(sums) - np.repeat(mean_of(merged), sizes)
        weighted = sums[0] * deviation
        squares = np.add.reduceat(spread + weighted * deviation, starts)
        return (_without_bias(squares, np.add.reduceat(weighted, starts), merged[0]),)

    def merge_ranges(
        self,
        mine: Sequence[FieldValues],
        required: Sequence[FieldValues],
        merged: Sequence[Array],
        lows: Int64Array,
        highs: Int64Array,
    ) -> tuple[FieldValues | None, ...]:
        """The same for W ranges as one (W, N) matrix; only windows that ask for a deviation come here: a few."""
        sums = [np.asarray(field) for field in required]
        rows = np.arange(len(sums[0]))
        inside = (rows >= lows[:, None]) & (rows < highs[:, None])
        deviation = mean_of(sums) - mean_of(merged)[:, None]
        weighted = deviation * sums[0]
        deviation *= weighted
        deviation += np.asarray(mine[0])
        squares = deviation.sum(axis=1, where=inside)
        return (_without_bias(squares, weighted.sum(axis=1, where=inside), merged[0]),)

    def normalize(self, mine: Sequence[FieldValues]) -> tuple[FieldValues, ...]:
        """Already compact."""
        return tuple(mine)


@dataclass(frozen=True, slots=True)
class StandardDeviation:
    """Standard deviation of the non-null values: of the population (pop), or of a sample (samp, divided by n - 1).

    Null over no values; the sample's also over one value.
    """

    is_sample: bool
    requires_column: bool = True
    input_types: frozenset[ValueType] = NUMBERS
    is_commutative: bool = True
    is_invertible: bool = False

    @property
    def name(self) -> str:
        """stddev_pop or stddev_samp."""
        return "stddev_samp" if self.is_sample else "stddev_pop"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64."""
        return ValueType.FLOAT64 if column_type in self.input_types else None

    def parts(self, column: Column | None) -> tuple[Part, ...]:
        """Count of values and their spread."""
        assert column is not None
        return (ValueCount(column.name), Spread(column))

    def lower(self, fields: Sequence[Array]) -> Lowered:
        """sqrt(M2 / n), or of n - 1."""
        degrees = fields[0] - int(self.is_sample)
        return Lowered(np.sqrt(fields[1] / np.maximum(degrees, 1)), degrees <= 0)
