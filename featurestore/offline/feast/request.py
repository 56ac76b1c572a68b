"""What a call of `get_historical_features` asks for: views compiled, features named, label rows as moments.

Feast hands in views with their projections: an alias, chosen features, other names of join keys. Each is compiled
alone, with the registry's entities, by the path of a server's registry; so a training set knows what a lookup knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
from feast import FeatureView, StreamFeatureView
from feast.infra.registry.base_registry import BaseRegistry

from featurestore.core.spec import PlainViewSpec, ViewSpec, counting
from featurestore.definitions.compile.window import IN_FLIGHT_TAG
from featurestore.definitions.problems import suggest
from featurestore.definitions.registry import compile_registry
from featurestore.errors import InvalidRequest, UnknownJoinKey
from featurestore.offline.training_set.label_times import label_moments_ms
from featurestore.offline.training_set.plan import Labels
from featurestore.wire.feast.composing import registry_of_view

EVENT_TIMESTAMP = "event_timestamp"
"""Feast's name of the label times' column."""

INCLUDE_EVENT = "include_event"
"""Column of label rows that are events: the name of their source. Feast hands on the rows, and not the service."""

INCLUDE_EVENT_FOR = "include_event_for"
"""Column of such rows: the name of the feature service whose word holds for features whose authors leave it open."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class AskedView:
    """Features of one projected view.

    Attributes:
        table: Feast's view.
        spec: its definition.
        features: names within the view.
        names: names in the answer, as many.
        join_key_map: join key -> column of the entities, where they differ.
    """

    table: FeatureView
    spec: ViewSpec | PlainViewSpec
    features: tuple[str, ...]
    names: tuple[str, ...]
    join_key_map: Mapping[str, str]

    @property
    def reference_name(self) -> str:
        """What the view is called before the colon of a reference."""
        return _reference_name(self.table)

    def column_of(self, join_key: str) -> str:
        """The entities' column with a join key."""
        return self.join_key_map.get(join_key, join_key)


@dataclass(frozen=True, slots=True)
class EntityRows:
    """Label rows.

    Attributes:
        table: R rows as given.
        labels: their moments.
        index: the data frame's index; None where there was none.
    """

    table: pa.Table
    labels: Labels
    index: pd.Index | None

    @property
    def timestamp_column(self) -> str:
        """Name of the label times' column."""
        assert self.labels.timestamp_column is not None, "Feast's entity rows have times"
        return self.labels.timestamp_column

    def span(self) -> tuple[datetime, datetime] | None:
        """First and last label time; None without any."""
        times_ms = self.labels.as_of_ms[self.labels.is_timed]
        if not len(times_ms):
            return None
        return moment(int(times_ms.min())), moment(int(times_ms.max()))

    @property
    def until(self) -> datetime | None:
        """No row after this moment matters: label times are cut to milliseconds, those of tables are not."""
        span = self.span()
        return None if span is None else span[1] + _MILLISECOND

    def labels_of(self, *views: AskedView) -> Labels:
        """Only what some views need, under their own names of the join keys, the events of their sources among it."""
        columns = {
            key.name: self.table.column(view.column_of(key.name)) for view in views for key in view.spec.join_keys
        }
        sources = {view.spec.source.name: view.spec.source for view in views if isinstance(view.spec, ViewSpec)}
        included = tuple(name for name in self.labels.event_sources if name in sources)
        for name in included:
            for column in sources[name].columns:
                if column.name in self.table.column_names:
                    columns.setdefault(column.name, self.table.column(column.name))
        columns[self.timestamp_column] = self.table.column(self.timestamp_column)
        return replace(self.labels, table=pa.table(columns), event_sources=included)


def asked_views(
    project: str,
    feature_views: Sequence[FeatureView],
    feature_refs: Sequence[str],
    registry: BaseRegistry,
    *,
    full_feature_names: bool,
) -> list[AskedView]:
    """The views of a call.

    Args:
        project: Feast project.
        feature_views: projected views.
        feature_refs: "view:feature", by the names that the projections use; those of on-demand views are passed over.
        registry: knows the entities.
        full_feature_names: call features "view__feature".

    Raises:
        DefinitionError: a view's definition has mistakes.
        InvalidRequest: a view cannot be joined.
    """
    wanted: dict[str, list[str]] = {}
    for reference in dict.fromkeys(feature_refs):
        name, _, feature = reference.partition(":")
        wanted.setdefault(name, []).append(feature)
    found = []
    for table in feature_views:
        name = _reference_name(table)
        keys = set(table.join_keys)
        features = [feature for feature in wanted.get(name, []) if feature not in keys]
        spec = _compile(project, table, registry)
        names = [f"{name}__{feature}" if full_feature_names else feature for feature in features]
        found.append(AskedView(table, spec, tuple(features), tuple(names), dict(table.projection.join_key_map)))
    return found


def _reference_name(table: FeatureView) -> str:
    """A projection's alias or name, with its version if one is asked for."""
    return str(table.projection.name_to_use())  # type: ignore[no-untyped-call]  # Feast declares no types here


def answer_names(views: Sequence[AskedView], feature_refs: Sequence[str]) -> tuple[str, ...]:
    """Names of the features in the order in which they are asked for; those of on-demand views come from Feast."""
    names = {
        f"{view.reference_name}:{feature}": name
        for view in views
        for feature, name in zip(view.features, view.names, strict=True)
    }
    return tuple(names[reference] for reference in dict.fromkeys(feature_refs) if reference in names)


def _compile(project: str, table: FeatureView, registry: BaseRegistry) -> ViewSpec | PlainViewSpec:
    """One view, as the registry would give it."""
    if not isinstance(table, FeatureView):
        raise InvalidRequest(
            f'"{table.name}" is a {type(table).__name__}, of which there is no history here',
            hint="ask for the feature views without it",
        )
    entities = [registry.get_entity(name, project, allow_cache=True).to_proto() for name in table.entities]
    content = registry_of_view(
        project,
        table.to_proto().SerializeToString(),
        [entity.SerializeToString() for entity in entities],
        is_stream=isinstance(table, StreamFeatureView),
    )
    compilation = compile_registry(content, project=project)
    repo = compilation.require_sound()
    spec = repo.view(table.name) or repo.plain_view(table.name)
    if spec is None:
        raise InvalidRequest(compilation.notes[0], hint="ask for the other views without it")
    return spec


def entity_rows(given: object, views: Sequence[AskedView]) -> EntityRows:
    """Label rows of a data frame or an Arrow table.

    Raises:
        UnknownJoinKey: a view's join key is missing.
        InvalidRequest: it is something else, or has no label times, or a column that Arrow cannot hold.
    """
    table, index = _as_table(given)
    column = _timestamp_column(table)
    for view in views:
        for key in view.spec.join_keys:
            if view.column_of(key.name) not in table.column_names:
                raise UnknownJoinKey(
                    f'the entities have no column "{view.column_of(key.name)}", a join key of feature view'
                    f' "{view.spec.name}"',
                    hint=suggest(view.column_of(key.name), table.column_names),
                )
        clash = sorted(set(view.names) & set(table.column_names))
        if clash:
            raise InvalidRequest(
                f'feature "{clash[0]}" has the name of a column of the entities',
                hint="rename the column, or ask with full_feature_names=True",
            )
    as_of_ms, is_timed = label_moments_ms(table.column(column), column)
    return EntityRows(table, Labels(table, as_of_ms, is_timed, column, _event_sources(table, views)), index)


def counted_as_said(
    views: Sequence[AskedView], rows: EntityRows, registry: BaseRegistry, project: str
) -> list[AskedView]:
    """The views as they count the rows' events for the feature service that the rows name, if they name one.

    Raises:
        InvalidRequest: it is not registered, or the rows are no events.
    """
    name = _said_of_all(rows.table, INCLUDE_EVENT_FOR, "rows name one feature service")
    if name is None:
        return list(views)
    if not rows.labels.event_sources:
        raise InvalidRequest(
            f'the entities have a column "{INCLUDE_EVENT_FOR}", and none "{INCLUDE_EVENT}"',
            hint="name the source whose events the rows are, or leave both out",
        )
    services = {one.name: one for one in registry.list_feature_services(project, allow_cache=True)}
    if name not in services:
        raise InvalidRequest(f'feature service "{name}" is not registered', hint=suggest(name, sorted(services)))
    counts = {"true": True, "false": False}.get(services[name].tags.get(IN_FLIGHT_TAG, ""))
    return [
        replace(view, spec=counting(view.spec, counts))
        if isinstance(view.spec, ViewSpec) and counts is not None
        else view
        for view in views
    ]


def _event_sources(table: pa.Table, views: Sequence[AskedView]) -> tuple[str, ...]:
    """The source whose events the rows are, if they say that they are some."""
    said = _said_of_all(table, INCLUDE_EVENT, "rows are events of one source, or none is")
    if said is None:
        return ()
    known = sorted({view.spec.source.name for view in views if isinstance(view.spec, ViewSpec)})
    if said not in known:
        raise InvalidRequest(
            f'the entities are events of source "{said}" by their column "{INCLUDE_EVENT}", and no feature that is'
            " asked for reads it",
            hint=suggest(said, known),
        )
    return (said,)


def _said_of_all(table: pa.Table, column: str, what: str) -> str | None:
    """What a column says of all rows; None without it."""
    if column not in table.column_names or not table.num_rows:
        return None
    said = table.column(column).unique().to_pylist()
    if len(said) > 1 or said == [None]:
        raise InvalidRequest(
            f'the entities\' column "{column}" names {", ".join(map(str, said))}',
            hint=f"all {what}: ask for the others in another call",
        )
    return str(said[0])


def _as_table(given: object) -> tuple[pa.Table, pd.Index | None]:
    """Rows as Arrow, and their index."""
    if isinstance(given, pa.Table):
        return given, None
    if not isinstance(given, pd.DataFrame):
        raise InvalidRequest(
            f"entity_df is a {type(given).__name__}", hint="give a pandas DataFrame, a pyarrow Table or SQL"
        )
    names = [str(name) for name in given.columns]
    if len(set(names)) < len(names):
        raise InvalidRequest("two columns of entity_df have one name", hint="rename one of them")
    try:
        return pa.Table.from_pandas(given, preserve_index=False), given.index
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidRequest(
            "a column of entity_df mixes types", detail=str(error), hint="make each column of one type"
        ) from error


def _timestamp_column(table: pa.Table) -> str:
    """Feast's rule: `event_timestamp`, else the only column of timestamps."""
    if EVENT_TIMESTAMP in table.column_names:
        return EVENT_TIMESTAMP
    timed = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    if len(timed) == 1:
        return str(timed[0])
    raise InvalidRequest(
        f'the entities have no column "{EVENT_TIMESTAMP}", and {len(timed)} columns of timestamps',
        hint=f'call the column with the label times "{EVENT_TIMESTAMP}"',
    )


def milliseconds(when: datetime) -> int:
    """Milliseconds UTC, rounded down; a time without a zone is UTC."""
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MILLISECOND


def moment(time_ms: int) -> datetime:
    """Milliseconds as a UTC time."""
    return _EPOCH + time_ms * _MILLISECOND


def rows_at(keys: pa.Table, as_of_ms: int) -> EntityRows:
    """Entities, all at one moment."""
    moments = np.full(keys.num_rows, as_of_ms, dtype=np.int64)
    column = pa.array(moments).cast(pa.timestamp("ms", tz="UTC"))
    table = keys.append_column(EVENT_TIMESTAMP, column)
    return EntityRows(table, Labels(table, moments, np.ones(len(moments), dtype=np.bool_), EVENT_TIMESTAMP), None)
