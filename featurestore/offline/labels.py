"""Label rows of a training set, as they were known at one moment, with what was not mature then left out or marked.

    rows of the table ─known by T?─> ─mature at T?─> events, by (join keys, time) ─rule─> one row an event

All columns at once, by sorting: label rows are many. Rows come out ascending by event time and join keys, so that the
order of the files says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.clock import SystemClock
from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.spec import Column, LabelSourceSpec, OnConflict, RepoSpec, ValueType
from featurestore.core.windows.durations import format_duration
from featurestore.definitions.compile.source.labels import IS_MATURE
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.training_set.arrow_columns import cast_column, takeable
from featurestore.offline.training_set.histories import open_dataset
from featurestore.offline.training_set.label_times import check_moment
from featurestore.offline.training_set.plain_join import located, moments_us
from featurestore.wire.entity_key import encode_key, fingerprint

LABELS_KEY = b"featurestore.labels"
"""In the metadata of label rows, and of a training set that is made of them: which they are, and what was left out."""

_US_PER_MS = 1_000


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """What became of the rows of a table of labels.

    Attributes:
        source: its name.
        as_of_ms: the moment, milliseconds UTC.
        read: rows of the table.
        unnamed: rows without a join key, a time, or the moment when they became known; they are left out.
        unknown: rows that became known later, or whose event happened later; they are left out.
        immature: events that were too young; left out, or marked.
        conflicting: events, among those that are given, of which labels contradict each other.
        given: events.
    """

    source: str
    as_of_ms: int
    read: int
    unnamed: int
    unknown: int
    immature: int
    conflicting: int
    given: int


@dataclass(frozen=True, slots=True)
class LabelRows:
    """Label rows, to give to `build_training_set` as its entities.

    Attributes:
        table: a row an event: its join keys, its time, its labels, and whether it is mature; the counts are in the
            schema's metadata, under LABELS_KEY.
        timestamp_column: the events' times.
        counts: what was left out.
    """

    table: pa.Table
    timestamp_column: str
    counts: LabelCounts


def labelled(
    repo: RepoSpec,
    name: str,
    *,
    as_of_ms: int | None = None,
    immature: Literal["drop", "mark"] = "drop",
    repo_path: Path | None = None,
) -> LabelRows:
    """The label rows of a source, as they were known at a moment.

    Args:
        repo: the definitions.
        name: of a `label_source`.
        as_of_ms: the moment, milliseconds UTC; now, where it is left out. Only what was known by then counts.
        immature: events that are younger than `matures_after` are left out, or marked: `label_is_mature` is false.
        repo_path: where a relative path starts; default: the current directory.

    Returns:
        A row an event, ascending by time and join keys. A label of which nothing is known is null; where the row is
        mature and the label a boolean or an integer, it is false or 0.

    Raises:
        InvalidRequest: there are no such labels, their table is not as declared, or labels contradict each other where
            the source refuses that.
        Unavailable: the table cannot be read.
    """
    source = next((one for one in repo.label_sources if one.name == name), None)
    if source is None:
        known = [one.name for one in repo.label_sources]
        hint = suggest(name, known) if known else "declare them by label_source(...), and run `featurestore apply`"
        raise InvalidRequest(f'there is no source of labels "{name}"', hint=hint)
    if as_of_ms is None:
        as_of_ms = SystemClock().now_ms()
    check_moment(as_of_ms)
    table = _read(source, repo_path)
    events = _Events(source, table)
    is_named = events.is_named
    is_known = is_named & (events.known_us <= as_of_ms * _US_PER_MS) & (events.times_us <= as_of_ms * _US_PER_MS)
    is_mature = events.times_us <= (as_of_ms - source.matures_after_ms) * _US_PER_MS
    rows = np.flatnonzero(is_known)
    groups = events.groups(rows)
    young = len(np.unique(groups[~is_mature[rows]]))
    if immature == "drop":
        rows = rows[is_mature[rows]]
        groups = events.groups(rows)
    first, groups = np.unique(groups, return_index=True, return_inverse=True)[1:]
    firsts = rows[first]
    given = table.select([*source.join_keys, source.table.timestamp_column]).take(pa.array(firsts))
    conflicts = np.zeros(len(first), dtype=np.bool_)
    for label in source.labels:
        given = given.append_column(label, _Label(events, label).choose(rows, groups, conflicts, is_mature[firsts]))
    given = given.append_column(IS_MATURE, pa.array(is_mature[firsts], pa.bool_()))
    counts = LabelCounts(
        source=name,
        as_of_ms=as_of_ms,
        read=table.num_rows,
        unnamed=int((~is_named).sum()),
        unknown=int((is_named & ~is_known).sum()),
        immature=young,
        conflicting=int(conflicts.sum()),
        given=given.num_rows,
    )
    given = given.replace_schema_metadata({LABELS_KEY: msgspec.json.encode(asdict(counts))})
    return LabelRows(given, source.table.timestamp_column, counts)


class _Events:
    """The rows of a table of labels, by the event that each is about.

    Attributes:
        source: the labels.
        table: N rows, of few chunks.
        times_us: (N,) when the events happened.
        known_us: (N,) when the rows became known; of a part of a microsecond, its end.
        is_named: (N,) whether all of that is said.
    """

    def __init__(self, source: LabelSourceSpec, table: pa.Table) -> None:
        self.source = source
        self.table = table
        of_time, of_knowing = source.table.timestamp_column, source.table.created_column
        self.times_us, is_timed = moments_us(table.column(of_time), of_time, is_label=True)
        self.known_us, is_dated = moments_us(table.column(of_knowing), of_knowing, is_label=False)
        self._keys = [_key(source, table, name) for name in source.join_keys]
        self._places = [places_of(column) for column in self._keys]
        self.is_named = is_timed & is_dated
        for place in self._places:
            self.is_named &= place >= 0

    def groups(self, rows: Int64Array) -> Int64Array:
        """(len(rows),) number of the event of each of them, ascending by time and keys."""
        columns = [self.times_us[rows], *(place[rows] for place in self._places)]
        order = np.lexsort(columns[::-1])
        is_new = np.zeros(len(rows), dtype=np.bool_)
        for column in columns:
            sorted_column = column[order]
            is_new[1:] |= sorted_column[1:] != sorted_column[:-1]
        found = np.empty(len(rows), dtype=np.int64)
        found[order] = np.cumsum(is_new)
        return found

    def name(self, row: int) -> str:
        """What an error calls the event of a row."""
        key = encode_key([column[row].as_py() for column in self._keys])
        return f"entity {fingerprint(key)} at {moment_text(int(self.times_us[row]) // _US_PER_MS)}"


class _Label:
    """A column with labels.

    Args:
        events: the rows.
        name: of the column.

    Raises:
        InvalidRequest: it has values of which nobody can say whether they differ.
    """

    def __init__(self, events: _Events, name: str) -> None:
        self._events = events
        self._name = name
        self._column = _plain(events.table.column(name))
        kind = self._column.type
        is_known_kind = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        place = f'label column "{name}" of source "{events.source.name}"'
        if not (is_known_kind or is_text or pa.types.is_null(kind)):
            raise InvalidRequest(f"{place} is of type {kind}", hint="make it boolean, a number or a text")
        if is_text and events.source.on_conflict is OnConflict.ANY_POSITIVE:
            raise InvalidRequest(
                f'{place} is a text, and none of them is positive, which on_conflict="any_positive" asks for',
                hint='make it boolean or a number, or write on_conflict="last"',
            )
        if pa.types.is_floating(kind):  # no number is nothing known
            self._column = pc.if_else(pc.is_nan(self._column), pa.scalar(None, kind), self._column)
        self._places = places_of(self._column)

    def choose(
        self, rows: Int64Array, groups: Int64Array, conflicts: BoolArray, is_mature: BoolArray
    ) -> pa.ChunkedArray | pa.Array:
        """The label of each of G events.

        Args:
            rows: K rows that count.
            groups: (K,) the event of each.
            conflicts: (G,) is set where labels differ.
            is_mature: (G,) whether nothing known is a negative.
        """
        is_said = self._places[rows] >= 0
        rows, groups = rows[is_said], groups[is_said]
        by_value = np.lexsort((self._places[rows], groups))
        differs = self._differs(rows[by_value], groups[by_value])
        conflicts[groups[by_value][1:][differs]] = True
        rule = self._events.source.on_conflict
        if rule is OnConflict.REFUSE and differs.any():
            self._refuse(int(rows[by_value][1:][differs][0]), "contradict each other", 'on_conflict="last"')
        order = by_value
        if rule is not OnConflict.ANY_POSITIVE:
            known = self._events.known_us[rows]
            order = np.lexsort((self._places[rows], known, groups))
            is_newest = np.append(groups[order][1:] != groups[order][:-1], True)[1:]
            is_tied = (known[order][1:] == known[order][:-1]) & self._differs(rows[order], groups[order]) & is_newest
            if is_tied.any():
                text = "contradict each other and became known at the same moment"
                self._refuse(int(rows[order][1:][is_tied][0]), text, 'on_conflict="any_positive"')
        found = np.full(len(is_mature), -1, dtype=np.int64)
        found[groups[order]] = rows[order]  # of one event the last one stays
        labels = self._column.take(pa.array(found, mask=found < 0))
        kind = labels.type
        negative = False if pa.types.is_boolean(kind) else 0 if pa.types.is_integer(kind) else None
        if negative is None:
            return labels
        return pc.if_else(pa.array(is_mature & (found < 0)), pa.scalar(negative, kind), labels)

    def _differs(self, rows: Int64Array, groups: Int64Array) -> BoolArray:
        """(K - 1,) whether a row has another value than the row before, which is of the same event."""
        places = self._places[rows]
        is_other: BoolArray = (groups[1:] == groups[:-1]) & (places[1:] != places[:-1])
        return is_other

    def _refuse(self, row: int, what: str, remedy: str) -> None:
        source = self._events.source
        raise InvalidRequest(
            f'labels "{self._name}" of {self._events.name(row)} in source "{source.name}" {what}',
            hint=f"correct the table, or write {remedy}",
        )


def counts_text(counts: LabelCounts, spec: LabelSourceSpec, immature: str) -> str:
    """What a screen says of label rows."""
    what = "left out" if immature == "drop" else "marked"
    return (
        f"labels {counts.source} as of {moment_text(counts.as_of_ms)}: "
        f"{counts.given:,} events of {counts.read:,} rows; "
        f"{counts.immature:,} events not mature ({format_duration(spec.matures_after_ms)}) {what}, "
        f"{counts.unknown:,} rows not known yet, {counts.unnamed:,} rows without key or time, "
        f"{counts.conflicting:,} events with conflicting labels ({spec.on_conflict})"
    )


def moment_text(moment_ms: int) -> str:
    """As `--labels-as-of` takes it."""
    return str(np.datetime_as_string(np.datetime64(moment_ms, "ms"), timezone="UTC"))


def places_of(column: pa.Array) -> Int64Array:
    """(N,) place of each value among the distinct ones, ascending; -1 for nulls."""
    values = pc.unique(column.drop_null())
    values = values.take(pc.array_sort_indices(values)) if len(values) else values
    return np.asarray(pc.fill_null(pc.index_in(column, value_set=values), -1).to_numpy(), dtype=np.int64)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """One array, of values themselves."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    column = takeable(column)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _key(source: LabelSourceSpec, table: pa.Table, name: str) -> pa.Array:
    """A join key's column, as texts or integers: what else it could be nobody would look up."""
    column = _plain(table.column(name))
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    try:
        return cast_column(column, Column(name, ValueType.INT64 if is_number else ValueType.STRING))
    except InvalidRequest as error:
        text = f'join key "{name}" of source "{source.name}" is of type {column.type}'
        raise InvalidRequest(text, detail=error.message, hint="make it a text or an integer") from error


def _read(source: LabelSourceSpec, repo_path: Path | None) -> pa.Table:
    """The declared columns."""
    dataset = open_dataset(located(source.table, repo_path))
    columns: Sequence[str] = (
        *(*source.join_keys, *source.labels),
        *(source.table.timestamp_column, source.table.created_column),
    )
    for name in columns:
        if name not in dataset.schema.names:
            text = f'the table of source "{source.name}" at "{source.table.path}" has no column "{name}"'
            raise InvalidRequest(text, hint=suggest(name, dataset.schema.names))
    try:
        return dataset.to_table(columns=list(columns))
    except (OSError, pa.ArrowInvalid) as error:
        raise Unavailable(f'the table of source "{source.name}" cannot be read', detail=str(error)) from error
