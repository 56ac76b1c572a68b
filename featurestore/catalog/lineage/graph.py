"""What comes from what, column by column: what breaks if `market` goes, and where a feature is from.

    topic ──> source ──> column ──> computed column ──┐
                            ├────────────────────────>├──> feature ──> derived ──> on-demand ──> service
                            └──> view (key, time, condition: all of its features)

An arrow has a reason. Arrows come from the compiled definitions alone, as values do, so none is missing: what no arrow
leads to does not read the column.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from featurestore.core.aggregations.catalog import resolve
from featurestore.core.expressions import compile_expression
from featurestore.core.spec import OnDemandViewSpec, PlainViewSpec, RepoSpec, ServiceSpec, SourceSpec, ViewSpec
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest

TOPIC, TABLE, SOURCE, COLUMN, EXPECTATION = "topic", "table", "source", "column", "expectation"
VIEW, FEATURE, SERVICE = "view", "feature", "service"
KINDS = (TOPIC, TABLE, SOURCE, COLUMN, EXPECTATION, VIEW, FEATURE, SERVICE)
"""In the order of the arrows."""


@dataclass(frozen=True, slots=True)
class Node:
    """One thing that others come from.

    Attributes:
        kind: of KINDS.
        name: of a column "source.column", of a feature "view:feature"; what a request brings is a column of it.
    """

    kind: str
    name: str

    @property
    def short(self) -> str:
        """A column's or feature's own name."""
        if self.kind == COLUMN:
            return self.name.partition(".")[2]
        return self.name.partition(":")[2] if self.kind == FEATURE else self.name

    @property
    def owner(self) -> str:
        """The source of a column, the view of a feature; itself otherwise."""
        if self.kind == COLUMN:
            return self.name.partition(".")[0]
        return self.name.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Arrow:
    """Something comes from something.

    Attributes:
        begin, end: from what, and what.
        why: how the end uses the begin, in a few words.
    """

    begin: Node
    end: Node
    why: str


@dataclass(frozen=True, slots=True)
class Reached:
    """What depends on a thing, or what it comes from.

    Attributes:
        node: it.
        arrow: the last one of a shortest way to it.
        steps: arrows of that way.
    """

    node: Node
    arrow: Arrow
    steps: int


class Lineage:
    """All arrows of a project.

    Args:
        spec: it, compiled.
    """

    def __init__(self, spec: RepoSpec) -> None:
        self.downstream: dict[Node, list[Arrow]] = {}
        self.upstream: dict[Node, list[Arrow]] = {}
        for arrow in dict.fromkeys(_arrows(spec)):
            self.downstream.setdefault(arrow.begin, []).append(arrow)
            self.upstream.setdefault(arrow.end, []).append(arrow)
        self.nodes = frozenset((*self.downstream, *self.upstream))

    def depends_on(self, begin: Node) -> list[Reached]:
        """Everything that would be otherwise without it, nearest first."""
        return self._walk(begin, self.downstream, is_forward=True)

    def comes_from(self, end: Node) -> list[Reached]:
        """Everything that it is made of, nearest first; of a view, what its features are made of."""
        if end.kind != VIEW:
            return self._walk(end, self.upstream, is_forward=False)
        features = [arrow.end for arrow in self.downstream.get(end, ()) if arrow.end.kind == FEATURE]
        found = {one.node: one for one in self._walk(end, self.upstream, is_forward=False)}
        for feature in features:
            for one in self._walk(feature, self.upstream, is_forward=False):
                found.setdefault(one.node, one)
        mine = {end, *features}
        return sorted((one for one in found.values() if one.node not in mine), key=lambda one: one.steps)

    def find(self, name: str) -> Node:
        """The node of a name; a column or feature alone where it is the only one that is called so.

        Raises:
            InvalidRequest: nothing is called so, or several things are.
        """
        for kind in (VIEW, SERVICE, SOURCE, COLUMN, FEATURE, TOPIC, TABLE):
            if Node(kind, name) in self.nodes:
                return Node(kind, name)
        short = [node for node in self.nodes if node.kind in (COLUMN, FEATURE) and node.short == name]
        if len(short) > 1:
            hint = f"write one of {', '.join(sorted(node.name for node in short))}"
            raise InvalidRequest(f'{len(short)} things are called "{name}"', hint=hint)
        if not short:
            known = {node.name for node in self.nodes} | {node.short for node in self.nodes}
            raise InvalidRequest(f'nothing is called "{name}"', hint=suggest(name, sorted(known)))
        return short[0]

    @staticmethod
    def _walk(begin: Node, arrows: Mapping[Node, Sequence[Arrow]], *, is_forward: bool) -> list[Reached]:
        """Breadth first."""
        found: dict[Node, Reached] = {}
        rest = deque([(begin, 0)])
        while rest:
            node, steps = rest.popleft()
            for arrow in arrows.get(node, ()):
                other = arrow.end if is_forward else arrow.begin
                if other != begin and other not in found:
                    found[other] = Reached(other, arrow, steps + 1)
                    rest.append((other, steps + 1))
        return list(found.values())


def column(source: str, name: str) -> Node:
    """Of a source."""
    return Node(COLUMN, f"{source}.{name}")


def feature(view: str, name: str) -> Node:
    """Of a view."""
    return Node(FEATURE, f"{view}:{name}")


def _arrows(spec: RepoSpec) -> Iterator[Arrow]:
    """All of a project."""
    views = (*spec.views, *(one.view for one in spec.pinned))
    sources = {view.source.name: view.source for view in views}
    for source in sources.values():
        yield from _of_source(source)
    for one in spec.expectations:
        for name in _columns_of(one.condition, sources[one.source]):
            end = Node(EXPECTATION, f"{one.source}: {one.name}")
            yield Arrow(column(one.source, name), end, "is checked")
    for view in views:
        yield from _of_view(view)
    for plain in spec.plain_views:
        yield from _of_plain_view(plain)
    for on_demand in spec.on_demand_views:
        yield from _of_on_demand_view(on_demand)
    for service in spec.services:
        yield from _of_service(service)


def _of_source(source: SourceSpec) -> Iterator[Arrow]:
    """Topics, payload columns, columns of tables, computed ones."""
    here = Node(SOURCE, source.name)
    for topic in source.topics:
        yield Arrow(Node(TOPIC, topic), here, f"{source.format} records")
    enriched = {name.name: one for one in source.enrichments for name, _ in one.columns}
    for one in source.columns:
        table = enriched.get(one.name)
        if table is None:
            yield Arrow(here, column(source.name, one.name), "a column of its records")
        else:
            yield Arrow(Node(TABLE, table.table), column(source.name, one.name), "from a table, as of the event's time")
            yield Arrow(column(source.name, table.on), column(source.name, one.name), f"names the row of {table.table}")
    for computed in source.computed:
        for name in _columns_of(computed.expression, source):
            yield Arrow(
                column(source.name, name), column(source.name, computed.name), f"computes it: {computed.expression}"
            )


def _of_view(view: ViewSpec) -> Iterator[Arrow]:
    """What all of its features read, and what each does."""
    source, here = view.source, Node(VIEW, view.name)
    whole = [(source.event_time_column, "event time"), *((key.name, "key") for key in view.join_keys)]
    id_column = source.row_id_column if source.changes else source.event_id_column
    whole += [(id_column, "event id")] if id_column else []
    conditions = ((view.where, "only where"), (view.required, "contract"), (view.undo, "undone where"))
    whole += [(name, f"{word} {text}") for text, word in conditions if text for name in _columns_of(text, source)]
    for name, why in whole:
        if source.column(name) is not None:
            yield Arrow(column(source.name, name), here, why)
    yield Arrow(Node(SOURCE, source.name), here, "computed from its records")
    for one in view.features:
        mine = feature(view.name, one.name)
        yield Arrow(here, mine, "a feature of it")
        read = [(one.column, one.function)] if one.column is not None else []
        read += [(name, one.function) for name in resolve(one.function).further_columns]
        read += [(name, f"only where {one.where}") for name in (_columns_of(one.where, source) if one.where else ())]
        for name, why in read:
            yield Arrow(column(source.name, name), mine, why)
    types = {one.name: one.type for one in view.answers}
    for derived in view.derived:
        mine = feature(view.name, derived.name)
        yield Arrow(here, mine, "a feature of it")
        for name in sorted(compile_expression(derived.expression, types).columns):
            yield Arrow(feature(view.name, name), mine, f"computes it: {derived.expression}")


def _of_plain_view(view: PlainViewSpec) -> Iterator[Arrow]:
    here = Node(VIEW, view.name)
    if view.table is not None:
        yield Arrow(Node(TABLE, view.table.source), here, "materialized by Feast")
    for one in view.features:
        yield Arrow(here, feature(view.name, one.name), "a feature of it")


def _of_on_demand_view(view: OnDemandViewSpec) -> Iterator[Arrow]:
    """Each feature comes from what its SQL reads; of a function, from all that the view reads."""
    here = Node(VIEW, view.name)
    sources = {one.name: feature(one.view, one.feature) for one in view.inputs}
    sources |= {one.name: column("request", one.name) for one in view.request_columns}
    types = {read.name: read.type for read in view.inputs}
    types |= {given.name: given.type for given in view.request_columns}
    for one in view.features:
        mine = feature(view.name, one.name)
        yield Arrow(here, mine, "a feature of it")
        read = sorted(compile_expression(one.expression, types).columns) if one.expression else list(sources)
        why = f"computes it: {one.expression}" if one.expression else "read by a Python function"
        for name in read:
            yield Arrow(sources[name], mine, why)


def _of_service(service: ServiceSpec) -> Iterator[Arrow]:
    for one in service.features:
        yield Arrow(feature(one.view, one.feature), Node(SERVICE, service.name), "asked for")


def _columns_of(text: str, source: SourceSpec) -> list[str]:
    """Columns that a condition or an expression over events reads."""
    types = {one.name: one.type for one in source.columns}
    types |= {one.name: one.type for one in source.computed}
    return sorted(compile_expression(text, types).columns)
