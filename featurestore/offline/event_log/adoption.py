"""Makes a table of a log as releases before Delta tables wrote it: where it stands, without copying a row, and once.

    LOG/event_date=2026-11-22/part-transactions-00003-<from>-<next>.parquet     data: named by the table from now on
    LOG/_schema.json  _retention.json  _incarnations.json                       columns, first date kept, topics
    LOG/_commits/transactions-00003/<sequence>.json                             positions: that of the newest record
    LOG/_staging/transactions-00003/<sequence>-<token>-<event date>.parquet     data, if there is a record for it

One commit of the table brings in all files and positions. What is left of the old log goes after it; until it has gone
nobody can write to the table, and the import can be run again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import TypeVar
from urllib.parse import unquote

import msgspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from featurestore.errors import CorruptData, InvalidRequest, Unavailable
from featurestore.offline.disk import sync
from featurestore.offline.event_log.address import TablePlace
from featurestore.offline.event_log.failures import OLD_SCHEMA, CommitLost, table_errors
from featurestore.offline.event_log.schema import EVENT_DATE
from featurestore.offline.event_log.table import (
    EPOCH_ORDINAL,
    KEPT_FROM,
    LogTable,
    Place,
    create_table,
    make_durable,
    transaction_id,
)
from featurestore.offline.event_log.writer import STATISTICS, added_file
from featurestore.wire.incarnations import decode_incarnations

_RETENTION, _INCARNATIONS = "_retention.json", "_incarnations.json"
_COMMITS, _STAGING, _REPLACED = "_commits", "_staging", "_replaced"
_VERSION = 1

Decoded = TypeVar("Decoded")

_PARTITION = re.compile(r"(?P<topic>.+)-(?P<partition>\d{5,})")
_DATA = re.compile(
    r"event_date=(?P<date>\d{4}-\d\d-\d\d)/part-(?P<topic>.+)-(?P<partition>\d{5,})-(?P<begin>\d{20})-(?P<end>\d{20})"
    r"\.parquet"
)
_STAGED = re.compile(
    r"_staging/(?P<place>[^/]+)/(?P<sequence>\d{20})-(?P<token>[0-9a-f]+)-(?P<date>[-\d]{10})\.parquet"
)


@dataclass(frozen=True, slots=True)
class Adopted:
    """What came in."""

    files: int
    rows: int
    partitions: int


class _StoredSchema(msgspec.Struct, frozen=True):
    """Content of _schema.json: a column's Arrow type by its name."""

    version: int
    columns: dict[str, str]


class _Commit(msgspec.Struct, frozen=True):
    """Content of a commit record."""

    token: str
    from_offset: int | None
    next_offset: int | None
    files: tuple[date, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class _DataFile:
    """A data file: rows of one event date and partition, of offsets in [begin, end)."""

    event_date: date
    place: Place
    begin: int
    end: int
    path: str
    size_bytes: int


def adopt(place: TablePlace) -> Adopted:
    """Make a directory of the old layout a table.

    Raises:
        InvalidRequest: it is none, or a table already.
        CorruptData: it cannot be read.
        Unavailable: the file system does not answer; run it again.
    """
    with table_errors(place):
        if not _exists(place, OLD_SCHEMA):
            raise InvalidRequest(
                f'there is no log at "{place.uri}" that could be imported',
                detail=f"It would have a file {OLD_SCHEMA}. A log that has been imported has none any more.",
                hint="name the directory of one source",
            )
        schema = _read_schema(place)
        commits = {one: _commits(place, name) for one, name in _places(place).items()}
        for one, records in commits.items():
            _publish(place, one, records)
        files = list(_without_replaced(_data_files(place)))
        positions = {one: records[max(records)].next_offset for one, records in commits.items() if records}
        if place.directory is not None:
            for directory in sorted({file.path.rpartition("/")[0] for file in files}):
                sync(place.directory / directory)
        create_table(place, schema, is_adopting=True)
        table = LogTable(place)
        if not table.partitions:
            table.set_partitions({**dict.fromkeys(commits, ""), **_incarnations(place)})
            table = LogTable(place)
        added = [_added(place, file) for file in files]
        if not table.files:
            try:
                table.commit(_transactions(place, positions, files), [action for action, _ in added])
            except CommitLost as error:
                raise Unavailable(
                    f'event log "{place.uri}" is imported by another process', detail=str(error)
                ) from error
        make_durable(place, 0, LogTable(place).version)
        for directory in (_COMMITS, _STAGING, _REPLACED):
            place.files.delete_dir_contents(directory, missing_dir_ok=True)
            if _exists(place, directory):
                place.files.delete_dir(directory)
        for path in (_RETENTION, _INCARNATIONS, OLD_SCHEMA):
            if _exists(place, path):
                place.files.delete_file(path)
    return Adopted(len(added), sum(rows for _, rows in added), len(commits))


def _transactions(place: TablePlace, positions: Mapping[Place, int | None], files: list[_DataFile]) -> dict[str, int]:
    """Positions, begins and retention as the table has them."""
    found: dict[str, int] = {}
    for one, position in positions.items():
        found[transaction_id(one)] = -1 if position is None else position
        begins = [file.begin for file in files if file.place == one]
        if begins:
            found[transaction_id(one, "begin")] = min(begins)
    if _exists(place, _RETENTION):
        kept_from = _decoded(place, _RETENTION, dict[str, date])["kept_from"]
        found[KEPT_FROM] = kept_from.toordinal() - EPOCH_ORDINAL
    return found


def _publish(place: TablePlace, one: Place, records: Mapping[int, _Commit]) -> None:
    """Give files that were committed, and not shown yet, their names among the data."""
    name = next(name for each, name in _places(place).items() if each == one)
    for info in _find(place, f"{_STAGING}/{name}"):
        parts = _STAGED.fullmatch(info.path)
        record = None if parts is None else records.get(int(parts["sequence"]))
        if parts is None or record is None or record.token != parts["token"]:
            continue  # belongs to no commit: its rows were read again
        directory = f"{EVENT_DATE}={parts['date']}"
        place.files.create_dir(directory)
        place.files.move(
            info.path, f"{directory}/part-{name}-{record.from_offset:020d}-{record.next_offset:020d}.parquet"
        )


def _data_files(place: TablePlace) -> Iterator[_DataFile]:
    """Every file of the log that has rows."""
    for info in _find(place, ""):
        parts = _DATA.fullmatch(info.path)
        if parts is not None:
            one = (unquote(parts["topic"]), int(parts["partition"]))
            begin, end = int(parts["begin"]), int(parts["end"])
            yield _DataFile(date.fromisoformat(parts["date"]), one, begin, end, info.path, info.size)


def _without_replaced(files: Iterator[_DataFile]) -> Iterator[_DataFile]:
    """The files that no other one covers: an interrupted compaction leaves such.

    Raises:
        CorruptData: two files overlap and neither covers the other.
    """
    ordered = sorted(files, key=lambda file: (file.event_date, file.place, file.begin, -file.end))
    for _, same in groupby(ordered, key=lambda file: (file.event_date, file.place)):
        end = -1
        for file in same:
            if file.end <= end:
                continue
            if file.begin < end:
                raise CorruptData(f'"{file.path}" and another file of the event log hold some of the same offsets')
            end = file.end
            yield file


def _added(place: TablePlace, file: _DataFile) -> tuple[AddAction, int]:
    """A data file as the table's log has it, and its rows; from its footer."""
    with place.files.open_input_file(file.path) as source:
        metadata = pq.ParquetFile(source).metadata
    numbers = {metadata.schema.column(number).name: number for number in range(metadata.num_columns)}
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    spans = {}
    for name in STATISTICS:
        found = [group.column(numbers[name]).statistics for group in groups]
        spans[name] = (min(one.min for one in found), max(one.max for one in found))
    info = place.files.get_file_info(file.path)
    written_ms = (info.mtime_ns or 0) // 1_000_000
    return added_file(
        file.path, file.size_bytes, file.event_date, written_ms, metadata.num_rows, spans
    ), metadata.num_rows


def _read_schema(place: TablePlace) -> pa.Schema:
    """Columns of the log, as a table has them."""
    stored = _decoded(place, OLD_SCHEMA, _StoredSchema)
    types = {str(kind): kind for kind in (pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_())}
    types["timestamp[ms, tz=UTC]"] = pa.timestamp("us", tz="UTC")
    unknown = sorted(set(stored.columns.values()) - types.keys())
    if stored.version != _VERSION or unknown:
        raise CorruptData(
            f"the event log has layout version {stored.version}, and columns of {unknown or 'known types'}",
            hint="use the release that wrote it",
        )
    return pa.schema([(name, types[text]) for name, text in stored.columns.items()])


def _places(place: TablePlace) -> dict[Place, str]:
    """Partitions that a writer has ever opened, and the names of their directories."""
    found = {}
    for info in place.files.get_file_info(pafs.FileSelector(_COMMITS, allow_not_found=True)):
        parts = _PARTITION.fullmatch(info.base_name)
        if parts is not None:
            found[unquote(parts["topic"]), int(parts["partition"])] = info.base_name
    return found


def _commits(place: TablePlace, name: str) -> dict[int, _Commit]:
    """Commit records of a partition by their numbers."""
    paths = [info.path for info in _find(place, f"{_COMMITS}/{name}") if info.base_name.endswith(".json")]
    return {int(path.rpartition("/")[2].removesuffix(".json")): _decoded(place, path, _Commit) for path in paths}


def _incarnations(place: TablePlace) -> dict[Place, str]:
    """Which topics the positions belong to."""
    return decode_incarnations(_content(place, _INCARNATIONS)) if _exists(place, _INCARNATIONS) else {}


def _decoded(place: TablePlace, path: str, kind: type[Decoded]) -> Decoded:
    """A JSON file."""
    try:
        return msgspec.json.decode(_content(place, path), type=kind)
    except msgspec.MsgspecError as error:
        raise CorruptData(f'"{path}" of the event log "{place.uri}" cannot be read', detail=str(error)) from error


def _content(place: TablePlace, path: str) -> bytes:
    with place.files.open_input_stream(path) as stream:
        return bytes(stream.read())


def _find(place: TablePlace, directory: str) -> list[pafs.FileInfo]:
    """All files below a directory, by path; none when it does not exist."""
    infos = place.files.get_file_info(pafs.FileSelector(directory, recursive=True, allow_not_found=True))
    return sorted((info for info in infos if info.type == pafs.FileType.File), key=lambda info: info.path)


def _exists(place: TablePlace, path: str) -> bool:
    return bool(place.files.get_file_info(path).type != pafs.FileType.NotFound)
