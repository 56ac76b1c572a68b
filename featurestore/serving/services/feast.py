"""feast.serving.ServingService: the contract that Feast's own Python, Go and Java clients speak.

Answers are a vector a feature, join keys first; `online.answer.feast_vectors` says what stands in them.

Columns of the request come as `request_context`. Feast's own SDK has no such place: it puts them beside the join keys,
so they are taken there as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from featurestore import __version__
from featurestore.clock import Deadline
from featurestore.core.lowering.request_time import RequestValue
from featurestore.core.spec import Column, ValueType
from featurestore.core.spec.access import READ_ONLINE
from featurestore.errors import InvalidRequest, UnknownJoinKey
from featurestore.online.answer.feast_vectors import PRESENT, FeastVectors
from featurestore.online.answer.service_plan import ServicePlan
from featurestore.serving.catalog.catalog import CatalogSnapshot, CatalogSource
from featurestore.serving.lookup import FeatureLookup
from featurestore.serving.request.gate import Asked
from featurestore.serving.request.steps import LongWork, Steps
from featurestore.wire.feast.protos import message_class

SERVICE_NAME = "feast.serving.ServingService"

# Classes of a private descriptor pool have no static types; they do not leave this file but as messages to gRPC.
InfoRequest: Any = message_class("feast.serving.GetFeastServingInfoRequest")
InfoResponse: Any = message_class("feast.serving.GetFeastServingInfoResponse")
FeaturesRequest: Any = message_class("feast.serving.GetOnlineFeaturesRequest")
FeaturesResponse: Any = message_class("feast.serving.GetOnlineFeaturesResponse")
_Timestamp: Any = message_class("google.protobuf.Timestamp")

_MS_PER_SECOND = 1_000

_KEY_FIELDS: dict[ValueType, tuple[str, ...]] = {
    ValueType.STRING: ("string_val",),
    ValueType.INT64: ("int64_val", "int32_val"),
}
"""Value fields in which a client may send a join key of a type."""


class FeastService:
    """The two methods.

    Args:
        catalog: what can be served.
        lookup: the lookup itself.
    """

    def __init__(self, catalog: CatalogSource, lookup: FeatureLookup) -> None:
        self._catalog = catalog
        self._lookup = lookup

    def info(self, _request: Any, _deadline: Deadline) -> Any:
        """Version of this server."""
        return InfoResponse(version=f"featurestore {__version__}")

    def features(self, request: Any, deadline: Deadline) -> Steps[Any]:
        """Online features of the request's rows, at the server's clock.

        Raises:
            FeatureStoreError: see `FeatureLookup.answer`; also unknown services, views and features.
        """
        snapshot = self._catalog.snapshot()
        plan = yield from _plan(snapshot, request)
        join_keys = plan.schema.join_keys
        known = {key.name: key for key in join_keys}
        of_request = {column.name: column for column in plan.schema.request_columns}
        entities: dict[str, list[str] | list[int]] = {}
        columns: dict[str, list[RequestValue]] = {}
        for name, given in request.entities.items():
            if name in of_request and name not in known:
                columns[name] = _request_column(of_request.get(name), given.val)
            else:
                entities[name] = _column(known.get(name), name, given.val)
        for name, given in request.request_context.items():
            columns[name] = _request_column(of_request.get(name), given.val)
        answer = yield from self._lookup.answer(
            snapshot.reader, plan, entities, deadline=deadline, request_columns=columns
        )
        response = FeaturesResponse(status=True)
        names = response.metadata.feature_names.val
        names.extend(key.name for key in join_keys)
        names.extend(_names(plan, full_names=request.full_feature_names))
        epoch = [_Timestamp()] * answer.row_count
        present = [PRESENT] * answer.row_count
        for key in join_keys:
            response.results.add(values=request.entities[key.name].val, statuses=present, event_timestamps=epoch)
        vectors = FeastVectors(plan.schema, answer, _Timestamp)
        for index in range(len(plan.schema.features)):
            vectors.add(response.results, index)
        if request.include_feature_view_version_metadata:
            for view in plan.schema.views:
                response.metadata.feature_view_metadata.add(name=view.name)
        return response


def asked_of(request: Any) -> Asked:
    """What a request for features wants, as Feast's own server has it: a service, or the views of a list."""

    def rows() -> int:
        return len(next(iter(request.entities.values())).val) if request.entities else 1

    if request.WhichOneof("kind") == "feature_service":
        return Asked(READ_ONLINE, request.feature_service, rows=rows)
    views = tuple(dict.fromkeys(text.partition(":")[0] for text in request.features.val))
    return Asked(READ_ONLINE, views=views, rows=rows)


def _plan(snapshot: CatalogSnapshot, request: Any) -> Steps[ServicePlan]:
    """The plan of the request's feature service or list."""
    if request.WhichOneof("kind") == "feature_service":
        return snapshot.plan_of_service(request.feature_service)
    texts, full_names = tuple(request.features.val), request.full_feature_names
    plan = snapshot.known_plan(texts, full_names=full_names)
    if plan is None:
        yield LongWork()
        plan = snapshot.plan_of_references(texts, full_names=full_names)
    return plan


def _names(plan: ServicePlan, *, full_names: bool) -> Iterable[str]:
    """Names of the features as the client wants them."""
    if full_names:
        return (f"{reference.view}__{reference.feature}" for reference in plan.references)
    return (feature.name for feature in plan.schema.features)


def _column(key: Column | None, name: str, values: Sequence[Any]) -> list[str] | list[int]:
    """A column of Feast values as the join key's type."""
    if key is None:
        raise UnknownJoinKey(f'"{name}" is not a join key of the requested features', hint="leave it out")
    fields = _KEY_FIELDS[key.type]
    column = []
    for value in values:
        kind = value.WhichOneof("val")
        if kind not in fields:
            raise InvalidRequest(
                f'join key "{name}" must be {key.type.value}, not {kind or "null"}',
                hint=f"send its values as {fields[0]}",
            )
        column.append(getattr(value, kind))
    return column


def _request_column(column: Column | None, values: Sequence[Any]) -> list[RequestValue]:
    """A column of Feast values as Python's, None where unset; times become milliseconds."""
    is_time = column is not None and column.type is ValueType.TIMESTAMP
    found: list[RequestValue] = []
    for value in values:
        kind = value.WhichOneof("val")
        one: Any = None if kind is None or kind == "null_val" else getattr(value, kind)
        # Feast's times are whole seconds.
        found.append(one * _MS_PER_SECOND if is_time and kind == "unix_timestamp_val" else one)
    return found
