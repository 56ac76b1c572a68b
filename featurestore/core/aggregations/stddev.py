"""stddev_pop and stddev_samp: the square root of the variance, from the second central moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import NUMBERS, AggregationBase, Lowered
from featurestore.core.aggregations.moments import Moment
from featurestore.core.events import Int64Array
from featurestore.core.formulas import Formula
from featurestore.core.parts import Array, Part, ValueCount
from featurestore.core.spec import Column, ValueType


@dataclass(frozen=True, slots=True)
class StandardDeviation(AggregationBase):
    """Standard deviation of the non-null values: of the population (pop), or of a sample (samp, divided by n - 1).

    Null over no values; the sample's also over one value.
    """

    is_sample: bool
    input_types = NUMBERS

    @property
    def name(self) -> str:
        """stddev_pop or stddev_samp."""
        return "stddev_samp" if self.is_sample else "stddev_pop"

    @property
    def formula(self) -> tuple[Formula, int] | None:
        """M2 over the degrees of freedom."""
        return Formula.ROOT_MEAN_SQUARE, int(self.is_sample)

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64."""
        return ValueType.FLOAT64 if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """Count of values and their second moment."""
        assert column is not None
        return (ValueCount(column.name), Moment(column, 2))

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """sqrt(M2 / n), or of n - 1."""
        degrees = fields[0] - int(self.is_sample)
        return Lowered(np.sqrt(fields[1] / np.maximum(degrees, 1)), degrees <= 0)
