"""Where the history is that costs are computed from: an event log, files, or a table that somebody else keeps."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from featurestore.cli.settings import EVENT_LOG_VARIABLE
from featurestore.core.inputs import view_inputs
from featurestore.core.spec import SourceSpec, ViewSpec
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest
from featurestore.offline.bootstrap_events import PositionedEvents
from featurestore.offline.event_log.address import below
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.file_log import FileLog
from featurestore.offline.foreign_tables.opening import is_table
from featurestore.offline.training_set.histories import EventLogHistory, FileHistory, HistoricTables, History

FILE_SUFFIXES = (".parquet", ".pq")

WAYS_OUT = (
    "write one with `featurestore event-log run`, or give --event-log another place of events:"
    " SOURCE=URI, or one URI for all; Parquet files, Delta and Iceberg tables will do"
)


class SourceHistories:
    """The history of each source.

    Args:
        places: address by source, or one for all: the root of the event logs, or files or a table.
        sources: names of those that are read.
        now_ms: the clock.
        repo: where relative paths of tables start that events are enriched from; None is the current directory.

    Attributes:
        tables: that events are enriched from; topics have a history where the events have theirs.

    Raises:
        InvalidRequest: a place is given for a source that there is not.
    """

    def __init__(
        self, places: dict[str, str] | str, sources: Collection[str], now_ms: int, repo: Path | None = None
    ) -> None:
        self._places = places
        history: History = FileHistory(places if isinstance(places, dict) else {})
        if isinstance(places, str) and not _is_file_or_table(places):
            history = EventLogHistory(places)
        self.tables = HistoricTables(history, repo)
        self._now_ms = now_ms
        self._opened: dict[str, PositionedEvents] = {}
        for name in places if isinstance(places, dict) else ():
            if name not in sources:
                raise InvalidRequest(
                    f'no stream feature view reads a source "{name}"', hint=suggest(name, sorted(sources))
                )

    def has(self, source: SourceSpec) -> bool:
        """Whether the source is among those whose place is known: who names places names all that are wanted."""
        return not isinstance(self._places, dict) or source.name in self._places

    def open(self, source: SourceSpec) -> PositionedEvents:
        """One version of the source's history, the same whenever it is asked for.

        Raises:
            InvalidRequest: there is none, or it is empty.
            Unavailable: it cannot be read now.
        """
        if source.name not in self._opened:
            self._opened[source.name] = self._open(source)
        return self._opened[source.name]

    def _open(self, source: SourceSpec) -> PositionedEvents:
        """See `open`."""
        place = self._places[source.name] if isinstance(self._places, dict) else self._places
        if isinstance(self._places, dict) or _is_file_or_table(place):
            return FileLog(place, source, now_ms=self._now_ms)
        try:
            log = EventLog(below(place, source.name))
        except InvalidRequest as error:
            raise InvalidRequest(error.message, detail=error.detail, hint=WAYS_OUT) from error
        if not log.row_count:
            raise InvalidRequest(f'event log "{log.uri}" has no events yet', hint=WAYS_OUT)
        return log


def _is_file_or_table(place: str) -> bool:
    """Whether an address is that of rows, not of event logs."""
    return Path(place).suffix in FILE_SUFFIXES or is_table(place)


def require_columns(log: PositionedEvents, view: ViewSpec) -> None:
    """Refuse an event log that lacks what a view reads, before anything is read.

    Raises:
        InvalidRequest: a column is missing.
    """
    if not isinstance(log, EventLog):
        return  # files say so themselves
    id_column = view.source.id_column
    names = view.source.stored([*view_inputs(view).payload_columns, *([] if id_column is None else [id_column.name])])
    missing = [name for name in names if name not in log.schema.names]
    if missing:
        listed = ", ".join(f'"{name}"' for name in missing)
        raise InvalidRequest(
            f'event log "{log.uri}" has no column {listed}, which "{view.name}" reads',
            detail="It has what the source's definition had when its records were written.",
            hint=suggest(missing[0], log.schema.names)
            or f"give a table that has it: --event-log {view.source.name}=URI"
            f" (or {EVENT_LOG_VARIABLE}); events that were logged without it never will",
        )
