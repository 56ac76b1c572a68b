"""`kafka_source`: a stream and its columns in a few lines, as a Feast object; what Feast has no field for is a tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from feast import FileSource, KafkaSource
from feast.data_format import AvroFormat, JsonFormat, ProtoFormat, StreamFormat
from feast.data_source import DataSource

from featurestore.core.spec import Column
from featurestore.definitions.authoring.expectations import ExpectedOfHours, ExpectedOfRecords, expectation_tags
from featurestore.definitions.authoring.parts import Named, ReadFrom, several
from featurestore.definitions.authoring.tables import TableColumns, table_tags
from featurestore.definitions.compile.expressions import COMPUTED_TAG_PREFIX
from featurestore.definitions.compile.source import (
    CHANGES_TAG,
    COLUMNS_TAG,
    DEDUP_HORIZON_TAG,
    EVENT_ID_TAG,
    EVENT_TIME_UNIT_TAG,
    FORMAT_TAG,
    JSON_SCHEMA,
    MAX_FUTURE_TAG,
    ON_DUPLICATE_TAG,
    RECORDS_TAG,
    SCHEMA_REGISTRY_TAG,
    SUBJECT_NAME_TAG,
    TOPIC_COLUMN_TAG,
    TOPIC_TAG_PREFIX,
    UNIT_TAG_PREFIX,
    topic_text,
)
from featurestore.definitions.schemas.source_schema import COLUMN_TYPES, avro_schema, format_source_schema
from featurestore.errors import InvalidRequest


class Read(ReadFrom):
    """What says of a source where its events are, and how they are read."""

    message_format: StreamFormat
    field_mapping: dict[str, str]
    batch_source: DataSource


def kafka_source(
    *,
    name: str,
    topic: str,
    columns: Mapping[str, str],
    event_time: str,
    event_time_unit: str = "",
    event_id: str = "",
    dedup_horizon: str = "",
    max_future: str = "",
    computed: Mapping[str, str] | None = None,
    more_topics: Mapping[str, Mapping[str, str]] | None = None,
    topic_column: str = "",
    bootstrap_servers: str = "127.0.0.1:9092",
    format: Literal["json", "json_schema", "avro", "protobuf"] = "json",
    registry: str = "",
    subject_name: Literal["topic", "record", "topic_record"] = "topic",
    records: str | Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    fields: Mapping[str, str] | None = None,
    changes: Literal["", "debezium"] = "",
    on_duplicate: Literal["drop", "replace"] = "drop",
    enrich: Mapping[str, TableColumns] | None = None,
    expectations: Sequence[ExpectedOfRecords | ExpectedOfHours] = (),
    freshness: str = "",
    history: DataSource | None = None,
    tags: Mapping[str, str] | None = None,
    description: str = "",
    owner: str = "",
) -> KafkaSource:
    """A KafkaSource of JSON objects, or of records by the schemas of a registry.

    Args:
        name: of the source.
        topic: Kafka topic.
        columns: column -> type: string, bigint, double, boolean, timestamp (ISO 8601 text).
        event_time: the column that says when an event happened: timestamp, or bigint of epoch milliseconds.
        event_time_unit: unit of the integers in that column, where it is not "ms": "s", "us" or "ns".
        event_id: column that is unique per event; events are de-duplicated by it.
        dedup_horizon: how long an id is remembered; default "1h".
        max_future: how far ahead of the clock an event may be dated; default "5m".
        computed: column -> SQL over the payload's columns and other computed ones: `{"is_home": "country = 'DE'"}`.
        more_topics: further topic -> payload field -> column, for the fields that are called otherwise there.
        topic_column: name of a string column that holds the topic of each event, for conditions.
        bootstrap_servers: Kafka's addresses; `featurestore stream --bootstrap-servers` wins over them.
        format: "avro", "protobuf" or "json_schema" where payloads begin with the id of a schema, as Confluent has it.
        registry: URL of the schema registry, which those need.
        subject_name: what the registry's subjects are called after, as the producers' serializers have it.
        records: full names of the topic's records or messages, where subjects are called after them.
        units: column -> unit of its values, such as "EUR": plans refuse a schema that says another one.
        fields: column -> field of the payload, where they are called otherwise; a path into nested ones: "card.bin".
        changes: "debezium" where payloads are changes of a table's rows: columns are the row's, `event_id` its key.
        on_duplicate: "replace" where an event that is sent again, with other values, replaces what it was.
        enrich: name -> columns that events get from a table, from `table`: `{"fx": table(rates, on="currency", ...)}`.
        expectations: of every record (`expect`, `null_share`, `one_of`) and hour (`usual_volume`, `usual_lateness`).
        freshness: how old its newest event is promised to be at most, such as "5m"; for its contract as a document.
        history: the same events at rest, for training sets; Feast insists on one, but it need not exist yet.
        tags: kept beside those that are set here, such as `about(tier=1)`.
        description: as in Feast.
        owner: as in Feast.

    Raises:
        InvalidRequest: a column's type, or the format, is unknown, or two expectations have one name.
    """
    payload, said = _message_format(name, format, _typed_fields(name, columns, field_of := fields or {}))
    said |= _event_tags(event_id, dedup_horizon, on_duplicate, max_future, event_time_unit) | {CHANGES_TAG: changes}
    said |= _names(subject_name, records, registry, topic_column) | _prefixed(COMPUTED_TAG_PREFIX, computed)
    said |= _prefixed(UNIT_TAG_PREFIX, units) | expectation_tags(name, expectations, freshness) | table_tags(enrich)
    named = Named(name=name, description=description, owner=owner, tags=_all(tags, said, more_topics))
    return KafkaSource(**named, **_read(name, topic, bootstrap_servers, event_time, payload, field_of, history))


def _all(
    given: Mapping[str, str] | None, said: Mapping[str, str], more_topics: Mapping[str, Mapping[str, str]] | None
) -> dict[str, str]:
    """The author's tags, those that say something, and those of topics, which may say nothing."""
    return {**(given or {}), **{tag: text for tag, text in said.items() if text}, **_topic_tags(more_topics or {})}


def _read(
    name: str,
    topic: str,
    servers: str,
    event_time: str,
    message_format: StreamFormat,
    field_of: Mapping[str, str],
    history: DataSource | None,
) -> Read:
    """Where events are, and how they are read; of fields those that are called otherwise."""
    mapping = {field: column for column, field in field_of.items() if field != column}
    return Read(
        topic=topic,
        kafka_bootstrap_servers=servers,
        timestamp_field=event_time,
        message_format=message_format,
        field_mapping=mapping,
        batch_source=history or _no_history(name, event_time),
    )


def _topic_tags(more_topics: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """A tag of each topic, also of one whose fields have their columns' names."""
    return {TOPIC_TAG_PREFIX + topic: topic_text(names) for topic, names in more_topics.items()}


def _prefixed(prefix: str, texts: Mapping[str, str] | None) -> dict[str, str]:
    """A tag of each."""
    return {prefix + name: text for name, text in (texts or {}).items()}


def _event_tags(
    event_id: str, dedup_horizon: str, on_duplicate: str, max_future: str, event_time_unit: str
) -> dict[str, str]:
    """Which event is which, and when it was."""
    tags = {EVENT_ID_TAG: event_id, DEDUP_HORIZON_TAG: dedup_horizon, MAX_FUTURE_TAG: max_future}
    return tags | {EVENT_TIME_UNIT_TAG: event_time_unit, ON_DUPLICATE_TAG: on_duplicate.removeprefix("drop")}


def _names(subject_name: str, records: str | Sequence[str], registry: str, topic_column: str) -> dict[str, str]:
    """Where the schemas are, and what subjects and topics are called."""
    return {
        TOPIC_COLUMN_TAG: topic_column,
        SCHEMA_REGISTRY_TAG: registry,
        SUBJECT_NAME_TAG: "" if subject_name == "topic" else subject_name,
        RECORDS_TAG: ", ".join(several(records)),
    }


def _no_history(name: str, event_time: str) -> FileSource:
    """Feast insists on one; it need not exist."""
    return FileSource(name=f"{name}_history", path=f"data/{name}.parquet", timestamp_field=event_time)


def _typed_fields(source: str, columns: Mapping[str, str], field_of: Mapping[str, str]) -> tuple[Column, ...]:
    """The fields that become columns, and their types."""
    unknown = [f"{column} {type_name}" for column, type_name in columns.items() if type_name not in COLUMN_TYPES]
    if unknown:
        hint = f"types are {', '.join(COLUMN_TYPES)}"
        raise InvalidRequest(f'source "{source}" has columns of unknown type: {", ".join(unknown)}', hint=hint)
    if strangers := sorted(field_of.keys() - columns.keys()):
        hint = "give each its type in columns"
        raise InvalidRequest(f'source "{source}" names fields of no column: {", ".join(strangers)}', hint=hint)
    return tuple(Column(field_of.get(column, column), COLUMN_TYPES[of]) for column, of in columns.items())


def _message_format(source: str, name: str, fields: tuple[Column, ...]) -> tuple[StreamFormat, dict[str, str]]:
    """Feast's object for a format, and what it has no field for, as tags."""
    if name == "avro":
        tags = {COLUMNS_TAG: format_source_schema(fields)}
        return AvroFormat(schema_json=avro_schema(source, fields)), tags
    if name == "protobuf":
        # Each payload names its message itself; Feast's own readers want a class, and there is none.
        return ProtoFormat(class_path=""), {COLUMNS_TAG: format_source_schema(fields)}
    if name not in ("json", JSON_SCHEMA):
        hint = f"write json, {JSON_SCHEMA}, avro or protobuf"
        raise InvalidRequest(f'source "{source}" is of a format "{name}"', hint=hint)
    return JsonFormat(schema_json=format_source_schema(fields)), {FORMAT_TAG: name if name == JSON_SCHEMA else ""}
