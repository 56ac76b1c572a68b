"""What keeps a log small: small files become large ones, old event dates go, files that no version needs are deleted.

Each is one version of the table, or none of it. Readers of older versions read on, from files that stay for a week.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from typing import TypeVar

from deltalake import WriterProperties

from featurestore.clock import Clock, SystemClock
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.disk import sync
from featurestore.offline.event_log.address import TablePlace
from featurestore.offline.event_log.failures import CommitLost, table_errors
from featurestore.offline.event_log.schema import EVENT_DATE
from featurestore.offline.event_log.table import EPOCH_ORDINAL, KEPT_FROM, LogTable, make_durable
from featurestore.offline.event_log.writer import ATTEMPTS, PARQUET_OPTIONS, event_date_of

TARGET_BYTES_DEFAULT = 128 << 20
FILES_MIN_DEFAULT = 8

_TIER = 16
"""Files of one class of size are up to so many times as large as those of the class below."""

_SMALLEST_CLASS_BYTES = 32 << 10

_WAIT_SECONDS, _WAIT_SECONDS_MAX = 0.02, 1.0

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """When files are merged.

    Attributes:
        target_bytes: files up to this size are merged, into files of about this size.
        files_min: so many of one size class, of one date, are worth a merge.
        is_full: merge whatever can be merged, in one go.
    """

    target_bytes: int = TARGET_BYTES_DEFAULT
    files_min: int = FILES_MIN_DEFAULT
    is_full: bool = False


@dataclass(frozen=True, slots=True)
class Compacted:
    """One date's merge."""

    event_date: date
    files_before: int
    files_after: int


def compact(place: TablePlace, policy: CompactionPolicy = CompactionPolicy()) -> Iterator[Compacted]:
    """Merge small files, date by date, while the log is read and written.

    Yields:
        Each date whose files were merged, when its new version is there.

    Raises:
        InvalidRequest: there is no log.
        Unavailable: the file system does not answer, or somebody else merges the same files.
    """
    table = LogTable(place)
    for event_date, same in groupby(table.files, key=lambda file: file.event_date):
        sizes = [file.size_bytes for file in same]
        limit_bytes = _worth_merging(sizes, policy)
        if limit_bytes is None:
            continue

        def merge(event_date: date = event_date, limit_bytes: int = limit_bytes) -> Compacted:
            LogTable(place).begin_merge()
            fresh = LogTable(place)
            known = frozenset(file.path for file in fresh.files)
            with table_errors(place):
                done = fresh.delta.optimize.compact(
                    partition_filters=[(EVENT_DATE, "=", event_date.isoformat())],
                    target_size=limit_bytes,
                    writer_properties=WriterProperties(
                        compression="ZSTD",
                        compression_level=int(PARQUET_OPTIONS["compression_level"]),
                        max_row_group_size=int(PARQUET_OPTIONS["row_group_size"]),
                    ),
                )
            if done["numFilesRemoved"]:
                make_files_durable(LogTable(place), known, fresh.version + 1)
            return Compacted(event_date, done["numFilesRemoved"], done["numFilesAdded"])

        merged = again(place, merge)
        if merged.files_before:
            yield merged


def retain(place: TablePlace, clock: Clock, *, days: int) -> list[date]:
    """Keep the event dates of today and of the `days` days before, and later ones.

    The first date that is kept is written down before anything is dropped, and never falls: readers see nothing from
    before it, also not the late rows that may still arrive there, which the next run drops.

    Args:
        place: of the log.
        clock: says what today is, UTC.
        days: >= 1.

    Returns:
        The dates that were dropped now, ascending.

    Raises:
        InvalidRequest: there is no log, or no day is to be kept.
        Unavailable: the file system does not answer.
    """
    if days < 1:
        raise InvalidRequest(f"{days} days of the event log cannot be kept", hint="keep one day or more")
    wanted = event_date_of(clock.now_ms()) - timedelta(days=days)

    def keep() -> date:
        table = LogTable(place)
        kept_from = wanted if table.kept_from is None else max(wanted, table.kept_from)
        if kept_from != table.kept_from:
            table.commit({KEPT_FROM: kept_from.toordinal() - EPOCH_ORDINAL})
        return kept_from

    def drop() -> list[date]:
        table = LogTable(place)
        with table_errors(place):
            stored = [date.fromisoformat(one[EVENT_DATE]) for one in table.delta.partitions()]
            dropped = sorted({event_date for event_date in stored if event_date < kept_from})
            if dropped:
                table.delta.delete(f"{EVENT_DATE} < '{kept_from.isoformat()}'")
        return dropped

    kept_from = again(place, keep)
    return again(place, drop)


def vacuum(place: TablePlace) -> int:
    """Delete files that no version of the last week needs, and those that crashed writers left; returns how many.

    Raises:
        InvalidRequest: there is no log.
        Unavailable: the file system does not answer.
    """
    table = LogTable(place)
    with table_errors(place):
        return len(table.delta.vacuum(dry_run=False, full=True))


def make_files_durable(table: LogTable, known: Collection[str], first: int) -> None:
    """Let files that were not known before, and versions from one on, survive a loss of power.

    delta-rs leaves that to the kernel. If the loss comes before this, a merged file may be damaged; those that it was
    made of are there for a week.
    """
    directory = table.place.directory
    if directory is None:
        return
    with table_errors(table.place):
        for path in (directory / file.path for file in table.files if file.path not in known):
            sync(path)
            sync(path.parent)
        make_durable(table.place, first, table.version)


def _worth_merging(sizes: list[int], policy: CompactionPolicy) -> int | None:
    """How large merged files of a date are to become; None when they are well as they are.

    By classes of size: enough files of one class fill it up, and when they are as large as its files become, they are
    merged into the next. So a row is written a few times a class and not with each of its neighbours.
    """
    if policy.is_full:
        return policy.target_bytes if len(sizes) > 1 else None
    least_bytes, class_bytes = 0, _SMALLEST_CLASS_BYTES
    while least_bytes < policy.target_bytes:
        class_bytes = min(class_bytes, policy.target_bytes)
        own = [size for size in sizes if least_bytes <= size < class_bytes]
        if len(own) >= policy.files_min:
            if 2 * sum(own) <= len(own) * class_bytes:  # the two smallest fit into one file
                return class_bytes
            if class_bytes < policy.target_bytes:
                return min(class_bytes * _TIER, policy.target_bytes)
        least_bytes, class_bytes = class_bytes, class_bytes * _TIER
    return None


def again(place: TablePlace, work: Callable[[], Found]) -> Found:
    """Do something to the newest version, again when another one came in between.

    Who lost waits for a moment, by chance: of several who merge, each can otherwise stop the others for ever.
    """
    clock = SystemClock()
    for attempt in range(ATTEMPTS):
        try:
            return work()
        except CommitLost as lost:
            last = lost
        clock.sleep(random.uniform(0.0, min(_WAIT_SECONDS * 2**attempt, _WAIT_SECONDS_MAX)))
    raise Unavailable(f'event log "{place.uri}" is changed by others too often to be kept', detail=str(last)) from last
