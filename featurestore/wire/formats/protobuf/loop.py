"""The compiled loop that runs a program over many messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import (
    BYTES,
    FLOAT_MATRIX,
    INT,
    INT_MATRIX,
    INTS,
    TRUTH_MATRIX,
    borrowing,
    compiled,
)
from featurestore.core.events import Int64Array

INT32, INT64, UINT32, UINT64, SINT32, SINT64, BOOL, ENUM, SECONDS, NANOS = range(10)
FIXED32, SFIXED32, FIXED64, SFIXED64, FLOAT, DOUBLE, TEXT, MESSAGE, PASSED, MAP = range(10, 20)
"""What is done with a field. Up to NANOS all are varints. An ENUM is stored as the place of its number among those of
its type. SECONDS and NANOS are the two of a Timestamp and share a slot. PASSED is not wanted, but ends what another
member of its oneof said. A MAP is a message for each of its entries; of those with a wanted
key the last counts."""

VARINT, EIGHT_BYTES, LENGTH, GROUP, END_GROUP, FOUR_BYTES = range(6)
"""Wire types."""

NUMBER, WIRE, STEP, SLOT, ARGUMENT, ONEOF, MEMBER, MEMBER_END, ONEOF_END = range(9)
"""Of a field: its number, its wire type, what is done with it, where it is stored (nowhere if `SKIP`); which scope a
MESSAGE is, or where in the tables an ENUM's numbers, or a MAP's keys, begin;
the slots of the oneof it is in, and its own among them."""

FIRST, END, ALWAYS, ALWAYS_END = range(4)
"""Of a scope, a message type in its place: its fields, and the slots that have a value in any case."""

KEY_BYTES, KEY_SCOPE, KEY_SLOT, KEY_SLOT_END, KEY_TEXT = range(5)
"""Of a wanted key of a MAP, in the tables: its length, which scope its entries are, their slots; then its bytes."""

SKIP = -1
DEPTH_MAX = 100
"""Groups in groups: the depth at which other readers of Protobuf stop."""

TORN, WRONG_NUMBER, WRONG_LENGTH, WRONG_TAG, WRONG_SYMBOL, TOO_LARGE, TOO_DEEP = range(1, 8)
"""What can be wrong with a message."""

_TAG_MAX = (1 << 32) - 1
_LENGTH_MAX = (1 << 31) - 1


@borrowing
def _varint(data: Any, at: int, end: int) -> Any:
    """A varint as 64 bits and the place behind it; minus what is wrong in place of that."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < end:
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            if shift == np.uint64(63) and byte > np.uint64(1):
                return np.uint64(0), np.int64(-WRONG_NUMBER)
            return value, np.int64(at)
        shift += np.uint64(7)
        if shift > np.uint64(63):
            return np.uint64(0), np.int64(-WRONG_NUMBER)
    return np.uint64(0), np.int64(-TORN)


@borrowing
def _tag(data: Any, at: int, end: int) -> Any:
    """The number and wire type of the next field, and the place behind; minus what is wrong in place of that."""
    bits, at = _varint(data, at, end)
    if at >= 0 and (bits > np.uint64(_TAG_MAX) or bits < np.uint64(8)):
        return np.int64(0), np.int64(0), np.int64(-WRONG_TAG)
    return np.int64(bits >> np.uint64(3)), np.int64(bits & np.uint64(7)), np.int64(at)


@borrowing
def _length(data: Any, at: int, end: int) -> Any:
    """A length that fits before `end`, and the place behind it; minus what is wrong in place of that."""
    bits, at = _varint(data, at, end)
    if at < 0:
        return np.int64(0), np.int64(at)
    if bits > np.uint64(_LENGTH_MAX):
        return np.int64(0), np.int64(-WRONG_LENGTH)
    size = np.int64(bits)
    return size, np.int64(at if size <= end - at else -TORN)


@borrowing
def _behind(wire: int, data: Any, at: int, end: int) -> Any:
    """The place behind a value that is no group; minus what is wrong."""
    size: Any = np.int64(0)
    if wire == VARINT:
        _, at = _varint(data, at, end)
    elif wire == LENGTH:
        size, at = _length(data, at, end)
    elif wire in (EIGHT_BYTES, FOUR_BYTES):
        size = np.int64(8 if wire == EIGHT_BYTES else 4)
    else:
        return np.int64(-WRONG_TAG)
    if at < 0:
        return np.int64(at)
    return np.int64(at + size if size <= end - at else -TORN)


@borrowing
def _behind_any(number: int, wire: int, data: Any, at: int, end: int, groups: Any) -> Any:
    """The place behind a value; minus what is wrong. A group ends where its number does, and may hold others."""
    if wire != GROUP:
        return _behind(wire, data, at, end)
    groups[0], depth = number, 1
    while depth > 0 and at >= 0:
        number, wire, at = _tag(data, at, end)
        if at < 0:
            return np.int64(at)
        if wire == GROUP:
            if depth == DEPTH_MAX:
                return np.int64(-TOO_DEEP)
            groups[depth] = number
            depth += 1
        elif wire == END_GROUP:
            depth -= 1
            if groups[depth] != number:
                return np.int64(-WRONG_TAG)
        else:
            at = _behind(wire, data, at, end)
    return np.int64(at)


@borrowing
def _place_of(number: Any, tables: Any, at: int) -> Any:
    """Where among the numbers of an enum one is; -1 if it is not. Most enums count from 0."""
    count = tables[at]
    if number >= 0 and number < count and tables[at + 1 + number] == number:
        return np.int64(number)
    for place in range(count):
        if tables[at + 1 + place] == number:
            return np.int64(place)
    return np.int64(-1)


@borrowing
def _integer(step: int, bits: Any, tables: Any, argument: int) -> Any:
    """What a varint says to a field of a type, and what is wrong with it; 0 if nothing is."""
    number = np.int64(bits)
    if step in (INT32, NANOS):
        return np.int64(np.int32(number)), 0
    if step == UINT32:
        return number & np.int64(0xFFFFFFFF), 0
    if step == UINT64:
        return number, TOO_LARGE if number < 0 else 0
    if step in (SINT32, SINT64):
        kept = bits & np.uint64(0xFFFFFFFF) if step == SINT32 else bits
        return np.int64(kept >> np.uint64(1)) ^ -np.int64(kept & np.uint64(1)), 0
    if step == BOOL:
        return np.int64(1 if number != 0 else 0), 0
    if step == ENUM:
        place = _place_of(np.int64(np.int32(number)), tables, argument)
        return place, WRONG_SYMBOL if place < 0 else 0
    return number, 0


@borrowing
def _store_fixed(step: int, slot: int, data: Any, at: int, row: int, integers: Any, doubles: Any) -> Any:
    """Store a value of four or eight bytes; what is wrong with it, 0 if nothing is."""
    if step == DOUBLE:
        doubles[slot, row] = data[at : at + 8].view(np.float64)[0]
    elif step == FLOAT:
        doubles[slot, row] = data[at : at + 4].view(np.float32)[0]
    elif step == FIXED32:
        integers[slot, row] = data[at : at + 4].view(np.uint32)[0]
    elif step == SFIXED32:
        integers[slot, row] = data[at : at + 4].view(np.int32)[0]
    else:
        integers[slot, row] = data[at : at + 8].view(np.int64)[0]
        if step == FIXED64 and integers[slot, row] < 0:
            return TOO_LARGE
    return 0


@borrowing
def _value(
    place: Any,
    fields: Any,
    tables: Any,
    data: Any,
    at: int,
    end: int,
    row: int,
    integers: Any,
    upper: Any,
    doubles: Any,
    valid: Any,
    groups: Any,
) -> Any:
    """Read a value that is no message, and store it if it is wanted; the place behind it, or minus what is wrong."""
    step, slot, argument = fields[place, STEP], fields[place, SLOT], fields[place, ARGUMENT]
    if step == PASSED:
        return _behind_any(fields[place, NUMBER], fields[place, WIRE], data, at, end, groups)
    size: Any = np.int64(0)
    wrong = 0
    if step <= NANOS:
        bits, at = _varint(data, at, end)
        if at < 0:
            return np.int64(at)
        number, wrong = _integer(step, bits, tables, argument)
        if slot != SKIP and step == NANOS:
            upper[slot, row] = number
        elif slot != SKIP:
            integers[slot, row] = number
    elif step == TEXT:
        size, at = _length(data, at, end)
        if at < 0:
            return np.int64(at)
        integers[slot, row], upper[slot, row] = at, at + size
    else:
        size = np.int64(4 if step in (FIXED32, SFIXED32, FLOAT) else 8)
        if size > end - at:
            return np.int64(-TORN)
        wrong = _store_fixed(step, slot, data, at, row, integers, doubles)
    if wrong:
        return np.int64(-wrong)
    if slot != SKIP:
        valid[slot, row] = True
        if step < SECONDS or (step > NANOS and step != TEXT):
            upper[slot, row] = 1
    return np.int64(at + size)


@borrowing
def _find(number: int, cursor: int, fields: Any, first: int, end: int) -> Any:
    """The place of a field; that of another one, or the end, if there is none.

    Fields mostly come in the order of their numbers, so that it is the one that was found last or the next one.
    """
    for _ in range(first, end):
        if fields[cursor, NUMBER] == number:
            break
        cursor = cursor + 1 if cursor + 1 < end else first
    return np.int64(cursor)


@borrowing
def _clear(fields: Any, place: int, row: int, integers: Any, upper: Any, doubles: Any, valid: Any) -> None:
    """Forget what other members of a field's oneof said."""
    for slot in range(fields[place, ONEOF], fields[place, ONEOF_END]):
        if slot < fields[place, MEMBER] or slot >= fields[place, MEMBER_END]:
            integers[slot, row] = upper[slot, row] = 0
            doubles[slot, row] = 0.0
            valid[slot, row] = False


@borrowing
def _key_of(data: Any, at: int, end: int, groups: Any) -> Any:
    """Where the key of a map's entry begins and ends; minus what is wrong in place of the end. Absent it is empty."""
    begin, key_end = np.int64(at), np.int64(at)
    while at < end:
        number, wire, at = _tag(data, at, end)
        if at < 0:
            return np.int64(0), np.int64(at)
        if number == 1 and wire == LENGTH:
            size, at = _length(data, at, end)
            if at < 0:
                return np.int64(0), np.int64(at)
            begin, key_end = np.int64(at), np.int64(at + size)
            at = at + size
        else:
            at = _behind_any(number, wire, data, at, end, groups)
            if at < 0:
                return np.int64(0), np.int64(at)
    return begin, key_end


@borrowing
def _entry(
    data: Any,
    begin: int,
    end: int,
    row: int,
    tables: Any,
    place: int,
    integers: Any,
    upper: Any,
    doubles: Any,
    valid: Any,
) -> Any:
    """Which scope the entry of a key is, with what an earlier one of that key said forgotten; -1 if nobody wants it."""
    at = place + 1
    for _ in range(tables[place]):
        size, text = tables[at + KEY_BYTES], at + KEY_TEXT
        is_same = size == end - begin
        for index in range(size if is_same else 0):
            is_same = is_same and data[begin + index] == tables[text + index]
        if is_same:
            for slot in range(tables[at + KEY_SLOT], tables[at + KEY_SLOT_END]):
                integers[slot, row] = upper[slot, row] = 0
                doubles[slot, row] = 0.0
                valid[slot, row] = False
            return np.int64(tables[at + KEY_SCOPE])
        at = text + size
    return np.int64(-1)


@borrowing
def _message(
    place: Any,
    fields: Any,
    tables: Any,
    data: Any,
    at: int,
    end: int,
    row: int,
    integers: Any,
    upper: Any,
    doubles: Any,
    valid: Any,
    groups: Any,
) -> Any:
    """Which scope a message is, -1 of an entry that nobody wants; where to go on, or minus what is wrong; its end."""
    size, begin = _length(data, at, end)
    inner: Any = np.int64(fields[place, ARGUMENT])
    if begin < 0 or fields[place, STEP] == MESSAGE:
        return inner, begin, np.int64(begin + size)
    low, high = _key_of(data, begin, begin + size, groups)
    if high < 0:
        return inner, high, high
    inner = _entry(data, low, high, row, tables, inner, integers, upper, doubles, valid)
    return inner, np.int64(begin if inner >= 0 else begin + size), np.int64(begin + size)


@borrowing
def _begin(scope: Any, row: int, scopes: Any, valid: Any) -> None:
    """A message is there, and so is what has a value in any case."""
    for slot in range(scopes[scope, ALWAYS], scopes[scope, ALWAYS_END]):
        valid[slot, row] = True


@compiled(
    INT,
    *(BYTES, INTS, INTS, INTS, INT_MATRIX, INT_MATRIX, INTS),
    *(INT_MATRIX, INT_MATRIX, FLOAT_MATRIX, TRUTH_MATRIX, INT_MATRIX, INTS, INT_MATRIX),
    releases_gil=True,
    allocates=False,
)
def run_program(
    data: Any,
    begins: Int64Array,
    ends: Int64Array,
    rows: Int64Array,
    fields: Any,
    scopes: Any,
    tables: Int64Array,
    integers: Any,
    upper: Any,
    doubles: Any,
    valid: Any,
    wrong: Any,
    groups: Int64Array,
    back_to: Any,
) -> int:
    """Read messages of one type into columns.

    Args:
        data: the bytes of N messages.
        begins: (N,) where they begin.
        ends: (N,) where they end.
        rows: those that are of the program's type.
        fields: (F, 9) what is done with fields; those of a scope stand together, by number.
        scopes: (S, 4) message types, each in its place; the first is the whole message's.
        tables: for each enum how many numbers it has, and those; for each map how many keys are wanted, and those.
        integers: (C, N) integers by slot, seconds of Timestamps, and where texts begin.
        upper: (C, N) where texts end, nanoseconds of Timestamps; otherwise 1 where a message has the field.
        doubles: (C, N).
        valid: (C, N) set where there is a value.
        wrong: (2, N) what is wrong, and at which field, or F more than in which scope; 0 of a message that was read.
        groups: (`DEPTH_MAX`,) room for the groups that are open.
        back_to: (S, 3) room for the messages that are open.

    Returns:
        How many messages could not be read.
    """
    bad = 0
    for row in rows:
        at, end, scope, depth, place, cursor = begins[row], ends[row], np.int64(0), 0, np.int64(0), scopes[0, FIRST]
        _begin(scope, row, scopes, valid)
        while at >= 0 and (at < end or depth > 0):
            place = len(fields) + scope
            if at == end:
                depth -= 1
                scope, cursor, end = back_to[depth, 0], back_to[depth, 1], back_to[depth, 2]
                continue
            number, wire, at = _tag(data, at, end)
            if at < 0:
                break
            cursor = _find(number, cursor, fields, scopes[scope, FIRST], scopes[scope, END])
            if cursor == scopes[scope, END] or fields[cursor, NUMBER] != number or fields[cursor, WIRE] != wire:
                at = _behind_any(number, wire, data, at, end, groups)
                continue
            _clear(fields, cursor, row, integers, upper, doubles, valid)
            place = cursor
            if fields[place, STEP] != MESSAGE and fields[place, STEP] != MAP:
                at = _value(place, fields, tables, data, at, end, row, integers, upper, doubles, valid, groups)
                continue
            inner, at, stop = _message(
                place, fields, tables, data, at, end, row, integers, upper, doubles, valid, groups
            )
            if at >= 0 and inner >= 0:
                back_to[depth, 0], back_to[depth, 1], back_to[depth, 2] = scope, cursor, end
                scope, depth, end, cursor = inner, depth + 1, stop, scopes[inner, FIRST]
                _begin(scope, row, scopes, valid)
        if at < 0:
            wrong[0, row], wrong[1, row] = -at, place
            bad += 1
    return bad
