"""The event log under fire: real Apache Kafka, SIGKILL, compaction at work, and a plain reader that watches it all."""

from __future__ import annotations

import fcntl
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import duckdb
import pytest
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable

from featurestore.errors import FeatureStoreError
from featurestore.offline.event_log.reader import EventLog
from featurestore.online.probe import free_port
from featurestore.testing.servers import KafkaBroker
from tests.dataflows.payments import CONFIG, REPO, Payments, make_payments
from tests.dataflows.stream_process import ROOT, StreamProcess
from tests.full_disk import fill_disk_of, make_room_for

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KILLS = 10
KILLS_AT_WORK_MIN = 6
"""A machine that stalls between two looks may let a process log all there is; so many must have hit work under way."""

RECORDS = 120_000
"""Ten commits for each kill: a busy machine may be late by some of them."""
TOPIC = "logged-payments"

COMMIT_PERIOD_S = 0.05
"""About the time between two commits here: a kill may hit any step of one."""

EXIT_FENCED, EXIT_PEER_GONE = 3, 4

FILE_BYTES_MAX = 16 * 1024
"""The rows of a commit do not fit in a file of this size; what a process prints does."""

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
        program = ("-m", "dataflows.log_to_table")
        process = StreamProcess(tmp_path, repo / "data" / "registry.db", "", *always, *options, program=program)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.mark.parametrize("process_count", [1, 2])
def test_ten_kills_at_work_log_each_offset_exactly_once(
    start_log: StartLog, payments: Payments, tmp_path: Path, process_count: int
) -> None:
    """No gap, no double, every refused record has a letter; and a reader that looks all the time never saw otherwise.

    Two processes are a cluster: one is killed, and the other notices, or is killed too.
    """
    directory = tmp_path / "event_log" / "payments"
    draw = random.Random(5 + process_count)
    total = sum(map(len, payments.records))
    reached, kills = 0, 0
    with PlainReader(directory) as reader:
        while kills < KILLS and reached < total:
            processes = start_cluster(start_log, process_count)
            target = reached + int(draw.uniform(0.2, 0.9) / (KILLS - kills + 1) * (total - reached))
            _wait_until_logged(directory, target, processes)
            time.sleep(draw.uniform(0.0, COMMIT_PERIOD_S))
            victim = draw.choice(processes)
            victim.kill()
            for other in processes:
                if other is not victim and draw.random() < 0.5:
                    assert other.wait() == EXIT_PEER_GONE, other.output
                other.kill()
            reached = _logged(directory)
            kills += reached < total
        assert kills >= KILLS_AT_WORK_MIN, f"only {kills} kills hit work under way"
        for last in start_cluster(start_log, process_count, "--until-end"):
            assert last.wait() == 0, last.output

    assert _logged(directory) == total
    assert _rows(directory) == _sound(payments)
    assert _letters(tmp_path) == _refused(payments)
    files = len(EventLog(directory).files)
    compact = [sys.executable, "-m", "featurestore", "event-log", "compact", "--full"]
    subprocess.run([*compact, "--event-log", str(tmp_path / "event_log")], cwd=ROOT, check=True, capture_output=True)
    assert _rows(directory) == _sound(payments)
    assert reader.failures == []
    assert len(reader.counts) > kills
    assert reader.counts == sorted(reader.counts), "a row that was there was missed"
    print(
        f"\n{process_count} process(es): {total:,} records, {kills} kills, {payments.bad} dead letters; {files} files, "
        f"{len(EventLog(directory).files)} after a full compaction; version {EventLog(directory).version}; "
        f"{len(reader.counts)} plain reads"
    )


def test_a_process_that_slept_while_another_took_over_stops_and_adds_nothing(
    start_log: StartLog, payments: Payments, tmp_path: Path
) -> None:
    """A zombie: stopped in the middle of its work, and awake again when all is logged, rows in its hands."""
    directory = tmp_path / "event_log" / "payments"
    total = sum(map(len, payments.records))
    zombie = start_log()
    _wait_until_logged(directory, total // 10, [zombie])
    _stop(zombie, tmp_path)
    try:
        assert _logged(directory) < total, "it was done before it was stopped"
        heir = start_log("--until-end")
        assert heir.wait() == 0, heir.output
    finally:
        zombie.process.send_signal(signal.SIGCONT)

    assert zombie.wait() == EXIT_FENCED, zombie.output
    assert _rows(directory) == _sound(payments)


def _stop(process: StreamProcess, directory: Path) -> None:
    """Stop a process, but not while it appends dead letters.

    It holds the lock of their file then, as long as it sleeps: who shares the directory with it waits for it.
    """
    while True:
        process.process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)  # until it sleeps, whatever it was at
        letters = [path for path in directory.rglob("*.jsonl") if "dead-letters" in str(path)]
        if not any(map(_is_locked, letters)):
            return
        process.process.send_signal(signal.SIGCONT)
        time.sleep(0.01)


def _is_locked(path: Path) -> bool:
    """Whether somebody appends to a file just now."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_full_disk_is_waited_for(start_log: StartLog, payments: Payments, tmp_path: Path) -> None:
    """Commits find no room, and are made when there is some: by the same process, and each once."""
    directory = tmp_path / "event_log" / "payments"
    total = sum(map(len, payments.records))
    process = start_log("--until-end")
    _wait_until_logged(directory, total // 10, [process])
    fill_disk_of(process.process.pid, FILE_BYTES_MAX)
    process.wait_for("file too large")
    assert _logged(directory) < total
    make_room_for(process.process.pid)

    assert process.wait() == 0, process.output
    assert _rows(directory) == _sound(payments)
    assert _letters(tmp_path) == _refused(payments)


class PlainReader:
    """DuckDB over delta-rs's own view of the table, again and again in a thread; knows nothing of us."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.counts: list[int] = []
        self.failures: list[str] = []

    def __enter__(self) -> PlainReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._thread.join()

    def _read(self) -> None:
        """Whatever is raised once there is a table is a failure."""
        connection = duckdb.connect(config={"threads": 1})
        while not self._is_done.is_set():
            if DeltaTable.is_deltatable(str(self._directory)):
                try:
                    connection.register("log", DeltaTable(self._directory).to_pyarrow_dataset())
                    found = connection.execute('SELECT count(*), count(DISTINCT (partition, "offset")) FROM log')
                    [(rows, distinct)] = found.fetchall()
                except Exception as error:  # noqa: BLE001  # told by the test, and not lost in a thread
                    self.failures.append(f"{type(error).__name__}: {error}")
                else:
                    self.counts.append(rows)
                    if rows != distinct:
                        self.failures.append(f"{rows} rows, {distinct} offsets")
            self._is_done.wait(0.1)


def start_cluster(start_log: StartLog, process_count: int, *options: str) -> list[StreamProcess]:
    """One process, or several that share the partitions."""
    if process_count == 1:
        return [start_log(*options)]
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(process_count))
    return [
        start_log("--addresses", addresses, "--process-id", str(number), *options) for number in range(process_count)
    ]


def _logged(directory: Path) -> int:
    """Records that the log has passed, over all partitions."""
    try:
        return sum(EventLog(directory).positions().values())
    except FeatureStoreError:
        return 0  # it is being made


def _wait_until_logged(directory: Path, target: int, processes: Sequence[StreamProcess]) -> None:
    """Return as soon as the log has passed `target` records; the processes must live so long."""
    deadline = time.monotonic() + 120
    while _logged(directory) < target:
        for process in processes:
            assert process.process.poll() is None, process.output
        assert time.monotonic() < deadline, f"stuck on the way to {target}\n{processes[0].output}"
        time.sleep(0.02)


def _rows(directory: Path) -> list[tuple[int, int, str]]:
    """Every row that is there for a plain reader, as often as it is there."""
    table = DeltaTable(directory).to_pyarrow_table(columns=["partition", "offset", "payment_id"])
    rows = table.sort_by([("partition", "ascending"), ("offset", "ascending")]).to_pydict()
    return list(zip(*rows.values(), strict=True))


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
