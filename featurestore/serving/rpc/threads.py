"""The lookup server on grpc's thread pool: requests overlap while they wait for the store.

Every request has a thread from its arrival on, in which it waits for its turn; how many are at work is `admission`'s to
say. So a request is refused, and a health check answered, whatever the others wait for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from featurestore.clock import Clock, Deadline
from featurestore.errors import DeadlineSpent
from featurestore.online.store import OnlineStore
from featurestore.serving.request.admission import Admission, Lane, Visit
from featurestore.serving.request.handling import (
    SILENT,
    SILENT_STREAM,
    STOP_SECONDS,
    CallerGone,
    Handling,
    Silence,
    quiet_pauses_s,
)
from featurestore.serving.request.limits import LARGE_AT_WORK_MAX, LARGE_WAITING_MAX, LOOKUP_STREAMS_MAX, WAITING_MAX
from featurestore.serving.request.metrics import ServerMetrics
from featurestore.serving.request.steps import run_blocking
from featurestore.serving.rpc.edge import caller_budget_s, chunk_answer, chunk_ended, named, on_pool, register
from featurestore.serving.rpc.listening import ServerSettings, bind, health_status
from featurestore.serving.rpc.methods import Method
from featurestore.serving.rpc.reflection import threaded_reflection
from featurestore.serving.rpc.streams import Streams, StreamVisit

_T = TypeVar("_T")

REFLECTION_THREADS = 2
"""Reflection streams stay open as long as their client likes; they must not take lookup threads."""

STREAM_THREADS = LOOKUP_STREAMS_MAX + 4
"""For streams of chunks, and for those that are refused: they must not take lookup threads either."""

READING_THREADS = 16
"""For requests that are being read or refused, beside those that wait or are at work."""

OTHER_THREADS = 4
"""For what is not ours: watchers of health, which take a thread only to begin."""

PAUSE_SECONDS = 0.00006
"""Twice as long in the end, as systems sleep; long enough for grpc's thread to let some requests in."""

SILENCE_LOOK_SECONDS = 1.0
"""How often calls are looked for whose message does not come."""


class ThreadedServer:
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
        threads = settings.at_work_max + WAITING_MAX + LARGE_AT_WORK_MAX + LARGE_WAITING_MAX + READING_THREADS
        self._pool = _LookupPool(threads, self._admission.small)
        self._other_pool = ThreadPoolExecutor(OTHER_THREADS, thread_name_prefix="other")
        self._reflection_pool = ThreadPoolExecutor(REFLECTION_THREADS, thread_name_prefix="reflection")
        self._stream_pool = ThreadPoolExecutor(STREAM_THREADS, thread_name_prefix="stream")
        self._streams = settings.streaming(self._admission, clock, metrics)
        self._server = grpc.server(self._other_pool, options=settings.options())
        self._health_pool = ThreadPoolExecutor(1, thread_name_prefix="health")
        self._health = health.HealthServicer()
        # Health must answer also when every lookup thread waits for a store that hangs.
        self._health.__dict__["Check"] = on_pool(self._health.Check, self._health_pool)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._silent = _SilentCallers(clock)
        self._services = register(
            self._server,
            methods,
            clock,
            metrics,
            self._behavior_of(store, clock),
            partial(threaded_reflection, self._reflection_pool) if settings.reflection else None,
            traces=settings.traces,
        )
        # The servicer says SERVING for the server as a whole until it is told something.
        self.set_serving(False)
        self.port = bind(self._server, settings)
        self._silent.start()
        self._server.start()

    def _behavior_of(self, store: OnlineStore, clock: Clock) -> Callable[[Method, Handling], Callable[[Any, Any], Any]]:
        """What grpc calls for each request of a method, or for each stream of them."""
        requests = _Behaviors(store, clock, self._admission, self._pool, self._silent)
        streams = _StreamBehaviors(store, clock, self._streams, self._stream_pool, self._silent)
        return lambda method, handling: (streams if method.is_stream else requests).of(method, handling)

    def set_serving(self, is_serving: bool) -> None:
        """What the health service answers."""
        for service in self._services:
            self._health.set(service, health_status(is_serving))

    def stop(self, drain_seconds: float) -> bool:
        """Answer NOT_SERVING, refuse new requests, let those in flight end; whether all did."""
        self._health.enter_graceful_shutdown()
        self._streams.drain()
        for pause_s in quiet_pauses_s(lambda: self._admission.arrivals, drain_seconds):
            threading.Event().wait(pause_s)
        has_ended = self._server.stop(drain_seconds).wait(drain_seconds + STOP_SECONDS)
        self._silent.stop()
        for pool in (self._pool, self._stream_pool, self._other_pool, self._reflection_pool, self._health_pool):
            pool.shutdown(wait=False, cancel_futures=True)
        return has_ended


class _LookupPool(ThreadPoolExecutor):
    """Threads for requests, and none for those that are refused at once.

    A refusal neither reads nor waits, so grpc's own thread can run the handler to its end. Handing it over to another
    thread, which has to get hold of the interpreter first, costs more than the refusal does.
    """

    def __init__(self, threads: int, lane: Lane) -> None:
        super().__init__(threads, thread_name_prefix="lookup")
        self._lane = lane
        self._here = threading.local()

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """See Executor; what runs here must call `refuse_if_full` before it reads, waits or computes."""
        if not self._lane.is_full():
            return super().submit(fn, *args, **kwargs)
        done: Future[_T] = Future()
        self._here.is_refusing = True
        try:
            done.set_result(fn(*args, **kwargs))
        finally:
            self._here.is_refusing = False
        return done

    def refuse_if_full(self) -> None:
        """Raise Overloaded if this thread must not go on."""
        if getattr(self._here, "is_refusing", False):
            self._lane.refuse()


class _Turn:
    """One small request's turn to compute, and the store as it reads it: meanwhile it is another's turn.

    On one interpreter nobody computes sooner for computing at the same time as others, and grpc's thread, which lets
    requests in, would have to share with all of them instead of with one.

    Args:
        store: what is read.
        lock: whose turn it is; the same for all requests of a server.
    """

    __slots__ = ("_is_ours", "_lock", "_store")

    def __init__(self, store: OnlineStore, lock: threading.Lock) -> None:
        self._store = store
        self._lock = lock
        self._is_ours = False

    def begin(self) -> None:
        """Wait for it."""
        self._lock.acquire()
        self._is_ours = True

    def end(self) -> None:
        """If it has not ended yet."""
        if self._is_ours:
            self._is_ours = False
            self._lock.release()

    def read_groups(self, groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None) -> list[bytes | None]:
        """See OnlineStore."""
        self.end()
        try:
            return self._store.read_groups(groups, timeout_ms=timeout_ms)
        finally:
            self.begin()


class _SilentCallers:
    """Breaks off calls without a deadline whose message does not come: grpc would keep a thread waiting for ever.

    One thread looks at all of them. A timer for each call would be a thread for each.

    Args:
        clock: says whose time is over.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._deadlines: dict[grpc.ServicerContext, Deadline] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="silent-callers", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def received(
        self,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        deadline: Deadline,
        said: Silence = SILENT,
    ) -> bytes | None:
        """As `_received`, until the deadline; `said` to who sends nothing until then.

        Raises:
            CallerGone: the call was broken off by its caller.
            DeadlineSpent: it was broken off here.
        """
        self._deadlines[context] = deadline
        try:
            return _received(messages)
        finally:
            if self._deadlines.pop(context, None) is None:
                # To grpc that is a caller who hung up, or one who ended the call without a message.
                raise DeadlineSpent(said.message, hint=said.hint)

    def _run(self) -> None:
        """The thread."""
        while not self._stopping.wait(SILENCE_LOOK_SECONDS):
            now_ns = self._clock.monotonic_ns()
            for context, deadline in list(self._deadlines.items()):
                is_over = deadline.expires_ns is not None and deadline.expires_ns <= now_ns
                # Unless the message has come meanwhile.
                if is_over and self._deadlines.pop(context, None) is not None:
                    context.cancel()


class _Behaviors:
    """What grpc calls for each request, in a thread of the pool.

    Args:
        store: what is read.
        clock: for pauses.
        admission: who is let in.
        pool: the threads.
        silent: minds those who call and say nothing.
    """

    def __init__(
        self, store: OnlineStore, clock: Clock, admission: Admission, pool: _LookupPool, silent: _SilentCallers
    ) -> None:
        self._store = store
        self._clock = clock
        self._admission = admission
        self._pool = pool
        self._silent = silent
        self._computing = threading.Lock()

    def of(self, method: Method, handling: Handling) -> Callable[[Iterator[bytes], grpc.ServicerContext], Any]:
        """The function for a method."""

        def behave(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            started_ns, span = handling.started_ns(), handling.span(method.path, context.invocation_metadata())
            budget_s = caller_budget_s(context)
            visit = Visit(self._admission, handling.deadline(budget_s))
            try:
                visit.begin(context)
                self._pool.refuse_if_full()
                if budget_s is None:
                    data = self._silent.received(messages, context, visit.deadline)
                else:
                    data = _received(messages)
                decoded = named(handling, method, visit, data)
                _wait(visit, context)

                def message() -> Any:
                    return handling.decoded(method.decode, data) if decoded is None else decoded

                response = self._answer(method, visit, message, context)
            except Exception as error:  # noqa: BLE001  # the process edge: one bad request must not take the thread down
                visit.end()
                refusal = handling.ended(error, started_ns, span)
                context.set_trailing_metadata(refusal.metadata)
                context.abort(refusal.code, refusal.text)
            visit.end()
            handling.answered(started_ns, span)
            return response

        return on_pool(behave, self._pool)

    def _answer(self, method: Method, visit: Visit, message: Callable[[], Any], context: grpc.ServicerContext) -> Any:
        """From the request's message to the response's bytes."""
        turn = _Turn(self._store, self._computing)

        def before_large() -> OnlineStore:
            turn.end()
            _wait(visit, context, is_large=True)
            return self._store

        turn.begin()
        try:
            for _ in visit.pauses():
                self._clock.sleep(PAUSE_SECONDS)
            request = message()
            visit.permit(method.asks, request)
            return run_blocking(visit.counted(method.handle(request, visit.deadline)), turn, before_large)
        finally:
            turn.end()


class _StreamBehaviors:
    """What grpc calls for each stream of chunks, in a thread of its own.

    grpc asks for the next answer only when the last one is on its way to a caller who reads, so a thread holds one
    chunk or one answer, and what the connection holds beside them is bounded by HTTP/2.

    Args:
        store: what is read.
        clock: for rests and deadlines.
        streams: who is let in.
        pool: the threads.
        silent: minds those who open a stream and say nothing.
    """

    def __init__(
        self, store: OnlineStore, clock: Clock, streams: Streams, pool: ThreadPoolExecutor, silent: _SilentCallers
    ) -> None:
        self._store = store
        self._clock = clock
        self._streams = streams
        self._pool = pool
        self._silent = silent

    def of(self, method: Method, handling: Handling) -> Callable[[Iterator[bytes], grpc.ServicerContext], Any]:
        """The function for a method."""

        def behave(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            started_ns = handling.started_ns()
            visit = StreamVisit(self._streams, caller_budget_s(context))
            try:
                visit.begin(context)
                while (data := self._next_chunk(messages, context)) is not None:
                    started_ns = handling.started_ns()
                    response = self._answer(method, handling, visit, data, context)
                    visit.chunk_answered()
                    handling.answered(started_ns)
                    yield response
            except GeneratorExit:
                handling.ended(CallerGone(), started_ns)
                raise
            except Exception as error:  # noqa: BLE001  # the process edge, as for single requests
                refusal = chunk_ended(handling, error, visit, started_ns)
                visit.end()
                context.set_trailing_metadata(refusal.metadata)
                context.abort(refusal.code, refusal.text)
            finally:
                visit.end()

        return on_pool(behave, self._pool)

    def _next_chunk(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes | None:
        """The next message, None where the caller has ended the stream."""
        with self._streams.waiting(context.cancel):
            return self._silent.received(messages, context, self._streams.silence(), SILENT_STREAM)

    def _answer(
        self, method: Method, handling: Handling, visit: StreamVisit, data: bytes, context: grpc.ServicerContext
    ) -> bytes:
        """From a chunk's message to its answer's bytes, when its turn has come."""
        _wait(visit, context)
        self._clock.sleep(visit.rest_s())
        _wait(visit, context, is_large=True)
        return chunk_answer(handling, method, visit, data, caller_budget_s(context), store=self._store)


def _received(messages: Iterator[bytes]) -> bytes | None:
    """The call's one message, None if it ended without.

    Raises:
        CallerGone: it was broken off.
    """
    try:
        return next(messages, None)
    except grpc.RpcError as error:
        raise CallerGone from error


def _wait(visit: Visit, context: grpc.ServicerContext, *, is_large: bool = False) -> None:
    """Wait in this thread until the visit's turn has come, or its time is over: others end by then.

    Raises:
        FeatureStoreError: see `Visit.enter` and `Visit.require_turn`.
        CallerGone: nobody waits any more.
    """
    turn = threading.Lock()
    turn.acquire()
    if not visit.enter(turn.release, is_large=is_large):
        turn.acquire()
        visit.require_turn()
        if not context.is_active():
            raise CallerGone
