"""Tiles of one or many entity keys as columns, and the one way to merge them.

    row          0        1         2        3
    start_ms     [0       60000     75000    81234
    end_ms        60000   75000     80000    81235        half-open spans; ends need not touch the next start
    ints      (fields, rows)  ADD rows first, then MIN, MAX, OWN, so that a block merges in one numpy call
    floats    (fields, rows)  likewise
    blobs     (fields, rows) spans of one buffer

Folding events, compacting a body and answering a window are the same operation on this table: merge runs (or ranges)
of rows. Two tables of one layout can always be concatenated; rows need no order until they are merged.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from featurestore.core.events import BlobRow, Float64Array, Int64Array
from featurestore.core.tiles.lifting import Input, Inputs, lift_field
from featurestore.core.tiles.parts import Array, EventRows, Field, FieldValues, Lift, Merge, Part, Storage

MERGE_ORDER = (Merge.ADD, Merge.MIN, Merge.MAX, Merge.OWN)

MERGE_UFUNCS: dict[Merge, np.ufunc] = {Merge.ADD: np.add, Merge.MIN: np.minimum, Merge.MAX: np.maximum}


@dataclass(frozen=True, slots=True)
class FieldPosition:
    """Where a field lives: row of its storage's block."""

    storage: Storage
    row: int


@dataclass(frozen=True, slots=True)
class PartPosition:
    """Where a part's fields and the fields it requires live."""

    part: Part
    fields: tuple[FieldPosition, ...]
    required: tuple[FieldPosition, ...]

    @property
    def has_own_merge(self) -> bool:
        """Whether the part merges itself."""
        return any(field.merge is Merge.OWN for field in self.part.fields)

    @property
    def lifts_itself(self) -> bool:
        """Whether the part's own `lift` is needed."""
        return any(field.lift is Lift.OWN for field in self.part.fields)


def blocks_of(fields: Sequence[Field]) -> dict[Merge, slice]:
    """The contiguous rows of each kind of merge."""
    blocks, begin = {}, 0
    for merge in MERGE_ORDER:
        size = sum(field.merge is merge for field in fields)
        blocks[merge] = slice(begin, begin + size)
        begin += size
    return blocks


NOTHING_DROPPED_MS = -(1 << 63)
"""`dropped_before_ms` of a table from which nothing was ever dropped."""


class TileLayout:
    """The fields a view's tiles keep, in canonical order.

    Args:
        parts: the parts of all features, repeats welcome; what they require is added.
        conditional: inputs of parts that are not simply a column, by name.
        undo: BOOL column that is true for events which undo an earlier one; None when there are none.

    Attributes:
        parts: distinct parts by key, with the position of every field.
        int_fields, float_fields, blob_fields: fields in storage order.
        int_add_count: number of leading integer fields that merge by ADD.
        int_identities: (integer fields,) what merges without effect.
        int_times: (integer fields,) 1 where values are event times.
        reads_event_ids: whether any part does.
        lifts_itself: whether any part does.
    """

    def __init__(
        self, parts: Sequence[Part], conditional: Mapping[str, Input] | None = None, undo: str | None = None
    ) -> None:
        self.conditional: Mapping[str, Input] = conditional or {}
        self.undo = undo
        distinct = {part.key: part for given in parts for part in (*given.requires, given)}
        ordered = [distinct[key] for key in sorted(distinct)]
        placed = [
            (part, field) for merge in MERGE_ORDER for part in ordered for field in part.fields if field.merge is merge
        ]
        by_storage = {
            storage: [(part, field) for part, field in placed if field.storage is storage] for storage in Storage
        }
        position = {
            (part.key, field.name): FieldPosition(storage, row)
            for storage, members in by_storage.items()
            for row, (part, field) in enumerate(members)
        }

        def positions_of(part: Part) -> tuple[FieldPosition, ...]:
            return tuple(position[part.key, field.name] for field in part.fields)

        self.int_fields: tuple[Field, ...] = tuple(field for _, field in by_storage[Storage.INT])
        self.float_fields: tuple[Field, ...] = tuple(field for _, field in by_storage[Storage.FLOAT])
        self.blob_fields: tuple[Field, ...] = tuple(field for _, field in by_storage[Storage.BLOB])
        self.parts: tuple[PartPosition, ...] = tuple(
            PartPosition(part, positions_of(part), tuple(at for needed in part.requires for at in positions_of(needed)))
            for part in ordered
        )
        self.own_parts: tuple[PartPosition, ...] = tuple(
            placed_part for placed_part in self.parts if placed_part.has_own_merge
        )
        self.int_blocks = blocks_of(self.int_fields)
        self.int_add_count = sum(field.merge is Merge.ADD for field in self.int_fields)
        self.int_identities = np.array([field.identity for field in self.int_fields], dtype=np.int64)
        self.int_times = np.array([field.lift is Lift.TIME for field in self.int_fields], dtype=np.int64)
        self.float_blocks = blocks_of(self.float_fields)
        self.reads_event_ids = any(placed_part.part.reads_event_ids for placed_part in self.parts)
        self.lifts_itself = any(placed_part.lifts_itself for placed_part in self.parts)
        self._by_key = {placed_part.part.key: placed_part for placed_part in self.parts}

    def position_of(self, part: Part) -> PartPosition:
        """Where that part lives."""
        return self._by_key[part.key]

    def lift(self, rows: EventRows) -> TileTable:
        """One tile an event: N rows of width 1 ms, in the order of the events."""
        ints = np.empty((len(self.int_fields), rows.count), dtype=np.int64)
        floats = np.empty((len(self.float_fields), rows.count), dtype=np.float64)
        blobs: dict[int, BlobRow] = {}
        sign = None if self.undo is None else 1 - 2 * np.asarray(rows.columns[self.undo].values)
        inputs = EventRows(rows.event_time_ms, rows.event_ids, Inputs(rows.columns, self.conditional))
        for placed in self.parts:
            for field, at in zip(placed.part.fields, placed.fields, strict=True):
                if field.lift is not Lift.OWN:
                    _put(at, lift_field(field, inputs, sign), ints, floats, blobs)
        for at, values in self.own_lifts(rows):
            _put(at, values, ints, floats, blobs)
        return TileTable(
            self, rows.event_time_ms, rows.event_time_ms + 1, ints, floats, self.blobs_of(blobs, rows.count)
        )

    def own_lifts(self, rows: EventRows) -> Iterator[tuple[FieldPosition, FieldValues]]:
        """The fields that parts lift themselves, (N,) values each."""
        rows = EventRows(rows.event_time_ms, rows.event_ids, Inputs(rows.columns, self.conditional))
        for placed in self.parts:
            if placed.lifts_itself:
                own = placed.part.lift(rows)
                for field, at in zip(placed.part.fields, placed.fields, strict=True):
                    if field.lift is Lift.OWN:
                        yield at, own[field.name]

    def empty(self) -> TileTable:
        """A table without rows."""
        none = np.empty(0, dtype=np.int64)
        ints = np.empty((len(self.int_fields), 0), dtype=np.int64)
        floats = np.empty((len(self.float_fields), 0), dtype=np.float64)
        blobs = {row: BlobRow(b"", none, none) for row in range(len(self.blob_fields))}
        return TileTable(self, none, none, ints, floats, self.blobs_of(blobs, 0))

    def blobs_of(self, rows: Mapping[int, BlobRow], count: int) -> Blobs:
        """The blob fields of `count` tiles, by row; buffers that differ are joined."""
        if not self.blob_fields:
            return Blobs(b"", np.empty((0, count), dtype=np.int64), np.empty((0, count), dtype=np.int64))
        fields = [rows[row] for row in range(len(self.blob_fields))]
        shifts, size = {}, 0
        distinct = {id(field.buffer): field.buffer for field in fields}
        for identity, buffer in distinct.items():
            shifts[identity] = size
            size += len(buffer)
        return Blobs(
            b"".join(distinct.values()),
            np.array([field.begins + shifts[id(field.buffer)] for field in fields], dtype=np.int64),
            np.array([field.ends + shifts[id(field.buffer)] for field in fields], dtype=np.int64),
        )


@dataclass(frozen=True, slots=True)
class Blobs:
    """The blob fields of N tiles as spans of one buffer.

    Attributes:
        buffer: holds all strings, in any order.
        begins, ends: (fields, N).
    """

    buffer: bytes
    begins: Int64Array
    ends: Int64Array

    def row(self, field: int) -> BlobRow:
        """One field."""
        return BlobRow(self.buffer, self.begins[field], self.ends[field])

    def take(self, rows: Array | slice) -> Blobs:
        """The given tiles."""
        return Blobs(self.buffer, _columns(self.begins, rows), _columns(self.ends, rows))


@dataclass(frozen=True, slots=True)
class TileTable:
    """N tiles; see the module docstring.

    Attributes:
        layout: meaning of the rows of the blocks.
        start_ms, end_ms: (N,) half-open spans; an event's tile is 1 ms wide.
        ints, floats: (fields, N).
        blobs: the blob fields.
        dropped_before_ms: tiles that ended at or before this were dropped.
    """

    layout: TileLayout
    start_ms: Int64Array
    end_ms: Int64Array
    ints: Int64Array
    floats: Float64Array
    blobs: Blobs
    dropped_before_ms: int = NOTHING_DROPPED_MS

    @property
    def count(self) -> int:
        """N."""
        return len(self.start_ms)

    def take(self, rows: Array | slice) -> TileTable:
        """The given rows (indices, mask or slice), in that order."""
        return TileTable(
            self.layout,
            self.start_ms[rows],
            self.end_ms[rows],
            _columns(self.ints, rows),
            _columns(self.floats, rows),
            self.blobs.take(rows),
            self.dropped_before_ms,
        )

    def merge_groups(self, starts: Int64Array, start_ms: Int64Array, end_ms: Int64Array) -> TileTable:
        """Merge runs of rows into one tile each.

        Args:
            starts: (G,) first row of each run, ascending from 0, none empty.
            start_ms: (G,) where the merged tiles begin.
            end_ms: (G,) where they end.

        Cost: O(N) for each field.
        """
        layout = self.layout
        ints = np.empty((self.ints.shape[0], len(starts)), dtype=np.int64)
        floats = np.empty((self.floats.shape[0], len(starts)), dtype=np.float64)
        for source, target, blocks in (
            (self.ints, ints, layout.int_blocks),
            (self.floats, floats, layout.float_blocks),
        ):
            for merge, ufunc in MERGE_UFUNCS.items():
                if blocks[merge].start < blocks[merge].stop:
                    ufunc.reduceat(source[blocks[merge]], starts, axis=1, out=target[blocks[merge]])
        blobs: dict[int, BlobRow] = {}
        for placed in layout.own_parts:
            merged = placed.part.merge_groups(self.fields(placed.fields), self.fields(placed.required), starts)
            for at, values in zip(placed.fields, merged, strict=True):
                _put(at, values, ints, floats, blobs)
        merged_blobs = layout.blobs_of(blobs, len(starts))
        return TileTable(layout, start_ms, end_ms, ints, floats, merged_blobs, self.dropped_before_ms)

    def normalize(self) -> TileTable:
        """The same tiles in their most compact form, for a body."""
        ints, floats = self.ints.copy(), self.floats.copy()
        blobs: dict[int, BlobRow] = {}
        for placed in self.layout.parts:
            compact = placed.part.normalize(self.fields(placed.fields))
            for at, values in zip(placed.fields, compact, strict=True):
                _put(at, values, ints, floats, blobs)
        compact_blobs = self.layout.blobs_of(blobs, self.count)
        return TileTable(self.layout, self.start_ms, self.end_ms, ints, floats, compact_blobs, self.dropped_before_ms)

    def fields(self, positions: Sequence[FieldPosition]) -> Sequence[FieldValues]:
        """Some fields, each fetched when asked for."""
        return _Fields(self, positions)


class _Fields(Sequence[FieldValues]):
    """Some fields of a table, fetched when asked for: merging ranges rarely needs all that a part has."""

    __slots__ = ("_positions", "_table")

    def __init__(self, table: TileTable, positions: Sequence[FieldPosition]) -> None:
        self._table = table
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> FieldValues: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[FieldValues]: ...
    def __getitem__(self, index: int | slice) -> FieldValues | Sequence[FieldValues]:
        """N values of one field."""
        if isinstance(index, slice):
            return _Fields(self._table, self._positions[index])
        at, table = self._positions[index], self._table
        values: FieldValues
        if at.storage is Storage.BLOB:
            values = table.blobs.row(at.row)
        else:
            values = (table.ints if at.storage is Storage.INT else table.floats)[at.row]
        return values


def _columns(block: Array, rows: Array | slice) -> Array:
    """Some columns of a block, C-contiguous as the compiled loops need it."""
    if isinstance(rows, slice):
        return np.ascontiguousarray(block[:, rows])
    # Indexing would lay the result out by rows; `take` keeps fields together and is several times faster.
    return block.take(np.flatnonzero(rows) if rows.dtype == np.bool_ else rows, axis=1)


def _put(at: FieldPosition, values: FieldValues, ints: Array, floats: Array, blobs: dict[int, BlobRow]) -> None:
    """Store one field's values in the block that its position names."""
    if isinstance(values, BlobRow):
        blobs[at.row] = values
    else:
        (ints if at.storage is Storage.INT else floats)[at.row] = values


def concatenate(tables: Sequence[TileTable]) -> TileTable:
    """All rows of tables of one layout; what any of them dropped counts for the result."""
    first = tables[0]
    if len(tables) == 1:
        return first
    return TileTable(
        first.layout,
        np.concatenate([table.start_ms for table in tables]),
        np.concatenate([table.end_ms for table in tables]),
        np.concatenate([table.ints for table in tables], axis=1),
        np.concatenate([table.floats for table in tables], axis=1),
        join_blobs([table.blobs for table in tables]),
        max(table.dropped_before_ms for table in tables),
    )


def join_blobs(blobs: Sequence[Blobs]) -> Blobs:
    """The blob fields of concatenated tables."""
    if not len(blobs[0].begins):
        return Blobs(b"", *np.empty((2, 0, sum(one.begins.shape[1] for one in blobs)), dtype=np.int64))
    shifts = [0, *itertools.accumulate(len(one.buffer) for one in blobs[:-1])]
    begins = np.concatenate([one.begins + shift for one, shift in zip(blobs, shifts, strict=True)], axis=1)
    ends = np.concatenate([one.ends + shift for one, shift in zip(blobs, shifts, strict=True)], axis=1)
    return Blobs(b"".join(one.buffer for one in blobs), begins, ends)
