"""Compiled loops that turn the bytes of a head into tiles: events lifted one by one.

`check_head` walks a head before, so that no loop reads outside its bytes, nor bytes that are not as they were written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.core.compiled import BYTES, FLAGS, FLOAT_MATRIX, FLOATS, INT, INT_MATRIX, INTS, borrowing, compiled
from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.tiles.parts import LOW_BITS, Array, Lift

PROGRAM_COLUMNS = 7
"""Columns of a head's lifting program: storage, field, lift, column of the event, condition, whether it merges by ADD,
whether that column holds floats."""
STORED_INT, STORED_FLOAT, STORED_BLOB = 0, 1, 2
NO_COLUMN = -1

WHOLE, MOMENT, FLOAT = range(3)
"""Kinds of 8-byte columns, behind the first KINDS numbers of a head's shape."""
KINDS = 9

TORN, WRONG_CHECK = -1, -2
"""What is wrong with a head."""

BESIDE_BODY = 0x80
"""Turned over in the first row's check of a head that began beside a body; the commit script says 128."""


def _crc8_table() -> NDArray[np.uint8]:
    """CRC-8 of each byte, polynomial x^8 + x^5 + x^3 + x^2 + x + 1 (AUTOSAR's 0x2F: distance 4 up to 119 bits).

    Source: Koopman and Chakravarty, Cyclic Redundancy Code Polynomial Selection for Embedded Networks, DSN 2004.
    """
    table = np.arange(256, dtype=np.int64)
    for _ in range(8):
        table = np.where(table & 0x80, (table << 1) ^ 0x2F, table << 1) & 0xFF
    return table.astype(np.uint8)


_CRC8 = _crc8_table()

_ONE, _VALID, _VALUE, _HIGH, _LOW, _TIME, _NOTHING, _EVENT_ID = (
    int(lift)
    for lift in (
        Lift.ONE,
        Lift.VALID,
        Lift.VALUE,
        Lift.HIGH,
        Lift.LOW,
        Lift.TIME,
        Lift.NOTHING,
        Lift.EVENT_ID,
    )
)


@borrowing
def _signed(data: Array, at: int, size: int) -> Any:
    """A little-endian integer of 1, 2, 4 or 8 bytes."""
    value = np.int64(0)
    for index in range(size):
        value |= np.int64(data[at + index]) << (8 * index)
    shift = 64 - 8 * size
    return (value << shift) >> shift


@borrowing
def _unsigned(data: Array, at: int, size: int) -> Any:
    """Likewise, never negative."""
    value = np.int64(0)
    for index in range(size):
        value |= np.int64(data[at + index]) << (8 * index)
    return value


@borrowing
def _lifted(head: Array, at: int, lift: int, column: int, wide: int, flags_at: int) -> Any:
    """What the event at an offset is worth in an integer field, or the bits of a float."""
    if lift in (_ONE, _VALID) or column < 0:
        return np.int64(1)
    if column >= wide:
        return np.int64(head[at + flags_at + column - wide]) if lift != _NOTHING else np.int64(0)
    value = _signed(head, at + 1 + 8 * (1 + column), 8)
    if lift in (_HIGH, _LOW):
        high = (value >> LOW_BITS) + ((value >> (LOW_BITS - 1)) & 1)
        return high if lift == _HIGH else value - (high << LOW_BITS)
    return value


@compiled(INT, BYTES, INTS, INTS, FLAGS)
def check_rows(data: Array, begins: Int64Array, ends: Int64Array, checks: NDArray[np.uint8]) -> int:
    """Carry the CRC-8 of N rows on over one span of bytes each."""
    for row in range(len(begins)):
        check = checks[row]
        for at in range(begins[row], ends[row]):
            check = _CRC8[check ^ data[at]]
        checks[row] = check
    return 0


@compiled(INT, BYTES, INTS, INTS, FLAGS, INTS, allocates=False)
def put_spans(data: Array, begins: Int64Array, ends: Int64Array, out: Array, at: Int64Array) -> int:
    """Copy a span of bytes for each of N rows to where `at` says, and move that on."""
    for row in range(len(begins)):
        to = at[row]
        for index in range(begins[row], ends[row]):
            out[to] = data[index]
            to += 1
        at[row] = to
    return 0


@borrowing
def crc8(data: Array, begin: int, end: int, check: int) -> Any:
    """The CRC-8 of a span of bytes, carried on from that of what is before it."""
    value = np.uint8(check)
    for at in range(begin, end):
        value = _CRC8[value ^ data[at]]
    return value


@borrowing
def _row_end(data: Array, at: int, end: int, row_bytes_min: int, lengths_at: int, string_count: int) -> Any:
    """Where the row at an offset ends, TORN if that is behind `end`."""
    if at + row_bytes_min > end:
        return TORN
    size = row_bytes_min
    for index in range(string_count):
        size += _unsigned(data, at + lengths_at + 2 * index, 2)
    return TORN if at + size > end else at + size


@borrowing
def rows_in(data: Array, at: int, end: int, row_bytes_min: int, lengths_at: int, string_count: int) -> Any:
    """Number of rows in a span that began beside no body; TORN or WRONG_CHECK."""
    rows = 0
    while at < end:
        row_end = _row_end(data, at, end, row_bytes_min, lengths_at, string_count)
        if row_end == TORN:
            return TORN
        if data[at] != crc8(data, at + 1, row_end, 0):
            return WRONG_CHECK
        at = row_end
        rows += 1
    return rows


@compiled(INT, BYTES, INT, INT, INT, allocates=False)
def check_head(head: Array, row_bytes_min: int, lengths_at: int, string_count: int) -> int:
    """Twice the number of events in a head, plus 1 if it began beside a body; TORN or WRONG_CHECK."""
    if len(head) == 0:
        return 0
    row_end = _row_end(head, 0, len(head), row_bytes_min, lengths_at, string_count)
    if row_end == TORN:
        return TORN
    turned = head[0] ^ crc8(head, 1, row_end, 0)
    if turned not in (0, BESIDE_BODY):
        return WRONG_CHECK
    rows = rows_in(head, row_end, len(head), row_bytes_min, lengths_at, string_count)
    found: int = rows if rows < 0 else 2 * (rows + 1) + (turned == BESIDE_BODY)
    return found


@compiled(
    INT,
    BYTES,
    INTS,
    INT_MATRIX,
    INTS,
    FLOATS,
    INT,
    INT,
    INTS,
    INTS,
    INT_MATRIX,
    FLOAT_MATRIX,
    INT_MATRIX,
    INT_MATRIX,
    INTS,
    allocates=False,
)
def fill_head(
    head: Array,
    shape: Int64Array,
    program: Int64Array,
    int_identities: Int64Array,
    float_identities: Float64Array,
    first: int,
    blob_shift: int,
    start: Int64Array,
    end: Int64Array,
    ints: Int64Array,
    floats: Float64Array,
    begins: Int64Array,
    ends: Int64Array,
    room: Int64Array,
) -> int:
    """Lift the events of a head, whole rows, into the tiles from row `first` on.

    shape        8-byte columns, flags, texts, whether ids are stored, offsets of flags, nulls and lengths, bytes of a
                 row without strings, column that undoes or -1; then what only packs ask for
    program      (P, 7) see PROGRAM_COLUMNS; columns count through 8-byte ones, flags and texts
    blob_shift   where the head begins in the buffer of strings
    identities   of the integer and of the float fields
    receive      start, end (N,), ints, floats, begins, ends (fields, N)
    room         for a number more than there are strings, and one more
    returns      1 when all rows are ascending by start
    """
    wide, flags, texts, has_ids = shape[0], shape[1], shape[2], shape[3]
    flags_at, nulls_at, lengths_at, size, undo = shape[4], shape[5], shape[6], shape[7], shape[8]
    bits, as_float, strings = room[:1], room[:1].view(np.float64), room[1:]
    at, row, is_ascending = 0, first, 1
    while at < len(head):
        time = _signed(head, at + 1, 8)
        if row > 0 and time < start[row - 1]:
            is_ascending = 0
        start[row], end[row] = time, time + 1
        strings[0] = at + size
        for index in range(texts + has_ids):
            strings[index + 1] = strings[index] + _unsigned(head, at + lengths_at + 2 * index, 2)
        sign = np.int64(-1 if undo >= 0 and head[at + flags_at + undo - wide] else 1)
        for step in range(len(program)):
            storage, field, lift = program[step, 0], program[step, 1], program[step, 2]
            column, condition, adds = program[step, 3], program[step, 4], program[step, 5]
            valid = lift != _NOTHING
            if column >= 0:
                valid = (head[at + nulls_at + (column >> 3)] >> (column & 7)) & 1 == 0
            if condition >= 0:
                valid = valid and head[at + flags_at + condition - wide] != 0
            if storage == STORED_BLOB:
                string = 0 if lift == _EVENT_ID else column - wide - flags + has_ids
                valid = valid and (lift != _EVENT_ID or has_ids == 1)
                begins[field, row] = blob_shift + strings[string]
                ends[field, row] = blob_shift + (strings[string + 1] if valid else strings[string])
                continue
            value = time if lift == _TIME else _lifted(head, at, lift, column, wide, flags_at)
            if not valid:
                if storage == STORED_INT:
                    ints[field, row] = int_identities[field]
                else:
                    floats[field, row] = float_identities[field]
            elif storage == STORED_INT:
                ints[field, row] = sign * value if adds else value
            else:
                bits[0] = value
                is_bits = lift == _VALUE and 0 <= column < wide and program[step, 6] == 1
                number = as_float[0] if is_bits else float(value)
                floats[field, row] = sign * number if adds else number
        at = strings[texts + has_ids]
        row += 1
    return is_ascending
