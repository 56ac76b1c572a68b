"""Lists and maps through the stock Feast SDK, beside both gRPC services on the same registry and store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pandas as pd
import pytest
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesRequest
from feast.protos.feast.serving.ServingService_pb2_grpc import ServingServiceStub
from feast.type_map import feast_value_type_to_python_type

from featurestore.definitions.registry import RegistryFile
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.oracle.naive import naive_value
from featurestore.testing.oracle.tolerance import agrees
from tests.online.feast.stand import NOT_FOUND, NOW, NOW_MS, NULL_VALUE, PRESENT, PROJECT, Stand, payments

pytestmark = pytest.mark.filterwarnings("ignore")

CARDS, MERCHANTS = ["c-1", "c-2", "nobody"], [5, 6, 404]
ROWS = [{"card_id": card, "merchant_id": merchant} for card, merchant in zip(CARDS, MERCHANTS, strict=True)]

ALERTS: list[dict[str, Any]] = [
    {"alert_reasons": ["velocity", ""], "alert_codes": [7, -(2**63)], "alert_scores": [0.5]},
    {"alert_reasons": [], "alert_codes": [], "alert_scores": [0.25]},
    {"alert_reasons": None, "alert_codes": None, "alert_scores": None},
]


@pytest.fixture
def reviewed(stand: Stand) -> Stand:
    """The SDK on a store with two cards and the alerts of two merchants."""
    stand.stream("card_habits", [*payments(9, key=b"c-1"), *payments(4, key=b"c-2", prefix=b"q")[3:]])
    rest = {"alert_count": 1, "alert_level": 1, "alert_score": 0.5, "alert_token": b"t", "alert_seen_at": NOW}
    rows = [{"merchant_id": 5 + row, **rest, **ALERTS[row], "raised_at": NOW} for row in range(2)]
    stand.feast.push("merchant_alerts_push", pd.DataFrame(rows))
    return stand


@pytest.fixture
def server(reviewed: Stand) -> Iterator[FeatureServer]:
    """A server on what the SDK reads."""
    registry = RegistryFile(reviewed.repo / "data" / "registry.db", PROJECT)
    started = FeatureServer(registry, reviewed.store, reviewed.clock, ServerSettings(port=0))
    yield started
    started.stop(drain_seconds=1.0)


def sdk_answer(stand: Stand) -> dict[str, list[Any]]:
    """What the SDK gives to Python."""
    service = stand.feast.get_feature_service("card_review")
    answer: dict[str, list[Any]] = stand.feast.get_online_features(features=service, entity_rows=ROWS).to_dict()
    return answer


def test_the_sdk_gives_the_oracles_lists_and_maps(reviewed: Stand) -> None:
    """As Python's lists and dicts; of the third card there is nothing but the counts of its hours."""
    answer = sdk_answer(reviewed)
    events = [payments(9, key=b"c-1"), payments(4, key=b"c-2")[3:], []]

    for feature in reviewed.view("card_habits").features:
        for row, mine in enumerate(events):
            expected, value = naive_value(feature, mine, NOW_MS), answer[feature.name][row]
            assert agrees(expected, value), (feature.name, row, expected, value)
    assert {"SE": 3, "DE": 3} == answer["habit_market_counts_1d"][0]
    assert [0, 0, 0] == answer["habit_counts_3x1h"][2]


def test_the_sdk_gives_null_and_empty_lists_apart(reviewed: Stand) -> None:
    """An empty list is PRESENT; a payment without an amount leaves a list of amounts null."""
    service = reviewed.feast.get_feature_service("card_review")
    answer = reviewed.feast.get_online_features(features=service, entity_rows=ROWS)
    statuses = {
        name: list(vector.statuses)
        for name, vector in zip(answer.proto.metadata.feature_names.val, answer.proto.results, strict=True)
    }

    assert {name: [row[name] for row in ALERTS] for name in ALERTS[0]} == {
        name: answer.to_dict()[name] for name in ALERTS[0]
    }
    assert [PRESENT, PRESENT, NOT_FOUND] == statuses["alert_codes"]
    assert [PRESENT, NULL_VALUE, NOT_FOUND] == statuses["habit_amounts_1d"]
    assert [PRESENT, PRESENT, NOT_FOUND] == statuses["habit_market_counts_1d"]


def test_both_services_give_what_the_sdk_gives(reviewed: Stand, server: FeatureServer) -> None:
    """One registry and one store, three ways to ask; the second speaks with Feast's own stub."""
    expected = sdk_answer(reviewed)
    address = f"127.0.0.1:{server.port}"
    with LookupClient(address, timeout_s=30) as client:
        packed = client.lookup("card_review", {"card_id": CARDS, "merchant_id": MERCHANTS}).to_dict()
    request = GetOnlineFeaturesRequest(feature_service="card_review")
    for card, merchant in zip(CARDS, MERCHANTS, strict=True):
        request.entities["card_id"].val.add().string_val = card
        request.entities["merchant_id"].val.add().int64_val = merchant
    with grpc.insecure_channel(address) as channel:
        stub = ServingServiceStub(channel)  # type: ignore[no-untyped-call]  # Feast declares no types here
        response = stub.GetOnlineFeatures(request, timeout=30)
    vectors = dict(zip(response.metadata.feature_names.val, response.results, strict=True))

    assert set(packed) == set(expected) - {"card_id", "merchant_id"}
    for name, values in packed.items():
        assert agrees(expected[name], values), (name, expected[name], values)
        spoken = [feast_value_type_to_python_type(value) for value in vectors[name].values]
        assert agrees(expected[name], spoken), (name, expected[name], spoken)


def test_maps_keep_their_kind_of_number(reviewed: Stand) -> None:
    """Feast has one type for all maps: counts answer a field of it as integers, means as doubles."""
    answer = reviewed.cells(["card_habits:habit_market_counts_1d", "card_habits:habit_market_means_1d"], ROWS[:1])
    ((counts, _, _),), ((means, _, _),) = answer["habit_market_counts_1d"], answer["habit_market_means_1d"]

    assert {"int64_val"} == {value.WhichOneof("val") for value in counts.val.values()}
    assert {"double_val"} == {value.WhichOneof("val") for value in means.val.values()}
