"""Histories whose events get columns from tables, as of their event time, as the stream gives them.

    events of a source ──┐
    versions of a table ─┴── the version of the row that was in force ──> events with fx_rate

A table that is a topic has a history of its own, at the same place as the events: its event log, or files. One that is
files is read as it is now.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from featurestore.core.events import ColumnValues, Int64Array
from featurestore.core.point_in_time.as_of_table import AsOfTable, TableRows
from featurestore.core.spec import Column, EnrichmentSpec, SourceSpec, TableSpec, ViewSpec
from featurestore.definitions.limits import HISTORY_TABLE_ROWS_MAX
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.foreign_tables.table import ForeignTable
from featurestore.offline.training_set.arrow_columns import column_values, takeable, values_array
from featurestore.offline.training_set.histories.stored import (
    EVENT_TIME,
    History,
    KeepsVersions,
    open_dataset,
    state_of_files,
)
from featurestore.offline.training_set.label_times import moments_ms
from featurestore.wire.moments import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN

_PER_MS = {"us": 1_000, "ns": 1_000_000}


def enriched_history(history: History, views: Sequence[ViewSpec], repo_path: Path | None) -> History:
    """The same history with what events get from tables; itself where they get nothing.

    Args:
        history: of the events, and of tables that are topics.
        views: that are asked for.
        repo_path: where relative paths of tables start; None is the current directory.
    """
    if not any(view.source.enrichments for view in views):
        return history
    return EnrichedHistory(history, HistoricTables(history, repo_path))


class HistoricTables:
    """Tables with all their past (`Tables`); each is read once.

    Args:
        history: of tables that are topics.
        repo_path: where relative paths of files start; None is the current directory.
    """

    def __init__(self, history: History, repo_path: Path | None) -> None:
        self._history = history
        self._repo_path = repo_path
        self._tables: dict[EnrichmentSpec, AsOfTable] = {}

    def columns_at(
        self, source: str, enrichment: EnrichmentSpec, keys: ColumnValues, times_ms: Int64Array
    ) -> Mapping[str, ColumnValues]:
        """See `Tables`."""
        found, _ = self.table(enrichment).at(keys, times_ms)
        return {column.name: found[of_table] for column, of_table in enrichment.columns}

    def table(self, enrichment: EnrichmentSpec) -> AsOfTable:
        """The table.

        Raises:
            InvalidRequest: there is no history of it, or it lacks a column.
            Unavailable: it cannot be read now.
        """
        if enrichment not in self._tables:
            columns = tuple(Column(of_table, column.type) for column, of_table in enrichment.columns)
            table = AsOfTable(f'table "{enrichment.table}"', columns, HISTORY_TABLE_ROWS_MAX)
            for rows in self._rows(enrichment, columns):
                table.add(rows)
            self._tables[enrichment] = table
        return self._tables[enrichment]

    def version(self, enrichment: EnrichmentSpec) -> str:
        """See `History`."""
        if enrichment.stream is not None:
            return self._history.version(enrichment.stream)
        assert enrichment.files is not None, "a table is a topic, or files"
        return files_state(enrichment.files, self._repo_path)

    def _rows(self, enrichment: EnrichmentSpec, columns: Sequence[Column]) -> Iterator[TableRows]:
        if enrichment.stream is None:
            assert enrichment.files is not None, "a table is a topic, or files"
            yield read_files(enrichment.files, enrichment.key, columns, self._repo_path)
            return
        key = enrichment.key
        names = _names([key.name, *(column.name for column in columns)])
        span = {"from_ms": EVENT_TIME_MS_MIN, "to_ms": EVENT_TIME_MS_MAX + 1}
        for batch in self._history.scan(enrichment.stream, names[:-1], **span):
            arrays = {name: batch.column(name) for name in names}
            yield _table_rows(arrays, np.array(arrays[EVENT_TIME].to_numpy()), key, columns)


class EnrichedHistory:
    """A history with the enriched columns of its sources (`History`).

    Args:
        history: of the events.
        tables: what they are enriched from.
    """

    def __init__(self, history: History, tables: HistoricTables) -> None:
        self._history = history
        self._tables = tables

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """See `History`."""
        enrichments = source.enriched_by(columns)
        if not enrichments:
            return self._history.scan(source, columns, from_ms=from_ms, to_ms=to_ms)
        stored, wanted = _names(source.stored(columns)), _names(columns)
        batches = self._history.scan(source, stored[:-1], from_ms=from_ms, to_ms=to_ms)
        for one in enrichments:
            self._tables.table(one)
        return (with_enriched(batch, stored, wanted, source, self._tables) for batch in batches)

    def row_count(self, source: SourceSpec) -> int:
        """See `History`."""
        return self._history.row_count(source)

    def version(self, source: SourceSpec) -> str:
        """See `History`; that of the tables, too."""
        own = self._history.version(source)
        return json.dumps([own, *map(self._tables.version, source.enrichments)]) if source.enrichments else own

    def keep_versions(self, path: Path | None) -> None:
        """See `KeepsVersions`."""
        if isinstance(self._history, KeepsVersions):
            self._history.keep_versions(path)

    def versions_read(self) -> dict[str, int]:
        """See `KeepsVersions`."""
        return self._history.versions_read() if isinstance(self._history, KeepsVersions) else {}


def with_enriched(
    batch: pa.RecordBatch,
    names: Sequence[str],
    wanted: Sequence[str],
    source: SourceSpec,
    tables: HistoricTables,
) -> pa.RecordBatch:
    """Rows with what events get from tables.

    Args:
        batch: N rows of `names`, EVENT_TIME among them.
        names: of its columns.
        wanted: names of the columns of the answer.
        source: whose events they are.
        tables: what they are enriched from.
    """
    arrays = {name: batch.column(name) for name in names}
    times_ms = np.array(arrays[EVENT_TIME].to_numpy(), dtype=np.int64)
    for one in source.enriched_by(wanted):
        on = source.column(one.on)
        assert on is not None, "definitions.compile has seen to it"
        for name, values in tables.columns_at(source.name, one, column_values(arrays[one.on], on), times_ms).items():
            column = source.column(name)
            assert column is not None, "an enriched column is one of its source"
            arrays[name] = values_array(values, column.type)
    return pa.RecordBatch.from_arrays([arrays[name] for name in wanted], names=list(wanted))


def read_files(table: TableSpec, key: Column, columns: Sequence[Column], repo_path: Path | None = None) -> TableRows:
    """All versions of the rows of a table in files.

    Args:
        table: the table.
        key: what its rows are told apart by.
        columns: those that are wanted.
        repo_path: where a relative path starts; None is the current directory.

    Raises:
        InvalidRequest: it lacks a column.
        Unavailable: it cannot be read.
    """
    dataset = _opened(table, repo_path)
    stored = {name: column for column, name in table.renamed}
    names = [key.name, *(column.name for column in columns), table.timestamp_column]
    names += [table.created_column] if table.created_column else []
    names = list(dict.fromkeys(names))
    for name in names:
        if stored.get(name, name) not in dataset.schema.names:
            raise InvalidRequest(
                f'table "{table.source}" has no column "{stored.get(name, name)}"',
                hint=suggest(name, dataset.schema.names),
            )
    try:
        found = dataset.to_table(columns=[stored.get(name, name) for name in names])
    except (OSError, pa.ArrowInvalid) as error:
        raise Unavailable(f'table "{table.source}" cannot be read', detail=str(error)) from error
    found = pa.table([takeable(column) for column in found.columns], names=names)
    found = found.filter(pc.is_valid(found.column(table.timestamp_column)))
    if table.created_column:
        # Of two rows of one key and time the one that was created last holds.
        order = pc.sort_indices(found, sort_keys=[(table.created_column, "ascending")], null_placement="at_start")
        found = found.take(order)
    times_ms = _times_ms(found.column(table.timestamp_column), table.timestamp_column)
    arrays = {name: _whole(found.column(name)) for name in names}
    return _table_rows(arrays, times_ms, key, columns)


def files_state(table: TableSpec, repo_path: Path | None) -> str:
    """Text that changes with the files of a table.

    Raises:
        InvalidRequest: there are none.
    """
    dataset = _opened(table, repo_path)
    if isinstance(dataset, ForeignTable):
        return json.dumps([dataset.uri, dataset.version])
    return state_of_files(dataset)


def _opened(table: TableSpec, repo_path: Path | None) -> pads.Dataset | ForeignTable:
    """The files of a table."""
    if table.endpoint:
        store = pafs.S3FileSystem(endpoint_override=table.endpoint)
        return pads.dataset(table.path.removeprefix("s3://"), format="parquet", partitioning="hive", filesystem=store)
    return open_dataset(table.path if "://" in table.path else (repo_path or Path()) / table.path)


def _table_rows(
    arrays: Mapping[str, pa.Array], times_ms: Int64Array, key: Column, columns: Sequence[Column]
) -> TableRows:
    """Rows that name one, as the table takes them."""
    is_row = arrays[key.name].is_valid()
    if arrays[key.name].null_count:
        arrays = {name: array.filter(is_row) for name, array in arrays.items()}
        times_ms = times_ms[np.asarray(is_row.to_numpy(zero_copy_only=False), dtype=np.bool_)]
    values = {column.name: column_values(arrays[column.name], column) for column in columns}
    return TableRows(column_values(arrays[key.name], key), times_ms, values)


def _times_ms(column: pa.ChunkedArray, name: str) -> Int64Array:
    """Since when rows hold; one that begins within a millisecond holds from the next one."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit in _PER_MS:
        times = np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)
        return -(-times // _PER_MS[kind.unit])
    return moments_ms(column, name)[0]


def _names(columns: Sequence[str]) -> list[str]:
    """Columns of a batch of a history: the wanted ones, and the event time last."""
    return [*dict.fromkeys(name for name in columns if name != EVENT_TIME), EVENT_TIME]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
