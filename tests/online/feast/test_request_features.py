"""Features of a request through the stock Feast SDK: the values of the server, and of a training set."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from typing import Any

import pandas as pd
import pytest

from featurestore.definitions.registry import open_registry
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.oracle.naive import naive_value
from tests.online.feast.stand import NOW, NOW_MS, PROJECT, Stand, payments, profile

pytestmark = pytest.mark.filterwarnings("ignore")

ROWS: dict[str, list[Any]] = {
    "card_id": ["c-1", "c-1", "c-2", "c-1"],
    "merchant_id": [5, 5, 5, 6],
    "paid_amount": [500.0, None, 7.25, -3.0],
    "paid_in": ["SE", "DE", None, "DE"],
}
CHECKS = ("amount_ratio", "is_abroad", "count_or_days", "route")


def rows_of(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Columns as the SDK's entity rows."""
    return [{name: values[row] for name, values in columns.items()} for row in range(4)]


@pytest.fixture
def checked(stand: Stand) -> Stand:
    """A card with payments, and a merchant with a profile."""
    stand.stream("card_activity", payments(20, key=b"c-1"))
    stand.feast.write_to_online_store("merchant_profile", pd.DataFrame([profile(5, NOW)]))
    return stand


def test_the_sdk_answers_what_the_server_answers(checked: Stand) -> None:
    """One definition, from one registry; the SDK runs the function that was registered, the server the SQL."""
    service = checked.feast.get_feature_service("fraud_with_checks")
    by_sdk = checked.feast.get_online_features(features=service, entity_rows=rows_of(ROWS)).to_dict()
    registry = open_registry(str(checked.repo / "data" / "registry.db"), PROJECT)
    server = FeatureServer(registry, checked.store, checked.clock, ServerSettings(port=0))
    try:
        with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
            keys = {name: ROWS[name] for name in ("card_id", "merchant_id")}
            request = {name: ROWS[name] for name in ("paid_amount", "paid_in")}
            by_server = client.lookup("fraud_with_checks", keys, request=request).to_dict()
    finally:
        server.stop(drain_seconds=1.0)
    (mean,) = [each for each in checked.view("card_activity").features if each.name == "card_amount_mean_1d"]
    usual = naive_value(mean, payments(20, key=b"c-1"), NOW_MS)
    assert isinstance(usual, float)

    assert by_server == {name: by_sdk[name] for name in ("card_count_1h", *CHECKS)}
    assert by_server["amount_ratio"] == [pytest.approx(500 / usual), None, None, pytest.approx(-3 / usual)]
    assert by_server["is_abroad"] == [False, True, None, None]
    assert by_server["count_or_days"] == [320, 320, 300, 20]
    assert by_server["route"] == ["SE to SE", "DE to SE", None, None]


def test_the_registered_function_stands_alone(checked: Stand) -> None:
    """It is rebuilt from the registry's text, without the repo; so any of Feast's servers has it."""
    from feast.on_demand_feature_view import OnDemandFeatureView

    registered = checked.feast.get_on_demand_feature_view("payment_checks")
    rebuilt = OnDemandFeatureView.from_proto(registered.to_proto())

    found = rebuilt.transform_dict(
        {
            "paid_amount": [10.0],
            "paid_in": ["SE"],
            "card_amount_mean_1d": [4.0],
            "card_count_1d": [2],
            "home_market": ["DE"],
            "onboarded_days": [None],
        }
    )
    assert {name: found[name] for name in CHECKS} == {
        "amount_ratio": [2.5],
        "is_abroad": [True],
        "count_or_days": [2],
        "route": ["SE to DE"],
    }


def test_feast_looks_up_just_what_the_sql_reads(checked: Stand) -> None:
    """The registered view names the features that are read, and no others of its sources."""
    registered = checked.feast.get_on_demand_feature_view("payment_checks")

    read = {
        name: sorted(feature.name for feature in projection.features)
        for name, projection in registered.source_feature_view_projections.items()
    }
    assert read == {
        "card_activity": ["card_amount_mean_1d", "card_count_1d"],
        "merchant_profile": ["home_market", "onboarded_days"],
    }


def test_feasts_own_http_server_answers_what_the_sdk_answers(checked: Stand, port: int) -> None:
    """`feast serve`, which has never heard of us, takes the request's columns beside the join keys."""
    import uvicorn
    from feast.feature_server import get_app

    service = checked.feast.get_feature_service("fraud_with_checks")
    by_sdk = checked.feast.get_online_features(features=service, entity_rows=rows_of(ROWS)).to_dict()
    server = uvicorn.Server(uvicorn.Config(get_app(checked.feast), port=port, log_level="error"))
    serving = threading.Thread(target=server.run)
    serving.start()
    try:
        while not server.started:
            assert serving.is_alive()
            time.sleep(0.05)
        body = json.dumps({"feature_service": "fraud_with_checks", "entities": ROWS}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/get-online-features", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=30) as response:
            answer = json.load(response)
    finally:
        server.should_exit = True
        serving.join()

    found = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    assert {name: found[name]["values"] for name in CHECKS} == {name: by_sdk[name] for name in CHECKS}
