"""What each page shows, as plain values for its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from featurestore.catalog.callers import ServiceCallers
from featurestore.catalog.history_sql import history_sql
from featurestore.catalog.lineage.graph import COLUMN, FEATURE, KINDS, SERVICE, SOURCE, VIEW, Node, Reached
from featurestore.catalog.lineage.picture import draw, page_of
from featurestore.catalog.live import LiveStore
from featurestore.catalog.model import FACETS, Catalog, WatchedCatalog
from featurestore.catalog.parity_report import ViewParity, read_parity
from featurestore.catalog.search import find
from featurestore.catalog.served_values import ServedValues
from featurestore.catalog.snippets import Snippet, example_of, request_columns, snippets_of
from featurestore.catalog.web import shown
from featurestore.catalog.web.asking import Server
from featurestore.clock import Clock
from featurestore.core.spec import Column, ComputedColumn, RepoSpec, ServiceSpec, ViewSpec
from featurestore.definitions.governance.catalog import Item
from featurestore.errors import FeatureStoreError
from featurestore.offline.health.statistics import FeatureStatistics

PAGE_SIZE = 60
"""Entries of a list that are shown at once."""

VALUES_MAX = 12
"""Values of a filter that are shown; with more of them, the most frequent."""

_MS_PER_MINUTE = 60_000


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value to filter by: how it is called, how many there are, the address that takes or leaves it."""

    text: str
    count: int
    address: str
    is_chosen: bool


class Pages:
    """All pages of a project.

    Args:
        catalog: what is registered.
        live: what the store holds; None where there is none to look at.
        clock: for moments of examples.
        server: that is asked for values; None where pages ask for none.
        addresses: of gRPC and HTTP, for snippets.
        parity: the last report; None for none.
        callers: who asks services; None where that is not shown.
        values: what was served; None where that is not shown.
    """

    def __init__(
        self,
        catalog: WatchedCatalog,
        live: LiveStore | None,
        clock: Clock,
        *,
        server: Server | None = None,
        addresses: Mapping[str, str] | None = None,
        parity: Path | None = None,
        callers: ServiceCallers | None = None,
        values: ServedValues | None = None,
    ) -> None:
        self._watched, self._live, self._clock = catalog, live, clock
        self.server = server
        self._addresses = dict(addresses or {})
        self._parity, self._callers, self._values = parity, callers, values

    @property
    def project(self) -> str:
        """Its name."""
        return self._watched.current.spec.project

    def measure(self) -> None:
        """Measure the store if it is time to."""
        if self._live is not None:
            self._live.measure(self._watched.current.spec)

    def index(self, query: Mapping[str, str]) -> dict[str, Any]:
        """List and search."""
        catalog = self._watched.current
        text = query.get("q", "")
        filters = {facet: query[facet] for facet in FACETS if facet in query}
        page = int(query["page"]) if query.get("page", "").isdecimal() and len(query["page"]) < 6 else 1
        found = find(catalog.entries, text, filters)
        begin = PAGE_SIZE * (max(page, 1) - 1)
        base = {"q": text, **filters} if text else filters
        facets = {
            facet: [_facet_value(facet, value, count, base, filters) for value, count in counts][:VALUES_MAX]
            for facet, counts in found.counts.items()
            if any(value for value, _ in counts)
        }
        return {
            "title": f"{text} - search" if text else "Catalog",
            "query": text,
            "filters": filters,
            "facets": facets,
            "total": len(found.entries),
            "entries": found.entries[begin : begin + PAGE_SIZE],
            "begin": begin,
            "more": f"/?{urlencode({**base, 'page': page + 1})}" if begin + PAGE_SIZE < len(found.entries) else "",
            "cleared": f"/?{urlencode({'q': text})}" if text else "/",
            "trouble": self._watched.trouble,
        }

    def view(self, name: str) -> dict[str, Any] | None:
        """A view of any kind; None where there is none."""
        catalog = self._watched.current
        item = catalog.item(VIEW, name)
        if item is None:
            return None
        spec = catalog.spec
        served = {} if self._values is None else self._values.of_view(name)
        features = self._features(catalog, item, spec.view(name), served)
        source = item.facts.get("source", "")
        services = [one for one in spec.services if any(read.view == name for read in one.features)]
        return {
            **_common(catalog, item),
            "features": features,
            "unread": served if isinstance(served, FeatureStoreError) else None,
            "source": source if catalog.item(SOURCE, source) else "",
            "readers": _linked(catalog, item.facts.get("read by", "").split(", ")),
            "expected": [one for one in spec.expectations if source == one.source and spec.view(name) is not None],
            "now": self._now(spec, name),
            "parity": self._parity_of(name),
            "asked_as": services[0].name if services else "",
            "snippets": self._snippets(spec, services[0]) if services else (),
            "drawing": _drawing(catalog, Node(VIEW, name)),
        }

    def now(self, name: str) -> dict[str, Any] | None:
        """What the store holds of a view."""
        spec = self._watched.current.spec
        if self._watched.current.item(VIEW, name) is None:
            return None
        return {"now": self._now(spec, name), "name": name}

    def source(self, name: str) -> dict[str, Any] | None:
        """A source."""
        catalog = self._watched.current
        item = catalog.item(SOURCE, name)
        if item is None:
            return None
        spec = next((view.source for view in catalog.spec.views if view.source.name == name), None)
        columns = []
        listed: Sequence[Column | ComputedColumn] = () if spec is None else (*spec.columns, *spec.computed)
        for column in listed:
            node = Node(COLUMN, f"{name}.{column.name}")
            reached = catalog.lineage.depends_on(node)
            columns.append(
                {
                    "name": column.name,
                    "type": str(column.type),
                    "expression": getattr(column, "expression", ""),
                    "features": sum(one.node.kind == FEATURE for one in reached),
                    "services": sum(one.node.kind == SERVICE for one in reached),
                    "address": page_of(node),
                }
            )
        return {
            **_common(catalog, item),
            "columns": columns,
            "readers": _linked(catalog, item.facts.get("read by", "").split(", ")),
            "expected": [one for one in catalog.spec.expectations if one.source == name],
            "now": shown.now_of(self._live.source(catalog.spec, name)) if self._live is not None else None,
            "drawing": _drawing(catalog, Node(SOURCE, name)),
        }

    def service(self, name: str) -> dict[str, Any] | None:
        """A service."""
        catalog = self._watched.current
        item, service = catalog.item(SERVICE, name), catalog.spec.service(name)
        if item is None or service is None:
            return None
        features = []
        for one in service.features:
            feature = catalog.item(FEATURE, f"{one.view.partition('@')[0]}:{one.feature}")
            features.append({"name": one.output_name, "view": one.view, "item": feature})
        fields = [*service.join_keys, *request_columns(catalog.spec, service)]
        return {
            **_common(catalog, item),
            "features": features,
            "views": _linked(catalog, item.facts.get("views", "").split(", ")),
            "fields": [{"name": one.name, "type": str(one.type), "example": example_of(one)} for one in fields],
            "keys": [one.name for one in service.join_keys],
            "server": self.server,
            "drift": None if self._values is None else shown.drift_shown(self._values.drift_of(name)),
            "callers": None if self._callers is None else shown.callers_shown(self._callers.of(name)),
            "permissions": _permissions(catalog.spec, name),
            "snippets": self._snippets(catalog.spec, service),
            "drawing": _drawing(catalog, Node(SERVICE, name)),
            "answer": None,
            "explanation": None,
            "error": None,
            "typed": {},
        }

    def lineage(self, name: str) -> dict[str, Any]:
        """What a thing is made of, and what depends on it; a list of sources where none is named.

        Raises:
            InvalidRequest: nothing is called so.
        """
        catalog = self._watched.current
        lineage = catalog.lineage
        if not name:
            columns = sorted(node.name for node in lineage.nodes if node.kind == COLUMN)
            return {"title": "Lineage", "node": None, "columns": columns, "error": None}
        node = lineage.find(name)
        # That a view has features is no news: what depends on those is.
        depends = [one for one in lineage.depends_on(node) if (one.arrow.begin, one.node.kind) != (node, FEATURE)]
        return {
            "title": f"{node.name} - lineage",
            "node": node,
            "address": page_of(node) if node.kind in (VIEW, SERVICE, SOURCE, FEATURE) else "",
            "depends": _grouped(depends if node.kind == VIEW else lineage.depends_on(node)),
            "made_of": _grouped(lineage.comes_from(node)),
            "drawing": _drawing(catalog, node),
            "error": None,
        }

    def _features(
        self,
        catalog: Catalog,
        item: Item,
        view: ViewSpec | None,
        served: Mapping[str, FeatureStatistics] | FeatureStoreError,
    ) -> list[dict[str, Any]]:
        """Features of a view, with what people fold out."""
        statistics = {} if isinstance(served, FeatureStoreError) else served
        windowed = {} if view is None else {one.name: one for one in view.features}
        as_of_ms = self._clock.now_ms() // _MS_PER_MINUTE * _MS_PER_MINUTE
        rows = []
        for one in catalog.features_of(item):
            name = one.name.partition(":")[2]
            sql = history_sql(view, windowed[name], as_of_ms) if view is not None and name in windowed else ""
            values = shown.statistics_text(statistics[name]) if name in statistics else ""
            rows.append({"name": name, "item": one, "sql": sql, "pii": catalog.pii_of(one), "values": values})
        return rows

    def _now(self, spec: RepoSpec, name: str) -> shown.Now | None:
        return None if self._live is None else shown.now_of(self._live.view(spec, name))

    def _parity_of(self, name: str) -> ViewParity | FeatureStoreError | None:
        """What the last report says of a view."""
        try:
            return None if self._parity is None else read_parity(self._parity).get(name)
        except FeatureStoreError as error:
            return error

    def _snippets(self, spec: RepoSpec, service: ServiceSpec) -> Sequence[Snippet]:
        return snippets_of(spec, service, self._clock.now_ms(), **self._addresses)


def _facet_value(facet: str, value: str, count: int, base: Mapping[str, str], filters: Mapping[str, str]) -> FacetValue:
    """A link that sets a filter, or takes it back."""
    is_chosen = filters.get(facet) == value
    rest = {name: text for name, text in base.items() if name != facet}
    address = urlencode(rest if is_chosen else {**rest, facet: value})
    return FacetValue(value or "nobody says", count, f"/?{address}" if address else "/", is_chosen)


def _common(catalog: Catalog, item: Item) -> dict[str, Any]:
    """What the page of everything has."""
    return {"title": item.name, "name": item.name, "item": item, "pii": catalog.pii_of(item)}


def _linked(catalog: Catalog, names: Sequence[str]) -> list[dict[str, Any]]:
    """Views and services by name, with their pages."""
    found = []
    for name in names:
        item = catalog.item(SERVICE, name) or catalog.item(VIEW, name.partition("@")[0])
        if item is not None:
            found.append({"name": name, "item": item, "address": f"/{item.kind}/{item.name}"})
    return found


def _permissions(spec: RepoSpec, service: str) -> list[str]:
    """Who may read a service, in the registry's words."""
    from featurestore.core.spec.access import FEATURE_SERVICE, READ_ONLINE

    texts = []
    for one in spec.access.permissions:
        if one.covers(spec.access.find(FEATURE_SERVICE, service), READ_ONLINE):
            names = [f"role {name}" for name in sorted(one.roles)] + [f"group {name}" for name in sorted(one.groups)]
            names += [f"namespace {name}" for name in sorted(one.namespaces)]
            texts.append("everybody" if one.is_for_everybody else ", ".join(names))
    if spec.access.permissions and not texts:
        return ["nobody"]
    return texts


def _grouped(reached: Sequence[Reached]) -> dict[str, list[dict[str, Any]]]:
    """By kind, in the order of the arrows."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        for one in reached:
            if one.node.kind == kind:
                row = {"name": one.node.name, "address": page_of(one.node), "why": one.arrow.why, "steps": one.steps}
                groups.setdefault(kind, []).append(row)
    return groups


def _drawing(catalog: Catalog, node: Node) -> Markup:
    """The picture of a node; nothing where it stands alone."""
    if node not in catalog.lineage.nodes:
        return Markup()
    # Every text in it was escaped where it was drawn.
    return Markup(draw(catalog.lineage, catalog.spec, node))
