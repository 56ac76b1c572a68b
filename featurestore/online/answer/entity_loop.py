"""From the bytes of an entity to its merged windows in one compiled call: what most lookups are answered by.

    body, head   copied side by side, read, lifted, late events sorted in     the loops of wire.codecs
    bounds       of the windows, sessions narrowed                            of core.tiles
    gathered     each family of parts merges its ranges                       of core.aggregations

These are the loops behind `Selection.decode`, `Selection.reach` and `Lowering.gather`, compiled into one. What it does
not know it leaves to those: parts that Python merges, bodies of the release before, a read time so far back that a tile
might be cut, many late events, and whatever is wrong with the bytes, which they can name.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xxhash

from featurestore.core.aggregations.numbers.moments import MomentRanges, merge_moments
from featurestore.core.aggregations.ordered.decay import DecayedRanges, merge_decayed
from featurestore.core.aggregations.ordered.first_last import TEXT, EdgeRanges, choose_edges
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
from featurestore.core.tiles.ranges import (
    BlockRanges,
    Gathered,
    RangeMerge,
    find_bounds,
    merge_float_blocks,
    merge_int_blocks,
)
from featurestore.core.tiles.sessions import narrow_sessions
from featurestore.core.view import CompiledView
from featurestore.online.answer.selection import Selection
from featurestore.wire.codecs.bodies import version5
from featurestore.wire.codecs.bodies.frame import CHECKSUM_BYTES, MAGIC, MAGIC_BESIDE_HEAD, NO_LIFETIME_TILE
from featurestore.wire.codecs.bodies.read_loops import FACTS, ROOM_ROWS, read_tiles
from featurestore.wire.codecs.body import EntityCodec
from featurestore.wire.codecs.head_kernels import check_head, fill_head

NOTHING: Final = -(1 << 63)
"""Instead of the newest event's time: nothing that is stored is within its retention."""
UNKNOWN: Final = NOTHING + 1
"""Instead of it: ask the loops one by one."""

MOVES_MAX = 1_024
"""How many rows late events may push, all together: sorting them one by one is quadratic."""

_WORK_WORDS = 1 << 14
_WORK_WORDS_KEPT = 1 << 18
"""2 MiB a thread; what takes more, an entity of very many tiles, gets its own room each time."""

_REACHED, _EMPTY, _LEFT = 0, -1, -2
_NUMBERS = 6
"""What `read_tiles` is told of a body."""
_FAMILIES = (BlockRanges, MomentRanges, DecayedRanges, EdgeRanges)

(
    _FIELDS,
    _ROWS,
    _IDENTITIES,
    _WIDTHS,
    _OF_VIEW,
    _HEAD_SHAPE,
    _HEAD_PROGRAM,
    _INT_IDENTITIES,
    _FLOAT_IDENTITIES,
    _GRID,
    _SESSIONS,
    _INT_PICKS,
    _FLOAT_PICKS,
    _MOMENTS,
    _DECAYED,
    _EDGES,
    _SECTIONS,
) = range(17)
"""Sections of a program, which begins with where each of them does."""

_NO_PICKS = np.empty(0, dtype=np.int64)

_merge_int_blocks = within(merge_int_blocks)
_merge_float_blocks = within(merge_float_blocks)
_merge_moments = within(merge_moments)
_merge_decayed = within(merge_decayed)
_choose_edges = within(choose_edges)
_find_bounds = within(find_bounds)
_narrow_sessions = within(narrow_sessions)
_read_tiles = within(read_tiles)
_check_head = within(check_head)
_fill_head = within(fill_head)


class _Room(threading.local):
    """What a thread's calls write into."""

    def __init__(self) -> None:
        self.work = np.empty(_WORK_WORDS, dtype=np.int64)
        self.found = np.empty(16, dtype=np.int64)


_room = _Room()


class EntityLoop:
    """Gathers the windows of one part of a service.

    Args:
        codec: reads the part's entities.
        compiled: the view that is asked; its layout is that of the codec's tables.
        merges: of that view's asks, each of a family that the loop knows.
    """

    def __init__(self, codec: EntityCodec, compiled: CompiledView, merges: Sequence[RangeMerge]) -> None:
        self._edges = compiled.edges
        families: dict[type, Any] = {type(merge): merge for merge in merges}
        blocks, edges = families.get(BlockRanges), families.get(EdgeRanges)
        texts = [] if edges is None else edges.texts
        self._texts = [(1 + 2 * index, slot) for index, _, slot in texts]
        self._found_size = 1 + 2 * (0 if edges is None else len(edges.picks))
        self._program = _program(codec, compiled, blocks, families)

    @staticmethod
    def of(selection: Selection, merges: Sequence[RangeMerge]) -> EntityLoop | None:
        """The loop of a selection, ready to run; None where there is a part that it does not know."""
        compiled = selection.compiled
        if compiled.layout.lifts_itself or not all(isinstance(merge, _FAMILIES) for merge in merges):
            return None
        return EntityLoop(selection.codec, compiled, merges)

    def gather(self, body: bytes | None, head: bytes | None, as_of_ms: int, out: Gathered, row: int) -> int:
        """Merge an entity's windows into one row.

        Args:
            body: the stored body; None where there is none.
            head: the stored head, likewise.
            as_of_ms: read time.
            out: receives what is merged.
            row: which row of it.

        Returns:
            Event time of the newest event in reach; NOTHING, and nothing is written, where there is none; UNKNOWN
            where the loops that stand behind this one have to be asked.
        """
        if not self._edges.are_on_grid(as_of_ms) or (body is not None and not _is_whole(body)):
            return UNKNOWN
        shift_ms, work, found = self._edges.shift_ms(as_of_ms), _room.work, _room.found
        if len(found) < self._found_size:
            found = _room.found = np.empty(self._found_size, dtype=np.int64)
        arguments = (body or b"", head or b"", as_of_ms, shift_ms, self._program)
        code: int = gather_entity(*arguments, work, out.ints, out.floats, row, found)
        while code > 0:
            work = np.empty(code, dtype=np.int64)
            if code <= _WORK_WORDS_KEPT:
                _room.work = work
            code = gather_entity(*arguments, work, out.ints, out.floats, row, found)
        if code != _REACHED:
            return NOTHING if code == _EMPTY else UNKNOWN
        if self._texts:
            text = work.view(np.uint8)
            for at, slot in self._texts:
                out.objects[slot, row] = text[found[at] : found[at + 1]].tobytes()
        return int(found[0])


def _is_whole(body: bytes) -> bool:
    """Whether a body matches its checksum."""
    checksum = int.from_bytes(body[-CHECKSUM_BYTES:], "little")
    return xxhash.xxh3_64_intdigest(memoryview(body)[1:-CHECKSUM_BYTES]) == checksum


def _program(
    codec: EntityCodec, compiled: CompiledView, blocks: BlockRanges | None, families: dict[type, Any]
) -> Int64Array:
    """All that the loop has to know, in one array."""
    body, head, lifting = codec.facts()
    layout, sessions = compiled.layout, compiled.sessions
    of_view = (
        len(layout.int_fields),
        len(layout.float_fields),
        len(layout.blob_fields),
        compiled.spec.lookback_ms,
        sessions.first,
        sessions.last,
    )
    picks = {family: families[family].picks if family in families else _NO_PICKS for family in _FAMILIES[1:]}
    sections: list[Any] = [_NO_PICKS] * _SECTIONS
    sections[_FIELDS], sections[_ROWS], sections[_IDENTITIES], sections[_WIDTHS] = body
    sections[_OF_VIEW] = np.array(of_view, dtype=np.int64)
    sections[_HEAD_SHAPE], sections[_HEAD_PROGRAM] = head, lifting.program
    sections[_INT_IDENTITIES] = lifting.int_identities
    sections[_FLOAT_IDENTITIES] = lifting.float_identities.view(np.int64)
    sections[_GRID], sections[_SESSIONS] = compiled.edges.grid_ms, sessions.picks
    if blocks is not None:
        sections[_INT_PICKS], sections[_FLOAT_PICKS] = blocks.int_picks, blocks.float_picks
    sections[_MOMENTS], sections[_DECAYED] = picks[MomentRanges], picks[DecayedRanges]
    sections[_EDGES] = picks[EdgeRanges]
    flat = [section.ravel() for section in sections]
    ends = np.cumsum([_SECTIONS + 1, *map(len, flat)])
    return np.concatenate((ends.astype(np.int64), *flat))


@spliced
def _section(program: Array, section: int) -> Any:
    """One section of a program."""
    return program[program[section] : program[section + 1]]


@spliced
def _table(program: Array, section: int, columns: int) -> Any:
    """One section as rows of so many columns."""
    found = _section(program, section)
    return found.reshape((len(found) // columns, columns))


@borrowing
def _number(body: Array, at: int, size: int) -> Any:
    """A little-endian number of a body's header."""
    value = np.uint64(0)
    for index in range(size):
        value |= np.uint64(body[at + index]) << np.uint64(8 * index)
    return np.int64(value)


@borrowing
def _read_header(body: Array, texts: int, numbers: Array) -> Any:
    """What `read_tiles` has to know of a body; whether it is a body of version 5 that can be as it says."""
    if len(body) < version5.HEADER_BYTES + CHECKSUM_BYTES or body[1] != version5.VERSION:
        return False
    if body[0] not in (MAGIC, MAGIC_BESIDE_HEAD):
        return False
    flags, masks, count, written = np.int64(body[2]), np.int64(body[3]), _number(body, 4, 4), _number(body, 16, 4)
    at, lifetime_end = version5.HEADER_BYTES, np.int64(NO_LIFETIME_TILE)
    if flags & version5.DROPPED:
        at += 8
    if flags & version5.LIFETIME:
        if len(body) >= at + 8:
            lifetime_end = _number(body, at, 8)
        at += 8
    numbers[0], numbers[1], numbers[2], numbers[3], numbers[4] = count, _number(body, 8, 8), lifetime_end, masks, at
    is_wrong = flags > (version5.DROPPED | version5.LIFETIME) or written > version5.WRITTEN_BYTES_MAX * count * texts
    return not is_wrong and 0 < count * (1 + masks) <= 8 * len(body) and len(body) >= at + CHECKSUM_BYTES


@borrowing
def _push(column: Array, to: int, at: int) -> Any:
    """Move the number of one row to an earlier one; those between follow."""
    value = column[at]
    for row in range(at, to, -1):
        column[row] = column[row - 1]
    column[to] = value
    return 0


@borrowing
def _sort_in(start: Array, columns: Array, first: int) -> Any:
    """Bring rows from `first` on into ascending order, equal ones as they are; whether few had to move.

    `columns` are all numbers of the rows, `start` the first of them.
    """
    moves = 0
    for at in range(max(first, 1), len(start)):
        if start[at] >= start[at - 1]:
            continue
        low, high = 0, at
        while low < high:
            middle = (low + high) >> 1
            if start[middle] <= start[at]:
                low = middle + 1
            else:
                high = middle
        moves += at - low
        if moves > MOVES_MAX:
            return False
        for index in range(len(columns)):
            _push(columns[index], low, at)
    return True


@borrowing
def _merge(
    program: Array,
    ints: Int64Array,
    floats: Float64Array,
    texts: Any,
    bounds: Int64Array,
    room: Int64Array,
    outs: Any,
) -> Any:
    """Every family's ranges into one row of what is gathered; `texts` and `outs` are tuples of arrays."""
    (buffer, begins, ends), (out_ints, out_floats, row, found) = texts, outs
    picks = _table(program, _INT_PICKS, 4)
    _merge_int_blocks(ints, bounds, picks, _section(program, _INT_IDENTITIES), room, out_ints, row)
    picks = _table(program, _FLOAT_PICKS, 4)
    identities = _section(program, _FLOAT_IDENTITIES).view(np.float64)
    _merge_float_blocks(floats, bounds, picks, identities, out_floats, row)
    _merge_moments(ints, floats, bounds, _table(program, _MOMENTS, 10), room.view(np.float64), out_floats, row)
    _merge_decayed(ints, floats, bounds, _table(program, _DECAYED, 5), out_floats, row)
    picks = _table(program, _EDGES, 7)
    chosen = found[1 : 1 + len(picks)]
    _choose_edges(ints, floats, buffer, begins, ends, bounds, picks, out_ints, out_floats, row, chosen)
    # Backwards, as the spans take the places of the rows.
    for index in range(len(picks) - 1, -1, -1):
        at, is_text = chosen[index], picks[index, 2] == TEXT
        found[1 + 2 * index] = begins[picks[index, 3], at] if is_text and at >= 0 else 0
        found[2 + 2 * index] = ends[picks[index, 3], at] if is_text and at >= 0 else 0
    return 0


@borrowing
def _take_both(body: Array, head: Array, program: Array, numbers: Array) -> Any:
    """Note what the body says of itself, and count the events of the head; -1 to leave it all to others.

    They must be there as each knows of the other.
    """
    shape, texts = _section(program, _HEAD_SHAPE), _section(program, _FIELDS)[2]
    numbers[0], numbers[3] = 0, 0
    walked = _check_head(head, shape[7], shape[6], shape[2] + shape[3])
    events, is_beside_body = walked >> 1, walked & 1 == 1
    is_beside_head = len(body) > 0 and body[0] == MAGIC_BESIDE_HEAD
    if walked < 0 or is_beside_body != is_beside_head or (is_beside_head and events == 0):
        return -1
    if len(body) > 0 and (not _read_header(body, texts, numbers) or (events > 0 and not is_beside_head)):
        return -1
    return events


@borrowing
def _places(program: Array, bytes_end: int, count: int, tiles: int, masks: int, edges: int) -> Any:
    """Where table, facts, cells, bounds and the families' room begin, and where it all ends."""
    of_view, rows, shape = _section(program, _OF_VIEW), _section(program, _ROWS), _section(program, _HEAD_SHAPE)
    table_at = ((bytes_end + 7) >> 3) + _NUMBERS
    facts_at = table_at + (2 + of_view[0] + of_view[1] + 2 * of_view[2]) * count
    cells_at = facts_at + FACTS * len(rows)
    bounds_at = cells_at + (len(rows) + 2 * masks + ROOM_ROWS) * (tiles + 8)
    room_at = bounds_at + edges
    return table_at, facts_at, cells_at, bounds_at, room_at, room_at + count + 2 + shape[2] + shape[3]


@borrowing
def _fill(program: Array, both: Any, numbers: Array, table: Any, rooms: Any) -> Any:
    """The tiles of body and head, ascending by start; whether that went well.

    `both` are body and head, `table` the tuple of its columns, all numbers first, `rooms` what reading takes.
    """
    (body, head), (facts, cells, written, room) = both, rooms
    columns, start, end, ints, floats, begins, ends = table
    if numbers[0] > 0 and _read_tiles(
        body,
        numbers,
        _section(program, _FIELDS),
        _section(program, _ROWS),
        _section(program, _IDENTITIES),
        _section(program, _WIDTHS),
        start,
        end,
        ints,
        floats,
        begins,
        ends,
        facts,
        cells,
        written,
    ):
        return False
    if len(head) == 0:
        return True
    is_ascending = _fill_head(
        head,
        _section(program, _HEAD_SHAPE),
        _table(program, _HEAD_PROGRAM, 7),
        _section(program, _INT_IDENTITIES),
        _section(program, _FLOAT_IDENTITIES).view(np.float64),
        numbers[0],
        len(body),
        start,
        end,
        ints,
        floats,
        begins,
        ends,
        room,
    )
    return is_ascending == 1 or _sort_in(start, columns, numbers[0])


@compiled(INT, BYTE_STRING, BYTE_STRING, INT, INTS, INTS, INTS, INT_MATRIX, FLOAT_MATRIX, INT, INTS, allocates=False)
def gather_entity(
    body: bytes,
    head: bytes,
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

    body, head   as stored; a body's checksum has been compared
    shift_ms     (2W,) see `find_bounds`
    program      see `_program`
    work         room; begins with body, head, and the strings that were made anew
    receive      out_ints, out_floats (slots, R) in column out_row; found: newest event time, then for each value that
                 is first or last where its text begins and ends in the room
    returns      _REACHED, _EMPTY or _LEFT; or how many words of room it takes
    """
    of_view, bytes_end = _section(program, _OF_VIEW), len(body) + len(head)
    if len(work) < (bytes_end >> 3) + 1 + _NUMBERS:
        return (bytes_end >> 3) + 1 + _NUMBERS
    data = work.view(np.uint8)
    for index in range(len(body)):
        data[index] = body[index]
    for index in range(len(head)):
        data[len(body) + index] = head[index]
    stored_body, stored_head = data[: len(body)], data[len(body) : bytes_end]
    numbers = work[(bytes_end >> 3) + 1 : (bytes_end >> 3) + 1 + _NUMBERS]
    events = _take_both(stored_body, stored_head, program, numbers)
    if events < 0:
        return _LEFT
    tiles, base, lifetime_end, masks, runs_at = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    count, written_end = tiles + events, bytes_end + (_number(stored_body, 16, 4) if tiles > 0 else 0)
    if count == 0:
        return _EMPTY
    table_at, facts_at, cells_at, bounds_at, room_at, needed = _places(
        program, written_end, count, tiles, masks, len(shift_ms)
    )
    if len(work) < needed:
        return int(needed)
    # They go elsewhere, as strings may be written where they are.
    numbers = work[table_at - _NUMBERS : table_at]
    numbers[0], numbers[1], numbers[2] = tiles, base, lifetime_end
    numbers[3], numbers[4], numbers[5] = masks, runs_at, bytes_end
    table = work[table_at:facts_at].reshape(((facts_at - table_at) // count, count))
    floats_at, texts_at, ends_at = 2 + of_view[0], 2 + of_view[0] + of_view[1], 2 + of_view[0] + of_view[1] + of_view[2]
    ints, floats = table[2:floats_at], table[floats_at:texts_at].view(np.float64)
    start, begins, ends, room = table[0], table[texts_at:ends_at], table[ends_at:], work[room_at:needed]
    facts = work[facts_at:cells_at].reshape(((cells_at - facts_at) // FACTS, FACTS))
    cells = work[cells_at:bounds_at].reshape(((bounds_at - cells_at) // (tiles + 8), tiles + 8))
    rooms = (facts, cells, data[bytes_end:written_end], room)
    columns = (table, start, table[1], ints, floats, begins, ends)
    is_sorted = _fill(program, (stored_body, stored_head), numbers, columns, rooms)
    # A read within the lookback of the newest tile cannot cut a rolled-up one (see core.roll_up.RollUp).
    if not is_sorted or as_of_ms < start[count - 1] - of_view[3]:
        return _LEFT
    bounds = work[bounds_at:room_at]
    _find_bounds(start, as_of_ms, shift_ms, _section(program, _GRID), bounds)
    _narrow_sessions(start, ints, of_view[4], of_view[5], as_of_ms, _table(program, _SESSIONS, 3), bounds)
    last = bounds[len(bounds) - 1]
    if last <= bounds[len(bounds) // 2 - 1]:
        return _EMPTY
    _merge(program, ints, floats, (data, begins, ends), bounds, room, (out_ints, out_floats, out_row, found))
    found[0] = start[last - 1]
    return _REACHED
