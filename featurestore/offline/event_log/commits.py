"""The commit records of one partition: what is in the log, how far it goes, and who may write on.

    _commits/transactions-00003/00000000000000000041.json   from 8,192 next 12,288   2 files
                                00000000000000000042.json   from 12,288 next 12,288  a new writer's claim
                                00000000000000000043.json   from 12,288 next 20,480  3 files

A record is made under the next sequence number, which succeeds for one writer only. Opening a partition makes a record
too, the claim: a writer that was there before finds its number taken, at its next commit, and stops. A record exists
completely or not at all, and its existence is the commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import msgspec

from featurestore.errors import CorruptData
from featurestore.offline.event_log.files import LogFiles
from featurestore.offline.event_log.layout import COMMITS, partition_name

RECORDS_KEPT = 1_000
"""Older records of a partition are deleted. A writer that slept for longer than so many commits finds a newer record
than its own all the same, because it looks before it commits."""

_PRUNE_EVERY = 100


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit record.

    Attributes:
        sequence: its number; one more than that of the record before.
        token: of the writer, so that it knows its own record again.
        from_offset: next offset of the record before; None before the first read of the partition.
        next_offset: where the next commit begins; as `from_offset` in a claim.
        ingest_time_ms: the latest of all rows so far; 0 before the first.
        files: event dates of its files; none in a claim, or when no record could be decoded.
    """

    sequence: int
    token: str
    from_offset: int | None
    next_offset: int | None
    ingest_time_ms: int
    files: tuple[date, ...] = ()


class CommitChain:
    """The records of one partition.

    Args:
        files: of the log.
        topic, partition: whose they are.
    """

    def __init__(self, files: LogFiles, topic: str, partition: int) -> None:
        self._files = files
        self._directory = f"{COMMITS}/{partition_name(topic, partition)}"

    def last(self) -> Commit | None:
        """The newest record; None when nobody has ever opened the partition."""
        sequences = self._sequences()
        return self.get(sequences[-1]) if sequences else None

    def get(self, sequence: int) -> Commit | None:
        """A record; None when there is none of that number (any more).

        Raises:
            CorruptData: it cannot be read.
        """
        try:
            content = self._files.read(self._path(sequence))
        except FileNotFoundError:
            return None
        try:
            return msgspec.json.decode(content, type=Commit)
        except msgspec.DecodeError as error:
            raise CorruptData(
                f'commit record "{self._path(sequence)}" of the event log cannot be read', detail=str(error)
            ) from error

    def append(self, commit: Commit) -> bool:
        """Make a record the newest one; False when another writer was there first."""
        sequences = self._sequences()
        if (sequences[-1] if sequences else -1) != commit.sequence - 1:
            return False
        return self._files.create(self._path(commit.sequence), msgspec.json.encode(commit))

    def prune(self, sequence: int) -> None:
        """Delete records that are long behind, now and then."""
        if sequence % _PRUNE_EVERY == 0:
            for old in self._sequences():
                if old <= sequence - RECORDS_KEPT:
                    self._files.delete(self._path(old))

    def _sequences(self) -> list[int]:
        """Numbers of all records, ascending."""
        names = [file.path.rpartition("/")[2].removesuffix(".json") for file in self._files.find(self._directory)]
        return sorted(int(name) for name in names if name.isdecimal())

    def _path(self, sequence: int) -> str:
        return f"{self._directory}/{sequence:020d}.json"
