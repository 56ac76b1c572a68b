"""Reads an event log: the door for everything that is computed from history.

    log = EventLog("data/event_log/transactions")
    log.positions()                      {("transactions", 0): 8192, ...}
    for batch in log.scan(["card_id", "amount"], from_ms=..., to_ms=...):
        ...

Memory: a few batches of the wanted columns, whatever the log's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from featurestore.definitions.limits import DAY_MS
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.event_log.address import open_files
from featurestore.offline.event_log.files import LogFiles, file_errors, mapped_parquet_errors
from featurestore.offline.event_log.layout import (
    EPOCH_ORDINAL,
    INCARNATIONS_PATH,
    PREPARED,
    REPLACED,
    SCHEMA_PATH,
    DataFile,
)
from featurestore.offline.event_log.schema import decode_schema
from featurestore.offline.event_log.snapshot import LogSnapshot, Positions, take_snapshot
from featurestore.wire.incarnations import Incarnations, decode_incarnations

BATCH_ROWS = 131_072
"""Most rows of a batch of a scan."""


@dataclass(frozen=True, slots=True)
class DateSize:
    """What a log holds of one event date."""

    event_date: date
    files: int
    rows: int
    size_bytes: int


class EventLog:
    """The event log of one source.

    Args:
        uri: its directory, or a URI that Arrow or fsspec knows.
        filesystem: a pyarrow or fsspec file system on which `uri` is a path; default: found from the URI.

    Raises:
        InvalidRequest: there is no event log.
    """

    def __init__(self, uri: str | Path, filesystem: object | None = None) -> None:
        self._files: LogFiles = open_files(uri, filesystem)
        self._schema = _read_schema(self._files)

    @classmethod
    def over(cls, files: LogFiles) -> EventLog:
        """The log of files that are open already."""
        log = cls.__new__(cls)
        log._files, log._schema = files, _read_schema(files)
        return log

    @property
    def uri(self) -> str:
        """Its address."""
        return self._files.uri

    @property
    def schema(self) -> pa.Schema:
        """Columns of the log (see schema.py), as they were when it was opened."""
        return self._schema

    def snapshot(self) -> LogSnapshot:
        """Positions and files of one moment, for several scans of the same rows."""
        return take_snapshot(self._files)

    def positions(self) -> Positions:
        """Next offset of each (topic, partition) that has been read: what a stream must go on from."""
        return self.snapshot().positions

    def incarnations(self) -> Incarnations:
        """Which topics the positions belong to; a log of a release that did not remember them says nothing."""
        with file_errors(self.uri):
            try:
                return decode_incarnations(self._files.read(INCARNATIONS_PATH))
            except FileNotFoundError:
                return {}

    def dates(self) -> list[date]:
        """Event dates that have rows, ascending."""
        return self.snapshot().dates

    def sizes(self, snapshot: LogSnapshot | None = None) -> list[DateSize]:
        """Files, rows and bytes of each date; reads every file's footer."""
        snapshot = snapshot or self.snapshot()
        return [
            DateSize(
                event_date,
                len(files),
                sum(self._count_rows(file) for file in files),
                sum(file.size_bytes for file in files),
            )
            for event_date in snapshot.dates
            for files in [[file for file in snapshot.files if file.event_date == event_date]]
        ]

    def scan(
        self,
        columns: Sequence[str],
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        ingested_before_ms: int | None = None,
        snapshot: LogSnapshot | None = None,
        positions: Mapping[tuple[str, int], int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Rows by event date, and within a date by topic, partition and offset.

        Args:
            columns: names of the wanted columns, in the order of the answer.
            from_ms: event times from here on.
            to_ms: event times before this.
            ingested_before_ms: only rows that had been read from the source before that moment: the log as it was
                known then.
            snapshot: what to read; default: what is readable now.
            positions: only rows below these offsets; a partition that is not named has none.

        Yields:
            Batches of 1 to BATCH_ROWS rows.

        Raises:
            InvalidRequest: the log has no such column, or nothing was ever committed to it.
            Unavailable: the file system does not answer, or compaction has taken a file away for good; scan again.
            CorruptData: a file is damaged.
        """
        for name in columns:
            if name not in self._schema.names:
                raise InvalidRequest(
                    f'event log "{self.uri}" has no column "{name}"', hint=suggest(name, self._schema.names)
                )
        snapshot = snapshot or self.snapshot()
        if not snapshot.positions:
            raise InvalidRequest(
                f'event log "{self.uri}" has no commits yet',
                detail="What is computed from it would be the same as if nothing had ever happened.",
                hint="wait for the first commit of `featurestore event-log run`",
            )
        bounds = dict(snapshot.positions)
        if positions is not None:
            bounds = {partition: min(end, positions.get(partition, 0)) for partition, end in bounds.items()}
        return self._scan(list(columns), snapshot, bounds, _Span(from_ms, to_ms, ingested_before_ms))

    def _scan(
        self, columns: list[str], snapshot: LogSnapshot, bounds: Positions, span: _Span
    ) -> Iterator[pa.RecordBatch]:
        """Batches of all files that can have wanted rows."""
        for file in snapshot.files:
            if span.excludes(file.event_date) or file.from_offset >= bounds[file.topic, file.partition]:
                continue
            condition = span.condition(file.event_date)
            if file.next_offset > bounds[file.topic, file.partition]:
                condition = _and(condition, pc.field("offset") < bounds[file.topic, file.partition])
            with mapped_parquet_errors(file.path):
                scanner = self._open(file).scanner(
                    schema=self._schema, columns=columns, filter=condition, batch_size=BATCH_ROWS
                )
                yield from (batch for batch in scanner.to_batches() if batch.num_rows)

    def _count_rows(self, file: DataFile) -> int:
        """Rows of a file, from its footer."""
        with mapped_parquet_errors(file.path):
            return int(self._open(file).count_rows())

    def _open(self, file: DataFile) -> pads.ParquetFileFragment:
        """A file by its name, or where compaction has put it since the snapshot."""
        try:
            return self._fragment(file.path)
        except FileNotFoundError:
            pass
        for directory in self._moved_to():
            try:
                return self._fragment(f"{directory}/{file.path}")
            except FileNotFoundError:
                continue
        raise Unavailable(
            f'"{file.path}" has left event log "{self.uri}"',
            detail="It was compacted, or dropped by retention, since this scan began.",
            hint="scan again",
        )

    def _moved_to(self) -> Iterator[str]:
        """Where a replaced directory is for a moment; then, listed only after that was looked at, where it goes."""
        yield PREPARED
        yield from (f"{REPLACED}/{moment}" for moment in self._files.directories(REPLACED))

    def _fragment(self, path: str) -> pads.ParquetFileFragment:
        """A Parquet file whose footer has been read, from one open file: it may lose its name from here on."""
        source = self._files.arrow.open_input_file(path)
        return pads.ParquetFileFormat().make_fragment(source)


def _read_schema(files: LogFiles) -> pa.Schema:
    """Columns of a log."""
    try:
        return decode_schema(files.read(SCHEMA_PATH))
    except FileNotFoundError:
        raise InvalidRequest(
            f'there is no event log at "{files.uri}"',
            hint="write one with `featurestore event-log run`, and name the directory of a source",
        ) from None


@dataclass(frozen=True, slots=True)
class _Span:
    """Which rows a scan wants."""

    from_ms: int | None
    to_ms: int | None
    ingested_before_ms: int | None

    def excludes(self, event_date: date) -> bool:
        """No row of that date is wanted."""
        begin_ms = (event_date.toordinal() - EPOCH_ORDINAL) * DAY_MS
        is_before = self.from_ms is not None and begin_ms + DAY_MS <= self.from_ms
        return is_before or (self.to_ms is not None and begin_ms >= self.to_ms)

    def condition(self, event_date: date) -> pc.Expression | None:
        """What rows of that date must fulfil; None when all are wanted, so that inner dates are not filtered."""
        begin_ms = (event_date.toordinal() - EPOCH_ORDINAL) * DAY_MS
        wanted: pc.Expression | None = None
        if self.from_ms is not None and self.from_ms > begin_ms:
            wanted = _and(wanted, pc.field("event_time_ms") >= self.from_ms)
        if self.to_ms is not None and self.to_ms < begin_ms + DAY_MS:
            wanted = _and(wanted, pc.field("event_time_ms") < self.to_ms)
        if self.ingested_before_ms is not None:
            wanted = _and(wanted, pc.field("ingest_time_ms") < self.ingested_before_ms)
        return wanted


def _and(left: pc.Expression | None, right: pc.Expression) -> pc.Expression:
    """Both."""
    return right if left is None else left & right
