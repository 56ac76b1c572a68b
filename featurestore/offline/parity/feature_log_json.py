"""Rows of the feature log as JSON, a message each: what a topic holds, and what a file of its messages is read back as.

    {"request_id": "...", "request_row": 0, "service": "fraud_detection", "logged_at_ms": ..., "as_of_ms": ...,
     "entities": {"card_id": "c-1"},
     "views": {"card_activity": {"definition_hash": "...", "event_time_ms": ..., "positions": [["payments", 0, 17]],
                                 "features": {"count_1h": {"value": 3, "type": "int64", "status": 1}, ...}}},
     "request": {"amount": {"value": 12.5, "type": "float64"}}, "events": {"transactions": {"amount": {...}, ...}},
     "shadow_of": ""}

Moments are integer milliseconds, maps are objects; a NaN within a list is null, since JSON has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.core.spec import Column, ValueType
from featurestore.errors import CorruptData, InvalidRequest
from featurestore.offline.parity.feature_log import (
    AS_OF_MS,
    LOG_DATE,
    LOG_TIMESTAMP,
    REQUEST_ID,
    REQUEST_ROW,
    SHADOW_OF,
    STAMP_TYPE,
    LoggedFeature,
    LoggedSource,
    LoggedView,
    LogLayout,
    date_of_ms,
    find_logged_files,
    request_column,
    status_column,
    timestamp_column,
)
from featurestore.offline.parity.log_directory import LogDirectory
from featurestore.offline.training_set.answer_parts import object_array
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES

MESSAGES_SUFFIX = ".jsonl"
"""A file of messages; other places are a feature log's directory."""

_MS_PER_SECOND = 1_000
_US_PER_MS = 1_000


class LoggedCell(msgspec.Struct, frozen=True):
    """A value."""

    value: Any
    type: ValueType
    status: int


class LoggedValue(msgspec.Struct, frozen=True):
    """A value that came with the request."""

    value: Any
    type: ValueType


class LoggedPart(msgspec.Struct, frozen=True):
    """A view's part of a row."""

    definition_hash: str
    event_time_ms: int | None
    positions: list[tuple[str, int, int]] | None
    features: dict[str, LoggedCell]


class LoggedMessage(msgspec.Struct, frozen=True):
    """A row."""

    request_id: str
    request_row: int
    service: str
    logged_at_ms: int
    as_of_ms: int
    entities: dict[str, str | int]
    views: dict[str, LoggedPart]
    request: dict[str, LoggedValue] = {}
    events: dict[str, dict[str, LoggedValue]] = {}
    shadow_of: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(LoggedMessage)


def encode_messages(layout: LogLayout, table: pa.Table) -> Iterator[tuple[str, bytes]]:
    """Request id and message of each row of the log."""
    stamp_of = {feature.view: timestamp_column(feature) for feature in layout.features}
    for row in table.to_pylist(maps_as_pydicts="strict"):
        message = LoggedMessage(
            request_id=row[REQUEST_ID],
            request_row=row[REQUEST_ROW],
            service=layout.service,
            logged_at_ms=_ms(row[LOG_TIMESTAMP]) or 0,
            as_of_ms=row[AS_OF_MS],
            entities={key.name: row[key.name] for key in layout.join_keys},
            views={
                view.name: LoggedPart(
                    view.definition_hash,
                    _ms(row[stamp_of[view.name]]),
                    _positions(row[view.positions_column]),
                    {
                        feature.name: LoggedCell(_plain(row[feature.column]), feature.type, row[status_column(feature)])
                        for feature in layout.features
                        if feature.view == view.name
                    },
                )
                for view in layout.views
            },
            request={
                column.name: LoggedValue(_plain(row[request_column(column)]), column.type) for column in layout.request
            },
            events={
                source.name: {
                    column.name: LoggedValue(_plain(event[column.name]), column.type) for column in source.columns
                }
                for source in layout.events
                if (event := row[source.column]) is not None
            },
            shadow_of=layout.shadow_of,
        )
        yield message.request_id, _encoder.encode(message)


@dataclass(frozen=True)
class LoggedMessages:
    """Messages of one layout; they are read as a file of a feature log is.

    Attributes:
        layout: what they hold.
        messages: rows.
    """

    layout: LogLayout
    messages: list[LoggedMessage] = field(default_factory=list, compare=False)

    def read(self, columns: Sequence[str], *, since_ms: int | None = None, until_ms: int | None = None) -> pa.Table:
        """Some columns of the rows that were logged in [since_ms, until_ms)."""
        kept = [
            message
            for message in self.messages
            if (since_ms is None or message.logged_at_ms >= since_ms)
            and (until_ms is None or message.logged_at_ms < until_ms)
        ]
        arrays = dict(self._arrays(kept))
        wanted = list(dict.fromkeys([*columns, LOG_TIMESTAMP]))
        return pa.table([arrays[name] for name in wanted], names=wanted)

    def _arrays(self, rows: Sequence[LoggedMessage]) -> Iterator[tuple[str, pa.Array]]:
        """All columns."""
        layout = self.layout
        for key in layout.join_keys:
            yield key.name, pa.array([row.entities[key.name] for row in rows], type=ARROW_TYPES[key.type])
        for feature in layout.features:
            cells = [row.views[feature.view].features[feature.name] for row in rows]
            yield feature.column, _values([cell.value for cell in cells], feature.type)
            yield timestamp_column(feature), _stamps([row.views[feature.view].event_time_ms for row in rows])
            yield status_column(feature), pa.array([cell.status for cell in cells], type=pa.int32())
        yield LOG_TIMESTAMP, _stamps([row.logged_at_ms for row in rows])
        yield LOG_DATE, pa.array([date_of_ms(row.logged_at_ms) for row in rows], type=pa.date32())
        yield REQUEST_ID, pa.array([row.request_id for row in rows], type=pa.string())
        yield REQUEST_ROW, pa.array([row.request_row for row in rows], type=pa.int32())
        yield AS_OF_MS, pa.array([row.as_of_ms for row in rows], type=pa.int64())
        for view in layout.views:
            yield view.definition_column, pa.array([view.definition_hash] * len(rows), type=pa.string())
            positions = [row.views[view.name].positions for row in rows]
            kind = layout.schema.field(view.positions_column).type
            named = [None if mine is None else [_named(*one) for one in mine] for mine in positions]
            yield view.positions_column, pa.array(named, type=kind)
        for column in layout.request:
            yield request_column(column), _values([row.request[column.name].value for row in rows], column.type)
        for source in layout.events:
            events = [row.events[source.name] for row in rows]
            values = [_values([event[one.name].value for event in events], one.type) for one in source.columns]
            yield source.column, pa.StructArray.from_arrays(values, fields=list(source.type))
        if layout.shadow_of:
            yield SHADOW_OF, pa.repeat(layout.shadow_of, len(rows))


def message_rows(message: LoggedMessage) -> LoggedMessages:
    """One message, as rows that can be compared."""
    return LoggedMessages(_layout(message), [message])


def decode_messages(lines: Iterable[bytes], *, service: str | None = None) -> list[LoggedMessages]:
    """Messages, a line each, by what they hold.

    Args:
        lines: as they were consumed from the topic, in any order; empty ones are passed over.
        service: only of this feature service.

    Raises:
        CorruptData: a line is no such message.
    """
    found: dict[LogLayout, LoggedMessages] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            message = _decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise CorruptData(f"line {number} is no message of a feature log", detail=str(error)) from error
        if service is None or message.service == service:
            layout = _layout(message)
            found.setdefault(layout, LoggedMessages(layout)).messages.append(message)
    return list(found.values())


def find_message(log: str, request_id: str, *, service: str | None = None, request_row: int = 0) -> LoggedMessage:
    """One row of a feature log.

    Args:
        log: directory or URI of its files, or a file of its messages whose name ends in MESSAGES_SUFFIX.
        request_id: by which request.
        service: only of this feature service; None looks through all.
        request_row: which row of the request.

    Raises:
        InvalidRequest: there is no such row, or no such file.
        CorruptData: a file is not one of a feature log.
        Unavailable: the file system does not answer.
    """
    for message in _candidates(log, request_id, service):
        if (message.request_id, message.request_row) == (request_id, request_row):
            return message
    raise InvalidRequest(
        f'feature log "{log}" has no row {request_row} of request "{request_id}"',
        hint="only a share of the requests is logged, and a row appears when its file is complete",
    )


def _candidates(log: str, request_id: str, service: str | None) -> Iterator[LoggedMessage]:
    """Rows of a request, among others."""
    if log.endswith(MESSAGES_SUFFIX):
        try:
            with open(log, "rb") as lines:
                for rows in decode_messages(lines, service=service):
                    yield from rows.messages
        except OSError as error:
            raise InvalidRequest(f'feature log "{log}" cannot be read', detail=str(error)) from error
        return
    for file in find_logged_files(LogDirectory(log), service=service):
        is_asked = pc.equal(file.read([REQUEST_ID]).column(REQUEST_ID), request_id)
        if pc.any(is_asked).as_py():
            table = file.read(file.layout.schema.names).filter(is_asked)
            yield from (_decoder.decode(content) for _, content in encode_messages(file.layout, table))


def _layout(message: LoggedMessage) -> LogLayout:
    """What a message holds."""
    return LogLayout(
        message.service,
        tuple(
            Column(name, ValueType.STRING if isinstance(value, str) else ValueType.INT64)
            for name, value in message.entities.items()
        ),
        tuple(
            LoggedFeature(view, name, cell.type)
            for view, mine in message.views.items()
            for name, cell in mine.features.items()
        ),
        tuple(LoggedView(name, view.definition_hash) for name, view in message.views.items()),
        tuple(Column(name, value.type) for name, value in message.request.items()),
        tuple(
            LoggedSource(source, tuple(Column(name, value.type) for name, value in event.items()))
            for source, event in message.events.items()
        ),
        message.shadow_of,
    )


def _values(values: list[Any], value_type: ValueType) -> pa.Array:
    """A column of a feature."""
    if value_type is ValueType.FLOAT64_LIST:
        values = [
            None if value is None else [float("nan") if each is None else each for each in value] for value in values
        ]
    if value_type is ValueType.TIMESTAMP:
        return pa.array(values, type=pa.int64()).cast(ARROW_TYPES[value_type])
    return object_array(values, value_type)


def _stamps(moments_ms: Sequence[int | None]) -> pa.Array:
    """Milliseconds as the log's timestamps."""
    moments_us = [None if moment_ms is None else moment_ms * _US_PER_MS for moment_ms in moments_ms]
    return pa.array(moments_us, type=pa.int64()).cast(STAMP_TYPE)


def _named(topic: str, partition: int, next_offset: int) -> dict[str, object]:
    return {"topic": topic, "partition": partition, "next_offset": next_offset}


def _positions(positions: list[dict[str, Any]] | None) -> list[tuple[str, int, int]] | None:
    """Source positions as short lists."""
    if positions is None:
        return None
    return [(one["topic"], one["partition"], one["next_offset"]) for one in positions]


def _plain(value: object) -> object:
    """A value as JSON has it."""
    return _ms(value) if isinstance(value, datetime) else value


def _ms(moment: datetime | None) -> int | None:
    """Milliseconds UTC."""
    return None if moment is None else round(moment.timestamp() * _MS_PER_SECOND)
