"""max_gap(bound) and min_gap(bound): the longest and the shortest time between consecutive events, ms.

Events can come late and split a gap that was thought to be the longest, so the gaps of a window follow from all event
times and from nothing less. A tile keeps them, up to `bound`; a window with more events than that has no answer, which
depends on the number of its events alone. Events of one millisecond are a gap of 0. Null below two events.

    state      b""                                                 no events
               0 u1 | first time i8 | varint | varint | ...        times, ascending: each as its distance from the last
               1 u1                                                more than `bound` events, for good

    time       merging N tiles: O(events) where tiles are in order
    space      9 bytes and about 3 more an event, at most `bound` events a tile
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, AggregationBase, Lowered
from featurestore.core.compiled import BYTES, FLAGS, INT, INT_MATRIX, INTS, compiled, inlined
from featurestore.core.events import BlobRow, Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.blob_rows import interleave, merge_states
from featurestore.core.tiles.parts import (
    Array,
    EventRows,
    Field,
    FieldValues,
    Lift,
    Merge,
    Part,
    PartBase,
    Storage,
)

BOUND_DEFAULT = 256
BOUND_MAX = 4_096
"""Largest bound: every tile may hold as many times."""

_TIMES, _OVERFLOW = 0, 1
_FIXED = np.dtype([("kind", "u1"), ("time_ms", "<i8")])


@dataclass(frozen=True, slots=True)
class EventTimes(PartBase):
    """All event times up to `bound`, of events with a value in `column` or of all."""

    column: str | None
    bound: int

    @property
    def key(self) -> str:
        """Canonical text."""
        return f"times({self.column or ''}, {self.bound})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """One state."""
        return (Field("times", Storage.BLOB, Merge.OWN, b"", Lift.OWN, self.column),)

    def lift(self, rows: EventRows) -> Mapping[str, FieldValues]:
        """One time an event; nothing where the value is null."""
        fixed = np.zeros(rows.count, dtype=_FIXED)
        fixed["time_ms"] = rows.event_time_ms
        valid = None if self.column is None else rows.columns[self.column].valid
        return {"times": interleave(fixed, (), valid)}

    def merge_groups(
        self, mine: Sequence[FieldValues], required: Sequence[FieldValues], starts: Int64Array
    ) -> tuple[FieldValues, ...]:
        """All times of each run."""
        return (self._united(mine[0], starts, np.append(starts[1:], len(mine[0]))),)

    def merge_ranges(
        self, mine: Sequence[FieldValues], lows: Int64Array, highs: Int64Array
    ) -> tuple[FieldValues | None, ...]:
        """All times of each range."""
        return (self._united(mine[0], lows, highs),)

    def _united(self, states: FieldValues, lows: Int64Array, highs: Int64Array) -> BlobRow:
        """The merged states of ranges of rows."""
        assert isinstance(states, BlobRow)
        # Merging never grows: a time is no further from its neighbour in the union than from the one in its own tile.
        return merge_states(
            states,
            lows,
            highs,
            lambda buffer, begins, ends, out, out_ends: _unite(
                buffer, begins, ends, lows, highs, self.bound, out, out_ends
            ),
        )


@dataclass(frozen=True, slots=True)
class ExtremeGap(AggregationBase):
    """Longest or shortest time between consecutive events, ms; null below two events and above `bound` of them."""

    is_max: bool
    bound: int
    requires_column = False
    input_types = ANY_TYPE

    @property
    def name(self) -> str:
        """The catalog's name with the bound."""
        return f"{'max' if self.is_max else 'min'}_gap({self.bound})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """INT64."""
        return ValueType.INT64 if column_type is None or column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """One state."""
        return (EventTimes(None if column is None else column.name, self.bound),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The extreme distance of each state."""
        (states,) = fields
        row = BlobRow.of(states.ravel())
        extremes = np.empty((2, len(row)), dtype=np.int64)
        _find_gaps(np.frombuffer(row.buffer, dtype=np.uint8), row.begins, row.ends, extremes)
        shortest, longest = extremes.reshape(2, *states.shape)
        return Lowered(longest if self.is_max else shortest, longest < 0)


@inlined
def _signed(buffer: Array, at: int) -> Any:
    """A little-endian integer of 8 bytes."""
    value = np.int64(0)
    for index in range(8):
        value |= np.int64(buffer[at + index]) << (8 * index)
    return value


@inlined
def _varint(buffer: Array, at: int) -> Any:
    """An unsigned LEB128 number, and where the next one begins."""
    value, shift = np.int64(0), 0
    while buffer[at] >= 128:
        value |= np.int64(buffer[at] & 127) << shift
        shift += 7
        at += 1
    return value | (np.int64(buffer[at]) << shift), at + 1


@inlined
def _gather(
    buffer: Array, begins: Int64Array, ends: Int64Array, low: int, high: int, bound: int, times: Int64Array
) -> int:
    """Sorted times of rows [low, high); their number, or bound + 1 when there are more than `bound`."""
    count = 0
    for row in range(low, high):
        at, end = begins[row], ends[row]
        if at == end:
            continue
        if buffer[at] == _OVERFLOW:
            return bound + 1
        time = _signed(buffer, at + 1)
        at += 9
        while True:
            if count == bound:
                return bound + 1
            place = count
            while place > 0 and times[place - 1] > time:
                times[place] = times[place - 1]
                place -= 1
            times[place] = time
            count += 1
            if at >= end:
                break
            distance, at = _varint(buffer, at)
            time += distance
    return count


@compiled(INT, BYTES, INTS, INTS, INTS, INTS, INT, FLAGS, INTS)
def _unite(
    buffer: Array,
    begins: Int64Array,
    ends: Int64Array,
    lows: Int64Array,
    highs: Int64Array,
    bound: int,
    out: Array,
    out_ends: Int64Array,
) -> int:
    """`out` receives (G,) states, one after another; returns their size."""
    times = np.empty(bound, dtype=np.int64)
    cursor = 0
    for group in range(len(lows)):
        count = _gather(buffer, begins, ends, lows[group], highs[group], bound, times)
        if count > bound:
            out[cursor] = _OVERFLOW
            cursor += 1
        elif count:
            out[cursor] = _TIMES
            for index in range(8):
                out[cursor + 1 + index] = (times[0] >> (8 * index)) & 255
            cursor += 9
            for index in range(1, count):
                distance = times[index] - times[index - 1]
                while distance >= 128:
                    out[cursor] = (distance & 127) | 128
                    distance >>= 7
                    cursor += 1
                out[cursor] = distance
                cursor += 1
        out_ends[group] = cursor
    return cursor


@compiled(INT, BYTES, INTS, INTS, INT_MATRIX)
def _find_gaps(buffer: Array, begins: Int64Array, ends: Int64Array, extremes: Int64Array) -> int:
    """Extremes (2, N) receives the shortest and longest distance of each state, -1 where it has none."""
    for row in range(len(begins)):
        shortest, longest = np.int64(-1), np.int64(-1)
        at = begins[row] + 9
        while at < ends[row]:
            distance, at = _varint(buffer, at)
            if longest < 0 or distance < shortest:
                shortest = distance
            longest = max(longest, distance)
        extremes[0, row] = shortest
        extremes[1, row] = longest
    return 0
