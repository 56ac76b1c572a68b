"""An event log that changes, is damaged, or may not be written to while it is read: all rows, or a clear error."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from featurestore.errors import CorruptData, InvalidRequest
from featurestore.offline.event_log.address import open_files
from featurestore.offline.event_log.compaction import CompactionPolicy, compact
from featurestore.offline.event_log.files import FoundFile, LogFiles
from featurestore.offline.event_log.layout import date_directory, event_date_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.retention import retain
from featurestore.offline.event_log.snapshot import take_snapshot
from featurestore.offline.event_log.writer import PUBLISH_LOCK, prepare_log
from featurestore.testing.clock import ManualClock
from tests.offline.event_log.event_logs import BEGIN_MS, DAY_MS, SCHEMA, TOPIC, make_files, offsets_of, write_commits

FULL = CompactionPolicy(is_full=True)
ROWS = [(0, offset) for offset in range(40)]
FIRST_DATE = event_date_of(BEGIN_MS)


@pytest.fixture
def files(tmp_path: Path) -> LogFiles:
    """A log on the disk, of two dates with two files each."""
    made = make_files("local", tmp_path)
    write_commits(made, [20, 40])
    return made


@pytest.fixture
def root(tmp_path: Path, files: LogFiles) -> Path:
    """Its directory."""
    return tmp_path / "log"


def rows_of(files: LogFiles) -> list[tuple[int, int]]:
    """(partition, offset) of all rows that are readable now."""
    return offsets_of(EventLog.over(files).scan(["partition", "offset"]))


def test_a_date_that_is_exchanged_while_it_is_listed_is_seen(files: LogFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the system calls of a listing a compaction falls on, the rows are there before and after it."""
    real_open, done = os.open, list[object]()

    def open_late(path: Any, *arguments: Any, **named: Any) -> int:
        """A compaction falls before the first opening of a date's directory."""
        if not done and "event_date=" in str(path) and "_staging" not in str(path):
            done.append(None)
            done.extend(compact(files, ManualClock(), FULL))
        return real_open(path, *arguments, **named)

    monkeypatch.setattr(os, "open", open_late)
    listed = files.find(date_directory(FIRST_DATE))

    assert len(done) == 3, "two dates were compacted"
    assert listed == files.find(date_directory(FIRST_DATE)) != []
    assert rows_of(files) == ROWS


def test_a_date_on_another_disk_is_read_through_its_symbolic_link(files: LogFiles, root: Path) -> None:
    """And a link to a directory above is not followed round and round."""
    elsewhere = root.parent / "elsewhere"
    (root / date_directory(FIRST_DATE)).rename(elsewhere)
    (root / date_directory(FIRST_DATE)).symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(elsewhere)

    assert rows_of(files) == ROWS


def test_a_directory_that_cannot_be_listed_is_an_error(files: LogFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passing over it would be rows that are missing without a word; also within another directory."""
    real_open = os.open

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith(f"{TOPIC}-00000"):
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InvalidRequest, match="does not answer: permission denied"):
        files.find("_commits")


def test_reading_writes_nothing(files: LogFiles, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log on a disk that is mounted read-only, or belongs to somebody else, can be read."""
    for name in ("mkdir", "rename", "link", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, _refused)
    before = {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}

    assert rows_of(open_files(root)) == ROWS
    assert {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))} == before


def _refused(*_: object, **__: object) -> None:
    """A file system that is mounted read-only."""
    raise OSError(30, "Read-only file system")


def test_a_log_that_cannot_be_written_is_an_error_with_a_remedy(
    files: LogFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a traceback: neither where directories are exchanged, nor where a lock is made."""
    monkeypatch.setattr(os, "mkdir", _refused)
    with pytest.raises(InvalidRequest, match="does not answer"):
        list(compact(open_files(files.uri), ManualClock(), FULL))
    with pytest.raises(InvalidRequest, match="does not answer"), open_files(f"{files.uri}/new").lock("any"):
        pass


def test_dates_that_retention_drops_during_a_listing_are_known_to_be_dropped(files: LogFiles) -> None:
    """The first date that is kept is never older than what the listing has missed."""
    later = ManualClock(now_ms=BEGIN_MS + 2 * DAY_MS)
    listing = cast(LogFiles, _Meanwhile(files, lambda: retain(files, later, days=1)))

    snapshot = take_snapshot(listing)

    assert snapshot.kept_from == FIRST_DATE + timedelta(days=1)
    assert snapshot.dates == [FIRST_DATE + timedelta(days=1)]


class _Meanwhile:
    """Files; something happens before the first date is listed."""

    def __init__(self, files: LogFiles, happening: Callable[[], object]) -> None:
        self._files = files
        self._happening: Callable[[], object] | None = happening

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def find(self, directory: str = "") -> list[FoundFile]:
        """As the real one, after it has happened."""
        happening, self._happening = (
            (self._happening, None) if directory.startswith("event_date=") else (None, self._happening)
        )
        if happening is not None:
            happening()
        return self._files.find(directory)


def test_writers_wait_while_a_directory_changes_places(files: LogFiles, root: Path) -> None:
    """From the listing to the exchange: a file that was published between them would be lost from sight."""
    watched = _Locked(files, root / f"_{PUBLISH_LOCK}.lock")
    list(compact(cast(LogFiles, watched), ManualClock(), FULL))

    assert watched.held == {"find": [True, True], "exchange": [True, True]}
    assert rows_of(files) == ROWS


class _Locked:
    """Files that note whether a lock is held when a date is listed for its exchange, and exchanged."""

    def __init__(self, files: LogFiles, lock: Path) -> None:
        self._files = files
        self._lock = lock
        self._is_prepared = False
        self.held: dict[str, list[bool]] = {"find": [], "exchange": []}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    @property
    def exchanger(self) -> _Locked:
        """This."""
        return self

    @contextmanager
    def write(self, path: str) -> Iterator[pa.NativeFile]:
        """As the real one; from now on a date is listed to be exchanged."""
        self._is_prepared = True
        with self._files.write(path) as stream:
            yield stream

    def find(self, directory: str = "") -> list[FoundFile]:
        """As the real one."""
        if self._is_prepared:
            self.held["find"].append(self._is_held())
        return self._files.find(directory)

    def exchange(self, left: str, right: str) -> None:
        """As the real one."""
        self.held["exchange"].append(self._is_held())
        exchanger = self._files.exchanger
        assert exchanger is not None
        exchanger.exchange(left, right)

    def _is_held(self) -> bool:
        """Somebody has the lock."""
        with self._lock.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


@pytest.mark.parametrize("damage", ["cut", "overwritten", "emptied"])
def test_a_damaged_file_is_named(files: LogFiles, root: Path, damage: str) -> None:
    """By scans, sizes and compaction."""
    broken = take_snapshot(files).files[0].path
    content = (root / broken).read_bytes()
    left = {"cut": content[:-100], "overwritten": content[:4] + bytes(len(content) - 12) + content[-8:], "emptied": b""}
    (root / broken).write_bytes(left[damage])

    log = EventLog.over(files)
    for read in (lambda: rows_of(files), log.sizes, lambda: list(compact(files, ManualClock(), FULL))):
        with pytest.raises(CorruptData, match="is damaged") as raised:
            read()
        assert broken in raised.value.message
        assert "restore" in raised.value.hint


def test_directories_that_are_not_ours_are_passed_over(files: LogFiles, root: Path) -> None:
    """A copy that somebody made, a date that is none: neither read, nor deleted, nor a traceback."""
    stray = ["_replaced/copy", "_commits/copy", "_commits/copy-1", "event_date=2026-13-45", "_staging/copy"]
    for name in stray:
        (root / name).mkdir(parents=True)
    (root / "_staging/copy" / f"{1:020d}-ab-2026-13-45.parquet").touch()

    list(compact(files, ManualClock(), FULL))

    assert take_snapshot(files).positions == {(TOPIC, 0): 40}
    assert rows_of(files) == ROWS
    assert retain(files, ManualClock(now_ms=BEGIN_MS + 2 * DAY_MS), days=1) == [date(2026, 9, 22)]
    assert [name for name in stray if not (root / name).is_dir()] == []


def test_a_log_without_commits_is_not_taken_for_an_empty_history(tmp_path: Path) -> None:
    """Whoever computes from it is told; whoever only looks sees that there is nothing."""
    files = make_files("local", tmp_path)
    prepare_log(files, SCHEMA)
    log = EventLog.over(files)

    assert log.positions() == {}
    assert log.sizes() == []
    with pytest.raises(InvalidRequest, match="has no commits yet"):
        log.scan(["offset"])
