"""Callers who set no deadline, who say nothing, and who hang up: none of them keeps what others need."""

import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from featurestore.clock import SystemClock
from featurestore.errors import DeadlineSpent, Overloaded
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.request import handling
from featurestore.serving.request.admission import AdmissionSettings, Visit
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.crowds import PATIENCE_S, crowd_of
from tests.serving.payments import Payments, RegistryInMemory, code_name
from tests.serving.store_reads import before_lookup_reads

LOOKUP = "/featurestore.v1.FeatureLookup/Lookup"
ROWS_OF_A_LARGE_ONE = 600
IMPATIENCE_S = 0.5

both_servers = pytest.mark.parametrize("io", ["sync", "aio"])
Start = Callable[..., FeatureServer]


@pytest.fixture
def start(payments: Payments, registry: RegistryInMemory, clock: ManualClock) -> Iterator[Start]:
    """Starts servers with metrics, and stops them in the end."""
    started: list[FeatureServer] = []

    def begin(**settings: Any) -> FeatureServer:
        server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0, **settings), metrics_port=0)
        started.append(server)
        return server

    yield begin
    for server in started:
        server.stop(drain_seconds=1.0)


def eventually_shows(server: FeatureServer, line: str) -> None:
    """Wait until the metrics have a line."""
    clock = SystemClock()
    give_up_ns = clock.monotonic_ns() + int(PATIENCE_S * 1e9)
    while line not in metrics_of(server):
        assert clock.monotonic_ns() < give_up_ns, f"{line} was never shown:\n{metrics_of(server)}"
        clock.sleep(0.02)


def metrics_of(server: FeatureServer) -> list[str]:
    """What Prometheus sees."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=30) as page:
        text: str = page.read().decode()
    return text.splitlines()


@both_servers
def test_whoever_sets_no_deadline_has_the_servers(start: Start, monkeypatch: pytest.MonkeyPatch, io: str) -> None:
    """The store is not waited for longer than that."""
    budget_ms = 700.0
    monkeypatch.setattr(handling, "DEADLINE_DEFAULT_MS", budget_ms)
    server = start(io=io)
    timeouts_ms: list[float] = []
    request = pb.LookupRequest(feature_service="merchant_monitoring")
    request.entities.add(join_key="merchant_id", integers=[7])
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, monkeypatch.context() as patch:
        before_lookup_reads(patch, lambda _groups, timeout_ms: timeouts_ms.append(timeout_ms))
        call: Any = channel.unary_unary(LOOKUP)
        call(request.SerializeToString())

    assert [budget_ms] == timeouts_ms


@both_servers
def test_a_call_without_deadline_whose_message_does_not_come_is_broken_off(
    start: Start, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """It keeps no thread, though grpc would wait for ever; who sends a message meanwhile is answered."""
    budget_ms = 200.0
    monkeypatch.setattr(handling, "DEADLINE_DEFAULT_MS", budget_ms)
    server = start(io=io)
    is_over = threading.Event()

    def nothing() -> Iterator[bytes]:
        is_over.wait(PATIENCE_S)
        yield from ()

    address = f"127.0.0.1:{server.port}"
    with grpc.insecure_channel(address) as channel, LookupClient(address, timeout_s=PATIENCE_S) as client:
        call: Any = channel.stream_unary(LOOKUP)
        silent = call.future(nothing())
        assert client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1
        clock.advance_ms(int(budget_ms))
        error = silent.exception(timeout=PATIENCE_S / 3)
        is_over.set()

    assert code_name(error) in {"CANCELLED", "DEADLINE_EXCEEDED"}
    eventually_shows(server, 'featurestore_requests_total{method="Lookup",status="DEADLINE_EXCEEDED"} 1.0')


@both_servers
def test_whoever_hangs_up_is_counted(start: Start, monkeypatch: pytest.MonkeyPatch, io: str) -> None:
    """Also one who waits for a turn."""
    server = start(io=io, workers=1)
    with crowd_of(server, monkeypatch, 1) as crowd:
        first = crowd.ask()
        crowd.wait_until_in_store(1)
        with LookupClient(f"127.0.0.1:{server.port}") as client, pytest.raises(DeadlineSpent):
            client.lookup("merchant_monitoring", {"merchant_id": 7}, timeout_s=IMPATIENCE_S)
        crowd.go.set()
        first.result()

    eventually_shows(server, 'featurestore_requests_total{method="Lookup",status="CANCELLED"} 1.0')


@both_servers
def test_a_large_request_whose_caller_hung_up_keeps_its_place_until_it_ends(
    start: Start, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """Its thread cannot be stopped, and two of them would take the interpreter from the small ones twice as often."""
    server = start(io=io)
    with crowd_of(server, monkeypatch, 1) as crowd:
        merchants = {"merchant_id": list(range(ROWS_OF_A_LARGE_ONE))}
        with LookupClient(f"127.0.0.1:{server.port}") as client, pytest.raises(DeadlineSpent):
            client.lookup("merchant_monitoring", merchants, timeout_s=IMPATIENCE_S)
        crowd.wait_until_in_store(1)
        second = crowd.ask(ROWS_OF_A_LARGE_ONE)
        eventually_shows(server, 'featurestore_waiting_requests{size="large"} 1.0')
        crowd.go.set()
        assert second.result().row_count == ROWS_OF_A_LARGE_ONE


@both_servers
def test_a_service_of_many_callers_does_not_fill_the_queue(
    start: Start, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """Its limit counts those that wait, too, and whoever is beyond it is told so at once."""
    limit = 2
    server = start(io=io, workers=1, admission=AdmissionSettings(service_max={"merchant_monitoring": limit}))
    address = f"127.0.0.1:{server.port}"
    with crowd_of(server, monkeypatch, limit) as crowd, LookupClient(address, timeout_s=PATIENCE_S) as client:
        asked = [crowd.ask() for _ in range(limit)]
        crowd.wait_until_in_store(1)
        eventually_shows(server, 'featurestore_waiting_requests{size="small"} 1.0')
        with pytest.raises(Overloaded, match="merchant_monitoring"):
            client.lookup("merchant_monitoring", {"merchant_id": 7})
        crowd.go.set()
        assert [1] * limit == [each.result().row_count for each in asked]
        assert client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1


def test_one_request_of_an_event_loop_pauses_at_a_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its method: each pause lets the others in, and two that pause would keep each other from working."""
    arrived: list[Visit] = []
    pausing: list[Visit] = []
    most_at_once = 0
    pauses_max, enough_pauses = 100_000, 50
    begin = Visit.begin

    def count_arrival(visit: Visit, context: Any) -> None:
        arrived.append(visit)
        begin(visit, context)

    def pauses(visit: Visit) -> Iterator[None]:
        nonlocal most_at_once
        pausing.append(visit)
        pauses_left = pauses_max
        while pauses_left:
            # Until the other has come, and then some, in which it would pause too.
            pauses_left = min(pauses_left - 1, pauses_max if len(arrived) < 2 else enough_pauses)
            most_at_once = max(most_at_once, len(pausing))
            yield
        pausing.remove(visit)

    server = start(io="aio")
    address = f"127.0.0.1:{server.port}"
    with monkeypatch.context() as patch, LookupClient(address, timeout_s=PATIENCE_S) as client:
        patch.setattr(Visit, "begin", count_arrival)
        patch.setattr(Visit, "pauses", pauses)
        with ThreadPoolExecutor(2) as threads:
            list(
                threads.map(lambda ask: ask("merchant_monitoring"), [client.describe, lambda _name: client.services()])
            )

    assert (2, 1) == (len(arrived), most_at_once)
