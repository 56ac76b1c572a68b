"""When event ids may be forgotten: a clock that waits for the slowest source partition.

    partition 0   ────────3h───────6h──────9h      read far ahead
    partition 1   ──0h─────────1h─────────2h       still catching up
    bucket        [   41      )[    42    )[ 43    a new one each time that every partition has moved on one horizon

A retry follows its original in the same partition, or about when the original's partition stood there; how far other
partitions have come says nothing about it. So an id that is put into the current bucket, and kept until two buckets
later, is remembered for at least one horizon of its own partition's event time.
Order of events: any. Space: one entry a partition. A partition that falls silent stops counting after IDLE_AFTER_ROWS
rows of the others, which bounds the ids that are kept for its sake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Partition = tuple[str, int]
"""(topic, partition)."""

IDLE_AFTER_ROWS = 1_000_000
"""Rows of other partitions after which a partition without any no longer holds the clock: some 30 MB of ids."""


@dataclass(slots=True)
class _Progress:
    """Newest event time of a partition, where that stood when the bucket began, and the row count of its last row."""

    newest_ms: int
    bucket_began_ms: int
    last_row: int


class HorizonClock:
    """Numbers the buckets into which ids are put.

    Args:
        horizon_ms: how long an id must be remembered, progress of its partition's event time, > 0.
        bucket: number to go on from; buckets kept by an earlier clock must not have a higher one.
        partitions: those that an earlier clock has seen; they hold this one until they have shown where they are.

    Attributes:
        bucket: the current bucket; never falls.
    """

    def __init__(self, horizon_ms: int, bucket: int = 0, partitions: Iterable[Partition] = ()) -> None:
        self.bucket = bucket
        self._horizon_ms = horizon_ms
        self._rows = 0
        self._partitions: dict[Partition, _Progress] = {}
        self._awaited = set(partitions)

    def advance(self, newest_ms: Mapping[Partition, int], rows: int) -> int:
        """Take note of rows that were read; the bucket for their ids.

        Args:
            newest_ms: newest event time of the rows of each partition that has any.
            rows: how many they are.

        >>> clock = HorizonClock(1_000)
        >>> [clock.advance({("t", 0): at}, 1) for at in (0, 999, 1_000, 1_999, 2_000)]
        [0, 0, 1, 1, 2]
        >>> clock.advance({("t", 0): 9_000, ("t", 1): 5}, 2), clock.advance({("t", 0): 99_000}, 1)
        (2, 2)
        >>> clock.advance({("t", 1): 1_005}, 1)
        3
        """
        self._rows += rows
        for partition, time_ms in newest_ms.items():
            progress = self._partitions.setdefault(partition, _Progress(time_ms, time_ms, self._rows))
            progress.newest_ms = max(progress.newest_ms, time_ms)
            progress.last_row = self._rows
        self._awaited.difference_update(newest_ms)
        if self._awaited and self._rows <= IDLE_AFTER_ROWS:
            return self.bucket
        active = [one for one in self._partitions.values() if self._rows - one.last_row <= IDLE_AFTER_ROWS]
        if active and all(one.newest_ms - one.bucket_began_ms >= self._horizon_ms for one in active):
            self.bucket += 1
            for progress in self._partitions.values():
                progress.bucket_began_ms = progress.newest_ms
        return self.bucket
