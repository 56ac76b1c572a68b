"""Registry records as a test needs them: sound unless told otherwise, one thing wrong at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from featurestore.wire.feast.registry import (
    RegisteredAggregation,
    RegisteredEntity,
    RegisteredField,
    RegisteredOnDemandView,
    RegisteredProjection,
    RegisteredRepo,
    RegisteredService,
    RegisteredSource,
    RegisteredTable,
    RegisteredView,
)

SCHEMA = "id string, at timestamp, card string, amount bigint, score double, market string, ok boolean, blob array<int>"

HOUR_NS = 3_600_000_000_000
MS_NS = 1_000_000

CARD = RegisteredEntity("card_entity", "card", "STRING")


def source(
    *,
    schema: str = SCHEMA,
    tags: Mapping[str, str] | None = None,
    kind: str = "STREAM_KAFKA",
    message_format: str = "json_format",
    time: str = "at",
    topic: str = "payments",
    mapping: Mapping[str, str] | None = None,
    servers: str = "kafka:9092",
) -> RegisteredSource:
    """A Kafka source of JSON."""
    return RegisteredSource("payments", kind, time, tags or {}, mapping or {}, topic, servers, message_format, schema)


def aggregation(
    function: str = "sum",
    column: str = "amount",
    *,
    window_ns: int | None = HOUR_NS,
    slide_ns: int | None = None,
    name: str = "total",
) -> RegisteredAggregation:
    """An aggregation named "total" over one hour, its slide filled in as Feast does."""
    return RegisteredAggregation(column, function, window_ns, window_ns if slide_ns is None else slide_ns, name)


def field(name: str = "total", value_type: str = "INT64", tags: Mapping[str, str] | None = None) -> RegisteredField:
    """A Field."""
    return RegisteredField(name, value_type, tags or {})


def view(
    aggregations: Sequence[RegisteredAggregation] | None = None,
    fields: Sequence[RegisteredField] | None = None,
    *,
    name: str = "activity",
    entities: Sequence[str] = ("card_entity",),
    reads: RegisteredSource | None = None,
    ttl_ns: int = 0,
    tags: Mapping[str, str] | None = None,
    time: str = "at",
    has_function: bool = False,
    online: bool = True,
) -> RegisteredView:
    """A stream view with one sound feature; fields come with the join key among them, as from Feast."""
    chosen = (aggregation(),) if aggregations is None else tuple(aggregations)
    given = (field(),) if fields is None else tuple(fields)
    return RegisteredView(
        name=name,
        entities=tuple(entities),
        fields=(*given, RegisteredField("card", "STRING", {})),
        entity_columns=(RegisteredField("card", "STRING", {}),),
        ttl_ns=ttl_ns,
        tags=tags or {},
        source=reads or source(),
        aggregations=chosen,
        timestamp_field=time,
        has_function=has_function,
        online=online,
    )


def plain_view(*fields: RegisteredField, name: str = "profile", table: RegisteredTable | None = None) -> RegisteredView:
    """A view that Feast materializes."""
    return RegisteredView(name, ("card_entity",), fields, (), 0, {}, None, (), "", False, online=True, table=table)


def projection(
    of: str = "activity",
    *features: str,
    alias: str = "",
    keys: Mapping[str, str] | None = None,
    version: int | None = None,
) -> RegisteredProjection:
    """What a service takes from a view."""
    return RegisteredProjection(of, alias, features or ("total",), keys or {}, version)


def on_demand_view(
    *fields: RegisteredField,
    name: str = "ratios",
    tags: Mapping[str, str] | None = None,
    sources: Sequence[RegisteredProjection] | None = None,
    request: Sequence[RegisteredField] = (),
    mode: str = "python",
    text: str = "",
) -> RegisteredOnDemandView:
    """An on-demand view of the view "activity"; SQL in the tags, or a function's text."""
    reads = (projection(),) if sources is None else tuple(sources)
    return RegisteredOnDemandView(name, fields, tags or {}, reads, tuple(request), mode, "compute", text)


def service(*projections: RegisteredProjection, name: str = "model", **tags: str) -> RegisteredService:
    """A feature service."""
    return RegisteredService(name, projections, tags)


def repo(
    *views: RegisteredView,
    entities: Sequence[RegisteredEntity] = (CARD,),
    plain: Sequence[RegisteredView] = (),
    on_demand: Sequence[RegisteredOnDemandView] = (),
    services: Sequence[RegisteredService] = (),
) -> RegisteredRepo:
    """A project."""
    return RegisteredRepo("test", tuple(entities), views, tuple(plain), tuple(on_demand), tuple(services))
