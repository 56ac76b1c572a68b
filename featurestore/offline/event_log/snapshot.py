"""What may be read of a log at one moment: positions, and the files that hold exactly the rows before them.

Three listings, in this order: commit records, staged files, data files. A commit whose files are all published when the
second is made has them in the third. One that is still being published is left out with all its rows, whichever of its
files are visible by then: the positions end before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import groupby

import msgspec

from featurestore.errors import CorruptData, Unavailable
from featurestore.offline.event_log.commits import Commit, CommitChain
from featurestore.offline.event_log.files import LogFiles
from featurestore.offline.event_log.layout import (
    COMMITS,
    RETENTION_PATH,
    STAGING,
    DataFile,
    StagedFile,
    date_of_directory,
    parse_data_path,
    parse_staged_path,
    partition_name,
    partition_of_name,
)

Positions = dict[tuple[str, int], int]
"""Next offset by (topic, partition)."""

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class LogSnapshot:
    """A log at one moment.

    Attributes:
        positions: next offset of each partition that has been read.
        files: data files with rows before the positions, by date and offset; none covers another.
        kept_from: event dates before this one were dropped by retention; None when none were.
    """

    positions: Positions
    files: tuple[DataFile, ...]
    kept_from: date | None = None

    @property
    def dates(self) -> list[date]:
        """Event dates that have rows, ascending."""
        return sorted({file.event_date for file in self.files})


def take_snapshot(files: LogFiles) -> LogSnapshot:
    """See what is readable now.

    Raises:
        CorruptData: two files hold some of the same offsets.
        Unavailable: the file system does not answer.
    """
    last = {}
    for partition in logged_partitions(files):
        commit = _last_commit(files, *partition)
        if commit is not None and commit.next_offset is not None:
            last[partition] = commit
    staged = _staged_files(files)
    positions = {partition: _settled(files, partition, commit, staged) for partition, commit in last.items()}
    listed = _list_below(files, positions)
    # After the listing: the first kept date is written down before anything is deleted, so that a date which the
    # listing missed, or caught half deleted, is known to be dropped.
    kept_from = read_retention(files)
    found = [file for file in listed if kept_from is None or file.event_date >= kept_from]
    return LogSnapshot(positions, tuple(without_replaced(found)), kept_from)


def logged_partitions(files: LogFiles) -> list[tuple[str, int]]:
    """(topic, partition) of all partitions that a writer has ever opened."""
    places = map(partition_of_name, files.directories(COMMITS))
    return [place for place in places if place is not None]


def list_data(files: LogFiles) -> list[DataFile]:
    """Every published file, by date and offset."""
    found = []
    for directory in files.directories():
        if date_of_directory(directory) is not None:
            parsed = [parse_data_path(file.path, file.size_bytes) for file in files.find(directory)]
            found += [file for file in parsed if file is not None]
    return sorted(found)


def _list_below(files: LogFiles, positions: Positions) -> list[DataFile]:
    """The published files that begin below the positions, as they are at some moment between two compactions.

    A listing takes a while, on an object store many pages, and a compaction can move rows from what is to come to what
    has been read; two equal listings prove that none did. (Where directories are exchanged in one step one would do.
    Whether they are, only who may write can find out.)
    """
    before: list[DataFile] | None = None
    while True:
        found = [file for file in list_data(files) if file.from_offset < positions.get((file.topic, file.partition), 0)]
        if found == before:
            return found
        before = found


def read_retention(files: LogFiles) -> date | None:
    """The first event date that is kept; None when everything is."""
    try:
        return msgspec.json.decode(files.read(RETENTION_PATH), type=dict[str, date])["kept_from"]
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, KeyError) as error:
        raise CorruptData("the event log's _retention.json cannot be read", detail=str(error)) from error


def without_replaced(files: Iterable[DataFile]) -> list[DataFile]:
    """The files that no other one covers, sorted.

    Raises:
        CorruptData: two files overlap and neither covers the other.
    """
    kept: list[DataFile] = []
    ordered = sorted(
        files, key=lambda one: (one.event_date, one.topic, one.partition, one.from_offset, -one.next_offset)
    )
    for _, same in groupby(ordered, key=lambda one: (one.event_date, one.topic, one.partition)):
        before: DataFile | None = None
        for file in same:
            if before is not None and before.covers(file):
                continue
            if before is not None and file.from_offset < before.next_offset:
                raise CorruptData(
                    f'files "{before.path}" and "{file.name}" of the event log hold some of the same offsets',
                    hint="two compactions ran at once: delete the younger file and restore what it replaced from "
                    "_replaced",
                )
            kept.append(file)
            before = file
    return kept


def _last_commit(files: LogFiles, topic: str, partition: int) -> Commit | None:
    """The newest record; looked for again when it was pruned between listing and reading."""
    chain = CommitChain(files, topic, partition)
    for _ in range(_ATTEMPTS):
        commit = chain.last()
        if commit is not None or not files.find(f"{COMMITS}/{partition_name(topic, partition)}"):
            return commit
    raise Unavailable(f'event log "{files.uri}" changes too fast to be read', hint="try again")


def _staged_files(files: LogFiles) -> Mapping[str, list[StagedFile]]:
    """Staged files by partition name."""
    by_place: dict[str, list[StagedFile]] = {}
    for found in files.find(STAGING):
        file = parse_staged_path(found.path)
        if file is not None:
            by_place.setdefault(file.place, []).append(file)
    return by_place


def _settled(files: LogFiles, partition: tuple[str, int], last: Commit, staged: Mapping[str, list[StagedFile]]) -> int:
    """Next offset of a partition: before the first commit that is not published completely."""
    assert last.next_offset is not None
    position = last.next_offset
    chain = CommitChain(files, *partition)
    for file in staged.get(partition_name(*partition), []):
        if file.sequence > last.sequence:
            continue
        record = last if file.sequence == last.sequence else chain.get(file.sequence)
        if record is not None and record.token == file.token and record.from_offset is not None:
            position = min(position, record.from_offset)
    return position
