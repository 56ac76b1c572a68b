"""The registry as something that can be watched: a file by its stat, a database by its contents."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from featurestore.core.spec import RepoSpec
from featurestore.definitions.registry import compile_registry, read_registry, read_registry_bytes
from featurestore.errors import InvalidRequest

POLLS_PER_DATABASE_READ = 5
"""A database is read whole to see whether it changed, so it is not read at every poll."""


class Registry(Protocol):
    """Where feature definitions come from."""

    def stamp(self) -> Hashable:
        """Changes when the registry may have changed; cheap."""
        ...

    def read(self) -> RepoSpec:
        """Parse and compile the whole registry."""
        ...


def open_registry(path_or_url: str, project: str | None) -> Registry:
    """The registry at a path or a SQLAlchemy URL; nothing is read yet.

    Args:
        path_or_url: see `definitions.registry.read_registry`.
        project: Feast project; None where the registry has just one.
    """
    if "://" in path_or_url and not path_or_url.startswith("file://"):
        return RegistryDatabase(path_or_url, project)
    return RegistryFile(Path(path_or_url.removeprefix("file://")), project)


@dataclass(frozen=True, slots=True)
class RegistryFile:
    """A registry in a file, which Feast replaces or rewrites in place."""

    path: Path
    project: str | None

    def stamp(self) -> Hashable:
        """Modification time, size and inode.

        Raises:
            InvalidRequest: there is no such file.
        """
        try:
            found = self.path.stat()
        except OSError as error:
            raise InvalidRequest(
                f'registry "{self.path}" cannot be read', detail=str(error), hint="run `featurestore apply` first"
            ) from error
        return found.st_mtime_ns, found.st_size, found.st_ino

    def read(self) -> RepoSpec:
        """Parse and compile the file."""
        return read_registry(self.path, project=self.project)


class RegistryDatabase:
    """A registry in a SQL database."""

    def __init__(self, url: str, project: str | None) -> None:
        self._url = url
        self._project = project
        self._polls = 0
        self._content = b""
        self._stamp: Hashable = None

    def stamp(self) -> Hashable:
        """Digest of the contents as of the last read.

        Raises:
            SourceUnavailable: the database does not answer.
        """
        if self._polls % POLLS_PER_DATABASE_READ == 0:
            self._content = read_registry_bytes(self._url)
            self._stamp = hashlib.blake2b(self._content, digest_size=16).digest()
        self._polls += 1
        return self._stamp

    def read(self) -> RepoSpec:
        """Compile what `stamp` read."""
        return compile_registry(self._content, project=self._project).require_sound()
