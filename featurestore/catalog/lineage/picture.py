"""A lineage as a drawing: boxes in columns from topics to services, arrows between them.

Made here and not in the browser, so that it is there at once, prints, and needs no library. Colors are the page's: a
box has a class and no style.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from urllib.parse import quote

from featurestore.catalog.lineage.graph import (
    COLUMN,
    EXPECTATION,
    FEATURE,
    SERVICE,
    SOURCE,
    TABLE,
    TOPIC,
    VIEW,
    Lineage,
    Node,
)
from featurestore.core.spec import RepoSpec

BOX_WIDTH, GAP_X, GAP_Y = 172, 38, 10
LINE_HEIGHT, PADDING = 16, 7
LINES_MAX = 7
"""Features named in a box; the others are counted."""

BOXES_MAX = 40
"""Of a column of the drawing; the others are counted in one box."""

CHARACTERS_MAX = 23
"""As many as fit into a box."""

_HEADINGS = ("topic or table", "source", "column", "computed column", "view", "derived", "request time", "service")
_LAYER = {TOPIC: 0, TABLE: 0, SOURCE: 1, COLUMN: 2, EXPECTATION: 4, VIEW: 4, SERVICE: 7}
_COMPUTED, _DERIVED, _ON_DEMAND = 3, 5, 6


@dataclass(slots=True)
class _Box:
    """A box of the drawing.

    Attributes:
        layer: column of the drawing.
        kind, title: what it is.
        path: of its page; "" for none.
        lines: features in it.
        is_focus: what the drawing is about.
        x, y: its corner.
    """

    layer: int
    kind: str
    title: str
    path: str
    lines: list[str] = field(default_factory=list)
    is_focus: bool = False
    x: int = 0
    y: int = 0

    @property
    def shown(self) -> list[str]:
        """Lines that are drawn."""
        if len(self.lines) <= LINES_MAX:
            return self.lines
        return [*self.lines[: LINES_MAX - 1], f"and {len(self.lines) - LINES_MAX + 1} more"]

    @property
    def height(self) -> int:
        """In pixels."""
        return 2 * PADDING + LINE_HEIGHT * (1 + len(self.shown))


def page_of(node: Node) -> str:
    """Path of a node's page; "" for none."""
    if node.kind == FEATURE:
        return f"/view/{quote(node.owner)}#{quote(node.short)}"
    if node.kind in (VIEW, SERVICE, SOURCE):
        return f"/{node.kind}/{quote(node.name)}"
    return f"/lineage?of={quote(node.name)}" if node.kind in (COLUMN, TOPIC, TABLE) else ""


def nodes_around(lineage: Lineage, focus: Node) -> set[Node]:
    """What a node comes from, and what depends on it; of a view, on any of its features."""
    found = {focus, *(one.node for one in lineage.comes_from(focus))}
    return found | {one.node for one in lineage.depends_on(focus)}


def draw(lineage: Lineage, spec: RepoSpec, focus: Node) -> str:
    """An SVG of everything around a node.

    Args:
        lineage: of the project.
        spec: it.
        focus: a node of it.
    """
    nodes = nodes_around(lineage, focus)
    boxes = _boxes(nodes, spec, focus)
    arrows = _arrows(lineage, nodes, spec)
    kept = _place(boxes, arrows)
    layers = sorted({box.layer for box in kept.values()})
    width = len(layers) * (BOX_WIDTH + GAP_X) - GAP_X + 2
    height = max((box.y + box.height for box in kept.values()), default=0) + 2
    parts = [
        f'<svg class="drawing" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="group" '
        f'aria-label="Lineage of {escape(focus.kind)} {escape(focus.name)}" xmlns="http://www.w3.org/2000/svg">'
    ]
    for index, layer in enumerate(layers):
        x = index * (BOX_WIDTH + GAP_X) + 1
        parts.append(f'<text class="layer" x="{x}" y="12">{_HEADINGS[layer]}</text>')
    parts += [_path(kept[begin], kept[end]) for begin, end in arrows if begin in kept and end in kept]
    parts += [_drawn(box) for box in kept.values()]
    return "".join((*parts, "</svg>"))


def _boxes(nodes: Iterable[Node], spec: RepoSpec, focus: Node) -> dict[str, _Box]:
    """Boxes by their key; features stand in that of their view."""
    computed = {f"{view.source.name}.{one.name}" for view in spec.views for one in view.source.computed}
    boxes: dict[str, _Box] = {}
    for node in sorted(nodes, key=lambda one: (one.kind, one.name)):
        key = _key(node, spec)
        box = boxes.get(key)
        if box is None:
            kind, title, layer = node.kind, node.short, _LAYER.get(node.kind, _LAYER[VIEW])
            path = page_of(node)
            if node.kind in (FEATURE, VIEW):
                is_derived, is_on_demand = key.startswith("derived "), spec.on_demand_view(node.owner) is not None
                layer = _DERIVED if is_derived else _ON_DEMAND if is_on_demand else layer
                kind, title, path = VIEW, node.owner, page_of(Node(VIEW, node.owner))
            elif node.name in computed:
                layer = _COMPUTED
            box = boxes[key] = _Box(layer, kind, title, path)
        if node.kind == FEATURE:
            box.lines.append(node.short)
        box.is_focus |= node == focus
    return boxes


def _key(node: Node, spec: RepoSpec) -> str:
    """Of the box in which a node is drawn."""
    if node.kind not in (VIEW, FEATURE):
        return f"{node.kind} {node.name}"
    view = spec.view(node.owner)
    if node.kind == FEATURE and view is not None and any(one.name == node.short for one in view.derived):
        return f"derived {node.owner}"
    return f"view {node.owner}"


def _arrows(lineage: Lineage, nodes: set[Node], spec: RepoSpec) -> list[tuple[str, str]]:
    """Arrows between boxes, each once; from a source to a view only where no column stands between."""
    found = {
        (_key(node, spec), _key(arrow.end, spec))
        for node in nodes
        for arrow in lineage.downstream.get(node, ())
        if arrow.end in nodes
    }
    by_column = {end for begin, end in found if begin.startswith(f"{COLUMN} ")}
    return sorted(
        (begin, end)
        for begin, end in found
        if begin != end and not (begin.startswith(f"{SOURCE} ") and end.startswith(f"{VIEW} ") and end in by_column)
    )


def _place(boxes: dict[str, _Box], arrows: Sequence[tuple[str, str]]) -> dict[str, _Box]:
    """Give every box its corner, in each column by where its arrows come from. Returns what is drawn."""
    begins: dict[str, list[str]] = {}
    for begin, end in arrows:
        begins.setdefault(end, []).append(begin)
    kept: dict[str, _Box] = {}
    for index, layer in enumerate(sorted({box.layer for box in boxes.values()})):

        def height_of_origin(key: str) -> tuple[float, str]:
            origins = [kept[begin].y for begin in begins.get(key, ()) if begin in kept]
            return (sum(origins) / len(origins) if origins else 0.0), key

        keys = sorted((key for key, box in boxes.items() if box.layer == layer), key=height_of_origin)
        y = 22
        for key in keys[:BOXES_MAX]:
            box = kept[key] = boxes[key]
            box.x, box.y = index * (BOX_WIDTH + GAP_X) + 1, y
            y += box.height + GAP_Y
        if len(keys) > BOXES_MAX:
            kept[f"more {layer}"] = _Box(
                layer, "more", f"and {len(keys) - BOXES_MAX} more", "", x=index * (BOX_WIDTH + GAP_X) + 1, y=y
            )
    _center(kept)
    return kept


def _center(boxes: Mapping[str, _Box]) -> None:
    """Columns of the drawing stand in its middle; those that arrows pass by stand below, out of their way."""
    bottoms: dict[int, int] = {}
    for box in boxes.values():
        bottoms[box.layer] = max(bottoms.get(box.layer, 0), box.y + box.height)
    lowest = max(bottoms.values(), default=0)
    for box in boxes.values():
        room = lowest - bottoms[box.layer]
        box.y += room if box.layer in (_DERIVED, _ON_DEMAND) else room // 2


def _path(begin: _Box, end: _Box) -> str:
    """An arrow."""
    x0, y0 = begin.x + BOX_WIDTH, begin.y + begin.height // 2
    x1, y1 = end.x, end.y + end.height // 2
    if begin.layer >= end.layer:  # a computed column that reads a computed one
        x0, x1 = begin.x + BOX_WIDTH, end.x + BOX_WIDTH
        return f'<path class="arrow" d="M{x0} {y0}C{x0 + GAP_X - 8} {y0} {x1 + GAP_X - 8} {y1} {x1} {y1}"/>'
    middle = max(GAP_X, (x1 - x0) // 2) - 4
    return f'<path class="arrow" d="M{x0} {y0}C{x0 + middle} {y0} {x1 - middle} {y1} {x1} {y1}"/>'


def _drawn(box: _Box) -> str:
    """A box and what is written in it."""
    classes = f"box {box.kind}" + (" focus" if box.is_focus else "")
    texts = [f'<text class="name" x="{box.x + 10}" y="{box.y + PADDING + 12}">{_short(box.title)}</text>']
    for number, line in enumerate(box.shown, start=1):
        y = box.y + PADDING + 12 + LINE_HEIGHT * number
        texts.append(f'<text class="part" x="{box.x + 10}" y="{y}">{_short(line)}</text>')
    features = f": {', '.join(box.lines)}" if box.lines else ""
    title = f"<title>{escape(box.kind)} {escape(box.title)}{escape(features)}</title>"
    shape = f'<rect x="{box.x}" y="{box.y}" width="{BOX_WIDTH}" height="{box.height}" rx="4"/>'
    drawn = f'<g class="{classes}">{title}{shape}{"".join(texts)}</g>'
    return f'<a href="{escape(box.path)}">{drawn}</a>' if box.path else drawn


def _short(text: str) -> str:
    """As much of a text as fits."""
    return escape(text if len(text) <= CHARACTERS_MAX else f"{text[: CHARACTERS_MAX - 1]}…")
