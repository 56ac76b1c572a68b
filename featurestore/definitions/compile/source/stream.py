"""Compile the stream source that a view embeds: Kafka topic, payload columns, time and id columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypedDict

from featurestore.core.spec import (
    CHANGE_ID,
    DEFAULT_MAX_FUTURE_MS,
    IS_UNDO,
    REPLACE,
    Column,
    Expectation,
    SourceSpec,
    TopicSpec,
    ValueType,
)
from featurestore.core.windows.durations import format_duration, parse_duration_ms
from featurestore.definitions import limits
from featurestore.definitions.compile.expectations import FRESHNESS_TAG, expectations_of
from featurestore.definitions.compile.expressions import computed_columns
from featurestore.definitions.compile.source.enrichment import Enrichments, enrichments_of
from featurestore.definitions.problems import Place, ProblemList, suggest
from featurestore.definitions.schemas.source_schema import SourceSchema, parse_source_schema
from featurestore.definitions.schemas.subjects import SUBJECT_NAMES, has_user, without_user
from featurestore.errors import InvalidRequest
from featurestore.wire.feast.registry import RegisteredSource, RegisteredView
from featurestore.wire.moments import EVENT_TIME_MS_MAX, MILLISECONDS, UNITS

EVENT_ID_TAG = "event_id"
"""Tag of a source: the column whose value is unique per event."""

DEDUP_HORIZON_TAG = "dedup_horizon"
"""Tag of a source: how long an event id is remembered."""

MAX_FUTURE_TAG = "max_future"
"""Tag of a source: how far ahead of the clock an event may be dated."""

EVENT_LOG_COLUMNS = frozenset({"topic", "partition", "offset", "ingest_time_ms", "event_time_ms", "event_date"})
"""Names that every event log has for itself, see `offline.event_log.schema`."""

EVENT_TIME_UNIT_TAG = "event_time_unit"
"""Tag of a source: unit of the event-time column's integers: s, ms, us or ns."""

COLUMNS_TAG = "columns"
"""Tag of a source: its columns, where its format does not say: "card.id string, amount double"; names are paths."""

FORMAT_TAG = "format"
"""Tag of a source: "json_schema" where JSON is written by a schema of the registry, so that its id comes first."""

SCHEMA_REGISTRY_TAG = "schema_registry"
"""Tag of a source: address of the schema registry that knows the schemas of its payloads."""

SUBJECT_NAME_TAG = "subject_name"
"""Tag of a source: what the registry's subjects are called after: "topic", "record" or "topic_record"."""

RECORDS_TAG = "records"
"""Tag of a source: full names of its records, where subjects are called after them: "shop.Sale, shop.Refund"."""

UNIT_TAG_PREFIX = "unit."
"""Tags of a source: "unit.amount" says in what unit a column's values are meant, such as "EUR"."""

KAFKA = "STREAM_KAFKA"
JSON, AVRO, PROTOBUF = "json_format", "avro_format", "proto_format"
JSON_SCHEMA = "json_schema"
TIME_TYPES = frozenset({ValueType.TIMESTAMP, ValueType.INT64})
ID_TYPES = frozenset({ValueType.STRING, ValueType.INT64})

CHANGES_TAG = "changes"
"""Tag of a source: "debezium" where its payloads are changes of a table's rows."""

DEBEZIUM = "debezium"

ON_DUPLICATE_TAG = "on_duplicate"
"""Tag of a source: "replace" where an event that is sent again with other values replaces what it was."""

DROP = "drop"

TOPIC_TAG_PREFIX = "topic."
"""Tags of a source: "topic.chargebacks" adds a topic; its text maps fields to columns: "filed_at=event_time, ..."."""

TOPIC_COLUMN_TAG = "topic_column"
"""Tag of a source: name of a STRING column that holds the topic an event came from."""


CHANGE_COLUMNS = (Column(CHANGE_ID, ValueType.STRING), Column(IS_UNDO, ValueType.BOOL))
"""What a source of changes has besides the columns of the rows."""


class _Subjects(TypedDict):
    """Those of the attributes of a `SourceSpec`."""

    subject_name: str
    records: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CompiledSource:
    """A source, the columns of its payload that cannot be read (name -> type text), and what is expected of records."""

    spec: SourceSpec
    unsupported: Mapping[str, str]
    expectations: tuple[Expectation, ...]

    @property
    def names(self) -> list[str]:
        """Names of the columns that can be read."""
        return [column.name for column in self.spec.columns]


def compile_source(view: RegisteredView, view_place: Place, problems: ProblemList) -> CompiledSource | None:
    """The source of a stream view; None when columns cannot be known. Lesser mistakes are noted beside it."""
    source = view.source
    assert source is not None, "views without one are passed over, see `unhandled`"
    place = Place("source", source.name)
    if not source.topic:
        problems.add(place, "it has no topic", "give KafkaSource(topic=...)")
    schema = _schema(source, place, problems)
    if schema is None:
        return None
    schema = _mapped(schema, source, place, problems)
    names = {column.name: column.type for column in schema.columns}
    enriched = enrichments_of(source, names, _table_stream, place, problems)
    time_column, of_source = (
        _column_of(name, names, source.field_mapping)
        for name in (view.timestamp_field or source.timestamp_field, source.timestamp_field)
    )
    if of_source and of_source != time_column:
        fact = f'its timestamp_field is "{time_column}", but that of its source is "{of_source}"'
        problems.add(view_place, fact, "give both the same column")
    _check_time(time_column, names, place, problems)
    spec = _spec(source, schema, time_column, place, problems, enriched)
    duration_tag(source.tags, FRESHNESS_TAG, place, problems, default=0, maximum=limits.FRESHNESS_MS_MAX)
    return CompiledSource(spec, schema.unsupported, expectations_of(source.tags, spec, place, problems))


def _table_stream(source: RegisteredSource, place: Place, problems: ProblemList) -> SourceSpec | None:
    """A topic whose records are the versions of a table's rows, each from its event time on."""
    schema = _schema(source, place, problems)
    if schema is None:
        return None
    schema = _mapped(schema, source, place, problems)
    names = {column.name: column.type for column in schema.columns}
    time_column = _column_of(source.timestamp_field, names, source.field_mapping)
    _check_time(time_column, names, place, problems)
    # What is going to hold is known before it does.
    return replace(_spec(source, schema, time_column, place, problems), max_future_ms=EVENT_TIME_MS_MAX)


def _check_time(time_column: str, names: Mapping[str, ValueType], place: Place, problems: ProblemList) -> None:
    if time_column not in names:
        problems.add(place, f'event-time column "{time_column}" is not in its schema', suggest(time_column, names))
    elif names[time_column] not in TIME_TYPES:
        fact = f'event-time column "{time_column}" is of type {names[time_column]}'
        problems.add(place, fact, "make it timestamp (ISO 8601 text) or bigint (milliseconds since the epoch)")


def _column_of(name: str, columns: Collection[str], field_mapping: Mapping[str, str]) -> str:
    """The column that a name means: its own, or that of the payload's field, as Feast's own stores take it."""
    return name if name in columns else field_mapping.get(name, name)


def _spec(
    source: RegisteredSource,
    schema: SourceSchema,
    time_column: str,
    place: Place,
    problems: ProblemList,
    enriched: Enrichments = Enrichments((), ()),  # noqa: B008  # frozen
) -> SourceSpec:
    names = {column.name: column.type for column in schema.columns}
    event_id = source.tags.get(EVENT_ID_TAG, "")
    horizon_ms = duration_tag(
        source.tags,
        DEDUP_HORIZON_TAG,
        place,
        problems,
        default=limits.DEDUP_HORIZON_MS_DEFAULT if event_id else 0,
        maximum=limits.DEDUP_HORIZON_MS_MAX,
    )
    if horizon_ms and not event_id:
        fact = f'tag "{DEDUP_HORIZON_TAG}" is set, but no event id'
        problems.add(place, fact, f'add the tag "{EVENT_ID_TAG}" with the id column')
    if event_id and event_id not in names:
        problems.add(place, f'event-id column "{event_id}" is not in its schema', suggest(event_id, names))
    elif event_id and names[event_id] not in ID_TYPES:
        fact = f'event-id column "{event_id}" is of type {names[event_id]}'
        problems.add(place, fact, "use a string or bigint column")
    max_future_ms = duration_tag(
        source.tags, MAX_FUTURE_TAG, place, problems, default=DEFAULT_MAX_FUTURE_MS, maximum=limits.MAX_FUTURE_MS_MAX
    )
    changes = _changes(source, place, problems)
    spec = SourceSpec(
        name=source.name,
        topic=source.topic,
        columns=(*schema.columns, *enriched.columns),
        event_time_column=time_column,
        event_id_column=CHANGE_ID if changes else event_id or None,
        dedup_horizon_ms=horizon_ms if event_id else 0,
        max_future_ms=max_future_ms,
        bootstrap_servers=source.bootstrap_servers,
        computed=computed_columns(
            source.tags, names | {column.name: column.type for column in enriched.columns}, place, problems
        ),
        renamed=renamed_columns(source.field_mapping, names, "field_mapping", place, problems),
        more_topics=topics_of(source.tags, names, place, problems),
        topic_column=source.tags.get(TOPIC_COLUMN_TAG, ""),
        event_time_unit=_time_unit(source.tags, time_column, place, problems),
        format=_format(source, place, problems),
        schema_registry=source.tags.get(SCHEMA_REGISTRY_TAG, ""),
        changes=changes,
        row_id_column=event_id if changes else None,
        units=_units(source.tags, names, place, problems),
        enrichments=enriched.specs,
        **_subjects(source.tags, place, problems),
    )
    _check_fields(spec, place, problems)
    return spec


def _check_fields(spec: SourceSpec, place: Place, problems: ProblemList) -> None:
    """Refuse fields of JSON that would have to be read as two things."""
    for one in spec.per_topic if spec.format in ("json", JSON_SCHEMA) else ():
        field_of = dict(one.renamed)
        names = [column.name for column in one.columns if column.name not in {one.topic_column, *one.enriched}]
        columns = {field_of.get(name, name): name for name in names}
        for field, name in columns.items():
            # A column that is called as its field is no path.
            steps = field.split(".") if name in field_of else [field]
            for length in range(1, len(steps)):
                if other := columns.get(".".join(steps[:length])):
                    fact = f'column "{name}" is a field of "{".".join(steps[:length])}", which is column "{other}"'
                    problems.add(place, fact, "read the field, or fields of it")
        for name in names:
            if (other := columns[field_of.get(name, name)]) != name:
                fact = f'columns "{name}" and "{other}" are one field of its payload'
                problems.add(place, fact, "map each field once")


def _subjects(tags: Mapping[str, str], place: Place, problems: ProblemList) -> _Subjects:
    """What the registry's subjects are called after, and the records."""
    records = tuple(dict.fromkeys(name.strip() for name in tags.get(RECORDS_TAG, "").split(",") if name.strip()))
    name = tags.get(SUBJECT_NAME_TAG, "topic")
    if name not in SUBJECT_NAMES:
        problems.add(place, f'tag "{SUBJECT_NAME_TAG}" is "{name}"', f"write {', '.join(SUBJECT_NAMES)}")
        name = "topic"
    elif name != "topic" and not records:
        fact = "the subjects of its schemas are called after records, and none is named"
        problems.add(place, fact, f'add the tag "{RECORDS_TAG}" with their full names')
    return {"subject_name": name, "records": records}


def _units(
    tags: Mapping[str, str], columns: Collection[str], place: Place, problems: ProblemList
) -> tuple[tuple[str, str], ...]:
    """(column, unit) pairs, by column."""
    units = {tag.removeprefix(UNIT_TAG_PREFIX): tags[tag] for tag in tags if tag.startswith(UNIT_TAG_PREFIX)}
    for column in units:
        if column not in columns:
            problems.add(
                place, f'it has a unit for a column "{column}" that it does not have', suggest(column, columns)
            )
    return tuple(sorted(units.items()))


def _changes(source: RegisteredSource, place: Place, problems: ProblemList) -> str:
    """What its payloads are changes in the words of; "" where they are events."""
    written = source.tags.get(CHANGES_TAG, "")
    if written not in ("", DEBEZIUM):
        problems.add(place, f'tag "{CHANGES_TAG}" is "{written}"', f'write "{DEBEZIUM}", or leave it out')
    again = source.tags.get(ON_DUPLICATE_TAG, DROP)
    if again not in (DROP, REPLACE):
        problems.add(place, f'tag "{ON_DUPLICATE_TAG}" is "{again}"', f'write "{DROP}" or "{REPLACE}"')
    if again == REPLACE:
        return _replacing(source, place, problems)
    if not written:
        return ""
    if not source.tags.get(EVENT_ID_TAG):
        remedy = f'add the tag "{EVENT_ID_TAG}" with the column that is the key of the table'
        problems.add(place, "its payloads are changes of rows, and nothing says which row", remedy)
    elif source.tags.get(DEDUP_HORIZON_TAG, "").startswith("0"):
        fact = f'its payloads are changes of rows, and tag "{DEDUP_HORIZON_TAG}" is 0'
        problems.add(place, fact, "give it a duration: a connector that starts again sends changes again")
    if source.format == PROTOBUF:
        problems.add(place, "its payloads are changes in Protobuf, which are not read", "write them as JSON or Avro")
    return written


def _replacing(source: RegisteredSource, place: Place, problems: ProblemList) -> str:
    """That its events replace one another, if it can be told which ones."""
    fact = f'tag "{ON_DUPLICATE_TAG}" is "{REPLACE}"'
    if source.tags.get(CHANGES_TAG):
        problems.add(place, f"{fact}, and its payloads are changes of rows", f'leave "{ON_DUPLICATE_TAG}" out')
    if not source.tags.get(EVENT_ID_TAG):
        problems.add(place, f"{fact}, but no event id", f'add the tag "{EVENT_ID_TAG}" with the id column')
    elif source.tags.get(DEDUP_HORIZON_TAG, "").startswith("0"):
        remedy = "give it a duration: how long an event can be replaced"
        problems.add(place, f'{fact}, and tag "{DEDUP_HORIZON_TAG}" is 0', remedy)
    return REPLACE


def is_changed(tags: Mapping[str, str]) -> bool:
    """Whether what a source's records say is changed by later ones."""
    return bool(tags.get(CHANGES_TAG)) or tags.get(ON_DUPLICATE_TAG) == REPLACE


def _format(source: RegisteredSource, place: Place, problems: ProblemList) -> str:
    """What its payloads are; whatever begins with the id of a schema needs a registry."""
    written = source.tags.get(FORMAT_TAG, "json")
    if source.format == JSON and written not in ("json", JSON_SCHEMA):
        problems.add(place, f'tag "{FORMAT_TAG}" is "{written}"', f'write "{JSON_SCHEMA}", or leave it out')
    found = {AVRO: "avro", PROTOBUF: "protobuf"}.get(source.format, written)
    if found != "json" and not source.tags.get(SCHEMA_REGISTRY_TAG):
        problems.add(place, f"it is {found} and has no schema registry", f'add the tag "{SCHEMA_REGISTRY_TAG}", a URL')
    if has_user(url := source.tags.get(SCHEMA_REGISTRY_TAG, "")):
        # What is registered is read by everybody.
        fact = f"the address of its schema registry, {without_user(url)}, has a user in it"
        problems.add(place, fact, "leave the user out, and start the stream with --schema-registry-config FILE")
    return found


def _time_unit(tags: Mapping[str, str], time_column: str, place: Place, problems: ProblemList) -> str:
    """Unit of the event-time column's integers; milliseconds when it is not declared, or wrong."""
    unit = tags.get(EVENT_TIME_UNIT_TAG, MILLISECONDS)
    if unit not in UNITS:
        problems.add(place, f'tag "{EVENT_TIME_UNIT_TAG}" is "{unit}"', f"write {', '.join(UNITS)}")
        return MILLISECONDS
    if unit != MILLISECONDS and time_column == "event_time_ms":
        # The event log has a column of that name for itself, which holds milliseconds whatever comes in.
        fact = f'its event-time column "{time_column}" is declared to hold {UNITS[unit]}'
        problems.add(place, fact, "give the column another name, by field_mapping")
    return unit


def _mapped(schema: SourceSchema, source: RegisteredSource, place: Place, problems: ProblemList) -> SourceSchema:
    """The columns that the payload's fields become, and the one that holds the topic."""
    fields = {column.name for column in schema.columns}
    for field in source.field_mapping.keys() - fields:
        problems.add(
            place, f'field_mapping names a field "{field}" that its schema does not have', suggest(field, fields)
        )
    columns = [Column(source.field_mapping.get(one.name, one.name), one.type) for one in schema.columns]
    topic_column = source.tags.get(TOPIC_COLUMN_TAG, "")
    if topic_column:
        columns.append(Column(topic_column, ValueType.STRING))
    if is_changed(source.tags):
        columns += CHANGE_COLUMNS
    for name, count in Counter(column.name for column in columns).items():
        if count > 1:
            problems.add(place, f'{count} of its columns are called "{name}"', "give each its own name")
    return replace(schema, columns=tuple(columns))


def _schema(source: RegisteredSource, place: Place, problems: ProblemList) -> SourceSchema | None:
    if source.format not in (JSON, AVRO, PROTOBUF):
        remedy = 'give message_format=JsonFormat(schema_json="name type, ...")'
        problems.add(place, "its message format is not given", remedy)
        return None
    try:
        return parse_source_schema(source.tags.get(COLUMNS_TAG, source.schema_text))
    except InvalidRequest as error:
        problems.add(place, f"its schema cannot be read: {error.message}", error.hint)
        return None


def duration_tag(
    tags: Mapping[str, str], tag: str, place: Place, problems: ProblemList, *, default: int, maximum: int
) -> int:
    """Milliseconds of a tag such as "1h"; the default when it is absent or wrong."""
    if tag not in tags:
        return default
    try:
        duration_ms = parse_duration_ms(tags[tag])
    except InvalidRequest as error:
        problems.add(place, f'tag "{tag}": {error.message}', error.hint)
        return default
    if duration_ms > maximum:
        fact = f'tag "{tag}" is {tags[tag]}, longer than the limit of {format_duration(maximum)}'
        problems.add(place, fact, "shorten it")
        return default
    return duration_ms


def topics_of(
    tags: Mapping[str, str], columns: Collection[str], place: Place, problems: ProblemList
) -> tuple[TopicSpec, ...]:
    """The further topics of a source, by name."""
    topics = []
    for tag in sorted(tag for tag in tags if tag.startswith(TOPIC_TAG_PREFIX)):
        fields = [part.partition("=") for part in tags[tag].split(",") if part.strip()]
        mapping = {field.strip(): column.strip() for field, _, column in fields}
        if not all(field and column for field, column in mapping.items()):
            problems.add(place, f'tag "{tag}" is "{tags[tag]}"', 'write "field=column, field=column", or nothing')
            continue
        renamed = renamed_columns(mapping, columns, f'tag "{tag}"', place, problems)
        topics.append(TopicSpec(tag.removeprefix(TOPIC_TAG_PREFIX), renamed))
    return tuple(topics)


def renamed_columns(
    mapping: Mapping[str, str], columns: Collection[str], what: str, place: Place, problems: ProblemList
) -> tuple[tuple[str, str], ...]:
    """(column, field) pairs of a mapping from payload fields to columns, by column."""
    for column in mapping.values():
        if column not in columns:
            problems.add(place, f'{what} names a column "{column}" that it does not have', suggest(column, columns))
    if len(set(mapping.values())) < len(mapping):
        problems.add(place, f"{what} maps two fields to one column", "map each column once")
    return tuple(sorted((column, field) for field, column in mapping.items() if column != field))


def topic_text(mapping: Mapping[str, str]) -> str:
    """The tag that `topics_of` reads."""
    return ", ".join(f"{field}={column}" for field, column in mapping.items())
