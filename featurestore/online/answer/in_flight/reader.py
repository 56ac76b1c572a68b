"""Who takes payments in flight of a source: everything that does not depend on the request, worked out once.

columns     event_time  card_id  market  amount              what some part reads, each checked and packed once
row         [ time | amount | flags | nulls | market ]       one a payment, as in heads
parts       card: amount, market    merchant: amount         each lifts of the row what it reads
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from featurestore.core.events import ColumnValues
from featurestore.core.spec import IS_UNDO, Column, SourceSpec, ValueType
from featurestore.errors import InvalidRequest
from featurestore.online.answer.in_flight.columns import (
    FILLED_LISTS,
    EventColumn,
    EventColumns,
    GivenColumn,
    as_arrays,
    as_rows,
)
from featurestore.online.answer.selection import EventsInFlight, Selection
from featurestore.wire.codecs.body import EventLifting
from featurestore.wire.codecs.head import HeadCodec, RowColumn
from featurestore.wire.entity_key import EntityValue
from featurestore.wire.moments import EVENT_TIME_MS_MAX, MILLISECONDS, SECONDS_BELOW, are_moments, as_ms, not_a_moment


class TakenEvents(NamedTuple):
    """N payments in flight of a source.

    Attributes:
        times_ms: when they happened.
        columns: what is read of them, and their time, as it was sent.
        seen: as each part sees them, by its index.
    """

    times_ms: list[int]
    columns: dict[str, RowColumn]
    seen: dict[int, EventsInFlight]


ReadByKeys = tuple[Selection, tuple[int, ...]]
"""What is read of a source, and the indices of the join keys by which it is."""


def event_readers(
    parts: Sequence[ReadByKeys], awaited: Sequence[ReadByKeys], join_keys: Sequence[Column]
) -> list[EventReader]:
    """A reader for each schema of a source.

    Args:
        parts: of the service, in its order.
        awaited: what no generation answers yet.
        join_keys: of the service.
    """
    now: dict[SourceSpec, dict[int, ReadByKeys]] = {}
    later: dict[SourceSpec, list[ReadByKeys]] = {}
    for index, (selection, keys) in enumerate(parts):
        now.setdefault(selection.source, {})[index] = selection, keys
    for selection, keys in awaited:
        later.setdefault(selection.source, []).append((selection, keys))
    found = []
    for source in {**now, **later}:
        mine, waiting = now.get(source, {}), later.get(source, [])
        keys_read = {key for _, keys in (*mine.values(), *waiting) for key in keys}
        found.append(
            EventReader(
                source,
                {index: selection for index, (selection, _) in mine.items()},
                {key: join_keys[key].name for key in sorted(keys_read)},
                [selection for selection, _ in waiting],
            )
        )
    return found


class EventReader:
    """The parts of a service that read one source, by one schema of it.

    Args:
        source: the schema.
        parts: those that read it, by their index.
        keys: the join keys by which they are read, by their index in those of the service.
        awaited: what will read it when a generation serves. Until then it asks for nothing, so that features that were
            just registered break no request, but what is sent for it is looked at.

    Attributes:
        source: likewise.
        keys: likewise.
        columns: of the source's payload, by name.
        read: names of the payload columns that the parts read of a payment in flight.
        will_read: of those that only awaited features read.
        liftings: of each part.
    """

    def __init__(
        self,
        source: SourceSpec,
        parts: Mapping[int, Selection],
        keys: Mapping[int, str],
        awaited: Sequence[Selection] = (),
    ) -> None:
        self.source, self.keys = source, dict(keys)
        self.columns: dict[str, Column] = {column.name: column for column in source.columns}
        inputs = [part.event_inputs for part in parts.values()]
        self.read = tuple(sorted({name for each in inputs for name in each.payload_columns}))
        later = {name for selection in awaited for name in selection.event_inputs.payload_columns}
        self.will_read = tuple(sorted(later - {*self.read, source.event_time_column}))
        self._parts = dict(parts)
        stored = {column.name: column for part in parts.values() for column in part.compiled.event_columns}
        self._codec = HeadCodec(sorted(stored.values(), key=lambda column: column.name), has_ids=False, undo=None)
        self.liftings = {at: EventLifting(self._codec, part.compiled.layout) for at, part in parts.items()}
        time = self.columns[source.event_time_column]
        self._time = EventColumn(time, source)
        self._is_in_ms = source.event_time_unit == MILLISECONDS or time.type is ValueType.TIMESTAMP
        self._read = [(name, EventColumn(self.columns[name], source)) for name in self.read if name != self._time.name]
        self._will_read = [(name, EventColumn(self.columns[name], source)) for name in self.will_read]
        self._key_columns = {
            name: EventColumn(self.columns[name], source) for name in keys.values() if name in self.columns
        }
        self._evaluating = [each for each in inputs if each.evaluated_columns is not None]
        evaluated = set(chain.from_iterable(each.evaluated_columns or () for each in self._evaluating))
        self._evaluated = [(name, self.columns[name].type) for name in sorted(evaluated)]
        self._all_are = {at: tuple(None for _ in part.presences) for at, part in parts.items()}

    @property
    def is_awaited(self) -> bool:
        """Whether nothing reads the source yet."""
        return not self._parts

    def take_awaited(self, given: EventColumns, count: int, known: Container[str] = ()) -> dict[str, RowColumn]:
        """What is sent for features that are not answered yet; what is not sent is null.

        Args:
            given: the columns.
            count: N.
            known: names of columns that another schema of the source has taken.

        Raises:
            InvalidRequest: see `EventColumn.take`.
        """
        nothing: GivenColumn = ((), b"\x01" * count)
        return {
            name: column.take(given.get(name, nothing), count) for name, column in self._will_read if name not in known
        }

    def take(self, given: EventColumns, keys: Sequence[Sequence[EntityValue]], count: int) -> TakenEvents:
        """N payments.

        Args:
            given: the columns.
            keys: for each join key of the service the value of each row.
            count: N.

        Raises:
            InvalidRequest: a column is missing, of another type or length, or a key is not its row's.
        """
        time = self._time.name
        if time not in given:
            raise self._missing(time)
        columns = {time: self._time.take(given[time], count)}
        times_ms = self._times_ms(*columns[time])
        values_of = {name: keys[at] for at, name in self.keys.items()}
        for name, values in values_of.items():
            if name in given:
                self._check_key(name, given[name], values, count)
        for name, column in self._read:
            if (mine := given.get(name)) is not None:
                columns[name] = column.take(mine, count)
            elif name in values_of:
                columns[name] = column.take((values_of[name], b""), count)
            elif name == self.source.topic_column and not self.source.more_topics:
                columns[name] = column.take(([self.source.topic] * count, b""), count)
            elif name == IS_UNDO and self.source.changes:
                columns[name] = column.take(([False] * count, b""), count)
            else:
                raise self._missing(name)
        computed = self._computed(columns, count) if self._evaluating else {}
        more = {name: as_rows(values) for name, values in computed.items() if name not in columns}
        rows = self._codec.encode_unchecked(times_ms, {**columns, **more} if more else columns)
        columns.update(self.take_awaited(given, count))
        return TakenEvents(times_ms, columns, {at: self._seen_by(at, rows, computed) for at in self._parts})

    def _computed(self, columns: Mapping[str, RowColumn], count: int) -> dict[str, ColumnValues]:
        """What expressions read of the payments, and what they make of it."""
        found = {name: as_arrays(columns[name], kind) for name, kind in self._evaluated}
        for each in self._evaluating:
            each.compute(found, count)
        return found

    def _seen_by(self, at: int, rows: list[bytes], computed: Mapping[str, ColumnValues]) -> EventsInFlight:
        """The payments as a part sees them."""
        part = self._parts[at]
        if part.event_inputs.evaluated_columns is None:
            return EventsInFlight(rows, self.liftings[at], None, self._all_are[at])
        return EventsInFlight(rows, self.liftings[at], *part.which_are_events(computed, len(rows)))

    def _times_ms(self, values: Sequence[int], nulls: bytes) -> list[int]:
        """When they happened, in milliseconds."""
        if nulls:
            raise InvalidRequest(
                f"{self._time} is null: an event in flight has a time", hint="send it; it is the read time of its row"
            )
        times_ms, unit = list(values), self.source.event_time_unit
        if not self._is_in_ms:
            times_ms = as_ms(np.array(times_ms, dtype=np.int64), unit).tolist()
        if min(times_ms) < SECONDS_BELOW or max(times_ms) > EVENT_TIME_MS_MAX:
            are_sound = are_moments(np.array(times_ms, dtype=np.int64))
            if not are_sound.all():
                unit = MILLISECONDS if self._is_in_ms else unit
                worst = values[int(are_sound.argmin())]
                raise InvalidRequest(
                    f"{self._time} {not_a_moment(worst, unit)}", hint=f"send the time of the event in {unit} since 1970"
                )
        return times_ms

    def _check_key(self, name: str, given: GivenColumn, values: Sequence[EntityValue], count: int) -> None:
        """The event is one of the row's entities."""
        self._key_columns[name].take(given, count)
        for row, (mine, entity) in enumerate(zip(given[0], values, strict=False)):
            if mine != entity or (given[1] and given[1][row]):
                raise InvalidRequest(
                    f'the event of source "{self.source.name}" in row {row} is of another "{name}" than the row',
                    detail=f"The event has {mine!r}, the row is of {entity!r}.",
                    hint="send the keys of the payment itself, or leave them out of its columns",
                )

    def _missing(self, name: str) -> InvalidRequest:
        """The error for a column that is not sent."""
        return InvalidRequest(
            f'the event in flight of source "{self.source.name}" lacks column "{name}"',
            hint=f"send it as {FILLED_LISTS[self.columns[name].type]}, with nulls where the event has none",
        )
