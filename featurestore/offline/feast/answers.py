"""Answers for the label rows of a Feast call, block by block: windowed views computed, plain views joined.

    windowed   groups of views that can share one pass over the histories ──TrainingSet──> columns
    plain      table with its past ──newest row at or before the label time──────────────> columns

Views share a pass unless they have the same name (aliases of one view) or name their join keys differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
from feast.data_source import DataSource

from featurestore.core.inputs import refuse_enriched, view_inputs
from featurestore.core.spec import Column, PlainViewSpec, RepoSpec, SourceSpec, ViewSpec
from featurestore.errors import InvalidRequest
from featurestore.offline.feast.histories import BatchTable, HistoryPlaces, StreamHistories
from featurestore.offline.feast.request import AskedView, EntityRows, milliseconds, moment
from featurestore.offline.feast.tables import Span, Tables, WantedColumns
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES, cast_column
from featurestore.offline.training_set.build import OUTPUT_ROWS, ProgressReport, TrainingSet
from featurestore.offline.training_set.plain_join import PlainHistory, newest_rows
from featurestore.offline.training_set.plan import TrainingSetPlan, plan_training_set
from featurestore.offline.training_set.view_events import reach_of
from featurestore.wire.moments import EVENT_TIME_MS_MIN


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """Everything that answers depend on.

    Attributes:
        views: whose features are asked for.
        names: of the features, in the order of the answer.
        rows: label rows.
        history: the streams' events; kept, so that all answers are of the same events.
        tables: reads the tables of plain views.
        memory_bytes: memory that events may take.
    """

    views: Sequence[AskedView]
    names: Sequence[str]
    rows: EntityRows
    history: StreamHistories
    tables: Tables
    memory_bytes: int


def stream_histories(
    views: Sequence[AskedView], places: HistoryPlaces, tables: Tables, span: tuple[datetime, datetime] | None
) -> StreamHistories:
    """Events of the windowed ones among some views.

    Args:
        views: whose events.
        places: where they are.
        tables: reads batch sources.
        span: first and last label time; None without any.
    """
    wanted: dict[str, BatchTable] = {}
    for view in views:
        if isinstance(view.spec, ViewSpec):
            refuse_enriched([view.spec], "Feast's offline store", "use `featurestore history`, which does")
            name, mine = view.spec.source.name, _batch_table(view.table.batch_source, view.spec, span)
            wanted[name] = mine | wanted[name] if name in wanted else mine
    return StreamHistories(places, wanted, tables)


def _batch_table(source: DataSource | None, view: ViewSpec, span: tuple[datetime, datetime] | None) -> BatchTable:
    """What a view wants of its stream's batch source."""
    columns = {*view_inputs(view).payload_columns, *(key.name for key in view.join_keys)}
    if view.source.event_id_column is not None:
        columns.add(view.source.event_id_column)
    if span is None:
        return BatchTable(source, frozenset(columns), Span())
    reach = reach_of(view, milliseconds(span[0]), milliseconds(span[1]))
    since = None if reach.from_ms == EVENT_TIME_MS_MIN else moment(reach.from_ms)
    return BatchTable(source, frozenset(columns), Span(since, span[1]))


def answer_blocks(request: HistoryRequest, report: ProgressReport) -> Iterator[pa.Table]:
    """Label rows with their features, in order; at least one block.

    Raises:
        InvalidRequest, Unavailable: as `build_training_set`.
    """
    groups = _groups(request.views)
    with ExitStack() as opened:
        computed = []
        for group in groups:
            plan = _plan(group, request.rows)
            share = request.memory_bytes // len(groups)
            answers = TrainingSet(plan, request.history, {}, memory_bytes=share, progress=report)
            computed.append((group, opened.enter_context(answers).blocks()))
        joined = [
            (view, _join(view, request))
            for view in request.views
            if isinstance(view.spec, PlainViewSpec) and view.features
        ]  # whole columns, so that each table is read once
        count = request.rows.labels.count
        for begin in range(0, max(count, 1), OUTPUT_ROWS):
            found = request.rows.table.slice(begin, OUTPUT_ROWS)
            columns: dict[str, pa.ChunkedArray] = {}
            for group, blocks in computed:
                block = next(blocks)
                for view in group:
                    for feature, name in zip(view.features, view.names, strict=True):
                        columns[name] = block.column(f"{view.spec.name}__{feature}")
            for view, table in joined:
                piece = table.slice(begin, OUTPUT_ROWS)
                columns.update(zip(view.names, piece.columns, strict=True))
            for name in request.names:
                found = found.append_column(name, columns[name])
            yield found


def _groups(views: Sequence[AskedView]) -> list[list[AskedView]]:
    """Windowed views that are computed together."""
    groups: list[list[AskedView]] = []
    for view in views:
        if isinstance(view.spec, ViewSpec) and view.features:
            fitting = (group for group in groups if _fits(view, group))
            group = next(fitting, None)
            if group is None:
                groups.append([view])
            else:
                group.append(view)
    return groups


def _fits(view: AskedView, group: Sequence[AskedView]) -> bool:
    """Whether a view can share a pass over the histories with others."""
    sources = {source.name: source for source in map(_source_of, group)}
    mine = _source_of(view)
    is_its_source = sources.get(mine.name, mine) == mine
    is_new = view.spec.name not in {other.spec.name for other in group}
    return is_its_source and is_new and view.join_key_map == group[0].join_key_map


def _source_of(view: AskedView) -> SourceSpec:
    assert isinstance(view.spec, ViewSpec), "plain views have tables"
    return view.spec.source


def _plan(group: Sequence[AskedView], rows: EntityRows) -> TrainingSetPlan:
    """What a group asks of the engine; its names are "view__feature", distinct whatever the answer calls them."""
    specs = tuple(view.spec for view in group if isinstance(view.spec, ViewSpec))
    labels = rows.labels_of(*group)
    return plan_training_set(
        RepoSpec("", specs, (), ()),
        [f"{view.spec.name}:{feature}" for view in group for feature in view.features],
        labels.table,
        timestamp_column=rows.timestamp_column,
        full_names=True,
        event_sources=labels.event_sources,
    )


def _join(view: AskedView, request: HistoryRequest) -> pa.Table:
    """Features of a plain view for all rows, by Feast's rule (see plain_join)."""
    spec = view.spec
    assert isinstance(spec, PlainViewSpec), "windowed views are computed"
    history = plain_history(view, request.tables, request.rows.until)
    found = newest_rows(spec, list(view.features), request.rows.labels_of(view), history)
    types = {column.name: column for column in spec.features}
    return pa.table(
        [_declared(found.column(feature), types.get(feature)) for feature in view.features], names=list(view.names)
    )


def _declared(array: pa.ChunkedArray, column: Column | None) -> pa.ChunkedArray:
    """Values in the type that the view declares; types that only Feast knows stay the table's."""
    return array if column is None or array.type == ARROW_TYPES[column.type] else cast_column(array, column)


def plain_history(view: AskedView, tables: Tables, until: datetime | None) -> PlainHistory:
    """The table behind a plain view.

    Raises:
        InvalidRequest: the view has none, or nothing is configured that reads it.
    """
    source = view.table.batch_source
    if source is None:
        raise InvalidRequest(f'feature view "{view.spec.name}" has no batch source', hint="declare one")
    stored = {name: column for column, name in source.field_mapping.items()}
    created = source.created_timestamp_column or None
    wanted = WantedColumns(
        [stored.get(key.name, key.name) for key in view.spec.join_keys],
        [stored.get(name, name) for name in view.features],
        stored.get(source.timestamp_field, source.timestamp_field),
        None if created is None else stored.get(created, created),
    )
    rows = tables.read(source, wanted, Span(until=until))
    return PlainHistory(rows, source.timestamp_field, created, source.field_mapping)
