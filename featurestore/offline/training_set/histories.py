"""Where the events of stream views come from: the event log, files, or a table in memory.

A history gives the rows of a source in order of arrival, with the source's columns and the event time as integers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from featurestore.core.spec import SourceSpec, ValueType
from featurestore.definitions.limits import DAY_MS
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.disk import complete_file
from featurestore.offline.event_log.layout import EPOCH_ORDINAL
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.training_set.arrow_columns import content_digest, takeable
from featurestore.offline.training_set.label_times import event_moments_ms, moments_ms
from featurestore.wire.moments import MILLISECONDS

EVENT_TIME = "event_time_ms"
"""Column of every batch of a history: the event time, integer milliseconds UTC."""

INGEST_TIME = "ingest_time_ms"
"""Column of the event log's files: when the row was read from the source."""

BATCHES_AHEAD = 2
"""Batches that are read while others are worked on; Arrow's default of sixteen would hold gigabytes."""

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
class KeepsPositions(Protocol):
    """A history that grows, and can be read again as it was."""

    def keep_positions(self, path: Path | None) -> None:
        """Let a file hold up to where logs are read: from now on, and by the process that goes on after this one.

        A log that was opened before stays as it was then. None ends it.
        """
        ...


class EventLogHistory:
    """The event logs below a directory or URI, one a source; each read as it was when it was first asked for.

    Args:
        root: as `featurestore event-log run` was given; its directories are named after sources.
        ingested_before_ms: only events that had been read from the source before that moment.
    """

    def __init__(self, root: str | Path, *, ingested_before_ms: int | None = None) -> None:
        self._root = str(root).rstrip("/")
        self._ingested_before_ms = ingested_before_ms
        self._positions_file: Path | None = None
        self._logs: dict[str, _OpenedLog] = {}

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """See `History`."""
        opened = self._log(source)
        log = opened.log
        names = [name for name in columns if name != EVENT_TIME]
        for name in names:
            if name not in log.schema.names:
                raise InvalidRequest(
                    f'event log "{log.uri}" has no column "{name}"', hint=suggest(name, log.schema.names)
                )
        return self._scan(opened, [*names, EVENT_TIME], from_ms, to_ms)

    def row_count(self, source: SourceSpec) -> int:
        """Next offsets added up: a log that was cut at its begin has fewer rows."""
        return sum(self._log(source).positions.values())

    def version(self, source: SourceSpec) -> str:
        """Positions, and what retention has left."""
        opened = self._log(source)
        return json.dumps([opened.log.uri, self._ingested_before_ms, _as_rows(opened.positions), opened.kept_from])

    def keep_positions(self, path: Path | None) -> None:
        """See `KeepsPositions`."""
        self._positions_file = path
        for opened in self._logs.values():
            self._keep(opened)

    def _scan(self, opened: _OpenedLog, names: Sequence[str], from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """Rows of a log, whose files are looked for only now: a scan that waits for others must not lose them."""
        snapshot = opened.log.snapshot()
        if snapshot.kept_from is not None and from_ms < (snapshot.kept_from.toordinal() - EPOCH_ORDINAL) * DAY_MS:
            _logger.warning(
                "event log %s was cut by retention: windows that begin before %s lack their oldest events",
                opened.log.uri,
                snapshot.kept_from,
            )
        yield from opened.log.scan(
            names,
            from_ms=from_ms,
            to_ms=to_ms,
            ingested_before_ms=self._ingested_before_ms,
            snapshot=snapshot,
            positions=opened.positions,
        )

    def _log(self, source: SourceSpec) -> _OpenedLog:
        """The source's log, opened once; read up to where an earlier process did, else up to its present end."""
        if source.name not in self._logs:
            log = EventLog(f"{self._root}/{source.name}")
            snapshot = log.snapshot()
            kept = self._kept().get(self._place(log))
            positions = snapshot.positions if kept is None else {(topic, number): end for topic, number, end in kept}
            if any(end > snapshot.positions.get(place, 0) for place, end in positions.items()):
                positions = snapshot.positions  # of another log, which was at this place before
            kept_from = None if snapshot.kept_from is None else snapshot.kept_from.isoformat()
            self._logs[source.name] = _OpenedLog(log, dict(positions), kept_from)
            self._keep(self._logs[source.name])
        return self._logs[source.name]

    def _kept(self) -> dict[str, list[tuple[str, int, int]]]:
        """What the file holds; nothing where there is none, or none that was written completely."""
        if self._positions_file is None or not self._positions_file.exists():
            return {}
        try:
            return msgspec.json.decode(self._positions_file.read_bytes(), type=dict[str, list[tuple[str, int, int]]])
        except msgspec.DecodeError:
            return {}

    def _keep(self, opened: _OpenedLog) -> None:
        """Write a log's positions down; the file is the old one or the new one, whenever the process ends."""
        path = self._positions_file
        if path is None:
            return
        content = msgspec.json.encode({**self._kept(), self._place(opened.log): _as_rows(opened.positions)})
        with complete_file(path) as unfinished:
            unfinished.write_bytes(content)

    def _place(self, log: EventLog) -> str:
        """Which log, and as it was known when: positions of another one are of no use."""
        return json.dumps([log.uri, self._ingested_before_ms])


@dataclass(frozen=True, slots=True)
class _OpenedLog:
    """An event log as it was when it was first asked for: up to which offsets, and from which date on (ISO 8601)."""

    log: EventLog
    positions: dict[tuple[str, int], int]
    kept_from: str | None


def _as_rows(positions: Mapping[tuple[str, int], int]) -> list[tuple[str, int, int]]:
    """Positions as JSON has them."""
    return sorted((topic, number, end) for (topic, number), end in positions.items())


class FileHistory:
    """Events of one or more sources in files that Arrow reads, or in a table in memory.

    Rows are in order of arrival as they stand; rows without an event time or (where the source declares one) without
    an event id are no events and are left out, as the stream does.

    Args:
        events: path of a Parquet, CSV, JSON or Arrow IPC file or directory, a pyarrow dataset or a table; or one of
            these for each source, by its name.
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
        self._datasets: dict[str, pads.Dataset] = {}
        self._states: dict[str, str] = {}

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """See `History`."""
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
        return self._scan(source, list(wanted), columns, time_column)

    def row_count(self, source: SourceSpec) -> int:
        """Exact; from footers where files have them."""
        with _read_errors(source):
            return int(self._dataset(source).count_rows())

    def version(self, source: SourceSpec) -> str:
        """Names, sizes and ages of the files; a digest of a table in memory."""
        dataset = self._dataset(source)
        state = _state_of_files(dataset) or content_digest(dataset.schema, dataset.to_batches())
        return json.dumps([state, self._ingested_before_ms])

    def _scan(
        self, source: SourceSpec, stored: list[str], columns: Sequence[str], time_column: str
    ) -> Iterator[pa.RecordBatch]:
        """Rows with the columns, of batches with the stored ones."""
        dataset = self._dataset(source)
        self._check_unchanged(source)
        # Buffering ahead, as Arrow does unless told otherwise, keeps the bytes of a whole file in memory.
        is_parquet = isinstance(getattr(dataset, "format", None), pads.ParquetFileFormat)
        options = pads.ParquetFragmentScanOptions(pre_buffer=False) if is_parquet else None
        batches = dataset.to_batches(
            columns=stored,
            batch_readahead=BATCHES_AHEAD,
            fragment_readahead=1,
            fragment_scan_options=options,
        )
        try:
            with _read_errors(source):
                for batch in batches:
                    yield self._rows(batch, columns, time_column, source)
        except Unavailable:
            self._check_unchanged(source)
            raise
        self._check_unchanged(source)

    def _check_tells_arrival(self, source: SourceSpec, dataset: pads.Dataset) -> None:
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
        if _is_local(dataset) and _state_of_files(dataset) != self._states[source.name]:
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

    def _dataset(self, source: SourceSpec) -> pads.Dataset:
        """The files of a source."""
        if source.name not in self._datasets:
            events = self._events
            if isinstance(events, Mapping):
                if source.name not in events:
                    raise InvalidRequest(
                        f'there is no history of source "{source.name}"', hint=suggest(source.name, list(events))
                    )
                events = events[source.name]
            dataset = open_dataset(events, self._format)
            self._states[source.name] = _state_of_files(dataset) if _is_local(dataset) else ""
            self._datasets[source.name] = dataset
        return self._datasets[source.name]


def open_dataset(given: object, file_format: str = "parquet") -> pads.Dataset:
    """A path, URI, table or dataset as a dataset.

    Raises:
        InvalidRequest: nothing readable is there.
    """
    if isinstance(given, pads.Dataset):
        return given
    if isinstance(given, pa.Table):
        return pads.dataset(given)
    try:
        return pads.dataset(str(given), format=file_format, partitioning="hive")
    except (OSError, pa.ArrowInvalid) as error:
        detail = "There is no such file." if isinstance(error, FileNotFoundError) else str(error)
        raise InvalidRequest(f'"{given}" cannot be read as {file_format}', detail=detail) from error


@contextmanager
def _read_errors(source: SourceSpec) -> Iterator[None]:
    """What Arrow says of files that are damaged, gone or cut."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise Unavailable(f'the history of source "{source.name}" cannot be read', detail=str(error)) from error


def _is_moment(source: SourceSpec, name: str) -> bool:
    """A column is declared to hold moments, not numbers: then its unit is of its spelling only."""
    column = source.column(name)
    return column is not None and column.type is ValueType.TIMESTAMP


def _is_local(dataset: pads.Dataset) -> bool:
    """Whether it is of files of this machine."""
    return isinstance(getattr(dataset, "filesystem", None), pafs.LocalFileSystem)


def _state_of_files(dataset: pads.Dataset) -> str:
    """Names, sizes and ages of a dataset's files; empty where it has none."""
    files = getattr(dataset, "files", None)
    if files is None:
        return ""
    stats = dataset.filesystem.get_file_info(files)
    return json.dumps([[each.path, each.size, each.mtime_ns or 0] for each in stats])
