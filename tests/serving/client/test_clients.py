"""The Python clients: retries, deadlines, layouts, and asyncio."""

import asyncio
import threading

import grpc
import pytest

from featurestore.errors import DeadlineSpent, InvalidRequest, Unavailable, UnknownFeatureService
from featurestore.online.answer.schema import ServiceSchema
from featurestore.online.probe import free_port
from featurestore.serving._generated.lookup_pb2 import DescribeFeatureServiceResponse
from featurestore.serving.client.clients import AsyncLookupClient, LookupClient
from featurestore.serving.client.messages import parse_schema
from featurestore.serving.client.retries import pauses_s
from featurestore.serving.request.grpc_status import error_of, is_transient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.payments import Payments, RegistryInMemory


def test_names_are_fetched_once(client: LookupClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout is described when it is first seen, and never again while it stays the same."""
    parsed: list[object] = []

    def counting(response: DescribeFeatureServiceResponse) -> ServiceSchema:
        parsed.append(response)
        return parse_schema(response)

    monkeypatch.setattr("featurestore.serving.client.clients.parse_schema", counting)
    for _ in range(3):
        client.lookup("merchant_monitoring", {"merchant_id": 7})

    assert len(parsed) == 1


def test_a_server_that_comes_up_late_is_waited_for(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """UNAVAILABLE is tried again until the deadline, so a rolling restart costs a caller time and no error."""
    port = free_port()
    started: list[FeatureServer] = []

    def start_late() -> None:
        started.append(FeatureServer(registry, payments.store, clock, ServerSettings(port=port)))

    timer = threading.Timer(0.3, start_late)
    timer.start()
    with LookupClient(f"127.0.0.1:{port}", timeout_s=30) as client:
        result = client.lookup("merchant_monitoring", {"merchant_id": 7})
    timer.join()
    started[0].stop(drain_seconds=1.0)

    assert result.row_count == 1


def test_nobody_answering_is_unavailable_within_the_deadline() -> None:
    """Retries end with the deadline, and the error says what to look at."""
    with LookupClient(f"127.0.0.1:{free_port()}", timeout_s=0.2) as client, pytest.raises(Unavailable) as raised:
        client.lookup("fraud_detection", {"card_id": "c"})

    assert not isinstance(raised.value, DeadlineSpent)
    assert "address" in raised.value.hint


def test_errors_keep_message_and_hint(client: LookupClient) -> None:
    """What the server raised is raised here, part by part."""
    with pytest.raises(UnknownFeatureService) as raised:
        client.lookup("merchant_monitorin", {"merchant_id": 7})

    assert raised.value.message == 'feature service "merchant_monitorin" is not registered'
    assert raised.value.hint == 'did you mean "merchant_monitoring"?'


@pytest.mark.parametrize("values", [["c", 1], [1, "c"], [1.5], [1 << 70]])
def test_mixed_or_foreign_key_values_are_refused_before_the_call(values: list[str | int], client: LookupClient) -> None:
    """A column of keys is all text or all 64-bit integers."""
    with pytest.raises(InvalidRequest, match="neither text nor"):
        client.lookup("merchant_monitoring", {"merchant_id": values})  # type: ignore[dict-item]  # wrong on purpose


def test_a_call_that_somebody_else_cancelled_may_be_tried_again() -> None:
    """A server that stops cancels what has just arrived: for the caller that is an outage, not a bug."""
    error = error_of(grpc.StatusCode.CANCELLED, "CANCELLED", None)

    assert isinstance(error, Unavailable)
    assert is_transient(error)


def test_pauses_grow_and_are_bounded() -> None:
    """Pauses double from 20 ms to half a second, each shortened by up to half."""
    pauses = pauses_s()
    found = [next(pauses) for _ in range(12)]

    assert 0.01 <= found[0] <= 0.02
    assert all(0.25 <= pause <= 0.5 for pause in found[6:])


def test_asyncio_client_answers_the_same(server: FeatureServer, client: LookupClient) -> None:
    """Both clients are one API."""

    async def ask() -> tuple[list[str], dict[str, object], list[str]]:
        async with AsyncLookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as asynchronous:
            results = await asyncio.gather(
                *(asynchronous.lookup("merchant_monitoring", {"merchant_id": [7, key]}) for key in range(20))
            )
            schema = await asynchronous.describe("merchant_monitoring")
            with pytest.raises(UnknownFeatureService):
                await asynchronous.lookup("nothing", {})
            names = await asynchronous.services()
            return [feature.name for feature in schema.features], dict(results[0].rows()[0]), names

    features, row, names = asyncio.run(ask())
    expected = client.lookup("merchant_monitoring", {"merchant_id": 7})
    assert features == expected.names
    assert row == expected.rows()[0]
    assert sorted(names) == ["fraud_detection", "merchant_monitoring"]
