"""The bytes of a pack: what the store holds of some entities of few events, under two keys for all of them.

    head    records, written by APPEND: check u1 | bytes of the key, bytes of the rows | entity key | head rows
    body    magic u1, version u1, members u1, bytes of the prefix u1, where the dictionary begins u4, bytes of all keys
            and rows as heads have them u4, base time i8 | prefix of all keys | for each member bytes of the key behind
            the prefix, rows, bytes of these, key behind the prefix, rows | dictionary | checksum u8

Lengths and numbers of rows are in seven bits a byte, the lowest first, the top bit where more follow. The check is the
CRC-8 of lengths and key; rows have their own (see `head`). A body has the same rows, a third as long, in order of
arrival (see `pack_rows`); the first of each member counts its time from the base.

    dictionary  for each string column its pattern behind its length u1, 0 for none; strings u1; each behind its length

Head and body mark each other as those of an entity do, by the same script (see `body`). What a reader gets of one
entity is the member: its key, and the pack's body and head as they are stored. It reads like an entity of a head alone.

    member  magic u1 | bytes of the key u2, bytes of the body u4 | key | body | head
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from featurestore.core.events import BlobRow, Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.errors import CorruptTile, UnknownTileVersion
from featurestore.wire.codecs.bodies.frame import CHECKSUM_BYTES, MAGIC, MAGIC_BESIDE_HEAD
from featurestore.wire.codecs.head import HeadCodec
from featurestore.wire.codecs.head_kernels import TORN, WRONG_CHECK
from featurestore.wire.codecs.pack_loops import BODY_HEADER, FACTS, RECORD_HEADER_MAX, WORDS, find_member, put_records

VERSION = 0x52
MEMBERS_MAX = 255

PACK_ROWS_MAX = 256
"""Those with most events leave a pack with more: whoever reads an entity gets all of them, and a fold writes them."""

MEMBER_MAGIC = 0x6D
_BODY_HEADER = struct.Struct("<BBBBIIq")
_MEMBER_HEADER = struct.Struct("<BHI")
MEMBER_HEADER_BYTES = _MEMBER_HEADER.size
EXPANSION_MAX = 512
"""Of a byte of a body: the longest string of a dictionary is less. So what is allocated stays in proportion."""

assert _BODY_HEADER.size == BODY_HEADER, "the loops know how long it is"


class Member(NamedTuple):
    """One entity of a pack, as it is stored.

    Attributes:
        is_beside_head: what the body says of the head; None where there is no body.
        has_head: whether there is a head.
        is_beside_body: what the head says of the body.
        rows: the entity's, of both, as a head has them.
    """

    is_beside_head: bool | None
    has_head: bool
    is_beside_body: bool
    rows: bytes


def records_of(keys: Sequence[bytes], rows: Sequence[bytes] | BlobRow) -> BlobRow:
    """What is appended to the heads of the packs of N entities, one record after another.

    Args:
        keys: N canonical entity keys.
        rows: head rows of each.
    """
    of_keys, of_rows = (BlobRow.of(values) for values in (keys, rows))
    size = sum(int((each.ends - each.begins).sum()) for each in (of_keys, of_rows))
    out, ends = np.empty(size + RECORD_HEADER_MAX * len(keys), dtype=np.uint8), np.empty(len(keys), dtype=np.int64)
    found = put_records(*of_keys.arrays(), *of_rows.arrays(), out, ends)
    return BlobRow.consecutive(out[:found].tobytes(), ends)


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


def read_member(member: bytes, codec: HeadCodec) -> Member:
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
    size = len(member) - head_at
    if body_bytes:
        size += check_body(memoryview(member)[body_at:head_at])
    rows, told = np.empty(size, dtype=np.uint8), np.empty(FACTS, dtype=np.int64)
    found = find_member(
        np.frombuffer(member, np.uint8), key_at, body_at, head_at, codec.shape, rows, words_of(codec), told
    )
    if found < 0:
        raise damage(found)
    row_bytes, is_beside_body, _ = told.tolist()
    return Member(
        member[body_at] == MAGIC_BESIDE_HEAD if body_bytes else None,
        head_at < len(member),
        bool(is_beside_body),
        rows[:row_bytes].tobytes(),
    )


def check_body(body: memoryview) -> int:
    """How many bytes keys and rows have; see `read_member` for what is raised."""
    if len(body) < _BODY_HEADER.size + CHECKSUM_BYTES:
        raise CorruptTile(f"body of a pack of {len(body)} bytes is shorter than its header")
    magic, version, _, _, _, row_bytes, _ = _BODY_HEADER.unpack_from(body)
    if magic not in (MAGIC, MAGIC_BESIDE_HEAD):
        raise CorruptTile(f"body of a pack begins with byte {magic:#x}, not {MAGIC:#x}")
    if version != VERSION:
        raise UnknownTileVersion(
            f"body of a pack has layout version {version}, this release reads {VERSION}",
            hint="upgrade this process, or rebuild the view with a new generation",
        )
    checksum = int.from_bytes(body[-CHECKSUM_BYTES:], "little")
    if xxhash.xxh3_64_intdigest(body[1:-CHECKSUM_BYTES]) != checksum:
        raise CorruptTile("body of a pack does not match its checksum")
    if row_bytes > EXPANSION_MAX * len(body):
        raise damage(TORN)
    return int(row_bytes)


def finish_body(body: Array) -> bytes:
    """What `close_packs` has written, with magic, version and checksum: pair assertion of `check_body`."""
    body[0], body[1] = MAGIC, VERSION
    data = body.tobytes()
    return data + xxhash.xxh3_64_intdigest(memoryview(data)[1:]).to_bytes(CHECKSUM_BYTES, "little")


def words_of(codec: HeadCodec) -> Int64Array:
    """Room for the loops."""
    return np.empty(WORDS + 2 * int(codec.shape[2] + codec.shape[3]), dtype=np.int64)


def damage(found: int) -> CorruptTile:
    """What a loop has found."""
    if found == WRONG_CHECK:
        return CorruptTile("a record of a pack's head, or a row of it, does not match its check")
    return CorruptTile("body or head of a pack end inside of a member, or a record")
