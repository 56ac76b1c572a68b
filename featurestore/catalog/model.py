"""Everything that is registered, ready to be looked at: compiled once, searched and shown many times.

registry bytes ─> RepoSpec ─> items of the catalog ─> entries: what each says, and what it is filtered by
                      └─────> lineage
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from featurestore.catalog.lineage.graph import Lineage
from featurestore.core.spec import OnDemandViewSpec, PlainViewSpec, RepoSpec, ViewSpec
from featurestore.definitions.governance.catalog import FEATURE, SERVICE, SOURCE, VIEW, Item, catalog_of
from featurestore.definitions.governance.facts import subjects_of
from featurestore.definitions.registry import compile_registry, open_registry, read_registry_bytes
from featurestore.errors import FeatureStoreError
from featurestore.wire.feast.authors import authored_in

NO_PII = "none"

FACETS = ("kind", "team", "entity", "source", "tier", "pii")
"""What the catalog is filtered by."""

Marks: TypeAlias = tuple[tuple[str, ...], ...]
"""Of an entry, the values of each of FACETS; "" where nobody says."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing, as it is found.

    Attributes:
        item: it.
        name: to be compared with words: in small letters.
        said: all that is said of it, tags and columns included, in small letters.
        marks: what it is filtered by: its join keys are its entities, its sources those that it is made of, and what
            it tells of a person is what its author says, else what its columns do.
        group: a number of all that have the same marks.
    """

    item: Item
    name: str
    said: str
    marks: Marks
    group: int

    @property
    def entities(self) -> tuple[str, ...]:
        """Its join keys."""
        return self.marks[FACETS.index("entity")]

    @property
    def pii(self) -> str:
        """What it tells of a person; "" where nobody says."""
        return self.marks[FACETS.index("pii")][0]

    @property
    def path(self) -> str:
        """Of its page."""
        view, _, feature = self.item.name.partition(":")
        return f"/view/{view}#{feature}" if self.item.kind == FEATURE else f"/{self.item.kind}/{self.item.name}"


class Catalog:
    """A registry as it was read once.

    Args:
        registry: a serialized feast.core.Registry.
        project: Feast project.

    Attributes:
        spec: what was compiled; what has a mistake is left out.
        items: sources, views each with its features behind it, and services.
        entries: the same, as they are found.
    """

    def __init__(self, registry: bytes, project: str) -> None:
        self.spec: RepoSpec = compile_registry(registry, project=project).spec
        self.items: Sequence[Item] = catalog_of(self.spec, registry)
        self._by_name = {(item.kind, item.name): item for item in self.items}
        self.entries: Sequence[Entry] = _entries(self.spec, self.items, registry)
        self._pii = {(entry.item.kind, entry.item.name): entry.pii for entry in self.entries}

    @cached_property
    def lineage(self) -> Lineage:
        """What comes from what."""
        return Lineage(self.spec)

    def item(self, kind: str, name: str) -> Item | None:
        """The item of a name, or None."""
        return self._by_name.get((kind, name))

    def pii_of(self, item: Item) -> str:
        """What it tells of a person; "" where nobody says."""
        return self._pii[item.kind, item.name]

    def features_of(self, item: Item) -> list[Item]:
        """Of a view or service, in its order."""
        found = (self._by_name.get((FEATURE, name)) for name in item.parts)
        return [one for one in found if one is not None]


class WatchedCatalog:
    """The catalog of a registry that changes: read anew when it has, while the last one is still shown.

    Args:
        registry: path or SQLAlchemy URL.
        project: Feast project.

    Attributes:
        current: as it was read last.
        trouble: why it cannot be read now; None while it can.

    Raises:
        FeatureStoreError: it cannot be read at all.
    """

    def __init__(self, registry: str, project: str) -> None:
        self._place, self._project = registry, project
        self._registry = open_registry(registry, project)
        self._stamp = self._registry.stamp()
        self.current = Catalog(read_registry_bytes(registry), project)
        self.trouble: FeatureStoreError | None = None

    def refresh(self) -> bool:
        """Read it anew if it has changed; to be called by one thread.

        Returns:
            Whether there is another one now.
        """
        try:
            stamp = self._registry.stamp()
            if stamp == self._stamp:
                self.trouble = None
                return False
            self.current = Catalog(read_registry_bytes(self._place), self._project)
        except FeatureStoreError as error:
            self.trouble = error
            return False
        self._stamp, self.trouble = stamp, None
        return True


def _entries(spec: RepoSpec, items: Sequence[Item], registry: bytes) -> list[Entry]:
    """Each item with all that is said of it."""
    tags = {(one.kind.rpartition(" ")[2], one.name): one for one in authored_in(registry, spec.project)}
    shown = {
        (one.kind, one.name): str(one.facts["shown_pii"]) for one in subjects_of(spec, registry) if one.kind == FEATURE
    }
    entities, sources, groups = _entities(spec), _sources(spec), dict[Marks, int]()
    entries = []
    for item in items:
        owner, _, feature = item.name.partition(":")
        kind = VIEW if item.kind == FEATURE else item.kind
        said = tags.get((kind, owner))
        texts = [item.kind, item.name, item.meaning, *item.facts.values()]
        texts += [getattr(item.about, field) for field in ("owner", "on_call", "description", "use_case", "docs")]
        if said is not None:
            of_item = said.fields[feature].tags if feature and feature in said.fields else {} if feature else said.tags
            texts += [f"{name} {text}" for name, text in of_item.items()]
        shown_pii = shown.get((item.kind, item.name), NO_PII)
        pii = item.about.pii or ("" if shown_pii == NO_PII else shown_pii)
        places = entities.get((kind, owner), ()), sources.get((kind, owner), ())
        marks: Marks = ((item.kind,), (item.about.owner,), *places, (item.about.tier,), (pii,))
        group = groups.setdefault(marks, len(groups))
        entries.append(Entry(item, item.name.casefold(), "\n".join(texts).casefold(), marks, group))
    return entries


def _entities(spec: RepoSpec) -> dict[tuple[str, str], tuple[str, ...]]:
    """Join keys of views and services; of a source, those of the views that read it."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    views: Sequence[ViewSpec | PlainViewSpec | OnDemandViewSpec] = (
        *spec.views,
        *spec.plain_views,
        *spec.on_demand_views,
    )
    for view in views:
        found[VIEW, view.name] = tuple(key.name for key in view.join_keys)
    for service in spec.services:
        found[SERVICE, service.name] = tuple(key.name for key in service.join_keys)
    for one in spec.views:
        before = found.get((SOURCE, one.source.name), ())
        found[SOURCE, one.source.name] = tuple(dict.fromkeys((*before, *(key.name for key in one.join_keys))))
    return found


def _sources(spec: RepoSpec) -> dict[tuple[str, str], tuple[str, ...]]:
    """What views and services are made of, in the end."""
    of_view: dict[str, tuple[str, ...]] = {view.name: (view.source.name,) for view in spec.views}
    of_view |= {one.view.name: (one.view.source.name,) for one in spec.pinned}
    of_view |= {view.name: (view.table.source,) for view in spec.plain_views if view.table is not None}
    for on_demand in spec.on_demand_views:
        read = (name for one in on_demand.inputs for name in of_view.get(one.view, ()))
        of_view[on_demand.name] = tuple(dict.fromkeys(read))
    found = {(VIEW, name): names for name, names in of_view.items()}
    for service in spec.services:
        read = (name for one in service.features for name in of_view.get(one.view, ()))
        found[SERVICE, service.name] = tuple(dict.fromkeys(read))
    found |= {(SOURCE, name): (name,) for names in of_view.values() for name in names}
    return found
