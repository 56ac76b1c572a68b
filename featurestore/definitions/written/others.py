"""Several repos in one registry: each applies what is its own, may read what is the others', and touches none of it.

    repo's objects ──tagged "repo"──┬─ registered as another repo's, and the same: it is read, as it is there
                                    ├─ registered as another repo's, and another one: refused by name
                                    └─ its own ─────────────────────┐
    registry ── what other repos own, and is not among these ───────┴─> what would be registered, compiled as a whole

Whose an object is stands in its tag in the registry. Objects of one that has no name are whoever's: a registry with a
single repo needs none of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from featurestore.core.spec import RepoSpec
from featurestore.definitions.changes import Change, Plan, compiled_or_empty, differing_lines
from featurestore.definitions.fast_import import skip_typeguard
from featurestore.definitions.governance.about import DEPRECATED_UNTIL_TAG, REPO_TAG
from featurestore.definitions.problems import Place, Problem
from featurestore.definitions.registry import find_registry_bytes
from featurestore.definitions.repo import LoadedRepo, serialize
from featurestore.definitions.written.plan import KINDS, MORE_ROW_LISTS, objects_of
from featurestore.wire.feast.authors import Authored, AuthoredField, authored_in
from featurestore.wire.feast.registry import DUMMY_ENTITY

with skip_typeguard():
    from feast import FeatureView, OnDemandFeatureView, StreamFeatureView
    from feast.permissions.permission import Permission
    from feast.protos.feast.core.Registry_pb2 import Registry

_CLASSES: Mapping[str, Any] = {
    "feature_views": FeatureView,
    "stream_feature_views": StreamFeatureView,
    "on_demand_feature_views": OnDemandFeatureView,
}


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads a view of another repo.

    Attributes:
        kind, name: what it is.
        repo: whose it is; "" where nobody says.
        features: what it reads, by view.
    """

    kind: str
    name: str
    repo: str
    features: Mapping[str, frozenset[str]]

    def __str__(self) -> str:
        """Such as: feature service "model" of repo "growth"."""
        return f'{self.kind} "{self.name}"' + (f' of repo "{self.repo}"' if self.repo else "")


@dataclass(frozen=True, slots=True)
class SharedRepo:
    """A repo among others.

    Attributes:
        loaded: its objects, each with whose it is, and serialized with what others have registered.
        is_shared: whether others have anything there: an apply must leave that alone.
        problems: what it would change of theirs.
        registered: what is there, serialized; None where nothing is.
        followers: views of others over a source of this repo, which has changed: each has a copy of it.
    """

    loaded: LoadedRepo
    is_shared: bool
    problems: tuple[Problem, ...]
    registered: bytes | None
    followers: tuple[FeatureView, ...] = ()


def among_others(repo: LoadedRepo, registry: str | Path, name: str) -> SharedRepo:
    """A repo as a part of what is registered.

    Args:
        repo: as it was loaded.
        registry: path or URL of the registry.
        name: of the repo, which its objects are tagged with; "" where it is alone.
    """
    content = find_registry_bytes(registry, MORE_ROW_LISTS, Registry())
    known = Registry()
    known.ParseFromString(content or b"")
    owners = {_key(field, spec.name): dict(spec.tags).get(REPO_TAG, "") for field, spec in _specs(known, repo.project)}
    if not name and not any(owners.values()):
        return SharedRepo(repo, False, (), content)
    for field in KINDS:
        objects = getattr(repo.contents, field) if field != "projects" else []
        for at, one in enumerate(objects):
            if owner := owners.get(_key(field, one.name)) or name:
                objects[at] = _tagged(one, {**(one.tags or {}), REPO_TAG: owner})
    views = {
        spec.name: _CLASSES[field].from_proto(message)
        for field, message, spec in _messages(known, repo.project)
        if field in _CLASSES
    }
    mine = Registry()
    mine.ParseFromString(serialize(repo.contents, repo.project, views))
    problems = _taken(repo.project, bytes(mine.SerializeToString()), content, owners, name)
    present = {_key(field, spec.name) for field, spec in _specs(mine, repo.project)}
    sources = {one.name: one for one in mine.data_sources if dict(one.tags).get(REPO_TAG, "") == name}
    followers = list[FeatureView]()
    for field, message, spec in _messages(known, repo.project):
        key = _key(field, spec.name)
        if key not in present and owners[key] != name and spec.name != DUMMY_ENTITY:
            if field == "stream_feature_views" and _follows(spec, sources):
                spec.stream_source.CopyFrom(sources[spec.stream_source.name])
                followers.append(StreamFeatureView.from_proto(message))
            getattr(mine, field).append(message)
    loaded = replace(repo, registry=bytes(mine.SerializeToString()))
    return SharedRepo(loaded, True, problems, content, tuple(followers))


def check_readers(shared: SharedRepo, after: RepoSpec, name: str, today: date) -> tuple[Problem, ...]:
    """What others read and would no longer find, or of another type.

    Args:
        shared: the repo.
        after: what would be registered, compiled.
        name: of the repo.
        today: decides which deprecations are over.
    """
    if not shared.is_shared or shared.registered is None:
        return ()
    before = compiled_or_empty(shared.registered, after.project)
    authored = {one.name: one for one in authored_in(shared.registered, after.project) if one.kind.endswith("view")}
    found = list[Problem]()
    then, now = _answers(before), _answers(after)
    for reader in _readers(before, shared.registered, name):
        for view, features in reader.features.items():
            said = authored.get(view, Authored("feature view", view))
            for feature in sorted(features):
                was, becomes = then.get(view, {}).get(feature), now.get(view, {}).get(feature)
                if was == becomes or said.tags.get(REPO_TAG, "") != name:
                    continue
                place = Place("feature view", view, feature)
                until = _deprecated_until(said, feature)
                what = "is removed" if becomes is None else f"becomes {becomes}, and was {was}"
                fact = f"it {what}, and {reader} reads it"
                if until is None or until >= today:
                    remedy = f'announce it first: tags=about({DEPRECATED_UNTIL_TAG}="{today.year + 1}-01-31")'
                    if until is not None:
                        remedy = f"wait: it is deprecated until {until}"
                    found.append(Problem(place, fact, remedy))
                elif becomes is None:
                    # A registry in which a service asks for what is not there is served by nobody.
                    found.append(Problem(place, fact, "its deprecation is over: ask its reader to let go of it"))
    return tuple(dict.fromkeys(found))


def with_readers(plan: Plan, shared: SharedRepo, name: str) -> Plan:
    """A plan whose changed and removed views say who else reads them."""
    if not shared.is_shared or shared.registered is None:
        return plan
    readers = _readers(compiled_or_empty(shared.registered, plan.project), shared.registered, name)

    def told(change: Change) -> Change:
        mine = [f"read by {reader}" for reader in readers if change.name in reader.features]
        is_view = change.kind.endswith("feature view")
        return replace(change, details=(*change.details, *mine)) if is_view else change

    return replace(plan, changes=tuple(told(change) for change in plan.changes))


def deprecations_read(shared: SharedRepo, after: RepoSpec, name: str) -> list[str]:
    """What this repo reads of others that is going to end, for people."""
    if not shared.is_shared or shared.registered is None:
        return []
    authored = {one.name: one for one in authored_in(shared.registered, after.project) if one.kind.endswith("view")}
    notes = dict[str, None]()
    for service in after.services:
        for one in service.features:
            said = authored.get(one.view)
            if said is None or said.tags.get(REPO_TAG, "") in ("", name):
                continue
            if until := _deprecated_until(said, one.feature):
                owner = said.tags[REPO_TAG]
                notes[f'{Place(said.kind, one.view, one.feature)} of repo "{owner}" is deprecated until {until}'] = None
    return list(notes)


def _tagged(one: Any, tags: dict[str, str]) -> Any:
    """An object with these tags."""
    if isinstance(one, Permission):
        # Feast lets nobody set those of a permission once it is made.
        return Permission(one.name, one.types, one.name_patterns, one.actions, one.policy, tags, one.required_tags)
    one.tags = tags
    return one


def _taken(
    project: str, mine: bytes, registered: bytes | None, owners: Mapping[tuple[str, str], str], name: str
) -> tuple[Problem, ...]:
    """Objects that are another repo's, and other ones here."""
    if registered is None:
        return ()
    here, there = objects_of(mine, project), objects_of(registered, project)
    fields = {kind: field for field, kind in KINDS.items()}
    found = []
    for (kind, one), written in here.items():
        owner = owners.get(_key(fields[kind], one), "")
        if not owner or owner == name:
            continue
        before = there.get((kind, one))
        lines = ["it is of another kind"] if before is None else differing_lines(before, written)
        if lines:
            fact = f'it is registered by repo "{owner}", and is another one here: {lines[0]}'
            found.append(Problem(Place(kind, one), fact, "call it otherwise, or import what is registered"))
    return tuple(found)


def _readers(spec: RepoSpec, registered: bytes, name: str) -> list[Reader]:
    """What other repos have that reads views."""
    repos = {(one.kind, one.name): one.tags.get(REPO_TAG, "") for one in authored_in(registered, spec.project)}
    found = list[Reader]()
    for service in spec.services:
        pairs = [(one.view, one.feature) for one in service.features]
        found.append(_reader("feature service", service.name, repos, pairs))
    for view in spec.on_demand_views:
        pairs = [(one.view, one.feature) for one in view.inputs]
        found.append(_reader("on-demand feature view", view.name, repos, pairs))
    return [reader for reader in found if reader.repo != name]


def _reader(kind: str, name: str, repos: Mapping[tuple[str, str], str], pairs: list[tuple[str, str]]) -> Reader:
    views = dict.fromkeys(view for view, _ in pairs)
    features = {view: frozenset(feature for of, feature in pairs if of == view) for view in views}
    return Reader(kind, name, repos.get((kind, name), ""), features)


def _follows(view: Any, sources: Mapping[str, Any]) -> bool:
    """Whether a view's copy of its source is not what the source has become."""
    source = sources.get(view.stream_source.name)
    if source is None:
        return False
    before, now = type(source)(), type(source)()
    before.CopyFrom(view.stream_source)
    now.CopyFrom(source)
    for one in (before, now):
        one.ClearField("meta")
        one.ClearField("project")
        one.batch_source.Clear()
    return bool(before != now)


def _answers(spec: RepoSpec) -> dict[str, dict[str, str]]:
    """View -> feature -> type."""
    found = {view.name: {one.name: str(one.type) for one in view.answers} for view in spec.views}
    found |= {view.name: {one.name: str(one.type) for one in view.features} for view in spec.plain_views}
    return found | {view.name: {one.name: str(one.type) for one in view.features} for view in spec.on_demand_views}


def _deprecated_until(view: Authored, feature: str) -> date | None:
    """The last day of a feature, or of its view; None where nobody has announced one."""
    text = view.fields.get(feature, AuthoredField()).tags.get(DEPRECATED_UNTIL_TAG) or view.tags.get(
        DEPRECATED_UNTIL_TAG, ""
    )
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None


def _key(field: str, name: str) -> tuple[str, str]:
    """Views of all kinds share one name space."""
    return ("views" if field.endswith("views") else field, name)


def _messages(registry: Any, project: str) -> Iterator[tuple[str, Any, Any]]:
    """Field, message and spec of each object of a project."""
    for field in KINDS:
        for message in getattr(registry, field) if field != "projects" else ():
            spec = message if field == "data_sources" else message.spec
            if spec.project in ("", project):
                yield field, message, spec


def _specs(registry: Any, project: str) -> Iterator[tuple[str, Any]]:
    return ((field, spec) for field, _, spec in _messages(registry, project))
