"""Feast's `remote` online store, unmodified, asks our server over HTTP: the values of the SDK on the store itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from feast import FeatureStore, RepoConfig

from featurestore.definitions.registry import open_registry
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from tests.online.feast.stand import NOW, PROJECT, Stand, payments, profile

pytestmark = pytest.mark.filterwarnings("ignore")

ROWS: list[dict[str, Any]] = [
    {"card_id": "c-1", "merchant_id": 5},
    {"card_id": "nobody", "merchant_id": 5},
    {"card_id": "c-1", "merchant_id": 404},
]
FEATURES = [
    "card_activity:card_count_1h",
    "card_activity:card_amount_mean_1d",
    "merchant_profile:home_market",
    "merchant_profile:onboarded_days",
]


@pytest.fixture
def remote(stand: Stand) -> Iterator[FeatureStore]:
    """A Feast project of the same registry that has no store but our server."""
    stand.stream("card_activity", payments(20, key=b"c-1"))
    stand.feast.write_to_online_store("merchant_profile", pd.DataFrame([profile(5, NOW)]))
    registry = str(stand.repo / "data" / "registry.db")
    server = FeatureServer(
        open_registry(registry, PROJECT), stand.store, stand.clock, ServerSettings(port=0), http_port=0
    )
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry=registry,
        online_store={"type": "remote", "path": f"http://127.0.0.1:{server.http_port}"},
        entity_key_serialization_version=3,
    )
    yield FeatureStore(config=config)
    server.stop(drain_seconds=1.0)


@pytest.mark.parametrize("full_names", [False, True])
def test_features_by_name_are_those_of_the_store(stand: Stand, remote: FeatureStore, full_names: bool) -> None:
    """Of stream views and materialized ones, for entities that are known, and for those that are not."""
    here = stand.feast.get_online_features(features=FEATURES, entity_rows=ROWS, full_feature_names=full_names)
    there = remote.get_online_features(features=FEATURES, entity_rows=ROWS, full_feature_names=full_names)

    assert here.to_dict() == there.to_dict()
    assert there.to_dict()["card_activity__card_count_1h" if full_names else "card_count_1h"][1] == 0


def test_a_service_is_that_of_the_store(stand: Stand, remote: FeatureStore) -> None:
    """Asked for by its name."""
    service = stand.feast.get_feature_service("merchant_monitoring")
    rows = [{"merchant_id": 5}, {"merchant_id": 404}]

    here = stand.feast.get_online_features(features=service, entity_rows=rows).to_dict()

    assert here == remote.get_online_features(features=service, entity_rows=rows).to_dict()


def test_what_is_refused_says_why(remote: FeatureStore) -> None:
    """The kind and the hint of our error are in Feast's."""
    with pytest.raises(RuntimeError, match="card_count_2h"):
        remote.get_online_features(features=["card_activity:card_count_2h"], entity_rows=ROWS)
