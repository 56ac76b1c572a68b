"""What a connection does with bytes of any kind, order and speed: it answers each request once, or says why not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from featurestore.clock import SystemClock
from featurestore.serving.http import connection
from featurestore.serving.request.limits import REQUEST_BYTES_MAX
from featurestore.serving.server import FeatureServer
from tests.serving.crowds import PATIENCE_S, metrics_of
from tests.serving.http.caller import LOOKUP, MERCHANT, Caller, Wire, request
from tests.serving.http.conftest import Start
from tests.serving.store_reads import Groups, before_lookup_reads


def test_a_request_may_come_byte_by_byte_and_the_next_on_the_same_connection(server: FeatureServer) -> None:
    """TCP promises no more than bytes in order."""
    with Wire(server) as wire:
        for at in range(len(request(MERCHANT))):
            wire.send(request(MERCHANT)[at : at + 1])
        first = wire.answer()
        wire.send(request(MERCHANT))

        assert 200 == first.status
        assert first.json == wire.answer().json


def test_requests_that_come_at_once_are_answered_in_order(server: FeatureServer) -> None:
    """Also those that need no store, and one whose end comes only after the answers to the others."""
    bodies = [{"entities": {"merchant_id": [number] * number}} for number in (1, 2, 3, 4)]
    tail = request(bodies[3])
    with Wire(server) as wire:
        wire.send(
            request(bodies[0])
            + request(path="/healthz", verb="GET")
            + request(bodies[1])
            + request(b"{", path="/v1/services/nothing:lookup")
            + request(bodies[2])
            + tail[:-5]
        )
        answers = [wire.answer() for _ in range(5)]
        wire.send(tail[-5:])
        last = wire.answer()

    assert [200, 200, 200, 400, 200] == [each.status for each in answers]
    assert [1, 2, 3, 4] == [each.json["row_count"] for each in (answers[0], answers[2], answers[4], last)]


def test_a_thousand_requests_at_once_are_a_thousand_answers(server: FeatureServer) -> None:
    """However many come in one piece, they are neither lost nor nested."""
    with Wire(server) as wire:
        wire.send(request(path="/healthz", verb="GET") * 2_000)

        assert {200} == {wire.answer().status for _ in range(2_000)}


def test_a_body_may_come_in_chunks(server: FeatureServer) -> None:
    """Of a length that nobody knew when it began."""
    text = json.dumps(MERCHANT).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (text[:5], text[5:])) + b"0\r\nlate: x\r\n\r\n"
    with Wire(server) as wire:
        wire.send(f"POST {LOOKUP} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode() + chunks)

        assert 200 == wire.answer().status


def test_who_asks_whether_to_go_on_is_told(server: FeatureServer) -> None:
    """As curl does before it sends more than a kilobyte."""
    whole = request(MERCHANT, "expect: 100-continue")
    head, body = whole.split(b"\r\n\r\n")
    with Wire(server) as wire:
        wire.send(head + b"\r\n\r\n")
        assert 100 == wire.answer().status
        wire.send(body)

        assert 200 == wire.answer().status


def test_who_offers_another_protocol_is_answered_in_this_one(server: FeatureServer) -> None:
    """Java's own client offers HTTP/2 in clear text with every first request."""
    offer = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQCAAAAAAIAAAAA")
    with Wire(server) as wire:
        wire.send(request(MERCHANT, *offer))
        assert 200 == wire.answer().status
        wire.send(f"GET /healthz HTTP/1.1\r\nhost: x\r\n{offer[0]}\r\n{offer[1]}\r\n\r\n".encode() + request(MERCHANT))

        assert [200, 200] == [wire.answer().status, wire.answer().status]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_connection_ends_when_its_caller_wants_it(server: FeatureServer, version: str) -> None:
    """HTTP/1.0 knows no other way."""
    with Wire(server) as wire:
        wire.send(f"GET /healthz HTTP/{version}\r\nhost: x\r\nconnection: close\r\n\r\n".encode())

        assert "close" == wire.answer().headers["connection"]
        assert wire.is_ended()


def test_an_answer_to_head_has_no_body(server: FeatureServer) -> None:
    """But says how long it would be."""
    with Wire(server) as wire:
        wire.send(b"HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert "200" in wire._line().decode()
        headers = [wire._line() for _ in range(2)]
        assert b"content-length: 15" in headers
        assert b"" == wire._line()
        wire.send(request(path="/healthz", verb="GET"))

        assert 200 == wire.answer().status


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(server: FeatureServer, is_chunked: bool) -> None:
    """Before it is read where its length is known; the caller hears of it though it still sends."""
    with Wire(server) as wire:
        if is_chunked:
            wire.send(f"POST {LOOKUP} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
            wire.send(b"%x\r\n" % (REQUEST_BYTES_MAX + 1) + bytes(REQUEST_BYTES_MAX + 1))
        else:
            wire.send(request(bytes(REQUEST_BYTES_MAX + 1)))
        answer = wire.answer()

        assert 413 == answer.status
        assert "LimitExceeded" == answer.headers["featurestore-error"]
        assert wire.is_ended()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, id="TLS"),
        pytest.param(
            b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400, id="two lengths"
        ),
        pytest.param(b"GET /" + b"x" * 40_000, 431, id="endless path"),
        pytest.param(b"GET / HTTP/1.1\r\na: " + b"x" * 40_000, 431, id="endless header"),
        pytest.param(b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere\r\n\r\n", 400, id="proxy"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_ended(
    server: FeatureServer, sent: bytes, status: int
) -> None:
    """And nobody else notices."""
    with Wire(server) as wire, Caller(server) as other:
        wire.send(sent)
        answer = wire.answer()

        assert (status, "application/problem+json") == (answer.status, answer.headers["content-type"])
        assert wire.is_ended()
        assert 200 == other.post(LOOKUP, MERCHANT).status


def test_who_says_nothing_is_sent_away(server: FeatureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a request, in the middle of its head, and after an answer."""
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)
    for sent in (b"", b"GET /healthz HT", request(path="/healthz", verb="GET")):
        with Wire(server) as wire:
            wire.send(sent)
            if sent.endswith(b"\r\n\r\n"):
                assert 200 == wire.answer().status

            assert wire.is_ended()


def test_a_body_that_does_not_come_is_given_up_with_the_deadline(
    server: FeatureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller is told, and the request counted."""
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)
    with Wire(server) as wire:
        wire.send(request(MERCHANT, "request-timeout: 0.1")[:-1])
        answer = wire.answer()

        assert (504, "DeadlineSpent") == (answer.status, answer.headers["featurestore-error"])
        assert wire.is_ended()
    assert (
        'featurestore_requests_total{method="POST /v1/services/{name}:lookup",status="DEADLINE_EXCEEDED"} 1.0'
        in metrics_of(server)
    )


def test_who_hangs_up_stops_the_work(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """At work, or while its body comes: it is counted as cancelled, and its place is free."""
    server = start(workers=1)
    with Caller(server) as other:
        assert 200 == other.post(LOOKUP, MERCHANT).status
    entered, proceed = _standing_still(monkeypatch)
    with Wire(server) as wire:
        wire.send(request(MERCHANT))
        assert entered.acquire(timeout=30)
    with Wire(server) as wire:
        wire.send(request(MERCHANT)[:-1])
    _until(lambda: 'status="CANCELLED"} 2.0' in metrics_of(server))
    proceed.set()

    with Caller(server) as other:
        assert 200 == other.post(LOOKUP, MERCHANT).status


def test_a_connection_ends_with_age(start: Start) -> None:
    """So that callers find servers that were added; the answer says that it is the last one."""
    server = start(connection_age_s=0.05)
    with Wire(server) as wire:
        _until(lambda: _is_last(wire))

        assert wire.is_ended()


def test_who_does_not_read_is_not_read(server: FeatureServer) -> None:
    """Its answers do not pile up in the server; it gets every one of them once it reads."""
    count = 3_000
    assert server._http is not None
    with Wire(server) as wire:
        wire.send(request(path="/openapi.json", verb="GET") * count)
        connections = server._http._connections
        _until(lambda: any(each._is_unread for each in connections))
        SystemClock().sleep(0.2)
        (connected,) = connections

        assert connected._transport.get_write_buffer_size() < 1 << 20
        assert {200} == {wire.answer().status for _ in range(count)}


def _standing_still(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Semaphore, threading.Event]:
    """Lookups stand still in the store: (released when one has come there, lets them go)."""
    entered, proceed = threading.Semaphore(0), threading.Event()

    def wait(_groups: Groups, _timeout_ms: float) -> None:
        entered.release()
        assert proceed.wait(PATIENCE_S)

    before_lookup_reads(monkeypatch, wait)
    return entered, proceed


def _is_last(wire: Wire) -> bool:
    """Whether the answer to one more request says that it is the last."""
    wire.send(request(path="/healthz", verb="GET"))
    return wire.answer().headers.get("connection") == "close"


def _until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    clock = SystemClock()
    give_up_ns = clock.monotonic_ns() + int(PATIENCE_S * 1e9)
    while not is_so():
        assert clock.monotonic_ns() < give_up_ns, "it never was"
        clock.sleep(0.02)
