"""What an aggregation is: the parts it needs, and how their merged fields become the answer.

The four verbs of the algebra are spread so that nothing is written twice: identity, lift and merge belong to the
shared parts, lower to the aggregation. `featurestore.testing.laws` puts them together again for the law suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from featurestore.core.aggregations.formulas import Formula
from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.spec import SCALAR_TYPES, Column, ValueType
from featurestore.core.tiles.parts import Array, Part

NUMBERS = frozenset({ValueType.INT64, ValueType.FLOAT64, ValueType.BOOL})
"""Types that can be added up; a BOOL counts as 0 or 1."""

ORDERED = frozenset({ValueType.INT64, ValueType.FLOAT64, ValueType.TIMESTAMP})
"""Types that have a smallest and a largest value worth asking for."""

ANY_TYPE = frozenset(SCALAR_TYPES)
"""All types that source columns have."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """Answers of K features over R rows.

    Attributes:
        values: (K, R) int64, float64 or object, by the output type; anything where null. Objects are Python values
            as the answer holds them, except that bytes stand for text.
        null: (K, R) True where there is no answer; None when all have one.
    """

    values: Array
    null: BoolArray | None = None


class Aggregation(Protocol):
    """One aggregation of the catalog."""

    @property
    def name(self) -> str:
        """Canonical text with parameters, as in Aggregation.function."""
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
    def further_columns(self) -> tuple[str, ...]:
        """Names of columns that it reads beside its own."""
        ...

    @property
    def is_commutative(self) -> bool:
        """Whether merge may swap its sides."""
        ...

    @property
    def is_invertible(self) -> bool:
        """Whether an accumulator can be taken out again, so that events may undo earlier ones."""
        ...

    @property
    def is_exactly_mergeable(self) -> bool:
        """Whether the order of merging cannot show, but for rounding; else the answer has a stated error."""
        ...

    @property
    def counts_in_flight(self) -> bool:
        """Whether a payment in flight counts unless its author says otherwise: no where the answer would be just it."""
        ...

    @property
    def ages(self) -> bool:
        """Whether the answer changes with the read time alone, over the same events."""
        ...

    @property
    def keeps_nulls(self) -> bool:
        """Whether an event without a value of the column counts, as one that has none."""
        ...

    @property
    def formula(self) -> tuple[Formula, int] | None:
        """The formula, and the degrees of freedom it takes off, that `lower` is; None: something else."""
        ...

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """Type of the answer over a column of that type; None when it cannot be taken."""
        ...

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The parts it reads, in the order in which `lower` takes their fields.

        Args:
            column: its own column; None counts rows.
            further: the further columns, in their order.
        """
        ...

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The answers of K features (of one column type) over R rows.

        Args:
            fields: the merged fields of its parts that are read, (K, R) each; bytes as objects for BLOB fields.
            as_of_ms: (R,) read times.
        """
        ...


class AggregationBase:
    """What most aggregations are: over one column, commutative like all of them, not invertible."""

    @property
    def requires_column(self) -> bool:
        """Yes."""
        return True

    @property
    def further_columns(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def is_commutative(self) -> bool:
        """Yes."""
        return True

    @property
    def is_invertible(self) -> bool:
        """No."""
        return False

    @property
    def is_exactly_mergeable(self) -> bool:
        """Yes."""
        return True

    @property
    def counts_in_flight(self) -> bool:
        """Yes."""
        return True

    @property
    def ages(self) -> bool:
        """No."""
        return False

    @property
    def keeps_nulls(self) -> bool:
        """No."""
        return False

    @property
    def formula(self) -> tuple[Formula, int] | None:
        """None."""
        return None
