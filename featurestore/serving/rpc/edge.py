"""What both kinds of gRPC server do around a handler, and how they register it.

Methods are registered as if their requests were streams, though they are one message each, as it is on the wire: so a
request can be refused before it is read, which saves half of what a refusal costs, and grpc decodes nothing. (In its
thread-pool server every request whose deserializer raises stays in memory for ever.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeAlias

import grpc
from grpc_health.v1 import health

from featurestore.clock import Clock
from featurestore.serving.request.admission import Visit
from featurestore.serving.request.handling import Complaints, Handling, HandlingOf
from featurestore.serving.request.metrics import ServerMetrics
from featurestore.serving.rpc.methods import Method

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
) -> tuple[str, ...]:
    """Register all methods, and reflection, if any, that describes them and the health service.

    Args:
        server: of either kind.
        methods: what to serve.
        clock: measures latency and deadlines.
        metrics: counts requests.
        behavior_of: what the server calls for each request of a method.
        reflection_of: service names -> handlers of the reflection services; None for none.

    Returns:
        The names that the health service answers for: the server as a whole, and each service.
    """
    complaints = Complaints(clock)

    def handling_of(name: str) -> Handling:
        return Handling(name, clock, metrics, complaints)

    by_service: dict[str, Handlers] = {}
    for method in methods:
        by_service.setdefault(method.service, {})[method.name] = grpc.stream_unary_rpc_method_handler(
            behavior_of(method, handling_of(method.name))
        )
    reflected = {} if reflection_of is None else reflection_of([*by_service, health.SERVICE_NAME], handling_of)
    for service, handlers in (by_service | dict(reflected)).items():
        # Under their full names, which spares grpc a search for each request; and generic, for what asks so.
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_registered_method_handlers(service, handlers)
    return ("", *by_service)
