"""The bytes of an entity's body: its rolled-up tiles, written whole by compaction.

    body    magic u1 (0xFB; 0x04 once a head has begun beside it), version u1, and what that version says
            checksum u8, XXH3-64 of everything before it but the magic

Version 5 is written (`bodies.version5` has its format); version 4 is read as well, so that a release that comes needs
no other bodies than those that it finds. Compaction turns the ones into the others as it comes by.

The head is written by APPEND and has its own module, `head`. Body and head know of each other: the script that begins
a head beside a body changes the body's magic and the head's first check. So one that vanishes (evicted, deleted by
hand) is missed by the other, and the entity is refused instead of being answered from half of it.

An entity of few events has neither, but is a member of a pack (see `pack`): that is decoded here as well.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from featurestore.core.events import BlobRow, Int64Array
from featurestore.core.tiles.parts import EventRows, Merge, Storage
from featurestore.core.tiles.ranges import find_bounds
from featurestore.core.tiles.tiles import NOTHING_DROPPED_MS, Blobs, TileLayout, TileTable
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptTile, TileLost, UnknownTileVersion
from featurestore.wire.codecs.bodies import version4, version5
from featurestore.wire.codecs.bodies.frame import CHECKSUM_BYTES, MAGIC, MAGIC_BESIDE_HEAD, WIDTHS_MS, Columns, Rows
from featurestore.wire.codecs.head import HeadCodec, Lifting, head_codec
from featurestore.wire.codecs.head_kernels import BESIDE_BODY
from featurestore.wire.codecs.pack import is_member, member_of, read_member


def encode_body(table: TileTable) -> bytes:
    """The body of one entity.

    Args:
        table: N >= 1 tiles ascending by start, normalized (see `TileTable.normalize`).

    Raises:
        InvariantBroken: more than one tile is as wide as no rung.
    """
    body = version5.encode(table, MAGIC)
    return body + xxhash.xxh3_64_intdigest(memoryview(body)[1:]).to_bytes(CHECKSUM_BYTES, "little")


def decode_body(layout: TileLayout, body: bytes) -> TileTable:
    """The tiles of a body.

    Args:
        layout: of the view that wrote it.
        body: the stored bytes.

    Raises:
        UnknownTileVersion: written by another release.
        CorruptTile: the bytes are not a body of this layout.
    """
    header = _read_header(layout, body)
    table, _ = _decode_body(layout, layout, _rows_of(layout), header, body, head=b"", more=0)
    return table


@functools.lru_cache(maxsize=1_024)
def _rows_of(layout: TileLayout) -> Rows:
    """All of a layout's fields; made once for each."""
    return Rows.of(layout, layout)


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
        self._rows = Rows.of(stored.layout, wanted)
        self._head_codec = head_codec(stored)
        self._lifting = self._head_codec.lifting(wanted)

    def prepare(self) -> None:
        """Load whatever decoding and reaching take, before a payment waits for it."""
        table = self._decode(member_of(b"", None, None), b"")
        self._head_codec.lift_into(b"", self._lifting, table, 0, 0)
        version4.prepare(self._stored, self._rows, Columns.of(self._wanted, 0))
        version5.prepare(self._stored, self._rows, Columns.of(self._wanted, 1))
        find_bounds(table.start_ms, 0, table.start_ms, table.start_ms, table.start_ms)

    def facts(self) -> tuple[tuple[Int64Array, ...], Int64Array, Lifting]:
        """For `take_tiles` fields, rows, identities and widths; for `lift_head` shape and lifting."""
        facts = version5.facts_of(self._stored)
        body = (facts.fields, self._rows.columns, facts.identities, WIDTHS_MS)
        return body, self._head_codec.shape, self._lifting

    def decode(
        self, body: bytes | None, head: bytes | None, events: TileTable | None = None, event: int = 0
    ) -> TileTable:
        """All tiles of an entity, ascending by start: what `CompiledView.answer` takes.

        Args:
            body: the stored body, or what `pack.member_of` makes of a pack; None where there is none.
            head: the stored head, likewise.
            events: lifted events in flight, of the wanted layout; one of them is put before what is not before it.
            event: which.

        Raises:
            TileLost: body or head is missing that the other one knows of.
            CorruptTile: the bytes are not a body or head of the view.
            UnknownTileVersion: the body was written by another release.
        """
        return self._decode(body or b"", head or b"", events, event)

    def _decode(self, body: bytes, head: bytes, events: TileTable | None = None, event: int = 0) -> TileTable:
        """Body and head, and behind them an event in flight, in one allocation a block."""
        if is_member(body):
            return self._decode_member(body, events, event)
        header = _read_header(self._stored, body) if body else None
        rows, is_beside_body = self._head_codec.count_rows(head) if head else (0, False)
        check_whole(None if header is None else header.is_beside_head, has_head=rows > 0, is_beside_body=is_beside_body)
        more = rows if events is None else rows + 1
        table, first = _decode_body(self._stored, self._wanted, self._rows, header, body, head=head, more=more)
        return self._with_head(table, body, head, first, events, event)

    def _decode_member(self, member: bytes, events: TileTable | None, event: int) -> TileTable:
        """An entity's rows of a pack, which read like a head without a body."""
        found = read_member(member, self._head_codec)
        check_whole(found.is_beside_head, has_head=found.has_head, is_beside_body=found.is_beside_body)
        return self._decode(b"", found.rows, events, event)

    def lift(self, head: bytes) -> TileTable:
        """The tiles of head rows that were checked before, a tile of 1 ms each, in the order of the rows."""
        rows, _ = self._head_codec.count_rows(head) if head else (0, False)
        table, first = _decode_body(self._stored, self._wanted, self._rows, None, b"", head=head, more=rows)
        return self._lift_behind(table, b"", head, first)[0]

    def _with_head(
        self, table: TileTable, body: bytes, head: bytes, first: int, events: TileTable | None, event: int
    ) -> TileTable:
        """The tiles of a body, and behind them those of a head and an event in flight; in the order of time."""
        table, is_ascending = self._lift_behind(table, body, head, first)
        if events is not None:
            table = _with_event(table, events, event)
            if is_ascending and (table.count == 1 or table.start_ms[-2] < table.start_ms[-1]):
                return table
            return table.take(_order_with_event(table.start_ms))
        # Events mostly arrive in order, and then body and head are one ascending list already.
        return table if is_ascending else table.take(table.start_ms.argsort(kind="stable"))

    def _lift_behind(self, table: TileTable, body: bytes, head: bytes, first: int) -> tuple[TileTable, bool]:
        """The tiles of a body, and behind them those of a head; whether all are ascending by start."""
        if not head:
            return table, True
        is_ascending = self._head_codec.lift_into(head, self._lifting, table, first, len(body))
        if self._wanted.lifts_itself:
            recent = self._head_codec.decode(head)
            table = _with_own_lifts(table, recent, slice(first, first + recent.count))
        return table, is_ascending


def beside_each_other(body: bytes, head: bytes) -> tuple[bytes, bytes]:
    """Body and head as the commit script leaves them when the head begins beside the body."""
    return bytes([MAGIC_BESIDE_HEAD]) + body[1:], bytes([head[0] ^ BESIDE_BODY]) + head[1:]


class _Header(NamedTuple):
    """What a body says of itself."""

    is_beside_head: bool
    content: version4.Header | version5.Header


def _read_header(layout: TileLayout, body: bytes) -> _Header:
    """Magic, version, checksum, and what the version says: pair assertion of `encode_body`."""
    if len(body) < 2 + CHECKSUM_BYTES:
        raise CorruptTile(f"body of {len(body)} bytes is shorter than its header")
    magic, version = body[0], body[1]
    if magic not in (MAGIC, MAGIC_BESIDE_HEAD):
        raise CorruptTile(f"body begins with byte {magic:#x}, not {MAGIC:#x}")
    if version not in (version4.VERSION, version5.VERSION):
        raise UnknownTileVersion(
            f"body has layout version {version}, this release reads {version4.VERSION} and {version5.VERSION}",
            hint="upgrade this process, or rebuild the view with a new generation",
        )
    checksum = int.from_bytes(body[-CHECKSUM_BYTES:], "little")
    if xxhash.xxh3_64_intdigest(memoryview(body)[1:-CHECKSUM_BYTES]) != checksum:
        raise CorruptTile("body does not match its checksum")
    known = version5 if version == version5.VERSION else version4
    return _Header(magic == MAGIC_BESIDE_HEAD, known.read_header(layout, body))


def _decode_body(
    stored: TileLayout,
    wanted: TileLayout,
    rows: Rows,
    header: _Header | None,
    body: bytes,
    *,
    head: bytes,
    more: int,
) -> tuple[TileTable, int]:
    """The tiles of a body, room for those of a head behind them, and where that begins.

    Strings are spans of body, head, and what had to be made anew, one after another.
    """
    content = None if header is None else header.content
    count, dropped_before_ms = (0, NOTHING_DROPPED_MS) if content is None else content[:2]
    columns, written = Columns.of(wanted, count + more), b""
    if isinstance(content, version5.Header):
        written = version5.fill(stored, rows, content, body, columns, len(body) + len(head))
    elif content is not None:
        version4.fill(stored, rows, content, body, columns)
    strings = b"".join((body, head, written)) if wanted.blob_fields else b""
    blobs = Blobs(strings, columns.begins, columns.ends)
    return TileTable(wanted, *columns[:4], blobs, dropped_before_ms), count


def check_whole(is_beside_head: bool | None, *, has_head: bool, is_beside_body: bool) -> None:
    """Body and head must be there as each knows of the other.

    Args:
        is_beside_head: what the body says; None where there is none.
        has_head: whether there is a head.
        is_beside_body: what the head says.

    Raises:
        TileLost: one of them is missing.
        CorruptTile: they are there, and know nothing of each other.
    """
    if is_beside_head is not None and has_head and not (is_beside_head and is_beside_body):
        raise CorruptTile("body and head are both there, and do not know of each other")
    is_head_lost = is_beside_head is True and not has_head
    if not is_head_lost and not (is_beside_head is None and is_beside_body):
        return
    raise TileLost(
        f"the {'head' if is_head_lost else 'body'} of the entity is gone",
        detail="The online store has lost a key: evicted, or deleted by hand.",
        hint="see that the store does not evict, and compute the view anew by `featurestore bootstrap`",
    )


class EventLifting:
    """Turns payments in flight into tiles: what `TileLayout.lift` makes, in the time of few events.

    Args:
        codec: of their rows, which may have more columns than are read.
        layout: of the tiles.

    Attributes:
        shape: of the rows, for `fill_head`.
        lifting: of the layout.
    """

    def __init__(self, codec: HeadCodec, layout: TileLayout) -> None:
        self._codec = codec
        self._layout = layout
        self.shape = codec.shape_with(layout.undo)
        self.lifting = codec.lifting(layout)

    def lift(self, rows: Sequence[bytes]) -> TileTable:
        """A tile for each of N rows."""
        layout, head = self._layout, b"".join(rows)
        columns = Columns.of(layout, len(rows))
        strings = head if layout.blob_fields else b""
        table = TileTable(layout, *columns[:4], Blobs(strings, columns.begins, columns.ends))
        self._codec.lift_into(head, self.lifting, table, 0, 0, shape=self.shape)
        return _with_own_lifts(table, self._codec.decode(head), slice(None)) if layout.lifts_itself else table


def _with_event(table: TileTable, events: TileTable, event: int) -> TileTable:
    """The table with an event in its last row."""
    table.start_ms[-1], table.end_ms[-1] = events.start_ms[event], events.end_ms[event]
    table.ints[:, -1] = events.ints[:, event]
    table.floats[:, -1] = events.floats[:, event]
    if not table.layout.blob_fields:
        return table
    mine, others = table.blobs, events.blobs
    mine.begins[:, -1] = others.begins[:, event] + len(mine.buffer)
    mine.ends[:, -1] = others.ends[:, event] + len(mine.buffer)
    return dataclasses.replace(table, blobs=Blobs(mine.buffer + others.buffer, mine.begins, mine.ends))


def _order_with_event(start_ms: Int64Array) -> Int64Array:
    """Rows ascending by start, the last one before others of its time: those are not before it."""
    stored = start_ms[:-1].argsort(kind="stable")
    at = start_ms[stored].searchsorted(start_ms[-1])
    return np.insert(stored, at, len(stored))


def _with_own_lifts(table: TileTable, recent: EventRows, at_rows: slice) -> TileTable:
    """The table with the fields of parts that lift themselves; their strings are new bytes behind the buffer."""
    layout, blobs = table.layout, table.blobs
    buffers, size = [blobs.buffer], len(blobs.buffer)
    for at, values in layout.own_lifts(recent):
        if isinstance(values, BlobRow):
            blobs.begins[at.row, at_rows] = values.begins + size
            blobs.ends[at.row, at_rows] = values.ends + size
            buffers.append(values.buffer)
            size += len(values.buffer)
        else:
            (table.ints if at.storage is Storage.INT else table.floats)[at.row, at_rows] = values
    return dataclasses.replace(table, blobs=Blobs(b"".join(buffers), blobs.begins, blobs.ends))


assert Merge.ADD is next(iter(Merge)), "bodies store ADD fields first"
