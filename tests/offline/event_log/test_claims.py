"""Several writers of one log: who goes on, who must stop, and what a lost answer may not do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featurestore.errors import Unavailable, WriterFenced
from featurestore.offline.event_log.address import TablePlace, place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.table import LogTable
from featurestore.offline.event_log.writer import LogWriter, prepare_log
from tests.offline.event_log.event_logs import (
    SCHEMA,
    TOPIC,
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


def around_commits(
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
    is_made: bool = True,
) -> None:
    """Let something happen once, beside the next commit of anybody."""
    made, happened = LogTable.commit, list[None]()

    def commit(table: LogTable, *content: Any) -> None:
        if happened:
            made(table, *content)
            return
        happened.append(None)
        before()
        if is_made:
            made(table, *content)
        after()

    monkeypatch.setattr(LogTable, "commit", commit)


def lost() -> None:
    """What a writer hears when the answer does not come."""
    raise Unavailable("the file system does not answer")


@pytest.mark.parametrize("end", [30, 60], ids=["that has not written", "that has written"])
def test_a_newer_writer_stops_the_older_one(place: TablePlace, root: Path, end: int) -> None:
    """At its next commit, and at every later one; nothing is lost or doubled between the two."""
    older = open_writer(place)
    older.commit({FIRST: [read_of(0, 30)]})
    newer = open_writer(place)
    if end > 30:
        newer.commit({FIRST: [read_of(30, end)]})

    for _ in range(3):
        with pytest.raises(WriterFenced, match='another writer took over partition 0 of topic "payments"'):
            older.commit({FIRST: [read_of(30, 50)]})
        with pytest.raises(WriterFenced):
            older.refresh()
    assert plain_offsets(root) == rows_up_to(end)
    newer.commit({FIRST: [read_of(30, 70)]})

    assert plain_offsets(root) == rows_up_to(70)


def test_the_newer_of_two_claims_at_the_same_moment_goes_on(
    place: TablePlace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is told so at once, and has taken nothing."""
    prepare_log(place, SCHEMA, {FIRST: ""})
    slower, faster = LogWriter(place, SCHEMA), LogWriter(place, SCHEMA)
    around_commits(monkeypatch, before=lambda: faster.claim([FIRST]))

    with pytest.raises(WriterFenced):
        slower.claim([FIRST])
    with pytest.raises(WriterFenced):
        slower.claim([FIRST])
    faster.commit({FIRST: [read_of(0, 10)]})

    assert plain_offsets(root) == rows_up_to(10)


def test_a_zombie_that_has_written_its_files_cannot_commit_them(
    place: TablePlace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one took over, and wrote, between its files and its commit."""
    zombie = open_writer(place)
    around_commits(monkeypatch, before=lambda: write_commits(root, [45]))

    with pytest.raises(WriterFenced):
        zombie.commit({FIRST: [read_of(0, 30)]})

    assert plain_offsets(root) == rows_up_to(45)


def test_a_zombie_whose_commit_was_made_stops_all_the_same(
    place: TablePlace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It slept behind its commit: its rows are in the log, whole, and it must not go on."""
    zombie = open_writer(place)
    around_commits(monkeypatch, after=lambda: write_commits(root, [45]))

    with pytest.raises(WriterFenced):
        zombie.commit({FIRST: [read_of(0, 30)]})
    with pytest.raises(WriterFenced):
        zombie.commit({FIRST: [read_of(30, 50)]})

    assert plain_offsets(root) == rows_up_to(45)


@pytest.mark.parametrize("is_made", [True, False], ids=["made", "not made"])
def test_a_claim_whose_answer_was_lost_is_made_once(
    place: TablePlace, root: Path, monkeypatch: pytest.MonkeyPatch, *, is_made: bool
) -> None:
    """Claimed again, it is there; and later writers stop this one as any other."""
    prepare_log(place, SCHEMA, {FIRST: ""})
    writer = LogWriter(place, SCHEMA)
    around_commits(monkeypatch, after=lost, is_made=is_made)
    with pytest.raises(Unavailable):
        writer.claim([FIRST])

    writer.claim([FIRST])
    writer.commit({FIRST: [read_of(0, 10)]})
    newer = open_writer(place)

    with pytest.raises(WriterFenced):
        writer.refresh()
    with pytest.raises(WriterFenced):
        writer.commit({FIRST: [read_of(10, 20)]})
    newer.commit({FIRST: [read_of(10, 30)]})
    assert plain_offsets(root) == rows_up_to(30)


@pytest.mark.parametrize("is_made", [True, False], ids=["made", "not made"])
def test_a_claim_is_not_made_again_behind_a_newer_one(
    place: TablePlace, root: Path, monkeypatch: pytest.MonkeyPatch, *, is_made: bool
) -> None:
    """A writer that waits for its file system to answer may have been replaced meanwhile."""
    prepare_log(place, SCHEMA, {FIRST: ""})
    older = LogWriter(place, SCHEMA)
    around_commits(monkeypatch, after=lost, is_made=is_made)
    with pytest.raises(Unavailable):
        older.claim([FIRST])
    newer = open_writer(place)

    with pytest.raises(WriterFenced):
        older.claim([FIRST])
    newer.commit({FIRST: [read_of(0, 10)]})

    assert plain_offsets(root) == rows_up_to(10)


@pytest.mark.parametrize("is_made", [True, False], ids=["made", "not made"])
@pytest.mark.parametrize("looks", [True, False], ids=["looks", "does not look"])
def test_a_commit_whose_answer_was_lost_is_made_once(
    place: TablePlace, root: Path, monkeypatch: pytest.MonkeyPatch, *, is_made: bool, looks: bool
) -> None:
    """Committed again it adds what is missing, whether or not the writer has looked at the table first."""
    writer = open_writer(place, 0, 1)
    reads = {(TOPIC, number): [read_of(0, 20, partition=number)] for number in (0, 1)}
    around_commits(monkeypatch, after=lost, is_made=is_made)
    with pytest.raises(Unavailable):
        writer.commit(reads)

    if looks:
        writer.refresh()
    writer.commit(reads)
    writer.commit({FIRST: [read_of(20, 25)]})

    assert plain_offsets(root) == rows_up_to(25) + rows_up_to(20, 1)


def test_writers_of_different_partitions_commit_side_by_side(place: TablePlace, root: Path) -> None:
    """A cluster of processes: none stops another, and nothing is lost."""
    writers = [open_writer(place, number) for number in range(4)]
    ended: list[int] = []

    def write(number: int) -> None:
        for begin in range(0, 50, 10):
            writers[number].commit({(TOPIC, number): [read_of(begin, begin + 10, partition=number)]})
        ended.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(ended) == [0, 1, 2, 3]
    assert plain_offsets(root) == [row for number in range(4) for row in rows_up_to(50, number)]
    assert EventLog(root).positions() == {(TOPIC, number): 50 for number in range(4)}


def test_a_commit_of_two_partitions_stops_when_one_is_taken_over(place: TablePlace, root: Path) -> None:
    """Of the other one nothing is written either: a commit is whole."""
    writer = open_writer(place, 0, 1)
    other = open_writer(place, 1)

    with pytest.raises(WriterFenced, match="partition 1"):
        writer.commit({(TOPIC, number): [read_of(0, 20, partition=number)] for number in (0, 1)})
    other.commit({(TOPIC, 1): [read_of(0, 5, partition=1)]})

    assert plain_offsets(root) == rows_up_to(5, 1)
