"""Payloads of an event source to columns.

    RawBatch (bytes, one record a payload) -> EventDecoder -> DecodedBatch (EventBatch, DeadLetters)

A reader of the source's format makes columns of the payloads (`wire.formats`); here they become events, which have a
time and an id that can be meant. No float that leaves here is NaN or infinite.

The event time is an ISO 8601 text, or an integer of the unit that the source declares. An integer that cannot be meant
as a moment in that unit (seconds where milliseconds are declared) makes its record a dead letter that says so.

A record that cannot be used becomes a DeadLetter: a value, not an error. It is missing from the columns, and stays
inside [from_offset, next_offset), so a checkpoint can pass it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featurestore.core.events import BlobRow, ColumnValues, EventBatch, Int64Array, ObjectArray
from featurestore.core.point_in_time.as_of_table import NoTables, Tables
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.errors import InvalidRequest
from featurestore.wire.formats.avro.reader import AvroReader
from featurestore.wire.formats.columns import (
    NoSchemas,
    PayloadReader,
    ReadColumns,
    Schemas,
    objects,
    wanted_columns,
)
from featurestore.wire.formats.json_objects import JsonReader
from featurestore.wire.formats.protobuf.reader import ProtobufReader
from featurestore.wire.moments import (
    EVENT_TIME_MS_MAX,
    EVENT_TIME_MS_MIN,
    MILLISECONDS,
    are_moments,
    as_ms,
    not_a_moment,
)


class DeadLetterReason(enum.StrEnum):
    """Why a record was not folded; a closed set, so that it can label a metric."""

    UNDECODABLE = "undecodable"
    MISSING_EVENT_TIME = "missing_event_time"
    EVENT_TIME_OUT_OF_RANGE = "event_time_out_of_range"
    TOO_FAR_IN_FUTURE = "too_far_in_future"
    MISSING_EVENT_ID = "missing_event_id"
    UNUSABLE_CHANGE = "unusable_change"
    MISSING_JOIN_KEY = "missing_join_key"
    KEY_TOO_LONG = "key_too_long"
    BEYOND_RETENTION = "beyond_retention"
    EXPECTATION_FAILED = "expectation_failed"


@dataclass(frozen=True, slots=True)
class RawBatch:
    """N payloads as read from one source partition, in offset order.

    Attributes:
        topic: topic (or log) name.
        partition: partition number.
        from_offset: first offset of the read, inclusive; where the log begins, for one that begins with the oldest.
        next_offset: where the next read begins.
        offsets: (N,) offset of each payload, ascending, within [from_offset, next_offset).
        payloads: N payloads; b"" for a record without a value.
        written_ms: when the first of them was written, by the log's own word; None where it has none.
    """

    topic: str
    partition: int
    from_offset: int
    next_offset: int
    offsets: Int64Array
    payloads: Sequence[bytes]
    written_ms: int | None = None


def without_tombstones(raw: RawBatch) -> RawBatch:
    """The records that have a value: of a table's topic, one without says nothing of when."""
    if all(raw.payloads):
        return raw
    rows = [row for row, payload in enumerate(raw.payloads) if payload]
    return replace(raw, offsets=raw.offsets[rows], payloads=[raw.payloads[row] for row in rows])


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was not folded, and why.

    Attributes:
        reason: one of a closed set.
        detail: what was wrong with this very record.
        topic, partition, offset: its position; unique together with `view`, so repeats can be told apart.
        payload: the original bytes.
        view: the only view that refused it; None when no view could use it.
    """

    reason: DeadLetterReason
    detail: str
    topic: str
    partition: int
    offset: int
    payload: bytes
    view: str | None = None


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """What became of a RawBatch: the usable rows, and the letters of all others, by offset."""

    events: EventBatch
    dead_letters: tuple[DeadLetter, ...]


class EventDecoder:
    """Decodes the records of one topic of a source.

    Args:
        source: the schema, and which columns are event time and event id; one of `SourceSpec.per_topic`.
        columns: names of the columns that views read (join keys included); event time and id are added.
        schemas: of the source's registry, where it has one.
        tables: that its events are enriched from.

    Raises:
        InvalidRequest: a column is not in the source's schema.
    """

    def __init__(
        self,
        source: SourceSpec,
        columns: Iterable[str],
        schemas: Schemas | None = None,
        tables: Tables | None = None,
    ) -> None:
        self._source = source
        names = tuple(dict.fromkeys(columns))
        self._enrichments, self._tables = source.enriched_by(names), tables or NoTables()
        self._columns = tuple(_column_of(source, name) for name in source.stored(names))
        self._event_time = _column_of(source, source.event_time_column)
        self._event_id = None if source.event_id_column is None else _column_of(source, source.event_id_column)
        named = [column.name for column in (*self._columns, self._event_time, self._event_id) if column]
        of_payload = [name for name in named if name not in source.generated]
        self._reader = _reader(source, of_payload, schemas or NoSchemas())

    def decode(self, raw: RawBatch, *, now_ms: int) -> DecodedBatch:
        """Columns of the usable records, dead letters of the others.

        Args:
            raw: N payloads.
            now_ms: processing time, for events dated too far ahead.

        Raises:
            SourceUnavailable: the schema registry does not answer, or that has a table that is read.
        """
        return self.events_of(raw, self.read(raw.payloads), now_ms=now_ms)

    def read(self, payloads: Sequence[bytes]) -> ReadColumns:
        """The columns of some payloads, as they are given."""
        return self._reader.read(payloads)

    def times_of(self, read: ReadColumns) -> ColumnValues:
        """The event times of what was read, in milliseconds."""
        return self._in_ms(read.columns[self._event_time.name])

    def events_of(self, raw: RawBatch, read: ReadColumns, *, now_ms: int) -> DecodedBatch:
        """As `decode`, of payloads that were read.

        Args:
            raw: N payloads.
            read: what is in them.
            now_ms: as of `decode`.
        """
        refused = {row: (DeadLetterReason.UNDECODABLE, detail) for row, detail in read.refused.items()}
        event_time = self.times_of(read)
        self._refuse_bad_times(event_time, read, refused, now_ms)
        event_ids = None if self._event_id is None else self._ids(read, refused)
        rows, columns = read.rows, {column.name: self._values(read, column) for column in self._columns}
        if refused:
            kept = np.fromiter((row not in refused for row in rows.tolist()), dtype=np.bool_, count=len(rows))
            rows, event_time = rows[kept], event_time.take(kept)
            columns = {name: column.take(kept) for name, column in columns.items()}
            event_ids = None if event_ids is None else event_ids[kept]
        times_ms = _times_of(event_time)
        for one in self._enrichments:
            columns.update(self._tables.columns_at(self._source.name, one, columns[one.on], times_ms))
        events = EventBatch(
            topic=raw.topic,
            partition=raw.partition,
            from_offset=raw.from_offset,
            next_offset=raw.next_offset,
            offsets=raw.offsets[rows],
            event_time_ms=times_ms,
            event_ids=event_ids,
            columns=columns,
        )
        letters = tuple(_letter(raw, row, *refused[row]) for row in sorted(refused))
        assert len(letters) + len(events.offsets) == len(raw.payloads), "a record is neither kept nor refused"
        return DecodedBatch(events, letters)

    def _in_ms(self, event_time: ColumnValues) -> ColumnValues:
        """The event time as milliseconds: what is of type TIMESTAMP is that already."""
        if self._event_time.type is ValueType.TIMESTAMP or self._source.event_time_unit == MILLISECONDS:
            return event_time
        return ColumnValues(as_ms(_times_of(event_time), self._source.event_time_unit), event_time.valid)

    def _refuse_bad_times(
        self,
        event_time: ColumnValues,
        read: ReadColumns,
        refused: dict[int, tuple[DeadLetterReason, str]],
        now_ms: int,
    ) -> None:
        """Refuse records whose event time is null, absurd, or further ahead of `now_ms` than the source allows."""
        times_ms, name = _times_of(event_time), self._event_time.name
        if event_time.valid is not None:
            for row in read.rows[~event_time.valid].tolist():
                refused.setdefault(row, (DeadLetterReason.MISSING_EVENT_TIME, f"{name} is null or absent"))
        latest_ms = min(now_ms + self._source.max_future_ms, EVENT_TIME_MS_MAX)
        for index in np.flatnonzero(~are_moments(times_ms) | (times_ms > latest_ms)).tolist():
            time_ms, given = int(times_ms[index]), read.given(name, index)
            if isinstance(given, int) and not are_moments(times_ms[index : index + 1])[0]:
                reason = DeadLetterReason.EVENT_TIME_OUT_OF_RANGE
                detail = f"{name} {not_a_moment(given, self._source.event_time_unit)}"
            elif EVENT_TIME_MS_MIN <= time_ms <= latest_ms:
                continue  # a text may say what no integer can mean
            elif EVENT_TIME_MS_MIN <= time_ms <= EVENT_TIME_MS_MAX:
                reason = DeadLetterReason.TOO_FAR_IN_FUTURE
                detail = f"{name} is {time_ms - now_ms} ms ahead of the clock, {self._source.max_future_ms} allowed"
            else:
                reason = DeadLetterReason.EVENT_TIME_OUT_OF_RANGE
                detail = f"{name} is {time_ms} ms, outside the years 1 to 9999"
            refused.setdefault(int(read.rows[index]), (reason, detail))

    def _ids(self, read: ReadColumns, refused: dict[int, tuple[DeadLetterReason, str]]) -> ObjectArray:
        """Canonical bytes of the event ids; a null id refuses its record, it could not be told from a duplicate."""
        assert self._event_id is not None
        ids = self._values(read, self._event_id)
        if ids.valid is not None:
            for row in read.rows[~ids.valid].tolist():
                detail = f"{self._event_id.name} is null or absent"
                refused.setdefault(row, (DeadLetterReason.MISSING_EVENT_ID, detail))
        assert not isinstance(ids.values, BlobRow), "decoded columns are arrays"
        if self._event_id.type is ValueType.STRING:
            return objects(ids.values.tolist())
        return objects([b"%d" % value for value in ids.values.tolist()])

    def _values(self, read: ReadColumns, column: Column) -> ColumnValues:
        """One column, as core.events describes it."""
        if column.name == self._source.topic_column:
            return ColumnValues(objects([self._source.topic.encode()] * len(read.rows)))
        return read.columns[column.name]


def _reader(source: SourceSpec, names: Sequence[str], schemas: Schemas) -> PayloadReader:
    """What reads some columns of a source's format."""
    columns = wanted_columns(source, names)
    if source.format == "avro":
        return AvroReader(columns, schemas)
    if source.format == "protobuf":
        return ProtobufReader(columns, schemas)
    return JsonReader(columns, has_header=source.format == "json_schema")


def _column_of(source: SourceSpec, name: str) -> Column:
    """The schema's column of that name."""
    column = source.column(name)
    if column is None:
        raise InvalidRequest(
            f'source "{source.name}" has no column "{name}"',
            hint="columns are: " + ", ".join(column.name for column in source.columns),
        )
    return column


def _letter(raw: RawBatch, row: int, reason: DeadLetterReason, detail: str) -> DeadLetter:
    """The dead letter of one row that no view can use."""
    return DeadLetter(reason, detail, raw.topic, raw.partition, int(raw.offsets[row]), raw.payloads[row])


def _times_of(column: ColumnValues) -> Int64Array:
    """(N,) ms of the event-time column."""
    assert not isinstance(column.values, BlobRow), "decoded columns are arrays"
    return column.values.astype(np.int64, copy=False)
