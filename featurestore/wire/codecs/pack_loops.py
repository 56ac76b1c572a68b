"""The compiled loop by which lookups find an entity in a pack; `pack` has the format, `pack_rows` that of a row.

Lengths are checked against the bytes that there are before anything is read, and against the room before anything is
written, so no loop leaves its arrays whatever the bytes say.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import BYTES, FLAGS, INT, INTS, borrowing, compiled
from featurestore.core.events import Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.wire.codecs.bodies.packing import word_at
from featurestore.wire.codecs.head_kernels import BESIDE_BODY, TORN, WRONG_CHECK, crc8
from featurestore.wire.codecs.pack_rows import (
    NO_ROOM,
    PATTERNS,
    copy_bytes,
    is_equal,
    number_at,
    put_number,
    take_row,
    take_words,
)

ROW_BYTES, HEAD_BESIDE, IN_BODY = range(3)
"""What `find_member` tells: bytes of the entity's rows, whether the head began beside a body, whether the body has
it."""
FACTS = 3

MEMBERS_AT, PREFIX_AT, DICTIONARY_AT, ROOM_AT, BASE_AT, BODY_HEADER = 2, 3, 4, 8, 12, 20
"""Where a body has the number of its members, the length of what all keys begin with, where its dictionary begins, how
many bytes keys and rows of all members have, and the time from which first rows count; keys follow."""
CHECKSUM_BYTES = 8

RECORD_HEADER_MAX = 1 + 2 * 10
"""What a record has beside key and rows, at most."""

WORDS = PATTERNS + 1
"""How long words and room of the loops are, and two more for each string column."""


@borrowing
def record_at(data: Array, at: Any, end: Any) -> Any:
    """Where the key of a record begins, the rows begin and end; then what its check is turned over by, or TORN."""
    key_bytes, key_at = number_at(data, at + 1, end)
    row_bytes, key_at = number_at(data, key_at, end)
    if key_at > end or not 0 <= key_bytes <= end - key_at or not 0 <= row_bytes <= end - key_at - key_bytes:
        return key_at, key_at, end, TORN
    rows_at = key_at + key_bytes
    turned = np.int64(crc8(data, at + 1, rows_at, 0) ^ data[at])
    return key_at, rows_at, rows_at + row_bytes, turned


@compiled(INT, BYTES, INTS, INTS, BYTES, INTS, INTS, FLAGS, INTS, allocates=False)
def put_records(
    keys: Array,
    key_begins: Int64Array,
    key_ends: Int64Array,
    rows: Array,
    row_begins: Int64Array,
    row_ends: Int64Array,
    out: Array,
    ends: Int64Array,
) -> int:
    """The records of N entities, one after another; how many bytes they have.

    keys, key_begins, key_ends    where the key of each is
    rows, row_begins, row_ends    likewise, its head rows
    receive                       out, which has RECORD_HEADER_MAX more bytes for each than key and rows; ends (N,)
    """
    to: Any = np.int64(0)
    for entity in range(len(ends)):
        begin: Any = to
        key_at, rows_at = key_begins[entity], row_begins[entity]
        to = put_number(out, put_number(out, begin + 1, key_ends[entity] - key_at), row_ends[entity] - rows_at)
        copy_bytes(keys, key_at, key_ends[entity], out, to)
        to += key_ends[entity] - key_at
        out[begin] = crc8(out, begin + 1, to, 0)
        copy_bytes(rows, rows_at, row_ends[entity], out, to)
        to += row_ends[entity] - rows_at
        ends[entity] = to
    return to  # type: ignore[no-any-return]  # an int


@borrowing
def dictionary_at(data: Array, body_at: Any, end: Any) -> Any:
    """Where the dictionary of a body begins; TORN where no body has it."""
    at = body_at + np.int64(word_at(data, body_at + DICTIONARY_AT) & np.uint64(0xFFFFFFFF))
    return at if body_at + BODY_HEADER + np.int64(data[body_at + PREFIX_AT]) <= at <= end else TORN


@borrowing
def member_at(data: Array, at: Any, end: Any) -> Any:
    """Where the end of a member's key begins, its rows begin and end, and how many there are; TORN first for none."""
    size, at = number_at(data, at, end)
    count, at = number_at(data, at, end)
    row_bytes, at = number_at(data, at, end)
    if at > end or not 0 <= size <= end - at or not 0 <= row_bytes <= end - at - size or not 0 < count <= row_bytes:
        return TORN, at, at, count
    return at, at + size, at + size + row_bytes, count


@borrowing
def take_rows(
    data: Array,
    at: Any,
    end: Any,
    count: Any,
    time_ms: Any,
    shape: Array,
    words: Array,
    room: Array,
    as_float: Array,
    out: Array,
    to: Any,
) -> Any:
    """Read the rows of a member; where what is made of them ends (TORN or NO_ROOM), and the newest time."""
    newest_ms = np.int64(-(1 << 63))
    for _ in range(count):
        at, to, time_ms = take_row(data, at, end, time_ms, shape, words, room, as_float, out, to)
        if to < 0:
            return to, newest_ms
        newest_ms = max(newest_ms, time_ms)
    return to if at == end else TORN, newest_ms


@compiled(INT, BYTES, INT, INT, INT, INTS, FLAGS, INTS, INTS, allocates=False)
def find_member(
    data: Array, key_at: int, body_at: int, head_at: int, shape: Int64Array, rows: Array, words: Int64Array, told: Array
) -> int:
    """One entity of a pack, as rows of a head.

    data      key, body and head of the pack, one after another, from the given offsets on
    shape     of the view's heads
    receive   rows, of the entity; told (FACTS,)
    room      words (WORDS + 2 * strings,)
    returns   0, TORN, WRONG_CHECK or NO_ROOM
    """
    key_bytes, to = body_at - key_at, np.int64(0)
    told[:] = 0
    if body_at < head_at:
        room, as_float = words[len(words) - 1 :], words[len(words) - 1 :].view(np.float64)
        end = head_at - CHECKSUM_BYTES
        dictionary, prefix = dictionary_at(data, body_at, end), np.int64(data[body_at + PREFIX_AT])
        at = body_at + BODY_HEADER + prefix
        if dictionary == TORN or take_words(data, dictionary, end, words, shape[2] + shape[3]) == TORN:
            return TORN
        is_here = prefix <= key_bytes and is_equal(data, key_at, data, at - prefix, prefix)
        for _ in range(np.int64(data[body_at + MEMBERS_AT]) if is_here else 0):
            begin, rows_at, rows_end, count = member_at(data, at, dictionary)
            if begin == TORN:
                return TORN
            is_mine = rows_at - begin == key_bytes - prefix
            if is_mine and is_equal(data, key_at + prefix, data, begin, key_bytes - prefix):
                base_ms = np.int64(word_at(data, body_at + BASE_AT))
                to, _ = take_rows(data, rows_at, rows_end, count, base_ms, shape, words, room, as_float, rows, to)
                if to < 0:
                    return to  # type: ignore[no-any-return]  # an int
                told[IN_BODY] = 1
                break
            at = rows_end
    at = np.int64(head_at)
    while at < len(data):
        begin, rows_at, rows_end, turned = record_at(data, at, len(data))
        if turned == BESIDE_BODY and at == head_at:
            told[HEAD_BESIDE] = 1
        elif turned != 0:
            return TORN if turned == TORN else WRONG_CHECK
        if rows_at - begin == key_bytes and is_equal(data, key_at, data, begin, key_bytes):
            if to + rows_end - rows_at > len(rows):
                return NO_ROOM
            copy_bytes(data, rows_at, rows_end, rows, to)
            to += rows_end - rows_at
        at = rows_end
    told[ROW_BYTES] = to
    return 0
