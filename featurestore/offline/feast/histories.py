"""Where the events of a repo's streams come from, for the Feast store: event logs, batch sources, files.

history: event_log              data/event_log/<source>/, as `featurestore event-log run` writes it
history: batch_source           the stream source's batch_source, a Parquet file or another system's table
histories: {logins: s3://...}   files of one source, or a Delta or Iceberg table of its events
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from feast.data_source import DataSource

from featurestore.core.spec import SourceSpec
from featurestore.errors import InvalidRequest
from featurestore.offline.feast.tables import Span, Tables, WantedColumns
from featurestore.offline.training_set.histories import EVENT_TIME, EventLogHistory, FileHistory, History

EVENT_LOG, BATCH_SOURCE = "event_log", "batch_source"


@dataclass(frozen=True, slots=True)
class HistoryPlaces:
    """Where to look.

    Attributes:
        event_log: root of the event logs, a path or URI.
        default: EVENT_LOG or BATCH_SOURCE.
        by_source: the same, or a path or URI of Parquet or of a table, for single sources.
        ingested_before_ms: event logs as they were known then; None as they are.
    """

    event_log: str
    default: str
    by_source: Mapping[str, str]
    ingested_before_ms: int | None

    def place_of(self, source: str) -> str:
        """EVENT_LOG, BATCH_SOURCE, or a path or URI."""
        return self.by_source.get(source, self.default)


@dataclass(frozen=True, slots=True)
class BatchTable:
    """What is wanted of a stream's batch source.

    Attributes:
        source: Feast's object; None where the stream has none.
        columns: the stream's columns that some view reads.
        span: event times that can decide about some label.
    """

    source: DataSource | None
    columns: frozenset[str]
    span: Span

    def __or__(self, other: BatchTable) -> BatchTable:
        """What two views want of one source."""
        return BatchTable(self.source, self.columns | other.columns, self.span | other.span)


class StreamHistories:
    """The histories of several sources as one (a `History`).

    Args:
        places: where to look.
        batch_tables: of the streams, by the stream source's name.
        tables: reads batch sources.
    """

    def __init__(self, places: HistoryPlaces, batch_tables: Mapping[str, BatchTable], tables: Tables) -> None:
        self._places = places
        self._batch_tables = batch_tables
        self._tables = tables
        self._logs = EventLogHistory(places.event_log, ingested_before_ms=places.ingested_before_ms)
        self._opened: dict[str, History] = {}

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """See `History`."""
        return self._of(source).scan(source, columns, from_ms=from_ms, to_ms=to_ms)

    def row_count(self, source: SourceSpec) -> int:
        """See `History`."""
        return self._of(source).row_count(source)

    def version(self, source: SourceSpec) -> str:
        """See `History`."""
        return self._of(source).version(source)

    def _of(self, source: SourceSpec) -> History:
        """The history of one source, opened once."""
        if source.name not in self._opened:
            self._opened[source.name] = self._open(source)
        return self._opened[source.name]

    def _open(self, source: SourceSpec) -> History:
        place = self._places.place_of(source.name)
        if place == EVENT_LOG:
            try:
                self._logs.row_count(source)
            except InvalidRequest as error:
                raise InvalidRequest(
                    error.message,
                    detail=f'It would be the history of source "{source.name}".',
                    hint="write it with `featurestore event-log run`, or set `history: batch_source`"
                    " below `offline_store` of feature_store.yaml",
                ) from error
            return self._logs
        if self._places.ingested_before_ms is not None:
            raise InvalidRequest(
                f'the history of source "{source.name}" does not tell when its events arrived',
                hint="leave `ingested_before` out, or read that source from an event log",
            )
        if place != BATCH_SOURCE:
            return FileHistory({source.name: place})
        table = self._batch_tables[source.name]
        if table.source is None:
            raise InvalidRequest(
                f'source "{source.name}" has no batch_source', hint="declare one, or set `history: event_log`"
            )
        return _BatchSourceHistory(source, table.source, table, self._tables)


class _BatchSourceHistory:
    """Events in a batch source, whose columns may have other names than the stream's."""

    def __init__(self, source: SourceSpec, batch: DataSource, wanted: BatchTable, tables: Tables) -> None:
        self._stored = {name: stored for stored, name in batch.field_mapping.items()}
        if batch.timestamp_field and source.event_time_column not in self._stored:
            self._stored[source.event_time_column] = batch.timestamp_field
        time_column = self._name(source.event_time_column)
        names = [self._name(name) for name in sorted(wanted.columns - {source.event_time_column})]
        table = tables.read(batch, WantedColumns((), names, time_column), wanted.span)
        self._files = FileHistory({source.name: table})

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """See `History`."""
        stored = [self._name(name) for name in columns]
        for batch in self._files.scan(self._renamed(source), stored, from_ms=from_ms, to_ms=to_ms):
            yield batch.rename_columns([*columns, EVENT_TIME])

    def row_count(self, source: SourceSpec) -> int:
        """See `History`."""
        return self._files.row_count(source)

    def version(self, source: SourceSpec) -> str:
        """See `History`."""
        return self._files.version(source)

    def _name(self, column: str) -> str:
        return self._stored.get(column, column)

    def _renamed(self, source: SourceSpec) -> SourceSpec:
        return replace(source, event_time_column=self._name(source.event_time_column))
