"""Helpers of compiled loops: head rows of entities in few bytes within the body of a pack, and back, byte for byte.

    row       varint of its time since the row before of the same entity, the 8-byte columns, bits, strings
    column    an integer is a varint; a TIMESTAMP one since the row's time; a FLOAT64 1 and a varint of hundredths if
              that is what it is, else 0 and its 8 bytes
    bits      the first says whether null bits follow, then the BOOL columns; so many bytes as that takes; then null
              bits as in the head
    string    a code u1: below DICTIONARY_MAX a string of the pack's dictionary; LIKE_FIRST hexadecimal digits, two a
              byte, low half first, which go where the column's pattern has such; DECIMAL an unsigned varint; PLAIN a
              length as unsigned varint and the bytes; EMPTY nothing

Varints are those of `bodies.packing` (zigzag, seven bits a byte). A pack's dictionary has each string once that is
neither like the first of its column nor a number. A column's pattern is its first string of eight hexadecimal digits
or more. The check of a row is computed when it is read, and its layout is that of `head`.

Words     what the loops know of a dictionary: begins and ends, slots of a table of hashes, how many there are, and
          begin and end of each column's pattern (-1 for none)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import borrowing
from featurestore.core.tiles.parts import Array
from featurestore.wire.codecs.bodies.packing import put_varint, put_word, word_at
from featurestore.wire.codecs.head_kernels import FLOAT, KINDS, MOMENT, TORN, crc8

DICTIONARY_MAX = 250
LIKE_FIRST, DECIMAL, PLAIN, EMPTY = 250, 251, 252, 253
_TEXT_MAX = 255
"""Longer strings are neither in a dictionary nor a pattern."""
_PATTERN_DIGITS_MIN = 8

NO_ROOM = -3
"""What is written is more than was said."""

_SLOTS = 512
BEGINS, ENDS, _HASHED, WORD_COUNT = 0, DICTIONARY_MAX, 2 * DICTIONARY_MAX, 2 * DICTIONARY_MAX + _SLOTS
PATTERNS = WORD_COUNT + 1
"""Where the patterns are in the words, of which there are so many more than two for each string column."""

_HUNDREDTHS_MAX = 1e13


@borrowing
def copy_bytes(source: Array, begin: Any, end: Any, out: Array, to: Any) -> Any:
    """Copy a span; slices would allocate."""
    for index in range(end - begin):
        out[to + index] = source[begin + index]
    return 0


@borrowing
def number_at(data: Array, at: Any, end: Any) -> Any:
    """An unsigned varint and where it ends; behind `end` when it is cut off."""
    value, shift, more = np.uint64(0), np.uint64(0), True
    while more and at < end and shift < np.uint64(64):
        byte = np.uint64(data[at])
        value |= (byte & np.uint64(127)) << shift
        more = bool(byte >= np.uint64(128))
        shift += np.uint64(7)
        at += 1
    return np.int64(value), end + 1 if more else at


@borrowing
def signed_at(data: Array, at: Any, end: Any) -> Any:
    """Likewise, of a zigzag one."""
    value, at = number_at(data, at, end)
    zigzag = np.uint64(value)
    return np.int64(zigzag >> np.uint64(1)) ^ -np.int64(zigzag & np.uint64(1)), at


@borrowing
def put_number(out: Array, at: Any, value: Any) -> Any:
    """The pair of `number_at`."""
    left = np.uint64(value)
    while left >= np.uint64(128):
        out[at] = np.uint8((left & np.uint64(127)) | np.uint64(128))
        left >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(left)
    return at + 1


@borrowing
def no_words(words: Array, strings: Any) -> Any:
    """An empty dictionary."""
    for index in range(_HASHED, PATTERNS + 2 * strings):
        words[index] = -1
    words[WORD_COUNT] = 0
    return 0


@borrowing
def find_words(rows: Array, words: Array, strings: Any) -> Any:
    """Let strings of a dictionary that `take_words` has read be found, so that more can be added to it."""
    for slot in range(_SLOTS):
        words[_HASHED + slot] = -1
    for code in range(words[WORD_COUNT]):
        begin, end = words[BEGINS + code], words[ENDS + code]
        if begin < end:
            known, slot = _code_of(rows, begin, end, words)
            if known < 0:
                words[_HASHED + slot] = code
    for column in range(strings):
        if words[PATTERNS + 2 * column] == words[PATTERNS + 2 * column + 1]:
            words[PATTERNS + 2 * column] = -1
    return 0


@borrowing
def is_digit(byte: Any) -> Any:
    """Whether it is a hexadecimal digit."""
    return 48 <= byte < 58 or 97 <= byte < 103


@borrowing
def _worth(byte: Any) -> Any:
    """Of a hexadecimal digit."""
    return byte - 48 if byte < 58 else byte - 87


@borrowing
def is_equal(left: Array, left_at: Any, right: Array, right_at: Any, size: Any) -> Any:
    """Whether two spans have the same bytes."""
    index = 0
    while index < size and left[left_at + index] == right[right_at + index]:
        index += 1
    return index == size


@borrowing
def _code_of(rows: Array, begin: Any, end: Any, words: Array) -> Any:
    """The code of a string of the dictionary, and the slot that it would have; -1 where it is not there."""
    size = end - begin
    mixed = size * 131 + np.int64(rows[begin]) * 31 + np.int64(rows[end - 1]) * 7 + np.int64(rows[begin + (size >> 1)])
    slot = mixed & (_SLOTS - 1)
    while words[_HASHED + slot] >= 0:
        code = words[_HASHED + slot]
        at = words[BEGINS + code]
        if words[ENDS + code] - at == size and is_equal(rows, at, rows, begin, size):
            return code, slot
        slot = (slot + 1) & (_SLOTS - 1)
    return np.int64(-1), slot


@borrowing
def _is_like_first(rows: Array, begin: Any, end: Any, words: Array, column: Any) -> Any:
    """Whether a string fits the pattern of its column, whose first one it may become."""
    at = words[PATTERNS + 2 * column]
    if at < 0:
        digits = 0
        for index in range(begin, end):
            digits += is_digit(rows[index])
        if digits < _PATTERN_DIGITS_MIN or end - begin > _TEXT_MAX:
            return False
        words[PATTERNS + 2 * column], words[PATTERNS + 2 * column + 1] = begin, end
        return True
    if words[PATTERNS + 2 * column + 1] - at != end - begin:
        return False
    for index in range(end - begin):
        byte, like = rows[begin + index], rows[at + index]
        if not (is_digit(byte) if is_digit(like) else byte == like):
            return False
    return True


@borrowing
def _decimal(rows: Array, begin: Any, end: Any) -> Any:
    """What a string of decimal digits, written as numbers are, is worth; -1 for any other."""
    if end - begin > 18 or (rows[begin] == 48 and end - begin > 1):
        return np.int64(-1)
    number = np.int64(0)
    for at in range(begin, end):
        if not 48 <= rows[at] < 58:
            return np.int64(-1)
        number = 10 * number + np.int64(rows[at]) - 48
    return number


@borrowing
def _put_string(rows: Array, begin: Any, end: Any, words: Array, column: Any, out: Array, to: Any) -> Any:
    """Write a string; where it ends."""
    if begin == end:
        out[to] = EMPTY
        return to + 1
    code, slot = _code_of(rows, begin, end, words)
    if code >= 0:
        out[to] = code
        return to + 1
    if _is_like_first(rows, begin, end, words, column):
        out[to] = LIKE_FIRST
        to += 1
        is_low = True
        for index in range(begin, end):
            if is_digit(rows[index]):
                if is_low:
                    out[to] = _worth(rows[index])
                else:
                    out[to] |= _worth(rows[index]) << 4
                    to += 1
                is_low = not is_low
        return to if is_low else to + 1
    number = _decimal(rows, begin, end)
    if number >= 0:
        out[to] = DECIMAL
        return put_number(out, to + 1, number)
    if words[WORD_COUNT] < DICTIONARY_MAX and end - begin <= _TEXT_MAX:
        code = words[WORD_COUNT]
        words[WORD_COUNT] += 1
        words[_HASHED + slot], words[BEGINS + code], words[ENDS + code] = code, begin, end
        out[to] = code
        return to + 1
    out[to] = PLAIN
    to = put_number(out, to + 1, end - begin)
    copy_bytes(rows, begin, end, out, to)
    return to + end - begin


@borrowing
def put_words(rows: Array, words: Array, strings: Any, out: Array, to: Any) -> Any:
    """Write a dictionary: patterns and strings, each behind its length u1."""
    for column in range(strings):
        begin, end = words[PATTERNS + 2 * column], words[PATTERNS + 2 * column + 1]
        size = 0 if begin < 0 else end - begin
        out[to] = size
        copy_bytes(rows, begin, begin + size, out, to + 1)
        to += 1 + size
    out[to] = words[WORD_COUNT]
    to += 1
    for code in range(words[WORD_COUNT]):
        begin, size = words[BEGINS + code], words[ENDS + code] - words[BEGINS + code]
        out[to] = size
        copy_bytes(rows, begin, begin + size, out, to + 1)
        to += 1 + size
    return to


@borrowing
def take_words(data: Array, at: Any, end: Any, words: Array, strings: Any) -> Any:
    """Read a dictionary; where it ends, TORN if that is behind `end`."""
    count: Any = 0
    for index in range(strings + 1):
        if at >= end or (index < strings and at + 1 + data[at] > end):
            return TORN
        if index < strings:
            size = np.int64(data[at])
            words[PATTERNS + 2 * index] = at + 1
            words[PATTERNS + 2 * index + 1] = at + 1 + size
            at += 1 + size
        else:
            count = np.int64(data[at])
            at += 1
    if count > DICTIONARY_MAX:
        return TORN
    words[WORD_COUNT] = count
    for code in range(count):
        if at >= end or at + 1 + data[at] > end:
            return TORN
        size = np.int64(data[at])
        words[BEGINS + code], words[ENDS + code] = at + 1, at + 1 + size
        at += 1 + size
    return at


@borrowing
def _take_string(data: Array, at: Any, end: Any, words: Array, column: Any, out: Array, to: Any) -> Any:
    """Read a string; where it and what is made of it end, the latter TORN or NO_ROOM for what cannot be."""
    if at >= end:
        return at, TORN
    code = np.int64(data[at])
    at += 1
    if code == EMPTY:
        return at, to
    if code == DECIMAL:
        number, at = number_at(data, at, end)
        if at > end or number < 0:
            return at, TORN
        digits, left = 1, number
        while left >= 10:
            left //= 10
            digits += 1
        if to + digits > len(out):
            return at, NO_ROOM
        for index in range(digits):
            out[to + digits - 1 - index] = 48 + number % 10
            number //= 10
        return at, to + digits
    begin, size = at, np.int64(0)
    if code == PLAIN:
        size, begin = number_at(data, at, end)
        if begin > end or not 0 <= size <= end - begin:
            return at, TORN
        at = begin + size
    elif code == LIKE_FIRST:
        begin = words[PATTERNS + 2 * column]
        size = words[PATTERNS + 2 * column + 1] - begin
    elif code < words[WORD_COUNT]:
        begin, size = words[BEGINS + code], words[ENDS + code] - words[BEGINS + code]
    else:
        return at, TORN
    if to + size > len(out):
        return at, NO_ROOM
    if code != LIKE_FIRST:
        copy_bytes(data, begin, begin + size, out, to)
        return at, to + size
    is_low = True
    for index in range(size):
        byte = data[begin + index]
        if is_digit(byte):
            if at >= end:
                return at, TORN
            digit = data[at] & 15 if is_low else data[at] >> 4
            byte = 48 + digit if digit < 10 else 87 + digit
            at += 0 if is_low else 1
            is_low = not is_low
        out[to + index] = byte
    return at if is_low else at + 1, to + size


@borrowing
def put_row(
    rows: Array, at: Any, before_ms: Any, shape: Array, words: Array, room: Array, as_float: Array, out: Array, to: Any
) -> Any:
    """Write the row at an offset of whole head rows; where it ends, where what is written does, and its time."""
    wide, flags, strings = shape[0], shape[1], shape[2] + shape[3]
    flags_at, nulls_at, lengths_at, size = shape[4], shape[5], shape[6], shape[7]
    time_ms: Any = np.int64(word_at(rows, at + 1))
    to = put_varint(out, to, time_ms - before_ms)
    for column in range(wide):
        value: Any = np.int64(word_at(rows, at + 9 + 8 * column))
        kind = shape[KINDS + column]
        if kind != FLOAT:
            to = put_varint(out, to, value - time_ms if kind == MOMENT else value)
            continue
        room[0] = value
        number: Any = as_float[0]
        hundredths: Any = np.int64(0)
        is_whole = abs(number) < _HUNDREDTHS_MAX
        if is_whole:
            hundredths = np.int64(np.round(100.0 * number))
            as_float[0] = float(hundredths) / 100.0
            is_whole = room[0] == value
        out[to] = is_whole
        if is_whole:
            to = put_varint(out, to + 1, hundredths)
        else:
            put_word(out, to + 1, np.uint64(value))
            to += 9
    flag_bytes, has_nulls = (flags + 8) >> 3, 0
    for index in range(at + nulls_at, at + lengths_at):
        has_nulls |= rows[index] != 0
    for index in range(flag_bytes):
        out[to + index] = has_nulls if index == 0 else 0
    for flag in range(flags):
        out[to + ((flag + 1) >> 3)] |= (rows[at + flags_at + flag] & 1) << ((flag + 1) & 7)
    to += flag_bytes
    if has_nulls:
        copy_bytes(rows, at + nulls_at, at + lengths_at, out, to)
        to += lengths_at - nulls_at
    begin = at + size
    for string in range(strings):
        length_at = at + lengths_at + 2 * string
        end = begin + np.int64(rows[length_at]) + (np.int64(rows[length_at + 1]) << 8)
        to = _put_string(rows, begin, end, words, string, out, to)
        begin = end
    return begin, to, time_ms


@borrowing
def take_row(
    data: Array,
    at: Any,
    end: Any,
    before_ms: Any,
    shape: Array,
    words: Array,
    room: Array,
    as_float: Array,
    out: Array,
    to: Any,
) -> Any:
    """The pair of `put_row`: where what is read ends, where the row does (TORN or NO_ROOM for none), and its time."""
    wide, flags, strings = shape[0], shape[1], shape[2] + shape[3]
    flags_at, nulls_at, lengths_at, size = shape[4], shape[5], shape[6], shape[7]
    if to + size > len(out):
        return at, NO_ROOM, before_ms
    since, at = signed_at(data, at, end)
    time_ms = before_ms + since
    put_word(out, to + 1, np.uint64(time_ms))
    for column in range(wide):
        kind = shape[KINDS + column]
        value: Any = np.int64(0)
        if kind != FLOAT:
            value, at = signed_at(data, at, end)
            value += time_ms if kind == MOMENT else 0
        elif at < end and data[at] == 1:
            value, at = signed_at(data, at + 1, end)
            as_float[0] = float(value) / 100.0
            value = room[0]
        elif at + 9 <= end:
            value, at = np.int64(word_at(data, at + 1)), at + 9
        else:
            at = end + 1
        put_word(out, to + 9 + 8 * column, np.uint64(value))
    flag_bytes, null_bytes = (flags + 8) >> 3, lengths_at - nulls_at
    if at + flag_bytes > end:
        return at, TORN, time_ms
    has_nulls = data[at] & 1 != 0
    for flag in range(flags):
        out[to + flags_at + flag] = (data[at + ((flag + 1) >> 3)] >> ((flag + 1) & 7)) & 1
    at += flag_bytes
    if has_nulls and at + null_bytes > end:
        return at, TORN, time_ms
    for index in range(null_bytes):
        out[to + nulls_at + index] = data[at + index] if has_nulls else 0
    at += null_bytes if has_nulls else 0
    string_to = to + size
    for string in range(strings):
        at, string_end = _take_string(data, at, end, words, string, out, string_to)
        if string_end < 0:
            return at, string_end, time_ms
        length, length_to = string_end - string_to, to + lengths_at + 2 * string
        if length > 0xFFFF:
            return at, TORN, time_ms
        out[length_to], out[length_to + 1] = length & 255, length >> 8
        string_to = string_end
    out[to] = crc8(out, to + 1, string_to, 0)
    return at, string_to, time_ms
