"""What an aggregation is: the parts it needs, and how their merged fields become the answer.

The four verbs of the algebra are spread so that nothing is written twice: identity, lift and merge belong to the
shared parts, lower to the aggregation. `featurestore.testing.laws` puts them together again for the law suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from featurestore.core.events import BoolArray
from featurestore.core.parts import Array, Part
from featurestore.core.spec import Column, ValueType

NUMBERS = frozenset({ValueType.INT64, ValueType.FLOAT64, ValueType.BOOL})
"""Types that can be added up; a BOOL counts as 0 or 1."""

ORDERED = frozenset({ValueType.INT64, ValueType.FLOAT64, ValueType.TIMESTAMP})
"""Types that have a smallest and a largest value worth asking for."""

ANY_TYPE = frozenset(ValueType)


@dataclass(frozen=True, slots=True)
class Lowered:
    """K answers.

    Attributes:
        values: (K,) int64, float64 or object (bytes), by the output type; anything where null.
        null: (K,) True where there is no answer; None when all have one.
    """

    values: Array
    null: BoolArray | None = None


class Aggregation(Protocol):
    """One aggregation of the catalog."""

    @property
    def name(self) -> str:
        """Canonical text, as in Aggregation.function."""
        ...

    @property
    def requires_column(self) -> bool:
        """False when it can count rows."""
        ...

    @property
    def input_types(self) -> frozenset[ValueType]:
        """Column types it takes."""
        ...

    @property
    def is_commutative(self) -> bool:
        """Whether merge may swap its sides."""
        ...

    @property
    def is_invertible(self) -> bool:
        """Whether an accumulator can be taken out again."""
        ...

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """Type of the answer over a column of that type; None when it cannot be taken."""
        ...

    def parts(self, column: Column | None) -> tuple[Part, ...]:
        """The parts it reads, in the order in which `lower` takes their fields."""
        ...

    def lower(self, fields: Sequence[Array]) -> Lowered:
        """The answers of K features (of one column type) from the merged fields of their parts, each (K,)."""
        ...
