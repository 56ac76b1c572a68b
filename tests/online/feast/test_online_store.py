"""The stock Feast SDK on our store: windowed views like the naive oracle, in every way that the SDK can be asked."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pandas as pd
import pytest
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesRequest
from feast.protos.feast.serving.ServingService_pb2_grpc import ServingServiceStub
from feast.protos.feast.types.Value_pb2 import Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.definitions.registry import RegistryFile
from featurestore.errors import InvalidRequest, OnlineStoreDown, StoreRolledBack, UnknownJoinKey
from featurestore.online.generation import GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.online.write.plain_writer import delete_project
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.batches import keyed_batch
from featurestore.testing.servers import RedisServer, redis_server
from featurestore.testing.strategies import event_streams, read_times
from featurestore.testing.writers import open_writer
from tests.online.feast.stand import (
    LANES,
    NOT_FOUND,
    NOW,
    NOW_MS,
    PRESENT,
    PROJECT,
    Stand,
    assert_equals_oracle,
    cells_of,
    payments,
    profile,
    stand_on,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_feature_service_answers_what_the_oracle_says(stand: Stand) -> None:
    """Three stream views and a plain one in one call: values, statuses, event times, for known and unknown keys."""
    keys = {"card_activity": b"c-1", "merchant_activity": b"7", "terminal_activity": b"70"}
    events = {name: payments(900, key=key) for name, key in keys.items()}
    for name, view_events in events.items():
        stand.stream(name, view_events)
    rows = [
        {"card_id": "c-1", "merchant_id": 7, "terminal_id": 71},
        {"card_id": "c-2", "merchant_id": 8, "terminal_id": 70},
        {"card_id": "c-1", "merchant_id": 8, "terminal_id": 70},
    ]
    answer = stand.cells(stand.feast.get_feature_service("fraud_detection"), rows)

    known = {"card_activity": (0, 2), "merchant_activity": (0,), "terminal_activity": (1, 2)}
    for name, known_rows in known.items():
        for row in range(len(rows)):
            mine = events[name] if row in known_rows else []
            assert_equals_oracle(stand.view(name), answer, row, mine, NOW_MS)
    assert [(None, NOT_FOUND, 0)] * 3 == answer["home_market"]
    assert [("c-1", PRESENT, 0), ("c-2", PRESENT, 0), ("c-1", PRESENT, 0)] == answer["card_id"]


def test_the_sdk_and_the_server_give_the_same_vectors(stand: Stand, tmp_path: Path) -> None:
    """Byte for byte: present, null, unknown and never streamed, of windowed and plain views."""
    stand.stream("card_activity", payments(900, key=b"c-1"))
    stand.stream("merchant_activity", payments(40, key=b"7"))
    stand.feast.write_to_online_store("merchant_profile", pd.DataFrame([profile(7, NOW, home_market=None)]))
    rows: dict[str, list[Any]] = {"card_id": ["c-1", "c-2", "c-1"], "merchant_id": [7, 7, 8], "terminal_id": [1, 2, 1]}
    request = GetOnlineFeaturesRequest(feature_service="fraud_detection")
    for name, values in rows.items():
        field = "string_val" if name == "card_id" else "int64_val"
        request.entities[name].val.extend([Value(**{field: value}) for value in values])
    registry = RegistryFile(stand.repo / "data" / "registry.db", PROJECT)
    server = FeatureServer(registry, stand.store, stand.clock, ServerSettings(port=0))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = ServingServiceStub(channel)  # type: ignore[no-untyped-call]  # Feast declares no types here
        served = stub.GetOnlineFeatures(request, timeout=30)
    server.stop(drain_seconds=0)
    asked = stand.feast.get_online_features(
        features=stand.feast.get_feature_service("fraud_detection"),
        entity_rows=[dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)],
    ).proto
    by_name = dict(zip(asked.metadata.feature_names.val, asked.results, strict=True))

    assert set(by_name) == set(served.metadata.feature_names.val)
    for name, vector in zip(served.metadata.feature_names.val, served.results, strict=True):
        assert name in rows or vector.SerializeToString() == by_name[name].SerializeToString(), name


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_small_streams_agree_with_the_oracle(stand: Stand, data: st.DataObject) -> None:
    """Ties, window edges, late events and extremes, through the SDK, at any read time."""
    view = stand.view("card_activity")
    drawn = data.draw(event_streams(view, events_max=12))
    # Producer's duplicates are the writer's business; here each event comes once.
    events = [
        replace(event, columns={**event.columns, "event_time": event.event_time_ms})
        for event in {event.event_id: event for event in drawn}.values()
    ]
    delete_project(stand.store, PROJECT)
    stand.stream(view.name, events)
    cards = sorted({event.key for event in events} | {b"nobody"})
    rows = [{"card_id": key.decode()} for key in cards]
    features = [f"card_activity:{feature.name}" for feature in view.features]
    for as_of_ms in data.draw(read_times(view, events)):
        stand.clock.set_now_ms(as_of_ms)
        answer = stand.cells(features, rows)
        for row, key in enumerate(cards):
            assert_equals_oracle(view, answer, row, [event for event in events if event.key == key], as_of_ms)


def test_a_view_that_was_never_streamed_says_nothing(stand: Stand) -> None:
    """A count of 0 would be a value that nobody has computed; and the lookup registers no generation."""
    answer = stand.cells(["card_activity:card_count_1d", "card_activity:card_amount_max_1d"], [{"card_id": "c-1"}])

    assert [(None, NOT_FOUND, 0)] == answer["card_count_1d"]
    assert [(None, NOT_FOUND, 0)] == answer["card_amount_max_1d"]
    assert {} == GenerationCatalog(stand.store, PROJECT).all()
    assert [] == list(stand.store.scan(b"*"))


def test_a_promoted_generation_answers_within_a_second(stand: Stand) -> None:
    """Readers stay on the old definition until the new one has caught up; features it lacks are NOT_FOUND."""
    view = stand.view("card_activity")
    catalog = GenerationCatalog(stand.store, PROJECT)
    catalog.lane_count(LANES)
    features = tuple(feature for feature in view.features if feature.name != "card_count_1h")
    old = catalog.register(replace(view, features=features))
    writer = open_writer(stand.store, old, LANES, stand.clock)
    writer.write([keyed_batch(old.view, payments(10, key=b"c-1"), lane_count=LANES)])
    asked = ["card_activity:card_count_1d", "card_activity:card_count_1h"]
    before = stand.cells(asked, [{"card_id": "c-1"}])
    stand.stream("card_activity", payments(4, key=b"c-1"))
    filling = stand.cells(asked, [{"card_id": "c-1"}])
    [new] = [one for one in catalog.generations("card_activity") if one.state is GenerationState.FILLING]
    catalog.promote(new)
    stand.clock.advance_ms(1_000)
    stand.clock.set_now_ms(NOW_MS)
    after = stand.cells(asked, [{"card_id": "c-1"}])

    assert (10, PRESENT) == before["card_count_1d"][0][:2]
    assert (None, NOT_FOUND) == before["card_count_1h"][0][:2]
    assert before == filling
    assert (4, PRESENT) == after["card_count_1d"][0][:2]
    assert (2, PRESENT) == after["card_count_1h"][0][:2]


def test_full_names_and_versions_are_as_feast_gives_them(stand: Stand) -> None:
    """The options of the SDK call work for our views too."""
    asked = ["card_activity:card_count_1d", "merchant_profile:home_market"]
    response = stand.feast.get_online_features(
        features=asked,
        entity_rows=[{"card_id": "c-1", "merchant_id": 5}],
        full_feature_names=True,
        include_feature_view_version_metadata=True,
    )

    assert {"card_id", "merchant_id", "card_activity__card_count_1d", "merchant_profile__home_market"} == set(
        response.to_dict()
    )
    assert {"card_activity", "merchant_profile"} == {
        view.name for view in response.proto.metadata.feature_view_metadata
    }


def test_the_asynchronous_call_answers_the_same(stand: Stand) -> None:
    """get_online_features_async, as Feast's own feature server may use it."""
    stand.stream("card_activity", payments(3, key=b"c-1"))
    asked, rows = ["card_activity:card_count_1d"], [{"card_id": "c-1"}]
    response = asyncio.run(stand.feast.get_online_features_async(features=asked, entity_rows=rows))

    assert stand.cells(asked, rows) == cells_of(response)


def test_only_the_stream_writes_a_windowed_view(stand: Stand) -> None:
    """A frame pushed into it would be in no tile; the error says what to do instead."""
    names = [feature.name for feature in stand.view("terminal_activity").features]
    frame = pd.DataFrame([{"terminal_id": 1, **dict.fromkeys(names, 1), "event_time": NOW}])

    with pytest.raises(InvalidRequest, match='"terminal_activity" is written by its stream'):
        stand.feast.write_to_online_store("terminal_activity", frame)
    assert [] == list(stand.store.scan(b"*"))


def test_a_missing_or_null_join_key_is_named(stand: Stand) -> None:
    """Instead of an answer about somebody else."""
    with pytest.raises(UnknownJoinKey, match='"merchant_id" of feature view "merchant_profile" is missing'):
        stand.cells(["card_activity:card_count_1d", "merchant_profile:home_market"], [{"card_id": "c-1"}])
    with pytest.raises(InvalidRequest, match='join key "card_id" is null'):
        stand.cells(["card_activity:card_count_1d"], [{"card_id": None}])


def test_teardown_deletes_the_project_and_stops_its_stream(stand: Stand) -> None:
    """Nothing of the project stays, another project's keys do, and a running writer notices."""
    writer = stand.writer("card_activity")
    stand.feast.write_to_online_store("merchant_profile", pd.DataFrame([profile(1, NOW)]))
    stand.store.compare_and_set(b"{payments2/1}view/p/1", None, b"another project's")
    stand.feast._get_provider().teardown_infra(PROJECT, [], [])

    assert [b"{payments2/1}view/p/1"] == list(stand.store.scan(b"*"))
    with pytest.raises(StoreRolledBack):
        writer.write([keyed_batch(writer.generation.view, payments(1, key=b"c-1"), lane_count=LANES)])


def test_a_store_that_is_down_says_so_and_comes_back(applied_repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OnlineStoreDown while it is away; the same FeatureStore answers again afterwards."""
    with redis_server() as server:
        monkeypatch.setenv("FEATURESTORE_STORE_URL", server.url)
        stand = stand_on(applied_repo, connect(server.url))
        asked, rows = ["card_activity:card_count_1d"], [{"card_id": "c-1"}]
        before = stand.cells(asked, rows)
        _down_and_up(server, stand, asked, rows)

        assert before == stand.cells(asked, rows)


def test_a_cluster_is_configured_in_the_repos_file(applied_repo: Path, redis_cluster_url: str, tmp_path: Path) -> None:
    """connection_string, cluster and lanes; views whose keys lie on different nodes come in one call."""
    repo = tmp_path / "feature_repo"
    shutil.copytree(applied_repo, repo)
    with (repo / "feature_store.yaml").open("a") as file:
        file.write(f"  connection_string: {redis_cluster_url}\n  cluster: true\n  lanes: {LANES}\n")
    store = connect(redis_cluster_url, cluster=True)
    stand = stand_on(repo, store)
    stand.feast.write_to_online_store("merchant_profile", pd.DataFrame([profile(n, NOW) for n in range(20)]))
    stand.stream("card_activity", payments(3, key=b"c-1"))
    asked = ["card_activity:card_count_1d", "merchant_profile:home_market"]
    answer = stand.cells(asked, [{"card_id": "c-1", "merchant_id": n} for n in range(21)])
    lanes = GenerationCatalog(store, PROJECT).lane_count()
    stand.feast._get_provider().teardown_infra(PROJECT, [], [])

    assert LANES == lanes
    assert [3] * 21 == [value for value, _, _ in answer["card_count_1d"]]
    assert ["SE"] * 20 + [None] == [value for value, _, _ in answer["home_market"]]
    assert [] == list(store.scan(b"*"))
    store.close()


def _down_and_up(server: RedisServer, stand: Stand, asked: list[str], rows: list[dict[str, Any]]) -> None:
    server.process.kill()
    stand.clock.advance_ms(1_000)
    with pytest.raises(OnlineStoreDown):
        stand.cells(asked, rows)
    server.restart()
