"""A process's way to the simulated store: commits that are lost, late, halved or sent twice, and refused writes.

    lost              not applied, and the writer is told nothing
    unacknowledged    applied, and the writer is told nothing
    halved            applied on some lanes only, and the writer is told nothing
    delayed           told nothing now; it arrives when the network lets it, perhaps after a successor has come
    twice             the connection broke: sent again, and answered by the second time
    rolled back       not applied: the store was away, and is an older copy of itself when it comes back
    full              refused for want of memory, on some lanes at least

A writer that is told nothing knows of an outage, and must ask the store what was applied.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from featurestore.errors import OnlineStoreDown, StoreFull
from featurestore.online.eviction import StoreMemory
from featurestore.online.store import AsyncReads, LaneCommit, LaneOutcome, MadeCommit, PendingCommit
from featurestore.testing.simulation.stand_ins.store import SimulatedStore
from featurestore.wire.store_layout import decode_checkpoint

FAULTS = ("lost", "unacknowledged", "halved", "delayed", "twice", "full", "rolled back")


Begin = tuple[int, int]
"""Incarnation of the topic, and the first offset that was there to be read."""


class _Armed(NamedTuple):
    """What befalls the next writes."""

    fault: str
    writes: int
    seed: int


class StoreClient:
    """An OnlineStore whose writes may fail.

    Args:
        store: what it talks to.
        counts: told what happened.
        begins: told where lanes begin partitions that they had not read, once that is committed.

    Attributes:
        roll_back: lets the store become an older copy of itself, chosen by a seed.
        starts: where this process begins, by name of the generation's keys and partition.
    """

    def __init__(self, store: SimulatedStore, counts: Counter[str], begins: dict[tuple[bytes, int], Begin]) -> None:
        self._store = store
        self._counts = counts
        self._begins = begins
        self.starts: dict[tuple[str, int], Begin] = {}
        self.roll_back: Callable[[int], None] = lambda seed: None
        self._armed: _Armed | None = None
        self._delayed: list[list[LaneCommit]] = []
        self._begun = 0

    def arm(self, fault: str, writes: int, seed: int) -> None:
        """Let a fault befall the next writes.

        Args:
            fault: one of FAULTS.
            writes: how many.
            seed: decides what else there is to decide.
        """
        self._armed = _Armed(fault, writes, seed)

    def disarm(self) -> None:
        """Whatever was to come does not."""
        self._armed = None

    def deliver(self) -> None:
        """What was delayed arrives now, whoever writes the lanes by now."""
        for commits in self._delayed:
            outcomes = self._apply(commits)
            is_late = not all(outcome.applied for outcome in outcomes)
            self._counts["delayed commit refused" if is_late else "delayed commit applied"] += 1
        self._delayed.clear()

    def commit(self, lanes: Sequence[LaneCommit]) -> list[LaneOutcome]:
        """See OnlineStore."""
        armed = self._next_fault()
        if armed is None:
            return self._apply(lanes)
        if armed.fault == "twice":
            self._apply(lanes)
            return self._apply(lanes)
        if armed.fault == "unacknowledged":
            self._apply(lanes)
        elif armed.fault in ("halved", "full"):
            draw = random.Random(armed.seed + armed.writes)
            self._apply([lane for lane in lanes if draw.random() < 0.5])
        elif armed.fault == "rolled back":
            self.roll_back(armed.seed)
        elif armed.fault == "delayed":
            self._delayed.append(list(lanes))
        raise StoreFull("simulated store is full") if armed.fault == "full" else OnlineStoreDown("no answer")

    def begin_commit(self, lanes: Sequence[LaneCommit]) -> PendingCommit:
        """See OnlineStore: it arrives at once, or only when its outcomes are asked for."""
        self._begun += 1
        if self._begun % 2 or self._armed is not None:
            return _Late(self, lanes)
        return MadeCommit(self.commit(lanes))

    def read_groups(self, groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None) -> list[bytes | None]:
        """See OnlineStore."""
        return self._store.read_groups(groups, timeout_ms=timeout_ms)

    def async_reads(self) -> AsyncReads:
        """See OnlineStore."""
        return self._store.async_reads()

    def compare_and_set(self, key: bytes, expected: bytes | None, replacement: bytes) -> bool:
        """See OnlineStore."""
        return self._write(lambda: self._store.compare_and_set(key, expected, replacement))

    def compare_and_set_field(self, key: bytes, field: bytes, expected: bytes | None, replacement: bytes) -> bool:
        """See OnlineStore."""
        return self._write(lambda: self._store.compare_and_set_field(key, field, expected, replacement))

    def write_newer(self, entries: Sequence[tuple[bytes, int, bytes, int]]) -> None:
        """See OnlineStore."""
        self._store.write_newer(entries)

    def hash_fields(self, key: bytes) -> dict[bytes, bytes]:
        """See OnlineStore."""
        return self._store.hash_fields(key)

    def hash_version(self, key: bytes) -> bytes:
        """See OnlineStore."""
        return self._store.hash_version(key)

    def hash_field(self, key: bytes, field: bytes) -> bytes | None:
        """See OnlineStore."""
        return self._store.hash_field(key, field)

    def scan(self, pattern: bytes) -> Iterator[bytes]:
        """See OnlineStore."""
        return self._store.scan(pattern)

    def delete(self, keys: Iterable[bytes]) -> int:
        """See OnlineStore."""
        return self._store.delete(keys)

    def memory(self) -> StoreMemory | None:
        """See OnlineStore."""
        return self._store.memory()

    def memory_bytes(self, key: bytes) -> int:
        """See OnlineStore."""
        return self._store.memory_bytes(key)

    def require_rights(self, key: bytes) -> None:
        """See OnlineStore: everybody may do everything."""

    def close(self) -> None:
        """See OnlineStore."""

    def _apply(self, lanes: Sequence[LaneCommit]) -> list[LaneOutcome]:
        """What arrives; when a lane errs, others have been applied."""
        try:
            return self._store.commit(lanes)
        finally:
            for lane in lanes:
                if lane.replacement != lane.expected:
                    self._note_begins(lane)

    def _note_begins(self, lane: LaneCommit) -> None:
        """Where it has begun partitions, if its checkpoint has arrived."""
        if self._store.read_groups([[lane.checkpoint_key]]) != [lane.replacement]:
            return
        # Of a partition at offset 0 nothing was read: whatever topic is there by then may still be the first.
        before = {number: offset for _, number, offset in decode_checkpoint(lane.expected).positions}
        stem = lane.checkpoint_key.decode().partition("}")[2].rpartition("/")[0]
        for _, number, offset in decode_checkpoint(lane.replacement).positions:
            if not before.get(number) and offset != before.get(number):
                self._begins[lane.checkpoint_key, number] = self.starts[stem, number]

    def _write(self, write: Callable[[], bool]) -> bool:
        """A small write: it arrives or not, and the answer does not."""
        armed = self._next_fault()
        if armed is None:
            return write()
        if armed.fault == "twice":
            write()
            return write()
        if armed.fault == "full":
            raise StoreFull("simulated store is full")
        if armed.fault == "unacknowledged":
            write()
        raise OnlineStoreDown("no answer")

    def _next_fault(self) -> _Armed | None:
        """What befalls this write."""
        armed = self._armed
        if armed is not None:
            self._counts[f"write {armed.fault}"] += 1
            self._armed = armed._replace(writes=armed.writes - 1) if armed.writes > 1 else None
        return armed


class _Late:
    """A commit that arrives when its outcomes are asked for.

    Args:
        client: whose.
        lanes: what is committed.
    """

    def __init__(self, client: StoreClient, lanes: Sequence[LaneCommit]) -> None:
        self._client = client
        self._lanes = lanes

    def outcomes(self) -> list[LaneOutcome]:
        """See PendingCommit."""
        return self._client.commit(self._lanes)
