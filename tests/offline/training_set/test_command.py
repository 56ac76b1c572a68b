"""`featurestore history`, as typed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from featurestore.cli.lookup.given import MomentType
from featurestore.cli.main import main
from tests.offline.training_set.foreign_tables import write_iceberg
from tests.offline.training_set.label_tables import NOON_MS

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
    subprocess.run([sys.executable, "-m", "featurestore", "apply", "--repo", str(directory)], check=True)
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


def test_label_rows_that_are_events_count_themselves(repo: Path, events: Path, tmp_path: Path) -> None:
    """Each its own, at its own time."""
    out = tmp_path / "train.parquet"
    words = ["history", "--repo", str(repo), "--entities", str(events), "--service", "scoring", "--out", str(out)]
    words += ["--events", str(events), "--timestamp-column", "paid_at", "--include-event", "payments"]

    assert main([*words, "--work-dir", str(tmp_path / "work")]) == 0
    assert [1, 2] == pq.read_table(out)["count_1h"].to_pylist()
    assert [5, 11] == pq.read_table(out)["amount_sum_1h"].to_pylist()


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


def test_tables_that_somebody_else_keeps_are_taken_as_they_are_named(repo: Path, events: Path, tmp_path: Path) -> None:
    """Alone or by the source's name; a deleted row is not counted, and a view's table is found likewise."""
    labels, out = tmp_path / "labels.parquet", tmp_path / "train.parquet"
    pq.write_table(pa.table({"card": ["007"], "event_timestamp": [NOON_MS + 5_000]}), labels)
    iceberg = write_iceberg(tmp_path / "iceberg", pq.read_table(events))
    write_deltalake(tmp_path / "delta", pq.read_table(events))
    DeltaTable(tmp_path / "delta").delete("payment_id = 'p1'")
    iceberg.delete("payment_id == 'p1'")
    renamed = profiles(NOON_MS - 1, ["blue"], [3]).rename_columns(["card", "tier", "credit_line", "since", "written"])
    write_deltalake(tmp_path / "profiles", renamed)
    words = ["history", "--repo", str(repo), "--entities", str(labels), "--service", "with_profile", "--out", str(out)]
    words += ["--table", f"profile={tmp_path}/profiles:since:written", "--event-log"]

    places = (str(tmp_path / "delta"), iceberg.metadata_location)
    for place in (*places, *(f"payments={one}" for one in places)):
        assert main([*words, place]) == 0
        found = pq.read_table(out)
        assert [[1], [6], ["blue"]] == [found[name].to_pylist() for name in ("count_1h", "amount_sum_1h", "tier")]


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


@pytest.fixture
def words(repo: Path, tmp_path: Path) -> list[str]:
    """A command without --out and without events."""
    entities = tmp_path / "cards.parquet"
    pq.write_table(pa.table({"card": ["007"], "event_timestamp": [NOON_MS + 1]}), entities)
    return ["history", "--repo", str(repo), "--entities", str(entities), "--service", "scoring"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1767268800", "1767268800 looks like seconds: give milliseconds since 1970"),
        ("20260101", "looks like seconds"),
        ("0", "looks like seconds"),
        ("1767268800000000", "not a moment of the years 1 to 9999 in milliseconds since 1970"),
        ("²", "neither ISO 8601 nor milliseconds"),
        ("--5", "neither ISO 8601 nor milliseconds"),
        ("0001-01-01T00:00:00+14:00", "not a moment of the years 1 to 9999"),
    ],
)
@pytest.mark.parametrize("option", ["--at", "--ingested-before"])
def test_moments_in_another_unit_are_wrong_usage(
    words: list[str], option: str, text: str, message: str, capsys: Capture
) -> None:
    """January 1970 has no features, and nobody would see why."""
    assert main([*words, "--out", "out.parquet", f"{option}={text}"]) == 2
    assert f"Invalid value for '{option}'" in (said := capsys.readouterr().err)
    assert message in said


def test_moments_are_cut_off_to_milliseconds() -> None:
    """Not rounded, which could be into the future."""
    assert NOON_MS == MomentType().convert("2026-01-01T12:00:00.000999Z", None, None)


def test_an_answer_that_nobody_wants_is_refused_before_anything_is_read(
    words: list[str], events: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Under the name of another format, in the place of what is read, or in none."""
    command = [*words, "--events", f"payments={events}"]
    for out, message in (
        (tmp_path / "train.CSV", "would be a Parquet file"),
        (events, "is read, and would be written over"),
        (tmp_path, "is a directory"),
    ):
        assert main([*command, "--out", str(out)]) == 2
        assert f'"{out}" {message}' in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--out", str(tmp_path / "none" / "train.parquet")]) == 1
    assert 'none/train.parquet" cannot be written: No such file or directory' in capsys.readouterr().err


def test_misspelled_and_doubled_places_are_refused(words: list[str], events: Path, capsys: Capture) -> None:
    """One of two would be passed over without a word."""
    command = [*words, "--out", "out.parquet"]
    assert main([*command, "--events", f"payments={events}", "--events", f"payments={events}2"]) == 2
    assert "once for each source" in capsys.readouterr().err
    assert main([*command, "--table", "profile=a:since", "--table", "profile=b:since"]) == 2
    assert 'two --table of view "profile"' in capsys.readouterr().err
    assert main([*command, "--table", "profil=a:since"]) == 1
    assert 'did you mean "profile"' in capsys.readouterr().err


def test_events_of_files_without_their_arrival_cannot_be_asked_for_what_was_known(
    words: list[str], events: Path, tmp_path: Path, capsys: Capture
) -> None:
    """With the event log's column they can; Spark takes it from event logs only."""
    out = tmp_path / "out.parquet"
    command = [*words, "--out", str(out), "--ingested-before", str(NOON_MS + 5)]
    assert main([*command, "--events", str(events)]) == 1
    assert "does not tell when its events arrived" in capsys.readouterr().err
    assert main([*command, "--events", str(events), "--engine", "spark"]) == 2
    assert "--ingested-before needs an event log" in capsys.readouterr().err
    assert not out.exists()

    logged = pq.read_table(events).append_column("ingest_time_ms", [[NOON_MS + 5, NOON_MS + 4]])
    pq.write_table(logged, events)
    assert main([*command, "--events", str(events)]) == 0
    assert [0] == pq.read_table(out)["count_1h"].to_pylist()


def test_a_terminated_command_cleans_up(
    words: list[str], events: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an interrupted one: events that were on the disk are not left there."""
    (tmp_path / "temporary").mkdir()

    def terminate(_: object) -> Iterator[int]:
        assert list((tmp_path / "temporary").glob("*/activity/events-*.arrow"))
        os.kill(os.getpid(), signal.SIGTERM)
        yield 0

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("featurestore.offline.training_set.build.run_together", terminate)
    before = signal.getsignal(signal.SIGTERM)

    assert main([*words, "--out", str(tmp_path / "out.parquet"), "--events", str(events), "--memory", "1"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not list((tmp_path / "temporary").iterdir())
    assert not list(tmp_path.glob("out*"))
    assert before is signal.getsignal(signal.SIGTERM)
