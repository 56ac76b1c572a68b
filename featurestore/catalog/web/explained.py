"""An explanation in the words of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.catalog.web.words import moment_text, value_text
from featurestore.core.windows.durations import duration_words, readable_duration
from featurestore.online.answer.explaining.explanation import (
    ExplainedFeature,
    ExplainedTile,
    ExplainedView,
    ExplainedWindow,
    Explanation,
)

TILES_SHOWN_MAX = 40
"""The newest; older ones are one line."""

WINDOWS_SHOWN_MAX = 3
"""Of a series, the newest."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A line of what was merged."""

    begin: str
    width: str
    events: str
    value: str


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature and why it has its value, in texts; "" for what is not known."""

    name: str
    value: str
    meaning: str
    status: str
    freshness: str
    read_up_to: str
    windows: Sequence[str]
    reads: Sequence[tuple[str, str, str]]
    tiles: Sequence[Tile]


@dataclass(frozen=True, slots=True)
class Explained:
    """A row; `refusal` says why a lookup would be refused."""

    refusal: str
    features: Sequence[Feature]


def explained(explanation: Explanation) -> Explained:
    """The texts of an explanation."""
    features = [_feature(one, explanation.views[one.view]) for one in explanation.features]
    return Explained(explanation.refusal, features)


def _feature(one: ExplainedFeature, view: ExplainedView) -> Feature:
    tiles = view.tiles[one.first_tile : one.end_tile]
    partials = one.partials
    hidden = max(len(tiles) - TILES_SHOWN_MAX, 0)
    lines = [
        Tile(moment_text(tile.start_ms), _width(tile), _events((tile,)), value_text(share))
        for tile, share in zip(tiles[hidden:], partials[hidden:], strict=True)
    ]
    if hidden:
        older = tiles[:hidden]
        count = sum(tile.merged for tile in older)
        lines.insert(0, Tile(moment_text(older[0].start_ms), f"{count:,} older tiles", _events(older), ""))
    age = f"newest event {readable_duration(view.freshness_ms)} before" if view.freshness_ms >= 0 else view.state
    return Feature(
        name=one.name,
        value=value_text(one.value, one.type),
        meaning=one.meaning,
        status="refused" if one.status is None else one.status.name.replace("_", " ").lower(),
        freshness=age,
        read_up_to=", ".join(f"{at.topic}/{at.partition}:{at.next_offset}" for at in view.positions),
        windows=[_window(window, one.hop_ms) for window in one.windows[-WINDOWS_SHOWN_MAX:]],
        reads=[(read.name, value_text(read.value, read.type), read.meaning) for read in one.reads],
        tiles=lines,
    )


def _window(window: ExplainedWindow, hop_ms: int) -> str:
    begin = "since ever" if window.begin_ms is None else f"from {moment_text(window.begin_ms)}"
    grid = f", on a grid of {duration_words(hop_ms)}" if hop_ms > 1 else ""
    return f"{begin} to before {moment_text(window.end_ms)}{grid}"


def _width(tile: ExplainedTile) -> str:
    if tile.is_in_flight:
        return "in flight"
    return "event" if tile.is_event else duration_words(tile.end_ms - tile.start_ms)


def _events(tiles: Sequence[ExplainedTile]) -> str:
    counts = [tile.event_count for tile in tiles]
    return "" if None in counts else f"{sum(count or 0 for count in counts):,}"
