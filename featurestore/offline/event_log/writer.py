"""Writes some partitions of a log: each offset exactly once, whatever crashes.

    claim     a commit without rows that names this writer as the owner of its partitions
    stage     one Parquet file for each event date; no version names it yet
    commit    all files of all partitions, and the next offset of each, in one version of the table

    crash before the commit     nobody sees the files; `vacuum` deletes them in a week; the next writer reads again
    crash after the commit      rows and positions are there
    another writer              has claimed the partition, or moved it, since the version that this one knows: stop

A commit is made against the version that its writer knows. The table refuses it when a partition was claimed or moved
since. So a position is compared and set in one step, and the source is never needed to finish a commit.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from featurestore.clock import Clock, SystemClock
from featurestore.core.events import Horizon
from featurestore.definitions.limits import DAY_MS
from featurestore.errors import InvalidRequest, StoreRolledBack, Unavailable, WriterFenced
from featurestore.offline.disk import make_directory, sync
from featurestore.offline.event_log.address import TablePlace
from featurestore.offline.event_log.erasures import read_erasures, unerased
from featurestore.offline.event_log.failures import CommitLost, table_errors
from featurestore.offline.event_log.schema import EVENT_DATE, merged_schema
from featurestore.offline.event_log.table import (
    DIRECTORY_MODE,
    EPOCH_ORDINAL,
    LogTable,
    Place,
    create_table,
    horizon_transactions,
    make_durable,
    transaction_id,
)
from featurestore.wire.erasures import Erasure

ATTEMPTS = 20
"""Of a commit that others were faster than; each of theirs is progress of the log."""

CONDITION_CHECKS = 3
"""Of an object store by a new writer. Of fifty, one shows nothing, as the two requests did not overlap."""

PARQUET_OPTIONS: Mapping[str, str | int | bool] = {
    "compression": "zstd",
    "compression_level": 1,
    "row_group_size": 262_144,
    "write_statistics": True,
}
"""Of all files of a log. Row groups of this size can be skipped by event time, and are large enough to be read fast."""

STATISTICS = ("topic", "partition", "offset", "ingest_time_ms", "event_time_ms")
"""Columns whose smallest and largest value the table knows of each file, so that scans can pass files over."""

Rows: TypeAlias = pa.RecordBatch


@dataclass(frozen=True, slots=True)
class PartitionRows:
    """The rows of one read.

    Attributes:
        from_offset, next_offset: the read; rows that could not be decoded are inside and missing.
        rows: in offset order, with the log's columns.
        horizon: of the partition at `next_offset`, where its events replace one another.
    """

    from_offset: int
    next_offset: int
    rows: Rows
    horizon: Horizon | None = None


class LogWriter:
    """The writer of some partitions of a log; only the newest one to claim a partition can commit to it.

    Args:
        place: of the log; `prepare_log` has made it.
        schema: of the rows that will be written.
        clock: dates the files.
    """

    def __init__(self, place: TablePlace, schema: pa.Schema, clock: Clock | None = None) -> None:
        self._place = place
        self._schema = schema
        self._clock = clock or SystemClock()
        self._owner = secrets.randbits(62)
        self._claimed: set[Place] = set()
        self._owners_before: dict[Place, int | None] = {}
        self._table: LogTable | None = None
        self._keeps_conditions = False
        self._erasures: tuple[str, Sequence[Erasure]] = ("", ())

    def position(self, place: Place) -> int | None:
        """Next offset of a claimed partition to be written; None when it was never read."""
        assert self._table is not None, "nothing is claimed"
        return self._table.position(place)

    def claim(self, places: Iterable[Place]) -> None:
        """Take partitions over from whoever wrote them before.

        May be called again after Unavailable; it does not take back then what another writer has claimed since.

        Raises:
            WriterFenced: another writer claimed one at the same moment, or since the first try.
            Unavailable: the file system does not answer; claim again.
            InvalidRequest: the object store lets two writers make the same version.
        """
        wanted = sorted(set(places) - self._claimed)
        if not wanted:
            return
        table = self._refresh()
        left = [place for place in wanted if table.owner(place) != self._owner]  # else made, and not heard of
        before = {place: self._owners_before.setdefault(place, table.owner(place)) for place in left}
        stolen = [place for place in left if table.owner(place) != before[place]]
        if stolen:
            raise self._fenced(stolen)
        if left:
            transactions = {}
            for place in left:
                position = table.position(place)
                transactions[transaction_id(place)] = -1 if position is None else position
                transactions[transaction_id(place, "owner")] = self._owner
            self._commit(transactions, (), left)
        if self._place.directory is None and not self._keeps_conditions:
            self._check_conditions(wanted[0])
        self._claimed.update(wanted)

    def commit(self, reads: Mapping[Place, Sequence[PartitionRows]]) -> int:
        """Add the rows of consecutive reads to the log; rows below a position are there already and skipped.

        Args:
            reads: in order, of claimed partitions.

        Returns:
            Rows written.

        Raises:
            WriterFenced: another writer has claimed a partition; the rows are in the log whole, or not at all.
            StoreRolledBack: the log ends before the reads begin.
            Unavailable: whether the commit was made is unknown: `refresh`, and commit the same reads again.
        """
        assert self._table is not None, "nothing is claimed"
        self._check_owned(self._table, reads)
        transactions: dict[str, int] = {}
        tables: list[pa.Table] = []
        for place in sorted(reads):
            table = self._new_rows(place, reads[place], transactions)
            if table is not None:
                tables.append(table)
        if not transactions:
            return 0
        rows = pa.concat_tables(tables)
        while True:
            kept = unerased(rows, self._known_erasures())
            if self._commit(transactions, self._stage(kept), sorted(reads)):
                return int(kept.num_rows)

    def refresh(self) -> None:
        """Look at the table again, after it did not answer.

        Raises:
            WriterFenced: another writer has claimed a partition since.
        """
        self._refresh()

    def _new_rows(self, place: Place, reads: Sequence[PartitionRows], transactions: dict[str, int]) -> pa.Table | None:
        """Rows of a partition that are not in the log yet, and where it will end; None when all are."""
        position = self.position(place)
        begin = reads[0].from_offset if position is None else position
        _check_continuity(place, reads, begin)
        end = reads[-1].next_offset
        if end <= begin:
            return None
        transactions[transaction_id(place)] = end
        if (horizon := reads[-1].horizon) is not None:
            transactions.update(horizon_transactions(place, horizon))
        if position is None:
            transactions[transaction_id(place, "begin")] = begin
        return pa.Table.from_batches(_each_once(reads, begin), schema=self._schema)

    def _known_erasures(self) -> Sequence[Erasure]:
        """What is erased, as of the version that the next commit is made against."""
        assert self._table is not None, "nothing is claimed"
        token = self._table.erasures_token
        if token != self._erasures[0]:
            self._erasures = (token, read_erasures(self._place))
        return self._erasures[1]

    def _commit(self, transactions: Mapping[str, int], files: Sequence[AddAction], places: Sequence[Place]) -> bool:
        """Make a version of the table with files and transactions.

        Returns:
            False where something was erased meanwhile, so that the files are to be made anew; no version names them.

        Raises:
            WriterFenced: it cannot be made any more.
        """
        table = self._table
        assert table is not None, "nothing is claimed"
        before = {place: (table.owner(place), table.position(place)) for place in places}
        erasures = table.erasures_token
        for _ in range(ATTEMPTS):
            try:
                table.commit(transactions, files)
            except CommitLost:
                table = self._refresh()
                if all(table.transaction(name) == version for name, version in transactions.items()):
                    return True  # it was made, and the answer was lost
                if before != {place: (table.owner(place), table.position(place)) for place in places}:
                    raise self._fenced(places) from None
                if files and table.erasures_token != erasures:
                    self._delete(files)
                    return False
                continue  # columns, properties or old rows were changed: nothing of ours
            self._refresh()
            return True
        raise Unavailable(
            f'event log "{self._place.uri}" is changed by others too often to be written',
            hint="write it by one cluster, and alter its columns and properties seldom",
        )

    def _check_conditions(self, place: Place) -> None:
        """Two handles claim a partition once more, at the same moment: one of them must be refused.

        One after the other would show nothing, as a commit looks for newer versions before it is put. What both put is
        the same, so that it does no harm where the second replaces the first.

        Raises:
            InvalidRequest: both were told that they had made the next version.
            WriterFenced: another writer has claimed the partition meanwhile.
        """
        claim = {transaction_id(place, "owner"): self._owner}
        handles = [LogTable(self._place), LogTable(self._place)]
        together = threading.Barrier(len(handles))

        def is_made(table: LogTable) -> bool:
            together.wait()
            try:
                table.commit(claim)
            except CommitLost:
                return False
            return True

        for _ in range(CONDITION_CHECKS):
            for table in handles:
                table.advance()
                self._check_owned(table, [place])
            with ThreadPoolExecutor(len(handles)) as pool:
                made = list(pool.map(is_made, handles))
            if all(made):
                raise InvalidRequest(
                    f'the object store of event log "{self._place.uri}" does not keep conditional puts',
                    detail="Two writers were both told that they had made the same version: rows of one would be lost.",
                    hint="use one that keeps If-None-Match, as S3, MinIO, GCS and Azure do, and nothing in front of "
                    "it that takes the header away",
                )
        self._refresh()
        self._keeps_conditions = True

    def _refresh(self) -> LogTable:
        """The newest version, durable on a local disk, if what is ours is still so."""
        if self._table is None:
            table = self._table = LogTable(self._place)
            before = table.version
        else:
            table = self._table
            before = table.version
            table.advance()
        with table_errors(self._place):
            make_durable(self._place, before, table.version)
        self._check_owned(table, self._claimed)
        return table

    def _check_owned(self, table: LogTable, places: Iterable[Place]) -> None:
        """Stop for good when another writer has claimed a partition; an earlier look at the table may have shown it."""
        stolen = [place for place in sorted(places) if table.owner(place) != self._owner]
        if stolen:
            raise self._fenced(stolen)

    def _stage(self, rows: pa.Table) -> list[AddAction]:
        """Write the rows of each date into a file that no version names yet; all of them, or none is left."""
        files: list[AddAction] = []
        try:
            for event_date, each in _by_date(rows).items():
                files.append(self._stage_date(event_date, each))
        except BaseException:
            # Whoever waits for a full disk tries again and again; what it has written must not fill it further.
            self._delete(files)
            raise
        return files

    def _delete(self, files: Sequence[AddAction]) -> None:
        """Delete files that no version names."""
        for file in files:
            with suppress(OSError):
                self._place.files.delete_file(file.path)

    def _stage_date(self, event_date: date, rows: pa.Table) -> AddAction:
        """Write the file of one date."""
        directory = f"{EVENT_DATE}={event_date.isoformat()}"
        path = f"{directory}/{secrets.token_hex(16)}.parquet"
        with table_errors(self._place):
            if self._place.directory is not None:
                _write_local(self._place.directory / path, rows)
            else:
                with self._place.files.open_output_stream(path) as stream:
                    pq.write_table(rows, stream, **PARQUET_OPTIONS)
            size = self._place.files.get_file_info(path).size
        spans = {name: pc.min_max(rows[name]).as_py() for name in STATISTICS}
        span_of = {name: (span["min"], span["max"]) for name, span in spans.items()}
        return added_file(path, size, event_date, self._clock.now_ms(), rows.num_rows, span_of)

    def _fenced(self, places: Sequence[Place]) -> WriterFenced:
        """The error of a writer that is no longer the newest."""
        topic, partition = places[0]
        return WriterFenced(
            f'another writer took over partition {partition} of topic "{topic}" in the event log',
            detail="This one has stopped without losing anything.",
            hint="run one event-log process (or one cluster) for each log",
        )


def prepare_log(place: TablePlace, schema: pa.Schema, partitions: Mapping[Place, str]) -> LogTable:
    """Make the log, or add new columns and partitions to it.

    Args:
        place: where it is.
        schema: columns of the rows that will be written.
        partitions: those that will be written, and the incarnation of each, "" where it is not known.

    Raises:
        InvalidRequest: a column has another type in the log.
        Unavailable: the file system does not answer.
    """
    create_table(place, schema)
    for _ in range(ATTEMPTS):
        table = LogTable(place)
        try:
            new = merged_schema(table.schema, schema)
            if len(new) > len(table.schema):
                table.add_columns([field for field in new if field.name not in table.schema.names])
                continue
            known = table.partitions
            wanted = {**known, **{one: which for one, which in partitions.items() if which or one not in known}}
            if wanted != known:
                table.set_partitions(wanted)
                continue
        except CommitLost:
            continue
        return table
    raise Unavailable(f'event log "{place.uri}" is changed by others too often to be written')


def added_file(
    path: str, size_bytes: int, event_date: date, written_ms: int, rows: int, spans: Mapping[str, tuple[object, object]]
) -> AddAction:
    """A data file, as the table's log has it.

    Args:
        path: within the table.
        size_bytes: its length.
        event_date: of its rows.
        written_ms: when it was written.
        rows: how many.
        spans: smallest and largest value of each of STATISTICS.
    """
    statistics = {
        "numRecords": rows,
        "minValues": {name: least for name, (least, _) in spans.items()},
        "maxValues": {name: most for name, (_, most) in spans.items()},
        "nullCount": dict.fromkeys(STATISTICS, 0),
    }
    return AddAction(path, size_bytes, {EVENT_DATE: event_date.isoformat()}, written_ms, True, json.dumps(statistics))


def event_date_of(time_ms: int) -> date:
    """UTC date of an event time.

    >>> event_date_of(-1), event_date_of(0)
    (datetime.date(1969, 12, 31), datetime.date(1970, 1, 1))
    """
    return date.fromordinal(EPOCH_ORDINAL + time_ms // DAY_MS)


def _check_continuity(place: Place, reads: Sequence[PartitionRows], begin: int) -> None:
    """Refuse a gap: it would never be noticed again."""
    expected = begin
    for read in reads:
        if read.from_offset > expected:
            raise StoreRolledBack(
                f'reads of partition {place[1]} of topic "{place[0]}" begin at offset {read.from_offset}, the event '
                f"log ends at {expected}",
                hint="read the source again from the log's position",
            )
        expected = max(expected, read.next_offset)


def _each_once(reads: Sequence[PartitionRows], begin: int) -> list[Rows]:
    """The rows from an offset on, of reads that may overlap."""
    found = []
    for read in reads:
        known = int(np.searchsorted(read.rows["offset"].to_numpy(), begin))
        found.append(read.rows.slice(known))
        begin = max(begin, read.next_offset)
    return found


def _write_local(path: Path, rows: pa.Table) -> None:
    """A file that survives a loss of power before any version names it; nothing is left of it when the disk refuses."""
    make_directory(path.parent, DIRECTORY_MODE)
    try:
        with path.open("wb") as stream:
            pq.write_table(rows, stream, **PARQUET_OPTIONS)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    sync(path.parent)


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
