"""Events in files, or in a table without positions, as a log to count and to fold from; no stream can go on behind it.

    rows as they stand    ──>    one partition, offsets 0, 1, 2, ...

What is computed from it is what a bootstrap would compute from an event log with the same events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property

import numpy as np
import pyarrow as pa

from featurestore.core.events import Horizon, Int64Array
from featurestore.core.spec import SourceSpec
from featurestore.definitions.limits import DAY_MS
from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.table import EPOCH_ORDINAL, Positions
from featurestore.offline.foreign_tables.table import POSITION_COLUMNS
from featurestore.offline.training_set.histories import EVENT_TIME, FileHistory
from featurestore.wire.incarnations import Incarnations
from featurestore.wire.moments import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN

_TOPIC, _PARTITION, _OFFSET = POSITION_COLUMNS


class FileLog:
    """The events of one source at rest, whoever keeps them.

    Args:
        address: Parquet files, or a Delta or Iceberg table; see `training_set.histories.FileHistory`.
        source: whose events.
        now_ms: the clock; an event dated further ahead of it than the source allows is a dead letter of the stream.

    Raises:
        InvalidRequest: nothing readable is there, or no rows.
        Unavailable: it cannot be read now.
    """

    kept_from: date | None = None
    """Nobody says what was dropped from it."""

    def __init__(self, address: str, source: SourceSpec, *, now_ms: int) -> None:
        self._source = source
        self._to_ms = min(now_ms + source.max_future_ms, EVENT_TIME_MS_MAX) + 1
        self._history = FileHistory({source.name: address})
        table = self._history.table(source)
        self.uri = address if table is None else table.uri
        self.version = 0 if table is None else table.version
        self.row_count = self._history.row_count(source)
        if not self.row_count:
            raise InvalidRequest(f'"{self.uri}" has no rows', hint="wait until it is filled")

    def positions(self) -> Positions:
        """All rows are one partition."""
        return {(self._source.topic, 0): self.row_count}

    def incarnations(self) -> Incarnations:
        """None is known."""
        return {}

    def horizons(self) -> Mapping[tuple[str, int], Horizon]:
        """None is known."""
        return {}

    def dates(self) -> list[date]:
        """Event dates that have rows, ascending."""
        return [date.fromordinal(EPOCH_ORDINAL + day) for day in self._days]

    def scan(self, columns: Sequence[str], *, from_ms: int | None = None) -> Iterator[pa.RecordBatch]:
        """Rows in order of arrival, as far as that is known.

        Args:
            columns: the source's, the position's and the event time's.
            from_ms: event times from here on.
        """
        stored = [name for name in columns if name != EVENT_TIME and name not in POSITION_COLUMNS]
        first_ms = EVENT_TIME_MS_MIN if from_ms is None else from_ms
        begin = 0
        for batch in self._history.scan(self._source, stored, from_ms=first_ms, to_ms=self._to_ms):
            rows = {name: batch.column(number) for number, name in enumerate([*stored, EVENT_TIME])}
            rows[_TOPIC] = pa.repeat(pa.scalar(self._source.topic, pa.string()), batch.num_rows)
            rows[_PARTITION] = pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows)
            rows[_OFFSET] = pa.array(np.arange(begin, begin + batch.num_rows))
            begin += batch.num_rows
            times_ms = batch.column(len(stored)).to_numpy()
            found = pa.RecordBatch.from_arrays([rows[name] for name in columns], names=list(columns))
            # Files give more than they are asked for.
            is_wanted = (times_ms >= first_ms) & (times_ms < self._to_ms)
            found = found if is_wanted.all() else found.filter(pa.array(is_wanted))
            if found.num_rows:
                yield found

    @cached_property
    def _days(self) -> list[int]:
        """Days since 1970 that have events; all event times are read for it."""
        found: Int64Array = np.empty(0, dtype=np.int64)
        for batch in self.scan([EVENT_TIME]):
            found = np.union1d(found, batch.column(0).to_numpy() // DAY_MS)
        days: list[int] = found.tolist()
        return days
