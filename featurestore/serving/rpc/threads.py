"""The lookup server on grpc's thread pool: requests overlap while they wait for the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from featurestore.clock import Clock
from featurestore.online.store import OnlineStore
from featurestore.serving.request.limits import CONCURRENT_REQUESTS_MAX
from featurestore.serving.request.steps import run_blocking
from featurestore.serving.rpc.edge import Handling, register
from featurestore.serving.rpc.listening import ServerSettings, bind, health_status
from featurestore.serving.rpc.methods import Method
from featurestore.serving.rpc.metrics import ServerMetrics
from featurestore.serving.rpc.reflection import threaded_reflection

REFLECTION_THREADS = 2
"""Reflection streams stay open as long as their client likes; they must not take lookup threads."""


class ThreadedServer:
    """Starts to serve when constructed.

    Args:
        methods: what to serve.
        store: what their steps read.
        clock: measures latency and deadlines.
        metrics: counts requests.
        settings: how to listen.

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
    ) -> None:
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="lookup")
        self._reflection_pool = ThreadPoolExecutor(REFLECTION_THREADS, thread_name_prefix="reflection")
        self._server = grpc.server(
            self._pool, options=settings.options(), maximum_concurrent_rpcs=CONCURRENT_REQUESTS_MAX
        )
        self._health_pool = ThreadPoolExecutor(1, thread_name_prefix="health")
        self._health = health.HealthServicer()
        # Health must answer also when every lookup thread waits for a store that hangs.
        self._health.__dict__["Check"] = _on_pool(self._health.Check, self._health_pool)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._services = register(
            self._server,
            methods,
            lambda method: _behavior(method, store, Handling(method, clock, metrics), clock),
            lambda services: threaded_reflection(services, self._reflection_pool),
        )
        self.port = bind(self._server, settings)
        self._server.start()

    def set_serving(self, is_serving: bool) -> None:
        """What the health service answers."""
        for service in self._services:
            self._health.set(service, health_status(is_serving))

    def stop(self, drain_seconds: float) -> None:
        """Answer NOT_SERVING, refuse new requests, let those in flight end, return when all did."""
        self._health.enter_graceful_shutdown()
        self._server.stop(drain_seconds).wait()
        for pool in (self._pool, self._reflection_pool, self._health_pool):
            pool.shutdown(wait=False, cancel_futures=True)


def _on_pool(method: Callable[[Any, Any], Any], pool: ThreadPoolExecutor) -> Callable[[Any, Any], Any]:
    """The method, run on threads of its own: grpc looks for this attribute."""

    def on_pool(request: Any, context: Any) -> Any:
        return method(request, context)

    on_pool.__dict__["experimental_thread_pool"] = pool
    return on_pool


def _behavior(
    method: Method, store: OnlineStore, handling: Handling, clock: Clock
) -> Callable[[Any, grpc.ServicerContext], Any]:
    """The function that grpc calls for each request, in a thread of the pool."""

    def behave(request: Any, context: grpc.ServicerContext) -> Any:
        started_ns = clock.monotonic_ns()
        try:
            response = run_blocking(method.handle(request, handling.deadline(context.time_remaining())), store)
        except Exception as error:  # noqa: BLE001  # the process edge: one bad request must not take the thread down
            refusal = handling.refusal(error)
            handling.count(refusal.code, started_ns)
            context.set_trailing_metadata(refusal.metadata)
            context.abort(refusal.code, refusal.text)
        handling.count(grpc.StatusCode.OK, started_ns)
        return response

    return behave
