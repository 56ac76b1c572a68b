"""Merges small files of an event log while others read it and write it.

Files of one event date and partition that follow each other become one, named after the offsets of both ends. Its rows
are the same, so for a reader nothing changes. How it takes their place:

    local disk      a directory is prepared beside the date's, with the merged files and second names (hard links) of
                    all others, and the two change places in one step. Who lists the date sees the files of before or
                    of after. Who listed it before and opens a file after may not find it: that is loud, and a second
                    try succeeds.
    object store    a PUT changes one object, and no order of single changes leads from several files to one without a
                    moment at which rows are there twice or not at all. So compaction is refused there unless asked for
                    (`may_overlap`): the merged file first, then the others are deleted. Our reader is exact throughout:
                    it passes over files whose offsets another one covers.

Replaced files stay in _replaced for an hour, where scans that began before find them.

Merging is geometric: a file is rewritten only together with at least as many bytes behind it, so each row is rewritten
a logarithmic number of times until its file has the target size. (The idea of log-structured merge trees; O'Neil 1996.)
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.clock import Clock
from featurestore.errors import InvalidRequest, InvariantBroken
from featurestore.offline.event_log.files import DirectoryExchange, LogFiles, mapped_parquet_errors
from featurestore.offline.event_log.layout import PREPARED, REPLACED, SCHEMA_PATH, DataFile, date_directory
from featurestore.offline.event_log.schema import decode_schema
from featurestore.offline.event_log.snapshot import list_data, take_snapshot, without_replaced
from featurestore.offline.event_log.writer import PARQUET_OPTIONS, PUBLISH_LOCK

COMPACTION_LOCK = "compaction"

TARGET_BYTES_DEFAULT = 128 * 1024 * 1024
FILES_MIN_DEFAULT = 8

REPLACED_KEPT_MS = 3_600_000
"""How long a replaced file stays readable for scans that began before."""

_BATCH_ROWS = 65_536
_ROW_GROUP_ROWS = 262_144


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """What to merge.

    Attributes:
        target_bytes: files of this size are left alone, and merged files grow to about it.
        files_min: so many files that follow each other are worth a merge.
        is_full: merge whatever can be merged, once; for dates that get no more rows.
    """

    target_bytes: int = TARGET_BYTES_DEFAULT
    files_min: int = FILES_MIN_DEFAULT
    is_full: bool = False


@dataclass(frozen=True, slots=True)
class FileMerge:
    """Files of one date and partition that follow each other, and become one."""

    inputs: tuple[DataFile, ...]

    @property
    def output(self) -> DataFile:
        """The merged file."""
        first, last = self.inputs[0], self.inputs[-1]
        return DataFile(first.event_date, first.topic, first.partition, first.from_offset, last.next_offset)


@dataclass(frozen=True, slots=True)
class CompactedDate:
    """What was done to one event date."""

    event_date: date
    files_before: int
    files_after: int
    rows: int


def compact(
    files: LogFiles, clock: Clock, policy: CompactionPolicy | None = None, *, may_overlap: bool = False
) -> Iterator[CompactedDate]:
    """Merge small files, date by date; a crash at any point leaves a complete log, and the next call goes on.

    Args:
        files: of the log.
        clock: processing time.
        policy: what to merge.
        may_overlap: go on where directories cannot be exchanged; a plain reader may then see rows twice for a moment.

    Raises:
        InvalidRequest: there is no log, or the file system cannot exchange directories and `may_overlap` is not set.
    """
    try:
        schema = decode_schema(files.read(SCHEMA_PATH))
    except FileNotFoundError:
        raise InvalidRequest(f'there is no event log at "{files.uri}"') from None
    if files.exchanger is None and not may_overlap:
        raise InvalidRequest(
            f'files of event log "{files.uri}" cannot be replaced in one step',
            detail="While files are merged, a reader that lists them itself may see rows twice for a moment.",
            hint="give --allow-overlap when nobody reads it that way now; featurestore's own reader is exact always",
        )
    with files.lock(COMPACTION_LOCK):
        # What an interrupted compaction left: nobody sees any of it.
        files.delete_directory(PREPARED)
        purge_replaced(files, clock)
        _remove_covered(files, clock)
        snapshot = take_snapshot(files)
        settled = [
            file for file in snapshot.files if file.next_offset <= snapshot.positions[file.topic, file.partition]
        ]
        for event_date, same_date in groupby(settled, key=lambda file: file.event_date):
            found = list(same_date)
            merges = plan_merges(found, policy or CompactionPolicy())
            if merges:
                rows = sum(_write_merged(files, merge, schema) for merge in merges)
                if files.exchanger is not None:
                    _exchange(files, files.exchanger, event_date, merges, clock)
                else:
                    _overlap(files, merges, clock)
                replaced = sum(len(merge.inputs) for merge in merges)
                yield CompactedDate(event_date, len(found), len(found) - replaced + len(merges), rows)


def plan_merges(files: Iterable[DataFile], policy: CompactionPolicy) -> list[FileMerge]:
    """What to merge among the files of one date, none of which covers another."""
    merges: list[FileMerge] = []
    for _, same in groupby(sorted(files), key=lambda file: (file.topic, file.partition)):
        run: list[DataFile] = []
        for file in same:
            if file.size_bytes >= policy.target_bytes:
                merges += _merge_rest(run, policy)
                run = []
                continue
            run.append(file)
            if len(run) > 1 and sum(one.size_bytes for one in run) >= policy.target_bytes:
                merges.append(FileMerge(tuple(run)))
                run = []
        merges += _merge_rest(run, policy)
    return merges


def place_for_replaced(clock: Clock) -> str:
    """A new directory for what is taken out of sight now."""
    return f"{REPLACED}/{clock.now_ms()}-{secrets.token_hex(4)}"


def purge_replaced(files: LogFiles, clock: Clock) -> None:
    """Delete what was taken out of sight long enough ago."""
    for name in files.directories(REPLACED):
        moment = name.partition("-")[0]
        # What is not ours stays.
        if moment.isdecimal() and int(moment) <= clock.now_ms() - REPLACED_KEPT_MS:
            files.delete_directory(f"{REPLACED}/{name}")


def _merge_rest(run: Sequence[DataFile], policy: CompactionPolicy) -> list[FileMerge]:
    """What to merge of files that together are smaller than the target."""
    if policy.is_full:
        return [FileMerge(tuple(run))] if len(run) > 1 else []
    while len(run) > 1 and run[0].size_bytes > sum(file.size_bytes for file in run[1:]):
        run = run[1:]
    return [FileMerge(tuple(run))] if len(run) >= max(2, policy.files_min) else []


def _write_merged(files: LogFiles, merge: FileMerge, schema: pa.Schema) -> int:
    """Write the merged file where nobody reads; returns its rows. Memory: one row group."""
    rows_read = rows_written = 0
    with files.write(f"{PREPARED}/{merge.output.path}") as stream:
        options = {name: value for name, value in PARQUET_OPTIONS.items() if name != "row_group_size"}
        with pq.ParquetWriter(stream, schema, **options) as writer:
            waiting: list[pa.Table] = []
            for file in merge.inputs:
                with mapped_parquet_errors(file.path), files.arrow.open_input_file(file.path) as source:
                    parquet = pq.ParquetFile(source)
                    rows_read += parquet.metadata.num_rows
                    for batch in parquet.iter_batches(_BATCH_ROWS):
                        waiting.append(_with_columns(batch, schema))
                        if sum(table.num_rows for table in waiting) >= _ROW_GROUP_ROWS:
                            rows_written += _write_group(writer, waiting)
            rows_written += _write_group(writer, waiting)
    if rows_read != rows_written:
        raise InvariantBroken(f'"{merge.output.path}" has {rows_written} rows, the files it replaces have {rows_read}')
    return rows_written


def _write_group(writer: pq.ParquetWriter, waiting: list[pa.Table]) -> int:
    """Write what waits as one row group; returns its rows."""
    if not waiting:
        return 0
    table = pa.concat_tables(waiting)
    waiting.clear()
    writer.write_table(table, row_group_size=max(1, table.num_rows))
    return int(table.num_rows)


def _with_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """Rows with all columns of the log, nulls in those that were added later."""
    columns = [
        batch.column(field.name) if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _exchange(
    files: LogFiles, exchanger: DirectoryExchange, event_date: date, merges: Sequence[FileMerge], clock: Clock
) -> None:
    """Put the prepared directory in the place of the date's, in one step."""
    directory = date_directory(event_date)
    replaced = {file.path for merge in merges for file in merge.inputs}
    # Writers wait with publishing for this moment: what they would add to the old directory would be lost from sight.
    with files.lock(PUBLISH_LOCK):
        for found in files.find(directory):
            if found.path not in replaced:
                exchanger.link(found.path, f"{PREPARED}/{found.path}")
        exchanger.exchange(directory, f"{PREPARED}/{directory}")
    files.move(f"{PREPARED}/{directory}", f"{place_for_replaced(clock)}/{directory}")


def _overlap(files: LogFiles, merges: Sequence[FileMerge], clock: Clock) -> None:
    """Show the merged files, then take away what they cover."""
    for merge in merges:
        files.move(f"{PREPARED}/{merge.output.path}", merge.output.path)
    for merge in merges:
        for file in merge.inputs:
            files.move(file.path, f"{place_for_replaced(clock)}/{file.path}")


def _remove_covered(files: LogFiles, clock: Clock) -> None:
    """Finish an `_overlap` that was interrupted."""
    found = list_data(files)
    for file in sorted(set(found) - set(without_replaced(found))):
        files.move(file.path, f"{place_for_replaced(clock)}/{file.path}")
