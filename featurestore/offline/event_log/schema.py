"""Columns of a source's log, and decoded events as Arrow.

    topic, partition, offset     where the record is; unique together
    ingest_time_ms               when the stream that wrote the log read it; never falls within a partition
    event_time_ms                when it happened
    ...                          the source's own columns, in its order; TIMESTAMP as timestamp[ms, UTC]

`event_date` is the directory, as Hive has it, and no column of the files. Columns may be added to a source; the files
from before have nulls there. A column never changes its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from featurestore.core.events import BlobRow, ColumnValues, EventBatch
from featurestore.core.spec import SourceSpec, ValueType
from featurestore.errors import CorruptData, InvalidRequest

LAYOUT_VERSION = 1
"""Of names, commit records and columns; a log of another version is refused."""

POSITION_FIELDS: tuple[tuple[str, pa.DataType], ...] = (
    ("topic", pa.string()),
    ("partition", pa.int32()),
    ("offset", pa.int64()),
    ("ingest_time_ms", pa.int64()),
    ("event_time_ms", pa.int64()),
)
"""What every log has, in front of the source's columns."""

RESERVED = frozenset({*(name for name, _ in POSITION_FIELDS), "event_date"})

_ARROW_TYPES: Mapping[ValueType, pa.DataType] = {
    ValueType.INT64: pa.int64(),
    ValueType.FLOAT64: pa.float64(),
    ValueType.STRING: pa.string(),
    ValueType.BOOL: pa.bool_(),
    ValueType.TIMESTAMP: pa.timestamp("ms", tz="UTC"),
}


class _StoredSchema(msgspec.Struct, frozen=True):
    """Content of _schema.json."""

    version: int
    columns: dict[str, str]


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
    """The source's columns that the log holds beside its own; an event-time column called event_time_ms is its own."""
    return {
        column.name: column.type
        for column in source.columns
        if not (column.name == source.event_time_column == "event_time_ms" and column.type is ValueType.INT64)
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
    return pa.array(values, mask=mask).cast(kind)


def encode_schema(schema: pa.Schema) -> bytes:
    """Content of _schema.json."""
    stored = _StoredSchema(LAYOUT_VERSION, {field.name: str(field.type) for field in schema})
    return msgspec.json.format(msgspec.json.encode(stored))


def decode_schema(content: bytes) -> pa.Schema:
    """The schema of _schema.json.

    Raises:
        CorruptData: it is none, or of a version that this release does not know.
    """
    types = {str(kind): kind for kind in (*_ARROW_TYPES.values(), *(kind for _, kind in POSITION_FIELDS))}
    try:
        stored = msgspec.json.decode(content, type=_StoredSchema)
        if stored.version == LAYOUT_VERSION:
            return pa.schema([(name, types[text]) for name, text in stored.columns.items()])
    except (msgspec.DecodeError, KeyError) as error:
        raise CorruptData("the event log's _schema.json cannot be read", detail=str(error)) from error
    raise CorruptData(
        f"the event log has layout version {stored.version}, this release knows {LAYOUT_VERSION}",
        hint="use the release that wrote it",
    )


def merged_schema(stored: pa.Schema, wanted: pa.Schema) -> pa.Schema:
    """The stored columns, then those that are new.

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
