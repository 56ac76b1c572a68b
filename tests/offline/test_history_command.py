"""`featurestore history`, as typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.cli.main import main
from tests.offline.label_tables import NOON_MS

REPO = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Int64, String

from featurestore.definitions.authoring import aggregate, count, kafka_source, stream_view

card = Entity(name="card", join_keys=["card"], value_type=ValueType.STRING)
payments = kafka_source(
    name="payments",
    topic="payments",
    columns={"payment_id": "string", "paid_at": "timestamp", "card": "string", "amount": "bigint"},
    event_time="paid_at",
    event_id="payment_id",
)
activity = stream_view(
    name="activity",
    entities=[card],
    source=payments,
    features=[*count(over="1h"), *aggregate("amount", "sum", over="1h")],
)
scoring = FeatureService(name="scoring", features=[activity])
profile = FeatureView(
    name="profile",
    entities=[card],
    ttl=timedelta(days=30),
    schema=[Field(name="tier", dtype=String), Field(name="credit_line", dtype=Int64)],
    source=FileSource(
        name="profiles",
        path="data/profiles.parquet",
        timestamp_field="since",
        created_timestamp_column="written",
        field_mapping={"level": "tier"},
    ),
)
with_profile = FeatureService(name="with_profile", features=[activity, profile])
"""

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registered repo of a stream view and a materialized one, whose table lies in the repo."""
    directory = tmp_path_factory.mktemp("repo")
    (directory / "definitions.py").write_text(REPO)
    (directory / "data").mkdir()
    pq.write_table(profiles(NOON_MS, ["gold", "silver"], [9, 8]), directory / "data" / "profiles.parquet")
    (directory / "feature_store.yaml").write_text(
        "project: payments\nprovider: local\nregistry: data/registry.db\n"
        "offline_store:\n  type: file\nonline_store:\n  type: sqlite\n  path: data/online.db\n"
        "entity_key_serialization_version: 3\n"
    )
    subprocess.run([sys.executable, "-m", "featurestore.cli", "apply", "--repo", str(directory)], check=True)
    return directory


def profiles(since_ms: int, levels: list[str], lines: list[int]) -> pa.Table:
    """Profiles of card 007 since one moment, each written a second after the one before."""
    count = len(levels)
    return pa.table(
        {
            "card": ["007"] * count,
            "level": levels,
            "credit_line": lines,
            "since": pa.array([since_ms] * count, pa.timestamp("ms", tz="UTC")),
            "written": pa.array([since_ms + 1_000 * number for number in range(count)], pa.timestamp("ms", tz="UTC")),
        }
    )


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Two payments of card 007."""
    path = tmp_path / "payments.parquet"
    times = pa.array([NOON_MS, NOON_MS + 1_000], pa.timestamp("ms", tz="UTC"))
    columns = {"payment_id": ["p1", "p2"], "paid_at": times, "card": ["007", "007"], "amount": [5, 6]}
    pq.write_table(pa.table(columns), path)
    return path


def test_labels_in_a_csv_become_a_training_set(repo: Path, events: Path, tmp_path: Path, capsys: Capture) -> None:
    """A key of digits stays a text; the label column stays; the file appears whole."""
    labels, out = tmp_path / "labels.csv", tmp_path / "train.parquet"
    labels.write_text(
        "card,event_timestamp,is_fraud\n007,2026-01-01T12:00:00Z,0\n007,2026-01-01T12:00:01.001Z,1\n8,2026-01-01,0\n"
    )

    words = ["history", "--repo", str(repo), "--entities", str(labels), "--service", "scoring", "--out", str(out)]
    assert main([*words, "--events", str(events), "--memory", "64MB", "--work-dir", str(tmp_path / "work")]) == 0

    found = pq.read_table(out)
    assert "3 rows, 2 features" in capsys.readouterr().out
    assert ["007", "007", "8"] == found["card"].to_pylist()
    assert [0, 1, 0] == found["is_fraud"].to_pylist()
    assert [0, 2, 0] == found["count_1h"].to_pylist()
    assert [0, 11, 0] == found["amount_sum_1h"].to_pylist()


def test_registered_tables_are_found(repo: Path, events: Path, tmp_path: Path) -> None:
    """A FileSource with renamed columns is read where the registry says; --table names another one instead."""
    labels, out = tmp_path / "labels.parquet", tmp_path / "train.parquet"
    times = pa.array([NOON_MS - 1, NOON_MS, NOON_MS + 1], pa.timestamp("ms", tz="UTC"))
    pq.write_table(pa.table({"card": ["007"] * 3, "event_timestamp": times}), labels)
    words = ["history", "--repo", str(repo), "--entities", str(labels), "--service", "with_profile", "--out", str(out)]

    assert main([*words, "--events", str(events)]) == 0
    found = pq.read_table(out)
    assert [[None, "silver", "silver"], [None, 8, 8]] == [found[name].to_pylist() for name in ("tier", "credit_line")]
    assert [0, 0, 1] == found["count_1h"].to_pylist()

    other = tmp_path / "other.parquet"
    renamed = profiles(NOON_MS - 1, ["blue"], [3]).rename_columns(["card", "tier", "credit_line", "since", "written"])
    pq.write_table(renamed, other)
    assert main([*words, "--events", str(events), "--table", f"profile={other}:since:written"]) == 0
    assert ["blue"] * 3 == pq.read_table(out)["tier"].to_pylist()


def test_one_moment_for_all(repo: Path, events: Path, tmp_path: Path) -> None:
    """Entities without times, and features by name."""
    entities, out = tmp_path / "cards.parquet", tmp_path / "now.parquet"
    pq.write_table(pa.table({"card": ["007"]}), entities)
    words = ["history", "--repo", str(repo), "--entities", str(entities), "--feature", "activity:count_1h"]

    assert main([*words, "--events", f"payments={events}", "--at", "2026-01-01T12:00:01Z", "--out", str(out)]) == 0
    assert {"card": ["007"], "count_1h": [1]} == pq.read_table(out).to_pydict()


def test_what_is_missing_is_said(repo: Path, events: Path, tmp_path: Path, capsys: Capture) -> None:
    """No event log, an unknown service, neither service nor feature."""
    entities = tmp_path / "cards.parquet"
    pq.write_table(pa.table({"card": ["007"], "event_timestamp": [NOON_MS]}), entities)
    words = ["history", "--repo", str(repo), "--entities", str(entities), "--out", str(tmp_path / "out.parquet")]

    assert main([*words, "--service", "scoring"]) == 1
    assert "there is no event log" in capsys.readouterr().err
    assert main([*words, "--service", "scorin", "--events", str(events)]) == 1
    assert 'did you mean "scoring"' in capsys.readouterr().err
    assert main([*words, "--events", str(events)]) == 2
    assert not (tmp_path / "out.parquet").exists()
