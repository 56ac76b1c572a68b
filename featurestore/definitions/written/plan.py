"""Everything that an apply writes, as texts that can be compared: also what is not computed here.

    repo's objects ─serialized─┐
                               ├─> (kind, name) -> path -> text ─> what an apply adds, changes and removes
    registry's bytes ──────────┘

Views and services that are compiled are compared by what they compute (`changes`). This adds what that leaves out:
on-demand views and services with them, entities, sources, permissions; descriptions, owners and tags of everything.
What Feast fills in by itself when it applies (times, versions, the order of sets) is left out on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from featurestore.definitions.changes import Plan, Written, WrittenObject, compare, compiled_or_empty
from featurestore.definitions.compile.repo import Compilation
from featurestore.definitions.fast_import import skip_typeguard
from featurestore.definitions.registry import find_registry_bytes
from featurestore.definitions.repo import LoadedRepo
from featurestore.errors import CorruptData
from featurestore.wire.feast.registry import DUMMY_ENTITY

with skip_typeguard():
    from feast.protos.feast.core.Registry_pb2 import Registry
    from google.protobuf.message import DecodeError

KINDS: Mapping[str, str] = {
    "projects": "project",
    "entities": "entity",
    "data_sources": "data source",
    "feature_views": "plain feature view",
    "stream_feature_views": "feature view",
    "on_demand_feature_views": "on-demand feature view",
    "label_views": "label view",
    "feature_services": "feature service",
    "permissions": "permission",
}
"""Field of Registry -> what a plan calls its messages."""

MORE_ROW_LISTS: Mapping[str, tuple[str, str]] = {
    "label_views": ("label_views", "feature_view_proto"),
    "permissions": ("permissions", "permission_proto"),
}
"""As `wire.feast.registry.ROW_LISTS`, for what only a plan reads."""

FILLED_IN = frozenset({"meta", "project", "data_source_class_type", "entity_columns", "materialization_intervals"})
"""Fields that Feast writes when it applies."""

EMBEDDED = frozenset({"batch_source", "stream_source", "request_data_source"})
"""Copies of objects that are registered themselves."""


def plan_of(repo: LoadedRepo, compilation: Compilation, registry: str | Path) -> Plan:
    """What an apply of a repo would write.

    Raises:
        DefinitionError: the repo has mistakes.
        InvalidRequest, CorruptData, SourceUnavailable: the registry cannot be read.
    """
    after = compilation.require_sound()
    content = find_registry_bytes(registry, MORE_ROW_LISTS, Registry())
    objects = {} if content is None else objects_of(content, repo.project)
    return compare(
        compiled_or_empty(content, repo.project), after, Written(objects, objects_of(repo.registry, repo.project))
    )


def objects_of(registry: bytes, project: str) -> Mapping[tuple[str, str], WrittenObject]:
    """Objects of a serialized Registry by kind and name."""
    message: Any = Registry()
    try:
        message.ParseFromString(registry)
    except DecodeError as error:
        raise CorruptData("the registry's bytes are not a Feast registry", detail=str(error)) from error
    mine = [each.spec for each in message.entities if each.spec.project in ("", project)]
    join_keys = {each.name: each.join_key or each.name for each in mine}
    found: dict[tuple[str, str], WrittenObject] = {}
    for field, kind in KINDS.items():
        for each in getattr(message, field):
            content = MessageToDict(each, preserving_proto_field_name=True)
            content = content.get("spec", content)
            owner = content["name"] if field == "projects" else content.get("project", project)
            if content.get("name") == DUMMY_ENTITY or owner != project:
                continue
            if field.endswith("feature_views"):
                # Feast mixes the join keys into the fields of some views when it applies them.
                keys = {join_keys.get(name, name) for name in content.get("entities", ())}
                content["features"] = [one for one in content.get("features", ()) if one["name"] not in keys]
            is_plain = field == "stream_feature_views" and not content.get("aggregations")
            texts = dict(_texts(_without_copies(content), ""))
            found["plain feature view" if is_plain else kind, content["name"]] = WrittenObject(
                _summary(kind, content), texts
            )
    return found


def _summary(kind: str, content: Mapping[str, Any]) -> str:
    """A few words about an object that is added or removed."""
    if kind == "entity":
        return f"join key {content.get('join_key') or content['name']}"
    if kind == "data source":
        return str(content.get("type", "")).partition("_")[2].lower() or "custom"
    if kind == "permission":
        return ", ".join(action.lower() for action in content.get("actions", ()))
    if kind == "feature service":
        return f"{len(content.get('features', ()))} views, served by the Feast SDK only"
    if kind == "on-demand feature view":
        return f"{len(content.get('features', ()))} features, computed while they are asked for"
    return f"{len(content.get('features', ()))} features, served by the Feast SDK only"


def _without_copies(content: Mapping[str, Any]) -> dict[str, Any]:
    """An object without what Feast fills in, and with the names of what is an object of its own."""
    kept: dict[str, Any] = {}
    for field, value in content.items():
        if field in FILLED_IN or (field == "body" and "body_text" in content):
            continue
        if field in EMBEDDED:
            kept[field] = value.get("name", "")
        elif field == "feature_columns":
            kept[field] = ", ".join(sorted(column["name"] for column in value))
        elif isinstance(value, Mapping):
            kept[field] = _without_copies(value)
        elif isinstance(value, list):
            kept[field] = [_without_copies(one) if isinstance(one, Mapping) else one for one in value]
        else:
            kept[field] = value
    return kept


def _texts(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Path -> text of every leaf; elements of a list go by their names, where they have some."""
    if isinstance(value, Mapping):
        for field, one in value.items():
            if field != "name" or not path:
                yield from _texts(one, f"{path}.{field}" if path else field)
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        for index, one in enumerate(value):
            name = one.get("name") or one.get("feature_view_name") or index
            yield from _texts(one, f"{path}[{name}]")
    elif isinstance(value, list):
        yield path, ", ".join(str(one) for one in value if one != DUMMY_ENTITY)
    else:
        yield path, str(value).replace("\n", "\\n")  # a line of the plan
