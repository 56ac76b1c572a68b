"""first and last: the value of the oldest or newest event that has one.

Ordered by (event_time_ms, event id as bytes, value), so arrival order never decides: two events of one millisecond
are told apart by their ids, and where the source declares no id (or reuses one) by their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, Lowered
from featurestore.core.aggregations.extremes import INT64_MAX, INT64_MIN
from featurestore.core.events import BlobRow, Int64Array
from featurestore.core.parts import Array, EventRows, Field, FieldValues, Merge, Part, Storage, ValueCount
from featurestore.core.spec import Column, ValueType


@dataclass(frozen=True, slots=True)
class EdgeValue:
    """Time, id and value of the oldest or newest event with a value in `column`."""

    column: Column
    is_newest: bool

    @property
    def key(self) -> str:
        """Canonical text."""
        return f"{'newest' if self.is_newest else 'oldest'}({self.column.name})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """Time, id bytes, value."""
        value = {
            ValueType.FLOAT64: Field("value", Storage.FLOAT, Merge.OWN, 0.0),
            ValueType.STRING: Field("value", Storage.BLOB, Merge.OWN, b""),
        }.get(self.column.type, Field("value", Storage.INT, Merge.OWN, 0))
        return (
            Field("time_ms", Storage.INT, Merge.OWN, self._nothing_ms),
            Field("event_id", Storage.BLOB, Merge.OWN, b""),
            value,
        )

    @property
    def requires(self) -> tuple[Part, ...]:
        """None."""
        return ()

    @property
    def reads_event_ids(self) -> bool:
        """To break ties."""
        return True

    def lift(self, rows: EventRows) -> tuple[FieldValues, ...]:
        """The event itself; identity where its value is null."""
        ids = BlobRow.of([b""] * rows.count if rows.event_ids is None else rows.event_ids)
        column = rows.columns[self.column.name]
        values: FieldValues = column.values
        if self.column.type is ValueType.STRING:
            values = BlobRow.of(column.values)
        if column.valid is None:
            return rows.event_time_ms, ids, values
        return np.where(column.valid, rows.event_time_ms, self._nothing_ms), ids.keep(column.valid), values

    def merge_groups(
        self, mine: Sequence[FieldValues], required: Sequence[FieldValues], starts: Int64Array
    ) -> tuple[FieldValues, ...]:
        """The extreme row of each run; ids are compared only where times tie."""
        times = np.asarray(mine[0])
        extreme = (np.maximum if self.is_newest else np.minimum).reduceat(times, starts)
        sizes = np.diff(starts, append=len(times))
        candidates = np.flatnonzero(times == np.repeat(extreme, sizes))
        group = np.searchsorted(starts, candidates, side="right") - 1
        chosen = candidates[np.searchsorted(group, np.arange(len(starts)))]
        for tied in np.flatnonzero(np.bincount(group, minlength=len(starts)) > 1):
            chosen[tied] = self._extreme_row(mine, candidates[group == tied])
        return tuple(field[chosen] for field in mine)

    def merge_ranges(
        self,
        mine: Sequence[FieldValues],
        required: Sequence[FieldValues],
        merged: Sequence[Array],
        lows: Int64Array,
        highs: Int64Array,
    ) -> tuple[FieldValues | None, ...]:
        """The extreme row's value in each range; any value in an empty one, whose count of values says that."""
        times, values = np.asarray(mine[0]), mine[2]
        chosen = np.zeros(len(lows), dtype=np.int64)
        for index, (low, high) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
            if low < high:
                span = times[low:high]
                best = int(span.argmax() if self.is_newest else span.argmin())
                ties = (span == span[best]).nonzero()[0]
                chosen[index] = low + best if len(ties) == 1 else self._extreme_row(mine, ties + low)
        return None, None, values[chosen]

    def normalize(self, mine: Sequence[FieldValues]) -> tuple[FieldValues, ...]:
        """Already compact."""
        return tuple(mine)

    @property
    def _nothing_ms(self) -> int:
        """The time of no event."""
        return INT64_MIN if self.is_newest else INT64_MAX

    def _extreme_row(self, mine: Sequence[FieldValues], candidates: Int64Array) -> int:
        """Among rows of one time, the one with the extreme (id, value)."""
        _, ids, values = mine
        pick = max if self.is_newest else min
        return int(pick(candidates.tolist(), key=lambda row: (ids[row], values[row])))


@dataclass(frozen=True, slots=True)
class Edge:
    """Value of the oldest (first) or newest (last) event whose value is not null; null when there is none."""

    is_newest: bool
    requires_column: bool = True
    input_types: frozenset[ValueType] = ANY_TYPE
    is_commutative: bool = True
    is_invertible: bool = False

    @property
    def name(self) -> str:
        """The catalog's name."""
        return "last" if self.is_newest else "first"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """The column's own type."""
        return column_type

    def parts(self, column: Column | None) -> tuple[Part, ...]:
        """Count of values and the edge event."""
        assert column is not None
        return (ValueCount(column.name), EdgeValue(column, self.is_newest))

    def lower(self, fields: Sequence[Array]) -> Lowered:
        """The edge's value."""
        return Lowered(fields[3], fields[0] == 0)
