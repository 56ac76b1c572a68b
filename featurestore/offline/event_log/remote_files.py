"""A log on an object store, or on any other file system that Arrow or fsspec reaches. See files.py."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.fs as pafs

from featurestore.offline.event_log.files import DirectoryExchange, FoundFile, file_errors, is_hidden

OBJECT_STORES = frozenset({"s3", "s3a", "gcs", "gs", "abfs", "abfss", "az", "adl", "oss", "memory"})
"""Types of file system on which a PUT shows the whole object at once; on others a file grows visibly."""


class RemoteFiles:
    """A log on any file system that Arrow or fsspec reaches.

    Args:
        filesystem: Arrow's.
        root: the log's path on it.
        uri: the same for messages.
    """

    def __init__(self, filesystem: pafs.FileSystem, root: str, uri: str) -> None:
        self._uri = uri
        self._filesystem = pafs.SubTreeFileSystem(root.rstrip("/"), filesystem)
        self._root = root.rstrip("/")
        handler = filesystem.handler if isinstance(filesystem, pafs.PyFileSystem) else None
        self._fsspec = handler.fs if isinstance(handler, pafs.FSSpecHandler) else None
        kinds = {filesystem.type_name}
        if self._fsspec is not None:
            protocol = self._fsspec.protocol
            kinds = {protocol} if isinstance(protocol, str) else set(protocol)
        self._is_object_store = bool(OBJECT_STORES & kinds)

    @property
    def uri(self) -> str:
        """The log's address."""
        return self._uri

    @property
    def arrow(self) -> pafs.FileSystem:
        """The log as an Arrow file system."""
        return self._filesystem

    @property
    def exchanger(self) -> DirectoryExchange | None:
        """An object store changes one object at a time."""
        return None

    def find(self, directory: str = "") -> list[FoundFile]:
        """All files below a directory, by path."""
        with file_errors(self._uri):
            infos = self._filesystem.get_file_info(pafs.FileSelector(directory, allow_not_found=True, recursive=True))
        found = [FoundFile(_clean(info.path), info.size) for info in infos if info.type == pafs.FileType.File]
        return sorted((file for file in found if not is_hidden(file.path)), key=lambda file: file.path)

    def directories(self, directory: str = "") -> list[str]:
        """Names of the directories directly in a directory."""
        with file_errors(self._uri):
            infos = self._filesystem.get_file_info(pafs.FileSelector(directory, allow_not_found=True))
        return sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)

    def exists(self, path: str) -> bool:
        """There is a file of that name."""
        with file_errors(self._uri):
            return bool(self._filesystem.get_file_info(path).type == pafs.FileType.File)

    def read(self, path: str) -> bytes:
        """A whole file."""
        with file_errors(self._uri), self._filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())

    def create(self, path: str, content: bytes) -> bool:
        """Conditionally where fsspec can; else look, write, and look whether it is ours."""
        with file_errors(self._uri):
            if self._fsspec is not None and self._is_object_store:
                try:
                    self._fsspec.pipe_file(f"{self._root}/{path}", content, mode="create")
                except FileExistsError:
                    return False
                return True
            if self._filesystem.get_file_info(path).type != pafs.FileType.NotFound:
                return False
        self.replace(path, content)
        return self.read(path) == content

    def replace(self, path: str, content: bytes) -> None:
        """PUT, or write aside and rename."""
        with file_errors(self._uri):
            if self._is_object_store:
                self._put(path, content)
                return
            folder, _, name = path.rpartition("/")
            aside = f"{folder}/.{name}-{secrets.token_hex(8)}".lstrip("/")
            self._put(aside, content)
            self._filesystem.move(aside, path)

    @contextmanager
    def write(self, path: str) -> Iterator[pa.NativeFile]:
        """A multipart upload, or a file written where nobody looks."""
        with file_errors(self._uri):
            self._make_parent(path)
            with self._filesystem.open_output_stream(path) as stream:
                yield stream

    def move(self, source: str, target: str) -> None:
        """COPY shows the whole object at once; the rename of a file system does too."""
        with file_errors(self._uri):
            self._make_parent(target)
            if self._is_object_store:
                self._filesystem.copy_file(source, target)
                self._filesystem.delete_file(source)
            else:
                self._filesystem.move(source, target)

    def delete(self, path: str) -> None:
        """Remove a file, if there is one."""
        with file_errors(self._uri):
            if self.exists(path):
                self._filesystem.delete_file(path)

    def delete_directory(self, directory: str) -> None:
        """Remove a directory and all in it, one object after the other."""
        with file_errors(self._uri):
            if self._filesystem.get_file_info(directory).type == pafs.FileType.Directory:
                self._filesystem.delete_dir(directory)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Nothing: an object store has no locks; docs/event-log.md says who must not run twice."""
        yield

    def _put(self, path: str, content: bytes) -> None:
        """Write a small file."""
        self._make_parent(path)
        with self._filesystem.open_output_stream(path) as stream:
            stream.write(content)

    def _make_parent(self, path: str) -> None:
        """Directories exist on file systems only; an object store would make an empty object of one."""
        if not self._is_object_store:
            self._filesystem.create_dir(path.rpartition("/")[0] or ".", recursive=True)


def _clean(path: str) -> str:
    """A path of a SubTreeFileSystem as we write it."""
    return path.strip("/")
