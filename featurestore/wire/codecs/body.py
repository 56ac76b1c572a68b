"""The bytes of an entity's body: its rolled-up tiles, written whole by compaction.

All integers little-endian. A reader gets numpy views of the received bytes; nothing is parsed tile by tile.

    body    header    40 bytes: magic (0xFB; 0x04 once a head has begun beside it), version, code of the starts,
                      5 reserved bytes, tile count u4, blob bytes u4, base_ms i8, dropped_before_ms i8,
                      lifetime_end_ms i8
            codes     u1 for each integer field: its width (see `body_kernels`)
            starts    N x (u4 or i8)     (start - base_ms) / 1000 or / 1, by the code
            widths    N x u1             rung of the ladder; 0 is 1 ms, 255 ends at lifetime_end_ms
            ints      for each field N x (i1, i2, i4 or i8), or one i8
            floats    fields x N x f8
            blobs     distinct count u4, fields x N codes in u1, u2 or u4, distinct x u4 ends, the distinct strings
            checksum  u8, XXH3-64 of everything before it but the magic

    strings repeat (the id of the newest event of several columns, country codes), hence the dictionary

The head is written by APPEND and has its own module, `head`. Body and head know of each other: the script that begins
a head beside a body changes the body's magic and the head's first check. So one that vanishes (evicted, deleted by
hand) is missed by the other, and the entity is refused instead of being answered from half of it.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
from typing import NamedTuple

import numpy as np
import xxhash

from featurestore.core.events import BlobRow, Int64Array
from featurestore.core.spec import HOP_LADDER_MS
from featurestore.core.tiles.parts import EventRows, Merge, Storage
from featurestore.core.tiles.ranges import find_bounds
from featurestore.core.tiles.tiles import NOTHING_DROPPED_MS, Blobs, TileLayout, TileTable
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptTile, InvariantBroken, TileLost, UnknownTileVersion
from featurestore.wire.codecs.body_kernels import CONSTANT, CONSTANT_BYTES, fill_body, measure_ints, write_ints
from featurestore.wire.codecs.head import head_codec
from featurestore.wire.codecs.head_kernels import BESIDE_BODY

MAGIC = 0xFB
MAGIC_BESIDE_HEAD = 0x04
"""All eight bits differ, so that no flipped one makes the one into the other; the commit script says both."""

VERSION = 4

_HEADER = struct.Struct("<BBB5xIIqqq")
_CHECKSUM_BYTES = 8
_LIFETIME_CODE = 255
_NO_LIFETIME_TILE = -(1 << 63)
_WIDTHS_MS = np.array([1, *HOP_LADDER_MS], dtype=np.int64)
_WIDTH_OF_CODE = np.ones(256, dtype=np.int64)
_WIDTH_OF_CODE[_LIFETIME_CODE] = 0
_WIDTH_OF_CODE[: len(_WIDTHS_MS)] = _WIDTHS_MS
_START_BYTES = (4, 8)
_BYTES_OF_CODE = bytes((1, 2, 4, 8)) + bytes(252)
"""Bytes a tile of an integer field, by its code; a constant takes none."""
_START_SECONDS, _START_MS = 0, 1
_SECOND_MS = 1_000
_U4_LIMIT = 1 << 32


def encode_body(table: TileTable) -> bytes:
    """The body of one entity.

    Args:
        table: N >= 1 tiles ascending by start, normalized (see `TileTable.normalize`).
    """
    count, widths = table.count, table.end_ms - table.start_ms
    codes = np.searchsorted(_WIDTHS_MS, widths)
    is_rung = _WIDTHS_MS[np.minimum(codes, len(_WIDTHS_MS) - 1)] == widths
    lifetime_end = _NO_LIFETIME_TILE
    if not is_rung.all():
        irregular = np.flatnonzero(~is_rung)
        if len(irregular) > 1:
            raise InvariantBroken("a body has more than one tile of irregular width")
        codes[irregular[0]] = _LIFETIME_CODE
        lifetime_end = int(table.end_ms[irregular[0]])
    base = int(table.start_ms[0])
    relative = table.start_ms - base
    if int(relative[-1]) < _U4_LIMIT * _SECOND_MS and not (relative % _SECOND_MS).any():
        start_code, starts = _START_SECONDS, (relative // _SECOND_MS).astype("<u4").tobytes()
    else:
        start_code, starts = _START_MS, relative.astype("<i8").tobytes()
    field_codes, ints = _encode_ints(table)
    blobs = _encode_blobs(table)
    numbers = (start_code, count, len(blobs), base, table.dropped_before_ms, lifetime_end)
    body = b"".join(
        (
            _HEADER.pack(MAGIC, VERSION, *numbers),
            field_codes,
            starts,
            codes.astype(np.uint8).tobytes(),
            ints,
            table.floats.astype("<f8").tobytes(),
            blobs,
        )
    )
    return body + xxhash.xxh3_64_intdigest(memoryview(body)[1:]).to_bytes(_CHECKSUM_BYTES, "little")


def decode_body(layout: TileLayout, body: bytes) -> TileTable:
    """The tiles of a body.

    Raises:
        UnknownTileVersion: written by another release.
        CorruptTile: the bytes are not a body of this layout.
    """
    header = _read_header(layout, body)
    table = _room(layout, header.tile_count, body if layout.blob_fields else b"", header.dropped_before_ms)
    _fill_from_body(layout, _Rows.of(layout, layout), header, body, table)
    return table


def decode_entity(view: CompiledView, body: bytes | None, head: bytes | None) -> TileTable:
    """All tiles of an entity; see `EntityCodec.decode`."""
    return entity_codec(view).decode(body, head)


@functools.lru_cache(maxsize=1_024)
def entity_codec(view: CompiledView) -> EntityCodec:
    """The codec of all that a view stores."""
    return EntityCodec(view, view.layout)


class EntityCodec:
    """Decodes what readers want of an entity's tiles: the fields that a request is about, or all.

    Args:
        stored: the view that wrote them.
        wanted: layout of the tables to make; its parts are some of the view's.
    """

    def __init__(self, stored: CompiledView, wanted: TileLayout) -> None:
        self._stored = stored.layout
        self._wanted = wanted
        self._rows = _Rows.of(stored.layout, wanted)
        self._head_codec = head_codec(stored)
        self._lifting = self._head_codec.lifting(wanted)

    def prepare(self) -> None:
        """Load whatever decoding and reaching take, before a payment waits for it."""
        table = self._decode(b"", b"")
        self._head_codec.lift_into(b"", self._lifting, table, 0, 0)
        nothing = _Header(False, _START_SECONDS, 0, 0, 0, NOTHING_DROPPED_MS, _NO_LIFETIME_TILE)
        empty = bytes(_HEADER.size + len(self._stored.int_fields) + 4)
        _fill_from_body(self._stored, self._rows, nothing, empty, table)
        find_bounds(table.start_ms, 0, table.start_ms, table.start_ms, table.start_ms)

    def decode(self, body: bytes | None, head: bytes | None) -> TileTable:
        """All tiles of an entity, ascending by start: what `CompiledView.answer` takes.

        Args:
            body: the stored body; None where there is none.
            head: the stored head, likewise.

        Raises:
            TileLost: body or head is missing that the other one knows of.
            CorruptTile: the bytes are not a body or head of the view.
            UnknownTileVersion: the body was written by another release.
        """
        return self._decode(body or b"", head or b"")

    def _decode(self, body: bytes, head: bytes) -> TileTable:
        """Body and head in one allocation a block."""
        header = _read_header(self._stored, body) if body else None
        rows, is_beside_body = self._head_codec.count_rows(head) if head else (0, False)
        _check_whole(header, rows > 0, is_beside_body=is_beside_body)
        count = 0 if header is None else header.tile_count
        dropped_before_ms = NOTHING_DROPPED_MS if header is None else header.dropped_before_ms
        strings = body + head if self._wanted.blob_fields else b""
        table = _room(self._wanted, count + rows, strings, dropped_before_ms)
        if header is not None:
            _fill_from_body(self._stored, self._rows, header, body, table)
        if not head:
            return table
        is_ascending = self._head_codec.lift_into(head, self._lifting, table, count, len(body))
        if self._wanted.lifts_itself:
            table = _with_own_lifts(table, self._head_codec.decode(head), count)
        # Events mostly arrive in order, and then body and head are one ascending list already.
        return table if is_ascending else table.take(table.start_ms.argsort(kind="stable"))


def beside_each_other(body: bytes, head: bytes) -> tuple[bytes, bytes]:
    """Body and head as the commit script leaves them when the head begins beside the body."""
    return bytes([MAGIC_BESIDE_HEAD]) + body[1:], bytes([head[0] ^ BESIDE_BODY]) + head[1:]


class _Header(NamedTuple):
    """What a body says of itself."""

    is_beside_head: bool
    start_code: int
    tile_count: int
    blob_bytes: int
    base_ms: int
    dropped_before_ms: int
    lifetime_end_ms: int


class _Rows(NamedTuple):
    """The row of a table that receives each field of a body; -1 for none."""

    ints: Int64Array
    floats: Int64Array
    blobs: Int64Array

    @staticmethod
    def of(stored: TileLayout, wanted: TileLayout) -> _Rows:
        """From the fields of one layout to those of another that has some of its parts."""
        rows = {
            Storage.INT: np.full(len(stored.int_fields), -1, dtype=np.int64),
            Storage.FLOAT: np.full(len(stored.float_fields), -1, dtype=np.int64),
            Storage.BLOB: np.full(len(stored.blob_fields), -1, dtype=np.int64),
        }
        for to in wanted.parts:
            for source, target in zip(stored.position_of(to.part).fields, to.fields, strict=True):
                rows[source.storage][source.row] = target.row
        return _Rows(rows[Storage.INT], rows[Storage.FLOAT], rows[Storage.BLOB])


def _room(layout: TileLayout, count: int, strings: bytes, dropped_before_ms: int) -> TileTable:
    """A table to be filled."""
    fields = len(layout.blob_fields)
    spans = np.empty((2, fields, count), dtype=np.int64)
    return TileTable(
        layout,
        np.empty(count, dtype=np.int64),
        np.empty(count, dtype=np.int64),
        np.empty((len(layout.int_fields), count), dtype=np.int64),
        np.empty((len(layout.float_fields), count), dtype=np.float64),
        Blobs(strings, spans[0], spans[1]),
        dropped_before_ms,
    )


def _check_whole(header: _Header | None, has_head: bool, *, is_beside_body: bool) -> None:
    """Body and head must be there as each knows of the other."""
    if header is not None and has_head and not (header.is_beside_head and is_beside_body):
        raise CorruptTile("body and head are both there, and do not know of each other")
    is_head_lost = header is not None and header.is_beside_head and not has_head
    if not is_head_lost and not (header is None and is_beside_body):
        return
    raise TileLost(
        f"the {'head' if is_head_lost else 'body'} of the entity is gone",
        detail="The online store has lost a key: evicted, or deleted by hand.",
        hint="see that the store does not evict, and compute the view anew by `featurestore bootstrap`",
    )


def _fill_from_body(stored: TileLayout, rows: _Rows, header: _Header, body: bytes, table: TileTable) -> None:
    """The first rows of a table."""
    numbers = (
        header.tile_count,
        _START_BYTES[header.start_code],
        header.base_ms,
        header.lifetime_end_ms,
        stored.int_add_count,
    )
    is_wrong = fill_body(
        np.frombuffer(body, np.uint8),
        _HEADER.size,
        np.array(numbers, dtype=np.int64),
        _WIDTH_OF_CODE,
        stored.int_identities,
        stored.int_times,
        *rows,
        table.start_ms,
        table.end_ms,
        table.ints,
        table.floats,
        table.blobs.begins,
        table.blobs.ends,
    )
    if is_wrong:
        raise CorruptTile("body names a string that it does not hold")


def _with_own_lifts(table: TileTable, recent: EventRows, first: int) -> TileTable:
    """The table with the fields of parts that lift themselves; their strings are new bytes behind the buffer."""
    layout, blobs = table.layout, table.blobs
    buffers, size = [blobs.buffer], len(blobs.buffer)
    for at, values in layout.own_lifts(recent):
        if isinstance(values, BlobRow):
            blobs.begins[at.row, first:] = values.begins + size
            blobs.ends[at.row, first:] = values.ends + size
            buffers.append(values.buffer)
            size += len(values.buffer)
        else:
            (table.ints if at.storage is Storage.INT else table.floats)[at.row, first:] = values
    return dataclasses.replace(table, blobs=Blobs(b"".join(buffers), blobs.begins, blobs.ends))


def _encode_ints(table: TileTable) -> tuple[bytes, bytes]:
    """Codes and values of the integer fields."""
    layout = table.layout
    ints, start = np.ascontiguousarray(table.ints), np.ascontiguousarray(table.start_ms)
    given = (ints, layout.int_identities, layout.int_times, layout.int_add_count, start)
    codes = np.empty(len(ints), dtype=np.uint8)
    values = np.empty(measure_ints(*given, codes), dtype=np.uint8)
    write_ints(*given, codes, values)
    return codes.tobytes(), values.tobytes()


def _read_header(layout: TileLayout, body: bytes) -> _Header:
    """Pair assertion of `encode_body`: magic, version, the size that the header implies, then the checksum."""
    if len(body) < _HEADER.size + _CHECKSUM_BYTES:
        raise CorruptTile(f"body of {len(body)} bytes is shorter than its header")
    magic, version, *fields = _HEADER.unpack_from(body)
    if magic not in (MAGIC, MAGIC_BESIDE_HEAD):
        raise CorruptTile(f"body begins with byte {magic:#x}, not {MAGIC:#x}")
    if version != VERSION:
        raise UnknownTileVersion(
            f"body has layout version {version}, this release reads {VERSION}",
            hint="upgrade this process, or rebuild the view with a new generation",
        )
    header = _Header(magic == MAGIC_BESIDE_HEAD, *fields)
    codes = body[_HEADER.size : _HEADER.size + len(layout.int_fields)]
    if header.start_code > _START_MS or (codes and max(codes) > CONSTANT):
        raise CorruptTile("body names a number type that does not exist")
    tile_bytes = (
        _START_BYTES[header.start_code] + 1 + sum(codes.translate(_BYTES_OF_CODE)) + 8 * len(layout.float_fields)
    )
    once = len(layout.int_fields) + CONSTANT_BYTES * codes.count(CONSTANT) + header.blob_bytes
    size = _HEADER.size + once + header.tile_count * tile_bytes + _CHECKSUM_BYTES
    if size != len(body):
        raise CorruptTile(f"body has {len(body)} bytes where its header implies {size}")
    checksum = int.from_bytes(body[-_CHECKSUM_BYTES:], "little")
    if xxhash.xxh3_64_intdigest(memoryview(body)[1:-_CHECKSUM_BYTES]) != checksum:
        raise CorruptTile("body does not match its checksum")
    return header


def _encode_blobs(table: TileTable) -> bytes:
    """The dictionary of all fields' strings; nothing without blob fields."""
    if not table.layout.blob_fields:
        return b""
    values = [value for field in range(len(table.layout.blob_fields)) for value in table.blobs.row(field).values()]
    code_of = {value: code for code, value in enumerate(dict.fromkeys(values))}
    codes = np.fromiter((code_of[value] for value in values), dtype=_code_type(len(code_of)), count=len(values))
    ends = np.cumsum([len(value) for value in code_of], dtype=np.uint32).astype("<u4")
    return b"".join((len(code_of).to_bytes(4, "little"), codes.tobytes(), ends.tobytes(), *code_of))


def _code_type(distinct: int) -> np.dtype[np.unsignedinteger]:
    """The narrowest unsigned integer that counts that many."""
    return np.dtype("u1" if distinct <= 1 << 8 else "<u2" if distinct <= 1 << 16 else "<u4")


assert Merge.ADD is next(iter(Merge)), "bodies store ADD fields first"
