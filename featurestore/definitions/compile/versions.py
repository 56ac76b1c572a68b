"""Versions of stream views that services ask for by number: what the view was when it was applied so.

    FeatureService("fraud_v1", features=["card_activity@v1"])       pins version 1, whatever card_activity is by now
    FeatureService("fraud_v2", features=[card_activity])            follows the newest

Feast numbers every apply of a view and keeps what it was. A pinned version is a view of its own to whoever computes: it
is named "card_activity@v1" and has the hash of that definition. It is stored under its hash instead of its number, as
Feast gives many numbers to one definition, and stored once whoever pins it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from featurestore.core.spec import PinnedView, RepoSpec, SourceSpec, ViewSpec
from featurestore.definitions.compile.service import Servable
from featurestore.definitions.compile.unhandled import why_not_computed
from featurestore.definitions.compile.view import compile_stream_view
from featurestore.definitions.problems import ProblemList
from featurestore.wire.codecs.view_json import base_name, definition_hash
from featurestore.wire.feast.registry import RegisteredEntity, RegisteredRepo

HASH_DIGITS_IN_NAME = 8


def stored_views(repo: RepoSpec) -> tuple[ViewSpec, ...]:
    """All that is to be stored: the registered views, and versions that are pinned and of another definition."""
    current = {(view.name, definition_hash(view)) for view in repo.views}
    pinned = {
        stored_name(one.view): replace(one.view, name=stored_name(one.view))
        for one in repo.pinned
        if (base_name(one.view.name), definition_hash(one.view)) not in current
    }
    return (*repo.views, *(pinned[name] for name in sorted(pinned)))


def stored_name(view: ViewSpec) -> str:
    """The name under which a version is stored, such as "card_activity@9f3a12bc"."""
    return f"{base_name(view.name)}@{definition_hash(view)[:HASH_DIGITS_IN_NAME]}"


def stored_as(repo: RepoSpec, name: str) -> str:
    """What a view or a pinned version ("card_activity@v2") is stored as; the name itself where that is not pinned."""
    names = {one.view.name: stored_name(one.view) for one in repo.pinned}
    if name not in names:
        return name
    return names[name] if names[name] in {view.name for view in stored_views(repo)} else base_name(name)


def compile_versions(
    registered: RegisteredRepo,
    entities: Mapping[str, RegisteredEntity],
    views: Sequence[ViewSpec],
    servables: Mapping[str, Servable],
    problems: ProblemList,
) -> tuple[list[PinnedView], dict[str, Servable]]:
    """The versions that services ask for, and what services need to know of each, by its name.

    Args:
        registered: the project, with the versions.
        entities: its entities, by name.
        views: stream views as they are now.
        servables: every view as it is now.
        problems: where mistakes go.
    """
    sources = {view.source.name: view.source for view in views}
    stream_views = {view.name for view in registered.stream_views if view.aggregations}
    asked: dict[tuple[str, int], list[str]] = {}
    for service in registered.services:
        for projection in service.projections:
            if projection.version is not None and projection.view in stream_views:
                asked.setdefault((projection.view, projection.version), []).append(service.name)
    pinned, found = [], {}
    for (name, number), services in sorted(asked.items()):
        title, version = f"{name}@v{number}", registered.versions.get((name, number))
        if version is None:
            found[title] = Servable.unserved(f"is pinned to version {number}, which was never applied")
        elif not servables[name].reason and (reason := why_not_computed(version, entities)):
            found[title] = Servable.unserved(reason)
        elif servables[name].reason:
            found[title] = servables[name]
        else:
            spec = compile_stream_view(replace(version, name=title), entities, problems)
            found[title] = Servable.of_view(spec) if spec else Servable.broken()
            if spec is not None:
                spec = replace(spec, source=_where_it_is_now(spec.source, sources))
                pinned.append(PinnedView(spec, tuple(sorted(set(services)))))
    return pinned, found


def _where_it_is_now(source: SourceSpec, now: Mapping[str, SourceSpec]) -> SourceSpec:
    """A version's source at today's address: brokers move, and a version would go on asking those of its time."""
    current = now.get(source.name)
    if current is None:
        return source
    return replace(
        source,
        bootstrap_servers=current.bootstrap_servers,
        format=current.format,
        schema_registry=current.schema_registry,
        subject_name=current.subject_name,
        records=current.records,
    )
