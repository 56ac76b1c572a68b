"""The tables that events are enriched from, in a stream's memory: read to their end before the first event, and on.

    topic     all that it holds, and what comes, as soon as an event asks for anything
    files     read again when they have changed

An event gets the version that is in force at its event time, of those that are here when it is processed. What was
folded is never looked up again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from prometheus_client import Counter, Gauge

from dataflows.logs.sources import PartitionReader, Shared, SourceLog
from featurestore.core.events import ColumnValues, Int64Array
from featurestore.core.point_in_time.as_of_table import AsOfTable, TableRows
from featurestore.core.spec import Column, EnrichmentSpec, SourceSpec, TableSpec
from featurestore.definitions.limits import TABLE_ROWS_MAX
from featurestore.errors import EventsLost, FeatureStoreError, LimitExceeded, SourceUnavailable
from featurestore.offline.training_set.histories import files_state, read_files
from featurestore.wire.payloads import EventDecoder, RawBatch, without_tombstones

ENRICHED = Counter("featurestore_enriched_events", "Events that were looked up in a table.", ["source", "table"])
MISSING = Counter(
    "featurestore_enriched_events_without_row",
    "Events for which a table had no row at their event time.",
    ["source", "table"],
)
ROWS = Gauge("featurestore_table_rows", "Versions of rows of a table that are held in memory.", ["table"])
REFUSED = Counter(
    "featurestore_table_records_refused", "Records of a table's topic that are no rows.", ["table", "reason"]
)

READ_ROWS = 10_000
LOOK_SECONDS = 10.0
"""How often it is looked whether files have changed, and whether a topic has new partitions."""

_POLL_SECONDS = 0.005

_logger = logging.getLogger(__name__)


class LiveTables:
    """Tables of some sources (`Tables`). Thread safe; each is read when it is first asked for.

    Args:
        log: where topics are.
        sources: that are enriched.
        shared: what all steps of this process share.
        repo: where relative paths of files start; None is the current directory.
    """

    def __init__(self, log: SourceLog, sources: Iterable[SourceSpec], shared: Shared, repo: Path | None = None) -> None:
        self._lock = threading.Lock()
        columns: dict[_Place, dict[str, Column]] = {}
        for source in sources:
            for one in source.enrichments:
                mine = columns.setdefault(_place(one), {})
                mine.update((name, Column(name, column.type)) for column, name in one.columns)
        self._tables = {
            (stream, files, key): _TopicTable(log, stream, key, tuple(found.values()), shared)
            if stream is not None
            else _FileTable(files, key, tuple(found.values()), shared, repo)
            for (stream, files, key), found in columns.items()
        }

    def columns_at(
        self, source: str, enrichment: EnrichmentSpec, keys: ColumnValues, times_ms: Int64Array
    ) -> Mapping[str, ColumnValues]:
        """See `Tables`.

        Raises:
            SourceUnavailable: the table cannot be read now.
            LimitExceeded: it is too large.
        """
        with self._lock:
            found, is_found = self._tables[_place(enrichment)].now().at(keys, times_ms)
        ENRICHED.labels(source, enrichment.table).inc(len(times_ms))
        MISSING.labels(source, enrichment.table).inc(int(len(times_ms) - is_found.sum()))
        return {column.name: found[of_table] for column, of_table in enrichment.columns}

    def close(self) -> None:
        """Leave the brokers."""
        for table in self._tables.values():
            table.close()


_Place = tuple[SourceSpec | None, TableSpec | None, Column]


def _place(enrichment: EnrichmentSpec) -> _Place:
    """Which rows, whatever is wanted of them."""
    return enrichment.stream, enrichment.files, enrichment.key


class _TopicTable:
    """A table whose rows are records of a topic."""

    def __init__(
        self, log: SourceLog, source: SourceSpec, key: Column, columns: Sequence[Column], shared: Shared
    ) -> None:
        self._log, self._source, self._shared = log, source, shared
        self._key, self._columns = key, columns
        self._decoder: EventDecoder | None = None
        self._begin()

    def _begin(self) -> None:
        """With nothing."""
        self._table = AsOfTable(f'table "{self._source.name}"', self._columns, TABLE_ROWS_MAX)
        self._readers: dict[int, PartitionReader] = {}
        self._is_whole = False
        self._next_look_ns = 0
        self._refused: set[str] = set()

    def now(self) -> AsOfTable:
        """The table with all that there is."""
        try:
            self._follow()
        except (EventsLost, LimitExceeded) as error:
            # Compaction, or a topic that was made anew, took records away: those that were not read yet, or those that
            # are too many by now.
            if isinstance(error, LimitExceeded) and not self._is_whole:
                raise
            _logger.warning('table "%s" is read anew: %s', self._source.name, error.message)
            self.close()
            self._begin()
            self._follow()
        return self._table

    def close(self) -> None:
        """Leave the broker."""
        for reader in self._readers.values():
            reader.close()

    def _follow(self) -> None:
        clock = self._shared.clock
        if clock.monotonic_ns() >= self._next_look_ns:
            for partition in self._log.partitions(self._source):
                if partition not in self._readers:
                    self._readers[partition] = self._log.open(self._source, partition, None)
                    self._is_whole = False
            self._next_look_ns = clock.monotonic_ns() + int(LOOK_SECONDS * 1e9)
        if self._decoder is None:
            names = [self._key.name, *(column.name for column in self._columns)]
            self._decoder = EventDecoder(self._source, names, self._log.schemas(self._source))
        deadline_ns = clock.monotonic_ns() + int(self._shared.patience_seconds * 1e9)
        while True:
            count = sum(self._take_all(reader, self._decoder) for reader in self._readers.values())
            ROWS.labels(self._source.name).set(self._table.row_count)
            if self._is_whole or all(reader.has_reached_end for reader in self._readers.values()):
                break
            if count:
                deadline_ns = clock.monotonic_ns() + int(self._shared.patience_seconds * 1e9)
            elif clock.monotonic_ns() > deadline_ns or self._shared.conductor.is_ending:
                fact = f'table "{self._source.name}" cannot be read to its end'
                raise SourceUnavailable(fact, detail=f'Topic "{self._source.topic}" does not answer.')
            else:
                self._shared.progress.tick()
                clock.sleep(_POLL_SECONDS)
        if not self._is_whole:
            _logger.info('table "%s" is read: %d rows', self._source.name, self._table.row_count)
            self._is_whole = True

    def _take_all(self, reader: PartitionReader, decoder: EventDecoder) -> int:
        """Take what has come of a partition; returns how many records."""
        count = 0
        while (batch := reader.read(READ_ROWS)) is not None:
            count += len(batch.payloads)
            self._take(batch, decoder)
        return count

    def _take(self, batch: RawBatch, decoder: EventDecoder) -> None:
        """Take records; one without a value says nothing of when, and is none."""
        decoded = decoder.decode(without_tombstones(batch), now_ms=self._shared.clock.now_ms())
        for letter in decoded.dead_letters:
            REFUSED.labels(self._source.name, letter.reason).inc()
            if letter.reason not in self._refused:
                self._refused.add(letter.reason)
                place = f"{letter.topic}/{letter.partition}/{letter.offset}"
                _logger.warning('table "%s": record %s is no row: %s', self._source.name, place, letter.detail)
        events = decoded.events
        keys, times_ms, columns = events.columns[self._key.name], events.event_time_ms, dict(events.columns)
        if keys.valid is not None:
            rows_with_key = np.flatnonzero(keys.valid)
            REFUSED.labels(self._source.name, "missing_key").inc(len(times_ms) - len(rows_with_key))
            keys, times_ms = keys.take(rows_with_key), times_ms[rows_with_key]
            columns = {name: column.take(rows_with_key) for name, column in columns.items()}
        self._table.add(TableRows(keys, times_ms, columns))


class _FileTable:
    """A table in files."""

    def __init__(
        self, files: TableSpec | None, key: Column, columns: Sequence[Column], shared: Shared, repo: Path | None
    ) -> None:
        assert files is not None, "a table is a topic, or files"
        self._files, self._key, self._columns, self._shared, self._repo = files, key, columns, shared, repo
        self._table: AsOfTable | None = None
        self._state, self._next_look_ns = "", 0

    def now(self) -> AsOfTable:
        """The table as the files have it, or had it a few seconds ago."""
        clock = self._shared.clock
        if self._table is None or clock.monotonic_ns() >= self._next_look_ns:
            try:
                self._table = self._read()
            except FeatureStoreError as error:
                if self._table is None:
                    raise
                _logger.warning("%s; its rows stay as they were", error.message)
            self._next_look_ns = clock.monotonic_ns() + int(LOOK_SECONDS * 1e9)
        return self._table

    def close(self) -> None:
        """Nothing is open."""

    def _read(self) -> AsOfTable:
        state = files_state(self._files, self._repo)
        if self._table is not None and state == self._state:
            return self._table
        table = AsOfTable(f'table "{self._files.source}"', self._columns, TABLE_ROWS_MAX)
        table.add(read_files(self._files, self._key, self._columns, self._repo))
        self._state = state
        ROWS.labels(self._files.source).set(table.row_count)
        _logger.info('table "%s" is read: %d rows', self._files.source, table.row_count)
        return table
