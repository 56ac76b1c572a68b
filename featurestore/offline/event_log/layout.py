"""Names within the event log of one source.

    LOG/event_date=2026-11-22/part-transactions-00003-<from>-<next>.parquet     what everybody reads
    LOG/_schema.json                                                            columns, for our reader
    LOG/_incarnations.json                                                      which topics the positions belong to
    LOG/_retention.json                                                         the first event date that is kept
    LOG/_commits/transactions-00003/<sequence>.json                             commit records of a partition
    LOG/_staging/transactions-00003/<sequence>-<token>-<event date>.parquet     written, not published yet
    LOG/_replaced/<ms>-<token>/event_date=2026-11-22/...                        replaced, for a while

Everything that is no data begins with an underscore, which Spark, DuckDB's glob, Polars and Arrow leave alone. A data
file holds all the log's rows of one event date and one partition with from <= offset < next, so its name alone tells
what it covers, and a file whose range lies within another's has been replaced by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from urllib.parse import quote, unquote

from featurestore.definitions.limits import DAY_MS

SCHEMA_PATH = "_schema.json"
RETENTION_PATH = "_retention.json"
INCARNATIONS_PATH = "_incarnations.json"
"""Which topics it was that the log's positions belong to, as the stream that writes the log knows them."""

COMMITS = "_commits"
STAGING = "_staging"
REPLACED = "_replaced"
PREPARED = f"{STAGING}/compaction"
"""Where compaction prepares the new directory of a date. No partition is called so."""

DATE_PREFIX = "event_date="

EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

_PARTITION_NAME = re.compile(r"(?P<topic>.+)-(?P<partition>[0-9]{5,})")
_DATE_DIRECTORY = re.compile(re.escape(DATE_PREFIX) + r"(\d{4}-\d\d-\d\d)")
_DATA_NAME = re.compile(r"part-(?P<topic>.+)-(?P<partition>\d{5,})-(?P<begin>\d{20})-(?P<end>\d{20})\.parquet")
_STAGED_NAME = re.compile(r"(?P<sequence>\d{20})-(?P<token>[0-9a-f]+)-(?P<date>\d{4}-\d\d-\d\d)\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class DataFile:
    """One published file.

    Attributes:
        event_date: UTC date of its rows' event times.
        topic, partition: where its rows come from.
        from_offset, next_offset: it has all rows of that date and partition in [from_offset, next_offset).
        size_bytes: its length.
    """

    event_date: date
    topic: str
    partition: int
    from_offset: int
    next_offset: int
    size_bytes: int = 0

    @property
    def name(self) -> str:
        """Its name within its date's directory."""
        place = partition_name(self.topic, self.partition)
        return f"part-{place}-{self.from_offset:020d}-{self.next_offset:020d}.parquet"

    @property
    def path(self) -> str:
        """Its path within the log."""
        return f"{date_directory(self.event_date)}/{self.name}"

    def covers(self, other: DataFile) -> bool:
        """Both are of one date and partition, and every offset of the other is one of this."""
        return (
            (self.event_date, self.topic, self.partition) == (other.event_date, other.topic, other.partition)
            and self.from_offset <= other.from_offset
            and other.next_offset <= self.next_offset
        )


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that waits for its commit, or for its publication.

    Attributes:
        place: name of its partition's directory.
        sequence, token: of the commit it belongs to.
        event_date: of its rows.
    """

    place: str
    sequence: int
    token: str
    event_date: date

    @property
    def path(self) -> str:
        """Its path within the log."""
        return f"{STAGING}/{self.place}/{self.sequence:020d}-{self.token}-{self.event_date.isoformat()}.parquet"


def partition_name(topic: str, partition: int) -> str:
    """A partition as part of a name; what a path could misread is percent-encoded.

    >>> partition_name("card/payments", 3)
    'card%2Fpayments-00003'
    """
    return f"{quote(topic, safe='')}-{partition:05d}"


def partition_of_name(name: str) -> tuple[str, int] | None:
    """Topic and partition of a `partition_name`; None when it is something else.

    >>> partition_of_name("card%2Fpayments-00003")
    ('card/payments', 3)
    """
    parts = _PARTITION_NAME.fullmatch(name)
    return None if parts is None else (unquote(parts["topic"]), int(parts["partition"]))


def date_directory(event_date: date) -> str:
    """Directory of an event date, as Hive names it.

    >>> date_directory(date(2026, 11, 22))
    'event_date=2026-11-22'
    """
    return DATE_PREFIX + event_date.isoformat()


def date_of_directory(name: str) -> date | None:
    """The event date of a directory; None when it is something else."""
    parts = _DATE_DIRECTORY.fullmatch(name)
    return None if parts is None else _date_of(parts[1])


def event_date_of(time_ms: int) -> date:
    """UTC date of an event time.

    >>> event_date_of(-1), event_date_of(0)
    (datetime.date(1969, 12, 31), datetime.date(1970, 1, 1))
    """
    return date.fromordinal(EPOCH_ORDINAL + time_ms // DAY_MS)


def parse_data_path(path: str, size_bytes: int) -> DataFile | None:
    """The data file of a path within the log; None when it is something else."""
    directory, _, name = path.rpartition("/")
    parts = _DATA_NAME.fullmatch(name)
    event_date = date_of_directory(directory)
    if parts is None or event_date is None:
        return None
    return DataFile(
        event_date=event_date,
        topic=unquote(parts["topic"]),
        partition=int(parts["partition"]),
        from_offset=int(parts["begin"]),
        next_offset=int(parts["end"]),
        size_bytes=size_bytes,
    )


def parse_staged_path(path: str) -> StagedFile | None:
    """The staged file of a path within the log; None when it is something else."""
    directory, _, name = path.rpartition("/")
    parts = _STAGED_NAME.fullmatch(name)
    event_date = None if parts is None else _date_of(parts["date"])
    if parts is None or event_date is None:
        return None
    place = directory.removeprefix(STAGING + "/")
    return StagedFile(place, int(parts["sequence"]), parts["token"], event_date)


def _date_of(text: str) -> date | None:
    """A date; None for digits that are none, such as 2026-13-45."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
