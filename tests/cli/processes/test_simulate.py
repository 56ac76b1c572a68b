"""`featurestore simulate` from the outside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from featurestore.cli.main import main

COMMAND = (sys.executable, "-m", "featurestore", "simulate", "--format", "json")


def _lines(directory: Path) -> list[dict[str, object]]:
    files = sorted((directory / "transactions").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def test_history_is_written_with_its_side_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Log, labels and merchant table in one go; exit code 0 and a summary."""
    labels, merchants = tmp_path / "labels.parquet", tmp_path / "merchants.parquet"
    arguments = ["--to", f"log:{tmp_path}/log", "--days", "1", "--start", "2026-01-01", "--cards", "300"]
    code = main(
        ["simulate", "--format", "json", *arguments, "--labels", str(labels), "--merchant-table", str(merchants)]
    )

    records = _lines(tmp_path / "log")
    assert code == 0
    assert f"{len(records):,} records" in capsys.readouterr().out
    assert all(str(record["event_time"]).startswith("2026-01-01T") for record in records)
    assert labels.exists()
    assert merchants.exists()


def test_a_live_stream_keeps_its_rate_and_ends_well_when_told(tmp_path: Path) -> None:
    """Event times are now; SIGTERM ends it with exit code 0 and no half-written line."""
    process = subprocess.Popen(
        (*COMMAND, "--to", f"log:{tmp_path}/log", "--live", "--rate", "400", "--cards", "500"),
        stdout=subprocess.PIPE,
        text=True,
    )
    started_s = time.monotonic()
    while sum(path.read_bytes().count(b"\n") for path in (tmp_path / "log").rglob("*.jsonl")) < 400:
        assert time.monotonic() < started_s + 20
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    elapsed_s = time.monotonic() - started_s

    records = _lines(tmp_path / "log")
    newest = max(datetime.fromisoformat(str(record["event_time"])) for record in records)
    assert process.returncode == 0, output
    assert 400 <= len(records) < 1.25 * 400 * elapsed_s
    assert abs((datetime.now(UTC) - newest).total_seconds()) < 10


def test_a_live_stream_ends_after_its_duration(tmp_path: Path) -> None:
    """Although some of its records are minutes and hours late: those are sent at the end."""
    arguments = (
        "--live",
        "--duration",
        "2s",
        "--rate",
        "2000",
        "--cards",
        "500",
        "--labels",
        f"{tmp_path}/labels.parquet",
    )
    run = subprocess.run(
        (*COMMAND, "--to", f"log:{tmp_path}/log", *arguments), capture_output=True, text=True, timeout=30, check=False
    )

    assert run.returncode == 0, run.stderr
    assert f"{len(_lines(tmp_path / 'log')):,} records" in run.stdout


def test_history_can_be_sent_at_a_set_rate(tmp_path: Path) -> None:
    """--rate without --live only slows the sending down."""
    started = time.monotonic()
    arguments = ["--duration", "6h", "--start", "2026-01-01T08:00:00", "--cards", "1000", "--rate", "300"]
    assert main(["simulate", "--format", "json", "--to", f"log:{tmp_path}/log", *arguments]) == 0

    assert len(_lines(tmp_path / "log")) / (time.monotonic() - started) < 330


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["--to", "ftp://example"], "is not an address of records"),
        (["--to", "log:x", "--duration", "fast"], "is not a duration"),
        (["--to", "log:x", "--duration", "1d", "--days", "1"], "the same thing twice"),
        (["--to", "log:x", "--live", "--start", "2026-01-01"], "--live starts now"),
    ],
)
def test_a_wrong_call_is_explained(arguments: list[str], fact: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, message and hint on stderr, nothing written."""
    assert main(["simulate", *arguments]) == 1
    assert fact in capsys.readouterr().err
