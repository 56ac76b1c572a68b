"""Small files become large ones, old dates go, a person is forgotten: while others write and read, and nothing else."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.table import TableOptimizer
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.clock import SystemClock
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.event_log import upkeep
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.failures import CommitLost
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.table import LogTable
from featurestore.offline.event_log.upkeep import CompactionPolicy, compact, retain, vacuum
from featurestore.offline.event_log.writer import PARQUET_OPTIONS, LogWriter, event_date_of, prepare_log
from featurestore.testing.clock import ManualClock
from tests.offline.event_log.event_logs import (
    BEGIN_MS,
    DAY_MS,
    SCHEMA,
    TOPIC,
    duckdb_delta,
    offsets_of,
    open_writer,
    plain_offsets,
    read_of,
    rows_at,
    rows_up_to,
    write_at,
    write_commits,
)

FULL = CompactionPolicy(is_full=True)
ROWS = rows_up_to(80) + rows_up_to(80, 1)
FIRST_DATE = event_date_of(BEGIN_MS)
MEGABYTE = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A log of two partitions with eight commits each, over two dates."""
    for partition in (0, 1):
        write_commits(tmp_path / "log", range(10, 90, 10), partition=partition)
    return tmp_path / "log"


def content_of(root: Path) -> list[dict[str, Any]]:
    """All columns of all rows, by partition and offset."""
    rows = DeltaTable(root).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: (row["partition"], row["offset"]))


def test_small_files_become_one_for_each_date(root: Path) -> None:
    """With the same rows and values, for plain readers and for ours; in the way that the log's files are written."""
    before, positions = content_of(root), EventLog(root).positions()

    done = list(compact(place_of(root), FULL))

    log = EventLog(root)
    assert [(one.event_date, one.files_before, one.files_after) for one in done] == [
        (FIRST_DATE, 16, 1),
        (FIRST_DATE + timedelta(days=1), 15, 1),
    ]
    assert content_of(root) == before
    assert offsets_of(log.scan(["partition", "offset"])) == ROWS
    assert log.positions() == positions
    assert list(compact(place_of(root), FULL)) == []
    for file in log.files:
        metadata = pq.ParquetFile(root / file.path).metadata
        assert metadata.row_group(0).column(0).compression == str(PARQUET_OPTIONS["compression"]).upper()
        assert file.event_times_ms is not None
        assert file.topics == (TOPIC, TOPIC)


def test_merged_files_are_made_durable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their names and the versions that name them, as those of a writer."""
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda one: synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{one}"), root))
    )
    begin = EventLog(root).version

    list(compact(place_of(root), FULL))

    log = EventLog(root)
    assert {file.path for file in log.files} | {str(Path(file.path).parent) for file in log.files} <= set(synced)
    merges = [version for version in range(begin + 1, log.version + 1) if _is_merge(root, version)]
    assert len(merges) == 2
    assert {f"_delta_log/{version:020d}.json" for version in merges} <= set(synced)


def _is_merge(root: Path, version: int) -> bool:
    """A version names files."""
    return '"add"' in (root / "_delta_log" / f"{version:020d}.json").read_text()


def test_writing_goes_on_after_a_compaction(root: Path) -> None:
    """Of a writer that was there before too; later commits are merged with what is there."""
    writer = open_writer(place_of(root))
    list(compact(place_of(root), FULL))
    writer.commit({(TOPIC, 0): [read_of(80, 90)]})
    list(compact(place_of(root), FULL))
    writer.commit({(TOPIC, 0): [read_of(90, 100)]})

    assert plain_offsets(root) == rows_up_to(100) + rows_up_to(80, 1)


def test_few_files_are_left_as_they_are(root: Path) -> None:
    """Merging costs; as many of one size as the policy says are worth it."""
    version = EventLog(root).version

    assert list(compact(place_of(root), CompactionPolicy(files_min=17))) == []
    assert EventLog(root).version == version
    done = list(compact(place_of(root), CompactionPolicy(files_min=16)))
    assert [(one.files_before, one.files_after < 4) for one in done] == [(16, True)]


def test_a_day_of_small_commits_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged now and then, with classes small enough for a test: few files, all rows, and an end to each merge."""
    monkeypatch.setattr(upkeep, "_SMALLEST_CLASS_BYTES", 8 << 10)
    writer = open_writer(place_of(tmp_path))
    policy = CompactionPolicy(target_bytes=256 << 10)
    rewritten, counts = 0, list[int]()
    for number in range(60):
        times_ms = range(BEGIN_MS + number * 1_000, BEGIN_MS + number * 1_000 + 50)
        writer.commit({(TOPIC, 0): [rows_at(times_ms, number * 50)]})
        if number % 6 == 5:
            for _ in range(10):
                before = {file.path: file.rows for file in EventLog(tmp_path).files}
                done = list(compact(place_of(tmp_path), policy))
                after = {file.path for file in EventLog(tmp_path).files}
                rewritten += sum(rows for path, rows in before.items() if path not in after)
                if not done:
                    break
                assert len(after) < len(before)
            else:
                pytest.fail("merging does not end")
            counts.append(len(after))

    assert plain_offsets(tmp_path) == rows_up_to(3_000)
    assert max(counts) < 16
    assert rewritten < 12 * 3_000


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1_000),
    kilobytes=st.sampled_from([3, 10, 30, 100, 300, 1_000, 3_000]),
    spread=st.floats(1, 4),
    every=st.sampled_from([1, 3, 8, 20]),
)
def test_a_row_is_rewritten_a_few_times(seed: int, kilobytes: int, spread: float, every: int) -> None:
    """A day with a commit each minute, of any size, merged as often as one likes: a few times for each size class."""
    draw = random.Random(seed)
    sizes: list[float] = []
    written = rewritten = 0.0
    for number in range(1_440):
        sizes.append(kilobytes * 1_024 * draw.uniform(1, spread))
        written += sizes[-1]
        while number % every == 0:
            limit = upkeep._worth_merging([int(size) for size in sizes], CompactionPolicy())
            if limit is None:
                break
            merged = _merged([size for size in sizes if size < limit], limit)
            kept = [size for size in sizes if size >= limit]
            assert len(kept) + len(merged) < len(sizes), "a merge that changes nothing would be made for ever"
            rewritten += sum(sum(files) for files in merged if len(files) > 1)
            sizes = [*kept, *(sum(files) for files in merged)]

    assert rewritten < 7 * written
    assert len([size for size in sizes if size < 64 * MEGABYTE]) < 40 + every


def _merged(sizes: list[float], limit: int) -> list[list[float]]:
    """Files as a merge puts them together: into the first one that has room."""
    found: list[list[float]] = []
    for size in sorted(sizes):
        room = next((files for files in found if sum(files) + size <= limit), None)
        if room is None:
            found.append([size])
        else:
            room.append(size)
    return found


def test_two_merges_of_the_same_files_double_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one is made between the look of the first at the table and its end: its files are merged already."""
    real, others = TableOptimizer.compact, [FULL]

    def merge(optimizer: TableOptimizer, *arguments: Any, **named: Any) -> dict[str, Any]:
        if others:
            assert [one.files_after for one in compact(place_of(root), others.pop())] == [1, 1]
        return real(optimizer, *arguments, **named)

    monkeypatch.setattr(TableOptimizer, "compact", merge)

    assert list(compact(place_of(root), FULL)) == []
    assert plain_offsets(root) == ROWS
    assert len(EventLog(root).files) == 2


def test_merges_at_full_speed_double_nothing(tmp_path: Path) -> None:
    """Three of them, each beaten by the others now and then, and a writer that tries again."""
    write_commits(tmp_path, [10])
    is_done = threading.Event()
    merged: list[int] = []

    def merge() -> None:
        while not is_done.is_set():
            with suppress(Unavailable):
                merged.extend(one.files_before for one in compact(place_of(tmp_path), FULL))

    threads = [threading.Thread(target=merge) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        writer, end = open_writer(place_of(tmp_path)), 10
        while end < 110 or not merged:
            with suppress(Unavailable):
                writer.refresh()
                writer.commit({(TOPIC, 0): [read_of(end, end + 10)]})
            end = writer.position((TOPIC, 0)) or 0
    finally:
        is_done.set()
        for thread in threads:
            thread.join()
    list(compact(place_of(tmp_path), FULL))

    assert plain_offsets(tmp_path) == rows_up_to(end)
    assert len(EventLog(tmp_path).files) == 2


def test_a_merge_that_others_are_always_faster_than_gives_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is as it was; it is tried again some other time."""

    def lose(*_: object, **__: object) -> None:
        raise CommitLost("a concurrent transaction")

    monkeypatch.setattr(SystemClock, "sleep", lambda *_: None)
    monkeypatch.setattr(LogTable, "__init__", _later(LogTable.__init__, lose, after=1))
    with pytest.raises(Unavailable, match="is changed by others too often"):
        list(compact(place_of(root), FULL))
    monkeypatch.undo()

    assert plain_offsets(root) == ROWS


def _later(real: Callable[..., None], other: Callable[..., None], *, after: int) -> Callable[..., None]:
    """A function that becomes another one after some calls."""
    left = [after]

    def call(*arguments: Any, **named: Any) -> None:
        left[0] -= 1
        (real if left[0] >= 0 else other)(*arguments, **named)

    return call


def test_columns_that_were_added_later_are_null_in_merged_rows(root: Path) -> None:
    """Files from before and after the change merge."""
    schema = pa.schema([*SCHEMA, ("country", pa.string())])
    prepare_log(place_of(root), schema, {(TOPIC, 0): ""})
    writer = LogWriter(place_of(root), schema)
    writer.claim([(TOPIC, 0)])
    read = read_of(80, 90)
    rows = pa.RecordBatch.from_arrays([*read.rows.columns, pa.array(["SE"] * 10)], schema=schema)
    writer.commit({(TOPIC, 0): [type(read)(80, 90, rows)]})

    list(compact(place_of(root), FULL))

    found = DeltaTable(root).to_pyarrow_table()
    assert (found.num_rows, found["country"].null_count) == (170, 160)
    assert len(EventLog(root).files) == 2


def readers(root: Path) -> dict[str, Callable[[], list[int]]]:
    """Offsets as each of those who read a log sees them."""

    def ours() -> list[int]:
        return [offset for batch in EventLog(root).scan(["offset"]) for offset in batch["offset"].to_pylist()]

    return {
        "ours": ours,
        "delta-rs": lambda: DeltaTable(root).to_pyarrow_table(columns=["offset"])["offset"].to_pylist(),
        "polars": lambda: pl.scan_delta(str(root)).select("offset").collect()["offset"].to_list(),
        "duckdb": lambda: [row[0] for row in duckdb_delta(root, 'SELECT "offset" FROM log')],
    }


def test_nobody_sees_a_row_twice_or_misses_one(tmp_path: Path) -> None:
    """Whoever reads at full speed, while one commits, another merges and a third drops old dates."""
    write_commits(tmp_path, [10])
    is_done = threading.Event()
    errors: list[str] = []
    seen: dict[str, int] = {}

    def read(name: str, look: Callable[[], list[int]]) -> None:
        least = 0
        while not (is_done.is_set() and seen.get(name, 0) > 2):
            offsets = sorted(look())
            if offsets != list(range(len(offsets))) or len(offsets) < least:
                errors.append(f"{name}: {least} rows before, then {offsets}")
                return
            least, seen[name] = len(offsets), seen.get(name, 0) + 1

    def keep() -> None:
        clock = ManualClock(now_ms=BEGIN_MS)
        while not is_done.is_set():
            list(compact(place_of(tmp_path), FULL))
            retain(place_of(tmp_path), clock, days=30)
            clock.advance_ms(1_000)

    threads = [threading.Thread(target=read, args=each) for each in readers(tmp_path).items()]
    threads.append(threading.Thread(target=keep))
    for thread in threads:
        thread.start()
    try:
        writer = open_writer(place_of(tmp_path))
        for end in range(20, 170, 10):
            writer.commit({(TOPIC, 0): [read_of(end - 10, end)]})
    finally:
        is_done.set()
        for thread in threads:
            thread.join()

    assert errors == []
    assert sorted(seen) == ["delta-rs", "duckdb", "ours", "polars"]
    assert plain_offsets(tmp_path) == rows_up_to(160)


def test_retention_drops_whole_dates_and_says_so(root: Path) -> None:
    """Nobody sees their rows; positions stay; late rows are hidden from ours, and dropped by the next run."""
    second = FIRST_DATE + timedelta(days=1)
    clock = ManualClock(now_ms=BEGIN_MS + 31 * DAY_MS)
    kept = sum(row["event_date"] == second for row in content_of(root))

    assert retain(place_of(root), clock, days=30) == [FIRST_DATE]

    log = EventLog(root)
    assert (log.dates(), log.kept_from) == ([second], second)
    assert len(plain_offsets(root)) == kept == log.row_count == len(offsets_of(log.scan(["partition", "offset"])))
    assert log.positions() == {(TOPIC, 0): 80, (TOPIC, 1): 80}
    write_commits(root, [200])
    assert EventLog(root).dates() == [second]
    assert {row["event_date"] for row in content_of(root)} == {FIRST_DATE, second}
    assert retain(place_of(root), clock, days=30) == [FIRST_DATE]
    assert {row["event_date"] for row in content_of(root)} == {second}


def test_the_first_date_that_is_kept_never_falls(root: Path) -> None:
    """Whoever keeps more days later cannot have back what is gone, and is not told that it is there."""
    clock = ManualClock(now_ms=BEGIN_MS + 31 * DAY_MS)
    retain(place_of(root), clock, days=30)
    version = EventLog(root).version

    assert retain(place_of(root), clock, days=40) == []
    clock.set_now_ms(BEGIN_MS)
    assert retain(place_of(root), clock, days=1) == []

    assert EventLog(root).kept_from == FIRST_DATE + timedelta(days=1)
    assert EventLog(root).version == version, "nothing new, no version"


def test_retention_keeps_today_and_the_days_before(root: Path) -> None:
    """A date is dropped when it is more than so many days before today; no day is not possible."""
    assert retain(place_of(root), ManualClock(now_ms=BEGIN_MS + 30 * DAY_MS), days=30) == []
    with pytest.raises(InvalidRequest, match="0 days"):
        retain(place_of(root), ManualClock(), days=0)
    assert EventLog(root).dates() == [FIRST_DATE, FIRST_DATE + timedelta(days=1)]


def test_what_is_written_while_dates_are_dropped_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late rows of the very dates too, until the next run; and the writer goes on."""
    writer = open_writer(place_of(root))
    real, ends = DeltaTable.delete, [90]

    def delete(table: DeltaTable, *arguments: Any, **named: Any) -> dict[str, Any]:
        if ends:
            writer.commit({(TOPIC, 0): [read_of(80, ends.pop())]})
        return real(table, *arguments, **named)

    monkeypatch.setattr(DeltaTable, "delete", delete)
    assert retain(place_of(root), ManualClock(now_ms=BEGIN_MS + 31 * DAY_MS), days=30) == [FIRST_DATE]
    writer.commit({(TOPIC, 0): [read_of(90, 95)]})

    times_ms = read_of(0, 95).rows["event_time_ms"].to_pylist()
    late = [(0, offset) for offset in range(95) if times_ms[offset] >= BEGIN_MS + DAY_MS]
    log = EventLog(root)
    assert [row for row in offsets_of(log.scan(["partition", "offset"])) if row[0] == 0] == late
    assert log.positions() == {(TOPIC, 0): 95, (TOPIC, 1): 80}


def test_a_person_is_forgotten_beside_a_writer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the table's own means: the rows are gone, positions stay, nothing is read again, and files go in a week."""
    card = read_of(0, 80).rows["card"].to_pylist()[1]
    assert card is not None
    writer = open_writer(place_of(root), 0, 1)
    made, left = LogTable.commit, [1]

    def commit(table: LogTable, *content: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            DeltaTable(root).delete(f"card = '{card}'")
        made(table, *content)

    monkeypatch.setattr(LogTable, "commit", commit)
    writer.commit({(TOPIC, 0): [read_of(80, 90)]})
    DeltaTable(root).delete(f"card = '{card}'")
    writer.commit({(TOPIC, 1): [read_of(80, 85, partition=1)]})

    kept = [
        (partition, offset)
        for partition, end in ((0, 90), (1, 80))
        for offset, other in enumerate(read_of(0, end, partition=partition).rows["card"].to_pylist())
        if other != card
    ]
    log = EventLog(root)
    assert plain_offsets(root) == offsets_of(log.scan(["partition", "offset"])) == [*kept, *rows_up_to(85, 1)[80:]]
    assert log.positions() == {(TOPIC, 0): 90, (TOPIC, 1): 85}
    assert (writer.position((TOPIC, 0)), writer.position((TOPIC, 1))) == (90, 85)
    DeltaTable(root).alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
    assert vacuum(place_of(root)) > 0
    cards = [pq.read_table(path, partitioning=None)["card"].to_pylist() for path in root.glob("event_date=*/*.parquet")]
    assert card not in [each for column in cards for each in column]


def test_dates_are_merged_and_dropped_by_their_own_names(tmp_path: Path) -> None:
    """Long before 1970, and far ahead."""
    days = [date(1900, 1, 1), date(1969, 12, 31), date(9999, 12, 31)]
    times_ms = [(day.toordinal() - date(1970, 1, 1).toordinal()) * DAY_MS for day in days]
    for begin in (0, 3):
        write_at(tmp_path, times_ms, begin)

    assert [one.event_date for one in compact(place_of(tmp_path), FULL)] == days
    assert retain(place_of(tmp_path), ManualClock(now_ms=0), days=1) == days[:1]

    assert plain_offsets(tmp_path) == [(0, 1), (0, 2), (0, 4), (0, 5)]
    assert EventLog(tmp_path).dates() == days[1:]
