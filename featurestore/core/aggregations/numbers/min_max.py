"""min and max: distributive, exact, not invertible; null over no values.

Texts are ordered by their bytes in UTF-8, which is by code points: "Z" comes before "a", and "" before all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import ORDERED, AggregationBase, Lowered
from featurestore.core.aggregations.formulas import Formula
from featurestore.core.aggregations.keyed.states import no_answers, read_state
from featurestore.core.aggregations.keyed.top_k import ExtremeValues
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Field, Lift, Merge, Part, PartBase, Storage, ValueCount

INT64_MIN = -(1 << 63)
INT64_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ExtremeValue(PartBase):
    """Smallest or largest value of a column.

    The identity is the far end of the type. A column may hold that very number, so emptiness is told by ValueCount.
    """

    column: str
    type: ValueType
    is_max: bool

    @property
    def key(self) -> str:
        """Canonical text."""
        return f"{'max' if self.is_max else 'min'}({self.column})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """One number of the column's kind."""
        merge = Merge.MAX if self.is_max else Merge.MIN
        if self.type is ValueType.FLOAT64:
            far_end = float("-inf") if self.is_max else float("inf")
            return (Field("value", Storage.FLOAT, merge, far_end, Lift.VALUE, self.column),)
        return (Field("value", Storage.INT, merge, INT64_MIN if self.is_max else INT64_MAX, Lift.VALUE, self.column),)


@dataclass(frozen=True, slots=True)
class Extreme(AggregationBase):
    """Smallest (min) or largest (max) non-null value; of texts by their bytes in UTF-8."""

    is_max: bool
    input_types = ORDERED | {ValueType.STRING}
    formula = (Formula.WHERE_COUNTED, 0)

    @property
    def name(self) -> str:
        """The catalog's name."""
        return "max" if self.is_max else "min"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """The column's own type."""
        return column_type if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """Count of values and the extreme; of texts a list of one."""
        assert column is not None
        if column.type is ValueType.STRING:
            return (ExtremeValues(column, 1, self.is_max),)
        return (ValueCount(column.name), ExtremeValue(column.name, column.type, self.is_max))

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The extreme; null without values."""
        if len(fields) == 2:
            return Lowered(fields[1], fields[0] == 0)
        texts, null = no_answers(fields[0].shape), np.ones(fields[0].shape, dtype=np.bool_)
        for place, state in np.ndenumerate(fields[0]):
            if state:
                (texts[place],), null[place] = read_state(state).key_values(), False
        return Lowered(texts, null)
