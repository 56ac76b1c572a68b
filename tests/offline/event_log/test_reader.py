"""EventLog: positions, dates and versions; scans that read no more than they must, and the rows of their span alone."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline import position_order
from featurestore.offline.event_log import reader
from featurestore.offline.event_log.address import below, directory_names, place_of
from featurestore.offline.event_log.reader import EventLog, begin_of, by_partition
from featurestore.offline.event_log.table import LogFile
from featurestore.offline.event_log.upkeep import CompactionPolicy, compact, retain, vacuum
from featurestore.offline.event_log.writer import event_date_of
from featurestore.testing.clock import ManualClock
from tests.offline.event_log.event_logs import (
    BEGIN_MS,
    DAY_MS,
    TOPIC,
    offsets_of,
    open_writer,
    read_of,
    rows_up_to,
    write_at,
    write_commits,
)

ENDS = (30, 60, 100)
ROWS = rows_up_to(100) + rows_up_to(100, 1)
FULL = CompactionPolicy(is_full=True)
FIRST_DATE = event_date_of(BEGIN_MS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A log of two partitions with three commits each; ingest times rise by a second."""
    for partition in (0, 1):
        write_commits(tmp_path / "log", ENDS, partition=partition)
    return tmp_path / "log"


@pytest.fixture(scope="module", params=["as written", "merged", "merged in part", "without statistics"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    """Such a log, for many examples."""
    root = tmp_path_factory.mktemp("shared") / "log"
    for partition in (0, 1):
        write_commits(root, ENDS[:2] if request.param == "merged in part" else ENDS, partition=partition)
    if request.param == "without statistics":
        DeltaTable(root).alter.set_table_properties({"delta.dataSkippingNumIndexedCols": "0"})
    if request.param != "as written":
        list(compact(place_of(root), FULL))
    if request.param == "merged in part":
        for partition in (0, 1):
            writer = open_writer(place_of(root), partition)
            writer.commit({(TOPIC, partition): [read_of(60, 100, partition=partition, ingest_time_ms=3_000)]})
    return EventLog(root)


@pytest.fixture(scope="module")
def times_ms() -> dict[tuple[int, int], int]:
    """Event time of every row, by (partition, offset)."""
    found = {}
    for partition in (0, 1):
        column = read_of(0, 100, partition=partition).rows["event_time_ms"].to_pylist()
        found.update({(partition, offset): time_ms for offset, time_ms in enumerate(column)})
    return found


def rows_of(log: EventLog) -> list[tuple[int, int]]:
    """(partition, offset) of all rows that are readable now."""
    return offsets_of(log.scan(["partition", "offset"]))


def test_positions_and_dates_say_what_is_there(root: Path) -> None:
    """Next offset of each partition, and what each date holds."""
    log = EventLog(root)

    assert log.positions() == {(TOPIC, 0): 100, (TOPIC, 1): 100}
    assert log.begins() == {(TOPIC, 0): 0, (TOPIC, 1): 0}
    assert log.incarnations() == {}
    assert log.dates() == [FIRST_DATE, FIRST_DATE + timedelta(days=1)]
    assert sum(size.rows for size in log.sizes()) == log.row_count == log.dataset().count_rows() == 200
    assert [size.files for size in log.sizes()] == [6, 6]
    assert sum(size.size_bytes for size in log.sizes()) == sum(path.stat().st_size for path in root.glob("*/*.parquet"))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    begin=st.none() | st.integers(-DAY_MS, 3 * DAY_MS) | st.sampled_from([0, DAY_MS]),
    length=st.none() | st.integers(0, 3 * DAY_MS) | st.just(DAY_MS),
    known_s=st.none() | st.integers(0, 4),
    date_rows=st.sampled_from([1, 7, 40, 1 << 22]),
)
def test_a_scan_has_the_rows_of_its_span_and_no_others(
    shared: EventLog,
    times_ms: dict[tuple[int, int], int],
    begin: int | None,
    length: int | None,
    known_s: int | None,
    date_rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Event times in [from, to), ingested before a moment, read at once or in parts; against a filter over all rows."""
    monkeypatch.setattr(position_order, "SLICE_ROWS", date_rows)
    from_ms = None if begin is None else BEGIN_MS + begin
    to_ms = None if length is None else (from_ms or BEGIN_MS) + length
    known_ms = None if known_s is None else known_s * 1_000

    batches = list(
        shared.scan(["event_time_ms", "partition", "offset"], from_ms=from_ms, to_ms=to_ms, ingested_before_ms=known_ms)
    )

    expected = [
        row
        for row, time_ms in times_ms.items()
        if (from_ms is None or time_ms >= from_ms)
        and (to_ms is None or time_ms < to_ms)
        and (known_ms is None or _ingested_ms(row[1]) < known_ms)
    ]
    assert offsets_of(iter(batches)) == sorted(expected)
    assert all(batch.num_rows for batch in batches)
    dates = [time_ms // DAY_MS for batch in batches for time_ms in batch["event_time_ms"].to_pylist()]
    assert dates == sorted(dates)


def test_dates_and_columns_that_are_not_wanted_are_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only files that can have wanted rows are opened; the answer has the wanted columns in the wanted order."""
    log = EventLog(root)
    opened: list[LogFile] = []
    real = EventLog._dataset

    def noted(log: EventLog, files: list[LogFile]) -> object:
        opened.extend(files)
        return real(log, files)

    monkeypatch.setattr(EventLog, "_dataset", noted)

    batches = list(log.scan(["card", "offset"], from_ms=BEGIN_MS + DAY_MS, ingested_before_ms=2_000))

    assert {file.event_date for file in opened} == {FIRST_DATE + timedelta(days=1)}
    assert {file.ingest_times_ms for file in opened} == {(1_000, 1_000)}
    assert len(opened) == 2
    assert all(batch.schema.names == ["card", "offset"] for batch in batches)
    opened.clear()
    assert list(log.scan(["offset"], from_ms=BEGIN_MS + 2 * DAY_MS)) == []
    assert list(log.scan(["offset"], to_ms=BEGIN_MS)) == []
    assert opened == []


def test_large_dates_come_in_batches_and_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has later event times than the one before it, and is in order itself."""
    monkeypatch.setattr(position_order, "SLICE_ROWS", 100)
    monkeypatch.setattr(reader, "BATCH_ROWS", 32)
    times_ms = np.random.default_rng(5).integers(BEGIN_MS, BEGIN_MS + DAY_MS, 1_000)
    write_at(tmp_path, times_ms.tolist())

    batches = list(EventLog(tmp_path).scan(["event_time_ms", "offset"]))

    assert max(batch.num_rows for batch in batches) <= 32
    offsets = np.concatenate([batch["offset"].to_numpy() for batch in batches])
    parts = (np.concatenate([batch["event_time_ms"].to_numpy() for batch in batches]) - BEGIN_MS) // (DAY_MS // 10)
    assert sorted(offsets.tolist()) == list(range(1_000))
    assert np.all(np.diff(parts) >= 0)
    assert np.all((np.diff(offsets) > 0) | (np.diff(parts) > 0))


def test_a_version_is_read_as_it_was(root: Path) -> None:
    """By whoever has it open, and by whoever opens it again: whatever is written, merged, dropped and tidied later."""
    log = EventLog(root)
    scan = log.scan(["partition", "offset"])
    first = next(scan)
    write_commits(root, [140])
    list(compact(place_of(root), FULL))
    retain(place_of(root), ManualClock(now_ms=BEGIN_MS + 31 * DAY_MS), days=30)
    list(compact(place_of(root), FULL))
    assert vacuum(place_of(root)) == 0

    assert offsets_of(iter([first, *scan])) == ROWS
    for same in (log, EventLog(root, version=log.version)):
        assert rows_of(same) == ROWS
        assert (same.positions(), same.kept_from) == ({(TOPIC, 0): 100, (TOPIC, 1): 100}, None)
        assert same.table_id == EventLog(root).table_id
    newest = EventLog(root)
    assert newest.version > log.version
    assert newest.positions() == {(TOPIC, 0): 140, (TOPIC, 1): 100}
    assert newest.dates() == [FIRST_DATE + timedelta(days=1)]


def test_a_version_that_never_was_or_is_gone_is_refused(root: Path) -> None:
    """With what to do; the table's own log is cleaned up after a week."""
    newest = EventLog(root).version
    with pytest.raises(InvalidRequest, match=f"has no version 99: its newest is {newest}"):
        EventLog(root, version=99)
    DeltaTable(root).create_checkpoint()
    for record in (root / "_delta_log").glob("*.json"):
        record.unlink()

    with pytest.raises(InvalidRequest, match="has no version 2 any more") as raised:
        EventLog(root, version=2)
    assert "newest version" in raised.value.hint
    assert rows_of(EventLog(root)) == rows_of(EventLog(root, version=newest)) == ROWS


def test_a_version_whose_files_were_deleted_is_named(root: Path) -> None:
    """By the scan that misses them."""
    log = EventLog(root)
    DeltaTable(root).alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
    list(compact(place_of(root), FULL))
    assert vacuum(place_of(root)) == 12

    with pytest.raises(Unavailable, match=f"a file of {FIRST_DATE} of event log .* has gone") as raised:
        rows_of(log)
    assert f"version {log.version} of the table" in raised.value.detail
    assert rows_of(EventLog(root)) == ROWS


def test_ingest_times_say_what_was_known(root: Path) -> None:
    """The log as of a moment is a prefix of every partition."""
    log = EventLog(root)

    for second, end in ((1, 0), (2, 30), (3, 60), (4, 100)):
        known = log.scan(["partition", "offset"], ingested_before_ms=second * 1_000)
        assert offsets_of(known) == rows_up_to(end) + rows_up_to(end, 1)


def test_a_log_from_the_first_offsets_is_complete(root: Path) -> None:
    """Until retention drops dates: from then on it is from the first date that is kept."""
    assert EventLog(root).complete_from_ms() is None

    retain(place_of(root), ManualClock(now_ms=BEGIN_MS + 31 * DAY_MS), days=30)

    log = EventLog(root)
    assert log.kept_from == FIRST_DATE + timedelta(days=1)
    assert log.complete_from_ms() == begin_of(log.kept_from) == BEGIN_MS + DAY_MS


def test_a_log_that_was_begun_late_is_complete_after_its_first_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the end of the newest day that they are about; partitions that begin at 0 say nothing."""
    monkeypatch.setattr(reader, "FIRST_OFFSETS", 10)
    write_at(tmp_path, [BEGIN_MS + 9 * DAY_MS] * 20, partition=1)
    write_at(tmp_path, [BEGIN_MS, *[BEGIN_MS + 2 * DAY_MS] * 9, BEGIN_MS + 5 * DAY_MS], begin=500)
    write_at(tmp_path, [BEGIN_MS + 7 * DAY_MS], begin=511)
    log = EventLog(tmp_path)
    assert log.begins() == {(TOPIC, 0): 500, (TOPIC, 1): 0}
    assert log.complete_from_ms() == BEGIN_MS + 3 * DAY_MS

    list(compact(place_of(tmp_path), FULL))

    assert EventLog(tmp_path).complete_from_ms() == BEGIN_MS + 3 * DAY_MS


def test_an_unknown_column_is_refused_with_its_near_names(root: Path) -> None:
    """Before anything is read."""
    with pytest.raises(InvalidRequest, match='has no column "amuont"') as caught:
        EventLog(root).scan(["amuont"])

    assert 'did you mean "amount"?' in caught.value.hint


def test_a_log_without_commits_is_not_taken_for_an_empty_history(tmp_path: Path) -> None:
    """Whoever computes from it is told; whoever only looks sees that there is nothing."""
    open_writer(place_of(tmp_path))
    log = EventLog(tmp_path)

    assert (log.positions(), log.sizes(), log.dates(), log.complete_from_ms()) == ({}, [], [], None)
    with pytest.raises(InvalidRequest, match="has no commits yet"):
        log.scan(["offset"])


def test_a_table_at_the_same_place_is_another_one(tmp_path: Path) -> None:
    """Its id tells them apart, though versions and positions are the same."""
    write_commits(tmp_path / "log", [10])
    first = EventLog(tmp_path / "log")
    (tmp_path / "log").rename(tmp_path / "moved")
    write_commits(tmp_path / "log", [10])
    second = EventLog(tmp_path / "log")

    assert (first.version, first.positions()) == (second.version, second.positions())
    assert first.table_id != second.table_id
    assert EventLog(tmp_path / "moved").table_id == first.table_id


def test_batches_are_cut_where_partitions_change(tmp_path: Path) -> None:
    """Also where topics do and their partitions are the same."""
    for topic, partition in (("a", 1), ("b", 1), ("b", 2)):
        write_at(tmp_path, [BEGIN_MS] * 3, topic=topic, partition=partition)

    [batch] = EventLog(tmp_path).scan(["topic", "partition", "offset"])

    assert [(place, rows.num_rows) for place, rows in by_partition(batch)] == [
        (("a", 1), 3),
        (("b", 1), 3),
        (("b", 2), 3),
    ]


def test_event_dates_before_1970_and_far_ahead_have_directories(tmp_path: Path) -> None:
    """Floor division, and years of four digits; whoever reads them knows them by the same names."""
    days = [date(1, 1, 1), date(1969, 12, 31), date(1970, 1, 1), date(9999, 12, 31)]
    assert [event_date_of(begin_of(day)) for day in days] == days
    assert [event_date_of(begin_of(day) - 1) for day in days[1:]] == [day - timedelta(days=1) for day in days[1:]]
    write_at(tmp_path, [begin_of(day) + DAY_MS - 1 for day in days])

    assert EventLog(tmp_path).dates() == days
    assert rows_of(EventLog(tmp_path)) == rows_up_to(4)
    assert sorted(DeltaTable(tmp_path).to_pyarrow_table()["event_date"].to_pylist()) == days


def test_addresses_are_put_together_and_listed(root: Path) -> None:
    """A directory is what has a log; options of an address stay behind its path; a URI of a file is a path."""
    assert directory_names(str(root.parent)) == ["log"]
    assert directory_names(str(root / "nothing")) == []
    assert below(str(root.parent), "log") == str(root)
    assert below("s3://bucket/logs/?region=eu-north-1", "a") == "s3://bucket/logs/a?region=eu-north-1"
    assert rows_of(EventLog(root.as_uri())) == ROWS


def _ingested_ms(offset: int) -> int:
    """Ingest time of the fixtures' rows."""
    return 1_000 if offset < ENDS[0] else 2_000 if offset < ENDS[1] else 3_000
