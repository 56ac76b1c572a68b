"""The compiled loop that numbers the strings of a table, so that writing a body compares numbers and not bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import BYTES, INT, INT_MATRIX, INTS, borrowing, compiled
from featurestore.core.events import Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.wire.codecs.bodies.packing import word_at

_PRIME = np.uint64(0x9E3779B97F4A7C15)


@borrowing
def _hash(buffer: Array, begin: int, end: int) -> Any:
    """Of a string, eight bytes at a time."""
    mixed = np.uint64(end - begin) * _PRIME
    at = begin
    while at + 8 <= end:
        mixed = (mixed ^ word_at(buffer, at)) * _PRIME
        mixed ^= mixed >> np.uint64(29)
        at += 8
    rest, shift = np.uint64(0), np.uint64(0)
    while at < end:
        rest |= np.uint64(buffer[at]) << shift
        shift += np.uint64(8)
        at += 1
    mixed = (mixed ^ rest) * _PRIME
    return mixed ^ (mixed >> np.uint64(32))


@borrowing
def _is_same(buffer: Array, left: int, right: int, length: int) -> Any:
    """Whether two strings of one length are equal."""
    at = 0
    while at + 8 <= length:
        if word_at(buffer, left + at) != word_at(buffer, right + at):
            return False
        at += 8
    while at < length:
        if buffer[left + at] != buffer[right + at]:
            return False
        at += 1
    return True


@borrowing
def _decimal(buffer: Array, begin: int, end: int) -> Any:
    """What a string of decimal digits, written as numbers are, is worth; -1 for any other."""
    if not 0 < end - begin <= 18 or (buffer[begin] == 48 and end - begin > 1):
        return np.int64(-1)
    number = np.int64(0)
    for at in range(begin, end):
        if not 48 <= buffer[at] < 58:
            return np.int64(-1)
        number = 10 * number + np.int64(buffer[at]) - 48
    return number


@compiled(INT, BYTES, *(INT_MATRIX,) * 4, INTS, INTS, INTS, allocates=False)
def number_strings(
    buffer: Array,
    begins: Int64Array,
    ends: Int64Array,
    codes: Int64Array,
    spans: Int64Array,
    decimals: Int64Array,
    hashes: Int64Array,
    slots: Int64Array,
) -> int:
    """Give equal strings of all text columns the same number, in the order in which they come; 0 is the empty string.

    buffer, begins, ends   (fields, N) spans of the strings
    receive                codes (fields, N), spans (2, 1 + fields * N) begin and end of each number, decimals
                           (1 + fields * N,) what each is worth as a decimal number, or -1
    room                   hashes (1 + fields * N,), slots (at least twice as many, and a power of two)
    returns                the bytes of all strings, repeats included
    """
    size = len(slots)
    slots[:] = -1
    spans[0, 0], spans[1, 0], decimals[0], count, total = 0, 0, -1, 1, 0
    for field in range(begins.shape[0]):
        for row in range(begins.shape[1]):
            begin, end = begins[field, row], ends[field, row]
            total += end - begin
            if begin == end:
                codes[field, row] = 0
                continue
            mixed = _hash(buffer, begin, end)
            slot = np.int64(mixed & np.uint64(size - 1))
            while True:
                code = slots[slot]
                if code < 0:
                    code, slots[slot] = count, count
                    spans[0, count], spans[1, count], hashes[count] = begin, end, np.int64(mixed)
                    decimals[count] = _decimal(buffer, begin, end)
                    count += 1
                    break
                length = spans[1, code] - spans[0, code]
                is_like = hashes[code] == np.int64(mixed) and length == end - begin
                if is_like and _is_same(buffer, spans[0, code], begin, length):
                    break
                slot = (slot + 1) & (size - 1)
            codes[field, row] = code
    return total
