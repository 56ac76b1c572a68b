"""What callers get of a server that has too much to do, that is sent nonsense, and that is told to stop."""

import gc
import logging
import threading
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from featurestore.clock import SystemClock
from featurestore.errors import Overloaded
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.request.admission import AdmissionSettings
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.crowds import PATIENCE_S, crowd_of, metrics_of
from tests.serving.payments import Payments, RegistryInMemory, code_name
from tests.serving.store_reads import before_lookup_reads

ROWS_OF_A_LARGE_ONE = 600
IN_FLIGHT = 60
AT_WORK = 2
LOOKUP = "/featurestore.v1.FeatureLookup/Lookup"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
NONSENSE = b"\xff\xff\xff"

both_servers = pytest.mark.parametrize("io", ["sync", "aio"])


@both_servers
def test_an_overloaded_server_refuses_counts_and_says_what_to_do(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """Where nobody may wait, one request more than can be worked at is refused; health is not."""
    settings = ServerSettings(port=0, io=io, workers=AT_WORK, admission=AdmissionSettings(wait_ms_max=0))
    server = FeatureServer(registry, payments.store, clock, settings, metrics_port=0)
    address = f"127.0.0.1:{server.port}"
    with monkeypatch.context() as slow:
        before_lookup_reads(slow, lambda _groups, _timeout_ms: clock.advance_ms(32))
        with LookupClient(address, timeout_s=30) as client:
            client.lookup("merchant_monitoring", {"merchant_id": 7})
    with crowd_of(server, monkeypatch, AT_WORK) as crowd, grpc.insecure_channel(address) as channel:
        asked = [crowd.ask() for _ in range(AT_WORK)]
        crowd.wait_until_in_store(AT_WORK)
        with LookupClient(address, timeout_s=PATIENCE_S) as client, pytest.raises(Overloaded) as raised:
            client.lookup("merchant_monitoring", {"merchant_id": 7})
        call: Any = channel.unary_unary(LOOKUP)
        with pytest.raises(grpc.RpcError) as bare:
            call(b"", timeout=PATIENCE_S)
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert (
            health.Check(health_pb2.HealthCheckRequest(), timeout=30).status == health_pb2.HealthCheckResponse.SERVING
        )
        crowd.go.set()
        assert [1] * AT_WORK == [each.result().row_count for each in asked]
    metrics = metrics_of(server)
    server.stop(drain_seconds=1.0)

    assert "add servers" in raised.value.hint
    assert "RESOURCE_EXHAUSTED" == code_name(bare.value)
    assert 'featurestore_refusals_total{full="small"} 2.0' in metrics
    assert 'featurestore_requests_total{method="Lookup",status="RESOURCE_EXHAUSTED"} 2.0' in metrics


@both_servers
def test_requests_of_many_rows_do_not_hold_up_those_of_one(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """However many batches are under way, one is at work, and a payment is answered meanwhile."""
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0, io=io, workers=1))
    go, in_store, large_keys = threading.Event(), threading.Semaphore(0), 500

    def wait_if_large(groups: Any, _timeout_ms: float) -> None:
        if sum(map(len, groups)) > large_keys:
            in_store.release()
            assert go.wait(PATIENCE_S)

    with crowd_of(server, monkeypatch, 4) as crowd:
        before_lookup_reads(monkeypatch, wait_if_large)
        crowd.go.set()
        batches = [crowd.ask(ROWS_OF_A_LARGE_ONE) for _ in range(3)]
        assert in_store.acquire(timeout=PATIENCE_S)
        with LookupClient(f"127.0.0.1:{server.port}", timeout_s=PATIENCE_S) as client:
            assert client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1
        assert not in_store.acquire(blocking=False)
        go.set()
        rows = [batch.result().row_count for batch in batches]
    server.stop(drain_seconds=1.0)

    assert [ROWS_OF_A_LARGE_ONE] * 3 == rows


@both_servers
@pytest.mark.parametrize("limited", ["client", "feature service"])
def test_a_client_or_a_service_may_have_a_limit_of_its_own(
    payments: Payments,
    registry: RegistryInMemory,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    io: str,
    limited: str,
) -> None:
    """One that asks too much at once is refused while the server has room for others."""
    limits = {
        "client": AdmissionSettings(client_max=1),
        "feature service": AdmissionSettings(service_max={"merchant_monitoring": 1}),
    }[limited]
    server = FeatureServer(
        registry, payments.store, clock, ServerSettings(port=0, io=io, admission=limits), metrics_port=0
    )
    with crowd_of(server, monkeypatch, 1) as crowd:
        first = crowd.ask()
        crowd.wait_until_in_store(1)
        with (
            LookupClient(f"127.0.0.1:{server.port}", timeout_s=PATIENCE_S) as client,
            pytest.raises(Overloaded) as raised,
        ):
            client.lookup("merchant_monitoring", {"merchant_id": 7})
        crowd.go.set()
        assert 1 == first.result().row_count
        assert 1 == crowd.ask().result().row_count
    metrics = metrics_of(server)
    server.stop(drain_seconds=1.0)

    assert limited in raised.value.message
    assert f'featurestore_refusals_total{{full="{limited}"}} 1.0' in metrics


@both_servers
def test_requests_in_flight_are_all_answered_when_the_server_stops(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """Those at work, those that wait for their turn, and those that gRPC has received and nobody has looked at."""
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0, io=io, workers=4))
    with crowd_of(server, monkeypatch, IN_FLIGHT) as crowd:
        asked = [crowd.ask() for _ in range(IN_FLIGHT)]
        crowd.wait_until_in_store(4)
        stopped: list[bool] = []
        stopping = threading.Thread(target=lambda: stopped.append(server.stop(drain_seconds=PATIENCE_S)))
        stopping.start()
        crowd.go.set()
        rows = [each.result().row_count for each in asked]
        stopping.join(PATIENCE_S)

    assert [1] * IN_FLIGHT == rows
    assert [True] == stopped


@both_servers
@pytest.mark.parametrize("method", [LOOKUP, REFLECT])
def test_nonsense_is_refused_counted_and_told_once_a_minute(
    payments: Payments,
    registry: RegistryInMemory,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    io: str,
    method: str,
) -> None:
    """A malformed message is its sender's fault: INVALID_ARGUMENT, no traceback, and the server ends as ever."""
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0, io=io), metrics_port=0)
    codes = []
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, caplog.at_level(logging.WARNING):
        for _ in range(5):
            call: Any = channel.stream_stream(method)
            with pytest.raises(grpc.RpcError) as raised:
                list(call(iter([NONSENSE]), timeout=PATIENCE_S))
            codes.append(code_name(raised.value))
    metrics = metrics_of(server)
    has_ended = server.stop(drain_seconds=PATIENCE_S)

    assert ["INVALID_ARGUMENT"] * 5 == codes
    name = method.rpartition("/")[2]
    assert f'featurestore_requests_total{{method="{name}",status="INVALID_ARGUMENT"}} 5.0' in metrics
    assert 1 == len([record for record in caplog.records if "cannot be read" in record.getMessage()])
    assert not any(record.exc_info for record in caplog.records)
    assert has_ended


def test_nonsense_leaves_nothing_in_memory(payments: Payments, registry: RegistryInMemory, clock: ManualClock) -> None:
    """The thread-pool server keeps every call whose deserializer raises; so none does."""
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for method in (LOOKUP, REFLECT):
            for _ in range(50):
                call: Any = channel.stream_stream(method)
                with pytest.raises(grpc.RpcError):
                    list(call(iter([NONSENSE]), timeout=PATIENCE_S))
    assert server.stop(drain_seconds=PATIENCE_S)
    del call
    gc.collect()

    assert 10 > sum(
        type(each).__name__ == "_RPCState" and "_server" in type(each).__module__ for each in gc.get_objects()
    )


@both_servers
def test_reflection_can_be_switched_off(payments: Payments, registry: RegistryInMemory, io: str) -> None:
    """Whoever asks what the server speaks is told nothing, and lookups are answered."""
    server = FeatureServer(registry, payments.store, SystemClock(), ServerSettings(port=0, io=io, reflection=False))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = channel.stream_stream(REFLECT)
        with pytest.raises(grpc.RpcError) as raised:
            list(call(iter([b""]), timeout=PATIENCE_S))
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=PATIENCE_S) as client:
        assert client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1
    server.stop(drain_seconds=1.0)

    assert "UNIMPLEMENTED" == code_name(raised.value)
