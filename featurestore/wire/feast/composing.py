"""Registries made of single messages: of the rows of a SQL registry, or of one view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from featurestore.errors import CorruptData
from featurestore.wire.feast.protos import message_class
from featurestore.wire.feast.registry import VERSION_COLUMNS


def registry_from_rows(
    rows: Mapping[str, Iterable[tuple[str, bytes]]], registry: Any = None, versions: Iterable[Sequence[Any]] = ()
) -> bytes:
    """A serialized feast.core.Registry from the messages of a SQL registry.

    Args:
        rows: field of Registry (a key of ROW_LISTS) -> project and serialized message. Feast writes the project beside
            the message, and not into it.
        registry: empty message to fill; by default ours, which has what this package reads.
        versions: of views, each as VERSION_COLUMNS.

    Raises:
        CorruptData: a row is not the message it should be.
    """
    registry = message_class("feast.core.Registry")() if registry is None else registry
    for field, messages in rows.items():
        for project, content in messages:
            each = getattr(registry, field).add()
            try:
                each.ParseFromString(content)
            except DecodeError as error:
                raise CorruptData(f"a row of {field.replace('_', ' ')} is not a registry message") from error
            named = each.spec if "spec" in each.DESCRIPTOR.fields_by_name else each
            if "project" in named.DESCRIPTOR.fields_by_name:
                named.project = project
    for version in versions:
        registry.feature_view_version_history.records.add(**dict(zip(VERSION_COLUMNS, version, strict=True)))
    return bytes(registry.SerializeToString(deterministic=True))


def registry_of_view(project: str, view: bytes, entities: Iterable[bytes], *, is_stream: bool) -> bytes:
    """A serialized feast.core.Registry of one view, online whatever it says.

    Args:
        project: Feast project.
        view: serialized StreamFeatureView or FeatureView.
        entities: its entities, serialized.
        is_stream: which of the two it is.
    """
    registry: Any = message_class("feast.core.Registry")()
    registry.projects.add().spec.name = project
    for each in entities:
        entity = registry.entities.add()
        entity.ParseFromString(each)
        entity.spec.project = project
    message = (registry.stream_feature_views if is_stream else registry.feature_views).add()
    message.ParseFromString(view)
    message.spec.project, message.spec.online = project, True
    return bytes(registry.SerializeToString(deterministic=True))


def history_of(registry: bytes, project: str) -> bytes:
    """A registry with nothing in it but a project's history of versions; append it to one that has none.

    Args:
        registry: serialized feast.core.Registry.
        project: Feast project.
    """
    message: Any = message_class("feast.core.Registry")()
    message.ParseFromString(registry)
    history: Any = message_class("feast.core.Registry")()
    records = message.feature_view_version_history.records
    history.feature_view_version_history.records.extend(one for one in records if one.project_id == project)
    return bytes(history.SerializeToString(deterministic=True))
