"""featurestore.v1.FeatureLookup: the packed API, message in, message out.

    LookupRequest -> plan, columns -> serving.lookup -> matrices -> LookupResponse

Handlers know neither gRPC nor threads; `serving.rpc` calls them and maps what they raise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featurestore.clock import Deadline
from featurestore.core.lowering.request_time import RequestValue
from featurestore.core.spec.access import READ_ONLINE
from featurestore.errors import InvalidRequest, UnknownJoinKey, UnknownRequestColumn
from featurestore.online.answer.assembly import Answer
from featurestore.online.answer.in_flight.columns import EventColumns, GivenColumn
from featurestore.online.answer.schema import ServiceSchema
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.catalog.catalog import CatalogSource
from featurestore.serving.lookup import FeatureLookup
from featurestore.serving.packed_columns import PACKED_TYPES, pack_collections
from featurestore.serving.request.columns import RequestColumns
from featurestore.serving.request.gate import Asked
from featurestore.serving.request.steps import Steps
from featurestore.wire.store_layout import decode_checkpoint

FRESHNESS_UNKNOWN_MS = -1
"""Freshness of a view without an event."""


class PackedService:
    """The three methods.

    Args:
        catalog: what can be served.
        lookup: the lookup itself.
    """

    def __init__(self, catalog: CatalogSource, lookup: FeatureLookup) -> None:
        self._catalog = catalog
        self._lookup = lookup

    def answer(self, request: pb.LookupRequest, deadline: Deadline) -> Steps[tuple[ServiceSchema, Answer]]:
        """Feature vectors of the request's rows, and how they are laid out.

        Raises:
            FeatureStoreError: see `FeatureLookup.answer`; also an unknown feature service.
        """
        snapshot = self._catalog.snapshot()
        plan = snapshot.plan_of_service(request.feature_service)
        answer = yield from self._lookup.answer(
            snapshot.reader,
            plan,
            entities_of(request.entities),
            deadline=deadline,
            as_of_ms=request.as_of_ms,
            with_checkpoint=request.include_metadata,
            request_columns=request_columns_of(request.columns),
            events=events_of(request.events),
        )
        return plan.schema, answer

    def lookup(self, request: pb.LookupRequest, deadline: Deadline) -> Steps[pb.LookupResponse]:
        """Feature vectors of the request's rows, packed.

        Raises:
            FeatureStoreError: see `answer`.
        """
        schema, answer = yield from self.answer(request, deadline)
        response = pb.LookupResponse(
            schema_id=schema.schema_id,
            row_count=answer.row_count,
            doubles=answer.doubles.ravel().tolist(),
            integers=answer.integers.ravel().tolist(),
            strings=answer.strings,
            statuses=answer.statuses.tobytes(),
            as_of_ms=answer.as_of_ms,
        )
        for matrix, cells in answer.objects.items():
            pack_collections(response, matrix, cells)
        if request.include_metadata:
            response.views.extend(view_metadata(answer))
        return response

    def describe(
        self, request: pb.DescribeFeatureServiceRequest, _deadline: Deadline
    ) -> pb.DescribeFeatureServiceResponse:
        """Layout of a feature service's answers.

        Raises:
            UnknownFeatureService: with near names.
            OnlineStoreDown: which generations serve is not known yet.
        """
        return describe_schema(self._catalog.snapshot().plan_of_service(request.feature_service).schema)

    def list_services(
        self, _request: pb.ListFeatureServicesRequest, _deadline: Deadline
    ) -> pb.ListFeatureServicesResponse:
        """Every registered feature service."""
        response = pb.ListFeatureServicesResponse()
        for service in self._catalog.snapshot().repo.services:
            response.services.add(
                name=service.name,
                join_keys=[key.name for key in service.join_keys],
                feature_count=len(service.features),
            )
        return response


def looks_up(request: pb.LookupRequest) -> Asked:
    """What a lookup wants of whom permissions and quotas are about."""

    def rows() -> int:
        columns = request.entities
        return len(columns[0].strings) or len(columns[0].integers) if columns else 1

    return Asked(READ_ONLINE, request.feature_service, rows=rows)


def describe_schema(schema: ServiceSchema) -> pb.DescribeFeatureServiceResponse:
    """A schema as its message."""
    response = pb.DescribeFeatureServiceResponse(schema_id=schema.schema_id, feature_service=schema.service)
    for key in schema.join_keys:
        response.join_keys.add(name=key.name, type=PACKED_TYPES[key.type])
    for feature in schema.features:
        response.features.add(
            name=feature.name,
            type=PACKED_TYPES[feature.type],
            slot=feature.slot,
            view=feature.view,
            zero_when_not_found=feature.zero_when_not_found,
        )
    for view in schema.views:
        response.views.add(name=view.name, definition_hash=view.definition_hash)
    for column in schema.request_columns:
        response.request_columns.add(name=column.name, type=PACKED_TYPES[column.type])
    for source in schema.event_sources:
        described = response.event_sources.add(name=source.name, event_time_column=source.event_time_column)
        for column in source.columns:
            described.columns.add(name=column.name, type=PACKED_TYPES[column.type])
    return response


def entities_of(columns: Sequence[pb.EntityColumn]) -> dict[str, Sequence[str] | Sequence[int]]:
    """The request's columns by join key."""
    entities: dict[str, Sequence[str] | Sequence[int]] = {}
    for column in columns:
        name, strings, integers = column.join_key, column.strings, column.integers
        if name in entities:
            raise UnknownJoinKey(f'join key "{name}" is sent twice', hint="send each join key once")
        if strings and integers:
            raise InvalidRequest(
                f'join key "{name}" has both strings and integers', hint="fill the list that matches its type"
            )
        entities[name] = strings or integers
    return entities


def request_columns_of(columns: Sequence[pb.RequestColumn]) -> RequestColumns:
    """The request's further columns by name."""
    found: dict[str, Sequence[RequestValue]] = {}
    for column in columns:
        if column.name in found:
            raise UnknownRequestColumn(f'column "{column.name}" is sent twice', hint="send each column once")
        filled: list[Sequence[RequestValue]] = [
            values for values in (column.doubles, column.integers, column.strings) if values
        ]
        if len(filled) > 1:
            raise InvalidRequest(
                f'column "{column.name}" of the request has values of several types',
                hint="fill the list that matches its type",
            )
        values = filled[0] if filled else ()
        if not filled and column.nulls and all(column.nulls):
            values = [None] * len(column.nulls)
        elif column.nulls:
            if len(column.nulls) != len(values):
                raise InvalidRequest(
                    f'column "{column.name}" of the request has {len(values)} values and {len(column.nulls)} nulls',
                    hint="send one byte for each value, or none at all",
                )
            pairs = zip(values, column.nulls, strict=True)
            values = [None if is_null else value for value, is_null in pairs]
        found[column.name] = values
    return found


def events_of(messages: Sequence[pb.RequestEvents]) -> dict[str, EventColumns]:
    """The payments in flight by source."""
    events: dict[str, EventColumns] = {}
    for message in messages:
        if message.source in events:
            raise InvalidRequest(
                f'events of source "{message.source}" are sent twice', hint="send one event of each source a row"
            )
        columns: dict[str, GivenColumn] = {}
        for column in message.columns:
            name, filled = column.name, 0
            values: Sequence[str | int | float] = ()
            for one in (column.strings, column.integers, column.doubles):
                if one:
                    values, filled = one, filled + 1
            if filled > 1:
                raise InvalidRequest(
                    f'column "{name}" of source "{message.source}" has values in {filled} lists',
                    hint="fill the list that matches its type",
                )
            if name in columns:
                raise InvalidRequest(
                    f'column "{name}" of source "{message.source}" is sent twice', hint="send each column once"
                )
            columns[name] = values, column.nulls
        events[message.source] = columns
    return events


def view_metadata(answer: Answer) -> list[pb.ViewMetadata]:
    """Event times, freshness and positions of every view."""
    read_times = np.array(answer.as_of_ms, dtype=np.int64)
    freshness = np.where(answer.event_time_ms != 0, read_times - answer.event_time_ms, FRESHNESS_UNKNOWN_MS)
    views = []
    for view, raw_checkpoints in enumerate(answer.checkpoints):
        metadata = pb.ViewMetadata(
            event_time_ms=answer.event_time_ms[view].tolist(), freshness_ms=freshness[view].tolist()
        )
        # Rows of one lane share a checkpoint; equal bytes are the same lane's, or say the same.
        index: dict[bytes | None, int] = {}
        for raw in raw_checkpoints:
            if raw not in index:
                index[raw] = len(index)
                checkpoint = decode_checkpoint(raw)
                message = metadata.checkpoints.add(watermark_ms=checkpoint.watermark_ms)
                for topic, partition, next_offset in checkpoint.positions:
                    message.positions.add(topic=topic, partition=partition, next_offset=next_offset)
            metadata.checkpoint_index.append(index[raw])
        views.append(metadata)
    return views
