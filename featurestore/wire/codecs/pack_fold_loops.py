"""Compiled loops that find all entities of many packs; `pack` has the format, `pack_close_loops` writes it.

Rows of a body stay in it, packed: most are in the next body too, byte for byte. What a head has comes out of it.

Lengths are checked against the bytes that there are before anything is read, and against the room before anything is
written, so no loop leaves its arrays whatever the bytes say.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import BYTES, FLAGS, INT, INT_MATRIX, INTS, borrowing, compiled
from featurestore.core.events import Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.wire.codecs.bodies.packing import word_at
from featurestore.wire.codecs.head_kernels import BESIDE_BODY, TORN, WRONG_CHECK, rows_in
from featurestore.wire.codecs.pack_loops import (
    BASE_AT,
    BODY_HEADER,
    CHECKSUM_BYTES,
    MEMBERS_AT,
    PREFIX_AT,
    dictionary_at,
    member_at,
    record_at,
)
from featurestore.wire.codecs.pack_rows import NO_ROOM, copy_bytes, is_equal, signed_at, take_words

BODY, HEAD, END = range(3)
"""Columns of bounds: where body and head of a pack begin, and end, in the bytes of all."""

KEY_BEGIN, KEY_END, ROWS_BEGIN, ROWS_END, PACKED, NEXT, SPAN_COLUMNS = range(7)
"""Of the rows of an entity that lie side by side: its key in the rows of all; where they are, in these, or in the bytes
that were read if they are packed, and then how many; and the next span of the same entity or -1."""

FIRST, LAST, COUNT, NEWEST_MS, LAST_MS, ENTITY_COLUMNS = range(6)
"""Of an entity: its first and last span, how many rows it has, what the time of the newest is at least (of packed rows
it is that of the first), and room for the time of the last packed one."""

ENTITIES_END, FOUND, PACK_COLUMNS = range(3)
"""Of a pack: the end of its entities, and whether its head began beside a body, TORN, WRONG_CHECK or NO_ROOM."""


@borrowing
def _entity_of(rows: Array, spans: Array, entities: Array, first: Any, last: Any, span: Any) -> Any:
    """Which of a pack's entities has the key of a span; `last`, a new one, if none has."""
    begin = spans[span, KEY_BEGIN]
    size = spans[span, KEY_END] - begin
    for entity in range(first, last):
        one = entities[entity, FIRST]
        at = spans[one, KEY_BEGIN]
        # Keys begin alike, and seldom end so.
        is_like = spans[one, KEY_END] - at == size and (size == 0 or rows[at + size - 1] == rows[begin + size - 1])
        if is_like and is_equal(rows, at, rows, begin, size):
            return entity
    return last


@borrowing
def _add_span(spans: Array, entities: Array, span: Any, entity: Any, is_new: Any, counted: Any, newest_ms: Any) -> Any:
    """Give a span to an entity."""
    spans[span, NEXT] = -1
    if is_new:
        entities[entity, FIRST], entities[entity, LAST] = span, span
        entities[entity, COUNT], entities[entity, NEWEST_MS] = counted, newest_ms
        return 0
    spans[entities[entity, LAST], NEXT] = span
    entities[entity, LAST] = span
    entities[entity, COUNT] += counted
    entities[entity, NEWEST_MS] = max(entities[entity, NEWEST_MS], newest_ms)
    return 0


@borrowing
def _open_body(
    data: Array,
    body_at: Any,
    head_at: Any,
    strings: Any,
    words: Array,
    rows: Array,
    to: Any,
    spans: Array,
    entities: Array,
    span: Any,
    entity: Any,
) -> Any:
    """All members of a body; where their keys end, or TORN or NO_ROOM. There is a span and an entity for each."""
    end = head_at - CHECKSUM_BYTES
    dictionary, prefix = dictionary_at(data, body_at, end), np.int64(data[body_at + PREFIX_AT])
    at = body_at + BODY_HEADER + prefix
    if dictionary == TORN or take_words(data, dictionary, end, words, strings) != end:
        return TORN
    base_ms = np.int64(word_at(data, body_at + BASE_AT))
    for _ in range(data[body_at + MEMBERS_AT]):
        begin, rows_at, rows_end, count = member_at(data, at, dictionary)
        if begin == TORN:
            return TORN
        key_bytes = prefix + rows_at - begin
        if to + key_bytes > len(rows):
            return NO_ROOM
        key_at = body_at + BODY_HEADER
        copy_bytes(data, key_at, key_at + prefix, rows, to)
        copy_bytes(data, begin, rows_at, rows, to + prefix)
        spans[span, KEY_BEGIN], spans[span, KEY_END] = to, to + key_bytes
        to += key_bytes
        spans[span, ROWS_BEGIN], spans[span, ROWS_END], spans[span, PACKED] = rows_at, rows_end, count
        since, _ = signed_at(data, rows_at, rows_end)
        _add_span(spans, entities, span, entity, True, count, base_ms + since)
        at, span, entity = rows_end, span + 1, entity + 1
    return to if at == dictionary else TORN


@borrowing
def _row_bytes(rows: Array, at: Any, shape: Array) -> Any:
    """Of a whole row."""
    size = shape[7]
    for string in range(shape[2] + shape[3]):
        length_at = at + shape[6] + 2 * string
        size += np.int64(rows[length_at]) + (np.int64(rows[length_at + 1]) << 8)
    return size


@borrowing
def _open_head(
    data: Array,
    head_at: Any,
    end: Any,
    shape: Array,
    rows: Array,
    to: Any,
    spans: Array,
    entities: Array,
    span: Any,
    first: Any,
    last: Any,
) -> Any:
    """All records of a head, given to entities from `first` on: where rows, spans and entities end, and FOUND."""
    at, found = np.int64(head_at), np.int64(0)
    while at < end:
        begin, rows_at, rows_end, turned = record_at(data, at, end)
        if turned == BESIDE_BODY and at == head_at:
            found = np.int64(1)
        elif turned != 0:
            return to, span, last, np.int64(TORN if turned == TORN else WRONG_CHECK)
        counted = rows_in(data, rows_at, rows_end, shape[7], shape[6], shape[2] + shape[3])
        if counted <= 0:
            return to, span, last, np.int64(counted if counted < 0 else TORN)
        size = rows_end - begin
        if to + size > len(rows):
            return to, span, last, np.int64(NO_ROOM)
        copy_bytes(data, begin, rows_end, rows, to)
        spans[span, KEY_BEGIN], spans[span, KEY_END] = to, to + rows_at - begin
        spans[span, ROWS_BEGIN], spans[span, ROWS_END] = to + rows_at - begin, to + size
        spans[span, PACKED] = 0
        newest_ms, row = np.int64(-(1 << 63)), to + rows_at - begin
        for _ in range(counted):
            newest_ms = max(newest_ms, np.int64(word_at(rows, row + 1)))
            row += _row_bytes(rows, row, shape)
        to += size
        entity = _entity_of(rows, spans, entities, first, last, span)
        _add_span(spans, entities, span, entity, entity == last, counted, newest_ms)
        last += entity == last
        at, span = rows_end, span + 1
    return to, span, last, found


@compiled(INT, BYTES, INT_MATRIX, INTS, FLAGS, INTS, INT_MATRIX, INT_MATRIX, INT_MATRIX, allocates=False)
def open_packs(
    data: Array,
    bounds: Int64Array,
    shape: Int64Array,
    rows: Array,
    words: Int64Array,
    spans: Int64Array,
    entities: Int64Array,
    packs: Int64Array,
) -> int:
    """All entities of P packs.

    data      bodies, whose checksums are right, and heads
    bounds    (P, 3) see BODY
    shape     of the view's heads
    receive   rows; spans (S, SPAN_COLUMNS), entities (S, ENTITY_COLUMNS), packs (P, PACK_COLUMNS); a pack that is not
              as it was written has no entities
    room      words (WORDS + 2 * strings,)
    returns   how many bytes of the rows there are: keys, and rows of heads
    """
    to: Any = np.int64(0)
    span: Any = 0
    entity: Any = 0
    for pack in range(len(bounds)):
        body_at, head_at, end = bounds[pack, BODY], bounds[pack, HEAD], bounds[pack, END]
        rows_end, spans_end, entities_end, found = to, span, entity, np.int64(0)
        if body_at < head_at:
            strings = shape[2] + shape[3]
            rows_end = _open_body(data, body_at, head_at, strings, words, rows, to, spans, entities, span, entity)
            spans_end += np.int64(data[body_at + MEMBERS_AT])
            entities_end += np.int64(data[body_at + MEMBERS_AT])
        if rows_end < 0:
            found = rows_end
        else:
            rows_end, spans_end, entities_end, found = _open_head(
                data, head_at, end, shape, rows, rows_end, spans, entities, spans_end, entity, entities_end
            )
        packs[pack, FOUND] = found
        if found >= 0:
            to, span, entity = rows_end, spans_end, entities_end
        packs[pack, ENTITIES_END] = entity
    return to  # type: ignore[no-any-return]  # an int
