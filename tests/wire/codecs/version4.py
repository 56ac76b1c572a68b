"""The writer of body version 4, as it was: stores still have its bodies, and the reader has to read them."""

from __future__ import annotations

import struct

import numpy as np
import xxhash

from featurestore.core.tiles.tiles import TileTable
from featurestore.wire.codecs.bodies.frame import MAGIC, NO_LIFETIME_TILE, WIDTHS_MS

_HEADER = struct.Struct("<BBB5xIIqqq")
_CONSTANT, _CONSTANT_BYTES = 4, 8
_LIFETIME_CODE = 255
_SECOND_MS = 1_000


def encode_version4(table: TileTable) -> bytes:
    """The body of one entity."""
    widths = table.end_ms - table.start_ms
    codes = np.array([int(np.argmax(WIDTHS_MS == width)) if width in WIDTHS_MS else _LIFETIME_CODE for width in widths])
    irregular = np.flatnonzero(codes == _LIFETIME_CODE)
    lifetime_end = int(table.end_ms[irregular[0]]) if len(irregular) else NO_LIFETIME_TILE
    relative = table.start_ms - table.start_ms[0]
    has_seconds = int(relative[-1]) < (1 << 32) * _SECOND_MS and not (relative % _SECOND_MS).any()
    starts = (relative // _SECOND_MS).astype("<u4") if has_seconds else relative.astype("<i8")
    fields = [_encode_field(table, field) for field in range(len(table.ints))]
    blobs = _encode_blobs(table)
    numbers = (0 if has_seconds else 1, table.count, len(blobs), int(table.start_ms[0]))
    body = b"".join(
        (
            _HEADER.pack(MAGIC, 4, *numbers, table.dropped_before_ms, lifetime_end),
            bytes(code for code, _ in fields),
            starts.tobytes(),
            codes.astype(np.uint8).tobytes(),
            *(values for _, values in fields),
            table.floats.astype("<f8").tobytes(),
            blobs,
        )
    )
    return body + xxhash.xxh3_64_intdigest(body[1:]).to_bytes(8, "little")


def _encode_field(table: TileTable, field: int) -> tuple[int, bytes]:
    """Code and values of an integer field: below 8 bytes the lowest number is the identity, and times are relative."""
    values, layout = table.ints[field], table.layout
    is_constant = bool((values == values[0]).all())
    reserved = field >= layout.int_add_count
    identity = values == layout.int_identities[field] if reserved else np.zeros(len(values), dtype=np.bool_)
    relative = values - table.start_ms if layout.int_times[field] else values
    for code in range(3):
        limit = 1 << (8 * (1 << code) - 1)
        fits = (relative >= -limit + reserved) & (relative < limit)
        if (fits | identity).all():
            break
    else:
        code, limit, relative, identity = 3, 0, values, np.zeros(len(values), dtype=np.bool_)
    if is_constant and len(values) << code > _CONSTANT_BYTES:
        return _CONSTANT, values[:1].astype("<i8").tobytes()
    return code, np.where(identity, -limit, relative).astype(f"<i{1 << code}").tobytes()


def _encode_blobs(table: TileTable) -> bytes:
    """The dictionary of all fields' strings; nothing without blob fields."""
    if not table.layout.blob_fields:
        return b""
    values = [value for field in range(len(table.layout.blob_fields)) for value in table.blobs.row(field).values()]
    code_of = {value: code for code, value in enumerate(dict.fromkeys(values))}
    kind = "u1" if len(code_of) <= 1 << 8 else "<u2" if len(code_of) <= 1 << 16 else "<u4"
    codes = np.array([code_of[value] for value in values], dtype=kind)
    ends = np.cumsum([len(value) for value in code_of]).astype("<u4")
    return b"".join((len(code_of).to_bytes(4, "little"), codes.tobytes(), ends.tobytes(), *code_of))
