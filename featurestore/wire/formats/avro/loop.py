"""The compiled loop that runs a program over many records."""

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
    compiled_for_bulk,
    inlined,
)
from featurestore.core.events import Int64Array

END, BOOLEAN, LONG, LONG_AS_DOUBLE, FLOAT, DOUBLE, BYTES_OF_LENGTH, FIXED, ENUM = range(9)
UNION, JUMP, CALL, RETURN, BLOCKS, NEXT_ITEM, KEY = range(9, 16)
"""Steps of a program: (step, slot, argument). BOOLEAN, LONG and ENUM store an integer, FLOAT and DOUBLE a double, BYTES
and FIXED where they begin and end; nowhere if the slot is `SKIP`. Their argument is the size of a FIXED and how many
symbols an ENUM has. UNION: how many branches, and where in the tables the steps of them begin. JUMP and CALL: to which
step (the argument). BLOCKS and NEXT_ITEM, of arrays and maps: the step behind, and the first step of an item. KEY, of
a map of which values are wanted: how many keys, and where in the tables they are. Of each: its length, how many slots,
the step at which its value is read, the slots, and its bytes. A value that is not wanted is stepped over, behind."""

SKIP = -1
DEPTH_MAX = 64
"""Arrays in arrays, and types that contain themselves."""

TORN, WRONG_NUMBER, WRONG_LENGTH, WRONG_BRANCH, WRONG_SYMBOL, WRONG_BOOLEAN, TOO_DEEP, LEFT_OVER = range(1, 9)
"""What can be wrong with a record."""


@inlined
def _long(data: Any, at: int, end: int) -> Any:
    """A zigzag varint and the place behind it; minus what is wrong in place of that."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < end:
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            if shift == np.uint64(63) and byte > np.uint64(1):
                return np.int64(0), np.int64(-WRONG_NUMBER)
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), np.int64(at)
        shift += np.uint64(7)
        if shift > np.uint64(63):
            return np.int64(0), np.int64(-WRONG_NUMBER)
    return np.int64(0), np.int64(-TORN)


@inlined
def _value(
    step: int,
    slot: int,
    argument: int,
    data: Any,
    at: int,
    end: int,
    row: int,
    integers: Any,
    upper: Any,
    doubles: Any,
    valid: Any,
) -> Any:
    """Read a value, and store it if it is wanted; the place behind it, or minus what is wrong."""
    number: Any = np.int64(0)
    size: Any = np.int64(0)
    if step in (LONG, LONG_AS_DOUBLE, ENUM):
        number, at = _long(data, at, end)
        if step == ENUM and at >= 0 and (number < 0 or number >= argument):
            return np.int64(-WRONG_SYMBOL)
    elif step == BYTES_OF_LENGTH:
        size, at = _long(data, at, end)
        if size < 0:
            return np.int64(-WRONG_LENGTH)
    elif step == FIXED:
        size = argument
    else:
        size = 8 if step == DOUBLE else 4 if step == FLOAT else 1
    if at < 0:
        return np.int64(at)
    if size > end - at:
        return np.int64(-TORN)
    if step == BOOLEAN and data[at] > 1:
        return np.int64(-WRONG_BOOLEAN)
    if slot != SKIP:
        valid[slot, row] = True
        if step in (LONG, ENUM):
            integers[slot, row] = number
        elif step == LONG_AS_DOUBLE:
            doubles[slot, row] = number
        elif step == DOUBLE:
            doubles[slot, row] = data[at : at + 8].view(np.float64)[0]
        elif step == FLOAT:
            doubles[slot, row] = data[at : at + 4].view(np.float32)[0]
        elif step == BOOLEAN:
            integers[slot, row] = data[at]
        else:
            integers[slot, row], upper[slot, row] = at, at + size
    return np.int64(at + size)


@inlined
def _branch(data: Any, at: int, end: int, count: int) -> Any:
    """Which of so many branches a union has; the first where something is wrong."""
    branch, at = _long(data, at, end)
    if at >= 0 and branch >= 0 and branch < count:
        return branch, np.int64(at)
    return np.int64(0), np.int64(at if at < 0 else -WRONG_BRANCH)


@inlined
def _block(data: Any, at: int, end: int, is_wanted: bool) -> Any:
    """How many items the next block of an array or map has; those that say their length pass, if none is wanted."""
    while True:
        count, at = _long(data, at, end)
        if at < 0 or count == 0:
            return np.int64(0), np.int64(at)
        if count > 0:
            # An item without bytes could be repeated for ever.
            return np.int64(count), np.int64(-WRONG_LENGTH if count > end - at else at)
        size, at = _long(data, at, end)
        if at >= 0 and (size < 0 or size > end - at):
            return np.int64(0), np.int64(-TORN if size > 0 else -WRONG_LENGTH)
        if at < 0:
            return np.int64(0), np.int64(at)
        if is_wanted:
            count = -count
            return np.int64(count), np.int64(-WRONG_LENGTH if count < 0 or count > end - at else at)
        at += size


@inlined
def _wanted_key(
    tables: Any, place: int, count: int, otherwise: Any, data: Any, at: int, end: int, row: int, valid: Any
) -> Any:
    """The step at which the value of a map's key is read, or another if it is not wanted, and the place behind the key.

    What an earlier value of the key said is taken back: the last one counts.
    """
    size, at = _long(data, at, end)
    if at >= 0 and size < 0:
        return np.int64(0), np.int64(-WRONG_LENGTH)
    if at < 0 or size > end - at:
        return np.int64(0), np.int64(at if at < 0 else -TORN)
    found = np.int64(otherwise)
    for _ in range(count):
        length, slots, step = tables[place], tables[place + 1], tables[place + 2]
        first = place + 3 + slots
        is_same = length == size
        if is_same:
            for number in range(length):
                if tables[first + number] != data[at + number]:
                    is_same = False
                    break
        if is_same:
            found = step
            for number in range(slots):
                valid[tables[place + 3 + number], row] = False
        place = first + length
    return found, np.int64(at + size)


@compiled_for_bulk(
    INT, BYTES, INTS, INTS, INTS, INT_MATRIX, INTS, INT_MATRIX, INT_MATRIX, FLOAT_MATRIX, TRUTH_MATRIX, INT_MATRIX
)
def run_program(
    data: Any,
    begins: Int64Array,
    ends: Int64Array,
    rows: Int64Array,
    program: Any,
    tables: Int64Array,
    integers: Any,
    upper: Any,
    doubles: Any,
    valid: Any,
    wrong: Any,
) -> int:
    """Read records of one schema into columns.

    Args:
        data: the bytes of N records.
        begins: (N,) where they begin.
        ends: (N,) where they end.
        rows: those that are of the program's schema.
        program: (S, 3) steps.
        tables: the first steps of unions' branches.
        integers: (C, N) integers by slot, and where texts begin.
        upper: (C, N) where texts end.
        doubles: (C, N).
        valid: (C, N) set where there is a value.
        wrong: (2, N) what is wrong, and at which step; 0 of a record that could be read.

    Returns:
        How many records could not be read.
    """
    bad, back_to, items_left = 0, np.empty(DEPTH_MAX, dtype=np.int64), np.empty(DEPTH_MAX, dtype=np.int64)
    for row in rows:
        at, end, place, depth = begins[row], ends[row], np.int64(0), 0
        step = program[place, 0]
        while step != END:
            slot, argument, following = program[place, 1], program[place, 2], place + 1
            if step == JUMP:
                following = argument
            elif step < UNION:
                at = _value(step, slot, argument, data, at, end, row, integers, upper, doubles, valid)
            elif step == UNION:
                branch, at = _branch(data, at, end, slot)
                following = tables[argument + branch]
            elif step == KEY:
                following, at = _wanted_key(tables, argument, slot, following, data, at, end, row, valid)
            elif step == RETURN:
                depth -= 1
                following = back_to[depth]
            elif step == NEXT_ITEM:
                items_left[depth - 1] -= 1
                if items_left[depth - 1] == 0:
                    items_left[depth - 1], at = _block(data, at, end, program[argument, 0] == KEY)
                depth, following = (depth, argument) if items_left[depth - 1] > 0 else (depth - 1, slot)
            elif depth == DEPTH_MAX:
                at = np.int64(-TOO_DEEP)
            elif step == CALL:
                back_to[depth], following = following, argument
                depth += 1
            else:
                items_left[depth], at = _block(data, at, end, program[argument, 0] == KEY)
                depth, following = (depth + 1, argument) if items_left[depth] > 0 else (depth, slot)
            if at < 0:
                break
            place = following
            step = program[place, 0]
        if at != end:
            wrong[0, row], wrong[1, row] = -at if at < 0 else LEFT_OVER, place
            bad += 1
    return bad
