"""The bytes of a pack: what the store holds of some entities of few events, under two keys for all of them.

    head    records, written by APPEND: check u1 | bytes of the key, bytes of the rows | entity key | head rows
    body    magic u1, version u1, members u1, tiles u2 | for each member bytes of the key, entity key |
            for each tile the member u1 whose it is | a body of all tiles, without its checksum | checksum u8

Lengths are in seven bits a byte, the lowest first, the top bit where more follow. The check is the CRC-8 of lengths and
key; rows have their own (see `head`). The tiles of a body are of single events, all members' in one order of time, so
that times are short differences and a column is written once (see `bodies.version5`): an event takes a third of a
row.

Head and body mark each other as those of an entity do, by the same script (see `body`). What a reader gets of one
entity is the member: its key, and the pack's body and head as they are stored.

    member  magic u1 | bytes of the key u2, bytes of the body u4 | key | body | head
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from featurestore.core.events import Int64Array
from featurestore.errors import CorruptTile, UnknownTileVersion
from featurestore.wire.codecs.bodies.frame import CHECKSUM_BYTES, MAGIC, MAGIC_BESIDE_HEAD
from featurestore.wire.codecs.head import HeadCodec
from featurestore.wire.codecs.head_kernels import WRONG_CHECK, check_rows
from featurestore.wire.codecs.pack_loops import (
    BODY_HEADER,
    FACTS,
    SPAN_COLUMNS,
    find_member,
    split_records,
)

VERSION = 0x51
MEMBERS_MAX = 255
TILES_MAX = 65_535

MEMBER_MAGIC = 0x6D
_BODY_HEADER = struct.Struct("<BBBH")
_MEMBER_HEADER = struct.Struct("<BHI")
MEMBER_HEADER_BYTES = _MEMBER_HEADER.size
_RECORD_BYTES_MIN = 3
assert _BODY_HEADER.size == BODY_HEADER, "the loops know how long it is"


class Member(NamedTuple):
    """One entity of a pack, as it is stored.

    Attributes:
        has_body, has_head: which of the pack's keys there are.
        is_beside_head, is_beside_body: what each of them says of the other.
        tiles: a body of the tiles of all members; empty without a body.
        own: (T,) which of its tiles are the entity's.
        tile_count: how many tiles the directory says that there are.
        rows: the entity's head rows.
    """

    has_body: bool
    has_head: bool
    is_beside_head: bool
    is_beside_body: bool
    tiles: bytes
    own: Int64Array
    tile_count: int
    rows: bytes


class Directory(NamedTuple):
    """What the body of a pack says of its tiles.

    Attributes:
        keys: the members.
        owners: (T,) index into `keys` of each tile.
        tiles: a body of all of them.
        is_beside_head: whether a head has begun beside it.
    """

    keys: list[bytes]
    owners: Int64Array
    tiles: bytes
    is_beside_head: bool


class Records(NamedTuple):
    """The head of a pack.

    Attributes:
        keys: (R,) whose rows each record has; a key may come several times.
        row_counts: (R,) how many.
        rows: the rows of all, one after another.
        is_beside_body: whether it began beside a body.
    """

    keys: list[bytes]
    row_counts: Int64Array
    rows: bytes
    is_beside_body: bool


def record_headers(keys: Sequence[bytes], row_bytes: Sequence[int]) -> list[bytes]:
    """What goes before the rows of N entities in the heads of their packs.

    Args:
        keys: N canonical entity keys.
        row_bytes: how many bytes of rows follow each.
    """
    unchecked = [
        bytes((len(key), size)) + key if len(key) < 128 > size else _length(len(key)) + _length(size) + key
        for key, size in zip(keys, row_bytes, strict=True)
    ]
    ends = np.cumsum([len(one) for one in unchecked], dtype=np.int64)
    begins = np.concatenate((np.zeros(1, dtype=np.int64), ends))[:-1]
    checks = np.zeros(len(keys), dtype=np.uint8)
    check_rows(np.frombuffer(b"".join(unchecked), np.uint8), begins, ends, checks)
    return [bytes((check,)) + one for check, one in zip(checks.tolist(), unchecked, strict=True)]


def member_of(key: bytes, body: bytes | None, head: bytes | None) -> bytes:
    """What a reader has of an entity that may be in a pack: `body.EntityCodec` takes it for a body."""
    body = body or b""
    return b"".join((_MEMBER_HEADER.pack(MEMBER_MAGIC, len(key), len(body)), key, body, head or b""))


def is_member(body: bytes) -> bool:
    """Whether these bytes are a member and no body."""
    return body[:1] == bytes((MEMBER_MAGIC,))


def body_of_member(member: memoryview) -> memoryview:
    """The body of the pack; what is there of it, of bytes that are no member's."""
    if len(member) < MEMBER_HEADER_BYTES:
        return member
    _, key_bytes, body_bytes = _MEMBER_HEADER.unpack_from(member)
    return member[MEMBER_HEADER_BYTES + key_bytes :][:body_bytes]


def read_member(member: bytes) -> Member:
    """What `member_of` has put together.

    Raises:
        CorruptTile: the bytes of the pack are not as they were written.
        UnknownTileVersion: its body was written by another release.
    """
    if len(member) < _MEMBER_HEADER.size:
        raise CorruptTile(f"body of {len(member)} bytes is shorter than its header")
    _, key_bytes, body_bytes = _MEMBER_HEADER.unpack_from(member)
    key_at = _MEMBER_HEADER.size
    body_at = key_at + key_bytes
    head_at = body_at + body_bytes
    if head_at > len(member):
        raise CorruptTile(f"body of {len(member)} bytes ends inside of a pack")
    if body_bytes:
        _check_body(memoryview(member)[body_at:head_at])
    rows, told = np.empty(len(member) - head_at, dtype=np.uint8), np.empty(FACTS, dtype=np.int64)
    found = find_member(np.frombuffer(member, np.uint8), key_at, body_at, head_at, rows, told)
    if found < 0:
        raise _corrupt_records(found, len(member) - head_at)
    row_bytes, is_beside_body, number, owners_at = told.tolist()
    tiles, own, tile_count = b"", np.empty(0, dtype=np.int64), 0
    if body_bytes:
        tile_count = _BODY_HEADER.unpack_from(member, body_at)[3]
        if owners_at + tile_count > head_at - CHECKSUM_BYTES:
            raise CorruptTile(f"body of a pack of {body_bytes} bytes does not hold what its header says")
        tiles = member[owners_at + tile_count : head_at]
        if number >= 0:
            own = np.flatnonzero(np.frombuffer(member, np.uint8, tile_count, owners_at) == number)
    return Member(
        has_body=body_bytes > 0,
        has_head=head_at < len(member),
        is_beside_head=body_bytes > 0 and member[body_at] == MAGIC_BESIDE_HEAD,
        is_beside_body=bool(is_beside_body),
        tiles=tiles,
        own=own,
        tile_count=tile_count,
        rows=rows[:row_bytes].tobytes(),
    )


def write_body(keys: Sequence[bytes], owners: Int64Array, tiles: bytes) -> bytes:
    """The body of a pack.

    Args:
        keys: 1 to MEMBERS_MAX members.
        owners: (T,) index into `keys` of each tile.
        tiles: a body of T tiles, with the checksum that it has by itself.
    """
    header = _BODY_HEADER.pack(MAGIC, VERSION, len(keys), len(owners))
    members = [part for key in keys for part in (_length(len(key)), key)]
    body = b"".join((header, *members, owners.astype(np.uint8).tobytes(), tiles[:-CHECKSUM_BYTES]))
    return body + xxhash.xxh3_64_intdigest(memoryview(body)[1:]).to_bytes(CHECKSUM_BYTES, "little")


def read_directory(body: bytes) -> Directory:
    """The pair assertion of `write_body`; see `read_member` for what is raised."""
    _check_body(memoryview(body))
    magic, _, members, tile_count = _BODY_HEADER.unpack_from(body)
    at, end, keys = _BODY_HEADER.size, len(body) - CHECKSUM_BYTES, list[bytes]()
    for _ in range(members):
        size = shift = 0
        while at < end:
            size |= (body[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if body[at - 1] < 128:
                break
        keys.append(body[at : at + size])
        at += size
    if at + tile_count > end:
        raise CorruptTile(f"body of a pack of {len(body)} bytes does not hold what its header says")
    owners = np.frombuffer(body, np.uint8, tile_count, at).astype(np.int64)
    if tile_count and int(owners.max()) >= members:
        raise CorruptTile("a tile of a pack is no member's")
    return Directory(keys, owners, body[at + tile_count :], magic == MAGIC_BESIDE_HEAD)


def read_records(head: bytes, codec: HeadCodec) -> Records:
    """The records of a head, which are as they were written.

    Args:
        head: of a pack.
        codec: of its rows.

    Raises:
        CorruptTile: they are not.
    """
    spans = np.empty((len(head) // _RECORD_BYTES_MIN + 1, SPAN_COLUMNS), dtype=np.int64)
    found = split_records(np.frombuffer(head, np.uint8), *codec.row_shape, spans)
    if found < 0:
        raise _corrupt_records(found, len(head))
    records = spans[: found >> 1].tolist()
    return Records(
        [head[key_at:key_end] for key_at, key_end, *_ in records],
        spans[: found >> 1, 4].copy(),
        b"".join([head[rows_at:rows_end] for _, _, rows_at, rows_end, _ in records]),
        bool(found & 1),
    )


def _check_body(body: memoryview) -> None:
    """Magic, version and checksum."""
    if len(body) < _BODY_HEADER.size + CHECKSUM_BYTES:
        raise CorruptTile(f"body of a pack of {len(body)} bytes is shorter than its header")
    if body[0] not in (MAGIC, MAGIC_BESIDE_HEAD):
        raise CorruptTile(f"body of a pack begins with byte {body[0]:#x}, not {MAGIC:#x}")
    if body[1] != VERSION:
        raise UnknownTileVersion(
            f"body of a pack has layout version {body[1]}, this release reads {VERSION}",
            hint="upgrade this process, or rebuild the view with a new generation",
        )
    checksum = int.from_bytes(body[-CHECKSUM_BYTES:], "little")
    if xxhash.xxh3_64_intdigest(body[1:-CHECKSUM_BYTES]) != checksum:
        raise CorruptTile("body of a pack does not match its checksum")


def _corrupt_records(found: int, size: int) -> CorruptTile:
    """What a loop has found."""
    if found == WRONG_CHECK:
        return CorruptTile(f"a record of a pack's head of {size} bytes does not match its check")
    return CorruptTile(f"a pack's head of {size} bytes ends inside a record")


def _length(size: int) -> bytes:
    """In seven bits a byte."""
    if size < 128:
        return bytes((size,))
    return bytes((size & 127 | 128,)) + _length(size >> 7)
