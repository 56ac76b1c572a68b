"""Where a process writes what was done: a file of its own, announced in the manifest of all writers.

    DIRECTORY/writers.jsonl       opened, noted, closed: each writer, and how far its file had come
    DIRECTORY/WRITER.jsonl        what was done; its first line follows the manifest's line that announced it

Both are chains (`chain`). So a file that is missing, or ends before where the manifest has seen it, shows. A writer
keeps its file locked: one that is not locked and was not closed has died, and whoever comes next notes for good how far
it came.

A line is there as a whole or not at all, and on the disk when `write` returns.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from featurestore.clock import Clock
from featurestore.definitions.governance.audit.chain import LINE_BYTES_MAX, START, Head, Line, last_of, sealed
from featurestore.errors import SourceUnavailable

MANIFEST = "writers.jsonl"
OPENED, NOTED, CLOSED = "opened", "noted", "closed"
SUFFIX = ".jsonl"

FILE_MODE, DIRECTORY_MODE = 0o640, 0o750
"""Auditors may be of the group."""

LOCK_SECONDS, LOCK_PAUSE_SECONDS = 5.0, 0.01
"""Whoever holds the manifest writes one line."""

TAIL_BYTES = 2 * LINE_BYTES_MAX
"""In which the last line of a file is found."""

_NS_PER_SECOND = 1_000_000_000


class Journal:
    """One writer. Not thread-safe.

    Args:
        directory: of all writers; made if need be.
        clock: dates lines.

    Raises:
        SourceUnavailable: nothing can be written there.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory, self._clock = directory, clock
        self._descriptor = -1
        self._noted_seq = 0
        try:
            self._open()
        except OSError as error:
            raise _unwritable(directory, error) from error

    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Append lines, durably.

        Args:
            records: what was done; each gets its time where it has none.

        Raises:
            SourceUnavailable: none of them is written; the same call may be tried again.
        """
        if not records:
            return
        try:
            if self._day != self._today():
                self._close()
                self._open()
            self._append(records)
        except OSError as error:
            raise _unwritable(self._directory, error) from error

    def note(self) -> None:
        """Let the manifest know how far this writer has come: what it knows cannot be cut off unseen.

        Raises:
            SourceUnavailable: it cannot be written.
        """
        if self._noted_seq == self._head.seq:
            return
        try:
            self._announce(NOTED, self._head)
        except OSError as error:
            raise _unwritable(self._directory, error) from error
        self._noted_seq = self._head.seq

    def close(self) -> None:
        """End: the file is complete.

        Raises:
            SourceUnavailable: that cannot be written.
        """
        try:
            self._close()
        except OSError as error:
            raise _unwritable(self._directory, error) from error

    def _today(self) -> str:
        return datetime.fromtimestamp(self._clock.now_ms() / 1_000, tz=UTC).date().isoformat()

    def _open(self) -> None:
        """Begin another file."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
        self._day = self._today()
        host = re.sub(r"[^A-Za-z0-9.]+", "-", socket.gethostname())
        self.name = f"{self._day}-{host}-{os.getpid()}-{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        descriptor = os.open(self._directory / f"{self.name}{SUFFIX}", flags, FILE_MODE)
        try:
            # Before the manifest names it: a file without a lock is taken for one whose writer has died.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._head = Head(0, self._announce(OPENED).hash)
        except BaseException:
            os.close(descriptor)
            (self._directory / f"{self.name}{SUFFIX}").unlink(missing_ok=True)
            raise
        self._descriptor, self._noted_seq = descriptor, 0

    def _close(self) -> None:
        if self._descriptor < 0:
            return
        self._announce(CLOSED, self._head)
        os.close(self._descriptor)
        self._descriptor = -1

    def _append(self, records: Sequence[Mapping[str, object]]) -> None:
        if self._descriptor < 0:
            self._open()
        head, lines = self._head, []
        for record in records:
            line, head = sealed({"at_ms": self._clock.now_ms(), "writer": self.name, **record}, head)
            lines.append(line)
        _append_whole(self._descriptor, b"".join(lines))
        self._head = head

    def _announce(self, event: str, head: Head | None = None) -> Head:
        """Append a line to the manifest; answers with it."""
        with _manifest(self._directory, self._clock) as descriptor:
            last = last_line(descriptor)
            # Of a damaged line nothing is taken but that it was the last one.
            still_open = [] if last is None else [str(name) for name in last.content.get("open", [])]
            died = {}
            if event == OPENED:
                died = {name: found for name in still_open if (found := _head_of_dead(self._directory, name))}
                still_open = [name for name in still_open if name not in died] + [self.name]
            elif event == CLOSED:
                still_open = [name for name in still_open if name != self.name]
            heads = died if head is None else {self.name: head}
            content = {
                "at_ms": self._clock.now_ms(),
                "event": event,
                "writer": self.name,
                "heads": {name: [one.seq, one.hash] for name, one in heads.items()},
                "open": still_open,
            }
            line, announced = sealed(content, Head(0, START) if last is None else last.head)
            _append_whole(descriptor, line)
            return announced


def last_line(descriptor: int) -> Line | None:
    """The last line of a file; what was torn behind it is taken away, as nobody has been told that it is there.

    Raises:
        OSError: it cannot be read.
    """
    size = os.fstat(descriptor).st_size
    begin = max(0, size - TAIL_BYTES)
    data = os.pread(descriptor, size - begin, begin)
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.ftruncate(descriptor, begin + end)
    lines = data[:end].split(b"\n")[:-1]
    return last_of(lines[-1]) if lines else None


def _head_of_dead(directory: Path, name: str) -> Head | None:
    """How far a writer came that does not keep its file locked any more; None for one that lives, or left no file."""
    try:
        descriptor = os.open(directory / f"{name}{SUFFIX}", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        last = last_line(descriptor)
        return Head(0, "") if last is None else last.head
    except BlockingIOError:
        return None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _manifest(directory: Path, clock: Clock) -> Iterator[int]:
    """The manifest, locked."""
    descriptor = os.open(directory / MANIFEST, os.O_RDWR | os.O_CREAT | os.O_APPEND, FILE_MODE)
    deadline_ns = clock.monotonic_ns() + int(LOCK_SECONDS * _NS_PER_SECOND)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock.monotonic_ns() > deadline_ns:
                    raise
                clock.sleep(LOCK_PAUSE_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def _append_whole(descriptor: int, data: bytes) -> None:
    """All of it, durably, or nothing: what a full disk took of it is taken back."""
    before = os.fstat(descriptor).st_size
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before)
        raise


def _unwritable(directory: Path, error: OSError) -> SourceUnavailable:
    return SourceUnavailable(
        f'the audit log in "{directory}" cannot be written',
        detail=error.strerror or str(error),
        hint="make room there, or let this process write there",
    )
