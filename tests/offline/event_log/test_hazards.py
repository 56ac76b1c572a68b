"""Tables that are damaged, not ours, or out of reach: all rows, or an error that says which table and what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from featurestore.errors import CorruptData, InvalidRequest, Unavailable
from featurestore.offline.event_log import table as log_table
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.table import LogTable, is_log_table
from featurestore.offline.event_log.upkeep import CompactionPolicy, compact, retain, vacuum
from featurestore.offline.event_log.writer import event_date_of
from featurestore.testing.clock import ManualClock
from tests.offline.event_log.event_logs import (
    BEGIN_MS,
    DAY_MS,
    TOPIC,
    offsets_of,
    open_writer,
    plain_offsets,
    read_of,
    rows_up_to,
    write_commits,
)

FULL = CompactionPolicy(is_full=True)
ROWS = rows_up_to(40)
NOBODY = 65_534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A log of two dates with two files each."""
    write_commits(tmp_path / "log", [20, 40])
    return tmp_path / "log"


def rows_of(root: Path) -> list[tuple[int, int]]:
    """(partition, offset) of all rows that are readable now."""
    return offsets_of(EventLog(root).scan(["partition", "offset"]))


@contextmanager
def without_rights(path: Path) -> Iterator[None]:
    """Nobody may look into a path, also not a user who may do everything."""
    mode, user = path.stat().st_mode, os.geteuid()
    path.chmod(0)
    try:
        if user == 0:
            os.seteuid(NOBODY)
        yield
    finally:
        if user == 0:
            os.seteuid(user)
        path.chmod(mode)


def append_record(root: Path, content: bytes) -> None:
    """A record of the table's log that some other tool has written."""
    version = DeltaTable(root).version() + 1
    (root / "_delta_log" / f"{version:020d}.json").write_bytes(content)


@pytest.mark.parametrize("damage", ["cut", "overwritten", "emptied"])
def test_a_damaged_file_is_an_error(root: Path, damage: str) -> None:
    """Of scans and of merges, with what to do; other dates can be read."""
    log = EventLog(root)
    broken = root / log.files[0].path
    content = broken.read_bytes()
    left = {"cut": content[:-100], "overwritten": content[:4] + bytes(len(content) - 12) + content[-8:], "emptied": b""}
    broken.write_bytes(left[damage])

    with pytest.raises(CorruptData, match=f"a file of {event_date_of(BEGIN_MS)} of event log .* is damaged") as raised:
        rows_of(root)
    assert broken.name in raised.value.detail
    assert "restore" in raised.value.hint
    with pytest.raises(CorruptData, match="cannot be read") as raised:
        list(compact(place_of(root), FULL))
    assert broken.name in raised.value.detail
    assert len(offsets_of(log.scan(["partition", "offset"], from_ms=BEGIN_MS + DAY_MS))) > 0


def test_a_file_that_has_gone_is_an_error(root: Path) -> None:
    """Somebody has deleted it; rows are not missing without a word."""
    (root / EventLog(root).files[0].path).unlink()

    with pytest.raises(Unavailable, match="has gone"):
        rows_of(root)
    with pytest.raises(Unavailable, match="does not answer: no such file"):
        list(compact(place_of(root), FULL))


@pytest.mark.parametrize("content", [b'{"txn":{"appId"', b"\0" * 100, b"no JSON"], ids=["torn", "zeros", "text"])
def test_a_damaged_record_of_the_tables_log_is_an_error(root: Path, content: bytes) -> None:
    """Of its newest version: neither read as if it were not there, nor written over."""
    writer = open_writer(place_of(root))
    log = EventLog(root)
    append_record(root, content)

    for work in (lambda: EventLog(root), lambda: open_writer(place_of(root)), lambda: list(compact(place_of(root)))):
        with pytest.raises(CorruptData, match=f'event log "{root}" cannot be read') as raised:
            work()
        assert "restore" in raised.value.hint
    with pytest.raises(CorruptData):
        writer.commit({(TOPIC, 0): [read_of(40, 50)]})
    assert offsets_of(log.scan(["partition", "offset"])) == ROWS


def test_a_directory_without_a_log_is_refused(tmp_path: Path) -> None:
    """With what to do; also by upkeep, which makes none."""
    place = place_of(tmp_path / "nothing")
    for work in (
        lambda: EventLog(tmp_path / "nothing"),
        lambda: list(compact(place)),
        lambda: retain(place, ManualClock(), days=1),
        lambda: vacuum(place),
    ):
        with pytest.raises(InvalidRequest, match="there is no event log at") as raised:
            work()
        assert "featurestore event-log run" in raised.value.hint
    assert not is_log_table(place)
    assert not (tmp_path / "nothing").exists()


def test_a_file_where_a_directory_should_be_is_named(tmp_path: Path) -> None:
    """Whether it has the log's own name, or that of a directory above it."""
    (tmp_path / "file").write_text("not a directory")
    for root in (tmp_path / "file", tmp_path / "file" / "log"):
        for work in (EventLog, lambda root: open_writer(place_of(root))):
            with pytest.raises(InvalidRequest, match=f'not a directory: "{root}"'):
                work(root)


@pytest.mark.parametrize("where", [".", "_delta_log"])
def test_a_log_that_may_not_be_read_is_named(root: Path, where: str) -> None:
    """To be tried again when somebody has given the right to it, and not before."""
    for work in (EventLog, lambda root: open_writer(place_of(root)), lambda root: list(compact(place_of(root)))):
        with (
            pytest.raises(InvalidRequest, match=f'permission denied: "{root}"') as raised,
            without_rights(root / where),
        ):
            work(root)
        assert "give this process the right to it" in raised.value.hint
    assert rows_of(root) == ROWS


def test_a_file_that_may_not_be_read_is_named(root: Path) -> None:
    """Not a file system that does not answer."""
    log = EventLog(root)
    path = root / log.files[0].path
    scan = log.scan(["partition", "offset"])
    with pytest.raises(InvalidRequest, match="may not be read") as raised, without_rights(path):
        list(scan)

    assert path.name in raised.value.detail


def test_a_log_that_may_not_be_written_is_named(root: Path) -> None:
    """By a writer that has it open, and by one that would like to; nothing is lost."""
    writer = open_writer(place_of(root))
    for where in ("_delta_log", f"event_date={event_date_of(BEGIN_MS)}"):
        with without_rights(root / where), pytest.raises(InvalidRequest, match="permission denied"):
            writer.commit({(TOPIC, 0): [read_of(40, 60)]})
    writer.refresh()
    writer.commit({(TOPIC, 0): [read_of(40, 60)]})

    assert plain_offsets(root) == rows_up_to(60)


def test_reading_writes_nothing(root: Path) -> None:
    """A log on a disk that is mounted read-only, or belongs to somebody else, can be read."""
    before = {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}

    log = EventLog(root)
    assert rows_of(root) == ROWS
    assert log.complete_from_ms() is None
    assert {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))} == before


def test_a_date_on_another_disk_is_read_through_its_symbolic_link(root: Path) -> None:
    """And written through it."""
    name = f"event_date={event_date_of(BEGIN_MS)}"
    (root / name).rename(root.parent / "elsewhere")
    (root / name).symlink_to(root.parent / "elsewhere")
    write_commits(root, [60])

    assert rows_of(root) == plain_offsets(root) == rows_up_to(60)


def test_a_table_that_is_no_event_log_is_refused(tmp_path: Path) -> None:
    """Rather than read as one without positions, or written to."""
    write_deltalake(tmp_path, pa.table({"offset": [1, 2], "partition": pa.array([0, 0], pa.int32())}))

    for work in (EventLog, lambda root: open_writer(place_of(root))):
        with pytest.raises(InvalidRequest, match=f'the Delta table "{tmp_path}" is not an event log') as raised:
            work(tmp_path)
        assert "featurestore history --event-log" in raised.value.hint
    assert DeltaTable(tmp_path).version() == 0


@pytest.mark.parametrize("feature", ["deletionVectors", "columnMapping"])
def test_a_table_whose_files_do_not_tell_its_rows_is_refused(root: Path, feature: str) -> None:
    """By new readers and writers, and by a writer that was there before."""
    writer = open_writer(place_of(root))
    log = EventLog(root)
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [feature], "writerFeatures": [feature]}
    append_record(root, json.dumps({"protocol": protocol}).encode())

    for work in (EventLog, lambda root: open_writer(place_of(root)), lambda root: list(compact(place_of(root)))):
        with pytest.raises(InvalidRequest, match=feature):
            work(root)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=feature):
            writer.commit({(TOPIC, 0): [read_of(40, 50)]})
    assert offsets_of(log.scan(["partition", "offset"])) == ROWS


def test_a_table_of_a_later_protocol_is_refused(root: Path) -> None:
    """Its bytes could mean something else."""
    append_record(root, json.dumps({"protocol": {"minReaderVersion": 9, "minWriterVersion": 9}}).encode())

    with pytest.raises((InvalidRequest, CorruptData), match=f'event log "{root}"'):
        EventLog(root)


def test_files_that_are_not_of_the_table_are_passed_over(root: Path) -> None:
    """Copies that somebody made, dates that are none: neither read, nor a traceback."""
    kept = EventLog(root).files[0].path
    copies = [f"{Path(kept).parent}/copy.parquet", "event_date=2026-13-45/copy.parquet", "copy.parquet"]
    for copy in copies:
        (root / copy).parent.mkdir(exist_ok=True)
        (root / copy).write_bytes((root / kept).read_bytes())

    list(compact(place_of(root), FULL))
    vacuum(place_of(root))

    assert rows_of(root) == plain_offsets(root) == ROWS
    assert [copy for copy in copies if not (root / copy).exists()] == []


def test_a_table_that_does_not_answer_is_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known to be final may pass; the address is shown without secrets."""
    refusals: list[tuple[Exception, type[Exception], str]] = [
        (OSError(5, "Input/output error"), Unavailable, "input/output error"),
        (
            OSError("Kernel error -> Generic S3 error: Error performing GET http://..., timed out"),
            Unavailable,
            "not answer",
        ),
        (DeltaError("Parquet error: Error performing GET http://..., Server returned 503"), Unavailable, "not answer"),
        (OSError("Generic LocalFileSystem error: No space left on device (os error 28)"), Unavailable, "no space left"),
        (OSError("Generic LocalFileSystem error: Os { code: 30, kind: .. }"), InvalidRequest, "read-only file system"),
    ]
    for refusal, kind, said in refusals:

        def refuse(*_: object, refusal: Exception = refusal) -> None:
            raise refusal

        with monkeypatch.context() as broken:
            broken.setattr(log_table, "open_version", refuse)
            with pytest.raises(kind, match=said):
                LogTable(place_of(root))


@pytest.mark.parametrize("address", ["unheard-of://bucket/log", "s3://bucket/log?colour=blue"])
def test_an_address_that_is_not_known_is_refused(address: str) -> None:
    """With what an address looks like."""
    with pytest.raises(InvalidRequest, match="is on a file system that is not known here") as raised:
        EventLog(address)

    assert "s3://bucket/path" in raised.value.hint


def test_an_object_store_that_could_lose_commits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that lets delta-rs rename without a condition; a local disk does not care."""
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")

    with pytest.raises(InvalidRequest, match="is not opened while AWS_S3_ALLOW_UNSAFE_RENAME is set"):
        place_of("s3://user:secret@bucket/log")
    assert place_of("here").directory is not None
