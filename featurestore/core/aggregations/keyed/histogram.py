"""histogram, mode and entropy: what the values of a column are, how often each occurs, how evenly.

All exact, from the same multiset. Null over no values, and null when there are more distinct values than the bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, AggregationBase, Lowered
from featurestore.core.aggregations.keyed.multiset import Multiset, each_multiset
from featurestore.core.aggregations.keyed.states import no_answers
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Part


@dataclass(frozen=True, slots=True)
class Histogram(AggregationBase):
    """Count of each non-null value as a map; its keys are texts, ascending by value."""

    bound: int
    input_types = ANY_TYPE

    @property
    def name(self) -> str:
        """The catalog's name with its bound."""
        return f"histogram({self.bound})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """A map from text to INT64."""
        return ValueType.INT64_MAP if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The values."""
        assert column is not None
        return (Multiset(column, self.bound),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The counts."""
        (states,) = fields
        maps, null = no_answers(states.shape), np.ones(states.shape, dtype=np.bool_)
        for place, entries in each_multiset(states, self.bound):
            maps[place] = dict(zip(entries.texts(), entries.ints[0].tolist(), strict=True))
            null[place] = False
        return Lowered(maps, null)


@dataclass(frozen=True, slots=True)
class Mode(AggregationBase):
    """The most frequent non-null value; among equally frequent ones the smallest, texts in the order of UTF-8."""

    bound: int
    input_types = ANY_TYPE

    @property
    def name(self) -> str:
        """The catalog's name with its bound."""
        return f"mode({self.bound})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """The column's own type."""
        return column_type if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The values."""
        assert column is not None
        return (Multiset(column, self.bound),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The first of the highest counts: keys ascend."""
        (states,) = fields
        modes, null = no_answers(states.shape), np.ones(states.shape, dtype=np.bool_)
        for place, entries in each_multiset(states, self.bound):
            modes[place] = entries.key_values()[int(entries.ints[0].argmax())]
            null[place] = False
        return Lowered(modes, null)


@dataclass(frozen=True, slots=True)
class Entropy(AggregationBase):
    """Shannon entropy of the non-null values in bits: 0 when all are equal, log2(n) when n values are equally frequent.

    Source: Shannon, "A mathematical theory of communication", 1948.
    """

    bound: int
    input_types = ANY_TYPE

    @property
    def name(self) -> str:
        """The catalog's name with its bound."""
        return f"entropy({self.bound})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64."""
        return ValueType.FLOAT64 if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The values."""
        assert column is not None
        return (Multiset(column, self.bound),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """sum(c / n log2(n / c)): no term is negative, so nothing cancels."""
        (states,) = fields
        bits, null = np.zeros(states.shape), np.ones(states.shape, dtype=np.bool_)
        for place, entries in each_multiset(states, self.bound):
            counts = entries.ints[0].tolist()
            total = sum(counts)
            bits[place] = math.fsum(count / total * math.log2(total / count) for count in counts)
            null[place] = False
        return Lowered(bits, null)
