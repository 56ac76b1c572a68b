"""Rows and positions in one commit; what was read again, a disk that refuses, columns that are added."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from featurestore.core.spec import SourceSpec, ValueType
from featurestore.errors import InvalidRequest, StoreRolledBack, Unavailable, WriterFenced
from featurestore.offline.event_log import table as log_table
from featurestore.offline.event_log import writer as log_writer
from featurestore.offline.event_log.address import TablePlace, place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.schema import log_schema, payload_columns
from featurestore.offline.event_log.writer import LogWriter, PartitionRows, prepare_log
from tests.offline.event_log.event_logs import (
    BEGIN_MS,
    DAY_MS,
    PAYMENTS,
    SCHEMA,
    TOPIC,
    offsets_of,
    open_writer,
    plain_offsets,
    read_of,
    rows_up_to,
    write_commits,
)

FIRST = (TOPIC, 0)


@pytest.fixture
def place(tmp_path: Path) -> TablePlace:
    """Where a log will be."""
    return place_of(tmp_path / "log")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Its directory."""
    return tmp_path / "log"


def test_partitions_and_dates_of_a_commit_are_one_version(place: TablePlace, root: Path) -> None:
    """With one file a date, rows in order in it."""
    writer = open_writer(place, 0, 1, 2)
    before = EventLog(root).version

    assert writer.commit({(TOPIC, number): [read_of(0, 40, partition=number)] for number in (2, 0, 1)}) == 120

    log = EventLog(root)
    assert log.version == before + 1
    assert len(log.files) == len(log.dates()) == 2
    assert plain_offsets(root) == [row for number in range(3) for row in rows_up_to(40, number)]
    assert log.positions() == {(TOPIC, number): 40 for number in range(3)}
    for file in log.files:
        content = pq.read_table(root / file.path, columns=["partition", "offset"])
        rows = list(zip(content["partition"].to_pylist(), content["offset"].to_pylist(), strict=True))
        assert rows == sorted(rows)


def test_rows_land_in_the_date_of_their_event(place: TablePlace, root: Path) -> None:
    """Late rows too: the directory of a file is the UTC date of its rows; the file does not repeat it."""
    write_commits(root, [100, 120])

    files = EventLog(root).files
    assert len({file.event_date for file in files}) == 2
    for file in files:
        content = pq.read_table(root / file.path, partitioning=None)
        assert {time_ms // DAY_MS + 719_163 for time_ms in content["event_time_ms"].to_pylist()} == {
            file.event_date.toordinal()
        }
        assert content.column_names == SCHEMA.names
        assert f"event_date={file.event_date}" == file.path.split("/")[0]


def test_values_and_nulls_come_back_as_they_were_sent(place: TablePlace, root: Path) -> None:
    """Typed columns; the payload's nulls are nulls."""
    write_commits(root, [100])

    rows = {row["offset"]: row for row in DeltaTable(root).to_pyarrow_table().to_pylist()}
    row = rows[13 * 7]
    assert (None, None) == (row["card"], row["is_declined"])
    assert None is rows[55]["rate"]
    assert None is rows[10]["amount"]
    assert (36, 4.5, True) == (rows[36]["amount"], rows[36]["rate"], rows[36]["is_declined"])
    assert f"p-0-{36}" == rows[36]["payment_id"]
    assert rows[36]["card"].endswith("-é")
    assert round(rows[36]["paid_at"].timestamp() * 1_000) == rows[36]["event_time_ms"] >= BEGIN_MS


def test_replayed_reads_are_written_once(place: TablePlace, root: Path) -> None:
    """Reads may begin below the position, whole or in part; what is there already is skipped."""
    write_commits(root, [30])
    writer = open_writer(place)
    version = EventLog(root).version

    assert writer.commit({FIRST: [read_of(0, 20), read_of(20, 30)]}) == 0
    assert EventLog(root).version == version
    assert writer.commit({FIRST: [read_of(10, 25), read_of(25, 60)]}) == 30

    assert plain_offsets(root) == rows_up_to(60)


def test_reads_of_one_commit_may_overlap(place: TablePlace, root: Path) -> None:
    """A source that repeats what it has delivered does not double it."""
    writer = open_writer(place)

    assert writer.commit({FIRST: [read_of(0, 20), read_of(10, 30), read_of(5, 8), read_of(29, 33)]}) == 33

    assert plain_offsets(root) == rows_up_to(33)


@pytest.mark.parametrize("reads", [[(31, 40)], [(30, 35), (36, 40)]], ids=["behind the position", "between two reads"])
def test_a_gap_is_refused(place: TablePlace, root: Path, reads: list[tuple[int, int]]) -> None:
    """It would never be noticed again."""
    write_commits(root, [30])
    writer = open_writer(place)

    with pytest.raises(StoreRolledBack, match=r"begin at offset 3[16], the event log ends at 3[05]"):
        writer.commit({FIRST: [read_of(*read) for read in reads]})

    assert plain_offsets(root) == rows_up_to(30)


def test_offsets_without_rows_are_passed(place: TablePlace, root: Path) -> None:
    """Dead letters, deleted records and transaction markers: the position moves, without a file."""
    writer = open_writer(place)

    assert writer.commit({FIRST: [PartitionRows(0, 500, read_of(0, 1).rows.slice(1))]}) == 0

    assert EventLog(root).positions() == {FIRST: 500}
    assert EventLog(root).files == ()
    assert list(root.rglob("*.parquet")) == []


def test_a_claimed_partition_that_was_never_read_has_no_position(place: TablePlace, root: Path) -> None:
    """Its first read begins at the oldest record that the source has, wherever that is; the log remembers where."""
    for _ in range(2):
        assert open_writer(place).position(FIRST) is None
    assert EventLog(root).positions() == {}

    writer = open_writer(place)
    writer.commit({FIRST: [read_of(70, 90)]})
    writer.commit({FIRST: [read_of(90, 95)]})

    assert (EventLog(root).begins(), EventLog(root).positions()) == ({FIRST: 70}, {FIRST: 95})


def test_a_version_that_cannot_be_made_durable_is_tried_again(
    place: TablePlace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is there for everybody; its writer goes on when the disk says that it will stay."""
    writer = open_writer(place)

    def refuse(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as broken:
        broken.setattr(log_table, "sync", refuse)
        with pytest.raises(Unavailable, match="input/output error"):
            writer.commit({FIRST: [read_of(0, 10)]})
    writer.refresh()
    writer.commit({FIRST: [read_of(0, 15)]})

    assert plain_offsets(root) == rows_up_to(15)


def test_a_full_disk_leaves_nothing_of_a_commit(place: TablePlace, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the file that did not fit nor those of other dates before it, however often it is tried."""
    writer = open_writer(place)
    write, left = log_writer._write_local, [1]

    def fill(path: Path, rows: pa.Table) -> None:
        write(path, rows)
        left[0] -= 1
        if left[0] < 0:
            path.unlink()
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as full:
        full.setattr(log_writer, "_write_local", fill)
        for _ in range(3):
            left[0] = 1
            with pytest.raises(Unavailable, match="no space left on device"):
                writer.commit({FIRST: [read_of(0, 40)]})
            assert list(root.rglob("*.parquet")) == []
    writer.commit({FIRST: [read_of(0, 40)]})

    assert plain_offsets(root) == rows_up_to(40)


def test_what_others_do_to_the_table_does_not_stop_a_writer(place: TablePlace, root: Path) -> None:
    """New columns, new partitions, properties: between its look at the table and its commit."""
    writer = open_writer(place)
    prepare_log(place, pa.schema([*SCHEMA, ("country", pa.string())]), {(TOPIC, 7): "anew"})
    writer.commit({FIRST: [read_of(0, 10)]})
    DeltaTable(root).alter.set_table_properties({"delta.checkpointInterval": "50"})
    writer.commit({FIRST: [read_of(10, 20)]})
    DeltaTable(root).optimize.compact()
    writer.commit({FIRST: [read_of(20, 30)]})

    log = EventLog(root)
    assert plain_offsets(root) == rows_up_to(30) == offsets_of(log.scan(["partition", "offset"]))
    assert log.incarnations() == {(TOPIC, 7): "anew"}
    assert DeltaTable(root).to_pyarrow_table()["country"].null_count == 30


def test_a_new_column_is_null_in_the_rows_before_it(place: TablePlace, root: Path) -> None:
    """And the columns that were there keep their places."""
    write_commits(root, [10])
    schema = log_schema(_with_column("country", "card"))
    prepare_log(place, schema, {FIRST: ""})
    writer = LogWriter(place, schema)
    writer.claim([FIRST])
    rows = read_of(10, 15).rows
    arrays = [pa.array(["SE"] * 5) if name == "country" else rows[name] for name in schema.names]
    writer.commit({FIRST: [PartitionRows(10, 15, pa.RecordBatch.from_arrays(arrays, schema=schema))]})

    log = EventLog(root)
    assert log.schema.names == [*SCHEMA.names, "country"]
    expected = {offset: "SE" if offset >= 10 else None for offset in range(15)}
    for found in (
        pa.Table.from_batches(list(log.scan(["offset", "country"]))),
        DeltaTable(root).to_pyarrow_table(columns=["offset", "country"]),
    ):
        assert dict(zip(found["offset"].to_pylist(), found["country"].to_pylist(), strict=True)) == expected


def test_a_column_that_changes_its_type_is_refused(place: TablePlace) -> None:
    """With the name of the column and what to do."""
    prepare_log(place, SCHEMA, {})

    with pytest.raises(InvalidRequest, match='column "amount" is double now, the event log has it as int64'):
        prepare_log(place, log_schema(_with_column("amount", "rate")), {})


def test_a_source_column_with_the_name_of_a_log_column_is_refused() -> None:
    """`offset` is where a record is, and `event_date` how the table is divided."""
    for name in ("offset", "event_date"):
        with pytest.raises(InvalidRequest, match=f'column "{name}" of source "payments" has the name'):
            log_schema(_with_column(name, "amount"))


def test_a_topic_that_is_known_anew_keeps_what_is_known_of_others(place: TablePlace) -> None:
    """An incarnation replaces an older one; not knowing it replaces nothing."""
    prepare_log(place, SCHEMA, {FIRST: "first", (TOPIC, 1): ""})
    prepare_log(place, SCHEMA, {FIRST: "", (TOPIC, 1): "first"})
    table = prepare_log(place, SCHEMA, {FIRST: "second"})

    assert table.incarnations == {FIRST: "second", (TOPIC, 1): "first"}
    assert prepare_log(place, SCHEMA, {FIRST: "second"}).version == table.version, "nothing new, no version"


def test_positions_and_claims_survive_checkpoints_of_the_table(place: TablePlace, root: Path) -> None:
    """Where the table's own log is summed up and its records are gone, writers still go on, and stop."""
    older = open_writer(place)
    DeltaTable(root).alter.set_table_properties({"delta.checkpointInterval": "5"})
    for begin in range(0, 60, 5):
        older.commit({FIRST: [read_of(begin, begin + 5)]})
    checkpoint = max((root / "_delta_log").glob("*.checkpoint.parquet")).name[:20]
    for record in (root / "_delta_log").glob("*.json"):
        if record.name[:20] <= checkpoint:
            record.unlink()

    newer = open_writer(place)
    newer.commit({FIRST: [read_of(60, 70)]})
    with pytest.raises(WriterFenced):
        older.commit({FIRST: [read_of(60, 70)]})

    assert plain_offsets(root) == rows_up_to(70)
    assert (EventLog(root).begins(), EventLog(root).positions()) == ({FIRST: 0}, {FIRST: 70})


def test_an_event_time_column_of_the_logs_own_name_is_stored_once() -> None:
    """A source whose event time is `event_time_ms` has that column already."""
    kept = tuple(column for column in PAYMENTS.columns if column.name != "paid_at")
    own = dataclasses.replace(kept[0], name="event_time_ms", type=ValueType.INT64)
    source = dataclasses.replace(PAYMENTS, columns=(*kept, own), event_time_column="event_time_ms")

    assert "event_time_ms" not in payload_columns(source)
    assert log_schema(source).names.count("event_time_ms") == 1


def _with_column(name: str, like: str) -> SourceSpec:
    """The payments source with another column of that name and the type of an existing one."""
    kind = PAYMENTS.column(like)
    assert kind is not None
    others = tuple(column for column in PAYMENTS.columns if column.name != name)
    return dataclasses.replace(PAYMENTS, columns=(*others, dataclasses.replace(kind, name=name)))
