"""Messages of the packed API from the client's side: rows to a request, a response to a result. No gRPC here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from featurestore.core.lowering.request_time import RequestValue
from featurestore.core.spec import Column
from featurestore.errors import CorruptData, InvalidRequest
from featurestore.online.answer.schema import SCALAR_MATRICES, EventSource, FeatureSlot, ServedView, ServiceSchema
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.client.result import LookupResult, SourcePosition, ViewFreshness
from featurestore.serving.packed_columns import VALUE_TYPES, unpack_collections

RequestValues = RequestValue | Sequence[RequestValue]
"""One row's value of a column that comes with the request, or one for each row.

None is null, and a moment without a zone is UTC.
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

EntityValues = str | int | Sequence[str] | Sequence[int]
"""One row's join-key value, or one for each row."""

Events = Mapping[str, Mapping[str, RequestValues]]
"""Source -> column -> value of the row's payment in flight, or one for each row."""


@dataclass(frozen=True, slots=True)
class LookupBatch:
    """Rows to look up, with what is known of them beside the store.

    Attributes:
        entities: join key -> value, or list of values, one for each row.
        request: what features that are computed on demand read: name -> value, or list of values; None is null.
        events: the payments in flight: source -> column -> value, or list of values; None is null.
    """

    entities: Mapping[str, EntityValues]
    request: Mapping[str, RequestValues] | None = None
    events: Events | None = None


def make_request(
    service: str, rows: LookupBatch, as_of_ms: int | Sequence[int] | None, *, with_metadata: bool
) -> pb.LookupRequest:
    """A lookup request.

    Args:
        service: name of the feature service.
        rows: what is asked.
        as_of_ms: None for the server's clock, one read time, or one for each row.
        with_metadata: ask for event times, freshness and positions.

    Raises:
        InvalidRequest: a value of a key is neither text nor integer, or one of a column or an event no plain value.
    """
    request = pb.LookupRequest(feature_service=service, include_metadata=with_metadata)
    if as_of_ms is not None:
        request.as_of_ms.extend([as_of_ms] if isinstance(as_of_ms, int) else as_of_ms)
    for name, given in rows.entities.items():
        values: Sequence[Any] = [given] if isinstance(given, str | int) else given
        column = request.entities.add(join_key=name)
        try:
            if len(values) and isinstance(values[0], str):
                column.strings.extend(values)
            else:
                column.integers.extend(values)
        except (TypeError, ValueError) as error:
            raise InvalidRequest(
                f'join key "{name}" has a value that is neither text nor a 64-bit integer',
                detail=str(error),
                hint="send all its values as str, or all as int",
            ) from error
    for name, value in (rows.request or {}).items():
        _fill(request.columns.add(name=name), value, f'column "{name}" of the request')
    for source, columns in (rows.events or {}).items():
        event = request.events.add(source=source)
        for name, value in columns.items():
            _fill(event.columns.add(name=name), value, f'column "{name}" of source "{source}"')
    return request


def _fill(column: pb.RequestColumn, given: RequestValues, what: str) -> None:
    """The values of a column, in the list that is theirs."""
    rows: list[RequestValue] = (
        [given] if given is None or isinstance(given, str | int | float | datetime) else list(given)
    )
    if any(value is None for value in rows):
        column.nulls = bytes(value is None for value in rows)
    values: list[Any] = [_plain(value) for value in rows]
    filled = next((value for value in values if value is not None), None)
    if filled is None:
        return  # all null: there is nothing that a list could say
    is_float = any(isinstance(value, float) for value in values)
    zero: str | int = "" if isinstance(filled, str) else 0
    values = [zero if value is None else value for value in values]
    try:
        if isinstance(filled, str):
            column.strings.extend(values)
        elif is_float:
            column.doubles.extend(values)
        else:
            column.integers.extend(values)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"{what} has values of different types, or of none that columns have",
            detail=str(error),
            hint="send str, int, float, bool, datetime or None, the same in every row",
        ) from error


def _plain(value: RequestValue) -> str | int | float | None:
    """A value as lists of a message hold it: moments as milliseconds since 1970, flags as 0 and 1."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(milliseconds=1)
    return int(value) if isinstance(value, bool) else value


def parse_schema(response: pb.DescribeFeatureServiceResponse) -> ServiceSchema:
    """The layout that a server described.

    Raises:
        InvalidRequest: a feature is of a type that only newer clients know.
    """
    unknown = [feature.name for feature in response.features if feature.type not in VALUE_TYPES]
    if unknown:
        raise InvalidRequest(
            f'this client does not know the type of feature "{unknown[0]}" of "{response.feature_service}"',
            hint="update it to the server's release",
        )
    return ServiceSchema(
        service=response.feature_service,
        join_keys=tuple(Column(key.name, VALUE_TYPES[key.type]) for key in response.join_keys),
        features=tuple(
            FeatureSlot(each.name, VALUE_TYPES[each.type], each.slot, each.view, each.zero_when_not_found)
            for each in response.features
        ),
        views=tuple(ServedView(view.name, view.definition_hash) for view in response.views),
        schema_id=response.schema_id,
        request_columns=tuple(Column(each.name, VALUE_TYPES[each.type]) for each in response.request_columns),
        event_sources=tuple(
            EventSource(
                source.name,
                source.event_time_column,
                tuple(Column(column.name, VALUE_TYPES[column.type]) for column in source.columns),
            )
            for source in response.event_sources
        ),
    )


def parse_result(response: pb.LookupResponse, schema: ServiceSchema) -> LookupResult:
    """The answer of a server whose layout is `schema`.

    Raises:
        CorruptData: the answer is not as long as the layout says.
    """
    rows = response.row_count
    lengths = (len(response.doubles), len(response.integers), len(response.strings), len(response.statuses))
    expected = (*(len(schema.features_of[matrix]) * rows for matrix in SCALAR_MATRICES), len(schema.features) * rows)
    if lengths != expected:
        raise CorruptData(
            f'answer of feature service "{schema.service}" is not laid out as described',
            detail=f"Its matrices have {lengths} values instead of {expected}.",
        )
    return LookupResult(
        schema=schema,
        row_count=rows,
        doubles=np.array(response.doubles, dtype=np.float64).reshape(-1, rows),
        integers=np.array(response.integers, dtype=np.int64).reshape(-1, rows),
        strings=tuple(response.strings),
        collections={
            matrix: unpack_collections(response, matrix, slots * rows) for matrix, slots in schema.object_counts.items()
        },
        statuses=np.frombuffer(response.statuses, dtype=np.uint8).reshape(-1, rows),
        as_of_ms=tuple(response.as_of_ms),
        views=tuple(_parse_view(served.name, view) for served, view in zip(schema.views, response.views, strict=False)),
    )


def _parse_view(name: str, view: pb.ViewMetadata) -> ViewFreshness:
    """Metadata of one view."""
    lanes = [
        tuple(SourcePosition(each.topic, each.partition, each.next_offset) for each in checkpoint.positions)
        for checkpoint in view.checkpoints
    ]
    return ViewFreshness(
        view=name,
        event_time_ms=np.array(view.event_time_ms, dtype=np.int64),
        freshness_ms=np.array(view.freshness_ms, dtype=np.int64),
        positions=tuple(lanes[index] for index in view.checkpoint_index),
    )
