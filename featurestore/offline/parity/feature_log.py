"""The feature log: what the server answered, as Parquet, a row for each logged request row.

    LOG/service=fraud_detection/log_date=2026-11-22/part-<first row's ms>-<token>-<number>.parquet

    card_id, merchant_id ...                        the join keys
    card_activity__count_1h                         the value that was answered, null where none was
    card_activity__count_1h__timestamp, __status    newest event behind it; FeatureStatus of featurestore_api/v1
    __log_timestamp, __log_date, __request_id       when, and by which request; up to here as Feast's feature logging
    __request_row, __as_of_ms                       row of the request, and the read time
    __definition__card_activity                     hash of the definition that answered; empty for plain views
    __positions__card_activity                      next offset of each (topic, partition) when the entity was read
    __request__amount                               column of the request that a feature was computed from
    __event__transactions                           the payment in flight, as a struct; null where there was none
    __shadow_of                                     only of a shadow's answers: the service that the caller asked

A file appears under its name when it is complete. Files of one service have different columns when its definition
changed; each says in its metadata what it holds, so that nobody has to take column names apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from urllib.parse import quote, unquote

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.core.spec import Column, ValueType
from featurestore.errors import CorruptData, FeatureStoreError, Unavailable
from featurestore.offline.parity.log_directory import LogDirectory
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES

REQUEST_ID, LOG_TIMESTAMP, LOG_DATE = "__request_id", "__log_timestamp", "__log_date"
"""Feast's names."""

STATISTICS = "statistics"
"""Directory beside the services', with files that are none of the log."""

REQUEST_ROW, AS_OF_MS, SHADOW_OF = "__request_row", "__as_of_ms", "__shadow_of"

FILE_ROWS_MAX = 1 << 16
FILE_BYTES_MAX = 64 << 20
HELD_BYTES_MAX = 4 * FILE_BYTES_MAX
"""Rows that cannot be written wait for the next try up to here; then they are lost, and said to be."""

POSITIONS_TYPE = pa.list_(pa.struct([("topic", pa.string()), ("partition", pa.int32()), ("next_offset", pa.int64())]))
STAMP_TYPE = pa.timestamp("us", tz="UTC")

_METADATA_KEY = b"featurestore.feature_log"
_NAME = re.compile(r"service=(?P<service>[^/]*)/log_date=(?P<date>\d{4}-\d\d-\d\d)/part-[^/]+\.parquet")
_MS_PER_SECOND = 1_000
_US_PER_MS = 1_000


@dataclass(frozen=True, slots=True)
class LoggedFeature:
    """One feature of a log.

    Attributes:
        view, name: which.
        type: of its values.
    """

    view: str
    name: str
    type: ValueType

    @property
    def column(self) -> str:
        """Column with the values."""
        return f"{self.view}__{self.name}"


@dataclass(frozen=True, slots=True)
class LoggedView:
    """A view behind the features.

    Attributes:
        name: the Feast view's name.
        definition_hash: of the definition that answered; empty for plain views, and for views not filled yet.
    """

    name: str
    definition_hash: str

    @property
    def positions_column(self) -> str:
        """Column with the source positions of each row."""
        return f"__positions__{self.name}"

    @property
    def definition_column(self) -> str:
        """Column with the definition hash."""
        return f"__definition__{self.name}"


@dataclass(frozen=True, slots=True)
class LoggedSource:
    """A source of which a request could bring a payment in flight.

    Attributes:
        name: the Feast data source's name.
        columns: what is read of its events, and their time; not the join keys, which are those of the row.
    """

    name: str
    columns: tuple[Column, ...]

    @property
    def column(self) -> str:
        """Column with the events."""
        return f"__event__{self.name}"

    @property
    def type(self) -> pa.DataType:
        """Of that column."""
        return pa.struct([(column.name, ARROW_TYPES[column.type]) for column in self.columns])


@dataclass(frozen=True, slots=True)
class LogLayout:
    """What a file holds.

    Attributes:
        service: the feature service, empty for requests that listed features.
        join_keys: in the service's order.
        features: in answer order; behind them those that are not answered, but that others are computed from.
        views: in order of first use.
        request: columns of the request that features were computed from.
        events: what payments in flight can be of.
        shadow_of: the service that was asked, and that answered; then these are what its shadow would have. Else "".
    """

    service: str
    join_keys: tuple[Column, ...]
    features: tuple[LoggedFeature, ...]
    views: tuple[LoggedView, ...]
    request: tuple[Column, ...] = ()
    events: tuple[LoggedSource, ...] = ()
    shadow_of: str = ""

    @property
    def schema(self) -> pa.Schema:
        """Columns of the file."""
        fields = [(key.name, ARROW_TYPES[key.type]) for key in self.join_keys]
        for feature in self.features:
            fields.append((feature.column, ARROW_TYPES[feature.type]))
            fields.append((timestamp_column(feature), STAMP_TYPE))
            fields.append((status_column(feature), pa.int32()))
        fields += [(LOG_TIMESTAMP, STAMP_TYPE), (LOG_DATE, pa.date32()), (REQUEST_ID, pa.string())]
        fields += [(REQUEST_ROW, pa.int32()), (AS_OF_MS, pa.int64())]
        fields += [(view.definition_column, pa.string()) for view in self.views]
        fields += [(view.positions_column, POSITIONS_TYPE) for view in self.views]
        fields += [(request_column(column), ARROW_TYPES[column.type]) for column in self.request]
        fields += [(source.column, source.type) for source in self.events]
        fields += [(SHADOW_OF, pa.string())] if self.shadow_of else []
        return pa.schema(fields)


def timestamp_column(feature: LoggedFeature) -> str:
    """Column with the newest event time behind each value; null where there is none."""
    return f"{feature.column}__timestamp"


def request_column(column: Column) -> str:
    """Column with what a request said."""
    return f"__request__{column.name}"


def status_column(feature: LoggedFeature) -> str:
    """Column with the statuses."""
    return f"{feature.column}__status"


@dataclass(slots=True)
class _OpenFile:
    """Rows that wait to become a file."""

    begun_ms: int
    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    size_bytes: int = 0


class FeatureLogWriter:
    """Writes feature logs; used by one thread.

    Args:
        directory: the log's.
        token: tells this process's files from those of others.
        roll_seconds: how long a row may wait in memory: what a kill -9 can take away.
    """

    def __init__(self, directory: LogDirectory, token: str, *, roll_seconds: float) -> None:
        self._directory = directory
        self._token = token
        self._roll_ms = round(roll_seconds * _MS_PER_SECOND)
        self._open: dict[tuple[LogLayout, date], _OpenFile] = {}
        self._number = 0

    def write(self, layout: LogLayout, table: pa.Table, now_ms: int) -> int:
        """Take rows of one log date.

        Returns:
            How many rows became durable, of these and earlier ones.

        Raises:
            Unavailable: a file cannot be written; its rows are kept for the next try, unless there are too many.
        """
        key = (layout, table.column(LOG_DATE)[0].as_py())
        waiting = self._open.setdefault(key, _OpenFile(now_ms))
        waiting.tables.append(table)
        waiting.rows += table.num_rows
        waiting.size_bytes += table.nbytes
        is_full = waiting.rows >= FILE_ROWS_MAX or waiting.size_bytes >= FILE_BYTES_MAX
        return self._roll(key, now_ms) if is_full else 0

    def advance(self, now_ms: int) -> int:
        """Write what has waited long enough; returns and raises as `write`."""
        due = [key for key, file in self._open.items() if now_ms - file.begun_ms >= self._roll_ms]
        return sum(self._roll(key, now_ms) for key in due)

    def close(self, now_ms: int) -> int:
        """Write all that waits; returns and raises as `write`."""
        return sum(self._roll(key, now_ms) for key in list(self._open))

    def _roll(self, key: tuple[LogLayout, date], now_ms: int) -> int:
        """Waiting rows become a file."""
        layout, log_date = key
        waiting = self._open.pop(key)
        table = pa.concat_tables(waiting.tables).cast(layout.schema)
        self._number += 1
        directory = f"service={quote(layout.service, safe='')}/log_date={log_date.isoformat()}"
        name = f"part-{waiting.begun_ms}-{self._token}-{self._number:06d}.parquet"
        try:
            write_logged(self._directory, f"{directory}/{name}", layout, table)
        except (FeatureStoreError, OSError) as error:
            is_kept = waiting.size_bytes + sum(file.size_bytes for file in self._open.values()) < HELD_BYTES_MAX
            if is_kept:
                waiting.begun_ms = now_ms
                self._open[key] = waiting
            fate = "are kept for another try" if is_kept else "are lost"
            raise Unavailable(
                f'feature log "{self._directory.uri}" cannot be written',
                detail=f"{waiting.rows} rows {fate}: {error}",
                hint="check address, credentials and free space",
            ) from error
        return waiting.rows


def write_logged(directory: LogDirectory, path: str, layout: LogLayout, table: pa.Table) -> None:
    """Make a file, or put another one in the place of it.

    Raises:
        OSError, Unavailable: it cannot be written; what is there under its name stays.
    """
    with directory.new_file(path) as stream, _parquet_writer(stream, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_METADATA_KEY: msgspec.json.encode(layout)})


def _parquet_writer(stream: pa.NativeFile, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer that says little: by default a file's footer is larger than the rows of some minutes."""
    return pq.ParquetWriter(
        stream, schema, compression="zstd", store_schema=False, write_statistics=[LOG_TIMESTAMP, AS_OF_MS]
    )


@dataclass(frozen=True, slots=True)
class LoggedFile:
    """One file of a log.

    Attributes:
        layout: what it holds.
        path: its path within the log.
        directory: the log's.
    """

    layout: LogLayout
    path: str
    directory: LogDirectory = field(compare=False)

    def read(self, columns: Sequence[str], *, since_ms: int | None = None, until_ms: int | None = None) -> pa.Table:
        """Some columns of the rows that were logged in [since_ms, until_ms).

        Raises:
            Unavailable: the file cannot be read.
        """
        wanted = list(dict.fromkeys([*columns, LOG_TIMESTAMP]))
        try:
            with self.directory.open(self.path) as source:
                table = pq.ParquetFile(source).read(wanted)
            table = table.cast(pa.schema([self.layout.schema.field(name) for name in table.schema.names]))
        except OSError as error:
            raise Unavailable(f'"{self.path}" of the feature log cannot be read', detail=str(error)) from error
        for bound_ms, compare in ((since_ms, pc.greater_equal), (until_ms, pc.less)):
            if bound_ms is not None:
                bound = pa.scalar(bound_ms * _US_PER_MS, pa.int64()).cast(STAMP_TYPE)
                table = table.filter(compare(table.column(LOG_TIMESTAMP), bound))
        return table


def find_logged_files(
    directory: LogDirectory, *, service: str | None = None, since_ms: int | None = None, until_ms: int | None = None
) -> Iterator[LoggedFile]:
    """Files that can have rows of a service logged in [since_ms, until_ms), by service and date.

    Raises:
        CorruptData: a file is not one of a feature log.
        Unavailable: the file system does not answer.
    """
    for path in directory.find():
        match = _NAME.fullmatch(path)
        if match is None or (service is not None and unquote(match["service"]) != service):
            continue
        log_date = date.fromisoformat(match["date"])
        is_before = since_ms is not None and log_date < date_of_ms(since_ms)
        if is_before or (until_ms is not None and log_date > date_of_ms(until_ms)):
            continue
        yield LoggedFile(_read_layout(directory, path), path, directory)


def date_of_ms(moment_ms: int) -> date:
    """UTC date of a moment."""
    return datetime.fromtimestamp(moment_ms // _MS_PER_SECOND, UTC).date()


def _read_layout(directory: LogDirectory, path: str) -> LogLayout:
    """What a file says that it holds."""
    try:
        with directory.open(path) as source:
            metadata = pq.ParquetFile(source).metadata.metadata or {}
        return msgspec.json.decode(metadata[_METADATA_KEY], type=LogLayout)
    except (OSError, KeyError, pa.ArrowInvalid, msgspec.MsgspecError) as error:
        raise CorruptData(f'"{path}" is not a file of a feature log', detail=str(error)) from error


def erase_logged(
    directory: LogDirectory, join_key: str, value: str | int, before_ms: int, *, is_trial: bool = False
) -> int:
    """Delete the rows of a value that were asked for before a moment; how many.

    Whoever reads a file goes on with what it was. Rows that wait in a server's memory are in its next file: run it
    again after that is written.

    Args:
        directory: of the log.
        join_key: name of the column.
        value: of it.
        before_ms: read times before this one.
        is_trial: only count.

    Raises:
        CorruptData, Unavailable: see `find_logged_files`.
    """
    erased = 0
    for file in find_logged_files(directory):
        if join_key not in [key.name for key in file.layout.join_keys]:
            continue
        table = _read_whole(file)
        column = table.column(join_key)
        is_theirs = pc.and_(pc.equal(column, pa.scalar(value, column.type)), pc.less(table.column(AS_OF_MS), before_ms))
        count = pc.sum(is_theirs).as_py() or 0
        erased += count
        if count and not is_trial:
            kept = table.filter(pc.invert(pc.fill_null(is_theirs, False)))
            write_logged(directory, file.path, file.layout, kept)
            directory.delete(statistics_path(file.path))
    return erased


def statistics_path(path: str) -> str:
    """Where statistics of a file are, if somebody asked for them."""
    return f"{STATISTICS}/{path}"


def _read_whole(file: LoggedFile) -> pa.Table:
    """All of a file."""
    try:
        with file.directory.open(file.path) as source:
            return pq.ParquetFile(source).read().cast(file.layout.schema)
    except OSError as error:
        raise Unavailable(f'"{file.path}" of the feature log cannot be read', detail=str(error)) from error
