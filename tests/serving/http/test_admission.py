"""What gRPC's callers may rely on holds over HTTP: deadlines, refusals, shares, health, drain, TLS, counts."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from featurestore.errors import DeadlineSpent, OnlineStoreDown, Overloaded
from featurestore.online.redis.store import connect
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.request import handling
from featurestore.serving.request.admission import AdmissionSettings
from featurestore.serving.request.limits import STORE_TIMEOUT_MAX_MS
from featurestore.serving.request.tls import Tls
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.testing.servers import redis_server
from tests.serving.crowds import PATIENCE_S, crowd_of, metrics_of
from tests.serving.http.caller import LOOKUP, MERCHANT, Answer, Caller, Wire, request
from tests.serving.http.conftest import Start
from tests.serving.payments import MERCHANT_ACTIVITY, NOW_MS, Payments, RegistryInMemory, event_of
from tests.serving.store_reads import Groups, before_lookup_reads
from tests.serving.test_connections import make_certificate

TITLE = "POST /v1/services/{name}:lookup"
AT_WORK = 2
ROWS_OF_A_LARGE_ONE = 600

both_servers = pytest.mark.parametrize("io", ["sync", "aio"])


def kind_of(answer: Answer) -> tuple[int, str | None]:
    """Status and kind of error."""
    return answer.status, answer.headers.get("featurestore-error")


@pytest.mark.parametrize(("seconds", "budget_ms"), [("0.7", 700.0), (None, 900.0), ("1e6", STORE_TIMEOUT_MAX_MS)])
def test_the_store_is_waited_for_no_longer_than_the_caller_waits(
    server: FeatureServer, caller: Caller, monkeypatch: pytest.MonkeyPatch, seconds: str | None, budget_ms: float
) -> None:
    """Who sets no deadline has the server's."""
    monkeypatch.setattr(handling, "DEADLINE_DEFAULT_MS", 900.0)
    timeouts_ms: list[float] = []
    before_lookup_reads(monkeypatch, lambda _groups, timeout_ms: timeouts_ms.append(timeout_ms))
    headers = {} if seconds is None else {"request_timeout": seconds}

    assert 200 == caller.post(LOOKUP, MERCHANT, **headers).status
    assert [budget_ms] == timeouts_ms


@pytest.mark.parametrize("text", ["", "soon", "-1", "0", "nan", "inf"])
def test_a_deadline_that_is_none_is_refused(caller: Caller, text: str) -> None:
    """Instead of being passed over."""
    answer = caller.post(LOOKUP, MERCHANT, request_timeout=text)

    assert (400, "InvalidRequest") == kind_of(answer)
    assert "send seconds" in answer.json["hint"]


def test_work_is_given_up_when_the_deadline_has_passed(
    caller: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the next expensive step."""
    before_lookup_reads(monkeypatch, lambda _groups, _timeout_ms: clock.advance_ms(100_000))

    assert (504, "DeadlineSpent") == kind_of(caller.post(LOOKUP, MERCHANT))


def test_a_store_that_hangs_is_given_up_in_time(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller with more patience hears that the store is to blame, and when to come again."""

    def hang(_groups: Groups, timeout_ms: float) -> None:
        raise DeadlineSpent(f"no answer within {timeout_ms} ms")

    before_lookup_reads(monkeypatch, hang)
    answer = caller.post(LOOKUP, MERCHANT)

    assert (503, OnlineStoreDown.__name__) == kind_of(answer)
    assert "1" == answer.headers["retry-after"]


def test_a_bug_in_a_handler_is_500_and_leaves_the_server_up(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong stands in the server's log and not in the answer."""
    with monkeypatch.context() as broken:
        broken.setattr("featurestore.online.answer.entity_loop.loop.EntityLoop.gather", lambda *_: 1 // 0)
        answer = caller.post(LOOKUP, MERCHANT)
    assert (500, None) == kind_of(answer)
    assert f"{TITLE} failed; the server's log says why" == answer.json["detail"]

    assert 200 == caller.post(LOOKUP, MERCHANT).status


@both_servers
def test_both_protocols_share_the_queue(
    start: Start, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """Where gRPC has taken all places, HTTP is refused, before its body comes, and told when to come again."""
    server = start(io=io, workers=AT_WORK, admission=AdmissionSettings(wait_ms_max=0))
    with monkeypatch.context() as slow:
        before_lookup_reads(slow, lambda _groups, _timeout_ms: clock.advance_ms(32))
        with Caller(server) as caller:
            assert 200 == caller.post(LOOKUP, MERCHANT).status
    with crowd_of(server, monkeypatch, AT_WORK) as crowd, Caller(server) as caller, Wire(server) as wire:
        asked = [crowd.ask() for _ in range(AT_WORK)]
        crowd.wait_until_in_store(AT_WORK)
        whole = request(MERCHANT)
        wire.send(whole[:-4])
        refused = wire.answer()
        assert [200, 200] == [caller.get(path).status for path in ("/healthz", "/readyz")]
        crowd.go.set()
        assert [1] * AT_WORK == [each.result().row_count for each in asked]
        wire.send(whole[-4:] + whole)
        assert 200 == wire.answer().status
    metrics = metrics_of(server)

    assert (429, Overloaded.__name__) == kind_of(refused)
    assert "1" == refused.headers["retry-after"]
    assert "add servers" in refused.json["hint"]
    assert 'featurestore_refusals_total{full="small"} 1.0' in metrics
    assert f'featurestore_requests_total{{method="{TITLE}",status="RESOURCE_EXHAUSTED"}} 1.0' in metrics
    assert f'featurestore_requests_total{{method="{TITLE}",status="OK"}} 2.0' in metrics


@both_servers
def test_who_waits_for_gRPC_is_answered_when_its_turn_comes(
    start: Start, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """A place that a thread, or another loop, gives up wakes a request over HTTP."""
    server = start(io=io, workers=1)
    with crowd_of(server, monkeypatch, 1) as crowd, ThreadPoolExecutor(1) as threads, Caller(server) as caller:
        crowd.ask()
        crowd.wait_until_in_store(1)
        waiting = threads.submit(caller.post, LOOKUP, MERCHANT)
        while 'featurestore_waiting_requests{size="small"} 1.0' not in metrics_of(server):
            pass
        crowd.go.set()

        assert 200 == waiting.result(PATIENCE_S).status


@pytest.mark.parametrize("limited", ["client", "named client", "feature service"])
def test_a_client_or_a_service_has_its_limit_over_both_protocols(
    start: Start, monkeypatch: pytest.MonkeyPatch, limited: str
) -> None:
    """One caller is one client, whichever way it asks."""
    limits = {
        "client": AdmissionSettings(client_max=1),
        "named client": AdmissionSettings(client_max=1, client_key="X-Team"),
        "feature service": AdmissionSettings(service_max={"merchant_monitoring": 1}),
    }
    server = start(admission=limits[limited])
    headers = {"x_team": "risk"} if limited == "named client" else {}
    others = {"x_team": "growth"}
    entered, proceed = threading.Semaphore(0), threading.Event()

    def wait(_groups: Groups, _timeout_ms: float) -> None:
        entered.release()
        assert proceed.wait(PATIENCE_S)

    with (
        ThreadPoolExecutor(2) as threads,
        Caller(server) as first,
        Caller(server) as second,
        monkeypatch.context() as m,
    ):
        before_lookup_reads(m, wait)
        under_way = [threads.submit(first.post, LOOKUP, MERCHANT, **headers)]
        assert entered.acquire(timeout=PATIENCE_S)
        refused = second.post(LOOKUP, MERCHANT, **headers)
        if limited == "named client":
            under_way.append(threads.submit(second.post, LOOKUP, MERCHANT, **others))
            assert entered.acquire(timeout=PATIENCE_S)
        else:
            with LookupClient(f"127.0.0.1:{server.port}", timeout_s=5) as client, pytest.raises(Overloaded):
                client.lookup("merchant_monitoring", {"merchant_id": 7})
        proceed.set()
        assert {200} == {each.result(PATIENCE_S).status for each in under_way}

    assert (429, "Overloaded") == kind_of(refused)
    with Caller(server) as third:
        assert 200 == third.post(LOOKUP, MERCHANT, **headers).status


def test_large_requests_do_not_hold_up_small_ones(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait in a thread of their own."""
    server, large_keys = start(workers=1), 500
    go, in_store = threading.Event(), threading.Semaphore(0)

    def wait_if_large(groups: Groups, _timeout_ms: float) -> None:
        if sum(map(len, groups)) > large_keys:
            in_store.release()
            assert go.wait(PATIENCE_S)

    before_lookup_reads(monkeypatch, wait_if_large)
    large = {"entities": {"merchant_id": list(range(ROWS_OF_A_LARGE_ONE))}}
    with ThreadPoolExecutor(1) as threads, Caller(server) as batches, Caller(server) as caller:
        batch = threads.submit(batches.post, LOOKUP, large)
        assert in_store.acquire(timeout=PATIENCE_S)
        assert 200 == caller.post(LOOKUP, MERCHANT).status
        go.set()

        assert ROWS_OF_A_LARGE_ONE == batch.result(PATIENCE_S).json["row_count"]


def test_requests_in_flight_end_before_the_server_does(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is connected hears that the server is not ready, and that the answer is the last; new callers find nobody."""
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0), http_port=0)
    entered, proceed = threading.Event(), threading.Event()

    def wait(_groups: Groups, _timeout_ms: float) -> None:
        entered.set()
        assert proceed.wait(PATIENCE_S)

    before_lookup_reads(monkeypatch, wait)
    with ThreadPoolExecutor(2) as threads, Caller(server) as caller, Wire(server) as idle, Caller(server) as watcher:
        idle.send(request(path="/healthz", verb="GET"))
        assert 200 == idle.answer().status
        asked = threads.submit(caller.post, LOOKUP, MERCHANT)
        assert entered.wait(PATIENCE_S)
        stopping = threads.submit(server.stop, PATIENCE_S)
        while (ready := watcher.get("/readyz")).status == 200:
            pass
        assert (503, "close") == (ready.status, ready.headers["connection"])
        assert idle.is_ended()
        with pytest.raises(ConnectionRefusedError):
            Caller(server).get("/healthz")
        assert not stopping.done()
        proceed.set()

        answer = asked.result(PATIENCE_S)
        assert (200, "close") == (answer.status, answer.headers["connection"])
        assert stopping.result(PATIENCE_S)


def test_a_request_that_does_not_end_is_given_up(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the time to drain is over; it keeps neither the server nor its caller."""
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0), http_port=0)
    entered, proceed = threading.Event(), threading.Event()

    def wait(_groups: Groups, _timeout_ms: float) -> None:
        entered.set()
        assert proceed.wait(PATIENCE_S)

    before_lookup_reads(monkeypatch, wait)
    with Wire(server) as wire:
        wire.send(request(MERCHANT))
        assert entered.wait(PATIENCE_S)

        assert server.stop(drain_seconds=0.1)
        assert wire.is_ended()
    proceed.set()


def become(caller: Caller, status: int) -> None:
    """Wait until /readyz answers so; a test that waits in vain fails."""
    give_up_s = time.monotonic() + PATIENCE_S
    while caller.get("/readyz").status != status:
        assert time.monotonic() < give_up_s, "it never happened"
        time.sleep(0.02)


def test_a_store_that_is_down_is_said_by_health_and_answers(registry: RegistryInMemory, clock: ManualClock) -> None:
    """The process lives, is not ready, and says so to each request; it is ready again when the store is."""
    with redis_server() as redis:
        payments = Payments(connect(redis.url), clock)
        payments.write(MERCHANT_ACTIVITY, [event_of(b"7", NOW_MS - 5)])
        server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0), http_port=0)
        with Caller(server) as caller:
            assert 200 == caller.get("/readyz").status
            redis.process.pause()
            become(caller, 503)
            answer = caller.post(LOOKUP, MERCHANT)
            assert 200 == caller.get("/healthz").status
            redis.process.resume()
            become(caller, 200)
        server.stop(drain_seconds=0.0)
        payments.store.close()

    assert (503, "OnlineStoreDown") == kind_of(answer)


def test_tls_asks_for_certificates_and_takes_renewed_ones(start: Start, tmp_path: Path) -> None:
    """As gRPC does on its port: the same files, read again when they change."""
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    used = Tls(tmp_path / "used.pem", tmp_path / "used.key", client_authority=tmp_path / "clients.pem")

    def put(pair: tuple[Path, Path]) -> None:
        for source, target in zip((*pair, pair[0]), (used.certificate, used.key, used.client_authority), strict=True):
            assert target is not None
            new = target.with_suffix(".new")
            new.write_bytes(source.read_bytes())
            new.replace(target)

    def status(authority: tuple[Path, Path], own: tuple[Path, Path] | None) -> int:
        context = ssl.create_default_context(cafile=str(authority[0]))
        if own is not None:
            context.load_cert_chain(*own)
        with Caller(server, context) as caller:
            return caller.post(LOOKUP, MERCHANT).status

    put(first)
    server = start(tls=used, admission=AdmissionSettings(client_max=5))
    assert 200 == status(first, first)
    for stranger in (None, second):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            status(first, stranger)
    with Caller(server) as in_clear_text, pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        in_clear_text.post(LOOKUP, MERCHANT)
    put((second[0], first[1]))
    assert 200 == status(first, first)
    put(second)
    assert 200 == status(second, second)
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        status(second, first)
