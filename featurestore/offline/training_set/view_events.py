"""Rows of a history as events of one view: only those that decide about some label, ready to be lifted.

    rows ── entity asked for? time in reach? ── computed columns, conditions ── the view's own? ──> EntityEvents

It is the same path as that of the stream (`wire.keying`): conditions and computed columns come from `core.inputs`, and
what the stream would send to the dead letters (no entity key, no event id) is left out.

Label rows may be events themselves. Then each answer counts that of its row, as a lookup counts the payment in flight:

    labels     card   event_timestamp   amount   is_fraud
               c-1    12:00:10          12.50    0             an event of "transactions" at 12:00:10, and a label
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.core.events import BlobRow, ColumnValues, Int64Array
from featurestore.core.inputs import ViewInputs, view_inputs
from featurestore.core.point_in_time.rows import EntityEvents, EventsInFlight, hash_history_ids
from featurestore.core.spec import IS_UNDO, Column, SourceSpec, ValueType, ViewSpec
from featurestore.core.tiles.tiles import Blobs, join_blobs
from featurestore.errors import InvalidRequest
from featurestore.errors.near_names import suggest
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES, column_values, strings
from featurestore.offline.training_set.entity_numbers import EntityNumbers
from featurestore.offline.training_set.histories import EVENT_TIME, History
from featurestore.offline.training_set.label_times import event_moments_ms
from featurestore.offline.training_set.plan import Labels
from featurestore.wire.moments import EVENT_TIME_MS_MIN, MILLISECONDS

BLOCK_ROWS = 1 << 20
"""Rows that are looked up at once, if memory allows: Arrow builds a table of the wanted keys for every look-up."""


@dataclass(frozen=True, slots=True)
class LabelReach:
    """Event times that can decide about some label: [from_ms, to_ms)."""

    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class WantedEvents:
    """What a view wants of its source.

    Attributes:
        view: the view.
        numbers: whose events.
        reach: when.
        reads_ids: whether event ids are needed beyond telling repeats.
    """

    view: ViewSpec
    numbers: EntityNumbers
    reach: LabelReach
    reads_ids: bool


@dataclass(frozen=True, slots=True)
class ScannedBlock:
    """A part of a source's rows.

    Attributes:
        rows: how many were read.
        events: those of each view, in the order of the views.
    """

    rows: int
    events: tuple[EntityEvents, ...]


def reach_of(view: ViewSpec, first_ms: int, last_ms: int) -> LabelReach:
    """Event times that can decide about labels of [first_ms, last_ms]."""
    from_ms = EVENT_TIME_MS_MIN
    windows = [feature.window for feature in view.features]
    if all(window.length_ms is not None for window in windows):
        # A repeat is told by its original, which may lie a horizon before it.
        reach_ms = max(window.reach_ms for window in windows) + view.source.dedup_horizon_ms
        from_ms = max(first_ms - reach_ms, EVENT_TIME_MS_MIN)
    return LabelReach(from_ms, last_ms)


def scan_events(history: History, wanted: Sequence[WantedEvents], block_rows: int) -> Iterator[ScannedBlock]:
    """Events of some views of one source, read once, in blocks and in order of arrival.

    Args:
        history: where they are.
        wanted: by whom; all of one source.
        block_rows: rows of a block, about.

    Raises:
        InvalidRequest: the history lacks a column, if it can tell before it is read.
    """
    source = wanted[0].view.source
    id_column = source.id_column
    names = [name for one in wanted for name in view_inputs(one.view).payload_columns]
    names += [id_column.name] if id_column is not None else []
    batches = history.scan(
        source,
        list(dict.fromkeys(names)),
        from_ms=min(one.reach.from_ms for one in wanted),
        to_ms=max(one.reach.to_ms for one in wanted),
    )
    return (
        ScannedBlock(block.num_rows, tuple(_events(block, one, id_column) for one in wanted))
        for block in _blocks(batches, block_rows)
    )


def events_of_labels(view: ViewSpec, labels: Labels) -> EventsInFlight | None:
    """The events that label rows are to a view; None where they are those of no source, or of another one.

    Raises:
        InvalidRequest: a column is missing or of another type, or an event has another time than its row.
    """
    source = view.source
    if source.name not in labels.event_sources:
        return None
    table = labels.table
    _check_times(source, labels)
    # Keys are columns of the table whatever is read of an event.
    inputs = view_inputs(view)
    columns: dict[str, ColumnValues] = {}
    for name in inputs.payload_columns:
        columns[name] = column_values(_label_column(inputs, name, labels), inputs.column(name))
    inputs.compute(columns, table.num_rows)
    selected = inputs.selected(columns, table.num_rows)
    is_event = labels.is_timed if selected is None else labels.is_timed & selected
    return EventsInFlight(is_event, {column.name: columns[column.name] for column in inputs.event_columns})


def joined(blocks: Sequence[EntityEvents], view: ViewSpec) -> EntityEvents:
    """All rows of some blocks of a view, in their order."""
    if len(blocks) == 1:
        return blocks[0]
    if not blocks:
        none = np.empty(0, dtype=np.int64)
        columns = {column.name: _no_values(column) for column in view_inputs(view).event_columns}
        return EntityEvents(none, none, none, BlobRow(b"", none, none), columns)
    hashes = [block.id_hashes for block in blocks if block.id_hashes is not None] or None
    ids = None
    if blocks[0].event_ids is not None:
        ids = _join_strings([BlobRow.of(block.event_ids) for block in blocks if block.event_ids is not None])
    return EntityEvents(
        np.concatenate([block.entity for block in blocks]),
        np.concatenate([block.event_time_ms for block in blocks]),
        None if hashes is None else np.concatenate(hashes),
        ids,
        {name: _join_columns([block.columns[name] for block in blocks]) for name in blocks[0].columns},
    )


def size_bytes(events: EntityEvents) -> int:
    """Memory that the events' columns take."""
    size = events.entity.nbytes + events.event_time_ms.nbytes
    size += 0 if events.id_hashes is None else events.id_hashes.nbytes
    columns = [*events.columns.values(), *([ColumnValues(events.event_ids)] if events.event_ids is not None else [])]
    for column in columns:
        values = column.values
        size += len(values.buffer) + 16 * len(values) if isinstance(values, BlobRow) else values.nbytes
        size += 0 if column.valid is None else column.valid.nbytes
    return size


def _blocks(batches: Iterator[pa.RecordBatch], block_rows: int) -> Iterator[pa.Table]:
    """Batches put together until they are worth a look-up."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= block_rows:
            yield pa.Table.from_batches(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _events(block: pa.Table, wanted: WantedEvents, id_column: Column | None) -> EntityEvents:
    """The rows of a block that are the view's and that somebody asks for."""
    reach = wanted.reach
    time_ms = np.array(block.column(EVENT_TIME).to_numpy(), dtype=np.int64)  # a copy: Arrow is read-only
    entity = wanted.numbers.of_events(block)
    is_wanted = (entity >= 0) & (time_ms >= reach.from_ms) & (time_ms < reach.to_ms)
    if id_column is not None and block.column(id_column.name).null_count:
        is_wanted &= np.asarray(block.column(id_column.name).is_valid().to_numpy(), dtype=np.bool_)
    if not is_wanted.all():
        rows = np.flatnonzero(is_wanted)
        block = block.take(pa.array(rows))
        time_ms, entity = time_ms[rows], entity[rows]
    inputs = view_inputs(wanted.view)
    columns: dict[str, ColumnValues] = {}
    for name in inputs.payload_columns:
        columns[name] = column_values(_whole(block.column(name)), inputs.column(name))
    inputs.compute(columns, len(entity))
    hashes, ids = None, None
    if id_column is not None:
        hashes, ids = _ids(_whole(block.column(id_column.name)), id_column, keeps_ids=wanted.reads_ids)
    chosen = {each.name: columns[each.name] for each in inputs.event_columns}
    events = EntityEvents(entity, time_ms, hashes, ids, chosen)
    is_its = inputs.selected(columns, len(entity))
    return events if is_its is None or is_its.all() else events.take(np.flatnonzero(is_its))


def _ids(array: pa.Array, column: Column, *, keeps_ids: bool) -> tuple[Int64Array, BlobRow | None]:
    """Hashes of event ids, and their canonical bytes if wanted: the text itself, or decimal digits."""
    if column.type is ValueType.STRING:
        texts = strings(array.cast(pa.string()))
        return hash_history_ids(texts), texts if keeps_ids else None
    numbers = array.cast(pa.int64())
    return np.array(numbers.to_numpy()), strings(numbers.cast(pa.string())) if keeps_ids else None


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)


def _no_values(column: Column) -> ColumnValues:
    """A column of no rows."""
    none: Int64Array = np.empty(0, dtype=np.int64)
    if column.type is ValueType.STRING:
        return ColumnValues(BlobRow(b"", none, none))
    return ColumnValues(none.astype(np.float64) if column.type is ValueType.FLOAT64 else none)


def _join_columns(columns: Sequence[ColumnValues]) -> ColumnValues:
    """One column of all rows."""
    valid = None
    if any(column.valid is not None for column in columns):
        valid = np.concatenate(
            [np.ones(len(each.values), np.bool_) if each.valid is None else each.valid for each in columns]
        )
    if isinstance(columns[0].values, BlobRow):
        return ColumnValues(_join_strings([BlobRow.of(column.values) for column in columns]), valid)
    return ColumnValues(np.concatenate([np.asarray(column.values) for column in columns]), valid)


def _join_strings(rows: Sequence[BlobRow]) -> BlobRow:
    """All strings in one buffer."""
    blobs = join_blobs([Blobs(row.buffer, row.begins[np.newaxis], row.ends[np.newaxis]) for row in rows])
    return blobs.row(0)


def _check_times(source: SourceSpec, labels: Labels) -> None:
    """The time of an event is the label time of its row."""
    name = source.event_time_column
    if name not in labels.table.column_names or name == labels.timestamp_column:
        return
    times_ms, is_time = event_moments_ms(labels.table.column(name), name, source.event_time_unit)
    is_other = labels.is_timed & (~is_time | (times_ms != labels.as_of_ms))
    if is_other.any():
        row = int(np.flatnonzero(is_other)[0])
        found = f"is of {times_ms[row]}" if is_time[row] else "has no time"
        raise InvalidRequest(
            f'row {row} has the label time {labels.as_of_ms[row]}, but its event of source "{source.name}" {found}',
            hint=f'take the label times from the events: timestamp column "{name}"',
        )


def _label_column(inputs: ViewInputs, name: str, labels: Labels) -> pa.Array:
    """A column of the events."""
    table, source = labels.table, inputs.source
    if name in table.column_names:
        return table.column(name).combine_chunks()
    if name == source.topic_column and not source.more_topics:
        return pa.array([source.topic] * table.num_rows, pa.string())
    if name == IS_UNDO and source.changes:
        return pa.array([False] * table.num_rows)
    kind = inputs.column(name).type
    if name == source.event_time_column and (kind is ValueType.TIMESTAMP or source.event_time_unit == MILLISECONDS):
        times = pa.array(labels.as_of_ms, mask=~labels.is_timed)
        return times.cast(ARROW_TYPES[kind])
    raise InvalidRequest(
        f'the entities have no column "{name}", which events of source "{source.name}" have',
        hint=suggest(name, table.column_names),
    )
