"""What a feature means, in one sentence: for whoever has to explain a value, and for every page that lists features.

    sum of amount in the transactions of a card_id over 7 days, exact to 1 h at the old end; only where NOT is_declined
    └ function ┘        └ source and entity ──────┘ └ window ──────────────────────────────┘  └ conditions ───────────┘

The words come from the compiled definition alone, all of it: two definitions that differ read differently.
"""

from __future__ import annotations

from featurestore.core.aggregations.catalog import phrase_of
from featurestore.core.spec import (
    REPLACE,
    CalendarUnit,
    Column,
    FeatureSpec,
    PlainViewSpec,
    SourceSpec,
    ViewSpec,
    Window,
)
from featurestore.core.windows.durations import duration_words
from featurestore.errors import InvariantBroken

_CALENDAR_WORDS = {
    CalendarUnit.DAY: "day",
    CalendarUnit.WEEK: "week",
    CalendarUnit.MONTH: "month",
    CalendarUnit.YEAR: "year",
}


def feature_sentence(view: ViewSpec | PlainViewSpec, name: str) -> str:
    """What a feature of a view means, without a full stop.

    Args:
        view: a valid view.
        name: of one of its features, windowed, derived or materialized.
    """
    if isinstance(view, PlainViewSpec):
        age = "" if view.ttl_ms is None else f", for {duration_words(view.ttl_ms)} after"
        return f"{name} of {_whose(view.join_keys)} as it was materialized{age}"
    for derived in view.derived:
        if derived.name == name:
            return f"{derived.expression}, of {_whose(view.join_keys)}, computed when it is read"
    for feature in view.features:
        if feature.name == name:
            return _windowed(view, feature)
    raise InvariantBroken(f'feature view "{view.name}" has no feature "{name}"')


def window_words(window: Window) -> str:
    """The span of events that a window covers.

    >>> window_words(Window(3_600_000, 60_000)), window_words(Window(None))
    ('over 1 h, exact to 1 min at the old end', 'over all time')
    """
    if window.length_ms is None:
        return "over all time"
    if window.calendar is not None:
        return f"since the {_CALENDAR_WORDS[window.calendar]} began in {window.timezone}"
    length, hop = duration_words(window.length_ms), duration_words(window.hop_ms)
    if window.gap_ms:
        gap = duration_words(window.gap_ms)
        return f"in the session that is open, with no silence longer than {gap}, of at most {length} to {hop}"
    ended = f" that ended {duration_words(window.offset_ms)} before" if window.offset_ms else ""
    if window.series:
        times = "windows" if window.series > 1 else "window"
        return f"in each of {window.series} {times} of {length} in a row{ended}, exact to {hop} at their ends"
    if window.offset_ms:
        return f"over the {length}{ended}, exact to {hop} at both ends"
    return f"over {length}, exact to {hop} at the old end"


def _windowed(view: ViewSpec, feature: FeatureSpec) -> str:
    """A feature that is kept in tiles."""
    text = f"{phrase_of(feature.function, feature.column)} {_events(view.source, view.join_keys)}"
    text += f" {window_words(feature.window)}"
    conditions = [one for one in (view.required, view.where, feature.where) if one]
    if conditions:
        text += (
            f"; only where {' AND '.join(conditions if len(conditions) == 1 else (f'({one})' for one in conditions))}"
        )
    if view.source.changes == REPLACE:
        text += "; an event that is sent again replaces what it was"
    elif view.source.changes:
        text += "; a row that is changed or deleted is taken back"
    elif view.undo:
        text += f"; where {view.undo} an event takes an earlier one back"
    return text


def _events(source: SourceSpec, join_keys: tuple[Column, ...]) -> str:
    """Which events count."""
    return f"in the {source.name} of {_whose(join_keys)}" if join_keys else f"in all {source.name}"


def _whose(join_keys: tuple[Column, ...]) -> str:
    """The entity."""
    names = [key.name for key in join_keys]
    return f"a {' and '.join(names)}" if names else "everybody"
