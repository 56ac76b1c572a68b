"""<function> over last_events(n): the function of no more than the n newest events of its window.

    "sum over last_events(10)"     the sum of the 10 newest values of the column

An event without a value of the column is none of the n, as nulls are skipped everywhere. What is kept is what last_n(n)
keeps, an `EventList`: newest by (event_time_ms, event id as bytes, value). The function is computed from it when it is
read, by its own parts: an entry is lifted as the event that it was. So it means what it means over all events of a
window. A count keeps no list, as it only is n at most.

    time       lowering an answer: lifting and merging its n entries
    space      n entries a tile
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from featurestore.core.aggregations.base import Aggregation, AggregationBase, Lowered
from featurestore.core.aggregations.keyed.states import floats_of_bits
from featurestore.core.aggregations.ordered.event_lists import ENTRIES_MAX, EventList, Kind, read_entries
from featurestore.core.events import BlobRow, ColumnValues, Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, EventRows, Part, Storage
from featurestore.core.tiles.tiles import TileLayout, TileTable
from featurestore.errors import InvalidRequest

FUNCTIONS = (
    *("count", "sum", "mean", "min", "max", "stddev_pop", "stddev_samp", "var_pop", "var_samp", "skew", "kurtosis"),
    *("first", "last", "first_event_time", "last_event_time", "time_since_first", "time_since_last", "mean_gap"),
    "count_distinct",
)
"""Those that answer one value, exactly, from one column."""

_TYPE_OF = {Kind.INTEGER: ValueType.INT64, Kind.FLOAT: ValueType.FLOAT64, Kind.TEXT: ValueType.STRING}
_ENTRY_BYTES_MIN = 12
_VALUE = "value"


def over_newest(function: Aggregation, count: str) -> Aggregation:
    """The function over the newest events.

    Args:
        function: of all events.
        count: how many are the newest, as the author wrote it.

    Raises:
        InvalidRequest: the function is none of FUNCTIONS, or there is no such number.
    """
    name = function.name.partition("(")[0]
    if name not in FUNCTIONS or function.further_columns:
        hint = f"use {', '.join(FUNCTIONS)}; or last_n({count}), and take it from the list"
        raise InvalidRequest(f'function "{function.name}" is not taken over the last events', hint=hint)
    if not (count.isascii() and count.isdigit() and 1 <= int(count) <= ENTRIES_MAX):
        hint = f"give a number from 1 to {ENTRIES_MAX}"
        raise InvalidRequest(f'"{count}" is not a valid number of last events', hint=hint)
    return CountNewest(function, int(count)) if name == "count" else OverNewest(function, int(count))


@dataclass(frozen=True, slots=True)
class CountNewest(AggregationBase):
    """How many events, or values of a column, there are; n at most."""

    function: Aggregation
    limit: int
    requires_column = False

    @property
    def name(self) -> str:
        """Canonical text."""
        return f"{self.function.name} over last_events({self.limit})"

    @property
    def input_types(self) -> frozenset[ValueType]:
        """As the function."""
        return self.function.input_types

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """As the function."""
        return self.function.output_type(column_type)

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """As the function."""
        return self.function.parts(column)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The counter, n at most."""
        return Lowered(np.minimum(fields[0], self.limit))


@dataclass(frozen=True)
class OverNewest(AggregationBase):
    """The function of no more than the n newest values of its column within the window, as if no others were there."""

    function: Aggregation
    limit: int

    @property
    def name(self) -> str:
        """Canonical text."""
        return f"{self.function.name} over last_events({self.limit})"

    @property
    def input_types(self) -> frozenset[ValueType]:
        """As the function."""
        return self.function.input_types

    @property
    def counts_in_flight(self) -> bool:
        """As the function."""
        return self.function.counts_in_flight

    @property
    def ages(self) -> bool:
        """As the function."""
        return self.function.ages

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """As the function, which has a column."""
        return None if column_type is None else self.function.output_type(column_type)

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """One list."""
        assert column is not None
        return (EventList(column, self.limit, is_newest=True, is_distinct=False),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The function of each state's entries."""
        (states,) = fields
        flat: list[bytes] = states.ravel().tolist()
        kinds = np.array([state[0] if state else Kind.INTEGER for state in flat], dtype=np.int64)
        times_ms = np.tile(as_of_ms, len(states))
        lowered = []
        for kind in np.unique(kinds).tolist():
            rows = np.flatnonzero(kinds == kind)
            lowered.append((rows, self._lower([flat[row] for row in rows.tolist()], Kind(kind), times_ms[rows])))
        values = np.empty(len(flat), dtype=np.result_type(np.int64, *(one.values.dtype for _, one in lowered)))
        null = np.zeros(len(flat), dtype=np.bool_)
        for rows, one in lowered:
            values[rows] = one.values[0]
            if one.null is not None:
                null[rows] = one.null[0]
        return Lowered(values.reshape(states.shape), null.reshape(states.shape))

    @cached_property
    def _layouts(self) -> dict[Kind, tuple[tuple[Part, ...], TileLayout]]:
        """What the function keeps of an entry, by the kind of its value."""
        taken = {kind: one for kind, one in _TYPE_OF.items() if self.function.output_type(one) is not None}
        found = {kind: self.function.parts(Column(_VALUE, one)) for kind, one in taken.items()}
        return {kind: (parts, TileLayout(parts)) for kind, parts in found.items()}

    def _lower(self, states: Sequence[bytes], kind: Kind, as_of_ms: Int64Array) -> Lowered:
        """(1, G) answers of states of one kind; empty ones are of any."""
        parts, layout = self._layouts[kind]
        table, counts = _entries(layout, states, kind)
        is_filled = counts > 0
        starts = (np.cumsum(counts) - counts)[is_filled]
        merged = table.merge_groups(starts, starts, starts) if len(starts) else table
        fields = []
        for part in parts:
            for field, at in zip(part.fields, layout.position_of(part).fields, strict=True):
                if not field.is_read:
                    continue
                kinds = {Storage.INT: np.int64, Storage.FLOAT: np.float64, Storage.BLOB: np.object_}
                values: Array = np.full((1, len(states)), field.identity, dtype=kinds[at.storage])
                if at.storage is Storage.BLOB:
                    values[0, is_filled] = np.array(merged.blobs.row(at.row).values(), dtype=np.object_)
                else:
                    values[0, is_filled] = (merged.ints if at.storage is Storage.INT else merged.floats)[at.row]
                fields.append(values)
        return self.function.lower(fields, as_of_ms)


def _entries(layout: TileLayout, states: Sequence[bytes], kind: Kind) -> tuple[TileTable, Int64Array]:
    """The entries of all states, one after another, lifted; and how many each state has."""
    blobs = BlobRow.of(states)
    room = len(blobs.buffer) // _ENTRY_BYTES_MIN
    numbers = np.empty((6, room), dtype=np.int64)
    counts = np.empty(len(states), dtype=np.int64)
    used = read_entries(np.frombuffer(blobs.buffer, dtype=np.uint8), blobs.begins, blobs.ends, numbers, counts)
    times_ms, values, *spans = numbers[:, :used]
    column: ColumnValues
    if kind is Kind.TEXT:
        column = ColumnValues(BlobRow(blobs.buffer, spans[2], spans[3]))
    else:
        column = ColumnValues(values if kind is Kind.INTEGER else floats_of_bits(values))
    ids = BlobRow(blobs.buffer, spans[0], spans[1])
    return layout.lift(EventRows(times_ms, ids, {_VALUE: column})), counts
