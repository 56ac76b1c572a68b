"""LookupStream: many chunks in one call, each answered as Lookup would answer it, for both kinds of server."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.client.messages import LookupBatch, make_request
from featurestore.serving.request.admission import AdmissionSettings
from featurestore.serving.request.limits import LOOKUP_STREAMS_MAX, STREAM_SILENCE_MS_MAX
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.crowds import PATIENCE_S, eventually, metrics_of, stood_still
from tests.serving.payments import NOW_MS, PAYMENT, Payments, RegistryInMemory, code_name
from tests.serving.store_reads import Groups, before_lookup_reads

LOOKUP = "/featurestore.v1.FeatureLookup/Lookup"
LOOKUP_STREAM = "/featurestore.v1.FeatureLookup/LookupStream"

CONNECTION_BYTES_MAX = 16 << 20
"""What HTTP/2 may hold of one stream in either direction, with room to spare: gRPC lets a window grow to 8 MiB."""

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


def chunk(*merchants: int, service: str = "merchant_monitoring") -> pb.LookupRequest:
    """A chunk of merchants."""
    request = pb.LookupRequest(feature_service=service, as_of_ms=[NOW_MS])
    request.entities.add(join_key="merchant_id", integers=merchants)
    return request


def stream_of(channel: grpc.Channel) -> Any:
    """The streaming method."""
    return channel.stream_stream(
        LOOKUP_STREAM,
        request_serializer=pb.LookupRequest.SerializeToString,
        response_deserializer=pb.LookupResponse.FromString,
    )


def lookup_of(channel: grpc.Channel) -> Any:
    """The method for one request."""
    return channel.unary_unary(
        LOOKUP,
        request_serializer=pb.LookupRequest.SerializeToString,
        response_deserializer=pb.LookupResponse.FromString,
    )


def trailers(failure: Any) -> dict[str, str]:
    """Trailing metadata of a failed call."""
    return dict(failure.trailing_metadata())


def test_every_chunk_is_answered_in_order_as_a_request_of_its_own(channel: grpc.Channel) -> None:
    """Whatever their sizes: one row, known and unknown ones, a thousand, each with its own wish for metadata.

    Payments in flight and columns of the request are part of a chunk.
    """
    chunks = [chunk(7), chunk(8, 7), chunk(*range(1_000)), chunk(5, 5, 5), chunk(*range(300, 0, -1))]
    chunks[1].include_metadata = True
    both_keys = [pb.LookupRequest(feature_service="fraud_detection", as_of_ms=[NOW_MS - day]) for day in (0, 5, 9)]
    for number, request in enumerate(both_keys):
        request.entities.add(join_key="card_id", strings=[f"c-{number}", "c-1"])
        request.entities.add(join_key="merchant_id", integers=[7, 7])

    row: dict[str, Any] = {"card_id": ["c-1"], "merchant_id": [7]}
    for amount in (5_000, None):
        rows = LookupBatch(row, events={"events": {**PAYMENT, "amount": amount}})
        both_keys.append(make_request("fraud_detection", rows, None, with_metadata=True))

    for asked in (chunks, both_keys):
        answers = list(stream_of(channel)(iter(asked), timeout=PATIENCE_S))

        assert [lookup_of(channel)(request, timeout=PATIENCE_S) for request in asked] == answers


def test_a_stream_without_a_chunk_ends_well(channel: grpc.Channel) -> None:
    """A job of no rows is no error."""
    assert list(stream_of(channel)(iter(()), timeout=PATIENCE_S)) == []


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (chunk(), "INVALID_ARGUMENT", "chunk 2: the request has no rows"),
        (chunk(*range(1_001)), "INVALID_ARGUMENT", "chunk 2: the request has 1001 rows"),
        (chunk(7, service="merchant_monitorin"), "INVALID_ARGUMENT", 'chunk 2: it asks for feature service "merchant_'),
        (
            pb.LookupRequest(feature_service="merchant_monitoring"),
            "INVALID_ARGUMENT",
            'chunk 2: join key "merchant_id"',
        ),
    ],
    ids=["no rows", "too many rows", "another service", "no join key"],
)
def test_a_chunk_that_is_wrong_ends_the_stream_and_is_named(
    channel: grpc.Channel, wrong: pb.LookupRequest, code: str, said: str
) -> None:
    """Those before it are answered, those after it are not; the number is in the text and in the trailing metadata."""
    before = [chunk(7), chunk(8)]
    call = stream_of(channel)(iter([*before, wrong, chunk(9)]), timeout=PATIENCE_S)
    answers = [next(call) for _ in before]
    with pytest.raises(grpc.RpcError) as raised:
        next(call)

    failure: Any = raised.value
    assert [lookup_of(channel)(request, timeout=PATIENCE_S) for request in before] == answers
    assert (code, "2") == (code_name(failure), trailers(failure)["featurestore-chunk"])
    assert failure.details().startswith(said)
    assert trailers(failure)["featurestore-error"] in {"InvalidRequest", "LimitExceeded", "UnknownJoinKey"}


def test_what_is_no_message_is_refused_as_a_chunk(channel: grpc.Channel) -> None:
    """Bytes that are none of ours."""
    call: Any = channel.stream_stream(LOOKUP_STREAM)
    with pytest.raises(grpc.RpcError) as raised:
        list(call(iter([b"\xff\xff\xff"]), timeout=PATIENCE_S))

    assert "INVALID_ARGUMENT" == code_name(raised.value)


@both_servers
def test_chunks_are_counted_as_requests(start: Start, io: str) -> None:
    """Each with its status."""
    server = start(io=io)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        list(stream_of(channel)(iter([chunk(7), chunk(8)]), timeout=PATIENCE_S))
        with pytest.raises(grpc.RpcError):
            list(stream_of(channel)(iter([chunk(7), chunk()]), timeout=PATIENCE_S))
    metrics = metrics_of(server)

    assert 'featurestore_requests_total{method="LookupStream",status="OK"} 3.0' in metrics
    assert 'featurestore_requests_total{method="LookupStream",status="INVALID_ARGUMENT"} 1.0' in metrics


@both_servers
def test_a_caller_who_does_not_read_is_not_worked_for(start: Start, monkeypatch: pytest.MonkeyPatch, io: str) -> None:
    """Some answers fill the connection, then the server takes no more and holds no lane; others are answered."""
    server = start(io=io)
    large = chunk(*range(1_000))
    sent = worked = 0

    def without_end() -> Iterator[pb.LookupRequest]:
        nonlocal sent
        while True:
            sent += 1
            yield large

    def work(_groups: Groups, _timeout_ms: float) -> None:
        nonlocal worked
        worked += 1

    with (
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        grpc.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as other,
        monkeypatch.context() as patch,
    ):
        before_lookup_reads(patch, work)
        call = stream_of(channel)(without_end())
        answer_bytes = next(call).ByteSize()
        stood_still(lambda: (sent, worked))
        assert worked * answer_bytes < CONNECTION_BYTES_MAX
        assert (sent - worked) * large.ByteSize() < CONNECTION_BYTES_MAX
        # Neither the lane of chunks nor that of large requests is held.
        assert [1] == [each.row_count for each in stream_of(other)(iter([chunk(7)]), timeout=PATIENCE_S)]
        assert 1_000 == lookup_of(other)(large, timeout=PATIENCE_S).row_count
        call.cancel()


@both_servers
def test_a_caller_who_vanishes_gives_everything_back(start: Start, monkeypatch: pytest.MonkeyPatch, io: str) -> None:
    """In the middle of a chunk, or while waiting for the turn of one; the next stream finds room."""
    server = start(io=io)
    in_store, go = threading.Semaphore(0), threading.Event()

    def wait(_groups: Groups, _timeout_ms: float) -> None:
        in_store.release()
        assert go.wait(PATIENCE_S)

    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, monkeypatch.context() as patch:
        before_lookup_reads(patch, wait)
        calls = [stream_of(channel)(itertools.repeat(chunk(7))) for _ in range(LOOKUP_STREAMS_MAX)]
        assert in_store.acquire(timeout=PATIENCE_S)
        waiting = f'featurestore_waiting_requests{{size="chunk"}} {LOOKUP_STREAMS_MAX - 1}.0'
        eventually(lambda: waiting in metrics_of(server), waiting)
        with pytest.raises(grpc.RpcError) as raised:
            list(stream_of(channel)(iter([chunk(7)]), timeout=PATIENCE_S))
        for call in calls:
            call.cancel()
        go.set()
    gone = f'featurestore_requests_total{{method="LookupStream",status="CANCELLED"}} {LOOKUP_STREAMS_MAX}.0'
    eventually(lambda: gone in metrics_of(server), gone)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        found = [list(stream_of(channel)(iter([chunk(7)]), timeout=PATIENCE_S)) for _ in range(LOOKUP_STREAMS_MAX + 1)]

    assert "RESOURCE_EXHAUSTED" == code_name(raised.value)
    assert 'featurestore_refusals_total{full="stream"} 1.0' in metrics_of(server)
    assert [1] * (LOOKUP_STREAMS_MAX + 1) == [len(answers) for answers in found]


@both_servers
def test_a_payment_is_answered_while_a_chunk_is_at_work(start: Start, monkeypatch: pytest.MonkeyPatch, io: str) -> None:
    """However many streams there are and however small their chunks, one chunk is at work, in nobody else's place."""
    server = start(io=io, workers=1)
    in_store, go, keys_of_a_payment = threading.Semaphore(0), threading.Event(), 7
    payments_rows: list[int] = []

    def wait(groups: Groups, _timeout_ms: float) -> None:
        if sum(map(len, groups)) > keys_of_a_payment:
            in_store.release()
            assert go.wait(PATIENCE_S)

    with (
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ThreadPoolExecutor(3) as threads,
        monkeypatch.context() as patch,
    ):
        before_lookup_reads(patch, wait)
        streams = [
            threads.submit(lambda: list(stream_of(channel)(iter([chunk(*range(20))] * 2), timeout=PATIENCE_S)))
            for _ in range(3)
        ]
        assert in_store.acquire(timeout=PATIENCE_S)
        payments_rows += [lookup_of(channel)(chunk(7), timeout=PATIENCE_S).row_count for _ in range(20)]
        assert not in_store.acquire(blocking=False)
        go.set()
        assert [2, 2, 2] == [len(stream.result()) for stream in streams]
    metrics = metrics_of(server)

    assert [1] * 20 == payments_rows
    assert "featurestore_refusals_total{" not in metrics


@both_servers
def test_a_stream_ends_with_the_chunk_at_work_when_the_server_stops(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """That one is answered; the status says that another server has to go on, and with which chunk."""
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0, io=io))
    in_store, go = threading.Event(), threading.Event()

    def wait(_groups: Groups, _timeout_ms: float) -> None:
        in_store.set()
        assert go.wait(PATIENCE_S)

    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, ThreadPoolExecutor(1) as threads:
        silent_over = threading.Event()

        def one_and_silence() -> Iterator[pb.LookupRequest]:
            yield chunk(7)
            silent_over.wait(PATIENCE_S)

        silent = stream_of(channel)(one_and_silence())
        assert next(silent).row_count == 1
        before_lookup_reads(monkeypatch, wait)
        call = stream_of(channel)(itertools.repeat(chunk(7)))
        assert in_store.wait(PATIENCE_S)
        stopping = threads.submit(server.stop, PATIENCE_S)
        with pytest.raises(grpc.RpcError) as of_silent:
            next(silent)
        go.set()
        assert next(call).row_count == 1
        with pytest.raises(grpc.RpcError) as raised:
            next(call)
        silent_over.set()
        assert stopping.result()

    assert "UNAVAILABLE" == code_name(raised.value)
    assert "1" == trailers(raised.value)["featurestore-chunk"]
    assert code_name(of_silent.value) in {"UNAVAILABLE", "CANCELLED"}


@both_servers
def test_a_stream_in_which_nothing_comes_is_broken_off(
    start: Start, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """It would keep one of a few places."""
    if io == "aio":
        monkeypatch.setattr("featurestore.serving.rpc.streams.STREAM_SILENCE_MS_MAX", 200.0)
    server = start(io=io)
    is_over = threading.Event()

    def one_and_silence() -> Iterator[pb.LookupRequest]:
        yield chunk(7)
        is_over.wait(PATIENCE_S)

    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = stream_of(channel)(one_and_silence())
        assert next(call).row_count == 1
        ended = threading.Event()
        call.add_callback(ended.set)
        while not ended.wait(0.1):
            # Once is not enough: the server may not have begun to wait.
            clock.advance_ms(int(STREAM_SILENCE_MS_MAX) + 1)
        with pytest.raises(grpc.RpcError) as raised:
            next(call)
        is_over.set()

    assert code_name(raised.value) in {"CANCELLED", "DEADLINE_EXCEEDED"}
    shown = 'featurestore_requests_total{method="LookupStream",status="DEADLINE_EXCEEDED"} 1.0'
    eventually(lambda: shown in metrics_of(server), shown)


@both_servers
def test_a_stream_takes_one_share_of_its_service_and_its_client(
    start: Start, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """As long as it is open, not for each chunk."""
    server = start(io=io, admission=AdmissionSettings(service_max={"merchant_monitoring": 1}, client_max=2))
    go_on = threading.Event()

    def two() -> Iterator[pb.LookupRequest]:
        yield chunk(7)
        assert go_on.wait(PATIENCE_S)
        yield chunk(8)

    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = stream_of(channel)(two(), timeout=PATIENCE_S)
        assert next(call).row_count == 1
        with pytest.raises(grpc.RpcError) as raised:
            list(stream_of(channel)(iter([chunk(7)]), timeout=PATIENCE_S))
        go_on.set()
        assert [1] == [each.row_count for each in call]
        assert [1] == [each.row_count for each in stream_of(channel)(iter([chunk(7)]), timeout=PATIENCE_S)]

    failure: Any = raised.value
    assert "RESOURCE_EXHAUSTED" == code_name(failure)
    assert "chunk 0: feature service" in failure.details()


@both_servers
def test_a_chunk_has_a_deadline_of_its_own(start: Start, monkeypatch: pytest.MonkeyPatch, io: str) -> None:
    """That of a request without one, from when its turn has come; the stream may take hours."""
    server = start(io=io)
    timeouts_ms: list[float] = []
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, monkeypatch.context() as patch:
        patch.setattr("featurestore.serving.request.handling.DEADLINE_DEFAULT_MS", 700.0)
        before_lookup_reads(patch, lambda _groups, timeout_ms: timeouts_ms.append(timeout_ms))
        list(stream_of(channel)(iter([chunk(7)]), timeout=3_600))
        list(stream_of(channel)(iter([chunk(7)])))

    assert [700.0, 700.0] == timeouts_ms
