"""Server reflection, so that grpcurl and its kin need no .proto files.

Feast's messages live in a private descriptor pool (see `wire.feast.protos`), ours and gRPC's in the process-wide one;
reflection answers from a third pool that holds copies of all of them. It is served under both names by which clients
ask for it: v1 and the older v1alpha, whose messages are the same on the wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from featurestore.errors import FeatureStoreError
from featurestore.serving._generated import lookup_pb2
from featurestore.serving.request.handling import HandlingOf
from featurestore.serving.rpc.edge import on_pool
from featurestore.wire.feast.protos import descriptor_pool as feast_pool

REFLECTION_SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

METHOD = "ServerReflectionInfo"

_DECODE = reflection_pb2.ServerReflectionRequest.FromString

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic to the stubs only

_FEAST_SERVING_FILE = "feast/serving/ServingService.proto"


def threaded_reflection(
    pool: ThreadPoolExecutor, services: Iterable[str], handling_of: HandlingOf
) -> dict[str, dict[str, Handler]]:
    """Method handlers by service name, for a thread-pool server.

    Args:
        pool: runs the reflection streams.
        services: full names of the services to show.
        handling_of: decodes and counts.
    """
    handling = handling_of(METHOD)
    servicer = reflection.ReflectionServicer([*services, *REFLECTION_SERVICES], pool=_pool())

    def reflect(requests: Any, context: Any) -> Iterator[Any]:
        started_ns = handling.started_ns()
        try:
            yield from servicer.ServerReflectionInfo((handling.decoded(_DECODE, data) for data in requests), context)
        except FeatureStoreError as error:
            refusal = handling.ended(error, started_ns)
            context.set_trailing_metadata(refusal.metadata)
            context.abort(refusal.code, refusal.text)
        handling.answered(started_ns)

    return _handlers(on_pool(reflect, pool))


def async_reflection(services: Iterable[str], handling_of: HandlingOf) -> dict[str, dict[str, Handler]]:
    """Method handlers by service name, for an asyncio server.

    Args:
        services: full names of the services to show.
        handling_of: decodes and counts.
    """
    handling = handling_of(METHOD)
    servicer = reflection.aio.ReflectionServicer([*services, *REFLECTION_SERVICES], pool=_pool())

    async def decoded(requests: Any) -> AsyncIterator[Any]:
        async for data in requests:
            yield handling.decoded(_DECODE, data)

    async def reflect(requests: Any, context: Any) -> AsyncIterator[Any]:
        started_ns = handling.started_ns()
        try:
            responses: Any = servicer.ServerReflectionInfo(decoded(requests), context)
            async for response in responses:
                yield response
        except FeatureStoreError as error:
            refusal = handling.ended(error, started_ns)
            await context.abort(refusal.code, refusal.text, refusal.metadata)
        handling.answered(started_ns)

    return _handlers(reflect)


def _handlers(reflect: Callable[..., Any]) -> dict[str, dict[str, Handler]]:
    """The one method, under both names."""
    handler: Handler = grpc.stream_stream_rpc_method_handler(
        reflect, response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString
    )
    return {service: {METHOD: handler} for service in REFLECTION_SERVICES}


class _Symbols:
    """A pool in which methods are symbols as well, as the protocol has them and ghz asks; protobuf's is final.

    Args:
        pool: finds everything else.
    """

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """The file of a message, a field, a service or a method."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file


def _pool() -> Any:
    """Everything that can be reflected."""
    pool = DescriptorPool()
    _copy(feast_pool().FindFileByName(_FEAST_SERVING_FILE), pool, set())
    for module in (lookup_pb2, health_pb2, reflection_pb2):
        _copy(module.DESCRIPTOR, pool, set())
    return _Symbols(pool)


def _copy(file: FileDescriptor, pool: DescriptorPool, seen: set[str]) -> None:
    """Add a file and what it imports, dependencies first."""
    if file.name in seen:
        return
    seen.add(file.name)
    for dependency in file.dependencies:
        _copy(dependency, pool, seen)
    copy = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(copy)
    pool.Add(copy)
