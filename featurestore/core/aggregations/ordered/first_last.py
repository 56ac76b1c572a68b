"""first and last: the value of the oldest or newest event that has one.

Ordered by (event_time_ms, event id as bytes, value), so arrival order never decides: two events of one millisecond
are told apart by their ids, and where the source declares no id (or reuses one) by their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, AggregationBase, Lowered
from featurestore.core.aggregations.formulas import Formula
from featurestore.core.aggregations.numbers.min_max import INT64_MAX, INT64_MIN
from featurestore.core.compiled import BYTES, FLOAT_MATRIX, INT, INT_MATRIX, INTS, borrowing, compiled
from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import (
    Array,
    Field,
    FieldValues,
    Lift,
    Merge,
    Part,
    PartBase,
    RangeFamily,
    Storage,
    ValueCount,
)
from featurestore.core.tiles.ranges import Ask, Gathered

if TYPE_CHECKING:
    from featurestore.core.tiles.tiles import TileLayout, TileTable


_STORAGE_OF = {ValueType.FLOAT64: Storage.FLOAT, ValueType.STRING: Storage.BLOB}
_NO_VALUE: dict[Storage, int | float | bytes] = {Storage.INT: 0, Storage.FLOAT: 0.0, Storage.BLOB: b""}


@dataclass(frozen=True, slots=True)
class EdgeValue(PartBase):
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
        name, storage = self.column.name, _STORAGE_OF.get(self.column.type, Storage.INT)
        return (
            Field("time_ms", Storage.INT, Merge.OWN, self._nothing_ms, Lift.TIME, name, is_read=False),
            Field("event_id", Storage.BLOB, Merge.OWN, b"", Lift.EVENT_ID, name, is_read=False),
            Field("value", storage, Merge.OWN, _NO_VALUE[storage], Lift.VALUE, name),
        )

    @property
    def reads_event_ids(self) -> bool:
        """To break ties."""
        return True

    @property
    def family(self) -> RangeFamily | None:
        """All edges of a view."""
        return EdgeRanges

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
class Edge(AggregationBase):
    """Value of the oldest (first) or newest (last) event whose value is not null; null when there is none."""

    is_newest: bool
    input_types = ANY_TYPE
    formula = (Formula.WHERE_COUNTED, 0)

    @property
    def name(self) -> str:
        """The catalog's name."""
        return "last" if self.is_newest else "first"

    @property
    def counts_in_flight(self) -> bool:
        """Not as the newest: that is asked to hold what came before against it."""
        return not self.is_newest

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """The column's own type."""
        return column_type if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """Count of values and the edge event."""
        assert column is not None
        return (ValueCount(column.name), EdgeValue(column, self.is_newest))

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The edge's value."""
        return Lowered(fields[1], fields[0] == 0)


class EdgeRanges:
    """The edge values of any number of columns and windows, chosen in one compiled loop.

    Attributes:
        picks: what `choose_edges` is asked for.
        texts: (pick, field, slot) of each value that is a text.
    """

    def __init__(self, layout: TileLayout, asks: Sequence[Ask]) -> None:
        picks = []
        self.texts: list[tuple[int, int, int]] = []
        for index, ask in enumerate(asks):
            part = ask.part.part
            assert isinstance(part, EdgeValue)
            time, event_id, value = ask.part.fields
            (slot,) = ask.slots
            kind = _KIND_OF[value.storage]
            picks.append((time.row, event_id.row, kind, value.row, int(part.is_newest), ask.window, slot))
            if value.storage is Storage.BLOB:
                self.texts.append((index, value.row, slot))
        self.picks = np.array(picks, dtype=np.int64)

    def __call__(self, table: TileTable, bounds: Int64Array, out: Gathered, row: int) -> None:
        """Merge."""
        blobs = table.blobs
        buffer = np.frombuffer(blobs.buffer, dtype=np.uint8)
        chosen = np.empty(len(self.picks), dtype=np.int64)
        choose_edges(
            table.ints,
            table.floats,
            buffer,
            blobs.begins,
            blobs.ends,
            bounds,
            self.picks,
            out.ints,
            out.floats,
            row,
            chosen,
        )
        for index, field, slot in self.texts:
            at = int(chosen[index])
            out.objects[slot, row] = blobs.buffer[blobs.begins[field, at] : blobs.ends[field, at]] if at >= 0 else b""


_INT, _FLOAT, TEXT = 0, 1, 2
_KIND_OF = {Storage.INT: _INT, Storage.FLOAT: _FLOAT, Storage.BLOB: TEXT}


@borrowing
def _compare_bytes(buffer: Array, begins: Int64Array, ends: Int64Array, field: int, left: int, right: int) -> Any:
    """Sign of left - right, as bytes compare."""
    at, to = begins[field, left], ends[field, left]
    other, other_to = begins[field, right], ends[field, right]
    while at < to and other < other_to:
        if buffer[at] != buffer[other]:
            return 1 if buffer[at] > buffer[other] else -1
        at += 1
        other += 1
    return 1 if at < to else (-1 if other < other_to else 0)


@compiled(
    INT,
    INT_MATRIX,
    FLOAT_MATRIX,
    BYTES,
    INT_MATRIX,
    INT_MATRIX,
    INTS,
    INT_MATRIX,
    INT_MATRIX,
    FLOAT_MATRIX,
    INT,
    INTS,
    allocates=False,
)
def choose_edges(
    ints: Int64Array,
    floats: Float64Array,
    buffer: Array,
    begins: Int64Array,
    ends: Int64Array,
    bounds: Int64Array,
    picks: Int64Array,
    out_ints: Int64Array,
    out_floats: Float64Array,
    out_row: int,
    chosen: Int64Array,
) -> int:
    """Picks (K, 7): time, id, kind, value, is newest, window, slot. `chosen` receives (K,) rows, -1 for none."""
    width = len(bounds) // 2
    for index in range(len(picks)):
        time, ids, kind, value = picks[index, 0], picks[index, 1], picks[index, 2], picks[index, 3]
        newest, window, slot = picks[index, 4], picks[index, 5], picks[index, 6]
        best = -1
        for row in range(bounds[window], bounds[width + window]):
            if best < 0:
                best = row
                continue
            order = 0
            if ints[time, row] != ints[time, best]:
                order = 1 if ints[time, row] > ints[time, best] else -1
            else:
                order = _compare_bytes(buffer, begins, ends, ids, row, best)
                if order == 0 and kind == _INT:
                    order = 1 if ints[value, row] > ints[value, best] else -1
                elif order == 0 and kind == _FLOAT:
                    order = 1 if floats[value, row] > floats[value, best] else -1
                elif order == 0:
                    order = _compare_bytes(buffer, begins, ends, value, row, best)
            if (order > 0) == (newest == 1):
                best = row
        chosen[index] = best
        if kind == _INT:
            out_ints[slot, out_row] = ints[value, best] if best >= 0 else 0
        elif kind == _FLOAT:
            out_floats[slot, out_row] = floats[value, best] if best >= 0 else 0.0
    return 0
