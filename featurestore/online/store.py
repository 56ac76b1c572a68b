"""What the online store must be able to do: the seam between this package and Redis, Valkey or a cluster of them.

A store is a set of byte strings under keys; keys of one lane share a hash tag. The only write that touches tiles is
`commit`: per lane one atomic step that compares the checkpoint, then applies everything or nothing.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from featurestore.errors import DeadlineSpent
from featurestore.online.eviction import StoreMemory

READ_THREADS_MAX = 32
"""Blocking reads of one event loop at a time; one that the store does not answer takes a thread until its deadline."""


@dataclass(frozen=True, slots=True)
class PackedAppends:
    """Rows of entities, which go to the heads of packs where an entity has neither head nor body of its own.

    Attributes:
        head_prefix: what the keys of packs' heads begin with.
        body_prefix: what those of their bodies begin with; head and body of a pack go together as an entity's do.
        names: of P packs, what follows the prefixes; one of many entities may be there several times.
        ends: where the entities of each end among those of the commit, which are in the order of their packs; the begin
            of the next one.
        records: for each, the rows of its entities, behind what says whose they are.
        report_bytes_min: heads of packs at least this long after the commit are reported.
    """

    head_prefix: bytes
    body_prefix: bytes
    names: Sequence[bytes]
    ends: Sequence[int]
    records: Sequence[bytes]
    report_bytes_min: int


@dataclass(frozen=True, slots=True)
class LaneCommit:
    """One lane's share of a micro-batch, applied atomically if the checkpoint is the expected one.

    Attributes:
        checkpoint_key: the lane's checkpoint.
        expected: its bytes as this writer last saw them; b"" for a lane that was never opened.
        replacement: its bytes after the commit.
        bodies: (body key, head key, body): the body is set and the head deleted, before any append; an empty
            body deletes both. Of a pack and of what leaves it likewise, the pack last.
        head_prefix: what all head keys begin with; an entity's body key has `body_prefix` instead.
        body_prefix: see above; an append lets the body live as long as the head.
        entities: keys of the entities to whose heads something is appended.
        appends: what, aligned with `entities`; nothing where there are packs.
        packed: what is appended in their place to the heads of entities that have a head or a body, and to those of
            packs for all others; None for heads of their own.
        id_appends: (key, bytes) appended without expiry.
        deletions: keys to delete.
        expire_ms: how long heads and bodies live from now at least, and an eighth longer at most; 0 for ever.
        report_bytes_min: heads at least this long after the commit are reported.
    """

    checkpoint_key: bytes
    expected: bytes
    replacement: bytes
    bodies: Sequence[tuple[bytes, bytes, bytes]] = ()
    head_prefix: bytes = b""
    body_prefix: bytes = b""
    entities: Sequence[bytes] = ()
    appends: Sequence[bytes] = ()
    packed: PackedAppends | None = None
    id_appends: Sequence[tuple[bytes, bytes]] = ()
    deletions: Sequence[bytes] = ()
    expire_ms: int = 0
    report_bytes_min: int = 0


@dataclass(frozen=True, slots=True)
class LaneOutcome:
    """What became of a LaneCommit.

    Attributes:
        applied: False when the checkpoint was not the expected one; then nothing of the lane was written.
        found: the checkpoint's bytes when not applied, b"" when it is missing.
        long_heads: indices into `entities` of heads that reached `report_bytes_min`.
        long_packs: likewise of packs, whose heads reached that of `packed`.
    """

    applied: bool
    found: bytes
    long_heads: tuple[int, ...] = ()
    long_packs: tuple[int, ...] = ()


class PendingCommit(Protocol):
    """A commit that was sent."""

    def outcomes(self) -> list[LaneOutcome]:
        """Wait for what became of each lane; to be called once, also where nobody wants to know any more."""
        ...


class MadeCommit:
    """A PendingCommit that is over: of a store that cannot do anything else meanwhile.

    Args:
        outcomes: what became of it.
    """

    def __init__(self, outcomes: list[LaneOutcome]) -> None:
        self._outcomes = outcomes

    def outcomes(self) -> list[LaneOutcome]:
        """See PendingCommit."""
        return self._outcomes


class OnlineStore(Protocol):
    """Redis, Valkey, or a cluster of either. Every method raises OnlineStoreDown when the store does not answer."""

    def commit(self, lanes: Sequence[LaneCommit]) -> list[LaneOutcome]:
        """Apply each lane's commit atomically, all lanes in one round trip a node.

        After OnlineStoreDown it is unknown which lanes were applied: the writer must reopen them.
        """
        ...

    def begin_commit(self, lanes: Sequence[LaneCommit]) -> PendingCommit:
        """As `commit`, without waiting for the outcomes; a lane is in one pending commit at a time.

        Raises:
            OnlineStoreDown: it could not be sent, or somebody may have got it; a store that is full says so later.
        """
        ...

    def read_groups(self, groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None) -> list[bytes | None]:
        """Values of groups of keys, flattened, in one round trip; each group is read atomically and shares a slot.

        Raises:
            DeadlineSpent: no answer within `timeout_ms`.
        """
        ...

    def async_reads(self) -> AsyncReads:
        """The same reads for an event loop; nothing is opened before the first."""
        ...

    def compare_and_set(self, key: bytes, expected: bytes | None, replacement: bytes) -> bool:
        """Set a key if it holds `expected` (None: if it does not exist)."""
        ...

    def write_newer(self, entries: Sequence[tuple[bytes, int, bytes, int]]) -> None:
        """Write plain values, never over newer ones.

        Args:
            entries: (key, event time in ms, value, expire_ms or 0). A stored value begins with its event time as
                8 bytes little-endian; one that is newer than an entry's stays.
        """
        ...

    def hash_fields(self, key: bytes) -> dict[bytes, bytes]:
        """All fields of a hash; empty when it does not exist."""
        ...

    def hash_version(self, key: bytes) -> bytes:
        """What is another one after every `compare_and_set_field` of the hash, and when it is lost; b"" without any."""
        ...

    def hash_field(self, key: bytes, field: bytes) -> bytes | None:
        """One field of a hash."""
        ...

    def compare_and_set_field(self, key: bytes, field: bytes, expected: bytes | None, replacement: bytes) -> bool:
        """As `compare_and_set`, for one field of a hash."""
        ...

    def scan(self, pattern: bytes) -> Iterator[bytes]:
        """Keys that match; for tools and clean-up."""
        ...

    def delete(self, keys: Iterable[bytes]) -> int:
        """Delete keys; how many existed."""
        ...

    def require_rights(self, key: bytes) -> None:
        """Refuse a user who may not do all that a writer does, naming everything that is missing."""
        ...

    def memory(self) -> StoreMemory | None:
        """Memory of the servers, and whether they evict; None where this user may not see it."""
        ...

    def memory_bytes(self, key: bytes) -> int:
        """Bytes that the key and its value take in the server; 0 when it does not exist."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


class AsyncReads(Protocol):
    """Reads that do not block an event loop. Belongs to the loop that first uses it."""

    async def read_groups(
        self, groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None
    ) -> list[bytes | None]:
        """See `OnlineStore.read_groups`."""
        ...

    def close(self) -> None:
        """Give connections back; called in the loop."""
        ...


class ThreadedReads:
    """AsyncReads of any store: its blocking reads, in threads.

    Args:
        store: the store.
    """

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        # Of its own: asyncio's has hardly more threads than cores, and these mostly wait.
        self._threads = ThreadPoolExecutor(READ_THREADS_MAX, thread_name_prefix="store-reads")

    async def read_groups(
        self, groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None
    ) -> list[bytes | None]:
        """See AsyncReads. A thread that waits for a store longer than its caller may is left behind."""
        read = functools.partial(self._store.read_groups, groups, timeout_ms=timeout_ms)
        reading = asyncio.get_running_loop().run_in_executor(self._threads, read)
        try:
            return await asyncio.wait_for(reading, None if timeout_ms is None else timeout_ms / 1_000)
        except TimeoutError as error:
            raise DeadlineSpent("the online store did not answer within the deadline") from error

    def close(self) -> None:
        """See AsyncReads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
