"""Payments in flight: events that a request brings along, for each row one, as tiles beside those of the store.

    given      transactions: event_time 12:00:00.123, amount 12.5, merchant_id 7 ...        columns, a value a row
    checked    types; the keys are those of the row's entities, which stand in where a key is not given
    lifted     for each part of the plan that reads the source, by the rules of the stream

The time of the payment is the read time of its row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from featurestore.core.events import TEXT_BYTES_MAX, BoolArray, ColumnValues, Int64Array
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.errors import InvalidRequest
from featurestore.near_names import suggest
from featurestore.online.answer.selection import LiftedEvents
from featurestore.online.answer.service_plan import EventReader, ServicePlan
from featurestore.wire.entity_key import EntityValue
from featurestore.wire.moments import MILLISECONDS, are_moments, as_ms, not_a_moment

FILLED_LISTS = {
    ValueType.STRING: "strings",
    ValueType.FLOAT64: "doubles",
    ValueType.INT64: "integers",
    ValueType.BOOL: "integers, 0 or 1",
    ValueType.TIMESTAMP: "integers, milliseconds since 1970",
}
"""Where values of each type are sent."""

_INTEGERS: frozenset[type] = frozenset({int, bool})
_FLOATS = _INTEGERS | {float}
_FLAGS = frozenset({0, 1})


@dataclass(frozen=True, slots=True)
class GivenColumn:
    """A column of a request.

    Attributes:
        values: N of one type: str, int or float; none at all where every one is null.
        nulls: empty where no value is null, else N bytes, 1 where it is.
    """

    values: Sequence[str | int | float]
    nulls: bytes = b""


EventColumns = Mapping[str, GivenColumn]
"""Columns of N events by name, event time included."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """The payments of N rows.

    Attributes:
        of_parts: for each stream part of the plan its share; None where no event of its source is given.
        event_time_ms: of each row, and its read time.
        columns: by source, what is read of its events, and their time, as it was sent; N rows each.
    """

    of_parts: tuple[LiftedEvents | None, ...]
    event_time_ms: tuple[int, ...]
    columns: Mapping[str, Mapping[str, ColumnValues]]


def take_events(
    plan: ServicePlan, events: Mapping[str, EventColumns], keys: Sequence[Sequence[EntityValue]], row_count: int
) -> InFlight:
    """Check and lift the payments of a request.

    Args:
        plan: the feature service.
        events: by name of the source; one at least.
        keys: for each join key of the schema, the value of each row.
        row_count: N.

    Raises:
        InvalidRequest: an unknown source or column, a column that is missing, of another type or length, a key that is
            not its row's, or payments of one row at different times.
    """
    readers = [reader for reader in plan.event_readers if reader.source.name in events]
    _check_names(plan, readers, events)
    of_parts: list[LiftedEvents | None] = [None] * len(plan.stream_parts)
    known: tuple[SourceSpec, Int64Array] | None = None
    taken: dict[str, dict[str, ColumnValues]] = {}
    for reader in readers:
        given = _Given(reader, events[reader.source.name], row_count)
        event_time_ms = given.event_time_ms()
        if known is not None and known[1].tolist() != event_time_ms.tolist():
            raise InvalidRequest(
                f'the events of sources "{known[0].name}" and "{reader.source.name}" have different times',
                hint="a row has one read time, which is that of its payment",
            )
        known = known or (reader.source, event_time_ms)
        columns = given.columns({plan.schema.join_keys[index].name: keys[index] for index in reader.keys})
        taken.setdefault(reader.source.name, {}).update(columns)
        taken[reader.source.name][reader.source.event_time_column] = given.event_time
        for index in reader.parts:
            of_parts[index] = plan.stream_parts[index].selection.lift(columns, event_time_ms)
    assert known is not None, "each name in `events` is a source of the plan"
    return InFlight(tuple(of_parts), tuple(known[1].tolist()), taken)


def _check_names(plan: ServicePlan, readers: Sequence[EventReader], events: Mapping[str, EventColumns]) -> None:
    """Sources and columns are there; while a schema is changed, in one of its definitions."""
    for source, columns in events.items():
        mine = [reader for reader in readers if reader.source.name == source]
        if not mine:
            raise InvalidRequest(
                f'feature service "{plan.schema.service}" has no features of source "{source}"',
                hint=suggest(source, sorted({reader.source.name for reader in plan.event_readers})),
            )
        for name in columns:
            if any(name in reader.columns for reader in mine):
                continue
            if any(column.name == name for reader in mine for column in reader.source.computed):
                raise InvalidRequest(
                    f'column "{name}" of source "{source}" is computed from others', hint="leave it out, and send those"
                )
            raise InvalidRequest(f'source "{source}" has no column "{name}"', hint=suggest(name, list(mine[0].columns)))


class _Given:
    """The events of one source.

    Args:
        reader: who takes them.
        given: the columns.
        row_count: N.
    """

    def __init__(self, reader: EventReader, given: EventColumns, row_count: int) -> None:
        self._reader = reader
        self._source = reader.source
        self._columns = reader.columns
        self._given = given
        self._row_count = row_count

    @cached_property
    def event_time(self) -> ColumnValues:
        """When they happened, as it was sent."""
        return self._column(self._source.event_time_column)

    def event_time_ms(self) -> Int64Array:
        """(N,) when they happened."""
        source, name, column = self._source, self._source.event_time_column, self.event_time
        times = np.asarray(column.values, dtype=np.int64)
        if column.valid is not None and not column.valid.all():
            raise InvalidRequest(
                f'column "{name}" of source "{source.name}" is null: an event in flight has a time',
                hint="send it; it is the read time of its row",
            )
        is_in_ms = source.event_time_unit == MILLISECONDS or self._columns[name].type is ValueType.TIMESTAMP
        times_ms = times if is_in_ms else as_ms(times, source.event_time_unit)
        are_sound = are_moments(times_ms)
        if not are_sound.all():
            worst = int(times[~are_sound][0])
            unit = MILLISECONDS if is_in_ms else source.event_time_unit
            raise InvalidRequest(
                f'column "{name}" of source "{source.name}" {not_a_moment(worst, unit)}',
                hint=f"send the time of the event in {unit} since 1970",
            )
        return times_ms

    def columns(self, keys: Mapping[str, Sequence[EntityValue]]) -> dict[str, ColumnValues]:
        """What is read; keys that are given are compared with those of the rows."""
        for name, values in keys.items():
            if name in self._given:
                self._check_key(name, values)
        columns: dict[str, ColumnValues] = {}
        for name in self._reader.read:
            if name in self._given:
                columns[name] = self._column(name)
            elif name in keys:
                columns[name] = _typed(self._columns[name], GivenColumn(keys[name]), self._row_count, self._source)
            elif name == self._source.topic_column and not self._source.more_topics:
                topic = GivenColumn([self._source.topic] * self._row_count)
                columns[name] = _typed(self._columns[name], topic, self._row_count, self._source)
            else:
                raise self._missing(name)
        return columns

    def _column(self, name: str) -> ColumnValues:
        """A column that must be there."""
        if name not in self._given:
            raise self._missing(name)
        return _typed(self._columns[name], self._given[name], self._row_count, self._source)

    def _check_key(self, name: str, values: Sequence[EntityValue]) -> None:
        """The event is one of the row's entities."""
        given = self._given[name]
        self._column(name)  # of the right type and length
        for row, (mine, entity) in enumerate(zip(given.values, values, strict=False)):
            if mine != entity or (given.nulls and given.nulls[row]):
                raise InvalidRequest(
                    f'the event of source "{self._source.name}" in row {row} is of another "{name}" than the row',
                    detail=f"The event has {mine!r}, the row is of {entity!r}.",
                    hint="send the keys of the payment itself, or leave them out of its columns",
                )

    def _missing(self, name: str) -> InvalidRequest:
        """The error for a column that is not sent."""
        return InvalidRequest(
            f'the event in flight of source "{self._source.name}" lacks column "{name}"',
            hint=f"send it as {FILLED_LISTS[self._columns[name].type]}, with nulls where the event has none",
        )


class _Named(NamedTuple):
    """A column, for messages: texts that are made when one is."""

    column: Column
    source: SourceSpec

    def __str__(self) -> str:
        return f'column "{self.column.name}" of source "{self.source.name}"'


def _typed(column: Column, given: GivenColumn, count: int, source: SourceSpec) -> ColumnValues:
    """A column as arrays; null rows hold 0, 0.0 or b""."""
    what = _Named(column, source)
    values, nulls = given.values, given.nulls
    if nulls and len(nulls) != count:
        raise InvalidRequest(f"{what} has {len(nulls)} null marks for {count} rows", hint="send none, or one a row")
    valid = None if not any(nulls) else np.frombuffer(nulls, dtype=np.uint8) == 0
    if not len(values) and valid is not None and not valid.any():
        values = [""] * count if column.type is ValueType.STRING else [0] * count
    if len(values) != count:
        raise InvalidRequest(f"{what} has {len(values)} values for {count} rows", hint="send one for each row")
    if column.type is ValueType.STRING:
        return _texts(what, values, valid)
    return _numbers(what, column.type, values, valid)


def _texts(what: _Named, values: Sequence[object], valid: BoolArray | None) -> ColumnValues:
    """A STRING column."""
    if set(map(type, values)) != {str}:
        raise InvalidRequest(f"{what} must be string", hint="send its values as strings")
    encoded = [value.encode() for value in values if isinstance(value, str)]
    longest = max(map(len, encoded))
    if longest > TEXT_BYTES_MAX:
        row = next(row for row, text in enumerate(encoded) if len(text) > TEXT_BYTES_MAX)
        raise InvalidRequest(
            f"{what} is {len(encoded[row])} bytes long in row {row}, the limit is {TEXT_BYTES_MAX}",
            hint="send what the stream would",
        )
    texts = np.empty(len(encoded), dtype=np.object_)
    texts[:] = encoded
    if valid is not None:
        texts[~valid] = b""
    return ColumnValues(texts, valid)


def _numbers(what: _Named, kind: ValueType, values: Sequence[Any], valid: BoolArray | None) -> ColumnValues:
    """A column of any other type; NaN is null."""
    kinds = set(map(type, values))
    is_float = kind is ValueType.FLOAT64
    if not kinds <= (_FLOATS if is_float else _INTEGERS):
        raise InvalidRequest(f"{what} must be {kind.value}", hint=f"send its values as {FILLED_LISTS[kind]}")
    if kind is ValueType.BOOL and not _FLAGS.issuperset(values):
        raise InvalidRequest(f"{what} must be bool", hint=f"send its values as {FILLED_LISTS[kind]}")
    if not is_float:
        integers = np.array(values, dtype=np.int64)
        if valid is not None:
            integers[~valid] = 0
        return ColumnValues(integers, valid)
    numbers = np.array(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        if np.isinf(numbers).any():
            raise InvalidRequest(f"{what} is infinite", hint="send what the stream would: a number, or null")
        valid = ~np.isnan(numbers) if valid is None else valid & ~np.isnan(numbers)
    if valid is not None:
        numbers[~valid] = 0.0
    return ColumnValues(numbers, valid)
