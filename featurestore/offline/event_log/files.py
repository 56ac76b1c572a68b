"""The file-system operations that the commit protocol is made of, on a local disk and on everything Arrow reaches.

    operation       local disk                         object store                     other file systems (HDFS ...)
    create          link(2) of a complete file         conditional PUT, where fsspec    write aside, rename
                                                       has it; else PUT after a look
    publish         rename(2)                          COPY, then DELETE                rename
    exchange        renameat2(RENAME_EXCHANGE)         there is none                    there is none
    is durable      fsync of file and directory        when PUT returns                 when closed

Each makes its whole effect visible at once, or none of it. Paths are relative to the log, with forward slashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.fs as pafs

from featurestore.errors import CorruptData, Unavailable
from featurestore.offline.disk import of_disk

_DAMAGE_WORDS = ("thrift", "decompression", "end of stream", "flatbuffers", "level")
"""Arrow raises OSError also for bytes of a Parquet file that are wrong; its message then has one of these."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a listing."""

    path: str
    size_bytes: int


class DirectoryExchange(Protocol):
    """What a file system must have for a compaction that nobody can catch half done."""

    def link(self, source: str, target: str) -> None:
        """Give a file a second name."""
        ...

    def exchange(self, left: str, right: str) -> None:
        """Let two directories change places in one step."""
        ...


class LogFiles(Protocol):
    """One log's files. Every method may raise Unavailable when the file system does not answer."""

    @property
    def uri(self) -> str:
        """The log's address, for messages."""
        ...

    @property
    def arrow(self) -> pafs.FileSystem:
        """The log as an Arrow file system, for Parquet."""
        ...

    @property
    def exchanger(self) -> DirectoryExchange | None:
        """How two directories change places in one step; None where nothing can."""
        ...

    def find(self, directory: str = "") -> list[FoundFile]:
        """All files below a directory, by path; none when it does not exist."""
        ...

    def directories(self, directory: str = "") -> list[str]:
        """Names of the directories directly in a directory, sorted."""
        ...

    def exists(self, path: str) -> bool:
        """There is a file of that name."""
        ...

    def read(self, path: str) -> bytes:
        """A whole file; FileNotFoundError when there is none."""
        ...

    def create(self, path: str, content: bytes) -> bool:
        """Make a file, durably; False when there is one of that name, which stays as it is."""
        ...

    def replace(self, path: str, content: bytes) -> None:
        """Make a file, or put it in the place of the one there."""
        ...

    def write(self, path: str) -> AbstractContextManager[pa.NativeFile]:
        """An Arrow output stream to a file nobody looks at yet; durable when the block ends."""
        ...

    def move(self, source: str, target: str) -> None:
        """Give a file its final name; FileNotFoundError when it has gone."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file, if there is one."""
        ...

    def delete_directory(self, directory: str) -> None:
        """Remove a directory and all in it, if there is one."""
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Keep other processes of this machine out; does nothing where files cannot be locked."""
        ...


@contextmanager
def file_errors(uri: str) -> Iterator[None]:
    """Map what a file system raises."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        if error.errno is not None:
            raise of_disk(error, f'event log "{uri}" does not answer', uri, unavailable=Unavailable) from error
        raise Unavailable(
            f'event log "{uri}" does not answer', detail=str(error), hint="check address, credentials and free space"
        ) from error


@contextmanager
def mapped_parquet_errors(path: str) -> Iterator[None]:
    """Map what Arrow raises while it reads a data file: a file system that fails from bytes that are wrong."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and not any(word in str(error) for word in _DAMAGE_WORDS):
            raise Unavailable(f'"{path}" of the event log cannot be read', detail=str(error)) from error
        raise CorruptData(
            f'"{path}" of the event log is damaged',
            detail=str(error),
            hint="restore the file from a copy, or from Kafka: move the log away and write it anew",
        ) from error


def is_hidden(path: str) -> bool:
    """A file that is still being written."""
    return path.rpartition("/")[2].startswith(".")
