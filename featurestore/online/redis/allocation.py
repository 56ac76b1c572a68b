"""What Redis allocates for a key: its `used_memory`, not the lengths of its strings.

    {payments/7}card@1.9f3a12bc/b/c-17       name     sds header, the text, a null byte       ┐ each rounded up to a
    (the body)                               value    object of 16 bytes, sds likewise        │ size class of jemalloc
                                             entry    of the dictionary of keys, and where    │
                                                      the key expires of that of expiries     ┘
                                             buckets  a pointer or two for each entry

A value of 44 bytes or less is one allocation with its object; one that a script wrote may have up to 32 bytes of room.
It is Redis 7.0 with its own allocator, on 64 bits, and no cluster; tests hold it to MEMORY USAGE and to `used_memory`.
Valkey 9 keeps name and expiry with the object, and needs some 30 bytes less a key, 55 where keys expire.
"""

from __future__ import annotations

OBJECT_BYTES = 16
ENTRY_BYTES = 32
"""A dictEntry of 24 bytes, in the size class that it takes."""

BUCKET_BYTES = 12
"""A table has one to two pointers of 8 bytes for each of its entries: one and a half of them."""

EMBEDDED_MAX = 44
"""Bytes of a value that are allocated together with its object."""

SHORT_NAME = 32
"""A shorter name, which nobody will make longer, has a header of one byte."""

GREEDY_MAX = 1 << 20
"""Bytes up to which what APPEND makes longer gets room for twice as much; above that it gets this much more."""

_SMALL_HEADER = 3
_HEADERS = ((1 << 8, _SMALL_HEADER), (1 << 16, 5), (1 << 32, 9))
"""Lengths below these have an sds header of so many bytes."""

_SMALLEST_CLASS, _EVEN_CLASSES_MAX, _EVEN_STEP = 8, 128, 16


def allocated_bytes(size: int) -> int:
    """The size class of jemalloc that a request gets: four of them to each doubling."""
    if size <= _SMALLEST_CLASS:
        return _SMALLEST_CLASS
    step = _EVEN_STEP if size <= _EVEN_CLASSES_MAX else 1 << ((size - 1).bit_length() - 3)
    return -(-size // step) * step


def value_bytes(length: int) -> int:
    """A string value that was written whole, with its object; 0 for none."""
    if length == 0:
        return 0
    if length <= EMBEDDED_MAX:
        return allocated_bytes(OBJECT_BYTES + _SMALL_HEADER + length + 1)
    return OBJECT_BYTES + allocated_bytes(_header_bytes(length) + length + 1)


def name_bytes(length: int, *, expires: bool) -> int:
    """A key without its value: name, entries and their share of the tables."""
    entries = 2 if expires else 1
    header = 1 if length < SHORT_NAME else _header_bytes(length)
    return allocated_bytes(header + length + 1) + entries * (ENTRY_BYTES + BUCKET_BYTES)


def appended_bytes(length: int, appends: int) -> list[int]:
    """A string value after each of some APPENDs of `length` bytes, with its object, the first of which began it."""
    found, room = [value_bytes(length)], 0
    for number in range(2, appends + 1):
        total = number * length
        if number == 2:
            room = _capacity(total - length)
        if total > room:
            room = _capacity(total + min(total, GREEDY_MAX))
        found.append(OBJECT_BYTES + allocated_bytes(_header_bytes(room) + room + 1))
    return found[:appends]


def _header_bytes(length: int) -> int:
    """Of the sds of a string that may get so long."""
    return next(header for below, header in _HEADERS if length < below)


def _capacity(length: int) -> int:
    """How long a string may get in what is allocated for one of `length` bytes."""
    header = _header_bytes(length)
    below = next(below for below, each in _HEADERS if each == header)
    return min(allocated_bytes(header + length + 1) - header - 1, below - 1)
