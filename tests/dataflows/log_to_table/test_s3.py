"""The stream, the commands and training sets with an event log on an S3."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.cli.main import main
from featurestore.core.spec import RepoSpec
from featurestore.definitions.registry import read_registry
from featurestore.offline.event_log.reader import EventLog
from tests.dataflows.conftest import StartStream
from tests.dataflows.log_to_table.test_flow import sound_offsets
from tests.dataflows.log_to_table.test_history import labels_of
from tests.dataflows.payments import PROJECT, TOPIC, make_payments
from tests.dataflows.stream_process import ROOT
from tests.offline.event_log.s3_server import S3Server

FLOW = ("-m", "dataflows.log_to_table")


def test_the_stream_logs_to_an_s3_and_the_commands_look_after_it(
    start_stream: StartStream, s3: S3Server, tmp_path: Path
) -> None:
    """Every record once, also after a restart; shown, merged and cut off by the commands that serve a disk."""
    root = s3.uri("kept")
    first, second = make_payments(1_500, seed=81), make_payments(500, seed=82, first=1_500)
    for part in (first, second):
        part.append_to(tmp_path / "events")
        run = start_stream(*_logging(tmp_path, root), program=FLOW)
        assert run.wait() == 0, run.output

    assert _logged(s3.uri(f"kept/{TOPIC}")) == sound_offsets(first, second)
    shown = _command("show", root)
    assert f"{len(sound_offsets(first, second)):,} rows" in shown
    assert f"{TOPIC}[0]  next offset" in shown
    assert "files became 1" in _command("compact", root, "--full")
    assert "nothing to merge" in _command("compact", root, "--full")
    assert _logged(s3.uri(f"kept/{TOPIC}")) == sound_offsets(first, second)
    assert f"{TOPIC}  dropped 2026-09-" in _command("retain", root, "--days", "1")
    assert "0 rows" in _command("show", root)


def test_a_training_set_is_that_of_a_log_on_a_disk(
    start_stream: StartStream, s3: S3Server, registry: Path, tmp_path: Path
) -> None:
    """Every feature, every row."""
    payments, found, repo = make_payments(1_500, seed=83), [], read_registry(registry, project=PROJECT)
    payments.append_to(tmp_path / "events")
    labels = labels_of(payments)
    for root in (str(tmp_path / "event_log"), s3.uri("history")):
        run = start_stream(*_logging(tmp_path, root), program=FLOW)
        assert run.wait() == 0, run.output
        found.append(_history(labels, repo, registry, tmp_path, root))

    assert labels.num_rows == found[0].num_rows
    assert found[0].equals(found[1])


def _logging(directory: Path, root: str) -> Sequence[str]:
    small = ("--batch-records", "150", "--commit-rows", "600")
    return ("--event-log", root, "--log-dir", str(directory / "events"), "--until-end", *small)


def _logged(uri: str) -> dict[tuple[int, int], str]:
    """(partition, offset) -> payment id of every row; fails on a row that is there twice."""
    rows: list[tuple[tuple[int, int], str]] = []
    for batch in EventLog(uri).scan(["partition", "offset", "payment_id"]):
        places = zip(batch["partition"].to_pylist(), batch["offset"].to_pylist(), strict=True)
        rows += zip(places, batch["payment_id"].to_pylist(), strict=True)
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def _history(labels: pa.Table, repo: RepoSpec, registry: Path, directory: Path, root: str) -> pa.Table:
    """What `featurestore history` writes: all features of all views."""
    pq.write_table(labels, directory / "labels.parquet")
    words = ["history", "--registry", str(registry), "--project", PROJECT, "--events", root]
    words += ["--entities", str(directory / "labels.parquet"), "--out", str(directory / "train.parquet")]
    for view in repo.views:
        words += [word for answer in view.answers for word in ("--feature", f"{view.name}:{answer.name}")]
    assert main([*words, "--full-names"]) == 0
    return pq.read_table(directory / "train.parquet")


def _command(name: str, root: str, *options: str) -> str:
    """What one `featurestore event-log` command says."""
    words = [sys.executable, "-m", "featurestore", "event-log", name, "--event-log", root, *options]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
