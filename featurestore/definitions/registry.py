"""Read an applied Feast registry into specs, without importing Feast.

    registry file | SQL registry --bytes--> wire.feast.registry --records--> compile --> RepoSpec

A file registry is one serialized message; a SQL registry (https://docs.feast.dev, registry_type: sql) holds the same
messages one a row, read through SQLAlchemy, which is imported only then. A registry in object storage is read by
whoever has the client for it and passed to `compile_registry` as bytes.

`open_registry` is the same as something that can be watched: a file by its stat, a database by its contents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from featurestore.core.spec import RepoSpec
from featurestore.definitions import limits
from featurestore.definitions.compile.repo import Compilation, compile_repo
from featurestore.definitions.problems import suggest
from featurestore.errors import (
    CorruptData,
    FeatureStoreError,
    InvalidRequest,
    LimitExceeded,
    SourceUnavailable,
    redacted,
)
from featurestore.wire.feast.access import access_of
from featurestore.wire.feast.composing import registry_from_rows
from featurestore.wire.feast.registry import (
    ROW_LISTS,
    VERSION_COLUMNS,
    VERSION_TABLE,
    decode_registry,
    projects_of,
    versions_asked_of,
)

POLLS_PER_DATABASE_READ = 5
"""A database is read whole to see whether it changed, so it is not read at every poll."""


def read_registry(path_or_url: str | Path, *, project: str | None = None) -> RepoSpec:
    """The specs of a registered project.

    Args:
        path_or_url: path of a registry file, a file: URL, or a SQLAlchemy URL such as
            "postgresql+psycopg://host/feast".
        project: its name; may be left out where the registry has one project.

    Raises:
        InvalidRequest: no registry is there, or it has no such project.
        DefinitionError: the registered definitions have mistakes; it lists all of them.
        CorruptData: the bytes are not a registry.
        SourceUnavailable: the database does not answer.
    """
    return read_compilation(path_or_url, project=project).require_sound()


def read_compilation(path_or_url: str | Path, *, project: str | None = None) -> Compilation:
    """As `read_registry`, but with mistakes and notes beside the specs of everything that is sound."""
    return compile_registry(read_registry_bytes(path_or_url), project=project)


def compile_registry(registry: bytes, *, project: str | None = None) -> Compilation:
    """Compile a serialized feast.core.Registry; the arguments and errors are those of `read_registry`."""
    # Feast rewrites a registry file in place, and a reader may see it cut short between two messages, which still
    # parses. Its projects come after all that is read here, so that such a file has none and is refused.
    registered = projects_of(registry)
    if project is None:
        if len(registered) != 1:
            raise InvalidRequest(
                f"the registry has {len(registered)} projects", hint=f"name one of them: {', '.join(registered) or '-'}"
            )
        project = registered[0]
    elif project not in registered:
        hint = f"run `featurestore apply`; {suggest(project, registered)}"
        raise InvalidRequest(f'project "{project}" is not registered', hint=hint)
    compiled = compile_repo(decode_registry(registry, project))
    return replace(compiled, spec=replace(compiled.spec, access=access_of(registry, project)))


def read_registry_bytes(path_or_url: str | Path) -> bytes:
    """The registry as one serialized feast.core.Registry, wherever it is kept.

    Raises:
        InvalidRequest, LimitExceeded, CorruptData, SourceUnavailable: as `read_registry`.
    """
    content = find_registry_bytes(path_or_url)
    if content is not None:
        return content
    hint = "run `featurestore apply` first"
    if is_sql(path_or_url):
        # A database is made before it is filled, so a reader that waits for it need not end.
        raise SourceUnavailable(f'there is no registry in "{redacted(str(path_or_url))}"', hint=hint)
    raise InvalidRequest(f'there is no registry at "{registry_path(path_or_url)}"', hint=hint)


def find_registry_bytes(
    path_or_url: str | Path,
    more: Mapping[str, tuple[str, str]] | None = None,
    registry: Any = None,
    *,
    with_all_versions: bool = False,
) -> bytes | None:
    """As `read_registry_bytes`; None where nothing has been applied yet: no file, or a database without tables.

    Args:
        path_or_url: of the registry.
        more: of a database, what else to read than ROW_LISTS, as that; a table may be missing, as in an older Feast's.
        registry: empty message that has the fields of `more`.
        with_all_versions: of a database, also what views were that no service asks for.
    """
    if not is_sql(path_or_url):
        return _read_file(registry_path(path_or_url))
    found = _read_rows(path_or_url, {**ROW_LISTS, **(more or {})}, with_all_versions=with_all_versions)
    try:
        return None if found is None else registry_from_rows(found.messages, registry, found.versions)
    except CorruptData as error:
        hint = "restore the row from a copy, or delete it and run `featurestore apply`"
        place = redacted(str(path_or_url))
        raise CorruptData(f'the registry in "{place}" is damaged', detail=error.message, hint=hint) from error


@dataclass(frozen=True, slots=True)
class _Rows:
    """Of a SQL registry: project and message of each row, by the field of Registry; and versions of views."""

    messages: Mapping[str, Sequence[tuple[str, bytes]]]
    versions: Sequence[Sequence[Any]]


def _read_rows(
    path_or_url: str | Path, lists: Mapping[str, tuple[str, str]], *, with_all_versions: bool
) -> _Rows | None:
    """What a SQL registry holds; None where it has no tables yet."""
    try:
        import sqlalchemy
    except ImportError:
        hint = "pip install SQLAlchemy and the database's driver"
        raise InvalidRequest("a SQL registry needs SQLAlchemy", hint=hint) from None
    rows: dict[str, list[tuple[str, bytes]]] = {}
    try:
        engine = sqlalchemy.create_engine(sql_url(path_or_url))
        try:
            with engine.connect() as connection:
                tables = set(sqlalchemy.inspect(connection).get_table_names())
                if not any(table in tables for table, _ in ROW_LISTS.values()):
                    return None
                for field, (table, column) in lists.items():
                    query = sqlalchemy.text(f"SELECT project_id, {column} FROM {table}")
                    is_there = table in tables or field in ROW_LISTS
                    found = connection.execute(query) if is_there else ()
                    rows[field] = [(project, bytes(message)) for project, message in found]
                versions: list[Sequence[Any]] = []
                if VERSION_TABLE in tables:
                    history = f"SELECT {', '.join(VERSION_COLUMNS)} FROM {VERSION_TABLE}"
                    # A history holds every apply, and most of it nobody asks for.
                    asked = versions_asked_of(message for _, message in rows["feature_services"])
                    some = sqlalchemy.text(f"{history} WHERE feature_view_name = :name AND version_number = :number")
                    for name, number in () if with_all_versions else sorted(asked):
                        versions += connection.execute(some, {"name": name, "number": number}).all()
                    if with_all_versions:
                        versions += connection.execute(sqlalchemy.text(history)).all()
        finally:
            engine.dispose()
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
        raise InvalidRequest("the SQL registry's URL cannot be used", detail=str(error)) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        hint = "check the database and the registry's URL"
        raise SourceUnavailable("the SQL registry does not answer", detail=str(error), hint=hint) from error
    return _Rows(rows, versions)


def is_sql(path_or_url: str | Path) -> bool:
    """Whether it is in a database; neither a path nor a file: URL.

    Raises:
        InvalidRequest: it is in an object store.
    """
    text = str(path_or_url)
    scheme = urlsplit(text).scheme.lower() if "://" in text else ""
    if scheme in ("s3", "gs", "gcs", "hdfs", "abfs", "http", "https"):
        hint = "copy the registry file here, or use a SQL registry"
        raise InvalidRequest(f'a registry at "{scheme}://" is not read directly', hint=hint)
    return scheme not in ("", "file")


def registry_path(path_or_url: str | Path) -> Path:
    """Of a registry in a file."""
    text = str(path_or_url)
    return Path(unquote(urlsplit(text).path) if "://" in text else text)


def sql_url(url: str | Path) -> str:
    """As Feast does: the bare scheme means psycopg 3."""
    return str(url).replace("postgresql://", "postgresql+psycopg://", 1)


def _read_file(path: Path) -> bytes | None:
    """None where there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(limits.REGISTRY_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidRequest(f'the registry at "{path}" cannot be read', detail=str(error)) from error
    if len(content) > limits.REGISTRY_BYTES_MAX:
        raise LimitExceeded(f'the registry at "{path}" is larger than {limits.REGISTRY_BYTES_MAX} bytes')
    try:
        projects_of(content)
    except CorruptData as error:
        hint = "restore it from a copy, or delete it and run `featurestore apply`"
        raise CorruptData(f'the registry at "{path}" is damaged', detail=error.detail, hint=hint) from error
    return content


class Registry(Protocol):
    """Where feature definitions come from."""

    def stamp(self) -> Hashable:
        """Changes when the registry may have changed; cheap."""
        ...

    def read(self) -> RepoSpec:
        """Parse and compile what the last `stamp` saw, or a newer one; `stamp` has been called before."""
        ...


def open_registry(path_or_url: str, project: str | None) -> Registry:
    """The registry at a path or a SQLAlchemy URL; nothing is read yet.

    Args:
        path_or_url: see `read_registry`.
        project: Feast project; None where the registry has just one.

    Raises:
        InvalidRequest: it is in an object store.
    """
    if is_sql(path_or_url):
        return RegistryDatabase(path_or_url, project)
    return RegistryFile(registry_path(path_or_url), project)


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
        self._trouble: FeatureStoreError | None = None

    def stamp(self) -> Hashable:
        """Digest of the contents as of the last read.

        Raises:
            SourceUnavailable: the database does not answer.
        """
        is_due = self._polls % POLLS_PER_DATABASE_READ == 0
        self._polls += 1
        if is_due:
            self._trouble = None
            try:
                self._content = read_registry_bytes(self._url)
            except FeatureStoreError as error:
                self._trouble = error
            else:
                self._stamp = hashlib.blake2b(self._content, digest_size=16).digest()
        if self._trouble is not None:  # said again, and not asked again: whoever polls would wait for it every time
            raise self._trouble.with_traceback(None)
        return self._stamp

    def read(self) -> RepoSpec:
        """Compile what `stamp` read."""
        return compile_registry(self._content, project=self._project).require_sound()
