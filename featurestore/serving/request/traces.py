"""OpenTelemetry spans of requests: the request, the round trip to the store, the assembly, and each view in it.

    featurestore.v1.FeatureLookup/Lookup        service, rows, status; continues the caller's `traceparent`
    ├─ read store                               how many entity keys are read
    └─ assemble
       ├─ view card_activity                    definition, and how many values have which status
       └─ view merchant_profile

Off unless asked for. This file is imported only then: whoever could make a span has None instead of a `Traces`, and
looks at that. No span says whom a request is about: neither entity keys nor the texts of errors, which name them.

Which share of the traces is kept, where they go and under what name is said by OpenTelemetry's own variables, OTEL_*.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextvars import Token
from typing import TypeVar

import numpy as np
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from featurestore import __version__
from featurestore.clock import Clock
from featurestore.errors import InvalidRequest
from featurestore.online.answer.assembly import Answer, Assembly
from featurestore.online.answer.part_times import PartTimes
from featurestore.online.answer.schema import FeatureStatus
from featurestore.online.answer.service_plan import ServicePlan
from featurestore.serving.request.steps import Steps

SERVICE_NAME = "featurestore"
"""Under which traces are found unless OTEL_SERVICE_NAME says otherwise."""

PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
"""Where a protocol other than gRPC would be asked for."""

SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""gRPC statuses that are an error of the server to OpenTelemetry; the others are the caller's."""

_T = TypeVar("_T")


def open_otlp() -> TracerProvider | None:
    """What sends traces to an OTLP receiver over gRPC, as OTEL_* says; None where OTEL_SDK_DISABLED is true.

    Raises:
        InvalidRequest: a variable asks for another protocol.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    for name in PROTOCOL_VARIABLES:
        protocol = os.environ.get(name, "grpc")
        if protocol != "grpc":
            raise InvalidRequest(
                f'{name} is "{protocol}", and traces are sent by "grpc" alone',
                hint=f"unset {name}; receivers listen for gRPC on port 4317",
            )
    given = Resource.create({"service.version": __version__})
    if str(given.attributes["service.name"]).startswith("unknown_service"):
        given = given.merge(Resource({"service.name": SERVICE_NAME}))
    provider = TracerProvider(resource=given, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Traces:
    """Makes the spans of a server.

    Args:
        provider: OpenTelemetry's, which samples and exports.
        clock: times what happens within an assembly.
    """

    def __init__(self, provider: TracerProvider, clock: Clock) -> None:
        self._provider = provider
        self._clock = clock
        self._tracer = provider.get_tracer(SERVICE_NAME, __version__)
        self._propagator = TraceContextTextMapPropagator()

    def request(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> RequestSpan:
        """Begin the span of a request, in the thread or task that works at it.

        Args:
            method: "package.Service/Method".
            metadata: what came with the request; its `traceparent` and `tracestate` are continued.
        """
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        span = self._tracer.start_span(
            method,
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": method},
        )
        return RequestSpan(span)

    def lookup(self, plan: ServicePlan, row_count: int) -> LookupSpans | None:
        """What makes the spans of a lookup within the request that is under way; None if nobody will see them."""
        request = get_current_span()
        if not request.is_recording():
            return None
        request.set_attribute("featurestore.service", plan.schema.service)
        request.set_attribute("featurestore.rows", row_count)
        return LookupSpans(self._tracer, set_span_in_context(request), plan, self._clock)

    def stop(self) -> None:
        """Send what has not been sent yet, and end."""
        self._provider.shutdown()


class RequestSpan:
    """The span of a request, the current one of its thread or task until it ends.

    Args:
        span: has begun.
    """

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Context] = attach(set_span_in_context(span))

    def end(self, status: str) -> None:
        """The request has ended with a gRPC status of this name."""
        self._span.set_attribute("rpc.response.status_code", status)
        if status in SERVER_ERRORS:
            _fail(self._span, status)
        detach(self._token)
        self._span.end()


class LookupSpans:
    """Makes the spans within one request, whatever thread goes on with it.

    Args:
        tracer: makes spans.
        parent: the request.
        plan: what is answered.
        clock: times the views.
    """

    __slots__ = ("_clock", "_parent", "_plan", "_tracer")

    def __init__(self, tracer: Tracer, parent: Context, plan: ServicePlan, clock: Clock) -> None:
        self._tracer = tracer
        self._parent = parent
        self._plan = plan
        self._clock = clock

    def read(self, steps: Steps[_T], read_count: int) -> Steps[_T]:
        """The round trip to the store, as a span.

        Args:
            steps: the round trip.
            read_count: distinct (view, entity key) pairs.
        """
        attributes: dict[str, str | int] = {"db.system.name": "redis", "featurestore.reads": read_count}
        span = self._tracer.start_span("read store", context=self._parent, kind=SpanKind.CLIENT, attributes=attributes)
        try:
            return (yield from steps)
        except Exception as error:
            _fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    def assembled(self, assembly: Assembly, *, with_checkpoint: bool) -> Answer:
        """The answer, its making as a span and each view's share of it as another.

        Raises:
            FeatureStoreError: see `Assembly.answer`.
        """
        span = self._tracer.start_span("assemble", context=self._parent)
        times, began_ns = PartTimes(self._clock), self._clock.monotonic_ns()
        try:
            answer = assembly.answer(with_checkpoint=with_checkpoint, times=times)
        except Exception as error:
            _fail(span, type(error).__name__)
            raise
        else:
            if isinstance(span, SdkSpan) and span.start_time is not None:
                self._add_views(span, answer, times, span.start_time - began_ns)
            return answer
        finally:
            span.end()

    def _add_views(self, parent: Span, answer: Answer, times: PartTimes, since_ns: int) -> None:
        """A span for each view; those that are stored together are worked at together.

        Args:
            parent: the assembly.
            answer: what came out.
            times: when.
            since_ns: what makes a time of the clock one of OpenTelemetry's.
        """
        plan, context = self._plan, set_span_in_context(parent)
        parts = [[view for view, _ in part.views] for part in plan.stream_parts]
        parts += [[plain.view] for plain in plan.plain_parts]
        for views, (began_ns, ended_ns) in zip(parts, times.of_parts(), strict=True):
            for view in views:
                served = plan.schema.views[view]
                attributes: dict[str, str | int] = {
                    "featurestore.view": served.name,
                    "featurestore.definition": served.definition_hash,
                }
                statuses = answer.statuses[plan.view_of_feature == view]
                for status, count in zip(*np.unique(statuses, return_counts=True), strict=True):
                    attributes[f"featurestore.values.{FeatureStatus(status).name.lower()}"] = int(count)
                span = self._tracer.start_span(
                    f"view {served.name}", context=context, start_time=began_ns + since_ns, attributes=attributes
                )
                span.end(end_time=ended_ns + since_ns)


def _fail(span: Span, kind: str) -> None:
    """Mark a span as failed. What the error says may name entity keys, so its kind alone is told."""
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)
