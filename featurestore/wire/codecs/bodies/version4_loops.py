"""The compiled loop from the bytes of a body of version 4 to tiles: integers in the narrowest form for each field.

    code 0 1 2 3    1, 2, 4 or 8 bytes a tile
    code 4          8 bytes, once: all tiles have that value (the count of single events, the high half of small sums)

Below 8 bytes the lowest number of a field that does not merge by ADD stands for its identity (the time of no event, the
minimum of no value), and times count from the start of their tile: both would otherwise take 8 bytes.

Sizes are checked before (`version4` knows what a header implies) or here, so that no loop reads outside its bytes.
Numbers are read in place, little-endian and unaligned, as x86-64 and ARM64 can.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import BYTES, FLOAT_MATRIX, INT, INT_MATRIX, INTS, compiled, inlined
from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.tiles.parts import Array

CONSTANT = 4
"""Code of a field that has one value in all tiles."""

CONSTANT_BYTES = 8


@inlined
def _widen(
    values: Array, ints: Array, identity: int, is_time: int, reserves_lowest: int, start: Array, field: int, lowest: int
) -> Any:
    """One field's values from the width of `values`."""
    if not reserves_lowest:
        for row in range(len(values)):
            ints[field, row] = values[row]
        return 0
    for row in range(len(values)):
        value = np.int64(values[row])
        if value == lowest:
            ints[field, row] = identity
        else:
            ints[field, row] = value + start[row] if is_time else value
    return 0


@inlined
def _spans(codes: Array, limits: Array, strings: Any, begins: Array, ends: Array, field: int, count: int) -> Any:
    """Where each row's string is; 1 when a code points nowhere."""
    for row in range(count):
        code = np.int64(codes[row])
        if code >= len(limits):
            return 1
        begins[field, row] = strings + (np.int64(limits[code - 1]) if code else 0)
        ends[field, row] = strings + np.int64(limits[code])
    return 0


@compiled(
    INT,
    BYTES,
    INT,
    INTS,
    INTS,
    INTS,
    INTS,
    INTS,
    INTS,
    INTS,
    INTS,
    INTS,
    INT_MATRIX,
    FLOAT_MATRIX,
    INT_MATRIX,
    INT_MATRIX,
)
def fill_body(
    body: Array,
    at: int,
    header: Int64Array,
    width_of_code: Int64Array,
    identities: Int64Array,
    is_time: Int64Array,
    int_rows: Int64Array,
    float_rows: Int64Array,
    blob_rows: Int64Array,
    start: Int64Array,
    end: Int64Array,
    ints: Int64Array,
    floats: Float64Array,
    begins: Int64Array,
    ends: Int64Array,
) -> int:
    """The first tiles of an entity, from the bytes behind a body's header.

    Args:
        body: all bytes of the body.
        at: where the codes of its integer fields begin.
        header: tile count, bytes a start (4: seconds), base_ms, lifetime_end_ms, number of ADD fields.
        width_of_code: (256,) ms; 0 for the tile that ends at lifetime_end_ms.
        identities: (fields,) of the body's integer fields.
        is_time: (fields,) 1 where they hold event times.
        int_rows: (fields,) the row of `ints` that receives each integer field of the body; -1 for none.
        float_rows: likewise, of `floats`.
        blob_rows: likewise, of `begins` and `ends`.
        start: (N,) receives the tiles in its first rows, as do the others.
        end: (N,).
        ints: (fields, N).
        floats: (fields, N).
        begins: (fields, N) spans of strings within the body.
        ends: (fields, N).

    Returns:
        0, or 1 when a string lies outside the body or is none.
    """
    count, start_size, base, lifetime_end, add_count = header[0], header[1], header[2], header[3], header[4]
    codes = body[at : at + len(int_rows)]
    at += len(int_rows)
    _fill_starts(body[at : at + start_size * count], start_size, base, start, count)
    at += start_size * count
    for row in range(count):
        width = width_of_code[body[at + row]]
        end[row] = start[row] + width if width else lifetime_end
    at += count
    for field in range(len(int_rows)):
        size = CONSTANT_BYTES if codes[field] == CONSTANT else count << codes[field]
        if int_rows[field] >= 0:
            is_added = 1 if field < add_count else 0
            block, to = body[at : at + size], int_rows[field]
            _fill_ints(block, codes[field], identities[field], is_time[field], is_added, start, ints, to, count)
        at += size
    for field in range(len(float_rows)):
        values, to = body[at : at + 8 * count].view(np.float64), float_rows[field]
        at += 8 * count
        if to < 0:
            continue
        for row in range(count):
            floats[to, row] = values[row]
    is_wrong: int = _fill_strings(body, at, blob_rows, begins, ends, count)
    return is_wrong


@inlined
def _fill_ints(
    block: Array,
    code: int,
    identity: int,
    is_time: int,
    is_added: int,
    start: Array,
    ints: Array,
    to: int,
    count: int,
) -> Any:
    """One integer field, by its code."""
    lowest_is_identity = 0 if is_added else 1
    if code == CONSTANT:
        constant = block.view(np.int64)[0]
        for row in range(count):
            ints[to, row] = constant
    elif code == 0:
        _widen(block.view(np.int8), ints, identity, is_time, lowest_is_identity, start, to, -(1 << 7))
    elif code == 1:
        _widen(block.view(np.int16), ints, identity, is_time, lowest_is_identity, start, to, -(1 << 15))
    elif code == 2:
        _widen(block.view(np.int32), ints, identity, is_time, lowest_is_identity, start, to, -(1 << 31))
    else:
        _widen(block.view(np.int64), ints, identity, 0, 0, start, to, 0)
    return 0


@inlined
def _fill_starts(block: Array, size: int, base: int, start: Array, count: int) -> Any:
    """The begins of the tiles, stored in seconds or milliseconds from the first."""
    if size == 4:
        seconds = block.view(np.uint32)
        for row in range(count):
            start[row] = base + 1000 * np.int64(seconds[row])
    else:
        milliseconds = block.view(np.int64)
        for row in range(count):
            start[row] = base + milliseconds[row]
    return 0


@inlined
def _fill_strings(body: Array, at: int, rows: Array, begins: Array, ends: Array, count: int) -> Any:
    """The spans of the blob fields that are wanted."""
    fields = len(rows)
    if begins.shape[0] == 0:
        return 0
    distinct = np.int64(body[at : at + 4].view(np.uint32)[0])
    codes = at + 4
    size = 1 if distinct <= 256 else 2 if distinct <= 65536 else 4
    limits_at = codes + size * fields * count
    strings = limits_at + 4 * distinct
    if strings > len(body):
        return 1
    limits = body[limits_at:strings].view(np.uint32)
    for index in range(distinct):
        if strings + np.int64(limits[index]) > len(body):
            return 1
    is_wrong = 0
    for field in range(fields):
        to = rows[field]
        if to < 0:
            continue
        mine = body[codes + size * field * count : codes + size * (field + 1) * count]
        if size == 1:
            is_wrong |= _spans(mine, limits, strings, begins, ends, to, count)
        elif size == 2:
            is_wrong |= _spans(mine.view(np.uint16), limits, strings, begins, ends, to, count)
        else:
            is_wrong |= _spans(mine.view(np.uint32), limits, strings, begins, ends, to, count)
    return is_wrong
