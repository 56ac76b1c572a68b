"""Handlers as steps: what is wanted of the store goes out, what the store holds comes in, the answer is returned.

    steps --StoreRead--> driver --> store
    steps <----values--- driver <-- store          (or the store's error, thrown into the steps)

A handler is a generator that does not know who drives it: `run_blocking` in a thread, which waits, or `run_async` in an
event loop, which serves others meanwhile. A handler that is about to compute for long says so with a `LongWork`, and is
finished in a thread. All that decides an answer stands in the handler, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from featurestore.clock import Deadline
from featurestore.errors import FeatureStoreError
from featurestore.online.store import AsyncReads, OnlineStore

KEYS_IN_LOOP_MAX = 256
"""A request that reads more than so many keys is finished in a thread: its computing would hold up the others."""

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


def run_blocking(steps: Steps[_T], store: OnlineStore, wanted: StoreRead | LongWork | None = None) -> _T:
    """Carry steps out in this thread.

    Args:
        steps: the handler.
        store: what it reads.
        wanted: what the steps have asked for already, when they have begun.

    Raises:
        FeatureStoreError: as the steps raise it.
    """
    try:
        if wanted is None:
            wanted = next(steps)
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


async def run_async(steps: Steps[_T], reads: AsyncReads, store: OnlineStore, threads: Executor) -> _T:
    """Carry steps out in this event loop.

    Args:
        steps: the handler.
        reads: the store for this loop.
        store: the same store for `threads`.
        threads: where large requests and long work go.

    Raises:
        FeatureStoreError: as the steps raise it.
    """
    try:
        wanted = next(steps)
        while isinstance(wanted, StoreRead) and sum(map(len, wanted.groups)) <= KEYS_IN_LOOP_MAX:
            try:
                values = await reads.read_groups(wanted.groups, timeout_ms=wanted.timeout_ms)
            except FeatureStoreError as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(values)
    except StopIteration as end:
        answer: _T = end.value
        return answer
    return await asyncio.get_running_loop().run_in_executor(threads, run_blocking, steps, store, wanted)
