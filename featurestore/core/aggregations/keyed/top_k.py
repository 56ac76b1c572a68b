"""top_k and bottom_k: the n largest or smallest values of a column, as a list.

An accumulator keeps the n most extreme values with how often each occurs, so duplicates stay and merging is exact:
what is not among the n of a part cannot be among the n of the whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import ORDERED, AggregationBase, Lowered
from featurestore.core.aggregations.keyed.kernels import LARGEST, SMALLEST
from featurestore.core.aggregations.keyed.states import ValueCounts, no_answers, read_state
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Part

LENGTH_MAX = 1_000
"""Longest list."""


class ExtremeValues(ValueCounts):
    """The n largest or smallest values of a column, duplicates included."""

    def __init__(self, column: Column, length: int, is_top: bool) -> None:
        key = f"{'largest' if is_top else 'smallest'}({column.name},{length})"
        super().__init__(key, column, policy=LARGEST if is_top else SMALLEST, limit=length)


@dataclass(frozen=True, slots=True)
class TopK(AggregationBase):
    """The `length` largest values in descending order (top_k), or smallest in ascending order (bottom_k).

    Equal values stay; the list is shorter when there are fewer values, null when there is none.
    """

    length: int
    is_top: bool
    input_types = ORDERED

    @property
    def name(self) -> str:
        """The catalog's name with its length."""
        return f"{'top_k' if self.is_top else 'bottom_k'}({self.length})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """A list of the column's kind of number; moments are milliseconds."""
        if column_type not in self.input_types:
            return None
        return ValueType.FLOAT64_LIST if column_type is ValueType.FLOAT64 else ValueType.INT64_LIST

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The extreme values."""
        assert column is not None
        return (ExtremeValues(column, self.length, self.is_top),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """Each value as often as it occurs, most extreme first."""
        (states,) = fields
        lists, null = no_answers(states.shape), np.ones(states.shape, dtype=np.bool_)
        for place, state in np.ndenumerate(states):
            if state:
                entries = read_state(state)
                ascending = list(
                    itertools.chain.from_iterable(
                        itertools.repeat(key, count)
                        for key, count in zip(entries.key_values(), entries.ints[0].tolist(), strict=True)
                    )
                )
                lists[place] = ascending[::-1] if self.is_top else ascending
                null[place] = False
        return Lowered(lists, null)
