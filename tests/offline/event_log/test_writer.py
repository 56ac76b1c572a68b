"""Each offset exactly once, whatever crashes: the commit protocol on all kinds of file systems."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.core.spec import SourceSpec
from featurestore.errors import InvalidRequest, StoreRolledBack, WriterFenced
from featurestore.offline.event_log.files import LogFiles
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.schema import log_schema
from featurestore.offline.event_log.snapshot import take_snapshot
from featurestore.offline.event_log.writer import PartitionRows, PartitionWriter, prepare_log
from tests.offline.event_log.event_logs import (
    BEGIN_MS,
    DAY_MS,
    KINDS,
    PAYMENTS,
    SCHEMA,
    TOPIC,
    Crash,
    FaultyFiles,
    make_files,
    offsets_of,
    plain_offsets,
    read_of,
    write_commits,
)

ENDS = (40, 90)
"""Ends of the commits of a run; each spans several event dates."""


@pytest.fixture(params=KINDS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> LogFiles:
    """An empty log."""
    return make_files(request.param, tmp_path)


def rows_up_to(end: int, partition: int = 0) -> list[tuple[int, int]]:
    """All (partition, offset) below an end."""
    return [(partition, offset) for offset in range(end)]


def operations_of_a_run(kind: str, directory: Path) -> int:
    """How many changes of the file system a run makes."""
    counting = FaultyFiles(make_files(kind, directory), None, is_done=False)
    write_commits(counting, ENDS)
    return counting.operations


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_at_any_step_leaves_each_offset_exactly_once(kind: str, tmp_path: Path) -> None:
    """Before recovery nothing is doubled and our reader sees a prefix; after it and a second run, everything once."""
    count = operations_of_a_run(kind, tmp_path / "count")
    assert count > 15

    for crash_at in range(count):
        for is_done in (False, True):
            files = make_files(kind, tmp_path / f"{crash_at}-{is_done}")
            with pytest.raises(Crash):
                write_commits(FaultyFiles(files, crash_at, is_done=is_done), ENDS)

            crashed = plain_offsets(files)
            assert sorted(set(crashed)) == crashed
            end = take_snapshot(files).positions.get((TOPIC, 0), 0)
            assert end in (0, *ENDS)
            assert set(rows_up_to(end)) <= set(crashed)
            if take_snapshot(files).positions:
                assert offsets_of(EventLog.over(files).scan(["partition", "offset"])) == rows_up_to(end)
            write_commits(files, [*ENDS, 100])

            assert plain_offsets(files) == rows_up_to(100)
            assert take_snapshot(files).positions == {(TOPIC, 0): 100}
            assert [file.path for file in files.find("_staging")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_during_recovery_is_recovered_from(kind: str, tmp_path: Path) -> None:
    """Two crashes in a row, each at any step that finds staged files."""
    count = operations_of_a_run(kind, tmp_path / "count")
    for first in range(6, count, 4):
        for second in range(4):
            files = make_files(kind, tmp_path / f"{first}-{second}")
            with pytest.raises(Crash):
                write_commits(FaultyFiles(files, first, is_done=True), ENDS)
            with pytest.raises(Crash):
                write_commits(FaultyFiles(files, second, is_done=True), [*ENDS, 95])
            write_commits(files, [*ENDS, 100])

            assert plain_offsets(files) == rows_up_to(100)


def test_rows_land_in_the_date_of_their_event(files: LogFiles) -> None:
    """Late rows too: the file's directory is the UTC date of its rows' event time."""
    write_commits(files, [100])
    write_commits(files, [120])

    found = take_snapshot(files).files
    assert len({file.event_date for file in found}) == 2
    for file in found:
        table = _table(files, file.path)
        days = {time_ms // DAY_MS for time_ms in table["event_time_ms"].to_pylist()}
        assert {(file.event_date.toordinal() - 719_163)} == days


def test_replayed_reads_are_written_once(files: LogFiles) -> None:
    """Reads may begin below the position, whole or in part; what is there already is skipped."""
    write_commits(files, [30])
    writer = PartitionWriter(files, SCHEMA, TOPIC, 0)
    writer.open()

    assert writer.commit([read_of(0, 20), read_of(20, 30)]) == 0
    assert writer.commit([read_of(10, 25), read_of(25, 60)]) == 30

    assert plain_offsets(files) == rows_up_to(60)


def test_reads_that_begin_behind_the_position_are_refused(files: LogFiles) -> None:
    """A gap would never be noticed again."""
    write_commits(files, [30])
    writer = PartitionWriter(files, SCHEMA, TOPIC, 0)
    writer.open()

    with pytest.raises(StoreRolledBack, match="begin at offset 31, the event log ends at 30"):
        writer.commit([read_of(31, 40)])


def test_a_newer_writer_stops_the_older_one(files: LogFiles) -> None:
    """The older one's next commit fails and leaves nothing behind; nothing is lost or doubled between the two."""
    prepare_log(files, SCHEMA)
    older, newer = (PartitionWriter(files, SCHEMA, TOPIC, 0) for _ in range(2))
    older.open()
    older.commit([read_of(0, 30)])
    newer.open()

    with pytest.raises(WriterFenced, match="another writer took over partition payments-00000"):
        older.commit([read_of(30, 50)])
    newer.commit([read_of(30, 60)])

    assert plain_offsets(files) == rows_up_to(60)
    assert [file.path for file in files.find("_staging")] == []


def test_a_zombie_that_has_staged_its_files_cannot_commit_them(files: LogFiles) -> None:
    """The newer writer deletes what is staged, having taken the number that the zombie's record needs."""
    prepare_log(files, SCHEMA)
    zombie = PartitionWriter(_OpensAnother(files), SCHEMA, TOPIC, 0)
    zombie.open()

    with pytest.raises(WriterFenced):
        zombie.commit([read_of(0, 30)])

    assert plain_offsets(files) == rows_up_to(45)


def test_a_zombie_whose_rows_another_has_published_stops(files: LogFiles) -> None:
    """It slept between its commit record and the publication: its rows are in the log, and it must not go on."""
    prepare_log(files, SCHEMA)
    zombie = PartitionWriter(_OpensAnother(files, before="publishing"), SCHEMA, TOPIC, 0)
    zombie.open()

    with pytest.raises(WriterFenced):
        zombie.commit([read_of(0, 30)])

    assert plain_offsets(files) == rows_up_to(45)


def test_opening_again_does_not_take_over_from_a_newer_writer(files: LogFiles) -> None:
    """A process opens again after its file system did not answer; it may have been replaced meanwhile."""
    prepare_log(files, SCHEMA)
    older, newer = (PartitionWriter(files, SCHEMA, TOPIC, 0) for _ in range(2))
    older.open()
    older.open()
    newer.open()

    with pytest.raises(WriterFenced):
        older.open()
    newer.commit([read_of(0, 10)])


class _OpensAnother(FaultyFiles):
    """Lets another writer take over in the middle of a commit."""

    def __init__(self, files: LogFiles, *, before: str = "committing") -> None:
        super().__init__(files, None, is_done=False)
        self._real = files
        self._before = before

    def create(self, path: str, content: bytes) -> bool:
        if self._before == "committing" and path.endswith("1.json"):
            write_commits(self._real, [45])
        return super().create(path, content)

    def lock(self, name: str) -> AbstractContextManager[None]:
        if self._before == "publishing" and name == "publish":
            self._before = ""
            write_commits(self._real, [45])
        return super().lock(name)


def test_offsets_without_rows_are_passed(files: LogFiles) -> None:
    """Dead letters, deleted records and transaction markers: the position moves, and a restart does not read them."""
    prepare_log(files, SCHEMA)
    writer = PartitionWriter(files, SCHEMA, TOPIC, 0)
    writer.open()
    writer.commit([PartitionRows(0, 500, read_of(0, 1).rows.slice(1))])

    assert take_snapshot(files).positions == {(TOPIC, 0): 500}
    assert plain_offsets(files) == []


def test_an_opened_partition_that_was_never_read_has_no_position(files: LogFiles) -> None:
    """Its first read still begins at the oldest record that the source has."""
    prepare_log(files, SCHEMA)
    for _ in range(2):
        writer = PartitionWriter(files, SCHEMA, TOPIC, 0)
        writer.open()
        assert writer.position is None

    assert take_snapshot(files).positions == {}


def test_old_commit_records_are_deleted(files: LogFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones are kept, so that positions and fencing work on."""
    monkeypatch.setattr("featurestore.offline.event_log.commits.RECORDS_KEPT", 5)
    monkeypatch.setattr("featurestore.offline.event_log.commits._PRUNE_EVERY", 4)
    write_commits(files, range(2, 42, 2))

    records = files.find("_commits/payments-00000")
    assert 5 <= len(records) <= 9
    write_commits(files, [50])
    assert plain_offsets(files) == rows_up_to(50)


def test_a_column_that_changes_its_type_is_refused(files: LogFiles) -> None:
    """With the name of the column and what to do."""
    prepare_log(files, SCHEMA)
    changed = _with_column("amount", "rate")

    with pytest.raises(InvalidRequest, match='column "amount" is double now, the event log has it as int64'):
        prepare_log(files, log_schema(changed))


def test_a_source_column_with_the_name_of_a_log_column_is_refused() -> None:
    """`offset` is where a record is, and nothing else."""
    with pytest.raises(InvalidRequest, match='column "offset" of source "payments" has the name'):
        log_schema(_with_column("offset", "amount"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.integers(1, 40), st.none() | st.integers(0, 12), st.booleans()), min_size=1, max_size=8)
)
def test_any_sequence_of_commits_and_crashes_keeps_each_offset_once(
    steps: list[tuple[int, int | None, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the sizes of the commits and wherever the crashes."""
    files = make_files("local", tmp_path_factory.mktemp("steps"))
    end = 0
    for count, crash_at, is_done in steps:
        end += count
        try:
            write_commits(FaultyFiles(files, crash_at, is_done=is_done), [end])
        except Crash:
            seen = plain_offsets(files)
            assert sorted(set(seen)) == seen
    write_commits(files, [end])

    assert plain_offsets(files) == rows_up_to(end)


def test_values_and_nulls_come_back_as_they_were_sent(files: LogFiles) -> None:
    """Typed columns; the payload's nulls are nulls."""
    write_commits(files, [100])

    rows = {}
    for file in take_snapshot(files).files:
        for row in _table(files, file.path).to_pylist():
            rows[row["offset"]] = row
    row = rows[13 * 7]
    assert (None, None) == (row["card"], row["is_declined"])
    assert None is rows[55]["rate"]
    assert None is rows[10]["amount"]
    assert (36, 4.5, True) == (rows[36]["amount"], rows[36]["rate"], rows[36]["is_declined"])
    assert f"p-0-{36}" == rows[36]["payment_id"]
    assert rows[36]["card"].endswith("-é")
    assert round(rows[36]["paid_at"].timestamp() * 1_000) == rows[36]["event_time_ms"] >= BEGIN_MS


def _with_column(name: str, like: str) -> SourceSpec:
    """The payments source with another column of that name and the type of an existing one."""
    import dataclasses

    kind = PAYMENTS.column(like)
    assert kind is not None
    others = tuple(column for column in PAYMENTS.columns if column.name != name)
    return dataclasses.replace(PAYMENTS, columns=(*others, dataclasses.replace(kind, name=name)))


def _table(files: LogFiles, path: str):  # type: ignore[no-untyped-def]  # pyarrow has no types
    """A data file's rows."""
    import pyarrow.parquet as pq

    with files.arrow.open_input_file(path) as source:
        return pq.read_table(source)
