"""Small files become large ones while others read: nobody sees a row twice or misses one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import CorruptData, InvalidRequest
from featurestore.offline.event_log.compaction import (
    REPLACED_KEPT_MS,
    CompactedDate,
    CompactionPolicy,
    compact,
    plan_merges,
)
from featurestore.offline.event_log.files import LogFiles
from featurestore.offline.event_log.layout import DataFile
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.snapshot import take_snapshot, without_replaced
from featurestore.testing.clock import ManualClock
from tests.offline.event_log.event_logs import (
    KINDS,
    TOPIC,
    Crash,
    FaultyFiles,
    globbed_offsets,
    make_files,
    offsets_of,
    plain_offsets,
    write_commits,
)

FULL = CompactionPolicy(is_full=True)
ROWS = [(partition, offset) for partition in (0, 1) for offset in range(80)]


FEW_ROWS = [*((0, offset) for offset in range(40)), *((1, offset) for offset in range(4))]


def small_files(kind: str, directory: Path) -> LogFiles:
    """A log of two partitions with eight commits each."""
    files = make_files(kind, directory)
    for partition in (0, 1):
        write_commits(files, range(10, 90, 10), partition=partition)
    return files


def few_files(kind: str, directory: Path) -> LogFiles:
    """A log of two partitions, of which one has files to merge."""
    files = make_files(kind, directory)
    write_commits(files, [10, 20, 40])
    write_commits(files, [4], partition=1)
    return files


def compacted(
    files: LogFiles, policy: CompactionPolicy = FULL, clock: ManualClock | None = None
) -> list[CompactedDate]:
    """One compaction to its end."""
    return list(compact(files, clock or ManualClock(), policy, may_overlap=True))


@pytest.mark.parametrize("kind", KINDS)
def test_small_files_become_one_for_each_date_and_partition(kind: str, tmp_path: Path) -> None:
    """With the same rows, in offset order, for plain readers and for ours."""
    files = small_files(kind, tmp_path)
    before = len(take_snapshot(files).files)

    done = compacted(files)

    assert (2, 4) == (len(done), len(take_snapshot(files).files))
    assert before == sum(one.files_before for one in done) > 30
    assert sum(one.rows for one in done) == len(ROWS)
    assert plain_offsets(files) == ROWS
    batches = list(EventLog.over(files).scan(["partition", "offset"]))
    assert offsets_of(iter(batches)) == ROWS
    for batch in batches:
        offsets = batch["offset"].to_pylist()
        assert offsets == sorted(offsets)
    assert compacted(files) == []


@pytest.mark.parametrize("kind", KINDS)
def test_writing_goes_on_after_a_compaction(kind: str, tmp_path: Path) -> None:
    """Positions are unchanged, and later commits are compacted with what is there."""
    files = small_files(kind, tmp_path)
    positions = take_snapshot(files).positions
    compacted(files)
    assert take_snapshot(files).positions == positions == {(TOPIC, 0): 80, (TOPIC, 1): 80}

    write_commits(files, [90, 100])
    compacted(files)

    assert plain_offsets(files) == sorted([*ROWS, *((0, offset) for offset in range(80, 100))])


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_of_the_compaction_at_any_step_loses_and_doubles_nothing(kind: str, tmp_path: Path) -> None:
    """For our reader at once. For a plain reader too, on a local disk; elsewhere when the next compaction has run."""
    counting = FaultyFiles(few_files(kind, tmp_path / "count"), None, is_done=False)
    compacted(counting)
    assert counting.operations > 10

    for crash_at in range(counting.operations):
        for is_done in (False, True):
            files = few_files(kind, tmp_path / f"{crash_at}-{is_done}")
            with pytest.raises(Crash):
                compacted(FaultyFiles(files, crash_at, is_done=is_done))

            if kind == "local":
                assert plain_offsets(files) == FEW_ROWS
            assert offsets_of(EventLog.over(files).scan(["partition", "offset"])) == FEW_ROWS
            write_commits(files, [45])
            compacted(files)
            assert plain_offsets(files) == sorted([*FEW_ROWS, *((0, offset) for offset in range(40, 45))])


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_that_began_before_a_compaction_finishes(kind: str, tmp_path: Path) -> None:
    """It finds its files where compaction has put them; after an hour they are deleted."""
    files = small_files(kind, tmp_path)
    clock = ManualClock()
    log = EventLog.over(files)
    scan = log.scan(["partition", "offset"])
    first = next(scan)

    compacted(files, clock=clock)

    assert offsets_of(_chain(first, scan)) == ROWS
    assert files.directories("_replaced") != []
    clock.advance_ms(REPLACED_KEPT_MS)
    compacted(files, clock=clock)
    assert files.directories("_replaced") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_half_published_commit_is_not_compacted(kind: str, tmp_path: Path) -> None:
    """It is published again by recovery; compacted before that it would be there twice."""
    probe = few_files(kind, tmp_path / "probe")
    counting = FaultyFiles(probe, None, is_done=False)
    write_commits(counting, [50])
    for crash_at in range(counting.operations):
        files = few_files(kind, tmp_path / str(crash_at))
        with pytest.raises(Crash):
            write_commits(FaultyFiles(files, crash_at, is_done=True), [50])

        compacted(files)
        write_commits(files, [60])
        compacted(files)

        assert plain_offsets(files) == sorted([*FEW_ROWS, *((0, offset) for offset in range(40, 60))])


def test_nobody_who_lists_a_local_log_sees_a_row_twice_or_misses_one(tmp_path: Path) -> None:
    """A plain reader at full speed during commits and compactions. It may have to list again, never more."""
    files = make_files("local", tmp_path)
    write_commits(files, [10])
    is_done = threading.Event()
    seen: list[list[tuple[int, int]]] = []
    retries = [0]

    def read() -> None:
        while not is_done.is_set():
            try:
                seen.append(globbed_offsets(files, tmp_path / "log"))
            except FileNotFoundError:
                retries[0] += 1

    reader = threading.Thread(target=read)
    reader.start()
    for end in range(20, 420, 10):
        write_commits(files, [end])
        compacted(files, CompactionPolicy(files_min=2))
    is_done.set()
    reader.join()

    assert len(seen) > 10
    least = 0
    for rows in seen:
        assert len(rows) >= least, "a row that was there was missed"
        assert len(set(rows)) == len(rows), "a row was there twice"
        least = len(rows)
    print(f"{len(seen)} reads, {retries[0]} of them had to list again")


def test_an_object_store_is_compacted_only_when_it_is_asked_for(tmp_path: Path) -> None:
    """Because a plain reader may see rows twice for a moment."""
    files = small_files("object_store", tmp_path)

    with pytest.raises(InvalidRequest, match="cannot be replaced in one step"):
        list(compact(files, ManualClock(), FULL))


def test_columns_that_were_added_later_are_null_in_compacted_rows(tmp_path: Path) -> None:
    """Files from before and after the change merge."""
    import pyarrow.parquet as pq

    files = small_files("local", tmp_path)
    schema = pa.schema([*EventLog.over(files).schema, ("country", pa.string())])
    from featurestore.offline.event_log.schema import encode_schema

    files.replace("_schema.json", encode_schema(schema))
    compacted(files)

    found = take_snapshot(files).files
    assert len(found) > 0
    for file in found:
        with files.arrow.open_input_file(file.path) as source:
            assert pq.read_table(source)["country"].null_count == file_rows(files, file)


def file_rows(files: LogFiles, file: DataFile) -> int:
    """Rows of a data file."""
    import pyarrow.parquet as pq

    with files.arrow.open_input_file(file.path) as source:
        return int(pq.ParquetFile(source).metadata.num_rows)


def test_files_that_overlap_without_covering_are_reported() -> None:
    """Two compactions at once on a store without locks; silence would double rows."""
    day = date(2026, 11, 22)
    files = [DataFile(day, TOPIC, 0, 0, 20), DataFile(day, TOPIC, 0, 10, 30)]

    with pytest.raises(CorruptData, match="hold some of the same offsets"):
        without_replaced(files)


@given(sizes=st.lists(st.integers(1, 200), max_size=40), files_min=st.integers(2, 10), is_full=st.booleans())
def test_a_plan_merges_neighbours_and_leaves_large_files_alone(sizes: list[int], files_min: int, is_full: bool) -> None:
    """Each file is in one merge at most; merges are runs; nothing of the target size is rewritten."""
    day = date(2026, 11, 22)
    files = [DataFile(day, TOPIC, 0, place * 10, place * 10 + 10, size) for place, size in enumerate(sizes)]
    policy = CompactionPolicy(target_bytes=100, files_min=files_min, is_full=is_full)

    merges = plan_merges(files, policy)

    inputs = [file for merge in merges for file in merge.inputs]
    assert len(set(inputs)) == len(inputs)
    for merge in merges:
        place = files.index(merge.inputs[0])
        assert list(merge.inputs) == files[place : place + len(merge.inputs)]
        assert len(merge.inputs) >= 2
        assert all(file.size_bytes < 100 for file in merge.inputs)
        assert (merge.inputs[0].from_offset, merge.inputs[-1].next_offset) == (
            merge.output.from_offset,
            merge.output.next_offset,
        )
    if is_full:
        left = sorted({*files, *(merge.output for merge in merges)} - set(inputs))
        for one, other in pairwise(left):
            is_merged = one.size_bytes == 0 or other.size_bytes == 0
            assert is_merged or one.size_bytes >= 100 or other.size_bytes >= 100


def test_a_row_is_rewritten_a_logarithmic_number_of_times() -> None:
    """A thousand commits of equal size, compacted after each: about two rewrites for each doubling."""
    day = date(2026, 11, 22)
    policy = CompactionPolicy(target_bytes=1_000_000)
    files: list[DataFile] = []
    rewritten = 0
    for number in range(1_000):
        files.append(DataFile(day, TOPIC, 0, number, number + 1, 1))
        for merge in plan_merges(files, policy):
            size = sum(file.size_bytes for file in merge.inputs)
            rewritten += size
            merged = DataFile(day, TOPIC, 0, merge.output.from_offset, merge.output.next_offset, size)
            files = sorted(set(files) - set(merge.inputs) | {merged})

    assert len(files) < 2 * policy.files_min
    assert rewritten < 1_000 * 10


def _chain(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A scan whose first batch has been taken."""
    yield first
    yield from rest
