"""A small payments repo, its events, and a running server: what the serving tests share."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from featurestore.core.spec import (
    Column,
    FeatureReference,
    FeatureSpec,
    PlainViewSpec,
    RepoSpec,
    ServiceSpec,
    ValueType,
    ViewSpec,
    Window,
)
from featurestore.errors import InvalidRequest
from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import RedisStore
from featurestore.online.write.writer import ViewWriter
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE
from featurestore.testing.writers import open_writer
from featurestore.wire.codecs.plain_row import StoredValue, encode_values, stored_value
from featurestore.wire.entity_key import lane_of
from featurestore.wire.feast.protos import message_class
from featurestore.wire.store_layout import plain_key

PROJECT = "payments"
LANES = 4
HOUR_MS = 3_600_000
NOW_MS = ANCHOR_MS + 10 * DAY_MS

PAYMENT: dict[str, Any] = {
    "event_time": NOW_MS,
    "amount": 5_000,
    "price": 2.5,
    "market": "SE",
    "is_declined": True,
    "opened_at": NOW_MS - 400 * DAY_MS,
}
"""A payment of card c-1."""

_event_numbers = itertools.count()

HOUR, WEEK, LIFETIME = Window(HOUR_MS, 60_000), Window(7 * DAY_MS, HOUR_MS), Window(None)

CARD_ID = Column("card_id", ValueType.STRING)
MERCHANT_ID = Column("merchant_id", ValueType.INT64)


def windowed(function: str, column: str | None, window: Window, type_: ValueType) -> FeatureSpec:
    """A feature named as our helpers name it."""
    label = {HOUR: "1h", WEEK: "7d", LIFETIME: "lifetime"}[window]
    stem = function if column is None else f"{column}_{function}"
    return FeatureSpec(f"{stem}_{label}", function, column, window, type_)


CARD_ACTIVITY = ViewSpec(
    "card_activity",
    (CARD_ID,),
    SOURCE,
    (
        windowed("count", None, HOUR, ValueType.INT64),
        windowed("sum", "amount", HOUR, ValueType.INT64),
        windowed("mean", "amount", WEEK, ValueType.FLOAT64),
        windowed("stddev_pop", "amount", WEEK, ValueType.FLOAT64),
        windowed("last", "market", WEEK, ValueType.STRING),
        windowed("last", "is_declined", WEEK, ValueType.BOOL),
        windowed("max", "opened_at", WEEK, ValueType.TIMESTAMP),
    ),
    7 * DAY_MS,
)

MERCHANT_ACTIVITY = ViewSpec(
    "merchant_activity",
    (MERCHANT_ID,),
    SOURCE,
    (
        windowed("count", None, HOUR, ValueType.INT64),
        windowed("count", None, LIFETIME, ValueType.INT64),
        windowed("mean", "price", WEEK, ValueType.FLOAT64),
    ),
    None,
)

PAIR_ACTIVITY = ViewSpec(
    "pair_activity", (CARD_ID, MERCHANT_ID), SOURCE, (windowed("count", None, WEEK, ValueType.INT64),), 7 * DAY_MS
)

MERCHANT_PROFILE = PlainViewSpec(
    "merchant_profile",
    (MERCHANT_ID,),
    (
        Column("risk_tier", ValueType.STRING),
        Column("chargeback_rate", ValueType.FLOAT64),
        Column("onboarding_days", ValueType.INT64),
        Column("is_online", ValueType.BOOL),
        Column("opened_at", ValueType.TIMESTAMP),
    ),
    ttl_ms=30 * DAY_MS,
)

VIEWS: Mapping[str, ViewSpec | PlainViewSpec] = {
    view.name: view for view in (CARD_ACTIVITY, MERCHANT_ACTIVITY, PAIR_ACTIVITY, MERCHANT_PROFILE)
}


def references(*view_names: str, views: Mapping[str, ViewSpec | PlainViewSpec] = VIEWS) -> tuple[FeatureReference, ...]:
    """All features of some views, clashing names prefixed as the compiler does."""
    pairs = [(name, feature.name) for name in view_names for feature in views[name].features]
    names = [feature for _, feature in pairs]
    return tuple(
        FeatureReference(view, feature, f"{view}__{feature}" if names.count(feature) > 1 else feature)
        for view, feature in pairs
    )


FRAUD_DETECTION = ServiceSpec(
    "fraud_detection",
    references("card_activity", "merchant_activity", "merchant_profile", "pair_activity"),
    (CARD_ID, MERCHANT_ID),
)
MERCHANT_MONITORING = ServiceSpec("merchant_monitoring", references("merchant_activity"), (MERCHANT_ID,))

REPO = RepoSpec(
    PROJECT,
    (CARD_ACTIVITY, MERCHANT_ACTIVITY, PAIR_ACTIVITY),
    (MERCHANT_PROFILE,),
    (FRAUD_DETECTION, MERCHANT_MONITORING),
)


@dataclass
class RegistryInMemory:
    """A registry that a test can change and break."""

    repo: RepoSpec = REPO
    broken: bool = False
    version: Hashable = 0

    def stamp(self) -> Hashable:
        """Changes when the test changes something."""
        return self.version

    def read(self) -> RepoSpec:
        """The repo, unless it is broken."""
        if self.broken:
            raise InvalidRequest("the registry is broken on purpose")
        return self.repo

    def change(self, repo: RepoSpec | None = None, *, broken: bool = False) -> None:
        """Another repo, or a broken one."""
        self.repo, self.broken = repo or self.repo, broken
        self.version = object()


class Payments:
    """Writes events and profiles into a store as the flow and materialize do.

    Attributes:
        events: everything written, by view name and entity key.
    """

    def __init__(self, store: RedisStore, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.catalog = GenerationCatalog(store, PROJECT)
        self.catalog.lane_count(LANES)
        self.writers: dict[tuple[str, int], ViewWriter] = {}
        self.events: dict[tuple[str, bytes], list[NaiveEvent]] = {}
        self._offsets: dict[tuple[str, int], int] = {}

    def writer_of(self, generation: Generation) -> ViewWriter:
        """An open writer of all lanes."""
        key = (generation.view.name, generation.number)
        if key not in self.writers:
            writer = open_writer(self.store, generation, LANES, self.clock)
            self.writers[key] = writer
        return self.writers[key]

    def write(self, view: ViewSpec, events: Sequence[NaiveEvent]) -> Generation:
        """Fold events into the generation of this definition, making it if there is none."""
        generation = self.catalog.register(view)
        key = (view.name, generation.number)
        first = self._offsets.get(key, 0)
        self.writer_of(generation).write([keyed_batch(view, events, from_offset=first, lane_count=LANES)])
        self._offsets[key] = first + len(events)
        for event in events:
            self.events.setdefault((view.name, event.key), []).append(event)
        return generation

    def materialize(self, merchant_id: int, event_time_ms: int, values: Mapping[str, StoredValue]) -> None:
        """Write one merchant's profile."""
        entity_key = b"%d" % merchant_id
        key = plain_key(PROJECT, lane_of(entity_key, LANES), MERCHANT_PROFILE.name, entity_key)
        self.store.write_newer([(key, event_time_ms, encode_values(values), 0)])


def timestamp_value(seconds: int) -> StoredValue:
    """A timestamp as materialize stores it."""
    value: Any = message_class("feast.types.Value")
    stored = stored_value(value(unix_timestamp_val=seconds))
    assert stored is not None
    return stored


def event_of(
    key: bytes,
    event_time_ms: int,
    *,
    amount: int | None = 100,
    price: float | None = 1.5,
    market: str = "DE",
) -> NaiveEvent:
    """An event with an id of its own."""
    columns = {
        "amount": amount,
        "price": price,
        "market": market,
        "is_declined": event_time_ms % 2,
        "opened_at": event_time_ms - DAY_MS,
    }
    return NaiveEvent(key, event_time_ms, b"e-%d" % next(_event_numbers), columns)


def with_feature(view: ViewSpec, feature: FeatureSpec) -> ViewSpec:
    """The view, redefined with one feature more."""
    return replace(view, features=(*view.features, feature))


def code_name(failure: Any) -> str:
    """Status code of a failed call; every grpc.RpcError of a call is a grpc.Call too, which its type does not say."""
    name: str = failure.code().name
    return name
