"""var_pop, var_samp, stddev_pop and stddev_samp: the second central moment by the number of values, or by one less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import NUMBERS, AggregationBase, Lowered
from featurestore.core.aggregations.formulas import Formula
from featurestore.core.aggregations.numbers.moments import Moment
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Part, ValueCount


@dataclass(frozen=True, slots=True)
class Variance(AggregationBase):
    """Variance of the non-null values: M2 / n of the population (pop), M2 / (n - 1) of a sample (samp).

    Null over no values; the sample's also over one value.
    """

    is_sample: bool
    input_types = NUMBERS

    @property
    def name(self) -> str:
        """var_samp or var_pop."""
        return "var_samp" if self.is_sample else "var_pop"

    @property
    def formula(self) -> tuple[Formula, int] | None:
        """M2 over the degrees of freedom."""
        return Formula.MEAN_SQUARE, int(self.is_sample)

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64."""
        return ValueType.FLOAT64 if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """Count of values and their second moment."""
        assert column is not None
        return (ValueCount(column.name), Moment(column, 2))

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """M2 by the degrees of freedom."""
        degrees = fields[0] - int(self.is_sample)
        return Lowered(fields[1] / np.maximum(degrees, 1), degrees <= 0)


@dataclass(frozen=True, slots=True)
class StandardDeviation(Variance):
    """Standard deviation of the non-null values: the square root of the variance, of the population or of a sample.

    Null over no values; the sample's also over one value.
    """

    @property
    def name(self) -> str:
        """stddev_samp or stddev_pop."""
        return "stddev_samp" if self.is_sample else "stddev_pop"

    @property
    def formula(self) -> tuple[Formula, int] | None:
        """The square root of M2 over the degrees of freedom."""
        return Formula.ROOT_MEAN_SQUARE, int(self.is_sample)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The variance's square root."""
        variance = super(StandardDeviation, self).lower(fields, as_of_ms)
        return Lowered(np.sqrt(variance.values), variance.null)
