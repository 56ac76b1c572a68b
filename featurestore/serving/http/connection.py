"""One connection: HTTP/1.1, requests answered one after another.

    bytes -> llhttp -> head -> Edge.receive -> body -> Call.answer -> response -> the next request

httptools has the parser; a server on top of it that speaks ASGI would hide what overload and deadlines need: a request
is let in or refused by its head, before its body is read; who hangs up stops the work; a body that does not come, and a
connection that has nothing to say, are given up; connections end with age, and when the server drains.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import httptools

from featurestore.errors import DeadlineSpent
from featurestore.serving.http import problems
from featurestore.serving.http.edge import Call, Edge, too_large
from featurestore.serving.http.messages import Head, Response
from featurestore.serving.request.handling import SILENT, CallerGone
from featurestore.serving.request.limits import REQUEST_BYTES_MAX

HEAD_BYTES_MAX = 32 << 10
"""Of a request's first line and headers."""

HEAD_SECONDS = 10.0
"""For them to come, once they have begun to."""

IDLE_SECONDS = 90.0
"""How long a connection may have nothing to say; longer than load balancers keep theirs, or they would send requests
into one that is closing."""

LINGER_SECONDS = 2.0
"""For the rest of a request that is not read; who closes at once takes the answer from a caller who still sends."""

OFFERING = ("upgrade", "connection", "http2-settings")
"""Headers by which another protocol is offered."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Message:
    """A request on its way in.

    Args:
        head: what it began with.
        keeps_alive: whether its caller wants to ask more.
    """

    __slots__ = ("body", "call", "head", "is_answered", "is_begun", "is_complete", "is_too_large", "keeps_alive")

    def __init__(self, head: Head, *, keeps_alive: bool) -> None:
        self.head = head
        self.keeps_alive = keeps_alive
        self.body = bytearray()
        self.call: Call | None = None
        self.is_begun = self.is_complete = self.is_too_large = self.is_answered = False


class Connection(asyncio.Protocol):
    """A caller of the server.

    Args:
        edge: lets requests in and answers them.
        connections: where it is while it is open.
        age_s: when it ends, give or take a tenth; None never.
    """

    def __init__(self, edge: Edge, connections: set[Connection], age_s: float | None) -> None:
        self._edge = edge
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        # The first one is being answered, the last one being read.
        self._messages: deque[_Message] = deque()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waits_for = ""
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._head_bytes = 0
        self._is_in_head = self._is_lingering = self._is_unread = False
        self._ends_at = None if age_s is None else self._loop.time() + age_s * random.uniform(0.9, 1.1)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self._wait_for("a request", IDLE_SECONDS, self._end)

    def connection_lost(self, _error: Exception | None) -> None:
        """It is over; whatever was under way is given up."""
        self._connections.discard(self)
        self._stop_waiting()
        if self._task is not None:
            self._task.cancel()
        elif self._messages and (call := self._messages[0].call) is not None:
            call.give_up(CallerGone())
        self._messages.clear()

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        if self._is_lingering:
            return
        if self._is_in_head or not self._messages:
            self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserCallbackError:
            raise  # our bug, which asyncio logs
        except httptools.HttpParserError:
            self._refuse_bytes(HTTPStatus.BAD_REQUEST, "this is no HTTP request")
            return
        if self._is_in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse_bytes(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers are larger than {HEAD_BYTES_MAX} bytes"
            )
            return
        self._advance()

    def pause_writing(self) -> None:
        """The caller does not read what it is sent."""
        self._is_unread = True
        self._balance()
        self._wait_for("being read", IDLE_SECONDS, self._end)

    def resume_writing(self) -> None:
        """It has read."""
        self._is_unread = False
        self._stop_waiting()
        self._advance()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._target, self._headers = b"", []
        self._is_in_head = True

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or what comes after a body and is none."""
        if self._is_in_head:
            self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Its head is there."""
        if self._parser.should_upgrade():
            return  # see `_feed`
        self._is_in_head, self._head_bytes = False, 0
        head = Head(self._parser.get_method().decode("ascii"), self._target.decode("latin-1"), self._headers)
        keeps_alive = self._parser.should_keep_alive() and self._parser.get_http_version() != "1.0"
        message = _Message(head, keeps_alive=keeps_alive)
        length = head.header("content-length")
        message.is_too_large = length is not None and int(length) > REQUEST_BYTES_MAX
        self._messages.append(message)
        if len(self._messages) == 1:
            # Now, and not when all that has come is read: the fewer of those that are refused have to be read.
            self._begin(message)

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        message = self._messages[-1]
        if len(message.body) + len(body) > REQUEST_BYTES_MAX:
            message.is_too_large = True
        if not message.is_too_large:
            message.body += body

    def on_message_complete(self) -> None:
        """It is there as a whole."""
        if self._parser.should_upgrade():
            return  # see `_feed`
        self._messages[-1].is_complete = True

    # What the edge asks; see `Caller`.

    def invocation_metadata(self) -> Any:
        """The headers of the request that is being let in."""
        return self._messages[0].head.headers

    def peer_identities(self) -> Any:
        """Names in the caller's certificate, the alternative ones if there are any."""
        certificate = self._transport.get_extra_info("peercert")
        if not certificate:
            return None
        names = [value for _, value in certificate.get("subjectAltName", ())]
        names = names or [value for rdn in certificate["subject"] for kind, value in rdn if kind == "commonName"]
        return [name.encode() for name in names]

    def peer(self) -> str:
        """Address and port, as gRPC writes them."""
        address = self._transport.get_extra_info("peername")
        return f"ipv6:[{address[0]}]:{address[1]}" if ":" in address[0] else f"ipv4:{address[0]}:{address[1]}"

    # The way of a request.

    def _feed(self, data: bytes) -> None:
        """Parse."""
        rest = memoryview(data)
        while rest:
            try:
                self._parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                # Java's client offers HTTP/2 with its requests. The parser takes what follows for that; it is told
                # again without the offer. A CONNECT would be the same once more.
                verb, rest = self._parser.get_method(), rest[upgrade.args[0] :]
                if verb == b"CONNECT":
                    raise httptools.HttpParserInvalidMethodError("this is no proxy") from upgrade
                headers = [f"{name}: {value}\r\n" for name, value in self._headers if name not in OFFERING]
                self._parser = httptools.HttpRequestParser(self)
                self._parser.feed_data(
                    verb + b" " + self._target + b" HTTP/1.1\r\n" + "".join(headers).encode("latin-1") + b"\r\n"
                )

    def _advance(self) -> None:
        """Do whatever can be done next."""
        while self._messages and not (self._is_unread or self._is_lingering or self._transport.is_closing()):
            message = self._messages[0]
            if message.is_answered and message.is_complete:
                self._messages.popleft()
            elif message.is_answered:
                self._wait_for("what is not read", HEAD_SECONDS, self._end)
                break
            elif self._task is not None:
                break
            elif not message.is_begun:
                self._begin(message)
            elif message.is_too_large:
                assert message.call is not None, "it was let in, and has no answer"
                self._answer(message, message.call.give_up(too_large(), HTTPStatus.REQUEST_ENTITY_TOO_LARGE))
            elif message.is_complete:
                assert message.call is not None, "it was let in, and has no answer"
                self._stop_waiting()
                self._task = self._loop.create_task(self._work(message, message.call))
            else:
                assert message.call is not None, "it was let in, and has no answer"
                self._wait_for("a body", message.call.remaining_s(), self._give_up)
                break
        self._balance()
        if not self._messages and not self._is_lingering:
            if self._is_in_head:
                self._wait_for("a head", HEAD_SECONDS, self._end)
            else:
                self._wait_for("a request", IDLE_SECONDS, self._end)

    def _begin(self, message: _Message) -> None:
        """Let it in, or answer it at once."""
        message.is_begun = True
        self._stop_waiting()
        received = self._edge.receive(message.head, self)
        if isinstance(received, Response):
            self._answer(message, received)
            return
        message.call = received
        if not message.is_too_large and message.head.header("expect") == "100-continue":
            self._transport.write(CONTINUE)

    async def _work(self, message: _Message, call: Call) -> None:
        """Answer a request that is there as a whole."""
        response = await call.answer(bytes(message.body))
        self._task = None
        self._answer(message, response)
        self._advance()

    def _answer(self, message: _Message, response: Response) -> None:
        """Send the answer of the first request."""
        message.is_answered, message.call = True, None
        if self._transport.is_closing():
            return
        is_old = self._ends_at is not None and self._loop.time() > self._ends_at
        closes = not message.keeps_alive or message.is_too_large or is_old or self._edge.is_draining
        self._transport.write(response.encoded(closes=closes, with_body=message.head.verb != "HEAD"))
        if closes:
            self._end_after_answer(is_read=message.is_complete)

    def _give_up(self) -> None:
        """The first request's body did not come in time."""
        message = self._messages[0]
        assert message.call is not None, "it waits for its body"
        message.keeps_alive = False
        self._answer(message, message.call.give_up(DeadlineSpent(SILENT.message, hint=SILENT.hint)))

    def _refuse_bytes(self, status: HTTPStatus, detail: str) -> None:
        """What came is not read on."""
        if self._task is None:
            self._transport.write(problems.plain(status, detail).encoded(closes=True))
        self._end_after_answer(is_read=False)

    # Ends.

    def end_if_idle(self) -> None:
        """End unless a request is under way, after whose answer it ends anyway."""
        if not self._messages and not self._is_lingering:
            self._end()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What is under way."""
        return self._task

    def _end_after_answer(self, *, is_read: bool) -> None:
        """End when what was written is sent, and what the caller still sends has been thrown away for a while."""
        if is_read:
            self._transport.close()
            return
        self._is_lingering = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._wait_for("the rest", LINGER_SECONDS, self._end)

    def _end(self) -> None:
        """End when what was written is sent, unless nobody reads it."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    def _wait_for(self, what: str, seconds: float, then: Callable[[], None]) -> None:
        """Do something after some time, unless it is no longer waited for by then."""
        if what == self._waits_for:
            return
        self._stop_waiting()
        self._waits_for = what
        self._timer = self._loop.call_later(seconds, then)

    def _balance(self) -> None:
        """Read no further than to the next request, and nothing from who does not read."""
        if len(self._messages) > 1 or self._is_unread:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waits_for = ""
