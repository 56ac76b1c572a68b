"""Training sets through the stock Feast SDK: windowed, plain and on-demand views in one call."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.core.spec import ValueType
from featurestore.errors import DeadlineSpent, InvalidRequest, UnknownJoinKey
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import EventLogHistory
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import naive_value
from tests.offline.feast.history import DAY, DAY_MS, NOON, NOON_MS, Past, labels, make_past, plain, stream_payments

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """The example with an event log."""
    return make_past(tmp_path_factory.mktemp("past"))


def test_a_service_of_windowed_and_plain_views_equals_the_oracle(past: Past) -> None:
    """All 91 features of the example for rows in any order; rows, order, columns and index stay."""
    feast, given = past.feast(), labels()
    found = feast.get_historical_features(given, features=feast.get_feature_service("fraud_detection")).to_df()

    assert list(given.index) == list(found.index)
    pd.testing.assert_frame_equal(given, found[list(given.columns)], check_dtype=False)
    compared = sum(past.check(name, found) for name in ("card_activity", "merchant_activity", "terminal_activity"))
    assert 12 * (91 - 5) == compared


def test_rows_that_say_that_they_are_events_count_their_own(past: Past) -> None:
    """As `featurestore history --include-event` does, in one call beside plain views; without the column, not."""
    feast = past.feast()
    given = labels().assign(
        event_time=lambda rows: rows["event_timestamp"],
        amount=70,
        market="SE",
        merchant_category="grocery",
        is_declined=False,
        is_refund=False,
        is_card_present=True,
        include_event="transactions",
    )
    service = feast.get_feature_service("fraud_detection")
    found = feast.get_historical_features(given, features=service, full_feature_names=True).to_df()
    without = feast.get_historical_features(
        given.drop(columns="include_event"), features=service, full_feature_names=True
    ).to_df()

    expected = build_training_set(
        past.spec,
        "fraud_detection",
        given,
        history=EventLogHistory(str(past.repo / "data" / "event_log")),
        event_sources=["transactions"],
        full_names=True,
        repo_path=past.repo,
    ).to_pandas()
    assert len(given.columns) + 91 == len(found.columns)
    for name in expected.columns[len(given.columns) :]:
        assert list(map(plain, expected[name])) == list(map(plain, found[name])), name
    own = found["card_activity__card_amount_sum_lifetime"] - without["card_activity__card_amount_sum_lifetime"]
    assert [70] * 10 == own[given["card_id"].notna()].tolist()[:10]


def test_rows_count_their_events_as_the_service_that_they_name_has_it(past: Past) -> None:
    """As `featurestore history` of that service: not at all here, where nobody said otherwise of a feature."""
    feast = past.feast()
    given = labels().assign(event_time=lambda rows: rows["event_timestamp"], amount=70, include_event="transactions")
    service = feast.get_feature_service("before_payment")
    without = feast.get_historical_features(given.drop(columns="include_event"), features=service).to_df()
    found = feast.get_historical_features(given.assign(include_event_for="before_payment"), features=service).to_df()
    unnamed = feast.get_historical_features(given, features=service).to_df()

    expected = build_training_set(
        past.spec,
        "before_payment",
        given,
        history=EventLogHistory(str(past.repo / "data" / "event_log")),
        event_sources=["transactions"],
    ).to_pandas()
    for name in ("card_count_1d", "card_amount_mean_30d"):
        mine = list(map(plain, found[name]))
        assert list(map(plain, expected[name])) == mine == list(map(plain, without[name])), name
    own = unnamed["card_count_1d"] - found["card_count_1d"]
    assert {1} == set(own[given["card_id"].notna()])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"include_event_for": "before_paymint"}, '"before_paymint" is not registered'),
        ({"include_event_for": [None, "before_payment"]}, 'column "include_event_for" names None, before_payment'),
        ({"include_event_for": "before_payment", "include_event": None}, 'a column "include_event_for", and none'),
    ],
)
def test_a_service_that_rows_cannot_mean_is_refused(past: Past, change: dict[str, Any], message: str) -> None:
    """One that is not registered, several of them, one for rows that are no events."""
    given = labels().head(2).assign(include_event="transactions", amount=70).assign(**change)
    given = given if change.get("include_event", "") is not None else given.drop(columns="include_event")

    with pytest.raises(InvalidRequest, match=message):
        past.feast().get_historical_features(given, features=["card_activity:card_count_1d"]).to_df()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["transactions", None], 'column "include_event" names transactions, None'),
        (["transaction"] * 2, 'events of source "transaction"'),
        (["transactions"] * 2, 'no column "amount", which events of source "transactions" have'),
    ],
)
def test_rows_that_are_no_events_are_refused(past: Past, said: list[str | None], message: str) -> None:
    """Some of them, those of an unknown source, those without the event's columns."""
    given = labels().head(2).assign(include_event=said)

    with pytest.raises(InvalidRequest, match=message):
        past.feast().get_historical_features(given, features=["card_activity:card_amount_sum_1d"]).to_df()


def test_plain_views_are_joined_by_feasts_rule(past: Past) -> None:
    """A row of the very label time counts, one older than the ttl does not; integers with nulls stay integers."""
    feast = past.feast()
    moments = [NOON - 2 * DAY, NOON - DAY / 2, NOON, NOON, NOON, NOON]
    given = pd.DataFrame({"merchant_id": [0, 0, 0, 1, 2, 3], "event_timestamp": moments})
    features = [f"merchant_profile:{name}" for name in ("home_market", "onboarded_days", "is_online_only")]
    found = feast.get_historical_features(given, features=features).to_arrow()

    assert [None, "SE", "noon", None, None, None] == found["home_market"].to_pylist()
    assert [None, 300, None, None, 300, None] == found["onboarded_days"].to_pylist()
    assert pa.int64() == found["onboarded_days"].type
    assert [None, False, False, None, False, None] == found["is_online_only"].to_pylist()


def test_plain_views_have_the_values_of_feasts_own_store(past: Past) -> None:
    """Both stores asked at moments before, at and after every row of the table, and a ttl later."""
    ours, stock = past.feast(), past.feast()
    stock.config.offline_config = {"type": "file"}
    around = [timedelta(microseconds=step) for step in (-1, 0, 1)]
    moments = [NOON + days * DAY + step for days in (-20, -13, -8, -1, 0, 1, 6, 7, 8) for step in around]
    given = pd.DataFrame([{"merchant_id": n, "event_timestamp": when} for when in moments for n in range(4)])
    features = [f"merchant_profile:{name}" for name in ("home_market", "onboarded_days", "chargeback_share")]
    found, theirs = (
        feast.get_historical_features(given, features=features).to_df().set_index(["event_timestamp", "merchant_id"])
        for feast in (ours, stock)
    )

    assert len(given) == len(found) > len(theirs) > 20  # Feast's store loses rows that nothing is known of
    for name in ("home_market", "onboarded_days", "chargeback_share"):
        kept = found.loc[theirs.index, name]
        assert [None if pd.isna(one) else one for one in theirs[name]] == list(map(plain, kept)), name
    assert found.drop(theirs.index).isna().all(axis=None)


def test_plain_features_of_types_that_only_feast_knows_come_as_the_table_has_them(past: Past) -> None:
    """Bytes, 32-bit numbers, lists of them."""
    feast = past.feast()
    given = pd.DataFrame({"merchant_id": [0, 1], "event_timestamp": [NOON, NOON]})
    names = [field.name for field in feast.get_feature_view("merchant_alerts").features]
    found = feast.get_historical_features(given, features=[f"merchant_alerts:{name}" for name in names]).to_arrow()
    row = found.to_pylist()

    assert set(names) < set(found.column_names)
    assert dict.fromkeys(names) == {name: row[1][name] for name in names}
    assert (1, -2, 0.5, b"\x00\xff") == tuple(row[0][f"alert_{name}"] for name in ("count", "level", "score", "token"))
    assert ([7, -(2**63)], [0.5], ["velocity", "new device"], NOON - DAY) == tuple(
        row[0][f"alert_{name}"] for name in ("codes", "scores", "reasons", "seen_at")
    )


def test_on_demand_views_compute_on_the_answers(past: Past) -> None:
    """With a windowed view, a plain one and a column of the labels behind them; also under full names."""
    feast, given = past.feast(), labels().assign(payment_amount=500)
    service = feast.get_feature_service("fraud_with_oddity")
    found = feast.get_historical_features(given, features=service).to_df()
    full = feast.get_historical_features(given, features=service, full_feature_names=True).to_df()
    means = [plain(mean) for mean in found["card_amount_mean_1d"]]

    assert any(mean for mean in means)
    assert [500 / mean if mean else None for mean in means] == [plain(times) for times in found["times_usual"]]
    assert [share or 0.0 for share in map(plain, found["chargeback_share"])] == list(found["merchant_risk"])
    # Feast asks for all that an on-demand view may read, and its stores answer it: so do we.
    assert 12 * len(past.view("card_activity").features) == past.check("card_activity", full, "card_activity__")
    assert list(found["merchant_risk"]) == list(full["payment_oddity__merchant_risk"])


def test_lists_and_maps_come_as_such(past: Past) -> None:
    """Series, last_n, keyed aggregations."""
    feast = past.feast()
    view = past.view("card_habits")
    found = feast.get_historical_features(
        labels(), features=[f"card_habits:{feature.name}" for feature in view.features]
    ).to_df()

    assert 12 * len(view.features) == past.check("card_habits", found)


def test_one_view_may_be_asked_for_two_entities_of_a_row(past: Past) -> None:
    """Aliases, one of them with another join key; names say which is which."""
    feast, given = past.feast(), labels()
    given["other_card"] = given["card_id"].iloc[::-1].to_numpy()
    given["shop"] = 3 - given["merchant_id"]
    service = feast.get_feature_service("two_cards")
    found = feast.get_historical_features(given, features=service, full_feature_names=True).to_df()

    assert 12 == past.check("card_activity", found, "mine__")
    assert 12 == past.check("card_activity", found, "other__", card_id="other_card")
    alone = feast.get_historical_features(
        given[["shop", "event_timestamp"]].rename(columns={"shop": "merchant_id"}),
        features=["merchant_profile:home_market"],
    ).to_df()
    assert list(map(plain, alone["home_market"])) == list(map(plain, found["shop_profile__home_market"]))
    assert list(map(plain, alone["home_market"])) != list(map(plain, found["profile__home_market"]))


def test_label_times_are_understood_or_refused(past: Past) -> None:
    """Naive is UTC, zones are kept, texts and dates are read; integers that look like seconds are refused."""
    feast, features = past.feast(), ["card_activity:card_count_1d"]
    tokyo = pd.Timestamp(NOON).tz_convert("Asia/Tokyo")
    ways = [NOON.replace(tzinfo=None), NOON, tokyo, NOON.isoformat(), NOON_MS]
    answers = [
        feast.get_historical_features(
            pd.DataFrame({"card_id": ["c-1"], "event_timestamp": [when]}), features=features
        ).to_df()
        for when in ways
    ]
    midnight = pd.DataFrame({"card_id": ["c-1"], "event_timestamp": [NOON.date()]})
    at_midnight = feast.get_historical_features(midnight, features=features).to_df()
    other_name = pd.DataFrame({"card_id": ["c-1"], "labelled_at": [NOON]})

    (count,) = [feature for feature in past.view("card_activity").features if feature.name == "card_count_1d"]
    events = past.events_of(past.view("card_activity"), ["c-1"])
    assert [naive_value(count, events, NOON_MS)] * 5 == [frame["card_count_1d"].iloc[0] for frame in answers]
    assert naive_value(count, events, NOON_MS - DAY_MS // 2) == at_midnight["card_count_1d"].iloc[0]
    found = feast.get_historical_features(other_name, features=features).to_df()
    assert naive_value(count, events, NOON_MS) == found["card_count_1d"].iloc[0]
    with pytest.raises(InvalidRequest, match="look like seconds"):
        feast.get_historical_features(
            pd.DataFrame({"card_id": ["c-1"], "event_timestamp": [NOON_MS // 1_000]}), features=features
        )


def test_requests_that_cannot_be_answered_say_why(past: Past) -> None:
    """Before anything is computed."""
    feast, features = past.feast(), ["card_activity:card_count_1d"]

    def ask(given: Any, **options: Any) -> Any:
        return feast.get_historical_features(given, features=features, **options)

    with pytest.raises(UnknownJoinKey, match='no column "card_id"'):
        ask(pd.DataFrame({"card": ["c-1"], "event_timestamp": [NOON]}))
    with pytest.raises(InvalidRequest, match='no column "event_timestamp", and 0 columns of timestamps'):
        ask(pd.DataFrame({"card_id": ["c-1"]}))
    with pytest.raises(InvalidRequest, match='feature "card_count_1d" has the name of a column'):
        ask(pd.DataFrame({"card_id": ["c-1"], "event_timestamp": [NOON], "card_count_1d": [1]}))
    with pytest.raises(InvalidRequest, match="mixes types"):
        ask(pd.DataFrame({"card_id": ["c-1", 5], "event_timestamp": [NOON, NOON]}))
    with pytest.raises(InvalidRequest, match="is a list"):
        ask([{"card_id": "c-1"}])
    with pytest.raises(NotImplementedError, match="filter_by_created_timestamp"):
        ask(labels(), filter_by_created_timestamp=True)
    with pytest.raises(DeadlineSpent, match="not ready in time"):
        ask(labels()).to_df(timeout=0)
    with pytest.raises(NotImplementedError, match="not computed by SQL"):
        ask(labels()).to_sql()


def test_no_rows_give_no_rows(past: Past) -> None:
    """With all columns, typed."""
    feast = past.feast()
    found = feast.get_historical_features(labels().iloc[:0], features=feast.get_feature_service("fraud_detection"))

    assert (0, 91 + 5) == found.to_df().shape


def test_entities_can_be_sql(past: Past) -> None:
    """DuckDB's, over the event log, registered files and files beside the repo's."""
    feast = past.feast()
    sql = """
        SELECT card_id, merchant_id, event_time AS event_timestamp, m.home_market AS market_now
        FROM transactions JOIN merchant_table m USING (merchant_id)
        WHERE m.updated_at = TIMESTAMPTZ '2026-02-28 12:00:00+00' AND event_time > TIMESTAMPTZ '2026-02-28 12:00:00+00'
        ORDER BY event_time, transaction_id LIMIT 20
    """
    found = feast.get_historical_features(sql, features=["card_activity:card_count_1d"]).to_df()
    merchants = "SELECT merchant_id, updated_at AS event_timestamp FROM read_parquet('data/merchants.parquet')"
    joined = feast.get_historical_features(merchants, features=["merchant_profile:chargeback_share"]).to_df()

    assert 20 == len(found) == past.check("card_activity", found)
    assert {"SE", None} == set(map(plain, found["market_now"]))
    assert [0.25] * 6 == list(joined["chargeback_share"])
    with pytest.raises(InvalidRequest, match="SQL of entity_df cannot be run"):
        feast.get_historical_features("SELECT * FROM nowhere", features=["card_activity:card_count_1d"])


def test_a_span_of_time_gives_all_entities_at_its_end(past: Past) -> None:
    """Each card with an event in [start, end), at the end; views about different entities are refused."""
    feast = past.feast()
    begin = NOON - DAY / 2
    found = feast.get_historical_features(
        features=["card_activity:card_count_1d"], start_date=begin, end_date=NOON
    ).to_df()
    known = {row["card_id"] for row in past.payments if NOON_MS - DAY_MS // 2 <= row["event_time"] < NOON_MS}
    shops = feast.get_historical_features(
        features=["merchant_profile:home_market"], start_date=NOON - 9 * DAY, end_date=NOON
    ).to_df()

    assert sorted(known) == list(found["card_id"])
    assert len(known) == past.check("card_activity", found)
    assert [(0, "noon"), (1, None), (2, None)] == list(
        zip(shops["merchant_id"], map(plain, shops["home_market"]), strict=True)
    )
    before = NOON - 900 * DAY
    nobody = feast.get_historical_features(
        features=["card_activity:card_count_1d"], start_date=before, end_date=before + DAY
    ).to_df()
    assert (0, 3) == nobody.shape
    with pytest.raises(InvalidRequest, match="is about merchant_id"):
        feast.get_historical_features(
            features=["card_activity:card_count_1d", "merchant_profile:home_market"], start_date=begin, end_date=NOON
        )


def test_the_past_says_what_online_said_at_that_moment(
    past: Past, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's two halves, on the same events: what a model is trained with is what it would have been told."""
    monkeypatch.setenv("FEATURESTORE_STORE_URL", redis_url)
    feast, view = past.feast(), past.view("card_activity")
    cards = [f"c-{number}" for number in range(6)]
    stream_payments(redis_url, view, [row for row in past.payments if row["event_time"] < NOON_MS])
    provider: Any = feast._get_provider()
    provider.online_store.clock = ManualClock(now_ms=NOON_MS)
    features = [f"card_activity:{feature.name}" for feature in view.features]
    online = feast.get_online_features(features, [{"card_id": card} for card in cards]).to_dict()
    given = pd.DataFrame({"card_id": cards, "event_timestamp": [NOON] * 6})
    found = feast.get_historical_features(given, features=features).to_df()

    for feature in view.features:
        scale = 1_000 if feature.type is ValueType.TIMESTAMP else 1
        for told, trained in zip(online[feature.name], map(plain, found[feature.name]), strict=True):
            told = told if not isinstance(told, datetime) else int(told.timestamp())
            trained = trained // scale if scale > 1 and trained is not None else trained
            assert trained == pytest.approx(told, rel=1e-9) if isinstance(told, float) else trained == told, (
                feature.name
            )


def test_a_training_set_keeps_integers_beside_nulls(past: Past) -> None:
    """Plain features, windowed ones, and the label rows' own columns, which come back as they were given."""
    big = 2**53 + 1
    feast = past.feast()
    tiers = pa.table(
        {"merchant_id": [1], "level": [big], "since": pa.array([NOON - DAY], pa.timestamp("us", tz="UTC"))}
    )
    pq.write_table(tiers, past.repo / "data" / "tiers" / "big.parquet")
    given = pd.DataFrame(
        {
            "merchant_id": [1, 3],
            "card_id": ["c-1", "nobody"],
            "event_timestamp": [NOON, NOON],
            "case": pd.Series([big, None], dtype="object"),
        }
    )
    asked = ["merchant_tiers:tier", "card_activity:card_amount_max_90d"]
    job = feast.get_historical_features(given, features=asked)
    frame, table = job.to_df(), job.to_arrow()
    (past.repo / "data" / "tiers" / "big.parquet").unlink()

    assert [big, None] == [None if pd.isna(value) else value for value in frame["tier"]]
    assert [big, None] == [None if pd.isna(value) else value for value in frame["case"]]
    for name in ("tier", "case", "card_amount_max_90d"):
        assert table[name].to_pylist() == [None if pd.isna(value) else value for value in frame[name]]
        assert "Int64" == str(frame[name].dtype)


def test_a_tensor_has_exact_integers_or_none(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nulls make floats of integers, one that is no float is refused; with a whole default none is made."""
    torch = ModuleType("torch")  # what Feast asks of it; the package itself is larger than all others together
    monkeypatch.setattr(torch, "tensor", lambda values, device: values, raising=False)
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: False), raising=False)
    monkeypatch.setattr("feast.infra.offline_stores.offline_store.get_torch", lambda: torch)
    given = pd.DataFrame({"merchant_id": [0, 3], "event_timestamp": [NOON, NOON], "case": [2**53 + 1, 4]})
    job = past.feast().get_historical_features(given, features=["merchant_tiers:tier"])
    big = past.feast().get_historical_features(
        given.assign(case=pd.Series([2**53 + 1, None], dtype="object")), features=["merchant_tiers:tier"]
    )

    assert [1.0, True] == [job.to_tensor()["tier"][0], math.isnan(job.to_tensor()["tier"][1])]
    assert [2**53 + 1, 4] == job.to_tensor()["case"]
    assert [2**53 + 1, -1] == big.to_tensor(default_value=-1)["case"]
    with pytest.raises(InvalidRequest, match='"case" has integers beside nulls that are no floats'):
        big.to_tensor()


def test_history_tells_rows_without_a_join_key(past: Past, caplog: pytest.LogCaptureFixture) -> None:
    """They are skipped, as materialize and push skip them, and counted."""
    since = pa.array([NOON - DAY] * 3, pa.timestamp("us", tz="UTC"))
    tiers = pa.table({"merchant_id": pa.array([None, 7, None], pa.int64()), "level": [1, 2, 3], "since": since})
    pq.write_table(tiers, past.repo / "data" / "tiers" / "nobody.parquet")
    given = pd.DataFrame({"merchant_id": [7, 8], "event_timestamp": [NOON, NOON]})
    found = past.feast().get_historical_features(given, features=["merchant_tiers:tier"]).to_arrow()
    (past.repo / "data" / "tiers" / "nobody.parquet").unlink()

    assert [2, None] == found["tier"].to_pylist()
    assert ['feature view "merchant_tiers": 2 rows without join key "merchant_id" are skipped'] == [
        record.getMessage() for record in caplog.records if record.levelname == "WARNING"
    ]


def test_request_features_are_those_of_a_training_set(past: Past) -> None:
    """The SDK runs the function that was registered over the answers; `featurestore history` computes the SQL."""
    feast = past.feast()
    given = labels().assign(paid_amount=[float(row) for row in range(len(labels()))], paid_in="DE")
    found = feast.get_historical_features(given, features=feast.get_feature_service("fraud_with_checks")).to_df()
    history = EventLogHistory(str(past.repo / "data" / "event_log"))
    table = build_training_set(
        past.spec, "fraud_with_checks", pa.Table.from_pandas(given), history=history, repo_path=past.repo
    )

    names = ["card_count_1h", "amount_ratio", "is_abroad", "count_or_days", "route"]
    assert table.column_names[-5:] == names
    for name in names:
        assert [plain(value) for value in found[name]] == table.column(name).to_pylist(), name
    assert any(value is not None for value in table.column("amount_ratio").to_pylist())
    assert any(table.column("is_abroad").to_pylist())
