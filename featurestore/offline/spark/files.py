"""A training set under Spark as a command makes it: a session, labels from a file, one Parquet file or a directory.

labels      a table that the driver holds                    Parquet that executors read
one file    yes, in the order of the labels: executors       no: Spark has no order to keep
write parts by row number, the driver puts
them together, one part in memory at a time
directory   yes, in no order                                 yes, in no order
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from featurestore import errors
from featurestore.core.inputs import view_inputs
from featurestore.core.spec import RepoSpec, ViewSpec
from featurestore.errors import CorruptData, FeatureStoreError, InvalidRequest, Unavailable
from featurestore.offline.spark.engine import spark_training_set
from featurestore.offline.spark.events import SparkHistory, exactly, hadoop_uri
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES, cast_column
from featurestore.offline.training_set.build import OUTPUT_ROWS, parquet_file
from featurestore.offline.training_set.plain_join import PlainHistory
from featurestore.offline.training_set.plan import TrainingSetPlan, plan_training_set

APPLICATION = "featurestore history"
"""The name of this program's sessions."""

SETTINGS: Mapping[str, str] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
"""Of every session: INT96, Spark's default, is read as nanoseconds, which end in 2262."""

LOCAL_SETTINGS: Mapping[str, str] = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.log.level": "OFF",
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
}
"""Of a session on this machine alone. What fails is in the error; the JVM's traces of it need not be on stderr too. An
event log's files are found faster than the job would start that Spark lists more than 32 with."""

_ROW, _PART = "__featurestore_row", "__featurestore_part"
_OURS = re.compile(r"^featurestore\.errors\.(\w+): ", re.MULTILINE)
_NANOSECONDS_HINT = "write timestamps in microseconds: pandas.DataFrame.to_parquet(..., coerce_timestamps='us')"


@dataclass(frozen=True, slots=True)
class SparkRequest:
    """What is asked of Spark; see `spark_training_set`.

    Attributes:
        repo: the definitions.
        features: name of a feature service, or "view:feature" texts.
        history: the events of stream views.
        plain: the tables of plain views.
        timestamp_column: the label times' column.
        at_ms: one moment for all rows.
        full_names: call features "view__feature".
        repo_path: where relative paths of registered tables start.
        event_sources: names of sources of which each row is an event.
    """

    repo: RepoSpec
    features: str | Sequence[str]
    history: SparkHistory
    plain: Mapping[str, PlainHistory]
    timestamp_column: str = "event_timestamp"
    at_ms: int | None = None
    full_names: bool = False
    repo_path: Path | None = None
    event_sources: tuple[str, ...] = ()

    def plan(self, entities: pa.Table) -> TrainingSetPlan:
        """Resolved and checked for a table of labels."""
        return plan_training_set(
            self.repo,
            self.features,
            entities,
            timestamp_column=self.timestamp_column,
            at_ms=self.at_ms,
            full_names=self.full_names,
            event_sources=self.event_sources,
        )

    def answer(self, spark: SparkSession, labels: DataFrame) -> DataFrame:
        """Labels with features."""
        return spark_training_set(
            spark,
            self.repo,
            self.features,
            labels,
            history=self.history,
            plain=self.plain,
            timestamp_column=self.timestamp_column,
            at_ms=self.at_ms,
            full_names=self.full_names,
            event_sources=self.event_sources,
            repo_path=self.repo_path,
        )


@dataclass(frozen=True, slots=True)
class Written:
    """What a training set has."""

    rows: int
    features: int


def open_session(master: str | None, settings: Mapping[str, str]) -> SparkSession:
    """A session; the one that runs already, if it is of this program.

    A definition file may have begun another one (Feast does so for a view of `mode="spark"`, before anybody has said
    which master or interpreter to use). That one is ended.

    Args:
        master: as Spark names it, local[2] or spark://host:7077; None leaves it to spark-submit or Spark's own files.
        settings: of Spark; they win over ours.

    Raises:
        Unavailable: Spark does not start.
    """
    # Executors run the interpreter of this variable; "python3", Spark's default, seldom has this package.
    os.environ["PYSPARK_PYTHON"] = settings.get(
        "spark.pyspark.python", os.environ.get("PYSPARK_PYTHON", sys.executable)
    )
    running = SparkSession.getActiveSession()
    if running is not None and running.sparkContext.appName != APPLICATION:
        running.stop()
    builder = SparkSession.Builder().appName(APPLICATION)
    if master is not None:
        builder = builder.master(master)
    ours = {**SETTINGS, **(LOCAL_SETTINGS if master is not None and master.startswith("local") else {})}
    for name, value in {**ours, **settings}.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except (PySparkException, OSError) as error:
        raise Unavailable(
            "Spark does not start", detail=str(error), hint="it needs Java 17 or later: see java -version and JAVA_HOME"
        ) from error


def write_spark_file(spark: SparkSession, request: SparkRequest, entities: pa.Table, path: Path) -> Written:
    """A training set as one Parquet file, which appears when it is complete: the very file of the local engine.

    Only what features are computed from travels: keys and times, and columns of events in flight and of the request.
    Labels stay with the driver, whatever their other columns are.

    Args:
        spark: the session; executors must reach the file's directory.
        request: what is asked.
        entities: R rows.
        path: the file.

    Raises:
        FeatureStoreError: as `spark_training_set`; InvalidRequest when the path cannot be written, which is found out
            before anything is computed; Unavailable when Spark fails.
    """
    plan = request.plan(entities)
    names = dict.fromkeys(key.name for outputs in plan.views for key in outputs.view.join_keys)
    types = {key.name: key for outputs in plan.views for key in outputs.view.join_keys}
    columns = {name: cast_column(entities.column(name), types[name]) for name in names}
    if request.at_ms is None:
        columns[request.timestamp_column] = _for_spark(entities.column(request.timestamp_column))
    for name in _read_of_labels(plan):
        if name in entities.column_names:
            columns.setdefault(name, _for_spark(entities.column(name)))
    columns[_ROW] = pa.chunked_array([pa.array(np.arange(entities.num_rows))])
    parts = path.with_name(path.name + ".parts").absolute()
    shutil.rmtree(parts, ignore_errors=True)
    try:
        with parquet_file(path) as write:
            with clear_errors():
                found = request.answer(spark, spark.createDataFrame(pa.table(columns))).select(
                    _ROW, *map(exactly, plan.names)
                )
                numbered = found.withColumn(_PART, F.expr(f"{_ROW} div {OUTPUT_ROWS}"))
                numbered.repartition(_PART).write.partitionBy(_PART).parquet(f"file://{parts}")
            _put_together(plan, parts, write)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    return Written(entities.num_rows, len(plan.names))


def _read_of_labels(plan: TrainingSetPlan) -> set[str]:
    """Columns beside keys and times that features may read of the labels."""
    found = {column.name for one in plan.on_demand for column in one.request}
    for outputs in plan.views:
        view = outputs.view
        if isinstance(view, ViewSpec) and view.source.name in plan.labels.event_sources:
            found |= {*view_inputs(view).payload_columns, view.source.event_time_column}
    return found


def write_spark_directory(
    spark: SparkSession, request: SparkRequest, entities: pa.Table | Path | str, address: str
) -> Written:
    """A training set as a directory of Parquet files, its rows in no order.

    Args:
        spark: the session.
        request: what is asked.
        entities: labels, or the address of a Parquet file or directory of labels that executors can read.
        address: a directory or URI that executors can write; must not exist.

    Raises:
        FeatureStoreError: as `spark_training_set`; Unavailable when Spark fails.
    """
    with clear_errors():
        if isinstance(entities, str | Path):
            labels = spark.read.parquet(hadoop_uri(str(entities)))
        else:
            columns = [_for_spark(column) for column in entities.columns]
            labels = spark.createDataFrame(pa.table(columns, names=entities.column_names))
        found = request.answer(spark, labels)
        place = hadoop_uri(address)
        found.write.parquet(place)
        return Written(spark.read.parquet(place).count(), len(found.columns) - len(labels.columns))


@contextmanager
def clear_errors() -> Iterator[None]:
    """Make errors of Spark ours: the one that an executor's Python raised, else a kind that fits.

    Raises:
        FeatureStoreError: InvalidRequest or Unavailable, or what was raised in an executor.
    """
    try:
        yield
    except PySparkException as error:
        raise _ours(error) from error


def _ours(error: PySparkException) -> FeatureStoreError:
    """An error of Spark's as one of ours."""
    text = str(error)
    raised = list(_OURS.finditer(text))
    if raised:
        kind = getattr(errors, raised[-1][1], FeatureStoreError)
        message, *lines = text[raised[-1].end() :].strip().splitlines()
        hint = next((line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")), "")
        detail = "\n".join(line for line in lines if not line.startswith("hint: "))
        bases = (InvalidRequest, Unavailable, CorruptData)
        return next((base for base in bases if issubclass(kind, base)), FeatureStoreError)(
            message, detail=detail, hint=hint
        )
    summary = text.partition("\n\n")[0]
    if "TIMESTAMP(NANOS" in text:
        return InvalidRequest("Spark cannot read timestamps in nanoseconds", detail=summary, hint=_NANOSECONDS_HINT)
    if isinstance(error, AnalysisException):
        return InvalidRequest("Spark cannot do this", detail=summary)
    if "FILE_NOT_EXIST" in text or "FileNotFoundException" in text:
        hint = "it was compacted, or dropped by retention, since the job began: run it again"
        return Unavailable("a file of the history has gone", detail=summary, hint=hint)
    return Unavailable("the Spark job failed", detail=summary)


def _put_together(plan: TrainingSetPlan, parts: Path, write: Callable[[pa.Table], None]) -> None:
    """Writes the labels with the features that executors have written."""
    types = {column.name: column.type for outputs in plan.views for column in outputs.columns}
    types |= {one.column.name: one.column.type for one in plan.on_demand}
    labels = plan.labels.table
    for begin in range(0, max(labels.num_rows, 1), OUTPUT_ROWS):
        block = labels.slice(begin, OUTPUT_ROWS)
        part = parts / f"{_PART}={begin // OUTPUT_ROWS}"
        features = _read_part(part, begin, block.num_rows) if block.num_rows else None
        for name in plan.names:
            kind = ARROW_TYPES[types[name]]
            block = block.append_column(name, pa.array([], kind) if features is None else features[name].cast(kind))
        write(block)


def _read_part(part: Path, begin: int, count: int) -> pa.Table:
    """Features of label rows [begin, begin + count), in their order."""
    if not part.exists():
        raise Unavailable(
            f'the executors have not written "{part}" where the driver reads it',
            hint="give --out on a file system that all share, or as a URI",
        )
    table = pq.read_table(part, partitioning=None).sort_by(_ROW)
    assert np.array_equal(table[_ROW].to_numpy(), np.arange(begin, begin + count)), "each row comes back once"
    return table


def _for_spark(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as a type that Spark has; what is finer than a microsecond is cut off towards the past."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _for_spark(column.cast(kind.value_type))
    if pa.types.is_timestamp(kind):
        wanted = pa.timestamp("us", tz=kind.tz)
        return column.cast(wanted) if kind.unit != "ns" else pc.floor_temporal(column, unit="microsecond").cast(wanted)
    if pa.types.is_unsigned_integer(kind):
        return column.cast(pa.int64())
    if pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    return column.cast(pa.date32()) if pa.types.is_date64(kind) else column
