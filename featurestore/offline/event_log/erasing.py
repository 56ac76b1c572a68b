"""Delete what an event log holds of somebody, beside whoever writes, reads and merges it.

    record ─ property, so that who writes looks ─ find rows ─ delete them by their positions ─ none is left

Rows are deleted by position, so that the table's own history of what was done to it does not name the value. Readers of
older versions read on from files that stay for a week (`upkeep.vacuum`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from featurestore.clock import Clock
from featurestore.core.spec import IS_UNDO
from featurestore.definitions.limits import DAY_MS
from featurestore.offline.event_log.address import TablePlace
from featurestore.offline.event_log.erasures import erased, keep_erasure
from featurestore.offline.event_log.failures import table_errors
from featurestore.offline.event_log.schema import EVENT_DATE
from featurestore.offline.event_log.table import LogTable
from featurestore.offline.event_log.upkeep import again, make_files_durable
from featurestore.wire.erasures import Erasure

ROWS_PER_VERSION = 20_000
"""Rows whose positions one version of the table's history names."""

VACUUMED_AFTER_DAYS = 7
"""See `table.RETENTION`."""

_POSITION = ("topic", "partition", "offset", "event_time_ms")
"""And, of a source of changes, whether the row undoes or does: an update is both, at one offset."""


@dataclass(frozen=True, slots=True)
class LogErasure:
    """What was done to a log.

    Attributes:
        uri: its address.
        rows: deleted now.
        version: of the table, without them.
        kept_until_ms: until when versions from before can be read; their files go with the next upkeep after that.
    """

    uri: str
    rows: int
    version: int
    kept_until_ms: int


def erase_rows(
    place: TablePlace,
    erasure: Erasure,
    value: str | int,
    clock: Clock,
    say: Callable[[str], None] = lambda line: None,
) -> LogErasure:
    """Delete the rows of a value that happened before the erasure's moment.

    Args:
        place: of the log.
        erasure: its record, which writers are told.
        value: of its join key.
        clock: for how long older versions stay.
        say: told what is being done.

    Raises:
        InvalidRequest: there is no log.
        Unavailable: the file system does not answer, or others change the log too often; run it again.
    """
    keep_erasure(place, erasure)
    return _erased(place, lambda table: _found(table, erasure, value, say), clock)


def erase_again(
    place: TablePlace, erasures: Sequence[Erasure], clock: Clock, say: Callable[[str], None] = lambda line: None
) -> LogErasure:
    """Delete all that records say is erased, whoever brought it back: as after a restore from a copy.

    Nobody's value is known, so the join keys of all rows are read.

    Args:
        place: of the log.
        erasures: records, which the log keeps from now on.
        clock: for how long older versions stay.
        say: told what is being done.

    Raises:
        InvalidRequest, Unavailable: as of `erase_rows`.
    """
    names = LogTable(place).schema.names
    mine = [one for one in erasures if one.join_key in names]
    for one in mine:
        keep_erasure(place, one)
    return _erased(place, lambda table: _found_again(table, mine, say), clock)


def _erased(place: TablePlace, find: Callable[[LogTable], Iterator[pa.RecordBatch]], clock: Clock) -> LogErasure:
    """Delete rows that are found once no writer adds any more of them."""
    again(place, lambda: LogTable(place).begin_erasure())
    rows = 0
    for chunk in _chunks(find(LogTable(place))):
        rows += again(place, partial(_delete, place, chunk))
    kept_until_ms = clock.now_ms() + VACUUMED_AFTER_DAYS * DAY_MS
    return LogErasure(place.uri, rows, LogTable(place).version, kept_until_ms)


def remaining_rows(place: TablePlace, erasure: Erasure, value: str | int) -> int:
    """Rows of a value in the newest version that are erased."""
    return sum(batch.num_rows for batch in _found(LogTable(place), erasure, value, lambda line: None))


def _found(table: LogTable, erasure: Erasure, value: str | int, say: Callable[[str], None]) -> Iterator[pa.RecordBatch]:
    """Positions of the rows, by event date; nothing of a log without such a column."""
    if erasure.join_key not in table.schema.names:
        return
    is_wanted = (pc.field(erasure.join_key) == pa.scalar(value, table.schema.field(erasure.join_key).type)) & (
        pc.field("event_time_ms") < erasure.before_ms
    )
    for found in _by_date(table, [], is_wanted, say):
        yield from found.to_batches()


def _found_again(table: LogTable, erasures: Sequence[Erasure], say: Callable[[str], None]) -> Iterator[pa.RecordBatch]:
    """Positions of the rows that records say are erased, by event date."""
    if not erasures:
        return
    reach_ms = max(one.before_ms for one in erasures)
    join_keys = list(dict.fromkeys(one.join_key for one in erasures))
    for rows in _by_date(table, join_keys, pc.field("event_time_ms") < reach_ms, say):
        found = erased(rows, erasures)
        yield from found.select([name for name in found.column_names if name not in join_keys]).to_batches()


def _by_date(
    table: LogTable, more: Sequence[str], is_wanted: pc.Expression, say: Callable[[str], None]
) -> Iterator[pa.Table]:
    """Positions, and more columns, of some rows, by event date."""
    names = [*_POSITION, *(name for name in (IS_UNDO,) if name in table.schema.names), *more]
    kind = pads.ParquetFileFormat()
    for event_date, same in itertools.groupby(table.files, key=lambda file: file.event_date):
        files = list(same)
        say(f"{table.place.uri}: {event_date}")
        fragments = [kind.make_fragment(file.path, table.place.files) for file in files]
        dataset = pads.FileSystemDataset(fragments, table.schema, kind, table.place.files)
        with table_errors(table.place):
            found = dataset.to_table(columns=names, filter=is_wanted)
        yield found


def _chunks(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Positions of as many rows as one version deletes."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= ROWS_PER_VERSION:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if any(batch.num_rows for batch in waiting):
        yield pa.Table.from_batches(waiting)


def _delete(place: TablePlace, rows: pa.Table) -> int:
    """One version without some rows; how many it has less."""
    # As a merge does: whoever merges the same files now, or deletes from them, is refused, or refuses this.
    LogTable(place).begin_merge()
    table = LogTable(place)
    known = frozenset(file.path for file in table.files)
    with table_errors(place):
        done = table.delta.delete(_predicate(rows))
        make_files_durable(LogTable(place), known, table.version + 1)
    return int(done["num_deleted_rows"] or 0)


def _predicate(rows: pa.Table) -> str:
    """Which rows, in SQL."""
    undoes = rows.column(IS_UNDO).to_pylist() if IS_UNDO in rows.column_names else itertools.repeat(None)
    by_place: dict[tuple[str, int, bool | None], list[int]] = {}
    own = (rows.column(name).to_pylist() for name in _POSITION[:3])
    for topic, partition, offset, undo in zip(*own, undoes, strict=False):
        by_place.setdefault((topic, partition, undo), []).append(offset)
    places = []
    for (topic, partition, undo), offsets in by_place.items():
        text = topic.replace("'", "''")
        side = "" if undo is None else f" AND {IS_UNDO} = {str(undo).lower()}"
        inside = ", ".join(map(str, sorted(set(offsets))))
        places.append(f"(topic = '{text}' AND partition = {partition}{side} AND \"offset\" IN ({inside}))")
    days = sorted({time_ms // DAY_MS for time_ms in rows.column("event_time_ms").to_pylist()})
    dates = ", ".join(f"'{pc.strftime(pa.scalar(day, pa.int32()).cast(pa.date32()))}'" for day in days)
    return f"{EVENT_DATE} IN ({dates}) AND ({' OR '.join(places)})"
