"""One answered row, recounted: the very events of its entities, and what its features come to over them.

    event log ── events of the row's entities ──> kept in memory, as they are few
                                                   ├─ over all of them                        "recomputed"
                                                   ├─ over those below the row's positions    "at its positions"
                                                   └─ parity's verdict on what was answered   equal, arrived later ...

It is a parity check of a single row, which reads the log once and also shows what it has read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.core.events import ColumnValues
from featurestore.core.inputs import python_values, refuse_enriched, view_inputs
from featurestore.core.spec import Column, RepoSpec, SourceSpec, ViewSpec
from featurestore.offline.parity.check import check_parity
from featurestore.offline.parity.checking.on_demand import OnDemandRows
from featurestore.offline.parity.feature_log import AS_OF_MS, LoggedFeature, LogLayout
from featurestore.offline.parity.feature_log_json import LoggedMessage, message_rows
from featurestore.offline.parity.reads import (
    AS_OF,
    PinnedEventLogs,
    ReadPositions,
    ServedReads,
    recompute_at_reads,
    rows_of_view,
    times_array,
)
from featurestore.offline.parity.report import FeatureName, ParityReport, ValueOutcome
from featurestore.offline.parity.values import value_at
from featurestore.offline.training_set.arrow_columns import column_values
from featurestore.offline.training_set.build import MEMORY_BYTES_DEFAULT, build_training_set
from featurestore.offline.training_set.entity_numbers import EntityNumbers
from featurestore.offline.training_set.histories import EVENT_TIME
from featurestore.offline.training_set.view_events import reach_of
from featurestore.wire.codecs.view_json import definition_hash

NOT_ANSWERED = 0
"""Status of a value in a row that was refused."""

_PLACE_COLUMNS = ("topic", "partition", "offset")


@dataclass(frozen=True, slots=True)
class RecountedEvent:
    """An event of an entity in the event log.

    Attributes:
        event_time_ms: when it happened.
        event_id: as text; "" where the source declares none.
        topic, partition, offset: where it was read.
        is_applied: whether it lies below the row's positions: the store had seen it.
        is_repeat: whether an earlier event has its id, so that it does not count.
        columns: what the view reads of it, by column; "where ..." says whether a condition is true.
    """

    event_time_ms: int
    event_id: str
    topic: str
    partition: int
    offset: int
    is_applied: bool
    is_repeat: bool
    columns: Mapping[str, int | float | str | bool | None]


@dataclass(frozen=True, slots=True)
class RecountedFeature:
    """A feature, recounted.

    Attributes:
        recomputed: from all events.
        at_positions: from those that the store had seen.
        verdict: on the value that was answered, for people; "" where none was.
        agrees: whether that value is right for what the store had seen, as far as the event log can tell.
    """

    recomputed: object
    at_positions: object
    verdict: str
    agrees: bool


@dataclass(frozen=True, slots=True)
class Recount:
    """What the event log says about a row.

    Attributes:
        features: by view and feature; of stream views and request-time features that are registered.
        events: by view, those of its entity before the read time that a window may reach, by time.
        other_definitions: views of which another definition answered than is registered now.
        event_logs: address and version of what was read.
    """

    features: Mapping[tuple[str, str], RecountedFeature]
    events: Mapping[str, tuple[RecountedEvent, ...]]
    other_definitions: tuple[str, ...]
    event_logs: Mapping[str, int]


def recount(repo: RepoSpec, message: LoggedMessage, root: str) -> Recount:
    """Recount one row.

    Args:
        repo: the definitions, as registered now.
        message: what was answered, and how far the sources had been read.
        root: of the event logs.

    Raises:
        InvalidRequest: there is no event log of a source.
        Unavailable: it cannot be read now.
    """
    rows = message_rows(message)
    layout = rows.layout
    repo = repo.counting_as(repo.service(layout.service))
    views = [view for one in layout.views if (view := repo.view(one.name)) is not None]
    table = rows.read(layout.schema.names)
    keys = table.select([key.name for key in layout.join_keys])
    refuse_enriched(views, "A recount", "run `featurestore parity`, which does")
    logs = _EntityLogs(root, views, keys, message.as_of_ms)
    report = check_parity(repo, [rows], logs)
    whole: dict[str, pa.ChunkedArray] = {}
    seen: dict[str, pa.ChunkedArray] = {}
    recounted: list[LoggedFeature] = []
    for view in views:
        mine = [one for one in _comparable(layout, view) if _is_compared(report, layout, one)]
        if not mine:
            continue
        names = [one.name for one in mine]
        columns, sources = rows_of_view(layout, table, view)
        positions = ReadPositions.of(table.column(f"__positions__{view.name}"))
        as_of_ms = np.asarray(table.column(AS_OF_MS).to_numpy(), dtype=np.int64)
        reads = ServedReads(columns, as_of_ms, positions, sources)
        over_all = _over_all(repo, view, names, reads, logs)
        at_reads = recompute_at_reads(view, names, reads, logs, memory_bytes=MEMORY_BYTES_DEFAULT)
        whole |= {one.column: over_all.column(f"{view.name}__{one.name}") for one in mine}
        seen |= {one.column: at_reads.column(one.name) for one in mine}
        recounted += mine
    computed = OnDemandRows(repo, layout, table)
    for feature in filter(computed.knows, layout.features):
        values = (computed.answer(feature, columns) for columns in (whole, seen))
        whole[feature.column], seen[feature.column] = values
        recounted.append(feature)
    hashes = {one.name: one.definition_hash for one in layout.views}
    return Recount(
        {
            (one.view, one.name): _recounted(message, report, layout, one, whole[one.column], seen[one.column])
            for one in recounted
        },
        {view.name: logs.events_of(view, message.views[view.name].positions or ()) for view in views},
        tuple(view.name for view in views if hashes[view.name] != definition_hash(view)),
        logs.versions_read(),
    )


def _recounted(
    message: LoggedMessage,
    report: ParityReport,
    layout: LogLayout,
    feature: LoggedFeature,
    whole: pa.ChunkedArray,
    seen: pa.ChunkedArray,
) -> RecountedFeature:
    """A feature, with the verdict on what was answered, if it was."""
    (outcome,) = report.outcomes[FeatureName(layout.service, feature.view, feature.name)]
    is_answered = message.views[feature.view].features[feature.name].status != NOT_ANSWERED
    return RecountedFeature(
        value_at(whole, 0), value_at(seen, 0), outcome.text if is_answered else "", is_answered and outcome.agrees
    )


def _is_compared(report: ParityReport, layout: LogLayout, feature: LoggedFeature) -> bool:
    """Whether the log has what the feature, as it is registered now, reads of the payment in flight."""
    (outcome,) = report.outcomes[FeatureName(layout.service, feature.view, feature.name)]
    return outcome is not ValueOutcome.EVENT_NOT_LOGGED


def _comparable(layout: LogLayout, view: ViewSpec) -> list[LoggedFeature]:
    """Features of a view that were asked for and are registered as they were answered."""
    return [one for one in layout.features if one.view == view.name and Column(one.name, one.type) in view.answers]


def _over_all(
    repo: RepoSpec, view: ViewSpec, names: Sequence[str], reads: ServedReads, logs: PinnedEventLogs
) -> pa.Table:
    """Features of a view from all events of its entity, however late they came."""
    labels = reads.keys.append_column(AS_OF, times_array(reads.as_of_ms))
    wanted = [f"{view.name}:{name}" for name in names]
    return build_training_set(
        repo,
        wanted,
        labels,
        history=logs,
        timestamp_column=AS_OF,
        full_names=True,
        event_sources=reads.event_sources,
    )


class _EntityLogs(PinnedEventLogs):
    """The event logs as far as they are about a row's entities: each is scanned once, and what is found is kept.

    Args:
        root: of the event logs.
        views: those that are asked for.
        keys: one row of join keys.
        as_of_ms: the read time: no later event matters.
    """

    def __init__(self, root: str, views: Sequence[ViewSpec], keys: pa.Table, as_of_ms: int) -> None:
        super().__init__(root)
        self._views, self._keys, self._as_of_ms = views, keys, as_of_ms
        self._found: dict[str, pa.Table] = {}

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """See `History`; events of other entities are left out."""
        names = list(dict.fromkeys([*(name for name in columns if name != EVENT_TIME), EVENT_TIME]))
        return iter(self.found(source).select(names).to_batches())

    def found(self, source: SourceSpec) -> pa.Table:
        """All that a view of the source can want of the row's entities, in order of arrival."""
        if source.name not in self._found:
            views = [view for view in self._views if view.source.name == source.name]
            names = [name for view in views for name in view_inputs(view).payload_columns]
            names += [key.name for view in views for key in view.join_keys]
            names += [source.id_column.name] if source.id_column is not None else []
            reaches = [reach_of(view, self._as_of_ms, self._as_of_ms) for view in views]
            kept = []
            numbers = [self._numbers(view) for view in views]
            for batch in super().scan(
                source,
                list(dict.fromkeys([*names, *_PLACE_COLUMNS])),
                from_ms=min(reach.from_ms for reach in reaches),
                to_ms=self._as_of_ms,
            ):
                is_asked = np.any([one.of_events(batch) >= 0 for one in numbers], axis=0)
                is_asked &= np.asarray(batch.column(EVENT_TIME).to_numpy()) < self._as_of_ms
                kept.append(batch.take(pa.array(np.flatnonzero(is_asked))))
            self._found[source.name] = pa.Table.from_batches(kept) if kept else self._nothing(source, names)
        return self._found[source.name]

    def events_of(self, view: ViewSpec, positions: Sequence[tuple[str, int, int]]) -> tuple[RecountedEvent, ...]:
        """Events of one view, by time; those of equal times in order of arrival."""
        table = self.found(view.source)
        table = table.filter(pa.array(self._numbers(view).of_events(table) >= 0)).combine_chunks()
        inputs, count = view_inputs(view), table.num_rows
        columns: dict[str, ColumnValues] = {}
        for name in inputs.payload_columns:
            columns[name] = column_values(_whole(table, name), inputs.column(name))
        inputs.compute(columns, count)
        is_its = inputs.selected(columns, count)
        shown = {each.name: python_values(columns[each.name], each.type) for each in inputs.event_columns}
        ids = _texts(table, view.source.id_column)
        next_offset = {(topic, partition): offset for topic, partition, offset in positions}
        seen, events = set[str](), []
        topics, partitions, offsets = (table.column(name).to_pylist() for name in _PLACE_COLUMNS)
        times = table.column(EVENT_TIME).to_pylist()
        for row in range(count):
            if is_its is not None and not is_its[row]:
                continue
            events.append(
                RecountedEvent(
                    times[row],
                    ids[row],
                    topics[row],
                    partitions[row],
                    offsets[row],
                    offsets[row] < next_offset.get((topics[row], partitions[row]), 0),
                    bool(ids[row]) and ids[row] in seen,
                    {name: values[row] for name, values in shown.items()},
                )
            )
            seen.add(ids[row])
        return tuple(sorted(events, key=lambda event: event.event_time_ms))

    def _numbers(self, view: ViewSpec) -> EntityNumbers:
        """Tells the events of the row's entity from others."""
        columns = {key.name: self._keys.column(key.name) for key in view.join_keys}
        return EntityNumbers(view.join_keys, columns, row_count=1)

    def _nothing(self, source: SourceSpec, names: Sequence[str]) -> pa.Table:
        """No rows, of the log's columns."""
        schema = self.log(source).schema
        fields = [schema.field(name) for name in dict.fromkeys([*names, *_PLACE_COLUMNS])]
        return pa.schema([*fields, pa.field(EVENT_TIME, pa.int64())]).empty_table()


def _whole(table: pa.Table, name: str) -> pa.Array:
    """A column as one array."""
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], type=column.type)


def _texts(table: pa.Table, column: Column | None) -> list[str]:
    """Event ids as texts, "" where there is none."""
    if column is None:
        return [""] * table.num_rows
    return ["" if value is None else str(value) for value in table.column(column.name).to_pylist()]
