"""A row explained on a terminal of 80 columns: a block for each feature that was asked for, or a line for each."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from featurestore.cli.lookup.screen import moment_text, value_text
from featurestore.cli.narrow_table import narrow_table

if TYPE_CHECKING:
    from rich.console import Console

    from featurestore.cli.explain.case import Case
    from featurestore.offline.parity.recount import RecountedEvent, RecountedFeature
    from featurestore.online.answer.explaining.explanation import (
        ExplainedFeature,
        ExplainedTile,
        ExplainedView,
        ExplainedWindow,
    )

TILES_SHOWN_MAX = 6
"""Of a feature; the older ones are one line."""

EVENTS_SHOWN_MAX = 6
"""Of the event log; JSON has them all."""

WINDOWS_SHOWN_MAX = 3
"""Of a series, the newest."""

VALUE_CHARACTERS_MAX = 34

_LABEL_WIDTH = 12
_WIDTH_MAX = 100
"""Sentences are not spread over a wide terminal."""


def show(case: Case, *, in_detail: bool) -> None:
    """Print a row.

    Args:
        case: what is known of it.
        in_detail: a block for each feature; otherwise a line for each.
    """
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    explanation = case.explanation
    whose = ", ".join(f"{name}={value}" for name, value in explanation.entity.items())
    _say(console, f"{explanation.service} of {whose or 'everybody'} as of {moment_text(explanation.as_of_ms)}")
    if case.logged is not None:
        _say(console, f"asked by request {case.logged.request_id} row {case.logged.request_row}")
    if explanation.request:
        given = ", ".join(f"{name}={_short(value)}" for name, value in explanation.request.items())
        _say(console, f"with {given}")
    for source, columns in explanation.events.items():
        given = ", ".join(f"{name}={_short(value)}" for name, value in columns.items())
        _say(console, f"payment in flight of {source}: {given}")
    if explanation.refusal:
        _say(console, f"A lookup of this moment is refused: {explanation.refusal.splitlines()[0]}", style="red")
    if in_detail:
        for at in range(len(explanation.features)):
            console.print()
            _show_feature(console, case, at)
    else:
        _show_lines(console, case)
    if case.recount is not None:
        for uri, version in case.recount.event_logs.items():
            _say(console, f"event log {uri}, version {version}")


def _show_lines(console: Console, case: Case) -> None:
    """A table of all features, view by view."""
    explanation = case.explanation
    numbers = ["value"] if case.logged is None else ["logged", "store now"]
    numbers += ["tiles", "events"] if case.recount is None else ["recount"]
    for number, view in enumerate(explanation.views):
        console.print()
        _say(console, _title(view), style="italic")
        table = narrow_table("", texts=("feature",), numbers=numbers)
        for at, feature in enumerate(explanation.features):
            if feature.view == number:
                table.add_row(feature.name, *_cells(case, at))
        console.print(table)
        _field(console, "entity", _freshness(view))
    if explanation.features:
        console.print()
        _say(console, f"more: --feature {explanation.features[0].name}")


def _cells(case: Case, at: int) -> Iterator[str]:
    """The figures of one feature's line."""
    feature = case.explanation.features[at]
    if case.logged is not None:
        cell = case.logged_cell(at)
        yield "?" if cell is None else _short(cell.value)
    yield _value(feature)
    if case.recount is not None:
        recounted = case.recounted(at)
        yield "?" if recounted is None else "agrees" if recounted.agrees else _short(recounted.at_positions)
        return
    tiles = case.explanation.views[feature.view].tiles[feature.first_tile : feature.end_tile]
    counts = [tile.event_count for tile in tiles]
    yield f"{sum(tile.merged for tile in tiles):,}" if feature.windows else "-"
    yield "-" if None in counts or not feature.windows else f"{sum(count or 0 for count in counts):,}"


def _show_feature(console: Console, case: Case, at: int) -> None:
    """Everything about one feature."""
    feature = case.explanation.features[at]
    view = case.explanation.views[feature.view]
    status = "refused" if feature.status is None else feature.status.name
    value = repr(feature.value) if isinstance(feature.value, float) else _value(feature)
    _say(console, f"{feature.name} = {value}  ({status})", style="bold")
    _say(console, feature.meaning, indent="  ")
    for window in feature.windows[-WINDOWS_SHOWN_MAX:]:
        _field(console, "window", _window(window, feature.hop_ms))
        if window.cut is not None:
            _field(console, "", _cut(window))
    if len(feature.windows) > WINDOWS_SHOWN_MAX:
        _field(console, "", f"and {len(feature.windows) - WINDOWS_SHOWN_MAX} older windows of the series")
    if feature.counts_event is not None:
        _field(console, "in flight", "the payment counts" if feature.counts_event else "the payment does not count")
    for read in feature.reads:
        _field(console, "reads", f"{read.name} = {_value(read)}: {read.meaning}")
    _field(console, "of", _title(view))
    _field(console, "entity", _freshness(view))
    if view.positions:
        _field(console, "read up to", ", ".join(f"{at.topic}/{at.partition}:{at.next_offset}" for at in view.positions))
    cell = case.logged_cell(at)
    if case.logged is not None:
        _field(console, "logged", "this feature was not" if cell is None else f"{_short(cell.value)} was answered then")
    recounted = case.recounted(at)
    if case.recount is not None:
        _field(console, "recount", _recount(case, view, recounted))
    tiles = view.tiles[feature.first_tile : feature.end_tile]
    if tiles:
        _show_tiles(console, feature, tiles)
    events = case.events_in(at)
    if events is not None:
        _show_events(console, events)


def _show_tiles(console: Console, feature: ExplainedFeature, tiles: tuple[ExplainedTile, ...]) -> None:
    """The newest tiles with the feature's value over each; older ones in a line."""
    table = narrow_table("", texts=("merged from (UTC)", "wide"), numbers=("events", "value over it"))
    hidden = max(len(tiles) - TILES_SHOWN_MAX, 0)
    if hidden:
        older = tiles[:hidden]
        begin = _time(older[0].start_ms)
        table.add_row(f"{begin} and {sum(tile.merged for tile in older) - 1:,} more", "", _count(older), "...")
    for tile, share in zip(tiles[hidden:], feature.partials[hidden:], strict=True):
        width = "in flight" if tile.is_in_flight else "event" if tile.is_event else _width(tile.end_ms - tile.start_ms)
        table.add_row(_time(tile.start_ms), width, _count((tile,)), _short(share))
    console.print()
    console.print(table)
    newest = tiles[-1]
    if newest.is_event:
        kept = ", ".join(f"{name}={value_text(value)}" for name, value in newest.columns.items())
        _field(console, "newest", kept)


def _show_events(console: Console, events: list[RecountedEvent]) -> None:
    """The newest events of the event log in the feature's windows."""
    console.print()
    counted = sum(not event.is_repeat for event in events)
    _say(console, f"{counted:,} events in the event log; the newest:" if events else "no event in the event log")
    table = narrow_table("", texts=("happened (UTC)", "read from"), numbers=())
    table.add_column("what the view reads of it", overflow="fold")
    for event in events[-EVENTS_SHOWN_MAX:]:
        notes = ["repeat"] if event.is_repeat else []
        notes += [] if event.is_applied else ["after the read"]
        columns = [f"{name}={value_text(value)}" for name, value in event.columns.items()]
        place = f"{event.topic}/{event.partition}:{event.offset}"
        table.add_row(_time(event.event_time_ms), place, ", ".join([*notes, *columns]))
    if events:
        console.print(table)


def _recount(case: Case, view: ExplainedView, recounted: RecountedFeature | None) -> str:
    """What the event log says of a value, in a sentence."""
    assert case.recount is not None
    if recounted is None:
        return "not possible: the view is materialized, or not registered like this any more"
    value = _short(recounted.at_positions)
    if recounted.at_positions != recounted.recomputed:
        value += f" from what had been read, {_short(recounted.recomputed)} from all events"
    other = "; another definition answered than is registered" if view.name in case.recount.other_definitions else ""
    verdict = recounted.verdict or "nothing was answered to compare it with"
    return f"{value}: {'agrees' if verdict == 'equal' else verdict}{other}"


def _title(view: ExplainedView) -> str:
    """A view, where it is stored, and which definition of it answers."""
    if not view.generation:
        return view.name
    stored = "" if view.stored_as == view.name else f", stored in {view.stored_as}"
    return f"{view.name}{stored}, generation {view.generation}, definition {view.definition_hash[:8]}"


def _freshness(view: ExplainedView) -> str:
    """Whether the entity is known, and its newest event."""
    from featurestore.core.windows.durations import readable_duration

    whose = ", ".join(f"{name}={value}" for name, value in view.entity.items()) or "everybody"
    if view.freshness_ms < 0:
        return f"{whose}: {view.state}"
    newest = f"newest event {_time(view.event_time_ms)}, {readable_duration(view.freshness_ms)} before"
    return f"{whose}: {view.state}; {newest}"


def _window(window: ExplainedWindow, hop_ms: int) -> str:
    """Its edges."""
    from featurestore.core.windows.durations import duration_words

    begin = "since ever" if window.begin_ms is None else f"from {_time(window.begin_ms)}"
    grid = f", on a grid of {duration_words(hop_ms)}" if hop_ms > 1 else ""
    return f"{begin} until just before {_time(window.end_ms)}{grid}"


def _cut(window: ExplainedWindow) -> str:
    """Why a window is refused."""
    cut = window.cut
    assert cut is not None
    if cut.kind == "dropped":
        return f"refused: it begins before {_time(cut.start_ms)}, before which all was dropped"
    tile = f"the tile {_time(cut.start_ms)} to {_time(cut.end_ms)}, {_width(cut.end_ms - cut.start_ms)} wide,"
    if cut.kind == "session":
        return f"refused: {tile} can hide the silence between two sessions"
    return f"refused: {tile} reaches across an edge of the window"


def _value(feature: ExplainedFeature) -> str:
    """A value for people."""
    from featurestore.core.spec import ValueType

    if feature.type is ValueType.TIMESTAMP and isinstance(feature.value, int):
        return _time(feature.value)
    return "refused" if feature.status is None else _short(feature.value)


def _short(value: object) -> str:
    """A value in one line."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float) and 0 < abs(value) < 1:
        return f"{value:.4g}"
    text = value_text(value).replace("\n", ", ")  # type: ignore[arg-type]  # anything that a feature can be
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 4] + " ..."


def _count(tiles: tuple[ExplainedTile, ...]) -> str:
    """Events in some tiles."""
    counts = [tile.event_count for tile in tiles]
    return "-" if None in counts else f"{sum(count or 0 for count in counts):,}"


def _time(moment_ms: int) -> str:
    """A moment, without the zone that the heading names; milliseconds where there are some."""
    moment = datetime.fromtimestamp(0, tz=UTC) + timedelta(milliseconds=moment_ms)
    precision = "milliseconds" if moment_ms % 1_000 else "seconds"
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec=precision)


def _width(duration_ms: int) -> str:
    """How wide a tile is; a lifetime's tile has an odd width."""
    from featurestore.core.windows.durations import duration_words, readable_duration

    words = duration_words(duration_ms)
    return words if words.count(" ") <= 1 else readable_duration(duration_ms)


def _field(console: Console, label: str, text: str) -> None:
    """A label and a sentence, indented where it goes on."""
    _say(console, text, indent=f"  {label:<{_LABEL_WIDTH}}")


def _say(console: Console, text: str, *, indent: str = "", style: str | None = None) -> None:
    """Lines that fit, the later ones below the first one's text."""
    width = min(console.width, _WIDTH_MAX)
    lines = textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=" " * len(indent), break_on_hyphens=False
    )
    console.print(lines, style=style, soft_wrap=True)
