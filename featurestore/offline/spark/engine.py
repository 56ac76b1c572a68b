"""Training sets under Spark: the local engine, once for each bucket of entities.

    from featurestore.offline.spark.engine import spark_training_set
    from featurestore.offline.spark.events import SparkEventLog

    frame = spark_training_set(spark, repo, "fraud_detection", labels, history=SparkEventLog("s3://bucket/event_log"))

    labels ── bucket of the entity key ─┐
                                        ├── cogroup ── `Bucket.answer` ──> labels + features of a view ──> next view
    events ── bucket of the entity key ─┘

A bucket holds all labels and all events of its entities, and is answered by the code that answers a whole training
set on one machine. So the values are the same, to the last bit where merging has one order (see docs/spark.md). Spark
has no order of rows: whoever needs one gives the labels a column to sort by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_type, to_arrow_schema
from pyspark.sql.types import AtomicType, StructField, StructType

from featurestore.core.inputs import refuse_enriched, view_inputs
from featurestore.core.spec import Column, PlainViewSpec, RepoSpec, ValueType, ViewSpec
from featurestore.errors import InvalidRequest
from featurestore.offline.spark.bucket import BUCKET, Bucket, LabelMoments, LabelSpans, OnDemandColumn, OnDemandStage
from featurestore.offline.spark.events import SparkHistory, SparkRows, exact_column, read_rows
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES, cast_column
from featurestore.offline.training_set.plain_join import PlainHistory, registered_table
from featurestore.offline.training_set.plan import OnDemandOutput, TrainingSetPlan, ViewOutputs, plan_training_set
from featurestore.offline.training_set.view_events import LabelReach, events_of_labels, reach_of

BUCKETS_A_PARTITION = 4
"""Buckets for each shuffle partition: Python holds one bucket at a time, and a few even out."""

BROADCAST_ROWS_MAX = 1 << 20
"""Labels whose entities are sent to all executors, so that events of other entities are not shuffled at all."""

_KEY = "__featurestore_key_"
_KEY_TYPES: Mapping[ValueType, str] = {ValueType.INT64: "bigint", ValueType.STRING: "string"}


def spark_training_set(
    spark: SparkSession,
    repo: RepoSpec,
    features: str | Sequence[str],
    labels: DataFrame,
    *,
    history: SparkHistory,
    plain: Mapping[str, PlainHistory] | None = None,
    timestamp_column: str = "event_timestamp",
    at_ms: int | None = None,
    full_names: bool = False,
    event_sources: Sequence[str] = (),
    repo_path: Path | None = None,
) -> DataFrame:
    """Features of a service (or of some views) for label rows.

    Runs one job at once, over the labels' keys and times; everything else happens when the answer is used. Labels are
    read several times, so they must be the same each time; `labels.persist()` if they are costly.

    Args:
        spark: the session.
        repo: the definitions.
        features: name of a feature service, or "view:feature" texts.
        labels: R rows: the join keys of all views, label times, and whatever else.
        history: the events of stream views.
        plain: tables of plain views, by name of the view: `data` is a path or URI of Parquet, or a DataFrame; those of
            others are found in the registry.
        timestamp_column: the label times' column, of any type that `label_times` understands.
        at_ms: one moment for all rows, milliseconds UTC; then no column is needed.
        full_names: call features "view__feature".
        event_sources: names of sources of which each row is an event; see `build_training_set`.
        repo_path: where relative paths of registered tables start; default: the current directory.

    Returns:
        R rows in no order: the labels' columns, then the features, as `build_training_set` gives them.

    Raises:
        UnknownFeatureService, UnknownJoinKey, InvalidRequest: the request is wrong; it says how.
        Unavailable: the history cannot be read now.
        pyspark.errors.PySparkException: Spark itself; `spark_engine_files.clear_errors` makes ours of it where it can.
    """
    given = _arrow_schema(labels.schema).empty_table()
    plan = plan_training_set(
        repo,
        features,
        given,
        timestamp_column=timestamp_column,
        at_ms=at_ms,
        full_names=full_names,
        event_sources=event_sources,
    )
    _check_labels(plan)
    moments = LabelMoments(timestamp_column, at_ms, plan.labels.event_sources, tuple(labels.columns))
    spans = _measure(labels, [outputs.view for outputs in plan.views], moments)
    found = labels
    for outputs, span in zip(plan.views, spans, strict=True):
        if isinstance(outputs.view, ViewSpec):
            reach = LabelReach(0, 0) if span is None else reach_of(outputs.view, span.first_ms, span.last_ms)
            rows = history.rows(spark, outputs.view.source, _event_columns(outputs.view), reach)
            join = _Join(outputs, moments, rows, reach, None, {})
        else:
            join = _plain(
                spark, outputs, moments, (plain or {}).get(outputs.view.name) or _registered(outputs.view, repo_path)
            )
        is_small = span is not None and span.rows <= BROADCAST_ROWS_MAX
        found = join.onto(found, labels if is_small else None)
    if plan.on_demand:
        found = _with_on_demand(found, plan.on_demand)
    return found.select(*map(exact_column, [*labels.columns, *plan.names]))


def _check_labels(plan: TrainingSetPlan) -> None:
    """What labels lack is found out before anything runs; there are no rows of them yet."""
    given = plan.labels.table
    for outputs in plan.views:
        if isinstance(outputs.view, ViewSpec):
            events_of_labels(outputs.view, plan.labels)
        if not outputs.view.join_keys:
            raise InvalidRequest(
                f'feature view "{outputs.view.name}" has no entities, and Spark computes by entities',
                hint="ask for it with `featurestore history` or the Feast SDK, and join it by the label times",
            )
        for key in outputs.view.join_keys:
            _check_key(given.schema.field(key.name).type, key)


def _with_on_demand(rows: DataFrame, outputs: Sequence[OnDemandOutput]) -> DataFrame:
    """Rows with their request-time features, which are computed of nothing but the row."""
    fields = [StructField(one.column.name, from_arrow_type(ARROW_TYPES[one.column.type]), True) for one in outputs]
    schema = StructType([*rows.schema.fields, *fields])
    stage = OnDemandStage(tuple(map(OnDemandColumn.of, outputs)), _arrow_schema(schema))

    def answer(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from stage.answer(batches)

    return rows.mapInArrow(answer, schema)


@dataclass(frozen=True, slots=True)
class _Span:
    """Labels that ask for a view: how many, and their first and last moment."""

    rows: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class _Join:
    """One view, to be joined to labels.

    Attributes:
        outputs: the view and its features.
        moments: where label times come from.
        rows: of its history.
        reach: event times that decide.
        table: of a plain view.
        stored: join key -> its column in the rows, where that is called otherwise.
    """

    outputs: ViewOutputs
    moments: LabelMoments
    rows: SparkRows
    reach: LabelReach
    table: PlainHistory | None
    stored: Mapping[str, str]

    def onto(self, labels: DataFrame, asking: DataFrame | None) -> DataFrame:
        """Labels with the view's features.

        Args:
            labels: with the features of the views before.
            asking: the labels as they were given, if they are few: their keys are sent to all executors. Taken from
                `labels`, they would compute the views before once more.
        """
        keys = self.outputs.view.join_keys
        count = BUCKETS_A_PARTITION * _shuffle_partitions(labels.sparkSession)
        mine = [_key(key, key.name) for key in keys]
        theirs = [_key(key, self.stored.get(key.name, key.name)) for key in keys]
        rows = self.rows.frame
        for column in theirs:
            rows = rows.where(column.isNotNull())
        if asking is not None:
            rows = _asked_for(rows, theirs, asking, mine)
        types = [ARROW_TYPES[column.type] for column in self.outputs.columns]
        fields = [
            StructField(column.name, from_arrow_type(kind), True)
            for column, kind in zip(self.outputs.columns, types, strict=True)
        ]
        schema = StructType([*labels.schema.fields, *fields])
        bucket = Bucket(
            self.outputs,
            self.moments,
            self.reach,
            self.table,
            self.rows.arrival,
            _arrow_schema(schema),
        )
        # Rows without a key are no entity's; in one bucket they could be most of all rows.
        others = [exact_column(field.name) for field in labels.schema.fields if isinstance(field.dataType, AtomicType)]
        is_null = mine[0].isNull()
        for column in mine[1:]:
            is_null = is_null | column.isNull()
        of_labels = F.when(is_null, F.xxhash64(*others)).otherwise(F.xxhash64(*mine))
        left = labels.withColumn(BUCKET, F.pmod(of_labels, F.lit(count)))
        right = rows.withColumn(BUCKET, F.pmod(F.xxhash64(*theirs), F.lit(count)))
        return left.groupBy(BUCKET).cogroup(right.groupBy(BUCKET)).applyInArrow(_function(bucket), schema)


def _function(bucket: Bucket) -> Callable[[pa.Table, pa.Table], pa.Table]:
    """A plain function, which Spark asks for; it travels by the name of `Bucket` and by its values."""

    def answer(labels: pa.Table, rows: pa.Table) -> pa.Table:
        return bucket.answer(labels, rows)

    return answer


def _measure(labels: DataFrame, views: Sequence[ViewSpec | PlainViewSpec], moments: LabelMoments) -> list[_Span | None]:
    """Spans of the labels for each view; None where no row asks. Reads keys and times of all labels."""
    names = dict.fromkeys(key.name for view in views for key in view.join_keys)
    if moments.at_ms is None:
        names[moments.timestamp_column] = None
    spans = LabelSpans(moments, tuple(view.join_keys for view in views))
    measured = labels.select(*map(exact_column, names)).mapInArrow(spans.measure, LabelSpans.SCHEMA)
    totals = measured.groupBy("view").agg(F.sum("rows"), F.min("first_ms"), F.max("last_ms")).collect()
    found: dict[int, _Span] = {view: _Span(rows, first_ms, last_ms) for view, rows, first_ms, last_ms in totals}
    return [found.get(index) for index in range(len(views))]


def _event_columns(view: ViewSpec) -> list[str]:
    """Payload columns that a stream view needs, and the event id."""
    refuse_enriched([view], "The Spark engine", "use `featurestore history`, which does")
    id_column = view.source.event_id_column
    return list(dict.fromkeys([*view_inputs(view).payload_columns, *([] if id_column is None else [id_column])]))


def _registered(view: PlainViewSpec, repo_path: Path | None) -> PlainHistory:
    """The table of a plain view by its address alone: endpoints of object stores are settings of Spark."""
    bare = view.table and replace(view.table, endpoint="")
    return registered_table(replace(view, table=bare), repo_path)


def _plain(spark: SparkSession, outputs: ViewOutputs, moments: LabelMoments, table: PlainHistory) -> _Join:
    """A plain view with its table."""
    view = outputs.view
    mapped = {name: stored for stored, name in table.field_mapping.items()}
    names = [*(key.name for key in view.join_keys), *(view.features[at].name for at in outputs.features)]
    names += [table.timestamp_column, *([] if table.created_column is None else [table.created_column])]
    stored = [mapped.get(name, name) for name in names]
    rows = read_rows(spark, table.data, (), f'the table of feature view "{view.name}"').choose(stored)
    bare = PlainHistory(None, table.timestamp_column, table.created_column, table.field_mapping)
    return _Join(outputs, moments, rows, LabelReach(0, 0), bare, mapped)


def _asked_for(
    rows: DataFrame, theirs: Sequence[SparkColumn], labels: DataFrame, mine: Sequence[SparkColumn]
) -> DataFrame:
    """Rows of entities that some label asks for, told before anything is shuffled."""
    names = [f"{_KEY}{index}" for index in range(len(mine))]
    entities = labels.select(*(column.alias(name) for column, name in zip(mine, names, strict=True))).distinct()
    numbered = rows.withColumns(dict(zip(names, theirs, strict=True)))
    return numbered.join(F.broadcast(entities), names, "left_semi").drop(*names)


def _key(key: Column, name: str) -> SparkColumn:
    """A join key as entities are told apart; what it cannot be is null here, and refused in the bucket."""
    return exact_column(name).try_cast(_KEY_TYPES[key.type])


def _check_key(kind: pa.DataType, key: Column) -> None:
    """A join key's column must be of its type, or of one that holds it without loss."""
    cast_column(pa.array([], type=kind), key)
    if pa.types.is_temporal(kind):
        raise InvalidRequest(f'column "{key.name}" is of type {kind}, not {key.type}', hint="cast it before")


def _shuffle_partitions(spark: SparkSession) -> int:
    """Partitions of a shuffle."""
    return int(spark.conf.get("spark.sql.shuffle.partitions") or 1)


def _arrow_schema(schema: StructType) -> pa.Schema:
    """Arrow's columns for Spark's, moments in UTC: which releases before 4.2 know no other zone for."""
    convert: Any = to_arrow_schema
    takes_zone = "timezone" in signature(to_arrow_schema).parameters
    found: pa.Schema = convert(schema, timezone="UTC") if takes_zone else convert(schema)
    return found
