"""The packed API's methods as JSON: named columns in, named values and statuses out.

    body -> LookupRequest -> services.packed -> matrices -> {"features": {name: {"values": [...], "statuses": [...]}}}

JSON has one kind of number. Integers keep all their 64 bits, which some readers (JavaScript's) do not. NaN and infinity
have no word in JSON: they are null beside the status PRESENT, and no other value is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from featurestore.clock import Deadline
from featurestore.core.spec import ValueType
from featurestore.errors import InvalidRequest
from featurestore.online.answer.assembly import Answer
from featurestore.online.answer.schema import FeatureSlot, FeatureStatus, Matrix, ServiceSchema
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.request.steps import Steps
from featurestore.serving.services.packed import FRESHNESS_UNKNOWN_MS, PackedService, view_metadata

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

JsonValue = bool | int | float | str | list[Any] | dict[str, Any] | None
"""A feature's value: of a list feature an array, of a map feature an object; null see above."""

StatusName = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "NOT_READY", "OUTSIDE_MAX_AGE"]
TypeName = Literal[
    "INT64",
    "FLOAT64",
    "STRING",
    "BOOL",
    "TIMESTAMP",
    "INT64_LIST",
    "FLOAT64_LIST",
    "STRING_LIST",
    "INT64_MAP",
    "FLOAT64_MAP",
]


class EventsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payment in flight: for each row one event of a source, which counts as if it had been committed already.

    Attributes:
        source: name of the source, as the views name it.
        columns: of the source, event time included; a value for each row.
    """

    source: str
    columns: dict[str, list[bool | Int64 | float | str | None]]


class LookupBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lookup of N rows.

    Attributes:
        entities: every join key of the feature service, N values each.
        as_of_ms: milliseconds since 1970, UTC: nothing for the server's clock, one read time for all rows, or N.
        include_metadata: also answer `views`.
        columns: what request-time features of the service read, N values each.
        events: payments in flight, at most one object for each source.
    """

    entities: dict[str, list[Int64 | str]] = {}
    as_of_ms: Int64 | list[Int64] | None = None
    include_metadata: bool = False
    columns: dict[str, list[bool | Int64 | float | str | None]] = {}
    events: list[EventsBody] = []


class FeatureColumn(msgspec.Struct, frozen=True):
    """One feature, a value and a status for each row.

    Attributes:
        values: null where there is none; NaN and infinity, which JSON cannot say, are null beside the status PRESENT.
        statuses: what stands behind each value.
    """

    values: list[JsonValue]
    statuses: list[StatusName]


class Position(msgspec.Struct, frozen=True):
    """How far a partition had been read: everything before `next_offset` is in the answer."""

    topic: str
    partition: int
    next_offset: int


class Checkpoint(msgspec.Struct, frozen=True):
    """What one lane of the store had seen when the answer was read.

    Attributes:
        watermark_ms: newest event time that the lane has seen.
        positions: of its sources.
    """

    watermark_ms: int
    positions: list[Position]


class ViewColumn(msgspec.Struct, frozen=True):
    """What is known of one view's values.

    Attributes:
        event_time_ms: for each row the newest event before its read time; null where there is none.
        freshness_ms: read time minus event time; null where there is no event.
        checkpoints: how far the sources had been read; empty for views that are materialized.
        checkpoint_index: for each row, index into `checkpoints`; empty when that is.
    """

    event_time_ms: list[int | None]
    freshness_ms: list[int | None]
    checkpoints: list[Checkpoint]
    checkpoint_index: list[int]


class LookupAnswer(msgspec.Struct, frozen=True):
    """N rows of a feature service.

    Attributes:
        feature_service: its name.
        schema_id: changes when names or types of the features do; digits, as it needs all of 64 bits.
        row_count: N.
        as_of_ms: the read time that was used: one, or N where N were asked for.
        features: by name, in the service's order.
        views: by name, if `include_metadata` was asked for.
    """

    feature_service: str
    schema_id: str
    row_count: int
    as_of_ms: list[int]
    features: dict[str, FeatureColumn]
    views: dict[str, ViewColumn] | msgspec.UnsetType = msgspec.UNSET


class ServiceSummary(msgspec.Struct, frozen=True):
    """A registered feature service."""

    name: str
    join_keys: list[str]
    feature_count: int


class ServiceList(msgspec.Struct, frozen=True):
    """Every registered feature service."""

    services: list[ServiceSummary]


class JoinKey(msgspec.Struct, frozen=True):
    """A column that a lookup must give."""

    name: str
    type: Literal["INT64", "STRING"]


class Feature(msgspec.Struct, frozen=True):
    """A feature of a service.

    Attributes:
        name: in the answer.
        type: of its values; TIMESTAMP is milliseconds since 1970, UTC.
        view: where it is defined.
        zero_when_not_found: the value beside the status NOT_FOUND is 0 (of a series: a list), instead of null.
    """

    name: str
    type: TypeName
    view: str
    zero_when_not_found: bool


class View(msgspec.Struct, frozen=True):
    """A view behind the features.

    Attributes:
        name: the feature view's.
        definition_hash: of the definition that answers now; empty for materialized views and those not yet filled.
    """

    name: str
    definition_hash: str


class RequestColumn(msgspec.Struct, frozen=True):
    """A column of a request; TIMESTAMP is milliseconds since 1970, UTC."""

    name: str
    type: Literal["INT64", "FLOAT64", "STRING", "BOOL", "TIMESTAMP"]


class EventSource(msgspec.Struct, frozen=True):
    """A source of which a request may bring a payment in flight.

    Attributes:
        name: of the source.
        event_time_column: which of the columns is the payment's time, and so the read time.
        columns: those that features of the service read.
    """

    name: str
    event_time_column: str
    columns: list[RequestColumn]


class ServiceDescription(msgspec.Struct, frozen=True):
    """Names and types of a feature service's answer, in its order, and of what a request may bring.

    Attributes:
        feature_service: its name.
        schema_id: changes when names or types of the features do; digits, as it needs all of 64 bits.
        join_keys: what a lookup must give.
        features: in the order of the answer.
        views: behind the features.
        request_columns: what features that are computed on demand read of a request.
        event_sources: of which a request may bring the payment in flight.
    """

    feature_service: str
    schema_id: str
    join_keys: list[JoinKey]
    features: list[Feature]
    views: list[View]
    request_columns: list[RequestColumn]
    event_sources: list[EventSource]


class JsonService:
    """The packed API's methods as JSON.

    Args:
        packed: answers them.
    """

    def __init__(self, packed: PackedService) -> None:
        self._packed = packed

    def lookup(self, request: pb.LookupRequest, deadline: Deadline) -> Steps[LookupAnswer]:
        """Feature vectors of the request's rows.

        Raises:
            FeatureStoreError: see `PackedService.answer`.
        """
        schema, answer = yield from self._packed.answer(request, deadline)
        views = named_views(schema, answer) if request.include_metadata else msgspec.UNSET
        return LookupAnswer(
            schema.service,
            str(schema.schema_id),
            answer.row_count,
            list(answer.as_of_ms),
            named_features(schema, answer),
            views,
        )

    def describe(self, name: str, deadline: Deadline) -> ServiceDescription:
        """Names and types of a feature service's features.

        Raises:
            FeatureStoreError: see `PackedService.describe`.
        """
        found = self._packed.describe(pb.DescribeFeatureServiceRequest(feature_service=name), deadline)
        views = [View(view.name, view.definition_hash) for view in found.views]
        keys: list[Any] = [JoinKey(key.name, _type_name(key.type)) for key in found.join_keys]
        features = [
            Feature(each.name, _type_name(each.type), views[each.view].name, each.zero_when_not_found)
            for each in found.features
        ]
        sources = [
            EventSource(each.name, each.event_time_column, _request_columns(each.columns))
            for each in found.event_sources
        ]
        return ServiceDescription(
            found.feature_service,
            str(found.schema_id),
            keys,
            features,
            views,
            _request_columns(found.request_columns),
            sources,
        )

    def services(self, _request: None, deadline: Deadline) -> ServiceList:
        """Every registered feature service."""
        found = self._packed.list_services(pb.ListFeatureServicesRequest(), deadline)
        return ServiceList(
            [ServiceSummary(each.name, list(each.join_keys), each.feature_count) for each in found.services]
        )


_body = msgspec.json.Decoder(LookupBody)


def lookup_request(name: str, data: bytes) -> pb.LookupRequest:
    """A lookup's message from its body.

    Args:
        name: of the feature service.
        data: the body.

    Raises:
        msgspec.DecodeError: it is no JSON, or not a LookupBody.
        InvalidRequest: a column holds values of several types.
    """
    body = _body.decode(data)
    request = pb.LookupRequest(feature_service=name, include_metadata=body.include_metadata)
    for key, values in body.entities.items():
        column = request.entities.add(join_key=key)
        _fill(column, f'join key "{key}"', values)
    if body.as_of_ms is not None:
        request.as_of_ms.extend(body.as_of_ms if isinstance(body.as_of_ms, list) else [body.as_of_ms])
    _add_columns(request.columns, body.columns)
    for events in body.events:
        _add_columns(request.events.add(source=events.source).columns, events.columns)
    return request


def named_features(schema: ServiceSchema, answer: Answer) -> dict[str, FeatureColumn]:
    """An answer's matrices as columns by name."""
    statuses: list[list[int]] = answer.statuses.tolist()
    null: list[list[bool]] = answer.null.tolist()
    matrices: dict[Matrix, list[list[Any]]] = {
        Matrix.INTEGERS: answer.integers.tolist(),
        Matrix.DOUBLES: answer.doubles.tolist(),
    }
    features = {}
    for index, feature in enumerate(schema.features):
        cells = _cells(feature, answer, matrices)
        if feature.type is ValueType.BOOL:
            cells = [bool(cell) for cell in cells]
        if feature.matrix not in answer.objects and any(null[index]):
            cells = [None if is_null else cell for cell, is_null in zip(cells, null[index], strict=True)]
        features[feature.name] = FeatureColumn(list(cells), [_STATUS_NAMES[status] for status in statuses[index]])
    return features


def named_views(schema: ServiceSchema, answer: Answer) -> dict[str, ViewColumn]:
    """Event times, freshness and positions of every view, by name."""
    views = {}
    for view, metadata in zip(schema.views, view_metadata(answer), strict=True):
        checkpoints = [
            Checkpoint(
                each.watermark_ms,
                [Position(at.topic, at.partition, at.next_offset) for at in each.positions],
            )
            for each in metadata.checkpoints
        ]
        views[view.name] = ViewColumn(
            [moment or None for moment in metadata.event_time_ms],
            [None if age == FRESHNESS_UNKNOWN_MS else age for age in metadata.freshness_ms],
            checkpoints,
            list(metadata.checkpoint_index),
        )
    return views


_STATUS_NAMES: dict[int, Any] = {status.value: status.name for status in FeatureStatus}


def _type_name(packed: int) -> Any:
    return pb.ValueType.Name(pb.ValueType.ValueType(packed))


def _request_columns(columns: Any) -> list[RequestColumn]:
    return [RequestColumn(each.name, _type_name(each.type)) for each in columns]


def _cells(feature: FeatureSlot, answer: Answer, matrices: Mapping[Matrix, list[list[Any]]]) -> Sequence[Any]:
    """The values of one feature as they stand in its matrix."""
    if feature.matrix in matrices:
        return matrices[feature.matrix][feature.slot]
    cells: Sequence[Any] = answer.strings if feature.matrix is Matrix.STRINGS else answer.objects[feature.matrix]
    return cells[feature.slot * answer.row_count : (feature.slot + 1) * answer.row_count]


def _add_columns(columns: Any, given: Mapping[str, Sequence[Any]]) -> None:
    """Append columns of a request by name."""
    for name, values in given.items():
        column = columns.add(name=name)
        if None in values:
            column.nulls = bytes(value is None for value in values)
        _fill(column, f'column "{name}"', values)


def _fill(column: Any, title: str, values: Sequence[Any]) -> None:
    """Fill the list of a column that fits its values, where there are any; null has any value there.

    Raises:
        InvalidRequest: they are of several types.
    """
    types = {type(value) for value in values} - {type(None)}
    if not types:
        return
    if types <= {str}:
        column.strings.extend(["" if value is None else value for value in values])
    elif types <= {int, bool}:
        column.integers.extend([int(value or 0) for value in values])
    elif types <= {int, float}:
        column.doubles.extend([value or 0.0 for value in values])
    else:
        raise InvalidRequest(f"{title} has values of several types", hint="send texts, or numbers")
