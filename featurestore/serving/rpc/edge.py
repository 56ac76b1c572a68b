"""What both kinds of gRPC server do around a handler, and how they register it.

Methods are registered as if their requests were streams, though they are one message each, as it is on the wire: so a
request can be refused before it is read, which saves half of what a refusal costs, and grpc decodes nothing. (In its
thread-pool server every request whose deserializer raises stays in memory for ever.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import grpc
from grpc_health.v1 import health

from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError
from featurestore.online.store import OnlineStore
from featurestore.serving.request.admission import Visit
from featurestore.serving.request.grpc_status import ERROR_CHUNK_KEY
from featurestore.serving.request.handling import Complaints, Handling, HandlingOf, Refusal
from featurestore.serving.request.metrics import ServerMetrics
from featurestore.serving.request.steps import run_blocking
from featurestore.serving.rpc.methods import Method
from featurestore.serving.rpc.streams import StreamVisit

if TYPE_CHECKING:
    # Brings OpenTelemetry, which a server that traces nothing does without.
    from featurestore.serving.request.traces import Traces

Handlers: TypeAlias = "dict[str, grpc.RpcMethodHandler[Any, Any]]"  # generic to the stubs only
"""Handlers of one service by method name."""

NO_DEADLINE_S = 1e12
"""In its thread-pool server grpc gives a call without a deadline so much time and more, instead of None."""


def caller_budget_s(context: Any) -> float | None:
    """How much time the caller gives; None where it set no deadline, and grpc would wait for ever.

    Args:
        context: grpc's, of either kind of server.
    """
    remaining_s: float | None = context.time_remaining()
    return None if remaining_s is None or remaining_s > NO_DEADLINE_S else remaining_s


def named(handling: Handling, method: Method, visit: Visit, data: bytes | None) -> Any | None:
    """The message of a request that is let in only if its feature service has room for it.

    None where that has no say: then it is decoded when the request's turn has come.

    Raises:
        InvalidRequest: it is none.
        Overloaded: the service has as many requests as it may.
    """
    if not (method.names_service and visit.counts_services):
        return None
    request = handling.decoded(method.decode, data)
    visit.name_service(request.feature_service)
    return request


def chunk_answer(
    handling: Handling, method: Method, visit: StreamVisit, data: bytes, budget_s: float | None, *, store: OnlineStore
) -> bytes:
    """From a chunk's message to its answer, in this thread.

    Args:
        handling: around the method.
        method: of the stream.
        visit: of the stream, whose chunk has its turn.
        data: the message.
        budget_s: how much time the caller gives.
        store: what is read.

    Raises:
        FeatureStoreError: as a request of one message raises it.
    """
    request = handling.decoded(method.decode, data)
    visit.permit(method.asks, request)
    visit.require_service(request.feature_service)
    steps = visit.counted(method.handle(request, handling.chunk_deadline(budget_s)))
    response: bytes = run_blocking(steps, store)
    return response


def chunk_ended(handling: Handling, error: Exception, visit: StreamVisit, started_ns: int) -> Refusal:
    """As `Handling.ended`, for a stream; says after how many chunks, where it was let in."""
    if visit.is_open and isinstance(error, FeatureStoreError):
        where = f"chunk {visit.answered}: "
        error.message, error.public = where + error.message, error.public and where + error.public
    refusal = handling.ended(error, started_ns)
    return replace(refusal, metadata=(*refusal.metadata, (ERROR_CHUNK_KEY, str(visit.answered))))


def on_pool(method: Callable[[Any, Any], Any], pool: ThreadPoolExecutor) -> Callable[[Any, Any], Any]:
    """The method, run on threads of its own: grpc looks for this attribute."""

    def on_pool(request: Any, context: Any) -> Any:
        return method(request, context)

    on_pool.__dict__["experimental_thread_pool"] = pool
    return on_pool


class _Registering(Protocol):
    """What grpc.Server and grpc.aio.Server have in common."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None: ...

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None: ...


def register(
    server: _Registering,
    methods: Sequence[Method],
    clock: Clock,
    metrics: ServerMetrics,
    behavior_of: Callable[[Method, Handling], Callable[[Any, Any], Any]],
    reflection_of: Callable[[Sequence[str], HandlingOf], Mapping[str, Handlers]] | None,
    traces: Traces | None = None,
) -> tuple[str, ...]:
    """Register all methods, and reflection, if any, that describes them and the health service.

    Args:
        server: of either kind.
        methods: what to serve.
        clock: measures latency and deadlines.
        metrics: counts requests.
        behavior_of: what the server calls for each request, or stream of requests, of a method.
        reflection_of: service names -> handlers of the reflection services; None for none.
        traces: makes spans.

    Returns:
        The names that the health service answers for: the server as a whole, and each service.
    """
    complaints = Complaints(clock)

    def handling_of(name: str) -> Handling:
        return Handling(name, clock, metrics, complaints, traces)

    by_service: dict[str, Handlers] = {}
    for method in methods:
        handler = grpc.stream_stream_rpc_method_handler if method.is_stream else grpc.stream_unary_rpc_method_handler
        by_service.setdefault(method.service, {})[method.name] = handler(behavior_of(method, handling_of(method.name)))
    reflected = {} if reflection_of is None else reflection_of([*by_service, health.SERVICE_NAME], handling_of)
    for service, handlers in (by_service | dict(reflected)).items():
        # Under their full names, which spares grpc a search for each request; and generic, for what asks so.
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_registered_method_handlers(service, handlers)
    return ("", *by_service)
