"""What an apply takes the right to: CREATE, UPDATE or DELETE, of each object that the plan changes.

What is changed or removed is asked about as it is registered, and what is new as it would be: nobody lets himself in by
the tags of his change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from featurestore.core.spec.access import CREATE, DELETE, UPDATE, AccessSpec, Guarded
from featurestore.definitions.changes import Action, Plan, WrittenObject
from featurestore.definitions.fast_import import skip_typeguard
from featurestore.definitions.governance.access.require import Wanted
from featurestore.definitions.registry import find_registry_bytes
from featurestore.definitions.repo import LoadedRepo
from featurestore.definitions.written.plan import MORE_ROW_LISTS, objects_of
from featurestore.wire.feast.access import access_of

with skip_typeguard():
    from feast.protos.feast.core.Registry_pb2 import Registry

GUARDED: Mapping[str, str] = {
    "project": "PROJECT",
    "entity": "ENTITY",
    "data source": "DATA_SOURCE",
    "feature view": "STREAM_FEATURE_VIEW",
    "plain feature view": "FEATURE_VIEW",
    "on-demand feature view": "ON_DEMAND_FEATURE_VIEW",
    "label view": "LABEL_VIEW",
    "feature service": "FEATURE_SERVICE",
    "permission": "PERMISSION",
}
"""What a plan calls an object -> what Feast's permissions call it."""

ACTIONS: Mapping[Action, str] = {Action.ADD: CREATE, Action.CHANGE: UPDATE, Action.REMOVE: DELETE}

_TAG = "tags."


def wanted_of(
    plan: Plan, repo: LoadedRepo, registry: str, followers: Collection[str]
) -> tuple[AccessSpec, list[Wanted]]:
    """What is permitted now, and what an apply takes.

    Args:
        plan: of the apply.
        repo: that would be applied.
        registry: to which.
        followers: views of others that are written because a source of theirs changes, which is asked about itself.

    Raises:
        InvalidRequest, CorruptData, SourceUnavailable: the registry cannot be read.
    """
    content = find_registry_bytes(registry, MORE_ROW_LISTS, Registry())
    access = AccessSpec() if content is None else access_of(content, repo.project)
    if content is None or not access.permissions:
        return access, []
    before, after = objects_of(content, repo.project), objects_of(repo.registry, repo.project)
    wants = []
    for change in plan.changes:
        key = (change.kind, change.name)
        written = before.get(key) or after.get(key)
        if written is None or (change.name in followers and change.kind.endswith("feature view")):
            continue
        wants.append(Wanted(ACTIONS[change.action], _guarded(*key, written)))
    return access, wants


def _guarded(kind: str, name: str, written: WrittenObject) -> Guarded:
    tags = {path.removeprefix(_TAG): text for path, text in written.texts.items() if path.startswith(_TAG)}
    return Guarded(GUARDED[kind], name, written.texts.get("owner", ""), tags)
