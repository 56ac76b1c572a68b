"""Vectors as a topic of an embedded log: messages and the source's positions in one step.

    DIR/<topic>/0.jsonl      a message a line: {"key": "c-17", "headers": {...}, "value": {...}}; null removes the key
    DIR/<topic>/.commit      the last transaction: where it begins in that file, the positions, and its lines

    rename ".commit" ── append its lines

The rename is the commit. Whatever is killed behind it is finished by whoever comes next, from the lines that the commit
has; so the topic's file only grows, by what is committed, and readers see each message once.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from dataflows.log_to_features.changes import Place
from dataflows.log_to_features.encoding import Encoding
from dataflows.log_to_features.publisher import LastPublished, Message, last_of
from featurestore.errors import CorruptData, InvalidRequest, SourceUnavailable, WriterFenced
from featurestore.offline.disk import complete_file, locked_file, of_disk, write_all

COMMIT = ".commit"
MESSAGES = "0.jsonl"


class _Commit(msgspec.Struct, frozen=True):
    """The last transaction; its lines are behind it in the file.

    Attributes:
        publication: whose topic it is.
        run: the process that may commit.
        number: of its transactions, from 1; 0 where it has only taken over.
        begin: byte of the topic's file where its lines begin.
        positions: next offsets, by topic and partition.
    """

    publication: str
    run: str
    number: int
    begin: int
    positions: list[tuple[str, int, int]]


class FileOutput:
    """One topic of vectors in an embedded log.

    Args:
        directory: of the topic; made unless it is there.
        publication: a topic has one.
        encoding: makes values of messages, in JSON.

    Raises:
        SourceUnavailable: the disk does not answer, or is full.
        InvalidRequest: the topic is another publication's, or has been written by somebody else.
    """

    def __init__(self, directory: Path, publication: str, encoding: Encoding) -> None:
        self._directory, self._publication, self._encoding = directory, publication, encoding
        self._run, self._number, self._is_open = uuid.uuid4().hex, 0, False
        with self._locked() as descriptor:
            last, lines = self._read() or (_Commit(publication, "", 0, 0, []), b"")
            if last.publication != publication:
                raise InvalidRequest(
                    f'{self._fact}: it is the topic of "{last.publication}"', hint="publish to another topic"
                )
            self._finish(descriptor, last, lines)
            for unfinished in directory.glob(".*.unfinished"):
                unfinished.unlink()
            # Whoever published before is fenced from here on.
            begin = os.fstat(descriptor).st_size
            self._write(_Commit(publication, self._run, 0, begin, last.positions), b"")

    def positions(self) -> Mapping[Place, int]:
        """See Output."""
        with self._locked():
            last, _ = self._own()
            return {(topic, partition): offset for topic, partition, offset in last.positions}

    def published(self) -> Iterator[tuple[bytes, LastPublished]]:
        """See Output: the whole topic is read."""
        try:
            with open(self._directory / MESSAGES, "rb") as file:
                for line in file:
                    message: dict[str, Any] = msgspec.json.decode(line)
                    last = last_of(message["headers"])
                    if last is not None:
                        yield message["key"].encode(), last
        except OSError as error:
            raise of_disk(error, self._fact, self._directory, unavailable=SourceUnavailable) from error

    def commit(self, messages: Sequence[Message], positions: Mapping[Place, int]) -> None:
        """See Output."""
        if not self._is_open:
            self._number, self._is_open = self._number + 1, True
        with self._locked() as descriptor:
            last, lines = self._own()
            self._finish(descriptor, last, lines)
            if last.number != self._number:
                begin, lines = os.fstat(descriptor).st_size, b"".join(map(self._line, messages))
                given = [(topic, partition, offset) for (topic, partition), offset in positions.items()]
                last = _Commit(self._publication, self._run, self._number, begin, given)
                self._write(last, lines)
                self._finish(descriptor, last, lines)
        self._is_open = False

    def close(self) -> None:
        """See Output: nothing is open."""

    @property
    def _fact(self) -> str:
        return f'vectors cannot be published to topic "{self._directory.name}"'

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The topic's file, while nobody else publishes there."""
        try:
            with locked_file(self._directory / MESSAGES) as descriptor:
                yield descriptor
        except OSError as error:
            raise of_disk(error, self._fact, self._directory, unavailable=SourceUnavailable) from error

    def _own(self) -> tuple[_Commit, bytes]:
        """The last transaction and its lines, if it is still this process that may commit."""
        found = self._read()
        if found is None or found[0].run != self._run:
            raise WriterFenced(f"{self._fact}: another process publishes this service there")
        return found

    def _read(self) -> tuple[_Commit, bytes] | None:
        """The last transaction and its lines; None where there was none."""
        path = self._directory / COMMIT
        try:
            head, _, lines = path.read_bytes().partition(b"\n")
            return msgspec.json.decode(head, type=_Commit), lines
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise CorruptData(
                f'{self._fact}: "{path}" is damaged', detail=str(error), hint="publish to another topic"
            ) from error

    def _write(self, commit: _Commit, lines: bytes) -> None:
        """Commit."""
        with complete_file(self._directory / COMMIT) as path:
            path.write_bytes(msgspec.json.encode(commit) + b"\n" + lines)

    def _finish(self, descriptor: int, commit: _Commit, lines: bytes) -> None:
        """Append what the topic does not have yet of a transaction."""
        done = os.fstat(descriptor).st_size - commit.begin
        if not 0 <= done <= len(lines):
            raise InvalidRequest(
                f'{self._fact}: "{self._directory / MESSAGES}" is not as long as what was published there',
                detail=f"It should end at byte {commit.begin + len(lines)}, and ends at {commit.begin + done}.",
                hint="publish to another topic",
            )
        write_all(descriptor, lines[done:])
        os.fsync(descriptor)

    def _line(self, message: Message) -> bytes:
        """A message as it is in the file."""
        vector, value = message.vector, b"null"
        if not message.is_removal:
            value = self._encoding.encode(vector, is_event=message.is_event)
        fields = {"key": vector.key.decode(), "headers": message.headers, "value": msgspec.Raw(value)}
        return msgspec.json.encode(fields) + b"\n"
