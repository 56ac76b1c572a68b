"""first respect nulls, last respect nulls: the value of the oldest or newest event, null where that has none.

SQL's RESPECT NULLS; plain first and last are its IGNORE NULLS. Ordered as they are, by (event_time_ms, event id as
bytes, value), a null behind every value. What is kept is an `EventList` of one entry, of all events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, AggregationBase, Lowered
from featurestore.core.aggregations.ordered.event_lists import EventList, Kind, value_or_null
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Part

_DTYPES = {Kind.INTEGER_OR_NULL: np.int64, Kind.FLOAT_OR_NULL: np.float64, Kind.TEXT_OR_NULL: np.object_}


@dataclass(frozen=True, slots=True)
class EdgeOrNull(AggregationBase):
    """Value of the oldest (first) or newest (last) event, whatever it has; null over no events."""

    is_newest: bool
    input_types = ANY_TYPE
    keeps_nulls = True

    @property
    def name(self) -> str:
        """Canonical text."""
        return f"{'last' if self.is_newest else 'first'} respect nulls"

    @property
    def counts_in_flight(self) -> bool:
        """Not as the newest: that is asked to hold what came before against it."""
        return not self.is_newest

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """The column's type."""
        return column_type if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """A list of one."""
        assert column is not None
        return (EventList(column, 1, self.is_newest, is_distinct=False, keeps_nulls=True),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The value of the only entry."""
        (states,) = fields
        found = {at: state for at, state in np.ndenumerate(states) if state}
        kind = Kind(next(iter(found.values()))[0]) if found else Kind.INTEGER_OR_NULL
        values: Array = np.zeros(states.shape, dtype=_DTYPES[kind])
        null = np.ones(states.shape, dtype=np.bool_)
        for at, state in found.items():
            value = value_or_null(state)
            if value is not None:
                values[at], null[at] = value, False
        return Lowered(values, null)
