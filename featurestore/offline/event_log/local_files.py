"""A log on a disk of this machine: link, rename, exchange, fsync, flock. See files.py."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from featurestore.errors import Unavailable
from featurestore.offline.disk import (
    DIRECTORY_MODE,
    FILE_MODE,
    SHARED_FILE_MODE,
    complete_file,
    make_directory,
    new_file,
    sync,
    unfinished_file,
)
from featurestore.offline.event_log.files import DirectoryExchange, FoundFile, file_errors, is_hidden

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_libc = ctypes.CDLL(None, use_errno=True)


class LocalFiles:
    """A log on a disk of this machine.

    Args:
        root: the log's directory; made when first written.
        is_private: what is made is for the eyes of its user alone, whatever the umask.
    """

    def __init__(self, root: Path, *, is_private: bool = False) -> None:
        self._root = root.absolute()
        self._file_mode, self._directory_mode = (FILE_MODE, DIRECTORY_MODE) if is_private else (SHARED_FILE_MODE, 0o777)
        self._exchanges: bool | None = None

    @property
    def uri(self) -> str:
        """The directory."""
        return str(self._root)

    @property
    def arrow(self) -> pafs.FileSystem:
        """The directory as an Arrow file system."""
        return pafs.SubTreeFileSystem(str(self._root), pafs.LocalFileSystem())

    @property
    def exchanger(self) -> DirectoryExchange | None:
        """Linux, on a file system that can exchange directories; it is asked itself, once, by writing to it."""
        if self._exchanges is None:
            self._exchanges = self._try_exchange()
        return self if self._exchanges else None

    def find(self, directory: str = "") -> list[FoundFile]:
        """All files below a directory, by path."""
        with file_errors(self.uri):
            found = _files_below(str(self._root / directory), None, directory, frozenset())
            return sorted((file for file in found if not is_hidden(file.path)), key=lambda file: file.path)

    def directories(self, directory: str = "") -> list[str]:
        """Names of the directories directly in a directory."""
        with file_errors(self.uri):
            try:
                with os.scandir(self._root / directory) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir())
            except FileNotFoundError:
                return []

    def exists(self, path: str) -> bool:
        """There is a file of that name."""
        with file_errors(self.uri):
            return (self._root / path).is_file()

    def read(self, path: str) -> bytes:
        """A whole file."""
        with file_errors(self.uri):
            return (self._root / path).read_bytes()

    def create(self, path: str, content: bytes) -> bool:
        """Link a complete file to its name: link(2) fails where the name is taken."""
        with file_errors(self.uri):
            target = self._root / path
            self._make_directory(target.parent)
            with unfinished_file(target, self._file_mode) as aside:
                aside.write_bytes(content)
                sync(aside)
                try:
                    os.link(aside, target)
                except FileExistsError:
                    return False
            sync(target.parent)
            return True

    def replace(self, path: str, content: bytes) -> None:
        """Rename a complete file over the one there."""
        with file_errors(self.uri):
            target = self._root / path
            self._make_directory(target.parent)
            with complete_file(target, self._file_mode) as aside:
                aside.write_bytes(content)

    @contextmanager
    def write(self, path: str) -> Iterator[pa.NativeFile]:
        """Write, then sync file and directory; nothing is left of a file that could not be written."""
        with file_errors(self.uri):
            target = self._root / path
            self._make_directory(target.parent)
            new_file(target, self._file_mode)
            try:
                with pa.OSFile(str(target), "wb") as stream:
                    yield stream
                sync(target)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            sync(target.parent)

    def move(self, source: str, target: str) -> None:
        """Rename."""
        with file_errors(self.uri):
            self._make_directory((self._root / target).parent)
            os.rename(self._root / source, self._root / target)
            sync((self._root / target).parent)

    def delete(self, path: str) -> None:
        """Unlink."""
        with file_errors(self.uri):
            (self._root / path).unlink(missing_ok=True)

    def delete_directory(self, directory: str) -> None:
        """Remove a directory and all in it."""
        with file_errors(self.uri):
            shutil.rmtree(self._root / directory, ignore_errors=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold flock(2) on a file; the kernel lets go when the process ends, however it ends."""
        with file_errors(self.uri):
            self._root.mkdir(parents=True, exist_ok=True)
            with open(self._root / f"_{name}.lock", "ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield

    def link(self, source: str, target: str) -> None:
        """Give a file a second name."""
        with file_errors(self.uri):
            self._make_directory((self._root / target).parent)
            os.link(self._root / source, self._root / target)

    def exchange(self, left: str, right: str) -> None:
        """Let two directories change places in one step."""
        with file_errors(self.uri):
            sync(self._root / left)
            sync(self._root / right)
            paths = [os.fsencode(self._root / path) for path in (left, right)]
            if _libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), left)
            sync((self._root / left).parent)
            sync((self._root / right).parent)

    def _try_exchange(self) -> bool:
        """Exchange two empty directories."""
        if not hasattr(_libc, "renameat2"):
            return False
        names = [f"_exchange-{secrets.token_hex(4)}" for _ in range(2)]
        try:
            with file_errors(self.uri):
                for name in names:
                    (self._root / name).mkdir(parents=True)
            self.exchange(*names)
        except Unavailable as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                return False
            raise
        finally:
            for name in names:
                shutil.rmtree(self._root / name, ignore_errors=True)
        return True

    def _make_directory(self, path: Path) -> None:
        make_directory(path, self._directory_mode)


def _files_below(name: str, parent: int | None, path: str, above: frozenset[tuple[int, int]]) -> Iterator[FoundFile]:
    """All files below a directory; none when it does not exist.

    A directory is opened once, and looked into only by its descriptor: one that changes places meanwhile is listed as
    it was or as it is, whole. (os.fwalk passes over one that is exchanged between its two looks at the name.)

    Args:
        name: of the directory, within `parent`.
        parent: descriptor of the directory above; None for a path of its own.
        path: of the directory, within the log.
        above: device and inode of all directories above, so that a symbolic link to one of them is not followed.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(descriptor)
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        with os.scandir(descriptor) as entries:
            for entry in entries:
                below = f"{path}/{entry.name}" if path else entry.name
                if entry.is_dir():
                    yield from _files_below(entry.name, descriptor, below, above | {identity})
                    continue
                with suppress(FileNotFoundError):
                    yield FoundFile(below, entry.stat().st_size)
    finally:
        os.close(descriptor)
