"""Writes one partition of a log: each offset exactly once, whatever crashes.

    stage     one Parquet file for each event date, in _staging; nobody reads them there
    commit    the record under the next sequence number: from here on the rows are in the log
    publish   each staged file gets its final name; a reader sees the whole file or none of it

    crash before the commit     the staged files belong to no record: the next writer deletes them and reads again
    crash after the commit      they belong to one: the next writer publishes what is still staged, reads nothing again
    another writer              it has made a record, its claim, under the number that this one would need: stop

The source is never needed to finish a commit, and the position is read from the records alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.definitions.limits import DAY_MS
from featurestore.errors import StoreRolledBack, WriterFenced
from featurestore.offline.event_log.commits import Commit, CommitChain
from featurestore.offline.event_log.files import LogFiles
from featurestore.offline.event_log.layout import (
    SCHEMA_PATH,
    STAGING,
    DataFile,
    StagedFile,
    event_date_of,
    parse_staged_path,
    partition_name,
)
from featurestore.offline.event_log.schema import decode_schema, encode_schema, merged_schema

PUBLISH_LOCK = "publish"
"""Held while the entries of date directories change."""

PARQUET_OPTIONS: Mapping[str, str | int | bool] = {
    "compression": "zstd",
    "compression_level": 1,
    "row_group_size": 262_144,
    "write_statistics": True,
}
"""Of all files of a log. Row groups of this size can be skipped by event time, and are large enough to be read fast."""

Rows: TypeAlias = pa.RecordBatch


@dataclass(frozen=True, slots=True)
class PartitionRows:
    """The rows of one read.

    Attributes:
        from_offset, next_offset: the read; rows that could not be decoded are inside and missing.
        rows: in offset order, with the log's columns.
    """

    from_offset: int
    next_offset: int
    rows: Rows


class PartitionWriter:
    """The writer of one partition; the newest one to open it is the only one that can commit.

    Args:
        files: of the log.
        schema: of the rows that will be written.
        topic, partition: whose rows.
    """

    def __init__(self, files: LogFiles, schema: pa.Schema, topic: str, partition: int) -> None:
        self._files = files
        self._schema = schema
        self._topic = topic
        self._partition = partition
        self._place = partition_name(topic, partition)
        self._chain = CommitChain(files, topic, partition)
        self._token = secrets.token_hex(8)
        self._last: Commit | None = None

    @property
    def position(self) -> int | None:
        """Next offset to be written; None when the partition was never read. Only after `open`."""
        assert self._last is not None, "not open"
        return self._last.next_offset

    @property
    def ingest_time_ms(self) -> int:
        """The latest that any row of the partition has. Only after `open`."""
        assert self._last is not None, "not open"
        return self._last.ingest_time_ms

    def open(self) -> None:
        """Claim the partition, and finish or undo what the writer before left half done.

        May be called again after Unavailable; the first call takes the partition over from any other writer, a later
        one does not.

        Raises:
            WriterFenced: another writer opened it at the same moment, or since this one did.
            Unavailable: the file system does not answer; open again.
        """
        before = self._chain.last()
        if self._last is not None and before is not None and before.token != self._token:
            raise self._fenced()
        claim = Commit(
            sequence=0 if before is None else before.sequence + 1,
            token=self._token,
            from_offset=None if before is None else before.next_offset,
            next_offset=None if before is None else before.next_offset,
            ingest_time_ms=0 if before is None else before.ingest_time_ms,
        )
        if not self._chain.append(claim):
            raise self._fenced()
        self._last = claim
        # Only now: whatever is staged without a record can never get one, its number is taken.
        self._recover()

    def commit(self, reads: Sequence[PartitionRows]) -> int:
        """Add the rows of consecutive reads to the log; rows below the position are there already and skipped.

        Args:
            reads: of this partition, in order.

        Returns:
            Rows written.

        Raises:
            WriterFenced: another writer has opened the partition; the rows are in the log whole, or not at all.
            StoreRolledBack: the log ends before the reads begin.
            Unavailable: whether the commit was made is unknown: `open` again, and commit the same reads again.
        """
        assert self._last is not None, "not open"
        position = self._last.next_offset
        begin = reads[0].from_offset if position is None else position
        self._check_continuity(reads, begin)
        end = reads[-1].next_offset
        if end <= begin:
            return 0
        table = pa.Table.from_batches([read.rows for read in reads], schema=self._schema)
        if reads[0].from_offset < begin:
            table = table.filter(pc.greater_equal(table["offset"], begin))
        by_date = _by_date(table)
        ingested_ms = max(self._last.ingest_time_ms, pc.max(table["ingest_time_ms"]).as_py() or 0)
        commit = Commit(self._last.sequence + 1, self._token, begin, end, ingested_ms, tuple(by_date))
        for event_date, rows in by_date.items():
            self._stage(commit, event_date, rows)
        if not self._chain.append(commit):
            for event_date in commit.files:
                self._files.delete(self._staged(commit, event_date).path)
            raise self._fenced()
        self._last = commit
        try:
            self._publish([self._staged(commit, event_date) for event_date in commit.files], commit)
        except FileNotFoundError as error:
            # The rows are in the log: whoever opened the partition since has published them.
            raise self._fenced() from error
        self._chain.prune(commit.sequence)
        return int(table.num_rows)

    def _check_continuity(self, reads: Sequence[PartitionRows], begin: int) -> None:
        """Refuse a gap: it would never be noticed again."""
        expected = begin
        for read in reads:
            if read.from_offset > expected:
                raise StoreRolledBack(
                    f"reads of {self._place} begin at offset {read.from_offset}, the event log ends at {expected}",
                    hint="read the source again from the log's position",
                )
            expected = max(expected, read.next_offset)

    def _stage(self, commit: Commit, event_date: date, rows: pa.Table) -> None:
        """Write the rows of one date where nobody reads."""
        with self._files.write(self._staged(commit, event_date).path) as stream:
            pq.write_table(rows, stream, **PARQUET_OPTIONS)

    def _publish(self, staged: Sequence[StagedFile], commit: Commit) -> None:
        """Give the files of a commit their final names, oldest date first."""
        assert commit.from_offset is not None
        assert commit.next_offset is not None
        with self._files.lock(PUBLISH_LOCK):
            for file in sorted(staged, key=lambda one: one.event_date):
                final = DataFile(file.event_date, self._topic, self._partition, commit.from_offset, commit.next_offset)
                self._files.move(file.path, final.path)

    def _recover(self) -> None:
        """Publish what was committed, delete what was not."""
        committed: dict[int, list[StagedFile]] = {}
        for found in self._files.find(f"{STAGING}/{self._place}"):
            file = parse_staged_path(found.path)
            if file is None:
                continue
            record = self._chain.get(file.sequence)
            if record is not None and record.token == file.token and file.event_date in record.files:
                committed.setdefault(file.sequence, []).append(file)
            else:
                self._files.delete(file.path)
        for sequence, files in sorted(committed.items()):
            record = self._chain.get(sequence)
            assert record is not None, "records in use are not pruned"
            self._publish(files, record)

    def _staged(self, commit: Commit, event_date: date) -> StagedFile:
        """Where a commit's rows of a date wait."""
        return StagedFile(self._place, commit.sequence, commit.token, event_date)

    def _fenced(self) -> WriterFenced:
        """The error of a writer that is no longer the newest."""
        return WriterFenced(
            f"another writer took over partition {self._place} of the event log",
            detail="This one has stopped without losing anything.",
            hint="run one event-log process (or one cluster) for each log",
        )


def prepare_log(files: LogFiles, schema: pa.Schema) -> pa.Schema:
    """Make the log, or add new columns to it.

    Returns:
        Columns of the log; rows to be written have the given ones.

    Raises:
        InvalidRequest: a column has another type in the log.
        CorruptData: the log's schema cannot be read.
    """
    while True:
        try:
            stored = decode_schema(files.read(SCHEMA_PATH))
        except FileNotFoundError:
            if files.create(SCHEMA_PATH, encode_schema(schema)):
                return schema
            continue
        merged = merged_schema(stored, schema)
        if merged != stored:
            files.replace(SCHEMA_PATH, encode_schema(merged))
        return merged


def _by_date(table: pa.Table) -> dict[date, pa.Table]:
    """The rows of each UTC event date, in their order."""
    days = table["event_time_ms"].to_numpy() // DAY_MS
    distinct = np.unique(days)
    if len(distinct) == 1:
        return {event_date_of(int(distinct[0]) * DAY_MS): table}
    # A stable sort and slices: one pass, however many dates there are.
    order = np.argsort(days, kind="stable")
    ordered = table.take(pa.array(order))
    edges = np.searchsorted(days[order], [*distinct.tolist(), int(distinct[-1]) + 1] if len(distinct) else [])
    return {
        event_date_of(int(day) * DAY_MS): ordered.slice(int(edges[place]), int(edges[place + 1] - edges[place]))
        for place, day in enumerate(distinct)
    }
