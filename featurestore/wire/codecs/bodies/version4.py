"""Bodies of version 4, which releases up to 2026.11 wrote: read, and never written any more.

All integers little-endian.

    header    40 bytes: magic, version, code of the starts, 5 reserved bytes, tile count u4, blob bytes u4, base_ms i8,
              dropped_before_ms i8, lifetime_end_ms i8
    codes     u1 for each integer field: its width (see `version4_loops`)
    starts    N x (u4 or i8)     (start - base_ms) / 1000 or / 1, by the code
    widths    N x u1             rung of the ladder; 0 is 1 ms, 255 ends at lifetime_end_ms
    ints      for each field N x (i1, i2, i4 or i8), or one i8
    floats    fields x N x f8
    blobs     distinct count u4, fields x N codes in u1, u2 or u4, distinct x u4 ends, the distinct strings
    checksum  u8
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from featurestore.core.tiles.tiles import TileLayout
from featurestore.errors import CorruptTile
from featurestore.wire.codecs.bodies.frame import CHECKSUM_BYTES, NO_LIFETIME_TILE, WIDTHS_MS, Columns, Rows
from featurestore.wire.codecs.bodies.version4_loops import CONSTANT, CONSTANT_BYTES, fill_body

VERSION = 4

_HEADER = struct.Struct("<2xB5xIIqqq")
_LIFETIME_CODE = 255
_WIDTH_OF_CODE = np.ones(256, dtype=np.int64)
_WIDTH_OF_CODE[_LIFETIME_CODE] = 0
_WIDTH_OF_CODE[: len(WIDTHS_MS)] = WIDTHS_MS
_START_BYTES = (4, 8)
_BYTES_OF_CODE = bytes((1, 2, 4, 8)) + bytes(252)
"""Bytes a tile of an integer field, by its code; a constant takes none."""
_START_MS = 1


class Header(NamedTuple):
    """What a body says of itself."""

    tile_count: int
    dropped_before_ms: int
    start_code: int
    blob_bytes: int
    base_ms: int
    lifetime_end_ms: int


def read_header(layout: TileLayout, body: bytes) -> Header:
    """The header of a body whose checksum is right.

    Raises:
        CorruptTile: the body has not the size that its header implies.
    """
    if len(body) < _HEADER.size + len(layout.int_fields) + CHECKSUM_BYTES:
        raise CorruptTile(f"body of {len(body)} bytes is shorter than its header")
    start_code, tile_count, blob_bytes, base_ms, dropped_before_ms, lifetime_end_ms = _HEADER.unpack_from(body)
    header = Header(tile_count, dropped_before_ms, start_code, blob_bytes, base_ms, lifetime_end_ms)
    codes = body[_HEADER.size : _HEADER.size + len(layout.int_fields)]
    if header.start_code > _START_MS or (codes and max(codes) > CONSTANT):
        raise CorruptTile("body names a number type that does not exist")
    tile_bytes = (
        _START_BYTES[header.start_code] + 1 + sum(codes.translate(_BYTES_OF_CODE)) + 8 * len(layout.float_fields)
    )
    once = len(layout.int_fields) + CONSTANT_BYTES * codes.count(CONSTANT) + header.blob_bytes
    size = _HEADER.size + once + header.tile_count * tile_bytes + CHECKSUM_BYTES
    if size != len(body):
        raise CorruptTile(f"body has {len(body)} bytes where its header implies {size}")
    return header


def fill(layout: TileLayout, rows: Rows, header: Header, body: bytes, columns: Columns) -> None:
    """Receive the tiles of a body.

    Args:
        layout: what the body stores.
        rows: which of it goes where.
        header: of the body.
        body: all of it.
        columns: receive it.

    Raises:
        CorruptTile: the body names a string that it does not hold.
    """
    start_bytes, lifetime_end_ms = _START_BYTES[header.start_code], header.lifetime_end_ms
    numbers = (header.tile_count, start_bytes, header.base_ms, lifetime_end_ms, layout.int_add_count)
    is_wrong = fill_body(
        np.frombuffer(body, np.uint8),
        _HEADER.size,
        np.array(numbers, dtype=np.int64),
        _WIDTH_OF_CODE,
        layout.int_identities,
        layout.int_times,
        rows.ints,
        rows.floats,
        rows.blobs,
        columns.start_ms,
        columns.end_ms,
        columns.ints,
        columns.floats,
        columns.begins,
        columns.ends,
    )
    if is_wrong:
        raise CorruptTile("body names a string that it does not hold")


def prepare(layout: TileLayout, rows: Rows, columns: Columns) -> None:
    """Load what reading takes."""
    empty = bytes(_HEADER.size + len(layout.int_fields) + 4)
    fill(layout, rows, Header(0, 0, 0, 0, 0, NO_LIFETIME_TILE), empty, columns)
