"""The event log under fire: real Apache Kafka, SIGKILL, compaction at work, and a plain reader that watches it all."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from confluent_kafka.admin import AdminClient

from featurestore.errors import FeatureStoreError
from featurestore.offline.event_log.reader import EventLog
from featurestore.testing.servers import KafkaBroker
from tests.dataflows.payments import CONFIG, REPO, Payments, make_payments
from tests.dataflows.stream_process import ROOT, StreamProcess

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KILLS = 10
KILLS_AT_WORK_MIN = 6
"""A machine that stalls between two looks may let a process log all there is; so many must have hit work under way."""

RECORDS = 120_000
"""Ten commits for each kill: a busy machine may be late by some of them."""
TOPIC = "logged-payments"

COMMIT_PERIOD_S = 0.05
"""About the time between two commits here: a kill may hit any step of one."""

StartLog = Callable[..., StreamProcess]


@pytest.fixture
def payments(kafka: KafkaBroker) -> Iterator[Payments]:
    """Records with everything that happens to a stream, all in their topic."""
    made = make_payments(RECORDS, seed=51)
    kafka.create_topic(TOPIC, partitions=len(made.records))
    kafka.append(TOPIC, made.records)
    yield made
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.delete_topics([TOPIC], operation_timeout=30).values():
        future.result(timeout=30)


@pytest.fixture
def start_log(tmp_path: Path, kafka: KafkaBroker) -> Iterator[StartLog]:
    """Starts a process that logs the topic in small commits, and compacts all the time."""
    repo = tmp_path / "repo"
    (repo / "data").mkdir(parents=True)
    (repo / "feature_store.yaml").write_text(CONFIG)
    (repo / "definitions.py").write_text(REPO.replace('topic="payments"', f'topic="{TOPIC}"') % {"card_window": "1d"})
    command = [sys.executable, "-m", "featurestore", "apply", "--repo", str(repo)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    started: list[StreamProcess] = []

    def start(*options: str) -> StreamProcess:
        always = [
            *("--bootstrap-servers", kafka.bootstrap_servers),
            *("--event-log", str(tmp_path / "event_log")),
            *("--dead-letter-dir", str(tmp_path / "letters")),
            *("--batch-records", "200", "--commit-rows", "1200", "--commit-seconds", "0.05"),
            *("--compact-minutes", "0.002"),
        ]
        program = ("-m", "dataflows.log_to_files")
        process = StreamProcess(tmp_path, repo / "data" / "registry.db", "", *always, *options, program=program)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


def test_ten_kills_at_work_log_each_offset_exactly_once(
    start_log: StartLog, payments: Payments, tmp_path: Path
) -> None:
    """No gap, no double, every refused record has a letter; and DuckDB, globbing meanwhile, never saw otherwise."""
    directory = tmp_path / "event_log" / "payments"
    draw = random.Random(5)
    total = sum(map(len, payments.records))
    reached, kills = 0, 0
    with PlainReader(directory) as reader:
        while kills < KILLS and reached < total:
            process = start_log()
            target = reached + int(draw.uniform(0.2, 0.9) / (KILLS - kills + 1) * (total - reached))
            _wait_until_logged(directory, target, process)
            time.sleep(draw.uniform(0.0, COMMIT_PERIOD_S))
            process.kill()
            reached = _logged(directory)
            kills += reached < total
        assert kills >= KILLS_AT_WORK_MIN, f"only {kills} kills hit work under way"
        last = start_log("--until-end")
        assert last.wait() == 0, last.output

    assert _logged(directory) == total
    assert _rows(directory) == _sound(payments)
    assert _letters(tmp_path) == _refused(payments)
    files = len(list(directory.glob("event_date=*/*.parquet")))
    compact = [sys.executable, "-m", "featurestore", "event-log", "compact", "--full"]
    subprocess.run([*compact, "--event-log", str(tmp_path / "event_log")], cwd=ROOT, check=True, capture_output=True)
    assert _rows(directory) == _sound(payments)
    assert reader.failures == []
    assert len(reader.counts) > kills
    assert reader.counts == sorted(reader.counts), "a row that was there was missed"
    left = len(list(directory.glob("event_date=*/*.parquet")))
    print(
        f"\n{total:,} records, {kills} kills, {payments.bad} dead letters; {files} files, {left} after a full "
        f"compaction; {len(reader.counts)} plain reads, {reader.retries} of them had to list again"
    )


class PlainReader:
    """DuckDB over a glob, again and again in a thread of its own; knows nothing of commits."""

    def __init__(self, directory: Path) -> None:
        self._query = f"""
            SELECT count(*), count(DISTINCT (partition, "offset"))
            FROM read_parquet('{directory}/event_date=*/*.parquet', hive_partitioning = true)
        """
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.counts: list[int] = []
        self.retries = 0
        self.failures: list[str] = []

    def __enter__(self) -> PlainReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._thread.join()

    def _read(self) -> None:
        """A file that has left between listing and opening is loud, and the only thing that may happen."""
        connection = duckdb.connect(config={"threads": 1})
        while not self._is_done.is_set():
            try:
                [(rows, distinct)] = connection.execute(self._query).fetchall()
            except duckdb.IOException as error:
                if "No such file" in str(error) or "No files found" in str(error):
                    self.retries += 1
                else:
                    self.failures.append(str(error))
            except duckdb.Error as error:
                self.failures.append(str(error))
            else:
                self.counts.append(rows)
                if rows != distinct:
                    self.failures.append(f"{rows} rows, {distinct} offsets")
            self._is_done.wait(0.1)


def _logged(directory: Path) -> int:
    """Records that the log has passed, over all partitions."""
    try:
        return sum(EventLog(directory).positions().values())
    except FeatureStoreError:
        return 0  # it is being made


def _wait_until_logged(directory: Path, target: int, process: StreamProcess) -> None:
    """Return as soon as the log has passed `target` records; the process must live so long."""
    deadline = time.monotonic() + 60
    while _logged(directory) < target:
        assert process.process.poll() is None, process.output
        assert time.monotonic() < deadline, f"stuck on the way to {target}\n{process.output}"
        time.sleep(0.005)


def _rows(directory: Path) -> list[tuple[int, int, str]]:
    """Every row that is there for a plain reader, as often as it is there."""
    query = f"""SELECT partition, "offset", payment_id FROM '{directory}/event_date=*/*.parquet' ORDER BY ALL"""
    return [(row[0], row[1], row[2]) for row in duckdb.connect().execute(query).fetchall()]


def _sound(payments: Payments) -> list[tuple[int, int, str]]:
    """The rows that the log must have."""
    refused = _refused(payments)
    return [
        (partition, offset, json.loads(record)["payment_id"])
        for partition, records in enumerate(payments.records)
        for offset, record in enumerate(records)
        if (partition, offset) not in refused
    ]


def _refused(payments: Payments) -> set[tuple[int, int]]:
    """(Partition, offset) of the records that cannot be decoded: they are cut off."""
    return {
        (partition, offset)
        for partition, records in enumerate(payments.records)
        for offset, record in enumerate(records)
        if not record.endswith(b"}")
    }


def _letters(directory: Path) -> set[tuple[int, int]]:
    """(Partition, offset) of the dead letters; repeats after a crash are allowed."""
    paths = (directory / "letters" / f"{TOPIC}.dead-letters").glob("*.jsonl")
    letters = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return {(letter["partition"], letter["offset"]) for letter in letters}
