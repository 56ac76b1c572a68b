"""Dead letters as they lie there: found by topic, reason, time and view, and marked when they were replayed.

The same letter may have been written several times: after a crash, or by several processes. (topic, partition, offset,
view) is its name, and the first of its writings counts. A mark is a letter of the reason "replayed" beside the others.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec

from dataflows.dead_letters.policy import PayloadPolicy, Payloads
from dataflows.dead_letters.writer import TOPIC_SUFFIX
from featurestore.definitions.schemas.directory import BASE64_ENDING, JSON_ENDING
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.offline.disk import append_lines, of_disk

REPLAYED = "replayed"
"""Reason of a mark: the letter's record was given to its topic again."""

REPLAY_HEADER = "featurestore-replay-of"
"""Header of a record that was replayed: topic/partition/offset of its first place."""


@dataclass(frozen=True, slots=True)
class KeptLetter:
    """A dead letter that was kept.

    Attributes:
        reason, detail: why the record was refused.
        topic, partition, offset: the record's place.
        view: the only view or storage group that refused it; None when nothing could use it.
        written_ms: when the letter was written; None where an older release wrote it to a file.
        payload: of the record; None where it was dropped, or no key opens it; its beginning where it was cut.
        payload_bytes: how many there were.
        is_replayed: the record was given to its topic again.
    """

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    view: str | None
    written_ms: int | None
    payload: bytes | None
    payload_bytes: int
    is_replayed: bool = False

    @property
    def name(self) -> str:
        """Its place, for people."""
        return f"{self.topic}/{self.partition}/{self.offset}" + (f" ({self.view})" if self.view else "")

    @property
    def is_whole(self) -> bool:
        """The record's bytes are all there."""
        return self.payload is not None and len(self.payload) == self.payload_bytes


Wanted: TypeAlias = Callable[[KeptLetter], bool]
_Key: TypeAlias = tuple[str, int, int, str | None]


class LetterBook(Protocol):
    """Where letters were written."""

    def find(self, topics: Sequence[str], wanted: Wanted) -> list[KeptLetter]:
        """The wanted letters of records of some topics, each once, by place.

        Raises:
            SourceUnavailable: they cannot be read now.
        """
        ...

    def replay(self, letters: Sequence[KeptLetter]) -> int:
        """Give the records of letters of one topic to it again, to the partition that each was in, and mark them.

        Args:
            letters: whole, and fit for it (see replay.py).

        Returns:
            How many were given: those that somebody else has replayed meanwhile are not.

        Raises:
            SourceUnavailable: it cannot be done now; what was done is marked.
            InvalidRequest: another replay of the topic has begun.
        """
        ...


def collect(letters: Iterable[KeptLetter], wanted: Wanted) -> list[KeptLetter]:
    """The wanted ones of all that was written, each once, marked where there is a mark; by place."""
    found: dict[_Key, KeptLetter] = {}
    marked: set[_Key] = set()
    for letter in letters:
        if letter.reason == REPLAYED:
            marked.add(key_of(letter))
        elif key_of(letter) not in found and wanted(letter):
            found[key_of(letter)] = letter
    return [replace(found[key], is_replayed=key in marked) for key in sorted(found, key=_order)]


def key_of(letter: KeptLetter) -> _Key:
    """What tells it from others."""
    return letter.topic, letter.partition, letter.offset, letter.view


def _order(key: _Key) -> tuple[str, int, int, str]:
    return key[0], key[1], key[2], key[3] or ""


class FileBook:
    """Letters in files.

    Args:
        directory: where FileDeadLetters has written them.
        log_dir: of the embedded log, to which records are given again; None where the log is Kafka's.
        policy: opens payloads.
    """

    def __init__(self, directory: Path, log_dir: Path | None, policy: PayloadPolicy) -> None:
        self._directory = directory
        self._log_dir = log_dir
        self._policy = policy

    def find(self, topics: Sequence[str], wanted: Wanted) -> list[KeptLetter]:
        """See LetterBook; a line that a crash tore is no letter."""
        return collect((one for topic in topics for one in self._letters(topic)), wanted)

    def replay(self, letters: Sequence[KeptLetter]) -> int:
        """See LetterBook. The record comes first and its mark after it: a crash between them makes a retry."""
        if self._log_dir is None:
            raise InvalidRequest(
                "letters in files are only replayed into an embedded log",
                detail="What is in files and what is in Kafka cannot change in one step.",
                hint="let the stream write the letters of Kafka's topics to topics: leave --dead-letter-dir out",
            )
        given = 0
        for letter in self.find([letters[0].topic], _one_of(letters)) if letters else ():
            if letter.is_replayed:
                continue
            assert letter.payload is not None, "only whole letters are replayed"
            _append_payload(self._log_dir / letter.topic, letter.partition, letter.payload)
            place = self._directory / f"{letter.topic}{TOPIC_SUFFIX}" / f"{letter.partition}.jsonl"
            try:
                append_lines(place, _mark_line(letter))
            except OSError as error:
                raise of_disk(error, "a replay cannot be marked", place, unavailable=SourceUnavailable) from error
            given += 1
        return given

    def _letters(self, topic: str) -> Iterator[KeptLetter]:
        """Everything that was written of a topic."""
        for path in self.files(topic):
            try:
                with path.open("rb") as file:
                    yield from (self.letter(line) for line in file if self.is_letter(line))
            except OSError as error:
                raise of_disk(error, "dead letters cannot be read", path, unavailable=SourceUnavailable) from error

    def files(self, topic: str) -> list[Path]:
        """Files with letters of a topic, by partition's name."""
        return sorted((self._directory / f"{topic}{TOPIC_SUFFIX}").glob("*.jsonl"))

    @staticmethod
    def is_letter(line: bytes) -> bool:
        """Whether a line is one, and not what a crash left of it."""
        return line.endswith(b"\n")

    def letter(self, line: bytes) -> KeptLetter:
        """What a line says."""
        fields: Mapping[str, Any] = msgspec.json.decode(line)
        stored = base64.b64decode(fields["payload"])
        payload = self._policy.opened(stored, Payloads(fields.get("payloads", Payloads.KEEP)))
        return KeptLetter(
            fields["reason"],
            fields["detail"],
            fields["topic"],
            fields["partition"],
            fields["offset"],
            fields["view"],
            fields.get("written_ms"),
            payload,
            fields.get("payload_bytes", len(stored)),
        )


def _one_of(letters: Sequence[KeptLetter]) -> Wanted:
    """Exactly those."""
    keys = {key_of(letter) for letter in letters}
    return lambda letter: key_of(letter) in keys


def _append_payload(directory: Path, partition: int, payload: bytes) -> None:
    """Add a payload to a partition, as a line of the kind that it has."""
    of_bytes = directory / f"{partition}{BASE64_ENDING}"
    if of_bytes.exists():
        append_record(of_bytes, binascii.b2a_base64(payload, newline=False))
    else:
        append_record(directory / f"{partition}{JSON_ENDING}", payload)


def append_record(path: Path, record: bytes) -> None:
    """Add a record to a file of the embedded log, durably.

    Raises:
        SourceUnavailable: somebody is in the middle of a line, or the disk refuses.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                raise SourceUnavailable(
                    f'log file "{path}" ends in the middle of a record', hint="try again in a moment"
                )
            # In one write, so that another writer's line stays whole too.
            written = os.write(descriptor, record + b"\n")
            if written != len(record) + 1:
                os.ftruncate(descriptor, size)
                raise SourceUnavailable(f'log file "{path}" took only a part of a record', hint="make room there")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise of_disk(error, "a record cannot be added to its log", path, unavailable=SourceUnavailable) from error


def _mark_line(letter: KeptLetter) -> bytes:
    """The mark of a letter in a file."""
    fields = {
        "reason": REPLAYED,
        "detail": "",
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "view": letter.view,
        "payload": "",
    }
    return msgspec.json.encode(fields) + b"\n"
