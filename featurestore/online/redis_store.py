"""Redis and Valkey, standalone or cluster.

Commits are scripts, because a conditional MULTI/EXEC costs a second round trip for its WATCH; a script applies whole or
not at all, is one entry of the append-only file, and knows the length that APPEND answers. Reads of a standalone server
use the sockets that redis-py opened, but neither its command layer nor its connection layer, which cost more than the
network: one packed command, one reply. What is unusual (no connection yet, a lost one, a cluster) is redis-py's.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import redis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from featurestore.online.redis_errors import mapped_errors
from featurestore.online.redis_pipeline import RedisPipeline, packed_read
from featurestore.online.redis_scripts import COMMIT, COMPARE_AND_SET, COMPARE_AND_SET_FIELD, SHA1, WRITE_NEWER
from featurestore.online.store import AsyncReads, LaneCommit, LaneOutcome, ThreadedReads

CONNECT_TIMEOUT_S = 2.0
COMMAND_TIMEOUT_S = 10.0
SCAN_COUNT = 1_000
DELETE_CHUNK = 1_000

TIMEOUT_MIN_S = 0.0005
"""Shortest wait for the store: a socket takes 0 for "do not wait at all"."""

_PIPELINE_OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    # Of the exchange that opens a connection; afterwards each read has a limit of its own.
    "socket_timeout": CONNECT_TIMEOUT_S,
    "retry": Retry(NoBackoff(), 0),
    "protocol": 2,
}


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


class _Transport(Protocol):
    """How commands reach servers: one connection, or a cluster's."""

    def run(self, commands: Sequence[Sequence[Any]], *, timeout_s: float | None = None) -> list[Any]:
        """Send commands in one go; their replies, ResponseError objects included."""
        ...

    def read(self, groups: Sequence[Sequence[bytes]], *, timeout_s: float | None = None) -> list[bytes | None]:
        """Values of groups of keys, flattened."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class RedisStore:
    """An OnlineStore on redis-py; see `online.store` for what each method promises. Thread-safe."""

    def __init__(self, url: str, *, cluster: bool = False) -> None:
        self.url = url
        self.is_cluster = cluster
        self._name = f"online store {_without_password(url)}"
        with self._mapped():
            self._transport: _Transport = _ClusterTransport(url) if cluster else _SingleTransport(url)

    def commit(self, lanes: Sequence[LaneCommit]) -> list[LaneOutcome]:
        """See OnlineStore."""
        replies = self._script(COMMIT, [_commit_arguments(lane) for lane in lanes])
        return [
            LaneOutcome(True, b"", tuple(reply)) if isinstance(reply, list) else LaneOutcome(False, bytes(reply), ())
            for reply in replies
        ]

    def read_groups(self, groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None) -> list[bytes | None]:
        """See OnlineStore."""
        if not groups:
            return []
        with self._mapped(has_deadline=timeout_ms is not None):
            return self._transport.read(groups, timeout_s=None if timeout_ms is None else timeout_ms / 1_000)

    def async_reads(self) -> AsyncReads:
        """See OnlineStore."""
        if self.is_cluster or self.url.startswith("rediss:"):
            # redis-py follows a cluster's moves and speaks TLS, on blocking sockets.
            return ThreadedReads(self)
        return RedisPipeline(self._name, redis.ConnectionPool.from_url(self.url, **_PIPELINE_OPTIONS).get_connection)

    def compare_and_set(self, key: bytes, expected: bytes | None, replacement: bytes) -> bool:
        """See OnlineStore."""
        return bool(self._script(COMPARE_AND_SET, [((key,), _expectation(expected, replacement))])[0])

    def compare_and_set_field(self, key: bytes, field: bytes, expected: bytes | None, replacement: bytes) -> bool:
        """See OnlineStore."""
        arguments = (*_expectation(expected, replacement), field)
        return bool(self._script(COMPARE_AND_SET_FIELD, [((key,), arguments)])[0])

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

    def scan(self, pattern: bytes) -> Iterator[bytes]:
        """See OnlineStore."""
        client = self._client()
        with self._mapped():
            yield from client.scan_iter(match=pattern, count=SCAN_COUNT)

    def delete(self, keys: Iterable[bytes]) -> int:
        """See OnlineStore."""
        deleted, remaining = 0, iter(keys)
        while chunk := list(itertools.islice(remaining, DELETE_CHUNK)):
            deleted += sum(self._run([("UNLINK", key) for key in chunk]))
        return deleted

    def memory_bytes(self, key: bytes) -> int:
        """See OnlineStore."""
        return int(self._run([("MEMORY", "USAGE", key, "SAMPLES", "0")])[0] or 0)

    def ping(self) -> None:
        """See OnlineStore."""
        self._run([("GET", b"{ping}")])

    def close(self) -> None:
        """See OnlineStore."""
        self._transport.close()

    def _client(self) -> Any:
        """redis-py's own client, for what is rare."""
        return self._transport.client  # type: ignore[attr-defined]  # both transports have one

    def _script(self, script: str, calls: Sequence[tuple[Sequence[bytes], Sequence[Any]]]) -> list[Any]:
        """Run one script for several (keys, arguments)."""
        sha = SHA1[script]
        commands = [("EVALSHA", sha, len(keys), *keys, *arguments) for keys, arguments in calls]
        with self._mapped():
            replies = self._transport.run(commands)
            missing = [
                index for index, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)
            ]
            if missing:
                # EVAL also caches the script; a script that was missing has applied nothing.
                again = [("EVAL", script, *commands[index][2:]) for index in missing]
                for index, reply in zip(missing, self._transport.run(again), strict=True):
                    replies[index] = reply
            return _raise_first(replies)

    def _run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run commands; the first error reply is raised."""
        with self._mapped():
            return _raise_first(self._transport.run(commands))

    def _mapped(self, *, has_deadline: bool = False) -> AbstractContextManager[None]:
        """redis-py's errors as ours."""
        return mapped_errors(self._name, has_deadline=has_deadline)


def _commit_arguments(lane: LaneCommit) -> tuple[list[bytes], list[Any]]:
    """Keys and arguments of the commit script."""
    keys = [lane.checkpoint_key]
    arguments: list[Any] = [
        lane.expected,
        lane.replacement,
        lane.expire_ms,
        lane.report_bytes_min,
        len(lane.bodies),
        len(lane.head_keys),
        len(lane.id_appends),
        len(lane.deletions),
        len(lane.head_prefix),
        lane.body_prefix,
    ]
    for body_key, head_key, body in lane.bodies:
        keys += (body_key, head_key)
        arguments.append(body)
    keys += lane.head_keys
    arguments += lane.appends
    for key, data in lane.id_appends:
        keys.append(key)
        arguments.append(data)
    keys += lane.deletions
    return keys, arguments


def _expectation(expected: bytes | None, replacement: bytes) -> tuple[str, bytes, bytes]:
    """Arguments of the compare-and-set scripts."""
    return ("0", b"", replacement) if expected is None else ("1", expected, replacement)


def _raise_first(replies: list[Any]) -> list[Any]:
    """The replies, unless one is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _without_password(url: str) -> str:
    """The address as it may be shown."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


class _SingleTransport:
    """One server; as many connections as calls run at once, taken and given back without a lock."""

    def __init__(self, url: str) -> None:
        self._pool = redis.ConnectionPool.from_url(
            url,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=COMMAND_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self.client = redis.Redis(connection_pool=self._pool)
        self._idle: deque[Any] = deque()
        self._process = os.getpid()

    def run(self, commands: Sequence[Sequence[Any]], *, timeout_s: float | None = None) -> list[Any]:
        """See _Transport."""
        connection = self._take()
        try:
            _limit(connection, timeout_s)
            packed = connection.pack_commands(commands) if len(commands) > 1 else connection.pack_command(*commands[0])
            try:
                connection.send_packed_command(packed, check_health=False)
                return self._read(connection, len(commands), timeout_s)
            except redis.exceptions.ConnectionError:
                # The server closed an idle connection, or restarted; mostly it is the first read that tells. Something
                # may have been applied; repeating is safe because every write is conditional on what it expects.
                connection.disconnect()
            connection.send_packed_command(packed, check_health=False)
            return self._read(connection, len(commands), timeout_s)
        finally:
            self._idle.append(connection)

    def read(self, groups: Sequence[Sequence[bytes]], *, timeout_s: float | None = None) -> list[bytes | None]:
        """See _Transport: straight to the socket, or as any other command where that does not work."""
        connection = self._take()
        try:
            reply = _ask(connection, packed_read(groups), timeout_s)
        finally:
            self._idle.append(connection)
        if reply is None:
            command = ("MGET", *itertools.chain.from_iterable(groups))
            [reply] = _raise_first(self.run([command], timeout_s=timeout_s))
        values: list[bytes | None] = reply
        return values

    def _take(self) -> Any:
        """A connection that nobody else uses."""
        if self._process != os.getpid():
            # After a fork the parent's sockets are open here too; two processes reading from one would get each
            # other's answers.
            self._idle, self._process = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            # Not connected yet: how long that may take is the caller's to say.
            return self._pool.make_connection()

    def _read(self, connection: Any, count: int, timeout_s: float | None) -> list[Any]:
        """As many replies as commands were sent; a connection that failed midway is closed, never reused."""
        replies: list[Any] = []
        try:
            _limit(connection, timeout_s)
            for _ in range(count):
                try:
                    replies.append(connection.read_response())
                except redis.exceptions.ResponseError as error:
                    replies.append(error)
        except BaseException:
            connection.disconnect()
            raise
        return replies

    def close(self) -> None:
        """See _Transport."""
        while self._idle:
            self._idle.pop().disconnect()
        self._pool.disconnect()


def _limit(connection: Any, timeout_s: float | None) -> None:
    """Bound each wait for the socket; asking costs less than telling, and most callers have the same patience."""
    limit_s = COMMAND_TIMEOUT_S if timeout_s is None else max(timeout_s, TIMEOUT_MIN_S)
    if connection._sock is None:
        # It will be opened first, and a server that hangs accepts connections but answers no greeting.
        connection.socket_timeout, connection.socket_connect_timeout = limit_s, min(limit_s, CONNECT_TIMEOUT_S)
    elif connection._sock.gettimeout() != limit_s:
        connection._sock.settimeout(limit_s)


def _ask(connection: Any, packed: bytes, timeout_s: float | None) -> Any:
    """One command and its reply on a connection's bare socket.

    Returns:
        The reply; None where the connection is closed, or was found lost. One that failed is closed, never reused.

    Raises:
        redis.RedisError: the reply is an error, is no reply, or does not come in time.
    """
    socket, parser = connection._sock, connection._parser
    if socket is None:
        return None
    try:
        _limit(connection, timeout_s)
        socket.sendall(packed)
        while (byte_count := socket.recv_into(parser._buffer)) > 0:
            parser._reader.feed(parser._buffer, 0, byte_count)
            reply = parser._reader.gets()
            if reply is not NOT_ENOUGH_DATA:
                break
        else:
            connection.disconnect()
            return None
    except TimeoutError as error:
        connection.disconnect()
        raise redis.exceptions.TimeoutError("no reply in time") from error
    except OSError:
        connection.disconnect()
        return None
    except BaseException:
        connection.disconnect()
        raise
    if isinstance(reply, Exception):
        raise reply
    return reply


class _ClusterTransport:
    """A cluster: redis-py knows the slots and follows moves; one pipeline a node."""

    def __init__(self, url: str) -> None:
        self.client: Any = RedisCluster.from_url(
            url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=COMMAND_TIMEOUT_S, protocol=2
        )

    def run(self, commands: Sequence[Sequence[Any]], *, timeout_s: float | None = None) -> list[Any]:
        """See _Transport. The time limit is the connection's own: redis-py has none for a single pipeline."""
        if len(commands) == 1:
            try:
                return [self.client.execute_command(*commands[0])]
            except redis.exceptions.ResponseError as error:
                return [error]
        pipeline = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    def read(self, groups: Sequence[Sequence[bytes]], *, timeout_s: float | None = None) -> list[bytes | None]:
        """See _Transport: a command a group, since a group is what shares a slot."""
        commands = [("MGET", *group) for group in groups]
        return list(itertools.chain.from_iterable(_raise_first(self.run(commands, timeout_s=timeout_s))))

    def close(self) -> None:
        """See _Transport."""
        self.client.close()
