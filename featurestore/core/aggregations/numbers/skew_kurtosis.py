"""skew and kurtosis: how lopsided and how heavy-tailed the values are, from central moments up to the fourth.

    skew      g1 = sqrt(n) M3 / M2**1.5        null below 3 values
    kurtosis  g2 = n M4 / M2**2 - 3            null below 4 values; of the population, 0 for a normal distribution

Both are those of the population, as in Chronon, and null where all values are equal. In a float column they would
divide noise by noise where the values hardly differ, so they are null there where the standard deviation is no more
than n roundings of the mean, n 2**-52 |mean|; sums of integers are exact. They also are null where it is below 1e-70 or
where a fourth power leaves the range of doubles (deviations beyond 1e75).

Source: Joanes and Gill, "Comparing measures of sample skewness and kurtosis", The Statistician 47, 1998.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import NUMBERS, AggregationBase, Lowered
from featurestore.core.aggregations.numbers.moments import Moment
from featurestore.core.aggregations.numbers.sums import mean_of, sum_part
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Part, ValueCount

DEVIATION_MIN = 1e-70
"""Standard deviation below which fourth powers lose their digits to underflow."""

ROUNDING = 2.0**-52
"""Relative rounding of one addition of doubles, both neighbours of the mean included."""


@dataclass(frozen=True, slots=True)
class Shape(AggregationBase):
    """Skewness g1 (power 3) or excess kurtosis g2 (power 4) of the non-null values; see the module docstring."""

    power: int
    input_types = NUMBERS

    @property
    def name(self) -> str:
        """Skew or kurtosis."""
        return "skew" if self.power == 3 else "kurtosis"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64."""
        return ValueType.FLOAT64 if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """Count and sum of values, for the mean; second moment and the one of the power."""
        assert column is not None
        return (ValueCount(column.name), sum_part(column), Moment(column, 2), Moment(column, self.power))

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """g1 or g2."""
        *sums, squares, powers = fields
        count = sums[0]
        roundings = count if sums[1].dtype.kind == "f" else 0
        variance = squares / np.maximum(count, 1)
        noise = np.maximum(roundings * ROUNDING * np.abs(mean_of(sums)), DEVIATION_MIN)
        # Sums of huge floats may be infinite or NaN; whatever comes of them is null.
        with np.errstate(over="ignore", invalid="ignore"):
            is_constant = ~(variance > noise * noise)
            spread = np.where(is_constant, 1.0, squares)
            if self.power == 3:
                values = np.sqrt(count) * (powers / spread) / np.sqrt(spread)
            else:
                values = count * (powers / spread) / spread - 3.0
        return Lowered(values, (count < self.power) | is_constant | ~np.isfinite(values))
