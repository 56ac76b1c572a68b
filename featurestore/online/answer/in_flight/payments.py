"""Payments in flight: events that a request brings along, for each row one, as rows beside those of the store.

    given      transactions: event_time 12:00:00.123, amount 12.5, merchant_id 7 ...        columns, a value a row
    checked    types; the keys are those of the row's entities, which stand in where a key is not given
    packed     once, as a row of a head has it; each part of the plan that reads the source lifts what it reads

The time of the payment is the read time of its row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from featurestore.core.events import ColumnValues
from featurestore.core.spec import Column
from featurestore.errors import InvalidRequest
from featurestore.errors.near_names import suggest
from featurestore.online.answer.in_flight.columns import EventColumns, as_arrays
from featurestore.online.answer.in_flight.reader import EventReader, TakenEvents
from featurestore.online.answer.schema import EventSource
from featurestore.online.answer.selection import EventsInFlight
from featurestore.wire.entity_key import EntityValue


class InFlight:
    """The payments of N rows.

    Args:
        taken: by whom, and what of them; one at least.
        part_count: how many stream parts the plan has.

    Attributes:
        of_parts: for each stream part of the plan its share; None where no event of its source is given.
        event_time_ms: of each row, and its read time.
    """

    def __init__(self, taken: Sequence[tuple[EventReader, TakenEvents]], part_count: int) -> None:
        self._taken = taken
        self.event_time_ms = tuple(taken[0][1].times_ms)
        of_parts: list[EventsInFlight | None] = [None] * part_count
        for _, events in taken:
            for at, mine in events.seen.items():
                of_parts[at] = mine
        self.of_parts = tuple(of_parts)

    @property
    def columns(self) -> dict[str, dict[str, ColumnValues]]:
        """By source, what is read of its events, and their time, as it was sent; N rows each."""
        found: dict[str, dict[str, ColumnValues]] = {}
        for reader, events in self._taken:
            columns = found.setdefault(reader.source.name, {})
            for name, column in events.columns.items():
                columns[name] = as_arrays(column, reader.columns[name].type)
        return found


class InFlightPlan:
    """What a service has to know to take payments in flight.

    Args:
        service: its name, for messages.
        readers: by source and schema of it.
        part_count: how many stream parts the plan has.

    Attributes:
        readers: likewise, those behind the others that nothing reads yet.
    """

    def __init__(self, service: str, readers: Sequence[EventReader], part_count: int) -> None:
        self._service = service
        # What answers now says what the time is.
        self.readers = tuple(sorted(readers, key=lambda reader: reader.is_awaited))
        self._part_count = part_count
        self._known: dict[str, set[str]] = {}
        for reader in readers:
            self._known.setdefault(reader.source.name, set()).update(reader.columns)
        self._answered = {reader.source.name for reader in readers if not reader.is_awaited}

    def sources(self) -> tuple[EventSource, ...]:
        """What a payment in flight of each source must say, and what it will have to."""
        wanted: dict[str, dict[str, Column]] = {}
        time_columns: dict[str, str] = {}
        for reader in self.readers:
            source, keys = reader.source, set(reader.keys.values())
            time = time_columns.setdefault(source.name, source.event_time_column)
            columns = wanted.setdefault(source.name, {})
            for name in (time, *reader.read, *reader.will_read):
                if name not in keys:
                    columns.setdefault(name, reader.columns[name])
        return tuple(EventSource(name, time_columns[name], tuple(wanted[name].values())) for name in sorted(wanted))

    def take(
        self, events: Mapping[str, EventColumns], keys: Sequence[Sequence[EntityValue]], row_count: int
    ) -> InFlight:
        """Check the payments of a request, and pack them for those who read them.

        Args:
            events: by name of the source; one at least.
            keys: for each join key of the schema, the value of each row.
            row_count: N.

        Raises:
            InvalidRequest: an unknown source or column, a column that is missing, of another type or length, a key that
                is not its row's, or payments of one row at different times.
        """
        for source, columns in events.items():
            known = self._known.get(source)
            if known is None or not known.issuperset(columns):
                self._refuse_name(source, columns)
        taken: list[tuple[EventReader, TakenEvents]] = []
        for reader in self.readers:
            if reader.source.name not in events:
                continue
            if reader.is_awaited and reader.source.name in self._answered:
                # By another schema of the source, which may have another time.
                known = {
                    name for one, other in taken if one.source.name == reader.source.name for name in other.columns
                }
                awaited = reader.take_awaited(events[reader.source.name], row_count, known)
                taken.append((reader, TakenEvents([], awaited, {})))
                continue
            mine = reader.take(events[reader.source.name], keys, row_count)
            first, other = (taken or [(reader, mine)])[0]
            if other.times_ms != mine.times_ms:
                raise InvalidRequest(
                    f'the events of sources "{first.source.name}" and "{reader.source.name}" have different times',
                    hint="a row has one read time, which is that of its payment",
                )
            taken.append((reader, mine))
        return InFlight(taken, self._part_count)

    def _refuse_name(self, source: str, columns: EventColumns) -> None:
        """Sources and columns are there; while a schema is changed, in one of its definitions.

        Raises:
            InvalidRequest: one is not.
        """
        mine = [reader for reader in self.readers if reader.source.name == source]
        if not mine:
            raise InvalidRequest(
                f'feature service "{self._service}" has no features of source "{source}"',
                hint=suggest(source, sorted(self._known)),
            )
        for name in columns:
            if name in self._known[source]:
                continue
            if any(column.name == name for reader in mine for column in reader.source.computed):
                raise InvalidRequest(
                    f'column "{name}" of source "{source}" is computed from others', hint="leave it out, and send those"
                )
            raise InvalidRequest(f'source "{source}" has no column "{name}"', hint=suggest(name, list(mine[0].columns)))
