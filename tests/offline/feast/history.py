"""The payments example with a past, behind the stock Feast SDK: what the tests of the offline store share."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from featurestore.core.spec import RepoSpec, SourceSpec, ViewSpec
from featurestore.definitions.registry import read_registry
from featurestore.definitions.repo import apply_repo, load_repo
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.schema import log_schema, payload_columns, rows_of
from featurestore.offline.event_log.writer import LogWriter, PartitionRows, prepare_log
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.writers import open_writer
from featurestore.wire.entity_key import encode_key
from featurestore.wire.payloads import EventDecoder, RawBatch

from feast import FeatureStore  # isort: skip  # after featurestore.definitions, which makes its import fast

PROJECT = "payments"
PROJECT_ROOT = Path(__file__).resolve().parents[3]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp()) * 1_000
DAY = timedelta(days=1)
DAY_MS = 86_400_000
STORE_TYPE = "featurestore.feast.PointInTimeOfflineStore"
OTHER_TYPE = "tests.offline.feast.other_system.OtherOfflineStore"
MORE = """
from card_views import card_activity
from entities import card, merchant
from feast import FeatureService, FeatureView, Field, FileSource
from feast.data_format import DeltaFormat
from feast.types import Int64
from merchant_views import merchant_profile

from featurestore.definitions.authoring import aggregate, count, kafka_source, stream_view

two_cards = FeatureService(
    name="two_cards",
    features=[
        card_activity[["card_count_1d"]].with_name("mine"),
        card_activity[["card_count_1d"]].with_name("other").with_join_key_map({"card_id": "other_card"}),
        merchant_profile.with_name("profile"),
        merchant_profile.with_name("shop_profile").with_join_key_map({"merchant_id": "shop"}),
    ],
)
merchant_tiers = FeatureView(
    name="merchant_tiers",
    entities=[merchant],
    online=False,
    schema=[Field(name="tier", dtype=Int64)],
    source=FileSource(
        name="tiers_table", path="data/tiers", timestamp_field="since", field_mapping={"level": "tier"}
    ),
)
spending = kafka_source(
    name="spending",
    topic="transactions",
    columns={"transaction_id": "string", "event_time": "timestamp", "card_id": "string", "amount": "bigint"},
    event_time="event_time",
    event_id="transaction_id",
    dedup_horizon="1h",
    history=FileSource(
        name="spending_elsewhere",
        path="data/spending",
        timestamp_field="happened_at",
        field_mapping={"cents": "amount"},
        file_format=DeltaFormat(),
    ),
)
card_totals = stream_view(
    name="card_totals",
    entities=[card],
    source=spending,
    features=[*count(over="1d"), *aggregate("amount", "sum", over="1d")],
)
before_payment = FeatureService(
    name="before_payment",
    features=[card_activity[["card_count_1d", "card_amount_mean_30d"]]],
    tags={"in_flight": "false"},
)
merchant_ranks = FeatureView(
    name="merchant_ranks",
    entities=[merchant],
    schema=[Field(name="rank", dtype=Int64)],
    source=FileSource(
        name="ranks_elsewhere",
        path="data/ranks",
        timestamp_field="ranked_at",
        created_timestamp_column="written_at",
        field_mapping={"place": "rank"},
        file_format=DeltaFormat(),
    ),
)
"""
PROFILE_TYPES = {"onboarded_days": "Int64", "is_online_only": "boolean"}


@dataclass(frozen=True)
class Past:
    """An applied repo whose data directory holds an event log and tables.

    Attributes:
        repo: its directory.
        spec: its definitions.
        payments: the events in order of arrival.
    """

    repo: Path
    spec: RepoSpec
    payments: Sequence[dict[str, Any]]

    def feast(self, **settings: Any) -> FeatureStore:
        """The SDK, with other settings of the offline store."""
        feast = FeatureStore(repo_path=str(self.repo))
        feast.config.offline_config = {"type": STORE_TYPE, **settings}
        return feast

    def view(self, name: str) -> ViewSpec:
        """A stream view's definition."""
        view = self.spec.view(name)
        assert view is not None
        return view

    def events_of(self, view: ViewSpec, keys: Sequence[Any]) -> list[NaiveEvent]:
        """An entity's events, for the oracle."""
        names = [key.name for key in view.join_keys]
        return naive_events([row for row in self.payments if [row[name] for name in names] == list(keys)])

    def check(self, view_name: str, frame: pd.DataFrame, prefix: str = "", **renamed: str) -> int:
        """Compare all features of a stream view in a training set with the oracle; the number of values compared."""
        view, compared = self.view(view_name), 0
        times = pd.to_datetime(frame["event_timestamp"], utc=True)
        for row in range(len(frame)):
            keys = [frame[renamed.get(key.name, key.name)].iloc[row] for key in view.join_keys]
            keys = [None if key is None or key != key else key if isinstance(key, str) else int(key) for key in keys]
            as_of_ms, events = times.iloc[row].value // 1_000_000, self.events_of(view, keys)
            for feature in view.features:
                if prefix + feature.name not in frame.columns:
                    continue
                actual = plain(frame[prefix + feature.name].iloc[row])
                expected = None if None in keys else naive_value(feature, events, as_of_ms)
                scale = magnitude(feature, events, as_of_ms)
                assert agrees(expected, actual, scale=scale), (feature.name, row, expected, actual)
                compared += 1
        return compared


def make_past(directory: Path) -> Past:
    """Copy the example and what a team adds to it, apply it, and write its past."""
    repo = directory / "feature_repo"
    shutil.copytree(PROJECT_ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
    shutil.copy(PROJECT_ROOT / "tests" / "online" / "feast" / "extras" / "extras.py", repo)
    (repo / "more.py").write_text(MORE)
    settings = yaml.safe_load((repo / "feature_store.yaml").read_text())
    settings["offline_store"] = {"type": STORE_TYPE}
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    apply_repo(load_repo(repo, PROJECT))
    spec = read_registry(repo / "data" / "registry.db")
    payments = make_payments(600)
    view = spec.view("card_activity")
    assert view is not None
    write_log(repo / "data" / "event_log" / "transactions", view.source, payments)
    pq.write_table(payments_table(view.source, payments), repo / "data" / "transactions.parquet")
    write_tables(repo / "data")
    write_elsewhere(repo / "data", payments_table(view.source, payments))
    return Past(repo, spec, payments)


def make_payments(count: int) -> list[dict[str, Any]]:
    """Payments of 60 days up to noon and a day after it, out of order, with nulls, ties and a producer's repeats."""
    draw = random.Random(7)
    rows = []
    for number in range(count):
        back_ms = draw.choice((1_000, 60_000, 3_600_000, DAY_MS, 60 * DAY_MS))
        rows.append(
            {
                "transaction_id": f"t-{number}",
                "event_time": NOON_MS + draw.randrange(-back_ms, DAY_MS // 100),
                "card_id": f"c-{draw.randrange(6)}",
                "merchant_id": draw.randrange(4),
                "terminal_id": draw.randrange(5),
                "market": draw.choice(("SE", "DE", None)),
                "currency": "EUR",
                "amount": None if draw.random() < 0.1 else draw.randrange(-500, 90_000),
                "is_declined": draw.choice((True, False, None)),
                "is_refund": draw.random() < 0.1,
                "is_card_present": draw.random() < 0.5,
                "merchant_category": draw.choice(("food", "fuel", None)),
            }
        )
    rows[1]["event_time"] = rows[2]["event_time"] = NOON_MS
    for number in range(0, count, 50):
        rows.insert(number + 2, dict(rows[number]))
    return rows


def payments_table(source: SourceSpec, payments: Sequence[dict[str, Any]]) -> pa.Table:
    """Payments as a Parquet file has them."""
    return pa.table(
        {
            column.name: pa.array([row[column.name] for row in payments], type=ARROW_TYPES[column.type])
            for column in source.columns
            if column.name not in source.enriched
        }
    )


def write_log(root: Path, source: SourceSpec, payments: Sequence[dict[str, Any]], *, ingest_time_ms: int = 1) -> None:
    """Payments as an event log has them."""
    payloads = [json.dumps(row).encode() for row in payments]
    raw = RawBatch(source.topic, 0, 0, len(payloads), np.arange(len(payloads), dtype=np.int64), payloads)
    as_json = replace(source, format="json", schema_registry="")
    decoded = EventDecoder(as_json, payload_columns(source)).decode(raw, now_ms=NOON_MS + 400 * DAY_MS)
    log, schema, place = place_of(root), log_schema(source), (source.topic, 0)
    prepare_log(log, schema, {place: ""})
    writer = LogWriter(log, schema)
    writer.claim([place])
    rows = rows_of(decoded.events, schema, ingest_time_ms=ingest_time_ms)
    writer.commit({place: [PartitionRows(0, len(payloads), rows)]})


def write_tables(data: Path) -> None:
    """Profiles that change, limits of pairs, alerts of every type."""
    profiles = pd.DataFrame(
        [
            profile(0, NOON - 20 * DAY, home_market="old", onboarded_days=280),
            profile(0, NOON - DAY, home_market="SE"),
            profile(0, NOON, home_market="noon", onboarded_days=None),
            profile(0, NOON + DAY, home_market="future"),
            profile(1, NOON - 8 * DAY, home_market="stale"),
            profile(2, NOON - DAY, home_market=None),
        ]
    ).astype(PROFILE_TYPES)
    profiles.to_parquet(data / "merchants.parquet")
    pd.DataFrame(
        [{"pair_limit": 9.5, "card_id": "c-1", "merchant_id": 0, "set_at": NOON - DAY}],
    ).to_parquet(data / "limits.parquet")
    table = pa.table(
        {
            "merchant_id": pa.array([0], pa.int64()),
            "alert_count": pa.array([1], pa.int64()),
            "alert_level": pa.array([-2], pa.int32()),
            "alert_score": pa.array([0.5], pa.float32()),
            "alert_reasons": pa.array([["velocity", "new device"]], pa.list_(pa.string())),
            "alert_codes": pa.array([[7, -(2**63)]], pa.list_(pa.int64())),
            "alert_scores": pa.array([[0.5]], pa.list_(pa.float32())),
            "alert_token": pa.array([b"\x00\xff"], pa.binary()),
            "alert_seen_at": pa.array([NOON - DAY], pa.timestamp("us", tz="UTC")),
            "raised_at": pa.array([NOON - DAY], pa.timestamp("us", tz="UTC")),
        }
    )
    pq.write_table(table, data / "alerts.parquet")


def write_elsewhere(data: Path, payments: pa.Table) -> None:
    """What another system keeps, under names of its own."""
    for name, table in {
        "spending": payments.select(["transaction_id", "event_time", "card_id", "amount"]).rename_columns(
            ["transaction_id", "happened_at", "card_id", "cents"]
        ),
        "ranks": pa.table(
            {
                "merchant_id": [0, 0, 0, 0],
                "place": [1, 3, 2, 9],
                "ranked_at": pa.array([NOON - DAY, NOON, NOON, NOON + DAY], pa.timestamp("us", tz="UTC")),
                "written_at": pa.array([NOON, NOON, NOON + DAY, NOON], pa.timestamp("us", tz="UTC")),
            }
        ),
        "tiers": pa.table(
            {"merchant_id": [0], "level": [1], "since": pa.array([NOON - DAY], pa.timestamp("us", tz="UTC"))}
        ),
    }.items():
        (data / name).mkdir()
        pq.write_table(table, data / name / "part-0.parquet")


def profile(merchant_id: int, updated_at: datetime, **values: Any) -> dict[str, Any]:
    """A row of the merchant table."""
    row: dict[str, Any] = {
        "merchant_category": "food",
        "home_market": "SE",
        "is_online_only": False,
        "onboarded_days": 300,
        "chargeback_share": 0.25,
    }
    return {"merchant_id": merchant_id, **row, **values, "updated_at": updated_at}


def stream_payments(store_url: str, view: ViewSpec, payments: Sequence[dict[str, Any]]) -> None:
    """Feed payments to a view's tiles, a standing clock at noon."""
    store = connect(store_url)
    catalog = GenerationCatalog(store, PROJECT)
    lanes = catalog.lane_count(4)
    writer = open_writer(store, catalog.register(view), lanes, ManualClock(now_ms=NOON_MS))
    writer.write([keyed_batch(writer.generation.view, naive_events(payments, view), lane_count=lanes)])
    store.close()


def naive_events(payments: Sequence[dict[str, Any]], view: ViewSpec | None = None) -> list[NaiveEvent]:
    """Payments as the oracle takes them; without a view they are one entity's, whatever its key."""
    keys = [] if view is None else [key.name for key in view.join_keys]
    return [
        NaiveEvent(
            encode_key([row[key] for key in keys] or ["any"]),
            row["event_time"],
            row["transaction_id"].encode(),
            dict(row),
        )
        for row in payments
    ]


def labels() -> pd.DataFrame:
    """Label rows in no order, with a null key, an unknown one, and moments that are exactly an event's."""
    draw = random.Random(3)
    times = [NOON + timedelta(milliseconds=draw.randrange(-3 * DAY_MS, 1_000)) for _ in range(9)]
    return pd.DataFrame(
        {
            "note": [f"row {number}" for number in range(12)],
            "card_id": [*(f"c-{number % 6}" for number in range(10)), None, "nobody"],
            "event_timestamp": [*times, NOON, NOON, NOON + timedelta(milliseconds=1)],
            "merchant_id": [number % 4 for number in range(12)],
            "terminal_id": [number % 5 for number in range(12)],
        },
        index=[f"i-{number}" for number in range(12)],
    )


def plain(value: Any) -> Any:
    """A cell of a data frame as a Python value; times are milliseconds."""
    if isinstance(value, np.ndarray):
        return value.tolist()  # within a list of numbers, NaN stands for null
    if isinstance(value, list):
        return dict(value)
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.value // 1_000_000
    return value.item() if isinstance(value, np.generic) else value
