"""Clients of the packed API, for threads and for asyncio.

    with LookupClient("127.0.0.1:6566") as client:
        result = client.lookup("fraud_detection", {"card_id": "c-17", "merchant_id": 4711})
        model.predict(result.to_numpy())

Names are fetched once for each layout and kept. A call that meets UNAVAILABLE is tried again with growing, jittered
pauses until its deadline; lookups only read, so that is always safe. Everything else is raised as the FeatureStoreError
that the server raised. While a server refuses (Overloaded), most calls are not sent at all: see throttle.py.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from featurestore.clock import Clock, Deadline, SystemClock
from featurestore.errors import DeadlineSpent, FeatureStoreError, InvalidRequest, Overloaded, Unavailable
from featurestore.online.answer.explanation import Explanation
from featurestore.online.answer.schema import ServiceSchema
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.client.explanations import explain_request, parse_explanation
from featurestore.serving.client.messages import (
    EntityValues,
    Events,
    RequestValues,
    make_request,
    parse_result,
    parse_schema,
)
from featurestore.serving.client.result import LookupResult
from featurestore.serving.client.throttle import Throttle
from featurestore.serving.packed_columns import SERVICE_NAME
from featurestore.serving.request.grpc_status import ERROR_KIND_KEY, error_of, is_transient
from featurestore.serving.request.limits import REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX

TIMEOUT_DEFAULT_S = 1.0
"""A payment does not wait longer for its features."""

BACKOFF_FIRST_S = 0.02
BACKOFF_MAX_S = 0.5
BACKOFF_GROWTH = 2.0
"""Pauses of 20, 40, 80 ... 500 ms, each shortened at random by up to half so that clients do not march in step."""

_MS_PER_SECOND = 1_000

_CHANNEL_OPTIONS = (
    # Ours to send, the server's to answer.
    ("grpc.max_send_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_receive_message_length", RESPONSE_BYTES_MAX),
    # Pauses between payments must not let a firewall forget the connection.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two clients of one process get a connection each.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files for TLS.

    Attributes:
        authority: PEM file of the authority that signed the server's certificate; None takes gRPC's own list.
        certificate, key: PEM files that the client presents, where the server asks for them.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """The files' contents as gRPC wants them.

        Raises:
            InvalidRequest: a file cannot be read.
        """
        try:
            authority, key, certificate = (
                None if path is None else path.read_bytes() for path in (self.authority, self.key, self.certificate)
            )
        except OSError as error:
            raise InvalidRequest("a TLS file cannot be read", detail=str(error)) from error
        return grpc.ssl_channel_credentials(authority, key, certificate)


class _Schemas:
    """Layouts by id, as far as this client has seen them."""

    def __init__(self) -> None:
        self._by_id: dict[int, ServiceSchema] = {}

    def result(self, response: pb.LookupResponse) -> LookupResult | None:
        """The result, or None when the layout must be fetched first."""
        schema = self._by_id.get(response.schema_id)
        return None if schema is None else parse_result(response, schema)

    def learn(self, response: pb.DescribeFeatureServiceResponse) -> ServiceSchema:
        """Keep a layout."""
        schema = parse_schema(response)
        self._by_id[schema.schema_id] = schema
        return schema


class LookupClient:
    """Looks features up; safe to share between threads.

    Args:
        address: "host:port" of the server, or any gRPC target.
        timeout_s: deadline of a call, retries included, unless the call says otherwise.
        tls: None connects in clear text.
        clock: measures deadlines and sleeps between retries.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = TIMEOUT_DEFAULT_S,
        tls: ClientTls | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._clock = clock if clock is not None else SystemClock()
        self._throttles = _Throttles(self._clock)
        self._channel = (
            grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
            if tls is None
            else grpc.secure_channel(address, tls.credentials(), options=_CHANNEL_OPTIONS)
        )
        self._calls = _calls(self._channel.unary_unary)
        self._schemas = _Schemas()

    def lookup(
        self,
        service: str,
        entities: Mapping[str, EntityValues],
        *,
        request: Mapping[str, RequestValues] | None = None,
        as_of_ms: int | Sequence[int] | None = None,
        with_metadata: bool = False,
        events: Events | None = None,
        timeout_s: float | None = None,
    ) -> LookupResult:
        """Feature vectors of one or more entity rows.

        Args:
            service: name of the feature service.
            entities: join key -> value, or list of values, one for each row.
            request: what features that are computed on demand read beside the store, such as the payment's amount:
                name -> value, or list of values, one for each row; None is null.
            as_of_ms: None for the server's clock, one read time, or one for each row.
            with_metadata: also answer event times, freshness and source positions.
            events: the payments in flight, which features count beside the events before them: source -> column ->
                value, or list of values, one for each row. Their time is the read time.
            timeout_s: deadline of this call, retries included.

        Raises:
            FeatureStoreError: as the server raised it; Unavailable when no server answers.
        """
        deadline = self._deadline(timeout_s)
        message = make_request(service, entities, as_of_ms, with_metadata=with_metadata, columns=request, events=events)
        while True:
            response = self._call("Lookup", message, deadline)
            result = self._schemas.result(response)
            if result is not None:
                return result
            # The layout is new, or changed between the two calls: ask again until both agree.
            schema = self._describe(service, deadline)
            if schema.schema_id == response.schema_id:
                return parse_result(response, schema)

    def describe(self, service: str, *, timeout_s: float | None = None) -> ServiceSchema:
        """Join keys, features and views of a feature service.

        Raises:
            FeatureStoreError: as the server raised it; Unavailable when no server answers.
        """
        return self._describe(service, self._deadline(timeout_s))

    def services(self, *, timeout_s: float | None = None) -> list[str]:
        """Names of the registered feature services.

        Raises:
            FeatureStoreError: as the server raised it; Unavailable when no server answers.
        """
        response = self._call("ListFeatureServices", pb.ListFeatureServicesRequest(), self._deadline(timeout_s))
        return [service.name for service in response.services]

    def explain(
        self,
        service: str,
        entities: Mapping[str, EntityValues],
        *,
        as_of_ms: int | None = None,
        features: Sequence[str] = (),
        request: Mapping[str, RequestValues] | None = None,
        timeout_s: float | None = None,
    ) -> Explanation:
        """Why a lookup of one row answers what it answers: for people, not while a payment waits.

        Args:
            service: name of the feature service.
            entities: join key -> value.
            as_of_ms: None for the server's clock, or the read time.
            features: names, as they are answered or "view:feature"; empty for all.
            request: columns of the request, for features that are computed from them: name -> value.
            timeout_s: deadline of this call, retries included.

        Raises:
            FeatureStoreError: as the server raised it; Unavailable when no server answers. A moment that the tiles
                cannot answer is explained, not raised.
        """
        message = explain_request(service, entities, as_of_ms, features, request)
        return parse_explanation(message, self._call("Explain", message, self._deadline(timeout_s)))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _describe(self, service: str, deadline: Deadline) -> ServiceSchema:
        """Fetch a layout and keep it."""
        request = pb.DescribeFeatureServiceRequest(feature_service=service)
        return self._schemas.learn(self._call("DescribeFeatureService", request, deadline))

    def _deadline(self, timeout_s: float | None) -> Deadline:
        """The deadline of a call that begins now."""
        return Deadline.after(self._clock, (self._timeout_s if timeout_s is None else timeout_s) * _MS_PER_SECOND)

    def _call(self, method: str, request: Any, deadline: Deadline) -> Any:
        """One call, with retries."""
        pauses, throttle = _pauses_s(), self._throttles.of(request)
        while True:
            try:
                throttle.check()
                answer = self._calls[method](request, timeout=deadline.remaining_ms("the call") / _MS_PER_SECOND)
                throttle.answered()
                return answer
            except grpc.RpcError as failure:
                error = _error_of(failure)
                _remember(error, throttle)
                pause_s = _pause_s(error, deadline, pauses)
                if pause_s is None:
                    raise error from failure
            self._clock.sleep(pause_s)


class AsyncLookupClient:
    """`LookupClient` for asyncio; every method is the same but a coroutine. Belongs to one event loop.

    Args:
        address: "host:port" of the server, or any gRPC target.
        timeout_s: deadline of a call, retries included, unless the call says otherwise.
        tls: None connects in clear text.
        clock: measures deadlines.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = TIMEOUT_DEFAULT_S,
        tls: ClientTls | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._clock = clock if clock is not None else SystemClock()
        self._throttles = _Throttles(self._clock)
        self._channel = (
            grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
            if tls is None
            else grpc.aio.secure_channel(address, tls.credentials(), options=_CHANNEL_OPTIONS)
        )
        self._calls = _calls(self._channel.unary_unary)
        self._schemas = _Schemas()

    async def lookup(
        self,
        service: str,
        entities: Mapping[str, EntityValues],
        *,
        request: Mapping[str, RequestValues] | None = None,
        as_of_ms: int | Sequence[int] | None = None,
        with_metadata: bool = False,
        events: Events | None = None,
        timeout_s: float | None = None,
    ) -> LookupResult:
        """See `LookupClient.lookup`."""
        deadline = self._deadline(timeout_s)
        message = make_request(service, entities, as_of_ms, with_metadata=with_metadata, columns=request, events=events)
        while True:
            response = await self._call("Lookup", message, deadline)
            result = self._schemas.result(response)
            if result is not None:
                return result
            schema = await self._describe(service, deadline)
            if schema.schema_id == response.schema_id:
                return parse_result(response, schema)

    async def describe(self, service: str, *, timeout_s: float | None = None) -> ServiceSchema:
        """See `LookupClient.describe`."""
        return await self._describe(service, self._deadline(timeout_s))

    async def services(self, *, timeout_s: float | None = None) -> list[str]:
        """See `LookupClient.services`."""
        response = await self._call("ListFeatureServices", pb.ListFeatureServicesRequest(), self._deadline(timeout_s))
        return [service.name for service in response.services]

    async def explain(
        self,
        service: str,
        entities: Mapping[str, EntityValues],
        *,
        as_of_ms: int | None = None,
        features: Sequence[str] = (),
        request: Mapping[str, RequestValues] | None = None,
        timeout_s: float | None = None,
    ) -> Explanation:
        """See `LookupClient.explain`."""
        message = explain_request(service, entities, as_of_ms, features, request)
        return parse_explanation(message, await self._call("Explain", message, self._deadline(timeout_s)))

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _describe(self, service: str, deadline: Deadline) -> ServiceSchema:
        """Fetch a layout and keep it."""
        request = pb.DescribeFeatureServiceRequest(feature_service=service)
        return self._schemas.learn(await self._call("DescribeFeatureService", request, deadline))

    def _deadline(self, timeout_s: float | None) -> Deadline:
        """The deadline of a call that begins now."""
        return Deadline.after(self._clock, (self._timeout_s if timeout_s is None else timeout_s) * _MS_PER_SECOND)

    async def _call(self, method: str, request: Any, deadline: Deadline) -> Any:
        """One call, with retries."""
        pauses, throttle = _pauses_s(), self._throttles.of(request)
        while True:
            try:
                throttle.check()
                answer = await self._calls[method](request, timeout=deadline.remaining_ms("the call") / _MS_PER_SECOND)
                throttle.answered()
                return answer
            except grpc.aio.AioRpcError as failure:
                error = _error_of(failure)
                _remember(error, throttle)
                pause_s = _pause_s(error, deadline, pauses)
                if pause_s is None:
                    raise error from failure
            await asyncio.sleep(pause_s)


def _calls(unary_unary: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The methods by name."""
    messages: dict[str, tuple[Any, Any]] = {
        "Lookup": (pb.LookupRequest, pb.LookupResponse),
        "DescribeFeatureService": (pb.DescribeFeatureServiceRequest, pb.DescribeFeatureServiceResponse),
        "Explain": (pb.ExplainRequest, pb.ExplainResponse),
        "ListFeatureServices": (pb.ListFeatureServicesRequest, pb.ListFeatureServicesResponse),
    }
    return {
        name: unary_unary(
            f"/{SERVICE_NAME}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        for name, (request, response) in messages.items()
    }


def _error_of(failure: Any) -> FeatureStoreError:
    """The server's error; `failure` is a grpc.RpcError that is also a grpc.Call."""
    metadata = dict(failure.trailing_metadata() or ())
    return error_of(failure.code(), failure.details() or "", metadata.get(ERROR_KIND_KEY))


class _Throttles:
    """One for each feature service that is asked, and one for all other calls."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_service: dict[str, Throttle] = {}

    def of(self, request: Any) -> Throttle:
        """That of a request."""
        service = str(getattr(request, "feature_service", ""))
        found = self._by_service.get(service)
        return found if found is not None else self._by_service.setdefault(service, Throttle(self._clock))


def _remember(error: FeatureStoreError, throttle: Throttle) -> None:
    """What a failed call says of how much the server can take: nothing where none was reached, or was late."""
    if isinstance(error, Overloaded):
        throttle.refused()
    elif not isinstance(error, Unavailable):
        throttle.answered()


def _pauses_s() -> Iterator[float]:
    """Growing, jittered pauses between tries."""
    pause_s = BACKOFF_FIRST_S
    while True:
        yield pause_s * random.uniform(0.5, 1.0)
        pause_s = min(pause_s * BACKOFF_GROWTH, BACKOFF_MAX_S)


def _pause_s(error: FeatureStoreError, deadline: Deadline, pauses: Iterator[float]) -> float | None:
    """How long to wait before trying again; None when that is pointless or there is no time."""
    if not is_transient(error):
        return None
    pause_s = next(pauses)
    try:
        left_s = deadline.remaining_ms("another try") / _MS_PER_SECOND
    except DeadlineSpent:
        return None
    return pause_s if pause_s < left_s else None
