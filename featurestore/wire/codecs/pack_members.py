"""Whole packs: what compaction and bootstrap read and write; `pack` has the bytes, and reads one member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptTile
from featurestore.wire.codecs.bodies.frame import MAGIC_BESIDE_HEAD
from featurestore.wire.codecs.body import check_whole
from featurestore.wire.codecs.head import HeadCodec, head_codec
from featurestore.wire.codecs.pack import check_body, damage, finish_body, words_of
from featurestore.wire.codecs.pack_close_loops import close_packs, expand_span, newest_of
from featurestore.wire.codecs.pack_fold_loops import (
    COUNT,
    ENTITIES_END,
    ENTITY_COLUMNS,
    FIRST,
    FOUND,
    KEY_BEGIN,
    KEY_END,
    NEWEST_MS,
    NEXT,
    PACK_COLUMNS,
    PACKED,
    ROWS_BEGIN,
    ROWS_END,
    SPAN_COLUMNS,
    open_packs,
)
from featurestore.wire.codecs.pack_loops import BODY_HEADER, MEMBERS_AT

_RECORD_BYTES_MIN = 3
_NUMBER_ROOM, _STRING_ROOM, _MEMBER_ROOM, _TEXT_ROOM = 3, 6, 32, 256
"""How much longer than in a head a number and a string may be, what a member takes beside key and rows, and a string
of the dictionary."""


@dataclass(frozen=True, slots=True)
class Packs:
    """All entities of P packs.

    Attributes:
        ends: (P,) where the entities of each end among those of all.
        counts: (E,) rows of each entity.
        newest_at_least_ms: (E,) the time of its newest event, or an earlier one; see `newest_ms`.
    """

    ends: Int64Array
    counts: Int64Array
    newest_at_least_ms: Int64Array
    _codec: HeadCodec
    _data: Array
    _bounds: Int64Array
    _spans: Int64Array
    _entities: Int64Array
    _packs: Int64Array
    _rows: Array
    _used: int

    def key(self, entity: int) -> bytes:
        """The key of an entity."""
        span = self._entities[entity, FIRST]
        return bytes(self._rows[self._spans[span, KEY_BEGIN] : self._spans[span, KEY_END]])

    def newest_ms(self, entities: Int64Array) -> Int64Array:
        """The times of the newest events of N entities, ascending: (N,)."""
        newest = self.newest_at_least_ms[entities]
        packed = np.flatnonzero(self._spans[self._entities[entities, FIRST], PACKED])
        if len(packed):
            chosen, of_packed = entities[packed], newest[packed]
            pack_of = np.searchsorted(self.ends, chosen, side="right")
            codec = self._codec
            newest_of(
                self._data,
                self._bounds,
                codec.shape,
                self._spans,
                self._entities,
                chosen,
                pack_of,
                words_of(codec),
                of_packed,
            )
            newest[packed] = of_packed
        return newest

    def rows(self, entity: int) -> bytes:
        """Its rows, as a head has them, in order of arrival.

        Raises:
            CorruptTile: the body has other bytes than were written, and their checksum.
        """
        parts, span = [], int(self._entities[entity, FIRST])
        while span >= 0:
            begin, end = self._spans[span, ROWS_BEGIN], self._spans[span, ROWS_END]
            if self._spans[span, PACKED]:
                parts.append(self._expanded(span, int(np.searchsorted(self.ends, entity, side="right"))))
            else:
                parts.append(bytes(self._rows[begin:end]))
            span = int(self._spans[span, NEXT])
        return b"".join(parts)

    def _expanded(self, span: int, pack: int) -> bytes:
        """The packed rows of a span."""
        codec, rows = self._codec, self._rows[self._used :]
        size = expand_span(self._data, self._bounds, codec.shape, self._spans, span, pack, words_of(codec), rows)
        if size < 0:
            raise damage(size)
        return bytes(rows[:size])

    def bodies(self, stays: BoolArray) -> list[bytes]:
        """The bodies of the packs, of the entities that stay; empty where nobody does; to be asked for once, at last.

        Args:
            stays: (E,), of at most MEMBERS_MAX entities of each pack.

        Raises:
            CorruptTile: as `rows`.
        """
        codec, ends = self._codec, np.empty(len(self._packs), dtype=np.int64)
        numbers, strings = 2 + int(codec.shape[0]), int(codec.shape[2] + codec.shape[3])
        room = len(self._rows) + int(self.counts.sum()) * (_NUMBER_ROOM * numbers + _STRING_ROOM * strings)
        room += len(self.counts) * _MEMBER_ROOM + len(ends) * (BODY_HEADER + _TEXT_ROOM * (3 + strings))
        out = np.empty(room, dtype=np.uint8)
        found = close_packs(
            self._data,
            self._bounds,
            self._spans,
            self._entities,
            self._packs,
            stays.view(np.uint8),
            codec.shape,
            self._rows,
            self._used,
            words_of(codec),
            out,
            ends,
        )
        if found < 0:
            raise damage(found)
        bodies, low = list[bytes](), 0
        for high in ends.tolist():
            bodies.append(finish_body(out[low:high]) if high > low else b"")
            low = high
        return bodies


def read_packs(
    view: CompiledView, stored: Sequence[tuple[bytes | None, bytes | None]]
) -> tuple[Packs, Mapping[int, CorruptTile]]:
    """All entities of P packs.

    Args:
        view: whose.
        stored: body and head of each.

    Returns:
        The packs, and what is wrong with those that are not as they were written, by their number.

    Raises:
        UnknownTileVersion: a body was written by another release.
    """
    codec, wrong = head_codec(view), dict[int, CorruptTile]()
    parts, sizes, room, members = list[bytes](), list[tuple[int, int]](), 0, 0
    for number, (body, head) in enumerate(stored):
        body, head = body or b"", head or b""
        if body:
            try:
                room += check_body(memoryview(body)) + len(body)
                members += body[MEMBERS_AT]
            except CorruptTile as error:
                wrong[number], body, head = error, b"", b""
        parts += (body, head)
        sizes.append((len(body), len(head)))
        room += len(head)
        members += len(head) // (_RECORD_BYTES_MIN + codec.row_bytes_min)
    ends = np.cumsum(np.array(sizes, dtype=np.int64).reshape(-1))
    bounds = np.empty((len(sizes), 3), dtype=np.int64)
    bounds[:, 1:] = ends.reshape(-1, 2)
    bounds[:, 0] = np.concatenate((np.zeros(1, dtype=np.int64), bounds[:-1, 2]))
    rows = np.empty(room, dtype=np.uint8)
    spans = np.empty((members + 1, SPAN_COLUMNS), dtype=np.int64)
    entities = np.empty((members + 1, ENTITY_COLUMNS), dtype=np.int64)
    packs = np.empty((len(sizes), PACK_COLUMNS), dtype=np.int64)
    data = np.frombuffer(b"".join(parts), np.uint8)
    used = open_packs(data, bounds, codec.shape, rows, words_of(codec), spans, entities, packs)
    for number, found in enumerate(packs[:, FOUND].tolist()):
        body, head = parts[2 * number], parts[2 * number + 1]
        try:
            if number not in wrong:
                _check(found, body, head)
        except CorruptTile as error:
            wrong[number] = error
    count = int(packs[-1, ENTITIES_END]) if len(packs) else 0
    members_of = Packs(
        packs[:, ENTITIES_END].copy(),
        entities[:count, COUNT].copy(),
        entities[:count, NEWEST_MS].copy(),
        codec,
        data,
        bounds,
        spans,
        entities[:count],
        packs,
        rows,
        used,
    )
    return members_of, wrong


def _check(found: int, body: bytes, head: bytes) -> None:
    """Raise what is wrong with a pack."""
    if found < 0:
        raise damage(found)
    check_whole(body[0] == MAGIC_BESIDE_HEAD if body else None, has_head=bool(head), is_beside_body=bool(found))
