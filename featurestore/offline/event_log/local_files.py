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
from featurestore.offline.event_log.files import DirectoryExchange, FoundFile, is_hidden, mapped_errors

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_libc = ctypes.CDLL(None, use_errno=True)


class LocalFiles:
    """A log on a disk of this machine.

    Args:
        root: the log's directory; made when first written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
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
        """Linux, on a file system that can exchange directories; it is asked itself, once."""
        if self._exchanges is None:
            self._exchanges = self._try_exchange()
        return self if self._exchanges else None

    def find(self, directory: str = "") -> list[FoundFile]:
        """All files below a directory, by path."""
        found: list[FoundFile] = []
        with mapped_errors(self.uri), suppress(FileNotFoundError):
            # By directory descriptor, so that a directory that changes places meanwhile is listed as it was, whole.
            for folder, _, names, descriptor in os.fwalk(self._root / directory):
                for name in names:
                    with suppress(FileNotFoundError):
                        size_bytes = os.stat(name, dir_fd=descriptor).st_size
                        found.append(FoundFile(Path(folder, name).relative_to(self._root).as_posix(), size_bytes))
        return sorted((file for file in found if not is_hidden(file.path)), key=lambda file: file.path)

    def directories(self, directory: str = "") -> list[str]:
        """Names of the directories directly in a directory."""
        with mapped_errors(self.uri):
            try:
                return sorted(entry.name for entry in os.scandir(self._root / directory) if entry.is_dir())
            except FileNotFoundError:
                return []

    def exists(self, path: str) -> bool:
        """There is a file of that name."""
        return (self._root / path).is_file()

    def read(self, path: str) -> bytes:
        """A whole file."""
        with mapped_errors(self.uri):
            return (self._root / path).read_bytes()

    def create(self, path: str, content: bytes) -> bool:
        """Link a complete file to its name: link(2) fails where the name is taken."""
        with mapped_errors(self.uri):
            aside = self._write_aside(path, content)
            try:
                os.link(aside, self._root / path)
            except FileExistsError:
                return False
            finally:
                aside.unlink()
            _sync(aside.parent)
            return True

    def replace(self, path: str, content: bytes) -> None:
        """Rename a complete file over the one there."""
        with mapped_errors(self.uri):
            self._write_aside(path, content).rename(self._root / path)
            _sync((self._root / path).parent)

    @contextmanager
    def write(self, path: str) -> Iterator[pa.NativeFile]:
        """Write, then sync file and directory."""
        with mapped_errors(self.uri):
            target = self._root / path
            _make_directory(target.parent)
            with pa.OSFile(str(target), "wb") as stream:
                yield stream
            _sync(target)
            _sync(target.parent)

    def move(self, source: str, target: str) -> None:
        """Rename."""
        with mapped_errors(self.uri):
            _make_directory((self._root / target).parent)
            os.rename(self._root / source, self._root / target)
            _sync((self._root / target).parent)

    def delete(self, path: str) -> None:
        """Unlink."""
        with mapped_errors(self.uri):
            (self._root / path).unlink(missing_ok=True)

    def delete_directory(self, directory: str) -> None:
        """Remove a directory and all in it."""
        with mapped_errors(self.uri):
            shutil.rmtree(self._root / directory, ignore_errors=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold flock(2) on a file; the kernel lets go when the process ends, however it ends."""
        self._root.mkdir(parents=True, exist_ok=True)
        with mapped_errors(self.uri), open(self._root / f"_{name}.lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def link(self, source: str, target: str) -> None:
        """Give a file a second name."""
        with mapped_errors(self.uri):
            _make_directory((self._root / target).parent)
            os.link(self._root / source, self._root / target)

    def exchange(self, left: str, right: str) -> None:
        """Let two directories change places in one step."""
        with mapped_errors(self.uri):
            _sync(self._root / left)
            _sync(self._root / right)
            paths = [os.fsencode(self._root / path) for path in (left, right)]
            if _libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), left)
            _sync((self._root / left).parent)
            _sync((self._root / right).parent)

    def _try_exchange(self) -> bool:
        """Exchange two empty directories."""
        if not hasattr(_libc, "renameat2"):
            return False
        names = [f"_exchange-{secrets.token_hex(4)}" for _ in range(2)]
        try:
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

    def _write_aside(self, path: str, content: bytes) -> Path:
        """A complete, synced file beside the path, with a name that listings pass over."""
        target = self._root / path
        _make_directory(target.parent)
        aside = target.with_name(f".{secrets.token_hex(8)}")
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return aside


def _make_directory(path: Path) -> None:
    """Make a directory and those above it, durably: a file is lost with the directory that it is in."""
    if not path.is_dir():
        _make_directory(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Make a file, or a directory's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
