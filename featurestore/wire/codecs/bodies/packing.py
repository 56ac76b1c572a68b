"""Helpers of compiled loops: numbers in few bits, written and read.

varint   a number of any size: zigzag, then seven bits a byte, the lowest first, the top bit where more follow
frame    bits u1, lowest varint, then what each number is above the lowest, in so many bits one after another, the
         lowest bit first; more than 56 bits are eight bytes
frames   a column's explicit numbers in one frame, or in one for each run of tiles that has any

left     the explicit rows of each run, then of all; `bounds` are where runs begin and end among them
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import borrowing
from featurestore.core.tiles.parts import Array
from featurestore.wire.codecs.bodies import codes

BEYOND = 1 << 62
"""Where a column ends that is not as it must be: behind all bytes, whatever is added."""


@borrowing
def packed_bytes(count: int, bits: int) -> Any:
    """Bytes of so many packed numbers."""
    return 8 * count if bits > codes.PACKED_BITS_MAX else (count * bits + 7) >> 3


@borrowing
def end_of(body: Array) -> Any:
    """Where columns must have ended: what follows is the checksum, so that eight bytes can be read from each before."""
    return len(body) - 8


@borrowing
def word_at(body: Array, at: Any) -> Any:
    """Eight bytes; LLVM makes one instruction of it."""
    word, first = np.uint64(0), np.uint64(at)
    for byte in range(8):
        word |= np.uint64(body[first + np.uint64(byte)]) << np.uint64(8 * byte)
    return word


@borrowing
def put_word(out: Array, at: int, word: Any) -> Any:
    """Write eight bytes."""
    first = np.uint64(at)
    for byte in range(8):
        out[first + np.uint64(byte)] = np.uint8((word >> np.uint64(8 * byte)) & np.uint64(255))
    return 0


@borrowing
def byte_at(body: Array, at: int) -> Any:
    """A byte; 0 where the columns have ended."""
    return np.int64(body[at]) if at < end_of(body) else np.int64(0)


@borrowing
def varint_at(body: Array, at: int) -> Any:
    """A number of one to ten bytes, and where it ends."""
    zigzag, shift, more = np.uint64(0), np.uint64(0), True
    while more and at < end_of(body) and shift < np.uint64(64):
        byte = np.uint64(body[at])
        zigzag |= (byte & np.uint64(127)) << shift
        more = bool(byte >= np.uint64(128))
        shift += np.uint64(7)
        at += 1
    return np.int64(zigzag >> np.uint64(1)) ^ -np.int64(zigzag & np.uint64(1)), BEYOND if more else at


@borrowing
def unpack(body: Array, at: int, bits: int, lowest: int, values: Array, first: int, count: int) -> Any:
    """Packed numbers into values[first : first + count]."""
    if bits == 0:
        for index in range(first, first + count):
            values[index] = lowest
    elif bits > codes.PACKED_BITS_MAX:
        for index in range(count):
            values[first + index] = lowest + np.int64(word_at(body, at + 8 * index))
    else:
        ones, bit = (np.uint64(1) << np.uint64(bits)) - np.uint64(1), np.uint64(8 * at)
        for index in range(first, first + count):
            value = (word_at(body, np.int64(bit >> np.uint64(3))) >> (bit & np.uint64(7))) & ones
            values[index] = lowest + np.int64(value)
            bit += np.uint64(bits)
    return 0


@borrowing
def pass_frame(body: Array, at: int, count: int) -> Any:
    """Where a frame of so many numbers ends; none is nothing."""
    if count == 0:
        return at
    bits = byte_at(body, at)
    at = varint_at(body, at + 1)[1] + packed_bytes(count, bits)
    return BEYOND if bits > 64 else at


@borrowing
def take_frame(body: Array, at: int, count: int, values: Array, first: int) -> Any:
    """The numbers of a frame that was passed before into values[first:], and where it ends."""
    if count == 0:
        return at
    bits = byte_at(body, at)
    lowest, at = varint_at(body, at + 1)
    unpack(body, at, bits, lowest, values, first, count)
    return at + packed_bytes(count, bits)


@borrowing
def pass_frames(body: Array, at: int, by_run: int, left: Array) -> Any:
    """Where the explicit numbers of a column end."""
    runs = len(left) - 1
    for run in range(0 if by_run else runs, runs if by_run else runs + 1):
        at = pass_frame(body, at, left[run])
    return at


@borrowing
def take_frames(body: Array, at: int, by_run: int, left: Array, values: Array) -> Any:
    """The explicit numbers of a column, and where they end."""
    runs, first = len(left) - 1, 0
    for run in range(0 if by_run else runs, runs if by_run else runs + 1):
        at = take_frame(body, at, left[run], values, first)
        first += left[run]
    return at


@borrowing
def bits_of(number: Any) -> Any:
    """How many bits a number has."""
    bits = 0
    while number != np.uint64(0):
        number >>= np.uint64(1)
        bits += 1
    return bits if bits <= codes.PACKED_BITS_MAX else 64


@borrowing
def varint_bytes(value: Any) -> Any:
    """Size of a number."""
    zigzag, size = np.uint64((value << 1) ^ (value >> 63)) >> np.uint64(7), 1
    while zigzag != np.uint64(0):
        zigzag >>= np.uint64(7)
        size += 1
    return size


@borrowing
def put_varint(out: Array, at: int, value: int) -> Any:
    """Write a number in one to ten bytes."""
    zigzag = np.uint64((value << 1) ^ (value >> 63))
    while zigzag >= np.uint64(128):
        out[at] = np.uint8((zigzag & np.uint64(127)) | np.uint64(128))
        zigzag >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(zigzag)
    return at + 1


@borrowing
def pack(out: Array, at: Any, values: Array, first: int, last: int, lowest: int, bits: int) -> Any:
    """Write values[first:last] less the lowest; eight bytes behind are written to as well."""
    if bits > codes.PACKED_BITS_MAX:
        for index in range(first, last):
            put_word(out, at, np.uint64(values[index] - lowest))
            at += 8
        return at
    waiting, have = np.uint64(0), np.uint64(0)
    for index in range(first, last):
        waiting |= np.uint64(values[index] - lowest) << have
        have += np.uint64(bits)
        put_word(out, at, waiting)
        at += np.int64(have >> np.uint64(3))
        waiting >>= have & np.uint64(56)
        have &= np.uint64(7)
    return at + np.int64(have != np.uint64(0))


@borrowing
def frame_of(values: Array, first: int, last: int) -> Any:
    """The lowest of values[first:last], and the bits of the others above it."""
    lowest, highest = values[first], values[first]
    for index in range(first + 1, last):
        lowest, highest = min(lowest, values[index]), max(highest, values[index])
    return lowest, bits_of(np.uint64(highest) - np.uint64(lowest))


@borrowing
def frame_bytes(values: Array, first: int, last: int) -> Any:
    """Size of values[first:last] in one frame."""
    lowest, bits = frame_of(values, first, last)
    return 1 + varint_bytes(lowest) + packed_bytes(last - first, bits)


@borrowing
def measure(values: Array, bounds: Array) -> Any:
    """Size of values in one frame or in one a run, whichever is less, and BY_RUN for the latter."""
    runs = len(bounds) - 1
    size, by_run = frame_bytes(values, 0, bounds[runs]), np.int64(0)
    for run in range(runs):
        if bounds[run] < bounds[run + 1]:
            by_run += frame_bytes(values, bounds[run], bounds[run + 1])
    return (by_run, codes.BY_RUN) if by_run < size else (size, 0)


@borrowing
def put_frame(out: Array, at: int, values: Array, first: int, last: int) -> Any:
    """Write values[first:last]: bits, the lowest, and what the others are above it."""
    lowest, bits = frame_of(values, first, last)
    out[at] = bits
    return pack(out, put_varint(out, at + 1, lowest), values, first, last, lowest, bits)


@borrowing
def put_frames(out: Array, at: int, values: Array, bounds: Array, by_run: int) -> Any:
    """Write values as they were measured."""
    runs = len(bounds) - 1
    for run in range(runs if by_run else 1):
        first, last = (bounds[run], bounds[run + 1]) if by_run else (0, bounds[runs])
        if first < last:
            at = put_frame(out, at, values, first, last)
    return at
