"""The payments example behind the stock Feast SDK, on a real store, at a standing clock: what its tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from featurestore.core.spec import RepoSpec, ValueType, ViewSpec
from featurestore.definitions.registry import read_compilation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import RedisStore
from featurestore.online.write.writer import ViewWriter
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue, naive_found, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS
from featurestore.testing.writers import open_writer

from feast import FeatureStore  # isort: skip  # after featurestore.definitions, which makes its import fast


PROJECT = "payments"
LANES = 4
NOW_MS = ANCHOR_MS + 100 * DAY_MS
NOW = datetime.fromtimestamp(NOW_MS / 1_000, UTC)
HOUR = timedelta(hours=1)
PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = 1, 2, 3, 4

PROFILE = ["merchant_category", "home_market", "is_online_only", "onboarded_days", "chargeback_share"]

Cell = tuple[Any, int, int]
"""Value, status and event time in ms."""


@dataclass(frozen=True)
class Stand:
    """An applied repo on an empty store, at a standing clock."""

    feast: FeatureStore
    store: RedisStore
    spec: RepoSpec
    clock: ManualClock
    repo: Path

    def writer(self, view_name: str) -> ViewWriter:
        """An open writer of a stream view."""
        catalog = GenerationCatalog(self.store, PROJECT)
        catalog.lane_count(LANES)
        view = self.view(view_name)
        return open_writer(self.store, catalog.register(view), LANES, self.clock)

    def stream(self, view_name: str, events: Sequence[NaiveEvent]) -> None:
        """Feed events to a stream view."""
        writer = self.writer(view_name)
        writer.write([keyed_batch(writer.generation.view, events, lane_count=LANES)])
        self.clock.advance_ms(1_000)  # the SDK looks for generations once a second
        self.clock.set_now_ms(NOW_MS)

    def view(self, name: str) -> ViewSpec:
        """A stream view's definition."""
        view = self.spec.view(name)
        assert view is not None
        return view

    def cells(self, features: Any, rows: list[dict[str, Any]], **options: Any) -> dict[str, list[Cell]]:
        """What the SDK answers, by feature, a cell for each row."""
        return cells_of(self.feast.get_online_features(features=features, entity_rows=rows, **options))


def stand_on(repo: Path, store: RedisStore) -> Stand:
    """The SDK with a standing clock."""
    feast, clock = FeatureStore(repo_path=str(repo)), ManualClock(now_ms=NOW_MS)
    feast._get_provider().online_store.clock = clock  # type: ignore[attr-defined]  # ours has one
    return Stand(feast, store, read_compilation(repo / "data" / "registry.db").spec, clock, repo)


def cells_of(response: Any) -> dict[str, list[Cell]]:
    """An answer of the SDK as cells."""
    answer = {}
    for name, vector in zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True):
        answer[name] = [
            (_python(value), status, stamp.seconds * 1_000 + stamp.nanos // 1_000_000)
            for value, status, stamp in zip(vector.values, vector.statuses, vector.event_timestamps, strict=True)
        ]
    return answer


def _python(value: Any) -> Any:
    kind = value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)


def write_profiles(repo: Path, rows: list[dict[str, Any]]) -> None:
    """The nightly merchant table."""
    frame = pd.DataFrame(rows, columns=["merchant_id", *PROFILE, "updated_at"])
    frame["onboarded_days"] = frame["onboarded_days"].astype("Int64")
    frame.to_parquet(repo / "data" / "merchants.parquet")


def profile(merchant_id: int | None, updated_at: datetime, **values: Any) -> dict[str, Any]:
    """A row of it."""
    row: dict[str, Any] = {
        "merchant_category": "food",
        "home_market": "SE",
        "is_online_only": False,
        "onboarded_days": 300,
        "chargeback_share": 0.25,
    }
    return {"merchant_id": merchant_id, **row, **values, "updated_at": updated_at}


def payments(count: int, *, key: bytes, step_ms: int = 3_333_333, prefix: bytes = b"p") -> list[NaiveEvent]:
    """Payments of one entity up to now, an odd step apart, with nulls, declines and refunds."""
    events = []
    for n in range(count):
        event_time_ms = NOW_MS - 1 - n * step_ms
        columns: dict[str, NaiveValue | None] = {
            "amount": None if n % 7 == 3 else (n * 37) % 5_000 - 100,
            "is_declined": n % 5 == 0,
            "is_refund": n % 11 == 0,
            "is_card_present": n % 2 == 0,
            "market": ("SE", "DE", None)[n % 3],
            "merchant_category": "food",
            "event_time": event_time_ms,
        }
        events.append(NaiveEvent(key, event_time_ms, b"%s-%d" % (prefix, n), columns))
    return events


def assert_equals_oracle(
    view: ViewSpec, answer: dict[str, list[Cell]], row: int, events: Sequence[NaiveEvent], as_of_ms: int
) -> None:
    """Every feature of a view in one row of an answer."""
    found = naive_found(view, events, as_of_ms)
    seen = [event for event in events if event.event_time_ms < as_of_ms] if found else []
    newest = max((event.event_time_ms for event in seen), default=0)
    for feature in view.features:
        expected = naive_value(feature, seen, as_of_ms)
        if isinstance(expected, int) and feature.type is ValueType.TIMESTAMP:
            expected = expected // 1_000
        value, status, event_time_ms = answer[feature.name][row]
        context = (feature, expected, value, status)
        assert agrees(expected, value, scale=magnitude(feature, events)), context
        assert status == (NOT_FOUND if not found else NULL_VALUE if expected is None else PRESENT), context
        assert newest == event_time_ms, context
