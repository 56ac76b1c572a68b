"""Handlers as steps: what is wanted of the store goes out, what the store holds comes in, the answer is returned.

    steps --StoreRead--> driver --> store
    steps <----values--- driver <-- store          (or the store's error, thrown into the steps)

A handler is a generator that does not know who drives it: `run_blocking` in a thread, which waits, or `run_async` in an
event loop, which serves others meanwhile. What is about to compute for long, because it reads many keys or says so with
a `LongWork`, waits for its turn first, and is finished in a thread. All that decides an answer stands in the handler,
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from featurestore.clock import Deadline
from featurestore.errors import FeatureStoreError, LimitExceeded
from featurestore.online.store import AsyncReads, OnlineStore
from featurestore.serving.request.limits import RESPONSE_BYTES_MAX

SMALL_KEYS_MAX = 256
"""A request that reads more than so many keys is large: it waits for its turn among its like, and is finished in a
thread, because its computing would hold up the others."""

_T = TypeVar("_T")


@dataclass(slots=True)
class StoreRead:
    """One round trip to the store.

    Attributes:
        groups: keys; see `OnlineStore.read_groups`.
        timeout_ms: how long to wait.
    """

    groups: Sequence[Sequence[bytes]]
    timeout_ms: float


class LongWork:
    """What comes next takes so long that it would hold up the others of an event loop; nothing is sent in return."""


Steps = Generator[StoreRead | LongWork, list[bytes | None], _T]
"""A handler at work."""

Handler = Callable[[Any, Deadline], Steps[Any]]
"""(request message, deadline) -> steps to the response message."""


def without_reading(handle: Callable[[Any, Deadline], Any]) -> Handler:
    """A handler of no steps from a function that needs nothing of the store."""

    def steps(request: Any, deadline: Deadline) -> Steps[Any]:
        yield from ()
        return handle(request, deadline)

    return steps


def encoded(handle: Handler, encode: Callable[[Any], bytes]) -> Handler:
    """A handler of response messages as one of bytes; a protocol would refuse too many of them without a hint.

    Raises:
        LimitExceeded: when the response is too large to send.
    """

    def steps(request: Any, deadline: Deadline) -> Steps[bytes]:
        data = encode((yield from handle(request, deadline)))
        if len(data) > RESPONSE_BYTES_MAX:
            raise LimitExceeded(
                f"the answer is {len(data)} bytes long, the limit is {RESPONSE_BYTES_MAX}",
                hint="ask for fewer rows at once",
            )
        return data

    return steps


class BlockingReads(Protocol):
    """The one thing of an OnlineStore that handlers want."""

    def read_groups(self, groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None) -> list[bytes | None]:
        """See OnlineStore."""
        ...


def run_blocking(steps: Steps[_T], store: BlockingReads, before_large: Callable[[], BlockingReads] | None = None) -> _T:
    """Carry steps out in this thread.

    Args:
        steps: the handler.
        store: what it reads.
        before_large: called when the steps turn out to be large; waits for their turn, and says what to read then.

    Raises:
        FeatureStoreError: as the steps raise it.
    """
    try:
        wanted = next(steps)
    except StopIteration as end:
        answer: _T = end.value
        return answer
    if before_large is not None and _is_large(wanted):
        store = before_large()
    return _finish(steps, store, wanted)


async def run_async(
    steps: Steps[_T],
    reads: AsyncReads,
    store: OnlineStore,
    threads: Executor,
    before_large: Callable[[], Awaitable[None]],
) -> _T:
    """Carry steps out in this event loop.

    Args:
        steps: the handler.
        reads: the store for this loop.
        store: the same store for `threads`.
        threads: where large requests and long work go.
        before_large: called when the steps turn out to be large; waits for their turn.

    Raises:
        FeatureStoreError: as the steps raise it.
    """
    try:
        wanted = next(steps)
        while isinstance(wanted, StoreRead) and not _is_large(wanted):
            try:
                values = await reads.read_groups(wanted.groups, timeout_ms=wanted.timeout_ms)
            except FeatureStoreError as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(values)
    except StopIteration as end:
        answer: _T = end.value
        return answer
    await before_large()
    return await in_thread(threads, lambda: _finish(steps, store, wanted))


async def in_thread(threads: Executor, work: Callable[[], _T]) -> _T:
    """Do something in a thread; whoever is cancelled meanwhile stays until it is done."""
    working = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        # The thread goes on, and whoever waits for its turn must wait for that.
        await asyncio.wait([working])
        raise


def _is_large(wanted: StoreRead | LongWork) -> bool:
    """Whether what comes next would hold up others."""
    return isinstance(wanted, LongWork) or sum(map(len, wanted.groups)) > SMALL_KEYS_MAX


def _finish(steps: Steps[_T], store: BlockingReads, wanted: StoreRead | LongWork) -> _T:
    """The rest of steps that have asked for something."""
    try:
        while True:
            if isinstance(wanted, LongWork):
                wanted = next(steps)
                continue
            try:
                values = store.read_groups(wanted.groups, timeout_ms=wanted.timeout_ms)
            except FeatureStoreError as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(values)
    except StopIteration as end:
        answer: _T = end.value
        return answer
