"""The Fraud Detection Handbook's transactions through the whole system, compared with DuckDB.

    python scripts/handbook.py PATH_TO/handbook_transactions.parquet [--samples 50000] [--seed 1]

Needs Java and Maven (or FEATURESTORE_KAFKA_LIBS), a redis-server or the embedded Valkey, and the file: columns
TRANSACTION_ID, TX_DATETIME (whole seconds), CUSTOMER_ID, TERMINAL_ID, TX_AMOUNT (exact cents), TX_FRAUD. It is not part
of this project; the book (fraud-detection-handbook.github.io) says how to simulate it. Exits with 1 on any mismatch.

    Parquet ── JSON ──> Kafka ──> featurestore stream ──> Redis ──> featurestore serve ── as_of ──┐
       └── DuckDB: a join over ranges, no code of ours ───────────────────────────────────────────┴── equal?

Features (scripts/handbook_repo) are those of the book: number and mean amount of payments over 1, 7 and 30 days, of a
customer and of a terminal, strictly before the moment that is asked for; and the risk of a terminal, the share of
frauds in windows of 1, 7 and 30 days that ended seven days before. Hop is 1 ms, which makes a window exact at
every moment; 1 s would do for reads at whole seconds, which is where the events are, but then a read between two
seconds would take in an event that the exact window has lost, and the comparison asks between seconds too.

The file is streamed in stages of four weeks. After each, moments within the stage are looked up while the stream stands
still: a look-back of 30 days keeps them exact. Old moments are thus asked of tiles that have newer events in them.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import redis
from confluent_kafka import Producer
from numpy.typing import NDArray

from featurestore.client import LookupClient
from featurestore.testing.servers import KafkaBroker, RedisServer, ServerProcess, kafka_broker, redis_server

TOPIC, SERVICE = "handbook_transactions", "handbook"
"""As in handbook_repo."""

PARTITIONS = 4
STAGE_MS = 28 * 86_400_000
ROWS_PER_REQUEST = 1_000
SAMPLES_DEFAULT = 50_000
RELATIVE_TOLERANCE = 1e-9
CATCH_UP_TIMEOUT_S = 600.0

DAY_MS = 86_400_000
WINDOW_DAYS = (1, 7, 30)
ENTITIES = ("customer", "terminal")
DELAY_DAYS = 7
COLUMNS = [
    *(f"{entity}_{what}_{days}d" for entity in ENTITIES for what in ("count", "amount_mean") for days in WINDOW_DAYS),
    *(f"terminal_risk_{days}d" for days in WINDOW_DAYS),
]
VIEW_COUNT = 3

FEATURESTORE = (sys.executable, "-m", "featurestore")

Int64Array = NDArray[np.int64]
Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Transactions:
    """The file's N rows by time, as columns of integers."""

    transaction_id: Int64Array
    event_time_ms: Int64Array
    customer: Int64Array
    terminal: Int64Array
    cents: Int64Array
    is_fraud: Int64Array


@dataclass(frozen=True, slots=True)
class Moments:
    """M moments to look up: customer, terminal and read time of each."""

    customer: Int64Array
    terminal: Int64Array
    as_of_ms: Int64Array


@dataclass
class Figures:
    """What the run has shown."""

    stage_seconds: list[float] = field(default_factory=list)
    lookup_seconds: float = 0.0
    redis_peak: str = ""
    redis_used: str = ""
    stream_peak_mib: float = 0.0
    server_peak_mib: float = 0.0


def main() -> int:
    """Run everything; 0 when nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--samples", type=int, default=SAMPLES_DEFAULT, help="moments to look up (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    database = duckdb.connect()
    transactions = read_transactions(database, options.file)
    figures = Figures()
    moments, answers = run_system(transactions, options.samples, np.random.default_rng(options.seed), figures)
    expected = expect(database, moments)
    return report(transactions, moments, answers, expected, figures)


def read_transactions(database: duckdb.DuckDBPyConnection, file: Path) -> Transactions:
    """Load the file into the table `transactions`, and return its columns in order of time."""
    database.execute(
        """create table transactions as
        select TRANSACTION_ID::bigint as transaction_id, epoch_ms(TX_DATETIME)::bigint as event_time_ms,
            CUSTOMER_ID::bigint as customer, TERMINAL_ID::bigint as terminal, round(TX_AMOUNT * 100)::bigint as cents,
            TX_FRAUD::bigint as is_fraud
        from read_parquet(?)""",
        [str(file)],
    )
    columns = database.execute("select * from transactions order by event_time_ms, transaction_id").fetchnumpy()
    return Transactions(**{name: np.asarray(column, dtype=np.int64) for name, column in columns.items()})


def run_system(
    transactions: Transactions, samples: int, draw: np.random.Generator, figures: Figures
) -> tuple[Moments, Float64Array]:
    """Stream all of it in stages, and look moments of each stage up; the moments, and (M, features) answers."""
    with ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="handbook-")))
        broker = running.enter_context(kafka_broker())
        store = running.enter_context(redis_server())
        broker.create_topic(TOPIC, partitions=PARTITIONS)
        repo = apply_repo(directory)
        stream = running.enter_context(command(directory, "stream", repo, store, broker))
        first_ms, last_ms = int(transactions.event_time_ms[0]), int(transactions.event_time_ms[-1])
        stages = list(range(first_ms, last_ms + 1, STAGE_MS))
        parts: list[Moments] = []
        answers: list[Float64Array] = []
        server = client = None
        for begin_ms in stages:
            end_ms = min(begin_ms + STAGE_MS, last_ms + 1)
            low, high = np.searchsorted(transactions.event_time_ms, (begin_ms, end_ms)).tolist()
            started_s = time.perf_counter()
            produce(broker, transactions, low, high)
            wait_for_commit(repo, store, stream, high)
            figures.stage_seconds.append(time.perf_counter() - started_s)
            if client is None or server is None:
                server = running.enter_context(command(directory, "serve", repo, store, broker))
                client = running.enter_context(LookupClient(served_address(server), timeout_s=60.0))
            moments = draw_moments(transactions, (begin_ms, end_ms), samples // len(stages) + 1, draw)
            started_s = time.perf_counter()
            answers.append(look_up(client, moments))
            figures.lookup_seconds += time.perf_counter() - started_s
            parts.append(moments)
            print(f"{high:>9,} transactions streamed, {sum(map(len, answers)):>6,} moments looked up", flush=True)
        assert server is not None
        note_memory(figures, store, stream, server)
    joined = (np.concatenate([getattr(part, name) for part in parts]) for name in ("customer", "terminal", "as_of_ms"))
    return Moments(*joined), np.concatenate(answers)


def apply_repo(directory: Path) -> Path:
    """Apply a copy of the feature repo."""
    repo = directory / "feature_repo"
    shutil.copytree(Path(__file__).parent / "handbook_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
    (repo / "data").mkdir()
    subprocess.run([*FEATURESTORE, "apply", "--repo", repo], check=True)
    return repo


@contextmanager
def command(directory: Path, name: str, repo: Path, store: RedisServer, broker: KafkaBroker) -> Iterator[ServerProcess]:
    """`featurestore stream` or `featurestore serve`, as users start them."""
    given = {
        "stream": ["--bootstrap-servers", broker.bootstrap_servers],
        "serve": ["--port", "0"],
    }[name]
    words = (*FEATURESTORE, name, "--repo", str(repo), "--store-url", store.url, *given)
    process = ServerProcess(name, words, directory)
    process.start()
    try:
        yield process
    finally:
        process.stop()


def produce(broker: KafkaBroker, transactions: Transactions, low: int, high: int) -> None:
    """Rows [low, high) as JSON records; a customer's stay in one partition, in order."""
    failures: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "log_level": 3,
        }
    )
    part = slice(low, high)
    moments = np.datetime_as_string(transactions.event_time_ms[part].astype("datetime64[ms]"), unit="s").tolist()
    names = ("transaction_id", "customer", "terminal", "cents", "is_fraud")
    columns = [getattr(transactions, name) for name in names]
    for moment, transaction_id, customer, terminal, cents, is_fraud in zip(
        moments, *(column[part].tolist() for column in columns), strict=True
    ):
        record = (
            f'{{"transaction_id":{transaction_id},"paid_at":"{moment}Z","customer_id":{customer},'
            f'"terminal_id":{terminal},"amount":{cents},"is_fraud":{"true" if is_fraud else "false"}}}'
        )
        producer.produce(
            TOPIC,
            record,
            partition=customer % PARTITIONS,
            on_delivery=lambda error, _: failures.append(str(error)) if error is not None else None,
        )
        if transaction_id % 10_000 == 0:
            producer.poll(0)
    left = producer.flush(CATCH_UP_TIMEOUT_S)
    assert left == 0, f"Kafka did not take {left} records"
    assert not failures, f"Kafka refused records: {failures[0]}"


def wait_for_commit(repo: Path, store: RedisServer, stream: ServerProcess, count: int) -> None:
    """Until `featurestore status` says that every view has applied `count` records."""
    words = [*FEATURESTORE, "status", "--repo", str(repo), "--store-url", store.url, "--no-memory", "--format", "json"]

    def is_committed() -> bool:
        # What it says of a partition is the position of the slowest lane.
        views = json.loads(subprocess.check_output(words))["generations"]
        applied = [sum(partition["next_offset"] for partition in view["partitions"]) for view in views]
        return len(applied) == VIEW_COUNT and min(applied) >= count

    stream.wait_until(is_committed, timeout_s=CATCH_UP_TIMEOUT_S)


def draw_moments(
    transactions: Transactions, stage_ms: tuple[int, int], count: int, draw: np.random.Generator
) -> Moments:
    """Moments after the stage's begin and up to its end, most of them where a mistake would show.

    A fifth each: a payment's own time (it must not count, nor must others of the same second) and the millisecond after
    it (they must); the moment at which a payment is about to leave a window (it must count) and the millisecond after
    (it must not); and any millisecond. Half of the windows end seven days before.
    """
    begin_ms, end_ms = stage_ms
    window_ms = DAY_MS * (draw.choice(WINDOW_DAYS, count) + draw.choice((0, DELAY_DAYS), count))
    kind = np.arange(count) % 5
    shift_ms = np.select([kind == 0, kind == 1, kind == 2, kind == 3], [0, 1, window_ms, window_ms + 1], 0)
    times = transactions.event_time_ms
    low, high = times.searchsorted(begin_ms - shift_ms), times.searchsorted(end_ms - shift_ms)
    # The first stages have no payment that leaves a long window: take the time of one that comes.
    has_none = high <= low
    low[has_none], high[has_none] = times.searchsorted((begin_ms, end_ms)).tolist()
    shift_ms[has_none] = 0
    row = draw.integers(low, high)
    as_of_ms = times[row] + shift_ms
    is_any = kind == 4
    as_of_ms[is_any] = draw.integers(begin_ms, end_ms, int(is_any.sum()))
    return Moments(transactions.customer[row], transactions.terminal[row], as_of_ms)


def look_up(client: LookupClient, moments: Moments) -> Float64Array:
    """(M, features) answers by gRPC in the order of COLUMNS, NaN where null; a read time for each row."""
    answers = []
    for begin in range(0, len(moments.as_of_ms), ROWS_PER_REQUEST):
        part = slice(begin, begin + ROWS_PER_REQUEST)
        entities = {"customer_id": moments.customer[part].tolist(), "terminal_id": moments.terminal[part].tolist()}
        result = client.lookup(SERVICE, entities, as_of_ms=moments.as_of_ms[part].tolist())
        answers.append(result.to_numpy()[:, [result.names.index(column) for column in COLUMNS]])
    return np.concatenate(answers)


def expect(database: duckdb.DuckDBPyConnection, moments: Moments) -> Float64Array:
    """(M, features) values by DuckDB, in the order of COLUMNS, NaN where null."""
    samples = {"sample": np.arange(len(moments.as_of_ms)), "as_of_ms": moments.as_of_ms}
    database.register("moments", pa.table({**samples, "customer": moments.customer, "terminal": moments.terminal}))
    blocks = []
    for entity in ENTITIES:
        inside = [f"filter (t.event_time_ms >= m.as_of_ms - {days * DAY_MS})" for days in WINDOW_DAYS]
        counts = ", ".join(f"count(t.cents) {window}" for window in inside)
        means = ", ".join(f"sum(t.cents) {window} / nullif(count(t.cents) {window}, 0)" for window in inside)
        rows = database.execute(
            f"""select {counts}, {means}
            from moments m left join transactions t on t.{entity} = m.{entity}
                and t.event_time_ms < m.as_of_ms and t.event_time_ms >= m.as_of_ms - {max(WINDOW_DAYS) * DAY_MS}
            group by m.sample order by m.sample"""
        ).fetchall()
        blocks.append(np.array(rows, dtype=np.float64))
    delay_ms = DELAY_DAYS * DAY_MS
    inside = [f"filter (t.event_time_ms >= m.as_of_ms - {delay_ms + days * DAY_MS})" for days in WINDOW_DAYS]
    shares = ", ".join(f"sum(t.is_fraud) {window} / nullif(count(t.cents) {window}, 0)" for window in inside)
    rows = database.execute(
        f"""select {shares}
        from moments m left join transactions t on t.terminal = m.terminal and t.event_time_ms < m.as_of_ms - {delay_ms}
            and t.event_time_ms >= m.as_of_ms - {delay_ms + max(WINDOW_DAYS) * DAY_MS}
        group by m.sample order by m.sample"""
    ).fetchall()
    blocks.append(np.array(rows, dtype=np.float64))
    return np.concatenate(blocks, axis=1)


def report(
    transactions: Transactions, moments: Moments, answers: Float64Array, expected: Float64Array, figures: Figures
) -> int:
    """Compare and print; 1 when something differs."""
    both_null = np.isnan(answers) & np.isnan(expected)
    is_count = np.array(["_count_" in column for column in COLUMNS])
    close = np.abs(answers - expected) <= RELATIVE_TOLERANCE * np.abs(expected)
    is_equal = both_null | np.where(is_count, answers == expected, close)
    for row, column in np.argwhere(~is_equal)[:10].tolist():
        place = f"customer {moments.customer[row]}, terminal {moments.terminal[row]}, as of {moments.as_of_ms[row]}"
        print(f"MISMATCH {COLUMNS[column]} of {place}: {answers[row, column]}, DuckDB says {expected[row, column]}")
    mean_error = np.nanmax(np.abs(answers - expected)[:, ~is_count], initial=0.0)
    count, mismatches = len(transactions.cents), int((~is_equal).sum())
    print(
        json.dumps(
            {
                "transactions": count,
                "transactions_per_second_produced_and_committed": round(count / math.fsum(figures.stage_seconds)),
                "rows_compared": len(answers),
                "values_compared": answers.size,
                "values_null": int(both_null.sum()),
                "values_not_zero": int(np.count_nonzero(np.nan_to_num(expected))),
                "mismatches": mismatches,
                "largest_difference_of_a_mean_cents": float(mean_error),
                "rows_looked_up_per_second": round(len(answers) / figures.lookup_seconds),
                "redis_used": figures.redis_used,
                "redis_peak": figures.redis_peak,
                "stream_peak_mib": round(figures.stream_peak_mib),
                "server_peak_mib": round(figures.server_peak_mib),
            },
            indent=2,
        )
    )
    return 1 if mismatches else 0


def served_address(server: ServerProcess) -> str:
    """Where the server listens, once it says so."""
    server.wait_until(lambda: "serving project" in server.log_tail(), timeout_s=30.0)
    match = re.search(r"serving project \S+ on (\S+:\d+)", server.log_tail())
    assert match is not None, server.log_tail()
    return match.group(1)


def note_memory(figures: Figures, store: RedisServer, stream: ServerProcess, server: ServerProcess) -> None:
    """What the processes have needed."""
    with redis.Redis.from_url(store.url) as connection:
        memory = connection.info("memory")
    figures.redis_used, figures.redis_peak = memory["used_memory_human"], memory["used_memory_peak_human"]
    figures.stream_peak_mib, figures.server_peak_mib = _peak_mib(stream.pid), _peak_mib(server.pid)


def _peak_mib(pid: int) -> float:
    """Largest resident size of a process so far, MiB."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match.group(1)) / 1024 if match else math.nan


if __name__ == "__main__":
    sys.exit(main())
