"""Where the events of stream views come from: the event log, files, a table of others, or a table in memory.

A history gives the rows of a source in order of arrival, with the source's columns and the event time as integers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from featurestore.core.spec import IS_UNDO, SourceSpec, ValueType
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.disk import complete_file
from featurestore.offline.event_log.address import below
from featurestore.offline.event_log.reader import EventLog, begin_of
from featurestore.offline.foreign_tables.opening import check_outside_tables, open_table
from featurestore.offline.foreign_tables.table import ForeignTable, stream
from featurestore.offline.position_order import SLICE_ROWS, rows_by_day, slice_in_order, time_slices
from featurestore.offline.training_set.arrow_columns import content_digest, takeable
from featurestore.offline.training_set.label_times import event_moments_ms, moments_ms
from featurestore.wire.moments import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, MILLISECONDS

EVENT_TIME = "event_time_ms"
"""Column of every batch of a history: the event time, integer milliseconds UTC."""

INGEST_TIME = "ingest_time_ms"
"""Column of the event log's files: when the row was read from the source."""

_logger = logging.getLogger(__name__)


class History(Protocol):
    """Events at rest."""

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """Rows of a source with event times in [from_ms, to_ms), in order of arrival.

        Args:
            source: whose events.
            columns: names of payload columns.
            from_ms: oldest event time wanted; older ones may come too.
            to_ms: first event time not wanted; later ones may come too.

        Returns:
            Batches with the columns, then EVENT_TIME as int64 without nulls.

        Raises:
            InvalidRequest: there is no history of that source, or it lacks a column; best before the first batch is
                asked for, as the histories of other sources may be read before.
            Unavailable: it cannot be read now.
        """
        ...

    def row_count(self, source: SourceSpec) -> int:
        """About how many rows there are, cheaply: decides how finely the work is cut."""
        ...

    def version(self, source: SourceSpec) -> str:
        """Text that changes when `scan` would give other rows: finished work is kept only as long as it does not."""
        ...


@runtime_checkable
class KeepsVersions(Protocol):
    """A history that grows, and can be read again as it was."""

    def keep_versions(self, path: Path | None) -> None:
        """Let a file hold which versions are read: from now on, and by the process that goes on after this one.

        A log that was opened before stays as it was then. None ends it.
        """
        ...

    def versions_read(self) -> dict[str, int]:
        """Version of each log and table that was read, by its address."""
        ...


class EventLogHistory:
    """The event logs below a directory or URI, one a source; each at the version that was its newest when first asked.

    Args:
        root: as `featurestore event-log run` was given; its directories are named after sources.
        ingested_before_ms: only events that had been read from the source before that moment.
    """

    def __init__(self, root: str | Path, *, ingested_before_ms: int | None = None) -> None:
        self._root = str(root)
        self._ingested_before_ms = ingested_before_ms
        self._versions = _KeptVersions(None)
        self._logs: dict[str, EventLog] = {}

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """See `History`."""
        log = self.log(source)
        names = [name for name in columns if name != EVENT_TIME]
        for name in names:
            if name not in log.schema.names:
                raise InvalidRequest(
                    f'event log "{log.uri}" has no column "{name}"', hint=suggest(name, log.schema.names)
                )
        return self._scan(log, [*names, EVENT_TIME], from_ms, to_ms)

    def row_count(self, source: SourceSpec) -> int:
        """Exact."""
        return self.log(source).row_count

    def version(self, source: SourceSpec) -> str:
        """Which table, and its version."""
        log = self.log(source)
        return json.dumps([log.uri, log.table_id, log.version, self._ingested_before_ms])

    def keep_versions(self, path: Path | None) -> None:
        """See `KeepsVersions`."""
        self._versions = _KeptVersions(path)
        for log in self._logs.values():
            self._versions.keep(self._place(log), log.version)

    def versions_read(self) -> dict[str, int]:
        """See `KeepsVersions`."""
        return {log.uri: log.version for log in self._logs.values()}

    def log(self, source: SourceSpec) -> EventLog:
        """The source's log, opened once: at the version that an earlier process read, else at its newest."""
        if source.name not in self._logs:
            log = EventLog(below(self._root, source.name))
            version = self._versions.of(self._place(log), log.version)
            if version != log.version:
                # A version that is gone: what was found in it is of no use, and is found again in the newest.
                with suppress(InvalidRequest):
                    log = EventLog(below(self._root, source.name), version)
            self._logs[source.name] = log
            self._versions.keep(self._place(log), log.version)
        return self._logs[source.name]

    def _scan(self, log: EventLog, names: Sequence[str], from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """Rows of a log."""
        if log.kept_from is not None and from_ms < begin_of(log.kept_from):
            _logger.warning(
                "event log %s was cut by retention: windows that begin before %s lack their oldest events",
                log.uri,
                log.kept_from,
            )
        yield from log.scan(names, from_ms=from_ms, to_ms=to_ms, ingested_before_ms=self._ingested_before_ms)

    def _place(self, log: EventLog) -> str:
        """Which log, and as it was known when: the version of another one is of no use."""
        return json.dumps([log.uri, log.table_id, self._ingested_before_ms])


class FileHistory:
    """Events of one or more sources in files that Arrow reads, in a table that somebody else keeps, or in memory.

    Rows are in order of arrival as they stand; rows without an event time or (where the source declares one) without
    an event id are no events and are left out, as the stream does.

    A Delta or Iceberg table is read at the version that was its newest when it was first asked for. Its rows have the
    order of its files' paths; those of one event time that of their topic, partition and offset, if it has columns of
    these names, and each position counts once.

    Args:
        events: path of a Parquet, CSV, JSON or Arrow IPC file or directory, address of a Delta or Iceberg table (see
            foreign_tables/opening.py), a pyarrow dataset or a table; or one of these for each source, by its name.
        format: of files, as pyarrow.dataset names it.
        ingested_before_ms: only events that had been read from the source before that moment; for what has the event
            log's column INGEST_TIME.
    """

    def __init__(
        self,
        events: str | Path | pa.Table | pads.Dataset | Mapping[str, object],
        *,
        format: str = "parquet",
        ingested_before_ms: int | None = None,
    ) -> None:
        self._events = events
        self._format = format
        self._ingested_before_ms = ingested_before_ms
        self._datasets: dict[str, pads.Dataset | ForeignTable] = {}
        self._states: dict[str, str] = {}
        self._days: dict[str, dict[int, int]] = {}
        self._versions = _KeptVersions(None)

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """See `History`."""
        dataset = self._dataset(source)
        stored, time_column = self._stored(source, columns)
        if isinstance(dataset, ForeignTable):
            return self._scan_table(source, dataset, columns, from_ms, to_ms)
        return self._scan(source, stored, columns, time_column)

    def row_count(self, source: SourceSpec) -> int:
        """Exact, from footers where files have them; of an Iceberg table with the rows that were deleted from it."""
        with _read_errors(source):
            return int(self._dataset(source).count_rows())

    def version(self, source: SourceSpec) -> str:
        """Names, sizes and ages of the files; a digest of a table in memory; which other table, and its version."""
        dataset = self._dataset(source)
        if isinstance(dataset, ForeignTable):
            return json.dumps([dataset.uri, dataset.table_id, dataset.version, self._ingested_before_ms])
        state = state_of_files(dataset) or content_digest(dataset.schema, dataset.to_batches())
        return json.dumps([state, self._ingested_before_ms])

    def keep_versions(self, path: Path | None) -> None:
        """See `KeepsVersions`; only tables that somebody else keeps have versions."""
        self._versions = _KeptVersions(path)
        for dataset in self._datasets.values():
            if isinstance(dataset, ForeignTable):
                self._versions.keep(_table_place(dataset), dataset.version)

    def versions_read(self) -> dict[str, int]:
        """See `KeepsVersions`."""
        return {one.uri: one.version for one in self._datasets.values() if isinstance(one, ForeignTable)}

    def table(self, source: SourceSpec) -> ForeignTable | None:
        """The source's table that somebody else keeps; None where its events are in files or in memory."""
        dataset = self._dataset(source)
        return dataset if isinstance(dataset, ForeignTable) else None

    def rows_by_day(self, source: SourceSpec) -> dict[int, int]:
        """Events of each day since 1970, of a table that somebody else keeps; reads all event times, once."""
        table = self.table(source)
        assert table is not None, "files are read as they stand"
        if source.name not in self._days:
            span_ms = EVENT_TIME_MS_MIN, EVENT_TIME_MS_MAX + 1
            batches = self._table_rows(source, table, [], *span_ms, are_integers_ms=False)
            self._days[source.name] = rows_by_day(batch.column(0) for batch in batches)
        return self._days[source.name]

    def _scan_table(
        self, source: SourceSpec, table: ForeignTable, columns: Sequence[str], from_ms: int, to_ms: int
    ) -> Iterator[pa.RecordBatch]:
        """Rows of a table that somebody else keeps; those of one event time in the order of their positions."""
        positions = table.positions
        if not positions:
            yield from self._table_rows(source, table, columns, from_ms, to_ms, are_integers_ms=False)
            return
        told_by = (IS_UNDO,) if source.changes else ()
        names = [*columns, *(name for name in (*positions, *told_by) if name not in columns)]
        is_large = table.count_rows() > SLICE_ROWS
        slices = time_slices(self.rows_by_day(source), from_ms, to_ms) if is_large else iter([(from_ms, to_ms)])
        # Where days were counted, all event times were read, and integers of another unit have been refused.
        are_integers_ms = is_large and source.event_time_unit == MILLISECONDS
        for first_ms, end_ms in slices:
            rows = self._table_rows(source, table, names, first_ms, end_ms, are_integers_ms=are_integers_ms)
            for batch in slice_in_order(rows, positions, first_ms, end_ms, told_by):
                yield batch.select([*range(len(columns)), batch.num_columns - 1])

    def _table_rows(
        self,
        source: SourceSpec,
        table: ForeignTable,
        columns: Sequence[str],
        from_ms: int,
        to_ms: int,
        *,
        are_integers_ms: bool,
    ) -> Iterator[pa.RecordBatch]:
        """Rows of a table as they stand."""
        stored, time_column = self._stored(source, columns)
        span = table.span_of(time_column, from_ms, to_ms, are_integers_ms=are_integers_ms)
        for batch in table.to_batches(columns=stored, span=span):
            yield self._rows(batch, columns, time_column, source)

    def _stored(self, source: SourceSpec, columns: Sequence[str]) -> tuple[list[str], str]:
        """The stored columns that are read for the wanted ones, and which of them has the event times."""
        dataset = self._dataset(source)
        time_column = EVENT_TIME if EVENT_TIME in dataset.schema.names else source.event_time_column
        wanted = dict.fromkeys([*columns, time_column])
        if self._ingested_before_ms is not None:
            self._check_tells_arrival(source, dataset)
            wanted[INGEST_TIME] = None
        for name in wanted:
            if name not in dataset.schema.names:
                raise InvalidRequest(
                    f'the history of source "{source.name}" has no column "{name}"',
                    hint=suggest(name, dataset.schema.names),
                )
        return list(wanted), time_column

    def _scan(
        self, source: SourceSpec, stored: list[str], columns: Sequence[str], time_column: str
    ) -> Iterator[pa.RecordBatch]:
        """Rows with the columns, of batches with the stored ones."""
        dataset = self._dataset(source)
        self._check_unchanged(source)
        try:
            with _read_errors(source):
                for batch in stream(dataset, stored):
                    yield self._rows(batch, columns, time_column, source)
        except Unavailable:
            self._check_unchanged(source)
            raise
        self._check_unchanged(source)

    def _check_tells_arrival(self, source: SourceSpec, dataset: pads.Dataset | ForeignTable) -> None:
        """Only the event log knows when an event arrived."""
        if INGEST_TIME not in dataset.schema.names:
            raise InvalidRequest(
                f'the history of source "{source.name}" does not tell when its events arrived',
                detail=f'Its files have no column "{INGEST_TIME}", as those of an event log have.',
                hint="leave --ingested-before (ingested_before_ms) out, or read that source from an event log",
            )

    def _check_unchanged(self, source: SourceSpec) -> None:
        """Files must stay what they were when they were opened: half of old ones and half of new are neither.

        Of files of this machine; to ask an object store for each of many takes longer than to read them.

        Raises:
            Unavailable: they did not.
        """
        dataset = self._dataset(source)
        if _is_local(dataset) and state_of_files(dataset) != self._states[source.name]:
            del self._datasets[source.name]
            raise Unavailable(
                f'the files of the history of source "{source.name}" changed while they were read', hint="run it again"
            )

    def _rows(
        self, batch: pa.RecordBatch, columns: Sequence[str], time_column: str, source: SourceSpec
    ) -> pa.RecordBatch:
        """One batch with its event times; rows that have none are left out, and those that came too late."""
        if time_column == EVENT_TIME != source.event_time_column:  # an event log's own, which the stream has looked at
            unit = MILLISECONDS
            times_ms, is_wanted = moments_ms(batch.column(time_column), time_column)
        else:
            unit = source.event_time_unit
            times_ms, is_wanted = event_moments_ms(batch.column(time_column), time_column, unit)
        if self._ingested_before_ms is not None:
            ingested_ms, is_known = moments_ms(batch.column(INGEST_TIME), INGEST_TIME)
            is_wanted &= is_known & (ingested_ms < self._ingested_before_ms)
        arrays = [takeable(batch.column(name)) for name in columns]
        if unit != MILLISECONDS and time_column in columns and _is_moment(source, time_column):
            arrays[list(columns).index(time_column)] = pa.array(times_ms)
        rows = pa.RecordBatch.from_arrays([*arrays, pa.array(times_ms)], names=[*columns, EVENT_TIME])
        return rows if is_wanted.all() else rows.take(pa.array(np.flatnonzero(is_wanted)))

    def _dataset(self, source: SourceSpec) -> pads.Dataset | ForeignTable:
        """The files of a source, or its table at the version that an earlier process read, else at its newest."""
        if source.name not in self._datasets:
            events = self._events
            if isinstance(events, Mapping):
                if source.name not in events:
                    raise InvalidRequest(
                        f'there is no history of source "{source.name}"', hint=suggest(source.name, list(events))
                    )
                events = events[source.name]
            dataset = open_dataset(events, self._format)
            if isinstance(dataset, ForeignTable):
                dataset = self._versions.reopened(dataset, str(events))
            self._states[source.name] = state_of_files(dataset) if _is_local(dataset) else ""
            self._datasets[source.name] = dataset
        return self._datasets[source.name]


class _KeptVersions:
    """A file that holds which versions of logs and tables are read; None: there is none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def of(self, place: str, default: int) -> int:
        """The version that is kept of a place."""
        return self._read().get(place, default)

    def keep(self, place: str, version: int) -> None:
        """Write a version down; the file is the old one or the new one, whenever the process ends."""
        if self._path is None:
            return
        content = msgspec.json.encode({**self._read(), place: version})
        with complete_file(self._path) as unfinished:
            unfinished.write_bytes(content)

    def reopened(self, table: ForeignTable, address: str) -> ForeignTable:
        """A table that was just opened, at the version that is kept of it, if that can be read yet."""
        version = self.of(_table_place(table), table.version)
        if version != table.version:
            with suppress(InvalidRequest):  # gone: what was found in it is found again in the newest
                table = open_table(address, version) or table
        self.keep(_table_place(table), table.version)
        return table

    def _read(self) -> dict[str, int]:
        """What the file holds; nothing where there is none, or none that was written completely."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])
        except msgspec.DecodeError:
            return {}


def open_dataset(given: object, file_format: str = "parquet") -> pads.Dataset | ForeignTable:
    """A path, URI, table or dataset as a dataset; or the table that somebody else keeps there, at its newest version.

    Raises:
        InvalidRequest: nothing readable is there, or files of a table without the table.
        Unavailable: a table cannot be reached.
    """
    if isinstance(given, pads.Dataset):
        return given
    if isinstance(given, pa.Table):
        return pads.dataset(given)
    table = open_table(str(given))
    if table is not None:
        return table
    try:
        dataset = pads.dataset(str(given), format=file_format, partitioning="hive")
    except (OSError, pa.ArrowInvalid) as error:
        detail = "There is no such file." if isinstance(error, FileNotFoundError) else str(error)
        raise InvalidRequest(f'"{given}" cannot be read as {file_format}', detail=detail) from error
    check_outside_tables(str(given), dataset)
    return dataset


@contextmanager
def _read_errors(source: SourceSpec) -> Iterator[None]:
    """What Arrow says of files that are damaged, gone or cut."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise Unavailable(f'the history of source "{source.name}" cannot be read', detail=str(error)) from error


def _table_place(table: ForeignTable) -> str:
    """Which table: the version of another one is of no use."""
    return json.dumps([table.uri, table.table_id])


def _is_moment(source: SourceSpec, name: str) -> bool:
    """A column is declared to hold moments, not numbers: then its unit is of its spelling only."""
    column = source.column(name)
    return column is not None and column.type is ValueType.TIMESTAMP


def _is_local(dataset: pads.Dataset | ForeignTable) -> bool:
    """Whether it is of files of this machine."""
    return isinstance(getattr(dataset, "filesystem", None), pafs.LocalFileSystem)


def state_of_files(dataset: pads.Dataset) -> str:
    """Names, sizes and ages of a dataset's files; empty where it has none."""
    files = getattr(dataset, "files", None)
    if files is None:
        return ""
    stats = dataset.filesystem.get_file_info(files)
    return json.dumps([[each.path, each.size, each.mtime_ns or 0] for each in stats])
