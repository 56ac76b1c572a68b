"""Short ways to write Feast objects: columns x functions x windows in a line, plain Feast objects out.

    card_activity = stream_view(
        name="card_activity",
        entities=[card],
        source=transactions,
        features=[
            *count(over=["1m", "1h", "1d", LIFETIME]),
            *aggregate("amount", ["sum", "mean", "max"], over=["1h", "1d", "30d"]),
            *aggregate("amount", "sum", over="1h", offset="7d"),          # the same hour a week ago
            *aggregate("is_declined", "sum", over=["5m", "1h"], hop="1s", name="declines"),
        ],
    )

gives a `feast.StreamFeatureView` with the features count_1m ... count_lifetime, amount_sum_1h ... amount_max_30d,
amount_sum_1h_offset_7d, declines_5m, declines_1h, each an `Aggregation` and the `Field` of the right type. Nothing is
hidden: print the view, or write it by hand. Mistakes are not raised here but reported by `featurestore plan`, all at
once and for hand-written views alike.

Feast has no field for some things, so they are tags: see `compile_view` and `compile_source` for their names.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from feast import Entity, Field, FileSource, KafkaSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.data_source import DataSource
from feast.types import Bool, Float64, Int64, PrimitiveFeastType, String, UnixTimestamp

from featurestore.core.aggregations import catalog
from featurestore.core.spec import Column, ValueType
from featurestore.definitions.compile_source import DEDUP_HORIZON_TAG, EVENT_ID_TAG, MAX_FUTURE_TAG
from featurestore.definitions.compile_view import LIFETIME, LOOKBACK_TAG, OFFSET_TAG, WINDOW_TAG
from featurestore.definitions.durations import parse_duration_ms
from featurestore.definitions.source_schema import COLUMN_TYPES, format_source_schema, parse_source_schema
from featurestore.errors import InvalidRequest

__all__ = ["LIFETIME", "WindowedFeature", "aggregate", "count", "kafka_source", "stream_view"]

FEAST_TYPES: Mapping[ValueType, PrimitiveFeastType] = {
    ValueType.INT64: Int64,
    ValueType.FLOAT64: Float64,
    ValueType.STRING: String,
    ValueType.BOOL: Bool,
    ValueType.TIMESTAMP: UnixTimestamp,
}


@dataclass(frozen=True, slots=True)
class WindowedFeature:
    """One feature before its view is known; `stream_view` makes an Aggregation and a Field of it.

    Attributes:
        name: of the feature.
        function: text for Aggregation.function.
        column: source column, "" to count rows.
        window: duration text or LIFETIME.
        hop: duration text, "" for the default grid.
        offset: duration text, "" for none.
    """

    name: str
    function: str
    column: str
    window: str
    hop: str = ""
    offset: str = ""


def aggregate(
    columns: str | Sequence[str],
    functions: str | Sequence[str],
    *,
    over: str | Sequence[str],
    hop: str = "",
    offset: str = "",
    name: str = "",
) -> list[WindowedFeature]:
    """Every function of every column over every window.

    Args:
        columns: one or several source columns.
        functions: one or several of the catalog's functions ("sum", "mean", "stddev_pop" ...).
        over: one or several windows, such as "15m" or LIFETIME.
        hop: grid of the windows' old edge; "1ms" makes them exact. Default: at most 1/60 of each window.
        offset: how far back the windows end.
        name: stands for "{column}_{function}" in the names; only for one column and one function.

    Returns:
        Features named "{column}_{function}_{window}", in the order columns, functions, windows.

    Raises:
        InvalidRequest: a name for more than one column or function.
    """
    columns, functions, windows = _several(columns), _several(functions), _several(over)
    if name and (len(columns) > 1 or len(functions) > 1):
        raise InvalidRequest(
            f'one name, "{name}", for several columns or functions', hint="call aggregate() once for each of them"
        )
    suffix = f"_offset_{offset}" if offset else ""
    return [
        WindowedFeature(f"{name or f'{column}_{function}'}_{window}{suffix}", function, column, window, hop, offset)
        for column in columns
        for function in functions
        for window in windows
    ]


def count(*, over: str | Sequence[str], hop: str = "", offset: str = "", name: str = "count") -> list[WindowedFeature]:
    """How many events there were, over every window; arguments as in `aggregate`."""
    return aggregate("", "count", over=over, hop=hop, offset=offset, name=name)


def stream_view(
    *,
    name: str,
    entities: Sequence[Entity],
    source: KafkaSource,
    features: Sequence[WindowedFeature],
    prefix: str = "",
    ttl: str = "",
    lookback: str = "",
    tags: Mapping[str, str] | None = None,
    description: str = "",
    owner: str = "",
) -> StreamFeatureView:
    """A StreamFeatureView with one Aggregation and one typed Field per feature.

    Args:
        name: of the view.
        entities: the keys by which its features are looked up.
        source: the stream; its schema gives the types of the fields.
        features: from `aggregate` and `count`.
        prefix: put before every feature's name. Worth having where a service takes several views: the Feast SDK refuses
            a service in which two features share a name, unless it is asked for full names.
        ttl: how long events matter, if longer than the longest window needs.
        lookback: how far before an entity's newest event an `as_of` read stays exact; default "1m".
        tags: kept beside those that are set here, as in Feast.
        description: as in Feast.
        owner: as in Feast.

    Raises:
        InvalidRequest: a window, hop or ttl is not a duration.
    """
    columns = {column.name: column.type for column in _columns_of(source)}
    features = [replace(feature, name=prefix + feature.name) for feature in features]
    with warnings.catch_warnings():
        # Feast calls stream views experimental, once a view.
        warnings.simplefilter("ignore", RuntimeWarning)
        return StreamFeatureView(
            name=name,
            entities=list(entities),
            source=source,
            timestamp_field=source.timestamp_field,
            aggregations=[_aggregation(feature) for feature in features],
            schema=[_field(feature, columns) for feature in features],
            ttl=_timedelta(ttl) if ttl else timedelta(0),
            tags={**(tags or {}), **({LOOKBACK_TAG: lookback} if lookback else {})},
            description=description,
            owner=owner,
        )


def kafka_source(
    *,
    name: str,
    topic: str,
    columns: Mapping[str, str],
    event_time: str,
    event_id: str = "",
    dedup_horizon: str = "",
    max_future: str = "",
    bootstrap_servers: str = "127.0.0.1:9092",
    history: DataSource | None = None,
    description: str = "",
    owner: str = "",
) -> KafkaSource:
    """A KafkaSource of JSON objects.

    Args:
        name: of the source.
        topic: Kafka topic.
        columns: column -> type: string, bigint, double, boolean, timestamp (ISO 8601 text).
        event_time: the column that says when an event happened: timestamp, or bigint of epoch milliseconds.
        event_id: column that is unique per event; events are de-duplicated by it.
        dedup_horizon: how long an id is remembered; default "1h".
        max_future: how far ahead of the clock an event may be dated; default "5m".
        bootstrap_servers: Kafka's addresses.
        history: the same events at rest, for training sets; Feast insists on one, but it need not exist yet.
        description: as in Feast.
        owner: as in Feast.

    Raises:
        InvalidRequest: a column's type is unknown.
    """
    unknown = [f"{column} {type_name}" for column, type_name in columns.items() if type_name not in COLUMN_TYPES]
    if unknown:
        hint = f"types are {', '.join(COLUMN_TYPES)}"
        raise InvalidRequest(f'source "{name}" has columns of unknown type: {", ".join(unknown)}', hint=hint)
    tags = {EVENT_ID_TAG: event_id, DEDUP_HORIZON_TAG: dedup_horizon, MAX_FUTURE_TAG: max_future}
    typed = tuple(Column(column, COLUMN_TYPES[type_name]) for column, type_name in columns.items())
    return KafkaSource(
        name=name,
        topic=topic,
        kafka_bootstrap_servers=bootstrap_servers,
        timestamp_field=event_time,
        message_format=JsonFormat(schema_json=format_source_schema(typed)),
        batch_source=history
        or FileSource(name=f"{name}_history", path=f"data/{name}.parquet", timestamp_field=event_time),
        tags={tag: value for tag, value in tags.items() if value},
        description=description,
        owner=owner,
    )


def _aggregation(feature: WindowedFeature) -> Aggregation:
    return Aggregation(
        column=feature.column,
        function=feature.function,
        time_window=None if feature.window == LIFETIME else _timedelta(feature.window),
        slide_interval=_timedelta(feature.hop) if feature.hop else None,
        name=feature.name,
    )


def _field(feature: WindowedFeature, columns: Mapping[str, ValueType]) -> Field:
    tags = {WINDOW_TAG: LIFETIME} if feature.window == LIFETIME else {}
    if feature.offset:
        tags[OFFSET_TAG] = feature.offset
    return Field(name=feature.name, dtype=FEAST_TYPES[_output_type(feature, columns)], tags=tags)


def _output_type(feature: WindowedFeature, columns: Mapping[str, ValueType]) -> ValueType:
    """The answer's type; of a feature with a mistake any will do, since the mistake is reported instead."""
    try:
        function = catalog.resolve(feature.function)
    except InvalidRequest:
        return ValueType.FLOAT64
    return function.output_type(columns.get(feature.column)) or ValueType.FLOAT64


def _columns_of(source: KafkaSource) -> tuple[Column, ...]:
    message_format = source.kafka_options.message_format
    if not isinstance(message_format, JsonFormat):
        return ()
    try:
        return parse_source_schema(message_format.schema_json).columns
    except InvalidRequest:
        return ()


def _timedelta(text: str) -> timedelta:
    return timedelta(milliseconds=parse_duration_ms(text))


def _several(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
