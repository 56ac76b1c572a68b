"""Reads an event log: the door for everything that is computed from history.

    log = EventLog("data/event_log/transactions")          its newest version, or EventLog(..., version=17)
    log.positions()                      {("transactions", 0): 8192, ...}
    for batch in log.scan(["card_id", "amount"], from_ms=..., to_ms=...):
        ...

An EventLog is one version of the table: whatever is written, merged or dropped meanwhile, it reads the same rows, for
as long as the table keeps the files of that version (a week). Memory: the wanted columns of SLICE_ROWS rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from featurestore.core.events import Horizon
from featurestore.definitions.limits import DAY_MS
from featurestore.definitions.problems import suggest
from featurestore.errors import CorruptData, InvalidRequest, Unavailable
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.failures import REQUESTS
from featurestore.offline.event_log.table import EPOCH_ORDINAL, LogFile, LogTable, Place, Positions
from featurestore.offline.position_order import BATCH_ROWS, in_order, time_slices
from featurestore.wire.incarnations import Incarnations

FIRST_OFFSETS = 1_000
"""The first records of a partition, which tell from when on a log that was begun late has everything."""

_DAMAGE_WORDS = ("thrift", "decompression", "end of stream", "flatbuffers", "level", "magic", "footer")
"""Arrow raises OSError also for bytes of a Parquet file that are wrong; its message then has one of these."""


@dataclass(frozen=True, slots=True)
class DateSize:
    """What a log holds of one event date."""

    event_date: date
    files: int
    rows: int
    size_bytes: int


class EventLog:
    """One version of the event log of one source.

    Args:
        uri: its directory, or a URI (see address.py).
        version: of the table; None: its newest.

    Raises:
        InvalidRequest: there is no event log, or no such version of it any more.
        Unavailable: the file system does not answer.
    """

    def __init__(self, uri: str | Path, version: int | None = None) -> None:
        self._table = LogTable(place_of(uri), version)

    @property
    def uri(self) -> str:
        """Its address, for people."""
        return self._table.place.uri

    @property
    def version(self) -> int:
        """Version of the table: with it, the same rows can be read again."""
        return self._table.version

    @property
    def table_id(self) -> str:
        """Id of the table, which another one at the same place does not have."""
        return str(self._table.delta.metadata().id)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the log (see schema.py), without the event date."""
        return self._table.schema

    @property
    def kept_from(self) -> date | None:
        """Event dates before this one were dropped by retention; None when none were."""
        return self._table.kept_from

    @property
    def files(self) -> tuple[LogFile, ...]:
        """Data files, by event date."""
        return self._table.files

    @property
    def row_count(self) -> int:
        """Rows."""
        return sum(file.rows for file in self.files)

    def positions(self) -> Positions:
        """Next offset of each (topic, partition) that has been read: what a stream must go on from."""
        return self._table.positions

    def horizons(self) -> dict[Place, Horizon]:
        """Where the horizons of partitions stand at their positions, where their events replace one another."""
        found = {place: self._table.horizon(place) for place in self.positions()}
        return {place: horizon for place, horizon in found.items() if horizon is not None}

    def begins(self) -> Positions:
        """First offset of each of them that is in the log, or was before retention."""
        found = {place: self._table.begin(place) for place in self.positions()}
        return {place: begin for place, begin in found.items() if begin is not None}

    def incarnations(self) -> Incarnations:
        """Which topics the positions belong to, as far as is known."""
        return self._table.incarnations

    def complete_from_ms(self) -> int | None:
        """The log has all events from this event time on; None when it has all since the topics' first offsets.

        That is the first date that retention keeps. Of a log that was begun at a later offset it is the end of the
        newest day that its first records are about: what came before them is missing.
        """
        if self.kept_from is not None:
            return begin_of(self.kept_from)
        cut = {place: begin for place, begin in self.begins().items() if begin > 0}
        first = {place: range(begin, begin + FIRST_OFFSETS) for place, begin in cut.items()}
        newest_ms = None
        columns = ["topic", "partition", "offset", "event_time_ms"]
        for event_date, same in groupby(self.files, key=lambda file: file.event_date) if cut else ():
            files = [one for one in same if any(_overlap(one.offsets, offsets) for offsets in first.values())]
            for batch in self._read(columns, files, _Span(None, None, None)):
                for place, rows in by_partition(batch):
                    offsets = rows.column("offset").to_numpy()
                    if place in first and ((offsets >= first[place].start) & (offsets < first[place].stop)).any():
                        newest_ms = begin_of(event_date) + DAY_MS
        return newest_ms

    def dates(self) -> list[date]:
        """Event dates that have rows, ascending."""
        return sorted({file.event_date for file in self.files})

    def sizes(self) -> list[DateSize]:
        """Files, rows and bytes of each date."""
        return [
            DateSize(event_date, len(files), sum(one.rows for one in files), sum(one.size_bytes for one in files))
            for event_date, same in groupby(self.files, key=lambda file: file.event_date)
            for files in [list(same)]
        ]

    def scan(
        self,
        columns: Sequence[str],
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        ingested_before_ms: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Rows by event date, and those of one event time by topic, partition and offset.

        Args:
            columns: names of the wanted columns, in the order of the answer.
            from_ms: event times from here on.
            to_ms: event times before this.
            ingested_before_ms: only rows that had been read from the source before that moment: the log as it was
                known then.

        Yields:
            Batches of 1 to BATCH_ROWS rows. Within a date (of a large one, within some hours of it) they are in the
            order of topic, partition and offset.

        Raises:
            InvalidRequest: the log has no such column, or nothing was ever committed to it.
            Unavailable: the file system does not answer, or a file of this version was deleted.
            CorruptData: a file is damaged.
        """
        for name in columns:
            if name not in self.schema.names:
                raise InvalidRequest(
                    f'event log "{self.uri}" has no column "{name}"', hint=suggest(name, self.schema.names)
                )
        if not self.positions():
            raise InvalidRequest(
                f'event log "{self.uri}" has no commits yet',
                detail="What is computed from it would be the same as if nothing had ever happened.",
                hint="wait for the first commit of `featurestore event-log run`",
            )
        return self._scan(list(columns), _Span(from_ms, to_ms, ingested_before_ms))

    def _scan(self, columns: list[str], span: _Span) -> Iterator[pa.RecordBatch]:
        """Batches of all dates that can have wanted rows."""
        for event_date, same in groupby(self.files, key=lambda file: file.event_date):
            files = [file for file in same if span.may_have(file)]
            if files:
                for part in span.parts(event_date, sum(file.rows for file in files)):
                    yield from self._read(columns, [file for file in files if part.may_have(file)], part)

    def _read(self, columns: list[str], files: list[LogFile], part: _Span) -> Iterator[pa.RecordBatch]:
        """Rows of some files of one date, in order."""
        if not files:
            return
        # What all of them have in common need not be read to put them in order.
        order = [] if _is_one([file.topics for file in files]) else ["topic"]
        order += [] if _is_one([file.partitions for file in files]) else ["partition"]
        order.append("offset")
        stored = list(dict.fromkeys([*columns, *order]))
        event_date = files[0].event_date
        with _file_errors(f'a file of {event_date} of event log "{self.uri}"', self.version):
            found = self._dataset(files).to_table(columns=stored, filter=part.condition(event_date))
        for ordered in in_order(found, order):
            yield from (batch for batch in ordered.select(columns).to_batches(BATCH_ROWS) if batch.num_rows)

    def to_table(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of all rows, in memory; see `scan`."""
        return pa.Table.from_batches(self.scan(columns), pa.schema([self.schema.field(name) for name in columns]))

    def dataset(self) -> pads.Dataset:
        """All rows, in no order, for engines that read Arrow datasets."""
        return self._dataset(self.files)

    def _dataset(self, files: Sequence[LogFile]) -> pads.FileSystemDataset:
        """The rows of some files."""
        places, kind = self._table.place.files, pads.ParquetFileFormat()
        return pads.FileSystemDataset(
            [kind.make_fragment(file.path, places) for file in files], self.schema, kind, places
        )


@contextmanager
def _file_errors(where: str, version: int) -> Iterator[None]:
    """Map what Arrow raises while it reads data files: files that are gone or damaged, a file system that fails."""
    try:
        yield
    except FileNotFoundError as error:
        raise Unavailable(
            f"{where} has gone",
            detail=f"It is of version {version} of the table, whose files were deleted since. {error}",
            hint="begin anew with the newest version; `vacuum` must not delete what is younger than a run takes",
        ) from error
    except PermissionError as error:
        raise InvalidRequest(
            f"{where} may not be read", detail=str(error), hint="give this process the right to it"
        ) from error
    except (OSError, pa.ArrowException) as error:
        said = str(error)
        is_damage = any(word in said.lower() for word in _DAMAGE_WORDS) and not any(word in said for word in REQUESTS)
        if isinstance(error, OSError) and not is_damage:
            raise Unavailable(f"{where} cannot be read", detail=said) from error
        raise CorruptData(
            f"{where} is damaged",
            detail=said,
            hint="restore the file from a copy, or from Kafka: move the log away and write it anew",
        ) from error


@dataclass(frozen=True, slots=True)
class _Span:
    """Which rows a scan wants."""

    from_ms: int | None
    to_ms: int | None
    ingested_before_ms: int | None

    def may_have(self, file: LogFile) -> bool:
        """A file can have wanted rows."""
        first_ms = begin_of(file.event_date)
        oldest_ms, newest_ms = file.event_times_ms or (first_ms, first_ms + DAY_MS - 1)
        if self.from_ms is not None and newest_ms < self.from_ms:
            return False
        if self.to_ms is not None and oldest_ms >= self.to_ms:
            return False
        ingested = file.ingest_times_ms
        return self.ingested_before_ms is None or ingested is None or ingested[0] < self.ingested_before_ms

    def parts(self, event_date: date, rows: int) -> Iterator[_Span]:
        """This span within a date, in slices."""
        first_ms = begin_of(event_date)
        from_ms = first_ms if self.from_ms is None else self.from_ms
        to_ms = first_ms + DAY_MS if self.to_ms is None else self.to_ms
        for begin_ms, end_ms in time_slices({first_ms // DAY_MS: rows}, from_ms, to_ms):
            yield _Span(begin_ms, end_ms, self.ingested_before_ms)

    def condition(self, event_date: date) -> pc.Expression | None:
        """What rows of that date must fulfil; None when all are wanted, so that whole dates are not filtered."""
        first_ms = begin_of(event_date)
        wanted: pc.Expression | None = None
        if self.from_ms is not None and self.from_ms > first_ms:
            wanted = _and(wanted, pc.field("event_time_ms") >= self.from_ms)
        if self.to_ms is not None and self.to_ms < first_ms + DAY_MS:
            wanted = _and(wanted, pc.field("event_time_ms") < self.to_ms)
        if self.ingested_before_ms is not None:
            wanted = _and(wanted, pc.field("ingest_time_ms") < self.ingested_before_ms)
        return wanted


def begin_of(event_date: date) -> int:
    """Its midnight UTC, ms."""
    return (event_date.toordinal() - EPOCH_ORDINAL) * DAY_MS


def by_partition(batch: pa.RecordBatch) -> Iterator[tuple[Place, pa.RecordBatch]]:
    """A batch of a scan with topic and partition, cut into pieces of one partition each."""
    partitions = batch.column("partition").to_numpy()
    topics = batch.column("topic").dictionary_encode().indices.to_numpy()
    cuts = np.flatnonzero((partitions[1:] != partitions[:-1]) | (topics[1:] != topics[:-1])) + 1
    edges = [0, *cuts.tolist(), batch.num_rows]
    for low, high in pairwise(edges):
        yield (batch.column("topic")[low].as_py(), int(partitions[low])), batch.slice(low, high - low)


def _overlap(span: tuple[int, int] | None, wanted: range) -> bool:
    """Some of the wanted numbers can be in a span."""
    return span is None or (span[0] < wanted.stop and span[1] >= wanted.start)


def _is_one(spans: Sequence[tuple[object, object] | None]) -> bool:
    """All rows of some files have the same value."""
    return len(set(spans)) == 1 and spans[0] is not None and spans[0][0] == spans[0][1]


def _and(left: pc.Expression | None, right: pc.Expression) -> pc.Expression:
    """Both."""
    return right if left is None else left & right
