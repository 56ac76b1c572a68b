"""A view's events out of an event log, by lane of the online store: what a bootstrap computes from.

    log ── blocks ── conditions, computed columns, entity keys ── by hash of the key ──> files
                                                                  lane l: files l, l + L, l + 2 L, ...
    a file at a time ──> events of its entities, in order of arrival

It is the path of the stream (`wire.keying`), so that a generation gets the same rows under the same keys, whoever fills
it. An entity is always in one file. Memory: SPILL_ROWS rows of the log, and later one file of about PART_ROWS rows, or
of one entity that has more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from featurestore.core.events import BlobRow, ColumnValues, EventBatch, Horizon, Int64Array
from featurestore.core.inputs import view_inputs
from featurestore.core.point_in_time.rows import EntityEvents, hash_history_ids
from featurestore.core.spec import REPLACE, Column, SourceSpec, ValueType, ViewSpec
from featurestore.core.view import CompiledView
from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.reader import by_partition
from featurestore.offline.event_log.table import Positions
from featurestore.offline.training_set.arrow_columns import column_values, strings, strings_array
from featurestore.offline.training_set.histories import HistoricTables, with_enriched
from featurestore.wire.entity_routing import key_events, with_computed
from featurestore.wire.incarnations import Incarnations

PART_ROWS = 1 << 19
"""Rows of a file, about, if no single entity has more."""

SPILL_ROWS = 1 << 20
"""Rows that are collected before they are written to the files."""

FILES_MAX = 4_096
"""More would make each write small; files then get larger than PART_ROWS."""

_LENGTH_BYTES = 8
_KEY, _TIME, _SOURCE, _OFFSET, _ID, _COLUMN = "key", "event_time_ms", "source", "offset", "event_id", ":"


class PositionedEvents(Protocol):
    """Records of a source at rest, each with its position: an `EventLog`, or a `TableLog`; one version of it."""

    @property
    def uri(self) -> str:
        """Its address, for people."""
        ...

    @property
    def version(self) -> int:
        """Of the table."""
        ...

    @property
    def row_count(self) -> int:
        """About how many rows."""
        ...

    @property
    def kept_from(self) -> date | None:
        """Event dates before this one were dropped; None when none were, or nobody knows."""
        ...

    def positions(self) -> Positions:
        """Next offset of each partition: every record below is there."""
        ...

    def incarnations(self) -> Incarnations:
        """Which topics the positions belong to, as far as is known."""
        ...

    def horizons(self) -> Mapping[tuple[str, int], Horizon]:
        """Where the horizons of partitions stand at the positions, where their events replace one another."""
        ...

    def dates(self) -> list[date]:
        """Event dates that have rows, ascending."""
        ...

    def scan(self, columns: Sequence[str], *, from_ms: int | None = None) -> Iterator[pa.RecordBatch]:
        """Rows; those of a partition and of one span of event times in the order of their offsets."""
        ...


@dataclass(frozen=True, slots=True)
class LogPart:
    """Events of some entities of one lane, all that there are of them.

    Attributes:
        keys: canonical entity keys.
        events: their events in order of arrival; `entity` is an index into `keys`.
        recent_ids: ids that a retry may still bring again; None where the source declares none.
        recent_entity: whose they are, an index into `keys` for each.
    """

    keys: Sequence[bytes]
    events: EntityEvents
    recent_ids: BlobRow | None
    recent_entity: Int64Array | None


class LogEvents:
    """The events of one view in one version of its source's log.

    Args:
        log: the records of the view's source.
        view: whose events.
        lane_count: lanes of the store.
        now_ms: the clock; an event dated ahead of it does not make others old.
        directory: where files go; must be empty. None for who does not collect.
        tables: that events are enriched from.

    Raises:
        InvalidRequest: the log has no rows of the view's topics yet.
    """

    def __init__(
        self,
        log: PositionedEvents,
        view: ViewSpec,
        *,
        lane_count: int,
        now_ms: int,
        directory: Path | None = None,
        tables: HistoricTables | None = None,
    ) -> None:
        assert tables is not None or not view_inputs(view).enrichments, "whoever reads such views gives tables"
        self._tables = tables
        self._log = log
        self._view = view
        self._lane_count = lane_count
        self._directory = directory
        compiled = CompiledView(view)
        self._lifts_ids = compiled.layout.reads_event_ids
        self._retention_hop_ms = compiled.roll_up.retention_hop_ms
        self.positions: Positions = {
            partition: offset for partition, offset in log.positions().items() if partition[0] in view.source.topics
        }
        if not self.positions:
            raise InvalidRequest(
                f'event log "{log.uri}" has nothing of topic "{view.source.topic}" yet',
                hint="keep it filled with `featurestore event-log run`, beside the stream",
            )
        self.incarnations = {
            place: which for place, which in log.incarnations().items() if place[0] in view.source.topics
        }
        self._sources = {partition: number for number, partition in enumerate(sorted(self.positions))}
        self._newest_ms: dict[tuple[str, int], int] = {}
        self.from_ms = self._first_needed_ms(now_ms)
        self.split = max(1, min(log.row_count // (PART_ROWS * lane_count), FILES_MAX // lane_count))

    def collect(self, lanes: Collection[int], on_rows: Callable[[int], None] = lambda rows: None) -> None:
        """Read the log once and write the events of some lanes to files.

        Args:
            lanes: those that `parts` will be asked for.
            on_rows: told how many rows of the log were read since it was told last.
        """
        is_wanted = np.zeros(self._lane_count, dtype=np.bool_)
        is_wanted[list(lanes)] = True
        held: list[tuple[Int64Array, pa.RecordBatch]] = []
        held_rows = 0
        for buckets, rows in self.rows_by_bucket(on_rows):
            if not is_wanted.all():
                kept = np.flatnonzero(is_wanted[buckets % self._lane_count])
                buckets, rows = buckets[kept], rows.take(pa.array(kept))
            held.append((buckets, rows))
            held_rows += len(buckets)
            if held_rows >= SPILL_ROWS:
                self._write(held)
                held, held_rows = [], 0
        self._write(held)

    def rows_by_bucket(self, on_rows: Callable[[int], None]) -> Iterator[tuple[Int64Array, pa.RecordBatch]]:
        """The view's rows in the order of the log, some at a time, and of each the bucket of its entity.

        There are `split` buckets a lane, filled evenly by a hash of the entity key.

        Args:
            on_rows: told how many rows of the log were read since it was told last.
        """
        for batch in self._scan():
            on_rows(batch.num_rows)
            yield self._keyed(batch)

    @cached_property
    def horizons(self) -> Mapping[tuple[str, int], Horizon]:
        """Where the horizons of partitions stand at the positions, where events replace one another.

        Raises:
            InvalidRequest: the log does not know it.
        """
        is_replacing = self._view.source.changes == REPLACE
        return _known_horizons(self._log, self._view.source, self.positions) if is_replacing else {}

    def parts(self, lane: int) -> Iterator[LogPart]:
        """See `online.bootstrap.RecordedEvents`. Each file is deleted when the next one is asked for."""
        for bucket in range(lane, self._lane_count * self.split, self._lane_count):
            path = self._path(bucket)
            if path.exists():
                yield self._load(path)
                path.unlink()

    def _first_needed_ms(self, now_ms: int) -> int | None:
        """Event time before which nothing counts any more; None when everything does.

        An entity without an event since is one that the store would have let expire.
        """
        dates = self._log.dates()
        if self._view.retention_ms is None or not dates:
            return None
        last_date_ms = int(datetime.combine(dates[-1], datetime.min.time(), UTC).timestamp()) * 1_000
        newest = (int(np.max(batch.column(0).to_numpy())) for batch in self._log.scan([_TIME], from_ms=last_date_ms))
        newest_ms = max(newest, default=now_ms)  # a table's last date may have nothing but events of the future
        kept_ms = self._view.retention_ms + self._view.lookback_ms + self._retention_hop_ms
        return min(newest_ms, now_ms) - kept_ms

    def _scan(self) -> Iterator[pa.RecordBatch]:
        """The log's rows, of one partition each batch, with an id where the source declares one."""
        id_column = self._view.source.id_column
        names = [*view_inputs(self._view).payload_columns, *([] if id_column is None else [id_column.name])]
        wanted = list(dict.fromkeys(["topic", "partition", "offset", _TIME, *names]))
        stored = self._view.source.stored(wanted)
        for batch in self._log.scan(stored, from_ms=self.from_ms):
            if self._tables is not None and stored != tuple(wanted):
                batch = with_enriched(batch, stored, wanted, self._view.source, self._tables)
            for partition, rows in by_partition(batch):
                if partition not in self.positions:
                    continue
                if id_column is not None and rows.column(id_column.name).null_count:
                    rows = rows.filter(rows.column(id_column.name).is_valid())
                if rows.num_rows:
                    yield rows

    def _keyed(self, batch: pa.RecordBatch) -> tuple[Int64Array, pa.RecordBatch]:
        """The view's rows of a batch, and the file of each."""
        view, inputs = self._view, view_inputs(self._view)
        partition = (batch.column("topic")[0].as_py(), batch.column("partition")[0].as_py())
        times_ms = batch.column(_TIME).to_numpy()
        self._newest_ms[partition] = max(self._newest_ms.get(partition, int(times_ms[0])), int(times_ms.max()))
        join_keys = {key.name for key in view.join_keys}
        columns = {
            name: _objects(batch.column(name))
            if name in join_keys and inputs.column(name).type is ValueType.STRING
            else column_values(batch.column(name), inputs.column(name))
            for name in inputs.payload_columns
        }
        # One offset may have several rows, so they are numbered here.
        numbers = np.arange(batch.num_rows)
        events = EventBatch(*partition, 0, batch.num_rows, numbers, times_ms, None, columns)
        keyed = key_events(with_computed(events, [view]), view, self._lane_count * self.split)
        arrays = {
            _KEY: pa.array(keyed.keys, pa.binary()).take(pa.array(keyed.key_index)),
            _TIME: pa.array(keyed.event_time_ms),
            _SOURCE: pa.array(np.full(len(keyed.offsets), self._sources[partition], dtype=np.int32)),
            _OFFSET: batch.column("offset").take(pa.array(keyed.offsets)),
        }
        id_column = view.source.id_column
        if id_column is not None:
            ids = batch.column(id_column.name).take(pa.array(keyed.offsets))
            if id_column.type is not ValueType.STRING:
                ids = ids.cast(pa.int64()).cast(pa.string())
            arrays[_ID] = ids.cast(pa.string()).cast(pa.binary())
        for column in inputs.event_columns:
            arrays[_COLUMN + column.name] = _array(keyed.columns[column.name], column)
        return keyed.key_lanes[keyed.key_index], pa.RecordBatch.from_pydict(arrays)

    def _write(self, held: Sequence[tuple[Int64Array, pa.RecordBatch]]) -> None:
        """Append rows to their files: record batches, each after its length."""
        if not held:
            return
        buckets = np.concatenate([each for each, _ in held])
        order = buckets.astype(np.int16).argsort(kind="stable")  # a radix sort, as numpy has it for 16 bits
        table = pa.Table.from_batches([rows for _, rows in held]).combine_chunks()
        rows = table.take(pa.array(order)).combine_chunks()
        ends = np.cumsum(np.bincount(buckets, minlength=self._lane_count * self.split)).tolist()
        for bucket, (low, high) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if low == high:
                continue
            with self._path(bucket).open("ab") as file:
                for batch in rows.slice(low, high - low).to_batches():
                    data = batch.serialize()
                    file.write(data.size.to_bytes(_LENGTH_BYTES, "little"))
                    file.write(data)

    def _load(self, path: Path) -> LogPart:
        """The events of a file."""
        content, at, batches = pa.py_buffer(path.read_bytes()), 0, []
        while at < content.size:
            size = int.from_bytes(content[at : at + _LENGTH_BYTES], "little")
            batches.append(pa.ipc.read_record_batch(content.slice(at + _LENGTH_BYTES, size), self._stored_schema))
            at += _LENGTH_BYTES + size
        return self.part_of(pa.Table.from_batches(batches))

    def part_of(self, rows: pa.Table) -> LogPart:
        """Rows of `rows_by_bucket`, one or more, as events; all that there are of their entities."""
        table = rows.combine_chunks()
        keys = table.column(_KEY).chunk(0).dictionary_encode()
        ids = strings(table.column(_ID).chunk(0)) if _ID in table.column_names else None
        columns = {
            column.name: _column(table.column(_COLUMN + column.name).chunk(0), column)
            for column in view_inputs(self._view).event_columns
        }
        entity = keys.indices.to_numpy().astype(np.int64)
        times_ms = table.column(_TIME).chunk(0).to_numpy().copy()  # compiled loops take no read-only arrays
        recent, recent_entity, hashes = None, None, None
        if ids is not None and self._view.source.dedup_horizon_ms > 0:
            hashes = hash_history_ids(ids)
            first_recent = self._first_recent[table.column(_SOURCE).chunk(0).to_numpy()]
            is_recent = table.column(_OFFSET).chunk(0).to_numpy() >= first_recent
            recent, recent_entity = ids[is_recent], entity[is_recent]
        events = EntityEvents(entity, times_ms, hashes, ids if self._lifts_ids else None, columns)
        return LogPart(keys.dictionary.to_pylist(), events, recent, recent_entity)

    @cached_property
    def _stored_schema(self) -> pa.Schema:
        """Columns of the files."""
        fields = [(_KEY, pa.binary()), (_TIME, pa.int64()), (_SOURCE, pa.int32()), (_OFFSET, pa.int64())]
        if self._view.source.id_column is not None:
            fields.append((_ID, pa.binary()))
        columns = view_inputs(self._view).event_columns
        return pa.schema([*fields, *((_COLUMN + column.name, _stored_type(column)) for column in columns)])

    @cached_property
    def _first_recent(self) -> Int64Array:
        """(sources,) first offset of each partition from which on ids must be remembered.

        An id is remembered until its partition has moved on one horizon: so the ids that count are those which were
        read since the partition's running newest event time came within a horizon of where it is now. The first event
        that is so new is where it came there.
        """
        first = np.full(len(self._sources), np.iinfo(np.int64).max)
        if not self._newest_ms:
            return first
        horizon_ms = self._view.source.dedup_horizon_ms
        oldest_ms = min(self._newest_ms.values()) - horizon_ms
        names = ["topic", "partition", "offset", _TIME]
        for batch in self._log.scan(names, from_ms=oldest_ms):
            for partition, rows in by_partition(batch):
                if partition in self._newest_ms:
                    is_recent = rows.column(3).to_numpy() >= self._newest_ms[partition] - horizon_ms
                    at = np.flatnonzero(is_recent)
                    if len(at):
                        number = self._sources[partition]
                        first[number] = min(first[number], int(rows.column(2).to_numpy()[at[0]]))
        return first

    def _path(self, bucket: int) -> Path:
        assert self._directory is not None, "what is collected needs room"
        return self._directory / f"events-{bucket:05d}"


def _known_horizons(log: PositionedEvents, source: SourceSpec, positions: Positions) -> dict[tuple[str, int], Horizon]:
    """The horizon of each partition.

    Raises:
        InvalidRequest: the log does not know it.
    """
    found = {place: horizon for place, horizon in log.horizons().items() if place in positions}
    if set(found) != set(positions):
        raise InvalidRequest(
            f'events of source "{source.name}" replace one another, and "{log.uri}" does not say which can be',
            detail="So nobody could promise that what comes next replaces what it should.",
            hint="take an event log that `featurestore event-log run` has written",
        )
    return found


def _objects(array: pa.Array) -> ColumnValues:
    """A text column as objects, one for each distinct text: what keys are made from."""
    encoded = array.fill_null("").dictionary_encode()
    distinct = np.empty(len(encoded.dictionary), dtype=np.object_)
    distinct[:] = encoded.dictionary.cast(pa.binary()).to_pylist()
    valid = np.asarray(array.is_valid().to_numpy(zero_copy_only=False)) if array.null_count else None
    return ColumnValues(distinct[encoded.indices.to_numpy()], valid)


def _stored_type(column: Column) -> pa.DataType:
    """How a file holds a column."""
    if column.type is ValueType.STRING:
        return pa.binary()
    return pa.float64() if column.type is ValueType.FLOAT64 else pa.int64()


def _array(values: ColumnValues, column: Column) -> pa.Array:
    """A column for a file."""
    if column.type is ValueType.STRING:
        return strings_array(BlobRow.of(values.values), values.valid, pa.binary())
    return pa.array(values.values, _stored_type(column), mask=None if values.valid is None else ~values.valid)


def _column(array: pa.Array, column: Column) -> ColumnValues:
    """A column from a file; nulls hold 0 or nothing."""
    valid = None
    if array.null_count:
        valid = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    if column.type is ValueType.STRING:
        return ColumnValues(strings(array), valid)
    return ColumnValues(np.asarray((array if valid is None else array.fill_null(0)).to_numpy()), valid)
