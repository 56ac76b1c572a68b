"""Tiles of one or many entity keys as columns, and the one way to merge them.

    row          0        1         2        3
    start_ms     [0       60000     75000    81234
    end_ms        60000   75000     80000    81235        half-open spans; ends need not touch the next start
    ints      (fields, rows)  ADD rows first, then MIN, MAX, OWN, so that a block merges in one numpy call
    floats    (fields, rows)  likewise
    blobs     one object array of bytes a field

Folding events, compacting a body and answering a window are the same operation on this table: merge runs (or ranges)
of rows. Two tables of one layout can always be concatenated; rows need no order until they are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.events import Float64Array, Int64Array, ObjectArray
from featurestore.core.parts import Array, EventRows, Field, Merge, Part, Storage

NOTHING_DROPPED_MS = -(1 << 63)
"""`dropped_before_ms` of a table from which nothing was ever dropped."""

_MERGE_ORDER = (Merge.ADD, Merge.MIN, Merge.MAX, Merge.OWN)


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


class TileLayout:
    """The fields a view's tiles keep, in canonical order.

    Args:
        parts: the parts of all features, repeats welcome; what they require is added.

    Attributes:
        parts: distinct parts by key, with the position of every field.
        int_fields, float_fields, blob_fields: fields in storage order.
        int_add_count: number of leading integer fields that merge by ADD.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        distinct = {part.key: part for given in parts for part in (*given.requires, given)}
        ordered = [distinct[key] for key in sorted(distinct)]
        placed = [
            (part, field) for merge in _MERGE_ORDER for part in ordered for field in part.fields if field.merge is merge
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
        self.int_blocks = _blocks_of(self.int_fields)
        self.int_add_count = sum(field.merge is Merge.ADD for field in self.int_fields)
        self.float_blocks = _blocks_of(self.float_fields)
        self._by_key = {placed_part.part.key: placed_part for placed_part in self.parts}

    def position_of(self, part: Part) -> PartPosition:
        """Where that part lives."""
        return self._by_key[part.key]

    def lift(self, rows: EventRows) -> TileTable:
        """One tile an event: N rows of width 1 ms, in the order of the events."""
        ints = np.empty((len(self.int_fields), rows.count), dtype=np.int64)
        floats = np.empty((len(self.float_fields), rows.count), dtype=np.float64)
        blobs = [np.empty(0, dtype=np.object_)] * len(self.blob_fields)
        for placed in self.parts:
            for at, values in zip(placed.fields, placed.part.lift(rows), strict=True):
                if at.storage is Storage.INT:
                    ints[at.row] = values
                elif at.storage is Storage.FLOAT:
                    floats[at.row] = values
                else:
                    blobs[at.row] = values
        return TileTable(self, rows.event_time_ms, rows.event_time_ms + 1, ints, floats, tuple(blobs))

    def empty(self) -> TileTable:
        """A table without rows."""
        none = np.empty(0, dtype=np.int64)
        ints = np.empty((len(self.int_fields), 0), dtype=np.int64)
        floats = np.empty((len(self.float_fields), 0), dtype=np.float64)
        blobs = tuple(np.empty(0, dtype=np.object_) for _ in self.blob_fields)
        return TileTable(self, none, none, ints, floats, blobs)


def _blocks_of(fields: Sequence[Field]) -> dict[Merge, slice]:
    """The contiguous rows of each kind of merge."""
    blocks, begin = {}, 0
    for merge in _MERGE_ORDER:
        size = sum(field.merge is merge for field in fields)
        blocks[merge] = slice(begin, begin + size)
        begin += size
    return blocks


@dataclass(frozen=True, slots=True)
class Accumulators:
    """Merged fields of W windows (or G groups): `ints` (fields, W), `floats` (fields, W), `blobs` W each."""

    ints: Int64Array
    floats: Float64Array
    blobs: tuple[ObjectArray, ...]

    def field(self, at: FieldPosition) -> Array:
        """One field, (W,)."""
        return _field_of(self.ints, self.floats, self.blobs, at)


@dataclass(frozen=True, slots=True)
class TileTable:
    """N tiles; see the module docstring.

    Attributes:
        layout: meaning of the rows of the blocks.
        start_ms, end_ms: (N,) half-open spans; an event's tile is 1 ms wide.
        ints, floats: (fields, N).
        blobs: per blob field (N,) objects of bytes.
        dropped_before_ms: tiles that ended at or before this were dropped.
    """

    layout: TileLayout
    start_ms: Int64Array
    end_ms: Int64Array
    ints: Int64Array
    floats: Float64Array
    blobs: tuple[ObjectArray, ...]
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
            self.ints[:, rows],
            self.floats[:, rows],
            tuple(blob[rows] for blob in self.blobs),
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
        ints = np.empty((self.ints.shape[0], len(starts)), dtype=np.int64)
        floats = np.empty((self.floats.shape[0], len(starts)), dtype=np.float64)
        blobs = [np.empty(0, dtype=np.object_)] * len(self.blobs)
        for source, target, blocks in (
            (self.ints, ints, self.layout.int_blocks),
            (self.floats, floats, self.layout.float_blocks),
        ):
            for merge, ufunc in _UFUNCS.items():
                if blocks[merge].start < blocks[merge].stop:
                    ufunc.reduceat(source[blocks[merge]], starts, axis=1, out=target[blocks[merge]])
        self._merge_own(ints, floats, blobs, lambda part, mine, required: part.merge_groups(mine, required, starts))
        return TileTable(self.layout, start_ms, end_ms, ints, floats, tuple(blobs), self.dropped_before_ms)

    def merge_ranges(self, lows: Int64Array, highs: Int64Array) -> Accumulators:
        """Merge W ranges [lows[w], highs[w]) of rows, which may overlap or be empty.

        Integer sums come from one running sum and a subtraction, which is exact in wrapping arithmetic. Floats, minima
        and maxima are never subtracted: `reduceat` over (low, high) pairs merges just the rows of each range.
        """
        width = len(lows)
        layout = self.layout
        ints = np.empty((self.ints.shape[0], width), dtype=np.int64)
        floats = np.empty((self.floats.shape[0], width), dtype=np.float64)
        added = layout.int_add_count
        if added:
            running = np.zeros((added, self.count + 1), dtype=np.int64)
            np.cumsum(self.ints[:added], axis=1, out=running[:, 1:])
            np.subtract(running[:, highs], running[:, lows], out=ints[:added])
        if layout.int_blocks[Merge.OWN].start > added or layout.float_blocks[Merge.OWN].start > 0:
            pairs = np.empty(2 * width, dtype=np.int64)
            pairs[0::2], pairs[1::2] = lows, highs
            empty = lows >= highs
            for merge, ufunc in _UFUNCS.items():
                if merge is not Merge.ADD:
                    _reduce_pairs(ufunc, self.ints, layout.int_fields, layout.int_blocks[merge], pairs, empty, ints)
                _reduce_pairs(ufunc, self.floats, layout.float_fields, layout.float_blocks[merge], pairs, empty, floats)
        blobs = [np.empty(0, dtype=np.object_)] * len(self.blobs)
        self._merge_own(
            ints, floats, blobs, lambda part, mine, required: part.merge_ranges(mine, required, lows, highs)
        )
        return Accumulators(ints, floats, tuple(blobs))

    def normalize(self) -> TileTable:
        """The same tiles in their most compact form, for a body."""
        ints, floats, blobs = self.ints.copy(), self.floats, list(self.blobs)
        for placed in self.layout.parts:
            compact = placed.part.normalize([self._field(at) for at in placed.fields])
            for at, values in zip(placed.fields, compact, strict=True):
                if at.storage is Storage.INT:
                    ints[at.row] = values
        return TileTable(self.layout, self.start_ms, self.end_ms, ints, floats, tuple(blobs), self.dropped_before_ms)

    def _field(self, at: FieldPosition) -> Array:
        """One field, (N,)."""
        return _field_of(self.ints, self.floats, self.blobs, at)

    def _merge_own(
        self,
        ints: Int64Array,
        floats: Float64Array,
        blobs: list[ObjectArray],
        merge: Callable[[Part, list[Array], list[Array]], tuple[Array, ...]],
    ) -> None:
        """Fill the OWN rows of the results."""
        for placed in self.layout.own_parts:
            mine = [self._field(at) for at in placed.fields]
            required = [self._field(at) for at in placed.required]
            for at, values in zip(placed.fields, merge(placed.part, mine, required), strict=True):
                if at.storage is Storage.INT:
                    ints[at.row] = values
                elif at.storage is Storage.FLOAT:
                    floats[at.row] = values
                else:
                    blobs[at.row] = values


def _field_of(ints: Int64Array, floats: Float64Array, blobs: Sequence[ObjectArray], at: FieldPosition) -> Array:
    """The row of the block that a position names."""
    if at.storage is Storage.INT:
        return np.asarray(ints[at.row])
    return np.asarray(floats[at.row] if at.storage is Storage.FLOAT else blobs[at.row])


_UFUNCS: dict[Merge, np.ufunc] = {Merge.ADD: np.add, Merge.MIN: np.minimum, Merge.MAX: np.maximum}


def _reduce_pairs(
    ufunc: np.ufunc, source: Array, fields: Sequence[Field], block: slice, pairs: Int64Array, empty: Array, out: Array
) -> None:
    """Reduce the rows of one block over (low, high) pairs into `out`; identities where a range is empty."""
    if block.start == block.stop:
        return
    identities = np.array([[field.identity] for field in fields[block]], dtype=source.dtype)
    # One more column keeps `high == N` a legal index.
    padded = np.concatenate((source[block], identities), axis=1)
    out[block] = np.where(empty, identities, ufunc.reduceat(padded, pairs, axis=1)[:, ::2])


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
        tuple(np.concatenate(columns) for columns in zip(*(table.blobs for table in tables), strict=True)),
        max(table.dropped_before_ms for table in tables),
    )
