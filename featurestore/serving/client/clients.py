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
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Self

import grpc
import grpc.aio

from featurestore.clock import Clock, Deadline, SystemClock
from featurestore.online.answer.explaining.explanation import Explanation
from featurestore.online.answer.schema import ServiceSchema
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.client.calls import CHANNEL_OPTIONS, HEADER, calls_of
from featurestore.serving.client.explanations import explain_request, parse_explanation
from featurestore.serving.client.messages import (
    EntityValues,
    Events,
    LookupBatch,
    RequestValues,
    make_request,
    parse_result,
    parse_schema,
)
from featurestore.serving.client.result import LookupResult
from featurestore.serving.client.retries import error_of_call, pause_before_retry_s, pauses_s
from featurestore.serving.client.streams import (
    BATCH_TIMEOUT_DEFAULT_S,
    AsyncStream,
    Batch,
    BlockingStream,
    Course,
    each_of,
)
from featurestore.serving.client.throttle import Throttles
from featurestore.serving.client.tls import ClientTls

TIMEOUT_DEFAULT_S = 1.0
"""A payment does not wait longer for its features."""

_MS_PER_SECOND = 1_000


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


class _Client:
    """What both clients have.

    Args:
        address, timeout_s, tls, token, clock: see `LookupClient`.

    Attributes:
        _grpc: makes channels, for threads or for an event loop.
    """

    _grpc: ClassVar[Any]

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = TIMEOUT_DEFAULT_S,
        tls: ClientTls | None = None,
        token: str | Callable[[], str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._token = token
        self._timeout_s = timeout_s
        self._clock = clock if clock is not None else SystemClock()
        self._throttles = Throttles(self._clock)
        self._channel = (
            self._grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
            if tls is None
            else self._grpc.secure_channel(address, tls.credentials(), options=CHANNEL_OPTIONS)
        )
        self._calls = calls_of(self._channel)
        self._schemas = _Schemas()

    def _method(self, name: str) -> Callable[..., Any]:
        """A method of the server, with what says who asks."""
        token = self._token() if callable(self._token) else self._token
        method = self._calls[name]
        return method if token is None else partial(method, metadata=((HEADER, f"Bearer {token}"),))

    def _deadline(self, timeout_s: float | None) -> Deadline:
        """The deadline of a call that begins now."""
        return Deadline.after(self._clock, (self._timeout_s if timeout_s is None else timeout_s) * _MS_PER_SECOND)

    def _course(self, service: str, as_of_ms: int | None, timeout_s: float, *, with_metadata: bool) -> Course:
        """Of a job that begins now."""
        make = partial(make_request, service, as_of_ms=as_of_ms, with_metadata=with_metadata)
        return Course(make, self._clock, timeout_s)


class LookupClient(_Client):
    """Looks features up; safe to share between threads.

    Args:
        address: "host:port" of the server, or any gRPC target.
        timeout_s: deadline of a call, retries included, unless the call says otherwise.
        tls: None connects in clear text.
        token: says who asks, to a server that wants to know; a function is asked for one before each call. Send it by
            TLS: who reads it can use it.
        clock: measures deadlines and sleeps between retries.
    """

    _grpc: ClassVar[Any] = grpc

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
        message = make_request(service, LookupBatch(entities, request, events), as_of_ms, with_metadata=with_metadata)
        while True:
            response = self._call("Lookup", message, deadline)
            result = self._schemas.result(response)
            if result is not None:
                return result
            # The layout is new, or changed between the two calls: ask again until both agree.
            schema = self._describe(service, deadline)
            if schema.schema_id == response.schema_id:
                return parse_result(response, schema)

    def lookup_stream(
        self,
        service: str,
        batches: Iterable[Batch],
        *,
        as_of_ms: int | None = None,
        with_metadata: bool = False,
        timeout_s: float = BATCH_TIMEOUT_DEFAULT_S,
    ) -> Iterator[LookupResult]:
        """A result for each batch of rows, in their order: for jobs that look up more than a request holds.

        A few batches are asked ahead, in one stream; the next ones are taken from `batches` as results are taken from
        here, in the same thread. A stream that ends, because the server is renewed say, goes on in a new one with the
        first batch that has no answer. The server answers batches when it has time for them; see docs/operations.md.

        Args:
            service: name of the feature service.
            batches: each of up to 1,000 rows, join key -> list of values; a `LookupBatch` where rows have columns of
                the request, or payments in flight.
            as_of_ms: one read time for all rows; None for the server's clock, for each batch as it is answered, or
                for the times of the payments.
            with_metadata: also answer event times, freshness and source positions.
            timeout_s: of each batch, from the answer to the one before it, new tries included.

        Raises:
            FeatureStoreError: as the server raised it, with the number of the batch; those before it were answered.
        """
        course = self._course(service, as_of_ms, timeout_s, with_metadata=with_metadata)
        remaining = iter(batches)
        stream: BlockingStream | None = None
        try:
            while True:
                while not course.is_full and (batch := next(remaining, None)) is not None:
                    request = course.add(batch)
                    if stream is not None:
                        stream.send(request)
                if not course.unanswered:
                    break
                stream = stream or BlockingStream(self._method("LookupStream"), course)
                try:
                    response = stream.receive()
                except grpc.RpcError as failure:
                    stream.break_off()
                    stream = None
                    self._clock.sleep(course.pause_s(failure))
                    continue
                result = self._schemas.result(response)
                if result is None:
                    self._describe(service, course.deadline)
                    result = self._schemas.result(response)
                if result is None:
                    # The service was changed between the two calls: ask again, as `lookup` does.
                    stream.break_off()
                    stream = None
                    continue
                course.answered()
                yield result
        finally:
            if stream is not None:
                stream.close()

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
        events: Events | None = None,
        timeout_s: float | None = None,
    ) -> Explanation:
        """Why a lookup of one row answers what it answers: for people, not while a payment waits.

        Args:
            service: name of the feature service.
            entities: join key -> value.
            as_of_ms: None for the server's clock, or the read time.
            features: names, as they are answered or "view:feature"; empty for all.
            request: columns of the request, for features that are computed from them: name -> value.
            events: payments in flight: source -> column -> value; their time is the read time.
            timeout_s: deadline of this call, retries included.

        Raises:
            FeatureStoreError: as the server raised it; Unavailable when no server answers. A moment that the tiles
                cannot answer is explained, not raised.
        """
        message = explain_request(service, entities, as_of_ms, features, request, events)
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

    def _call(self, method: str, request: Any, deadline: Deadline) -> Any:
        """One call, with retries."""
        pauses, throttle = pauses_s(), self._throttles.of(request)
        while True:
            try:
                throttle.check()
                answer = self._method(method)(request, timeout=deadline.remaining_ms("the call") / _MS_PER_SECOND)
                throttle.answered()
                return answer
            except grpc.RpcError as failure:
                error = error_of_call(failure)
                throttle.remember(error)
                pause_s = pause_before_retry_s(error, deadline, pauses)
                if pause_s is None:
                    raise error from failure
            self._clock.sleep(pause_s)


class AsyncLookupClient(_Client):
    """`LookupClient` for asyncio; every method is the same but a coroutine. Belongs to one event loop.

    Args:
        address: "host:port" of the server, or any gRPC target.
        timeout_s: deadline of a call, retries included, unless the call says otherwise.
        tls: None connects in clear text.
        token: says who asks, to a server that wants to know; a function is asked for one before each call. Send it by
            TLS: who reads it can use it.
        clock: measures deadlines.
    """

    _grpc: ClassVar[Any] = grpc.aio

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
        message = make_request(service, LookupBatch(entities, request, events), as_of_ms, with_metadata=with_metadata)
        while True:
            response = await self._call("Lookup", message, deadline)
            result = self._schemas.result(response)
            if result is not None:
                return result
            schema = await self._describe(service, deadline)
            if schema.schema_id == response.schema_id:
                return parse_result(response, schema)

    async def lookup_stream(
        self,
        service: str,
        batches: Iterable[Batch] | AsyncIterable[Batch],
        *,
        as_of_ms: int | None = None,
        with_metadata: bool = False,
        timeout_s: float = BATCH_TIMEOUT_DEFAULT_S,
    ) -> AsyncIterator[LookupResult]:
        """See `LookupClient.lookup_stream`; `batches` may be asynchronous too."""
        course = self._course(service, as_of_ms, timeout_s, with_metadata=with_metadata)
        remaining = each_of(batches)
        stream: AsyncStream | None = None
        try:
            while True:
                while not course.is_full and (batch := await anext(remaining, None)) is not None:
                    request = course.add(batch)
                    if stream is not None:
                        stream.send(request)
                if not course.unanswered:
                    break
                try:
                    stream = stream or AsyncStream(self._method("LookupStream"), course)
                    response = await stream.receive()
                except grpc.aio.AioRpcError as failure:
                    stream = None
                    await asyncio.sleep(course.pause_s(failure))
                    continue
                result = self._schemas.result(response)
                if result is None:
                    await self._describe(service, course.deadline)
                    result = self._schemas.result(response)
                if result is None:
                    stream.break_off()
                    stream = None
                    continue
                course.answered()
                yield result
        finally:
            if stream is not None:
                await stream.close()

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
        events: Events | None = None,
        timeout_s: float | None = None,
    ) -> Explanation:
        """See `LookupClient.explain`."""
        message = explain_request(service, entities, as_of_ms, features, request, events)
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

    async def _call(self, method: str, request: Any, deadline: Deadline) -> Any:
        """One call, with retries."""
        pauses, throttle = pauses_s(), self._throttles.of(request)
        while True:
            try:
                throttle.check()
                answer = await self._method(method)(request, timeout=deadline.remaining_ms("the call") / _MS_PER_SECOND)
                throttle.answered()
                return answer
            except grpc.aio.AioRpcError as failure:
                error = error_of_call(failure)
                throttle.remember(error)
                pause_s = pause_before_retry_s(error, deadline, pauses)
                if pause_s is None:
                    raise error from failure
            await asyncio.sleep(pause_s)
