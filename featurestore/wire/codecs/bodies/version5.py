"""Bodies of version 5: columns that follow from others are not stored, and the rest takes as few bits as it can.

All integers little-endian; varints and frames of packed numbers are those of `packing`, codes those of `codes`.

    header    20 bytes: magic, version, flags u1, masks u1, tile count u4, base_ms i8 (the first start), bytes u4 of
              the strings that reading makes anew; by flags dropped_before_ms i8, lifetime_end_ms i8
    runs      varint count; of tiles of one width each: rung u1 of the ladder (255 ends at lifetime_end_ms), rung u1 of
              the unit of their starts, varint tiles, bits u1, and in so many bits (start - previous start) / unit
    masks     each ceil(N/8) bytes, the first tile is the lowest bit
    columns   integers, floats, strings, in the order of the layout. Each begins with a code u1: two bits say whether it
              is explicit (0), as column r of its storage in all tiles (1), or so where mask m says, and explicit
              elsewhere (2). So r u1 follows if there is one (255: the identity of the field) and m u1; then what is
              explicit:
              integers   +4 from the start of the tile; +8 identities are 0 and the others count up from a lowest one,
                         which is a varint before; in one frame, or (+16) in one a run
              floats     f8; or +4 the nearest whole number to value x count: u1 the integer column that is the count
                         (255: 1), frames of those numbers, and of how many doubles number / count is below the value
                         (+16, +32 in one a run)
              strings    +0 frame of lengths, bytes
                         +4 length u1, pattern with 0 where a hexadecimal digit goes, the digits of all, low half first
                         +8 frame of decimal numbers
                         +12 varint distinct, frame of their lengths, their bytes, frame of which one
    checksum  u8, XXH3-64 of everything before it but the magic
"""

from __future__ import annotations

import contextlib
import functools
import struct
from typing import NamedTuple

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.core.tiles.parts import RowCount, Storage, ValueCount
from featurestore.core.tiles.tiles import NOTHING_DROPPED_MS, TileLayout, TileTable
from featurestore.errors import CorruptTile, InvariantBroken
from featurestore.wire.codecs.bodies.codes import ALONE
from featurestore.wire.codecs.bodies.frame import CHECKSUM_BYTES, NO_LIFETIME_TILE, WIDTHS_MS, Columns, Rows
from featurestore.wire.codecs.bodies.read_loops import FACTS, read_tiles
from featurestore.wire.codecs.bodies.read_loops import ROOM_ROWS as READ_ROWS
from featurestore.wire.codecs.bodies.text_loops import number_strings
from featurestore.wire.codecs.bodies.write_loops import NOTES, write_tiles
from featurestore.wire.codecs.bodies.write_loops import ROOM_ROWS as WRITE_ROWS

VERSION = 5

_HEADER = struct.Struct("<BBBBIqI")
_MOMENT = struct.Struct("<q")
HEADER_BYTES = _HEADER.size
DROPPED, LIFETIME = 1, 2
_COLUMN_BYTES_MAX = 64
"""What a column has beside its values: codes and the begins of a frame or two."""
_TILE_BYTES_MAX = 32
"""What a tile takes in runs and masks."""
WRITTEN_BYTES_MAX = 256
"""A longer string is never made anew."""


class Header(NamedTuple):
    """What a body says of itself."""

    tile_count: int
    dropped_before_ms: int
    mask_count: int
    base_ms: int
    lifetime_end_ms: int
    written_bytes: int
    size: int


class _Facts(NamedTuple):
    """What the loops have to know of a layout."""

    fields: Int64Array
    identities: Int64Array
    helps: Int64Array
    singles: int


def encode(table: TileTable, magic: int) -> bytes:
    """The body of one entity, without its checksum.

    Args:
        table: N >= 1 tiles ascending by start, normalized.
        magic: the first byte.

    Raises:
        InvariantBroken: more than one tile is as wide as no rung.
    """
    facts, count, blobs = facts_of(table.layout), table.count, table.blobs
    texts, distinct = np.empty(blobs.begins.shape, dtype=np.int64), 1 + blobs.begins.size
    spans, decimals = np.empty((2, distinct), dtype=np.int64), np.empty(distinct, dtype=np.int64)
    buffer, text_bytes = np.frombuffer(blobs.buffer, np.uint8), 0
    if texts.size:
        slots = np.empty(1 << (2 * distinct).bit_length(), dtype=np.int64)
        hashes = np.empty(distinct, dtype=np.int64)
        text_bytes = number_strings(buffer, blobs.begins, blobs.ends, texts, spans, decimals, hashes, slots)
    room = (count + 1) * (8 * len(facts.helps) + _TILE_BYTES_MAX) + _COLUMN_BYTES_MAX * len(facts.helps) + text_bytes
    notes = np.empty(NOTES + len(facts.helps) + distinct, dtype=np.int64)
    cells, out = np.empty((WRITE_ROWS, count + 1), dtype=np.int64), np.empty(room, dtype=np.uint8)
    runs_end = write_tiles(
        table.start_ms,
        table.end_ms,
        table.ints,
        table.floats.view(np.int64),
        texts,
        facts.identities,
        facts.helps,
        WIDTHS_MS,
        facts.singles,
        buffer,
        spans,
        decimals,
        notes,
        cells,
        out,
    )
    columns_end, mask_count, written_bytes, lifetime_end_ms, irregular = notes[:5].tolist()
    if irregular > 1:
        raise InvariantBroken("a body has more than one tile of irregular width")
    flags, moments = 0, b""
    if table.dropped_before_ms != NOTHING_DROPPED_MS:
        flags, moments = DROPPED, _MOMENT.pack(table.dropped_before_ms)
    if irregular:
        flags, moments = flags | LIFETIME, moments + _MOMENT.pack(lifetime_end_ms)
    header = _HEADER.pack(magic, VERSION, flags, mask_count, count, int(table.start_ms[0]), written_bytes)
    masks_end = columns_end + mask_count * ((count + 7) >> 3)
    data = out[:masks_end].tobytes()
    return b"".join((header, moments, data[:runs_end], data[columns_end:], data[runs_end:columns_end]))


def read_header(layout: TileLayout, body: bytes) -> Header:
    """The header of a body whose checksum is right.

    Raises:
        CorruptTile: no body of that size has so many tiles or strings.
    """
    if len(body) < _HEADER.size + CHECKSUM_BYTES:
        raise CorruptTile(f"body of {len(body)} bytes is shorter than its header")
    _, _, flags, mask_count, tile_count, base_ms, written_bytes = _HEADER.unpack_from(body)
    size, dropped_before_ms, lifetime_end_ms = _HEADER.size, NOTHING_DROPPED_MS, NO_LIFETIME_TILE
    # A tile takes a bit, and one more for each mask: what is allocated for a body stays in proportion to its size.
    is_wrong = flags > DROPPED | LIFETIME or not 0 < tile_count * (1 + mask_count) <= 8 * len(body)
    if is_wrong or written_bytes > WRITTEN_BYTES_MAX * tile_count * len(layout.blob_fields):
        raise CorruptTile(f"body of {len(body)} bytes does not hold what its header says")
    if flags & DROPPED:
        dropped_before_ms, size = int.from_bytes(body[size : size + 8], "little", signed=True), size + 8
    if flags & LIFETIME:
        lifetime_end_ms, size = int.from_bytes(body[size : size + 8], "little", signed=True), size + 8
    return Header(tile_count, dropped_before_ms, mask_count, base_ms, lifetime_end_ms, written_bytes, size)


def fill(layout: TileLayout, rows: Rows, header: Header, body: bytes, columns: Columns, written_at: int) -> bytes:
    """Receive the tiles of a body.

    Args:
        layout: what the body stores.
        rows: which of it goes where.
        header: of the body.
        body: all of it.
        columns: receive it.
        written_at: where the strings that are returned will be in the buffer of strings, which begins with the body.

    Returns:
        The strings that were made anew.

    Raises:
        CorruptTile: the bytes are no body of the layout.
    """
    facts, written = facts_of(layout), np.empty(header.written_bytes, dtype=np.uint8)
    numbers = (
        header.tile_count,
        header.base_ms,
        header.lifetime_end_ms,
        header.mask_count,
        header.size,
        written_at,
    )
    is_wrong = read_tiles(
        np.frombuffer(body, np.uint8),
        np.array(numbers, dtype=np.int64),
        facts.fields,
        rows.columns,
        facts.identities,
        WIDTHS_MS,
        columns.start_ms,
        columns.end_ms,
        columns.ints,
        columns.floats,
        columns.begins,
        columns.ends,
        np.empty((len(rows.columns), FACTS), dtype=np.int64),
        np.empty((len(rows.columns) + 2 * header.mask_count + READ_ROWS, header.tile_count + 8), dtype=np.int64),
        written,
    )
    if is_wrong:
        raise CorruptTile("body does not hold the columns of its view, or a string that they name")
    return written.tobytes()


def prepare(layout: TileLayout, rows: Rows, columns: Columns) -> None:
    """Load what reading takes."""
    nothing = bytes(_HEADER.size + CHECKSUM_BYTES)
    with contextlib.suppress(CorruptTile):
        fill(layout, rows, Header(1, 0, 0, 0, 0, 0, _HEADER.size), nothing, columns, len(nothing))


@functools.lru_cache(maxsize=1_024)
def facts_of(layout: TileLayout) -> _Facts:
    """What the loops have to know of a layout; made once for each."""
    float_identities = np.array([field.identity for field in layout.float_fields], dtype=np.float64).view(np.int64)
    identities = (layout.int_identities, float_identities, np.zeros(len(layout.blob_fields), dtype=np.int64))
    counts = np.full(len(layout.float_fields), ALONE, dtype=np.int64)
    singles = -1
    for placed in layout.parts:
        if isinstance(placed.part, RowCount):
            singles = placed.fields[0].row
        for required, at in zip(placed.part.requires, placed.required, strict=False):
            for field in placed.fields:
                if isinstance(required, ValueCount) and field.storage is Storage.FLOAT and at.row < ALONE:
                    counts[field.row] = at.row
    helps = (layout.int_times, counts, np.zeros(len(layout.blob_fields), dtype=np.int64))
    fields = (len(layout.int_fields), len(layout.float_fields), len(layout.blob_fields))
    return _Facts(np.array(fields, dtype=np.int64), np.concatenate(identities), np.concatenate(helps), singles)
