"""Some entities of a view with all their events, and how many there are of both: one pass over the history.

    rows of the view ── hash of the entity key ──┬─ the smallest hashes ──> their entities, with all their events
                                                 └─ all ──> entities, events, events of each minute

Which entities are taken depends on their keys alone, never on how much they have, and is the same in every run. Memory:
twice SAMPLE_ROWS events, and some DISTINCT_MAX hashes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.core.events import Int64Array
from featurestore.core.spec import ViewSpec
from featurestore.offline.bootstrap_events import LogEvents, LogPart, PositionedEvents
from featurestore.offline.training_set.histories import HistoricTables

SAMPLE_ENTITIES = 2_000
"""Most entities that are folded."""

SAMPLE_ROWS = 1_000_000
"""Most events of them, unless one entity alone has more."""

DISTINCT_MAX = 1 << 22
"""Up to so many entities are counted; of more it is estimated how many there are, to a tenth of a percent."""

HASHES = 1 << 62
"""Hashes are below this; each counts as a lane of its own."""

MINUTE_MS = 60_000
_NO_HASHES: Int64Array = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Sample:
    """Events of some entities of a view.

    Attributes:
        part: all events of the entities that were taken; None where the view has none.
        entities: entities of the view in the history.
        is_counted: they were counted, not estimated.
        events: events of the view in the history, retries as well.
        minutes: (M,) minutes since 1970 that have events, ascending.
        minute_events: (M,) how many events each of them has.
        newest_ms: event time of the newest; 0 where there are none.
    """

    part: LogPart | None
    entities: int
    is_counted: bool
    events: int
    minutes: Int64Array
    minute_events: Int64Array
    newest_ms: int

    def busiest(self, minutes: int) -> int:
        """Most events in any span of so many minutes."""
        totals = np.append(0, np.cumsum(self.minute_events))
        ends = np.searchsorted(self.minutes, self.minutes + minutes)
        return int((totals[ends] - totals[: len(ends)]).max(initial=0))

    @property
    def span_minutes(self) -> int:
        """From the first minute with events to the last one."""
        return int(self.minutes[-1] - self.minutes[0]) + 1 if len(self.minutes) else 0


def take_sample(
    log: PositionedEvents,
    view: ViewSpec,
    now_ms: int,
    entities_max: int = SAMPLE_ENTITIES,
    on_rows: Callable[[int], None] = lambda rows: None,
    tables: HistoricTables | None = None,
) -> Sample:
    """Read a view's events once, as a bootstrap does.

    Args:
        log: the history.
        view: a view, or what a storage group stores.
        now_ms: the clock.
        entities_max: how many entities are taken.
        on_rows: told how many rows were read since it was told last.
        tables: that events are enriched from.

    Raises:
        InvalidRequest: the history lacks a column, or has nothing of the view's source.
        Unavailable: it cannot be read.
    """
    events = LogEvents(log, view, lane_count=HASHES, now_ms=now_ms, tables=tables)
    kept, distinct = _SmallestHashes(entities_max), _Distinct()
    minute_counts: dict[int, int] = {}
    total, newest_ms = 0, 0
    for hashes, rows in events.rows_by_bucket(on_rows):
        if not len(hashes):
            continue
        kept.add(hashes, rows)
        distinct.add(hashes)
        times_ms = rows.column("event_time_ms").to_numpy()
        minutes, counts = np.unique(times_ms // MINUTE_MS, return_counts=True)
        for minute, count in zip(minutes.tolist(), counts.tolist(), strict=True):
            minute_counts[minute] = minute_counts.get(minute, 0) + count
        total += len(hashes)
        newest_ms = max(newest_ms, int(times_ms.max()))
    rows_kept = kept.rows()
    ordered = sorted(minute_counts.items())
    return Sample(
        None if rows_kept is None else events.part_of(rows_kept),
        *distinct.count(),
        total,
        np.array([minute for minute, _ in ordered], dtype=np.int64),
        np.array([count for _, count in ordered], dtype=np.int64),
        newest_ms,
    )


class _SmallestHashes:
    """Rows of the entities with the smallest hashes."""

    def __init__(self, entities_max: int) -> None:
        self._entities_max = entities_max
        self._below = HASHES
        self._hashes: list[Int64Array] = []
        self._rows: list[pa.RecordBatch] = []
        self._held = 0
        self._entities_held = _NO_HASHES

    def add(self, hashes: Int64Array, rows: pa.RecordBatch) -> None:
        """Take note of rows; those that cannot be among the wanted ones are dropped."""
        at = np.flatnonzero(hashes < self._below)
        if not len(at):
            return
        self._hashes.append(hashes[at])
        self._rows.append(rows if len(at) == len(hashes) else rows.take(pa.array(at)))
        self._held += len(at)
        self._entities_held = np.union1d(self._entities_held, hashes[at])
        if len(self._entities_held) > 2 * self._entities_max or self._held > 2 * SAMPLE_ROWS:
            self._shrink()

    def rows(self) -> pa.Table | None:
        """All that is wanted, in the order of the log."""
        self._shrink()
        return pa.Table.from_batches(self._rows) if self._rows else None

    def _shrink(self) -> None:
        """Drop the entities with the largest hashes until there are no more than are wanted."""
        if not self._rows:
            return
        hashes = np.concatenate(self._hashes)
        entities, counts = np.unique(hashes, return_counts=True)
        fitting = int(np.searchsorted(np.cumsum(counts), SAMPLE_ROWS, side="right"))
        wanted = min(self._entities_max, max(1, fitting))
        if wanted >= len(entities):
            return
        self._below = int(entities[wanted])
        at = np.flatnonzero(hashes < self._below)
        # Copied in one piece, so that what is dropped takes no memory.
        rows = pa.Table.from_batches(self._rows).take(pa.array(at)).combine_chunks()
        self._hashes, self._rows = [hashes[at]], rows.to_batches()
        self._held, self._entities_held = len(at), entities[:wanted]


class _Distinct:
    """Counts distinct hashes: all of them, or those of a known share of all that there can be."""

    def __init__(self) -> None:
        self._below = HASHES
        self._seen = _NO_HASHES
        self._waiting: list[Int64Array] = []
        self._waiting_count = 0

    def add(self, hashes: Int64Array) -> None:
        """Take note of some; many are sorted at once."""
        self._waiting.append(np.unique(hashes[hashes < self._below]))
        self._waiting_count += len(self._waiting[-1])
        if self._waiting_count > DISTINCT_MAX:
            self._merge()

    def count(self) -> tuple[int, bool]:
        """How many there are, and whether that is exact."""
        self._merge()
        return round(len(self._seen) * (HASHES / self._below)), self._below == HASHES

    def _merge(self) -> None:
        """Put those that wait among the others."""
        self._seen = np.unique(np.concatenate([self._seen, *self._waiting]))
        self._waiting, self._waiting_count = [], 0
        while len(self._seen) > DISTINCT_MAX:
            self._below //= 2
            self._seen = self._seen[self._seen < self._below]
