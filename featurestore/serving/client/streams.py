"""The client's side of a stream of batches: what is asked ahead, and where to go on after a stream that broke.

    batches -> requests -> some sent ahead -> answered in order -> results
                             '---- stream breaks: those without an answer are sent again in a new one

A stream ends with its connection, which servers renew, and with the server. A job of an hour must not: it goes on with
the first batch that has no answer, as lookups only read. It waits for a server that is overloaded, too.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from queue import SimpleQueue
from typing import Any

import grpc
import grpc.aio

from featurestore.clock import Clock, Deadline
from featurestore.errors import DeadlineSpent, FeatureStoreError, InvariantBroken, Overloaded
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.client.messages import EntityValues, LookupBatch
from featurestore.serving.client.retries import error_of_call, next_pause_s, pauses_s
from featurestore.serving.request.grpc_status import ERROR_CHUNK_KEY, is_transient

BATCH_TIMEOUT_DEFAULT_S = 60.0
"""How long a job waits for a batch: longer than a server lets a chunk wait for its turn, and than a restart takes."""

BATCHES_AHEAD = 4
"""Sent without having been answered: so that the server has the next one when it has answered one."""

OVERLOADED_PAUSE_S = 1.0
"""Before a job tries an overloaded server again, shortened at random by up to half."""

Batch = Mapping[str, EntityValues] | LookupBatch
"""Join key -> list of values, one for each row, alone or with what the request brings beside them; up to 1,000 rows."""

_MS_PER_SECOND = 1_000


class Course:
    """How far a job has come, whoever carries its messages.

    Args:
        make: makes a batch's request.
        clock: measures deadlines.
        timeout_s: of each batch, from the answer to the one before it; new tries included.

    Attributes:
        unanswered: requests in their order, whether sent or to be sent again.
        deadline: of the first of them.
    """

    def __init__(self, make: Callable[[LookupBatch], pb.LookupRequest], clock: Clock, timeout_s: float) -> None:
        self.unanswered: deque[pb.LookupRequest] = deque()
        self.deadline = Deadline.after(clock, timeout_s * _MS_PER_SECOND)
        self._make = make
        self._clock = clock
        self._timeout_s = timeout_s
        self._pauses = pauses_s()
        self._answered = self._answered_before = 0
        self._last_error: FeatureStoreError | None = None

    @property
    def is_full(self) -> bool:
        """Whether no more may be sent before an answer comes."""
        return len(self.unanswered) >= BATCHES_AHEAD

    def add(self, batch: Batch) -> pb.LookupRequest:
        """The next batch, which is about to be sent.

        Raises:
            InvalidRequest: it is none; the message says which.
        """
        if not self.unanswered:
            # Time that the caller took to come up with it is not the server's.
            self._begin()
        try:
            request = self._make(batch if isinstance(batch, LookupBatch) else LookupBatch(batch))
        except FeatureStoreError as error:
            raise _of_batch(error, self._answered + len(self.unanswered)) from None
        self.unanswered.append(request)
        return request

    def open(self) -> None:
        """A new stream begins, with all that is unanswered."""
        self._answered_before = self._answered

    def answered(self) -> None:
        """The first of the unanswered has its answer."""
        self.unanswered.popleft()
        self._answered += 1
        self._begin()

    def pause_s(self, failure: Any) -> float:
        """How long to wait before a new stream, after one that failed.

        Args:
            failure: a grpc.RpcError that is also a grpc.Call.

        Raises:
            FeatureStoreError: a new one would fail as well, or there is no time for it; the message says which batch.
        """
        chunk = dict(failure.trailing_metadata() or ()).get(ERROR_CHUNK_KEY)
        error = error_of_call(failure)
        error.message = error.message.removeprefix(f"chunk {chunk}: ")
        pauses = _patient_pauses_s() if isinstance(error, Overloaded) else self._pauses
        may_pass = isinstance(error, Overloaded) or is_transient(error) or _lost_its_status(failure)
        pause_s = next_pause_s(self.deadline, pauses) if may_pass else None
        if pause_s is None:
            raise _of_batch(error, self._answered if chunk is None else self._answered_before + int(chunk)) from failure
        self._last_error = error
        return pause_s

    def late(self) -> FeatureStoreError:
        """What to raise when the deadline has passed."""
        error = DeadlineSpent(
            f"no answer within {self._timeout_s:g} s",
            detail="" if self._last_error is None else f"Tried again after: {self._last_error.message}",
            hint="set a longer timeout_s, or ask for fewer rows",
        )
        return _of_batch(error, self._answered)

    def _begin(self) -> None:
        """The time of the next one begins."""
        self.deadline = Deadline.after(self._clock, self._timeout_s * _MS_PER_SECOND)
        self._pauses = pauses_s()
        self._last_error = None


class BlockingStream:
    """One stream, for threads.

    Args:
        method: LookupStream.
        course: whose unanswered requests are sent at once.
    """

    def __init__(self, method: Callable[..., Any], course: Course) -> None:
        self._course = course
        self._requests: SimpleQueue[pb.LookupRequest | None] = SimpleQueue()
        course.open()
        for request in course.unanswered:
            self._requests.put(request)
        self._call = method(iter(self._requests.get, None))

    def send(self, request: pb.LookupRequest) -> None:
        """Returns at once; the course says when it would be too much."""
        self._requests.put(request)

    def receive(self) -> pb.LookupResponse:
        """The next answer.

        Raises:
            grpc.RpcError: the stream has failed.
            DeadlineSpent: the course's deadline has passed.
        """
        is_late = threading.Event()

        def break_off() -> None:
            is_late.set()
            self._call.cancel()

        timer = threading.Timer(_left_s(self._course), break_off)
        timer.daemon = True
        timer.start()
        try:
            response: pb.LookupResponse = next(self._call)
            return response
        except StopIteration:
            raise _ended_early() from None
        except grpc.RpcError:
            if is_late.is_set():
                raise self._course.late() from None
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        """Let the stream end where all is answered, else break it off."""
        if self._course.unanswered:
            self.break_off()
            return
        self._requests.put(None)
        try:
            next(self._call, None)
        except grpc.RpcError:
            return  # there is nothing left that it could fail to answer

    def break_off(self) -> None:
        """Nobody wants the answers that are under way."""
        self._requests.put(None)
        self._call.cancel()


class AsyncStream:
    """`BlockingStream` for an event loop.

    Args:
        method: LookupStream.
        course: whose unanswered requests are sent at once.
    """

    def __init__(self, method: Callable[..., Any], course: Course) -> None:
        self._course = course
        self._requests: asyncio.Queue[pb.LookupRequest | None] = asyncio.Queue()
        course.open()
        for request in course.unanswered:
            self._requests.put_nowait(request)
        self._call = method(self._sent())

    async def _sent(self) -> AsyncIterator[pb.LookupRequest]:
        """What gRPC takes as fast as the server reads it, so that sending never waits for reading."""
        while (request := await self._requests.get()) is not None:
            yield request

    def send(self, request: pb.LookupRequest) -> None:
        """See `BlockingStream.send`."""
        self._requests.put_nowait(request)

    async def receive(self) -> pb.LookupResponse:
        """See `BlockingStream.receive`."""
        try:
            async with asyncio.timeout(_left_s(self._course)):
                response = await self._call.read()
        except TimeoutError:
            raise self._course.late() from None
        if response is grpc.aio.EOF:
            raise _ended_early()
        return response  # type: ignore[no-any-return]  # EOF is the only other thing that it reads

    async def close(self) -> None:
        """See `BlockingStream.close`."""
        if self._course.unanswered:
            self.break_off()
            return
        self._requests.put_nowait(None)
        try:
            await self._call.read()
        except grpc.aio.AioRpcError:
            return  # there is nothing left that it could fail to answer

    def break_off(self) -> None:
        """See `BlockingStream.break_off`."""
        self._call.cancel()


async def each_of(batches: Iterable[Batch] | AsyncIterable[Batch]) -> AsyncIterator[Batch]:
    """Batches of either kind."""
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch


def _left_s(course: Course) -> float:
    """Seconds until the deadline.

    Raises:
        DeadlineSpent: there are none.
    """
    try:
        return course.deadline.remaining_ms("the answer came") / _MS_PER_SECOND
    except DeadlineSpent:
        raise course.late() from None


def _lost_its_status(failure: Any) -> bool:
    """Whether gRPC says only that it could not send, to a server that had ended the stream for a reason of its own.

    Its asyncio client does so where it was about to send when the status came. A new stream learns the reason.
    """
    return failure.code() is grpc.StatusCode.INTERNAL and "execute_batch" in str(failure.debug_error_string())


def _patient_pauses_s() -> Iterator[float]:
    """For a server that is overloaded: whoever asks at once adds to it."""
    while True:
        yield OVERLOADED_PAUSE_S * random.uniform(0.5, 1.0)


def _of_batch(error: FeatureStoreError, number: int) -> FeatureStoreError:
    """An error that says of which batch it is, counted from 0."""
    error.message = f"batch {number}: {error.message}"
    return error


def _ended_early() -> InvariantBroken:
    return InvariantBroken("the server ended the stream before all batches were answered")
