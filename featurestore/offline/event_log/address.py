"""Where a log is: a path or a URI, for delta-rs, which commits, and for Arrow, which reads and writes the files.

    data/event_log/transactions
    s3://bucket/event_log/transactions?region=eu-north-1&endpoint_override=minio:9000&scheme=http
    gs://..., abfs://...                                        whatever both of them reach

Credentials come from the environment, as both know them (AWS_ACCESS_KEY_ID ...), or are the URI's user and password.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from featurestore.errors import InvalidRequest, redacted

_UNSAFE = frozenset({"aws_s3_allow_unsafe_rename", "allow_unsafe_rename"})
"""Settings of delta-rs under which two commits can both believe that they were made."""

_PATIENCE = {"timeout": "30s", "connect_timeout": "5s", "max_retries": "3", "retry_timeout": "20s"}
"""Of delta-rs's requests; by default it tries for minutes. The flow has a patience of its own."""

_S3_ATTEMPTS = 3
_S3_CONNECT_SECONDS, _S3_REQUEST_SECONDS = 5, 30


@dataclass(frozen=True, slots=True)
class TablePlace:
    """Where a table is.

    Attributes:
        uri: as it is shown.
        address: as delta-rs takes it.
        options: delta-rs's storage options.
        files: the table's directory, for Arrow.
        directory: the same on a disk of this machine; None elsewhere.
    """

    uri: str
    address: str
    options: Mapping[str, str]
    files: pafs.FileSystem
    directory: Path | None


def place_of(uri: str | Path) -> TablePlace:
    """The place of a log.

    Raises:
        InvalidRequest: no such address is known, or it is set up so that commits could be lost.
    """
    text = str(uri)
    shown = redacted(text)
    unsafe = sorted(name for name in os.environ if name.lower() in _UNSAFE)
    if "://" not in text or text.startswith("file://"):
        path = Path(unquote(urlsplit(text).path)) if "://" in text else Path(text)
        directory = path.absolute()
        files = pafs.SubTreeFileSystem(str(directory), pafs.LocalFileSystem())
        return TablePlace(shown, str(directory), {}, files, directory)
    if unsafe:
        raise InvalidRequest(
            f'event log "{shown}" is not opened while {unsafe[0]} is set',
            detail="With it two writers can both be told that they committed, and the rows of one are lost.",
            hint="unset it; the object store must support conditional puts (If-None-Match), as S3 and MinIO do",
        )
    parts = urlsplit(text)
    within = parts.path.strip("/")
    try:
        if parts.scheme in ("s3", "s3a"):
            bucket_files, options = _s3(parts)
            root = f"{parts.hostname or ''}/{within}"
        else:
            bucket_files, root = pafs.FileSystem.from_uri(text)
            options = {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidRequest(
            f'event log "{shown}" is on a file system that is not known here',
            detail=str(error),
            hint="give a path, or an address such as s3://bucket/path",
        ) from error
    scheme = "s3" if parts.scheme == "s3a" else parts.scheme
    host = parts.netloc.rpartition("@")[2]
    return TablePlace(
        shown, f"{scheme}://{host}/{within}", {**_PATIENCE, **options}, pafs.SubTreeFileSystem(root, bucket_files), None
    )


def below(root: str, name: str) -> str:
    """The address of something in a directory; options of an address stay behind it.

    >>> below("s3://bucket/event_log/?region=eu-north-1", "payments")
    's3://bucket/event_log/payments?region=eu-north-1'
    """
    if "://" not in root:
        return f"{root.rstrip('/')}/{name}"
    address, question, query = root.partition("?")
    return f"{address.rstrip('/')}/{name}{question}{query}"


def directory_names(root: str) -> list[str]:
    """Names of the directories directly in a place, sorted; none when it does not exist."""
    place = place_of(root)
    found = place.files.get_file_info(pafs.FileSelector("", allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)


def _s3(parts: SplitResult) -> tuple[pafs.FileSystem, dict[str, str]]:
    """Arrow's client of an S3, and the same settings for delta-rs."""
    given = dict(parse_qsl(parts.query))
    unknown = sorted(given.keys() - {"region", "endpoint_override", "scheme"})
    if unknown:
        raise ValueError(f'"{unknown[0]}" is not an option of it; region, endpoint_override and scheme are')
    endpoint = _endpoint(given)
    region = given.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options: dict[str, str] = {} if region is None else {"AWS_REGION": region}
    client: dict[str, object] = {} if region is None else {"region": region}
    if endpoint:
        options["AWS_ENDPOINT_URL"] = endpoint
        client["scheme"], _, client["endpoint_override"] = endpoint.partition("://")
        if endpoint.startswith("http://"):
            options["AWS_ALLOW_HTTP"] = "true"
    if parts.username and parts.password:
        client["access_key"], client["secret_key"] = unquote(parts.username), unquote(parts.password)
        options |= {"AWS_ACCESS_KEY_ID": unquote(parts.username), "AWS_SECRET_ACCESS_KEY": unquote(parts.password)}
    found = pafs.S3FileSystem(
        **client,
        connect_timeout=_S3_CONNECT_SECONDS,
        request_timeout=_S3_REQUEST_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_S3_ATTEMPTS),
        allow_delayed_open=True,  # a small object in one request instead of three
    )
    return found, options


def _endpoint(given: Mapping[str, str]) -> str:
    """URL of an S3 that is not Amazon's; empty for that."""
    named = given.get("endpoint_override")
    if named:
        return named if "://" in named else f"{given.get('scheme', 'https')}://{named}"
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
