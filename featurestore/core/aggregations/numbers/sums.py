"""sum and mean: exact in integers, one rounding in the mean. sum is 0 and mean null over no values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import NUMBERS, AggregationBase, Lowered
from featurestore.core.aggregations.formulas import Formula
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import LOW_BITS, Array, FlagSum, FloatSum, IntSum, Part, ValueCount, join_float

SAFELY_INT64 = float(1 << 62)
"""A sum whose float value is below this fits in int64 without doubt."""


def sum_part(column: Column) -> Part:
    """The exact sum of integers or flags, or the float sum, by the column's type."""
    if column.type is ValueType.FLOAT64:
        return FloatSum(column.name)
    return FlagSum(column.name) if column.type is ValueType.BOOL else IntSum(column.name)


@dataclass(frozen=True, slots=True)
class Sum(AggregationBase):
    """Sum of the non-null values. An integer sum outside int64 is null, never wrapped."""

    name = "sum"
    input_types = NUMBERS
    is_invertible = True
    formula = (Formula.TOTAL, 0)

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64 of FLOAT64, INT64 of the others."""
        if column_type not in self.input_types:
            return None
        return ValueType.FLOAT64 if column_type is ValueType.FLOAT64 else ValueType.INT64

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """One sum."""
        assert column is not None
        return (sum_part(column),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The sum; null only when it does not fit."""
        if len(fields) == 1:
            return Lowered(fields[0])
        high, low = fields
        carried = high + (low >> LOW_BITS)
        limit = 1 << (63 - LOW_BITS)
        values = (carried << LOW_BITS) | (low & ((1 << LOW_BITS) - 1))
        return Lowered(values, (carried < -limit) | (carried >= limit))


@dataclass(frozen=True, slots=True)
class Mean(AggregationBase):
    """Arithmetic mean of the non-null values."""

    name = "mean"
    input_types = NUMBERS
    is_invertible = True
    formula = (Formula.MEAN, 0)

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64."""
        return ValueType.FLOAT64 if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """Count of values and their sum."""
        assert column is not None
        return (ValueCount(column.name), sum_part(column))

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The sum divided by the count; null also where more was undone than done."""
        return Lowered(mean_of(fields), fields[0] <= 0)


def mean_of(fields: Sequence[Array]) -> Array:
    """Means from (count, sum) or (count, high, low); without meaning where the count is not positive."""
    total = fields[1] if len(fields) == 2 else join_float(fields[1], fields[2])
    return np.asarray(total / np.maximum(fields[0], 1))
