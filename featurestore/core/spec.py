"""Frozen descriptions of what to compute: the compiled form of a feature repo.

`definitions/` produces these from a Feast registry; stream, lookup and history only ever read them.
All durations are integer milliseconds. Names are as in the registry.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

HOP_LADDER_MS: tuple[int, ...] = (
    1_000,
    5_000,
    15_000,
    60_000,
    300_000,
    900_000,
    3_600_000,
    21_600_000,
    86_400_000,
)
"""Default hops, finest first: 1 s, 5 s, 15 s, 1 min, 5 min, 15 min, 1 h, 6 h, 1 d."""

HOPS_PER_WINDOW_MIN = 60
"""A default hop is at most 1/60 of its window: the worst tail error where the author set none."""

DEFAULT_LOOKBACK_MS = 60_000
"""Reads up to this far before an entity's newest event stay exact unless a view says otherwise."""

DEFAULT_MAX_FUTURE_MS = 300_000
"""An event dated further ahead of the clock than this is dead-lettered, not folded."""


class ValueType(enum.StrEnum):
    """Types of source columns, entity keys and features."""

    INT64 = "int64"
    FLOAT64 = "float64"
    STRING = "string"
    BOOL = "bool"
    TIMESTAMP = "timestamp"
    """Milliseconds UTC as an integer; on the wire of a source an ISO 8601 string or an integer."""


@dataclass(frozen=True, slots=True)
class Column:
    """A named, typed column of a source, an entity or a feature vector."""

    name: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class Window:
    """[floor(t - length, hop), t) without an offset, both edges floored with one (design: sawtooth).

    Attributes:
        length_ms: window length; None is lifetime, which has neither hop nor offset.
        hop_ms: grid of the tail, >= 1; 1 makes the window exact. 0 for lifetime.
        offset_ms: how far back the window ends, >= 0.
    """

    length_ms: int | None
    hop_ms: int = 0
    offset_ms: int = 0

    @property
    def reach_ms(self) -> int:
        """How far before the read time the window's oldest event can lie; 0 for lifetime."""
        if self.length_ms is None:
            return 0
        return self.length_ms + self.offset_ms + self.hop_ms


def default_hop_ms(length_ms: int) -> int:
    """The largest rung of the ladder that is at most 1/60 of the window and divides it; 1 ms when none does.

    >>> default_hop_ms(60_000), default_hop_ms(86_400_000), default_hop_ms(1_000)
    (1000, 900000, 1)
    """
    for rung in reversed(HOP_LADDER_MS):
        if rung * HOPS_PER_WINDOW_MIN <= length_ms and length_ms % rung == 0:
            return rung
    return 1


def presence_hop_ms(retention_ms: int) -> int:
    """Grid on which an entity is forgotten: the largest rung that is at most 1/60 of the retention, or 1 ms.

    It need not divide the retention: no window ends there, and a fine grid would keep old tiles from rolling up.
    """
    rungs = [rung for rung in HOP_LADDER_MS if rung * HOPS_PER_WINDOW_MIN <= retention_ms]
    return max(rungs, default=1)


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One windowed feature.

    Attributes:
        name: the Feast field's name.
        function: canonical text of the aggregation, such as "sum" (see core.aggregations.catalog).
        column: source column it reads; None counts rows.
        window: the span it covers.
        type: type of the answer.
    """

    name: str
    function: str
    column: str | None
    window: Window
    type: ValueType


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A stream of events and how to read one.

    Attributes:
        name: the Feast data source's name.
        topic: Kafka topic; also the name under which offsets are checkpointed.
        columns: the payload's columns, in the order of the source's schema.
        event_time_column: INT64 (epoch ms) or TIMESTAMP column with the event time.
        event_id_column: column whose value is unique per event; None turns de-duplication off.
        dedup_horizon_ms: how long (progress of its partition's event time) an id is remembered; 0 is off.
        max_future_ms: how far ahead of the clock an event may be dated.
        bootstrap_servers: Kafka's addresses; not part of the definition hash.
    """

    name: str
    topic: str
    columns: tuple[Column, ...]
    event_time_column: str
    event_id_column: str | None = None
    dedup_horizon_ms: int = 0
    max_future_ms: int = DEFAULT_MAX_FUTURE_MS
    bootstrap_servers: str = ""

    def column(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """One stream feature view: what is kept per entity key.

    Attributes:
        name: the Feast view's name.
        join_keys: typed join keys, in the order that forms the entity key.
        source: where its events come from.
        features: in the order of the view's aggregations, names unique.
        retention_ms: how long events matter; None keeps them for ever (a lifetime feature exists).
        lookback_ms: reads at any time >= newest event - lookback are exact.
    """

    name: str
    join_keys: tuple[Column, ...]
    source: SourceSpec
    features: tuple[FeatureSpec, ...]
    retention_ms: int | None
    lookback_ms: int = DEFAULT_LOOKBACK_MS


@dataclass(frozen=True, slots=True)
class PlainViewSpec:
    """A feature view that others materialize (a batch profile): stored by Feast, served beside ours.

    Attributes:
        name: the Feast view's name.
        join_keys: typed join keys, in the order of the view's entities.
        features: name and type of each field.
        ttl_ms: age after which a value is too old to serve; None never.
        tags: the view's tags.
    """

    name: str
    join_keys: tuple[Column, ...]
    features: tuple[Column, ...]
    ttl_ms: int | None = None


@dataclass(frozen=True, slots=True)
class FeatureReference:
    """A feature of a view as a service asks for it.

    Attributes:
        view: name of the view.
        feature: name of the feature within the view.
        output_name: name in the answer; "view__feature" where the plain name would clash.
    """

    view: str
    feature: str
    output_name: str


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A feature service: the ordered feature vector of one model.

    Attributes:
        name: the Feast service's name.
        features: in answer order.
        join_keys: union of its views' join keys, in order of first use.
    """

    name: str
    features: tuple[FeatureReference, ...]
    join_keys: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class RepoSpec:
    """A whole compiled registry.

    Attributes:
        project: Feast project name.
        views: windowed stream views, by name.
        plain_views: views that are materialized by Feast, by name.
        services: feature services, by name.
    """

    project: str
    views: tuple[ViewSpec, ...]
    plain_views: tuple[PlainViewSpec, ...]
    services: tuple[ServiceSpec, ...]

    def view(self, name: str) -> ViewSpec | None:
        """The stream view of that name, or None."""
        return next((view for view in self.views if view.name == name), None)

    def plain_view(self, name: str) -> PlainViewSpec | None:
        """The plain view of that name, or None."""
        return next((view for view in self.plain_views if view.name == name), None)

    def service(self, name: str) -> ServiceSpec | None:
        """The feature service of that name, or None."""
        return next((service for service in self.services if service.name == name), None)
