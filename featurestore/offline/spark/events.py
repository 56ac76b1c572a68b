"""Histories as Spark reads them: event logs, files, tables, DataFrames; each row with its place in order of arrival.

    event log      files of one version, listed by the driver                 arrival: topic, partition, offset
    Parquet files  listed by Spark                                            arrival: file, row in the file
    Delta table    files of one version, listed by the driver                 arrival: its positions, else file, row
    DataFrame      the caller's                                               arrival: columns that the caller names

Executors read exactly the files of the driver's version, which stay for a week after they were replaced. A file that
has gone all the same ends the job with an error. Spark needs no package for Delta tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import (
    DataType,
    IntegerType,
    IntegralType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from featurestore.core.spec import SourceSpec
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.address import below
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.table import LogFile
from featurestore.offline.foreign_tables.delta import DeltaRows
from featurestore.offline.foreign_tables.opening import open_table
from featurestore.offline.foreign_tables.table import DELTA_LOG
from featurestore.offline.training_set.histories import EVENT_TIME
from featurestore.offline.training_set.view_events import LabelReach
from featurestore.wire.moments import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, MILLISECONDS, SECONDS_BELOW

_FILE, _ROW, _PATH = "__featurestore_file", "__featurestore_row", "__featurestore_path"
_SCHEME = "^([a-z0-9]+):/+"


@dataclass(frozen=True, slots=True)
class SparkRows:
    """Rows of a history.

    Attributes:
        frame: columns that were asked for, the event time under a name that `FileHistory` knows, and `arrival`.
        arrival: columns that are ascending in order of arrival; no nulls.
    """

    frame: DataFrame
    arrival: tuple[str, ...]


class SparkHistory(Protocol):
    """Events at rest, for Spark."""

    def rows(self, spark: SparkSession, source: SourceSpec, columns: Sequence[str], reach: LabelReach) -> SparkRows:
        """Rows of a source.

        Args:
            spark: reads them.
            source: whose events.
            columns: names of payload columns.
            reach: event times wanted; others may come too.

        Raises:
            InvalidRequest: there is no history of that source, or it lacks a column.
            Unavailable: it cannot be read now.
        """
        ...


class SparkEventLog:
    """The event logs below a directory or URI, one a source; each at the version that was its newest when first asked.

    The driver reads the table's log through delta-rs, executors read Parquet through Hadoop: both must reach the same
    place. s3:// is Hadoop's s3a://, whose credentials and endpoint are Spark settings.

    Args:
        root: as `featurestore event-log run` was given.
        ingested_before_ms: only events that had been read from the source before that moment.
    """

    def __init__(self, root: str | Path, *, ingested_before_ms: int | None = None) -> None:
        self._root = str(root)
        self._ingested_before_ms = ingested_before_ms
        self._logs: dict[str, EventLog] = {}

    def rows(self, spark: SparkSession, source: SourceSpec, columns: Sequence[str], reach: LabelReach) -> SparkRows:
        """See `SparkHistory`."""
        log = self._log(source)
        wanted = list(dict.fromkeys([*columns, EVENT_TIME]))
        _check_columns(wanted, log.schema.names, f'event log "{log.uri}"')
        files = [file for file in log.files if _may_reach(file, reach)]
        schema = from_arrow_schema(log.schema, prefer_timestamp_ntz=True)
        if not files:
            frame = spark.createDataFrame([], schema)
        else:
            # Looked up recursively, a path is a path: Spark takes no column out of a directory's name.
            reader = (
                spark.read.schema(schema).option("recursiveFileLookup", "true").option("ignoreMissingFiles", "false")
            )
            frame = reader.parquet(*(f"{hadoop_uri(below(self._root, source.name))}/{one.path}" for one in files))
        if self._ingested_before_ms is not None:
            frame = frame.where(F.col("ingest_time_ms") < self._ingested_before_ms)
        frame = frame.where((F.col(EVENT_TIME) >= reach.from_ms) & (F.col(EVENT_TIME) < reach.to_ms))
        topics = {topic for topic, _ in log.positions()}
        arrival = ("partition", "offset") if len(topics) < 2 else ("topic", "partition", "offset")
        return SparkRows(frame.select(*map(exact_column, [*wanted, *arrival])), arrival)

    def _log(self, source: SourceSpec) -> EventLog:
        """The source's log, at the version that was its newest when it was first asked for."""
        if source.name not in self._logs:
            self._logs[source.name] = EventLog(below(self._root, source.name))
        return self._logs[source.name]


class SparkFiles:
    """Events of one or more sources in Parquet files, in Delta tables that somebody else keeps, or in DataFrames.

    Rows of files are in order of arrival as they stand, files in the order of their names; those of a table that has
    the columns partition and offset are in the order of topic, partition and offset. Rows of a DataFrame are in
    the order of `arrival`; without it, which of two events of an entity and of one moment came first is undefined.

    Args:
        events: path or URI of a Parquet file or directory or of a Delta table, or a DataFrame; or one of these for each
            source, by name.
        arrival: columns of DataFrames that order their rows by arrival.
    """

    def __init__(
        self, events: str | Path | DataFrame | Mapping[str, str | Path | DataFrame], *, arrival: Sequence[str] = ()
    ) -> None:
        self._events = events
        self._arrival = tuple(arrival)

    def rows(self, spark: SparkSession, source: SourceSpec, columns: Sequence[str], reach: LabelReach) -> SparkRows:
        """See `SparkHistory`."""
        given = self._events
        if isinstance(given, Mapping):
            if source.name not in given:
                raise InvalidRequest(
                    f'there is no history of source "{source.name}"', hint=suggest(source.name, list(given))
                )
            given = given[source.name]
        return read_rows(spark, given, self._arrival, f'the history of source "{source.name}"').select(
            columns, source, reach
        )


@dataclass(frozen=True, slots=True)
class _Table:
    """Everything of a history, before columns are chosen.

    Attributes:
        frame: all columns.
        names: those of the history itself.
        arrival: columns that order the rows.
        what: names it in messages.
        has_positions: `arrival` is where each record is in the stream, so that the same position is the same record.
    """

    frame: DataFrame
    names: tuple[str, ...]
    arrival: tuple[str, ...]
    what: str
    has_positions: bool = False

    def select(self, columns: Sequence[str], source: SourceSpec, reach: LabelReach) -> SparkRows:
        """The wanted columns of rows that may be in reach."""
        time_column = EVENT_TIME if EVENT_TIME in self.names else source.event_time_column
        wanted = self.choose([*columns, time_column])
        if self.has_positions and not (source.id_column is not None and source.dedup_horizon_ms):
            # No id tells a record that a sink has written twice.
            wanted = SparkRows(wanted.frame.dropDuplicates([*self.arrival, time_column]), self.arrival)
        kind = wanted.frame.schema[time_column].dataType
        if isinstance(kind, IntegralType) and time_column != EVENT_TIME and source.event_time_unit != MILLISECONDS:
            return wanted  # told in the buckets
        for condition in _in_reach(time_column, kind, reach):
            wanted = SparkRows(wanted.frame.where(condition), wanted.arrival)
        return wanted

    def choose(self, columns: Sequence[str]) -> SparkRows:
        """The wanted columns."""
        wanted = list(dict.fromkeys(columns))
        _check_columns([*wanted, *(name for name in self.arrival if name not in (_FILE, _ROW))], self.names, self.what)
        chosen = self.frame.select(*map(exact_column, dict.fromkeys([*wanted, *self.arrival])))
        return SparkRows(chosen, self.arrival)


def read_rows(spark: SparkSession, given: object, arrival: Sequence[str], what: str) -> _Table:
    """A table for a history.

    Args:
        spark: reads it.
        given: a path or URI of Parquet or of a Delta table, or a DataFrame.
        arrival: of a DataFrame, the columns that order it.
        what: names it in messages.

    Raises:
        InvalidRequest: it is neither, or a table that is not read here.
    """
    if isinstance(given, DataFrame):
        return _Table(given, tuple(given.columns), tuple(arrival), what)
    if not isinstance(given, str | Path):
        raise InvalidRequest(f"{what} is not a path or a DataFrame", hint="Spark reads Parquet files and DataFrames")
    # A text without a scheme is a path of Spark's default file system, which need not be the local disk.
    address = given if isinstance(given, str) and "://" not in given else hadoop_uri(str(given))
    table = _delta_table(spark, given, address, what)
    if table is not None:
        return _table_rows(spark, table, address, what)
    read = spark.read.option("ignoreMissingFiles", "false").parquet(address)
    names = tuple(read.columns)
    files = sorted(read.inputFiles(), key=unquote)
    numbered = read.select("*", F.col("_metadata.row_index").alias(_ROW))
    if len(files) == 1:
        return _Table(numbered, names, (_ROW,), what)
    pairs = [(_bare(path), number) for number, path in enumerate(files)]
    return _Table(_with_files(spark, numbered, pairs, StructType()), names, (_FILE, _ROW), what)


def _with_files(
    spark: SparkSession, numbered: DataFrame, files: Sequence[tuple[object, ...]], columns: StructType
) -> DataFrame:
    """Rows with the number of their file, and what else is known of the file.

    Args:
        spark: joins them.
        numbered: rows of files.
        files: path as Spark has it, number, and a value for each of the columns.
        columns: what files do not hold.
    """
    # The path of a file as a column of every row would be most of what is shuffled; its number is not.
    schema = StructType([StructField(_PATH, StringType()), StructField(_FILE, IntegerType()), *columns.fields])
    known = spark.createDataFrame(list(files), schema)
    numbered = numbered.withColumn(_PATH, F.regexp_replace(F.col("_metadata.file_path"), _SCHEME, "$1:/"))
    return numbered.join(F.broadcast(known), _PATH, "left").drop(_PATH)


def _delta_table(spark: SparkSession, given: str | Path, address: str, what: str) -> DeltaRows | None:
    """The Delta table at an address; None where there is none: then its files are its rows.

    Raises:
        InvalidRequest: there is a table that is not read here.
    """
    table = open_table(given)
    if isinstance(table, DeltaRows):
        return table
    if table is not None or _is_there(spark, f"{address}/{DELTA_LOG}"):
        kind = "Delta" if table is None else table.kind
        raise InvalidRequest(
            f'{what} is the {kind} table "{given}"',
            detail="Not all of its files need be its rows, and the driver cannot tell which are.",
            hint=f'give spark.read.format("{kind.lower()}").load(...) as a DataFrame, or use --engine local',
        )
    return None


def _is_there(spark: SparkSession, address: str) -> bool:
    """Whether Spark finds a file or directory, wherever it looks for it."""
    try:
        spark.read.format("binaryFile").load(address)
    except AnalysisException:
        return False
    return True


def _table_rows(spark: SparkSession, table: DeltaRows, address: str, what: str) -> _Table:
    """The rows of one version of a Delta table, from its files."""
    names = tuple(table.schema.names)
    arrival = table.positions or (_FILE, _ROW)
    everything = from_arrow_schema(table.schema, prefer_timestamp_ntz=True)
    if not table.files:
        more = StructType([StructField(_FILE, IntegerType()), StructField(_ROW, LongType())])
        return _Table(spark.createDataFrame([], StructType([*everything, *more])), names, arrival, what)
    stored = StructType([field for field in everything if field.name not in table.partition_columns])
    # Looked up recursively, a path is a path: Spark takes no column out of a directory's name.
    reader = spark.read.schema(stored).option("recursiveFileLookup", "true").option("ignoreMissingFiles", "false")
    read = reader.parquet(*(f"{address.rstrip('/')}/{file.path}" for file in table.files))
    paths = {}
    for uri in read.inputFiles():
        parts = unquote(uri).split("/")
        paths.update({"/".join(parts[-depth:]): uri for depth in range(1, len(table.partition_columns) + 2)})
    partitions = StructType([field for field in everything if field.name in table.partition_columns])
    files = [
        (_bare(paths[file.path]), number, *(file.partition[field.name] for field in partitions))
        for number, file in enumerate(table.files)
    ]
    numbered = read.select("*", F.col("_metadata.row_index").alias(_ROW))
    frame = _with_files(spark, numbered, files, partitions)
    return _Table(frame, names, arrival, what, has_positions=bool(table.positions))


def exactly(name: str) -> str:
    """A column's name as Spark takes it whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"


def exact_column(name: str) -> Column:
    """The column of that very name."""
    return F.col(exactly(name))


def hadoop_uri(address: str) -> str:
    """An address of Arrow's as Hadoop knows it: without Arrow's options; a path is of the local disk."""
    if "://" not in address:
        return f"file://{Path(address).absolute()}"
    address = address.partition("?")[0].rstrip("/")
    return "s3a://" + address.removeprefix("s3://") if address.startswith("s3://") else address


def _may_reach(file: LogFile, reach: LabelReach) -> bool:
    """A file can have rows within reach."""
    oldest_ms, newest_ms = file.event_times_ms or (EVENT_TIME_MS_MIN, EVENT_TIME_MS_MAX)
    return oldest_ms < reach.to_ms and newest_ms >= reach.from_ms


def _in_reach(time_column: str, kind: DataType, reach: LabelReach) -> list[Column]:
    """What Spark can tell of rows out of reach by itself; the rest is told in the buckets."""
    time = exact_column(time_column)
    if isinstance(kind, TimestampType):
        first, last = (F.expr(f"timestamp_millis({ms})") for ms in (reach.from_ms, reach.to_ms))
        return [(time >= first) & (time < last)]
    if isinstance(kind, TimestampNTZType):
        first, last = (F.expr(f"TIMESTAMP_NTZ '{_as_text(ms)}'") for ms in (reach.from_ms, reach.to_ms))
        return [(time >= first) & (time < last)]
    if isinstance(kind, IntegralType):
        # What is no moment in milliseconds is kept, for the bucket to refuse it instead of finding no events.
        is_no_moment = (F.abs(time) < SECONDS_BELOW) | (F.abs(time) > EVENT_TIME_MS_MAX)
        return [is_no_moment | ((time >= reach.from_ms) & (time < reach.to_ms))]
    return []


def _as_text(time_ms: int) -> str:
    """A moment as SQL writes it, UTC."""
    return (datetime(1, 1, 1) + timedelta(milliseconds=time_ms - EVENT_TIME_MS_MIN)).isoformat(sep=" ")


def _bare(uri: str) -> str:
    """Hadoop writes file:/x and file:///x for one file."""
    return re.sub(_SCHEME, r"\1:/", uri)


def _check_columns(wanted: Sequence[str], known: Sequence[str], what: str) -> None:
    """Every wanted column must be there."""
    for name in wanted:
        if name not in known:
            raise InvalidRequest(f'{what} has no column "{name}"', hint=suggest(name, list(known)))
