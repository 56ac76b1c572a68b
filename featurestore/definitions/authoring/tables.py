"""Tables that events are enriched from, before anything is computed of them.

    rates = kafka_source(name="rates", topic="rates", event_time="valid_from", columns={...})
    payments = kafka_source(..., enrich={"fx": table(rates, on="currency", columns=["rate"])})

The payments have a column `fx_rate` then: that of the rates which was in force at their event time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feast import FileSource, KafkaSource
from feast.data_format import JsonFormat
from feast.data_source import DataSource

from featurestore.core.spec import Column, ValueType
from featurestore.definitions.compile.source import (
    CHANGE_COLUMNS,
    COLUMNS_TAG,
    ENRICH_TAG_PREFIX,
    TOPIC_COLUMN_TAG,
    WrittenTable,
    is_changed,
)
from featurestore.definitions.schemas.source_schema import DDL_NAMES, parse_source_schema
from featurestore.errors import InvalidRequest
from featurestore.wire.feast.registry import registered_source, registered_table


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Columns of a table, before it is known whose events get them.

    Attributes:
        written: what a tag of the source will say of them.
    """

    written: WrittenTable


def table(
    source: DataSource,
    *,
    on: str,
    columns: Sequence[str] | Mapping[str, str],
    key: str = "",
    names: Mapping[str, str] | None = None,
) -> TableColumns:
    """Columns of the row that is in force at an event's time.

    A row holds from its own time on, until the next one of its key. An event for which there is none gets nulls.

    Args:
        source: a `kafka_source` each record of which is a version of a row, from its event time on; or a FileSource of
            Parquet files with such rows.
        on: column of the events that names the row: a string or bigint.
        columns: which ones. Of a FileSource with their types: `{"rate": "double"}`.
        key: column of the table that `on` is compared with; default: of the same name.
        names: column -> what events call it; default: the name in `enrich`, "_" and the column's.

    Raises:
        InvalidRequest: the source is of another kind.
    """
    if isinstance(columns, str) or not isinstance(source, KafkaSource | FileSource):
        raise InvalidRequest(
            f"table() is given {'a text' if isinstance(columns, str) else type(source).__name__}",
            hint='write table(kafka_source or FileSource, on="currency", columns=["rate"])',
        )
    message = source.to_proto()
    types = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns, "")
    stream, files = None, None
    if isinstance(source, KafkaSource):
        stream = registered_source(message)
        known = {column.name: column.type for column in columns_of(source)}
        types = {name: text or DDL_NAMES[known[name]] if name in known else text for name, text in types.items()}
    else:
        files = registered_table(message)
    return TableColumns(WrittenTable(on, key or on, types, dict(names or {}), stream, files))


def table_tags(enrich: Mapping[str, TableColumns] | None) -> dict[str, str]:
    """A tag of each."""
    return {ENRICH_TAG_PREFIX + name: one.written.text() for name, one in (enrich or {}).items()}


def columns_of(source: KafkaSource) -> tuple[Column, ...]:
    """Columns of a source's payload; none where its schema has a mistake."""
    message_format = source.kafka_options.message_format
    of_json = message_format.schema_json if isinstance(message_format, JsonFormat) else ""
    try:
        columns = parse_source_schema(source.tags.get(COLUMNS_TAG, of_json)).columns
    except InvalidRequest:
        return ()
    mapping = source.field_mapping or {}
    named = [Column(mapping.get(column.name, column.name), column.type) for column in columns]
    topic_column = source.tags.get(TOPIC_COLUMN_TAG)
    generated = CHANGE_COLUMNS if is_changed(source.tags) else ()
    return (*named, *([Column(topic_column, ValueType.STRING)] if topic_column else []), *generated)
