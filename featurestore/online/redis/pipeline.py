"""Reads for an event loop: one connection, requests written as they come, answers handed out in the same order.

    coroutine a --MGET--> |                    |
    coroutine b --MGET--> | socket, in order   | --replies--> a, b
    coroutine c --MGET--> |                    |

Redis answers a connection's commands in order, so a queue of waiting futures is all the bookkeeping. A reader whose
time is over leaves its place in the queue and its answer is thrown away when it comes: one impatient caller must not
cost the others their connection. A connection on which nothing at all comes back any more is closed.

redis-py opens the connection (address, password, database number, unix sockets), in a thread, since that blocks; from
then on the bare socket belongs to the loop.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable, Sequence
from socket import socket as Socket
from typing import Any

import hiredis
import redis

from featurestore.online.redis.errors import redis_errors

STALLED_SECONDS = 2.0
"""Without a single reply for so long while somebody waits, the connection is taken for dead."""

READ_BUFFER_BYTES = 1 << 16

REPLY_AT_ONCE_MS = 1
"""How long who asks alone holds up the loop for the reply. Redis mostly needs a tenth of that, less than it takes to go
to sleep and be woken by the loop; while somebody is waiting for a slow reply, nobody else does so."""

QUIET_SECONDS = 0.0005
"""Whoever asks sooner after another does not: others have arrived, and the loop has work for the time."""


_pack: Callable[[tuple[bytes, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # takes any tuple


def packed_read(groups: Sequence[Sequence[bytes]]) -> bytes:
    """The command that reads groups of keys, as it goes over the wire."""
    return _pack((b"MGET", *[key for group in groups for key in group]))


class RedisPipeline:
    """AsyncReads of a standalone server. Belongs to the event loop that first uses it.

    Args:
        store_name: for messages.
        open_connection: a connected redis-py connection that nobody else uses; blocks.
    """

    def __init__(self, store_name: str, open_connection: Callable[[], Any]) -> None:
        self._store_name = store_name
        self._open_connection = open_connection
        self._link: _Link | None = None
        self._opening: asyncio.Task[_Link] | None = None

    async def read_groups(
        self, groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None
    ) -> list[bytes | None]:
        """See AsyncReads."""
        if not groups:
            return []
        timeout_s = STALLED_SECONDS if timeout_ms is None else timeout_ms / 1_000
        packed = packed_read(groups)
        with redis_errors(self._store_name, has_deadline=timeout_ms is not None):
            link = self._link
            if link is None or link.is_lost:
                link = await self._opened(timeout_s)
            return await link.ask(packed, timeout_s)

    async def ask_all(self, commands: Sequence[bytes], timeout_s: float) -> list[Any]:
        """Replies to packed commands, errors that the server replied included.

        Raises:
            redis.RedisError, OSError: the server does not answer, or not in time.
        """
        link = self._link
        if link is None or link.is_lost:
            link = await self._opened(timeout_s)
        return await link.ask_all(commands, timeout_s)

    def close(self) -> None:
        """See AsyncReads."""
        if self._link is not None:
            self._link.abort("closed")

    async def _opened(self, timeout_s: float) -> _Link:
        """A new link; those who need one at the same time share it, and each waits no longer than it may."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.ensure_future(self._open())
        try:
            return await asyncio.wait_for(asyncio.shield(self._opening), timeout_s)
        except TimeoutError as error:
            raise redis.exceptions.TimeoutError("no connection in time") from error

    async def _open(self) -> _Link:
        """Connect in a thread, take the socket over."""
        connection = await asyncio.to_thread(self._open_connection)
        # Taken out, so that the connection object does not close it when it is collected.
        socket: Socket = connection._sock
        connection._sock = None
        socket.setblocking(False)
        _, link = await asyncio.get_running_loop().create_connection(lambda: _Link(connection, socket), sock=socket)
        self._link = link
        return link


class _Link(asyncio.BufferedProtocol):
    """A connection and those who wait for its replies, in the order of their requests."""

    def __init__(self, connection: Any, socket: Socket) -> None:
        self.is_lost = False
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[list[bytes | None]]] = deque()
        self._buffer = memoryview(bytearray(READ_BUFFER_BYTES))
        self._reader = hiredis.Reader(
            protocolError=redis.exceptions.InvalidResponse, replyError=connection._parser.parse_error
        )
        self._reply_count = 0
        self._stall_check: asyncio.TimerHandle | None = None
        self._asked_s = 0.0
        self._poll = select.poll()
        self._poll.register(socket, select.POLLIN)

    async def ask(self, packed: bytes, timeout_s: float) -> list[bytes | None]:
        """Send one command and wait for its reply.

        Raises:
            redis.RedisError: the reply is an error, the connection is lost, or TimeoutError.
        """
        assert self._transport is not None, "asyncio connects a protocol before anybody gets it"
        reply: asyncio.Future[list[bytes | None]] = self._loop.create_future()
        self._waiting.append(reply)
        self._transport.write(packed)
        is_quiet = (now_s := self._loop.time()) - self._asked_s > QUIET_SECONDS
        self._asked_s = now_s
        if is_quiet and len(self._waiting) == 1 and self._poll.poll(REPLY_AT_ONCE_MS):
            self._receive()
            if reply.done():
                return reply.result()
        timer = self._loop.call_later(timeout_s, self._expire, reply)
        try:
            return await reply
        finally:
            timer.cancel()

    async def ask_all(self, commands: Sequence[bytes], timeout_s: float) -> list[Any]:
        """As `ask`, for several commands; what the server refuses is among the replies."""
        if len(commands) == 1:
            try:
                return [await self.ask(commands[0], timeout_s)]
            except redis.exceptions.ResponseError as error:
                return [error]
        assert self._transport is not None, "asyncio connects a protocol before anybody gets it"
        asked = [self._loop.create_future() for _ in commands]
        self._waiting.extend(asked)
        self._transport.write(b"".join(commands))
        timer = self._loop.call_later(timeout_s, self._expire_all, asked)
        try:
            replies = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            timer.cancel()
        for reply in replies:
            if isinstance(reply, BaseException) and not isinstance(reply, redis.exceptions.ResponseError):
                raise reply
        return replies

    def abort(self, why: str) -> None:
        """Close at once; everybody who waits is told."""
        self._lose(redis.exceptions.ConnectionError(why))
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio: the server closed, or the network did."""
        self._lose(redis.exceptions.ConnectionError("connection closed" if exc is None else str(exc)))

    def get_buffer(self, sizehint: int) -> memoryview:
        """From asyncio: where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """From asyncio: so much was read."""
        self._reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]  # takes any buffer
        try:
            while (reply := self._reader.gets()) is not False:
                self._reply_count += 1
                self._hand_out(reply)
        except (redis.exceptions.InvalidResponse, IndexError):
            # Bytes that are no reply, or a reply that nobody asked for: what follows belongs to nobody.
            self.abort("the server's answer cannot be read")

    def _receive(self) -> None:
        """Take what has come, as the loop would; what goes wrong is left for the loop to find."""
        try:
            count = self._socket.recv_into(self._buffer)
        except OSError:
            return
        if count:
            self.buffer_updated(count)

    def _hand_out(self, reply: Any) -> None:
        """A reply to the first who waits, who may be gone."""
        first = self._waiting.popleft()
        if first.done():
            return
        if isinstance(reply, Exception):
            first.set_exception(reply)
        else:
            first.set_result(reply)

    def _expire(self, reply: asyncio.Future[list[bytes | None]]) -> None:
        """Somebody's time is over; if that becomes the fate of everybody, the connection is dead."""
        if not reply.done():
            reply.set_exception(redis.exceptions.TimeoutError("no reply in time"))
        if self._stall_check is None:
            self._stall_check = self._loop.call_later(STALLED_SECONDS, self._check_stall, self._reply_count)

    def _expire_all(self, replies: Sequence[asyncio.Future[list[bytes | None]]]) -> None:
        """The time for several replies is over."""
        for reply in replies:
            self._expire(reply)

    def _check_stall(self, reply_count: int) -> None:
        """Look whether anything has come since."""
        self._stall_check = None
        if self._waiting and self._reply_count == reply_count:
            self.abort(f"no reply in {STALLED_SECONDS:.0f} s")

    def _lose(self, error: redis.exceptions.ConnectionError) -> None:
        """No more replies will come."""
        self.is_lost = True
        if self._stall_check is not None:
            self._stall_check.cancel()
            self._stall_check = None
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(error)
