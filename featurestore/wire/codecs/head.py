"""The bytes of an entity's head: recent events, just the columns that its view reads, in order of arrival.

A head row is an event and not yet a tile, because a tile of a single event is several times its size (count, sum,
spread, time and id of the newest value, ...) and says nothing more. Rows become tiles when a reader lifts them, or
when compaction folds them into the body. All integers little-endian:

    row     check u1 | event time i8 | INT64, TIMESTAMP and FLOAT64 columns 8 bytes each | BOOL columns 1 byte each |
            null bits, one a column | string lengths u2 each | string bytes

    strings are the event id, where some part of the view compares ids, then the STRING columns; columns by name
    the check is the CRC-8 of the rest of the row: no flipped bit, and no run of up to eight, goes unnoticed
    the first row's check has its top bit turned over when the head began beside a body (the commit script does that),
    so that a body which vanishes is missed by its head; how a vanished head is missed by its body, see `body`

Without strings rows have one size, so a head is one numpy reshape; with them it still is, as long as the lengths
repeat (ids of one format, country codes), and is walked otherwise. The writer appends rows blindly: they need no order
and no uniqueness, because tiles merge.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurestore.core.events import TEXT_BYTES_MAX, BlobRow, ColumnValues, Float64Array, Int64Array, ObjectArray
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.lifting import Input
from featurestore.core.tiles.parts import EventRows, Lift, Merge, Storage
from featurestore.core.tiles.tiles import TileLayout, TileTable
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptTile, InvariantBroken
from featurestore.wire.codecs.head_kernels import (
    FLOAT,
    MOMENT,
    NO_COLUMN,
    PROGRAM_COLUMNS,
    STORED_BLOB,
    STORED_FLOAT,
    STORED_INT,
    WHOLE,
    WRONG_CHECK,
    check_head,
    check_rows,
    fill_head,
    put_spans,
)

ByteMatrix = NDArray[np.uint8]

ColumnTexts = Int64Array | Float64Array | ObjectArray | BlobRow
"""Values of a column that is one of texts."""

_KINDS = {ValueType.TIMESTAMP: MOMENT, ValueType.FLOAT64: FLOAT}
_STORED = {Storage.INT: STORED_INT, Storage.FLOAT: STORED_FLOAT, Storage.BLOB: STORED_BLOB}


@functools.lru_cache(maxsize=1_024)
def head_codec(view: CompiledView) -> HeadCodec:
    """The codec of a view's heads; made once for each compiled view."""
    return HeadCodec(view.event_columns, has_ids=view.layout.reads_event_ids, undo=view.layout.undo)


class Lifting(NamedTuple):
    """What `fill_head` needs to know of a layout."""

    program: Int64Array
    int_identities: Int64Array
    float_identities: Float64Array


RowColumn = tuple[Sequence[Any], bytes]
"""A column of N rows in Python: N numbers, or texts as bytes, 0 or b"" where null; and marks, empty where none is null,
else N bytes, not 0 where one is."""


class HeadCodec:
    """Rows of one view's heads.

    Args:
        columns: what rows hold beside event times.
        has_ids: whether they hold event ids.
        undo: the column that says which events undo an earlier one; None for none.

    Attributes:
        row_bytes_min: size of a row whose strings are empty.
        shape: the columns as `fill_head` knows them, and the kind of each 8-byte one.
        row_shape: that size, where the lengths of strings are, and how many strings there are.
    """

    def __init__(self, columns: Sequence[Column], *, has_ids: bool, undo: str | None) -> None:
        self._wide = [column for column in columns if column.type not in (ValueType.STRING, ValueType.BOOL)]
        self._flags = [column for column in columns if column.type is ValueType.BOOL]
        self._texts = [column for column in columns if column.type is ValueType.STRING]
        self._all: list[Column] = [*self._wide, *self._flags, *self._texts]
        self._has_ids = has_ids
        self._string_count = int(self._has_ids) + len(self._texts)
        self._flags_at = 1 + 8 * (1 + len(self._wide))
        self._nulls_at = self._flags_at + len(self._flags)
        self._lengths_at = self._nulls_at + (len(self._all) + 7) // 8
        self.row_bytes_min = self._lengths_at + 2 * self._string_count
        self.row_shape = (self.row_bytes_min, self._lengths_at, self._string_count)
        self._lengths = struct.Struct(f"<{self._string_count}H")
        wide = "".join("d" if column.type is ValueType.FLOAT64 else "q" for column in self._wide)
        self._unchecked = struct.Struct(
            f"<xq{wide}{len(self._flags)}B{self._lengths_at - self._nulls_at}s{self._string_count}H"
        )
        self._names = [column.name for column in self._all]
        self._numbers = [column.name for column in (*self._wide, *self._flags)]
        self._strings = [column.name for column in self._texts]
        self.shape = self.shape_with(undo)

    def shape_with(self, undo: str | None) -> Int64Array:
        """The columns as `fill_head` knows them, for events of which those undo others where a column is true."""
        return np.array(
            [
                len(self._wide),
                len(self._flags),
                len(self._texts),
                self._has_ids,
                self._flags_at,
                self._nulls_at,
                self._lengths_at,
                self.row_bytes_min,
                NO_COLUMN if undo is None else self._column_index(undo),
                *(_KINDS.get(column.type, WHOLE) for column in self._wide),
            ],
            dtype=np.int64,
        )

    def encode(self, rows: EventRows) -> BlobRow:
        """N rows one after another, ready to be appended.

        Raises:
            InvariantBroken: a string is longer than TEXT_BYTES_MAX.
        """
        count = rows.count
        fixed = np.zeros((count, self.row_bytes_min), dtype=np.uint8)
        wide = np.empty((count, 1 + len(self._wide)), dtype="<i8")
        wide[:, 0] = rows.event_time_ms
        for index, column in enumerate(self._wide, start=1):
            wide[:, index] = np.asarray(rows.columns[column.name].values).view(np.int64)
        fixed[:, 1 : self._flags_at] = wide.view(np.uint8)
        for index, column in enumerate(self._flags, start=self._flags_at):
            fixed[:, index] = np.asarray(rows.columns[column.name].values)
        self._encode_nulls(rows, fixed)
        checks: NDArray[np.uint8] = np.zeros(count, dtype=np.uint8)
        if not self._string_count:
            self._check(fixed, checks)
            return BlobRow.consecutive(fixed.tobytes(), self._fixed_ends(count))
        strings = self._strings_of(rows)
        lengths = np.stack([string.ends - string.begins for string in strings], axis=1)
        if count and int(lengths.max()) > TEXT_BYTES_MAX:
            raise InvariantBroken(f"a string of {int(lengths.max())} bytes does not fit a head row")
        fixed[:, self._lengths_at :] = np.ascontiguousarray(lengths.astype("<u2")).view(np.uint8)
        self._check(fixed, checks, strings)
        ends = np.cumsum(lengths.sum(axis=1) + self.row_bytes_min)
        whole = BlobRow.consecutive(b"", ends)
        out, at = np.empty(int(ends[-1]) if count else 0, dtype=np.uint8), whole.begins.copy()
        for part in (BlobRow.consecutive(fixed.tobytes(), self._fixed_ends(count)), *strings):
            put_spans(*part.arrays(), out, at)
        return replace(whole, buffer=out.tobytes())

    def encode_unchecked(self, times_ms: Sequence[int], columns: Mapping[str, RowColumn]) -> list[bytes]:
        """N rows without ids, to be lifted at once and never stored: without checks, and fast where N is small."""
        assert not self._has_ids
        null_bytes = self._lengths_at - self._nulls_at
        nulls = [0] * len(times_ms)
        for index, name in enumerate(self._names):
            if marks := columns[name][1]:
                for row, is_null in enumerate(marks):
                    nulls[row] |= (is_null != 0) << index
        numbers = [columns[name][0] for name in self._numbers]
        strings = [columns[name][0] for name in self._strings]
        rows = []
        for row, time_ms in enumerate(times_ms):
            texts = [column[row] for column in strings]
            fixed = self._unchecked.pack(
                time_ms,
                *[column[row] for column in numbers],
                nulls[row].to_bytes(null_bytes, "little"),
                *map(len, texts),
            )
            rows.append(b"".join((fixed, *texts)))
        return rows

    def decode(self, head: bytes) -> EventRows:
        """The events of a head, in order of arrival.

        Raises:
            CorruptTile: the bytes are not whole rows of this view.
        """
        size = self.row_bytes_min
        if not self._string_count:
            if len(head) % size:
                raise CorruptTile(f"head of {len(head)} bytes is not a whole number of rows of {size} bytes")
            return self._rows(np.frombuffer(head, np.uint8).reshape(-1, size), [])
        offsets = self._regular_offsets(head)
        if offsets is None:
            offsets = self._walk(head)
        fixed = np.frombuffer(head, np.uint8)[offsets[:, None] + np.arange(size)]
        lengths = np.ascontiguousarray(fixed[:, self._lengths_at :]).view("<u2").astype(np.int64)
        ends = (offsets + size)[:, None] + np.cumsum(lengths, axis=1)
        begins = ends - lengths
        return self._rows(fixed, [BlobRow(head, begins[:, n], ends[:, n]) for n in range(self._string_count)])

    def since(self, rows: bytes, from_ms: int) -> bytes:
        """The rows of a moment and later, in their order.

        Args:
            rows: whole rows of a pack's member, which none begins beside a body.
            from_ms: event time.
        """
        offsets = self._regular_offsets(rows)
        if offsets is None:
            offsets = self._walk(rows)
        bounds = [*offsets.tolist(), len(rows)]
        is_kept = (self.decode(rows).event_time_ms >= from_ms).tolist()
        return b"".join(rows[bounds[row] : bounds[row + 1]] for row, kept in enumerate(is_kept) if kept)

    def count_rows(self, head: bytes) -> tuple[int, bool]:
        """Number of events in a head, and whether it began beside a body.

        Raises:
            CorruptTile: the bytes are not whole rows of this view, as they were written.
        """
        data = np.frombuffer(head, np.uint8)
        found: int = check_head(data, self.row_bytes_min, self._lengths_at, self._string_count)
        if found == WRONG_CHECK:
            raise CorruptTile(f"a row of a head of {len(head)} bytes does not match its check")
        if found < 0:
            raise CorruptTile(f"head of {len(head)} bytes ends inside a row")
        return found >> 1, bool(found & 1)

    def lifting(self, layout: TileLayout) -> Lifting:
        """How rows become tiles of a layout that has the view's parts, or some of them."""
        identities = np.array([field.identity for field in layout.float_fields], dtype=np.float64)
        return Lifting(self._lifting_program(layout), layout.int_identities, identities)

    def lift_into(
        self,
        head: bytes,
        lifting: Lifting,
        table: TileTable,
        first: int,
        blob_shift: int,
        *,
        shape: Int64Array | None = None,
    ) -> bool:
        """Lift the events of a head into rows of a table, one tile of 1 ms each, in order of arrival.

        Args:
            head: whole rows (see `count_rows`).
            lifting: of the table's layout.
            table: receives the tiles; fields that parts lift themselves are left alone.
            first: the row of the first event.
            blob_shift: where the head begins in the table's buffer of strings.
            shape: what `shape_with` made; by default that of the codec.

        Returns:
            Whether the rows, those before `first` included, are ascending by start.
        """
        is_ascending: int = fill_head(
            np.frombuffer(head, np.uint8),
            self.shape if shape is None else shape,
            *lifting,
            first,
            blob_shift,
            table.start_ms,
            table.end_ms,
            table.ints,
            table.floats,
            table.blobs.begins,
            table.blobs.ends,
            np.empty(self._string_count + 2, dtype=np.int64),
        )
        return bool(is_ascending)

    def _lifting_program(self, layout: TileLayout) -> Int64Array:
        """What `fill_head` does for each field; see `head_kernels.PROGRAM_COLUMNS`."""
        steps = []
        for placed in layout.parts:
            for field, at in zip(placed.part.fields, placed.fields, strict=True):
                if field.lift is Lift.OWN:
                    continue
                column, condition = NO_COLUMN, NO_COLUMN
                if field.column is not None:
                    source = layout.conditional.get(field.column, Input(field.column, ""))
                    column = NO_COLUMN if source.column is None else self._column_index(source.column)
                    condition = self._column_index(source.where) if source.where else NO_COLUMN
                is_float = column != NO_COLUMN and self._all[column].type is ValueType.FLOAT64
                adds = field.merge is Merge.ADD
                steps.append((_STORED[at.storage], at.row, int(field.lift), column, condition, adds, is_float))
        return np.array(steps, dtype=np.int64).reshape(-1, PROGRAM_COLUMNS)

    def _column_index(self, name: str) -> int:
        """Position among the row's columns."""
        return next(index for index, column in enumerate(self._all) if column.name == name)

    def _rows(self, fixed: ByteMatrix, strings: list[BlobRow]) -> EventRows:
        """Columns from fixed parts and strings."""
        # Copied, so that columns can be written to and passed to compiled loops like any others.
        wide = fixed[:, 1 : self._flags_at].copy().view("<i8").T
        is_null = None
        nulls = fixed[:, self._nulls_at : self._lengths_at]
        if nulls.any():
            is_null = np.unpackbits(nulls, axis=1, count=len(self._all), bitorder="little").astype(np.bool_)
        flags = fixed[:, self._flags_at : self._nulls_at].T.astype(np.int64)
        columns = {}
        for index, column in enumerate(self._all):
            valid = None if is_null is None else ~is_null[:, index]
            if index < len(self._wide):
                numbers = wide[index + 1]
                if column.type is ValueType.FLOAT64:
                    columns[column.name] = ColumnValues(np.ascontiguousarray(numbers).view("<f8"), valid)
                else:
                    columns[column.name] = ColumnValues(numbers, valid)
            elif index < len(self._wide) + len(self._flags):
                columns[column.name] = ColumnValues(flags[index - len(self._wide)], valid)
            else:
                columns[column.name] = ColumnValues(strings[index - len(self._all)], valid)
        return EventRows(wide[0], strings[0] if self._has_ids else None, columns)

    def _check(self, fixed: ByteMatrix, checks: NDArray[np.uint8], strings: Sequence[BlobRow] = ()) -> None:
        """Write every row's check, over the rest of its fixed part and its strings."""
        ends = self._fixed_ends(len(fixed))
        for part in (BlobRow(fixed.tobytes(), ends - self.row_bytes_min + 1, ends), *strings):
            check_rows(*part.arrays(), checks)
        fixed[:, 0] = checks

    def _fixed_ends(self, count: int) -> Int64Array:
        """Where each of N rows without strings ends."""
        return np.arange(1, count + 1, dtype=np.int64) * self.row_bytes_min

    def _encode_nulls(self, rows: EventRows, fixed: ByteMatrix) -> None:
        """Set the null bits."""
        for index, column in enumerate(self._all):
            valid = rows.columns[column.name].valid
            if valid is not None:
                fixed[:, self._nulls_at + index // 8] |= (~valid).astype(np.uint8) << (index % 8)

    def _strings_of(self, rows: EventRows) -> list[BlobRow]:
        """Ids and texts, in the order of the row."""
        texts = [rows.columns[column.name].values for column in self._texts]
        ids = [b""] * rows.count if rows.event_ids is None else rows.event_ids
        return [BlobRow.of(values) for values in ([ids] if self._has_ids else []) + texts]

    def _regular_offsets(self, head: bytes) -> Int64Array | None:
        """Where rows begin if all have the string lengths of the first; None if they do not."""
        if len(head) < self.row_bytes_min:
            return None
        stride = self.row_bytes_min + sum(self._lengths.unpack_from(head, self._lengths_at))
        if len(head) % stride:
            return None
        lengths = np.frombuffer(head, np.uint8).reshape(-1, stride)[:, self._lengths_at : self.row_bytes_min]
        if (lengths != lengths[0]).any():
            return None
        return np.arange(0, len(head), stride)

    def _walk(self, head: bytes) -> Int64Array:
        """Where rows begin, one after another."""
        offsets, at, size = [], 0, len(head)
        unpack, lengths_at, fixed = self._lengths.unpack_from, self._lengths_at, self.row_bytes_min
        while at + fixed <= size:
            offsets.append(at)
            at += fixed + sum(unpack(head, at + lengths_at))
        if at != size:
            raise CorruptTile(f"head of {size} bytes ends inside a row")
        return np.array(offsets, dtype=np.int64)
