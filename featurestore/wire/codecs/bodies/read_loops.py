"""The compiled loop from the bytes of a body of version 5 to tiles; `version5` has the format.

It goes over the columns twice. The first time it only finds out where each one is, and every size and every number is
checked against the bytes that there are. So the second one, which decodes what is wanted and what that refers to, has
nothing to check but strings. Whatever the bytes are, nothing outside of them and of the given arrays is touched.

    left    (masks + 1, runs + 1) the rows of each run, then of all, that a mask leaves explicit; the last leaves all
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import BYTES, FLAGS, FLOAT_MATRIX, INT, INT_MATRIX, INTS, borrowing, compiled
from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.wire.codecs.bodies import codes
from featurestore.wire.codecs.bodies.packing import (
    BEYOND,
    byte_at,
    end_of,
    packed_bytes,
    pass_frames,
    take_frames,
    unpack,
    varint_at,
)
from featurestore.wire.codecs.bodies.text_forms import LENGTH_BITS, LENGTH_MAX, NOWHERE, pass_text, take_texts

_CODE, _REF, _MASK, _AT, _LOWEST, _COUNTS, _IS_NEEDED = range(7)
FACTS = 7
"""What the first pass notes of a column."""
ROOM_ROWS = 6


@borrowing
def _fill_spans(body: Array, at: int, numbers: Array, widths: Array, start: Array, end: Array, run_ends: Array) -> Any:
    """Begins and ends of the tiles and the ends of the runs; returns where the runs end."""
    count, previous, lifetime_end, row = numbers[0], numbers[1], numbers[2], 0
    for run in range(len(run_ends)):
        rung, unit = byte_at(body, at), byte_at(body, at + 1)
        tiles, at = varint_at(body, at + 2)
        bits = byte_at(body, at)
        at += 1
        is_wrong = (rung >= len(widths) and rung != codes.LIFETIME_RUNG) or unit >= len(widths) or not 0 < bits <= 64
        if is_wrong or not 0 < tiles <= count - row or at + packed_bytes(tiles, bits) > end_of(body):
            return BEYOND
        unpack(body, at, bits, 0, start, row, tiles)
        at += packed_bytes(tiles, bits)
        units = previous // widths[unit]
        for index in range(row, row + tiles):
            units += start[index]
            start[index] = units * widths[unit]
            end[index] = lifetime_end if rung == codes.LIFETIME_RUNG else start[index] + widths[rung]
        row += tiles
        previous, run_ends[run] = start[row - 1], row
    return at if row == count else BEYOND


@borrowing
def _fill_masks(body: Array, at: int, masks: Array, run_ends: Array, left: Array, count: int) -> Any:
    """Each mask as a number a row, then one that leaves all rows, and what they leave of each run."""
    for mask in range(len(masks)):
        row, total = 0, 0
        for first in range(0, count, 8):
            bits = np.int64(0) if mask == len(masks) - 1 else np.int64(body[at])
            for bit in range(8):
                masks[mask, first + bit] = (bits >> bit) & 1
            at += 1
        for run in range(len(run_ends)):
            rows = run_ends[run] - row
            for index in range(row, run_ends[run]):
                rows -= masks[mask, index]
            row = run_ends[run]
            left[mask, run] = rows
            total += rows
        left[mask, len(run_ends)] = total
    return 0


@borrowing
def _first_of(column: int, fields: Array) -> Any:
    """The first column of the same storage; references count from there."""
    return 0 if column < fields[0] else fields[0] if column < fields[0] + fields[1] else fields[0] + fields[1]


@borrowing
def _pass_code(body: Array, at: int, index: int, mask_count: int, fact: Array) -> Any:
    """Note code, reference and mask of a column; returns where they end."""
    code = byte_at(body, at)
    at += 1
    fact[:] = (code, codes.IDENTITY, mask_count, 0, 0, codes.ALONE, 0)
    if code & 3 != codes.EXPLICIT:
        fact[_REF] = byte_at(body, at)
        at = BEYOND if fact[_REF] >= index and fact[_REF] != codes.IDENTITY else at + 1
    if code & 3 == codes.PARTLY:
        mask = byte_at(body, at)
        at = BEYOND if mask >= mask_count else at + 1
        fact[_MASK] = min(mask, mask_count)
    return BEYOND if code & 3 == 3 else at


@borrowing
def _pass_columns(body: Array, at: int, fields: Array, left: Array, runs: int, facts: Array, lengths: Array) -> Any:
    """Find every column; returns where the last one ends."""
    for column in range(len(facts)):
        fact = facts[column]
        at = _pass_code(body, at, column - _first_of(column, fields), len(left) - 1, fact)
        code, mine = fact[_CODE], left[fact[_MASK]][: runs + 1]
        is_int, is_text = column < fields[0], column >= fields[0] + fields[1]
        if code & 3 == codes.SAME:
            continue
        if is_int and code & codes.IDENTITIES:
            fact[_LOWEST], at = varint_at(body, at)
        elif not is_int and not is_text and code & codes.SCALED:
            fact[_COUNTS] = byte_at(body, at)
            at = BEYOND if fact[_COUNTS] >= fields[0] and fact[_COUNTS] != codes.ALONE else at + 1
        fact[_AT] = at
        if is_text:
            at = pass_text(body, at, code & codes.DICTIONARY, mine[len(mine) - 1], lengths)
        elif is_int or code & codes.SCALED:
            at = pass_frames(body, at, code & codes.BY_RUN, mine)
            if not is_int:
                at = pass_frames(body, at, code & codes.ULPS_BY_RUN, mine)
        else:
            at += 8 * mine[len(mine) - 1]
        if at > end_of(body):
            return BEYOND
    return at


@borrowing
def _mark_needed(facts: Array, fields: Array, rows: Array) -> Any:
    """Which columns to decode: those that are wanted, and what they refer to, which always is an earlier one."""
    for column in range(len(facts) - 1, -1, -1):
        if rows[column] >= 0:
            facts[column, _IS_NEEDED] = 1
        if facts[column, _IS_NEEDED]:
            ref, counts = facts[column, _REF], facts[column, _COUNTS]
            if ref != codes.IDENTITY:
                facts[_first_of(column, fields) + ref, _IS_NEEDED] = 1
            if counts != codes.ALONE:
                facts[counts, _IS_NEEDED] = 1
    return 0


@borrowing
def _spread(values: Array, mask: Array, referred: Array, has_ref: bool, identity: int, row: Array) -> Any:
    """A column: its explicit values in the rows outside the mask, and what it refers to in those within."""
    at = 0
    for index in range(len(row)):
        value, other = values[at], referred[index] if has_ref else identity
        row[index] = other if mask[index] else value
        at += 1 - mask[index]
    return 0


@borrowing
def _unshifted(value: int, begin: int, identity: int, code: int, lowest: int) -> Any:
    """An explicit integer as it was."""
    shifted = value + (begin if code & codes.RELATIVE else 0)
    if code & codes.IDENTITIES:
        # 0 is the identity; the others count from 1.
        return identity if value == 0 else shifted + lowest - 1
    return shifted


@borrowing
def _take_ints(body: Array, fact: Array, identity: int, start: Array, mask: Array, left: Array, out: Array) -> Any:
    """The explicit values of an integer column."""
    code, lowest, at = fact[_CODE], fact[_LOWEST], 0
    take_frames(body, fact[_AT], code & codes.BY_RUN, left, out)
    if not code & (codes.IDENTITIES | codes.RELATIVE):
        return 0
    if left[len(left) - 1] == len(start):
        for row in range(len(start)):
            out[row] = _unshifted(out[row], start[row], identity, code, lowest)
        return 0
    for row in range(len(start)):
        if not mask[row]:
            out[at] = _unshifted(out[at], start[row], identity, code, lowest)
            at += 1
    return 0


@borrowing
def _take_floats(body: Array, fact: Array, counts: Array, mask: Array, left: Array, out: Array, ulps: Array) -> Any:
    """The bits of the explicit values of a float column."""
    code = fact[_CODE]
    if not code & codes.SCALED:
        unpack(body, fact[_AT], 64, 0, out, 0, left[len(left) - 1])
        return 0
    at = take_frames(body, fact[_AT], code & codes.BY_RUN, left, out)
    take_frames(body, at, code & codes.ULPS_BY_RUN, left, ulps)
    quotients, at = out.view(np.float64), 0
    for row in range(len(mask)):
        if not mask[row]:
            count = np.float64(1 if fact[_COUNTS] == codes.ALONE else max(counts[row], 1))
            quotients[at] = np.float64(out[at]) / count
            out[at] += ulps[at]
            at += 1
    return 0


@borrowing
def _fill_columns(
    body: Array,
    how: Any,
    masks: Array,
    left: Array,
    start: Array,
    cells: Array,
    room: Array,
    written: Array,
    first: int,
) -> Any:
    """Decode the columns that are needed; returns whether all strings are somewhere."""
    (facts, fields, rows, identities, runs), used, count = how, 0, len(start)
    _mark_needed(facts, fields, rows)
    for column in range(len(facts)):
        fact, identity = facts[column], identities[column]
        if not fact[_IS_NEEDED] or used == NOWHERE:
            continue
        row, kind, has_ref = cells[column][:count], fact[_CODE] & 3, fact[_REF] != codes.IDENTITY
        referred = cells[_first_of(column, fields) + fact[_REF] if has_ref else column][:count]
        if kind == codes.SAME:
            for index in range(count):
                row[index] = referred[index] if has_ref else identity
            continue
        mask, mine = masks[fact[_MASK]][:count], left[fact[_MASK]][: runs + 1]
        out = room[0] if kind == codes.PARTLY else row
        if column < fields[0]:
            _take_ints(body, fact, identity, start, mask, mine, out)
        elif column < fields[0] + fields[1]:
            counts = cells[0 if fact[_COUNTS] == codes.ALONE else fact[_COUNTS]]
            _take_floats(body, fact, counts, mask, mine, out, room[1])
        else:
            form = fact[_CODE] & codes.DICTIONARY
            used = take_texts(body, fact[_AT], form, mine[runs], out, room[2], written, first, used)
        if kind == codes.PARTLY:
            _spread(out, mask, referred, has_ref, identity, row)
    return used != NOWHERE


@compiled(INT, BYTES, *(INTS,) * 7, INT_MATRIX, FLOAT_MATRIX, *(INT_MATRIX,) * 4, FLAGS, allocates=False)
def read_tiles(
    body: Array,
    numbers: Int64Array,
    fields: Int64Array,
    rows: Int64Array,
    identities: Int64Array,
    widths: Int64Array,
    start: Int64Array,
    end: Int64Array,
    ints: Int64Array,
    floats: Float64Array,
    begins: Int64Array,
    ends: Int64Array,
    facts: Int64Array,
    cells: Int64Array,
    written: Array,
) -> int:
    """The first tiles of an entity, from a body whose header and checksum were read before.

    numbers      tile count, base_ms, lifetime_end_ms, masks, where the runs begin, where `written` is to be in the
                 buffer of strings, which begins with the body
    fields       how many integer, float and text columns the body has
    rows         the row of a block that receives each column; -1 for none
    identities   of all columns: of float ones the bits, of text ones 0, which is an empty string
    widths       the ladder in ms
    receive      start, end (N,), ints, floats, begins, ends (fields, N), written
    room         facts (columns, FACTS), cells (columns + 2 * masks + ROOM_ROWS, N + 8)
    returns      0, or 1 when the bytes are no body of these fields
    """
    count, masks_end = numbers[0], len(rows) + numbers[3] + 1
    runs, at = varint_at(body, numbers[4])
    if not 0 < runs <= count:
        return 1
    masks, left = cells[len(rows) : masks_end], cells[masks_end : masks_end + numbers[3] + 1]
    room, run_ends = cells[len(cells) - 4 :], cells[len(cells) - 1][:runs]
    at = _fill_spans(body, at, numbers, widths, start, end, run_ends)
    columns_at = at + numbers[3] * ((count + 7) >> 3)
    if columns_at > end_of(body):
        return 1
    _fill_masks(body, at, masks, run_ends, left, count)
    if _pass_columns(body, columns_at, fields, left, runs, facts, room[0]) != end_of(body):
        return 1
    how, bits, first_text = (facts, fields, rows, identities, runs), floats.view(np.int64), fields[0] + fields[1]
    if not _fill_columns(body, how, masks, left, start[:count], cells, room, written, numbers[5]):
        return 1
    for column in range(len(rows)):
        to, found = rows[column], cells[column]
        for row in range(count if to >= 0 else 0):
            if column < fields[0]:
                ints[to, row] = found[row]
            elif column < first_text:
                bits[to, row] = found[row]
            else:
                begins[to, row] = found[row] >> LENGTH_BITS
                ends[to, row] = begins[to, row] + (found[row] & LENGTH_MAX)
    return 0
