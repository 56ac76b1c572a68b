"""A table that somebody else keeps, as the event log of one source: what a bootstrap computes from instead.

    topic        text; where it is missing, the source's one topic is meant
    partition    integer
    offset       integer
    ...          the source's columns

What it rests on: the table has every record of a partition below the largest offset in it. A sink that writes a
partition's records in their order, as streams are read, makes such a table. Which of two topics of one name the offsets
belong to, nobody can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property

import pyarrow as pa

from featurestore.core.events import Horizon
from featurestore.core.spec import SourceSpec
from featurestore.definitions.limits import DAY_MS
from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.table import EPOCH_ORDINAL, Positions
from featurestore.offline.foreign_tables.table import POSITION_COLUMNS
from featurestore.offline.training_set.histories import EVENT_TIME, FileHistory
from featurestore.wire.incarnations import Incarnations
from featurestore.wire.moments import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN

_TOPIC, _PARTITION, _OFFSET = POSITION_COLUMNS


class TableLog:
    """One version of a table with the records of one source.

    Args:
        address: of a Delta or Iceberg table, see `foreign_tables.opening`.
        source: whose records.
        now_ms: the clock; an event dated further ahead of it than the source allows is a dead letter of the stream.

    Raises:
        InvalidRequest: there is no such table, or it does not say where its records are in the stream.
        Unavailable: it cannot be read now.
    """

    kept_from: date | None = None
    """Nobody says what was dropped from it."""

    def __init__(self, address: str, source: SourceSpec, *, now_ms: int) -> None:
        self._source = source
        self._to_ms = min(now_ms + source.max_future_ms, EVENT_TIME_MS_MAX) + 1
        self._history = FileHistory({source.name: address})
        table = self._history.table(source)
        if table is None:
            raise InvalidRequest(
                f'"{address}" is no Delta or Iceberg table',
                detail="Files do not say where a stream must go on behind them.",
                hint="give the root of the event logs, or such a table with the columns partition and offset",
            )
        self._table = table
        self.uri = table.uri
        self.version = table.version
        if not table.positions:
            raise InvalidRequest(
                f"{table.what} has no integer columns partition and offset",
                detail="So nobody could promise where the stream must go on behind it: events would be missing, or be"
                " counted twice.",
                hint="add them to the table, or bootstrap from an event log (`featurestore event-log run`)",
            )
        if _TOPIC not in table.positions and len(source.topics) > 1:
            raise InvalidRequest(
                f'{table.what} has no column topic, and source "{source.name}" has {len(source.topics)} topics',
                hint="add the column, so that each partition is known",
            )

    @property
    def row_count(self) -> int:
        """About how many rows."""
        return self._table.count_rows()

    def positions(self) -> Positions:
        """Next offset of each partition: behind the largest one in the table."""
        return self._positions

    def incarnations(self) -> Incarnations:
        """None is known."""
        return {}

    def horizons(self) -> Mapping[tuple[str, int], Horizon]:
        """None is known."""
        return {}

    def dates(self) -> list[date]:
        """Event dates that have rows, ascending."""
        days = self._history.rows_by_day(self._source)
        return [date.fromordinal(EPOCH_ORDINAL + day) for day in days if day * DAY_MS < self._to_ms]

    def scan(self, columns: Sequence[str], *, from_ms: int | None = None) -> Iterator[pa.RecordBatch]:
        """Rows in the order of topic, partition and offset within some span of event times, each position once.

        Args:
            columns: the source's, the position's and the event time's.
            from_ms: event times from here on; older ones may come too.
        """
        stored = [name for name in columns if name != EVENT_TIME and name not in POSITION_COLUMNS]
        wanted = [*stored, *self._table.positions]
        first_ms = EVENT_TIME_MS_MIN if from_ms is None else from_ms
        for batch in self._history.scan(self._source, wanted, from_ms=first_ms, to_ms=self._to_ms):
            rows = {name: batch.column(number) for number, name in enumerate([*wanted, EVENT_TIME])}
            rows |= self._as_positions(rows)
            yield pa.RecordBatch.from_arrays([rows[name] for name in columns], names=list(columns))

    @cached_property
    def _positions(self) -> Positions:
        """Read from all rows, also from those that are no events."""
        found: Positions = {}
        for batch in self._table.to_batches(columns=self._table.positions):
            rows = self._as_positions({name: batch.column(name) for name in self._table.positions})
            table = pa.table([rows[name] for name in POSITION_COLUMNS], names=list(POSITION_COLUMNS))
            largest = table.group_by([_TOPIC, _PARTITION]).aggregate([(_OFFSET, "max")])
            for topic, partition, offset in zip(*(column.to_pylist() for column in largest.columns), strict=True):
                found[topic, partition] = max(found.get((topic, partition), 0), offset + 1)
        if not found:
            raise InvalidRequest(f"{self._table.what} has no rows yet", hint="wait until it is filled")
        if not any(topic in self._source.topics for topic, _ in found):
            topics = sorted({topic for topic, _ in found})
            raise InvalidRequest(
                f'{self._table.what} has nothing of topic "{self._source.topic}"',
                detail=f"Its records are of {', '.join(topics)}.",
                hint="name the table of the view's source",
            )
        return found

    def _as_positions(self, rows: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Topic, partition and offset of some rows, as an event log has them."""
        partitions, offsets = rows[_PARTITION], rows[_OFFSET]
        topics = rows.get(_TOPIC)
        if topics is None:
            topics = pa.repeat(pa.scalar(self._source.topic, pa.string()), len(offsets))
        for name, column in zip(POSITION_COLUMNS, (topics, partitions, offsets), strict=True):
            if column.null_count:
                raise InvalidRequest(
                    f"{self._table.what} has rows without {name}",
                    detail="They are not known to be below the offset at which the stream goes on.",
                    hint="fill the column, or bootstrap from an event log",
                )
        return {
            _TOPIC: topics.cast(pa.string()),
            _PARTITION: partitions.cast(pa.int32()),
            _OFFSET: offsets.cast(pa.int64()),
        }
