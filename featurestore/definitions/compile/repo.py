"""Compile a registered repo: every mistake at once, and frozen specs of everything that has none.

    RegisteredRepo --entities--> join keys --views--> ViewSpec | PlainViewSpec --services--> ServiceSpec

A mistake is something that would compute a wrong value or none. What is right in Feast but not served here (a
join-key mapping, say) is a note: the stock Feast SDK still serves it. A view or service with a mistake is left out of
the specs, and what refers to it is not blamed for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from featurestore.core.spec import (
    Column,
    Expectation,
    FreshnessPromise,
    OnDemandViewSpec,
    PlainViewSpec,
    RepoSpec,
    ServiceSpec,
    SourceSpec,
    TableSpec,
    UsualHours,
    ValueType,
    ViewSpec,
    default_hop_ms,
)
from featurestore.core.windows.durations import format_duration
from featurestore.definitions import limits
from featurestore.definitions.compile.expectations import expectations_of, usual_hours_of
from featurestore.definitions.compile.on_demand import KIND as ON_DEMAND
from featurestore.definitions.compile.on_demand import compile_on_demand_view
from featurestore.definitions.compile.service import Servable, ServiceCompiler, check_shadows
from featurestore.definitions.compile.source import EVENT_LOG_COLUMNS
from featurestore.definitions.compile.source.labels import compile_labels
from featurestore.definitions.compile.types import VALUE_TYPES, join_keys_of
from featurestore.definitions.compile.unhandled import why_not_computed, why_not_keyed
from featurestore.definitions.compile.versions import compile_versions
from featurestore.definitions.compile.view import compile_stream_view, promise_of
from featurestore.definitions.compile.window import HOP_TAG, has_unsaid_hop
from featurestore.definitions.problems import Place, Problem, ProblemList
from featurestore.errors import DefinitionError
from featurestore.wire.feast.registry import RegisteredEntity, RegisteredRepo, RegisteredTable, RegisteredView

NANOSECONDS_PER_MS = 1_000_000

Named = TypeVar("Named", ViewSpec, PlainViewSpec, ServiceSpec, OnDemandViewSpec)


@dataclass(frozen=True, slots=True)
class Compilation:
    """What came out of a repo.

    Attributes:
        spec: everything without a mistake.
        problems: the mistakes, in the registry's order.
        notes: what Feast serves and this system does not, and what may be meant otherwise, one sentence each.
        unserved: service name -> why it is not in `spec` although it is no mistake.
    """

    spec: RepoSpec
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    unserved: Mapping[str, str]

    def require_sound(self) -> RepoSpec:
        """The spec of a repo without mistakes.

        Raises:
            DefinitionError: there are mistakes; it carries all of them.
        """
        if self.problems:
            count = len(self.problems)
            raise DefinitionError(
                f'project "{self.spec.project}" has {count} {"problem" if count == 1 else "problems"}',
                problems=tuple(str(problem) for problem in self.problems),
                hint="change the feature repo and run `featurestore plan` again",
            )
        return self.spec


def compile_repo(registered: RegisteredRepo) -> Compilation:
    """Compile one project; never raises for what an author wrote.

    Cost: linear in features; about 20 us each.
    """
    problems, notes = ProblemList(), list[str]()
    entities = {entity.name: entity for entity in registered.entities}
    _check_names(registered, problems)
    _check_sizes(registered, problems)

    views: list[ViewSpec] = []
    servables: dict[str, Servable] = {}
    for view in registered.stream_views:
        if not view.online:
            servables[view.name] = Servable.unserved("is not online")
        elif view.aggregations and (reason := why_not_computed(view, entities)):
            servables[view.name] = Servable.unserved(reason)
            notes.append(f'feature view "{view.name}" is computed neither online nor in history: it {reason}')
        elif view.aggregations:
            spec = compile_stream_view(view, entities, problems)
            servables[view.name] = Servable.of_view(spec) if spec else Servable.broken()
            views += [spec] if spec else []

    plain_views: list[PlainViewSpec] = []
    for view in (*registered.plain_views, *(view for view in registered.stream_views if not view.aggregations)):
        if not view.online:
            servables[view.name] = Servable.unserved("is not online")
            continue
        if reason := why_not_keyed(view, entities):
            servables[view.name] = Servable.unserved(reason)
            notes.append(f'feature view "{view.name}" is served neither online nor in history: it {reason}')
            continue
        if problems.add_mistake(Place("feature view", view.name), view.tags):
            servables[view.name] = Servable.broken()
            continue
        plain, unreadable = _plain_view(view, entities, problems, notes)
        servables[view.name] = Servable.of_plain_view(plain, unreadable) if plain else Servable.broken()
        plain_views += [plain] if plain else []

    on_demand_views = _on_demand_views(registered, [*views, *plain_views], servables, problems, notes)
    _check_sources(views, problems)
    notes.extend(_log_clashes(views))
    notes.extend(_unsaid_hops(registered, {view.name for view in views}))
    pinned, versions = compile_versions(registered, entities, views, servables, problems)
    compiler = ServiceCompiler({**servables, **versions}, problems)
    services: list[ServiceSpec] = []
    unserved: dict[str, str] = {}
    for registered_service in registered.services:
        outcome = compiler.compile(registered_service)
        if isinstance(outcome, ServiceSpec):
            services.append(outcome)
        elif outcome:
            unserved[registered_service.name] = outcome
            notes.append(f'feature service "{registered_service.name}" is served by the Feast SDK only: {outcome}')
    why = {service.name: unserved.get(service.name, "") for service in registered.services}
    check_shadows(services, why, on_demand_views, problems)
    named = (_by_name(views), _by_name(plain_views), _by_name(services))
    expected = _expectations(registered, views, problems)
    promises = _promises(registered, {view.name for view in views}, problems)
    labels = (compile_labels(tags, _table(table), problems) for table, tags in registered.labels)
    repo = RepoSpec(
        *(registered.project, *named, on_demand_views, tuple(pinned), *expected),
        promises=promises,
        label_sources=tuple(one for one in labels if one is not None),
    )
    return Compilation(repo, tuple(problems.found), tuple(notes), unserved)


def _on_demand_views(
    registered: RegisteredRepo,
    views: Collection[ViewSpec | PlainViewSpec],
    servables: dict[str, Servable],
    problems: ProblemList,
    notes: list[str],
) -> tuple[OnDemandViewSpec, ...]:
    """The on-demand views, added to what services may ask for."""
    known, found = {view.name: view for view in views}, list[OnDemandViewSpec]()
    read = dict(servables)
    for view in registered.on_demand_views:
        outcome = compile_on_demand_view(view, known, read, problems)
        if isinstance(outcome, OnDemandViewSpec):
            servables[view.name] = Servable.of_on_demand_view(outcome)
            found.append(outcome)
            notes += _on_demand_notes(outcome)
        else:
            servables[view.name] = Servable.unserved(outcome) if outcome else Servable.broken()
    return _by_name(found)


def _on_demand_notes(view: OnDemandViewSpec) -> list[str]:
    """What of a view is not the same everywhere."""
    place = Place(ON_DEMAND, view.name)
    if view.function is not None:
        return [
            f"{place} is a Python function: the Feast SDK computes it, and a server that is started with "
            "--python-features; any other answers NOT_READY for its features. SQL (request_features) is computed by all"
        ]
    if not view.is_sql:
        return [f"{place} is computed by the Feast SDK only: a server answers NOT_READY for its features"]
    notes = []
    twice = [name for name, count in Counter(read.feature for read in view.inputs).items() if count > 1]
    if twice:
        notes.append(
            f'{place} reads a feature "{twice[0]}" of two views: the Feast SDK tells them apart only where it is asked '
            "for full feature names; give one of the views a prefix"
        )
    types = {read.type for read in view.inputs} | {column.type for column in view.request_columns}
    if ValueType.TIMESTAMP in types:
        notes.append(f"{place} reads times: Feast has them in whole seconds, so the SDK computes with seconds")
    return notes


def _by_name(specs: list[Named]) -> tuple[Named, ...]:
    """Sorted by name: Feast's own order depends on what was applied when."""
    return tuple(sorted(specs, key=lambda spec: spec.name))


def _plain_view(
    view: RegisteredView, entities: Mapping[str, RegisteredEntity], problems: ProblemList, notes: list[str]
) -> tuple[PlainViewSpec | None, frozenset[str]]:
    """The spec (None when the view has a mistake) and the fields whose type is not served."""
    place = Place("feature view", view.name)
    join_keys = join_keys_of(view, entities, place, problems)
    if join_keys is None:
        return None, frozenset()
    key_names = {column.name for column in join_keys}
    fields = [field for field in view.fields if field.name not in key_names]
    unreadable = frozenset(field.name for field in fields if field.value_type not in VALUE_TYPES)
    notes.extend(
        f"{place.of(field.name)} is served by the Feast SDK only: it is of type {field.value_type}"
        for field in fields
        if field.name in unreadable
    )
    columns = tuple(Column(f.name, VALUE_TYPES[f.value_type]) for f in fields if f.name not in unreadable)
    ttl_ms = view.ttl_ns // NANOSECONDS_PER_MS
    table = None if view.table is None else _table(view.table)
    return PlainViewSpec(view.name, join_keys, columns, ttl_ms or None, table), unreadable


def _table(table: RegisteredTable) -> TableSpec:
    """What a plain view is materialized from; only history asks, so nothing about it is a mistake here."""
    return TableSpec(
        source=table.name,
        kind=table.kind.removeprefix("BATCH_").lower(),
        path=table.uri,
        # Feast reads files without a format as Parquet.
        format=table.format.removesuffix("_format") or ("parquet" if table.uri else ""),
        timestamp_column=table.timestamp_field,
        created_column=table.created_field,
        renamed=tuple(sorted(table.field_mapping.items())),
        endpoint=table.endpoint,
    )


def _check_names(registered: RegisteredRepo, problems: ProblemList) -> None:
    """Views of all kinds share one name space; a name must fit the store's keys."""
    view_names = [view.name for view in (*registered.stream_views, *registered.plain_views)]
    view_names += [view.name for view in registered.on_demand_views]
    service_names = [service.name for service in registered.services]
    for kind, names in (("feature view", view_names), ("feature service", service_names)):
        for name, count in Counter(names).items():
            place = Place(kind, name)
            if count > 1:
                problems.add(place, f"the name is used by {count} of them", "rename all but one")
            if kind == "feature service" and len(name) > limits.NAME_LENGTH_MAX:
                problems.add(place, f"the name is longer than {limits.NAME_LENGTH_MAX} characters", "shorten it")


def _check_sizes(registered: RegisteredRepo, problems: ProblemList) -> None:
    view_count = len(registered.stream_views) + len(registered.plain_views)
    for what, count, maximum in (
        ("feature views", view_count, limits.VIEWS_MAX),
        ("feature services", len(registered.services), limits.SERVICES_MAX),
    ):
        if count > maximum:
            place = Place("project", registered.project)
            problems.add(place, f"it has {count} {what}, at most {maximum} are supported", "split the project")


def _log_clashes(views: list[ViewSpec]) -> list[str]:
    """Sources that cannot be logged; what needs no history is served all the same."""
    sources = {view.source.name: view.source for view in views}
    return [
        f"{Place('source', name)} cannot have an event log, and `featurestore event-log run` stops at it: column "
        f'"{column.name}" has the name of a column of the log; rename it, for instance by field_mapping'
        for name, source in sorted(sources.items())
        for column in source.columns
        if column.name in EVENT_LOG_COLUMNS and not _is_event_time_ms(column, source)
    ]


def _unsaid_hops(registered: RegisteredRepo, served: Collection[str]) -> list[str]:
    """Plain Aggregations of which nobody can tell whether their author wanted a hop of the whole window; one a view."""
    notes = []
    for view in registered.stream_views:
        if view.name not in served:
            continue
        tags = {field.name: field.tags for field in view.fields}
        unsaid = [one for one in view.aggregations if has_unsaid_hop(one, tags.get(one.resolved_name, {}))]
        if unsaid:
            length_ms = (unsaid[0].window_ns or 0) // NANOSECONDS_PER_MS
            length, hop = format_duration(length_ms), format_duration(default_hop_ms(length_ms))
            place = Place("feature view", view.name, unsaid[0].resolved_name)
            others = f" and {len(unsaid) - 1} more" if len(unsaid) > 1 else ""
            notes.append(
                f"{place}{others}: slide_interval is as long as time_window, as Feast writes it where it was left out, "
                f'so the hop is the default; write slide_interval={hop}, or the Field\'s tag "{HOP_TAG}": "{length}"'
            )
    return notes


def _is_event_time_ms(column: Column, source: SourceSpec) -> bool:
    """The log's own event_time_ms is this column already."""
    return column.name == source.event_time_column == "event_time_ms" and column.type is ValueType.INT64


def _expectations(
    registered: RegisteredRepo, views: list[ViewSpec], problems: ProblemList
) -> tuple[tuple[Expectation, ...], tuple[UsualHours, ...]]:
    """What is expected of the records and of the hours of all sources; copies of a source must agree in it."""
    specs = {view.name: view.source for view in views}
    found: dict[str, tuple[tuple[Expectation, ...], tuple[UsualHours, ...]]] = {}
    for view in registered.stream_views:
        if view.name not in specs or view.source is None:
            continue
        name, place = view.source.name, Place("source", view.source.name)
        tags = view.source.tags
        expected = (
            expectations_of(tags, specs[view.name], place, problems),
            usual_hours_of(tags, name, place, problems),
        )
        if found.setdefault(name, expected) != expected:
            fact = f'feature view "{view.name}" sees it with other expectations than other views do'
            problems.add(place, fact, "apply the repo as a whole, so that all views get the same source")
    by_source = [of_source for _, of_source in sorted(found.items())]
    return (
        tuple(one for records, _ in by_source for one in records),
        tuple(one for _, hours in by_source for one in hours),
    )


def _promises(
    registered: RegisteredRepo, computed: Collection[str], problems: ProblemList
) -> tuple[FreshnessPromise, ...]:
    """What is promised of the freshness of stream views, by name."""
    found = (
        promise_of(view.tags, view.name, Place("feature view", view.name), problems)
        for view in sorted(registered.stream_views, key=lambda view: view.name)
        if view.name in computed
    )
    return tuple(one for one in found if one is not None)


def _check_sources(views: list[ViewSpec], problems: ProblemList) -> None:
    """Views embed copies of their source; copies of one name must agree, since the stream is read once for all."""
    first: dict[str, SourceSpec] = {}
    for view in views:
        known = first.setdefault(view.source.name, view.source)
        if known != view.source:
            problems.add(
                Place("source", view.source.name),
                f'feature view "{view.name}" sees it with other columns, tags or address than other views do',
                "apply the repo as a whole, so that all views get the same source",
            )
