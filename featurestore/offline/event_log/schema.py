"""Columns of a source's log, and decoded events as Arrow.

    topic, partition, offset     where the record is; unique together, but for what an update undoes and does
    ingest_time_ms               when the stream that wrote the log read it; never falls within a partition
    event_time_ms                when it happened
    ...                          the source's own columns, in its order; TIMESTAMP as timestamp[us, UTC]
    event_date                   UTC date of the event time; the table is partitioned by it, and files do not hold it

Columns may be added to a source; the files from before have nulls there. A column never changes its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.core.events import BlobRow, ColumnValues, EventBatch
from featurestore.core.spec import SourceSpec, ValueType
from featurestore.errors import InvalidRequest

EVENT_DATE = "event_date"

POSITION_FIELDS: tuple[tuple[str, pa.DataType], ...] = (
    ("topic", pa.string()),
    ("partition", pa.int32()),
    ("offset", pa.int64()),
    ("ingest_time_ms", pa.int64()),
    ("event_time_ms", pa.int64()),
)
"""What every log has, in front of the source's columns."""

RESERVED = frozenset({*(name for name, _ in POSITION_FIELDS), EVENT_DATE})

_ARROW_TYPES: Mapping[ValueType, pa.DataType] = {
    ValueType.INT64: pa.int64(),
    ValueType.FLOAT64: pa.float64(),
    ValueType.STRING: pa.string(),
    ValueType.BOOL: pa.bool_(),
    ValueType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
}


def log_schema(source: SourceSpec) -> pa.Schema:
    """Columns of a source's log.

    Raises:
        InvalidRequest: a column of the source has the name of one of the log's own.
    """
    own = payload_columns(source)
    clash = sorted(RESERVED & set(own))
    if clash:
        raise InvalidRequest(
            f'column "{clash[0]}" of source "{source.name}" has the name of a column of the event log',
            hint=f"rename it; the log's own columns are {', '.join(sorted(RESERVED))}",
        )
    return pa.schema([*POSITION_FIELDS, *((name, _ARROW_TYPES[kind]) for name, kind in own.items())])


def payload_columns(source: SourceSpec) -> dict[str, ValueType]:
    """The source's columns that the log holds beside its own; an event-time column called event_time_ms is its own.

    What events get from tables is not among them: whoever reads the log looks it up again.
    """
    enriched = source.enriched
    return {
        column.name: column.type
        for column in source.columns
        if column.name not in enriched
        and not (column.name == source.event_time_column == "event_time_ms" and column.type is ValueType.INT64)
    }


def rows_of(events: EventBatch, schema: pa.Schema, *, ingest_time_ms: int) -> pa.RecordBatch:
    """Decoded events as rows of the log.

    Args:
        events: N events, decoded with all columns of the source.
        schema: of the log.
        ingest_time_ms: for all of them.

    Returns:
        N rows, in offset order.
    """
    count = len(events.offsets)
    own: dict[str, pa.Array] = {
        "topic": pa.repeat(pa.scalar(events.topic, pa.string()), count),
        "partition": pa.repeat(pa.scalar(events.partition, pa.int32()), count),
        "offset": pa.array(events.offsets),
        "ingest_time_ms": pa.repeat(pa.scalar(ingest_time_ms, pa.int64()), count),
        "event_time_ms": pa.array(events.event_time_ms),
    }
    arrays = [
        own[field.name] if field.name in own else _array(events.columns[field.name], field.type) for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(column: ColumnValues, kind: pa.DataType) -> pa.Array:
    """One column as Arrow; nulls where it is not valid."""
    values: Any = column.values.values() if isinstance(column.values, BlobRow) else column.values
    mask = None if column.valid is None else ~column.valid
    if pa.types.is_string(kind):
        # The bytes come from str.encode: they are UTF-8 without another look.
        texts = pa.array(values, type=pa.binary(), mask=mask, from_pandas=False)
        return pa.Array.from_buffers(pa.string(), len(texts), texts.buffers(), texts.null_count)
    if pa.types.is_boolean(kind):
        values = np.asarray(values).astype(np.bool_)
    found = pa.array(values, mask=mask)
    return found.cast(pa.timestamp("ms", tz="UTC")).cast(kind) if pa.types.is_timestamp(kind) else found.cast(kind)


def merged_schema(stored: pa.Schema, wanted: pa.Schema) -> pa.Schema:
    """The table's columns, then those that are new.

    Raises:
        InvalidRequest: a column has another type now.
    """
    for field in wanted:
        index = stored.get_field_index(field.name)
        if index >= 0 and stored.field(index).type != field.type:
            raise InvalidRequest(
                f'column "{field.name}" is {field.type} now, the event log has it as {stored.field(index).type}',
                hint="give the column another name, or write a new event log",
            )
    return pa.schema([*stored, *(field for field in wanted if field.name not in stored.names)])
