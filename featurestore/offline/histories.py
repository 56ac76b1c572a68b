"""Where the events of stream views come from: the event log, files, or a table in memory.

A history gives the rows of a source in order of arrival, with the source's columns and the event time as integers.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from featurestore.core.spec import SourceSpec
from featurestore.definitions.limits import DAY_MS
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.event_log.layout import EPOCH_ORDINAL
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.label_times import moments_ms
from featurestore.wire.events import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN

EVENT_TIME = "event_time_ms"
"""Column of every batch of a history: the event time, integer milliseconds UTC."""

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

        Yields:
            Batches with the columns, then EVENT_TIME as int64 without nulls.

        Raises:
            InvalidRequest: there is no history of that source, or it lacks a column.
            Unavailable: it cannot be read now.
        """
        ...

    def row_count(self, source: SourceSpec) -> int:
        """About how many rows there are, cheaply: decides how finely the work is cut."""
        ...

    def version(self, source: SourceSpec) -> str:
        """Text that changes when `scan` would give other rows: finished work is kept only as long as it does not."""
        ...


class EventLogHistory:
    """The event logs below a directory or URI, one a source; each read as it was when it was first asked for.

    Args:
        root: as `featurestore event-log run` was given; its directories are named after sources.
        ingested_before_ms: only events that had been read from the source before that moment.
        positions_file: keeps the positions up to which logs were read, for a run that goes on after it was killed.
    """

    def __init__(
        self, root: str | Path, *, ingested_before_ms: int | None = None, positions_file: Path | None = None
    ) -> None:
        self._root = str(root).rstrip("/")
        self._ingested_before_ms = ingested_before_ms
        self._positions_file = positions_file
        self._logs: dict[str, EventLog] = {}
        self._positions: dict[str, dict[tuple[str, int], int]] = {}

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """See `History`."""
        log = self._log(source)
        names = [name for name in columns if name != EVENT_TIME]
        for name in names:
            if name not in log.schema.names:
                raise InvalidRequest(
                    f'event log "{log.uri}" has no column "{name}"', hint=suggest(name, log.schema.names)
                )
        snapshot = log.snapshot()
        if snapshot.kept_from is not None and from_ms < (snapshot.kept_from.toordinal() - EPOCH_ORDINAL) * DAY_MS:
            _logger.warning(
                "event log %s was cut by retention: windows that begin before %s lack their oldest events",
                log.uri,
                snapshot.kept_from,
            )
        yield from log.scan(
            [*names, EVENT_TIME],
            from_ms=from_ms,
            to_ms=to_ms,
            ingested_before_ms=self._ingested_before_ms,
            snapshot=snapshot,
            positions=self._positions[source.name],
        )

    def row_count(self, source: SourceSpec) -> int:
        """Next offsets added up: a log that was cut at its begin has fewer rows."""
        self._log(source)
        return sum(self._positions[source.name].values())

    def version(self, source: SourceSpec) -> str:
        """Positions."""
        log = self._log(source)
        positions = sorted([topic, number, end] for (topic, number), end in self._positions[source.name].items())
        return json.dumps([log.uri, self._ingested_before_ms, positions])

    def _log(self, source: SourceSpec) -> EventLog:
        """The source's log, opened once."""
        if source.name not in self._logs:
            log = EventLog(f"{self._root}/{source.name}")
            self._positions[source.name] = self._kept_positions(log)
            self._logs[source.name] = log
        return self._logs[source.name]

    def _kept_positions(self, log: EventLog) -> dict[tuple[str, int], int]:
        """Where an earlier run stopped reading a log, else its present end, which is kept."""
        if self._positions_file is None:
            return dict(log.positions())
        kept: dict[str, list[list[object]]] = {}
        if self._positions_file.exists():
            kept = json.loads(self._positions_file.read_text(encoding="utf-8"))
        if log.uri not in kept:
            kept[log.uri] = [[topic, number, end] for (topic, number), end in log.positions().items()]
            self._positions_file.parent.mkdir(parents=True, exist_ok=True)
            self._positions_file.write_text(json.dumps(kept), encoding="utf-8")
        return {(str(topic), int(str(number))): int(str(end)) for topic, number, end in kept[log.uri]}


class FileHistory:
    """Events of one or more sources in files that Arrow reads, or in a table in memory.

    Rows are in order of arrival as they stand; rows without an event time or (where the source declares one) without
    an event id are no events and are left out, as the stream does.

    Args:
        events: path of a Parquet, CSV, JSON or Arrow IPC file or directory, a pyarrow dataset or a table; or one of
            these for each source, by its name.
        format: of files, as pyarrow.dataset names it.
    """

    def __init__(
        self, events: str | Path | pa.Table | pads.Dataset | Mapping[str, object], *, format: str = "parquet"
    ) -> None:
        self._events = events
        self._format = format
        self._datasets: dict[str, pads.Dataset] = {}

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """See `History`."""
        dataset = self._dataset(source)
        time_column = EVENT_TIME if EVENT_TIME in dataset.schema.names else source.event_time_column
        wanted = dict.fromkeys([*columns, time_column])
        for name in wanted:
            if name not in dataset.schema.names:
                raise InvalidRequest(
                    f'the history of source "{source.name}" has no column "{name}"',
                    hint=suggest(name, dataset.schema.names),
                )
        # Buffering ahead, as Arrow does unless told otherwise, keeps the bytes of a whole file in memory.
        is_parquet = isinstance(getattr(dataset, "format", None), pads.ParquetFileFormat)
        options = pads.ParquetFragmentScanOptions(pre_buffer=False) if is_parquet else None
        batches = dataset.to_batches(
            columns=list(wanted),
            batch_readahead=BATCHES_AHEAD,
            fragment_readahead=1,
            fragment_scan_options=options,
        )
        try:
            for batch in batches:
                yield self._rows(batch, columns, time_column)
        except (OSError, pa.ArrowInvalid) as error:
            raise Unavailable(f'the history of source "{source.name}" cannot be read', detail=str(error)) from error

    def row_count(self, source: SourceSpec) -> int:
        """Exact; from footers where files have them."""
        return int(self._dataset(source).count_rows())

    def version(self, source: SourceSpec) -> str:
        """Names, sizes and ages of the files; a digest of a table in memory."""
        dataset = self._dataset(source)
        files = getattr(dataset, "files", None)
        if files is None:
            digest = hashlib.blake2b(digest_size=16)
            for batch in dataset.to_batches():
                for column in batch.columns:
                    for buffer in column.buffers():
                        digest.update(b"" if buffer is None else buffer)
            return digest.hexdigest()
        stats = dataset.filesystem.get_file_info(files)
        return json.dumps([[each.path, each.size, each.mtime_ns or 0] for each in stats])

    def _rows(self, batch: pa.RecordBatch, columns: Sequence[str], time_column: str) -> pa.RecordBatch:
        """One batch with its event times; rows that have none are left out."""
        times_ms, is_time = moments_ms(batch.column(time_column), time_column)
        is_time &= (times_ms >= EVENT_TIME_MS_MIN) & (times_ms <= EVENT_TIME_MS_MAX)
        rows = pa.RecordBatch.from_arrays(
            [*(batch.column(name) for name in columns), pa.array(times_ms)], names=[*columns, EVENT_TIME]
        )
        return rows if is_time.all() else rows.take(pa.array(np.flatnonzero(is_time)))

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
            self._datasets[source.name] = open_dataset(events, self._format)
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
        raise InvalidRequest(f'"{given}" cannot be read as {file_format}', detail=str(error)) from error
