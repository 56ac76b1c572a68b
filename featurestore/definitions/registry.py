"""Read an applied Feast registry into specs, without importing Feast.

    registry file | SQL registry --bytes--> wire.feast.registry --records--> compile --> RepoSpec

A file registry is one serialized message; a SQL registry (https://docs.feast.dev, registry_type: sql) holds the same
messages one a row, read through SQLAlchemy, which is imported only then. A registry in object storage is read by
whoever has the client for it and passed to `compile_registry` as bytes.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from featurestore.core.spec import RepoSpec
from featurestore.definitions import limits
from featurestore.definitions.compile.repo import Compilation, compile_repo
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest, LimitExceeded, SourceUnavailable
from featurestore.wire.feast.registry import ROW_LISTS, decode_registry, projects_of, registry_from_rows


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
    return compile_repo(decode_registry(registry, project))


def read_registry_bytes(path_or_url: str | Path) -> bytes:
    """The registry as one serialized feast.core.Registry, wherever it is kept.

    Raises:
        InvalidRequest, LimitExceeded, CorruptData, SourceUnavailable: as `read_registry`.
    """
    text = str(path_or_url)
    scheme = urlsplit(text).scheme.lower() if "://" in text else ""
    if scheme in ("", "file"):
        return _read_file(Path(unquote(urlsplit(text).path) if scheme else text))
    if scheme in ("s3", "gs", "gcs", "hdfs", "abfs", "http", "https"):
        hint = "copy the registry file here, or use a SQL registry"
        raise InvalidRequest(f'a registry at "{scheme}://" is not read directly', hint=hint)
    return _read_sql(text)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limits.REGISTRY_BYTES_MAX + 1)
    except FileNotFoundError:
        raise InvalidRequest(f'there is no registry at "{path}"', hint="run `featurestore apply` first") from None
    except OSError as error:
        raise InvalidRequest(f'the registry at "{path}" cannot be read', detail=str(error)) from error
    if len(content) > limits.REGISTRY_BYTES_MAX:
        raise LimitExceeded(f'the registry at "{path}" is larger than {limits.REGISTRY_BYTES_MAX} bytes')
    return content


def _read_sql(url: str) -> bytes:
    try:
        import sqlalchemy
    except ImportError:
        hint = "pip install SQLAlchemy and the database's driver"
        raise InvalidRequest("a SQL registry needs SQLAlchemy", hint=hint) from None
    # As Feast does: the bare scheme means psycopg 3.
    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    rows: dict[str, list[bytes]] = {}
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            for field, (table, column) in ROW_LISTS.items():
                query = sqlalchemy.text(f"SELECT {column} FROM {table}")
                rows[field] = [bytes(row[0]) for row in connection.execute(query)]
        engine.dispose()
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
        raise InvalidRequest("the SQL registry's URL cannot be used", detail=str(error)) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        hint = "check the database, or run `featurestore apply` first"
        raise SourceUnavailable("the SQL registry does not answer", detail=str(error), hint=hint) from error
    return registry_from_rows(rows)
