"""What is published, and when: from entities that changed to the messages of one transaction.

    changed entities ──┐
                       ├──> vectors ──> policy ──> messages + positions ──> one transaction
    due ones ──────────┘                  │
       ^                                  └──> again when a window slides, or the pause is over
       └──────────────────────────────────────────┘

A transaction holds what all records before its positions changed, and nothing else. So what was read and is not
committed is read again, and whoever reads what is committed sees each change once.

What was published of an entity last is known from the output itself, which is read at the start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dataflows.log_to_features.changes import ChangedEntities, Place
from dataflows.log_to_features.schedule import Schedule
from dataflows.log_to_features.vectors import Vector, Vectors, Wanted
from featurestore.clock import NS_PER_MS, Clock
from featurestore.errors import AsOfTooOld, CorruptData

DUE_TOGETHER_MAX = 2_000
"""Entities that are looked at between two transactions because they are due; others wait for the next."""

IDLE_COMMIT_MS = 1_000
"""Positions without messages wait so long."""

RENEWAL_MS = 3_600_000
"""Positions that do not move are committed again: Kafka forgets those of a group that has been silent for some days."""

DAMAGED_AGAIN_MS = 5_000
"""An entity whose bytes are damaged is looked at again; another generation may serve it by then."""

DIGEST, AS_OF, NEXT_CHANGE = "featurestore.digest", "featurestore.as_of_ms", "featurestore.next_change_ms"
"""Headers: what the next run must know of a message."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is worth a message.

    Attributes:
        only_changes: a vector that is the one published last is not.
        follows_windows: what changes because a window slid is, beside what events change.
        pause_ms: of an entity, so long after its last one; what it has then is published.
    """

    only_changes: bool = False
    follows_windows: bool = False
    pause_ms: int = 0

    @property
    def remembers(self) -> bool:
        """Whether it asks what was published last."""
        return self.only_changes or self.follows_windows or self.pause_ms > 0


@dataclass(slots=True)
class LastPublished:
    """What was published of an entity last.

    Attributes:
        as_of_ms: the vector's read time.
        digest: see Vector; None: that there is none any more.
        next_change_ms: see Vector.
    """

    as_of_ms: int
    digest: int | None
    next_change_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A vector to publish.

    Attributes:
        vector: the vector.
        is_removal: it does not meet the condition any more: whoever keeps the last message of each key is to forget it.
        is_event: events have changed it, not a window alone.
    """

    vector: Vector
    is_removal: bool
    is_event: bool

    @property
    def headers(self) -> dict[str, str]:
        """What `last_of` needs."""
        headers = {AS_OF: str(self.vector.as_of_ms)}
        if not self.is_removal:
            headers[DIGEST] = f"{self.vector.digest:016x}"
        if self.vector.next_change_ms is not None:
            headers[NEXT_CHANGE] = str(self.vector.next_change_ms)
        return headers


def last_of(headers: Mapping[str, str | bytes]) -> LastPublished | None:
    """What a message says of its entity by its headers; None of one that somebody else has written."""
    if AS_OF not in headers:
        return None
    digest, following = headers.get(DIGEST), headers.get(NEXT_CHANGE)
    return LastPublished(
        int(headers[AS_OF]),
        None if digest is None else int(digest, 16),
        None if following is None else int(following),
    )


class Output(Protocol):
    """Where messages go, with the positions up to which they are complete: both, or nothing."""

    def positions(self) -> Mapping[Place, int]:
        """Next offsets that were committed last."""
        ...

    def published(self) -> Iterable[tuple[bytes, LastPublished]]:
        """What was published, by key, oldest first."""
        ...

    def commit(self, messages: Sequence[Message], positions: Mapping[Place, int]) -> None:
        """Publish messages and positions in one step; returns when they are safe.

        Raises:
            WriterFenced: another process publishes this.
            SourceUnavailable: it does not answer; nothing was committed, or all. To be called again with the same.
        """
        ...

    def close(self) -> None:
        """Leave it; what is not committed is nobody's."""
        ...


class Reads(Protocol):
    """Looks entities up."""

    def read(self, wanted: Sequence[Wanted]) -> Vectors:
        """See VectorReader."""
        ...


@dataclass(slots=True)
class _Waiting:
    """What must be in an entity's vector."""

    needs: dict[Place, int] = field(default_factory=dict)
    event_time_ms: int | None = None


class Publisher:
    """Decides what is published; used by the flow's thread alone.

    Args:
        reads: looks entities up.
        output: where messages go.
        policy: what is worth one.
        clock: processing time.

    Attributes:
        messages: how many were published.
        positions: next offsets of what was taken.
    """

    def __init__(self, reads: Reads, output: Output, policy: Policy, clock: Clock) -> None:
        self._reads, self._output, self._policy, self._clock = reads, output, policy, clock
        self._last: dict[bytes, LastPublished] = {}
        self._schedule = Schedule()
        self._waiting: dict[bytes, _Waiting] = {}
        self._ahead_ms: dict[bytes, int] = {}
        self.positions: dict[Place, int] = dict(output.positions())
        self._ready: list[Message] = []
        self._is_moved = False
        self._committed_ns = clock.monotonic_ns()
        self.messages = 0
        if policy.remembers:
            for key, last in output.published():
                self._last[key] = last
            newest_ms = max((last.as_of_ms for last in self._last.values()), default=0)
            for key, last in self._last.items():
                self._put_again(key, last, newest_ms)

    @property
    def is_behind(self) -> bool:
        """Whether the store does not have yet what was taken."""
        return bool(self._waiting)

    def take(self, changed: ChangedEntities) -> None:
        """What a read has of entities."""
        self.positions[changed.place] = changed.next_offset
        self._is_moved = True
        for key, change in changed.changes.items():
            waiting = self._waiting.setdefault(key, _Waiting())
            waiting.needs[changed.place] = change.next_offset
            waiting.event_time_ms = max(change.event_time_ms, waiting.event_time_ms or change.event_time_ms)

    def publish(self) -> bool:
        """Publish what can be; to be called again until nothing is behind.

        Returns:
            Whether the store has all that was taken, so that more may be taken.

        Raises:
            OnlineStoreDown, WriterFenced, SourceUnavailable: see there; calling again goes on where it was.
        """
        due = self._schedule.take(self._clock.now_ms(), DUE_TOGETHER_MAX)
        wanted = [self._wanted(key, one) for key, one in self._waiting.items()]
        wanted += [self._wanted(key, _Waiting()) for key in due if key not in self._waiting]
        try:
            found = self._reads.read(wanted)
        except BaseException:
            for key in due:
                self._schedule.put(key, 0)
            raise
        for vector in found.found:
            is_event = self._waiting.pop(vector.key, None) is not None
            self._ahead_ms.pop(vector.key, None)
            if vector.as_of_ms > self._clock.now_ms():
                self._ahead_ms[vector.key] = vector.as_of_ms
            self._decide(vector, is_event=is_event)
        for row, error in found.refused:
            self._waiting.pop(row.key, None)
            self._set_aside(row, error)
        if self._waiting:
            return False
        idle_ms = (self._clock.monotonic_ns() - self._committed_ns) // NS_PER_MS
        self._is_moved |= bool(self.positions) and idle_ms >= RENEWAL_MS
        if self._ready or (self._is_moved and idle_ms >= IDLE_COMMIT_MS):
            self.commit()
        return True

    def commit(self) -> None:
        """Publish what is ready, and how far that is."""
        assert not self._waiting, "positions would pass what was not published"
        if self._ready or self._is_moved:
            self._output.commit(self._ready, self.positions)
            self.messages += len(self._ready)
            self._ready = []
            self._is_moved = False
            self._committed_ns = self._clock.monotonic_ns()

    def _wanted(self, key: bytes, waiting: _Waiting) -> Wanted:
        """An entity to look up: never as of a moment before the last, or an event that is ahead would go again."""
        last = self._last.get(key)
        moments = [0 if last is None else last.as_of_ms, self._ahead_ms.get(key, 0)]
        if waiting.event_time_ms is not None:
            moments.append(waiting.event_time_ms + 1)
        return Wanted(key, waiting.needs, max(moments))

    def _decide(self, vector: Vector, *, is_event: bool) -> None:
        """A message, or none, and when to look again."""
        policy = self._policy
        if not policy.remembers:
            if vector.is_wanted:
                self._ready.append(Message(vector, is_removal=False, is_event=is_event))
            return
        key, last = vector.key, self._last.get(vector.key)
        digest = vector.digest if vector.is_wanted else None
        if digest != (None if last is None else last.digest):
            again_ms = 0 if last is None else last.as_of_ms + policy.pause_ms
            if again_ms > vector.as_of_ms:
                self._schedule.put(key, again_ms)
                return
            self._ready.append(Message(vector, is_removal=digest is None, is_event=is_event))
            last = self._last[key] = LastPublished(vector.as_of_ms, digest)
        if policy.follows_windows and vector.next_change_ms is not None:
            self._schedule.put(key, vector.next_change_ms)
        if last is not None:
            last.next_change_ms = vector.next_change_ms

    def _put_again(self, key: bytes, last: LastPublished, newest_ms: int) -> None:
        """Plan what the run before had planned: what slides, and what waited for the end of its pause.

        A pause that was over before the newest message was made had nothing to publish any more.
        """
        if self._policy.follows_windows and last.next_change_ms is not None:
            self._schedule.put(key, last.next_change_ms)
        over_ms = last.as_of_ms + self._policy.pause_ms
        if self._policy.pause_ms and over_ms >= newest_ms:
            self._schedule.put(key, over_ms)

    def _set_aside(self, row: Wanted, error: CorruptData | AsOfTooOld) -> None:
        """Say that an entity is not published now, and look at it again."""
        _logger.error("an entity is not published until it can be read: %s", error.message)
        self._schedule.put(row.key, self._clock.now_ms() + DAMAGED_AGAIN_MS)
