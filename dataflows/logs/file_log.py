"""The embedded log: a directory of JSON Lines files, one a partition, that may still be growing.

    DIR/<topic>/<partition>.jsonl      one record a line; the offset of a record is its line number, from 0

A last line without its newline is still being written and waits. Files only ever grow: one that shrinks, or that is
shorter than what the store has read of it, has lost events.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from io import FileIO
from pathlib import Path

import numpy as np

from dataflows.logs.sources import PartitionReader
from featurestore.core.spec import SourceSpec
from featurestore.errors import EventsLost, SourceUnavailable
from featurestore.wire.payloads import RawBatch

BLOCK_BYTES = 4 * 1024 * 1024
"""Bytes in one read of a file."""

INDEX_RECORDS = 100_000
"""At most one place in the file is remembered for so many records."""


class FileLog:
    """Topics of an embedded log.

    Args:
        directory: holds a directory for each topic.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._indexes: dict[Path, LineIndex] = {}

    def partitions(self, source: SourceSpec) -> Sequence[int]:
        """Partition numbers for which there is a file."""
        directory = self._directory / source.topic
        numbers = sorted(int(path.stem) for path in directory.glob("*.jsonl") if path.stem.isdecimal())
        if not numbers:
            raise SourceUnavailable(
                f'log directory "{directory}" has no partition files',
                hint=f"write records to {directory / '0.jsonl'}, one JSON object a line",
            )
        return numbers

    def ends(self, source: SourceSpec, partitions: Collection[int]) -> Mapping[int, int]:
        """Numbers of complete lines, counted from the last known place of each file."""
        return {partition: _count_lines(*self._place(source, partition)) for partition in partitions}

    def open(self, source: SourceSpec, partition: int, start: int | None) -> PartitionReader:
        """A reader from record `start` on."""
        path, index = self._place(source, partition)
        return FilePartition(path, source.topic, partition, start or 0, index)

    def _place(self, source: SourceSpec, partition: int) -> tuple[Path, LineIndex]:
        """A partition's file and its index."""
        path = self._directory / source.topic / f"{partition}.jsonl"
        return path, self._indexes.setdefault(path, LineIndex())


class LineIndex:
    """Some line numbers of a file and the bytes at which they begin, ascending. Kept while the process lives."""

    def __init__(self) -> None:
        self._lines = [0]
        self._bytes = [0]

    def note(self, line: int, byte: int) -> None:
        """Line `line` begins at `byte`."""
        if line >= self._lines[-1] + INDEX_RECORDS:
            self._lines.append(line)
            self._bytes.append(byte)

    def before(self, line: int) -> tuple[int, int]:
        """The last known line that is not behind `line`, and its byte."""
        place = bisect_right(self._lines, line) - 1
        return self._lines[place], self._bytes[place]

    @property
    def last(self) -> tuple[int, int]:
        """The last known line and its byte."""
        return self._lines[-1], self._bytes[-1]


class FilePartition:
    """Reads one file in blocks.

    Args:
        path: the file.
        topic, partition: its place in the log.
        start: number of the first record to read.
        index: known places of the file.

    Raises:
        EventsLost: the file has fewer than `start` records.
        SourceUnavailable: the file cannot be opened.
    """

    def __init__(self, path: Path, topic: str, partition: int, start: int, index: LineIndex) -> None:
        self._path = path
        self._topic = topic
        self._partition = partition
        self._index = index
        self._file = _opened(path)
        self._next_offset = start
        self._lines: list[bytes] = []
        self._partial = b""
        self._bytes_read = self._seek(start)
        self._start_byte = self._bytes_read
        self._start_offset = start
        self._end_bytes = os.fstat(self._file.fileno()).st_size

    def read(self, records_max: int) -> RawBatch | None:
        """The next complete lines."""
        if len(self._lines) < records_max:
            self._read_block()
        payloads, self._lines = self._lines[:records_max], self._lines[records_max:]
        if not payloads:
            return None
        begin = self._next_offset
        self._next_offset = begin + len(payloads)
        offsets = np.arange(begin, self._next_offset, dtype=np.int64)
        return RawBatch(self._topic, self._partition, begin, self._next_offset, offsets, payloads)

    def end_offset(self) -> int:
        """Number of the next record to be written; estimated from the size of the records so far."""
        known = self._next_offset + len(self._lines)
        bytes_left = os.fstat(self._file.fileno()).st_size - self._bytes_read
        bytes_taken, records_taken = self._bytes_read - self._start_byte, known - self._start_offset
        if bytes_left <= 0:
            return known
        if records_taken == 0:
            return known + 1  # how many is not known; that something is there, is
        return known + round(bytes_left * records_taken / bytes_taken)

    @property
    def has_reached_end(self) -> bool:
        """All that was in the file when it was opened has been read."""
        return not self._lines and self._bytes_read >= self._end_bytes

    def publish(self, next_offset: int) -> None:
        """Nobody watches a file's readers."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_block(self) -> None:
        """Read on, and cut what was read into lines."""
        block = self._file.read(BLOCK_BYTES)
        if not block:
            size = os.fstat(self._file.fileno()).st_size
            if size < self._bytes_read:
                raise EventsLost(
                    f'log file "{self._path}" shrank to {size} bytes, {self._bytes_read} were read',
                    hint="a log only grows; restore it, or use a new project or an empty store",
                )
            return
        self._bytes_read += len(block)
        lines = (self._partial + block).split(b"\n")
        self._partial = lines.pop()
        self._lines += lines
        self._index.note(self._next_offset + len(self._lines), self._bytes_read - len(self._partial))

    def _seek(self, start: int) -> int:
        """Go to the beginning of line `start`; returns its byte."""
        line, byte = self._index.before(start)
        self._file.seek(byte)
        while line < start:
            block = self._file.read(BLOCK_BYTES)
            if not block:
                raise EventsLost(
                    f'log file "{self._path}" has {line} records, {start} were read from it before',
                    hint="a log only grows; restore it, or use a new project or an empty store",
                )
            newlines = block.count(b"\n")
            if line + newlines < start:
                line, byte = line + newlines, byte + len(block)
                continue
            byte += _end_of_line(block, start - line)
            line = start
        self._file.seek(byte)
        self._index.note(start, byte)
        return byte


def _opened(path: Path) -> FileIO:
    """A file to read."""
    try:
        return FileIO(path, "rb")
    except OSError as error:
        raise SourceUnavailable(f'log file "{path}" cannot be opened', detail=str(error)) from error


def _count_lines(path: Path, index: LineIndex) -> int:
    """Complete lines of a file; what is known of it is not read again."""
    line, byte = index.last
    with _opened(path) as file:
        file.seek(byte)
        while block := file.read(BLOCK_BYTES):
            newlines = block.count(b"\n")
            if newlines:
                line += newlines
                index.note(line, byte + block.rindex(b"\n") + 1)
            byte += len(block)
    return line


def _end_of_line(block: bytes, count: int) -> int:
    """The byte behind the `count`th newline of a block that has as many."""
    newlines = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))
    return int(newlines[count - 1]) + 1
