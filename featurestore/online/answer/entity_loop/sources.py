"""Compiled helpers of the one call: what the bytes of an entity are, checked, and copied into the room.

    numbers   what was found out of them
    data      body, the room of a head, a payment in flight, and the strings that are made anew: one buffer of strings

An entity by itself has body and head. A member of a pack has no body, and its rows, picked out of body and head of the
pack, are its head.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.core.compiled import borrowing, within
from featurestore.core.events import Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.online.answer.entity_loop.program import FIELDS, HEAD_SHAPE, section
from featurestore.wire.codecs import pack
from featurestore.wire.codecs.bodies import version5
from featurestore.wire.codecs.bodies.frame import CHECKSUM_BYTES, MAGIC, MAGIC_BESIDE_HEAD, NO_LIFETIME_TILE
from featurestore.wire.codecs.head_kernels import check_head
from featurestore.wire.codecs.pack_loops import (
    BODY_HEADER,
    FACTS,
    HEAD_BESIDE,
    ROOM_AT,
    ROW_BYTES,
    WORDS,
    find_member,
)

TILES, BASE, LIFETIME_END, MASKS, RUNS_AT, WRITTEN_AT = range(6)
"""What `read_tiles` is told of a body."""
BODY_BYTES, HEAD_AT, HEAD_BYTES, EVENTS = range(6, 10)
"""How long the body is; where the head begins, how long it is, and how many events it has."""
_TOLD = 10
NUMBERS = _TOLD + FACTS

_MEMBER_MAGIC, _PACK_VERSION = pack.MEMBER_MAGIC, pack.VERSION
_MEMBER_HEADER_BYTES, _EXPANSION_MAX = pack.MEMBER_HEADER_BYTES, pack.EXPANSION_MAX

_check_head = within(check_head)
_find_member: Any = within(find_member)  # of bytes as well as of arrays


@borrowing
def number_at(data: Any, at: int, size: int) -> Any:
    """A little-endian number of a header."""
    value = np.uint64(0)
    for index in range(size):
        value |= np.uint64(data[at + index]) << np.uint64(8 * index)
    return np.int64(value)


@borrowing
def source_bytes(body: bytes, head: bytes) -> Any:
    """Bytes that `take_sources` may copy."""
    size = len(body) + len(head)
    if len(body) < _MEMBER_HEADER_BYTES or body[0] != _MEMBER_MAGIC:
        return size
    body_at, body_bytes = _MEMBER_HEADER_BYTES + number_at(body, 1, 2), number_at(body, 3, 4)
    if body_bytes < BODY_HEADER or body_at + body_bytes > len(body):
        return size
    # One that says more is damaged, and refused by whoever is asked then.
    return size + min(number_at(body, body_at + ROOM_AT, 4), _EXPANSION_MAX * body_bytes)


@borrowing
def source_words(program: Array) -> Any:
    """Words of room that it takes meanwhile."""
    shape = section(program, HEAD_SHAPE)
    return WORDS + 2 * (shape[2] + shape[3])


@borrowing
def take_sources(body: bytes, head: bytes, data: Array, program: Array, words: Int64Array, numbers: Int64Array) -> Any:
    """Copy an entity's bytes and find out what they are; False to leave it all to others."""
    for index in range(len(numbers)):
        numbers[index] = 0
    if len(body) > 0 and body[0] == _MEMBER_MAGIC:
        return _take_member(body, data, program, words, numbers)
    for index in range(len(body)):
        data[index] = body[index]
    for index in range(len(head)):
        data[len(body) + index] = head[index]
    numbers[BODY_BYTES], numbers[HEAD_AT], numbers[HEAD_BYTES] = len(body), len(body), len(head)
    walked = _walk_head(data, program, numbers)
    is_beside_head = len(body) > 0 and data[0] == MAGIC_BESIDE_HEAD
    if walked < 0 or (walked & 1 == 1) != is_beside_head or (is_beside_head and numbers[EVENTS] == 0):
        return False
    if len(body) == 0:
        return True
    is_read = _read_header(data[: len(body)], section(program, FIELDS)[2], numbers)
    return is_read and (numbers[EVENTS] == 0 or is_beside_head)


@borrowing
def _take_member(member: bytes, data: Array, program: Array, words: Int64Array, numbers: Int64Array) -> Any:
    """As `take_sources`, for what `pack.member_of` has put together; see `pack.read_member`."""
    if len(member) < _MEMBER_HEADER_BYTES:
        return False
    body_at = _MEMBER_HEADER_BYTES + number_at(member, 1, 2)
    body_bytes = number_at(member, 3, 4)
    head_at = body_at + body_bytes
    if head_at > len(member) or not _is_pack(member, body_at, body_bytes):
        return False
    told, shape = numbers[_TOLD:], section(program, HEAD_SHAPE)
    rows = data[: source_bytes(member, b"")]
    if _find_member(member, _MEMBER_HEADER_BYTES, body_at, head_at, shape, rows, words, told) < 0:
        return False
    has_head, is_beside_body = head_at < len(member), told[HEAD_BESIDE] == 1
    is_beside_head = body_bytes > 0 and member[body_at] == MAGIC_BESIDE_HEAD
    if is_beside_body != is_beside_head or is_beside_head != (has_head and body_bytes > 0):
        return False
    numbers[HEAD_BYTES] = told[ROW_BYTES]
    walked = _walk_head(data, program, numbers)
    return walked >= 0 and walked & 1 == 0


@borrowing
def _is_pack(member: bytes, body_at: int, body_bytes: int) -> Any:
    """Whether there is no body of a pack, or one that this release reads."""
    if body_bytes == 0:
        return True
    if body_bytes < BODY_HEADER + CHECKSUM_BYTES or member[body_at + 1] != _PACK_VERSION:
        return False
    return member[body_at] in (MAGIC, MAGIC_BESIDE_HEAD)


@borrowing
def _walk_head(data: Array, program: Array, numbers: Int64Array) -> Any:
    """Count the events of the head; as `check_head`."""
    shape, head_at = section(program, HEAD_SHAPE), numbers[HEAD_AT]
    head = data[head_at : head_at + numbers[HEAD_BYTES]]
    walked = _check_head(head, shape[7], shape[6], shape[2] + shape[3])
    numbers[EVENTS] = max(walked, 0) >> 1
    return walked


@borrowing
def _read_header(body: Array, texts: int, numbers: Array) -> Any:
    """What `read_tiles` has to know of a body; whether it is a body of version 5 that can be as it says."""
    if len(body) < version5.HEADER_BYTES + CHECKSUM_BYTES or body[1] != version5.VERSION:
        return False
    if body[0] not in (MAGIC, MAGIC_BESIDE_HEAD):
        return False
    flags, masks, count, written = np.int64(body[2]), np.int64(body[3]), number_at(body, 4, 4), number_at(body, 16, 4)
    at, lifetime_end = version5.HEADER_BYTES, np.int64(NO_LIFETIME_TILE)
    if flags & version5.DROPPED:
        at += 8
    if flags & version5.LIFETIME:
        if len(body) >= at + 8:
            lifetime_end = number_at(body, at, 8)
        at += 8
    numbers[TILES], numbers[BASE], numbers[LIFETIME_END] = count, number_at(body, 8, 8), lifetime_end
    numbers[MASKS], numbers[RUNS_AT] = masks, at
    is_wrong = flags > (version5.DROPPED | version5.LIFETIME) or written > version5.WRITTEN_BYTES_MAX * count * texts
    return not is_wrong and 0 < count * (1 + masks) <= 8 * len(body) and len(body) >= at + CHECKSUM_BYTES
