"""What a server explains, as Python has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featurestore.online.answer.explaining.explanation import (
    CutKind,
    ExplainedCut,
    ExplainedFeature,
    ExplainedPosition,
    ExplainedTile,
    ExplainedValue,
    ExplainedView,
    ExplainedWindow,
    Explanation,
)
from featurestore.online.answer.schema import FeatureStatus
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.client.messages import EntityValues, Events, LookupBatch, RequestValues, make_request
from featurestore.serving.packed_columns import VALUE_TYPES


def explain_request(
    service: str,
    entities: Mapping[str, EntityValues],
    as_of_ms: int | None,
    features: Sequence[str],
    request: Mapping[str, RequestValues] | None,
    events: Events | None,
) -> pb.ExplainRequest:
    """Ask for one row of a feature service; see `LookupClient.explain`."""
    lookup = make_request(service, LookupBatch(entities, request, events), as_of_ms, with_metadata=False)
    return pb.ExplainRequest(lookup=lookup, features=features)


def parse_explanation(request: pb.ExplainRequest, response: pb.ExplainResponse) -> Explanation:
    """The answer to a request."""
    return Explanation(
        service=request.lookup.feature_service,
        entity=_entity(request.lookup.entities),
        as_of_ms=response.as_of_ms,
        refusal=response.refusal,
        views=tuple(map(_view, response.views)),
        features=tuple(map(_feature, response.features)),
        request=_map(response.request),
        events={event.source: _map(event.columns) for event in response.events},
    )


def _entity(columns: Sequence[pb.EntityColumn]) -> dict[str, str | int]:
    """The values of one row."""
    return {column.join_key: (column.strings or column.integers)[0] for column in columns}


def _view(view: pb.ExplainedView) -> ExplainedView:
    return ExplainedView(
        name=view.name,
        entity=_entity(view.entity),
        definition_hash=view.definition_hash,
        stored_as=view.stored_as,
        generation=view.generation,
        state=view.state,
        event_time_ms=view.event_time_ms,
        freshness_ms=view.freshness_ms,
        lookback_ms=view.lookback_ms,
        watermark_ms=view.checkpoint.watermark_ms,
        positions=tuple(ExplainedPosition(at.topic, at.partition, at.next_offset) for at in view.checkpoint.positions),
        tiles=tuple(map(_tile, view.tiles)),
    )


def _tile(tile: pb.ExplainedTile) -> ExplainedTile:
    return ExplainedTile(
        start_ms=tile.start_ms,
        end_ms=tile.end_ms,
        event_count=tile.event_count if tile.HasField("event_count") else None,
        merged=tile.merged,
        is_event=tile.is_event,
        is_in_flight=tile.is_in_flight,
        columns=_map(tile.columns),
    )


def _feature(feature: pb.ExplainedFeature) -> ExplainedFeature:
    return ExplainedFeature(
        name=feature.name,
        view=feature.view,
        feature=feature.feature,
        type=VALUE_TYPES[feature.type],
        meaning=feature.meaning,
        hop_ms=feature.hop_ms,
        value=_value(feature.value),
        status=FeatureStatus(feature.status) if feature.status else None,
        windows=tuple(map(_window, feature.windows)),
        partials=tuple(map(_value, feature.partials)),
        reads=tuple(map(_feature, feature.reads)),
        counts_event=feature.counts_event if feature.HasField("counts_event") else None,
    )


def _window(window: pb.ExplainedWindow) -> ExplainedWindow:
    cut = window.cut
    return ExplainedWindow(
        begin_ms=window.begin_ms if window.HasField("begin_ms") else None,
        end_ms=window.end_ms,
        first_tile=window.first_tile,
        end_tile=window.end_tile,
        cut=ExplainedCut(CutKind(cut.kind), cut.start_ms, cut.end_ms) if window.HasField("cut") else None,
    )


def _value(value: pb.ExplainedValue) -> ExplainedValue:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found: Any = getattr(value, kind)
    if kind == "map":
        return _map(found)  # type: ignore[return-value]  # of one type, as the feature is
    return [_value(one) for one in found.values] if kind == "list" else found  # type: ignore[return-value]  # likewise


def _map(values: pb.ExplainedMap) -> dict[str, ExplainedValue]:
    return {key: _value(value) for key, value in zip(values.keys, values.values, strict=True)}
