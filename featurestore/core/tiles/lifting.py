"""Lifting in bulk: N events become N values of every field, as columns.

The same rules exist a second time as a compiled loop over the few rows of a head (`wire.head_kernels`), where a numpy
call costs more than the work; a property test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from featurestore.core.events import BlobRow, ColumnValues, Int64Array
from featurestore.core.tiles.parts import Array, EventRows, Field, FieldValues, Lift, Merge, Storage, split_int

_ONE = np.ones(1, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Input:
    """An input of parts that is not simply a column: a column, or the event as such, under a condition.

    Attributes:
        column: column that the values come from; None stands for the event, whose value is 1.
        where: BOOL column; events for which it is not true have no value.
    """

    column: str | None
    where: str


@dataclass(frozen=True, slots=True)
class Inputs(Mapping[str, ColumnValues]):
    """The inputs of parts over N events, made when asked for.

    Attributes:
        columns: what was decoded or computed.
        conditional: inputs that are something else than one of those columns, by name.
    """

    columns: Mapping[str, ColumnValues]
    conditional: Mapping[str, Input]

    def __getitem__(self, name: str) -> ColumnValues:
        """The input of that name."""
        source = self.conditional.get(name)
        if source is None:
            return self.columns[name]
        condition = self.columns[source.where]
        flag = np.asarray(condition.values)
        holds = flag.astype(np.bool_)  # null holds 0
        if source.column is None:
            return ColumnValues(flag, holds)
        column = self.columns[source.column]
        valid = holds if column.valid is None else holds & column.valid
        if isinstance(column.values, BlobRow):
            return ColumnValues(column.values.keep(valid), valid)
        if column.values.dtype == np.object_:
            return ColumnValues(np.where(valid, column.values, b""), valid)
        return ColumnValues(np.where(valid, column.values, 0), valid)

    def __iter__(self) -> Iterator[str]:
        yield from self.columns
        yield from self.conditional

    def __len__(self) -> int:
        return len(self.columns) + len(self.conditional)


def lift_field(field: Field, rows: EventRows, sign: Int64Array | None) -> FieldValues:
    """Values of one field that lifts without help, (N,), or (1,) where all are the same.

    Args:
        field: the field.
        rows: the events.
        sign: (N,) -1 for events that undo an earlier one, else 1; None when there are none.
    """
    if field.lift is Lift.EVENT_ID:
        ids = BlobRow.of([b""] * rows.count if rows.event_ids is None else rows.event_ids)
        valid = None if field.column is None else rows.columns[field.column].valid
        return ids if valid is None else ids.keep(valid)
    if field.storage is Storage.BLOB:
        assert field.column is not None, "a text comes from a column"
        return BlobRow.of(rows.columns[field.column].values)
    values = _numbers(field, rows)
    return values if sign is None or field.merge is not Merge.ADD else values * sign


def _numbers(field: Field, rows: EventRows) -> Array:
    """Values of an INT or FLOAT field."""
    dtype = np.int64 if field.storage is Storage.INT else np.float64
    if field.lift is Lift.NOTHING:
        return np.full(1, field.identity, dtype=dtype)
    if field.lift is Lift.ONE:
        return _ONE.astype(dtype)
    if field.column is None:
        assert field.lift is Lift.TIME
        return rows.event_time_ms
    column = rows.columns[field.column]
    if field.lift is Lift.VALID:
        return _ONE if column.valid is None else column.valid.astype(np.int64)
    values = rows.event_time_ms if field.lift is Lift.TIME else np.asarray(column.values)
    if field.lift in (Lift.HIGH, Lift.LOW):
        return split_int(values)[field.lift is Lift.LOW]
    if column.valid is None or (field.identity == 0 and field.lift is Lift.VALUE):
        return values.astype(dtype, copy=False)  # null rows hold 0
    return np.where(column.valid, values, np.array(field.identity, dtype=dtype))
