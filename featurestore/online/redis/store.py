"""Redis and Valkey, standalone or cluster.

Commits are scripts, because a conditional MULTI/EXEC costs a second round trip for its WATCH; a script applies whole or
not at all, is one entry of the append-only file, and knows the length that APPEND answers. Reads go past redis-py's
command layer: see `transport` and `pipeline` for one server, `cluster` for many.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import redis

from featurestore.errors import StoreFull, redacted
from featurestore.online.eviction import NO_EVICTION, StoreMemory
from featurestore.online.redis.cluster import ClusterPipelines, ClusterTransport
from featurestore.online.redis.errors import REFUSED_IN_SCRIPT, redis_errors, require_address
from featurestore.online.redis.pipeline import RedisPipeline
from featurestore.online.redis.rights import NEEDED_OUTSIDE, TRY_ALL, refuse_missing
from featurestore.online.redis.scripts import COMMIT, COMPARE_AND_SET, COMPARE_AND_SET_FIELD, SHA1, WRITE_NEWER
from featurestore.online.redis.transport import SingleTransport, Transport, raise_first
from featurestore.online.store import AsyncReads, LaneCommit, LaneOutcome, PendingCommit, ThreadedReads
from featurestore.wire.store_layout import history_key

SCAN_COUNT = 1_000
DELETE_CHUNK = 1_000


def connect(url: str, *, cluster: bool = False) -> RedisStore:
    """Open a store.

    Args:
        url: redis://[user:password@]host:port/db, rediss:// for TLS, or unix:///path; options of redis-py as query.
        cluster: whether the address is a node of a Redis or Valkey Cluster.

    Raises:
        OnlineStoreDown: nothing answers there.
    """
    store = RedisStore(url, cluster=cluster)
    store.ping()
    return store


class RedisStore:
    """An OnlineStore on redis-py; see `online.store` for what each method promises. Thread-safe."""

    def __init__(self, url: str, *, cluster: bool = False) -> None:
        self.url = url
        self._name = f"online store {redacted(url)}"
        require_address(url, self._name)
        with self._mapped():
            self._transport: Transport = ClusterTransport(url) if cluster else SingleTransport(url)

    def commit(self, lanes: Sequence[LaneCommit]) -> list[LaneOutcome]:
        """See OnlineStore."""
        return self.begin_commit(lanes).outcomes()

    def begin_commit(self, lanes: Sequence[LaneCommit]) -> PendingCommit:
        """See OnlineStore."""
        return _Pending(self, self._start_script(COMMIT, [_commit_arguments(lane) for lane in lanes]))

    def read_groups(self, groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None) -> list[bytes | None]:
        """See OnlineStore."""
        if not groups:
            return []
        with self._mapped(has_deadline=timeout_ms is not None):
            return self._transport.read(groups, timeout_s=None if timeout_ms is None else timeout_ms / 1_000)

    def async_reads(self) -> AsyncReads:
        """See OnlineStore."""
        if self.url.startswith("rediss:"):
            # redis-py speaks TLS on blocking sockets.
            return ThreadedReads(self)
        if isinstance(self._transport, ClusterTransport):
            return ClusterPipelines(self._name, self._transport, ThreadedReads(self))
        assert isinstance(self._transport, SingleTransport), "there are two kinds"
        return RedisPipeline(self._name, self._transport.new_connection)

    def compare_and_set(self, key: bytes, expected: bytes | None, replacement: bytes) -> bool:
        """See OnlineStore."""
        return bool(self._script(COMPARE_AND_SET, [((key,), _expectation(expected, replacement))])[0])

    def compare_and_set_field(self, key: bytes, field: bytes, expected: bytes | None, replacement: bytes) -> bool:
        """See OnlineStore."""
        arguments = (*_expectation(expected, replacement), field)
        return bool(self._script(COMPARE_AND_SET_FIELD, [((key, history_key(key)), arguments)])[0])

    def write_newer(self, entries: Sequence[tuple[bytes, int, bytes, int]]) -> None:
        """See OnlineStore."""
        self._script(
            WRITE_NEWER,
            [
                ((key,), (event_time_ms.to_bytes(8, "little", signed=True) + value, expire_ms))
                for key, event_time_ms, value, expire_ms in entries
            ],
        )

    def hash_fields(self, key: bytes) -> dict[bytes, bytes]:
        """See OnlineStore."""
        reply = self._run([("HGETALL", key)])[0]
        if isinstance(reply, dict):
            return reply
        return dict(zip(reply[0::2], reply[1::2], strict=True))

    def hash_version(self, key: bytes) -> bytes:
        """See OnlineStore: what the hash has been through, and how much there is of it."""
        history, size = self._run([("GET", history_key(key)), ("HLEN", key)])
        return b"" if history is None else b"%b %d" % (history, size)

    def hash_field(self, key: bytes, field: bytes) -> bytes | None:
        """See OnlineStore."""
        value: bytes | None = self._run([("HGET", key, field)])[0]
        return value

    def scan(self, pattern: bytes) -> Iterator[bytes]:
        """See OnlineStore."""
        with self._mapped():
            yield from self._client().scan_iter(match=pattern, count=SCAN_COUNT)

    def delete(self, keys: Iterable[bytes]) -> int:
        """See OnlineStore."""
        deleted, remaining = 0, iter(keys)
        while chunk := list(itertools.islice(remaining, DELETE_CHUNK)):
            deleted += sum(self._run([("UNLINK", key) for key in chunk]))
        return deleted

    def memory(self) -> StoreMemory | None:
        """See OnlineStore."""
        with self._mapped():
            try:
                found = [self._transport.info(section) for section in ("memory", "stats", "keyspace")]
            except redis.exceptions.NoPermissionError:
                return None
        memory, stats, keyspace = found
        policies = [str(one.get("maxmemory_policy", NO_EVICTION)) for one in memory]
        evicting = [
            policy for policy, one in zip(policies, memory, strict=True) if one["maxmemory"] and policy != NO_EVICTION
        ]
        return StoreMemory(
            used_bytes=sum(int(one["used_memory"]) for one in memory),
            limit_bytes=sum(int(one["maxmemory"]) for one in memory),
            policy=(evicting or policies)[0],
            evicted_keys=sum(int(one["evicted_keys"]) for one in stats),
            key_count=sum(database["keys"] for one in keyspace for database in one.values()),
        )

    def memory_bytes(self, key: bytes) -> int:
        """See OnlineStore."""
        return int(self._run([("MEMORY", "USAGE", key, "SAMPLES", "0")])[0] or 0)

    def require_rights(self, key: bytes) -> None:
        """Try what a writer needs, on a key that goes at once.

        Raises:
            OnlineStoreDown: this user may not do all of it; every missing command is named.
        """
        with self._mapped():
            replies = self._transport.run([("EVAL", TRY_ALL, 1, key, *REFUSED_IN_SCRIPT)])
            replies += [reply for command in NEEDED_OUTSIDE for reply in self._transport.run([(*command, key)])]
        denied = [
            name.lower()
            for name, reply in zip(("EVAL", *(command[0] for command in NEEDED_OUTSIDE)), replies, strict=True)
            if isinstance(reply, redis.exceptions.NoPermissionError)
        ]
        if "eval" in denied:
            denied.append("evalsha")
        elif isinstance(replies[0], list):
            denied += [name.decode() for name in replies[0]]
        refuse_missing(self._name, denied)

    def ping(self) -> None:
        """Raise OnlineStoreDown unless the store answers."""
        self._run([("GET", b"{ping}")])

    def close(self) -> None:
        """See OnlineStore."""
        self._transport.close()

    def _full(self, error: StoreFull) -> StoreFull:
        """The error with what an operator wants to know."""
        memory = self.memory()
        if memory is None:
            return error
        used, limit = f"{memory.used_bytes:,}", f"{memory.limit_bytes:,}"
        return StoreFull(f"{error.message}: {used} of {limit} bytes, {memory.key_count:,} keys", hint=error.hint)

    def _client(self) -> Any:
        """redis-py's own client, for what is rare."""
        return self._transport.client

    def _script(self, script: str, calls: Sequence[tuple[Sequence[bytes], Sequence[Any]]]) -> list[Any]:
        """Run one script for several (keys, arguments)."""
        return self._start_script(script, calls)()

    def _start_script(
        self, script: str, calls: Sequence[tuple[Sequence[bytes], Sequence[Any]]]
    ) -> Callable[[], list[Any]]:
        """As `_script`, without waiting."""
        sha = SHA1[script]
        commands = [("EVALSHA", sha, len(keys), *keys, *arguments) for keys, arguments in calls]
        with self._mapped():
            replies = self._transport.start(commands)
        return lambda: self._script_replies(script, commands, replies)

    def _script_replies(
        self, script: str, commands: Sequence[Sequence[Any]], started: Callable[[], list[Any]]
    ) -> list[Any]:
        """The replies to scripts that were started; those that the server did not know are sent to it."""
        with self._mapped():
            replies = started()
            missing = [
                index for index, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)
            ]
            if missing:
                # EVAL also caches the script; a script that was missing has applied nothing.
                again = [("EVAL", script, *commands[index][2:]) for index in missing]
                for index, reply in zip(missing, self._transport.run(again), strict=True):
                    replies[index] = reply
            return raise_first(replies)

    def _run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run commands; the first error reply is raised."""
        with self._mapped():
            return raise_first(self._transport.run(commands))

    def _mapped(self, *, has_deadline: bool = False) -> AbstractContextManager[None]:
        """redis-py's errors as ours."""
        return redis_errors(self._name, has_deadline=has_deadline)


class _Pending:
    """A commit that was sent.

    Args:
        store: where to.
        replies: waits for the script's.
    """

    def __init__(self, store: RedisStore, replies: Callable[[], list[Any]]) -> None:
        self._store = store
        self._replies = replies

    def outcomes(self) -> list[LaneOutcome]:
        """See PendingCommit."""
        try:
            replies = self._replies()
        except StoreFull as error:
            raise self._store._full(error) from error
        return [_applied(reply) if isinstance(reply, list) else LaneOutcome(False, bytes(reply)) for reply in replies]


def _applied(long: Sequence[int]) -> LaneOutcome:
    """What the script says of heads that grew long: from 0 on their own, from -1 down those of packs."""
    return LaneOutcome(
        True, b"", tuple(index for index in long if index >= 0), tuple(-1 - index for index in long if index < 0)
    )


def _commit_arguments(lane: LaneCommit) -> tuple[list[bytes], list[Any]]:
    """Keys and arguments of the commit script."""
    keys, packed = [lane.checkpoint_key], lane.packed
    arguments: list[Any] = [
        lane.expected,
        lane.replacement,
        lane.expire_ms,
        lane.report_bytes_min,
        len(lane.bodies),
        len(lane.entities) if packed is None else 0,
        len(lane.id_appends),
        len(lane.deletions),
        lane.head_prefix,
        lane.body_prefix,
        *((b"", b"", 0, 0) if packed is None else (packed.head_prefix, packed.body_prefix, packed.report_bytes_min)),
        *(() if packed is None else (len(packed.names),)),
    ]
    for body_key, head_key, body in lane.bodies:
        keys += (body_key, head_key)
        arguments.append(body)
    if packed is None:
        prefix = lane.head_prefix
        keys += [prefix + entity for entity in lane.entities]
        arguments += lane.appends
    else:
        low = 0
        for name, records, high in zip(packed.names, packed.records, packed.ends, strict=True):
            arguments += (name, records, high - low)
            arguments += lane.entities[low:high]
            low = high
    for key, data in lane.id_appends:
        keys.append(key)
        arguments.append(data)
    keys += lane.deletions
    return keys, arguments


def _expectation(expected: bytes | None, replacement: bytes) -> tuple[str, bytes, bytes]:
    """Arguments of the compare-and-set scripts."""
    return ("0", b"", replacement) if expected is None else ("1", expected, replacement)
