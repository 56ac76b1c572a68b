"""What a training set asks for: features by view, their names in the output, and label rows as moments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.expressions import Expression
from featurestore.core.lowering.request_time import compiled_feature
from featurestore.core.spec import Column, FeatureReference, PlainViewSpec, RepoSpec, ViewSpec
from featurestore.core.view import CompiledView
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest, UnknownFeatureService, UnknownJoinKey
from featurestore.offline.training_set.arrow_columns import cast_column, column_values, takeable, values_array
from featurestore.offline.training_set.label_times import check_moment, label_moments_ms

_BETWEEN = ":"
"""Between view and feature in the name of a column that is only read: no feature is called like that."""

PANDAS_INDEX = "__index_level_"
"""What pandas calls the column of an index without a name."""


class SupportsArrowStream(Protocol):
    """A table that gives its rows as a stream of Arrow: a data frame of pandas or Polars, a relation of DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A capsule with the stream."""
        ...


@dataclass(frozen=True, slots=True)
class ViewOutputs:
    """Features of one view.

    Attributes:
        view: the view; a stream view has only the features that are asked for, and those that they are derived from.
        features: index of each feature among the view's answers (a stream view) or features (a plain one).
        columns: name in the output and type of each.
    """

    view: ViewSpec | PlainViewSpec
    features: tuple[int, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class OnDemandOutput:
    """A feature that is computed behind the views.

    Attributes:
        column: name in the output, and type.
        expression: what it is.
        reads: for each name in it that is a feature, the column with its values.
        request: columns of the labels that it reads.
    """

    column: Column
    expression: Expression
    reads: Mapping[str, Column]
    request: tuple[Column, ...]

    def answer(self, features: Mapping[str, pa.ChunkedArray], labels: pa.Table) -> pa.ChunkedArray:
        """Its values for some rows.

        Args:
            features: of the rows, by name.
            labels: the rows.

        Raises:
            InvalidRequest: a column of the labels is of another type.
        """
        columns = {name: column_values(_joined(features[each.name]), each) for name, each in self.reads.items()}
        columns |= {each.name: column_values(_joined(labels.column(each.name)), each) for each in self.request}
        found = self.expression.evaluate(columns, labels.num_rows).storable()
        return pa.chunked_array([values_array(found, self.column.type)])


@dataclass(frozen=True, slots=True)
class Labels:
    """The rows to compute features for.

    Attributes:
        table: as given; its rows and columns come back as they are.
        as_of_ms: (R,) read time of each row.
        is_timed: (R,) False where the label time is null.
        timestamp_column: where the times came from; None for a single moment.
        event_sources: names of sources of which each row is an event, which its own features count.
    """

    table: pa.Table
    as_of_ms: Int64Array
    is_timed: BoolArray
    timestamp_column: str | None
    event_sources: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """R."""
        return int(self.table.num_rows)


@dataclass(frozen=True, slots=True)
class TrainingSetPlan:
    """Everything that is asked.

    Attributes:
        views: in order of first use.
        names: of all output columns, in answer order.
        labels: the rows.
        on_demand: what is computed from features of the views, some of which are read for it alone, and from columns of
            the labels.
    """

    views: tuple[ViewOutputs, ...]
    names: tuple[str, ...]
    labels: Labels
    on_demand: tuple[OnDemandOutput, ...] = ()


def plan_training_set(
    repo: RepoSpec,
    features: str | Sequence[str],
    entities: pa.Table | SupportsArrowStream,
    *,
    timestamp_column: str = "event_timestamp",
    at_ms: int | None = None,
    full_names: bool = False,
    event_sources: Sequence[str] = (),
) -> TrainingSetPlan:
    """Resolve names, check columns, read label times.

    Args:
        repo: the definitions.
        features: name of a feature service, or "view:feature" texts.
        entities: R rows with the join keys of all views, and label times; any other columns. An Arrow table, or a data
            frame of pandas or Polars, or whatever else gives its rows as a stream of Arrow.
        timestamp_column: the label times' column; not looked at when `at_ms` is given.
        at_ms: one moment for all rows instead, milliseconds UTC.
        full_names: call every feature "view__feature", as Feast's full_feature_names.
        event_sources: names of sources of which each row is an event, at its label time.

    Raises:
        UnknownFeatureService: no service or view of that name.
        UnknownJoinKey: the entities lack a join key.
        InvalidRequest: anything else that is wrong with the request.
    """
    entities = _as_table(entities)
    references = _references(repo, features)
    repo = repo.counting_as(repo.service(features)) if isinstance(features, str) else repo
    _check_computed(repo, references)
    names = [f"{one.view}__{one.feature}" if full_names else one.output_name for one in references]
    clash = sorted(set(names) & set(entities.column_names))
    if clash:
        raise InvalidRequest(
            f'feature "{clash[0]}" has the name of a column of the entities',
            hint="rename the column, or ask for full names",
        )
    twice = [name for name, count in Counter(entities.column_names).items() if count > 1]
    if twice:
        uses = entities.column_names.count(twice[0])
        raise InvalidRequest(f'the entities have {uses} columns "{twice[0]}"', hint="rename all but one")
    stored = [pair for pair in zip(references, names, strict=True) if repo.on_demand_view(pair[0].view) is None]
    computed = [_on_demand(repo, *pair, entities, stored) for pair in zip(references, names, strict=True)]
    views = []
    for view_name in dict.fromkeys(reference.view for reference, _ in stored):
        view = repo.view(view_name) or repo.plain_view(view_name)
        assert view is not None, "references are resolved"
        answers = view.answers if isinstance(view, ViewSpec) else view.features
        index = {column.name: at for at, column in enumerate(answers)}
        chosen = [pair for pair in stored if pair[0].view == view_name]
        places = tuple(index[reference.feature] for reference, _ in chosen)
        columns = tuple(Column(name, answers[at].type) for (_, name), at in zip(chosen, places, strict=True))
        _check_join_keys(view, entities)
        views.append(asked_part(ViewOutputs(view, places, columns)))
    on_demand = tuple(one for one in computed if one is not None)
    labels = _labels(entities, timestamp_column, at_ms)
    if event_sources:
        _check_event_sources(event_sources, [one.view for one in views], at_ms)
        labels = replace(labels, event_sources=tuple(sorted(set(event_sources))))
    return TrainingSetPlan(tuple(views), tuple(names), labels, on_demand)


def _check_event_sources(names: Sequence[str], views: Sequence[ViewSpec | PlainViewSpec], at_ms: int | None) -> None:
    """Rows can be events of what is read, each at its own time."""
    known = [view.source.name for view in views if isinstance(view, ViewSpec)]
    for name in names:
        if name not in known:
            raise InvalidRequest(
                f'no feature that is asked for reads source "{name}"', hint=suggest(name, sorted(set(known)))
            )
    if at_ms is not None:
        raise InvalidRequest(
            "the rows are events, and one moment is given for all of them",
            hint="name the column with the times of the events instead",
        )


def _check_computed(repo: RepoSpec, references: Sequence[FeatureReference]) -> None:
    """History computes SQL; what a function of an author's makes is for Feast's SDK."""
    for view_name in dict.fromkeys(reference.view for reference in references):
        view = repo.on_demand_view(view_name)
        if view is not None and not view.is_sql:
            raise InvalidRequest(
                f'on-demand view "{view_name}" is no SQL, and is not computed here',
                hint="write it as SQL (request_features), or ask the Feast SDK: get_historical_features",
            )


def _on_demand(
    repo: RepoSpec,
    reference: FeatureReference,
    name: str,
    entities: pa.Table,
    stored: list[tuple[FeatureReference, str]],
) -> OnDemandOutput | None:
    """How to compute a feature of an on-demand view, None for others; what it reads is added to what is stored."""
    view = repo.on_demand_view(reference.view)
    if view is None:
        return None
    feature = next(feature for feature in view.features if feature.name == reference.feature)
    compiled = compiled_feature(view, feature)
    inputs, known = {read.name: read for read in view.inputs}, {(one.view, one.feature): at for one, at in stored}
    reads: dict[str, Column] = {}
    for read in (inputs[each] for each in compiled.inputs):
        column = known.get((read.view, read.feature))
        if column is None:
            column = f"{read.view}{_BETWEEN}{read.feature}"
            stored.append((FeatureReference(read.view, read.feature, column), column))
        reads[read.name] = Column(column, read.type)
    request = tuple(column for column in view.request_columns if column.name in compiled.request)
    for column_read in request:
        if column_read.name not in entities.column_names:
            raise InvalidRequest(
                f'the entities have no column "{column_read.name}", which feature "{name}" reads of the request',
                hint=suggest(column_read.name, entities.column_names),
            )
        cast_column(pa.array([], type=entities.schema.field(column_read.name).type), column_read)
    return OnDemandOutput(Column(name, feature.type), compiled.expression, reads, request)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    """One array of the chunks."""
    return column.chunk(0) if column.num_chunks == 1 else takeable(column).combine_chunks()


def _as_table(entities: object) -> pa.Table:
    """An Arrow table; of pandas, Polars and whatever else says what it holds as Arrow does."""
    if isinstance(entities, pa.Table):
        return entities
    if not hasattr(entities, "__arrow_c_stream__"):
        raise InvalidRequest(
            f"the entities are a {type(entities).__name__}, not a table",
            hint="give a pyarrow.Table, or a data frame of pandas or Polars",
        )
    try:
        table = pa.RecordBatchReader.from_stream(entities).read_all()
    except (pa.ArrowException, ValueError) as error:
        hint = "give its columns one type each, or a pyarrow.Table"
        raise InvalidRequest("the entities make no Arrow table", detail=str(error), hint=hint) from error
    # A nameless index of pandas, such as that of some rows of a frame, is no column of the author's.
    return table.drop_columns([name for name in table.column_names if name.startswith(PANDAS_INDEX)])


def asked_part(outputs: ViewOutputs) -> ViewOutputs:
    """Without what nobody asks for: its columns need not be read, nor events as old as its windows."""
    view = outputs.view
    if not isinstance(view, ViewSpec):
        return outputs
    chosen = CompiledView(view).lowered.choose(outputs.features)
    if not chosen.features:
        return outputs
    derived = sorted({at - len(view.features) for at in outputs.features if at >= len(view.features)})
    part = replace(
        view,
        features=tuple(fields.feature for fields in chosen.features),
        derived=tuple(view.derived[at] for at in derived),
    )
    return ViewOutputs(part, tuple(chosen.outputs), outputs.columns)


def _references(repo: RepoSpec, features: str | Sequence[str]) -> list[FeatureReference]:
    """The features in answer order."""
    if isinstance(features, str):
        service = repo.service(features)
        if service is None:
            known = [one.name for one in repo.services]
            raise UnknownFeatureService(
                f'feature service "{features}" is not registered', hint=suggest(features, known)
            )
        return list(service.features)
    pairs = [_parse_reference(repo, text) for text in features]
    uses = Counter(feature for _, feature in pairs)
    for (view, feature), count in Counter(pairs).items():
        if count > 1:
            raise InvalidRequest(f'feature "{view}:{feature}" is asked for {count} times', hint="ask for it once")
    return [
        FeatureReference(view, feature, feature if uses[feature] == 1 else f"{view}__{feature}")
        for view, feature in pairs
    ]


def _parse_reference(repo: RepoSpec, text: str) -> tuple[str, str]:
    """View and feature of "view:feature"."""
    view_name, colon, feature = text.partition(":")
    if not colon:
        raise InvalidRequest(f'"{text}" is not "view:feature"')
    columns = repo.columns_of(view_name)
    if columns is None:
        known = [*(one.name for one in repo.views), *(one.name for one in repo.plain_views)]
        known += [one.name for one in repo.on_demand_views]
        raise UnknownFeatureService(f'feature view "{view_name}" is not registered', hint=suggest(view_name, known))
    names = [column.name for column in columns]
    if feature not in names:
        raise InvalidRequest(f'feature view "{view_name}" has no feature "{feature}"', hint=suggest(feature, names))
    return view_name, feature


def _check_join_keys(view: ViewSpec | PlainViewSpec, entities: pa.Table) -> None:
    """Every join key must be a column."""
    for key in view.join_keys:
        if key.name not in entities.column_names:
            raise UnknownJoinKey(
                f'the entities have no column "{key.name}", a join key of feature view "{view.name}"',
                hint=suggest(key.name, entities.column_names),
            )


def _labels(entities: pa.Table, timestamp_column: str, at_ms: int | None) -> Labels:
    """The rows with their moments."""
    if at_ms is not None:
        check_moment(at_ms)
        every = np.full(entities.num_rows, at_ms, dtype=np.int64)
        return Labels(entities, every, np.ones(entities.num_rows, dtype=np.bool_), None)
    if timestamp_column not in entities.column_names:
        raise InvalidRequest(
            f'the entities have no column "{timestamp_column}" with label times',
            hint="name the column, or give one moment for all rows",
        )
    as_of_ms, is_timed = label_moments_ms(entities.column(timestamp_column), timestamp_column)
    return Labels(entities, as_of_ms, is_timed, timestamp_column)
