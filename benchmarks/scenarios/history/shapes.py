"""What the scenario "history" computes: a source, two sets of views, and its training set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from featurestore.core.spec import (
    Column,
    FeatureReference,
    FeatureSpec,
    RepoSpec,
    ServiceSpec,
    SourceSpec,
    ValueType,
    ViewSpec,
    Window,
)
from featurestore.offline.training_set.build import MEMORY_BYTES_DEFAULT, build_training_set
from featurestore.offline.training_set.histories import FileHistory, History

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
EXACT_HOP_MS = 1

SOURCE = SourceSpec(
    name="transactions",
    topic="transactions",
    columns=(
        Column("transaction_id", ValueType.STRING),
        Column("event_time", ValueType.TIMESTAMP),
        Column("card_id", ValueType.STRING),
        Column("merchant_id", ValueType.INT64),
        Column("terminal_id", ValueType.INT64),
        Column("amount", ValueType.INT64),
        Column("is_declined", ValueType.BOOL),
    ),
    event_time_column="event_time",
    event_id_column="transaction_id",
    dedup_horizon_ms=HOUR_MS,
)

FUNCTIONS = {
    "count": ValueType.INT64,
    "sum": ValueType.INT64,
    "mean": ValueType.FLOAT64,
    "max": ValueType.INT64,
    "stddev_pop": ValueType.FLOAT64,
}
WINDOWS_MS = (HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS)


def handbook_views() -> tuple[ViewSpec, ...]:
    """Count and mean of amount of cards; count and share of declined ones of terminals, delayed by seven days."""
    card, terminal = Column("card_id", ValueType.STRING), Column("terminal_id", ValueType.INT64)
    features = []
    for days in (1, 7, 30):
        window = Window(days * DAY_MS, EXACT_HOP_MS)
        features.append(FeatureSpec(f"card_count_{days}d", "count", None, window, ValueType.INT64))
        features.append(FeatureSpec(f"card_mean_{days}d", "mean", "amount", window, ValueType.FLOAT64))
    delayed = []
    for days in (1, 7, 30):
        window = Window(days * DAY_MS, EXACT_HOP_MS, 7 * DAY_MS)
        delayed.append(FeatureSpec(f"terminal_count_{days}d", "count", None, window, ValueType.INT64))
        delayed.append(FeatureSpec(f"terminal_share_{days}d", "mean", "is_declined", window, ValueType.FLOAT64))
    return _view("card", card, features), _view("terminal", terminal, delayed)


def wide_views() -> tuple[ViewSpec, ...]:
    """Five functions over four windows for each of three entities."""
    keys = (
        Column("card_id", ValueType.STRING),
        Column("merchant_id", ValueType.INT64),
        Column("terminal_id", ValueType.INT64),
    )
    return tuple(
        _view(
            key.name.removesuffix("_id"),
            key,
            [
                FeatureSpec(
                    f"{key.name.removesuffix('_id')}_{function}_{length_ms // HOUR_MS}h",
                    function,
                    None if function == "count" else "amount",
                    Window(length_ms, EXACT_HOP_MS),
                    value_type,
                )
                for length_ms in WINDOWS_MS
                for function, value_type in FUNCTIONS.items()
            ],
        )
        for key in keys
    )


def labels_of(events: pa.Table) -> pa.Table:
    """One label row for each distinct transaction, at its own time."""
    _, first = np.unique(events["transaction_id"].to_numpy(), return_index=True)
    keys = ["transaction_id", "card_id", "merchant_id", "terminal_id", "event_time"]
    return events.select(keys).take(pa.array(np.sort(first)))


def train(
    views: tuple[ViewSpec, ...],
    events: pa.Table | Path | History,
    labels: pa.Table,
    memory_bytes: int = MEMORY_BYTES_DEFAULT,
) -> pa.Table:
    """Our answer; events as `FileHistory` takes them, or another history."""
    references = tuple(FeatureReference(view.name, one.name, one.name) for view in views for one in view.features)
    repo = RepoSpec("benchmark", views, (), (ServiceSpec("all", references, ()),))
    history = FileHistory(events) if isinstance(events, pa.Table | Path) else events
    return build_training_set(
        repo, "all", labels, history=history, timestamp_column="event_time", memory_bytes=memory_bytes
    )


def _view(name: str, key: Column, features: list[FeatureSpec]) -> ViewSpec:
    return ViewSpec(name, (key,), SOURCE, tuple(features), 60 * DAY_MS)
