"""first_n(n), last_n(n), first_distinct_n(n), last_distinct_n(n): the values of the oldest or newest events, as a list.

Ordered by (event_time_ms, event id as bytes, value), as first and last are: first_n oldest first, last_n newest first.
The distinct ones hold each value once, where it first (last) occurs. Nulls are skipped; -0.0 counts as 0.0. All are
exact, null over no values, and shorter than n when there are fewer values.

    state      kind u1 | entry | entry ...     best first, at most n; empty over no values
    entry      time i8 | id length u2 | value i8, or text length u2 | id | text
    kind       0 integer   1 float, as an integer that sorts alike   2 text
               3, 4, 5     the same of lists in which events without a value are entries too: a text each, for
                           a number eight bytes, big-endian from -2**63 on; a null is bytes behind all values

A tile's n best entries are all that any merge can need: a value (or event) among the n best of a union is among the n
best of the tile in which its best occurrence lies. So merging keeps the n best of all, in any order of merging.

    time       merging N tiles: O(N + n log n) compares where tiles are in order, O(n) an entry where not
    space      n entries a tile
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, AggregationBase, Lowered
from featurestore.core.aggregations.keyed.states import floats_of_bits, ordered_bits
from featurestore.core.compiled import BYTES, FLAGS, INT, INT_MATRIX, INTS, compiled, inlined
from featurestore.core.events import BlobRow, ColumnValues, Int64Array
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

ENTRIES_MAX = 100
"""Largest n: every tile may hold as many entries, ids and texts included."""


class Kind(enum.IntEnum):
    """What the values of a list are."""

    INTEGER = 0
    FLOAT = 1
    TEXT = 2
    INTEGER_OR_NULL = 3
    FLOAT_OR_NULL = 4
    TEXT_OR_NULL = 5


_TEXT = 2
"""From this kind on, the compiled loops see texts."""

_KIND_OF = {ValueType.FLOAT64: Kind.FLOAT, ValueType.STRING: Kind.TEXT}
_KIND_OR_NULL = {
    Kind.INTEGER: Kind.INTEGER_OR_NULL,
    Kind.FLOAT: Kind.FLOAT_OR_NULL,
    Kind.TEXT: Kind.TEXT_OR_NULL,
}
_LIST_OF = {ValueType.FLOAT64: ValueType.FLOAT64_LIST, ValueType.STRING: ValueType.STRING_LIST}
_FIXED = np.dtype([("kind", "u1"), ("time_ms", "<i8"), ("id_bytes", "<u2"), ("value", "<i8")])
_FIXED_TEXT = np.dtype([("kind", "u1"), ("time_ms", "<i8"), ("id_bytes", "<u2"), ("text_bytes", "<u2")])
_NUMBER_ENTRY = struct.Struct("<qHq")
_TEXT_ENTRY = struct.Struct("<qHH")
_NULL_TEXT, _NULL_NUMBER = b"\xff", b"\xff" * 9
"""No text begins so, as texts are UTF-8; no number is so long."""

_NUMBER_BYTES = 8
_SIGN = np.uint64(1 << 63)


@dataclass(frozen=True, slots=True)
class EventList(PartBase):
    """The n oldest or newest events with a value in `column`, or such events of n distinct values.

    With `keeps_nulls` those without a value are among them.
    """

    column: Column
    limit: int
    is_newest: bool
    is_distinct: bool
    keeps_nulls: bool = False

    @property
    def key(self) -> str:
        """Canonical text."""
        edge, what = "newest" if self.is_newest else "oldest", "distinct" if self.is_distinct else "events"
        return f"{edge}_{what}({self.column.name}, {self.limit}{', nulls' if self.keeps_nulls else ''})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """One state."""
        return (Field("entries", Storage.BLOB, Merge.OWN, b"", Lift.OWN, self.column.name),)

    @property
    def reads_event_ids(self) -> bool:
        """To break ties."""
        return True

    def lift(self, rows: EventRows) -> Mapping[str, FieldValues]:
        """One entry an event; nothing where the value is null, unless nulls are kept."""
        column = rows.columns[self.column.name]
        kind = _KIND_OF.get(self.column.type, Kind.INTEGER)
        if self.keeps_nulls:
            return {"entries": _with_nulls(rows, column, kind)}
        ids = BlobRow.of([b""] * rows.count if rows.event_ids is None else rows.event_ids)
        fixed = np.empty(rows.count, dtype=_FIXED_TEXT if kind is Kind.TEXT else _FIXED)
        fixed["kind"], fixed["time_ms"], fixed["id_bytes"] = kind, rows.event_time_ms, ids.ends - ids.begins
        pieces = [ids]
        if kind is Kind.TEXT:
            texts = BlobRow.of(column.values)
            fixed["text_bytes"] = texts.ends - texts.begins
            pieces.append(texts)
        elif kind is Kind.FLOAT:
            fixed["value"] = ordered_bits(np.asarray(column.values))
        else:
            fixed["value"] = np.asarray(column.values)
        return {"entries": interleave(fixed, pieces, column.valid)}

    def merge_groups(
        self, mine: Sequence[FieldValues], required: Sequence[FieldValues], starts: Int64Array
    ) -> tuple[FieldValues, ...]:
        """The best entries of each run."""
        return (self._best(mine[0], starts, np.append(starts[1:], len(mine[0]))),)

    def merge_ranges(
        self, mine: Sequence[FieldValues], lows: Int64Array, highs: Int64Array
    ) -> tuple[FieldValues | None, ...]:
        """The best entries of each range."""
        return (self._best(mine[0], lows, highs),)

    def _best(self, states: FieldValues, lows: Int64Array, highs: Int64Array) -> BlobRow:
        """The merged states of ranges of rows."""
        assert isinstance(states, BlobRow)
        rule = np.array([self.limit, self.is_newest, self.is_distinct], dtype=np.int64)
        return merge_states(
            states,
            lows,
            highs,
            lambda buffer, begins, ends, out, out_ends: _keep_best(
                buffer, begins, ends, lows, highs, rule, out, out_ends
            ),
        )


@dataclass(frozen=True, slots=True)
class EventValues(AggregationBase):
    """Values of the n oldest (first) or newest (last) events, or of n distinct values, as a list; null over none."""

    limit: int
    is_newest: bool
    is_distinct: bool
    input_types = ANY_TYPE

    @property
    def name(self) -> str:
        """The catalog's name with n."""
        return f"{'last' if self.is_newest else 'first'}_{'distinct_' if self.is_distinct else ''}n({self.limit})"

    @property
    def counts_in_flight(self) -> bool:
        """Not as the newest: that is asked to hold what came before against it."""
        return not self.is_newest

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """A list of texts, floats or, for all other types, integers."""
        if column_type is None or column_type not in self.input_types:
            return None
        return _LIST_OF.get(column_type, ValueType.INT64_LIST)

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """One state."""
        assert column is not None
        return (EventList(column, self.limit, self.is_newest, self.is_distinct),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The entries' values."""
        (states,) = fields
        values = np.empty(states.shape, dtype=np.object_)
        null = np.zeros(states.shape, dtype=np.bool_)
        for index, state in np.ndenumerate(states):
            null[index] = not state
            values[index] = _values_of(state)
        return Lowered(values, null)


def _with_nulls(rows: EventRows, column: ColumnValues, kind: Kind) -> BlobRow:
    """One entry an event, of a text for every kind, whether it has a value or not."""
    ids = BlobRow.of([b""] * rows.count if rows.event_ids is None else rows.event_ids)
    valid = np.ones(rows.count, dtype=np.bool_) if column.valid is None else column.valid
    if kind is Kind.TEXT:
        texts, null = BlobRow.of(column.values), _NULL_TEXT
    else:
        numbers = np.asarray(column.values)
        bits = ordered_bits(numbers) if kind is Kind.FLOAT else numbers.astype(np.int64, copy=False)
        begins = np.arange(0, rows.count * _NUMBER_BYTES, _NUMBER_BYTES, dtype=np.int64)
        sortable = (bits.view(np.uint64) ^ _SIGN).astype(">u8")
        texts, null = BlobRow(sortable.tobytes(), begins, begins + _NUMBER_BYTES), _NULL_NUMBER
    texts = texts.keep(valid)
    nothing = np.zeros(rows.count, dtype=np.int64)
    nulls = BlobRow(null, nothing, np.where(valid, 0, len(null)))
    fixed = np.empty(rows.count, dtype=_FIXED_TEXT)
    fixed["kind"], fixed["time_ms"] = _KIND_OR_NULL[kind], rows.event_time_ms
    fixed["id_bytes"] = ids.ends - ids.begins
    fixed["text_bytes"] = texts.ends - texts.begins + nulls.ends
    return interleave(fixed, [ids, texts, nulls], None)


def value_or_null(state: bytes) -> int | float | bytes | None:
    """The value of the first entry of a list that keeps nulls."""
    kind = Kind(state[0])
    _, id_bytes, text_bytes = _TEXT_ENTRY.unpack_from(state, 1)
    begin = 1 + _TEXT_ENTRY.size + id_bytes
    value = state[begin : begin + text_bytes]
    if value in (_NULL_TEXT, _NULL_NUMBER):
        return None
    if kind is Kind.TEXT_OR_NULL:
        return value
    bits = np.array([int.from_bytes(value) - (1 << 63)], dtype=np.int64)
    return int(bits[0]) if kind is Kind.INTEGER_OR_NULL else float(floats_of_bits(bits)[0])


def _values_of(state: bytes) -> list[int] | list[float] | list[str]:
    """The values of a state, best first."""
    if not state:
        return []
    kind, at = state[0], 1
    if kind == _TEXT:
        texts = []
        while at < len(state):
            _, id_bytes, text_bytes = _TEXT_ENTRY.unpack_from(state, at)
            at += _TEXT_ENTRY.size + id_bytes + text_bytes
            texts.append(state[at - text_bytes : at].decode())
        return texts
    numbers = []
    while at < len(state):
        _, id_bytes, number = _NUMBER_ENTRY.unpack_from(state, at)
        at += _NUMBER_ENTRY.size + id_bytes
        numbers.append(number)
    if kind == Kind.INTEGER:
        return numbers
    floats: list[float] = floats_of_bits(np.array(numbers, dtype=np.int64)).tolist()
    return floats


@inlined
def _number(buffer: Array, at: int, size: int) -> Any:
    """A little-endian integer of 2 bytes, unsigned, or of 8, signed."""
    value = np.int64(0)
    for index in range(size):
        value |= np.int64(buffer[at + index]) << (8 * index)
    return value


@inlined
def _compare_bytes(buffer: Array, left: int, left_size: int, right: int, right_size: int) -> int:
    """Sign of left - right, as bytes compare."""
    for index in range(min(left_size, right_size)):
        if buffer[left + index] != buffer[right + index]:
            return 1 if buffer[left + index] > buffer[right + index] else -1
    return 1 if left_size > right_size else (-1 if left_size < right_size else 0)


@inlined
def _entry_bytes(buffer: Array, at: int, kind: int) -> Any:
    """Size of an entry."""
    if kind >= _TEXT:
        return 12 + _number(buffer, at + 8, 2) + _number(buffer, at + 10, 2)
    return 18 + _number(buffer, at + 8, 2)


@inlined
def _compare_values(buffer: Array, left: int, right: int, kind: int) -> int:
    """Sign of left - right, by the values of two entries."""
    if kind >= _TEXT:
        left_text = left + 12 + _number(buffer, left + 8, 2)
        right_text = right + 12 + _number(buffer, right + 8, 2)
        return _compare_bytes(
            buffer, left_text, _number(buffer, left + 10, 2), right_text, _number(buffer, right + 10, 2)
        )
    left_value, right_value = _number(buffer, left + 10, 8), _number(buffer, right + 10, 8)
    return 1 if left_value > right_value else (-1 if left_value < right_value else 0)


@inlined
def _precedes(buffer: Array, left: int, right: int, kind: int, newest: int) -> Any:
    """Whether the left entry comes before the right one in the list."""
    left_time, right_time = _number(buffer, left, 8), _number(buffer, right, 8)
    if left_time != right_time:
        return (left_time > right_time) == (newest == 1)
    fixed = 12 if kind >= _TEXT else 18
    order = _compare_bytes(
        buffer, left + fixed, _number(buffer, left + 8, 2), right + fixed, _number(buffer, right + 8, 2)
    )
    if order == 0:
        order = _compare_values(buffer, left, right, kind)
    return order != 0 and (order > 0) == (newest == 1)


@compiled(INT, BYTES, INTS, INTS, INTS, INTS, INTS, FLAGS, INTS)
def _keep_best(
    buffer: Array,
    begins: Int64Array,
    ends: Int64Array,
    lows: Int64Array,
    highs: Int64Array,
    rule: Int64Array,
    out: Array,
    out_ends: Int64Array,
) -> int:
    """Rule (3,): limit, is newest, is distinct. `out` receives (G,) states, one after another; returns their size."""
    limit, newest, distinct = rule[0], rule[1], rule[2]
    best = np.empty(limit, dtype=np.int64)
    cursor = 0
    for group in range(len(lows)):
        size = 0
        kind: Any = np.int64(0)
        for step in range(highs[group] - lows[group]):
            # From the side where the best are, so that later tiles are left at their first entry.
            row = highs[group] - 1 - step if newest == 1 else lows[group] + step
            at, end = begins[row] + 1, ends[row]
            if at < end:
                kind = np.int64(buffer[begins[row]])
            while at < end:
                if size == limit and not _precedes(buffer, at, best[size - 1], kind, newest):
                    break
                place = size
                if distinct == 1:
                    place = 0
                    while place < size and _compare_values(buffer, at, best[place], kind) != 0:
                        place += 1
                if place < size and not _precedes(buffer, at, best[place], kind, newest):
                    at += _entry_bytes(buffer, at, kind)
                    continue
                # The known occurrence of the value, or the last entry of a full list, or none, makes room.
                if place == size and size < limit:
                    size += 1
                place = min(place, size - 1)
                while place > 0 and _precedes(buffer, at, best[place - 1], kind, newest):
                    best[place] = best[place - 1]
                    place -= 1
                best[place] = at
                at += _entry_bytes(buffer, at, kind)
        if size:
            out[cursor] = kind
            cursor += 1
        for index in range(size):
            for byte in range(_entry_bytes(buffer, best[index], kind)):
                out[cursor] = buffer[best[index] + byte]
                cursor += 1
        out_ends[group] = cursor
    return cursor


@compiled(INT, BYTES, INTS, INTS, INT_MATRIX, INTS)
def read_entries(buffer: Array, begins: Int64Array, ends: Int64Array, out: Int64Array, counts: Int64Array) -> int:
    """`out` (6, E) receives each entry's time, number, id's begin and end, text's begin and end; returns how many."""
    found = 0
    for state in range(len(begins)):
        at, before = begins[state] + 1, found
        while at < ends[state]:
            kind: Any = np.int64(buffer[begins[state]])
            size, fixed = _entry_bytes(buffer, at, kind), 12 if kind >= _TEXT else 18
            id_end = at + fixed + _number(buffer, at + 8, 2)
            out[0, found] = _number(buffer, at, 8)
            out[1, found] = 0 if kind >= _TEXT else _number(buffer, at + 10, 8)
            out[2, found], out[3, found] = at + fixed, id_end
            out[4, found], out[5, found] = id_end, at + size
            at += size
            found += 1
        counts[state] = found - before
    return found
