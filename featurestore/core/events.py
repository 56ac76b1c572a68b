"""Decoded events as columns: what flows between source, fold and store.

One batch is a contiguous read of one source partition, [from_offset, next_offset). Rows that could not be
used are missing from the columns but are inside the range, so that a checkpoint can pass them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]
Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
ObjectArray = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class BlobRow:
    """N byte strings as spans of one buffer: selecting, sorting and concatenating them never touches the bytes.

    Attributes:
        buffer: holds them all, in any order.
        begins, ends: (N,) span of each.
    """

    buffer: bytes
    begins: Int64Array
    ends: Int64Array

    @staticmethod
    def of(values: Sequence[bytes] | ObjectArray | Int64Array | Float64Array | BlobRow) -> BlobRow:
        """Byte strings one after another; spans stay as they are."""
        if isinstance(values, BlobRow):
            return values
        lengths = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
        ends = np.cumsum(lengths)
        return BlobRow(b"".join(values), ends - lengths, ends)

    @staticmethod
    def consecutive(buffer: bytes, ends: Int64Array) -> BlobRow:
        """Byte strings that were written one after another, by where each ends."""
        begins = np.zeros(len(ends), dtype=np.int64)
        begins[1:] = ends[:-1]
        return BlobRow(buffer, begins, ends)

    def __len__(self) -> int:
        return len(self.begins)

    @overload
    def __getitem__(self, rows: int) -> bytes: ...
    @overload
    def __getitem__(self, rows: Int64Array | BoolArray | slice) -> BlobRow: ...
    def __getitem__(self, rows: int | Int64Array | BoolArray | slice) -> bytes | BlobRow:
        """One string, or the given rows (indices, mask or slice)."""
        if isinstance(rows, int):
            return self.buffer[self.begins[rows] : self.ends[rows]]
        return BlobRow(self.buffer, self.begins[rows], self.ends[rows])

    def keep(self, valid: BoolArray) -> BlobRow:
        """The same strings, empty where not valid."""
        return BlobRow(self.buffer, self.begins, np.where(valid, self.ends, self.begins))

    def arrays(self) -> tuple[NDArray[np.uint8], Int64Array, Int64Array]:
        """Bytes, begins and ends, as compiled loops take them."""
        return (
            np.frombuffer(self.buffer, np.uint8),
            np.ascontiguousarray(self.begins),
            np.ascontiguousarray(self.ends),
        )

    def joined(self, bounds: Int64Array) -> list[bytes]:
        """Those from each bound to the next one in one piece, of one or more strings that lie one after another.

        Args:
            bounds: (P + 1,) rows, ascending, from 0 to N.
        """
        edges, buffer = np.append(self.begins, self.ends[-1])[bounds].tolist(), self.buffer
        return [buffer[low:high] for low, high in itertools.pairwise(edges)]

    def values(self) -> list[bytes]:
        """All strings."""
        buffer = self.buffer
        return [buffer[low:high] for low, high in zip(self.begins.tolist(), self.ends.tolist(), strict=True)]


TEXT_BYTES_MAX = 65_535
"""Longest event id or text of an event; longer ones are refused where payloads are decoded, and null where computed."""


@dataclass(frozen=True, slots=True)
class ColumnValues:
    """One column of N rows.

    Attributes:
        values: (N,) int64 for INT64, BOOL (0/1) and TIMESTAMP (ms); float64 for FLOAT64; object (bytes, UTF-8)
            or spans for STRING. Null rows hold 0, 0.0 or b"".
        valid: (N,) False where the value is null; None when no row is null.
    """

    values: Int64Array | Float64Array | ObjectArray | BlobRow
    valid: BoolArray | None = None

    def take(self, rows: Int64Array | BoolArray) -> ColumnValues:
        """The given rows (indices or mask), in that order."""
        return ColumnValues(self.values[rows], None if self.valid is None else self.valid[rows])

    def storable(self) -> ColumnValues:
        """The column with null for what no payload may hold: doubles that are no finite number, and endless texts."""
        if isinstance(self.values, BlobRow):
            fits = self.values.ends - self.values.begins <= TEXT_BYTES_MAX
        elif self.values.dtype == np.float64:
            fits = np.isfinite(self.values)
        elif self.values.dtype == np.object_:
            fits = np.fromiter((len(value) <= TEXT_BYTES_MAX for value in self.values), np.bool_, len(self.values))
        else:
            return self
        if fits.all():
            return self
        valid = fits if self.valid is None else fits & self.valid
        if isinstance(self.values, BlobRow):
            return ColumnValues(self.values.keep(valid), valid)
        return ColumnValues(np.where(valid, self.values, b"" if self.values.dtype == np.object_ else 0.0), valid)


FAR_MS = 1 << 62
"""Later than any event; negated, earlier."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """Where the horizon of a partition stands, of a source whose events replace one another.

    Who goes on behind it reads from `begin` again, and knows all versions that can still be replaced.

    Attributes:
        begin: offset of an event newer than all before it, no later than the first version that is held.
        newest_ms: newest event time so far; -FAR_MS before the first.
        refused_ms: earliest event time since `begin` that was refused by the clock; FAR_MS where none was.
        is_whole: whether all versions that are held are known; not so where reading began behind some of them.
    """

    begin: int
    newest_ms: int = -FAR_MS
    refused_ms: int = FAR_MS
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class EventBatch:
    """N events of one source partition, in offset order.

    Attributes:
        topic: topic (or log) name.
        partition: partition number.
        from_offset: first offset of the read, inclusive.
        next_offset: where the next read begins.
        offsets: (N,) offset of each row, ascending, within [from_offset, next_offset).
        event_time_ms: (N,) event time.
        event_ids: (N,) canonical bytes of the event id as objects; None where the source declares none.
        columns: the columns that any view reads, each of N rows.
        horizon: of the partition at `next_offset`, where events replace one another.
    """

    topic: str
    partition: int
    from_offset: int
    next_offset: int
    offsets: Int64Array
    event_time_ms: Int64Array
    event_ids: ObjectArray | None
    columns: Mapping[str, ColumnValues]
    horizon: Horizon | None = None


@dataclass(frozen=True, slots=True)
class KeyedBatch:
    """The rows of an EventBatch that one writer of one view must fold, with their entity keys.

    Attributes:
        view: name of the view.
        topic, partition, from_offset, next_offset: the read that the rows come from; a writer's batches of one
            partition follow each other without a gap, empty ones included.
        offsets: (N,) offset of each row.
        event_time_ms: (N,) event time.
        event_ids: (N,) objects of bytes, or None.
        keys: K distinct canonical entity keys.
        key_index: (N,) index into `keys`.
        key_lanes: (K,) lane of each key.
        columns: the columns this view's aggregations read, each of N rows.
        horizon: see `EventBatch`.
    """

    view: str
    topic: str
    partition: int
    from_offset: int
    next_offset: int
    offsets: Int64Array
    event_time_ms: Int64Array
    event_ids: ObjectArray | None
    keys: tuple[bytes, ...]
    key_index: Int64Array
    key_lanes: Int64Array
    columns: Mapping[str, ColumnValues]
    horizon: Horizon | None = None
