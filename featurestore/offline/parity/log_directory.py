"""The feature log's files: each complete when it has its name, on a disk of this machine or on an object store.

They are no table, as the event log is. A file's columns are those of one service's definition, which changes with it,
its metadata says what they are, no position depends on it, and a server writes one in some minutes: there is nothing to
commit, and nothing to merge.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from featurestore.errors import Unavailable
from featurestore.offline.disk import FILE_MODE, complete_file, make_directory, of_disk
from featurestore.offline.event_log.address import place_of


class LogDirectory:
    """A feature log's directory.

    Args:
        uri: a path or URI, as an event log's (see event_log/address.py).

    Raises:
        InvalidRequest: the address is not known.
    """

    def __init__(self, uri: str | Path) -> None:
        place = place_of(uri)
        self.uri = place.uri
        self._files = place.files
        self._directory = place.directory

    @contextmanager
    def new_file(self, path: str) -> Iterator[pa.NativeFile]:
        """A file to write; it gets its name, durably, when the block ends. For the eyes of its user alone, on a disk.

        Raises:
            OSError, Unavailable: it cannot be written; nothing of it is there.
        """
        if self._directory is None:
            with self._files.open_output_stream(path) as stream:
                yield stream
            return
        target = self._directory / path
        make_directory(target.parent)
        with complete_file(target, FILE_MODE) as unfinished, pa.OSFile(str(unfinished), "wb") as stream:
            yield stream

    def find(self) -> list[str]:
        """Paths of all files, sorted; those that are being written are not among them.

        Raises:
            Unavailable: the file system does not answer.
        """
        try:
            found = self._files.get_file_info(pafs.FileSelector("", recursive=True, allow_not_found=True))
        except OSError as error:
            fact = f'feature log "{self.uri}" does not answer'
            if error.errno is not None:
                raise of_disk(error, fact, self.uri, unavailable=Unavailable) from error
            raise Unavailable(fact, detail=str(error), hint="check address and credentials") from error
        files = [info for info in found if info.type == pafs.FileType.File]
        return sorted(info.path for info in files if not info.base_name.startswith("."))

    def identity(self, path: str) -> str:
        """Text that changes when a file is replaced by another one; "" where there is none.

        Raises:
            Unavailable: the file system does not answer.
        """
        try:
            (info,) = self._files.get_file_info([path])
        except OSError as error:
            raise Unavailable(f'feature log "{self.uri}" does not answer', detail=str(error)) from error
        return f"{info.size}/{info.mtime_ns}" if info.type == pafs.FileType.File else ""

    def delete(self, path: str) -> None:
        """Delete a file, if there is one."""
        if self.identity(path):
            self._files.delete_file(path)

    def open(self, path: str) -> pa.NativeFile:
        """A file to read."""
        return self._files.open_input_file(path)
