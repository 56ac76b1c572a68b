"""count: events, or non-null values of a column. Distributive, exact; 0 over no events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.core.aggregations.base import ANY_TYPE, AggregationBase, Lowered
from featurestore.core.aggregations.formulas import Formula
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Part, RowCount, ValueCount


@dataclass(frozen=True, slots=True)
class Count(AggregationBase):
    """Number of rows without a column, of non-null values with one."""

    name = "count"
    requires_column = False
    input_types = ANY_TYPE
    is_invertible = True
    formula = (Formula.AS_IS, 0)

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """INT64."""
        return ValueType.INT64 if column_type is None or column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """One counter."""
        return (RowCount(),) if column is None else (ValueCount(column.name),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The counter; never null."""
        return Lowered(fields[0])
