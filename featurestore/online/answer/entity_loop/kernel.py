"""The compiled loop: from the bytes of an entity, and of a payment in flight, to its merged windows.

room   numbers | body, head, payment, strings made anew | tiles | what reading and merging take
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from featurestore.core.aggregations.numbers.moments import merge_moments
from featurestore.core.aggregations.ordered.decay import merge_decayed
from featurestore.core.aggregations.ordered.first_last import TEXT, choose_edges
from featurestore.core.compiled import (
    BYTE_STRING,
    FLOAT_MATRIX,
    INT,
    INT_MATRIX,
    INTS,
    borrowing,
    compiled,
    spliced,
    within,
)
from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.core.tiles.ranges import find_bounds, merge_float_blocks, merge_int_blocks
from featurestore.core.tiles.sessions import narrow_sessions
from featurestore.online.answer.entity_loop import program as sections
from featurestore.online.answer.entity_loop.program import section, table
from featurestore.online.answer.entity_loop.sources import (
    BODY_BYTES,
    EVENTS,
    HEAD_AT,
    HEAD_BYTES,
    NUMBERS,
    TILES,
    WRITTEN_AT,
    number_at,
    source_bytes,
    source_words,
    take_sources,
)
from featurestore.wire.codecs.bodies.read_loops import FACTS, ROOM_ROWS, read_tiles
from featurestore.wire.codecs.head_kernels import PROGRAM_COLUMNS, fill_head

MOVES_MAX: Final = 1_024
"""How many rows late events may push, all together: sorting them one by one is quadratic."""

REACHED, EMPTY, LEFT = 0, -1, -2
"""What the loop returns: something stored counts, nothing does, or others are to be asked."""

_merge_int_blocks = within(merge_int_blocks)
_merge_float_blocks = within(merge_float_blocks)
_merge_moments = within(merge_moments)
_merge_decayed = within(merge_decayed)
_choose_edges = within(choose_edges)
_find_bounds = within(find_bounds)
_narrow_sessions = within(narrow_sessions)
_read_tiles = within(read_tiles)
_fill_head = within(fill_head)


@borrowing
def _push(column: Array, to: int, at: int) -> Any:
    """Move the number of one row to an earlier one; those between follow."""
    value = column[at]
    for row in range(at, to, -1):
        column[row] = column[row - 1]
    column[to] = value
    return 0


@borrowing
def _sort_in(start: Array, columns: Array, first: int, end: int, moves_max: int, is_before_equals: bool) -> Any:
    """Bring rows [first, end) into ascending order among those before them; whether few had to move.

    Equal ones stay in their order, or come before those that are there already. `columns` are all numbers of the rows,
    `start` the first of them.
    """
    moves = 0
    for at in range(max(first, 1), end):
        if start[at] > start[at - 1] or (start[at] == start[at - 1] and not is_before_equals):
            continue
        low, high = 0, at
        while low < high:
            middle = (low + high) >> 1
            if start[middle] < start[at] or (start[middle] == start[at] and not is_before_equals):
                low = middle + 1
            else:
                high = middle
        moves += at - low
        if moves > moves_max:
            return False
        for index in range(len(columns)):
            _push(columns[index], low, at)
    return True


@borrowing
def _count_twice(bounds: Int64Array, ends_at_read: Int64Array) -> Any:
    """Of W windows in the first 2W numbers 2W: as they are, then with the payment; see `core.view.ReachInFlight`."""
    windows = len(ends_at_read)
    for window in range(windows):
        end = bounds[windows + window]
        bounds[2 * windows + window], bounds[3 * windows + window] = end, end + ends_at_read[window]
    for window in range(windows):
        bounds[windows + window] = bounds[window]
    return 0


@borrowing
def _merge(program: Array, columns: Any, bounds: Int64Array, room: Int64Array, outs: Any) -> Any:
    """Every family's ranges into one row of what is gathered; `columns` and `outs` are tuples of arrays."""
    (ints, floats, buffer, begins, ends), (out_ints, out_floats, row, found) = columns, outs
    picks = table(program, sections.INT_PICKS, 4)
    _merge_int_blocks(ints, bounds, picks, section(program, sections.INT_IDENTITIES), room, out_ints, row)
    picks = table(program, sections.FLOAT_PICKS, 4)
    identities = section(program, sections.FLOAT_IDENTITIES).view(np.float64)
    _merge_float_blocks(floats, bounds, picks, identities, out_floats, row)
    _merge_moments(ints, floats, bounds, table(program, sections.MOMENTS, 10), room.view(np.float64), out_floats, row)
    _merge_decayed(ints, floats, bounds, table(program, sections.DECAYED, 5), out_floats, row)
    picks = table(program, sections.EDGES, 7)
    chosen = found[1 : 1 + len(picks)]
    _choose_edges(ints, floats, buffer, begins, ends, bounds, picks, out_ints, out_floats, row, chosen)
    # Backwards, as the spans take the places of the rows.
    for index in range(len(picks) - 1, -1, -1):
        at, is_text = chosen[index], picks[index, 2] == TEXT
        found[1 + 2 * index] = begins[picks[index, 3], at] if is_text and at >= 0 else 0
        found[2 + 2 * index] = ends[picks[index, 3], at] if is_text and at >= 0 else 0
    return 0


@borrowing
def _places(program: Array, numbers: Array, bytes_end: int, rows: int, edges: int) -> Any:
    """Where tables, facts, cells, bounds and the families' room begin, and where it all ends."""
    of_view, columns = section(program, sections.OF_VIEW), section(program, sections.ROWS)
    head, event = section(program, sections.HEAD_SHAPE), section(program, sections.EVENT_SHAPE)
    tiles, masks = numbers[TILES], numbers[3]
    width = 2 + of_view[0] + of_view[1] + 2 * of_view[2]
    table_at = NUMBERS + ((bytes_end + 7) >> 3)
    facts_at = table_at + width * rows
    cells_at = facts_at + FACTS * len(columns)
    bounds_at = cells_at + (len(columns) + 2 * masks + ROOM_ROWS) * (tiles + 8)
    room_at = bounds_at + edges
    return (
        table_at,
        facts_at,
        cells_at,
        bounds_at,
        room_at,
        room_at + rows + 2 + max(head[2] + head[3], event[2] + event[3]),
    )


@spliced
def _columns(block: Array, of_view: Array) -> Any:
    """A block of numbers as the columns of tiles: start, end, ints, floats, begins and ends of strings."""
    floats_at, texts_at = 2 + of_view[0], 2 + of_view[0] + of_view[1]
    ends_at = texts_at + of_view[2]
    return (
        block[0],
        block[1],
        block[2:floats_at],
        block[floats_at:texts_at].view(np.float64),
        block[texts_at:ends_at],
        block[ends_at:],
    )


@borrowing
def _fill_body(
    program: Array, data: Array, numbers: Array, places: Any, bytes_end: int, block: Array, work: Array
) -> Any:
    """The tiles of a body into the first rows; whether its bytes are one."""
    _, facts_at, cells_at, bounds_at, _, _ = places
    width = numbers[TILES] + 8
    facts = work[facts_at:cells_at].reshape(((cells_at - facts_at) // FACTS, FACTS))
    cells = work[cells_at:bounds_at].reshape(((bounds_at - cells_at) // width, width))
    start, end, ints, floats, begins, ends = _columns(block, section(program, sections.OF_VIEW))
    is_wrong = _read_tiles(
        data[: numbers[BODY_BYTES]],
        numbers,
        section(program, sections.FIELDS),
        section(program, sections.ROWS),
        section(program, sections.IDENTITIES),
        section(program, sections.WIDTHS),
        start,
        end,
        ints,
        floats,
        begins,
        ends,
        facts,
        cells,
        data[numbers[WRITTEN_AT] : bytes_end],
    )
    return not is_wrong


@borrowing
def _lift(program: Array, data: Array, numbers: Array, event_at: int, columns: Any, room: Array) -> Any:
    """The events of the head, and behind them the payment; whether all but that are ascending."""
    start, end, ints, floats, begins, ends = columns
    are_ascending, row = True, numbers[TILES]
    for turn in range(2):
        is_head = turn == 0
        begin = numbers[HEAD_AT] if is_head else event_at
        size = numbers[HEAD_BYTES] if is_head else numbers[WRITTEN_AT] - event_at
        if size == 0:
            continue
        is_ascending = _fill_head(
            data[begin : begin + size],
            section(program, sections.HEAD_SHAPE if is_head else sections.EVENT_SHAPE),
            table(program, sections.HEAD_STEPS if is_head else sections.EVENT_STEPS, PROGRAM_COLUMNS),
            section(program, sections.INT_IDENTITIES),
            section(program, sections.FLOAT_IDENTITIES).view(np.float64),
            row,
            begin,
            start,
            end,
            ints,
            floats,
            begins,
            ends,
            room,
        )
        if is_head:
            are_ascending, row = is_ascending == 1, row + numbers[EVENTS]
    return are_ascending


@compiled(
    INT,
    BYTE_STRING,
    BYTE_STRING,
    BYTE_STRING,
    INT,
    INTS,
    INTS,
    INTS,
    INT_MATRIX,
    FLOAT_MATRIX,
    INT,
    INTS,
    allocates=False,
)
def gather_entity(
    body: bytes,
    head: bytes,
    event: bytes,
    as_of_ms: int,
    shift_ms: Int64Array,
    program: Int64Array,
    work: Int64Array,
    out_ints: Int64Array,
    out_floats: Float64Array,
    out_row: int,
    found: Int64Array,
) -> int:
    """Merge the windows of an entity.

    body, head   as stored, or a member of a pack and nothing; a body's checksum has been compared
    event        the row of a payment in flight, which is of the read time; empty for none
    shift_ms     (2W,) see `find_bounds`
    program      see `make_program`; with a payment one that is made for them
    work         room; its numbers are followed by the buffer of strings
    receive      out_ints, out_floats (slots, R) in column out_row; found: newest event time, then for each value that
                 is first or last where its text begins and ends in the buffer
    returns      REACHED, EMPTY or LEFT; or how many words of room it takes. When EMPTY, only a payment is merged
    """
    raw_bytes, has_event = source_bytes(body, head) + len(event), len(event) > 0
    words_at, words = NUMBERS + (raw_bytes >> 3) + 1, source_words(program)
    if len(work) < words_at + words:
        return int(words_at + words)
    numbers, data, windows = work[:NUMBERS], work[NUMBERS:].view(np.uint8), len(shift_ms) >> 1
    if not take_sources(body, head, data, program, work[words_at : words_at + words], numbers):
        return LEFT
    numbers[WRITTEN_AT] = raw_bytes
    for index in range(len(event)):
        data[raw_bytes - len(event) + index] = event[index]
    bytes_end = raw_bytes + (number_at(data, 16, 4) if numbers[TILES] > 0 else 0)
    stored = numbers[TILES] + numbers[EVENTS]
    rows = stored + has_event
    if rows == 0:
        return EMPTY
    places = _places(program, numbers, bytes_end, rows, 2 * windows * (1 + has_event))
    table_at, facts_at, bounds_at, room_at, needed = places[0], places[1], places[3], places[4], places[5]
    if len(work) < needed:
        return int(needed)
    of_view = section(program, sections.OF_VIEW)
    block = work[table_at:facts_at].reshape(((facts_at - table_at) // rows, rows))
    columns = _columns(block, of_view)
    start, ints, floats, begins, ends = columns[0], columns[2], columns[3], columns[4], columns[5]
    bounds, room = work[bounds_at:room_at], work[room_at:needed]
    if numbers[TILES] > 0 and not _fill_body(program, data, numbers, places, bytes_end, block, work):
        return LEFT
    is_sorted = _lift(program, data, numbers, raw_bytes - len(event), columns, room)
    if not is_sorted and not _sort_in(start, block, numbers[TILES], stored, MOVES_MAX, False):
        return LEFT
    if has_event:
        _sort_in(start, block, stored, rows, rows, True)
    # A read within the lookback of the newest tile cannot cut a rolled-up one (see core.roll_up.RollUp).
    if as_of_ms < start[rows - 1] - of_view[3]:
        return LEFT
    _find_bounds(start, as_of_ms, shift_ms, section(program, sections.GRID), bounds[: 2 * windows])
    picks = table(program, sections.SESSIONS, 3)
    _narrow_sessions(start, ints, of_view[4], of_view[5], as_of_ms, picks, bounds[: 2 * windows])
    last = bounds[2 * windows - 1]
    is_empty = last <= bounds[windows - 1]
    if is_empty and not has_event:
        return EMPTY
    if has_event:
        _count_twice(bounds, section(program, sections.ENDS_AT_READ))
    _merge(program, (ints, floats, data, begins, ends), bounds, room, (out_ints, out_floats, out_row, found))
    found[0] = 0 if is_empty else start[last - 1]
    return EMPTY if is_empty else REACHED
