"""FeatureLookup.Explain: one row as a lookup answers it, and why.

ExplainRequest -> the lookup, with a witness of what was read -> online.answer.explaining.explainer -> ExplainResponse
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from featurestore.clock import Deadline
from featurestore.errors import AsOfTooOld, InvalidRequest
from featurestore.online.answer.assembly import Answer, DistinctReads
from featurestore.online.answer.explaining.explainer import AnsweredRow, chosen_features, explain
from featurestore.online.answer.explaining.explanation import (
    ExplainedFeature,
    ExplainedTile,
    ExplainedValue,
    ExplainedView,
    ExplainedWindow,
)
from featurestore.online.answer.in_flight.payments import InFlight
from featurestore.online.read.reader import EntityBytes, PlainBytes
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.catalog.catalog import CatalogSource
from featurestore.serving.lookup import FeatureLookup
from featurestore.serving.packed_columns import PACKED_TYPES
from featurestore.serving.request.steps import LongWork, Steps
from featurestore.serving.services.packed import entities_of, events_of, request_columns_of


class ExplainService:
    """The method.

    Args:
        catalog: what can be served.
        lookup: the lookup itself.
    """

    def __init__(self, catalog: CatalogSource, lookup: FeatureLookup) -> None:
        self._catalog = catalog
        self._lookup = lookup

    def explain(self, request: pb.ExplainRequest, deadline: Deadline) -> Steps[pb.ExplainResponse]:
        """Why a lookup of one row answers what it answers.

        Raises:
            FeatureStoreError: see `FeatureLookup.answer`; also an unknown feature service or feature. A moment that the
                tiles cannot answer is no error here.
        """
        asked = request.lookup
        snapshot = self._catalog.snapshot()
        plan = snapshot.plan_of_service(asked.feature_service)
        chosen_features(plan, request.features)  # before the store is asked
        entities = entities_of(asked.entities)
        if any(len(values) > 1 for values in entities.values()):
            raise InvalidRequest("the request has several rows", hint="have one row explained at a time")
        columns = request_columns_of(asked.columns)
        witness, answer, refusal = _Witness(), None, ""
        try:
            answer = yield from self._lookup.answer(
                snapshot.reader,
                plan,
                entities,
                deadline=deadline,
                as_of_ms=asked.as_of_ms,
                with_checkpoint=True,
                request_columns=columns,
                events=events_of(asked.events),
                witness=witness,
            )
        except AsOfTooOld as error:
            refusal = str(error)
        row = AnsweredRow(
            plan,
            snapshot.repo,
            snapshot.serving,
            {name: values[0] for name, values in entities.items()},
            witness.read.reads,
            witness.read.found,
            witness.read.as_of_ms,
            witness.stored,
            answer,
            refusal,
            {name: cast(ExplainedValue, values[0]) for name, values in columns.items() if len(values)},
            witness.read.in_flight,
        )
        yield LongWork()
        deadline.remaining_ms("the explanation")
        explanation = explain(row, request.features)
        return pb.ExplainResponse(
            as_of_ms=explanation.as_of_ms,
            refusal=explanation.refusal,
            views=map(_view, explanation.views),
            features=map(_feature, explanation.features),
            request=_map(explanation.request),
            events=[pb.ExplainedEvent(source=name, columns=_map(one)) for name, one in explanation.events.items()],
        )


@dataclass(frozen=True, slots=True)
class _Read:
    """What a lookup read of the store, the moment that it is answered as of, and the payment in flight."""

    reads: DistinctReads
    found: Sequence[EntityBytes | PlainBytes]
    as_of_ms: int
    in_flight: InFlight | None


class _Witness:
    """Keeps what a lookup read: of one row, before it is answered or refused."""

    read: _Read
    stored: Answer | None = None

    def saw(
        self,
        reads: DistinctReads,
        found: Sequence[EntityBytes | PlainBytes],
        as_of_ms: tuple[int, ...],
        in_flight: InFlight | None,
    ) -> None:
        """See `ReadWitness`."""
        self.read = _Read(reads, found, as_of_ms[0], in_flight)

    def answered(self, stored: Answer) -> None:
        """See `ReadWitness`."""
        self.stored = stored


def _view(view: ExplainedView) -> pb.ExplainedView:
    """A view as its message."""
    positions = [
        pb.SourcePosition(topic=at.topic, partition=at.partition, next_offset=at.next_offset) for at in view.positions
    ]
    return pb.ExplainedView(
        name=view.name,
        entity=[_key(name, value) for name, value in view.entity.items()],
        definition_hash=view.definition_hash,
        stored_as=view.stored_as,
        generation=view.generation,
        state=view.state,
        event_time_ms=view.event_time_ms,
        freshness_ms=view.freshness_ms,
        lookback_ms=view.lookback_ms,
        checkpoint=pb.LaneCheckpoint(watermark_ms=view.watermark_ms, positions=positions),
        tiles=map(_tile, view.tiles),
    )


def _key(name: str, value: str | int) -> pb.EntityColumn:
    """One join key."""
    if isinstance(value, str):
        return pb.EntityColumn(join_key=name, strings=[value])
    return pb.EntityColumn(join_key=name, integers=[value])


def _tile(tile: ExplainedTile) -> pb.ExplainedTile:
    """A tile as its message."""
    return pb.ExplainedTile(
        start_ms=tile.start_ms,
        end_ms=tile.end_ms,
        event_count=tile.event_count,
        merged=tile.merged,
        is_event=tile.is_event,
        is_in_flight=tile.is_in_flight,
        columns=_map(tile.columns),
    )


def _feature(feature: ExplainedFeature) -> pb.ExplainedFeature:
    """A feature as its message."""
    return pb.ExplainedFeature(
        name=feature.name,
        view=feature.view,
        feature=feature.feature,
        type=PACKED_TYPES[feature.type],
        meaning=feature.meaning,
        hop_ms=feature.hop_ms,
        value=_value(feature.value),
        status=pb.FeatureStatus.FEATURE_STATUS_UNSPECIFIED if feature.status is None else int(feature.status),  # type: ignore[arg-type]  # an enum's number
        windows=map(_window, feature.windows),
        partials=map(_value, feature.partials),
        reads=map(_feature, feature.reads),
        counts_event=feature.counts_event,
    )


def _window(window: ExplainedWindow) -> pb.ExplainedWindow:
    """A window as its message."""
    cut = window.cut
    return pb.ExplainedWindow(
        begin_ms=window.begin_ms,
        end_ms=window.end_ms,
        first_tile=window.first_tile,
        end_tile=window.end_tile,
        cut=None if cut is None else pb.ExplainedCut(kind=cut.kind, start_ms=cut.start_ms, end_ms=cut.end_ms),
    )


def _value(value: Any) -> pb.ExplainedValue:
    """A value as its message; a flag is an integer to Python, so it comes first."""
    if value is None:
        return pb.ExplainedValue()
    if isinstance(value, bool):
        return pb.ExplainedValue(flag=value)
    if isinstance(value, int):
        return pb.ExplainedValue(integer=value)
    if isinstance(value, float):
        return pb.ExplainedValue(number=value)
    if isinstance(value, str):
        return pb.ExplainedValue(text=value)
    if isinstance(value, Mapping):
        return pb.ExplainedValue(map=_map(value))
    return pb.ExplainedValue(list=pb.ExplainedList(values=map(_value, value)))


def _map(values: Mapping[str, ExplainedValue]) -> pb.ExplainedMap:
    """Keys and values, in their order."""
    return pb.ExplainedMap(keys=values.keys(), values=map(_value, values.values()))
