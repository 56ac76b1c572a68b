"""Compiled loops over the bytes of packs: which of them are an entity's; `pack` has the format.

Lengths are checked against the bytes that there are before anything is read, so no loop reads outside of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import BYTES, FLAGS, FLOAT_MATRIX, INT, INT_MATRIX, INTS, borrowing, compiled
from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.wire.codecs.head_kernels import BESIDE_BODY, TORN, WRONG_CHECK, crc8, rows_in

ROWS_AT, HEAD_BESIDE, MEMBER, OWNERS_AT = range(4)
"""What `find_member` tells: bytes of the entity's rows, whether the head began beside a body, which member of the body
it is or -1, and where the owners begin."""
FACTS = 4

SPAN_COLUMNS = 5
"""Of a record: begin and end of its key, begin and end of its rows, how many rows."""

BODY_HEADER = 5
_VARINT_BYTES_MAX = 5


@borrowing
def _length_at(data: Array, at: int, end: int) -> Any:
    """A length in seven bits a byte, and where it ends; behind `end` when it is cut off."""
    value, shift, more = np.int64(0), 0, True
    while more and at < end and shift < 7 * _VARINT_BYTES_MAX:
        value |= np.int64(data[at] & 127) << shift
        more = data[at] >= 128
        shift += 7
        at += 1
    return value, end + 1 if more else at


@borrowing
def _record_at(data: Array, at: int, end: int) -> Any:
    """Where the key of a record begins, the rows begin and end; then what its check is turned over by, or TORN."""
    key_bytes, key_at = _length_at(data, at + 1, end)
    row_bytes, key_at = _length_at(data, key_at, end)
    rows_at = key_at + key_bytes
    if rows_at + row_bytes > end:
        return key_at, rows_at, end, TORN
    turned = np.int64(crc8(data, at + 1, rows_at, 0) ^ data[at])
    return key_at, rows_at, rows_at + row_bytes, turned


@compiled(INT, BYTES, INT, INT, INT, FLAGS, INTS, allocates=False)
def find_member(data: Array, key_at: int, body_at: int, head_at: int, rows: Array, told: Int64Array) -> int:
    """One entity of a pack.

    data      key, body and head of the pack, one after another, from the given offsets on
    receive   rows, of the entity in the head; told (FACTS,)
    returns   0, TORN or WRONG_CHECK
    """
    key_bytes, at, is_first = body_at - key_at, head_at, True
    told[:] = 0
    told[MEMBER] = -1
    while at < len(data):
        begin, rows_at, rows_end, turned = _record_at(data, at, len(data))
        if turned == BESIDE_BODY and is_first:
            told[HEAD_BESIDE] = 1
        elif turned != 0:
            return TORN if turned == TORN else WRONG_CHECK
        is_mine = rows_at - begin == key_bytes
        for index in range(key_bytes if is_mine else 0):
            is_mine = is_mine and data[begin + index] == data[key_at + index]
        if is_mine:
            for index in range(rows_at, rows_end):
                rows[told[ROWS_AT]] = data[index]
                told[ROWS_AT] += 1
        at, is_first = rows_end, False
    at = body_at + BODY_HEADER
    if body_at == head_at:
        return 0
    for member in range(data[body_at + 2]):
        size, at = _length_at(data, at, head_at)
        if at + size > head_at:
            return TORN
        is_mine = size == key_bytes
        for index in range(size if is_mine else 0):
            is_mine = is_mine and data[at + index] == data[key_at + index]
        if is_mine:
            told[MEMBER] = member
        at += size
    told[OWNERS_AT] = at
    return 0


@compiled(INT, BYTES, INT, INT, INT, INT_MATRIX, allocates=False)
def split_records(head: Array, row_bytes_min: int, lengths_at: int, string_count: int, spans: Int64Array) -> int:
    """The records of a pack's head, all checks compared.

    receive   spans (R, SPAN_COLUMNS), with room for all
    returns   twice the number of records, plus 1 if the first began beside a body; TORN or WRONG_CHECK
    """
    at, records, beside_body = 0, 0, 0
    while at < len(head):
        key_at, rows_at, rows_end, turned = _record_at(head, at, len(head))
        if turned == BESIDE_BODY and records == 0:
            beside_body = 1
        elif turned != 0:
            return TORN if turned == TORN else WRONG_CHECK
        rows = rows_in(head, rows_at, rows_end, row_bytes_min, lengths_at, string_count)
        if rows < 0:
            return rows  # type: ignore[no-any-return]  # an int
        spans[records, 0], spans[records, 1], spans[records, 2] = key_at, rows_at, rows_at
        spans[records, 3], spans[records, 4] = rows_end, rows
        at = rows_end
        records += 1
    return 2 * records + beside_body


@compiled(
    INT,
    INTS,
    INTS,
    INTS,
    INT_MATRIX,
    FLOAT_MATRIX,
    INT_MATRIX,
    INT_MATRIX,
    INTS,
    INTS,
    INT_MATRIX,
    FLOAT_MATRIX,
    INT_MATRIX,
    INT_MATRIX,
    allocates=False,
)
def take_rows(
    chosen: Int64Array,
    start: Int64Array,
    end: Int64Array,
    ints: Int64Array,
    floats: Float64Array,
    begins: Int64Array,
    ends: Int64Array,
    to_start: Int64Array,
    to_end: Int64Array,
    to_ints: Int64Array,
    to_floats: Float64Array,
    to_begins: Int64Array,
    to_ends: Int64Array,
) -> int:
    """Copy some tiles of one block into the first rows of another."""
    for row in range(len(chosen)):
        to_start[row], to_end[row] = start[chosen[row]], end[chosen[row]]
    for field in range(len(ints)):
        for row in range(len(chosen)):
            to_ints[field, row] = ints[field, chosen[row]]
    for field in range(len(floats)):
        for row in range(len(chosen)):
            to_floats[field, row] = floats[field, chosen[row]]
    for field in range(len(begins)):
        for row in range(len(chosen)):
            to_begins[field, row] = begins[field, chosen[row]]
            to_ends[field, row] = ends[field, chosen[row]]
    return 0
