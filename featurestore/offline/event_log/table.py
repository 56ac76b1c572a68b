"""A log's Delta table at one version: positions, partitions, files, and the one way to commit to it.

Positions live in the table's own log, as application transactions: one for each partition of a topic, whose version is
the partition's next offset. Two commits that both move a partition cannot both be made, whoever makes them.

    id                        version
    payments/3                next offset; -1 where a writer came and nothing was read yet
    payments/3/owner          a random number of the writer that claimed the partition last
    payments/3/begin          first offset that was ever committed
    kept_from                 first event date that retention keeps, in days since 1970

Transactions are looked up by id, so the table's property `featurestore.partitions` lists the partitions, with the topic
that each belongs to (its incarnation), so that a topic made anew is known.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import msgspec
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction

from featurestore.core.events import Horizon
from featurestore.errors import InvalidRequest
from featurestore.offline.disk import make_directory, sync
from featurestore.offline.event_log.address import TablePlace
from featurestore.offline.event_log.failures import refuse_old_layout, table_errors, told
from featurestore.offline.event_log.schema import EVENT_DATE
from featurestore.wire.incarnations import Incarnations, decode_incarnations, encode_incarnations

Place = tuple[str, int]
"""Topic and partition."""

Positions = dict[Place, int]
"""Next offset by (topic, partition)."""

DIRECTORY_MODE = 0o777
"""As the umask has it: event logs are for others to read."""

EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

PARTITIONS_PROPERTY = "featurestore.partitions"
MERGE_PROPERTY = "featurestore.merge"
ERASURES_PROPERTY = "featurestore.erasures"
KEPT_FROM = "kept_from"

RETENTION = "interval 7 days"
"""How long what no version needs any more is kept, and versions can be told: longer than any reader reads."""

CHECKPOINT_INTERVAL = "20"
"""Versions between checkpoints: so many records are read at most to open a table, and to look a position up."""

PROPERTIES: Mapping[str, str] = {
    "delta.deletedFileRetentionDuration": RETENTION,
    "delta.logRetentionDuration": RETENTION,
    "delta.checkpointInterval": CHECKPOINT_INTERVAL,
    PARTITIONS_PROPERTY: "[]",
}
"""Of a new table."""

FILE_FEATURES = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"})
"""Features of a table with which its files are its rows; not so deletion vectors and renamed columns."""


HORIZON = ("horizon", "newest", "refused", "whole")
"""Kinds of application transactions: together a partition's horizon (`core.events.Horizon`)."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """One data file.

    Attributes:
        path: within the table.
        event_date: of its rows.
        rows, size_bytes: how much it is.
        topics: smallest and largest of its rows; None where the table does not say.
        partitions, offsets, event_times_ms, ingest_times_ms: the same.
    """

    path: str
    event_date: date
    rows: int
    size_bytes: int
    topics: tuple[str, str] | None
    partitions: tuple[int, int] | None
    offsets: tuple[int, int] | None
    event_times_ms: tuple[int, int] | None
    ingest_times_ms: tuple[int, int] | None


class _Txn(msgspec.Struct, frozen=True):
    """Delta's record of an application transaction, under its own names."""

    appId: str  # as the protocol spells it
    version: int


class _Action(msgspec.Struct, frozen=True):
    """A line of a version's record, of which only transactions matter here."""

    txn: _Txn | None = None


class LogTable:
    """A log's table as it was when it was opened.

    Args:
        place: where it is.
        version: of the table; None: its newest.

    Raises:
        InvalidRequest: there is none, it has no such version, or it is not an event log.
        Unavailable: the file system does not answer.
        CorruptData: it cannot be read.
    """

    def __init__(self, place: TablePlace, version: int | None = None) -> None:
        with table_errors(place):
            self._take(place, open_version(place, version, f'event log "{place.uri}"'), {})

    def advance(self) -> None:
        """Become the newest version, by reading only what is new."""
        with table_errors(self.place):
            before = self.version
            self.delta.update_incremental()
            changed = _transactions_in(self.place, range(before + 1, self.delta.version() + 1))
            self._take(self.place, self.delta, {} if changed is None else {**self._transactions, **changed})

    def _take(self, place: TablePlace, delta: DeltaTable, transactions: dict[str, int | None]) -> None:
        self.place = place
        self.delta = delta
        self._transactions = transactions
        self.__dict__.pop("files", None)  # of the version before
        self.version = delta.version()
        self.properties: Mapping[str, str] = delta.metadata().configuration
        self.schema = pa.schema([field for field in pa.schema(delta.schema()) if field.name != EVENT_DATE])
        _check_is_log(self)

    @property
    def partitions(self) -> dict[Place, str]:
        """The partitions that were ever claimed, and the incarnation of each, "" where it is not known."""
        return decode_incarnations(self.properties[PARTITIONS_PROPERTY].encode())

    @property
    def incarnations(self) -> Incarnations:
        """Which topics the positions belong to, as far as is known."""
        return {place: which for place, which in self.partitions.items() if which}

    @property
    def positions(self) -> Positions:
        """Next offset of each partition of which something was read."""
        found = {place: self.position(place) for place in self.partitions}
        return {place: position for place, position in found.items() if position is not None}

    @property
    def kept_from(self) -> date | None:
        """The first event date that retention keeps; None when it keeps all."""
        days = self.transaction(KEPT_FROM)
        return None if days is None else date.fromordinal(EPOCH_ORDINAL + days)

    @cached_property
    def files(self) -> tuple[LogFile, ...]:
        """The data files of dates that are kept, by event date and path."""
        with table_errors(self.place):
            actions = pa.table(self.delta.get_add_actions(flatten=True))
        kept_from = self.kept_from
        found = [_file_of(row) for row in actions.to_pylist()]
        kept = [file for file in found if kept_from is None or file.event_date >= kept_from]
        return tuple(sorted(kept, key=lambda file: (file.event_date, file.path)))

    def position(self, place: Place) -> int | None:
        """Next offset of a partition; None when nothing of it was ever read."""
        version = self.transaction(transaction_id(place))
        return None if version is None or version < 0 else version

    def owner(self, place: Place) -> int | None:
        """The writer that claimed a partition last."""
        return self.transaction(transaction_id(place, "owner"))

    def begin(self, place: Place) -> int | None:
        """The first offset of a partition that was committed."""
        return self.transaction(transaction_id(place, "begin"))

    def horizon(self, place: Place) -> Horizon | None:
        """Where the horizon of a partition stands at its position; None where its events replace nothing."""
        found = [self.transaction(transaction_id(place, kind)) for kind in HORIZON]
        begin, newest_ms, refused_ms, is_whole = found
        if begin is None or newest_ms is None or refused_ms is None:
            return None
        return Horizon(begin, newest_ms, refused_ms, bool(is_whole))

    def transaction(self, name: str) -> int | None:
        """Version of an application transaction.

        Looked up once: delta-rs reads all records since the last checkpoint for each look-up, over the network too.
        """
        if name not in self._transactions:
            with table_errors(self.place):
                self._transactions[name] = self.delta.transaction_version(name)
        return self._transactions[name]

    def commit(self, transactions: Mapping[str, int], files: Sequence[AddAction] = ()) -> None:
        """Commit files and transactions together, if none of these transactions was made since this version.

        Raises:
            CommitLost: one was, or the table's columns or properties were changed.
            Unavailable: whether it was made is not known.
        """
        properties = CommitProperties(app_transactions=[Transaction(*each) for each in transactions.items()])
        with table_errors(self.place):
            self.delta.create_write_transaction(
                list(files), "append", self.delta.schema(), [EVENT_DATE], commit_properties=properties
            )

    def set_partitions(self, partitions: Mapping[Place, str]) -> None:
        """Replace the list of partitions.

        Raises:
            CommitLost: somebody else changed columns or properties.
        """
        self._set_property(PARTITIONS_PROPERTY, encode_incarnations(partitions).decode())

    def begin_merge(self) -> None:
        """Let no merge of files be made any more whose table was opened before now; open it again for one.

        delta-rs makes two merges of the same files both, and doubles their rows. But it makes no merge of a table whose
        properties were changed since it was opened. So of several who merge, only the last to come here can.

        Raises:
            CommitLost: somebody else changed columns or properties.
        """
        self._set_property(MERGE_PROPERTY, secrets.token_hex(8))

    @property
    def erasures_token(self) -> str:
        """Another one after every erasure; "" before the first."""
        return self.properties.get(ERASURES_PROPERTY, "")

    def begin_erasure(self) -> None:
        """Let no rows be added any more by a writer who opened the table before now: it is to look what is erased.

        Raises:
            CommitLost: somebody else changed columns or properties.
        """
        self._set_property(ERASURES_PROPERTY, secrets.token_hex(8))

    def _set_property(self, name: str, value: str) -> None:
        """Set a property of the table."""
        with table_errors(self.place):
            self.delta.alter.set_table_properties({name: value}, raise_if_not_exists=False)

    def add_columns(self, fields: Collection[pa.Field]) -> None:
        """Add columns, null in all rows so far.

        Raises:
            CommitLost: somebody else changed columns or properties.
        """
        with table_errors(self.place):
            new = pa.schema(list(fields))
            self.delta.alter.add_columns(list(Schema.from_arrow(new).fields))


def _transactions_in(place: TablePlace, versions: range) -> dict[str, int] | None:
    """Application transactions of some versions; None when a version's record is gone, behind a checkpoint."""
    found: dict[str, int] = {}
    for version in versions:
        try:
            with place.files.open_input_stream(f"_delta_log/{version:020d}.json") as record:
                lines = record.read().splitlines()
        except FileNotFoundError:
            return None
        for line in lines:
            transaction = msgspec.json.decode(line, type=_Action).txn
            if transaction is not None:
                found[transaction.appId] = transaction.version
    return found


def create_table(place: TablePlace, schema: pa.Schema, *, is_adopting: bool = False) -> None:
    """Make a log's table, if there is none.

    Args:
        place: where.
        schema: its columns, without the event date.
        is_adopting: a log of the old layout is there, and becomes the table.

    Raises:
        InvalidRequest: such a log is there, and is not adopted.
        Unavailable: the file system does not answer.
    """
    with table_errors(place):
        if not is_adopting:
            refuse_old_layout(place)
        if DeltaTable.is_deltatable(place.address, dict(place.options)):
            return
        if place.directory is not None:
            make_directory(place.directory, DIRECTORY_MODE)
        try:
            DeltaTable.create(
                place.address,
                schema=pa.schema([*schema, pa.field(EVENT_DATE, pa.date32())]),
                mode="error",
                partition_by=[EVENT_DATE],
                configuration=dict(PROPERTIES),
                storage_options=dict(place.options),
                raise_if_key_not_exists=False,
            )
        except (CommitFailedError, DeltaError) as error:
            if not DeltaTable.is_deltatable(place.address, dict(place.options)):  # else made by another process
                raise error
        make_durable(place, 0, 0)


def make_durable(place: TablePlace, first: int, last: int) -> None:
    """Let versions of a table on a local disk survive a loss of power, which delta-rs leaves to the kernel."""
    if place.directory is None:
        return
    log = place.directory / "_delta_log"
    for version in range(first, last + 1):
        path = log / f"{version:020d}.json"
        if path.exists():  # else a checkpoint has it, and it was cleaned up
            sync(path)
    sync(log)
    sync(place.directory)


def is_log_table(place: TablePlace) -> bool:
    """There is a Delta table."""
    with table_errors(place):
        return DeltaTable.is_deltatable(place.address, dict(place.options))


def open_version(place: TablePlace, version: int | None, what: str) -> DeltaTable:
    """A Delta table, at a version.

    Args:
        place: where it is.
        version: None: its newest.
        what: names it in messages.

    Raises:
        InvalidRequest: it has no such version.
    """
    table = DeltaTable(place.address, storage_options=dict(place.options))
    newest = table.version()
    if version is None or version == newest:
        return table
    try:
        table.load_as_version(version)
    except DeltaError as error:
        is_gone = version < newest
        raise InvalidRequest(
            f"{what} has no version {version}" + (" any more" if is_gone else f": its newest is {newest}"),
            detail=told(error) if is_gone else "",
            hint="begin anew with the newest version",
        ) from error
    return table


def horizon_transactions(place: Place, horizon: Horizon) -> dict[str, int]:
    """The application transactions of a partition's horizon."""
    versions = (horizon.begin, horizon.newest_ms, horizon.refused_ms, int(horizon.is_whole))
    return {transaction_id(place, kind): version for kind, version in zip(HORIZON, versions, strict=True)}


def transaction_id(place: Place, kind: str = "") -> str:
    """Id of a partition's application transaction.

    >>> transaction_id(("payments", 3)), transaction_id(("payments", 3), "owner")
    ('payments/3', 'payments/3/owner')
    """
    topic, partition = place
    return f"{topic}/{partition}" + (f"/{kind}" if kind else "")


def _check_is_log(table: LogTable) -> None:
    """It has our columns, and nothing that our reading of its files would miss.

    Raises:
        InvalidRequest: it has not.
    """
    if PARTITIONS_PROPERTY not in table.properties:
        raise InvalidRequest(
            f'the Delta table "{table.place.uri}" is not an event log',
            hint="`featurestore history --event-log SOURCE=PATH` takes any Delta table",
        )
    features = frozenset(table.delta.protocol().reader_features or ())
    if features - FILE_FEATURES:
        raise InvalidRequest(
            f'event log "{table.place.uri}" uses {", ".join(sorted(features - FILE_FEATURES))}',
            detail="Somebody has switched that on for the table; its files alone do not tell its rows any more.",
            hint="switch it off again; deletion vectors: set delta.enableDeletionVectors = false, REORG TABLE ... "
            "APPLY (PURGE), and ALTER TABLE ... DROP FEATURE deletionVectors TRUNCATE HISTORY, twice, a day apart",
        )


def _file_of(row: Mapping[str, object]) -> LogFile:
    """A data file of an add action."""

    def span(name: str) -> object:
        least, most = row.get(f"min.{name}"), row.get(f"max.{name}")
        return None if least is None or most is None else (least, most)

    return msgspec.convert(
        {
            "path": row["path"],
            "event_date": row[f"partition.{EVENT_DATE}"],
            "rows": row["num_records"],
            "size_bytes": row["size_bytes"],
            "topics": span("topic"),
            "partitions": span("partition"),
            "offsets": span("offset"),
            "event_times_ms": span("event_time_ms"),
            "ingest_times_ms": span("ingest_time_ms"),
        },
        LogFile,
    )
