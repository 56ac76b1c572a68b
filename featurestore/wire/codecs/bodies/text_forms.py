"""Helpers of compiled loops: the forms of text columns, read and written.

    PLAIN        frame of lengths, the bytes of all
    PATTERN      length u1, as many bytes with 0 where a hexadecimal digit goes, then those digits, two a byte, the
                 first in the low half
    DECIMAL      frame of numbers
    DICTIONARY   varint distinct, PLAIN of those, frame of which one each is

While columns are read, a string is begin << 32 | length in the buffer of strings: the body, and behind it what had to
be made anew from digits (`written`, which begins at `first`). While they are written it is a number, see `text_loops`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import borrowing
from featurestore.core.tiles.parts import Array
from featurestore.wire.codecs.bodies import codes
from featurestore.wire.codecs.bodies.packing import (
    BEYOND,
    byte_at,
    end_of,
    frame_bytes,
    pass_frame,
    put_frame,
    put_varint,
    put_word,
    take_frame,
    varint_at,
    varint_bytes,
    word_at,
)

NOWHERE = -1
LENGTH_BITS, LENGTH_MAX = 32, (1 << 32) - 1

_DIGITS = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_PATTERN_BYTES_MAX = 255


@borrowing
def _count_digits(body: Array, pattern: int, length: int) -> Any:
    """How many places of a pattern are digits that follow it."""
    digits = 0
    for index in range(pattern, pattern + length):
        digits += byte_at(body, index) == 0
    return digits


@borrowing
def _pass_strings(body: Array, at: int, count: int, lengths: Array) -> Any:
    """Where strings end that follow their lengths."""
    strings = pass_frame(body, at, count)
    if strings > end_of(body):
        return BEYOND
    take_frame(body, at, count, lengths, 0)
    for index in range(count):
        if not 0 <= lengths[index] <= end_of(body) - strings:
            return BEYOND
        strings += lengths[index]
    return strings


@borrowing
def pass_text(body: Array, at: int, form: int, rows: int, lengths: Array) -> Any:
    """Where an explicit text column ends."""
    if form == codes.PATTERN:
        length = byte_at(body, at)
        return at + 1 + length + ((rows * _count_digits(body, at + 1, length) + 1) >> 1)
    if form == codes.DECIMAL:
        return pass_frame(body, at, rows)
    if form == codes.PLAIN:
        return _pass_strings(body, at, rows, lengths)
    distinct, at = varint_at(body, at)
    return pass_frame(body, _pass_strings(body, at, distinct, lengths), rows) if 0 < distinct <= rows else BEYOND


@borrowing
def _eight_digits(word: Any) -> Any:
    """The eight hexadecimal digits in the lower half of a word, a byte each."""
    word &= np.uint64(0xFFFFFFFF)
    word = (word | (word << np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    word = (word | (word << np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    word = (word | (word << np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    are_letters = ((word + np.uint64(0x0606060606060606)) >> np.uint64(4)) & np.uint64(0x0101010101010101)
    return word + np.uint64(0x3030303030303030) + are_letters * np.uint64(39)


@borrowing
def _write_pattern(body: Array, at: int, rows: int, cells: Array, written: Array, first: int, used: int) -> Any:
    """Strings of one length, of which only some places are stored; returns how much of `written` is used then."""
    length, place = byte_at(body, at), 0
    digits = at + 1 + length
    if rows * length > len(written) - used:
        return NOWHERE
    for index in range(rows):
        cells[index] = ((first + used + index * length) << LENGTH_BITS) | length
    if length % 8 == 0 and _count_digits(body, at + 1, length) == length:
        # Nothing but digits, as in many ids: eight of them at once.
        for index in range(rows * length >> 3):
            put_word(written, used + 8 * index, _eight_digits(word_at(body, digits + 4 * index)))
        return used + rows * length
    for _ in range(rows):
        for letter in range(length):
            text = body[at + 1 + letter]
            if text == 0:
                text = _DIGITS[(body[digits + (place >> 1)] >> (4 * (place & 1))) & 15]
                place += 1
            written[used + letter] = text
        used += length
    return used


@borrowing
def _write_decimals(cells: Array, rows: int, written: Array, first: int, used: int) -> Any:
    """Numbers, as digits; returns what is used then."""
    for index in range(rows):
        value, size, power = cells[index], 1, 10
        while size < 18 and value >= power:
            size, power = size + 1, power * 10
        if value < 0 or size > len(written) - used:
            return NOWHERE
        cells[index] = ((first + used) << LENGTH_BITS) | size
        used += size
        for letter in range(1, size + 1):
            tens = value // 10
            written[used - letter] = np.uint8(48 + value - 10 * tens)
            value = tens
    return used


@borrowing
def _begins_first(lengths: Array, count: int, at: int) -> Any:
    """Strings one after another, from their lengths; returns where they end."""
    for index in range(count):
        length = lengths[index]
        lengths[index] = (at << LENGTH_BITS) | length
        at += length
    return at


@borrowing
def take_texts(
    body: Array, at: int, form: int, rows: int, cells: Array, strings: Array, written: Array, first: int, used: int
) -> Any:
    """The explicit strings of a text column; returns how much of `written` is used then, or that one is nowhere.

    `strings` is room for the distinct ones; `written` begins at `first` of the buffer of strings.
    """
    if form == codes.PATTERN:
        return _write_pattern(body, at, rows, cells, written, first, used)
    if form == codes.DICTIONARY:
        distinct, at = varint_at(body, at)
        at = _begins_first(strings, distinct, take_frame(body, at, distinct, strings, 0))
        take_frame(body, at, rows, cells, 0)
        for index in range(rows):
            if not 0 <= cells[index] < distinct:
                return NOWHERE
            cells[index] = strings[cells[index]]
        return used
    at = take_frame(body, at, rows, cells, 0)
    if form == codes.DECIMAL:
        return _write_decimals(cells, rows, written, first, used)
    _begins_first(cells, rows, at)
    return used


@borrowing
def _digit_of(letter: Any) -> Any:
    """What a hexadecimal digit is worth; 16 for anything else."""
    if 48 <= letter < 58:
        return np.int64(letter) - 48
    return np.int64(letter) - 87 if 97 <= letter < 103 else np.int64(16)


@borrowing
def _find_pattern(buffer: Array, spans: Array, order: Array, distinct: int, pattern: Array) -> Any:
    """The length of strings that only differ in hexadecimal digits, and how many those are; -1 when they do not.

    `pattern` receives the first string with 0 where others differ.
    """
    first = spans[0, order[0]]
    length, digits = spans[1, order[0]] - first, 0
    if not 0 < length <= _PATTERN_BYTES_MAX:
        return -1, 0
    for letter in range(length):
        pattern[letter] = buffer[first + letter]
        if pattern[letter] == 0:
            return -1, 0
    for index in range(1, distinct):
        begin = spans[0, order[index]]
        if spans[1, order[index]] - begin != length:
            return -1, 0
        for letter in range(length):
            if pattern[letter] and buffer[begin + letter] != pattern[letter]:
                pattern[letter], digits = 0, digits + 1
    for index in range(distinct):
        begin = spans[0, order[index]]
        for letter in range(length):
            if pattern[letter] == 0 and _digit_of(buffer[begin + letter]) > 15:
                return -1, 0
    return length, digits


@borrowing
def plan_texts(
    buffer: Array, spans: Array, decimals: Array, seen: Array, room: Array, count: int, pattern: Array
) -> Any:
    """Size, form, and how many strings are distinct, of the numbered strings room[0, :count].

    `room` then has lengths in row 1, places among the distinct ones in 2, those in 3, their lengths in 4.
    """
    distinct, total, once, are_decimals = 0, 0, 0, True
    for index in range(count):
        code = room[0, index]
        place, length = seen[code], spans[1, code] - spans[0, code]
        # What an earlier column left here, or nobody, points at another string, or at none.
        if not 0 <= place < distinct or room[3, place] != code:
            place, seen[code], room[3, distinct], room[4, distinct] = distinct, distinct, code, length
            distinct, once = distinct + 1, once + length
            are_decimals = are_decimals and decimals[code] >= 0
        room[1, index], room[2, index], total = length, place, total + length
    size, form = frame_bytes(room[1], 0, count) + total, codes.PLAIN
    other = varint_bytes(distinct) + frame_bytes(room[4], 0, distinct) + once + frame_bytes(room[2], 0, count)
    if other < size:
        size, form = other, codes.DICTIONARY
    length, digits = _find_pattern(buffer, spans, room[3], distinct, pattern)
    other = 1 + length + ((count * digits + 1) >> 1)
    if length > 0 and other < size:
        size, form = other, codes.PATTERN
    if are_decimals:
        for index in range(count):
            room[5, index] = decimals[room[0, index]]
        other = frame_bytes(room[5], 0, count)
        if other < size:
            size, form = other, codes.DECIMAL
    return size, form, distinct


@borrowing
def _put_text(out: Array, at: int, buffer: Array, spans: Array, code: int) -> Any:
    """Write a string."""
    for index in range(spans[0, code], spans[1, code]):
        out[at] = buffer[index]
        at += 1
    return at


@borrowing
def put_texts(
    out: Array, at: int, form: int, distinct: int, room: Array, count: int, pattern: Array, strings: Any
) -> Any:
    """Write a text column as it was planned; returns where it ends, and the bytes that reading has to make anew."""
    (buffer, spans), scratch = strings, 0
    if form == codes.DECIMAL:
        for index in range(count):
            scratch += room[1, index]
        return put_frame(out, at, room[5], 0, count), scratch
    if form == codes.PATTERN:
        length, place = room[1, 0], 0
        out[at] = length
        for letter in range(length):
            out[at + 1 + letter] = pattern[letter]
        at += 1 + length
        for index in range(count):
            for letter in range(length):
                if pattern[letter] == 0:
                    digit = np.uint8(_digit_of(buffer[spans[0, room[0, index]] + letter]))
                    byte = at + (place >> 1)
                    out[byte] = out[byte] | (digit << np.uint8(4)) if place & 1 else digit
                    place += 1
        return at + ((place + 1) >> 1), length * count
    if form == codes.PLAIN:
        at = put_frame(out, at, room[1], 0, count)
        for index in range(count):
            at = _put_text(out, at, buffer, spans, room[0, index])
        return at, 0
    at = put_frame(out, put_varint(out, at, distinct), room[4], 0, distinct)
    for index in range(distinct):
        at = _put_text(out, at, buffer, spans, room[3, index])
    return put_frame(out, at, room[2], 0, count), 0
