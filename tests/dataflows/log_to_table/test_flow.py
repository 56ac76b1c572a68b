"""The stream that writes the event log, as users run it: an embedded log to Parquet."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featurestore.offline.event_log.reader import EventLog
from featurestore.online.probe import free_port
from tests.dataflows.conftest import applied_repo
from tests.dataflows.payments import TOPIC, Payments, make_payments
from tests.dataflows.stream_process import ROOT, StreamProcess

StartLog = Callable[..., StreamProcess]

EXIT_FENCED = 3


@pytest.fixture
def start_log(tmp_path: Path, registry: Path) -> Iterator[StartLog]:
    """Starts a process that logs `events` to `event_log`; whatever still runs at the end is killed."""
    started: list[StreamProcess] = []

    def start(*options: str, use_registry: Path | None = None) -> StreamProcess:
        always = ["--event-log", str(tmp_path / "event_log"), "--log-dir", str(tmp_path / "events")]
        program = ("-m", "dataflows.log_to_table")
        process = StreamProcess(tmp_path, use_registry or registry, "", *always, *options, program=program)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


def sound_offsets(*parts: Payments) -> dict[tuple[int, int], str]:
    """(partition, offset) -> payment id of every record that can be decoded."""
    found = {}
    for partition in range(len(parts[0].records)):
        for offset, record in enumerate(record for part in parts for record in part.records[partition]):
            try:
                found[partition, offset] = str(json.loads(record)["payment_id"])
            except json.JSONDecodeError:
                continue
    return found


def logged(directory: Path) -> dict[tuple[int, int], str]:
    """(partition, offset) -> payment id of every row; fails on a row that is there twice."""
    rows: list[tuple[tuple[int, int], str]] = []
    for batch in EventLog(directory / "event_log" / TOPIC).scan(["partition", "offset", "payment_id"]):
        places = zip(batch["partition"].to_pylist(), batch["offset"].to_pylist(), strict=True)
        rows += zip(places, batch["payment_id"].to_pylist(), strict=True)
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def test_every_record_is_logged_once_and_a_restart_logs_what_is_new(start_log: StartLog, tmp_path: Path) -> None:
    """Rows, positions and dead letters; the second run reads only what came after the first."""
    first, second = make_payments(4_000, seed=41), make_payments(1_000, seed=42, first=4_000)
    first.append_to(tmp_path / "events")
    run = start_log("--until-end")
    assert run.wait() == 0, run.output
    second.append_to(tmp_path / "events")
    run = start_log("--until-end", "--batch-records", "300", "--commit-rows", "500")
    assert run.wait() == 0, run.output

    assert logged(tmp_path) == sound_offsets(first, second)
    ends = [len(one) + len(other) for one, other in zip(first.records, second.records, strict=True)]
    positions = EventLog(tmp_path / "event_log" / TOPIC).positions()
    assert positions == {(TOPIC, partition): end for partition, end in enumerate(ends)}
    letters = list((tmp_path / "events" / f"{TOPIC}.dead-letters").glob("*.jsonl"))
    assert sum(len(path.read_text().splitlines()) for path in letters) == first.bad + second.bad > 0
    assert f"{sum(map(len, second.records)):,} read" in run.output


def test_a_stopped_stream_commits_what_it_has_read(start_log: StartLog, tmp_path: Path) -> None:
    """SIGTERM, long before the next commit is due."""
    payments = make_payments(2_000, seed=43)
    payments.append_to(tmp_path / "events")
    process = start_log("--commit-seconds", "600")
    process.wait_for(f"{sum(map(len, payments.records)):,} read")
    process.terminate()

    assert process.wait() == 0, process.output
    assert "received SIGTERM" in process.output
    assert logged(tmp_path) == sound_offsets(payments)


def test_a_second_stream_takes_the_log_over(start_log: StartLog, tmp_path: Path) -> None:
    """The first stops at its next commit, with its own exit code; nothing is lost or doubled."""
    first, second = make_payments(2_000, seed=44), make_payments(2_000, seed=45, first=2_000)
    first.append_to(tmp_path / "events")
    older = start_log("--commit-seconds", "0.2")
    older.wait_for("lag 0")
    newer = start_log("--commit-seconds", "0.2")
    newer.wait_for("logging")
    newer.wait_for("read")
    second.append_to(tmp_path / "events")

    assert older.wait() == EXIT_FENCED, older.output
    assert "another writer took over partition" in older.output
    newer.wait_for(f"{sum(map(len, second.records)):,} read")
    newer.terminate()
    assert newer.wait() == 0, newer.output
    assert logged(tmp_path) == sound_offsets(first, second)


def test_two_processes_share_the_partitions(start_log: StartLog, tmp_path: Path) -> None:
    """A Bytewax cluster: both log, and both end when everything is logged."""
    payments = make_payments(4_000, seed=46)
    payments.append_to(tmp_path / "events")
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    cluster = [start_log("--until-end", "--addresses", addresses, "--process-id", str(number)) for number in range(2)]

    assert [process.wait() for process in cluster] == [0, 0], [process.output for process in cluster]
    assert all(" 0 read" not in process.output.splitlines()[-2] for process in cluster)
    assert logged(tmp_path) == sound_offsets(payments)


def test_the_stream_compacts_its_files_by_itself(start_log: StartLog, tmp_path: Path) -> None:
    """While it goes on writing."""
    payments = make_payments(6_000, seed=47, partitions=1)
    payments.append_to(tmp_path / "events")
    process = start_log("--batch-records", "100", "--commit-rows", "100", "--compact-minutes", "0.005")
    process.wait_for("files became")
    process.wait_for("lag 0")
    process.terminate()

    assert process.wait() == 0, process.output
    assert logged(tmp_path) == sound_offsets(payments)


def test_the_commands_show_compact_and_retain_a_log(start_log: StartLog, tmp_path: Path) -> None:
    """As an operator uses them; an unknown source is refused with the known ones."""
    make_payments(2_000, seed=48).append_to(tmp_path / "events")
    assert start_log("--until-end").wait() == 0
    make_payments(500, seed=49).append_to(tmp_path / "events")
    assert start_log("--until-end").wait() == 0
    before = len(logged(tmp_path))

    shown = _command(tmp_path, "show")
    assert f"{before:,} rows" in shown.stdout
    assert f"{TOPIC}[0]  next offset" in shown.stdout
    assert "files became" in _command(tmp_path, "compact", "--full").stdout
    assert "nothing to merge" in _command(tmp_path, "compact", "--full").stdout
    assert len(logged(tmp_path)) == before
    assert "dropped nothing" in _command(tmp_path, "retain", "--days", "36500").stdout
    refused = _command(tmp_path, "show", "--source", "paymnts")
    assert refused.returncode == 1
    assert 'did you mean "payments"?' in refused.stderr


def test_an_unknown_source_or_column_clash_ends_the_stream_with_an_explanation(
    start_log: StartLog, tmp_path: Path
) -> None:
    """Before anything is written."""
    process = start_log("--source", "paymnts", "--until-end")

    assert process.wait() == 1
    assert 'no stream feature view reads a source "paymnts"' in process.output
    assert not (tmp_path / "event_log").exists()


def test_a_source_that_lost_records_gets_no_log_with_a_gap(start_log: StartLog, tmp_path: Path) -> None:
    """The remedy is the event log's own, not the online store's."""
    make_payments(200, seed=46, partitions=1).append_to(tmp_path / "events")
    assert start_log("--until-end").wait() == 0
    path = tmp_path / "events" / TOPIC / "0.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    process = start_log("--until-end")

    assert process.wait() == 1, process.output
    assert f'the event log of source "{TOPIC}" would have a gap' in process.output
    assert "move this log away and write a new one" in process.output


def _command(directory: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """One `featurestore event-log` command."""
    always = [sys.executable, "-m", "featurestore", "event-log", name, "--event-log", str(directory / "event_log")]
    return subprocess.run([*always, *options], cwd=ROOT, check=False, capture_output=True, text=True)


REFUNDS = """
refunds = kafka_source(
    name="refunds",
    topic="refunds",
    columns={"payment_id": "string", "refunded_at": "timestamp", "card_id": "string"},
    event_time="refunded_at",
    event_id="payment_id",
    bootstrap_servers="127.0.0.1:1",
)
refunded = stream_view(name="refunded", entities=[card], source=refunds, features=[*count(over="1d")])
"""


def test_a_source_that_is_applied_is_logged_from_then_on(start_log: StartLog, tmp_path: Path, registry: Path) -> None:
    """The stream notices by itself, and logs each record of both once."""
    used = tmp_path / "registry.db"
    shutil.copy(registry, used)
    parts = make_payments(500, seed=81), make_payments(500, seed=82, first=500)
    parts[0].append_to(tmp_path / "events")
    refund = {"payment_id": "p-1", "refunded_at": "2026-03-01T12:00:00Z", "card_id": "c-1"}
    (tmp_path / "events" / "refunds").mkdir()
    (tmp_path / "events" / "refunds" / "0.jsonl").write_text(json.dumps(refund) + "\n")
    process = start_log("--commit-seconds", "0.2", use_registry=used)
    process.wait_for("logging payments from")
    applied_repo(tmp_path / "next", more=REFUNDS).replace(used)
    parts[1].append_to(tmp_path / "events")
    process.wait_for("logging payments, refunds from")
    process.wait_until(lambda: sum(EventLog(tmp_path / "event_log" / "refunds").positions().values()) == 1)
    process.terminate()

    assert process.wait() == 0, process.output
    assert start_log("--until-end", use_registry=used).wait() == 0
    assert sound_offsets(*parts) == logged(tmp_path)
