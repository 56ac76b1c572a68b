"""When the first and the last event were: as moments, as time gone by at the read, and as the mean gap between events.

    first_event_time, last_event_time      TIMESTAMP
    time_since_first, time_since_last      INT64, ms from that event to the read time
    mean_gap                               FLOAT64, ms: (last - first) / (n - 1); null below two events

Without a column all events count, with one those that have a value in it. All are exact and null over no events; an
offset window's events are further away from the read time than the offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, AggregationBase, Lowered
from featurestore.core.aggregations.numbers.min_max import INT64_MAX, INT64_MIN
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Field, Lift, Merge, Part, PartBase, RowCount, Storage, ValueCount


@dataclass(frozen=True, slots=True)
class EventTime(PartBase):
    """Time of the oldest or newest event, of those with a value in `column` or of all.

    No event is as old as the identity, so it tells emptiness by itself.
    """

    column: str | None
    is_newest: bool

    @property
    def key(self) -> str:
        """Canonical text."""
        return f"{'newest' if self.is_newest else 'oldest'}_time({self.column or ''})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """One integer, ms."""
        merge = Merge.MAX if self.is_newest else Merge.MIN
        return (Field("time_ms", Storage.INT, merge, _nothing_ms(self.is_newest), Lift.TIME, self.column),)


@dataclass(frozen=True, slots=True)
class EdgeTime(AggregationBase):
    """Time of the oldest (first_event_time) or newest (last_event_time) event."""

    is_newest: bool
    requires_column = False
    input_types = ANY_TYPE

    @property
    def name(self) -> str:
        """The catalog's name."""
        return "last_event_time" if self.is_newest else "first_event_time"

    @property
    def counts_in_flight(self) -> bool:
        """Not as the newest: that is asked to hold what came before against it."""
        return not self.is_newest

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """TIMESTAMP."""
        return ValueType.TIMESTAMP if column_type is None or column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """One time."""
        return (EventTime(None if column is None else column.name, self.is_newest),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The time."""
        (times,) = fields
        return Lowered(times, times == _nothing_ms(self.is_newest))


@dataclass(frozen=True, slots=True)
class TimeSince(AggregationBase):
    """Milliseconds from the oldest (time_since_first) or newest (time_since_last) event to the read time."""

    is_newest: bool
    requires_column = False
    ages = True
    input_types = ANY_TYPE

    @property
    def name(self) -> str:
        """The catalog's name."""
        return "time_since_last" if self.is_newest else "time_since_first"

    @property
    def counts_in_flight(self) -> bool:
        """Not as the newest: that is asked to hold what came before against it."""
        return not self.is_newest

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """INT64."""
        return ValueType.INT64 if column_type is None or column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """One time."""
        return (EventTime(None if column is None else column.name, self.is_newest),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """Read time less event time; wraps where there is no event, which is null."""
        (times,) = fields
        return Lowered(as_of_ms - times, times == _nothing_ms(self.is_newest))


@dataclass(frozen=True, slots=True)
class MeanGap(AggregationBase):
    """Mean time between consecutive events, ms."""

    name = "mean_gap"
    requires_column = False
    input_types = ANY_TYPE

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64."""
        return ValueType.FLOAT64 if column_type is None or column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """Count, oldest and newest time."""
        name = None if column is None else column.name
        count = RowCount() if name is None else ValueCount(name)
        return (count, EventTime(name, is_newest=False), EventTime(name, is_newest=True))

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The gaps add up to the whole span."""
        count, oldest, newest = fields
        null = count < 2
        return Lowered(np.where(null, 0, newest - oldest) / np.maximum(count - 1, 1), null)


def _nothing_ms(is_newest: bool) -> int:
    """The newest, or oldest, time of no event."""
    return INT64_MIN if is_newest else INT64_MAX
