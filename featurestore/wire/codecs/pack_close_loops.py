"""Compiled loops that write the bodies of packs, of entities that `pack_fold_loops` has found.

    packed rows, dictionary stays ──> copied as they are ─┐
    packed rows, dictionary anew ───> rows of a head ─┐   ├─> body
    rows of the head ─────────────────────────────────┴───┘

The dictionary of a body stays, and grows at its end, so that rows that were packed mean what they did. It is written
anew, and all rows with it, where entities go and it has more strings than DICTIONARY_STAYS_MAX: some are theirs alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import BYTES, FLAGS, INT, INT_MATRIX, INTS, borrowing, compiled
from featurestore.core.events import Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.wire.codecs.bodies.packing import put_word, word_at
from featurestore.wire.codecs.head_kernels import FLOAT, KINDS
from featurestore.wire.codecs.pack_fold_loops import (
    BODY,
    COUNT,
    ENTITIES_END,
    FIRST,
    HEAD,
    KEY_BEGIN,
    KEY_END,
    LAST_MS,
    NEXT,
    PACKED,
    ROWS_BEGIN,
    ROWS_END,
)
from featurestore.wire.codecs.pack_loops import (
    BASE_AT,
    BODY_HEADER,
    CHECKSUM_BYTES,
    DICTIONARY_AT,
    MEMBERS_AT,
    PREFIX_AT,
    ROOM_AT,
    dictionary_at,
    take_rows,
)
from featurestore.wire.codecs.pack_rows import (
    BEGINS,
    DECIMAL,
    EMPTY,
    ENDS,
    LIKE_FIRST,
    NO_ROOM,
    PATTERNS,
    PLAIN,
    WORD_COUNT,
    copy_bytes,
    find_words,
    is_digit,
    no_words,
    number_at,
    put_number,
    put_row,
    put_words,
    signed_at,
    take_words,
)

DICTIONARY_STAYS_MAX = 64


@borrowing
def _varint_end(data: Array, at: Any, end: Any) -> Any:
    """Where a varint ends; behind `end` when it is cut off."""
    while at < end and data[at] >= 128:
        at += 1
    return at + 1


@borrowing
def _string_end(data: Array, at: Any, end: Any, words: Array, column: Any) -> Any:
    """Where a string ends, behind `end` when it is cut off, and how long it is in a head."""
    code = np.int64(data[at]) if at < end else np.int64(EMPTY)
    at += 1
    if code == EMPTY:
        return at, np.int64(0)
    if code == DECIMAL:
        number, at = number_at(data, at, end)
        digits = np.int64(1)
        while number >= 10:
            number //= 10
            digits += 1
        return at, digits
    if code == PLAIN:
        size, at = number_at(data, at, end)
        return (at + size, size) if 0 <= size <= end - at else (end + 1, np.int64(0))
    if code == LIKE_FIRST:
        begin, pattern_end = words[PATTERNS + 2 * column], words[PATTERNS + 2 * column + 1]
        digits = np.int64(0)
        for index in range(begin, pattern_end):
            digits += is_digit(data[index])
        return at + ((digits + 1) >> 1), pattern_end - begin
    if code >= words[WORD_COUNT]:
        return end + 1, np.int64(0)
    return at, words[ENDS + code] - words[BEGINS + code]


@borrowing
def step_over(data: Array, at: Any, end: Any, before_ms: Any, shape: Array, words: Array) -> Any:
    """Of a row that stays as it is: where it ends (behind `end` when it is cut off), its time, its bytes in a head."""
    since, at = signed_at(data, at, end)
    for column in range(shape[0]):
        if shape[KINDS + column] != FLOAT:
            at = _varint_end(data, at, end)
        elif at < end and data[at] == 1:
            at = _varint_end(data, at + 1, end)
        else:
            at += 9
    has_nulls = at < end and data[at] & 1 != 0
    at += ((shape[1] + 8) >> 3) + (shape[6] - shape[5] if has_nulls else 0)
    size = shape[7]
    for string in range(shape[2] + shape[3]):
        at, length = _string_end(data, at, end, words, string)
        size += length
    return at, before_ms + since, size


@borrowing
def _step_over_rows(data: Array, span: Any, spans: Array, base_ms: Any, shape: Array, words: Array) -> Any:
    """Of the packed rows of a span: the time of the last, the newest time, and their bytes in a head."""
    at, end, time_ms = spans[span, ROWS_BEGIN], spans[span, ROWS_END], base_ms
    newest_ms, size = np.int64(-(1 << 63)), np.int64(0)
    for _ in range(spans[span, PACKED]):
        at, time_ms, row_bytes = step_over(data, at, end, time_ms, shape, words)
        newest_ms = max(newest_ms, time_ms)
        size += row_bytes
    return time_ms, newest_ms, size


@compiled(INT, BYTES, INT_MATRIX, INTS, INT_MATRIX, INT_MATRIX, INTS, INTS, INTS, INTS, allocates=False)
def newest_of(
    data: Array,
    bounds: Int64Array,
    shape: Int64Array,
    spans: Int64Array,
    entities: Int64Array,
    chosen: Int64Array,
    pack_of: Int64Array,
    words: Int64Array,
    newest_ms: Int64Array,
) -> int:
    """The times of the newest rows of N entities whose first rows are packed.

    data, bounds, spans, entities  see `open_packs`
    chosen, pack_of                (N,) which entities, ascending; and of which pack
    receive                        newest_ms (N,), no less than what is there
    room                           words (WORDS + 2 * strings,)
    """
    strings, before = shape[2] + shape[3], -1
    for index in range(len(chosen)):
        pack, span = pack_of[index], entities[chosen[index], FIRST]
        body_at, end = bounds[pack, BODY], bounds[pack, HEAD] - CHECKSUM_BYTES
        if pack != before:
            take_words(data, dictionary_at(data, body_at, end), end, words, strings)
            before = pack
        base_ms = np.int64(word_at(data, body_at + BASE_AT))
        _, newest, _ = _step_over_rows(data, span, spans, base_ms, shape, words)
        newest_ms[index] = max(newest_ms[index], newest)
    return 0


@compiled(INT, BYTES, INT_MATRIX, INTS, INT_MATRIX, INT, INT, INTS, FLAGS, allocates=False)
def expand_span(
    data: Array,
    bounds: Int64Array,
    shape: Int64Array,
    spans: Int64Array,
    span: int,
    pack: int,
    words: Int64Array,
    rows: Array,
) -> int:
    """The packed rows of a span, as a head has them: how many bytes, or TORN or NO_ROOM."""
    room, as_float = words[len(words) - 1 :], words[len(words) - 1 :].view(np.float64)
    body_at, end = bounds[pack, BODY], bounds[pack, HEAD] - CHECKSUM_BYTES
    take_words(data, dictionary_at(data, body_at, end), end, words, shape[2] + shape[3])
    base_ms, count = np.int64(word_at(data, body_at + BASE_AT)), spans[span, PACKED]
    begin, rows_end = spans[span, ROWS_BEGIN], spans[span, ROWS_END]
    to, _ = take_rows(data, begin, rows_end, count, base_ms, shape, words, room, as_float, rows, np.int64(0))
    return to  # type: ignore[no-any-return]  # an int


@borrowing
def _prefix_of(rows: Array, spans: Array, entities: Array, stays: Array, first: Any, last: Any) -> Any:
    """How many members stay, and with how many bytes the keys of all of them begin alike."""
    members, prefix, like = 0, np.int64(0), np.int64(0)
    for entity in range(first, last):
        if not stays[entity]:
            continue
        span = entities[entity, FIRST]
        begin, size = spans[span, KEY_BEGIN], spans[span, KEY_END] - spans[span, KEY_BEGIN]
        if members == 0:
            prefix, like = min(size, np.int64(255)), begin
        prefix = min(prefix, size)
        for index in range(prefix):
            if rows[like + index] != rows[begin + index]:
                prefix = np.int64(index)
                break
        members += 1
    return members, prefix, like


@borrowing
def _put_number_at(out: Array, at: Any, size: Any, value: Any) -> Any:
    """A little-endian number of so many bytes."""
    for index in range(size):
        out[at + index] = (value >> (8 * index)) & 255
    return 0


@borrowing
def _number_at(data: Array, at: Any) -> Any:
    """The pair of `_put_number_at`, of four bytes."""
    return np.int64(word_at(data, at) & np.uint64(0xFFFFFFFF))


@borrowing
def _open_rows(
    data: Array,
    span: Any,
    spans: Array,
    base_ms: Any,
    shape: Array,
    words: Array,
    room: Array,
    as_float: Array,
    rows: Array,
    free: Any,
) -> Any:
    """Make rows of a head of the packed ones of a span; where these end, or TORN or NO_ROOM."""
    begin, end, count = spans[span, ROWS_BEGIN], spans[span, ROWS_END], spans[span, PACKED]
    rows_end, _ = take_rows(data, begin, end, count, base_ms, shape, words, room, as_float, rows, free)
    if rows_end >= 0:
        spans[span, ROWS_BEGIN], spans[span, ROWS_END], spans[span, PACKED] = free, rows_end, 0
    return rows_end


@borrowing
def _go_over(
    data: Array,
    spans: Array,
    entities: Array,
    stays: Array,
    first: Any,
    last: Any,
    keeps: Any,
    base_ms: Any,
    shape: Array,
    words: Array,
    room: Array,
    as_float: Array,
    rows: Array,
    free: Any,
) -> Any:
    """Before the dictionary that was read is gone: what the rows of a body are needed for, whether it is kept or not.

    Returns where rows that were opened end, TORN or NO_ROOM; and how many bytes those that go have in a head.
    """
    less = np.int64(0)
    for entity in range(first, last):
        span = entities[entity, FIRST]
        if not spans[span, PACKED]:
            break
        if not keeps:
            if stays[entity]:
                free = _open_rows(data, span, spans, base_ms, shape, words, room, as_float, rows, free)
                if free < 0:
                    return free, less
        elif not stays[entity]:
            _, _, row_bytes = _step_over_rows(data, span, spans, base_ms, shape, words)
            less += row_bytes + spans[span, KEY_END] - spans[span, KEY_BEGIN]
        elif spans[span, NEXT] >= 0:
            entities[entity, LAST_MS], _, _ = _step_over_rows(data, span, spans, base_ms, shape, words)
    return free, less


@borrowing
def _keep_dictionary(data: Array, begin: Any, end: Any, words: Array, strings: Any, rows: Array, free: Any) -> Any:
    """Copy a dictionary to the rows, so that it can grow there; where it ends, or NO_ROOM, and then it is empty."""
    if free + end - begin > len(rows):
        return np.int64(NO_ROOM)
    copy_bytes(data, begin, end, rows, free)
    take_words(rows, free, free + end - begin, words, strings)
    find_words(rows, words, strings)
    return free + end - begin


@borrowing
def _put_member(
    data: Array,
    rows: Array,
    spans: Array,
    entities: Array,
    entity: Any,
    prefix: Any,
    time_ms: Any,
    shape: Array,
    words: Array,
    room: Array,
    as_float: Array,
    out: Array,
    to: Any,
) -> Any:
    """Write a member: what its key has behind the prefix, and all of its rows; where it ends."""
    span = entities[entity, FIRST]
    begin, end = spans[span, KEY_BEGIN] + prefix, spans[span, KEY_END]
    to = put_number(out, put_number(out, to, end - begin), entities[entity, COUNT])
    # Mostly its rows take less than 16 KiB, and so their length two bytes: a longer one is moved up afterwards.
    length_to, key_to = to, to + 2
    copy_bytes(rows, begin, end, out, key_to)
    to = key_to + end - begin
    rows_to = to
    while span >= 0:
        at, rows_end = spans[span, ROWS_BEGIN], spans[span, ROWS_END]
        if spans[span, PACKED]:
            copy_bytes(data, at, rows_end, out, to)
            to, time_ms = to + rows_end - at, entities[entity, LAST_MS]
        else:
            while at < rows_end:
                at, to, time_ms = put_row(rows, at, time_ms, shape, words, room, as_float, out, to)
        span = spans[span, NEXT]
    row_bytes, length_bytes = to - rows_to, 1
    while row_bytes >> (7 * length_bytes):
        length_bytes += 1
    shift = length_bytes - 2
    if shift < 0:
        for index in range(key_to, to):
            out[index + shift] = out[index]
    elif shift > 0:
        for index in range(to - 1, key_to - 1, -1):
            out[index + shift] = out[index]
    put_number(out, length_to, row_bytes)
    return to + shift


@borrowing
def _unpacked_bytes(spans: Array, span: Any) -> Any:
    """Of the rows of an entity as a head has them, and of its key; packed rows have been counted with their key."""
    size = np.int64(0)
    if not spans[span, PACKED]:
        size += spans[span, KEY_END] - spans[span, KEY_BEGIN]
    while span >= 0:
        if not spans[span, PACKED]:
            size += spans[span, ROWS_END] - spans[span, ROWS_BEGIN]
        span = spans[span, NEXT]
    return size


@compiled(
    INT, BYTES, INT_MATRIX, INT_MATRIX, INT_MATRIX, INT_MATRIX, FLAGS, INTS, FLAGS, INT, INTS, FLAGS, INTS,
    allocates=False,
)  # fmt: skip
def close_packs(
    data: Array,
    bounds: Int64Array,
    spans: Int64Array,
    entities: Int64Array,
    packs: Int64Array,
    stays: Array,
    shape: Int64Array,
    rows: Array,
    used: int,
    words: Int64Array,
    out: Array,
    ends: Int64Array,
) -> int:
    """The bodies of P packs, of the entities that stay, without magic, version and checksum.

    data, bounds                   as `open_packs` had them
    spans, entities, packs, rows   from `open_packs`; spans change, and what it has left of the rows is room
    stays                          (E,) whether an entity does
    shape                          of the view's heads
    receive                        out, which has room for all; ends (P,) of each, the begin of the next one; nothing is
                                   written where nobody stays
    room                           words (WORDS + 2 * strings,)
    returns                        0, TORN or NO_ROOM
    """
    room, as_float = words[len(words) - 1 :], words[len(words) - 1 :].view(np.float64)
    strings, to, first, free = shape[2] + shape[3], np.int64(0), np.int64(0), np.int64(used)
    for pack in range(len(packs)):
        last = packs[pack, ENTITIES_END]
        members, prefix, like = _prefix_of(rows, spans, entities, stays, first, last)
        body_at, body_end = bounds[pack, BODY], bounds[pack, HEAD] - CHECKSUM_BYTES
        keeps, unpacked, base_ms, dictionary = False, np.int64(0), np.int64(0), np.int64(0)
        if members and body_at < body_end:
            dictionary = dictionary_at(data, body_at, body_end)
            take_words(data, dictionary, body_end, words, strings)
            keeps = members == last - first or words[WORD_COUNT] <= DICTIONARY_STAYS_MAX
            base_ms = np.int64(word_at(data, body_at + BASE_AT))
            unpacked += _number_at(data, body_at + ROOM_AT) if keeps else 0
            free, less = _go_over(
                data, spans, entities, stays, first, last, keeps, base_ms, shape, words, room, as_float, rows, free
            )
            unpacked -= less
        if members and free >= 0:
            no_words(words, strings)
            if keeps:
                free = _keep_dictionary(data, dictionary, body_end, words, strings, rows, free)
            body: Any = to
            out[body + MEMBERS_AT], out[body + PREFIX_AT] = members, prefix
            copy_bytes(rows, like, like + prefix, out, body + BODY_HEADER)
            to += BODY_HEADER + prefix
            is_first = not keeps
            for entity in range(first, last):
                if not stays[entity]:
                    continue
                span = entities[entity, FIRST]
                if is_first:
                    base_ms, is_first = np.int64(word_at(rows, spans[span, ROWS_BEGIN] + 1)), False
                unpacked += _unpacked_bytes(spans, span)
                to = _put_member(
                    data, rows, spans, entities, entity, prefix, base_ms, shape, words, room, as_float, out, to
                )
            _put_number_at(out, body + DICTIONARY_AT, 4, to - body)
            _put_number_at(out, body + ROOM_AT, 4, unpacked)
            put_word(out, body + BASE_AT, np.uint64(base_ms))
            to = put_words(rows, words, strings, out, to)
        if free < 0:
            return int(free)
        ends[pack] = to
        first = last
    return 0
