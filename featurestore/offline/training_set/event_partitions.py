"""Events of a view, in memory while they fit, else in files by entity: what makes a training set work out of core.

    blocks, in order of arrival ──> memory ── over the budget? ──> events-00000.arrow   entities 0, P, 2 P ...
                                                                   events-00001.arrow   entities 1, P + 1 ...
    a partition at a time ──> sorted, lifted, answered

An entity is always in one partition, and its events stay in order of arrival, so nothing that is computed can tell how
many partitions there are. Files are Arrow IPC, mapped into memory when read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from featurestore.core.events import BlobRow, ColumnValues, Int64Array
from featurestore.core.inputs import view_inputs
from featurestore.core.point_in_time.rows import EntityEvents
from featurestore.core.spec import ValueType, ViewSpec
from featurestore.offline.disk import complete_file, make_directory, new_file, sync
from featurestore.offline.training_set.arrow_columns import strings, strings_array
from featurestore.offline.training_set.view_events import joined, size_bytes

_ENTITY, _TIME, _HASH, _ID, _COLUMN = "entity", "event_time_ms", "id_hash", "event_id", ":"
_DONE = "events.done"


class EventPartitions:
    """Takes a view's events and gives them back by partition.

    Args:
        view: whose events.
        count: number of partitions, P.
        directory: where files go; need not exist.
        memory_bytes: events kept in memory before they are written; 0 writes at once, so that they outlive the process.
    """

    def __init__(self, view: ViewSpec, count: int, directory: Path, memory_bytes: int) -> None:
        self._view = view
        self._count = count
        self._directory = directory
        self._memory_bytes = memory_bytes
        self._blocks: list[EntityEvents] = []
        self._held_bytes = 0
        self._files: list[pa.RecordBatchFileWriter | None] = [None] * count
        self._is_on_disk = False

    @property
    def count(self) -> int:
        """Number of partitions that `load` knows: one while everything is in memory."""
        return self._count if self._is_on_disk else 1

    def partition_of(self, entity: Int64Array) -> Int64Array:
        """(N,) partition of each entity."""
        partition: Int64Array = entity % self.count
        return partition

    def reopen(self) -> bool:
        """Whether an earlier process has written all events; then they are used as they are."""
        self._is_on_disk = (self._directory / _DONE).exists()
        return self._is_on_disk

    def add(self, events: EntityEvents) -> None:
        """Take a block, later in arrival than all before."""
        self._blocks.append(events)
        self._held_bytes += size_bytes(events)
        if self._held_bytes > self._memory_bytes:
            self._write()

    def finish(self) -> None:
        """All blocks have been added."""
        if not self._is_on_disk and self._memory_bytes > 0:
            return
        self._write()
        for partition, writer in enumerate(self._files):
            if writer is not None:
                writer.close()
                sync(self._path(partition))
        with complete_file(self._directory / _DONE):
            pass  # that it is there says all

    def load(self, partition: int) -> EntityEvents:
        """The events of a partition, its entities numbered from 0: entity e is e // P."""
        if not self._is_on_disk:
            return joined(self._blocks, self._view)
        path = self._path(partition)
        if not path.exists():
            return joined([], self._view)
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        events = joined([_from_arrow(batch, self._view) for batch in table.to_batches()], self._view)
        return replace(events, entity=events.entity // self._count)

    def drop(self, partition: int) -> None:
        """A partition is not needed any more."""
        if self._is_on_disk:
            self._path(partition).unlink(missing_ok=True)
        else:
            self._blocks = []

    def _write(self) -> None:
        """Append what is held to the partitions' files."""
        self._is_on_disk = True
        make_directory(self._directory)
        for events in self._blocks:
            for partition, rows in _split(self.partition_of(events.entity), self._count):
                batch = _to_arrow(events.take(rows), self._view)
                writer = self._files[partition]
                if writer is None:
                    new_file(self._path(partition))
                    writer = self._files[partition] = pa.ipc.new_file(str(self._path(partition)), batch.schema)
                writer.write_batch(batch)
        self._blocks, self._held_bytes = [], 0

    def _path(self, partition: int) -> Path:
        return self._directory / f"events-{partition:05d}.arrow"


def _split(partition: Int64Array, count: int) -> Iterator[tuple[int, Int64Array]]:
    """The rows of each partition that has any, in their order."""
    order = partition.astype(np.int16).argsort(kind="stable")  # a radix sort, as numpy has it for 16 bits
    bounds = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(partition, minlength=count), out=bounds[1:])
    for number in np.flatnonzero(np.diff(bounds)).tolist():
        yield number, order[bounds[number] : bounds[number + 1]]


def _to_arrow(events: EntityEvents, view: ViewSpec) -> pa.RecordBatch:
    """Events as a batch."""
    arrays = {_ENTITY: pa.array(events.entity), _TIME: pa.array(events.event_time_ms)}
    if events.id_hashes is not None:
        arrays[_HASH] = pa.array(events.id_hashes)
    if events.event_ids is not None:
        arrays[_ID] = strings_array(BlobRow.of(events.event_ids), None, pa.binary())
    for column in view_inputs(view).event_columns:
        values = events.columns[column.name]
        if column.type is ValueType.STRING:
            array = strings_array(BlobRow.of(values.values), values.valid, pa.binary())
        else:
            array = pa.array(values.values, mask=None if values.valid is None else ~values.valid)
        arrays[_COLUMN + column.name] = array
    return pa.RecordBatch.from_pydict(arrays)


def _from_arrow(batch: pa.RecordBatch, view: ViewSpec) -> EntityEvents:
    """Events from a batch."""
    columns = {}
    for column in view_inputs(view).event_columns:
        array = batch.column(_COLUMN + column.name)
        valid = None
        if array.null_count:
            valid = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
        if column.type is ValueType.STRING:
            columns[column.name] = ColumnValues(strings(array), valid)
            continue
        numbers = array if valid is None else array.fill_null(0)
        columns[column.name] = ColumnValues(numbers.to_numpy(zero_copy_only=False), valid)
    return EntityEvents(
        batch.column(_ENTITY).to_numpy(),
        np.array(batch.column(_TIME).to_numpy()),
        np.array(batch.column(_HASH).to_numpy()) if _HASH in batch.schema.names else None,
        strings(batch.column(_ID)) if _ID in batch.schema.names else None,
        columns,
    )
