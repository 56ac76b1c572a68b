"""Files of this machine that must be there before something else is committed, and what to do when the disk refuses.

    append_lines       all lines or none: what a full disk took of them is taken back, as is a line that a crash tore
    drop_lines         a file without its first lines, while others append to it
    filter_lines       a file without some of its lines, likewise
    complete_file      a whole file under its name, in the place of the one there, or none

Both return when the bytes, the file's name and the directories above it would survive a loss of power. What
they make is for the eyes of its user alone: letters and logs hold what the events hold. `SHARED_FILE_MODE` leaves that
to the umask: of training sets that somebody asked for, and of event logs.

A write may be short: the kernel takes what there is room for and says how much that was, and the next write says why.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from featurestore.clock import Clock, SystemClock
from featurestore.errors import FeatureStoreError, InvalidRequest, Unavailable

FILE_MODE = 0o600
SHARED_FILE_MODE = 0o666
DIRECTORY_MODE = 0o700

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FINAL = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
)
_TAIL_BYTES = 64 * 1024
"""Bytes in one look for the end of a file's last whole line."""

LOCK_TRIES = 40
LOCK_PAUSE_SECONDS = 0.05
"""Whoever holds a file's lock writes a few lines: after two seconds it stands still, and might do so for ever."""


def append_lines(path: Path, lines: bytes, clock: Clock | None = None) -> None:
    """Append whole lines to a file, durably; several processes may.

    Args:
        path: made with its directories if need be.
        lines: ends with a newline.
        clock: passes the time until another process has given its lock back; default: the machine's.

    Raises:
        OSError: there is nothing of the lines in the file; EAGAIN where another process keeps it locked.
    """
    with locked_file(path, clock) as descriptor:
        end = _end_of_last_line(descriptor)
        if end < os.fstat(descriptor).st_size:
            os.ftruncate(descriptor, end)
        try:
            write_all(descriptor, lines)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
        # Each time: whoever made the file may have been killed before it could make its name durable.
        sync(path.parent)


def drop_lines(path: Path, first_kept: Callable[[BinaryIO], int], clock: Clock | None = None) -> None:
    """Take the first lines of a file away; whoever appends lines meanwhile appends to what is left.

    Args:
        path: of the file, which is there.
        first_kept: told the file, says at which byte of it begins what is kept; 0 leaves it as it is.
        clock: see append_lines.

    Raises:
        OSError: all lines are there.
    """
    with locked_file(path, clock), path.open("rb") as file:
        if begin := first_kept(file):
            file.seek(begin)
            with complete_file(path) as unfinished, unfinished.open("wb") as left:
                shutil.copyfileobj(file, left)


def filter_lines(path: Path, is_kept: Callable[[bytes], bool], clock: Clock | None = None) -> None:
    """Take some lines of a file away; whoever appends lines meanwhile appends to what is left.

    Args:
        path: of the file, which is there.
        is_kept: told a line, says whether it stays.
        clock: see append_lines.

    Raises:
        OSError: all lines are there.
    """
    with (
        locked_file(path, clock),
        path.open("rb") as file,
        complete_file(path) as unfinished,
        unfinished.open("wb") as left,
    ):
        left.writelines(line for line in file if is_kept(line))


@contextmanager
def locked_file(path: Path, clock: Clock | None = None) -> Iterator[int]:
    """A file to append to, that nobody else who locks it writes meanwhile.

    Args:
        path: made with its directories if need be.
        clock: see append_lines.

    Yields:
        Its descriptor.

    Raises:
        OSError: it cannot be opened; EAGAIN where another process keeps it locked.
    """
    make_directory(path.parent)
    is_current = False
    while not is_current:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        try:
            _lock(descriptor, path, clock or SystemClock())
            # Another file may have got the name while this one was waited for.
            is_current = _is_at(descriptor, path)
            if is_current:
                yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def complete_file(path: Path, mode: int = FILE_MODE) -> Iterator[Path]:
    """A file to write, which gets its name when the block ends; nothing is left of it when the block or the disk fails.

    Args:
        path: its name; its directory exists. Whatever has that name is replaced.
        mode: of the file; the umask takes from it.

    Yields:
        What to write: an empty, hidden file beside it, of this writer alone.
    """
    unfinished = path.with_name(f".{secrets.token_hex(8)}.unfinished")
    new_file(unfinished, mode)
    try:
        yield unfinished
        sync(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync(path.parent)


def new_file(path: Path, mode: int = FILE_MODE) -> None:
    """An empty file, for others to write."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode))


def write_all(descriptor: int, content: bytes) -> None:
    """Write until everything is written."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def make_directory(path: Path, mode: int = DIRECTORY_MODE) -> None:
    """Make a directory and those above it, durably: a file is lost with the directory that it is in."""
    if not path.is_dir():
        make_directory(path.parent, mode)
        try:
            path.mkdir(mode, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
        sync(path.parent)


def sync(path: Path) -> None:
    """Make a file, or a directory's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def of_disk(error: OSError, fact: str, path: Path | str, *, unavailable: type[Unavailable]) -> FeatureStoreError:
    """What a refusal of the operating system means for whoever wanted a file.

    Args:
        error: the refusal.
        fact: what cannot be done, such as 'log file "x" cannot be opened'.
        path: of the file; the refusal may know better.
        unavailable: kind of error to be tried again.

    Returns:
        InvalidRequest where trying again is of no use before somebody has changed something.
    """
    place = error.filename if isinstance(error.filename, str | os.PathLike) else path
    reason = (error.strerror or str(error)).lower()
    message = f'{fact}: {reason}: "{os.fspath(place)}"'
    if error.errno in _FINAL:
        return InvalidRequest(message, hint="give this process the right to it, or name another place")
    if error.errno in _FULL:
        return unavailable(message, hint="make room there; nothing is lost")
    return unavailable(message, hint="check that the disk is there and answers")


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one of a name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, path: Path, clock: Clock) -> None:
    """Lock a file, without waiting for ever for a process that was stopped while it held the lock.

    Raises:
        OSError: EAGAIN, somebody else holds it.
    """
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            clock.sleep(LOCK_PAUSE_SECONDS)
        except OSError:
            return  # a file system without locks; who shares it must take care
        else:
            return
    raise BlockingIOError(errno.EAGAIN, "another process has it locked, and may be stopped", str(path))


def _end_of_last_line(descriptor: int) -> int:
    """The byte behind a file's last newline, 0 where it has none."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        begin = max(0, end - _TAIL_BYTES)
        newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0
