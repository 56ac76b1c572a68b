"""Naive events as the columns and payloads that the rest of the system takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from featurestore.core.events import ColumnValues, EventBatch, Int64Array, KeyedBatch, ObjectArray
from featurestore.core.inputs import view_inputs
from featurestore.core.spec import Column, SourceSpec, ValueType, ViewSpec
from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue
from featurestore.wire.entity_key import decode_key, lanes_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def event_batch(
    view: ViewSpec, events: Sequence[NaiveEvent], *, partition: int = 0, from_offset: int = 0
) -> EventBatch:
    """N events as one read of a source partition, at consecutive offsets.

    Args:
        view: decides the columns: its features' and its join keys'.
        events: in arrival order.
        partition: partition number; the topic is the view's source's.
        from_offset: offset of the first event.
    """
    columns = event_columns(_reads(view), events)
    for index, column in enumerate(view.join_keys):
        parts = [decode_key(event.key, view.join_keys)[index] for event in events]
        columns[column.name] = _values(column, parts)
    return EventBatch(
        topic=view.source.topic,
        partition=partition,
        from_offset=from_offset,
        next_offset=from_offset + len(events),
        offsets=np.arange(from_offset, from_offset + len(events), dtype=np.int64),
        event_time_ms=event_times_ms(events),
        event_ids=_ids(view.source, events),
        columns=columns,
    )


def keyed_batch(
    view: ViewSpec, events: Sequence[NaiveEvent], *, partition: int = 0, from_offset: int = 0, lane_count: int = 16
) -> KeyedBatch:
    """N events as the part of such a read that one writer of the view folds; here it takes all that are the view's.

    Args:
        view: the view; decides the columns.
        events: in arrival order.
        partition: partition number.
        from_offset: offset of the first event.
        lane_count: number of lanes of the store.
    """
    inputs = view_inputs(view)
    columns = event_columns(_reads(view), events)
    inputs.compute(columns, len(events))
    selected = inputs.selected(columns, len(events))
    rows = np.arange(len(events)) if selected is None else np.flatnonzero(selected)
    chosen = [events[row] for row in rows.tolist()]
    keys = tuple(dict.fromkeys(event.key for event in chosen))
    position = {key: index for index, key in enumerate(keys)}
    return KeyedBatch(
        view=view.name,
        topic=view.source.topic,
        partition=partition,
        from_offset=from_offset,
        next_offset=from_offset + len(events),
        offsets=from_offset + rows,
        event_time_ms=event_times_ms(chosen),
        event_ids=_ids(view.source, chosen),
        keys=keys,
        key_index=np.array([position[event.key] for event in chosen], dtype=np.int64),
        key_lanes=lanes_of(keys, lane_count),
        columns={column.name: columns[column.name].take(rows) for column in inputs.event_columns},
    )


def event_columns(columns: Sequence[Column], events: Sequence[NaiveEvent]) -> dict[str, ColumnValues]:
    """Some columns of N events, nulls and NaN marked invalid."""
    return {column.name: _values(column, [event.columns.get(column.name) for event in events]) for column in columns}


def payloads(view: ViewSpec, events: Sequence[NaiveEvent]) -> list[bytes]:
    """The events as JSON records of the view's source: what a producer would have sent.

    Every column of the source is written, nulls as null; NaN, which JSON cannot say, as null.
    """
    source = view.source
    records = []
    for event in events:
        record = {column.name: _json_value(column, event.columns.get(column.name)) for column in source.columns}
        for column, part in zip(view.join_keys, decode_key(event.key, view.join_keys), strict=True):
            record[column.name] = part
        time_column = source.column(source.event_time_column)
        assert time_column is not None, "a source has its event time column"
        record[time_column.name] = _json_value(time_column, event.event_time_ms)
        if source.event_id_column is not None and event.event_id is not None:
            record[source.event_id_column] = event.event_id.decode()
        records.append(json.dumps(record, ensure_ascii=False).encode())
    return records


def iso_time(event_time_ms: int) -> str:
    """A moment as sources write it: ISO 8601, milliseconds, UTC.

    >>> iso_time(1_767_225_600_123)
    '2026-01-01T00:00:00.123Z'
    """
    moment = _EPOCH + timedelta(milliseconds=event_time_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{event_time_ms % 1000:03d}Z"


def _reads(view: ViewSpec) -> list[Column]:
    """The payload columns behind the view's features and conditions, without its join keys."""
    keys = {key.name for key in view.join_keys}
    names = set(view_inputs(view).payload_columns) - keys
    return [column for column in view.source.columns if column.name in names]


def event_times_ms(events: Sequence[NaiveEvent]) -> Int64Array:
    """(N,) event times."""
    return np.array([event.event_time_ms for event in events], dtype=np.int64)


def _ids(source: SourceSpec, events: Sequence[NaiveEvent]) -> ObjectArray | None:
    if source.event_id_column is None:
        return None
    ids = np.empty(len(events), dtype=np.object_)
    ids[:] = [event.event_id for event in events]
    return ids


def _values(column: Column, values: Sequence[NaiveValue | None]) -> ColumnValues:
    """One column: nulls (and NaN) become the type's zero, marked invalid."""
    is_valid = np.array([value is not None and value == value for value in values], dtype=np.bool_)
    valid = None if is_valid.all() else is_valid
    if column.type is ValueType.STRING:
        texts = np.empty(len(values), dtype=np.object_)
        texts[:] = [str(value).encode() if ok else b"" for value, ok in zip(values, is_valid, strict=True)]
        return ColumnValues(texts, valid)
    filled = [value if ok else 0 for value, ok in zip(values, is_valid, strict=True)]
    if column.type is ValueType.FLOAT64:
        return ColumnValues(np.array(filled, dtype=np.float64), valid)
    return ColumnValues(np.array(filled, dtype=np.int64), valid)


def _json_value(column: Column, value: NaiveValue | None) -> NaiveValue | bool | None:
    if value is None or value != value:
        return None
    if column.type is ValueType.BOOL:
        return bool(value)
    if column.type is ValueType.TIMESTAMP:
        return iso_time(int(value))
    return value
