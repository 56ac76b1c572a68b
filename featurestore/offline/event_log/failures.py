"""What delta-rs and Arrow raise of a log's table, as this package's errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake.exceptions import CommitFailedError, DeltaError, DeltaProtocolError, TableNotFoundError

from featurestore.errors import CorruptData, FeatureStoreError, InvalidRequest, Unavailable
from featurestore.offline.disk import of_disk
from featurestore.offline.event_log.address import TablePlace

OLD_SCHEMA = "_schema.json"
"""What a log of the release before tables has; see adoption.py."""

_ERROR_NUMBER = re.compile(r"(?:os error|Os \{ code:) (\d+)")
REQUESTS = ("Error performing", "AWS Error")
"""What delta-rs and Arrow say of requests to an object store."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_UNSUPPORTED = "Unsupported table features"
"""How delta-rs begins to refuse a commit to a table that asks more of its writers; it is no conflict with another."""


class CommitLost(Exception):
    """The table has moved on in a way that a commit cannot be put behind; look at it again."""


@contextmanager
def table_errors(place: TablePlace) -> Iterator[None]:
    """Map what delta-rs and Arrow raise."""
    try:
        yield
    except (FeatureStoreError, CommitLost):
        raise
    except (CommitFailedError, DeltaProtocolError) as error:
        if isinstance(error, CommitFailedError) and not told(error).startswith(_UNSUPPORTED):
            raise CommitLost(told(error)) from error
        if "Invalid JSON" in str(error):
            raise _damaged(place, error) from error
        raise InvalidRequest(f'event log "{place.uri}" cannot be used by this release', detail=told(error)) from error
    except (DeltaError, OSError, pa.ArrowException, ValueError) as error:
        raise _mapped(error, place) from error


def _mapped(error: Exception, place: TablePlace) -> FeatureStoreError:
    """The error of a table that could not be reached, or not read."""
    said = told(error)
    number = _ERROR_NUMBER.search(said)
    code = error.errno if isinstance(error, OSError) and error.errno is not None else number and int(number[1])
    is_absent = isinstance(error, TableNotFoundError) and code in (None, 2)
    if is_absent:
        refuse_old_layout(place)
        return InvalidRequest(
            f'there is no event log at "{place.uri}"',
            hint="write one with `featurestore event-log run`, and name the directory of a source",
        )
    if place.directory is not None and os.path.isfile(place.directory):  # Path.is_file may raise
        code = errno.ENOTDIR
    if code:
        refusal = OSError(code, os.strerror(code))
        return of_disk(refusal, f'event log "{place.uri}" does not answer', place.address, unavailable=Unavailable)
    # A request that failed may have been one for a Parquet file, or made by the kernel.
    is_request = any(words in said for words in REQUESTS)
    if not is_request and ("Kernel error" in said or "Json error" in said or "arquet" in said):
        return _damaged(place, error)
    return Unavailable(
        f'event log "{place.uri}" does not answer', detail=said, hint="check address, credentials and free space"
    )


def _damaged(place: TablePlace, error: Exception) -> CorruptData:
    """The error of a table whose bytes are wrong."""
    return CorruptData(
        f'event log "{place.uri}" cannot be read',
        detail=told(error),
        hint="restore it from a copy, or move it away and write it anew from Kafka",
    )


def refuse_old_layout(place: TablePlace) -> None:
    """Say how a log of the release before comes in."""
    if place.files.get_file_info(OLD_SCHEMA).type == pafs.FileType.File:
        raise InvalidRequest(
            f'the event log at "{place.uri}" was written before it was a Delta table',
            hint=f"stop who writes it, and run `featurestore event-log import {place.uri}` once",
        )


def told(error: Exception) -> str:
    """What a library says, on one line and without colours."""
    return " ".join(_COLOURS.sub("", str(error)).replace("↳", "").split())
