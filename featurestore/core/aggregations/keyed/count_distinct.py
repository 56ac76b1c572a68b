"""count_distinct: how many different values; exactly while they are held, from a HyperLogLog sketch beyond.

Holistic (Gray et al. 1997): no bounded accumulator counts any number of distinct values exactly, hence the bound. What
is beyond it is the busiest merchant, or the card that is tried at every shop: there the number is the signal, and a
null would read as "no data".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, AggregationBase, Lowered
from featurestore.core.aggregations.keyed.multiset import Multiset, count_of, held_values
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Part


@dataclass(frozen=True, slots=True)
class CountDistinct(AggregationBase):
    """Number of distinct non-null values; 0 over none, never null.

    Exact up to `bound`, and up to 1,000 if that is lower. Above, an estimate by HyperLogLog with 4,096 registers: its
    standard error is 1.6 %, and it is never less than the first number that is not exact. Exactly mergeable.
    """

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
        """How many there are, or about how many."""
        (states,) = fields
        counts, held = np.zeros(states.shape, dtype=np.int64), held_values(self.bound)
        for place, state in np.ndenumerate(states):
            if state:
                counts[place] = count_of(state, held)
        return Lowered(counts)
