"""The lookup server on asyncio: an event loop that serves others while a request waits for the store.

That saves the hand-over between threads, and the threads' fight for the interpreter under load. What is computed runs
in the loop one after another; requests that would hold the others up go to threads (see `serving.request.steps`). The
loop runs in a thread of its own, so that this server is started and stopped like the threaded one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc

from featurestore.clock import Clock, Deadline
from featurestore.errors import DeadlineSpent
from featurestore.online.store import OnlineStore
from featurestore.serving.request.admission import Admission, Visit, wait_for_turn
from featurestore.serving.request.handling import (
    QUIET_SECONDS_MAX,
    SILENT,
    SILENT_STREAM,
    STOP_SECONDS,
    CallerGone,
    Handling,
    quiet_pauses_s,
)
from featurestore.serving.request.limits import LARGE_AT_WORK_MAX
from featurestore.serving.request.metrics import ServerMetrics
from featurestore.serving.request.steps import in_thread, run_async
from featurestore.serving.rpc.edge import caller_budget_s, chunk_answer, chunk_ended, named, register
from featurestore.serving.rpc.listening import ServerSettings, bind, health_status
from featurestore.serving.rpc.methods import Method
from featurestore.serving.rpc.reflection import async_reflection
from featurestore.serving.rpc.streams import Streams, StreamVisit

TURNS_PER_PAUSE = 6
"""Turns of the loop in which gRPC's events come in, before it is taken that there are no more."""

_MS_PER_SECOND = 1_000


class AsyncServer:
    """Starts to serve when constructed.

    Args:
        methods: what to serve.
        store: what their steps read.
        clock: measures latency and deadlines.
        metrics: counts requests.
        settings: how to listen.
        admission: who is let in.

    Raises:
        InvalidRequest: the address cannot be bound, or a TLS file cannot be read.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        store: OnlineStore,
        clock: Clock,
        metrics: ServerMetrics,
        settings: ServerSettings,
        admission: Admission,
    ) -> None:
        self._admission = admission
        self._store = store
        self._reads = store.async_reads()
        self._pool = ThreadPoolExecutor(LARGE_AT_WORK_MAX, thread_name_prefix="large-lookup")
        self._computing = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lookup-loop", daemon=True)
        self._thread.start()
        self._server: grpc.aio.Server
        self._streams: Streams
        self._health: health.aio.HealthServicer
        self._services: tuple[str, ...] = ()
        self.port = 0
        try:
            self._run(self._start(methods, clock, metrics, settings)).result()
        except BaseException:
            self._end_loop()
            raise

    def set_serving(self, is_serving: bool) -> None:
        """What the health service answers; may be called from any thread."""
        self._run(self._set_serving(is_serving))

    def stop(self, drain_seconds: float) -> bool:
        """Answer NOT_SERVING, refuse new requests, let those in flight end; whether all did."""
        stopping = self._run(self._stop(drain_seconds))
        try:
            stopping.result(QUIET_SECONDS_MAX + drain_seconds + STOP_SECONDS)
        except TimeoutError:
            return False
        self._end_loop()
        return True

    async def _start(
        self, methods: Sequence[Method], clock: Clock, metrics: ServerMetrics, settings: ServerSettings
    ) -> None:
        """In the loop: build and start."""
        self._server = grpc.aio.server(options=settings.options())
        self._streams = settings.streaming(self._admission, clock, metrics)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._services = register(
            self._server,
            methods,
            clock,
            metrics,
            self._behavior,
            async_reflection if settings.reflection else None,
            traces=settings.traces,
        )
        # The servicer says SERVING for the server as a whole until it is told something.
        await self._set_serving(False)
        self.port = bind(self._server, settings)
        await self._server.start()

    async def _set_serving(self, is_serving: bool) -> None:
        """In the loop."""
        for service in self._services:
            await self._health.set(service, health_status(is_serving))

    async def _stop(self, drain_seconds: float) -> None:
        """In the loop."""
        await self._health.enter_graceful_shutdown()
        self._streams.drain()
        for pause_s in quiet_pauses_s(lambda: self._admission.arrivals, drain_seconds):
            await asyncio.sleep(pause_s)
        await self._server.stop(drain_seconds)
        # What was cancelled in a thread goes on there until the store answers.
        await asyncio.to_thread(self._pool.shutdown)
        self._reads.close()
        # What the loop was told to do at once, such as closing sockets, is done before it ends.
        await asyncio.sleep(0)

    def _run(self, work: Any) -> Future[Any]:
        """Run a coroutine in the loop from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _end_loop(self) -> None:
        """End the loop's thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _behavior(
        self, method: Method, handling: Handling
    ) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
        """The coroutine that grpc runs for each request, or for each stream of them."""
        if method.is_stream:
            return self._stream_behavior(method, handling)
        reads, store, threads, admission = self._reads, self._store, self._pool, self._admission
        computing = self._computing

        async def behave(_messages: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started_ns, span = handling.started_ns(), handling.span(method.path, context.invocation_metadata())
            budget_s = caller_budget_s(context)
            deadline = handling.deadline(budget_s)
            visit = Visit(admission, deadline)
            try:
                visit.begin(context)
                data = await (context.read() if budget_s is not None else _read_in_time(context, deadline))
                if data is grpc.aio.EOF:
                    data = None
                request = named(handling, method, visit, data)
                await wait_for_turn(visit)
                async with computing:
                    for _ in visit.pauses():
                        for _ in range(TURNS_PER_PAUSE):
                            await asyncio.sleep(0)
                if request is None:
                    request = handling.decoded(method.decode, data)
                visit.permit(method.asks, request)
                steps = visit.counted(method.handle(request, deadline))
                response = await run_async(steps, reads, store, threads, lambda: wait_for_turn(visit, is_large=True))
            except asyncio.CancelledError:
                handling.ended(CallerGone(), started_ns, span)
                raise
            except Exception as error:  # noqa: BLE001  # the process edge: one bad request must not take the loop down
                visit.end()
                refusal = handling.ended(error, started_ns, span)
                if context.done():
                    return b""
                await context.abort(refusal.code, refusal.text, refusal.metadata)
            finally:
                # Also where the caller hung up, which cancels this coroutine.
                visit.end()
            handling.answered(started_ns, span)
            return response

        return behave

    def _stream_behavior(
        self, method: Method, handling: Handling
    ) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
        """The coroutine for a stream of chunks, which holds one of them, or one answer, at a time."""
        store, threads, streams = self._store, self._pool, self._streams

        async def answer(visit: StreamVisit, data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            await wait_for_turn(visit)
            await asyncio.sleep(visit.rest_s())
            await wait_for_turn(visit, is_large=True)
            budget_s = caller_budget_s(context)
            work = partial(chunk_answer, handling, method, visit, data, budget_s, store=store)
            return await in_thread(threads, work)

        async def behave(_messages: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            started_ns = handling.started_ns()
            visit = StreamVisit(streams, caller_budget_s(context))
            try:
                visit.begin(context)
                while (data := await _next_chunk(context, streams)) is not grpc.aio.EOF:
                    started_ns = handling.started_ns()
                    response = await answer(visit, data, context)
                    visit.chunk_answered()
                    handling.answered(started_ns)
                    await context.write(response)
            except asyncio.CancelledError:
                handling.ended(CallerGone(), started_ns)
                raise
            except Exception as error:  # noqa: BLE001  # the process edge, as for single requests
                refusal = chunk_ended(handling, error, visit, started_ns)
                visit.end()
                if not context.done():
                    await context.abort(refusal.code, refusal.text, refusal.metadata)
            finally:
                visit.end()

        return behave


async def _read_in_time(context: grpc.aio.ServicerContext[Any, Any], deadline: Deadline) -> Any:
    """The call's one message; grpc would wait for it for ever where the caller set no deadline.

    Raises:
        DeadlineSpent: it does not come.
    """
    try:
        async with asyncio.timeout(deadline.remaining_ms("the request's message is read") / _MS_PER_SECOND):
            return await context.read()
    except TimeoutError as error:
        raise DeadlineSpent(SILENT.message, hint=SILENT.hint) from error


async def _next_chunk(context: grpc.aio.ServicerContext[Any, Any], streams: Streams) -> Any:
    """A stream's next message.

    Raises:
        DeadlineSpent: it does not come.
        Unavailable: the server stops.
    """
    try:
        async with asyncio.timeout(streams.silence().remaining_ms("a chunk is read") / _MS_PER_SECOND) as timer:
            # At a moment that has passed.
            with streams.waiting(lambda: timer.reschedule(0.0)):
                return await context.read()
    except TimeoutError as error:
        streams.require_open()
        raise DeadlineSpent(SILENT_STREAM.message, hint=SILENT_STREAM.hint) from error
