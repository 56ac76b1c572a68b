"""Where a log is: a path, a URI, or a file system that the caller has."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.files import LogFiles
from featurestore.offline.event_log.local_files import LocalFiles
from featurestore.offline.event_log.remote_files import RemoteFiles


def open_files(uri: str | Path, filesystem: object | None = None, *, is_private: bool = False) -> LogFiles:
    """The files of a log.

    Args:
        uri: a path, or a URI that Arrow or fsspec knows: file:///..., s3://bucket/path, gs://..., memory://...
        filesystem: a pyarrow or fsspec file system, on which `uri` is a path.
        is_private: on a disk of this machine, what is made there is for the eyes of its user alone.

    Raises:
        InvalidRequest: no such file system is known here.
    """
    text = str(uri)
    if filesystem is None:
        found, path = _resolve(text)
    else:
        found, path = _as_arrow(filesystem), text.partition("://")[2] or text
    if isinstance(found, pafs.LocalFileSystem):
        return LocalFiles(Path(path), is_private=is_private)
    return RemoteFiles(found, path, text)


def _resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """File system and path of an address."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), str(Path(uri).absolute())
    try:
        found, path = pafs.FileSystem.from_uri(_with_single_puts(uri))
        return found, path
    except pa.ArrowInvalid:
        pass
    try:
        import fsspec

        remote, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise InvalidRequest(
            f'event log "{uri}" is on a file system that is not known here',
            detail=str(error),
            hint="install fsspec and the package of that file system",
        ) from error
    return _as_arrow(remote), path


def _with_single_puts(uri: str) -> str:
    """An S3 URI with Arrow's option that sends a small object in one request instead of three."""
    if urlsplit(uri).scheme != "s3" or "allow_delayed_open" in uri:
        return uri
    return uri + ("&" if urlsplit(uri).query else "?") + "allow_delayed_open=true"


def _as_arrow(filesystem: object) -> pafs.FileSystem:
    """An fsspec file system as Arrow's; Arrow's own as it is."""
    if isinstance(filesystem, pafs.FileSystem):
        return filesystem
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))
