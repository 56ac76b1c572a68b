"""feast.serving.ServingService: the contract that Feast's own Python, Go and Java clients speak.

Answers are a vector a feature, join keys first, and each vector has a value, a status and an event timestamp for every
row: Feast's Java client indexes all three without looking at their lengths.

    ours               Feast's
    PRESENT            PRESENT
    NULL_VALUE         NULL_VALUE, value unset
    NOT_FOUND          NOT_FOUND, value 0 for counts and sums, else unset
    NOT_READY          NOT_FOUND: not ingested yet
    OUTSIDE_MAX_AGE    OUTSIDE_MAX_AGE, value unset

An empty list or map is a value that is set and empty.

`request_context` is for on-demand views, which are evaluated by the Feast SDK and not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from featurestore import __version__
from featurestore.core.spec import Column, ValueType
from featurestore.errors import InvalidRequest, UnknownJoinKey
from featurestore.serving.answer.assembly import Answer
from featurestore.serving.answer.lookup import FeatureLookup
from featurestore.serving.answer.schema import FeatureStatus, Matrix
from featurestore.serving.answer.service_plan import ServicePlan
from featurestore.serving.catalog.catalog import CatalogSnapshot, CatalogSource
from featurestore.serving.request.deadline import Deadline
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
_NS_PER_MS = 1_000_000

_PRESENT, _NULL_VALUE, _NOT_FOUND, _OUTSIDE_MAX_AGE = 1, 2, 3, 4
_FEAST_STATUS: dict[int, int] = {
    FeatureStatus.PRESENT: _PRESENT,
    FeatureStatus.NULL_VALUE: _NULL_VALUE,
    FeatureStatus.NOT_FOUND: _NOT_FOUND,
    FeatureStatus.NOT_READY: _NOT_FOUND,
    FeatureStatus.OUTSIDE_MAX_AGE: _OUTSIDE_MAX_AGE,
}

_VALUE_FIELDS: dict[ValueType, str] = {
    ValueType.INT64: "int64_val",
    ValueType.FLOAT64: "double_val",
    ValueType.STRING: "string_val",
    ValueType.BOOL: "bool_val",
    ValueType.TIMESTAMP: "unix_timestamp_val",
}

_LIST_FIELDS: dict[ValueType, str] = {
    ValueType.INT64_LIST: "int64_list_val",
    ValueType.FLOAT64_LIST: "double_list_val",
    ValueType.STRING_LIST: "string_list_val",
}

_MAP_VALUE_FIELDS: dict[ValueType, str] = {ValueType.INT64_MAP: "int64_val", ValueType.FLOAT64_MAP: "double_val"}
"""Value fields of what a map holds; the map itself is a map_val."""

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
        entities = {name: _column(known.get(name), name, column.val) for name, column in request.entities.items()}
        answer = yield from self._lookup.answer(snapshot.reader, plan, entities, deadline=deadline)
        response = FeaturesResponse(status=True)
        names = response.metadata.feature_names.val
        names.extend(key.name for key in join_keys)
        names.extend(_names(plan, full_names=request.full_feature_names))
        epoch = [_Timestamp()] * answer.row_count
        present = [_PRESENT] * answer.row_count
        for key in join_keys:
            response.results.add(values=request.entities[key.name].val, statuses=present, event_timestamps=epoch)
        _add_features(response.results, plan, answer)
        if request.include_feature_view_version_metadata:
            for view in plan.schema.views:
                response.metadata.feature_view_metadata.add(name=view.name)
        return response


def _plan(snapshot: CatalogSnapshot, request: Any) -> Steps[ServicePlan]:
    """The plan of the request's feature service or list."""
    if request.WhichOneof("kind") == "feature_service":
        return snapshot.plan_of_service(request.feature_service)
    texts, full_names = tuple(request.features.val), request.full_feature_names
    if not snapshot.knows(texts, full_names=full_names):
        yield LongWork()
    return snapshot.plan_of_references(texts, full_names=full_names)


def _names(plan: ServicePlan, *, full_names: bool) -> Iterable[str]:
    """Names of the features as the client wants them."""
    if full_names:
        return (f"{reference.view}__{reference.feature}" for reference in plan.references)
    return (feature.name for feature in plan.schema.features)


def _add_features(results: Any, plan: ServicePlan, answer: Answer) -> None:
    """One vector for each feature; filled in place, which costs half of building vectors and adding them."""
    stamps = [[_stamp(moment) for moment in moments] for moments in answer.event_time_ms.tolist()]
    statuses = answer.statuses.tolist()
    null = answer.null.tolist()
    matrices = {Matrix.INTEGERS: answer.integers.tolist(), Matrix.DOUBLES: answer.doubles.tolist()}
    rows = answer.row_count
    for index, feature in enumerate(plan.schema.features):
        raw: Any
        vector = results.add()
        vector.statuses.extend([_FEAST_STATUS[status] for status in statuses[index]])
        vector.event_timestamps.extend(stamps[feature.view])
        if feature.matrix in answer.collections:
            cells = answer.collections[feature.matrix][feature.slot * rows : (feature.slot + 1) * rows]
            _add_collections(vector.values, feature.type, cells)
            continue
        if feature.matrix is Matrix.STRINGS:
            raw = answer.strings[feature.slot * rows : (feature.slot + 1) * rows]
        else:
            raw = matrices[feature.matrix][feature.slot]
        if feature.type is ValueType.TIMESTAMP:
            # Feast's timestamps are whole seconds.
            raw = [value // _MS_PER_SECOND for value in raw]
        field = _VALUE_FIELDS[feature.type]
        add_value = vector.values.add
        for value, is_null in zip(raw, null[index], strict=True):
            added = add_value()
            if not is_null:
                setattr(added, field, value)


def _add_collections(values: Any, value_type: ValueType, cells: Sequence[Any]) -> None:
    """A value for each list or map, unset where it is None."""
    for cell in cells:
        added = values.add()
        if cell is None:
            continue
        if value_type in _MAP_VALUE_FIELDS:
            # Present even when it is empty.
            added.map_val.SetInParent()
            entries, field = added.map_val.val, _MAP_VALUE_FIELDS[value_type]
            for key, value in cell.items():
                setattr(entries[key], field, value)
        else:
            elements = getattr(added, _LIST_FIELDS[value_type])
            elements.SetInParent()
            elements.val.extend(cell)


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


def _stamp(event_time_ms: int) -> Any:
    """A Timestamp; the epoch where there is no event."""
    seconds, rest_ms = divmod(event_time_ms, _MS_PER_SECOND)
    return _Timestamp(seconds=seconds, nanos=rest_ms * _NS_PER_MS)
