"""The event ids that one writer has seen lately: in memory to ask, in its lanes' buckets to survive a crash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from featurestore.core.events import BoolArray
from featurestore.online.store import OnlineStore
from featurestore.online.write.horizon_clock import HorizonClock
from featurestore.online.write.id_horizon import HashArray, IdHorizon
from featurestore.online.write.new_rows import UnseenRows
from featurestore.wire.store_layout import Checkpoint, GenerationKeys

NO_EVENT_MS = -(1 << 62)
"""Older than any event."""


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
        """Replace everything by what lanes have stored, according to the checkpoint of each."""
        wanted = [(lane, bucket) for lane, checkpoint in checkpoints.items() for bucket in checkpoint.id_buckets]
        frontier: dict[tuple[str, int], int] = {}
        for checkpoint in checkpoints.values():
            for topic, number, offset in checkpoint.positions:
                frontier[topic, number] = max(offset, frontier.get((topic, number), 0))
        self._frontier = frontier
        current = self._bucket_at_load = max((bucket for _, bucket in wanted), default=0)
        self._horizon, self._clock = IdHorizon(), HorizonClock(self._horizon_ms, current, frontier)
        stored = store.read_groups([[keys.id_bucket(lane, bucket)] for lane, bucket in wanted])
        for (_, bucket), data in zip(wanted, stored, strict=True):
            hashes = np.unique(np.frombuffer(data or b"", dtype="<u8"))
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
