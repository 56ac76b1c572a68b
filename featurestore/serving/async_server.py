"""The lookup server on asyncio: handlers run in the event loop, one after another.

That saves the hand-over between threads and gives up the overlap of waits for the store. The loop runs in a thread of
its own, so that this server is started and stopped like the threaded one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc

from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError
from featurestore.serving.deadline import Deadline
from featurestore.serving.limits import CONCURRENT_REQUESTS_MAX, DEADLINE_DEFAULT_MS
from featurestore.serving.listening import ServerSettings, bind, health_status
from featurestore.serving.methods import Method
from featurestore.serving.metrics import ServerMetrics
from featurestore.serving.reflection import async_reflection
from featurestore.serving.status import code_of, metadata_of

_MS_PER_SECOND = 1_000
_log = logging.getLogger(__name__)


class AsyncServer:
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
        self._services: tuple[str, ...] = ("", *dict.fromkeys(method.service for method in methods))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lookup-loop", daemon=True)
        self._thread.start()
        self._server: grpc.aio.Server
        self._health: health.aio.HealthServicer
        self.port = 0
        try:
            self._run(self._start(methods, clock, metrics, settings)).result()
        except BaseException:
            self._end_loop()
            raise

    def set_serving(self, is_serving: bool) -> None:
        """What the health service answers; may be called from any thread."""
        self._run(self._set_serving(is_serving))

    def stop(self, drain_seconds: float) -> None:
        """Answer NOT_SERVING, refuse new requests, let those in flight end, return when all did."""
        self._run(self._stop(drain_seconds)).result()
        self._end_loop()

    async def _start(
        self, methods: Sequence[Method], clock: Clock, metrics: ServerMetrics, settings: ServerSettings
    ) -> None:
        """In the loop: build and start."""
        self._server = grpc.aio.server(options=settings.options(), maximum_concurrent_rpcs=CONCURRENT_REQUESTS_MAX)
        by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method in methods:
            by_service.setdefault(method.service, {})[method.name] = grpc.unary_unary_rpc_method_handler(
                _behavior(method, clock, metrics), method.decode, method.encode
            )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflected = async_reflection([*by_service, health.SERVICE_NAME])
        for service, handlers in (by_service | reflected).items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
            self._server.add_registered_method_handlers(service, handlers)
        self.port = bind(self._server, settings)
        await self._server.start()

    async def _set_serving(self, is_serving: bool) -> None:
        """In the loop."""
        for service in self._services:
            await self._health.set(service, health_status(is_serving))

    async def _stop(self, drain_seconds: float) -> None:
        """In the loop."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(drain_seconds)

    def _run(self, work: Any) -> Future[Any]:
        """Run a coroutine in the loop from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _end_loop(self) -> None:
        """End the loop's thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _behavior(
    method: Method, clock: Clock, metrics: ServerMetrics
) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
    """The coroutine that grpc runs for each request."""
    observe = metrics.observer(method.name)

    async def behave(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
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
            await context.abort(status, str(error), metadata_of(error))
        except Exception:  # noqa: BLE001  # the process edge: one bad request must not take the loop down
            _log.exception("%s failed", method.name)
            await context.abort(grpc.StatusCode.INTERNAL, f"{method.name} failed; the server's log says why")
        finally:
            observe(status.name, clock.monotonic_ns() - started_ns)

    return behave
