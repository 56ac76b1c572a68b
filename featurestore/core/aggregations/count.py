"""count: events, or non-null values of a column. Distributive, exact; 0 over no events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.core.aggregations.base import ANY_TYPE, Lowered
from featurestore.core.parts import Array, Part, RowCount, ValueCount
from featurestore.core.spec import Column, ValueType


@dataclass(frozen=True, slots=True)
class Count:
    """Number of rows without a column, of non-null values with one."""

    name: str = "count"
    requires_column: bool = False
    input_types: frozenset[ValueType] = ANY_TYPE
    is_commutative: bool = True
    is_invertible: bool = True

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """Always INT64."""
        return ValueType.INT64

    def parts(self, column: Column | None) -> tuple[Part, ...]:
        """One counter."""
        return (RowCount(),) if column is None else (ValueCount(column.name),)

    def lower(self, fields: Sequence[Array]) -> Lowered:
        """The counter; never null."""
        return Lowered(fields[0])
