"""Logs of the release before tables: made tables where they stand, whole, once, and however often that is broken off.

before_tables/ was written by that release. Partition 0 has offsets 0 to 17, partition 1 has 0 to 35: the last six of
them are a commit that was made and not shown yet. Files of a commit that was never made, of 36 to 39, must not come in.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable

from featurestore.cli.processes.event_log import command
from featurestore.errors import CorruptData, InvalidRequest, Unavailable, WriterFenced
from featurestore.offline.event_log.address import TablePlace, place_of
from featurestore.offline.event_log.adoption import Adopted, adopt
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.table import LogTable, create_table
from featurestore.offline.event_log.upkeep import CompactionPolicy, compact, retain, vacuum
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
    rows_up_to,
)

BEFORE = Path(__file__).parent / "before_tables"
ROWS = rows_up_to(18) + rows_up_to(36, 1)
POSITIONS = {(TOPIC, 0): 18, (TOPIC, 1): 36}
ADOPTED = Adopted(files=8, rows=54, partitions=2)
FULL = CompactionPolicy(is_full=True)

INGESTED_MS = {0: [(5, 1_000), (12, 3_000), (18, 4_000)], 1: [(20, 1_000), (30, 3_000), (36, 5_000)]}
"""Ends of each partition's commits, and the ingest time of their rows."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Such a log, to be imported."""
    shutil.copytree(BEFORE, tmp_path / "log")
    return tmp_path / "log"


def expected() -> list[dict[str, Any]]:
    """All rows with all columns, by partition and offset, as they would be written today."""
    rows: list[dict[str, Any]] = []
    for partition, commits in INGESTED_MS.items():
        begin = 0
        for end, ingest_time_ms in commits:
            rows += read_of(begin, end, partition=partition, ingest_time_ms=ingest_time_ms).rows.to_pylist()
            begin = end
    return rows


def by_place(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by partition and offset, without the date of their file."""
    for row in rows:
        row.pop("event_date", None)
    return sorted(rows, key=lambda row: (row["partition"], row["offset"]))


def assert_whole(root: Path) -> None:
    """Everything has come in, once, and what is known of it."""
    log = EventLog(root)
    assert log.positions() == POSITIONS
    assert log.begins() == {(TOPIC, 0): 0, (TOPIC, 1): 0}
    assert log.incarnations() == {(TOPIC, 0): "first", (TOPIC, 1): "first"}
    assert log.kept_from == date(2026, 8, 24)
    assert log.schema == SCHEMA
    assert by_place(pa.Table.from_batches(list(log.scan(log.schema.names))).to_pylist()) == expected()
    assert plain_offsets(root) == ROWS


def test_every_row_comes_in_once_with_its_values(root: Path) -> None:
    """And positions, topics and retention with it; the old log's own files have gone, and no row was copied."""
    data = {path.stat().st_ino for path in root.rglob("*.parquet") if "_staging" not in path.parts}

    assert adopt(place_of(root)) == ADOPTED

    assert_whole(root)
    assert sorted(path.name for path in root.iterdir()) == [
        "_delta_log",
        "event_date=2026-09-22",
        "event_date=2026-09-23",
    ]
    assert data < {path.stat().st_ino for path in root.rglob("*.parquet")}


def test_others_read_it_by_their_own_means(root: Path) -> None:
    """With the types of today: microseconds, and the date as a column."""
    adopt(place_of(root))

    table = DeltaTable(root).to_pyarrow_table()
    assert by_place(table.to_pylist()) == expected()
    assert table.schema.field("paid_at").type == pa.timestamp("us", tz="UTC")
    frame = pl.scan_delta(str(root)).collect()
    assert by_place(frame.to_dicts()) == expected()
    wrong = frame.filter(pl.col("paid_at").dt.date() != pl.col("event_date"))
    assert wrong.height == 0
    counted = duckdb_delta(root, 'SELECT count(*), sum("offset"), min(epoch_ms(paid_at) - event_time_ms) FROM log')
    assert counted == [(54, 17 * 9 + 35 * 18, 0)]


def test_a_writer_goes_on_from_it(root: Path) -> None:
    """From its positions; then files of both releases are merged, dropped and tidied as any."""
    adopt(place_of(root))
    writer = open_writer(place_of(root), 0, 1)
    assert {(TOPIC, number): writer.position((TOPIC, number)) for number in (0, 1)} == POSITIONS
    writer.commit({(TOPIC, number): [read_of(10, 50, partition=number)] for number in (0, 1)})

    for _ in compact(place_of(root), FULL):
        rows = by_place(DeltaTable(root).to_pyarrow_table().to_pylist())
        assert rows == by_place([*expected(), *read_of(18, 50).rows.to_pylist(), *_second(36, 50)])
    assert len(EventLog(root).files) == 2
    DeltaTable(root).alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
    assert vacuum(place_of(root)) == 8 + 2
    assert offsets_of(EventLog(root).scan(["partition", "offset"])) == rows_up_to(50) + rows_up_to(50, 1)
    assert retain(place_of(root), ManualClock(now_ms=BEGIN_MS + 31 * DAY_MS), days=30) == [date(2026, 9, 22)]
    with pytest.raises(WriterFenced):
        _after_another(root, writer.refresh)


def _second(begin: int, end: int) -> list[dict[str, Any]]:
    """Rows of the second partition."""
    return list(read_of(begin, end, partition=1).rows.to_pylist())


def _after_another(root: Path, work: Callable[[], None]) -> None:
    """Something that is done when another writer has come."""
    open_writer(place_of(root), 1)
    work()


def test_a_span_of_it_is_read_as_of_any_log(root: Path) -> None:
    """By event time and ingest time; files from before have their statistics too."""
    adopt(place_of(root))
    log = EventLog(root)
    assert all(file.offsets and file.event_times_ms and file.ingest_times_ms and file.topics for file in log.files)

    for from_ms, to_ms, known_ms in ((BEGIN_MS + DAY_MS, None, None), (None, BEGIN_MS + 9_999_999, 3_001), (0, 1, 1)):
        scanned = log.scan(["partition", "offset"], from_ms=from_ms, to_ms=to_ms, ingested_before_ms=known_ms)
        assert offsets_of(scanned) == [
            (row["partition"], row["offset"])
            for row in expected()
            if (from_ms is None or row["event_time_ms"] >= from_ms)
            and (to_ms is None or row["event_time_ms"] < to_ms)
            and (known_ms is None or row["ingest_time_ms"] < known_ms)
        ]


def test_it_is_imported_once(root: Path) -> None:
    """The second time there is nothing to import, and nothing happens."""
    adopt(place_of(root))
    version = EventLog(root).version

    for directory in (root, root.parent / "nothing"):
        with pytest.raises(InvalidRequest, match=r"there is no log at .* that could be imported"):
            adopt(place_of(directory))
    assert EventLog(root).version == version


def test_nobody_uses_it_before(root: Path) -> None:
    """Readers, writers and upkeep say what to do; nothing of it is changed."""
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    uses: list[Callable[[TablePlace], object]] = [
        lambda place: EventLog(place.uri),
        open_writer,
        lambda place: list(compact(place)),
        lambda place: retain(place, ManualClock(), days=1),
        vacuum,
    ]
    for use in uses:
        with pytest.raises(InvalidRequest, match="was written before it was a Delta table") as raised:
            use(place_of(root))
        assert f"`featurestore event-log import {root}`" in raised.value.hint
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_file_that_a_merge_has_left_behind_doubles_nothing(root: Path) -> None:
    """It is covered by a larger one; the merge was broken off, or the disk could not exchange them in one step."""
    for path in sorted(root.glob("event_date=*/part-payments-00001-*.parquet")):
        content = path.read_bytes()
        for begin, end in ((0, 20), (20, 30), (7, 8)):
            (path.parent / f"part-payments-00001-{begin:020d}-{end:020d}.parquet").write_bytes(content)

    assert adopt(place_of(root)) == ADOPTED

    assert_whole(root)


def test_files_of_a_writer_that_was_overtaken_do_not_come_in(root: Path) -> None:
    """They have the number of a commit, and another writer's token: it was that one who made the commit."""
    staging = root / "_staging" / "payments-00001"
    for path in list(staging.glob(f"{5:020d}-*.parquet")):
        shutil.copy(path, staging / f"{4:020d}-0123456789abcdef-{path.name[-18:]}")
    assert len(list(staging.glob(f"{4:020d}-0123*"))) == 2

    assert adopt(place_of(root)) == ADOPTED

    assert_whole(root)


def test_files_that_overlap_are_not_imported(root: Path) -> None:
    """Two merges at once on a store without locks; silence would double rows."""
    [path] = root.glob("event_date=2026-09-22/part-payments-00001-*.parquet")
    shutil.copy(path, path.parent / f"part-payments-00001-{25:020d}-{33:020d}.parquet")

    with pytest.raises(CorruptData, match="hold some of the same offsets"):
        adopt(place_of(root))
    assert not (root / "_delta_log").exists()


@pytest.mark.parametrize("name", ["_schema.json", "_retention.json", "_incarnations.json", "_commits"])
def test_a_record_that_cannot_be_read_is_an_error(root: Path, name: str) -> None:
    """Before anything is deleted."""
    path = root / name if name.endswith("json") else min((root / name).rglob("*.json"))
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    before = sorted(root.rglob("*.json"))

    with pytest.raises(CorruptData):
        adopt(place_of(root))
    assert set(before) <= set(root.rglob("*.json"))
    path.write_bytes(content)
    adopt(place_of(root))

    assert_whole(root)


def test_a_data_file_that_is_damaged_is_an_error(root: Path) -> None:
    """Nothing has come in; the old log is as it was but for names."""
    [path] = root.glob("event_date=2026-09-22/part-payments-00001-*.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:-50])

    with pytest.raises(CorruptData):
        adopt(place_of(root))
    path.write_bytes(content)
    adopt(place_of(root))

    assert_whole(root)


def test_a_log_of_another_layout_is_refused(root: Path) -> None:
    """Its bytes could mean something else."""
    (root / "_schema.json").write_text('{"version": 99, "columns": {}}')

    with pytest.raises(CorruptData, match="layout version 99"):
        adopt(place_of(root))


def test_two_imports_at_once_are_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one to commit is told so, and nothing is there twice."""
    made, others = LogTable.commit, [root]

    def commit(table: LogTable, *content: Any) -> None:
        if others:
            adopt(place_of(others.pop()))
        made(table, *content)

    monkeypatch.setattr(LogTable, "commit", commit)
    with pytest.raises(Unavailable, match="is imported by another process"):
        adopt(place_of(root))

    assert_whole(root)


def test_what_has_come_in_is_durable_before_the_old_log_goes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of power leaves one of them: every version of the table, and every name of a file."""
    synced: list[str] = []

    def note(descriptor: int) -> None:
        if (root / "_commits" / "payments-00001").exists():
            synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), root))

    monkeypatch.setattr(os, "fsync", note)
    adopt(place_of(root))

    versions = [f"_delta_log/{version:020d}.json" for version in range(EventLog(root).version + 1)]
    assert len(versions) == 3
    assert {*versions, "_delta_log", ".", "event_date=2026-09-22", "event_date=2026-09-23"} <= set(synced)


class Crash(BaseException):
    """The process ends."""


class Steps:
    """Counts everything that an import does to a disk, and ends the process before or after one of them.

    Args:
        crash_at: number of the step; None: none.
        is_done: after it.
    """

    def __init__(self, crash_at: int | None, *, is_done: bool) -> None:
        self.count = 0
        self._crash_at = crash_at
        self._is_done = is_done

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same step, counted."""

        def step(*arguments: Any, **named: Any) -> Any:
            number, self.count = self.count, self.count + 1
            if number == self._crash_at and not self._is_done:
                raise Crash
            answer = work(*arguments, **named)
            if number == self._crash_at:
                raise Crash
            return answer

        return step

    def adopt(self, root: Path) -> None:
        """An import whose steps are counted."""
        place = place_of(root)
        files = _Files(place.files, self)
        watched = TablePlace(place.uri, place.address, place.options, files, place.directory)
        with (
            mock.patch.object(LogTable, "commit", self.around(LogTable.commit)),
            mock.patch.object(LogTable, "set_partitions", self.around(LogTable.set_partitions)),
            mock.patch(f"{adopt.__module__}.create_table", self.around(create_table)),
        ):
            adopt(watched)


class _Files:
    """Files whose changes are counted."""

    def __init__(self, files: Any, steps: Steps) -> None:
        self._files = files
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._files, name)
        changes = ("create_dir", "move", "delete_file", "delete_dir", "delete_dir_contents")
        return self._steps.around(found) if name in changes else found


def test_an_import_that_ends_at_any_step_can_be_run_again(tmp_path: Path) -> None:
    """With the same result; until it has come to its end nobody can write, and what is read is all or nothing."""
    shutil.copytree(BEFORE, tmp_path / "count")
    counting = Steps(None, is_done=False)
    counting.adopt(tmp_path / "count")
    assert_whole(tmp_path / "count")
    assert counting.count > 12

    for crash_at in range(counting.count):
        for is_done in (False, True):
            root = tmp_path / f"{crash_at}-{is_done}"
            shutil.copytree(BEFORE, root)
            with pytest.raises(Crash):
                Steps(crash_at, is_done=is_done).adopt(root)

            if (root / "_delta_log").exists():
                assert plain_offsets(root) in ([], ROWS)
            if (root / "_schema.json").exists():
                with pytest.raises(InvalidRequest, match="event-log import"):
                    open_writer(place_of(root))
                adopt(place_of(root))
            assert_whole(root)
            assert not [path for path in root.iterdir() if path.name.endswith(".json")]
            open_writer(place_of(root)).commit({(TOPIC, 0): [read_of(0, 20)]})
            assert plain_offsets(root) == rows_up_to(20) + rows_up_to(36, 1)


def test_the_command_imports_a_directory(root: Path) -> None:
    """And says what came in; the second time it says that there is nothing."""
    done = CliRunner().invoke(command, ["import", str(root)])
    again = CliRunner().invoke(command, ["import", str(root)])

    assert (done.exit_code, done.output) == (0, f"{root}: 54 rows in 8 files, 2 partitions\n")
    assert isinstance(again.exception, InvalidRequest)
    assert_whole(root)
    shown = CliRunner().invoke(command, ["show", "--event-log", str(root.parent)]).output
    assert "payments[1]  next offset 36" in shown
    assert "event dates before 2026-08-24 were dropped" in shown
