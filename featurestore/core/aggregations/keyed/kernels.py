"""Compiled loops over keyed states: sorted lists of (key, numbers) as byte strings, merged by key.

    state     tag u1 | entries, ascending by key, each key once           no entries: the empty string
    entry     key | integers, zigzag varints | floats, 8 bytes little-endian
    key       INT    the first as a zigzag varint, then the distance to the one before as a varint
              TEXT   length as a varint, bytes; in the order of bytes
    too many  a byte that is not the tag: the state held more keys than it may, and absorbs whatever is merged in. It is
              written alone; what a part then puts behind it is not looked at here

One call merges many windows over shared rows (a lookup) or many runs of rows (a compaction). Rows are decoded once, a
hash table finds equal keys, the distinct ones are sorted, and every window is a pass of additions in the order of keys:
no comparison is made twice. Equal multisets of events give equal bytes, whatever the order of merging.

    time      O(bytes + entries x windows + distinct x log distinct)
    space     O(bytes) of one span
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from featurestore.core.compiled import BYTES, FLAGS, INT, INT_MATRIX, INTS, compiled, inlined
from featurestore.core.events import Int64Array
from featurestore.core.tiles.parts import Array

INT_KEYS, TEXT_KEYS = 0, 1
ADD, MIN, MAX = 0, 1, 2
BOUNDED, LARGEST, SMALLEST, HEAVIEST = 0, 1, 2, 3
"""What happens beyond the limit: too many; the largest (smallest) keys stay, counted as often as they occur; the
heaviest stay, all lighter by the count of the heaviest that goes (Misra and Gries)."""

TOO_MANY = 0
"""The byte of a state that held too many keys."""

_FLOAT_BYTES = 8
_LOW7, _MORE, _SEVEN = np.uint64(0x7F), np.uint64(0x80), np.uint64(7)


class _Entries(NamedTuple):
    """E entries of states: integer keys, or spans of text keys in `data`; (integers + floats, E) numbers as bits."""

    data: Array
    keys: Int64Array
    ends: Int64Array
    bits: Int64Array


class _Ranks(NamedTuple):
    """The distinct keys of E entries in ascending order: number of each entry's key, an entry of each number; room."""

    codes: Int64Array
    order: Int64Array
    spare: Int64Array
    table: Int64Array


@inlined
def _read_varint(data: Array, at: int) -> Any:
    """An unsigned number, and where the next begins."""
    value, shift = np.uint64(0), np.uint64(0)
    while True:
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & _LOW7) << shift
        if byte < _MORE:
            return value, at
        shift += _SEVEN


@inlined
def _write_varint(out: Array, at: int, value: Any) -> Any:
    """Likewise the other way."""
    value = np.uint64(value)
    while value >= _MORE:
        out[at] = np.uint8((value & _LOW7) | _MORE)
        value = value >> _SEVEN
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@inlined
def _signed(value: Any) -> Any:
    """From zigzag: 0, -1, 1, -2, ..."""
    half = np.int64(value >> np.uint64(1))
    return half if (value & np.uint64(1)) == np.uint64(0) else ~half


@inlined
def _zigzag(value: Any) -> Any:
    """To zigzag."""
    doubled = np.uint64(value) << np.uint64(1)
    return doubled if value >= 0 else ~doubled


@inlined
def _decode(entries: _Entries, at: int, end: int, shape: Int64Array, count: int) -> Any:
    """Append the entries of the state data[at:end]; returns the new count."""
    data, previous, is_first = entries.data, np.int64(0), True
    cursor: Any = at + 1
    while cursor < end:
        number, cursor = _read_varint(data, cursor)
        if shape[0] == INT_KEYS:
            previous = _signed(number) if is_first else previous + np.int64(number)
            entries.keys[count] = previous
            is_first = False
        else:
            entries.keys[count] = cursor
            cursor += np.int64(number)
            entries.ends[count] = cursor
        for index in range(shape[2]):
            number, cursor = _read_varint(data, cursor)
            entries.bits[index, count] = _signed(number)
        for index in range(shape[2], shape[2] + shape[3]):
            word = np.uint64(0)
            for byte in range(_FLOAT_BYTES):
                word |= np.uint64(data[cursor + byte]) << np.uint64(8 * byte)
            entries.bits[index, count] = np.int64(word)
            cursor += _FLOAT_BYTES
        count += 1
    return count


@inlined
def _encode(
    entries: _Entries, entry: int, previous: int, shape: Int64Array, bits: Int64Array, column: int, out: Array, at: int
) -> Any:
    """Write the key of an entry, behind that of entry `previous` (-1 for none), and the numbers of a column.

    Returns:
        Where the next begins.
    """
    key = entries.keys[entry]
    if shape[0] == INT_KEYS:
        distance = _zigzag(key) if previous < 0 else np.uint64(key) - np.uint64(entries.keys[previous])
        at = _write_varint(out, at, distance)
    else:
        at = _write_varint(out, at, np.uint64(entries.ends[entry] - key))
        for index in range(key, entries.ends[entry]):
            out[at] = entries.data[index]
            at += 1
    for index in range(shape[2]):
        at = _write_varint(out, at, _zigzag(bits[index, column]))
    for index in range(shape[2], shape[2] + shape[3]):
        word = np.uint64(bits[index, column])
        for byte in range(_FLOAT_BYTES):
            out[at + byte] = np.uint8((word >> np.uint64(8 * byte)) & np.uint64(0xFF))
        at += _FLOAT_BYTES
    return at


@inlined
def _compare(entries: _Entries, kind: int, left: int, right: int) -> Any:
    """Sign of left - right."""
    data, keys, ends = entries.data, entries.keys, entries.ends
    if kind == INT_KEYS:
        return 1 if keys[left] > keys[right] else (-1 if keys[left] < keys[right] else 0)
    at, to, other, other_to = keys[left], ends[left], keys[right], ends[right]
    while at < to and other < other_to:
        if data[at] != data[other]:
            return 1 if data[at] > data[other] else -1
        at += 1
        other += 1
    return 1 if at < to else (-1 if other < other_to else 0)


@inlined
def _hash(entries: _Entries, kind: int, entry: int) -> Any:
    """A well-mixed number of a key (FNV-1a for texts, then half the finalizer of MurmurHash3); never stored."""
    word = np.uint64(entries.keys[entry])
    if kind != INT_KEYS:
        word = np.uint64(0xCBF29CE484222325)
        for index in range(entries.keys[entry], entries.ends[entry]):
            word = (word ^ np.uint64(entries.data[index])) * np.uint64(0x100000001B3)
    word ^= word >> np.uint64(33)
    word *= np.uint64(0xFF51AFD7ED558CCD)
    return word ^ (word >> np.uint64(29))


@inlined
def _rank(entries: _Entries, kind: int, count: int, ranks: _Ranks) -> Any:
    """Number the distinct keys of the first `count` entries in ascending order; returns how many there are."""
    codes, order, spare, table = ranks.codes, ranks.order, ranks.spare, ranks.table
    size, distinct = 4, 0
    while size < 2 * count:
        size *= 2
    table[:size] = -1
    for entry in range(count):
        slot = np.int64(_hash(entries, kind, entry) & np.uint64(size - 1))
        while table[slot] >= 0 and _compare(entries, kind, table[slot], entry) != 0:
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot] = entry
            order[distinct] = entry
            distinct += 1
        codes[entry] = table[slot]
    width = 1
    while width < distinct:
        for low in range(0, distinct, 2 * width):
            middle, high = min(low + width, distinct), min(low + 2 * width, distinct)
            left, right = low, middle
            for at in range(low, high):
                takes_left = left < middle
                if takes_left and right < high:
                    takes_left = _compare(entries, kind, order[left], order[right]) < 0
                spare[at] = order[left] if takes_left else order[right]
                left += 1 if takes_left else 0
                right += 0 if takes_left else 1
        order[:distinct] = spare[:distinct]
        width *= 2
    for rank in range(distinct):
        spare[order[rank]] = rank
    for entry in range(count):
        codes[entry] = spare[codes[entry]]
    return distinct


@inlined
def _apply_policy(shape: Int64Array, held: Array, sums: Int64Array) -> Any:
    """Keep to the limit; returns whether the state held too many keys."""
    policy, limit, distinct = shape[4], shape[5], len(held)
    if policy == BOUNDED:
        return np.sum(held) > limit
    if policy == HEAVIEST:
        lighter = 0  # the highest count that more than `limit` keys reach, found bit by bit: no sort, little code
        for bit in range(62, -1, -1):
            count, reached = lighter | (1 << bit), 0
            for rank in range(distinct):
                reached += sums[0, rank] >= count
            if reached > limit:
                lighter = count
        for rank in range(distinct):
            sums[0, rank] -= lighter
            if sums[0, rank] <= 0:
                held[rank] = 0
        return False
    left = limit
    for step in range(distinct):
        rank = distinct - 1 - step if policy == LARGEST else step
        if held[rank]:
            if left <= 0:
                held[rank] = 0
            sums[0, rank] = min(sums[0, rank], left)
            left -= sums[0, rank]
    return False


@inlined
def _sum_window(
    entries: _Entries,
    span: Any,
    shape: Int64Array,
    merges: Int64Array,
    codes: Int64Array,
    held: Array,
    sums: Int64Array,
) -> Any:
    """The keys of a span of entries and their merged numbers; returns whether there were too many keys."""
    first, last = span
    held[:] = 0
    for entry in range(first, last):
        held[codes[entry]] = 1
    pair = np.empty(2, dtype=np.int64)
    floats = pair.view(np.float64)
    for index in range(len(merges)):
        merge, is_int = merges[index], index < shape[2]
        if merge == ADD:
            sums[index, : len(held)] = 0
        else:
            for entry in range(first, last):
                sums[index, codes[entry]] = entries.bits[index, entry]
        for entry in range(first, last):
            rank, one = codes[entry], entries.bits[index, entry]
            if is_int:
                if merge == ADD:
                    sums[index, rank] += one
                elif (one < sums[index, rank]) == (merge == MIN):
                    sums[index, rank] = one
                continue
            pair[0], pair[1] = sums[index, rank], one
            if merge == ADD:
                floats[0] += floats[1]
                sums[index, rank] = pair[0]
            elif (floats[1] < floats[0]) == (merge == MIN):
                sums[index, rank] = one
    return _apply_policy(shape, held, sums)


@inlined
def _write_state(
    entries: _Entries, order: Int64Array, shape: Int64Array, held: Array, sums: Int64Array, out: Array, at: int
) -> Any:
    """One window's state; returns where the next begins."""
    previous = -1
    for rank in range(len(held)):
        if held[rank]:
            if previous < 0:
                out[at] = np.uint8(shape[1])
                at += 1
            at = _encode(entries, order[rank], previous, shape, sums, rank, out, at)
            previous = order[rank]
    return at


@compiled(INT, BYTES, INTS, INTS, INTS, INTS, INT, INTS, INTS, FLAGS, INTS)
def merge_keyed(
    data: Array,
    begins: Int64Array,
    row_ends: Int64Array,
    lows: Int64Array,
    highs: Int64Array,
    windows_a_span: int,
    shape: Int64Array,
    merges: Int64Array,
    out: Array,
    out_ends: Int64Array,
) -> int:
    """Merge the states of W ranges of rows, one after another into `out`; returns the number of bytes written.

    Keys are read only where a range without a row of too many needs them.

    Args:
        data: holds the states.
        begins: (N,) where each row's begins.
        row_ends: (N,) where it ends.
        lows: (W,) first row of each range.
        highs: (W,) row behind its last.
        windows_a_span: that many ranges follow each other that share rows and are decoded together; divides W.
        shape: (6,) kind of keys, tag, integers and floats of an entry, policy, limit.
        merges: (integers + floats,) ADD, MIN or MAX.
        out: receives the states.
        out_ends: (W,) receives where each ends.
    """
    room, rows, at = 0, 0, 0
    for first in range(0, len(lows), windows_a_span):
        last = first + windows_a_span
        low, high, size = lows[first:last].min(), highs[first:last].max(), 0
        for row in range(low, high):
            if begins[row] < row_ends[row] and data[begins[row]] == shape[1]:
                size += row_ends[row] - begins[row]
        room, rows = max(room, size // (1 + shape[2] + _FLOAT_BYTES * shape[3]) + 4), max(rows, high - low)
    free = np.empty((9, room), np.int64)
    entries = _Entries(data, free[0], free[1], np.empty((len(merges), room), np.int64))
    ranks = _Ranks(free[2], free[3], free[4], free[5:].reshape(-1))
    held, sums = np.empty(room, np.uint8), np.empty((len(merges), room), np.int64)
    firsts, lost = np.zeros(rows + 1, np.int64), np.zeros(rows + 1, np.int64)
    for first in range(0, len(lows), windows_a_span):
        last = first + windows_a_span
        low, high, count = lows[first:last].min(), highs[first:last].max(), 0
        for row in range(low, high):
            begin, end = begins[row], row_ends[row]
            is_whole = begin == end or data[begin] == shape[1]
            lost[row - low + 1] = lost[row - low] + (0 if is_whole else 1)
        from_row, to_row = high, low
        for window in range(first, last):
            begin, end = lows[window], max(lows[window], highs[window])
            if lost[end - low] == lost[begin - low]:
                from_row, to_row = min(from_row, begin), max(to_row, end)
        for row in range(low, high):
            begin, end = begins[row], row_ends[row]
            if from_row <= row < to_row and begin < end and data[begin] == shape[1]:
                count = _decode(entries, begin, end, shape, count)
            firsts[row - low + 1] = count
        keys = held[: _rank(entries, shape[0], count, ranks)]
        for window in range(first, last):
            begin, end = lows[window] - low, max(lows[window], highs[window]) - low
            if lost[end] > lost[begin] or _sum_window(
                entries, (firsts[begin], firsts[end]), shape, merges, ranks.codes, keys, sums
            ):
                out[at] = TOO_MANY
                at += 1
            else:
                at = _write_state(entries, ranks.order, shape, keys, sums, out, at)
            out_ends[window] = at
    return at


@compiled(INT, BYTES, INTS, INTS, FLAGS, INT_MATRIX, INTS, FLAGS, INTS)
def lift_keyed(
    data: Array,
    keys: Int64Array,
    ends: Int64Array,
    valid: Array,
    bits: Int64Array,
    shape: Int64Array,
    out: Array,
    out_ends: Int64Array,
) -> int:
    """The states of N events, one entry each; empty where `valid` (N,) is 0.

    Entries are as in `_Entries`, the rest as in `merge_keyed`. Returns the number of bytes written.
    """
    entries, at = _Entries(data, keys, ends, bits), 0
    for row in range(len(keys)):
        if valid[row]:
            out[at] = np.uint8(shape[1])
            at = _encode(entries, row, -1, shape, bits, row, out, at + 1)
        out_ends[row] = at
    return at


@compiled(INT, BYTES, INTS, INTS, INTS, INT_MATRIX)
def decode_keyed(data: Array, shape: Int64Array, keys: Int64Array, ends: Int64Array, bits: Int64Array) -> int:
    """The entries of one state that is neither empty nor one of too many keys; returns how many there are.

    `keys`, `ends` and `bits` receive them as in `_Entries`.
    """
    return int(_decode(_Entries(data, keys, ends, bits), 0, len(data), shape, 0))


@compiled(INT, BYTES, INTS, INTS, INTS, INTS, INTS, INT_MATRIX, INTS)
def decode_rows(
    data: Array,
    begins: Int64Array,
    row_ends: Int64Array,
    shape: Int64Array,
    keys: Int64Array,
    ends: Int64Array,
    bits: Int64Array,
    firsts: Int64Array,
) -> int:
    """The entries of N states, one after another; a state of too many keys has none. Returns how many there are.

    `keys`, `ends` and `bits` receive them as in `_Entries`, `firsts` (N + 1,) where each state's begin; the rest is as
    in `merge_keyed`.
    """
    count, firsts[0] = 0, 0
    for row in range(len(begins)):
        if begins[row] < row_ends[row] and data[begins[row]] == shape[1]:
            count = _decode(_Entries(data, keys, ends, bits), begins[row], row_ends[row], shape, count)
        firsts[row + 1] = count
    return count
