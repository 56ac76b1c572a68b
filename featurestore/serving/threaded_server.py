"""The lookup server on grpc's thread pool: requests overlap while they wait for the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError
from featurestore.serving.deadline import Deadline
from featurestore.serving.limits import CONCURRENT_REQUESTS_MAX, DEADLINE_DEFAULT_MS
from featurestore.serving.listening import ServerSettings, bind, health_status
from featurestore.serving.methods import Method
from featurestore.serving.metrics import ServerMetrics
from featurestore.serving.reflection import threaded_reflection
from featurestore.serving.status import code_of, metadata_of

REFLECTION_THREADS = 2
"""Reflection streams stay open as long as their client likes; they must not take lookup threads."""

_MS_PER_SECOND = 1_000
_log = logging.getLogger(__name__)


class ThreadedServer:
    """Starts to serve when constructed.

    Args:
        methods: what to serve.
        clock: measures latency and deadlines.
        metrics: counts requests.
        settings: how to listen.

    Raises:
        InvalidRequest: the address cannot be bound, or a TLS file cannot be read.
    """

    def __init__(
        self, methods: Sequence[Method], clock: Clock, metrics: ServerMetrics, settings: ServerSettings
    ) -> None:
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="lookup")
        self._reflection_pool = ThreadPoolExecutor(REFLECTION_THREADS, thread_name_prefix="reflection")
        self._server = grpc.server(
            self._pool, options=settings.options(), maximum_concurrent_rpcs=CONCURRENT_REQUESTS_MAX
        )
        by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method in methods:
            by_service.setdefault(method.service, {})[method.name] = grpc.unary_unary_rpc_method_handler(
                _behavior(method, clock, metrics), method.decode, method.encode
            )
        self._services = ("", *by_service)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflected = threaded_reflection([*by_service, health.SERVICE_NAME], self._reflection_pool)
        for service, handlers in (by_service | reflected).items():
            self._add(service, handlers)
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
        for pool in (self._pool, self._reflection_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    def _add(self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        """Register handlers under their full names, which spares grpc a search for each request."""
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(handlers)),))
        self._server.add_registered_method_handlers(service, dict(handlers))


def _behavior(method: Method, clock: Clock, metrics: ServerMetrics) -> Callable[[Any, grpc.ServicerContext], Any]:
    """The function that grpc calls for each request, in a thread of the pool."""
    observe = metrics.observer(method.name)

    def behave(request: Any, context: grpc.ServicerContext) -> Any:
        started_ns = clock.monotonic_ns()
        status = grpc.StatusCode.INTERNAL
        # None without a deadline, whatever the stubs say.
        remaining_s: float | None = context.time_remaining()
        budget_ms = DEADLINE_DEFAULT_MS if remaining_s is None else remaining_s * _MS_PER_SECOND
        try:
            response = method.handle(request, Deadline.after(clock, budget_ms))
            status = grpc.StatusCode.OK
            return response
        except FeatureStoreError as error:
            status = code_of(error)
            context.set_trailing_metadata(metadata_of(error))
            context.abort(status, str(error))
        except Exception:  # noqa: BLE001  # the process edge: one bad request must not take the thread down
            _log.exception("%s failed", method.name)
            context.abort(grpc.StatusCode.INTERNAL, f"{method.name} failed; the server's log says why")
        finally:
            observe(status.name, clock.monotonic_ns() - started_ns)

    return behave
