"""Why features have the values that a lookup answers: what was read, and what each value was merged from.

    explanation                      the service, the entity, the read time, and why it was refused, if it was
      views      card_activity       definition, generation, positions, freshness
        tiles      0 [09:00, 10:00) 12 events   1 [10:00, 10:15) 3 events   2 10:21:07.412 an event of the head
      features   card_amount_sum_1h  window, the tiles in it, the value over each of them, and the value over all

Server and client share these classes, so that a caller sees what the server saw.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from featurestore.core.spec import ValueType
from featurestore.online.answer.schema import Collection, FeatureStatus

ExplainedValue = int | float | str | bool | Collection | None
"""A value as Python has it; moments are integer milliseconds, maps are dicts, None is null."""


@dataclass(frozen=True, slots=True)
class ExplainedTile:
    """A tile of an entity, or one event of its head; or several tiles that are shown as one, as they are many.

    Attributes:
        start_ms, end_ms: span of event times, end excluded.
        event_count: events in it; None where the view keeps no count.
        merged: how many tiles of the store it stands for.
        is_event: whether it is one event by itself: the head still holds it so, or it is in flight.
        is_in_flight: whether the request brought it along.
        columns: of an event, what the store keeps of it, by column; "where ..." says whether a condition is true.
    """

    start_ms: int
    end_ms: int
    event_count: int | None
    merged: int
    is_event: bool
    columns: Mapping[str, ExplainedValue]
    is_in_flight: bool = False


class CutKind(enum.StrEnum):
    """Why tiles cannot tell what is in a window."""

    EDGE = "edge"
    """An edge of the window lies inside a tile."""
    DROPPED = "dropped"
    """The window begins before what was dropped, as no later read can reach it."""
    SESSION = "session"
    """A tile is so wide that it can hide the silence between two sessions."""


@dataclass(frozen=True, slots=True)
class ExplainedCut:
    """What makes a lookup refuse a moment.

    Attributes:
        kind: why.
        start_ms, end_ms: span of the tile in the way; of what was dropped, its end twice.
    """

    kind: CutKind
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class ExplainedWindow:
    """A window at the read time; a series has several.

    Attributes:
        begin_ms, end_ms: event times that count, end excluded; None for a window without a begin.
        first_tile, end_tile: range of the view's tiles that lie in it.
        cut: of a read that is refused, why tiles cannot tell what is in the window; None where they can.
    """

    begin_ms: int | None
    end_ms: int
    first_tile: int
    end_tile: int
    cut: ExplainedCut | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing that is stored lies in it."""
        return self.first_tile >= self.end_tile


@dataclass(frozen=True, slots=True)
class ExplainedFeature:
    """One feature of the answer, or one that a derived feature reads.

    Attributes:
        name: in the answer.
        view: index into the explanation's views.
        feature: its name within the view.
        type: of the value.
        meaning: what it is, in a sentence.
        hop_ms: grid of the window's old edge; 0 for none.
        value: what a lookup answers; None for null, and where it is refused.
        status: what stands behind it; None where the lookup is refused.
        windows: the window, or those of a series, oldest first; none for what is derived or materialized.
        partials: the feature's value over each tile of its windows alone, from the first of all to the last.
        reads: of a feature that is computed from others, derived or on demand, these.
        counts_event: whether the payment in flight is among the events that the value covers, or those of what it
            reads; None where the request brought none of its source.
    """

    name: str
    view: int
    feature: str
    type: ValueType
    meaning: str
    hop_ms: int
    value: ExplainedValue
    status: FeatureStatus | None
    windows: tuple[ExplainedWindow, ...] = ()
    partials: tuple[ExplainedValue, ...] = ()
    reads: tuple[ExplainedFeature, ...] = ()
    counts_event: bool | None = None

    @property
    def first_tile(self) -> int:
        """The tile of the first partial."""
        return min((window.first_tile for window in self.windows if not window.is_empty), default=0)

    @property
    def end_tile(self) -> int:
        """The tile behind that of the last partial."""
        return max((window.end_tile for window in self.windows if not window.is_empty), default=0)


@dataclass(frozen=True, slots=True)
class ExplainedPosition:
    """How far a partition had been read: everything before `next_offset` is in the tiles."""

    topic: str
    partition: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class ExplainedView:
    """A view behind the features.

    Attributes:
        name: the Feast view's name.
        entity: join key -> value.
        definition_hash: of the definition that answers; "" where none does, and for materialized views.
        stored_as: the storage group that holds it; its own name where it is stored apart.
        generation: number of the generation; 0 where none answers, and for materialized views.
        state: in a sentence, whether the entity is known, and if not, why.
        event_time_ms: newest event behind the values, 0 where there is none.
        freshness_ms: read time minus that, -1 where there is none.
        lookback_ms: reads down to so long before the entity's newest event are never refused.
        watermark_ms: newest event time that the entity's lane has seen; 0 for none.
        positions: how far the source had been read.
        tiles: what the windows of the features hold, ascending by start.
    """

    name: str
    entity: Mapping[str, str | int]
    definition_hash: str
    stored_as: str
    generation: int
    state: str
    event_time_ms: int
    freshness_ms: int
    lookback_ms: int
    watermark_ms: int
    positions: tuple[ExplainedPosition, ...]
    tiles: tuple[ExplainedTile, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a lookup of one row answers, and why.

    Attributes:
        service: the feature service.
        entity: join key -> value.
        as_of_ms: the read time.
        refusal: why the lookup is refused as a whole; "" where it is answered.
        views: those of the features.
        features: in answer order.
        request: columns of the request that features are computed from.
        events: by source, the columns of the payments in flight.
    """

    service: str
    entity: Mapping[str, str | int]
    as_of_ms: int
    refusal: str
    views: tuple[ExplainedView, ...]
    features: tuple[ExplainedFeature, ...]
    request: Mapping[str, ExplainedValue] = field(default_factory=dict)
    events: Mapping[str, Mapping[str, ExplainedValue]] = field(default_factory=dict)
