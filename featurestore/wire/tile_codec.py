"""The bytes of an entity's tiles: one body, written whole, and one head, written by APPEND.

All integers little-endian. A reader gets numpy views of the received bytes; nothing is parsed tile by tile.

    body    header    48 bytes: magic 0xFB, version, codes of the start, add and other blocks, 3 reserved bytes,
                      tile count u4, blob bytes u4, base_ms i8, dropped_before_ms i8, lifetime_end_ms i8, checksum u8
            starts    N x (u4 or i8)     (start - base_ms) / 1000 or / 1, by the code
            widths    N x u1             rung of the ladder; 0 is 1 ms, 255 ends at lifetime_end_ms
            ints      ADD rows x N, then other rows x N, each block in the narrowest of i1 i2 i4 i8 that holds it
            floats    rows x N x f8
            blobs     rows x N x u4 ends, counted from the first byte, then the bytes, row by row
    head    deltas of equal structure, one after another, in order of arrival, each:
            start i8 | ints i8 | floats f8 | blob lengths u2 | blob bytes

A delta is 1 ms wide. Without blob fields deltas have one size, so a head is one numpy reshape; with them it still is,
as long as the lengths repeat (ids of one format, country codes), and is walked otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import DTypeLike

from featurestore.core.events import Int64Array
from featurestore.core.parts import Array, Merge
from featurestore.core.spec import HOP_LADDER_MS
from featurestore.core.tiles import Blobs, TileLayout, TileTable, concatenate
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptTile, InvariantBroken, UnknownTileVersion

MAGIC = 0xFB
VERSION = 1
BLOB_BYTES_MAX = 65_535
"""Longest event id or string value a delta can hold."""

_HEADER = struct.Struct("<BBBBB3xIIqqqQ")
_LIFETIME_CODE = 255
_WIDTHS_MS = np.array([1, *HOP_LADDER_MS], dtype=np.int64)
_INT_TYPES: tuple[DTypeLike, ...] = (np.int8, np.dtype("<i2"), np.dtype("<i4"), np.dtype("<i8"))
_INT_LIMITS = tuple(1 << (8 * size - 1) for size in (1, 2, 4, 8))
_START_SECONDS, _START_MS = 0, 1
_SECOND_MS = 1_000
_U4_LIMIT = 1 << 32


def encode_body(table: TileTable) -> bytes:
    """The body of one entity.

    Args:
        table: N >= 1 tiles ascending by start, normalized (see `TileTable.normalize`).
    """
    layout, count = table.layout, table.count
    widths = table.end_ms - table.start_ms
    codes = np.searchsorted(_WIDTHS_MS, widths)
    is_rung = _WIDTHS_MS[np.minimum(codes, len(_WIDTHS_MS) - 1)] == widths
    lifetime_end = 0
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
    add_code, adds = _narrow(table.ints[: layout.int_add_count])
    other_code, others = _narrow(table.ints[layout.int_add_count :])
    blobs = _encode_blobs(table)
    payload = b"".join(
        (starts, codes.astype(np.uint8).tobytes(), adds, others, table.floats.astype("<f8").tobytes(), blobs)
    )
    fields = (MAGIC, VERSION, start_code, add_code, other_code, count, len(blobs), base)
    unsigned = _HEADER.pack(*fields, table.dropped_before_ms, lifetime_end, 0)
    checksum = _checksum(unsigned + payload)
    return _HEADER.pack(*fields, table.dropped_before_ms, lifetime_end, checksum) + payload


def decode_body(layout: TileLayout, body: bytes) -> TileTable:
    """The tiles of a body; arrays are views of its bytes where no widening is needed.

    Raises:
        UnknownTileVersion: written by another release.
        CorruptTile: the bytes are not a body of this layout.
    """
    if len(body) < _HEADER.size:
        raise CorruptTile(f"body of {len(body)} bytes is shorter than its header")
    magic, version, start_code, add_code, other_code, count, blob_bytes, base, dropped, lifetime_end, checksum = (
        _HEADER.unpack_from(body)
    )
    if magic != MAGIC:
        raise CorruptTile(f"body begins with byte {magic:#x}, not {MAGIC:#x}")
    if version != VERSION:
        raise UnknownTileVersion(
            f"body has layout version {version}, this release reads {VERSION}",
            hint="upgrade this process, or rebuild the view with a new generation",
        )
    _verify(layout, body, (start_code, add_code, other_code, count, blob_bytes), checksum)
    at = _HEADER.size
    if start_code == _START_SECONDS:
        start = np.frombuffer(body, "<u4", count, at).astype(np.int64) * _SECOND_MS + base
        at += 4 * count
    else:
        start = np.frombuffer(body, "<i8", count, at) + base
        at += 8 * count
    codes = np.frombuffer(body, np.uint8, count, at)
    at += count
    end = start + _WIDTHS_MS[np.minimum(codes, len(_WIDTHS_MS) - 1)]
    if lifetime_end:
        end[codes == _LIFETIME_CODE] = lifetime_end
    ints = np.empty((len(layout.int_fields), count), dtype=np.int64)
    for rows, code in ((slice(0, layout.int_add_count), add_code), (slice(layout.int_add_count, None), other_code)):
        block = ints[rows]
        dtype = np.dtype(_INT_TYPES[code])
        block[...] = np.frombuffer(body, dtype, block.size, at).reshape(block.shape)
        at += block.size * dtype.itemsize
    float_rows = len(layout.float_fields)
    floats = np.frombuffer(body, "<f8", float_rows * count, at).reshape(float_rows, count)
    at += floats.nbytes
    return TileTable(layout, start, end, ints, floats, _decode_blobs(layout, body, count, at), dropped)


def encode_deltas(table: TileTable) -> list[bytes] | Array:
    """Deltas, ready to be joined and appended.

    Args:
        table: N tiles of width 1 ms.

    Returns:
        Without blob fields a (N, size) uint8 matrix, whose rows are deltas; with them a list of N byte strings.

    Raises:
        InvariantBroken: a blob is longer than BLOB_BYTES_MAX (decoding refuses such records at the door).
    """
    layout, count = table.layout, table.count
    numbers = np.empty((count, 1 + len(layout.int_fields) + len(layout.float_fields)), dtype="<i8")
    numbers[:, 0] = table.start_ms
    numbers[:, 1 : 1 + len(layout.int_fields)] = table.ints.T
    numbers[:, 1 + len(layout.int_fields) :] = np.ascontiguousarray(table.floats.T).view("<i8")
    fixed = numbers.view(np.uint8).reshape(count, _fixed_size(layout))
    if not layout.blob_fields:
        return fixed
    lengths = (table.blobs.ends - table.blobs.begins).T
    if lengths.size and int(lengths.max()) > BLOB_BYTES_MAX:
        raise InvariantBroken(f"a string of {int(lengths.max())} bytes does not fit a delta")
    prefix = np.concatenate((fixed, np.ascontiguousarray(lengths.astype("<u2")).view(np.uint8)), axis=1).tobytes()
    size = _prefix_size(layout)
    columns = [table.blobs.row(field).values() for field in range(len(layout.blob_fields))]
    return [
        prefix[row * size : (row + 1) * size] + b"".join(values)
        for row, values in enumerate(zip(*columns, strict=True))
    ]


def delta_size_min(layout: TileLayout) -> int:
    """Bytes of a delta whose strings are empty; the writer's estimate of how many a head holds."""
    return _prefix_size(layout)


def decode_head(layout: TileLayout, head: bytes) -> TileTable:
    """The deltas of a head, in order of arrival.

    Raises:
        CorruptTile: the bytes are not whole deltas of this layout.
    """
    fixed, prefix = _fixed_size(layout), _prefix_size(layout)
    if not layout.blob_fields:
        if len(head) % fixed:
            raise CorruptTile(f"head of {len(head)} bytes is not a whole number of deltas of {fixed} bytes")
        numbers = np.frombuffer(head, "<i8").reshape(-1, fixed // 8)
        return _from_numbers(layout, numbers, layout.blobs_of({}, len(numbers)))
    offsets = _regular_offsets(layout, head)
    if offsets is None:
        offsets = _walk(layout, head)
    rows = np.frombuffer(head, np.uint8)[offsets[:, None] + np.arange(prefix)]
    lengths = np.ascontiguousarray(rows[:, fixed:]).view("<u2").astype(np.int64)
    ends = offsets[:, None] + prefix + np.cumsum(lengths, axis=1)
    blobs = Blobs(head, (ends - lengths).T, ends.T)
    return _from_numbers(layout, np.ascontiguousarray(rows[:, :fixed]).view("<i8"), blobs)


def decode_entity(view: CompiledView, body: bytes | None, head: bytes | None) -> TileTable:
    """All tiles of an entity, ascending by start: what `CompiledView.answer` takes.

    Args:
        view: the view that wrote them.
        body: the stored body; None where there is none.
        head: the stored head, likewise.

    Raises:
        CorruptTile, UnknownTileVersion: see `decode_body` and `decode_head`.
    """
    layout = view.layout
    if not head:
        return decode_body(layout, body) if body else layout.empty()
    deltas = decode_head(layout, head)
    if not body:
        if deltas.count == 1:
            return deltas
        return deltas.take(deltas.start_ms.argsort(kind="stable"))
    table = concatenate([decode_body(layout, body), deltas])
    return table.take(table.start_ms.argsort(kind="stable"))


def _fixed_size(layout: TileLayout) -> int:
    """Bytes of the numbers of a delta."""
    return 8 * (1 + len(layout.int_fields) + len(layout.float_fields))


def _prefix_size(layout: TileLayout) -> int:
    """Bytes of a delta before its strings."""
    return _fixed_size(layout) + 2 * len(layout.blob_fields)


def _from_numbers(layout: TileLayout, numbers: Int64Array, blobs: Blobs) -> TileTable:
    """A table from the (N, 1 + ints + floats) numbers of N deltas."""
    int_rows = len(layout.int_fields)
    start = numbers[:, 0]
    floats = np.ascontiguousarray(numbers[:, 1 + int_rows :]).view("<f8").T
    return TileTable(layout, start, start + 1, numbers[:, 1 : 1 + int_rows].T, floats, blobs)


def _regular_offsets(layout: TileLayout, head: bytes) -> Int64Array | None:
    """Where deltas begin if all have the string lengths of the first; None if they do not."""
    fixed, prefix = _fixed_size(layout), _prefix_size(layout)
    if len(head) < prefix:
        return None
    stride = prefix + sum(struct.unpack_from(f"<{len(layout.blob_fields)}H", head, fixed))
    if len(head) % stride:
        return None
    lengths = np.frombuffer(head, np.uint8).reshape(-1, stride)[:, fixed:prefix]
    if (lengths != lengths[0]).any():
        return None
    return np.arange(0, len(head), stride)


def _walk(layout: TileLayout, head: bytes) -> Int64Array:
    """Where deltas begin, one after another."""
    fixed, prefix = _fixed_size(layout), _prefix_size(layout)
    lengths = struct.Struct(f"<{len(layout.blob_fields)}H")
    offsets, at, size = [], 0, len(head)
    while at + prefix <= size:
        offsets.append(at)
        at += prefix + sum(lengths.unpack_from(head, at + fixed))
    if at != size:
        raise CorruptTile(f"head of {size} bytes ends inside a delta")
    return np.array(offsets, dtype=np.int64)


def _narrow(block: Int64Array) -> tuple[int, bytes]:
    """Code and bytes of a block in the narrowest integer that holds all of it."""
    if block.size == 0:
        return 0, b""
    low, high = int(block.min()), int(block.max())
    code = next(code for code, limit in enumerate(_INT_LIMITS) if -limit <= low and high < limit)
    return code, block.astype(_INT_TYPES[code]).tobytes()


def _verify(layout: TileLayout, body: bytes, codes: Sequence[int], checksum: int) -> None:
    """Pair assertion of `encode_body`: the size its header implies, then the checksum."""
    start_code, add_code, other_code, count, blob_bytes = codes
    if start_code > _START_MS or max(add_code, other_code) >= len(_INT_TYPES):
        raise CorruptTile("body names a number type that does not exist")
    other_rows = len(layout.int_fields) - layout.int_add_count
    size = (
        _HEADER.size
        + blob_bytes
        + count
        * (
            (4, 8)[start_code]
            + 1
            + layout.int_add_count * np.dtype(_INT_TYPES[add_code]).itemsize
            + other_rows * np.dtype(_INT_TYPES[other_code]).itemsize
            + 8 * len(layout.float_fields)
        )
    )
    if size != len(body):
        raise CorruptTile(f"body has {len(body)} bytes where its header implies {size}")
    if _checksum(body) != checksum:
        raise CorruptTile("body does not match its checksum")


def _checksum(body: bytes) -> int:
    """XXH3-64 of everything but the checksum itself."""
    digest = xxhash.xxh3_64(body[: _HEADER.size - 8])
    digest.update(memoryview(body)[_HEADER.size :])
    return digest.intdigest()


def _encode_blobs(table: TileTable) -> bytes:
    """Ends, then bytes, field by field."""
    if not table.layout.blob_fields:
        return b""
    ends = np.cumsum(table.blobs.ends - table.blobs.begins)
    values = (value for field in range(len(table.layout.blob_fields)) for value in table.blobs.row(field).values())
    return ends.astype("<u4").tobytes() + b"".join(values)


def _decode_blobs(layout: TileLayout, body: bytes, count: int, at: int) -> Blobs:
    """Spans within the body itself."""
    fields = len(layout.blob_fields)
    if not fields:
        return layout.blobs_of({}, count)
    bounds = np.empty(fields * count + 1, dtype=np.int64)
    bounds[0] = at + 4 * fields * count
    np.add(np.frombuffer(body, "<u4", fields * count, at), bounds[0], out=bounds[1:], casting="unsafe")
    return Blobs(body, bounds[:-1].reshape(fields, count), bounds[1:].reshape(fields, count))


assert Merge.ADD is next(iter(Merge)), "bodies store ADD fields first"
