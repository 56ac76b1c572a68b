"""A Feast registry's bytes as plain frozen records: what the author declared, nothing interpreted yet.

Durations are nanoseconds, as the wire has them: whether they are whole milliseconds is for the compiler to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from google.protobuf.message import DecodeError

from featurestore.errors import CorruptData
from featurestore.wire.feast.labels import label_sources
from featurestore.wire.feast.protos import message_class

NANOSECONDS_PER_SECOND = 1_000_000_000

DUMMY_ENTITY = "__dummy"
"""Name of the entity that Feast gives to a view without one."""

ROW_LISTS: Mapping[str, tuple[str, str]] = {
    "projects": ("projects", "project_proto"),
    "entities": ("entities", "entity_proto"),
    "data_sources": ("data_sources", "data_source_proto"),
    "feature_views": ("feature_views", "feature_view_proto"),
    "stream_feature_views": ("stream_feature_views", "feature_view_proto"),
    "on_demand_feature_views": ("on_demand_feature_views", "feature_view_proto"),
    "feature_services": ("feature_services", "feature_service_proto"),
    "permissions": ("permissions", "permission_proto"),
}
"""Field of Registry -> (table, column) that holds the same messages in Feast's SQL registry, one a row."""

VERSION_COLUMNS = ("feature_view_name", "project_id", "version_number", "feature_view_type", "feature_view_proto")
"""Fields of a FeatureViewVersionRecord, and columns of the table in which Feast's SQL registry keeps them."""

VERSION_TABLE = "feature_view_version_history"

STREAM_VIEW = "stream_feature_view"
"""What Feast calls a StreamFeatureView in its history of versions."""


@dataclass(frozen=True, slots=True)
class RegisteredField:
    """A Field: name, name of its ValueType.Enum value ("INT64"), tags."""

    name: str
    value_type: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RegisteredAggregation:
    """An Aggregation; window and slide in ns, None where absent."""

    column: str
    function: str
    window_ns: int | None
    slide_ns: int | None
    name: str

    @property
    def resolved_name(self) -> str:
        """The feature it fills: its name, or Feast's default, such as "sum_amount_3600s"."""
        seconds = (self.window_ns or 0) // NANOSECONDS_PER_SECOND
        return self.name or f"{self.function}_{self.column}" + (f"_{seconds}s" if self.window_ns else "")


@dataclass(frozen=True, slots=True)
class RegisteredEntity:
    """An Entity; `value_type` is "INVALID" where the author gave none."""

    name: str
    join_key: str
    value_type: str


@dataclass(frozen=True, slots=True)
class RegisteredSource:
    """A DataSource that a stream view reads.

    Attributes:
        name: its name.
        kind: name of its SourceType, such as "STREAM_KAFKA".
        timestamp_field: event-time column.
        tags: its tags.
        field_mapping: source column -> feature column.
        topic, bootstrap_servers: Kafka's; "" for other kinds.
        format: "json_format", "avro_format", "proto_format" or "".
        schema_text: text of the JSON format.
    """

    name: str
    kind: str
    timestamp_field: str
    tags: Mapping[str, str]
    field_mapping: Mapping[str, str]
    topic: str
    bootstrap_servers: str
    format: str
    schema_text: str


@dataclass(frozen=True, slots=True)
class RegisteredTable:
    """A DataSource that a view is materialized from.

    Attributes:
        name: its name.
        kind: name of its SourceType, such as "BATCH_FILE".
        timestamp_field, created_field: columns; "" where the author gave none.
        field_mapping: column of the table -> feature column.
        uri, endpoint: of files; "" for other kinds.
        format: "parquet_format", "delta_format" or "".
    """

    name: str
    kind: str
    timestamp_field: str
    created_field: str
    field_mapping: Mapping[str, str]
    uri: str
    endpoint: str
    format: str


@dataclass(frozen=True, slots=True)
class RegisteredView:
    """A FeatureView or StreamFeatureView.

    Attributes:
        name: its name.
        entities: names of its entities; empty for a view without any.
        fields: its fields, join keys among them, in no particular order.
        entity_columns: the join keys' fields, where Feast knows them.
        ttl_ns: time to live, 0 for none.
        tags: its tags.
        source: what a stream view reads; None for a plain one.
        aggregations: in the author's order; empty for a plain view.
        timestamp_field: event-time column of a stream view.
        has_function: whether a function of the author's transforms the events first.
        online: whether it is served online.
        table: what it is materialized from; None where the author gave nothing.
    """

    name: str
    entities: tuple[str, ...]
    fields: tuple[RegisteredField, ...]
    entity_columns: tuple[RegisteredField, ...]
    ttl_ns: int
    tags: Mapping[str, str]
    source: RegisteredSource | None
    aggregations: tuple[RegisteredAggregation, ...]
    timestamp_field: str
    has_function: bool
    online: bool
    table: RegisteredTable | None = None


@dataclass(frozen=True, slots=True)
class RegisteredOnDemandView:
    """An OnDemandFeatureView.

    Attributes:
        name: its name.
        fields: its features.
        tags: its tags.
        sources: what it reads of other views, by name of the view.
        request: fields of its request sources, by name.
        mode: "python", "pandas" or "substrait".
        function_name, function_text: of the author's function, and its source; "" where there is none.
        is_by_row: whether the function takes one row at a time.
        is_written: whether it is computed when its sources are written, and stored.
        has_aggregations: whether Feast aggregates first.
        online: whether it is served online.
    """

    name: str
    fields: tuple[RegisteredField, ...]
    tags: Mapping[str, str]
    sources: tuple[RegisteredProjection, ...]
    request: tuple[RegisteredField, ...]
    mode: str
    function_name: str = ""
    function_text: str = ""
    is_by_row: bool = False
    is_written: bool = False
    has_aggregations: bool = False
    online: bool = True


@dataclass(frozen=True, slots=True)
class RegisteredProjection:
    """What a service takes from one view.

    Attributes:
        view: its name.
        alias: another name for it; "" where the author gave none.
        features: names.
        join_key_map: join key -> name in requests, where they differ.
        version: that is asked for; None where the author gave none.
        kind: what Feast calls the kind of view; "" in registries of older releases.
    """

    view: str
    alias: str
    features: tuple[str, ...]
    join_key_map: Mapping[str, str]
    version: int | None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class RegisteredService:
    """A FeatureService."""

    name: str
    projections: tuple[RegisteredProjection, ...]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RegisteredRepo:
    """Everything of one project in a registry.

    Attributes:
        project: its name.
        entities: its entities.
        stream_views: StreamFeatureViews.
        plain_views: FeatureViews.
        on_demand_views: OnDemandFeatureViews.
        services: FeatureServices.
        versions: what stream views were, by name and number; of those that a service asks for by number.
        labels: DataSources of labels, by name, and the tags of each.
    """

    project: str
    entities: tuple[RegisteredEntity, ...]
    stream_views: tuple[RegisteredView, ...]
    plain_views: tuple[RegisteredView, ...]
    on_demand_views: tuple[RegisteredOnDemandView, ...]
    services: tuple[RegisteredService, ...]
    versions: Mapping[tuple[str, int], RegisteredView] = field(default_factory=dict)
    labels: tuple[tuple[RegisteredTable, Mapping[str, str]], ...] = ()


def projects_of(registry: bytes) -> tuple[str, ...]:
    """Names of the projects in a registry, in its order."""
    return tuple(dict.fromkeys(project.spec.name for project in _parse("feast.core.Registry", registry).projects))


def decode_registry(registry: bytes, project: str) -> RegisteredRepo:
    """One project of a serialized feast.core.Registry.

    Raises:
        CorruptData: the bytes are not a registry.
    """
    message = _parse("feast.core.Registry", registry)

    def mine(messages: Iterable[Any]) -> list[Any]:
        return [each for each in messages if each.spec.project in ("", project)]

    services = tuple(_service(each.spec) for each in mine(message.feature_services))
    return RegisteredRepo(
        project=project,
        entities=tuple(_entity(each.spec) for each in mine(message.entities)),
        stream_views=tuple(_stream_view(each.spec) for each in mine(message.stream_feature_views)),
        plain_views=tuple(_plain_view(each.spec) for each in mine(message.feature_views)),
        on_demand_views=tuple(_on_demand_view(each.spec) for each in mine(message.on_demand_feature_views)),
        services=services,
        versions=_versions(message.feature_view_version_history.records, project, versions_asked(services)),
        labels=tuple((registered_table(each), dict(each.tags)) for each in label_sources(message, project)),
    )


def versions_asked(services: Iterable[RegisteredService]) -> frozenset[tuple[str, int]]:
    """View and number of each version that some service asks for."""
    return frozenset(
        (each.view, each.version) for service in services for each in service.projections if each.version is not None
    )


def versions_asked_of(services: Iterable[bytes]) -> frozenset[tuple[str, int]]:
    """The same of serialized FeatureServices."""
    return versions_asked(_service(_parse("feast.core.FeatureService", each).spec) for each in services)


def _versions(
    records: Iterable[Any], project: str, asked: Collection[tuple[str, int]]
) -> dict[tuple[str, int], RegisteredView]:
    """What is asked for; a history holds every apply, and most of it nobody asks for."""
    found = {}
    for record in records if asked else ():
        key = (record.feature_view_name, record.version_number)
        if key in asked and record.project_id == project and record.feature_view_type == STREAM_VIEW:
            found[key] = _stream_view(_parse("feast.core.StreamFeatureView", record.feature_view_proto).spec)
    return found


def _parse(full_name: str, content: bytes) -> Any:
    message: Any = message_class(full_name)()
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise CorruptData("the registry's bytes are not a Feast registry", detail=str(error)) from error
    return message


def _entity(spec: Any) -> RegisteredEntity:
    return RegisteredEntity(spec.name, spec.join_key or spec.name, _value_type(spec.value_type))


def _stream_view(spec: Any) -> RegisteredView:
    return RegisteredView(
        name=spec.name,
        entities=_entities(spec),
        fields=_fields(spec.features),
        entity_columns=_fields(spec.entity_columns),
        ttl_ns=_nanoseconds(spec.ttl),
        tags=dict(spec.tags),
        source=registered_source(spec.stream_source) if spec.HasField("stream_source") else None,
        aggregations=tuple(
            RegisteredAggregation(
                column=each.column,
                function=each.function,
                window_ns=_nanoseconds(each.time_window) if each.HasField("time_window") else None,
                slide_ns=_nanoseconds(each.slide_interval) if each.HasField("slide_interval") else None,
                name=each.name,
            )
            for each in spec.aggregations
        ),
        timestamp_field=spec.timestamp_field,
        has_function=spec.HasField("user_defined_function"),
        online=spec.online and not spec.disabled,
        table=registered_table(spec.batch_source) if spec.HasField("batch_source") else None,
    )


def _plain_view(spec: Any) -> RegisteredView:
    return RegisteredView(
        name=spec.name,
        entities=_entities(spec),
        fields=_fields(spec.features),
        entity_columns=_fields(spec.entity_columns),
        ttl_ns=_nanoseconds(spec.ttl),
        tags=dict(spec.tags),
        source=None,
        aggregations=(),
        timestamp_field="",
        has_function=False,
        online=spec.online and not spec.disabled,
        table=registered_table(spec.batch_source) if spec.HasField("batch_source") else None,
    )


def _on_demand_view(spec: Any) -> RegisteredOnDemandView:
    found = [spec.sources[name] for name in sorted(spec.sources)]
    request = {
        field.name: field
        for source in found
        if source.WhichOneof("source") == "request_data_source"
        for field in _fields(source.request_data_source.request_data_options.schema)
    }
    function = spec.feature_transformation.user_defined_function
    function = function if function.body_text else spec.user_defined_function
    return RegisteredOnDemandView(
        name=spec.name,
        fields=_fields(spec.features),
        tags=dict(spec.tags),
        sources=tuple(
            _on_demand_projection(source) for source in found if source.WhichOneof("source") != "request_data_source"
        ),
        request=tuple(request[name] for name in sorted(request)),
        mode=spec.mode or "pandas",
        function_name=function.name,
        function_text=function.body_text,
        is_by_row=spec.singleton,
        is_written=spec.write_to_online_store,
        has_aggregations=len(spec.aggregations) > 0,
        online=not spec.disabled,
    )


def _on_demand_projection(source: Any) -> RegisteredProjection:
    """What an on-demand view reads of another one; all of it in registries of old releases."""
    if source.WhichOneof("source") != "feature_view":
        return _projection(source.feature_view_projection)
    view = source.feature_view.spec
    return RegisteredProjection(view.name, "", tuple(field.name for field in view.features), {}, None)


def _service(spec: Any) -> RegisteredService:
    return RegisteredService(spec.name, tuple(_projection(each) for each in spec.features), dict(spec.tags))


def _projection(message: Any) -> RegisteredProjection:
    return RegisteredProjection(
        view=message.feature_view_name,
        alias=message.feature_view_name_alias,
        features=tuple(column.name for column in message.feature_columns),
        join_key_map=dict(message.join_key_map),
        version=message.version_tag if message.HasField("version_tag") else None,
        kind=message.view_type,
    )


def registered_source(message: Any) -> RegisteredSource:
    """A stream's DataSource message, of Feast's own classes or of `wire.feast.protos`."""
    payload = message.kafka_options.message_format
    return RegisteredSource(
        name=message.name,
        kind=_enum_name("feast.core.DataSource", "SourceType", message.type),
        timestamp_field=message.timestamp_field,
        tags=dict(message.tags),
        field_mapping=dict(message.field_mapping),
        topic=message.kafka_options.topic,
        bootstrap_servers=message.kafka_options.kafka_bootstrap_servers,
        format=payload.WhichOneof("format") or "",
        schema_text=payload.json_format.schema_json,
    )


def registered_table(message: Any) -> RegisteredTable:
    """A batch source's DataSource message, as of `registered_source`."""
    return RegisteredTable(
        name=message.name,
        kind=_enum_name("feast.core.DataSource", "SourceType", message.type),
        timestamp_field=message.timestamp_field,
        created_field=message.created_timestamp_column,
        field_mapping=dict(message.field_mapping),
        uri=message.file_options.uri,
        endpoint=message.file_options.s3_endpoint_override,
        format=message.file_options.file_format.WhichOneof("format") or "",
    )


def _entities(spec: Any) -> tuple[str, ...]:
    return tuple(name for name in spec.entities if name != DUMMY_ENTITY)


def _fields(messages: Iterable[Any]) -> tuple[RegisteredField, ...]:
    return tuple(RegisteredField(each.name, _value_type(each.value_type), dict(each.tags)) for each in messages)


def _value_type(number: int) -> str:
    return _enum_name("feast.types.ValueType", "Enum", number)


@cache
def _enum_name(message: str, enum: str, number: int) -> str:
    values = message_class(message).DESCRIPTOR.enum_types_by_name[enum].values_by_number
    # A value that a newer Feast invents must not keep the rest of the registry from being read.
    return str(values[number].name) if number in values else f"{enum.upper()}_{number}"


def _nanoseconds(duration: Any) -> int:
    return int(duration.seconds * NANOSECONDS_PER_SECOND + duration.nanos)
