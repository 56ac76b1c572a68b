"""Histories, labels and repos for the tests of training sets."""

from __future__ import annotations

from collections.abc import Sequence

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
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.wire.entity_key import decode_key

HOUR_MS = 3_600_000
NOON_MS = 1_767_268_800_000
"""2026-01-01T12:00:00Z."""

SOURCE = SourceSpec(
    name="payments",
    topic="payments",
    columns=(
        Column("payment_id", ValueType.STRING),
        Column("paid_at", ValueType.TIMESTAMP),
        Column("card", ValueType.STRING),
        Column("shop", ValueType.INT64),
        Column("amount", ValueType.INT64),
        Column("market", ValueType.STRING),
    ),
    event_time_column="paid_at",
    event_id_column="payment_id",
    dedup_horizon_ms=HOUR_MS,
)

COUNT = FeatureSpec("count_1h", "count", None, Window(HOUR_MS, 60_000), ValueType.INT64)
SUM = FeatureSpec("amount_1h", "sum", "amount", Window(HOUR_MS, 60_000), ValueType.INT64)
LAST = FeatureSpec("market_last", "last", "market", Window(None), ValueType.STRING)
LARGE = FeatureSpec("large_1h", "count", None, Window(HOUR_MS, 60_000), ValueType.INT64, where="amount > 100")

CARD = ViewSpec("card", (Column("card", ValueType.STRING),), SOURCE, (COUNT, SUM, LAST, LARGE), None)
PAIR = ViewSpec(
    "pair",
    (Column("card", ValueType.STRING), Column("shop", ValueType.INT64)),
    SOURCE,
    (FeatureSpec("pair_count", "count", None, Window(None), ValueType.INT64),),
    None,
)


def repo_of(*views: ViewSpec) -> RepoSpec:
    """A repo with one service, "all", of all features of its views."""
    references = tuple(
        FeatureReference(view.name, column.name, column.name) for view in views for column in view.answers
    )
    keys = {key.name: key for view in views for key in view.join_keys}
    return RepoSpec("tests", views, (), (ServiceSpec("all", references, tuple(keys.values())),))


def payments(*rows: tuple[str, int, str | None, int | None, int | None, str | None]) -> pa.Table:
    """A history: id, milliseconds after noon, card, shop, amount, market."""
    columns = list(zip(*rows, strict=True))
    return pa.table(
        {
            "payment_id": pa.array(columns[0], pa.string()),
            "paid_at": pa.array([NOON_MS + at for at in columns[1]], pa.timestamp("ms", tz="UTC")),
            "card": pa.array(columns[2], pa.string()),
            "shop": pa.array(columns[3], pa.int64()),
            "amount": pa.array(columns[4], pa.int64()),
            "market": pa.array(columns[5], pa.string()),
        }
    )


def history_table(view: ViewSpec, events: Sequence[NaiveEvent]) -> pa.Table:
    """Naive events as a history of the view's source, in their order."""
    source = view.source
    rows: dict[str, list[object]] = {column.name: [] for column in source.columns}
    for event in events:
        keys = {key.name: part for key, part in zip(view.join_keys, decode_key(event.key, view.join_keys), strict=True)}
        for column in source.columns:
            value: object = keys.get(column.name, event.columns.get(column.name))
            if column.name == source.event_time_column:
                value = event.event_time_ms
            elif column.name == source.event_id_column:
                value = None if event.event_id is None else event.event_id.decode()
            elif column.type is ValueType.BOOL and value is not None:
                value = bool(value)
            rows[column.name].append(value)
    return pa.table(
        {column.name: pa.array(rows[column.name], type=ARROW_TYPES[column.type]) for column in source.columns}
    )


def plain_values(column: pa.ChunkedArray, value_type: ValueType) -> list[object]:
    """A feature of a training set as the oracle gives it: flags and moments are integers, maps are dictionaries."""
    if value_type in (ValueType.BOOL, ValueType.TIMESTAMP):
        return list(column.cast(pa.int64()).to_pylist())
    values = column.to_pylist()
    if value_type in (ValueType.INT64_MAP, ValueType.FLOAT64_MAP):
        return [None if value is None else dict(value) for value in values]
    return list(values)
