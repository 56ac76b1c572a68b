"""The compiled loop from tiles to the bytes of a body of version 5; `version5` has the format.

A column is written in the first way of these that fits: as an earlier one in all rows, as an earlier one where a mask
says so if that is expected to save more than it costs, or by itself in the smallest of its forms.

    ends    of the runs of tiles of one width; among the explicit values of a column they are `bounds`
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import BYTES, FLAGS, INT, INT_MATRIX, INTS, borrowing, compiled
from featurestore.core.events import Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.wire.codecs.bodies import codes
from featurestore.wire.codecs.bodies.packing import bits_of, measure, pack, put_frames, put_varint, varint_bytes
from featurestore.wire.codecs.bodies.text_forms import plan_texts, put_texts

MASKS_MAX = 16
"""More are never written."""
ROOM_ROWS = 10 + MASKS_MAX + 2
NOTES = 5 + 3 + 255
_REFERENCES_MAX = 32
"""A column is compared with so many earlier ones: a view of hundreds of columns must not take their square."""
_SPAN_MAX = np.uint64(1 << 62)
_SCALED_MAX = float(1 << 60)
_ULPS_MAX = 1 << 20
_WIDE_BITS = 40
"""Numbers that take as many are tried from the start of their tile: they may be times."""


@borrowing
def _put_runs(out: Array, start: Array, end: Array, widths: Array, ends: Array, room: Array, told: Array) -> Any:
    """Write begins and widths of the tiles; returns where they end, and how many runs there are."""
    count, runs, row, previous_rung, rungs, deltas = len(start), 0, 0, -1, room[0], room[1]
    for index in range(count):
        width, rung = end[index] - start[index], max(previous_rung, 0)
        if rung == codes.LIFETIME_RUNG or widths[rung] != width:
            rung = 0
            while rung < len(widths) and widths[rung] != width:
                rung += 1
        if rung == len(widths):
            rung, told[3], told[4] = codes.LIFETIME_RUNG, end[index], told[4] + 1
        rungs[index] = rung
        runs += rung != previous_rung
        previous_rung = rung
    at, previous, run = put_varint(out, 0, runs), start[0], 0
    while row < count:
        first, rung, unit = row, rungs[row], len(widths) - 1
        while row < count and rungs[row] == rung:
            while start[row] % widths[unit]:
                unit -= 1
            row += 1
        units, highest = previous // widths[unit], np.uint64(1)
        for index in range(first, row):
            deltas[index] = start[index] // widths[unit] - units
            units += deltas[index]
            highest = max(highest, np.uint64(deltas[index]))
        bits, ends[run], previous = bits_of(highest), row, start[row - 1]
        out[at], out[at + 1] = rung, unit
        at = put_varint(out, at + 2, row - first)
        out[at] = bits
        at = pack(out, at + 1, deltas, first, row, 0, bits)
        run += 1
    return at, runs


@borrowing
def _reference(block: Array, field: int, identity: int, kinds: Array) -> Any:
    """The earlier column, or codes.IDENTITY, that most values of a column equal, and how many do."""
    column, tried = block[field], 0
    best, most = codes.IDENTITY, 0
    for row in range(len(column)):
        most += column[row] == identity
    for other in range(min(field, codes.IDENTITY) - 1, -1, -1):
        if most == len(column) or tried == _REFERENCES_MAX:
            break
        if kinds[other] != codes.SAME:
            tried, matches, earlier = tried + 1, 0, block[other]
            for row in range(len(column)):
                matches += column[row] == earlier[row]
            if matches > most:
                best, most = other, matches
    return best, most


@borrowing
def _choose_mask(
    block: Array, field: int, ref: int, identity: int, matches: int, row_bytes: float, masks: Array, state: Array
) -> Any:
    """The mask under which a column shall equal what it refers to; the last one, of no row, when that saves nothing.

    `state` is how many masks there are, whether the first one, that of single events, is used, and whether any is. A
    new mask is put behind the others.
    """
    column, count = block[field], block.shape[1]
    best, mask_bytes = len(masks) - 1, (count + 7) >> 3
    fresh = masks[state[0]]
    for row in range(count):
        fresh[row] = column[row] == (identity if ref == codes.IDENTITY else block[ref, row])
    gain = 2.0
    for mask in range(state[0]):
        rows, beyond = 0, 0
        for row in range(count):
            rows += masks[mask, row]
            beyond += masks[mask, row] > fresh[row]
        saved = rows * row_bytes - _mask_bytes(mask, state, count)
        if beyond == 0 and saved > gain:
            gain, best = saved, mask
    if matches * row_bytes - mask_bytes > gain and state[0] < MASKS_MAX:
        best = state[0]
    return best


@borrowing
def _mask_bytes(mask: int, state: Array, count: int) -> Any:
    """What it takes to write a mask that is not used yet."""
    return (count + 7) >> 3 if mask == state[0] or (mask == 0 and not state[1]) else 0


@borrowing
def _gather(column: Array, mask: Array, is_masked: bool, ends: Array, values: Array, bounds: Array) -> Any:
    """The values outside a mask, and where runs end among them."""
    at, row = 0, 0
    bounds[0] = 0
    for run in range(len(ends)):
        for index in range(row, ends[run]):
            values[at] = column[index]
            at += 1 - mask[index] if is_masked else 1
        row = ends[run]
        bounds[run + 1] = at
    return 0


@borrowing
def _shift(column: Array, start: Array, mask: Array, identity: int, is_relative: bool, values: Array) -> Any:
    """Integers from the start of their tile, identities apart; returns IDENTITIES then, and the lowest other value."""
    lowest, highest, found, at = np.int64((1 << 63) - 1), np.int64(-(1 << 63)), 0, 0
    for row in range(len(column)):
        if not mask[row]:
            if column[row] == identity:
                found = codes.IDENTITIES
            else:
                shifted = column[row] - (start[row] if is_relative else 0)
                lowest, highest = min(lowest, shifted), max(highest, shifted)
    if lowest > highest or np.uint64(highest) - np.uint64(lowest) > _SPAN_MAX:
        found, lowest = 0, np.int64(0)
    for row in range(len(column)):
        if not mask[row]:
            shifted = column[row] - (start[row] if is_relative else 0)
            values[at] = shifted if not found else 0 if column[row] == identity else shifted - lowest + 1
            at += 1
    return found, lowest


@borrowing
def _plan_ints(
    column: Array, start: Array, mask: Array, identity: int, is_time: int, values: Array, bounds: Array
) -> Any:
    """Size, code and lowest value of the explicit rows of an integer column, whose `values` are gathered."""
    is_relative, found, lowest = is_time != 0, 0, np.int64(0)
    while True:
        if identity or is_relative:
            found, lowest = _shift(column, start, mask, identity, is_relative, values)
        size, by_run = measure(values, bounds)
        if is_relative or size * 8 < _WIDE_BITS * bounds[len(bounds) - 1]:
            break
        is_relative = True
    size += varint_bytes(lowest) if found else 0
    return size, found | by_run | (codes.RELATIVE if is_relative else 0), lowest


@borrowing
def _plan_floats(column: Array, mask: Array, counts: Array, is_counted: bool, room: Array, bounds: Array) -> Any:
    """Size and code of the explicit rows of a float column: as they are, or as whole numbers divided by counts."""
    at, raw = 0, 8 * bounds[len(bounds) - 1]
    values, quotients = column.view(np.float64), room[2].view(np.float64)
    for row in range(len(column)):
        if mask[row]:
            continue
        count = np.float64(max(counts[row], 1) if is_counted else 1)
        number = np.rint(values[row] * count)
        if not abs(number) < _SCALED_MAX:
            return raw, 0
        # As it will be read: of a number that is an integer, which has no negative zero.
        room[1, at] = np.int64(number)
        quotients[at] = np.float64(room[1, at]) / count
        room[2, at] = column[row] - room[2, at]
        if not -_ULPS_MAX < room[2, at] < _ULPS_MAX:
            return raw, 0
        at += 1
    size, by_run = measure(room[1], bounds)
    ulps_size, ulps_by_run = measure(room[2], bounds)
    if 1 + size + ulps_size >= raw:
        return raw, 0
    return 1 + size + ulps_size, codes.SCALED | by_run | (codes.ULPS_BY_RUN if ulps_by_run else 0)


@borrowing
def _plan_column(column: int, start: Array, blocks: Any, facts: Any, strings: Any, masks: Array, rows: Any) -> Any:
    """How a column is stored: its code, reference, mask, and what the code has to be read with; `room` has the rest."""
    (ints, bits, texts), (identities, helps, state, kinds) = blocks, facts
    buffer, spans, decimals, seen, pattern = strings
    (ends, room, bounds), unmasked, is_int = rows, len(masks) - 1, column < len(ints)
    is_text = column >= len(ints) + len(bits)
    first = 0 if is_int else len(ints) + len(bits) if is_text else len(ints)
    block, field, identity = ints if is_int else texts if is_text else bits, column - first, identities[column]
    ref, matches = _reference(block, field, identity, kinds[first:])
    if matches == len(start):
        return codes.SAME, ref, unmasked, np.int64(0)
    is_counted = not is_int and not is_text and helps[column] != codes.ALONE
    counts = ints[helps[column]] if is_counted else block[field]
    mask, best, code, extra = unmasked, 0, 0, np.int64(0)
    for attempt in range(3):
        cells, hidden = block[field], masks[mask]
        _gather(cells, hidden, mask != unmasked, ends, room[0], bounds)
        if is_int:
            size, code, extra = _plan_ints(cells, start, hidden, identity, helps[column], room[0], bounds)
        elif is_text:
            size, code, extra = plan_texts(buffer, spans, decimals, seen, room, bounds[len(ends)], pattern)
        else:
            size, code = _plan_floats(cells, hidden, counts, is_counted, room, bounds)
        if attempt == 0 and matches:
            best = size
            mask = _choose_mask(block, field, ref, identity, matches, size / len(start), masks, state)
        elif attempt == 1 and size + 2 + _mask_bytes(mask, state, len(start)) >= best:
            # A third time, as the first one was.
            mask = unmasked
            continue
        if attempt or mask == unmasked:
            break
    return code | (codes.EXPLICIT if mask == unmasked else codes.PARTLY), ref, mask, extra


@borrowing
def _put_columns(
    out: Array, at: int, start: Array, blocks: Any, facts: Any, strings: Any, masks: Array, rows: Any
) -> Any:
    """Write all columns; returns where they end, and the bytes of strings that reading has to make anew."""
    (ints, bits, _), (identities, helps, state, kinds), (buffer, spans, _, _, pattern) = blocks, facts, strings
    (ends, room, bounds), unmasked, scratch = rows, len(masks) - 1, 0
    for column in range(len(identities)):
        code, ref, mask, extra = _plan_column(column, start, blocks, facts, strings, masks, rows)
        kinds[column], count = code & 3, bounds[len(ends)]
        out[at] = code
        at += 1
        if code & 3 != codes.EXPLICIT:
            out[at] = ref
            at += 1
        if code & 3 == codes.SAME:
            continue
        if mask != unmasked:
            state[0] += mask == state[0]
            state[1], state[2] = state[1] or mask == 0, 1
            out[at] = mask
            at += 1
        if column < len(ints):
            if code & codes.IDENTITIES:
                at = put_varint(out, at, extra)
            at = put_frames(out, at, room[0], bounds, code & codes.BY_RUN)
        elif column >= len(ints) + len(bits):
            form = code & codes.DICTIONARY
            at, more = put_texts(out, at, form, extra, room, count, pattern, (buffer, spans))
            scratch += more
        elif code & codes.SCALED:
            out[at] = helps[column]
            at = put_frames(out, at + 1, room[1], bounds, code & codes.BY_RUN)
            at = put_frames(out, at, room[2], bounds, code & codes.ULPS_BY_RUN)
        else:
            at = pack(out, at, room[0], 0, count, 0, 64)
    return at, scratch


@compiled(
    INT,
    INTS,
    INTS,
    *(INT_MATRIX,) * 3,
    *(INTS,) * 3,
    INT,
    BYTES,
    INT_MATRIX,
    INTS,
    INTS,
    INT_MATRIX,
    FLAGS,
    allocates=False,
)
def write_tiles(
    start: Int64Array,
    end: Int64Array,
    ints: Int64Array,
    bits: Int64Array,
    texts: Int64Array,
    identities: Int64Array,
    helps: Int64Array,
    widths: Int64Array,
    singles: int,
    buffer: Array,
    spans: Int64Array,
    decimals: Int64Array,
    notes: Int64Array,
    cells: Int64Array,
    out: Array,
) -> int:
    """Write runs, then columns, then masks.

    start, end (N,)       of N >= 1 tiles, ascending
    ints, bits, texts     (fields, N) integers, floats as their bits, strings as their numbers
    identities            of all columns: of float ones the bits, of text ones 0
    helps                 of an integer column 1 if it holds event times, of a float one the integer column that counts
                          its values, or ALONE
    widths                the ladder in ms
    singles               integer column that is 1 in tiles of one event; -1 for none
    buffer, spans         the strings, (2, distinct) begin and end of each
    decimals              (distinct,) what a string is worth as a decimal number, or -1
    receive               out, which has room for all; the first of notes: where columns end, how many masks there are,
                          bytes of strings that reading makes anew, where the tile of irregular width ends, how many of
                          those there are
    room                  notes (NOTES + columns + distinct,), cells (ROOM_ROWS, N + 1)
    returns               where the runs end
    """
    count, rows, masks_at = len(start), 0, len(cells) - MASKS_MAX - 2
    told, state, kinds = notes[:5], notes[5:8], notes[NOTES : NOTES + len(identities)]
    notes[: NOTES + len(identities)] = 0
    ends, bounds, room, masks = cells[0], cells[1], cells[2:masks_at], cells[masks_at:]
    runs_end: int
    runs_end, runs = _put_runs(out, start, end, widths, ends, room, told)
    masks[MASKS_MAX + 1, :] = 0
    if singles >= 0:
        for row in range(count):
            masks[0, row] = ints[singles, row] == 1
            rows += masks[0, row]
        state[0] = 0 < rows < count
    strings = (buffer, spans, decimals, notes[NOTES + len(identities) :], notes[8:NOTES])
    where = (ends[:runs], room, bounds[: runs + 1])
    facts = (identities, helps, state, kinds)
    at, told[2] = _put_columns(out, runs_end, start, (ints, bits, texts), facts, strings, masks, where)
    told[0], told[1] = at, state[0] if state[2] else 0
    for mask in range(told[1]):
        for first in range(0, count, 8):
            byte = np.int64(0)
            for row in range(first, min(first + 8, count)):
                byte |= masks[mask, row] << (row - first)
            out[at] = byte
            at += 1
    return runs_end
