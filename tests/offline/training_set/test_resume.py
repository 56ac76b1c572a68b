"""The work directory of a training set: what is kept is used for the same work, and for nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.core.spec import Column, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.event_log.address import TablePlace, place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.upkeep import retain
from featurestore.offline.training_set.build import (
    MEMORY_BYTES_DEFAULT,
    VERSIONS_KEY,
    TrainingSetProgress,
    build_training_set,
    write_training_set,
)
from featurestore.offline.training_set.histories import EventLogHistory, FileHistory, History
from featurestore.offline.training_set.plan import plan_training_set
from featurestore.offline.training_set.resume import forget_kept_work
from featurestore.testing.clock import ManualClock
from tests.full_disk import files_of_at_most
from tests.offline.event_log.event_logs import BEGIN_MS, DAY_MS, PAYMENTS, write_commits
from tests.offline.training_set.label_tables import CARD, NOON_MS, payments, repo_of

EVER = ViewSpec(
    "ever",
    (Column("card", ValueType.STRING),),
    PAYMENTS,
    (FeatureSpec("count_ever", "count", None, Window(None), ValueType.INT64),),
    None,
)
REPO = repo_of(EVER)
LABELS = pa.table(
    {"card": [f"card-{number}-é" for number in range(50)], "event_timestamp": [BEGIN_MS + 2 * DAY_MS] * 50}
)


class Killed(BaseException):
    """As a signal would."""


def die(step: TrainingSetProgress) -> None:
    """When all events are on the disk, and the first part is answered."""
    if step.step == "computing":
        raise Killed


class Past:
    """An event log, and a work directory in which a run over it was killed."""

    def __init__(self, directory: Path) -> None:
        self.root, self.work_dir = directory / "logs", directory / "work"
        self.steps: list[TrainingSetProgress] = []

    @property
    def place(self) -> TablePlace:
        """Of the log."""
        return place_of(self.root / "payments")

    def grow(self, end: int) -> None:
        """Write the log on."""
        write_commits(self.root / "payments", [end])

    def history(self, ingested_before_ms: int | None = None) -> History:
        """As another process opens it."""
        return EventLogHistory(self.root, ingested_before_ms=ingested_before_ms)

    def kill(self, history: History | None = None, labels: pa.Table = LABELS) -> None:
        """A run that does not end."""
        with pytest.raises(Killed):
            build_training_set(
                REPO, "all", labels, history=history or self.history(), work_dir=self.work_dir, progress=die
            )

    def go_on(self, history: History | None = None, labels: pa.Table = LABELS) -> list[object]:
        """Another run; its answers. It leaves what was there of other work, and nothing of its own."""
        before: set[Path] = set() if labels is LABELS else set(self.work_dir.iterdir())
        found = build_training_set(
            REPO,
            "all",
            labels,
            history=history or self.history(),
            work_dir=self.work_dir,
            progress=self.steps.append,
        )
        assert before == set(self.work_dir.iterdir())
        return list(found["count_ever"].to_pylist())

    @property
    def has_read(self) -> bool:
        """Whether that run read events."""
        return any(step.step == "reading" for step in self.steps)

    def fresh(self, history: History | None = None, labels: pa.Table = LABELS) -> list[object]:
        """What a run without a work directory says now."""
        return list(
            build_training_set(REPO, "all", labels, history=history or self.history())["count_ever"].to_pylist()
        )


@pytest.fixture
def past(tmp_path: Path) -> Past:
    """A log of 300 records."""
    made = Past(tmp_path)
    made.grow(300)
    return made


def test_a_log_that_grew_is_read_as_it_was(past: Past) -> None:
    """And not once more, as all its events are on the disk."""
    before = past.fresh()
    past.kill()
    past.grow(600)

    assert before == past.go_on()
    assert not past.has_read
    assert before != past.fresh()


def test_a_log_that_grew_before_its_events_were_kept_is_read_as_it_was(past: Past) -> None:
    """The version is kept first."""

    class Cut(EventLogHistory):
        """Ends in the middle."""

        def scan(self, *arguments: object, **span: object) -> Iterator[pa.RecordBatch]:
            yield next(super().scan(*arguments, **span))  # type: ignore[arg-type]  # as it was called
            raise Killed

    before = past.fresh()
    past.kill(Cut(past.root))
    past.grow(600)

    assert before == past.go_on()
    assert past.has_read


@pytest.mark.parametrize("is_later", [True, False], ids=["at another time", "of other entities"])
def test_other_labels_see_the_log_as_it_is_now(past: Past, *, is_later: bool) -> None:
    """Neither versions nor events that some killed run has left are for another request."""
    times = pa.array([BEGIN_MS + DAY_MS] * 50)
    entities = LABELS["card"].take(pa.array(range(49, -1, -1)))
    other = LABELS.set_column(1, "event_timestamp", times) if is_later else LABELS.set_column(0, "card", entities)
    past.kill()
    past.grow(600)

    assert past.fresh(labels=other) == past.go_on(labels=other)
    assert past.has_read


def test_another_moment_of_ingestion_is_other_work(past: Past) -> None:
    """Neither what was kept nor up to where is of use: the log as it was known later goes further."""
    past.kill(past.history(ingested_before_ms=1_000))
    assert past.fresh() == past.go_on()

    past.kill(past.history(ingested_before_ms=1_500))
    past.grow(600)
    assert past.fresh() == past.go_on(past.history(ingested_before_ms=10_000))


@pytest.mark.parametrize("is_smaller", [True, False], ids=["less memory", "another definition"])
def test_other_limits_and_definitions_are_other_work(past: Past, *, is_smaller: bool) -> None:
    """Events that were kept are cut otherwise, or by another condition."""
    view = EVER if is_smaller else replace(EVER, where="amount > 100")
    history = past.history()
    past.kill()

    found = build_training_set(
        repo_of(view),
        "all",
        LABELS,
        history=history,
        work_dir=past.work_dir,
        memory_bytes=1 if is_smaller else MEMORY_BYTES_DEFAULT,
    )
    assert found.equals(build_training_set(repo_of(view), "all", LABELS, history=history))


@pytest.mark.parametrize("content", [b"", b'{"[', b"[]", b'{"a": [["payments", 0]]}', b"\xff"])
def test_versions_that_were_not_written_completely_are_made_again(past: Past, content: bytes) -> None:
    """Nothing that was read up to the lost ones is used."""
    past.kill()
    [kept] = past.work_dir.glob("*/versions.json")
    kept.write_bytes(content)
    past.grow(600)

    assert past.fresh() == past.go_on()
    assert past.has_read


def test_another_log_at_the_same_place_is_read_anew(past: Past) -> None:
    """It was deleted and is being written again."""
    past.kill()
    shutil.rmtree(past.root / "payments")
    past.grow(200)

    assert past.fresh() == past.go_on()
    assert past.has_read


def test_what_retention_drops_meanwhile_is_still_there_for_who_goes_on(past: Past) -> None:
    """It is of the version that the killed run read; a new run has what was left."""
    before = past.fresh()
    past.kill()
    retain(past.place, ManualClock(now_ms=BEGIN_MS + 2 * DAY_MS), days=1)

    assert before == past.go_on()
    assert before != past.fresh()


def test_a_run_that_is_killed_while_it_deletes_its_work_leaves_nothing_that_is_believed(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers go first, and what says that all events are there stays: the next run must not see that."""

    def delete_half(directory: Path, **_: object) -> None:
        if directory.exists():
            for path in list(directory.rglob("*.arrow")):
                path.unlink()
            raise Killed

    before = past.fresh()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", delete_half)
        with pytest.raises(Killed):
            past.go_on()

    assert before == past.go_on()


def test_one_process_at_a_time_works_on_a_training_set(past: Past) -> None:
    """Both would write the same files; other labels are no hindrance."""
    refused: list[str] = []

    def work_as_well(step: TrainingSetProgress) -> None:
        if step.step == "computing" and not refused:
            with pytest.raises(Unavailable, match="another process is at this very training set") as caught:
                build_training_set(REPO, "all", LABELS, history=past.history(), work_dir=past.work_dir)
            refused.append(caught.value.hint)
            build_training_set(REPO, "all", LABELS.slice(1), history=past.history(), work_dir=past.work_dir)

    build_training_set(REPO, "all", LABELS, history=past.history(), work_dir=past.work_dir, progress=work_as_well)

    assert ["wait for it, or give another --work-dir (work_dir)"] == refused
    assert not list(past.work_dir.iterdir())


def test_a_history_that_is_used_again_stays_as_it_was_first_seen(past: Past) -> None:
    """Also by a run with a work directory, after the log has grown."""
    history = past.history()
    before = past.fresh(history)
    past.grow(600)

    assert before == past.go_on(history)
    assert before != past.fresh()


def test_a_history_that_is_used_again_keeps_nothing_of_an_earlier_run(past: Past) -> None:
    """The directory is gone; logs that are opened later have no place in it."""
    history = past.history()
    past.go_on(history)
    shutil.copytree(past.root / "payments", past.root / "others")
    repo = repo_of(replace(EVER, source=replace(PAYMENTS, name="others")))

    found = build_training_set(repo, "all", LABELS, history=history)

    assert past.fresh() == found["count_ever"].to_pylist()


def test_a_history_that_is_not_there_leaves_no_directory(tmp_path: Path) -> None:
    """Nor a lock."""
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="there is no event log"):
            build_training_set(REPO, "all", LABELS, history=EventLogHistory(tmp_path), work_dir=tmp_path / "work")

    assert not list((tmp_path / "work").iterdir())


def test_tables_in_memory_are_told_apart_by_what_they_hold() -> None:
    """Slices of one table share its buffers, and dictionaries are not among those of a column."""
    table = payments(*((f"p{number}", number, "c-1", 1, 10, "DE") for number in range(4)))
    cards = [pa.chunked_array([pa.array(["c-1", name, "c-1", "c-1"]).dictionary_encode()]) for name in ("c-2", "c-3")]
    tables = [table, table.slice(0, 2), table.slice(2, 2), *(table.set_column(2, "card", card) for card in cards)]

    assert len(tables) == len({FileHistory(one).version(CARD.source) for one in tables})
    assert FileHistory(table).version(CARD.source) == FileHistory(table).version(CARD.source)


def test_files_that_change_while_they_are_read_are_refused(tmp_path: Path) -> None:
    """Half of the old ones and half of the new ones would be a past that never was; the next run takes the new ones."""
    for number in range(40):
        pq.write_table(payments((f"p{number}", number, "c-1", 1, 10, "DE")), tmp_path / f"{number:02d}.parquet")
    history = FileHistory(tmp_path)
    repo, labels = repo_of(CARD), pa.table({"card": ["c-1"], "event_timestamp": [NOON_MS + 1_000]})

    batches = history.scan(CARD.source, ["card"], from_ms=0, to_ms=NOON_MS * 2)
    next(batches)
    pq.write_table(payments(("p39", 39, "c-1", 1, 99, "DE")), tmp_path / "39.parquet")
    with pytest.raises(Unavailable, match='history of source "payments" changed while they were read'):
        list(batches)
    found = build_training_set(repo, ["card:amount_1h"], labels, history=history)
    assert [489] == found["amount_1h"].to_pylist()


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_full_disk_is_named(past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_kept: bool) -> None:
    """The directory, and what can be done; nothing is left but what was asked to be kept."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    work_dir = past.work_dir if is_kept else None
    with files_of_at_most(500), pytest.raises(Unavailable, match='" cannot be written') as caught:
        build_training_set(REPO, "all", LABELS, history=past.history(), work_dir=work_dir, memory_bytes=1)

    assert str(past.work_dir if is_kept else tmp_path / "temporary") in caught.value.message
    assert ("it goes on from there" if is_kept else "TMPDIR") in caught.value.hint
    assert not list((tmp_path / "temporary").iterdir())


def test_a_training_set_names_the_version_that_it_was_made_from(past: Past, tmp_path: Path) -> None:
    """In the file's metadata: with it the same rows can be read again."""
    history = EventLogHistory(past.root)
    write_training_set(plan_training_set(REPO, "all", LABELS), tmp_path / "train.parquet", history=history)
    past.grow(600)

    metadata = pq.read_metadata(tmp_path / "train.parquet").metadata or {}
    [(uri, version)] = json.loads(metadata[VERSIONS_KEY]).items()
    assert EventLog(uri, version).row_count == 300
    assert EventLog(uri).row_count == 600


def test_a_disk_that_is_full_for_the_answer_is_named(past: Past, tmp_path: Path) -> None:
    """And no half of a file stays."""
    plan = plan_training_set(REPO, "all", LABELS)
    with files_of_at_most(500), pytest.raises(Unavailable, match=r'train\.parquet" cannot be written') as caught:
        write_training_set(plan, tmp_path / "train.parquet", history=past.history())

    assert "too large" in caught.value.detail
    assert not list(tmp_path.glob("train*"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none/train.parquet", "No such file"),
        ("file/train.parquet", "Not a dir"),
        ("logs", "Is a dir"),
        ("device", "Is a dir"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_out_first(past: Past, name: str, reason: str, tmp_path: Path) -> None:
    """Before an event is read, and not after an hour; the path is named."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "device")
    plan = plan_training_set(REPO, "all", LABELS)

    with pytest.raises(InvalidRequest, match=f'{name}" cannot be written: {reason}'):
        write_training_set(plan, tmp_path / name, history=past.history(), progress=past.steps.append)
    assert not past.steps
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_work_directory_that_cannot_be_made_is_named(past: Past, tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match=r'work directory ".*file/work" cannot be written: not a directory'):
        build_training_set(REPO, "all", LABELS, history=past.history(), work_dir=tmp_path / "file" / "work")


def test_an_interrupted_run_leaves_no_file_behind(past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the directory for temporary files nor beside the answer; an older answer stays."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "train.parquet").write_text("older")
    plan = plan_training_set(REPO, "all", LABELS)

    with pytest.raises(Killed):
        write_training_set(plan, tmp_path / "train.parquet", history=past.history(), memory_bytes=1, progress=die)
    assert not list((tmp_path / "temporary").iterdir())
    assert ["train.parquet"] == [path.name for path in tmp_path.glob("train*")]
    assert "older" == (tmp_path / "train.parquet").read_text()


def test_kept_work_is_forgotten_unless_a_process_is_at_it(past: Past) -> None:
    """Of killed runs; the same is computed again. What lies beside it is nobody's."""
    past.kill()
    [directory] = past.work_dir.iterdir()
    (past.work_dir / "notes").mkdir()
    descriptor = os.open(directory, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    busy = forget_kept_work(past.work_dir)
    os.close(descriptor)

    assert [busy, forget_kept_work(past.work_dir), forget_kept_work(past.work_dir)] == [(0, 1), (1, 0), (0, 0)]
    assert [path.name for path in past.work_dir.iterdir()] == ["notes"]
