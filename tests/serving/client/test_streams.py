"""`lookup_stream` of the Python clients: results in order, what is asked ahead, and streams that break."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from featurestore.core.spec import ValueType
from featurestore.errors import (
    DeadlineSpent,
    InvalidRequest,
    LimitExceeded,
    OnlineStoreDown,
    Unavailable,
    UnknownFeatureService,
    UnknownRequestColumn,
)
from featurestore.serving.client.clients import AsyncLookupClient, LookupClient
from featurestore.serving.client.messages import LookupBatch
from featurestore.serving.client.result import LookupResult
from featurestore.serving.client.streams import BATCHES_AHEAD
from featurestore.serving.request.limits import LOOKUP_STREAMS_MAX
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.crowds import PATIENCE_S
from tests.serving.payments import (
    HOUR,
    MERCHANT_ACTIVITY,
    NOW_MS,
    PAYMENT,
    REPO,
    Payments,
    RegistryInMemory,
    event_of,
    references,
    windowed,
    with_feature,
)
from tests.serving.request_features import CHECKS, ROWS, repo_with, server_of
from tests.serving.store_reads import Groups, before_lookup_reads

SERVICE = "merchant_monitoring"
Batch = Mapping[str, list[int]]
Ask = Callable[..., list[LookupResult]]


def batch(*merchants: int) -> Batch:
    """Some merchants."""
    return {"merchant_id": list(merchants)}


def by_threads(address: str, batches: Iterable[Batch], service: str = SERVICE, **options: Any) -> list[LookupResult]:
    """All results, by the client for threads."""
    with LookupClient(address, timeout_s=PATIENCE_S) as client:
        return list(client.lookup_stream(service, batches, **options))


def by_asyncio(address: str, batches: Iterable[Batch], service: str = SERVICE, **options: Any) -> list[LookupResult]:
    """All results, by the client for asyncio, from batches that are asynchronous themselves."""

    async def each() -> AsyncIterator[Batch]:
        for one in batches:
            await asyncio.sleep(0)
            yield one

    async def ask() -> list[LookupResult]:
        async with AsyncLookupClient(address, timeout_s=PATIENCE_S) as client:
            return [result async for result in client.lookup_stream(service, each(), **options)]

    return asyncio.run(ask())


both_clients = pytest.mark.parametrize("ask", [by_threads, by_asyncio], ids=["threads", "asyncio"])


@pytest.fixture
def address(server: FeatureServer) -> str:
    """Of a server of either kind."""
    return f"127.0.0.1:{server.port}"


@both_clients
def test_each_batch_has_the_result_of_a_lookup(address: str, client: LookupClient, ask: Ask) -> None:
    """In the order of the batches, more of them than are asked ahead, of one row and of a thousand."""
    batches = [batch(7), batch(*range(1_000)), *(batch(number, 7) for number in range(20))]

    results = ask(address, batches, as_of_ms=NOW_MS - 5, with_metadata=True)

    expected = [client.lookup(SERVICE, each, as_of_ms=NOW_MS - 5, with_metadata=True) for each in batches]
    assert [each.rows() for each in expected] == [each.rows() for each in results]
    assert all((a.statuses == b.statuses).all() for a, b in zip(expected, results, strict=True))
    assert [(NOW_MS - 5,)] * len(batches) == [each.as_of_ms for each in results]
    assert [[view.view for view in each.views] for each in expected] == [
        [v.view for v in each.views] for each in results
    ]
    np.testing.assert_array_equal(expected[1].views[0].event_time_ms, results[1].views[0].event_time_ms)


@both_clients
def test_batches_may_bring_columns_of_the_request_and_payments(
    payments: Payments, clock: ManualClock, ask: Ask
) -> None:
    """Each row has what a lookup of its own would have; a column that is missing is one of its batch."""
    keys = {name: ROWS[name] for name in ("card_id", "merchant_id")}
    request = {name: values for name, values in ROWS.items() if name not in keys}
    request["paid_at"] = [value and datetime.fromtimestamp(value / 1_000, UTC) for value in request["paid_at"]]
    payment = {**{name: [value] * 4 for name, value in PAYMENT.items()}, "amount": [5_000, None, -3, 1]}
    batches = [
        LookupBatch(keys, request),
        LookupBatch(keys, request, {"events": payment}),
        LookupBatch({name: values[:1] for name, values in keys.items()}, {name: v[0] for name, v in request.items()}),
    ]
    with server_of(repo_with(CHECKS), payments, clock) as server:
        address = f"127.0.0.1:{server.port}"
        found = ask(address, batches, "with_request")
        with pytest.raises(UnknownRequestColumn, match='batch 1: column "amount" of the request is missing'):
            ask(address, [batches[0], keys, batches[0]], "with_request")
        with LookupClient(address, timeout_s=PATIENCE_S) as client:
            expected = [
                client.lookup(
                    "with_request",
                    {name: values[row] for name, values in keys.items()},
                    request={name: values[row] for name, values in request.items()},
                    events={"events": {name: values[row] for name, values in payment.items()}} if is_paid else None,
                ).rows()[0]
                for is_paid, rows in ((False, 4), (True, 4), (False, 1))
                for row in range(rows)
            ]

    assert [repr(row) for row in expected] == [repr(row) for result in found for row in result.rows()]
    assert [2, 3, 2] == [result.to_dict()["count_1h"][0] for result in found]


@both_clients
def test_no_batches_are_no_error(address: str, ask: Ask) -> None:
    """And no call."""
    assert [] == ask(address, [])


def test_batches_are_taken_as_results_are(client: LookupClient) -> None:
    """A generator of a million batches is never far ahead of whoever uses the results."""
    taken: list[int] = []

    def batches() -> Iterator[Batch]:
        for number in itertools.count():
            taken.append(number)
            yield batch(number)

    results = client.lookup_stream(SERVICE, batches())
    for number in range(20):
        next(results)
        assert number + BATCHES_AHEAD == len(taken)


def test_results_that_nobody_wants_any_more_leave_room_on_the_server(client: LookupClient) -> None:
    """Whoever stops in the middle keeps no stream open."""
    for _ in range(LOOKUP_STREAMS_MAX + 5):
        results = client.lookup_stream(SERVICE, itertools.repeat(batch(7)), timeout_s=PATIENCE_S)
        next(results)
        results.close()  # type: ignore[attr-defined]  # a generator, which is promised to nobody


@both_clients
@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (batch(*range(1_001)), LimitExceeded, "batch 6: the request has 1001 rows"),
        ({"merchant_id": [1.5]}, InvalidRequest, 'batch 6: join key "merchant_id" has a value that is neither'),
    ],
    ids=["refused by the server", "refused here"],
)
def test_an_error_names_its_batch(address: str, ask: Ask, wrong: Any, error: type[Exception], said: str) -> None:
    """Counted from 0, whoever finds it."""
    with pytest.raises(error, match=said):
        ask(address, [*[batch(7)] * 6, wrong, batch(7)])


@both_clients
def test_an_unknown_service_is_not_tried_again(address: str, ask: Ask) -> None:
    """With the names that are near."""
    with pytest.raises(UnknownFeatureService, match=r"batch 0: .*merchant_monitorin") as raised:
        ask(address, [batch(7)], service="merchant_monitorin")

    assert "merchant_monitoring" in raised.value.hint


@both_clients
def test_what_the_callers_batches_raise_comes_out(address: str, ask: Ask) -> None:
    """As it is, whatever was asked ahead."""

    def batches() -> Iterator[Batch]:
        yield batch(7)
        raise KeyError("the file ends here")

    with pytest.raises(KeyError, match="the file ends here"):
        ask(address, batches())


@both_clients
def test_a_store_that_fails_for_a_while_is_waited_for(address: str, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    """The stream ends, and goes on in a new one with the batch that has no answer: none is left out or comes twice."""
    reads = itertools.count()
    failures: list[int] = []

    def fail(_groups: Groups, _timeout_ms: float) -> None:
        read = next(reads)
        # The server itself reads once more, so every second of these is seen by the client.
        if read % 10 in (5, 6, 7, 8):
            failures.append(read)
            raise OnlineStoreDown("the store is away")

    before_lookup_reads(monkeypatch, fail)
    results = ask(address, [batch(*range(number + 1)) for number in range(30)])

    assert len(failures) > 4
    assert list(range(1, 31)) == [each.row_count for each in results]


@both_clients
def test_a_job_goes_on_when_its_server_is_replaced(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, ask: Ask
) -> None:
    """The one that stops ends the stream after the batch at work; the next one at its address goes on."""
    old = FeatureServer(registry, payments.store, clock, ServerSettings(port=0))
    new: list[FeatureServer] = []

    def replace_server() -> None:
        old.stop(drain_seconds=5)
        new.append(FeatureServer(registry, payments.store, clock, ServerSettings(port=old.port, io="aio")))

    replacing = threading.Thread(target=replace_server)

    def batches() -> Iterator[Batch]:
        for number in range(60):
            if number == 20:
                replacing.start()
            if number == 40:
                replacing.join()
            yield batch(number, 7)

    results = ask(f"127.0.0.1:{old.port}", batches())
    for server in new:
        server.stop(drain_seconds=1)

    assert new
    assert 60 == len(results)
    with_events = {tuple(row.items()) for each in results for row in each.rows()[1:]}
    assert 1 == len(with_events)


@both_clients
def test_an_overloaded_server_is_waited_for(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    """A payment would be decided without features; a job has time."""
    monkeypatch.setattr("featurestore.serving.rpc.streams.LOOKUP_STREAMS_MAX", 1)
    monkeypatch.setattr("featurestore.serving.client.streams.OVERLOADED_PAUSE_S", 0.1)
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0))
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=PATIENCE_S) as other:
        first = other.lookup_stream(SERVICE, itertools.repeat(batch(7)))
        next(first)
        threading.Timer(1.0, other.close).start()
        results = ask(f"127.0.0.1:{server.port}", [batch(7), batch(8)])
    server.stop(drain_seconds=1.0)

    assert [1, 1] == [each.row_count for each in results]


@both_clients
def test_a_batch_that_is_not_answered_in_time_is_late(address: str, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    """Whatever the server does: its caller gets control back."""
    go = threading.Event()
    reads = itertools.count()

    def hang(_groups: Groups, _timeout_ms: float) -> None:
        if next(reads) == 2:
            go.wait(PATIENCE_S)

    before_lookup_reads(monkeypatch, hang)
    with pytest.raises(DeadlineSpent, match=r"batch 2: no answer within 0.5 s"):
        ask(address, [batch(7)] * 5, timeout_s=0.5)
    go.set()


@both_clients
def test_a_server_that_is_not_there_is_an_error_in_the_end(ask: Ask) -> None:
    """After timeout_s."""
    with pytest.raises(Unavailable, match="batch 0: "):
        ask("127.0.0.1:1", [batch(7)], timeout_s=0.3)


@both_clients
def test_a_service_that_changes_under_way_is_read_by_its_new_layout(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, ask: Ask
) -> None:
    """Each result has the layout by which it was answered."""
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0))
    view = with_feature(MERCHANT_ACTIVITY, windowed("max", "price", HOUR, ValueType.FLOAT64))
    views = {view.name: view}
    services = (REPO.services[0], replace(REPO.services[1], features=references(view.name, views=views)))

    def batches() -> Iterator[Batch]:
        yield batch(7)
        generation = payments.write(view, [event_of(b"7", NOW_MS - 5)])
        payments.catalog.promote(generation)
        registry.change(replace(REPO, views=(REPO.views[0], view, REPO.views[2]), services=services))
        for _ in range(400):
            threading.Event().wait(0.01)
            yield batch(7)

    results = ask(f"127.0.0.1:{server.port}", batches())
    server.stop(drain_seconds=1.0)

    assert [3, 4] == sorted({len(each.names) for each in results})
    assert all(set(each.rows()[0]) == set(each.names) for each in results)
