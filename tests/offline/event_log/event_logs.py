"""Logs for tests: file systems of all three kinds, rows, faults, and readers that know nothing of us."""

from __future__ import annotations

import glob
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from fsspec.implementations.memory import MemoryFileSystem

from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.offline.event_log.address import open_files
from featurestore.offline.event_log.files import DirectoryExchange, FoundFile, LogFiles
from featurestore.offline.event_log.schema import log_schema, payload_columns, rows_of
from featurestore.offline.event_log.writer import PartitionRows, PartitionWriter, prepare_log
from featurestore.wire.payloads import EventDecoder, RawBatch

TOPIC = "payments"
DAY_MS = 86_400_000
BEGIN_MS = 1_790_035_200_000
"""Midnight UTC."""

PAYMENTS = SourceSpec(
    name="payments",
    topic=TOPIC,
    columns=(
        Column("payment_id", ValueType.STRING),
        Column("paid_at", ValueType.TIMESTAMP),
        Column("card", ValueType.STRING),
        Column("amount", ValueType.INT64),
        Column("rate", ValueType.FLOAT64),
        Column("is_declined", ValueType.BOOL),
    ),
    event_time_column="paid_at",
    event_id_column="payment_id",
)
SCHEMA = log_schema(PAYMENTS)

KINDS = ("local", "object_store", "renaming")
"""A local disk; an object store with conditional PUT; a remote file system with rename."""


class MemoryStore(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's object store in memory; each with objects of its own."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]


def make_files(kind: str, directory: Path) -> LogFiles:
    """An empty log of some kind."""
    if kind == "local":
        return open_files(directory / "log")
    if kind == "object_store":
        return open_files("/log", MemoryStore())
    return open_files(str(directory / "log"), fsspec.filesystem("file"))


def payload(offset: int, *, days: int = 2, partition: int = 0) -> bytes:
    """The record at an offset; its columns say where it is, and nulls are among them."""
    draw = random.Random(offset * 31 + partition)
    record = {
        "payment_id": f"p-{partition}-{offset}",
        "paid_at": BEGIN_MS + draw.randrange(days * DAY_MS),
        "card": None if offset % 7 == 0 else f"card-{draw.randrange(50)}-é",
        "amount": None if offset % 5 == 0 else offset,
        "rate": None if offset % 11 == 0 else offset / 8,
        "is_declined": None if offset % 13 == 0 else offset % 2 == 0,
    }
    return json.dumps(record).encode()


@cache
def read_of(begin: int, end: int, *, partition: int = 0, ingest_time_ms: int = 1_000, days: int = 2) -> PartitionRows:
    """One read of a partition, decoded as the flow does it."""
    offsets = np.arange(begin, end, dtype=np.int64)
    payloads = [payload(offset, days=days, partition=partition) for offset in range(begin, end)]
    raw = RawBatch(TOPIC, partition, begin, end, offsets, payloads)
    decoded = EventDecoder(PAYMENTS, payload_columns(PAYMENTS)).decode(raw, now_ms=BEGIN_MS + 400 * DAY_MS)
    assert decoded.dead_letters == ()
    return PartitionRows(begin, end, rows_of(decoded.events, SCHEMA, ingest_time_ms=ingest_time_ms))


def write_commits(files: LogFiles, ends: Sequence[int], *, partition: int = 0, ingest_step_ms: int = 1_000) -> None:
    """A new writer that goes on from the log's position, with a commit up to each end."""
    prepare_log(files, SCHEMA)
    writer = PartitionWriter(files, SCHEMA, TOPIC, partition)
    writer.open()
    for number, end in enumerate(ends):
        begin = writer.position or 0
        if end > begin:
            ingested_ms = writer.ingest_time_ms + ingest_step_ms * (number + 1)
            writer.commit([read_of(begin, end, partition=partition, ingest_time_ms=ingested_ms)])


def plain_offsets(files: LogFiles) -> list[tuple[int, int]]:
    """(partition, offset) of every row that a reader sees who opens each file of `event_date=*/*.parquet`."""
    infos = files.arrow.get_file_info(pafs.FileSelector("", recursive=True, allow_not_found=True))
    paths = [info.path for info in infos if info.type == pafs.FileType.File]
    shown = [path for path in paths if path.startswith("event_date=") and path.endswith(".parquet")]
    return _offsets_in(files, shown)


def globbed_offsets(files: LogFiles, root: Path) -> list[tuple[int, int]]:
    """The same on a local disk, by names alone as DuckDB and Polars list.

    Arrow's own listing looks at each file once more, and leaves out without a word what was exchanged meanwhile.

    Raises:
        FileNotFoundError: a file was exchanged after it was listed.
    """
    return _offsets_in(files, glob.glob("event_date=*/*.parquet", root_dir=root))


def _offsets_in(files: LogFiles, paths: Iterable[str]) -> list[tuple[int, int]]:
    """(partition, offset) of every row of some files, sorted."""
    rows: list[tuple[int, int]] = []
    for path in sorted(paths):
        with files.arrow.open_input_file(path) as source:
            table = pq.ParquetFile(source).read(["partition", "offset"], use_threads=False)
        rows += zip(table["partition"].to_pylist(), table["offset"].to_pylist(), strict=True)
    return sorted(rows)


def offsets_of(batches: Iterator[pa.RecordBatch]) -> list[tuple[int, int]]:
    """(partition, offset) of scanned rows, sorted."""
    rows: list[tuple[int, int]] = []
    for batch in batches:
        rows += zip(batch["partition"].to_pylist(), batch["offset"].to_pylist(), strict=True)
    return sorted(rows)


class Crash(Exception):
    """The process ended here."""


class FaultyFiles:
    """Files on which the process ends at one of the operations that change something.

    Args:
        files: the real ones.
        crash_at: number of the operation, from 0; None never crashes.
        is_done: the operation still takes effect.
    """

    def __init__(self, files: LogFiles, crash_at: int | None, *, is_done: bool) -> None:
        self._files: Any = files
        self._crash_at = crash_at
        self._is_done = is_done
        self.operations = 0

    @property
    def uri(self) -> str:
        """As the real one."""
        return str(self._files.uri)

    @property
    def arrow(self) -> pafs.FileSystem:
        """As the real one."""
        return self._files.arrow

    @property
    def exchanger(self) -> DirectoryExchange | None:
        """This, where the real one has one."""
        return None if self._files.exchanger is None else self

    def find(self, directory: str = "") -> list[FoundFile]:
        """As the real one."""
        return list(self._files.find(directory))

    def directories(self, directory: str = "") -> list[str]:
        """As the real one."""
        return list(self._files.directories(directory))

    def exists(self, path: str) -> bool:
        """As the real one."""
        return bool(self._files.exists(path))

    def read(self, path: str) -> bytes:
        """As the real one."""
        return bytes(self._files.read(path))

    def create(self, path: str, content: bytes) -> bool:
        """May crash."""
        return bool(self._change(lambda: self._files.create(path, content)))

    def replace(self, path: str, content: bytes) -> None:
        """May crash."""
        self._change(lambda: self._files.replace(path, content))

    @contextmanager
    def write(self, path: str) -> Iterator[Any]:
        """May crash before the file is there, in the middle of it, or when it is complete."""
        self._change(lambda: None)
        with self._files.write(path) as stream:
            yield stream
            self._change(lambda: None)
        self._change(lambda: None)

    def move(self, source: str, target: str) -> None:
        """May crash."""
        self._change(lambda: self._files.move(source, target))

    def delete(self, path: str) -> None:
        """May crash."""
        self._change(lambda: self._files.delete(path))

    def delete_directory(self, directory: str) -> None:
        """May crash."""
        self._change(lambda: self._files.delete_directory(directory))

    def lock(self, name: str) -> AbstractContextManager[None]:
        """As the real one: the kernel lets go of a dead process's locks."""
        held: AbstractContextManager[None] = self._files.lock(name)
        return held

    def link(self, source: str, target: str) -> None:
        """May crash."""
        self._change(lambda: self._files.link(source, target))

    def exchange(self, left: str, right: str) -> None:
        """May crash."""
        self._change(lambda: self._files.exchange(left, right))

    def _change(self, operation: Callable[[], object]) -> object:
        """One operation."""
        number, self.operations = self.operations, self.operations + 1
        if number != self._crash_at:
            return operation()
        if self._is_done:
            operation()
        raise Crash(f"operation {number}")
