"""What an apply would change: two compiled repos compared by definition hash, and what else is written.

Feast's own plan compares objects that never come back equal from its registry, so it always claims an update. Here a
view computes something else exactly when its hash is another one; what is written beside that, such as descriptions
and on-demand views, is compared as texts that `written` makes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from featurestore.core.aggregations.parameters import parse_over
from featurestore.core.spec import (
    Column,
    ComputedColumn,
    FeatureSpec,
    PlainViewSpec,
    RepoSpec,
    ServiceSpec,
    SourceSpec,
    TableSpec,
    ViewSpec,
    Window,
)
from featurestore.core.windows.durations import format_duration
from featurestore.definitions.compile.repo import Compilation
from featurestore.definitions.registry import compile_registry, find_registry_bytes
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.feast.registry import projects_of

SHORT_HASH_LENGTH = 8

_KINDS = (
    "project",
    "entity",
    "data source",
    "feature view",
    "plain feature view",
    "on-demand feature view",
    "label view",
    "feature service",
    "permission",
)
"""Kinds of objects, in a plan's order."""

_INFERRED = frozenset({"timestamp_field", "created_timestamp_column"})
"""What Feast finds out by itself where no author wrote it."""

_TOLD = re.compile(
    r"^. (aggregations\[|entities:|ttl:|timestamp_field:|(batch|stream)_source:|tags\.(lookback|where|undo):"
    r"|features\[[^]]*\]\.(value_type|feature_columns|tags\.(window|hop|offset|series|timezone|gap|session_max|where"
    r"|expression)))"
)
"""Lines that say again what a compiled object's own details say."""

Described = ViewSpec | PlainViewSpec | ServiceSpec
Named = TypeVar("Named", ViewSpec, PlainViewSpec, ServiceSpec)


class Action(enum.StrEnum):
    """What happens to an object."""

    ADD = "+"
    CHANGE = "~"
    REMOVE = "-"


@dataclass(frozen=True, slots=True)
class Change:
    """One object that an apply touches.

    Attributes:
        action: what happens to it.
        kind: "feature view", "plain feature view", "feature service", or what `written` has beside these.
        name: its name.
        summary: a few words, such as "39 features" or "new generation 1f3a...".
        details: one line each.
        owner: who answers for it, as it will be, or was; "" where nobody says.
    """

    action: Action
    kind: str
    name: str
    summary: str
    details: tuple[str, ...] = ()
    owner: str = ""

    def as_record(self) -> dict[str, object]:
        """What happens to what, for programs."""
        told = {"kind": self.kind, "name": self.name, "summary": self.summary, "details": list(self.details)}
        return {"action": self.action.name.lower(), **told}


@dataclass(frozen=True, slots=True)
class Plan:
    """All changes, views first; `unchanged` counts the objects that stay as they are."""

    project: str
    changes: tuple[Change, ...]
    unchanged: int

    @property
    def is_empty(self) -> bool:
        """Whether an apply would change nothing."""
        return not self.changes


@dataclass(frozen=True, slots=True)
class WrittenObject:
    """An object as a registry holds it: a few words, and path -> text of everything that an author wrote of it."""

    summary: str
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Written:
    """All objects of a project by kind and name, as they are registered and as an apply would write them."""

    before: Mapping[tuple[str, str], WrittenObject] = field(default_factory=dict)
    after: Mapping[tuple[str, str], WrittenObject] = field(default_factory=dict)


def compare(before: RepoSpec, after: RepoSpec, written: Written | None = None) -> Plan:
    """The changes that lead from one repo to another.

    Args:
        before: what is registered.
        after: what would be.
        written: the same as it is written; without it only what is computed here is compared.
    """
    written = written or Written()
    known_plain = _as_written(before.plain_views, after.plain_views)
    groups = (
        _differences("feature view", before.views, after.views, _view_identity, _view_summary, _view_details),
        _differences(
            "plain feature view", known_plain, after.plain_views, _plain_identity, _plain_summary, _plain_details
        ),
        _differences("feature service", before.services, after.services, repr, _service_summary, _service_details),
    )
    computed = {(kind, name): change for group in groups for (kind, name), change in group.items()}
    project = ("project", after.project)
    names = {**computed, **dict.fromkeys(written.before), **dict.fromkeys(written.after)}
    changes: list[Change] = []
    unchanged = 0
    for key in sorted(names, key=lambda key: (_KINDS.index(key[0]), key[1])):
        change = _all_of(key, computed.get(key), written.before.get(key), written.after.get(key))
        if change is not None and (known := written.after.get(key) or written.before.get(key)):
            change = replace(change, owner=known.texts.get("owner", ""))
        if key == project and (change is None or change.action is not Action.CHANGE):
            continue  # the plan's head names it
        changes += [change] if change else []
        unchanged += not change
    return Plan(after.project, tuple(changes), unchanged)


def _all_of(
    key: tuple[str, str], computed: Change | None, before: WrittenObject | None, after: WrittenObject | None
) -> Change | None:
    """What changes of an object: what it computes, and whatever else is written of it."""
    kind, name = key
    if before is None or after is None:
        if computed is not None or before is after:
            return computed
        only, action = (after, Action.ADD) if after else (before, Action.REMOVE)
        assert only is not None
        return Change(action, kind, name, only.summary)
    lines = differing_lines(before, after)
    if computed is None:
        return Change(Action.CHANGE, kind, name, "stored values stay", tuple(lines)) if lines else None
    if computed.action is Action.REMOVE:
        return Change(Action.CHANGE, kind, name, "served by the Feast SDK only from now on", tuple(lines))
    if computed.action is Action.ADD:
        return Change(Action.CHANGE, kind, name, f"{computed.summary}; not served here before", tuple(lines))
    more = [line for line in lines if not _TOLD.search(line)]
    return replace(computed, details=(*computed.details, *more))


def differing_lines(before: WrittenObject, after: WrittenObject) -> list[str]:
    """What is written otherwise; nothing of what Feast finds out by itself."""
    return _name_lines("", before.texts, after.texts, skipped=_INFERRED - after.texts.keys())


def render(plan: Plan) -> str:
    """The plan as text, one line an object and indented lines for what changes within it."""
    if plan.is_empty:
        return f'project "{plan.project}": nothing to change, {plan.unchanged} definitions are as registered'
    lines = [f'project "{plan.project}"']
    width = max(len(change.kind) for change in plan.changes)
    for change in plan.changes:
        owner = f"; owner {change.owner}" if change.owner else ""
        lines.append(f"  {change.action} {change.kind:<{width}}  {change.name}  ({change.summary}{owner})")
        lines += [f"      {detail}" for detail in change.details]
    counts = {action: sum(change.action is action for change in plan.changes) for action in Action}
    lines.append(
        f"{counts[Action.ADD]} to add, {counts[Action.CHANGE]} to change, {counts[Action.REMOVE]} to remove, "
        f"{plan.unchanged} unchanged"
    )
    return "\n".join(lines)


def registered_or_empty(registry: str | Path, project: str) -> RepoSpec:
    """What is registered now; nothing where there is no registry or no such project yet.

    What was registered with mistakes (by the stock `feast apply`, say) was never computed, so it counts as absent.
    """
    return compiled_or_empty(find_registry_bytes(registry), project)


def compiled_or_empty(content: bytes | None, project: str) -> RepoSpec:
    """As `registered_or_empty`, of a serialized feast.core.Registry."""
    if content is None or project not in projects_of(content):
        return RepoSpec(project, (), (), ())
    compilation: Compilation = compile_registry(content, project=project)
    return compilation.spec


def _differences(
    kind: str,
    before: Sequence[Named],
    after: Sequence[Named],
    identity: Callable[[Named], str],
    summary: Callable[[Named], str],
    details: Callable[[Named, Named], tuple[str, ...]],
) -> dict[tuple[str, str], Change | None]:
    """Changes of one kind by name; None where nothing changes."""
    old: dict[str, Named] = {each.name: each for each in before}
    new: dict[str, Named] = {each.name: each for each in after}
    changes = dict[tuple[str, str], Change | None]()
    for name in sorted({*old, *new}):
        change = None
        if name not in old:
            change = Change(Action.ADD, kind, name, summary(new[name]))
        elif name not in new:
            change = Change(Action.REMOVE, kind, name, summary(old[name]))
        elif identity(old[name]) != identity(new[name]):
            text = _effect(old[name], new[name])
            change = Change(Action.CHANGE, kind, name, text, details(old[name], new[name]))
        changes[kind, name] = change
    return changes


def _effect(before: Described, after: Described) -> str:
    """What the change means for stored values."""
    if not isinstance(before, ViewSpec) or not isinstance(after, ViewSpec):
        return "stored values stay"
    was, becomes = (definition_hash(view)[:SHORT_HASH_LENGTH] for view in (before, after))
    if was == becomes:
        return "stored values stay"
    return f"new generation {becomes} beside {was}, which serves until the new one has caught up"


def changed_views(before: Sequence[ViewSpec], after: Sequence[ViewSpec]) -> frozenset[str]:
    """Names of the views that are new or other ones."""
    known = {(view.name, _view_identity(view)) for view in before}
    return frozenset(view.name for view in after if (view.name, _view_identity(view)) not in known)


def _view_identity(view: ViewSpec) -> str:
    # The hash leaves out what does not alter values; an apply of a new address is a change all the same.
    source = view.source
    how = f"{source.bootstrap_servers} {source.format} {source.schema_registry} {_subjects(source)} {source.units}"
    return f"{definition_hash(view)} {how} {_typed(source.columns)} {source.computed}"


def _view_summary(view: ViewSpec) -> str:
    keys = ", ".join(key.name for key in view.join_keys)
    return f"{len(view.answers)} features by {keys} from {view.source.name}"


def _view_details(before: ViewSpec, after: ViewSpec) -> tuple[str, ...]:
    lines = _name_lines("feature", _described(before), _described(after))
    lines += _name_lines("computed column", _computed(before.source.computed), _computed(after.source.computed))
    for what, was, becomes in (
        ("join keys", _typed(before.join_keys), _typed(after.join_keys)),
        ("retention", _duration(before.retention_ms), _duration(after.retention_ms)),
        ("lookback", _duration(before.lookback_ms), _duration(after.lookback_ms)),
        ("its events", before.where or "all", after.where or "all"),
        ("what its source's contract requires", before.required or "nothing", after.required or "nothing"),
        ("undoing events", before.undo or "none", after.undo or "none"),
        *_source_differences(before.source, after.source),
    ):
        if was != becomes:
            lines.append(f"~ {what}: {was} -> {becomes}")
    return tuple(lines)


def _described(view: ViewSpec) -> dict[str, str]:
    """What each feature is, by name."""
    return {feature.name: _describe(feature) for feature in view.features} | _computed(view.derived)


def _computed(columns: tuple[ComputedColumn, ...]) -> dict[str, str]:
    """What each computed column or derived feature is, by name."""
    return {column.name: f"{column.type}: {column.expression}" for column in columns}


def _topics(source: SourceSpec) -> str:
    """Topics of a source and what their fields are called."""
    return "; ".join(
        one.topic + "".join(f", {field} as {column}" for column, field in one.renamed) for one in source.per_topic
    )


def _enriched(source: SourceSpec) -> str:
    """The tables that events get columns from."""
    found = []
    for one in source.enrichments:
        columns = ", ".join(f"{of_table} as {column.name}" for column, of_table in one.columns)
        found.append(f"{one.table} on {one.on} = {one.key.name}: {columns}")
    return "; ".join(found)


def _source_differences(before: SourceSpec, after: SourceSpec) -> tuple[tuple[str, str, str], ...]:
    return (
        ("source", before.name, after.name),
        ("topics", _topics(before), _topics(after)),
        ("source columns", _typed(before.columns), _typed(after.columns)),
        ("enriched from", _enriched(before) or "nothing", _enriched(after) or "nothing"),
        ("event-time column", before.event_time_column, after.event_time_column),
        ("event-time unit", before.event_time_unit, after.event_time_unit),
        ("event-id column", str(before.event_id_column), str(after.event_id_column)),
        ("de-duplication horizon", _duration(before.dedup_horizon_ms), _duration(after.dedup_horizon_ms)),
        ("furthest future", _duration(before.max_future_ms), _duration(after.max_future_ms)),
        ("bootstrap servers", before.bootstrap_servers, after.bootstrap_servers),
        ("format", before.format, after.format),
        ("changes", before.changes or "none", after.changes or "none"),
        ("row-id column", str(before.row_id_column), str(after.row_id_column)),
        ("schema registry", before.schema_registry or "none", after.schema_registry or "none"),
        ("subjects", _subjects(before), _subjects(after)),
        ("units", _units(before), _units(after)),
    )


def _subjects(source: SourceSpec) -> str:
    """What the subjects of a source's schemas are called after."""
    return f"by {source.subject_name}" + "".join(f", {record}" for record in source.records)


def _units(source: SourceSpec) -> str:
    return ", ".join(f"{column} in {unit}" for column, unit in source.units) or "none"


def _as_written(before: Sequence[PlainViewSpec], after: Sequence[PlainViewSpec]) -> list[PlainViewSpec]:
    """Registered views without the time columns that no author named: an apply finds them in the table by itself."""
    unnamed = {view.name for view in after if view.table is not None and not view.table.timestamp_column}
    return [
        replace(view, table=replace(view.table, timestamp_column="")) if view.table and view.name in unnamed else view
        for view in before
    ]


def _plain_identity(view: PlainViewSpec) -> str:
    return repr((view.join_keys, sorted(view.features, key=lambda feature: feature.name), view.ttl_ms, view.table))


def _plain_summary(view: PlainViewSpec) -> str:
    return f"{len(view.features)} features by {', '.join(key.name for key in view.join_keys)}, materialized by Feast"


def _plain_details(before: PlainViewSpec, after: PlainViewSpec) -> tuple[str, ...]:
    old = {feature.name: str(feature.type) for feature in before.features}
    new = {feature.name: str(feature.type) for feature in after.features}
    lines = _name_lines("feature", old, new)
    for what, was, becomes in (
        ("join keys", _typed(before.join_keys), _typed(after.join_keys)),
        ("ttl", _duration(before.ttl_ms), _duration(after.ttl_ms)),
        *zip(_TABLE_PROPERTIES, _table_texts(before.table), _table_texts(after.table), strict=True),
    ):
        if was != becomes:
            lines.append(f"~ {what}: {was} -> {becomes}")
    return tuple(lines)


_TABLE_PROPERTIES = (
    "source",
    "kind of source",
    "path of the table",
    "format of the table",
    "time column of the table",
    "created column of the table",
    "renamed columns of the table",
    "endpoint of the table",
)


def _table_texts(table: TableSpec | None) -> tuple[str, ...]:
    """What a plain view is materialized from, a text for each of _TABLE_PROPERTIES."""
    if table is None:
        return ("none",) * len(_TABLE_PROPERTIES)
    renamed = ", ".join(f"{column} as {name}" for column, name in table.renamed)
    columns = (table.timestamp_column, table.created_column, renamed)
    return tuple(
        text or "none" for text in (table.source, table.kind, table.path, table.format, *columns, table.endpoint)
    )


def _service_summary(service: ServiceSpec) -> str:
    return f"{len(service.features)} features by {', '.join(key.name for key in service.join_keys)}"


def _service_details(before: ServiceSpec, after: ServiceSpec) -> tuple[str, ...]:
    old = {feature.output_name: f"{feature.view}.{feature.feature}" for feature in before.features}
    new = {feature.output_name: f"{feature.view}.{feature.feature}" for feature in after.features}
    lines = _name_lines("feature", old, new)
    if not lines and before.features != after.features:
        lines.append("~ order of the features")
    if before.join_keys != after.join_keys:
        lines.append(f"~ join keys: {_typed(before.join_keys)} -> {_typed(after.join_keys)}")
    if before.shadow != after.shadow:
        lines.append(f"~ shadow: {before.shadow or 'none'} -> {after.shadow or 'none'}")
    return tuple(lines)


def _name_lines(kind: str, old: Mapping[str, str], new: Mapping[str, str], skipped: Collection[str] = ()) -> list[str]:
    """Added, removed and changed names, in that order."""
    what = f"{kind} " if kind else ""
    lines = [f"+ {what}{name}: {new[name]}" for name in new if name not in old]
    lines += [f"- {what}{name}: {old[name]}" for name in old if name not in new and name not in skipped]
    lines += [f"~ {what}{name}: {old[name]} -> {new[name]}" for name in new if name in old and old[name] != new[name]]
    return lines


def _describe(feature: FeatureSpec) -> str:
    """Such as: sum(amount) where is_declined over 1h, hop 1m, int64."""
    window = feature.window
    function, newest = parse_over(feature.function)
    what = f"{function}({feature.column or '*'})" + (f" where {feature.where}" if feature.where else "")
    what += f" over last_events({newest})" if newest else ""
    return f"{what} over {_window_text(window)}, {feature.type}"


def _window_text(window: Window) -> str:
    """Such as: 1h, hop 1m | today in Europe/Berlin | session, gap 30m, at most 1d | 24 times 1h, hop 1m."""
    if window.length_ms is None:
        return "lifetime"
    if window.calendar is not None:
        return f"{window.calendar.value} in {window.timezone}"
    length, hop = format_duration(window.length_ms), format_duration(window.hop_ms)
    if window.gap_ms:
        return f"session, gap {format_duration(window.gap_ms)}, at most {length}"
    times = f"{window.series} times " if window.series else ""
    offset = f", offset {format_duration(window.offset_ms)}" if window.offset_ms else ""
    return f"{times}{length}, hop {hop}{offset}"


def _typed(columns: Sequence[Column]) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in columns)


def _duration(duration_ms: int | None) -> str:
    return "for ever" if duration_ms is None else format_duration(duration_ms)
