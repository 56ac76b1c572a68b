"""The embedded log: a directory of files of lines, one a partition, that may still be growing.

    DIR/<topic>/<partition>.jsonl      one record a line; the offset of a record is its line number, from 0
    DIR/<topic>/<partition>.base64     the same of bytes that are no text: records with the id of a schema before them
    DIR/_schemas/<subject>/<id>.avsc   their schemas, as a registry would have them (`definitions.schemas.directory`)

A last line without its newline is still being written and waits. An empty line is no record, and neither is a mark that
says that the file is UTF-8; a line that is longer than any record is passed on as its beginning, which does not decode.

Files only ever grow: one that shrinks, or that is shorter than what the store has read of it, has lost events. One that
begins with another record is another file, whatever its name: rotated, replaced, or truncated and filled again.
"""

from __future__ import annotations

import binascii
import hashlib
import logging
import os
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from io import FileIO
from pathlib import Path

import numpy as np

from dataflows.logs.schemas import SchemaRegistries
from dataflows.logs.sources import PartitionReader
from featurestore.core.spec import SourceSpec
from featurestore.definitions.schemas.directory import BASE64_ENDING, JSON_ENDING, SCHEMAS, SCHEME, ending_of
from featurestore.errors import EventsLost, SourceUnavailable
from featurestore.offline.disk import of_disk
from featurestore.wire.formats.columns import NoSchemas, Schemas
from featurestore.wire.payloads import RawBatch

BLOCK_BYTES = 4 * 1024 * 1024
"""Bytes in one read of a file."""

RECORD_BYTES_MAX = 16 * 1024 * 1024
"""A longer line is no record. What waits for its newline is kept in memory, and no more than this."""

CUT_RECORD_BYTES = 64 * 1024
"""What is kept of a line that is too long."""

FIRST_BYTES = 4 * 1024
"""A file is known by so much of its first record."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

INDEX_RECORDS = 100_000
"""At most one place in the file is remembered for so many records."""

_logger = logging.getLogger(__name__)


class FileLog:
    """Topics of an embedded log.

    Args:
        directory: holds a directory for each topic.
        schemas: of records that begin with the id of one; by default those of the log itself.
    """

    def __init__(self, directory: Path, schemas: SchemaRegistries | None = None) -> None:
        self._directory = directory
        self._schemas = schemas or embedded_registry(directory, {})
        self._indexes: dict[Path, LineIndex] = {}

    def schemas(self, source: SourceSpec) -> Schemas:
        """Those of the log, whatever the address of the source's registry is: no Kafka, and none of its neighbours."""
        return NoSchemas() if source.format == "json" else self._schemas.of(source)

    def partitions(self, source: SourceSpec) -> Sequence[int]:
        """Partition numbers for which there is a file."""
        directory = self._directory / source.topic
        try:
            names = [Path(name) for name in os.listdir(directory)]
        except FileNotFoundError:
            names = []
        except OSError as error:
            fact = f'log directory "{directory}" cannot be read'
            raise of_disk(error, fact, directory, unavailable=SourceUnavailable) from error
        ending = ending_of(source.format)
        numbers = sorted(int(name.stem) for name in names if name.suffix == ending and name.stem.isdecimal())
        if not numbers:
            what = (
                "one JSON object a line" if ending == JSON_ENDING else f"one {source.format} record a line, in base64"
            )
            raise SourceUnavailable(
                f'log directory "{directory}" has no partition files',
                hint=f"write records to {directory / f'0{ending}'}, {what}",
            )
        return numbers

    def ends(self, source: SourceSpec, partitions: Collection[int]) -> Mapping[int, int]:
        """Numbers of complete lines, counted from the last known place of each file."""
        return {partition: _count_lines(*self._place(source, partition)) for partition in partitions}

    def reaches_back(self, source: SourceSpec, partitions: Collection[int], since_ms: int) -> bool:
        """Always: a file keeps all its lines."""
        return True

    def incarnations(self, source: SourceSpec, partitions: Collection[int]) -> Mapping[int, str]:
        """A digest of each file's first record; "" while there is none.

        Not its inode: a log that was copied, or restored from a copy, is the same log.
        """
        known = {}
        for partition in partitions:
            with _opened(self._place(source, partition)[0]) as file:
                known[partition] = hashlib.blake2b(first, digest_size=12).hexdigest() if (first := _first(file)) else ""
        return known

    def open(self, source: SourceSpec, partition: int, start: int | None, needed: int | None = None) -> PartitionReader:
        """A reader from record `start` on."""
        path, index = self._place(source, partition)
        if start is None and needed is not None:
            self._require(source, partition, needed)
        return FilePartition(path, source.topic, partition, start or 0, index)

    def lost(self, source: SourceSpec, offsets: Mapping[int, int]) -> Mapping[int, EventsLost]:
        """Records behind the end of a file that has become shorter."""
        lost = {}
        for partition, offset in offsets.items():
            try:
                self._require(source, partition, offset)
            except EventsLost as error:
                lost[partition] = error
        return lost

    def path(self, source: SourceSpec, partition: int) -> Path:
        """A partition's file."""
        return self._place(source, partition)[0]

    @staticmethod
    def record(source: SourceSpec, line: bytes) -> bytes:
        """The record that a line of a source's files holds."""
        return _decoded(line) if ending_of(source.format) == BASE64_ENDING else line

    def _require(self, source: SourceSpec, partition: int, offset: int) -> None:
        """Go to a record; raises EventsLost where there is no such place."""
        path, index = self._place(source, partition)
        FilePartition(path, source.topic, partition, offset, index).close()

    def _place(self, source: SourceSpec, partition: int) -> tuple[Path, LineIndex]:
        """A partition's file and its index."""
        path = self._directory / source.topic / f"{partition}{ending_of(source.format)}"
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
        self._first = _first(self._file)
        self._lines: list[bytes] = []
        self._partial = bytearray()
        self._partial_bytes = 0
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
        if begin == 0:
            payloads[0] = payloads[0].removeprefix(_BYTE_ORDER_MARK)
        records = [number for number, payload in enumerate(payloads) if payload and not payload.isspace()]
        if len(records) < len(payloads):
            payloads, offsets = [payloads[number] for number in records], offsets[records]
        if self._path.suffix == BASE64_ENDING:
            payloads = list(map(_decoded, payloads))
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
        self._check_same()
        if not block:
            size = os.fstat(self._file.fileno()).st_size
            if size < self._bytes_read:
                raise EventsLost(
                    f'log file "{self._path}" shrank to {size} bytes, {self._bytes_read} were read',
                    hint="a log only grows; restore it, or use a new project or an empty store",
                )
            return
        self._bytes_read += len(block)
        first, *others = block.split(b"\n")
        self._wait(first)
        if others:
            self._lines.append(self._waited())
            self._lines += others[:-1]
            self._wait(others[-1])
        self._index.note(self._next_offset + len(self._lines), self._bytes_read - self._partial_bytes)

    def _wait(self, part: bytes) -> None:
        """Keep a part of a line whose end is not there yet; of one that is too long, its beginning."""
        self._partial_bytes += len(part)
        if self._partial_bytes <= RECORD_BYTES_MAX:
            self._partial += part
        elif self._partial_bytes - len(part) <= RECORD_BYTES_MAX:
            self._partial = (self._partial + part[:CUT_RECORD_BYTES])[:CUT_RECORD_BYTES]
            _logger.warning(
                'record %d of log file "%s" is longer than %d bytes; the dead letter has its first %d',
                self._next_offset + len(self._lines),
                self._path,
                RECORD_BYTES_MAX,
                CUT_RECORD_BYTES,
            )

    def _waited(self) -> bytes:
        """The line that has its end now."""
        # No JSON ends in a zero byte: a beginning must not decode because what was cut off came behind a whole object.
        line = bytes(self._partial + (b"\0" if self._partial_bytes > RECORD_BYTES_MAX else b""))
        self._partial, self._partial_bytes = bytearray(), 0
        return line

    def _check_same(self) -> None:
        """Refuse to go on in a file that is not the one any more that was opened."""
        first = _first(self._file)
        if not self._first:
            self._first = first
        try:
            is_same = first == self._first and os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            is_same = True  # renamed, and the next one is not there yet: what is in it is still to be read
        if not is_same:
            raise EventsLost(
                f'log file "{self._path}" was made anew while it was read',
                detail="A log only grows: whoever rotates or truncates it takes records away that may not be read yet.",
                hint="restore it and write on at its end, or use a new topic name",
            )

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


def embedded_registry(directory: Path, options: Mapping[str, str]) -> SchemaRegistries:
    """The registry of a log directory; `options` may name another."""
    return SchemaRegistries({"url": f"{SCHEME}{directory / SCHEMAS}", **options})


def _decoded(line: bytes) -> bytes:
    """A record of its line; what is no base64 is left as it is, and is no record of any schema."""
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        return line


def _opened(path: Path) -> FileIO:
    """A file to read."""
    try:
        return FileIO(path, "rb")
    except OSError as error:
        raise of_disk(error, "log file cannot be opened", path, unavailable=SourceUnavailable) from error


def _first(file: FileIO) -> bytes:
    """The first record of a file, or the beginning of one that is long; b"" while it is being written."""
    head = os.pread(file.fileno(), FIRST_BYTES, 0)
    line, newline, _ = head.partition(b"\n")
    return line + newline if newline else head if len(head) == FIRST_BYTES else b""


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
