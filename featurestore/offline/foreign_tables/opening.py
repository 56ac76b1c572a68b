"""What is at an address: a Delta table, an Iceberg table, or no table at all."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pyarrow.dataset as pads
import pyarrow.fs as pafs

from featurestore.errors import InvalidRequest, Unavailable, redacted
from featurestore.offline.foreign_tables.table import (
    CATALOG_SCHEME,
    DELTA_LOG,
    METADATA_DIRECTORY,
    METADATA_SUFFIX,
    VERSION_HINT,
    ForeignTable,
)

_DELTA, _ICEBERG = "delta", "iceberg"


def open_table(address: str | Path, version: int | None = None) -> ForeignTable | None:
    """The table at an address; None where there is none.

    Args:
        address: a Delta table's directory; an Iceberg table's metadata file, directory or iceberg://CATALOG/NAME.
        version: of the table, or id of its snapshot; None: the one that is newest now.

    Raises:
        InvalidRequest: it has no such version, or something that is not read here.
        Unavailable: it cannot be reached.
        ModuleNotFoundError: what reads it is not installed.
    """
    kind = _kind_of(str(address))
    # Imported only now: who reads neither needs neither package.
    if kind == _DELTA:
        from featurestore.offline.foreign_tables.delta import DeltaRows

        return DeltaRows(str(address), version)
    if kind == _ICEBERG:
        from featurestore.offline.foreign_tables.iceberg import IcebergRows

        return IcebergRows(str(address), version)
    return None


def is_table(address: str | Path) -> bool:
    """Whether there is a table of a kind that is read here.

    Raises:
        Unavailable: the file system does not answer.
    """
    return _kind_of(str(address)) is not None


def check_outside_tables(address: str, dataset: pads.FileSystemDataset) -> None:
    """Refuse a directory with files of a Delta table, of which only the table says which are its rows.

    Args:
        address: of the directory, or of one file, which may be of a table.
        dataset: what Arrow found there.

    Raises:
        InvalidRequest: it has such files.
        Unavailable: the file system does not answer.
    """
    if [PurePosixPath(path).name for path in dataset.files] == [PurePosixPath(address.partition("?")[0]).name]:
        return
    is_local = isinstance(dataset.filesystem, pafs.LocalFileSystem)
    folders = {Path(path).absolute().parent if is_local else PurePosixPath(path).parent for path in dataset.files}
    folders = {one for each in folders for one in (each, *each.parents)}
    # A table's directory is not one of its partitions, of which there may be thousands.
    names = sorted(str(folder) for folder in folders if folder.name and "=" not in folder.name)
    try:
        found = dataset.filesystem.get_file_info([f"{name}/{DELTA_LOG}" for name in names])
    except OSError as error:
        raise Unavailable(f'"{redacted(address)}" does not answer', detail=str(error)) from error
    for name, info in zip(names, found, strict=True):
        if info.type == pafs.FileType.Directory:
            raise InvalidRequest(
                f'"{redacted(address)}" has files of the Delta table "{name}"',
                detail="Not all of its files need be its rows.",
                hint="name the table's directory",
            )


def check_is_files(files: pafs.FileSystem, path: str, what: str) -> None:
    """Refuse a Delta table where files are expected: not all of its files need be its rows.

    Args:
        files: where it is.
        path: of what was given.
        what: names it in messages.

    Raises:
        InvalidRequest: it is one.
        Unavailable: the file system does not answer.
    """
    try:
        found = files.get_file_info(f"{path.rstrip('/')}/{DELTA_LOG}")
    except OSError as error:
        raise Unavailable(f'{what} at "{redacted(path)}" does not answer', detail=str(error)) from error
    if found.type == pafs.FileType.Directory:
        raise InvalidRequest(
            f"{what} is a Delta table, and no Parquet file",
            detail="Not all of its files need be its rows.",
            hint="`featurestore history` takes it as --event-log SOURCE=PATH or --table VIEW=PATH:TIMESTAMP; the Feast"
            " SDK as `histories` below `offline_store`, or through a store that reads it (`tables`)",
        )


def _kind_of(text: str) -> str | None:
    """Of which kind the table is; None where there is none."""
    if text.startswith(CATALOG_SCHEME) or text.partition("?")[0].endswith(METADATA_SUFFIX):
        return _ICEBERG
    files: pafs.FileSystem
    if "://" not in text:
        if not Path(text).is_dir():
            return None
        files, path = pafs.LocalFileSystem(), text
    else:
        try:
            files, path = pafs.FileSystem.from_uri(text.replace("s3a://", "s3://", 1))
        except ValueError:  # of a kind that Arrow does not know, and so no directory of a table
            return None
        except OSError as error:
            raise Unavailable(f'"{redacted(text)}" does not answer', detail=str(error)) from error
    path = path.rstrip("/")
    try:
        if files.get_file_info(f"{path}/{DELTA_LOG}").type == pafs.FileType.Directory:
            return _DELTA
        found = files.get_file_info(pafs.FileSelector(f"{path}/{METADATA_DIRECTORY}", allow_not_found=True))
    except OSError as error:
        raise Unavailable(f'"{redacted(text)}" does not answer', detail=str(error)) from error
    names = {info.base_name for info in found}
    is_iceberg = VERSION_HINT in names or any(name.endswith(METADATA_SUFFIX) for name in names)
    return _ICEBERG if is_iceberg else None
