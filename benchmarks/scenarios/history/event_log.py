"""event_log: writing, merging and reading a log, beside plain Parquet files of the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.scenarios.history.shapes import SOURCE, handbook_views, labels_of, train
from benchmarks.workload import make_workload
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.schema import EVENT_DATE, log_schema
from featurestore.offline.event_log.upkeep import CompactionPolicy, compact
from featurestore.offline.event_log.writer import PARQUET_OPTIONS, LogWriter, PartitionRows, prepare_log
from featurestore.offline.training_set.histories import EventLogHistory, FileHistory
from featurestore.testing.simulator.tables import transaction_table

PARTITIONS = 4
COLUMNS = ("transaction_id", "card_id", "terminal_id", "amount", "event_time_ms")
REPEATS = 5

Found = TypeVar("Found")


def run(run: Run) -> Result:
    """As many commits as a day has half hours, over the days of the history; then everything is merged."""
    count, commits = run.choose(smoke=4_000, full=1_750_000), run.choose(smoke=6, full=48)
    workload = make_workload(count, cards=max(count // 350, 20), merchants=max(count // 1_750, 40))
    events = transaction_table(workload.population, workload.rows)
    reads = _reads(events, commits)
    rows = [pa.concat_tables([pa.Table.from_batches([read.rows]) for read in each.values()]) for each in reads]

    root, plain = run.directory / "event_log", run.directory / "plain"
    log_s = _seconds(lambda: _write_log(root / SOURCE.name, reads))
    run.say(f"{commits} commits {log_s:.2f} s")
    plain_s = _seconds(lambda: _write_plain(plain, rows))
    lines = [
        Line("Arrow's write_dataset, a file a date and commit", count / plain_s, "rows/s"),
        Line("log: commits of 4 partitions, synced", count / log_s, "rows/s", log_s / plain_s, "Arrow's time"),
    ]
    lines += _scans(run, root / SOURCE.name, plain, f"{commits} commits")
    merge_s = _seconds(lambda: list(compact(place_of(root / SOURCE.name), CompactionPolicy(is_full=True))))
    merged = run.directory / "merged"
    _write_plain(merged, [pa.concat_tables(rows)])
    lines.append(Line("log: merging all of it", count / merge_s, "rows/s"))
    lines += _scans(run, root / SOURCE.name, merged, "merged")
    lines += _training_sets(run, events, root, merged)
    total = sum(int(pc.sum(batch.column(0)).as_py()) for batch in EventLog(root / SOURCE.name).scan(["amount"]))
    require(total == int(pc.sum(events["amount"]).as_py()), "the log's amounts do not add up")
    return Result(
        scenario="event_log",
        question="What does a table cost beside plain files of the same rows?",
        lines=tuple(lines),
        answer_hash=digest([str(total)]),
        checked=f"{count:,} rows: amounts add up, each offset once and in order, training sets equal",
        notes=(
            f"{PARTITIONS} partitions; plain files have the same rows in the same order, and no positions.",
            f"Scans are the best of {REPEATS}, of {len(COLUMNS)} columns of all rows.",
        ),
    )


def _reads(events: pa.Table, commits: int) -> list[dict[tuple[str, int], PartitionRows]]:
    """The rows of each commit by partition, as the flow has them."""
    schema = log_schema(SOURCE)
    partition = np.arange(len(events)) % PARTITIONS
    cuts = np.linspace(0, len(events), commits + 1).astype(np.int64)
    found: list[dict[tuple[str, int], PartitionRows]] = []
    ends = [0] * PARTITIONS
    for low, high in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        reads = {}
        for number in range(PARTITIONS):
            mine = events.take(pa.array(low + np.flatnonzero(partition[low:high] == number)))
            columns = {
                "topic": pa.array([SOURCE.topic] * len(mine)),
                "partition": pa.array(np.full(len(mine), number), pa.int32()),
                "offset": pa.array(np.arange(ends[number], ends[number] + len(mine))),
                "ingest_time_ms": mine["event_time"].cast(pa.int64()),
                "event_time_ms": mine["event_time"].cast(pa.int64()),
            }
            columns |= {name: mine[name] for name in schema.names if name not in columns}
            arrays = [columns[field.name].cast(field.type) for field in schema]
            [batch] = pa.table(arrays, schema=schema).combine_chunks().to_batches()
            reads[SOURCE.topic, number] = PartitionRows(ends[number], ends[number] + len(mine), batch)
            ends[number] += len(mine)
        found.append(reads)
    return found


def _write_log(directory: Path, reads: list[dict[tuple[str, int], PartitionRows]]) -> None:
    """By one writer, as the flow does it."""
    place, places = place_of(directory), list(reads[0])
    prepare_log(place, log_schema(SOURCE), dict.fromkeys(places, ""))
    writer = LogWriter(place, log_schema(SOURCE))
    writer.claim(places)
    for each in reads:
        writer.commit({one: [read] for one, read in each.items()})


def _write_plain(directory: Path, commits: list[pa.Table]) -> None:
    """The same rows by Arrow alone: files by date, which nothing commits and nothing syncs."""
    kind = pads.ParquetFileFormat()
    options = {name: value for name, value in PARQUET_OPTIONS.items() if name != "row_group_size"}
    for number, table in enumerate(commits):
        dates = table["event_time_ms"].cast(pa.timestamp("ms")).cast(pa.date32())
        pads.write_dataset(
            table.append_column(EVENT_DATE, dates),
            directory,
            format=kind,
            partitioning=pads.partitioning(pa.schema([(EVENT_DATE, pa.date32())]), flavor="hive"),
            basename_template=f"part-{number:05d}-{{i}}.parquet",
            existing_data_behavior="overwrite_or_ignore",
            file_options=kind.make_write_options(**options),
        )


def _scans(run: Run, log: Path, plain: Path, what: str) -> list[Line]:
    """All rows of some columns, in order, beside Arrow over the plain files, which keeps no order."""

    def ours() -> int:
        return sum(batch.num_rows for batch in EventLog(log).scan(COLUMNS))

    def theirs() -> int:
        dataset = pads.dataset(plain, format="parquet", partitioning="hive")
        return sum(batch.num_rows for batch in dataset.to_batches(columns=list(COLUMNS)))

    require(ours() == theirs(), "a scan lacks rows")
    ours_s, theirs_s = _best(ours), _best(theirs)
    run.say(f"scan of {what}: {ours_s:.2f} s, plain {theirs_s:.2f} s")
    rows = EventLog(log).row_count
    return [
        Line(f"Arrow's scan, {what}", rows / theirs_s, "rows/s"),
        Line(f"log: scan in order, {what}", rows / ours_s, "rows/s", ours_s / theirs_s, "Arrow's time"),
    ]


def _training_sets(run: Run, events: pa.Table, root: Path, plain: Path) -> list[Line]:
    """Twelve features of every row, from the log and from plain files."""
    labels, views = labels_of(events), handbook_views()
    from_log = train(views, EventLogHistory(root), labels)
    require(from_log.equals(train(views, FileHistory(plain), labels)), "the training sets differ")
    log_s = _best(lambda: train(views, EventLogHistory(root), labels), 3)
    plain_s = _best(lambda: train(views, FileHistory(plain), labels), 3)
    run.say(f"training set: {log_s:.2f} s, plain {plain_s:.2f} s")
    return [
        Line("training set of 12 features from plain files", plain_s, "s"),
        Line("training set of 12 features from the log", log_s, "s", log_s / plain_s, "time from plain files"),
    ]


def _best(work: Callable[[], Found], repeats: int = REPEATS) -> float:
    """Seconds of the fastest of some runs."""
    return min(_seconds(work) for _ in range(repeats))


def _seconds(work: Callable[[], Found]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
