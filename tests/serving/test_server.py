"""What a load balancer, an operator and a fresh terminal see of the server."""

import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from featurestore.clock import SystemClock
from featurestore.errors import (
    DeadlineSpent,
    InvalidRequest,
    LimitExceeded,
    OnlineStoreDown,
    Overloaded,
    Unavailable,
    UnknownFeatureService,
)
from featurestore.online.redis.store import connect
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.result import LookupResult
from featurestore.serving.client.tls import ClientTls
from featurestore.serving.request.limits import REQUEST_BYTES_MAX
from featurestore.serving.request.tls import Tls
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.testing.servers import redis_server
from tests.serving.payments import MERCHANT_ACTIVITY, NOW_MS, Payments, RegistryInMemory, code_name, event_of
from tests.serving.store_reads import Groups, before_lookup_reads


def reflect(channel: grpc.Channel, version: str, *requests: reflection_pb2.ServerReflectionRequest) -> list[Any]:
    """Ask the reflection service."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return list(call(iter(requests), timeout=30))


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_both_services(channel: grpc.Channel, version: str) -> None:
    """Grpcurl and ghz find our methods and Feast's, and their messages, without .proto files."""
    listed, ours, feast, method, unknown = reflect(
        channel,
        version,
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="featurestore.v1.FeatureLookup"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="feast.serving.ServingService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="featurestore.v1.FeatureLookup.Lookup"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="featurestore.v1.FeatureLookup.LookUp"),
    )

    names = {service.name for service in listed.list_services_response.service}
    assert {"featurestore.v1.FeatureLookup", "feast.serving.ServingService", "grpc.health.v1.Health"} <= names
    assert len(ours.file_descriptor_response.file_descriptor_proto) == 1
    # ServingService, Value and Timestamp.
    assert len(feast.file_descriptor_response.file_descriptor_proto) == 3
    assert method.file_descriptor_response == ours.file_descriptor_response
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_open_reflection_streams_do_not_block_lookups(server: FeatureServer, client: LookupClient) -> None:
    """Streams that are never closed wait on threads of their own."""
    release = threading.Event()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        streams = [call(iter(release.wait, True)) for _ in range(20)]

        assert client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1
        for stream in streams:
            stream.cancel()
        release.set()


@pytest.mark.parametrize("name", ["s" * 100_000, "\u00e9\n" * 3_000], ids=["long", "not ascii"])
def test_an_endless_name_is_unknown_and_not_a_broken_stream(client: LookupClient, name: str) -> None:
    """The status must arrive whatever was asked: a client refuses trailers of more than a few kilobytes."""
    with pytest.raises(UnknownFeatureService, match="is not registered"):
        client.lookup(name, {"merchant_id": 7})


def test_health_knows_each_service_and_the_whole(channel: grpc.Channel) -> None:
    """Load balancers may ask for the server or for one service; unknown ones are NOT_FOUND."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    for service in ("", "featurestore.v1.FeatureLookup", "feast.serving.ServingService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    with pytest.raises(grpc.RpcError) as raised:
        health.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=30)
    assert code_name(raised.value) == "NOT_FOUND"


def test_metrics_count_requests_rows_and_latency(metered_server: FeatureServer) -> None:
    """Prometheus sees requests by status, latency and rows, with units in the names."""
    with LookupClient(f"127.0.0.1:{metered_server.port}", timeout_s=30) as client:
        client.lookup("merchant_monitoring", {"merchant_id": [7, 404]})
        with pytest.raises(UnknownFeatureService):
            client.lookup("nothing", {"merchant_id": 7})

    with urllib.request.urlopen(f"http://127.0.0.1:{metered_server.metrics_port}/metrics", timeout=30) as page:
        metrics = page.read().decode()
    assert 'featurestore_requests_total{method="Lookup",status="OK"} 1.0' in metrics
    assert 'featurestore_requests_total{method="Lookup",status="NOT_FOUND"} 1.0' in metrics
    assert 'featurestore_request_latency_seconds_count{method="Lookup"} 2.0' in metrics
    assert 'featurestore_rows_total{service="merchant_monitoring"} 2.0' in metrics
    assert "featurestore_online_store_up 1.0" in metrics
    assert "featurestore_feature_services 2.0" in metrics


def test_the_error_kind_is_machine_readable(channel: grpc.Channel, server: FeatureServer) -> None:
    """Clients in other languages tell kinds apart by trailing metadata, not by reading prose."""
    call: Any = channel.unary_unary("/featurestore.v1.FeatureLookup/Lookup")
    with pytest.raises(grpc.RpcError) as raised:
        call(b"", timeout=30)

    assert code_name(raised.value) == "NOT_FOUND"
    failure: Any = raised.value
    assert ("featurestore-error", "UnknownFeatureService") in list(failure.trailing_metadata())


def test_an_oversized_request_is_refused(client: LookupClient, server: FeatureServer) -> None:
    """A message beyond the limit never reaches a handler."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = channel.unary_unary("/featurestore.v1.FeatureLookup/Lookup")
        with pytest.raises(grpc.RpcError) as raised:
            call(bytes(REQUEST_BYTES_MAX + 1), timeout=30)

    assert code_name(raised.value) == "RESOURCE_EXHAUSTED"
    with pytest.raises(LimitExceeded):
        client.lookup("merchant_monitoring", {"merchant_id": [7] * 600_000})


def test_work_is_given_up_when_the_deadline_has_passed(
    payments: Payments,
    registry: RegistryInMemory,
    client: LookupClient,
    monkeypatch: pytest.MonkeyPatch,
    clock: ManualClock,
) -> None:
    """A request whose time is over stops before the next expensive step, with DEADLINE_EXCEEDED."""
    computed: list[str] = []
    before_lookup_reads(monkeypatch, lambda _groups, _timeout_ms: clock.advance_ms(100_000))
    monkeypatch.setattr(
        "featurestore.online.answer.entity_loop.loop.EntityLoop.gather", lambda *_: computed.append("decoded")
    )

    with pytest.raises(DeadlineSpent, match="before computing the answer"):
        client.lookup("merchant_monitoring", {"merchant_id": 7})
    assert computed == []


def test_a_store_that_hangs_is_given_up_in_time(
    payments: Payments, client: LookupClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store gets what is left of the caller's deadline; a caller with more patience hears UNAVAILABLE."""

    def hang(_groups: Groups, timeout_ms: float) -> None:
        raise DeadlineSpent(f"no answer within {timeout_ms} ms")

    before_lookup_reads(monkeypatch, hang)

    with pytest.raises(OnlineStoreDown, match="did not answer within"):
        client.lookup("merchant_monitoring", {"merchant_id": 7}, timeout_s=30)


def test_a_bug_in_a_handler_is_internal_and_leaves_the_server_up(
    client: LookupClient, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception is logged and answered, and the next request is served."""
    with monkeypatch.context() as broken:
        broken.setattr("featurestore.online.answer.entity_loop.loop.EntityLoop.gather", lambda *_: 1 // 0)
        with pytest.raises(Exception, match="Lookup failed"):
            client.lookup("merchant_monitoring", {"merchant_id": 7})

    assert client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1


@pytest.mark.parametrize("io", ["sync", "aio"])
def test_a_hanging_store_does_not_silence_health(registry: RegistryInMemory, clock: ManualClock, io: str) -> None:
    """Health answers at once while lookups wait in vain, and lookups are served again when the store is back."""
    with redis_server() as redis:
        payments = Payments(connect(redis.url), clock)
        payments.write(MERCHANT_ACTIVITY, [event_of(b"7", NOW_MS - 5)])
        server = FeatureServer(registry, payments.store, SystemClock(), ServerSettings(port=0, io=io))
        address = f"127.0.0.1:{server.port}"
        with LookupClient(address) as client, ThreadPoolExecutor(20) as callers, grpc.insecure_channel(address) as bare:
            health: Any = health_pb2_grpc.HealthStub(bare)
            assert client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1
            redis.process.pause()
            lost = [
                callers.submit(client.lookup, "merchant_monitoring", {"merchant_id": 7}, timeout_s=3.0)
                for _ in range(20)
            ]
            for _ in range(10):
                health.Check(health_pb2.HealthCheckRequest(), timeout=2.5)
            failures = [each.exception() for each in lost]
            redis.process.resume()

            # Those that wait are given up; whom the wait would be too long for may be refused beforehand.
            assert {DeadlineSpent} <= {type(failure) for failure in failures} <= {DeadlineSpent, Overloaded}
            assert _answered(client).row_count == 1
        server.stop(drain_seconds=1.0)
        payments.store.close()


def _answered(client: LookupClient) -> LookupResult:
    """An answer, as soon as the server is no longer full of what it could not answer."""
    while True:
        try:
            return client.lookup("merchant_monitoring", {"merchant_id": 7}, timeout_s=30)
        except Overloaded:
            SystemClock().sleep(0.05)


@pytest.mark.parametrize("io", ["sync", "aio"])
def test_requests_in_flight_end_before_the_server_does(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """A stop lets the request that is waiting for the store finish, and refuses new ones."""
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0, io=io))
    entered, proceed = threading.Event(), threading.Event()

    def wait(_groups: Groups, _timeout_ms: float) -> None:
        entered.set()
        proceed.wait(30)

    before_lookup_reads(monkeypatch, wait)
    rows: list[int] = []
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:

        def ask() -> None:
            rows.append(client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count)

        client.describe("merchant_monitoring")
        asking = threading.Thread(target=ask)
        asking.start()
        assert entered.wait(30)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        # Answered until all that was sent before the stop has come in, and then never again.
        with LookupClient(f"127.0.0.1:{server.port}", timeout_s=0.2) as late, pytest.raises(Unavailable):
            _ask_while(stopping, late)
        proceed.set()
        asking.join(5)
        stopping.join(5)

    assert rows == [1]


def _ask_while(stopping: threading.Thread, client: LookupClient) -> None:
    """Ask until the server has stopped, which it cannot as long as a request of somebody else waits."""
    while stopping.is_alive():
        client.services()


def test_processes_may_share_a_port_on_purpose(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """Several server processes use several cores; the kernel spreads connections over them."""
    first = FeatureServer(registry, payments.store, clock, ServerSettings(port=0, share_port=True))
    second = FeatureServer(registry, payments.store, clock, ServerSettings(port=first.port, share_port=True))

    assert second.port == first.port
    for server in (first, second):
        with LookupClient(f"127.0.0.1:{first.port}", timeout_s=30) as client:
            assert client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1
        server.stop(drain_seconds=1.0)


def test_a_taken_port_is_an_error_at_start(
    server: FeatureServer, payments: Payments, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """Two servers never share a port by accident and answer every other request."""
    with pytest.raises(InvalidRequest, match="cannot be bound"):
        FeatureServer(registry, payments.store, clock, ServerSettings(port=server.port))


@pytest.mark.parametrize("io", ["sync", "aio"])
def test_tls_with_client_certificates(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, tmp_path: Path, io: str
) -> None:
    """With a certificate the server speaks TLS only, and with an authority it asks clients for theirs."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    settings = ServerSettings(port=0, io=io, tls=Tls(certificate, key, client_authority=certificate))
    server = FeatureServer(registry, payments.store, clock, settings)
    address = f"localhost:{server.port}"

    with LookupClient(address, tls=ClientTls(certificate, certificate, key), timeout_s=30) as client:
        assert client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1
    for tls in (None, ClientTls(certificate)):
        with LookupClient(address, tls=tls, timeout_s=0.3) as client, pytest.raises(Unavailable):
            client.services()
    server.stop(drain_seconds=1.0)


def test_the_server_process_loads_no_heavy_package() -> None:
    """Starting takes about a second because Feast, pandas, pyarrow and Bytewax stay outside."""
    program = (
        "import sys, featurestore.cli.processes.serve, featurestore.serving.server,"
        " featurestore.definitions.registry,"
        " featurestore.online.redis.store, featurestore.online.embedded, featurestore.serving.client.clients\n"
        "print(sorted({'feast', 'pandas', 'pyarrow', 'bytewax', 'confluent_kafka'} & set(sys.modules)))"
    )

    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert found.stdout.strip() == "[]"
