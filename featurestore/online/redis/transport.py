"""One server of Redis or Valkey for threads that wait: connections of redis-py, without its command layer.

Reads use the sockets that redis-py opened, but neither its command layer nor its connection layer, which cost more than
the network: one packed command, one reply. What is unusual (no connection yet, a lost one) is redis-py's.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import redis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.backoff import NoBackoff
from redis.retry import Retry

from featurestore.online.redis.pipeline import packed_read

CONNECT_TIMEOUT_S = 2.0
COMMAND_TIMEOUT_S = 10.0

TIMEOUT_MIN_S = 0.0005
"""Shortest wait for the store: a socket takes 0 for "do not wait at all"."""

Node = tuple[str, int]
"""Host and port."""


class Transport(Protocol):
    """How commands reach servers: one connection, or a cluster's.

    Attributes:
        client: redis-py's own, for what is rare.
    """

    client: Any

    def run(self, commands: Sequence[Sequence[Any]], *, timeout_s: float | None = None) -> list[Any]:
        """Send commands in one go; their replies, ResponseError objects included."""
        ...

    def start(self, commands: Sequence[Sequence[Any]]) -> Callable[[], list[Any]]:
        """As `run`, without waiting: what is returned waits for the replies, and must be called."""
        ...

    def read(self, groups: Sequence[Sequence[bytes]], *, timeout_s: float | None = None) -> list[bytes | None]:
        """Values of groups of keys, flattened."""
        ...

    def info(self, section: str) -> list[dict[str, Any]]:
        """A section of INFO, of each primary."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class SingleTransport:
    """One server; as many connections as calls run at once, taken and given back without a lock.

    Args:
        url: of the server, or of another node of its cluster.
        node: the server, if it is not the one of the url.
    """

    def __init__(self, url: str, node: Node | None = None) -> None:
        self._pool = redis.ConnectionPool.from_url(
            url,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=COMMAND_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        if node is not None:
            self._pool.connection_kwargs.update(host=node[0], port=node[1])
        self.client = redis.Redis(connection_pool=self._pool)
        self._idle: deque[Any] = deque()
        self._process = os.getpid()

    def run(self, commands: Sequence[Sequence[Any]], *, timeout_s: float | None = None) -> list[Any]:
        """See Transport."""
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

    def start(self, commands: Sequence[Sequence[Any]]) -> Callable[[], list[Any]]:
        """See Transport."""
        try:
            connection = self.begin(commands, COMMAND_TIMEOUT_S)
        except redis.exceptions.ConnectionError:  # see `run`, which opens another one
            return lambda: self.run(commands)

        def replies() -> list[Any]:
            try:
                return self.finish(connection, len(commands), COMMAND_TIMEOUT_S)
            except redis.exceptions.ConnectionError:
                return self.run(commands)

        return replies

    def read(self, groups: Sequence[Sequence[bytes]], *, timeout_s: float | None = None) -> list[bytes | None]:
        """See Transport: straight to the socket, or as any other command where that does not work."""
        connection = self._take()
        try:
            reply = _ask(connection, packed_read(groups), timeout_s)
        finally:
            self._idle.append(connection)
        if reply is None:
            command = ("MGET", *itertools.chain.from_iterable(groups))
            [reply] = raise_first(self.run([command], timeout_s=timeout_s))
        values: list[bytes | None] = reply
        return values

    def info(self, section: str) -> list[dict[str, Any]]:
        """See Transport."""
        found: Any = self.client.info(section)
        return [found]

    def begin(self, commands: Sequence[Sequence[Any]], timeout_s: float) -> Any:
        """Send commands; the connection, to be given to `finish` whatever happens in between."""
        connection = self._take()
        try:
            _limit(connection, timeout_s)
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        except BaseException:
            connection.disconnect()
            self._idle.append(connection)
            raise
        return connection

    def finish(self, connection: Any, count: int, timeout_s: float) -> list[Any]:
        """The replies to what `begin` has sent, errors included."""
        try:
            return self._read(connection, count, timeout_s)
        finally:
            self._idle.append(connection)

    def new_connection(self) -> Any:
        """A connection, open, that is the caller's alone; each step of opening it may take CONNECT_TIMEOUT_S."""
        connection: Any = self._pool.make_connection()
        connection.socket_timeout = connection.socket_connect_timeout = CONNECT_TIMEOUT_S
        connection.connect()
        return connection

    def close(self) -> None:
        """See Transport."""
        while self._idle:
            self._idle.pop().disconnect()
        self._pool.disconnect()

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


def raise_first(replies: list[Any]) -> list[Any]:
    """The replies, unless one is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
