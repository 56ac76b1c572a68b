"""How streams of chunks share a server with everybody else: payments first, then single large requests, then chunks.

    stream opens -> overloaded, or too many of them? -> Overloaded
    chunk comes  -> waits for its turn among all chunks -> rests as long as the chunk before it was at work,
                                                           if others came meanwhile
                 -> waits for its turn among the large requests -> at work -> answered

One chunk of the whole server is under way at a time, whatever it reads and however many streams there are. So chunks
get half of the time at most while others ask, and all of it while nobody does. A job can wait: a chunk is refused only
where it would wait for half a minute, or beyond the stream's own deadline. It holds nothing while its answer is sent,
so a caller who stops reading stops nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from featurestore.clock import NS_PER_MS, Clock, Deadline
from featurestore.errors import InvalidRequest, Overloaded, Unavailable
from featurestore.serving.request.admission import Admission, Lane, Ticket, Visit
from featurestore.serving.request.limits import (
    CHUNK_REST_MS_MAX,
    CHUNK_WAIT_MS_MAX,
    LOOKUP_STREAMS_MAX,
    STREAM_SILENCE_MS_MAX,
)
from featurestore.serving.request.usage.shares import HINT

_MS_PER_SECOND = 1_000
_NS_PER_SECOND = 1_000_000_000


class Streams:
    """The streams of one server. Thread-safe; nothing in it blocks.

    Args:
        admission: of all requests of the server.
        clock: measures work and rest.
        count_refusal: called with "stream" or "chunk" for each that is refused.

    Attributes:
        admission: as given.
        clock: as given.
        turns: where chunks wait for each other.
        rest_until_ns: no chunk begins before, on the monotonic scale.
    """

    def __init__(self, admission: Admission, clock: Clock, count_refusal: Callable[[str], None]) -> None:
        self.admission = admission
        self.clock = clock
        self.turns = Lane(
            "chunk",
            1,
            waiting_max=LOOKUP_STREAMS_MAX,
            wait_ms_max=CHUNK_WAIT_MS_MAX,
            clock=clock,
            count_refusal=count_refusal,
        )
        self.rest_until_ns = 0
        self._count_refusal = count_refusal
        self._lock = threading.Lock()
        self._open = 0
        self._is_draining = False
        self._waiting: set[Callable[[], object]] = set()

    def open(self) -> None:
        """A stream begins; it must be closed.

        Raises:
            Overloaded: there are as many as there may be.
        """
        with self._lock:
            if self._open >= LOOKUP_STREAMS_MAX:
                self._count_refusal("stream")
                raise Overloaded(f"the server has {self._open} streams open, which is its limit", hint=HINT)
            self._open += 1

    def close(self) -> None:
        """It has ended."""
        with self._lock:
            self._open -= 1

    def silence(self) -> Deadline:
        """How long the next chunk of a stream is waited for."""
        return Deadline.after(self.clock, STREAM_SILENCE_MS_MAX)

    @contextmanager
    def waiting(self, break_off: Callable[[], object]) -> Iterator[None]:
        """While a stream's next chunk is waited for.

        Args:
            break_off: ends that, where the server stops meanwhile.

        Raises:
            Unavailable: the server stops.
        """
        with self._lock:
            self._waiting.add(break_off)
        try:
            self.require_open()
            yield
        finally:
            with self._lock:
                self._waiting.discard(break_off)

    def drain(self) -> None:
        """The server stops: each stream ends when the chunk that it has sent is answered."""
        with self._lock:
            self._is_draining = True
            waiting = tuple(self._waiting)
        for break_off in waiting:
            break_off()

    def require_open(self) -> None:
        """Refuse to wait for another chunk.

        Raises:
            Unavailable: the server stops.
        """
        if self._is_draining:
            raise Unavailable(
                "the server is stopping", hint="go on in a new stream, with the first chunk that has no answer"
            )


class StreamVisit(Visit):
    """The way of one stream and of its chunks, one at a time; whatever becomes of it, it must be ended.

    A chunk enters twice: among the chunks, and after its rest, without leaving, among the large requests.

    Args:
        streams: of the server.
        budget_s: how much time the caller gives the stream as a whole, None for any.

    Attributes:
        answered: chunks that have been answered.
    """

    __slots__ = ("_arrivals", "_expires_ns", "_held", "_is_open", "_service", "_streams", "answered")

    def __init__(self, streams: Streams, budget_s: float | None) -> None:
        clock = streams.clock
        whole = Deadline(clock) if budget_s is None else Deadline.after(clock, budget_s * _MS_PER_SECOND)
        super().__init__(streams.admission, whole)
        self.answered = 0
        self._streams = streams
        self._expires_ns = whole.expires_ns
        self._service: str | None = None
        self._is_open = False
        self._held: list[tuple[Lane, Ticket]] = []
        self._arrivals = 0

    @property
    def is_open(self) -> bool:
        """Whether the stream was let in."""
        return self._is_open

    def begin(self, context: Any) -> None:
        """The stream has come, and none of its chunks is read yet.

        Raises:
            Overloaded: it is not let in.
        """
        super().begin(context)
        self._streams.open()
        self._is_open = True

    def require_service(self, name: str) -> None:
        """What a chunk asks for: always the same of one stream, which is let in once.

        Raises:
            InvalidRequest: it is another one than before.
            Overloaded: the service has as many requests as it may.
        """
        if self._service is None:
            self.name_service(name)
            self._service = name
        if name != self._service:
            raise InvalidRequest(
                f'it asks for feature service "{name}", those before it for "{self._service}"',
                hint="open a stream for each feature service",
            )

    def enter(self, wake: Callable[[], object], *, is_large: bool = False) -> bool:
        """Enter the lane of chunks, then that of large requests; whether the turn has come, or `wake` is to come.

        Raises:
            Overloaded: the chunk would wait for other chunks for too long.
        """
        if not is_large:
            patience = Deadline.after(self._streams.clock, CHUNK_WAIT_MS_MAX)
            is_shorter = self._expires_ns is not None and self._expires_ns < (patience.expires_ns or 0)
            self.deadline = Deadline(patience.clock, self._expires_ns) if is_shorter else patience
        lane = self._admission.large if is_large else self._streams.turns
        self._ticket = lane.enter(self.deadline, wake, is_patient=is_large)
        self._held.append((lane, self._ticket))
        self._arrivals = self._admission.arrivals
        return self._ticket.begun_ns is not None

    def rest_s(self) -> float:
        """How long to wait before the chunk enters again, for the sake of others."""
        return max(0.0, (self._streams.rest_until_ns - self._streams.clock.monotonic_ns()) / _NS_PER_SECOND)

    def chunk_answered(self) -> None:
        """The next chunk may begin, after its rest."""
        self._leave()
        self.answered += 1

    def end(self) -> None:
        """Leave and give back."""
        super().end()
        if self._is_open:
            self._is_open = False
            self._streams.close()

    def _leave(self) -> None:
        while self._held:
            lane, ticket = self._held.pop()
            if lane is self._admission.large and ticket.begun_ns is not None:
                self._let_others_in(ticket.begun_ns)
            lane.leave(ticket)
        self._ticket = None

    def _let_others_in(self, begun_ns: int) -> None:
        """After a chunk's work; before the next one's turn comes."""
        if self._admission.arrivals != self._arrivals:
            now_ns = self._streams.clock.monotonic_ns()
            self._streams.rest_until_ns = now_ns + min(now_ns - begun_ns, int(CHUNK_REST_MS_MAX * NS_PER_MS))
