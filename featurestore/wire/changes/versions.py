"""The last version of each event of one partition, as long as it can be replaced.

    offset   id    event time   newest          horizon 1 h
       4     p-1     12:00      12:00
       5     p-2     12:40      12:40
       6     p-1     12:00      12:40    replaces 4: the partition has come 40 min since then
       7     p-3     13:50      13:50
       8     p-2     12:40      13:50    counts as an event of its own: it has come 70 min since 5

A version is held until its partition has come a horizon of event time further. Nothing but the partition's own records
decides that, by their order: not the clock, not where a read ends, not other partitions. So whoever reads the same
records comes to the same, and whoever starts again needs one offset to know it all again (`Horizon.begin`): that of an
event that was newer than all before it, as from there on the newest event time is known without what was before.

What the clock refused when it came (`max_future`) is no version. Read again it is told by its event time: later than
all that was taken. Where it might have been either, nothing is replaced by guess: the replacement is refused.

A log may have lost what would have to be read again. Then what might replace something of that time is refused, until
the partition has moved on by a horizon.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

import numpy as np

from featurestore.core.events import FAR_MS, BoolArray, EventBatch, Horizon, Int64Array

MARKS_A_HORIZON = 8
"""How fine the offsets are that reading may begin with: what is read again is an eighth more than has to be."""

DOUBTFUL = "nobody knows whether the event that it replaces was counted: it was dated about as far ahead as is allowed"
LOST = "it may replace an event that its topic has lost"


@dataclass(frozen=True, slots=True)
class Recall:
    """How far a partition was read before by those who go on now, of one source.

    Attributes:
        horizon: where theirs stand: the first `begin`, the last `newest_ms`, the first `refused_ms`.
        first, until: how far the hindmost and the foremost of them have come.
        reads_all: somebody among them has read nothing: versions before `horizon.begin` are its own, too.
    """

    horizon: Horizon
    first: int
    until: int
    reads_all: bool = False


@dataclass(slots=True)
class Taken:
    """What became of the events of a read.

    Attributes:
        events: those that are not refused, M.
        is_kept: (M,) False of those that repeat what is held.
        replaced: row of `events` -> (events, row) of the version that it replaces.
        refused: offset -> why.
    """

    events: EventBatch
    is_kept: BoolArray
    replaced: dict[int, tuple[EventBatch, int]]
    refused: dict[int, str]


@dataclass(slots=True)
class _Mark:
    """An event newer than all before it, and the earliest event time that the clock has refused since."""

    offset: int
    newest_ms: int
    refused_ms: int = FAR_MS


@dataclass(frozen=True, slots=True)
class _Version:
    """Row of a read, the partition's newest event time then, and whether nobody knows if it was counted.

    That time is one, but where events of before may not have been counted.
    """

    events: EventBatch
    row: int
    at_least_ms: int
    at_most_ms: int
    is_doubtful: bool


class Versions:
    """Those of one partition; about 300 bytes each.

    Args:
        horizon_ms: how long one is held, > 0.
        begin: offset of the first record that it will be told of.
        recall: how far it was read before; None where nobody has.
    """

    def __init__(self, horizon_ms: int, begin: int, recall: Recall | None) -> None:
        self.next_offset = begin
        self.recall = recall
        self._horizon_ms = horizon_ms
        self._newest_ms = self._newest_at_most_ms = -FAR_MS
        self._is_in_doubt = False
        self._refused_ms = FAR_MS
        self._marks: deque[_Mark] = deque()
        self._held: dict[bytes, _Version] = {}
        self._is_whole = begin == 0 if recall is None or recall.reads_all else recall.horizon.is_whole
        self._lost_until_ms: int | None = None
        self._is_missed = recall is not None and begin > recall.horizon.begin
        self._is_to_lose = self._is_missed
        if recall is not None and not self._is_missed and recall.horizon.begin == recall.first:
            # Before it nothing was counted.
            self._marks.append(_Mark(recall.first, -FAR_MS))

    @property
    def bounds(self) -> tuple[int, ...]:
        """Offsets that no read may span, as what is behind them is taken otherwise."""
        if self.recall is None:
            return ()
        return self.recall.horizon.begin, self.recall.first, self.recall.until

    def is_recalled(self, next_offset: int) -> bool:
        """Whether what lies before an offset was read before, with all that it takes to know what became of it."""
        return self.recall is not None and not self._is_missed and next_offset <= self.recall.until

    def is_foreign(self, next_offset: int) -> bool:
        """Whether what lies before an offset is nothing that was ever counted."""
        recall = self.recall
        return recall is not None and not recall.reads_all and next_offset <= recall.horizon.begin

    def horizon(self) -> Horizon:
        """Where it stands."""
        refused_ms = min((mark.refused_ms for mark in self._marks), default=FAR_MS)
        begin = self._marks[0].offset if self._marks else self.next_offset
        return Horizon(begin, self._newest_ms, refused_ms, self._is_whole)

    def begin_at(self, offset: int) -> None:
        """Where the log has lost what was held, forget all of before: what may replace it is refused for a while.

        Args:
            offset: of the records that come next.
        """
        if not self._is_to_lose or self.recall is None or offset < self.recall.first:
            return
        self._is_to_lose = False
        known = self.recall.horizon
        self._held.clear()
        self._newest_ms = self._newest_at_most_ms = known.newest_ms
        self._marks = deque([_Mark(known.begin, known.newest_ms, known.refused_ms)])
        self._lost_until_ms = known.newest_ms + self._horizon_ms

    def refuse(self, offsets: Int64Array, times_ms: Int64Array) -> None:
        """The clock has refused events that were there, of these times; or may have."""
        marks = self._marks
        if not marks and len(times_ms):
            self._refused_ms = min(self._refused_ms, int(times_ms.min()))
        behind = np.searchsorted([mark.offset for mark in marks], offsets, side="right") - 1
        for number in np.unique(behind[behind >= 0]).tolist():
            earliest_ms = int(times_ms[behind == number].min())
            marks[number].refused_ms = min(earliest_ms, marks[number].refused_ms)

    def take(self, events: EventBatch) -> Taken:
        """Take the next events, and say what each replaces.

        Args:
            events: N that the clock has not refused, with ids; of records that were read before, all that decode.
        """
        refused: dict[int, str] = {}
        self._look_for_mark(events)
        recalled = self.recall if self.is_recalled(events.next_offset) else None
        given = events
        if recalled is not None:
            events = _rows_of(events, events.event_time_ms <= recalled.horizon.newest_ms)
        if self._lost_until_ms is not None:
            events = self._without_lost(events, refused)
        are_doubtful = np.zeros(len(events.offsets), dtype=np.bool_)
        if recalled is not None:
            are_doubtful = events.event_time_ms >= recalled.horizon.refused_ms
            are_doubtful &= ~self._are_marks(events.offsets)
        at_least, at_most = self._newest_of(events, are_doubtful)
        self._newest_at_most_ms = (
            max(self._newest_at_most_ms, int(at_most[-1])) if len(at_most) else self._newest_at_most_ms
        )
        taken = Taken(events, np.ones(len(events.offsets), dtype=np.bool_), {}, refused)
        in_doubt = self._replace(taken, are_doubtful, at_least, at_most, is_recalled=recalled is not None)
        self._move_on(events.offsets, at_least, are_doubtful)
        self.next_offset = events.next_offset
        self.refuse(events.offsets[in_doubt], events.event_time_ms[in_doubt])
        if recalled is not None:
            known = recalled.horizon
            is_late = given.event_time_ms >= min(known.refused_ms, known.newest_ms + 1)
            self.refuse(given.offsets[is_late], given.event_time_ms[is_late])
            if events.next_offset == recalled.until:
                self._newest_ms = self._newest_at_most_ms = known.newest_ms
                self._is_in_doubt = False
        return taken

    def _look_for_mark(self, events: EventBatch) -> None:
        """Where the event is gone that reading began with, as an erasure may take it, all of before is lost."""
        recall = self.recall
        if recall is None or self._is_missed or not events.from_offset == recall.horizon.begin < recall.first:
            return
        if not len(events.offsets) or events.offsets[0] != recall.horizon.begin:
            self._is_missed = self._is_to_lose = True

    def _are_marks(self, offsets: Int64Array) -> BoolArray:
        """Which of some offsets that are read again is that of the event that they begin with: it was counted."""
        recall = self.recall
        is_there = recall is not None and recall.horizon.begin < recall.first
        are_marks: BoolArray = offsets == (recall.horizon.begin if recall is not None and is_there else -1)
        return are_marks

    def _newest_of(self, events: EventBatch, are_doubtful: BoolArray) -> tuple[Int64Array, Int64Array]:
        """The newest event time at each event: without those that may not have been counted, and with them."""
        times_ms = events.event_time_ms
        sure_ms = np.where(are_doubtful, -FAR_MS, times_ms)
        return (
            np.maximum(np.maximum.accumulate(sure_ms), self._newest_ms),
            np.maximum(np.maximum.accumulate(times_ms), self._newest_at_most_ms),
        )

    def _replace(
        self, taken: Taken, are_doubtful: BoolArray, at_least: Int64Array, at_most: Int64Array, *, is_recalled: bool
    ) -> list[int]:
        """Note each event as the last version of its id, and what it replaces; rows of those that nobody can tell."""
        events, held, in_doubt = taken.events, self._held, list[int]()
        assert events.event_ids is not None, "events that replace one another have ids"
        columns = (events.event_ids.tolist(), at_least.tolist(), at_most.tolist(), are_doubtful.tolist())
        for row, (event_id, least_ms, most_ms, is_doubtful) in enumerate(zip(*columns, strict=True)):
            known = held.pop(event_id, None)
            if known is not None and least_ms - known.at_most_ms <= self._horizon_ms:
                if known.is_doubtful or most_ms - known.at_least_ms > self._horizon_ms:
                    in_doubt.append(row)
                    taken.is_kept[row] = False
                    taken.refused[int(events.offsets[row])] = DOUBTFUL
                    if not is_recalled:
                        held[event_id] = known
                        continue
                    is_doubtful = True
                elif _are_equal(events, row, known.events, known.row):
                    taken.is_kept[row] = False
                else:
                    taken.replaced[row] = known.events, known.row
            held[event_id] = _Version(events, row, least_ms, most_ms, is_doubtful)
        return in_doubt

    def _without_lost(self, events: EventBatch, refused: dict[int, str]) -> EventBatch:
        """The events from the first one on that is so new that nothing which was lost can be replaced any more."""
        assert self._lost_until_ms is not None, "nothing was lost"
        is_beyond = events.event_time_ms > self._lost_until_ms
        first = int(is_beyond.argmax()) if is_beyond.any() else len(is_beyond)
        refused.update((offset, LOST) for offset in events.offsets[:first].tolist())
        if first < len(is_beyond):
            self._lost_until_ms = None
            self._marks.clear()
            self._is_whole = True
        return _rows_of(events, np.arange(len(is_beyond)) >= first)

    def _move_on(self, offsets: Int64Array, newest_ms: Int64Array, are_doubtful: BoolArray) -> None:
        """Note where reading may begin, and forget what has been held for a horizon."""
        if not len(offsets):
            return
        step_ms = max(1, self._horizon_ms // MARKS_A_HORIZON)
        # Behind an event that may not have been counted nobody knows which one is newer than all before it.
        count = int(are_doubtful.argmax()) if are_doubtful.any() else len(offsets)
        while not self._is_in_doubt:
            bound_ms = self._marks[-1].newest_ms + step_ms if self._marks else -FAR_MS
            row = int(newest_ms.searchsorted(bound_ms))
            if row >= count:
                break
            self._marks.append(_Mark(int(offsets[row]), int(newest_ms[row]), self._refused_ms))
            self._refused_ms = FAR_MS
        self._is_in_doubt |= count < len(offsets)
        self._newest_ms = int(newest_ms[-1])
        self._newest_at_most_ms = max(self._newest_at_most_ms, self._newest_ms)
        oldest_ms = self._newest_ms - self._horizon_ms
        while len(self._marks) > 1 and self._marks[1].newest_ms <= oldest_ms:
            self._marks.popleft()
            self._is_whole = True
        # Those that came first come first.
        gone = 0
        for version in self._held.values():
            if version.at_most_ms >= oldest_ms:
                break
            gone += 1
        for event_id in list(islice(self._held, gone)):
            del self._held[event_id]


def _rows_of(events: EventBatch, is_wanted: BoolArray) -> EventBatch:
    """Some events of a read."""
    if is_wanted.all():
        return events
    assert events.event_ids is not None, "events that replace one another have ids"
    return EventBatch(
        topic=events.topic,
        partition=events.partition,
        from_offset=events.from_offset,
        next_offset=events.next_offset,
        offsets=events.offsets[is_wanted],
        event_time_ms=events.event_time_ms[is_wanted],
        event_ids=events.event_ids[is_wanted],
        columns={name: column.take(is_wanted) for name, column in events.columns.items()},
    )


def _are_equal(first: EventBatch, row: int, second: EventBatch, other: int) -> bool:
    """Whether two events say the same, as far as it is read."""
    if first.event_time_ms[row] != second.event_time_ms[other]:
        return False
    for name, column in first.columns.items():
        with_it = second.columns[name]
        is_null = column.valid is not None and not column.valid[row]
        if is_null != (with_it.valid is not None and not with_it.valid[other]):
            return False
        if not is_null and column.values[row] != with_it.values[other]:
            return False
    return True
