"""Short ways to write Feast objects: columns x functions x windows in a line, plain Feast objects out.

    *count(over=["1m", "1h", LIFETIME])                             count_1m, count_1h, count_lifetime
    *aggregate("amount", ["sum", "max"], over="1d")                 amount_sum_1d, amount_max_1d
    *derive("largest_share", "amount_max_1d / amount_sum_1d")       largest_share

`stream_view` makes a `feast.StreamFeatureView` of them: an `Aggregation` and a `Field` of the right type for each, and
a `Field` for a derived one. What Feast has no field for is a tag; docs/authoring.md has all of them. Mistakes are not
raised here but reported by `featurestore plan`, all at once and for hand-written views alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta

from feast import Entity, Field, KafkaSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Array, Bool, FeastType, Float64, Int64, Map, String, UnixTimestamp

from featurestore.core.aggregations import catalog
from featurestore.core.expressions import compile_expression
from featurestore.core.lowering.series import LIST_TYPES
from featurestore.core.spec import ValueType, default_hop_ms
from featurestore.definitions.authoring.parts import (
    DerivedFeature,
    NamedWindow,
    WindowedFeature,
    duration_mistake,
    prefixed_feature,
    several,
    timedelta_of,
    usable_features,
    windows_of,
)
from featurestore.definitions.authoring.tables import columns_of
from featurestore.definitions.compile.expectations import FRESHNESS_TAG
from featurestore.definitions.compile.expressions import (
    EXPRESSION_TAG,
    UNDO_TAG,
    WHERE_TAG,
    computed_columns,
)
from featurestore.definitions.compile.source import enriched_columns
from featurestore.definitions.compile.view import (
    EXPECTED_ENTITIES_TAG,
    FRESHNESS_TARGET_TAG,
    LOOKBACK_TAG,
    STORAGE_TAG,
)
from featurestore.definitions.compile.window import HOP_TAG, IN_FLIGHT_TAG, OFFSET_TAG, SERIES_TAG
from featurestore.definitions.problems import MISTAKE_TAG, Place, ProblemList
from featurestore.errors import InvalidRequest

Over = str | NamedWindow | Sequence[str | NamedWindow]
"""One window or several; a text is a duration or LIFETIME."""

FEAST_TYPES: Mapping[ValueType, FeastType] = {
    ValueType.INT64: Int64,
    ValueType.FLOAT64: Float64,
    ValueType.STRING: String,
    ValueType.BOOL: Bool,
    ValueType.TIMESTAMP: UnixTimestamp,
    ValueType.INT64_LIST: Array(Int64),
    ValueType.FLOAT64_LIST: Array(Float64),
    ValueType.STRING_LIST: Array(String),
    ValueType.INT64_MAP: Map,
    ValueType.FLOAT64_MAP: Map,
}


def aggregate(
    columns: str | Sequence[str],
    functions: str | Sequence[str],
    *,
    over: Over,
    hop: str = "",
    offset: str = "",
    where: str = "",
    name: str = "",
    in_flight: bool | None = None,
    ignore_nulls: bool = True,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> list[WindowedFeature]:
    """Every function of every column over every window.

    Args:
        columns: one or several source columns.
        functions: one or several of the catalog's functions ("sum", "mean", "stddev_pop" ...).
        over: one or several windows: durations such as "15m", LIFETIME, `today`, `this_month`, `session`, `series`,
            `last_events` ...
        hop: grid of the windows' old edge; "1ms" makes them exact. Default: at most 1/60 of each window.
        offset: how far back the windows end, such as "7d"; default: at the moment of the read.
        where: SQL condition over the source's columns; only events for which it is true count.
        name: stands for `{column}_{function}` in the names; only for one column and one function.
        in_flight: whether the payment in flight counts, where a request brings one along. Default: yes, but for what
            tells of the newest event (`last`, `last_n`, `last_distinct_n`, `last_event_time`, `time_since_last`).
        ignore_nulls: False for a `first` or `last` that is null where the oldest or newest event has no value.
        description: of the features, for people.
        tags: of the features, beside those that are set here, such as `about(pii="none")`.

    Returns:
        Features named `{column}_{function}_{window}`, in the order columns, functions, windows.

    Raises:
        InvalidRequest: no column or function at all, or a name for more than one.
    """
    columns, functions = several(columns), several(functions)
    windows = windows_of(over)
    if not columns or not functions:
        raise InvalidRequest("aggregate() is given no columns or no functions", hint="name at least one of each")
    if name and (len(columns) > 1 or len(functions) > 1):
        raise InvalidRequest(
            f'one name, "{name}", for several columns or functions', hint="call aggregate() once for each of them"
        )
    suffix = f"_offset_{offset}" if offset else ""
    return [
        WindowedFeature(
            f"{name or f'{column}_{function}'}_{window.name}{suffix}",
            window.function(function if ignore_nulls else f"{function} respect nulls"),
            column,
            window,
            hop,
            offset,
            where,
            in_flight,
            description,
            tags or {},
        )
        for column in columns
        for function in functions
        for window in windows
    ]


def count(
    *,
    over: Over,
    hop: str = "",
    offset: str = "",
    where: str = "",
    name: str = "count",
    in_flight: bool | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> list[WindowedFeature]:
    """How many events there were, over every window.

    Args:
        over: one or several windows, as in `aggregate`.
        hop: as in `aggregate`.
        offset: as in `aggregate`.
        where: as in `aggregate`.
        name: what the features' names begin with: `{name}_{window}`.
        in_flight: as in `aggregate`.
        description: as in `aggregate`.
        tags: as in `aggregate`.
    """
    return aggregate(
        "",
        "count",
        over=over,
        hop=hop,
        offset=offset,
        where=where,
        name=name,
        in_flight=in_flight,
        description=description,
        tags=tags,
    )


def derive(
    name: str, expression: str, *, description: str = "", tags: Mapping[str, str] | None = None
) -> list[DerivedFeature]:
    """A feature computed from other features of the view whenever they are read.

    Args:
        name: of the feature.
        expression: SQL over the names of other features, such as "declined_count_1h / nullif(count_1h, 0)".
        description: as in `aggregate`.
        tags: as in `aggregate`.
    """
    return [DerivedFeature(name, expression, description, tags or {})]


def stream_view(
    *,
    name: str,
    entities: Sequence[Entity],
    source: KafkaSource,
    features: Sequence[WindowedFeature | DerivedFeature],
    prefix: str = "",
    ttl: str = "",
    lookback: str = "",
    where: str = "",
    undo: str = "",
    storage: str = "",
    expected_entities: int = 0,
    freshness: str = "",
    freshness_target: float | None = None,
    tags: Mapping[str, str] | None = None,
    description: str = "",
    owner: str = "",
) -> StreamFeatureView:
    """A StreamFeatureView with one Aggregation and one typed Field per windowed feature, one Field per derived one.

    What is wrong with the arguments is not raised but reported by the plan, beside the other mistakes of the repo.

    Args:
        name: of the view.
        entities: the keys by which its features are looked up.
        source: the stream; its schema gives the types of the fields.
        features: from `aggregate`, `count` and `derive`.
        prefix: put before every feature's name; expressions of derived features may leave it out. Views that meet in
            a service should differ in it: the Feast SDK refuses a service in which two features share a name.
        ttl: how long events matter, such as "90d"; default: as long as the longest window needs.
        lookback: how far before an entity's newest event an `as_of` read stays exact; default "1m".
        where: SQL condition over the source's columns; other events are none of the view's.
        undo: SQL condition; events for which it is true take back what an equal event added.
        storage: "own" keeps the view out of the storage group of its source and join keys: for one that is heavy, or
            an experiment.
        expected_entities: how many entities the view is going to have, roughly. Those of few events then share keys of
            the store, and take a fraction of the memory.
        freshness: how soon an event is promised to be servable, such as "30s"; default: nothing is promised.
        freshness_target: share of the events of which that must be true, over 30 days; default 0.99.
        tags: kept beside those that are set here, as in Feast.
        description: as in Feast.
        owner: as in Feast.
    """
    given, mistakes = usable_features(features)
    if ttl and (mistake := duration_mistake("ttl", ttl)):
        mistakes.append(mistake)
    features = [prefixed_feature(feature, prefix, {one.name for one in given}) for feature in given]
    windowed = [feature for feature in features if isinstance(feature, WindowedFeature)]
    columns = _types_of(source)
    types = {feature.name: _output_type(feature, columns) for feature in windowed}
    derived = [_derived_field(feature, types) for feature in features if isinstance(feature, DerivedFeature)]
    own_tags: dict[str, object] = {LOOKBACK_TAG: lookback, WHERE_TAG: where, UNDO_TAG: undo, STORAGE_TAG: storage}
    own_tags |= {EXPECTED_ENTITIES_TAG: str(expected_entities or ""), MISTAKE_TAG: "\n".join(mistakes)}
    own_tags |= {FRESHNESS_TAG: freshness, FRESHNESS_TARGET_TAG: "" if freshness_target is None else freshness_target}
    with warnings.catch_warnings():
        # Feast calls stream views experimental, once a view.
        warnings.simplefilter("ignore", RuntimeWarning)
        return StreamFeatureView(
            name=name,
            entities=list(entities),
            source=source,
            timestamp_field=source.timestamp_field,
            aggregations=[_aggregation(feature) for feature in windowed],
            schema=[*(_field(feature, types[feature.name]) for feature in windowed), *derived],
            ttl=timedelta_of(ttl) or timedelta(0),
            tags={**(tags or {}), **{tag: str(text) for tag, text in own_tags.items() if text not in ("", None)}},
            description=description,
            owner=owner,
        )


def _aggregation(feature: WindowedFeature) -> Aggregation:
    return Aggregation(
        column=feature.column,
        function=feature.function,
        time_window=timedelta_of(feature.window.length),
        slide_interval=_slide_interval(feature),
        name=feature.name,
    )


def _slide_interval(feature: WindowedFeature) -> timedelta | None:
    """The hop, the default one too: Feast would fill it with the window, as if the author had asked for that."""
    hop, length = timedelta_of(feature.hop), timedelta_of(feature.window.length)
    if feature.hop or length is None:
        return hop
    return timedelta(milliseconds=default_hop_ms(length // timedelta(milliseconds=1)))


def _needs_hop_tag(feature: WindowedFeature) -> bool:
    """Whether slide_interval cannot say the hop: it would read as none, or does not belong there at all."""
    hop = timedelta_of(feature.hop)
    return hop is not None and (not hop or hop == timedelta_of(feature.window.length) or not feature.window.length)


def _field(feature: WindowedFeature, output_type: ValueType) -> Field:
    tags = {**feature.more_tags, **feature.window.tags}
    if feature.hop and (mistake := duration_mistake("hop", feature.hop)):
        tags[MISTAKE_TAG] = f"{tags[MISTAKE_TAG]}\n{mistake}" if MISTAKE_TAG in tags else mistake
    if _needs_hop_tag(feature):
        tags[HOP_TAG] = feature.hop
    if feature.offset:
        tags[OFFSET_TAG] = str(feature.offset)
    if feature.where:
        tags[WHERE_TAG] = str(feature.where)
    if feature.in_flight is not None:
        tags[IN_FLIGHT_TAG] = str(feature.in_flight).lower()
    return Field(name=feature.name, dtype=FEAST_TYPES[output_type], tags=tags, description=feature.description)


def _derived_field(feature: DerivedFeature, types: Mapping[str, ValueType]) -> Field:
    try:
        output_type = compile_expression(feature.expression, types).type
    except InvalidRequest:
        output_type = ValueType.FLOAT64  # the mistake is reported when the view is compiled
    tags = {**feature.more_tags, EXPRESSION_TAG: feature.expression}
    return Field(name=feature.name, dtype=FEAST_TYPES[output_type], tags=tags, description=feature.description)


def _output_type(feature: WindowedFeature, columns: Mapping[str, ValueType]) -> ValueType:
    """The answer's type; of a feature with a mistake any will do, since the mistake is reported instead."""
    try:
        function = catalog.resolve(feature.function)
    except InvalidRequest:
        return ValueType.FLOAT64
    answer = function.output_type(columns.get(feature.column)) or ValueType.FLOAT64
    return LIST_TYPES.get(answer, answer) if SERIES_TAG in feature.window.tags else answer


def _types_of(source: KafkaSource) -> dict[str, ValueType]:
    """Type of every column of a source, enriched and computed ones too; those with a mistake are missing."""
    types = {column.name: column.type for column in (*columns_of(source), *enriched_columns(source.tags))}
    computed = computed_columns(source.tags, types, Place("source", source.name), ProblemList())
    return {**types, **{column.name: column.type for column in computed}}
