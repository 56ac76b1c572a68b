"""What authors say to people: who answers for an object, and what it is, as a registry has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from featurestore.wire.feast.labels import label_sources
from featurestore.wire.feast.protos import message_class

VIEW_LISTS: Mapping[str, str] = {
    "stream_feature_views": "feature view",
    "feature_views": "feature view",
    "on_demand_feature_views": "on-demand feature view",
}
"""Field of Registry -> what its messages are called."""


@dataclass(frozen=True, slots=True)
class AuthoredField:
    """What is written of a feature."""

    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Authored:
    """What is written of an object.

    Attributes:
        kind: "source", "feature view", "on-demand feature view" or "feature service".
        name: its name.
        owner, description: as they were written; "" for nothing.
        tags: its tags.
        fields: of a view, by name of the feature; join keys may be among them.
    """

    kind: str
    name: str
    owner: str = ""
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, AuthoredField] = field(default_factory=dict)


def authored_in(registry: bytes, project: str) -> tuple[Authored, ...]:
    """Everything of a project: sources that a view reads or that have labels, views, services.

    Args:
        registry: a serialized feast.core.Registry that has been decoded before.
        project: Feast project.
    """
    message: Any = message_class("feast.core.Registry")()
    message.ParseFromString(registry)
    views, sources = list[Authored](), dict[str, Authored]()
    for name, kind in VIEW_LISTS.items():
        for each in getattr(message, name):
            if each.spec.project in ("", project):
                views.append(_authored(kind, each.spec))
                for source in _sources(each.spec):
                    # A registry keeps sources apart too, but not every reader of one in a database asks for those.
                    sources.setdefault(source.name, _authored("source", source))
    for source in label_sources(message, project):
        sources.setdefault(source.name, _authored("source", source))
    services = [
        _authored("feature service", each.spec)
        for each in message.feature_services
        if each.spec.project in ("", project)
    ]
    return (*sources.values(), *views, *services)


def author_of(registry: bytes, project: str, source: str) -> Authored:
    """Of the copy of a source that the project's first view with it has; the arguments are those of `authored_in`."""
    found = (one for one in authored_in(registry, project) if (one.kind, one.name) == ("source", source))
    return next(found, Authored("source", source))


def _sources(spec: Any) -> Iterator[Any]:
    """What a view reads: of a stream view the stream, of a plain one its table."""
    names = spec.DESCRIPTOR.fields_by_name
    if "stream_source" in names and spec.HasField("stream_source"):
        yield spec.stream_source
    elif "batch_source" in names and spec.HasField("batch_source"):
        yield spec.batch_source


def _authored(kind: str, spec: Any) -> Authored:
    has_fields = kind.endswith("view")
    fields = {one.name: AuthoredField(one.description, dict(one.tags)) for one in spec.features} if has_fields else {}
    return Authored(kind, spec.name, spec.owner, spec.description, dict(spec.tags), fields)
