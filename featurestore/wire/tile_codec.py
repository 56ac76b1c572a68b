"""The bytes of an entity's body: its rolled-up tiles, written whole by compaction.

All integers little-endian. A reader gets numpy views of the received bytes; nothing is parsed tile by tile.

    body    header    48 bytes: magic 0xFB, version, codes of the start, add and other blocks, 3 reserved bytes,
                      tile count u4, blob bytes u4, base_ms i8, dropped_before_ms i8, lifetime_end_ms i8, checksum u8
            starts    N x (u4 or i8)     (start - base_ms) / 1000 or / 1, by the code
            widths    N x u1             rung of the ladder; 0 is 1 ms, 255 ends at lifetime_end_ms
            ints      ADD rows x N, then other rows x N, each block in the narrowest of i1 i2 i4 i8 that holds it
            floats    rows x N x f8
            blobs     distinct count u4, rows x N codes in u1, u2 or u4, distinct x u4 ends, the distinct strings

    strings repeat (the id of the newest event of several columns, country codes), hence the dictionary

The head is written by APPEND and has its own module, `head_codec`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import xxhash

from featurestore.core.events import Int64Array
from featurestore.core.parts import EventRows, Merge
from featurestore.core.spec import HOP_LADDER_MS
from featurestore.core.tiles import Blobs, TileLayout, TileTable, join_blobs
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptTile, InvariantBroken, UnknownTileVersion
from featurestore.wire.head_codec import head_codec

MAGIC = 0xFB
VERSION = 1

_HEADER = struct.Struct("<BBBBB3xIIqqqQ")
_LIFETIME_CODE = 255
_NO_LIFETIME_TILE = -(1 << 63)
_WIDTHS_MS = np.array([1, *HOP_LADDER_MS], dtype=np.int64)
_WIDTH_OF_CODE = np.ones(256, dtype=np.int64)
_WIDTH_OF_CODE[: len(_WIDTHS_MS)] = _WIDTHS_MS
_INT_TYPES = (np.dtype("i1"), np.dtype("<i2"), np.dtype("<i4"), np.dtype("<i8"))
_INT_BYTES = (1, 2, 4, 8)
_START_BYTES = (4, 8)
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
    """The tiles of a body.

    Raises:
        UnknownTileVersion: written by another release.
        CorruptTile: the bytes are not a body of this layout.
    """
    return _decode(layout, body, None)


def decode_entity(view: CompiledView, body: bytes | None, head: bytes | None) -> TileTable:
    """All tiles of an entity, ascending by start: what `CompiledView.answer` takes.

    Args:
        view: the view that wrote them.
        body: the stored body; None where there is none.
        head: the stored head, likewise.

    Raises:
        CorruptTile: the bytes are not a body or head of this view.
        UnknownTileVersion: the body was written by another release.
    """
    layout = view.layout
    if body:
        table = _decode(layout, body, head_codec(view).decode(head) if head else None)
    else:
        table = head_codec(view).decode_tiles(head) if head else layout.empty()
    start = table.start_ms
    # Events mostly arrive in order, and then body and head are one ascending list already.
    if (start[1:] < start[:-1]).any():
        return table.take(start.argsort(kind="stable"))
    return table


@dataclass(frozen=True, slots=True)
class _Header:
    """What a body says of itself."""

    start_code: int
    add_code: int
    other_code: int
    count: int
    blob_bytes: int
    base_ms: int
    dropped_before_ms: int
    lifetime_end_ms: int


def _decode(layout: TileLayout, body: bytes, recent: EventRows | None) -> TileTable:
    """A body's tiles and, behind them, the tiles of recent events; all in one allocation a block."""
    header = _read_header(layout, body)
    count = header.count
    total = count if recent is None else count + recent.count
    start, end = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.int64)
    ints = np.empty((len(layout.int_fields), total), dtype=np.int64)
    floats = np.empty((len(layout.float_fields), total), dtype=np.float64)
    at = _fill_spans(header, body, start[:count], end[:count])
    for rows, code in (
        (slice(0, layout.int_add_count), header.add_code),
        (slice(layout.int_add_count, None), header.other_code),
    ):
        block = ints[rows, :count]
        block[...] = np.frombuffer(body, _INT_TYPES[code], block.size, at).reshape(block.shape)
        at += block.size * _INT_BYTES[code]
    if layout.float_fields:
        block_size = len(layout.float_fields) * count
        floats[:, :count] = np.frombuffer(body, "<f8", block_size, at).reshape(-1, count)
        at += 8 * block_size
    blobs = _decode_blobs(layout, body, count, at)
    if recent is not None:
        start[count:] = recent.event_time_ms
        np.add(recent.event_time_ms, 1, out=end[count:])
        lifted = layout.lift_into(recent, ints[:, count:], floats[:, count:])
        if lifted:
            blobs = join_blobs([blobs, layout.blobs_of(lifted, recent.count)])
        else:
            blobs = layout.blobs_of({}, total)
    return TileTable(layout, start, end, ints, floats, blobs, header.dropped_before_ms)


def _fill_spans(header: _Header, body: bytes, start: Int64Array, end: Int64Array) -> int:
    """Starts and ends of a body's tiles; where its numbers begin."""
    at, count = _HEADER.size, header.count
    if header.start_code == _START_SECONDS:
        np.multiply(np.frombuffer(body, "<u4", count, at), _SECOND_MS, out=start, dtype=np.int64)
    else:
        start[...] = np.frombuffer(body, "<i8", count, at)
    start += header.base_ms
    at += _START_BYTES[header.start_code] * count
    codes = np.frombuffer(body, np.uint8, count, at)
    np.add(start, _WIDTH_OF_CODE[codes], out=end)
    if header.lifetime_end_ms != _NO_LIFETIME_TILE:
        end[codes == _LIFETIME_CODE] = header.lifetime_end_ms
    return at + count


def _narrow(block: Int64Array) -> tuple[int, bytes]:
    """Code and bytes of a block in the narrowest integer that holds all of it."""
    if block.size == 0:
        return 0, b""
    low, high = int(block.min()), int(block.max())
    code = next(code for code, limit in enumerate(_INT_LIMITS) if -limit <= low and high < limit)
    return code, block.astype(_INT_TYPES[code]).tobytes()


def _read_header(layout: TileLayout, body: bytes) -> _Header:
    """Pair assertion of `encode_body`: magic, version, the size that the header implies, then the checksum."""
    if len(body) < _HEADER.size:
        raise CorruptTile(f"body of {len(body)} bytes is shorter than its header")
    magic, version, *fields, checksum = _HEADER.unpack_from(body)
    if magic != MAGIC:
        raise CorruptTile(f"body begins with byte {magic:#x}, not {MAGIC:#x}")
    if version != VERSION:
        raise UnknownTileVersion(
            f"body has layout version {version}, this release reads {VERSION}",
            hint="upgrade this process, or rebuild the view with a new generation",
        )
    header = _Header(*fields)
    if header.start_code > _START_MS or max(header.add_code, header.other_code) >= len(_INT_TYPES):
        raise CorruptTile("body names a number type that does not exist")
    other_rows = len(layout.int_fields) - layout.int_add_count
    tile_bytes = (
        _START_BYTES[header.start_code]
        + 1
        + layout.int_add_count * _INT_BYTES[header.add_code]
        + other_rows * _INT_BYTES[header.other_code]
        + 8 * len(layout.float_fields)
    )
    size = _HEADER.size + header.blob_bytes + header.count * tile_bytes
    if size != len(body):
        raise CorruptTile(f"body has {len(body)} bytes where its header implies {size}")
    if _checksum(body) != checksum:
        raise CorruptTile("body does not match its checksum")
    return header


def _checksum(body: bytes) -> int:
    """XXH3-64 of everything but the checksum itself."""
    digest = xxhash.xxh3_64(body[: _HEADER.size - 8])
    digest.update(memoryview(body)[_HEADER.size :])
    return digest.intdigest()


def _encode_blobs(table: TileTable) -> bytes:
    """The dictionary of all fields' strings; nothing without blob fields."""
    if not table.layout.blob_fields:
        return b""
    values = [value for field in range(len(table.layout.blob_fields)) for value in table.blobs.row(field).values()]
    code_of = {value: code for code, value in enumerate(dict.fromkeys(values))}
    codes = np.fromiter((code_of[value] for value in values), dtype=_code_type(len(code_of)), count=len(values))
    ends = np.cumsum([len(value) for value in code_of], dtype=np.uint32).astype("<u4")
    return b"".join((len(code_of).to_bytes(4, "little"), codes.tobytes(), ends.tobytes(), *code_of))


def _decode_blobs(layout: TileLayout, body: bytes, count: int, at: int) -> Blobs:
    """Spans within the body itself."""
    fields = len(layout.blob_fields)
    if not fields:
        return layout.blobs_of({}, count)
    distinct = int.from_bytes(body[at : at + 4], "little")
    codes = np.frombuffer(body, _code_type(distinct), fields * count, at + 4).reshape(fields, count)
    at += 4 + codes.nbytes
    bounds = np.empty(distinct + 1, dtype=np.int64)
    bounds[0] = at + 4 * distinct
    np.add(np.frombuffer(body, "<u4", distinct, at), bounds[0], out=bounds[1:], casting="unsafe")
    return Blobs(body, bounds[codes], bounds[codes + np.int64(1)])


def _code_type(distinct: int) -> np.dtype[np.unsignedinteger]:
    """The narrowest unsigned integer that counts that many."""
    return np.dtype("u1" if distinct <= 1 << 8 else "<u2" if distinct <= 1 << 16 else "<u4")


assert Merge.ADD is next(iter(Merge)), "bodies store ADD fields first"
