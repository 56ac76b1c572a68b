"""What there is: every source, view, feature and service of a registry, whose it is and what it means.

registry ─compile─> specs ───────────┐
─authored_in─> for people ──┴─> Item, one each ─> list, search, describe
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from featurestore.core.spec import Column, FeatureSpec, PlainViewSpec, RepoSpec, ViewSpec
from featurestore.core.windows.durations import duration_words, format_duration
from featurestore.definitions.compile.meaning import feature_sentence, window_words
from featurestore.definitions.governance.about import DEPRECATED_UNTIL_TAG, About, about_feature, about_of
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest
from featurestore.wire.feast.authors import Authored, AuthoredField, authored_in

SOURCE, VIEW, FEATURE, SERVICE = "source", "view", "feature", "service"
LAST_DAY = "deprecated until"
"""What a view or feature is when its owner has announced its end."""

KINDS = (SOURCE, VIEW, FEATURE, SERVICE)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of a registry.

    Attributes:
        kind: of KINDS.
        name: of a feature, "view:feature".
        about: what its author says of it.
        meaning: what it is, in one sentence made of its definition.
        facts: name -> text, for people: keys, source, type, window ...
        parts: names of the features of a view or service.
    """

    kind: str
    name: str
    about: About
    meaning: str
    facts: dict[str, str]
    parts: tuple[str, ...] = ()


def catalog_of(spec: RepoSpec, registry: bytes) -> list[Item]:
    """Everything of a project, in the order of KINDS and by name.

    Args:
        spec: it, compiled.
        registry: the serialized feast.core.Registry that it was compiled from.
    """
    authored = {(_kind_of(one), one.name): one for one in authored_in(registry, spec.project)}
    read_by = _readers(spec)
    items = [*_sources(spec, authored), *_views(spec, authored, read_by), *_services(spec, authored)]
    return sorted(items, key=lambda item: KINDS.index(item.kind))  # features stay in their view's order


def search_items(items: Sequence[Item], words: Sequence[str]) -> list[Item]:
    """Those of which every word is said somewhere; those that are called so come first.

    Args:
        items: the catalog.
        words: in any case.
    """
    wanted = [word.casefold() for text in words for word in text.split()]

    def rank(item: Item) -> tuple[int, int]:
        name = item.name.casefold()
        return -sum(word in name for word in wanted), KINDS.index(item.kind)

    found = [item for item in items if all(word in _said(item) for word in wanted)]
    return sorted(found, key=rank)


def item_called(items: Sequence[Item], name: str) -> Item:
    """The item of a name: a view or service, a source, or a feature as "view:feature" or alone.

    Raises:
        InvalidRequest: there is none, or a feature's name alone is that of several.
    """
    by_kind = sorted(items, key=lambda item: (VIEW, SERVICE, SOURCE, FEATURE).index(item.kind))
    for item in by_kind:
        if item.name == name:
            return item
    found = [item for item in items if item.kind == FEATURE and item.name.partition(":")[2] == name]
    if len(found) > 1:
        hint = f"write one of {', '.join(item.name for item in found)}"
        raise InvalidRequest(f'"{name}" is a feature of {len(found)} views', hint=hint)
    if not found:
        known = [item.name for item in items] + [item.name.partition(":")[2] for item in items if item.kind == FEATURE]
        raise InvalidRequest(f'nothing is called "{name}"', hint=suggest(name, known))
    return found[0]


def _said(item: Item) -> str:
    """All that is said of an item, to be searched."""
    one = item.about
    texts = (item.kind, item.name, one.owner, one.on_call, one.description, one.use_case, item.meaning)
    return " ".join((*texts, *item.facts.values())).casefold()


def _kind_of(authored: Authored) -> str:
    """Of KINDS."""
    return {SOURCE: SOURCE, "feature service": SERVICE}.get(authored.kind, VIEW)


def _readers(spec: RepoSpec) -> dict[str, list[str]]:
    """View -> the services and on-demand views that read it."""
    found = dict[str, list[str]]()
    for service in spec.services:
        for view in dict.fromkeys(one.view for one in service.features):
            found.setdefault(view, []).append(service.name)
    for on_demand in spec.on_demand_views:
        for view in dict.fromkeys(one.view for one in on_demand.inputs):
            found.setdefault(view, []).append(on_demand.name)
    return found


def _sources(spec: RepoSpec, authored: dict[tuple[str, str], Authored]) -> Iterator[Item]:
    """Sources that some view reads, and those of labels."""
    specs = {view.source.name: view.source for view in spec.views}
    tables = {view.table.source: view.table for view in spec.plain_views if view.table}
    for name in sorted({*specs, *tables}):
        said = authored.get((SOURCE, name), Authored(SOURCE, name))
        readers = [view.name for view in spec.views if view.source.name == name]
        readers += [view.name for view in spec.plain_views if view.table and view.table.source == name]
        facts = {"read by": ", ".join(readers)}
        if name in specs:
            expected = [one for one in spec.expectations if one.source == name]
            facts["columns"] = _typed(specs[name].columns)
            facts["expected"] = "; ".join(f"{one.condition} ({one.on_fail})" for one in expected)
            meaning = f"{specs[name].format} records of topic {', '.join(specs[name].topics)}"
        else:
            meaning = f"table of kind {tables[name].kind}"
        yield Item(SOURCE, name, about_of(said), meaning, _given(facts))
    for one in spec.label_sources:
        said = authored.get((SOURCE, one.name), Authored(SOURCE, one.name))
        facts = {"keys": ", ".join(one.join_keys), "labels": ", ".join(one.labels), "table": one.table.path}
        facts |= {"event time": one.table.timestamp_column, "known at": one.table.created_column}
        facts |= {"mature after": duration_words(one.matures_after_ms), "on conflict": one.on_conflict}
        yield Item(SOURCE, one.name, about_of(said), f"labels: {', '.join(one.labels)}", _given(facts))


def _views(spec: RepoSpec, authored: dict[tuple[str, str], Authored], read_by: dict[str, list[str]]) -> Iterator[Item]:
    """Views of all kinds, and their features behind each."""
    views: tuple[ViewSpec | PlainViewSpec, ...] = (*spec.views, *spec.plain_views)
    for view in views:
        said = authored.get((VIEW, view.name), Authored("feature view", view.name))
        facts = {"keys": _typed(view.join_keys), "read by": ", ".join(read_by.get(view.name, ()))}
        facts[LAST_DAY] = said.tags.get(DEPRECATED_UNTIL_TAG, "")
        if isinstance(view, ViewSpec):
            windowed = {one.name: one for one in view.features}
            answers, source, meaning = view.answers, view.source.name, f"computed from the stream {view.source.name}"
            expected = [one for one in spec.expectations if one.source == source]
            facts["expected"] = "; ".join(f"{one.condition} ({one.on_fail})" for one in expected)
            facts["kept for"] = "ever" if view.retention_ms is None else duration_words(view.retention_ms)
        else:
            windowed, answers, source = {}, view.features, view.table.source if view.table else ""
            meaning = "materialized by Feast"
        item = Item(VIEW, view.name, about_of(said), meaning, _given({"source": source, **facts}))
        features = [
            _feature(view.name, one, feature_sentence(view, one.name), said, windowed.get(one.name)) for one in answers
        ]
        yield replace(item, parts=tuple(feature.name for feature in features))
        yield from features
    for on_demand in spec.on_demand_views:
        said = authored.get((VIEW, on_demand.name), Authored("on-demand feature view", on_demand.name))
        inputs = ", ".join(f"{one.view}:{one.feature}" for one in on_demand.inputs)
        facts = {"keys": _typed(on_demand.join_keys), "request": _typed(on_demand.request_columns), "reads": inputs}
        facts["read by"] = ", ".join(read_by.get(on_demand.name, ()))
        features = [
            _feature(on_demand.name, Column(one.name, one.type), _on_demand_sentence(one.expression), said, None)
            for one in on_demand.features
        ]
        names = tuple(feature.name for feature in features)
        yield Item(VIEW, on_demand.name, about_of(said), "computed when it is asked for", _given(facts), names)
        yield from features


def _on_demand_sentence(expression: str) -> str:
    return f"{expression}, computed when it is asked for" if expression else "computed by a Python function"


def _feature(view: str, column: Column, meaning: str, said: Authored, windowed: FeatureSpec | None) -> Item:
    """One feature of a view."""
    of_field = said.fields.get(column.name, AuthoredField()).tags
    facts = {
        "type": str(column.type),
        LAST_DAY: of_field.get(DEPRECATED_UNTIL_TAG) or said.tags.get(DEPRECATED_UNTIL_TAG, ""),
    }
    if windowed is not None:
        window = windowed.window
        facts["window"], _, edge = window_words(window).partition(", exact ")
        facts["hop"] = format_duration(window.hop_ms) if window.length_ms is not None else ""
        facts["exactness"] = edge or "exact"
        facts["only where"] = windowed.where
    return Item(FEATURE, f"{view}:{column.name}", about_feature(said, column.name), meaning, _given(facts))


def _services(spec: RepoSpec, authored: dict[tuple[str, str], Authored]) -> Iterator[Item]:
    """Services that are served here."""
    for service in spec.services:
        said = authored.get((SERVICE, service.name), Authored("feature service", service.name))
        views = ", ".join(dict.fromkeys(one.view for one in service.features))
        facts = {"keys": _typed(service.join_keys), "views": views, "shadow": service.shadow}
        parts = tuple(f"{one.view}:{one.feature}" for one in service.features)
        yield Item(SERVICE, service.name, about_of(said), f"{len(parts)} features", _given(facts), parts)


def _typed(columns: Sequence[Column]) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in columns)


def _given(facts: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in facts.items() if text}
