"""A process that ends at any step of a writer: no row is shown before its commit, and the next writer goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import Unavailable, WriterFenced
from featurestore.offline.event_log import writer as log_writer
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.table import LogTable
from featurestore.offline.event_log.upkeep import CompactionPolicy, compact, vacuum
from featurestore.offline.event_log.writer import LogWriter
from tests.offline.event_log.event_logs import (
    SCHEMA,
    TOPIC,
    offsets_of,
    open_writer,
    plain_offsets,
    read_of,
    rows_up_to,
    write_commits,
)

ENDS = (40, 90)
"""Ends of the commits of a run; each spans two event dates."""

FULL = CompactionPolicy(is_full=True)

STEPS = (
    (log_writer, "_write_local"),
    (log_writer, "create_table"),
    (log_writer, "make_durable"),
    (LogTable, "commit"),
    (LogTable, "set_partitions"),
)
"""All that a writer does to a disk."""


@contextmanager
def at_every_step(look: Callable[[str], None]) -> Iterator[None]:
    """Look at the disk before and after every step."""

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            look(f"before {name}")
            if name == "_write_local":
                arguments[0].parent.mkdir(parents=True, exist_ok=True)
                arguments[0].write_bytes(b"PAR1 half of it")
                look("within _write_local")
            answer = real(*arguments, **named)
            look(f"after {name}")
            return answer

        return step

    patches = [mock.patch.object(owner, name, watched(name, getattr(owner, name))) for owner, name in STEPS]
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def photographs(tmp_path: Path, work: Callable[[Path], None], begin: Callable[[Path], None]) -> list[tuple[str, Path]]:
    """Copies of a log's directory as it was at every step of some work: what a crash there leaves."""
    root, copies = tmp_path / "log", list[tuple[str, Path]]()
    begin(root)

    def look(step: str) -> None:
        copy = tmp_path / f"{len(copies)} {step}"
        if root.exists():
            shutil.copytree(root, copy)
        copies.append((step, copy))

    with at_every_step(look):
        work(root)
    return copies


def test_a_crash_at_any_step_leaves_each_offset_once(tmp_path: Path) -> None:
    """Whoever reads sees a whole number of commits; the next writer goes on, with what it finds or without."""
    copies = photographs(tmp_path, lambda root: write_commits(root, ENDS), begin=lambda root: None)
    assert len(copies) >= 30
    ends = []

    for step, copy in copies:
        has_table = (copy / "_delta_log").exists()
        seen = plain_offsets(copy) if has_table else []
        end = EventLog(copy).positions().get((TOPIC, 0), 0) if has_table else 0
        assert end in (0, *ENDS), step
        assert seen == rows_up_to(end), step
        ends.append(end)
        write_commits(copy, [*ENDS, 100])

        assert plain_offsets(copy) == rows_up_to(100), step
        assert EventLog(copy).positions() == {(TOPIC, 0): 100}, step
        assert offsets_of(EventLog(copy).scan(["partition", "offset"])) == rows_up_to(100), step
    assert sorted(set(ends)) == [0, *ENDS]
    assert ends == sorted(ends)


def test_a_second_crash_is_as_good_as_the_first(tmp_path: Path) -> None:
    """A process that ends at any step after another one has ended between its files and its commit."""

    def crashed(root: Path) -> None:
        write_commits(root, [40])
        found = photographs(root.parent / "first", lambda other: write_commits(other, [90]), lambda other: None)
        copy = next(copy for step, copy in reversed(found) if step == "before commit")
        for orphan in copy.rglob("*.parquet"):
            if "_delta_log" not in orphan.parts:
                shutil.copy(orphan, root / orphan.relative_to(copy))

    for step, copy in photographs(tmp_path, lambda root: write_commits(root, [70, 95]), crashed):
        assert plain_offsets(copy) in (rows_up_to(40), rows_up_to(70), rows_up_to(95)), step
        write_commits(copy, [100])

        assert plain_offsets(copy) == rows_up_to(100), step


def test_files_that_crashed_writers_left_are_deleted_when_they_are_old(tmp_path: Path) -> None:
    """Not before: a young one may belong to a commit that is about to be made."""
    root = tmp_path / "log"
    write_commits(root, [40])
    needed = {file.path for file in EventLog(root).files}
    left: list[Path] = []

    class Crash(BaseException):
        """The process ends."""

    def end(table: LogTable, *content: Any) -> None:
        left.extend(path for path in root.glob("*/*.parquet") if str(path.relative_to(root)) not in needed)
        raise Crash

    writer = open_writer(place_of(root))
    with mock.patch.object(LogTable, "commit", end), pytest.raises(Crash):
        writer.commit({(TOPIC, 0): [read_of(40, 80)]})
    assert len(left) == 2
    os.utime(left[0], (1_000_000_000, 1_000_000_000))

    assert vacuum(place_of(root)) == 1

    assert [path.exists() for path in left] == [False, True]
    assert plain_offsets(root) == rows_up_to(40)
    for path in root.glob("event_date=*/*.parquet"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert vacuum(place_of(root)) == 1
    assert plain_offsets(root) == rows_up_to(40), "old and needed"


STEP = st.one_of(
    st.tuples(st.just("claim"), st.integers(0, 2), st.sampled_from([(0,), (1,), (0, 1)])),
    st.tuples(st.sampled_from(["commit", "before", "after", "staged"]), st.integers(0, 2), st.integers(1, 25)),
    st.tuples(st.sampled_from(["refresh", "overlap"]), st.integers(0, 2), st.integers(1, 25)),
    st.tuples(st.sampled_from(["compact", "vacuum"]), st.just(0), st.just(0)),
)


class Model:
    """Three processes that write two partitions, and what the log must be.

    Args:
        root: directory of the log.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = place_of(root)
        self.writers: list[LogWriter | None] = [None, None, None]
        self.claimed: list[set[int]] = [set(), set(), set()]
        self.is_unsure = [False, False, False]
        self.owners: dict[int, int] = {}
        self.ends = {0: 0, 1: 0}
        open_writer(self.place, 0, 1)

    def step(self, name: str, number: int, value: Any) -> None:
        """One thing that happens."""
        if name == "compact":
            list(compact(self.place, FULL))
        elif name == "vacuum":
            vacuum(self.place)
        elif name == "claim":
            self._claim(number, value)
        elif name == "refresh":
            writer = self.writers[number]
            if writer is not None:
                self._expect(number, self.claimed[number], writer.refresh)
        elif self.writers[number] is not None:
            self._commit(name, number, value)

    def _claim(self, number: int, partitions: tuple[int, ...]) -> None:
        """A new process takes the place of an old one."""
        writer = LogWriter(self.place, SCHEMA)
        writer.claim([(TOPIC, partition) for partition in partitions])
        self.writers[number], self.claimed[number] = writer, set(partitions)
        self.owners.update(dict.fromkeys(partitions, number))
        self.is_unsure[number] = False

    def _commit(self, name: str, number: int, rows: int) -> None:
        """A process writes all of its partitions, is killed on the way, or hears nothing of it."""
        writer = self.writers[number]
        assert writer is not None
        if self.is_unsure[number] and not self._expect(number, self.claimed[number], writer.refresh):
            return
        self.is_unsure[number] = False
        own = sorted(self.claimed[number])
        ends = {partition: self.ends[partition] + rows for partition in own}
        back = 7 if name == "overlap" else 0
        reads = {
            (TOPIC, partition): [read_of(max(0, self.ends[partition] - back), end, partition=partition)]
            for partition, end in ends.items()
        }
        made = LogTable.commit

        def commit(table: LogTable, *content: Any) -> None:
            if name == "after":
                made(table, *content)
            if name in ("before", "after"):
                raise Unavailable("no answer")
            if name == "staged":
                raise KeyboardInterrupt
            made(table, *content)

        with mock.patch.object(LogTable, "commit", commit):
            is_made = self._expect(number, self.claimed[number], lambda: writer.commit(reads))
        if name == "staged":
            self.writers[number], self.claimed[number] = None, set()
        elif is_made and name != "before":
            self.ends.update(ends)

    def _expect(self, number: int, partitions: set[int], work: Callable[[], object]) -> bool:
        """It is done, unless somebody else has claimed a partition."""
        is_owner = all(self.owners[partition] == number for partition in partitions)
        try:
            work()
        except WriterFenced:
            assert not is_owner
            self.writers[number], self.claimed[number] = None, set()
            return False
        except Unavailable:
            self.is_unsure[number] = True
            return is_owner
        except KeyboardInterrupt:
            return False
        assert is_owner
        return True


@settings(max_examples=30)
@given(steps=st.lists(STEP, min_size=4, max_size=16))
def test_whatever_happens_the_log_is_what_a_list_would_be(
    steps: list[tuple[str, int, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Claims, commits, crashes, lost answers, repeated reads and compactions, in any order, against a naive model."""
    model = Model(tmp_path_factory.mktemp("model") / "log")
    for step in steps:
        model.step(*step)

    log = EventLog(model.root)
    expected = rows_up_to(model.ends[0]) + rows_up_to(model.ends[1], 1)
    assert plain_offsets(model.root) == expected
    assert log.positions() == {(TOPIC, number): end for number, end in model.ends.items() if end}
    if log.positions():
        assert offsets_of(log.scan(["partition", "offset"])) == expected
