"""What both kinds of gRPC server do around a handler, and how they register it.

request -> deadline -> steps, blocking or not -> response
                          |-> error -> Refusal: status, text, trailing metadata
                          '-> counted, with status and latency
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote

import grpc
from grpc_health.v1 import health

from featurestore.clock import Clock, Deadline
from featurestore.errors import FeatureStoreError
from featurestore.serving.request.grpc_status import code_of, metadata_of
from featurestore.serving.request.limits import DEADLINE_DEFAULT_MS
from featurestore.serving.rpc.methods import Method
from featurestore.serving.rpc.metrics import ServerMetrics

Handlers: TypeAlias = "dict[str, grpc.RpcMethodHandler[Any, Any]]"  # generic to the stubs only
"""Handlers of one service by method name."""

STATUS_TEXT_BYTES_MAX = 4_000
"""Clients end a stream whose trailers exceed their limit, 8 or 16 KiB, and the status is lost: somebody who sent a name
of a megabyte could not be told that it is unknown."""

_MS_PER_SECOND = 1_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a request ends that has no answer."""

    code: grpc.StatusCode
    text: str
    metadata: tuple[tuple[str, str], ...]


class Handling:
    """What happens around the handler of one method.

    Args:
        method: the method.
        clock: measures latency and deadlines.
        metrics: counts requests.
    """

    def __init__(self, method: Method, clock: Clock, metrics: ServerMetrics) -> None:
        self._name = method.name
        self._clock = clock
        self._observe = metrics.observer(method.name)

    def deadline(self, remaining_s: float | None) -> Deadline:
        """The deadline of a request that grpc gives so much time; None stands for no deadline."""
        return Deadline.after(self._clock, DEADLINE_DEFAULT_MS if remaining_s is None else remaining_s * _MS_PER_SECOND)

    def refusal(self, error: Exception) -> Refusal:
        """How to tell the caller; an error that nobody raised on purpose is logged, and its text kept from callers."""
        if isinstance(error, FeatureStoreError):
            return Refusal(code_of(error), _bounded(str(error)), metadata_of(error))
        _log.error("%s failed", self._name, exc_info=error)
        return Refusal(grpc.StatusCode.INTERNAL, f"{self._name} failed; the server's log says why", ())

    def count(self, code: grpc.StatusCode, started_ns: int) -> None:
        """Count a request that ended."""
        self._observe(code.name, self._clock.monotonic_ns() - started_ns)


def _bounded(text: str) -> str:
    """A status text that fits the trailers of any client; what is not printable ASCII takes three bytes there."""
    if len(quote(text)) <= STATUS_TEXT_BYTES_MAX:
        return text
    kept = STATUS_TEXT_BYTES_MAX // 12 // 2
    return f"{text[:kept]} ... ({len(text)} characters) ... {text[-kept:]}"


class _Registering(Protocol):
    """What grpc.Server and grpc.aio.Server have in common."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None: ...

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None: ...


def register(
    server: _Registering,
    methods: Sequence[Method],
    behavior_of: Callable[[Method], Callable[[Any, Any], Any]],
    reflection_of: Callable[[Sequence[str]], Mapping[str, Handlers]],
) -> tuple[str, ...]:
    """Register all methods, and reflection that describes them and the health service.

    Args:
        server: of either kind.
        methods: what to serve.
        behavior_of: what the server calls for each request of a method.
        reflection_of: service names -> handlers of the reflection services.

    Returns:
        The names that the health service answers for: the server as a whole, and each service.
    """
    by_service: dict[str, Handlers] = {}
    for method in methods:
        by_service.setdefault(method.service, {})[method.name] = grpc.unary_unary_rpc_method_handler(
            behavior_of(method), method.decode
        )
    reflected = reflection_of([*by_service, health.SERVICE_NAME])
    for service, handlers in (by_service | dict(reflected)).items():
        # Under their full names, which spares grpc a search for each request; and generic, for what asks so.
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_registered_method_handlers(service, handlers)
    return ("", *by_service)
