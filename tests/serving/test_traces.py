"""What OpenTelemetry sees of requests, in memory and at a receiver."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from featurestore.clock import SystemClock
from featurestore.errors import DeadlineSpent, InvalidRequest, UnknownFeatureService
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.request.traces import Traces, open_otlp
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.wire.entity_key import fingerprint, lane_of
from tests.serving.payments import CARD_ACTIVITY, LANES, Payments, RegistryInMemory
from tests.serving.store_reads import Groups, before_lookup_reads

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
CARDS, MERCHANTS = ["c-1", "c-2", "nobody"], [7, 8, 9]
ROWS: dict[str, list[str] | list[int]] = {"card_id": CARDS, "merchant_id": MERCHANTS}


class Traced:
    """A server whose spans stay in memory."""

    def __init__(self, payments: Payments, io: str, sampler: Sampler = ALWAYS_ON) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        traces = Traces(provider, SystemClock())
        settings = ServerSettings(port=0, io=io, traces=traces)
        self._server = FeatureServer(RegistryInMemory(), payments.store, payments.clock, settings)
        self._is_stopped = False
        self.port = self._server.port

    def stop(self) -> None:
        """End the server."""
        if not self._is_stopped:
            self._is_stopped = True
            self._server.stop(drain_seconds=1.0)

    def ask(self, metadata: tuple[tuple[str, str], ...] = (), service: str = "fraud_detection") -> None:
        """One lookup, by a bare client."""
        request = pb.LookupRequest(feature_service=service)
        request.entities.add(join_key="card_id", strings=CARDS)
        request.entities.add(join_key="merchant_id", integers=MERCHANTS)
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            call: Any = channel.unary_unary("/featurestore.v1.FeatureLookup/Lookup")
            call(request.SerializeToString(), timeout=30, metadata=metadata)

    def spans(self) -> list[ReadableSpan]:
        """All that have ended, once those of requests have: the answer is out before its span is."""
        self.stop()
        return list(self._kept.get_finished_spans())


@pytest.fixture(params=["sync", "aio"])
def io(request: pytest.FixtureRequest) -> str:
    """Either kind of server."""
    kind: str = request.param
    return kind


@pytest.fixture
def traced(payments: Payments, io: str) -> Iterator[Traced]:
    """A running server."""
    started = Traced(payments, io)
    yield started
    started.stop()


def named(spans: list[ReadableSpan], name: str) -> ReadableSpan:
    """The one span of a name."""
    [found] = [span for span in spans if span.name == name]
    return found


def test_a_lookup_is_a_request_a_read_and_an_assembly_of_views(traced: Traced) -> None:
    """Each span has its parent, lies within it, and says how much it was about."""
    traced.ask()

    spans = traced.spans()
    request = named(spans, "featurestore.v1.FeatureLookup/Lookup")
    read, assembly, card = named(spans, "read store"), named(spans, "assemble"), named(spans, "view card_activity")
    views = [span for span in spans if span.name.startswith("view ")]
    assert request.parent is None
    assert request.kind is SpanKind.SERVER
    assert dict(request.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": "featurestore.v1.FeatureLookup/Lookup",
        "rpc.response.status_code": "OK",
        "featurestore.service": "fraud_detection",
        "featurestore.rows": 3,
    }
    assert dict(read.attributes or {}) == {"db.system.name": "redis", "featurestore.reads": 12}
    assert [read.parent, assembly.parent] == [request.context] * 2
    assert [span.name for span in views] == [
        "view card_activity",
        "view merchant_activity",
        "view pair_activity",
        "view merchant_profile",
    ]
    assert [span.parent for span in views] == [assembly.context] * 4
    for inner, outer in [(read, request), (assembly, request), *((view, assembly) for view in views)]:
        assert (outer.start_time or 0) <= (inner.start_time or 0) <= (inner.end_time or 0) <= (outer.end_time or 0)
    given = dict(card.attributes or {})
    features = len(CARD_ACTIVITY.features)
    assert len(str(given.pop("featurestore.definition"))) == 32
    assert given.pop("featurestore.view") == "card_activity"
    assert given.pop("featurestore.values.not_found") == features
    assert sum(int(str(count)) for count in given.values()) == 2 * features
    assert all(name.startswith("featurestore.values.") for name in given)


def test_a_callers_trace_is_continued(traced: Traced) -> None:
    """`traceparent`, as W3C writes it, is the request's parent; another request begins a trace of its own."""
    traced.ask(TRACEPARENT)
    traced.ask()

    spans = traced.spans()
    continued, own = [span for span in spans if span.kind is SpanKind.SERVER]
    assert continued.parent is not None
    assert (f"{continued.parent.trace_id:032x}", f"{continued.parent.span_id:016x}") == (TRACE, PARENT)
    assert own.parent is None
    assert {f"{span.context.trace_id:032x}" for span in spans if span.context is not None} > {TRACE}


def test_no_span_says_whom_a_request_is_about(traced: Traced, payments: Payments) -> None:
    """Not even an error, which calls an entity by its fingerprint."""
    keys = payments.catalog.generations("card_activity")[0].keys
    head = keys.head_prefix(lane_of(b"c-1", LANES)) + b"c-1"
    payments.store.compare_and_set(head, payments.store.read_groups([[head]])[0], b"spoilt")
    with pytest.raises(grpc.RpcError) as raised:
        traced.ask()

    spans = traced.spans()
    assert fingerprint(b"c-1") in str(raised.value)
    assert len(spans) == 3
    assert "c-1" not in " ".join(span.to_json() for span in spans)
    failed = named(spans, "assemble")
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "CorruptTile"
    assert named(spans, "featurestore.v1.FeatureLookup/Lookup").status.status_code is StatusCode.ERROR


def test_what_fails_at_the_store_ends_there(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read has the error, and nothing was assembled."""

    def hang(_groups: Groups, _timeout_ms: float) -> None:
        raise DeadlineSpent("no answer")

    before_lookup_reads(monkeypatch, hang)
    with pytest.raises(grpc.RpcError):
        traced.ask()

    spans = traced.spans()
    assert (named(spans, "read store").attributes or {})["error.type"] == "OnlineStoreDown"
    assert [span for span in spans if span.name == "assemble"] == []


def test_a_callers_mistake_is_no_error_of_the_server(traced: Traced) -> None:
    """The status says what it was."""
    with LookupClient(f"127.0.0.1:{traced.port}", timeout_s=30) as client, pytest.raises(UnknownFeatureService):
        client.lookup("nothing", ROWS)

    [span] = traced.spans()
    assert (span.attributes or {})["rpc.response.status_code"] == "NOT_FOUND"
    assert span.status.status_code is StatusCode.UNSET


def test_what_the_sampler_leaves_out_has_no_spans(payments: Payments, io: str) -> None:
    """A caller that keeps its trace has ours with it, whatever our own share is."""
    traced = Traced(payments, io, ParentBased(ALWAYS_OFF))
    traced.ask()
    traced.ask(TRACEPARENT)

    assert {f"{span.context.trace_id:032x}" for span in traced.spans() if span.context is not None} == {TRACE}


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP receiver."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self._server = grpc.server(ThreadPoolExecutor(1))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # generated
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(self, request: Any, _context: Any) -> Any:
        """As the protocol names it."""
        self.received.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def stop(self) -> None:
        """End."""
        self._server.stop(None).wait()


def test_a_receiver_gets_the_spans_before_the_server_has_ended(
    payments: Payments, io: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_* says where and under what name; what waits to be sent is sent when the server stops."""
    receiver = Receiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    provider = open_otlp()
    assert provider is not None
    settings = ServerSettings(port=0, io=io, traces=Traces(provider, SystemClock()))
    server = FeatureServer(RegistryInMemory(), payments.store, payments.clock, settings)
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
        client.lookup("fraud_detection", ROWS)
    server.stop(drain_seconds=1.0)
    receiver.stop()

    resources = [each for request in receiver.received for each in request.resource_spans]
    about = {pair.key: pair.value.string_value for each in resources for pair in each.resource.attributes}
    names = [span.name for each in resources for scope in each.scope_spans for span in scope.spans]
    assert about["service.name"] == "featurestore"
    assert about["deployment.environment.name"] == "test"
    assert {"featurestore.v1.FeatureLookup/Lookup", "read store", "assemble", "view card_activity"} <= set(names)


def test_variables_that_ask_for_something_else_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than sending by gRPC to where HTTP is spoken; switched off is off."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with pytest.raises(InvalidRequest, match='OTEL_EXPORTER_OTLP_PROTOCOL is "http/protobuf"'):
        open_otlp()

    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_otlp() is None


def test_a_server_that_traces_nothing_loads_no_opentelemetry() -> None:
    """The package may be missing, and costs nothing."""
    program = (
        "import sys, featurestore.cli.processes.serve, featurestore.serving.server\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )

    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert found.stdout.strip() == "[]"
