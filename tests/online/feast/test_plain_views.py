"""Plain and on-demand views through the stock Feast SDK: materialize, push, write; as with Feast's own store."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from featurestore.definitions.registry import read_compilation
from featurestore.online.redis.store import connect
from featurestore.testing.oracle.naive import naive_value
from featurestore.testing.strategies import DAY_MS
from featurestore.wire.codecs.view_json import definition_hash
from tests.online.feast.stand import (
    HOUR,
    NOT_FOUND,
    NOW,
    NOW_MS,
    NULL_VALUE,
    OUTSIDE_MAX_AGE,
    PRESENT,
    PROFILE,
    PROJECT,
    Stand,
    payments,
    profile,
    stand_on,
    write_profiles,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def test_materialize_writes_and_rewrites_a_plain_view(stand: Stand) -> None:
    """Nulls, a missing key, and a corrected row of equal event time, which Feast's own store would drop."""
    asked = [f"merchant_profile:{name}" for name in PROFILE]
    rows = [{"merchant_id": 1}, {"merchant_id": 2}, {"merchant_id": 3}]
    moment = NOW - HOUR
    write_profiles(stand.repo, [profile(1, moment), profile(2, moment, home_market=None, onboarded_days=None)])
    stand.feast.materialize(NOW - timedelta(days=1), NOW, feature_views=["merchant_profile"])
    first = stand.cells(asked, rows)
    write_profiles(stand.repo, [profile(1, moment, chargeback_share=0.5), profile(2, moment)])
    stand.feast.materialize(NOW - timedelta(days=1), NOW, feature_views=["merchant_profile"])
    second = stand.cells(asked, rows)

    stamp = NOW_MS - 3_600_000
    assert [("SE", PRESENT, stamp), (None, NULL_VALUE, stamp), (None, NOT_FOUND, 0)] == first["home_market"]
    assert [(300, PRESENT, stamp), (None, NULL_VALUE, stamp), (None, NOT_FOUND, 0)] == first["onboarded_days"]
    assert [0.25, 0.25, None] == [value for value, _, _ in first["chargeback_share"]]
    assert [False, False, None] == [value for value, _, _ in first["is_online_only"]]
    assert [0.5, 0.25, None] == [value for value, _, _ in second["chargeback_share"]]
    assert ["SE", "SE", None] == [value for value, _, _ in second["home_market"]]


def test_an_older_row_never_replaces_a_newer_one(stand: Stand) -> None:
    """Also within one batch, and within one millisecond of it."""
    asked, rows = ["merchant_profile:onboarded_days"], [{"merchant_id": 1}]
    micro = timedelta(microseconds=1)
    frame = pd.DataFrame([profile(1, NOW - HOUR + micro, onboarded_days=2), profile(1, NOW - HOUR, onboarded_days=1)])
    stand.feast.write_to_online_store("merchant_profile", frame)
    stand.feast.write_to_online_store("merchant_profile", pd.DataFrame([profile(1, NOW - 2 * HOUR, onboarded_days=0)]))

    assert [(2, PRESENT, NOW_MS - 3_600_000)] == stand.cells(asked, rows)["onboarded_days"]


def test_ttl_holds_online(stand: Stand) -> None:
    """Exactly one ttl old is served, a millisecond more is OUTSIDE_MAX_AGE; and the key expires by itself."""
    asked, rows = ["merchant_profile:home_market"], [{"merchant_id": 1}]
    stand.feast.write_to_online_store("merchant_profile", pd.DataFrame([profile(1, NOW)]))
    stand.clock.set_now_ms(NOW_MS + 7 * DAY_MS)
    at_ttl = stand.cells(asked, rows)["home_market"]
    stand.clock.set_now_ms(NOW_MS + 7 * DAY_MS + 1)
    table = stand.feast.get_feature_view("merchant_profile")
    (key,) = stand.store.scan(b"*/p/*")
    [left_ms] = stand.store._run([("PTTL", key)])

    assert [("SE", PRESENT, NOW_MS)] == at_ttl
    assert [(None, OUTSIDE_MAX_AGE, NOW_MS)] == stand.cells(asked, rows)["home_market"]
    assert 6 * DAY_MS < left_ms <= 7 * DAY_MS
    assert [(None, None)] == read_online(stand, table, {"merchant_id": 1})


def read_online(stand: Stand, table: Any, *keys: dict[str, Any]) -> list[Any]:
    """Feast's row-wise read."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    def value(raw: Any) -> Value:
        return Value(string_val=raw) if isinstance(raw, str) else Value(int64_val=raw)

    entity_keys = [EntityKey(join_keys=list(key), entity_values=[value(raw) for raw in key.values()]) for key in keys]
    provider = stand.feast._get_provider()
    return list(provider.online_read(stand.feast.config, table, entity_keys))


def test_online_read_serves_stream_and_plain_views(stand: Stand) -> None:
    """Feast's row-wise read, which other parts of Feast use: event time and values, or two Nones."""
    stand.stream("card_activity", payments(3, key=b"c-1"))
    stand.feast.write_to_online_store("merchant_profile", pd.DataFrame([profile(1, NOW)]))
    stream_view = stand.feast.get_stream_feature_view("card_activity")
    (moment, values), missing = read_online(stand, stream_view, {"card_id": "c-1"}, {"card_id": "c-2"})
    [(_, profile_values)] = read_online(stand, stand.feast.get_feature_view("merchant_profile"), {"merchant_id": 1})

    assert NOW - timedelta(milliseconds=1) == moment
    assert 3 == values["card_count_1d"].int64_val
    assert set(values) == {feature.name for feature in stand.view("card_activity").features}
    assert (None, None) == missing
    assert "SE" == profile_values["home_market"].string_val


def test_pushed_values_of_every_type_come_back(stand: Stand) -> None:
    """Also types that windowed features never have: bytes, 32-bit numbers, lists of them."""
    values = {
        "alert_count": 3,
        "alert_level": -2,
        "alert_score": 0.5,
        "alert_reasons": ["velocity", "new device"],
        "alert_codes": [7, -(2**63)],
        "alert_scores": [0.5, 0.25],
        "alert_token": b"\x00\xff",
        "alert_seen_at": NOW,
    }
    stand.feast.push("merchant_alerts_push", pd.DataFrame([{"merchant_id": 5, **values, "raised_at": NOW}]))
    asked = [f"merchant_alerts:{name}" for name in values]
    answer = stand.feast.get_online_features(features=asked, entity_rows=[{"merchant_id": 5}]).to_dict()

    assert {"merchant_id": [5], **{name: [value] for name, value in values.items()}} == answer


def test_a_key_of_two_entities_has_the_entities_order(stand: Stand) -> None:
    """The bytes that the gRPC server reads too, whatever order schema, frame or request have."""
    frame = pd.DataFrame([{"pair_limit": 9.5, "card_id": "c-1", "merchant_id": 5, "set_at": NOW}])
    stand.feast.write_to_online_store("pair_limits", frame)
    rows = [{"card_id": "c-1", "merchant_id": 5}, {"card_id": "c-1", "merchant_id": 6}]

    assert [9.5, None] == [value for value, _, _ in stand.cells(["pair_limits:pair_limit"], rows)["pair_limit"]]
    table = stand.feast.get_feature_view("pair_limits")
    [(_, values)] = read_online(stand, table, {"card_id": "c-1", "merchant_id": 5})
    assert 9.5 == values["pair_limit"].double_val
    assert [b"1:53:c-1"] == [key.partition(b"/p/")[2] for key in stand.store.scan(b"*/p/*")]


def test_on_demand_views_compute_on_windowed_and_plain_features(stand: Stand) -> None:
    """In a service with both; inputs that were not asked for are not answered."""
    events = payments(20, key=b"c-1")
    stand.stream("card_activity", events)
    stand.feast.write_to_online_store("merchant_profile", pd.DataFrame([profile(5, NOW)]))
    rows = [
        {"card_id": "c-1", "merchant_id": 5, "payment_amount": 500},
        {"card_id": "c-2", "merchant_id": 6, "payment_amount": 500},
    ]
    service = stand.feast.get_feature_service("fraud_with_oddity")
    answer = stand.feast.get_online_features(features=service, entity_rows=rows).to_dict()
    (mean,) = [f for f in stand.view("card_activity").features if f.name == "card_amount_mean_1d"]
    usual = naive_value(mean, events, NOW_MS)
    assert isinstance(usual, float)

    assert {"card_id", "merchant_id", "card_count_1d", "home_market", "times_usual", "merchant_risk"} == set(answer)
    assert [pytest.approx(500 / usual), None] == answer["times_usual"]
    assert [0.25, 0.0] == answer["merchant_risk"]
    assert [20, 0] == answer["card_count_1d"]
    assert ["SE", None] == answer["home_market"]


def test_a_removed_plain_view_leaves_nothing_behind(stand: Stand) -> None:
    """An apply that drops it deletes its keys, and no others; stream views are the stream's."""
    stand.stream("card_activity", payments(3, key=b"c-1"))
    stand.feast.write_to_online_store("merchant_profile", pd.DataFrame([profile(n, NOW) for n in range(50)]))
    stand.feast.write_to_online_store(
        "pair_limits", pd.DataFrame([{"pair_limit": 9.5, "card_id": "c-1", "merchant_id": 5, "set_at": NOW}])
    )
    stand.store.compare_and_set(b"{payments/x/1}merchant_profile/p/1", None, b"of another project, payments/x")
    tiles = sorted(key for key in stand.store.scan(b"*") if b"/p/" not in key)
    removed = [stand.feast.get_feature_view("merchant_profile"), stand.feast.get_stream_feature_view("card_activity")]
    provider = stand.feast._get_provider()
    provider.update_infra(PROJECT, removed, [], [], [], partial=True)

    assert tiles == sorted(key for key in stand.store.scan(b"*") if b"/p/" not in key)
    assert [b"{payments/x/1}merchant_profile/p/1"] == list(stand.store.scan(b"*merchant_profile/p/*"))
    assert 1 == len(list(stand.store.scan(b"*pair_limits/p/*")))


def test_the_whole_repo_can_be_materialized(applied_repo: Path, redis_url: str, tmp_path: Path) -> None:
    """With our engine: plain views are written, windowed ones left to their stream, and no definition changes."""
    repo = tmp_path / "feature_repo"
    shutil.copytree(applied_repo, repo)
    with (repo / "feature_store.yaml").open("a") as file:
        file.write(f"  connection_string: {redis_url}\n")
    write_profiles(repo, [profile(1, NOW - HOUR)])
    pd.DataFrame([{"pair_limit": 9.5, "card_id": "c-1", "merchant_id": 5, "set_at": NOW - HOUR}]).to_parquet(
        repo / "data" / "limits.parquet"
    )
    alert = {"alert_count": 1, "alert_level": 1, "alert_score": 0.5, "alert_reasons": ["a"], "alert_token": b"t"}
    alert |= {"alert_codes": [7], "alert_scores": [0.5]}
    pd.DataFrame([{"merchant_id": 1, **alert, "alert_seen_at": NOW, "raised_at": NOW - HOUR}]).to_parquet(
        repo / "data" / "alerts.parquet"
    )
    store = connect(redis_url)
    stand = stand_on(repo, store)
    stand.feast.materialize(NOW - timedelta(days=1), NOW)
    asked = ["merchant_profile:home_market", "pair_limits:pair_limit", "merchant_alerts:alert_count"]
    answer = stand.cells([*asked, "card_activity:card_count_1d"], [{"card_id": "c-1", "merchant_id": 1}])

    assert ["SE", None, 1, None] == [answer[name.partition(":")[2]][0][0] for name in (*asked, ":card_count_1d")]
    after = read_compilation(repo / "data" / "registry.db").spec
    assert [definition_hash(view) for view in stand.spec.views] == [definition_hash(view) for view in after.views]
    store.close()
