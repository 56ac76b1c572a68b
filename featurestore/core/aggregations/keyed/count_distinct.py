"""count_distinct: how many different values, exactly, up to a bound.

Holistic (Gray et al. 1997): no bounded accumulator counts any number of distinct values, hence the bound. Beyond it
`approx_count_distinct` estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, AggregationBase, Lowered
from featurestore.core.aggregations.keyed.states import Multiset, each_multiset
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Part


@dataclass(frozen=True, slots=True)
class CountDistinct(AggregationBase):
    """Number of distinct non-null values; 0 over none, null above `bound`."""

    bound: int
    input_types = ANY_TYPE

    @property
    def name(self) -> str:
        """The catalog's name with its bound."""
        return f"count_distinct({self.bound})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """INT64."""
        return ValueType.INT64 if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The values."""
        assert column is not None
        return (Multiset(column, self.bound),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """How many there are."""
        (states,) = fields
        counts = np.zeros(states.shape, dtype=np.int64)
        null = np.array([len(state) > 0 for state in states.ravel()], dtype=np.bool_).reshape(states.shape)
        for place, entries in each_multiset(states, self.bound):
            counts[place], null[place] = len(entries), False
        return Lowered(counts, null)
