"""Tables behind Feast's data sources: Parquet is read here, everything else by the Feast store that knows how.

    FileSource of Parquet     an Arrow dataset; only wanted columns are read, types are the file's
    any other source          `pull_all` of the store that `offline_store.tables` names, as one table

Feast's own store for files is Dask's, whose data frames turn integers with nulls into floats. Arrow keeps every type.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.infra.offline_stores.offline_utils import get_offline_store_from_config
from feast.repo_config import RepoConfig

from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.foreign_tables.opening import check_is_files

FILE_STORES = ("file", "dask")
"""Names of Feast's store that reads Parquet files and nothing else."""

FLOAT_INTEGER_MAX = 2**53
"""From here on not every integer is a float, so that one which is may once have been another."""


@dataclass(frozen=True, slots=True)
class WantedColumns:
    """Columns of a table, by the names that they have there.

    Attributes:
        join_keys: of the rows' entities.
        values: the others.
        timestamp: when a row began to hold, or an event happened.
        created: when a row was written, if the table says so.
    """

    join_keys: Sequence[str]
    values: Sequence[str]
    timestamp: str
    created: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """Times of rows that can matter, both ends included; None is open. A reader may give others too."""

    since: datetime | None = None
    until: datetime | None = None

    def __or__(self, other: Span) -> Span:
        """The span that covers both."""
        return Span(
            None if self.since is None or other.since is None else min(self.since, other.since),
            None if self.until is None or other.until is None else max(self.until, other.until),
        )


class Tables:
    """Reads, and hands on to the store that writes.

    Args:
        config: of the repo.
        settings: an `offline_store` section, for the tables of plain views and saved datasets.

    Attributes:
        config: the repo's, with that section; what every call of `store` takes.
        is_of_files: it is Feast's store of Parquet files.
    """

    def __init__(self, config: RepoConfig, settings: Mapping[str, Any]) -> None:
        self.config: RepoConfig = config.model_copy()
        self.config.offline_config = dict(settings)
        self.config._offline_store = None
        self.is_of_files = settings["type"] in FILE_STORES

    @cached_property
    def store(self) -> OfflineStore:
        """The store of that section; imported when it is needed."""
        return get_offline_store_from_config(self.config.offline_store)

    def read(self, source: DataSource, wanted: WantedColumns, span: Span) -> pads.Dataset | pa.Table:
        """A source's rows.

        Args:
            source: any source of Feast's.
            wanted: columns; a dataset has others too.
            span: which rows can matter.

        Raises:
            InvalidRequest: it is not there, or no store that could read it is configured.
            Unavailable: it cannot be read now.
        """
        if is_parquet_source(source):
            return self.dataset(source)
        if self.is_of_files:
            raise InvalidRequest(
                f'data source "{source.name}" is a {type(source).__name__}, which is no Parquet file',
                hint="name the Feast store that reads it: `tables: {type: ...}` below `offline_store`",
            )
        job = self.store.pull_all_from_table_or_query(
            config=self.config,
            data_source=source,
            join_key_columns=list(wanted.join_keys),
            feature_name_columns=list(wanted.values),
            timestamp_field=wanted.timestamp,
            created_timestamp_column=wanted.created,
            start_date=span.since,
            end_date=span.until,
        )
        return job.to_arrow()

    def dataset(self, source: FileSource) -> pads.Dataset:
        """A Parquet file or directory, local or in an object store.

        Raises:
            InvalidRequest: nothing readable is there.
            Unavailable: the object store does not answer.
        """
        address = self.address_of(source.path)
        credentials = source.resolve_credentials()
        filesystem, path = FileSource.create_filesystem_and_path(
            address, source.s3_endpoint_override or "", credentials
        )
        try:
            check_is_files(
                *file_system_of(address, source.s3_endpoint_override or "", credentials),
                f'data source "{source.name}"',
            )
            return pads.dataset(path, filesystem=filesystem, format="parquet", partitioning="hive")
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise InvalidRequest(
                f'data source "{source.name}" has no Parquet at "{address}"', detail=str(error)
            ) from error
        except OSError as error:
            raise Unavailable(
                f'data source "{source.name}" at "{address}" does not answer', detail=str(error)
            ) from error

    def address_of(self, path: str) -> str:
        """A path, which starts from the repo, or a URI, which stays as it is."""
        return path if "://" in path else str(Path(self.config.repo_path or "") / path)

    def append(self, source: FileSource, rows: pa.Table) -> None:
        """Add rows to a Parquet file, which on a local disk is replaced in one step, or a file to a directory.

        Args:
            source: a Parquet source that is there.
            rows: with its columns, in any order.

        Raises:
            InvalidRequest: it is not there, or the columns are others.
            Unavailable: it cannot be written.
        """
        old = self.dataset(source)
        if set(rows.column_names) != set(old.schema.names):
            raise InvalidRequest(
                f'the rows for data source "{source.name}" have columns {", ".join(rows.column_names)}',
                hint=f"its own are {', '.join(old.schema.names)}",
            )
        for name in old.schema.names:
            if pa.types.is_integer(old.schema.field(name).type):
                _check_digits(source, name, rows.column(name))
        address = self.address_of(source.path)
        filesystem, path = file_system_of(address, source.s3_endpoint_override or "", source.resolve_credentials())
        try:
            rows = rows.select(old.schema.names).cast(old.schema)
            if filesystem.get_file_info(path).type == pafs.FileType.Directory:
                write_file([rows], filesystem, f"{path}/part-{uuid.uuid4().hex}.parquet")
            else:
                write_file([old.to_table(), rows], filesystem, path)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidRequest(
                f'the rows for data source "{source.name}" do not fit its columns', detail=str(error)
            ) from error
        except OSError as error:
            raise Unavailable(f'"{address}" cannot be written', detail=str(error)) from error


def _check_digits(source: DataSource, name: str, column: pa.ChunkedArray) -> None:
    """Floats may stand for integers where they are integers beyond doubt."""
    if not pa.types.is_floating(column.type):
        return
    largest = pc.max(pc.abs(column)).as_py()
    if largest is not None and largest >= FLOAT_INTEGER_MAX:
        raise InvalidRequest(
            f'column "{name}" for data source "{source.name}" has integers as floats, up to {largest:.0f}, whose last'
            " digits may be lost",
            detail="pandas turns a column of integers with nulls into floats.",
            hint='give it as astype("Int64"), or from Arrow',
        )


def is_parquet_source(source: DataSource) -> TypeGuard[FileSource]:
    """Whether a source is a Parquet file or directory."""
    return isinstance(source, FileSource) and isinstance(source.file_format, ParquetFormat | None)


def file_system_of(
    address: str, s3_endpoint: str, credentials: dict[str, str] | None = None
) -> tuple[pafs.FileSystem, str]:
    """File system and path of an address."""
    filesystem, path = FileSource.create_filesystem_and_path(address, s3_endpoint, credentials)
    if filesystem is not None:
        return filesystem, path
    if "://" in path:
        found, path = pafs.FileSystem.from_uri(path)
        return found, path
    return pafs.LocalFileSystem(), path


def write_file(blocks: Iterable[pa.Table], filesystem: pafs.FileSystem, path: str) -> None:
    """One Parquet file, which on a local disk appears when it is complete, as an object of a store always does.

    Args:
        blocks: at least one, all of one schema.
        filesystem: where.
        path: on it.
    """
    is_local = isinstance(filesystem, pafs.LocalFileSystem)
    directory = path.rpartition("/")[0]
    if is_local and directory:
        filesystem.create_dir(directory)
    unfinished = f"{path}.{uuid.uuid4().hex}.unfinished" if is_local else path
    writer = None
    try:
        for block in blocks:
            writer = writer or pq.ParquetWriter(unfinished, block.schema, filesystem=filesystem, compression="zstd")
            writer.write_table(block)
        assert writer is not None, "there is a block, if only an empty one"
        writer.close()
    except BaseException:
        if is_local and filesystem.get_file_info(unfinished).type != pafs.FileType.NotFound:
            filesystem.delete_file(unfinished)
        raise
    if is_local:
        filesystem.move(unfinished, path)
