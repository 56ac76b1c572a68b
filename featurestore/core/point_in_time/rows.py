"""Events and moments of many entities, cut into chunks of whole entities, sorted, each event once.

    events   arrival order ── by time ── by entity ──> rows [bounds[e], bounds[e + 1]) are entity e's, ascending
    moments  likewise
    chunk    entities e .. f: some hundred thousand rows, so that what is computed from them stays in the caches

Both sorts are stable, so events of one moment stay in arrival order until ids decide. Time: O(N log N), but O(N) where
events arrive almost in order of time, as they do in an event log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.core.compiled import BYTES, FLAGS, INT, INTS, compiled_for_bulk
from featurestore.core.events import BlobRow, BoolArray, ColumnValues, Int64Array, ObjectArray
from featurestore.core.tiles.parts import Array

_MOVES_A_ROW = 8
"""Rows that a row may have to pass, on average, for insertion to be the way to sort: events come nearly in order."""

_LOOKS_A_ROW = 16
"""Earlier rows that a row may have to be compared with, on average, before a hash table is the way to find repeats."""

CHUNK_ROWS = 1 << 15
"""Events and moments of a chunk, unless a single entity has more: columns of that size stay in the cache."""


@dataclass(frozen=True, slots=True)
class EntityEvents:
    """N events of many entities.

    Attributes:
        entity: (N,) number of the entity, 0 to E - 1.
        event_time_ms: (N,) event time.
        id_hashes: (N,) one number for each event id, see `hash_history_ids`; None where nothing is a repeat.
        event_ids: (N,) canonical bytes; None where the source declares no id, or no part is lifted from ids.
        columns: the view's event columns, N rows each.
    """

    entity: Int64Array
    event_time_ms: Int64Array
    id_hashes: Int64Array | None
    event_ids: ObjectArray | BlobRow | None
    columns: Mapping[str, ColumnValues]

    def take(self, rows: Int64Array) -> EntityEvents:
        """The given rows; byte strings are copied, so that a part of the events does not hold the bytes of all."""
        hashes = None if self.id_hashes is None else self.id_hashes[rows]
        ids, columns = self.take_columns(rows)
        return EntityEvents(self.entity[rows], self.event_time_ms[rows], hashes, ids, columns)

    def take_columns(self, rows: Int64Array) -> tuple[BlobRow | None, Mapping[str, ColumnValues]]:
        """Event ids and columns of the given rows."""
        ids = None if self.event_ids is None else _take_strings(BlobRow.of(self.event_ids), rows)
        return ids, {name: _take_column(column, rows) for name, column in self.columns.items()}


@dataclass(frozen=True, slots=True)
class Moments:
    """R moments at which entities are asked for.

    Attributes:
        entity: (R,) number of the entity.
        as_of_ms: (R,) read time, exclusive.
    """

    entity: Int64Array
    as_of_ms: Int64Array

    @property
    def count(self) -> int:
        """R."""
        return len(self.entity)


@dataclass(frozen=True, slots=True)
class EventsInFlight:
    """For each of R moments an event of its entity at that time, which its own answer counts and no other.

    Attributes:
        is_event: (R,) False where there is none.
        columns: the view's event columns, R rows each.
    """

    is_event: BoolArray
    columns: Mapping[str, ColumnValues]

    def take(self, rows: Int64Array) -> EventsInFlight:
        """Those of some moments."""
        return EventsInFlight(
            self.is_event[rows], {name: _take_column(column, rows) for name, column in self.columns.items()}
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some entities: their events and moments.

    Attributes:
        events: all events, of this chunk and others.
        event_rows: this chunk's, ascending by (entity, event time, arrival).
        event_entity, event_time_ms: theirs.
        moments: this chunk's, ascending by (entity, read time).
        moment_rows: where they stand among all moments.
        moments_before: number of moments of all chunks before.
    """

    events: EntityEvents
    event_rows: Int64Array
    event_entity: Int64Array
    event_time_ms: Int64Array
    moments: Moments
    moment_rows: Int64Array
    moments_before: int

    def sorted_events(self, horizon_ms: int) -> EntityEvents:
        """The chunk's events, each id once within the horizon (event time); 0 keeps all."""
        events, rows, entity, time_ms = self.events, self.event_rows, self.event_entity, self.event_time_ms
        if horizon_ms > 0 and events.id_hashes is not None and len(rows):
            is_kept = _first_of_sorted_ids(events.id_hashes[rows], entity, time_ms, horizon_ms)
            if not is_kept.all():
                rows, entity, time_ms = rows[is_kept], entity[is_kept], time_ms[is_kept]
        ids, columns = events.take_columns(rows)
        return EntityEvents(entity, time_ms, None, ids, columns)


def chunks(
    events: EntityEvents,
    moments: Moments,
    entity_count: int,
    rows_max: int = CHUNK_ROWS,
    threads: Executor | None = None,
) -> Iterator[Chunk]:
    """Cut into chunks of whole entities that somebody asks for.

    Args:
        events: any order; of events that tie in time, the earlier ones arrived first.
        moments: any order.
        entity_count: E.
        rows_max: events and moments of a chunk, unless a single entity has more.
        threads: sort moments beside events.
    """
    pending = None
    if threads is not None:
        pending = threads.submit(_grouped, moments.entity, moments.as_of_ms, entity_count)
    mine = _grouped(events.entity, events.event_time_ms, entity_count)
    if pending is None or pending.cancel():  # the threads have other things to do
        asks = _grouped(moments.entity, moments.as_of_ms, entity_count)
    else:
        asks = pending.result()
    weight = mine.bounds + asks.bounds
    begin = 0
    while begin < entity_count:
        end = int(np.searchsorted(weight, weight[begin] + rows_max, side="right")) - 1
        end = min(max(end, begin + 1), entity_count)
        asked = asks.span(begin, end)
        if asked.stop > asked.start:
            rows = mine.span(begin, end)
            yield Chunk(
                events,
                mine.order[rows],
                mine.entities(begin, end),
                mine.time_ms[rows],
                Moments(asks.entities(begin, end), asks.time_ms[asked]),
                asks.order[asked],
                asked.start,
            )
        begin = end


def first_of_ids(events: EntityEvents, rows: Int64Array, horizon_ms: int) -> BoolArray:
    """(N,) True for events that count: those whose entity has no earlier event of the same id within the horizon.

    "Earlier" is event time, then arrival. What is more than a horizon before an event never decides about it, so a
    part of the history that begins a horizon early gives the same answer as all of it.

    Args:
        events: events with ids.
        rows: (N,) which of them, ascending by (entity, event time, arrival).
        horizon_ms: how long an id is remembered, event time.
    """
    assert events.id_hashes is not None, "a source with a horizon declares ids"
    return _first_of_sorted_ids(events.id_hashes[rows], events.entity[rows], events.event_time_ms[rows], horizon_ms)


def hash_history_ids(ids: BlobRow) -> Int64Array:
    """(N,) 64-bit hashes of event ids (FNV-1a, finished as MurmurHash3 is).

    Only ids of one entity within one horizon are compared: two different ones of a million are taken for one with a
    chance of 3e-8.
    """
    hashes = np.empty(len(ids), dtype=np.int64)
    begins, ends = np.ascontiguousarray(ids.begins), np.ascontiguousarray(ids.ends)
    _hash(np.frombuffer(ids.buffer, dtype=np.uint8), begins, ends, hashes)
    return hashes


def _first_of_sorted_ids(hashes: Int64Array, entity: Int64Array, time_ms: Int64Array, horizon_ms: int) -> BoolArray:
    """`first_of_ids` of rows that are in order."""
    is_kept = np.ones(len(hashes), dtype=np.uint8)
    if not _mark_near_repeats(hashes, entity, time_ms, horizon_ms, _LOOKS_A_ROW * len(hashes), is_kept):
        slots = np.full(1 << max(4, int(2 * len(hashes)).bit_length()), -1, dtype=np.int64)
        _mark_repeats(hashes, entity, time_ms, horizon_ms, slots, is_kept)
    return is_kept.view(np.bool_)


@dataclass(frozen=True, slots=True)
class _Grouped:
    """N rows by (entity, time), stable.

    Attributes:
        order: (N,) the rows.
        time_ms: (N,) their times.
        bounds: (E + 1,) where each entity's begin.
    """

    order: Int64Array
    time_ms: Int64Array
    bounds: Int64Array

    def span(self, begin: int, end: int) -> slice:
        """Places of the entities [begin, end)."""
        return slice(int(self.bounds[begin]), int(self.bounds[end]))

    def entities(self, begin: int, end: int) -> Int64Array:
        """Their numbers, one a row."""
        return np.repeat(np.arange(begin, end, dtype=np.int64), np.diff(self.bounds[begin : end + 1]))


def _grouped(entity: Int64Array, time_ms: Int64Array, entity_count: int) -> _Grouped:
    """Rows by (entity, time)."""
    order, times = np.empty(len(entity), dtype=np.int64), np.empty(len(entity), dtype=np.int64)
    bounds = np.zeros(entity_count + 1, dtype=np.int64)
    _count(entity, bounds)
    _group(entity, time_ms, np.empty(0, dtype=np.int64), bounds[:-1].copy(), order, times)
    if not _settle(bounds, order, times, _MOVES_A_ROW * len(order)):
        _group(entity, time_ms, time_ms.argsort(kind="stable"), bounds[:-1].copy(), order, times)
    return _Grouped(order, times, bounds)


def _take_column(column: ColumnValues, rows: Int64Array) -> ColumnValues:
    """Some rows of a column."""
    if isinstance(column.values, BlobRow):
        valid = None if column.valid is None else column.valid[rows]
        return ColumnValues(_take_strings(column.values, rows), valid)
    return column.take(rows)


def _take_strings(strings: BlobRow, rows: Int64Array) -> BlobRow:
    """Some strings, in a buffer of their own."""
    begins, ends = np.ascontiguousarray(strings.begins), np.ascontiguousarray(strings.ends)
    spans = np.empty(len(rows) + 1, dtype=np.int64)
    out = np.empty(_measure(begins, ends, rows, spans), dtype=np.uint8)
    _copy_spans(np.frombuffer(strings.buffer, dtype=np.uint8), begins, rows, spans, out)
    return BlobRow(out.tobytes(), spans[:-1], spans[1:])


@compiled_for_bulk(INT, INTS, INTS)
def _count(entity: Int64Array, bounds: Int64Array) -> int:
    """Where the rows of each entity begin among all, by entity: bounds (E + 1,), all 0 before."""
    for row in range(len(entity)):
        bounds[entity[row] + 1] += 1
    for index in range(1, len(bounds)):
        bounds[index] += bounds[index - 1]
    return 0


@compiled_for_bulk(INT, INTS, INTS, INTS, INTS, INTS, INTS)
def _group(
    entity: Int64Array, time_ms: Int64Array, rows: Int64Array, cursor: Int64Array, order: Int64Array, times: Int64Array
) -> int:
    """Counting sort: each row goes to its entity's next place. `rows` is their order, empty for 0, 1, 2 ..."""
    for index in range(len(order)):
        row = rows[index] if len(rows) else index
        place = cursor[entity[row]]
        order[place] = row
        times[place] = time_ms[row]
        cursor[entity[row]] = place + 1
    return 0


@compiled_for_bulk(INT, INTS, INTS, INTS, INT)
def _settle(bounds: Int64Array, order: Int64Array, times: Int64Array, moves_max: int) -> int:
    """Sort each entity's rows by time, by insertion; 0 when that takes too many moves, 1 when it is done."""
    moves = 0
    for number in range(len(bounds) - 1):
        begin = bounds[number]
        for index in range(begin + 1, bounds[number + 1]):
            place, time = index, times[index]
            if times[index - 1] <= time:
                continue
            row = order[index]
            while place > begin and times[place - 1] > time:
                order[place], times[place] = order[place - 1], times[place - 1]
                place -= 1
            order[place], times[place] = row, time
            moves += index - place
            if moves > moves_max:
                return 0
    return 1


@compiled_for_bulk(INT, INTS, INTS, INTS, INTS)
def _measure(begins: Int64Array, ends: Int64Array, rows: Int64Array, spans: Int64Array) -> int:
    """Where the strings of some rows go, one after another: spans (N + 1,); returns their size."""
    size: Any = np.int64(0)
    for index in range(len(rows)):
        spans[index] = size
        size += ends[rows[index]] - begins[rows[index]]
    spans[len(rows)] = size
    return int(size)


@compiled_for_bulk(INT, BYTES, INTS, INTS, INTS, FLAGS)
def _copy_spans(buffer: Array, begins: Int64Array, rows: Int64Array, spans: Int64Array, out: Array) -> int:
    """The strings of some rows to their spans."""
    for index in range(len(rows)):
        shift = begins[rows[index]] - spans[index]
        for at in range(spans[index], spans[index + 1]):
            out[at] = buffer[at + shift]
    return 0


@compiled_for_bulk(INT, BYTES, INTS, INTS, INTS)
def _hash(buffer: Array, begins: Int64Array, ends: Int64Array, hashes: Int64Array) -> int:
    """One number a string."""
    for row in range(len(begins)):
        hashed = np.uint64(14695981039346656037)
        for at in range(begins[row], ends[row]):
            hashed = (hashed ^ np.uint64(buffer[at])) * np.uint64(1099511628211)
        hashed = (hashed ^ (hashed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        hashed = (hashed ^ (hashed >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        hashes[row] = np.int64(hashed ^ (hashed >> np.uint64(33)))
    return 0


@compiled_for_bulk(INT, INTS, INTS, INTS, INT, INT, FLAGS)
def _mark_near_repeats(
    hashes: Int64Array, entity: Int64Array, time_ms: Int64Array, horizon_ms: int, looks_max: int, is_kept: Array
) -> int:
    """Compare each row with all of its horizon; 0 when that takes too many looks, 1 when it is done."""
    looks = 0
    for index in range(len(hashes)):
        known = index - 1
        while known >= 0 and entity[known] == entity[index] and time_ms[index] - time_ms[known] <= horizon_ms:
            if hashes[known] == hashes[index]:
                is_kept[index] = 0
                break
            known -= 1
        looks += index - known
        if looks > looks_max:
            return 0
    return 1


@compiled_for_bulk(INT, INTS, INTS, INTS, INT, INTS, FLAGS)
def _mark_repeats(
    hashes: Int64Array, entity: Int64Array, time_ms: Int64Array, horizon_ms: int, slots: Int64Array, is_kept: Array
) -> int:
    """Open addressing, linear probing, at most half full; a slot holds the last row of its id."""
    mask = len(slots) - 1
    for index in range(len(hashes)):
        # Integer ids are their own hashes, so they are spread here; entities too have the same ids.
        spread = np.uint64(hashes[index] + entity[index]) * np.uint64(0x9E3779B97F4A7C15)
        slot = np.int64((spread >> np.uint64(20)) & np.uint64(mask))
        while True:
            known = slots[slot]
            if known < 0:
                slots[slot] = index
                break
            if hashes[known] == hashes[index] and entity[known] == entity[index]:
                if time_ms[index] - time_ms[known] <= horizon_ms:
                    is_kept[index] = 0
                slots[slot] = index
                break
            slot = (slot + 1) & mask
    return 0
