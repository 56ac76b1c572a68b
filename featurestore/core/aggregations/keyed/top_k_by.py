"""top_k_by and bottom_k_by: values of one column, ranked by another.

    "top_k_by(3, amount)" of market      the markets of the three largest payments, largest first

An accumulator keeps the n most extreme events as keys whose bytes are in the order wanted:

    rank 8 | event time 8 | event id, 00 as 00 01 | 00 00 | value           numbers big-endian, signs flipped

so equal ranks are told apart by event time, then event id, then value, and arrival order never decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, Lowered
from featurestore.core.aggregations.formulas import Formula
from featurestore.core.aggregations.keyed.kernels import ADD, LARGEST, SMALLEST
from featurestore.core.aggregations.keyed.states import (
    ONCE,
    KeyedPart,
    StateLayout,
    floats_of_bits,
    keys_of,
    no_answers,
    read_state,
)
from featurestore.core.compiled import BYTES, FLAGS, INT, INTS, compiled
from featurestore.core.events import BlobRow, ColumnValues, Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, EventRows, FieldValues, Part
from featurestore.errors import InvalidRequest

RANKING = frozenset({ValueType.INT64, ValueType.FLOAT64, ValueType.TIMESTAMP, ValueType.BOOL})
"""Types of the column that ranks."""

_INT_TAG, _FLOAT_TAG, _TEXT_TAG = 5, 6, 7
_TAG_OF_TYPE = {ValueType.FLOAT64: _FLOAT_TAG, ValueType.STRING: _TEXT_TAG}
_LIST_OF_TYPE = {ValueType.FLOAT64: ValueType.FLOAT64_LIST, ValueType.STRING: ValueType.STRING_LIST}
_HEAD_BYTES = 16
_SIGN = -(1 << 63)


class RankedValues(KeyedPart):
    """The n events that rank highest or lowest; events without a rank or a value are skipped."""

    reads_event_ids = True

    def __init__(self, column: Column, by: Column, length: int, is_top: bool) -> None:
        if by.type not in RANKING:
            raise InvalidRequest(
                f'column "{by.name}" of type {by.type} cannot rank values', hint="rank by a number or a moment"
            )
        policy = LARGEST if is_top else SMALLEST
        layout = StateLayout(_TAG_OF_TYPE.get(column.type, _INT_TAG), (ADD,), policy=policy, limit=length)
        super().__init__(f"{'highest' if is_top else 'lowest'}({column.name},{by.name},{length})", layout)
        self.column, self.by = column, by

    def lift(self, rows: EventRows) -> Mapping[str, FieldValues]:
        """Each event once."""
        values, ranks = rows.columns[self.column.name], rows.columns[self.by.name]
        valid = values.valid
        if ranks.valid is not None:
            valid = ranks.valid if valid is None else valid & ranks.valid
        keys = keys_of(values, self.column.type)
        if not isinstance(keys, BlobRow):
            keys = _big_endian(keys)
        ranked = keys_of(ranks, self.by.type)
        assert isinstance(ranked, ColumnValues), "texts do not rank"
        ids = BlobRow.of([b""] * rows.count if rows.event_ids is None else rows.event_ids)
        return {
            "state": self.lift_entries(_pack(np.asarray(ranked.values), rows.event_time_ms, ids, keys), valid, [ONCE])
        }


@dataclass(frozen=True, slots=True)
class TopKBy:
    """Values of the `length` events with the largest `by` in descending order, or smallest in ascending order.

    Among equal ranks the newest event comes first when descending and the oldest when ascending. The list is shorter
    when there are fewer events, null when there is none.
    """

    length: int
    by: str
    is_top: bool
    requires_column = True
    input_types = ANY_TYPE
    is_commutative = True
    is_invertible = False
    is_exactly_mergeable = True
    counts_in_flight = True
    ages = False
    keeps_nulls = False

    @property
    def name(self) -> str:
        """The catalog's name with its length and column."""
        return f"{'top_k_by' if self.is_top else 'bottom_k_by'}({self.length}, {self.by})"

    @property
    def further_columns(self) -> tuple[str, ...]:
        """The column that ranks."""
        return (self.by,)

    @property
    def formula(self) -> tuple[Formula, int] | None:
        """None."""
        return None

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """A list of the column's kind; moments are milliseconds, flags 0 and 1."""
        if column_type is None or column_type not in self.input_types:
            return None
        return _LIST_OF_TYPE.get(column_type, ValueType.INT64_LIST)

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The events that rank."""
        assert column is not None
        return (RankedValues(column, further[0], self.length, self.is_top),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The values of the entries, most extreme first."""
        (states,) = fields
        lists, null = no_answers(states.shape), np.ones(states.shape, dtype=np.bool_)
        for place, state in np.ndenumerate(states):
            if state:
                entries = read_state(state)
                texts = [key for key in entries.key_values() if isinstance(key, bytes)]
                repeated = np.repeat(np.arange(len(texts)), entries.ints[0]).tolist()
                ascending = [_value(texts[entry], entries.tag) for entry in repeated]
                lists[place] = ascending[::-1] if self.is_top else ascending
                null[place] = False
        return Lowered(lists, null)


def _value(key: bytes, tag: int) -> int | float | str:
    """What stands behind rank, time and id."""
    at = key.index(b"\0", _HEAD_BYTES)
    while key[at + 1]:
        at = key.index(b"\0", at + 2)
    value = key[at + 2 :]
    if tag == _TEXT_TAG:
        return value.decode()
    bits = int.from_bytes(value, "big") + _SIGN
    return float(floats_of_bits(np.array([bits]))[0]) if tag == _FLOAT_TAG else bits


def _big_endian(keys: ColumnValues) -> BlobRow:
    """Integers as 8 bytes whose order is theirs."""
    begins = 8 * np.arange(len(keys.values))
    return BlobRow((np.asarray(keys.values) ^ _SIGN).astype(">i8").tobytes(), begins, begins + 8)


def _pack(ranks: Int64Array, times: Int64Array, ids: BlobRow, values: BlobRow) -> BlobRow:
    """The keys of N events; see the module docstring."""
    heads = (np.stack([ranks, times], axis=1) ^ _SIGN).astype(">i8").tobytes()
    begins, ends = np.concatenate([ids.begins, values.begins]), np.concatenate([ids.ends, values.ends])
    count = len(ranks)
    room = (_HEAD_BYTES + 2) * count + 2 * int((ids.ends - ids.begins).sum()) + int((values.ends - values.begins).sum())
    out, out_ends = np.empty(room, np.uint8), np.empty(count, np.int64)
    fixed, id_bytes, value_bytes = (np.frombuffer(one, np.uint8) for one in (heads, ids.buffer, values.buffer))
    size = _write_keys(fixed, id_bytes, value_bytes, begins, ends, out, out_ends)
    return BlobRow.consecutive(out[:size].tobytes(), out_ends)


@compiled(INT, BYTES, BYTES, BYTES, INTS, INTS, FLAGS, INTS)
def _write_keys(
    heads: Array, ids: Array, values: Array, begins: Int64Array, ends: Int64Array, out: Array, out_ends: Int64Array
) -> int:
    """Write N keys; `begins` and `ends` (2N,) are spans of the ids, then of the values. Returns the bytes written."""
    count, at = len(out_ends), 0
    for row in range(count):
        for index in range(_HEAD_BYTES * row, _HEAD_BYTES * (row + 1)):
            out[at] = heads[index]
            at += 1
        for index in range(begins[row], ends[row]):
            out[at] = ids[index]
            at += 1
            if ids[index] == 0:
                out[at] = 1
                at += 1
        out[at], out[at + 1] = 0, 0
        at += 2
        for index in range(begins[count + row], ends[count + row]):
            out[at] = values[index]
            at += 1
        out_ends[row] = at
    return at
