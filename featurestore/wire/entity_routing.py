"""Events to entity keys: which rows of a batch a view can use, whose they are, and which writer folds them.

    EventBatch -> with_computed -> refused_rows -> key_events -> KeyedBatch -> split_by_writer -> one for each writer

Keys are made once per distinct value of a batch, not once per event. All functions are pure; a refusal concerns one
view only, the other views still get the row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import TypeVar

import numpy as np

from featurestore.core.events import BlobRow, BoolArray, ColumnValues, EventBatch, Int64Array, KeyedBatch
from featurestore.core.inputs import view_inputs
from featurestore.core.spec import ViewSpec
from featurestore.wire.entity_key import KEY_BYTES_MAX, join_parts, lanes_of
from featurestore.wire.payloads import DeadLetterReason

WATERMARK_MS_UNKNOWN = -(2**62)
"""Watermark of a partition of which nothing has been read: nothing is beyond retention yet."""

_Row = TypeVar("_Row")

_INT64_DIGITS_MAX = 20
_LENGTH_PREFIX_BYTES_MAX = 5
"""An INT64 in decimal, and "1024:", the longest prefix of a part of a key."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that one view cannot use: index in its EventBatch, and why."""

    row: int
    reason: DeadLetterReason
    detail: str


class PartitionWatermark:
    """Newest event time read from one partition; never falls.

    It starts anew with the process. That is harmless: until events have raised it again, an event beyond retention is
    folded instead of refused, into a tile that no window reaches and that the next compaction drops.
    """

    def __init__(self) -> None:
        self.watermark_ms = WATERMARK_MS_UNKNOWN

    def advance(self, event_time_ms: Int64Array) -> Int64Array:
        """The watermark at each of N events, itself included.

        Per row, not per batch, so that where a read happens to end never decides about an event.
        """
        if len(event_time_ms) == 0:
            return event_time_ms
        running: Int64Array = np.maximum(np.maximum.accumulate(event_time_ms), self.watermark_ms)
        self.watermark_ms = int(running[-1])
        return running


def refused_rows(batch: EventBatch, view: ViewSpec, watermark_ms: Int64Array) -> list[RefusedRow]:
    """Rows of the batch that should be this view's and that it cannot use, ascending.

    Args:
        batch: N events, from `with_computed`.
        view: the view.
        watermark_ms: (N,) watermark of the partition at each event.
    """
    refused: dict[int, RefusedRow] = {}
    for key in view.join_keys:
        column = batch.columns[key.name]
        if column.valid is not None:
            for row in np.flatnonzero(~column.valid).tolist():
                detail = f"{key.name} is null or absent"
                refused.setdefault(row, RefusedRow(row, DeadLetterReason.MISSING_JOIN_KEY, detail))
    for row in _rows_of_long_keys([batch.columns[key.name] for key in view.join_keys]):
        detail = f"its entity key is longer than {KEY_BYTES_MAX} bytes"
        refused.setdefault(row, RefusedRow(row, DeadLetterReason.KEY_TOO_LONG, detail))
    if view.retention_ms is not None:
        kept_ms = view.retention_ms + view.lookback_ms
        behind_ms = watermark_ms - batch.event_time_ms
        for row in np.flatnonzero(behind_ms > kept_ms).tolist():
            detail = f"event is {int(behind_ms[row])} ms older than its partition's newest, {kept_ms} are kept"
            refused.setdefault(row, RefusedRow(row, DeadLetterReason.BEYOND_RETENTION, detail))
    selected = view_inputs(view).selected(batch.columns, len(batch.offsets)) if refused else None
    return [refused[row] for row in sorted(refused) if selected is None or selected[row]]


def columns_read(view: ViewSpec) -> tuple[str, ...]:
    """Payload columns behind a view's features, conditions and join keys."""
    return view_inputs(view).payload_columns


def with_computed(batch: EventBatch, views: Sequence[ViewSpec]) -> EventBatch:
    """The batch with all that views of its source compute from its columns; each column is computed once."""
    columns = dict(batch.columns)
    for view in views:
        view_inputs(view).compute(columns, len(batch.offsets))
    return replace(batch, columns=columns)


def key_events(
    batch: EventBatch, view: ViewSpec, lane_count: int, refused: Sequence[RefusedRow] | None = None
) -> KeyedBatch:
    """The rows that a view can use, with their entity keys.

    Args:
        batch: N events, from `with_computed`.
        view: the view.
        lane_count: lanes of the store.
        refused: rows to leave out, from `refused_rows`; None leaves out those without a usable key.

    Returns:
        One KeyedBatch with the batch's whole offset range, possibly of no rows.
    """
    if refused is None:
        refused = refused_rows(batch, view, np.full(len(batch.offsets), WATERMARK_MS_UNKNOWN, dtype=np.int64))
    inputs = view_inputs(view)
    selected = inputs.selected(batch.columns, len(batch.offsets))
    rows = None if not refused and selected is None else _usable_rows(len(batch.offsets), refused, selected)

    def kept(column: ColumnValues) -> ColumnValues:
        """The column without the refused rows."""
        return column if rows is None else column.take(rows)

    keys, key_index = entity_keys([kept(batch.columns[key.name]) for key in view.join_keys])
    event_ids = batch.event_ids
    return KeyedBatch(
        view=view.name,
        topic=batch.topic,
        partition=batch.partition,
        from_offset=batch.from_offset,
        next_offset=batch.next_offset,
        offsets=batch.offsets if rows is None else batch.offsets[rows],
        event_time_ms=batch.event_time_ms if rows is None else batch.event_time_ms[rows],
        event_ids=event_ids if rows is None or event_ids is None else event_ids[rows],
        keys=keys,
        key_index=key_index,
        key_lanes=lanes_of(keys, lane_count),
        columns={column.name: kept(batch.columns[column.name]) for column in inputs.event_columns},
        horizon=batch.horizon,
    )


def split_by_writer(keyed: KeyedBatch, writer_count: int) -> list[KeyedBatch]:
    """One KeyedBatch for each writer, in writer order; writer w folds the lanes with lane % writer_count == w.

    Every writer gets the whole offset range, with no rows if need be: that is how its checkpoint keeps up.
    """
    if writer_count == 1:
        return [keyed]
    key_writer = keyed.key_lanes % writer_count
    row_writer = key_writer[keyed.key_index]
    return [_part(keyed, key_writer == writer, np.flatnonzero(row_writer == writer)) for writer in range(writer_count)]


def _part(keyed: KeyedBatch, is_own_key: BoolArray, rows: Int64Array) -> KeyedBatch:
    """The given rows, and the keys they point to, renumbered."""
    new_index = np.cumsum(is_own_key) - 1
    return KeyedBatch(
        view=keyed.view,
        topic=keyed.topic,
        partition=keyed.partition,
        from_offset=keyed.from_offset,
        next_offset=keyed.next_offset,
        offsets=keyed.offsets[rows],
        event_time_ms=keyed.event_time_ms[rows],
        event_ids=None if keyed.event_ids is None else keyed.event_ids[rows],
        keys=tuple(compress(keyed.keys, is_own_key.tolist())),
        key_index=new_index[keyed.key_index[rows]],
        key_lanes=keyed.key_lanes[is_own_key],
        columns={name: column.take(rows) for name, column in keyed.columns.items()},
        horizon=keyed.horizon,
    )


def entity_keys(columns: Sequence[ColumnValues]) -> tuple[tuple[bytes, ...], Int64Array]:
    """K distinct canonical keys in order of first use, and the (N,) index of each row's key.

    Same bytes as entity_key.encode_key, which a test holds it to; STRING columns are UTF-8 already.
    """
    if len(columns) == 1:
        values, key_index = _distinct(_list_of(columns[0]))
        return tuple(map(_canonical, values)), key_index
    rows, key_index = _distinct(list(zip(*map(_list_of, columns), strict=True)))
    return tuple(join_parts([_canonical(value) for value in row]) for row in rows), key_index


def _distinct(rows: Sequence[_Row]) -> tuple[Collection[_Row], Int64Array]:
    """K distinct rows in order of first use, and the (N,) index of each row among them."""
    distinct = dict.fromkeys(rows)
    index = dict(zip(distinct, range(len(distinct)), strict=True))
    return distinct, np.fromiter(map(index.__getitem__, rows), dtype=np.int64, count=len(rows))


def _list_of(column: ColumnValues) -> list[object]:
    """N values of a join key: bytes or int."""
    if isinstance(column.values, BlobRow):
        return [column.values[row] for row in range(len(column.values))]
    values: list[object] = column.values.tolist()
    return values


def _longest_bytes(column: ColumnValues) -> int:
    """A bound on the bytes of a join key's longest value, cheaply."""
    if isinstance(column.values, BlobRow):
        return int((column.values.ends - column.values.begins).max(initial=0))
    if column.values.dtype == np.object_:
        return max(map(len, column.values.tolist()), default=0)
    return _INT64_DIGITS_MAX


def _canonical(value: object) -> bytes:
    """Bytes of one join-key value as a column holds it."""
    if isinstance(value, bytes):
        return value
    assert isinstance(value, int), "join keys are STRING or INT64"
    return b"%d" % value


def _rows_of_long_keys(columns: Sequence[ColumnValues]) -> list[int]:
    """Rows whose entity key is over the limit; keys are only made here when a long text makes that possible."""
    longest = [_longest_bytes(column) for column in columns]
    if sum(longest) + _LENGTH_PREFIX_BYTES_MAX * len(columns) <= KEY_BYTES_MAX:
        return []
    keys, key_index = entity_keys(columns)
    is_long = np.fromiter((len(key) > KEY_BYTES_MAX for key in keys), dtype=np.bool_, count=len(keys))
    rows: list[int] = np.flatnonzero(is_long[key_index]).tolist()
    return rows


def _usable_rows(count: int, refused: Sequence[RefusedRow], selected: BoolArray | None) -> Int64Array:
    """Indices of the rows that are the view's and were not refused."""
    is_kept = np.ones(count, dtype=np.bool_) if selected is None else selected.copy()
    is_kept[[refusal.row for refusal in refused]] = False
    return np.flatnonzero(is_kept)
