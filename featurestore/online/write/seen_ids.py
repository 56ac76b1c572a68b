"""The event ids that one writer has seen lately: in memory to ask, in its lanes' buckets to survive a crash.

An id is remembered for at least one horizon of its partition's event time, so a retry within the horizon never counts
twice. When ids may be forgotten is told by a clock that waits for the slowest source partition:

    partition 0   ────────3h───────6h──────9h      read far ahead
    partition 1   ──0h─────────1h─────────2h       still catching up
    bucket        [   41      )[    42    )[ 43    a new one each time that every partition has moved on one horizon

A retry follows its original in the same partition, or about when the original's partition stood there; how far other
partitions have come says nothing about it. So an id that is put into the current bucket, and kept until two buckets
later, is remembered for at least one horizon of its own partition's event time.
Order of events: any. Space: one entry a partition, and 16 to 32 bytes an id of the last two buckets: each is an
open-addressing table of uint64 (linear probing, at most half full), about 50 ns a look-up in bulk. A partition that
falls silent stops counting after IDLE_AFTER_ROWS rows of the others, which bounds the ids that are kept for its sake.
Two different ids with one hash would drop an event: with 20 million ids remembered the chance is about 1e-12 an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.events import BoolArray, Int64Array
from featurestore.errors import TileLost
from featurestore.online.store import OnlineStore
from featurestore.online.write.new_rows import HashArray, UnseenRows
from featurestore.wire.store_layout import Checkpoint, GenerationKeys

NO_EVENT_MS = -(1 << 62)
"""Older than any event."""

Partition = tuple[str, int]
"""(topic, partition)."""

IDLE_AFTER_ROWS = 1_000_000
"""Rows of other partitions after which a partition without any no longer holds the clock: some 30 MB of ids."""

BUCKETS_KEPT = 2
HASH_BYTES = 8
_CAPACITY_MIN = 1 << 10
_FREE = np.uint64(0)


class SeenIds:
    """Hashes of event ids within the source's horizon.

    Args:
        horizon_ms: how long an id is remembered, progress of its partition's event time, > 0.
    """

    def __init__(self, horizon_ms: int) -> None:
        self._horizon_ms = horizon_ms
        self._horizon = IdHorizon()
        self._clock = HorizonClock(horizon_ms)
        self._bucket_at_load = 0
        self._frontier: dict[tuple[str, int], int] = {}

    def load(self, store: OnlineStore, keys: GenerationKeys, checkpoints: Mapping[int, Checkpoint]) -> None:
        """Replace everything by what lanes have stored, according to the checkpoint of each.

        Raises:
            TileLost: a checkpoint lists ids that are not there; their retries would count again.
        """
        wanted = [(lane, *listed) for lane, checkpoint in checkpoints.items() for listed in checkpoint.id_buckets]
        frontier: dict[tuple[str, int], int] = {}
        for checkpoint in checkpoints.values():
            for topic, number, offset in checkpoint.positions:
                frontier[topic, number] = max(offset, frontier.get((topic, number), 0))
        self._frontier = frontier
        current = self._bucket_at_load = max((bucket for _, bucket, _ in wanted), default=0)
        self._horizon, self._clock = IdHorizon(), HorizonClock(self._horizon_ms, current, frontier)
        stored = store.read_groups([[keys.id_bucket(lane, bucket)] for lane, bucket, _ in wanted])
        for (lane, bucket, count), found in zip(wanted, stored, strict=True):
            data = found or b""
            _require_all(lane, bucket, count, len(data) // HASH_BYTES)
            hashes = np.unique(np.frombuffer(data, dtype="<u8"))
            self._horizon.remember(max(bucket, current - 1), hashes[self._horizon.admit(hashes)])

    def admit(self, hashes: HashArray) -> BoolArray:
        """(N,) True for each hash that was not seen and that did not come earlier in `hashes`."""
        return self._horizon.admit(hashes)

    def remember(self, batches: Sequence[UnseenRows], hashes: HashArray) -> tuple[int, int]:
        """Remember the new ids of some reads.

        Returns:
            The bucket that they go to, and the first bucket that lanes must still keep.
        """
        newest_ms: dict[tuple[str, int], int] = {}
        for batch in (unseen.batch for unseen in batches if len(unseen.batch.offsets)):
            partition = (batch.topic, batch.partition)
            if batch.next_offset <= self._frontier.get(partition, 0):
                # Read again for the sake of lanes that are behind. The ids that the foremost lane has stored are those
                # before its position, so time must not pass for them until the reading has come there.
                continue
            newest_ms[partition] = max(int(batch.event_time_ms.max()), newest_ms.get(partition, NO_EVENT_MS))
        bucket = self._clock.advance(newest_ms, len(hashes))
        if len(hashes):
            self._horizon.remember(bucket, hashes)
        self._horizon.forget_before(bucket)
        # Lanes that another writer has filled may have lower numbers; until the clock moves on they are all needed.
        return bucket, bucket - 1 if bucket > self._bucket_at_load else 0


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


class IdHorizon:
    """Event-id hashes of the last horizon."""

    def __init__(self) -> None:
        self._buckets: dict[int, _HashSet] = {}

    def admit(self, hashes: HashArray) -> BoolArray:
        """(N,) True for each hash that no kept bucket has and that did not come earlier in `hashes`."""
        hashes = _nonzero(hashes)
        known = np.zeros(len(hashes), dtype=np.bool_)
        for bucket in self._buckets.values():
            known |= bucket.contains(hashes)
        _, first = np.unique(hashes, return_index=True)
        is_first = np.zeros(len(hashes), dtype=np.bool_)
        is_first[first] = True
        return is_first & ~known

    def remember(self, bucket: int, hashes: HashArray) -> None:
        """Add distinct hashes that `admit` let pass."""
        if bucket not in self._buckets:
            self._buckets[bucket] = _HashSet()
        self._buckets[bucket].add(hashes)

    def forget_before(self, bucket: int) -> None:
        """Drop the buckets older than the last BUCKETS_KEPT up to `bucket`."""
        for old in [kept for kept in self._buckets if kept <= bucket - BUCKETS_KEPT]:
            del self._buckets[old]


class _HashSet:
    """A set of non-zero uint64, added to and asked in bulk."""

    def __init__(self) -> None:
        self._slots: HashArray = np.zeros(_CAPACITY_MIN, dtype=np.uint64)
        self._size = 0

    def contains(self, hashes: HashArray) -> BoolArray:
        """(N,) membership."""
        wanted = _nonzero(hashes)
        mask = len(self._slots) - 1
        found = np.zeros(len(wanted), dtype=np.bool_)
        open_rows: Int64Array = np.arange(len(wanted))
        at = (wanted & np.uint64(mask)).astype(np.int64)
        while len(open_rows):
            slot = self._slots[at]
            hit = slot == wanted[open_rows]
            found[open_rows[hit]] = True
            going_on = ~hit & (slot != _FREE)
            open_rows, at = open_rows[going_on], (at[going_on] + 1) & mask
        return found

    def add(self, hashes: HashArray) -> None:
        """Insert distinct hashes that are not members."""
        self._size += len(hashes)
        if self._size * 2 > len(self._slots):
            members = self._slots[self._slots != _FREE]
            self._slots = np.zeros(1 << (4 * self._size - 1).bit_length(), dtype=np.uint64)
            self._insert(members)
        self._insert(_nonzero(hashes))

    def _insert(self, hashes: HashArray) -> None:
        """Linear probing for all at once: of those that aim at one free slot the last wins, the others go on."""
        mask = len(self._slots) - 1
        waiting = hashes
        at = (waiting & np.uint64(mask)).astype(np.int64)
        while len(waiting):
            free = self._slots[at] == _FREE
            self._slots[at[free]] = waiting[free]
            going_on = self._slots[at] != waiting
            waiting, at = waiting[going_on], (at[going_on] + 1) & mask


def _require_all(lane: int, bucket: int, count: int, found: int) -> None:
    """Refuse a bucket that has lost ids, also one that has been begun anew since.

    Raises:
        TileLost: it has.
    """
    if found != count:
        raise TileLost(f"of {count} event ids of lane {lane}, bucket {bucket}, the store has {found}")


def _nonzero(hashes: HashArray) -> HashArray:
    """0 marks a free slot, so the hash 0 is taken for 1."""
    return np.maximum(hashes, np.uint64(1))
