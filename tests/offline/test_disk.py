"""What is kept before something else is committed: on the disk with its name, or not there at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featurestore.core.spec import Column, ValueType
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.disk import append_lines, complete_file, make_directory, of_disk
from featurestore.offline.parity.feature_log import (
    LOG_DATE,
    FeatureLogWriter,
    LogLayout,
    find_logged_files,
)
from featurestore.offline.parity.log_directory import LogDirectory
from featurestore.offline.training_set.answer_parts import AnswerParts
from featurestore.offline.training_set.build import write_training_set
from featurestore.offline.training_set.histories import FileHistory
from featurestore.offline.training_set.plan import plan_training_set
from tests.full_disk import files_of_at_most
from tests.offline.event_log.event_logs import write_commits
from tests.offline.training_set.label_tables import CARD, NOON_MS, payments, repo_of


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is synced, as it was called at that moment; the sync itself is the real one."""
    paths: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        paths.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


def append_a_line(directory: Path) -> Path:
    """To a new file in new directories."""
    append_lines(directory / "new" / "lines.jsonl", b"{}\n")
    return directory / "new" / "lines.jsonl"


def keep_a_part(directory: Path) -> Path:
    """Of a training set."""
    parts = AnswerParts([Column("count", ValueType.INT64)], directory / "new")
    parts.put(0, np.arange(3), pa.table({"count": [1, 2, 3]}))
    return directory / "new" / "answers-00000.arrow"


def log_an_answer(directory: Path) -> Path:
    """In a feature log."""
    writer = FeatureLogWriter(LogDirectory(str(directory / "new")), "t", roll_seconds=60)
    writer.write(LAYOUT, answers(3), 0)
    writer.close(0)
    [found] = (directory / "new").rglob("*.parquet")
    return found


def write_a_training_set(directory: Path) -> Path:
    """Where somebody wants it."""
    make_directory(directory / "new")
    plan = plan_training_set(repo_of(CARD), "all", pa.table({"card": ["c-1"]}), at_ms=NOON_MS + 1_000)
    history = FileHistory(payments(("p1", 0, "c-1", 1, 50, "DE")))
    write_training_set(plan, directory / "new" / "train.parquet", history=history)
    return directory / "new" / "train.parquet"


def log_events(directory: Path) -> Path:
    """In an event log."""
    write_commits(directory / "new", [3])
    return next((directory / "new").rglob("*.parquet"))


LAYOUT = LogLayout("fraud", (Column("card", ValueType.STRING),), (), ())


def answers(count: int) -> pa.Table:
    """Rows of a feature log that no compression makes small."""
    columns = {
        field.name: pa.nulls(count, field.type) for field in LAYOUT.schema if field.name not in ("card", LOG_DATE)
    }
    cards = [os.urandom(64).hex() for _ in range(count)]
    return pa.table({"card": cards, **columns, LOG_DATE: pa.array([date(2026, 11, 22)] * count)}).select(
        LAYOUT.schema.names
    )


@pytest.mark.parametrize("keep", [append_a_line, keep_a_part, log_an_answer, write_a_training_set, log_events])
def test_what_is_kept_survives_a_loss_of_power_with_its_name_and_its_directories(
    tmp_path: Path, synced: list[Path], keep: Callable[[Path], Path]
) -> None:
    """The bytes, the name in its directory, and each new directory in the one above."""
    path = keep(tmp_path)

    last = {place: number for number, place in enumerate(synced)}
    above = [parent for parent in path.parents if tmp_path in (parent, *parent.parents)]
    assert set(above) <= last.keys()
    assert any(place.parent == path.parent and place.suffix and last[place] < last[path.parent] for place in synced)


@pytest.mark.parametrize("keep", [append_a_line, keep_a_part, log_an_answer])
def test_what_is_kept_is_for_the_eyes_of_its_user_alone(tmp_path: Path, keep: Callable[[Path], Path]) -> None:
    """Whatever the umask."""
    path = keep(tmp_path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    below = [parent for parent in path.parents if tmp_path in parent.parents]
    assert {stat.S_IMODE(parent.stat().st_mode) for parent in below} == {0o700}


@pytest.mark.parametrize("keep", [write_a_training_set, log_events])
def test_what_others_read_follows_the_umask(tmp_path: Path, keep: Callable[[Path], Path]) -> None:
    """A training set and an event log are for whomever their author lets read."""
    before = os.umask(0o027)
    try:
        path = keep(tmp_path)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """And nothing of what it had written."""
    (tmp_path / "kept").write_text("older")
    with pytest.raises(ZeroDivisionError), complete_file(tmp_path / "kept") as unfinished:
        unfinished.write_text(str(1 / 0))

    assert {"kept": "older"} == {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_two_writers_of_one_name_are_not_in_each_others_way(tmp_path: Path) -> None:
    """Each writes a file of its own; the last one to end has the name."""
    with complete_file(tmp_path / "kept") as first, complete_file(tmp_path / "kept") as second:
        first.write_text("first")
        second.write_text("second")

    assert {"kept": "first"} == {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_a_feature_log_leaves_nothing_of_a_file_for_which_there_was_no_room(tmp_path: Path) -> None:
    """Each try would take from the room that is waited for; the rows are written once when there is some."""
    files = LogDirectory(str(tmp_path / "log"))
    writer = FeatureLogWriter(files, "t", roll_seconds=60)
    writer.write(LAYOUT, answers(2_000), 0)
    with files_of_at_most(16 * 1024):
        for now_ms in (60_000, 120_000, 180_000):
            with pytest.raises(Unavailable, match="cannot be written"):
                writer.advance(now_ms)

    assert not [path for path in (tmp_path / "log").rglob("*") if path.is_file()]
    assert writer.close(240_000) == 2_000
    assert [file.read(["card"]).num_rows for file in find_logged_files(files)] == [2_000]


def test_processes_that_append_to_one_file_at_once_leave_whole_lines(tmp_path: Path) -> None:
    """Also while some of them find no room, and take back what they wrote."""
    path = tmp_path / "lines.jsonl"
    line = b"x" * 999 + b"\n"

    def append(number: int) -> int:
        try:
            append_lines(path, line * (1 + number % 7))
        except OSError:
            return 0
        return 1 + number % 7

    with files_of_at_most(64 * 1024), ThreadPoolExecutor(8) as threads:
        kept = sum(threads.map(append, range(100)))

    assert path.read_bytes() == line * kept
    assert 0 < kept <= 65


def test_only_what_waiting_can_mend_is_waited_for(tmp_path: Path) -> None:
    """A directory that is a file stays one; a full disk may be emptied. Both name the path."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory") as refused:
        make_directory(tmp_path / "file" / "below")
    final = of_disk(refused.value, "letters cannot be written", "elsewhere", unavailable=Unavailable)
    with files_of_at_most(10), pytest.raises(OSError, match="too large") as full:
        append_lines(tmp_path / "lines", b"x" * 20 + b"\n")
    mendable = of_disk(full.value, "letters cannot be written", tmp_path / "lines", unavailable=Unavailable)

    assert isinstance(final, InvalidRequest)
    assert str(tmp_path / "file") in final.message
    assert isinstance(mendable, Unavailable)
    assert str(tmp_path / "lines") in mendable.message
    assert "make room" in mendable.hint
