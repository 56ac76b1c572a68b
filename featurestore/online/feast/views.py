"""Between Feast's objects and ours: which plan answers a view, and entity keys and rows as messages and as bytes.

    FeatureView, requested names --prepare--> AnsweringView: plan of what can be answered, place of each name
    ValueProto join keys --key_columns--> columns of entity keys

Part of the Feast adapter: these files are all that knows Feast beside `definitions/`. What an answer is, and what its
vectors hold, is `online.answer`, as for the gRPC server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

from feast import FeatureView, StreamFeatureView
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from google.protobuf.timestamp_pb2 import Timestamp

from featurestore.core.spec import Column, FeatureReference, PlainViewSpec, RepoSpec, ValueType, ViewSpec
from featurestore.definitions.authoring import FEAST_TYPES
from featurestore.errors import InvalidRequest, UnknownJoinKey
from featurestore.online.answer.assembly import Answer
from featurestore.online.answer.feast_vectors import NULL_VALUE, PRESENT, FeastVectors, add_nothing
from featurestore.online.answer.service_plan import ServicePlan, make_service_plan
from featurestore.online.serving_view import ServingView
from featurestore.wire.entity_key import EntityValue, encode_key

ReadRow = tuple[datetime | None, dict[str, ValueProto] | None]
"""A row as Feast reads it: event time, values; two Nones where nothing was found."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class AnsweringView:
    """How to answer some features of a view.

    Attributes:
        requested: names of the features.
        plan: answers those that can be; None where none can, which are then NOT_FOUND.
        places: for each requested name, its index in the plan's features; None where the plan lacks it.
    """

    requested: tuple[str, ...]
    plan: ServicePlan | None
    places: tuple[int | None, ...]


def prepare(
    project: str,
    table: FeatureView,
    requested: Sequence[str],
    join_keys: Sequence[str],
    serving: ServingView | None,
) -> AnsweringView:
    """Work out how to answer.

    Args:
        project: Feast project.
        table: the view.
        requested: names of its features.
        join_keys: its join keys, in the order of its entities.
        serving: what answers a windowed view, if anything does.
    """
    if not is_windowed(table):
        keys = tuple(Column(name, ValueType.STRING) for name in join_keys)
        # As stored: the SDK gives back the message that materialize or push wrote.
        columns = tuple(Column(name, ValueType.AS_STORED) for name in requested)
        plain = PlainViewSpec(table.name, keys, columns, ttl_ms(table))
        return _answering(requested, requested, keys, RepoSpec(project, (), (plain,), ()), {})
    if serving is None or sorted(key.name for key in serving.view.join_keys) != sorted(table.join_keys):
        return AnsweringView(tuple(requested), None, (None,) * len(requested))
    view = serving.view
    repo = RepoSpec(project, (view,), (), ())
    return _answering(requested, still_typed(table, requested, view), view.join_keys, repo, {view.name: serving})


def _answering(
    requested: Sequence[str],
    answered: Sequence[str],
    join_keys: tuple[Column, ...],
    repo: RepoSpec,
    serving: Mapping[str, ServingView],
) -> AnsweringView:
    """The plan of the one view of `repo`."""
    [view_name] = [view.name for view in repo.views] + [view.name for view in repo.plain_views]
    references = [FeatureReference(view_name, name, name) for name in answered]
    plan = make_service_plan("", references, join_keys, repo, serving) if references else None
    at = {name: index for index, name in enumerate(answered)}
    return AnsweringView(tuple(requested), plan, tuple(at.get(name) for name in requested))


def still_typed(table: FeatureView, names: Sequence[str], view: ViewSpec) -> tuple[str, ...]:
    """Names of which definition and Feast's field have the same type; Feast has one type for all maps."""
    registered = {field.name: field.dtype for field in table.features}
    answered = {feature.name: feature.type for feature in view.answers}
    return tuple(name for name in names if name in answered and FEAST_TYPES[answered[name]] == registered.get(name))


def key_columns(
    table: FeatureView, names: Sequence[str], join_key_values: Mapping[str, Sequence[ValueProto]]
) -> list[list[EntityValue]]:
    """For each join key of a view, one value for each row of a request."""
    columns = []
    for name in names:
        alias = table.projection.join_key_map.get(name, name)
        values = join_key_values.get(alias)
        if values is None:
            raise UnknownJoinKey(
                f'join key "{alias}" of feature view "{table.name}" is missing', hint="give it in every entity row"
            )
        columns.append([_key_part(value, alias) for value in values])
    return columns


def key_rows(keys: Sequence[EntityKeyProto], order: Sequence[str]) -> list[list[EntityValue]]:
    """The same from Feast's entity keys."""
    rows = [_parts(key, order) for key in keys]
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in order]


def key_of(key: EntityKeyProto, order: Sequence[str]) -> bytes:
    """Canonical bytes of Feast's entity key."""
    return encode_key(_parts(key, order or sorted(key.join_keys)))


def _parts(key: EntityKeyProto, order: Sequence[str]) -> list[EntityValue]:
    """The values of an entity key in the order of a view's join keys."""
    parts = {name: _key_part(value, name) for name, value in zip(key.join_keys, key.entity_values, strict=True)}
    missing = [name for name in order if name not in parts]
    if missing:
        raise UnknownJoinKey(f'join key "{missing[0]}" is missing', hint="give every join key of the feature view")
    return [parts[name] for name in order]


def _key_part(value: ValueProto, join_key: str) -> EntityValue:
    """The value of one join key."""
    kind = value.WhichOneof("val")
    part = None if kind is None else getattr(value, kind)
    if not isinstance(part, str | int):
        raise InvalidRequest(
            f'a value of join key "{join_key}" is {kind or "null"}', hint="entity keys are texts or integers"
        )
    return part


def add_vectors(
    response: GetOnlineFeaturesResponse,
    table: FeatureView,
    view: AnsweringView,
    answer: Answer | None,
    row_count: int,
    *,
    full_names: bool,
) -> None:
    """One vector for each requested feature."""
    name = table.projection.name_to_use()  # type: ignore[no-untyped-call]  # Feast declares no types here
    prefix = f"{name}__" if full_names else ""
    response.metadata.feature_names.val.extend(prefix + each for each in view.requested)
    vectors = None if answer is None or view.plan is None else FeastVectors(view.plan.schema, answer, Timestamp)
    for place in view.places:
        if vectors is None or place is None:
            add_nothing(response.results, row_count, Timestamp)
        else:
            vectors.add(response.results, place)


def add_version(response: GetOnlineFeaturesResponse, table: FeatureView) -> None:
    """Name and version of a view, once, as Feast's own stores answer them."""
    name = table.projection.name_alias or table.projection.name
    if all(known.name != name for known in response.metadata.feature_view_metadata):
        version = getattr(table, "current_version_number", None) or 0
        response.metadata.feature_view_metadata.add(name=name, version=version)


def read_rows(response: GetOnlineFeaturesResponse, requested: Sequence[str], row_count: int) -> list[ReadRow]:
    """Vectors as rows for Feast's generic read path, which knows found and not found alone."""
    return [_read_row(response.results, requested, row) for row in range(row_count)]


def _read_row(vectors: Any, requested: Sequence[str], row: int) -> ReadRow:
    """One row; its event time is that of any value that was found, which all come from one view."""
    found = [
        (name, vector)
        for name, vector in zip(requested, vectors, strict=True)
        if vector.statuses[row] in (PRESENT, NULL_VALUE)
    ]
    if not found:
        return None, None
    event_time_ms = found[0][1].event_timestamps[row].ToMilliseconds()
    return _EPOCH + timedelta(milliseconds=event_time_ms), {name: vector.values[row] for name, vector in found}


def is_windowed(table: object) -> TypeGuard[StreamFeatureView]:
    """Whether a view's values are computed from its stream; a stream view without aggregations is a plain one."""
    return isinstance(table, StreamFeatureView) and bool(table.aggregations)


def ttl_ms(table: FeatureView) -> int | None:
    """Time to live of a view; None where it has none."""
    ttl: timedelta | None = getattr(table, "ttl", None)
    return ttl // _MILLISECOND if ttl else None
