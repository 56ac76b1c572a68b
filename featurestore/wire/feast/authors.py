"""Who answers for a source, and what its author says of it, as a registry has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from featurestore.wire.feast.protos import message_class


@dataclass(frozen=True, slots=True)
class SourceAuthor:
    """What Feast keeps of a source for people.

    Attributes:
        owner, description: as they were written; "" for nothing.
        tags: of the source.
    """

    owner: str
    description: str
    tags: dict[str, str]


def author_of(registry: bytes, project: str, source: str) -> SourceAuthor:
    """Of the copy of a source that the project's first stream view with it has.

    Args:
        registry: a serialized feast.core.Registry that has been decoded before.
        project: Feast project.
        source: name of the source.
    """
    message: Any = message_class("feast.core.Registry")()
    message.ParseFromString(registry)
    for view in message.stream_feature_views:
        found = view.spec.stream_source
        if view.spec.project == project and found.name == source:
            return SourceAuthor(found.owner, found.description, dict(found.tags))
    return SourceAuthor("", "", {})
