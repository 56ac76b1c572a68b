"""EventLog: positions, dates and scans that read no more than they must; time travel and retention."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.errors import CorruptData, InvalidRequest
from featurestore.offline.event_log.compaction import CompactionPolicy, compact
from featurestore.offline.event_log.files import LogFiles
from featurestore.offline.event_log.layout import event_date_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.retention import retain
from featurestore.testing.clock import ManualClock
from tests.offline.event_log.event_logs import (
    BEGIN_MS,
    DAY_MS,
    KINDS,
    TOPIC,
    make_files,
    offsets_of,
    plain_offsets,
    read_of,
    write_commits,
)

ENDS = (30, 60, 100)


@pytest.fixture(params=KINDS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> LogFiles:
    """A log of two partitions with three commits each; ingest times rise by 1, 2 and 3 seconds."""
    made = make_files(request.param, tmp_path)
    for partition in (0, 1):
        write_commits(made, ENDS, partition=partition)
    return made


@pytest.fixture(scope="module")
def times_ms() -> dict[tuple[int, int], int]:
    """Event time of every row, by (partition, offset)."""
    found = {}
    for partition in (0, 1):
        column = read_of(0, 100, partition=partition).rows["event_time_ms"].to_pylist()
        found.update({(partition, offset): time_ms for offset, time_ms in enumerate(column)})
    return found


def test_positions_and_dates_say_what_is_there(files: LogFiles) -> None:
    """Next offset of each partition, and the dates that have rows."""
    log = EventLog.over(files)

    assert log.positions() == {(TOPIC, 0): 100, (TOPIC, 1): 100}
    assert log.dates() == [event_date_of(BEGIN_MS), event_date_of(BEGIN_MS + DAY_MS)]
    assert sum(size.rows for size in log.sizes()) == 200
    assert all(size.files > 0 and size.size_bytes > 0 for size in log.sizes())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    begin=st.none() | st.integers(-DAY_MS, 3 * DAY_MS) | st.sampled_from([0, DAY_MS]),
    length=st.none() | st.integers(0, 3 * DAY_MS) | st.just(DAY_MS),
    known_s=st.none() | st.integers(0, 8),
)
def test_a_scan_has_the_rows_of_its_span_and_no_others(
    times_ms: dict[tuple[int, int], int],
    begin: int | None,
    length: int | None,
    known_s: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Event times in [from, to), ingested before a moment; compared with a filter over all rows."""
    log = _shared_log(tmp_path_factory)
    from_ms = None if begin is None else BEGIN_MS + begin
    to_ms = None if length is None else (from_ms or BEGIN_MS) + length
    known_ms = None if known_s is None else known_s * 1_000

    scanned = offsets_of(log.scan(["partition", "offset"], from_ms=from_ms, to_ms=to_ms, ingested_before_ms=known_ms))

    expected = [
        row
        for row, time_ms in times_ms.items()
        if (from_ms is None or time_ms >= from_ms)
        and (to_ms is None or time_ms < to_ms)
        and (known_ms is None or _ingested_ms(row[1]) < known_ms)
    ]
    assert scanned == sorted(expected)


def test_dates_and_columns_that_are_not_wanted_are_not_read(files: LogFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the files of the span's dates are opened; the answer has the wanted columns in the wanted order."""
    log = EventLog.over(files)
    opened: list[str] = []
    real = EventLog._fragment

    def noted(log: EventLog, path: str) -> object:
        opened.append(path)
        return real(log, path)

    monkeypatch.setattr(EventLog, "_fragment", noted)

    batches = list(log.scan(["card", "offset"], from_ms=BEGIN_MS + DAY_MS))

    assert {path.split("/")[0] for path in opened} == {f"event_date={event_date_of(BEGIN_MS + DAY_MS)}"}
    assert all(batch.schema.names == ["card", "offset"] for batch in batches)


def test_a_scan_up_to_positions_is_reproducible(files: LogFiles) -> None:
    """What a stream had read at some positions can be read again later, exactly."""
    log = EventLog.over(files)

    rows = offsets_of(log.scan(["partition", "offset"], positions={(TOPIC, 0): 45}))

    assert rows == [(0, offset) for offset in range(45)]


def test_a_snapshot_does_not_see_later_commits(files: LogFiles) -> None:
    """Positions and rows of one moment belong together, whatever is written or compacted after it."""
    log = EventLog.over(files)
    snapshot = log.snapshot()
    write_commits(files, [140])
    list(compact(files, ManualClock(), CompactionPolicy(is_full=True), may_overlap=True))

    rows = offsets_of(log.scan(["partition", "offset"], snapshot=snapshot))

    assert snapshot.positions == {(TOPIC, 0): 100, (TOPIC, 1): 100}
    assert rows == [(partition, offset) for partition in (0, 1) for offset in range(100)]
    assert len(offsets_of(log.scan(["partition", "offset"]))) == 240


def test_ingest_times_never_fall_within_a_partition(files: LogFiles) -> None:
    """So the log as of a moment is a prefix of every partition."""
    log = EventLog.over(files)
    rows: list[tuple[int, int]] = []
    for batch in log.scan(["offset", "ingest_time_ms"], positions={(TOPIC, 0): 100}):
        rows += zip(batch["offset"].to_pylist(), batch["ingest_time_ms"].to_pylist(), strict=True)

    ingested = [ingested_ms for _, ingested_ms in sorted(rows)]
    assert np.all(np.diff(ingested) >= 0)
    assert sorted(set(ingested)) == [1_000, 3_000, 6_000]


def test_an_unknown_column_is_refused_with_its_near_names(files: LogFiles) -> None:
    """Before anything is read."""
    with pytest.raises(InvalidRequest, match='has no column "amuont"') as caught:
        EventLog.over(files).scan(["amuont"])

    assert 'did you mean "amount"?' in caught.value.hint


def test_a_directory_without_a_log_is_refused(tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(InvalidRequest, match="there is no event log at"):
        EventLog(tmp_path / "nothing")


def test_an_address_of_an_unknown_file_system_is_refused() -> None:
    """With what to install."""
    with pytest.raises(InvalidRequest, match="is on a file system that is not known here"):
        EventLog("unheard-of://bucket/log")


def test_a_log_of_a_later_layout_is_refused(files: LogFiles) -> None:
    """Its bytes could mean something else."""
    files.replace("_schema.json", b'{"version": 99, "columns": {}}')

    with pytest.raises(CorruptData, match="layout version 99"):
        EventLog.over(files)


def test_retention_drops_whole_dates_and_says_so(files: LogFiles) -> None:
    """Plain readers and ours see none of their rows; positions stay, and late rows of dropped dates are not shown."""
    first, second = EventLog.over(files).dates()
    clock = ManualClock(now_ms=BEGIN_MS + 31 * DAY_MS)
    kept = sum(time_ms >= BEGIN_MS + DAY_MS for time_ms in _event_times(files))

    dropped = retain(files, clock, days=30)

    log = EventLog.over(files)
    assert dropped == [first]
    assert log.dates() == [second]
    assert log.snapshot().kept_from == second
    assert len(plain_offsets(files)) == kept == len(offsets_of(log.scan(["partition", "offset"])))
    assert log.positions() == {(TOPIC, 0): 100, (TOPIC, 1): 100}
    write_commits(files, [200])
    assert log.dates() == [second]
    assert retain(files, clock, days=30) == [first]
    assert retain(files, clock, days=40) == []
    assert log.snapshot().kept_from == second


def test_retention_keeps_today_and_the_days_before(files: LogFiles) -> None:
    """A date is dropped when it is more than so many days before today; no day is not possible."""
    assert retain(files, ManualClock(now_ms=BEGIN_MS + 30 * DAY_MS), days=30) == []
    with pytest.raises(InvalidRequest, match="0 days"):
        retain(files, ManualClock(), days=0)


def test_event_dates_before_1970_and_far_ahead_have_directories(tmp_path: Path) -> None:
    """Floor division, and years of four digits."""
    assert event_date_of(-1) == date(1969, 12, 31)
    assert event_date_of(-62_135_596_800_000) == date(1, 1, 1)
    assert event_date_of(253_402_300_799_999) == date(9999, 12, 31)
    assert event_date_of(BEGIN_MS) - event_date_of(BEGIN_MS - 1) == timedelta(days=1)


def _ingested_ms(offset: int) -> int:
    """Ingest time of the fixture's rows."""
    return 1_000 if offset < ENDS[0] else 3_000 if offset < ENDS[1] else 6_000


def _event_times(files: LogFiles) -> list[int]:
    """Of all rows."""
    return [one for batch in EventLog.over(files).scan(["event_time_ms"]) for one in batch[0].to_pylist()]


_logs: list[EventLog] = []


def _shared_log(factory: pytest.TempPathFactory) -> EventLog:
    """One log for all examples."""
    if not _logs:
        files = make_files("local", factory.mktemp("shared"))
        for partition in (0, 1):
            write_commits(files, ENDS, partition=partition)
        _logs.append(EventLog.over(files))
    return _logs[0]
