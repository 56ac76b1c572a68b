"""The small views of the simulated world, and what their author may change them into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from featurestore.core.spec import Column, FeatureSpec, SourceSpec, ValueType, ViewSpec, Window
from featurestore.testing.oracle.events import Conditions

HORIZON_MS = 60_000
"""How long ids are remembered: a minute, so that schedules go beyond it."""

MAX_FUTURE_MS = 60_000
RETENTION_MS = 600_000
KEYS = ("a", "b", "c", "d", "e")

SOURCE = SourceSpec(
    name="events",
    topic="events",
    columns=(
        Column("event_id", ValueType.STRING),
        Column("event_time", ValueType.TIMESTAMP),
        Column("card_id", ValueType.STRING),
        Column("amount", ValueType.INT64),
        Column("market", ValueType.STRING),
    ),
    event_time_column="event_time",
    event_id_column="event_id",
    dedup_horizon_ms=HORIZON_MS,
    max_future_ms=MAX_FUTURE_MS,
)


def windowed_view(minutes: int) -> ViewSpec:
    """Count, sum and last over minutes, kept for ten."""
    minute, longer = Window(60_000, 1_000), Window(minutes * 60_000, 5_000)
    features = (
        FeatureSpec("count_1m", "count", None, minute, ValueType.INT64),
        FeatureSpec("sum_longer", "sum", "amount", longer, ValueType.INT64),
        FeatureSpec("last_longer", "last", "market", longer, ValueType.STRING),
    )
    return ViewSpec("windowed", (Column("card_id", ValueType.STRING),), SOURCE, features, RETENTION_MS)


def lifetime_view(minutes: int) -> ViewSpec:
    """Count and sum of everything, and a window."""
    lifetime, window = Window(None), Window(minutes * 60_000, 15_000)
    features = (
        FeatureSpec("count_ever", "count", None, lifetime, ValueType.INT64),
        FeatureSpec("sum_ever", "sum", "amount", lifetime, ValueType.INT64),
        FeatureSpec("count_window", "count", None, window, ValueType.INT64),
    )
    return ViewSpec("lifetime", (Column("card_id", ValueType.STRING),), SOURCE, features, None)


def large_view(minutes: int) -> ViewSpec:
    """Count and last of large amounts only, so that an entity of others may not be one of the view."""
    window = Window(minutes * 60_000, 1_000)
    features = (
        FeatureSpec("count_large", "count", None, window, ValueType.INT64),
        FeatureSpec("last_large", "last", "amount", window, ValueType.INT64),
    )
    join_keys = (Column("card_id", ValueType.STRING),)
    return ViewSpec("large", join_keys, SOURCE, features, minutes * 120_000, where=LARGE)


LARGE = "amount > 50"

CONDITIONS: Conditions = {LARGE: lambda columns: isinstance(amount := columns["amount"], int) and amount > 50}
"""What the views' conditions mean, for the oracle."""

Definitions = Mapping[str, tuple[ViewSpec, ...]]
"""Each view's definitions, to change between."""

APART: Definitions = {
    "windowed": tuple(replace(windowed_view(minutes), is_apart=True) for minutes in (2, 3, 5)),
    "lifetime": tuple(replace(lifetime_view(minutes), is_apart=True) for minutes in (1, 4)),
}
"""Every view is stored by itself."""

TOGETHER: Definitions = {
    "windowed": (*map(windowed_view, (2, 3)), replace(windowed_view(3), is_apart=True)),
    "lifetime": tuple(map(lifetime_view, (1, 4))),
    "large": tuple(map(large_view, (2, 3))),
}
"""Views are one storage group; one of them is now and then wanted apart."""


def expecting_entities(definitions: Definitions, count: int) -> Definitions:
    """The same views, whose author says how many entities there will be, and now and then twice as many.

    Args:
        definitions: of the views.
        count: how many entities.
    """
    return {
        name: tuple(replace(view, expected_entities=number) for number in (count, 2 * count) for view in choices)
        for name, choices in definitions.items()
    }
