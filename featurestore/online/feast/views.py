"""Between Feast's objects and ours: views, entity keys and values of one request, as messages and as bytes.

    FeatureView, requested names --prepare--> AnsweringView --rows--> ViewRow --add_vectors--> GetOnlineFeaturesResponse
    ValueProto join keys --distinct_keys--> canonical entity keys, each once

Part of the Feast adapter: these two files are all that knows Feast beside `definitions/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

from feast import FeatureView, StreamFeatureView
from feast.project import Project
from feast.protos.feast.core.Entity_pb2 import Entity as EntityProto
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import DoubleList, Int64List, Map, StringList
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec.msgpack import Ext

from featurestore.core.spec import ValueType, ViewSpec
from featurestore.definitions.authoring import FEAST_TYPES
from featurestore.definitions.registry import compile_registry
from featurestore.errors import InvalidRequest, UnknownJoinKey
from featurestore.online.generations import Generation
from featurestore.online.read.reader import EntityBytes, EntityRead, PlainBytes, PlainRead
from featurestore.online.read.view_rows import (
    Collection,
    FieldStatus,
    PlainRows,
    RowValue,
    StreamRows,
    UnixSeconds,
    ViewRow,
    ViewRows,
    missing_row,
    unstreamed_row,
)
from featurestore.wire.entity_key import EntityValue, encode_key

ReadRow = tuple[datetime | None, dict[str, ValueProto] | None]
"""A row as Feast reads it: event time, values; two Nones where nothing was found."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MS_PER_SECOND = 1_000
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class AnsweringView:
    """How to answer some features of a view.

    Attributes:
        table: Feast's object; held, so that its id stays its own.
        generation: the generation that it was prepared for.
        rows: reads its rows; None where the row of every entity is `nothing`.
        nothing: the row of a view that cannot be read.
        join_keys: names in the order that forms the entity key; empty where the view's entities say it.
        requested: names of the features.
    """

    table: FeatureView
    generation: Generation | None
    rows: ViewRows | None
    nothing: ViewRow
    join_keys: tuple[str, ...]
    requested: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ViewRead:
    """One view of a request: distinct entity keys, and which of them each of the N rows has."""

    table: FeatureView
    view: AnsweringView
    keys: list[bytes]
    row_index: list[int]

    def wanted(self) -> list[EntityRead | PlainRead]:
        """What to read."""
        rows = self.view.rows
        return [] if rows is None else [rows.read(key) for key in self.keys]

    def answers(self, found: Iterator[EntityBytes | PlainBytes], now_ms: int) -> list[ViewRow]:
        """The row of each key; takes as many from `found` as were wanted."""
        rows = self.view.rows
        if rows is None:
            return [self.view.nothing] * len(self.keys)
        return [rows.row(key, next(found), now_ms) for key in self.keys]


def prepare(project: str, table: FeatureView, requested: Sequence[str], generation: Generation | None) -> AnsweringView:
    """Work out how to answer."""
    names = tuple(requested)
    nothing = missing_row(len(names))
    if not is_windowed(table):
        return AnsweringView(
            table, generation, PlainRows(project, table.name, names, ttl_ms(table)), nothing, (), names
        )
    if generation is not None:
        join_keys = tuple(key.name for key in generation.view.join_keys)
        if sorted(join_keys) == sorted(table.join_keys):
            rows = StreamRows(generation, _still_typed(table, names, generation))
            return AnsweringView(table, generation, rows, nothing, join_keys, names)
    view = _compile(table, project)
    nothing = nothing if view is None else unstreamed_row(view, names)
    return AnsweringView(table, generation, None, nothing, (), names)


def _still_typed(table: FeatureView, names: Sequence[str], generation: Generation) -> dict[str, ValueType | None]:
    """Type of each feature where the generation and Feast's field agree on it; Feast has one type for all maps."""
    registered = {field.name: field.dtype for field in table.features}
    answered = {feature.name: feature.type for feature in generation.view.answers}
    types = {name: answered.get(name) for name in names}
    return {
        name: value_type if value_type is not None and FEAST_TYPES[value_type] == registered.get(name) else None
        for name, value_type in types.items()
    }


def _compile(table: StreamFeatureView, project: str) -> ViewSpec | None:
    """A stream view alone, as the registry would give it; None when it has mistakes."""
    registry = RegistryProto()
    registry.projects.append(Project(name=project).to_proto())
    for name, column in zip(table.entities, table.entity_columns, strict=True):
        entity = EntityProto()
        entity.spec.name, entity.spec.join_key, entity.spec.project = name, column.name, project
        entity.spec.value_type = column.dtype.to_value_type().value
        registry.entities.append(entity)
    view = table.to_proto()  # type: ignore[no-untyped-call]  # Feast declares no types here
    view.spec.project = project
    registry.stream_feature_views.append(view)
    return compile_registry(registry.SerializeToString(), project=project).spec.view(table.name)


def distinct_keys(
    table: FeatureView, names: Sequence[str], join_key_values: Mapping[str, Sequence[ValueProto]]
) -> tuple[list[bytes], list[int]]:
    """Entity keys of a request's rows, each once, and the index of each row's."""
    columns = []
    for name in names:
        alias = table.projection.join_key_map.get(name, name)
        values = join_key_values.get(alias)
        if values is None:
            raise UnknownJoinKey(
                f'join key "{alias}" of feature view "{table.name}" is missing', hint="give it in every entity row"
            )
        columns.append([_key_part(value, alias) for value in values])
    index: dict[bytes, int] = {}
    rows = [index.setdefault(encode_key(parts), len(index)) for parts in zip(*columns, strict=True)]
    return list(index), rows


def key_of(key: EntityKeyProto, order: Sequence[str]) -> bytes:
    """Canonical bytes of Feast's entity key."""
    parts = {name: _key_part(value, name) for name, value in zip(key.join_keys, key.entity_values, strict=True)}
    missing = [name for name in order if name not in parts]
    if missing:
        raise UnknownJoinKey(f'join key "{missing[0]}" is missing', hint="give every join key of the feature view")
    return encode_key([parts[name] for name in order or sorted(parts)])


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
    response: GetOnlineFeaturesResponse, read: ViewRead, answers: Sequence[ViewRow], *, full_names: bool
) -> None:
    """One vector for each feature."""
    requested = read.view.requested
    name = read.table.projection.name_to_use()  # type: ignore[no-untyped-call]  # Feast declares no types here
    prefix = f"{name}__" if full_names else ""
    response.metadata.feature_names.val.extend(prefix + name for name in requested)
    stamps = [_timestamp(row.event_time_ms) for row in answers]
    values = [_value_protos(row.values) for row in answers]
    index = read.row_index
    event_timestamps = [stamps[at] for at in index]
    for feature in range(len(requested)):
        vector = response.results.add()
        vector.values.extend([values[at][feature] for at in index])
        statuses = [answers[at].statuses[feature] for at in index]
        vector.statuses.extend(statuses)  # type: ignore[arg-type]  # our enum has the numbers of Feast's
        vector.event_timestamps.extend(event_timestamps)


def add_version(response: GetOnlineFeaturesResponse, table: FeatureView) -> None:
    """Name and version of a view, once, as Feast's own stores answer them."""
    name = table.projection.name_alias or table.projection.name
    if all(known.name != name for known in response.metadata.feature_view_metadata):
        version = getattr(table, "current_version_number", None) or 0
        response.metadata.feature_view_metadata.add(name=name, version=version)


def read_row(requested: Sequence[str], row: ViewRow) -> ReadRow:
    """A row for Feast's generic read path, which knows found and not found alone."""
    values = {
        name: value
        for name, value, status in zip(requested, _value_protos(row.values), row.statuses, strict=True)
        if status in (FieldStatus.PRESENT, FieldStatus.NULL_VALUE)
    }
    return (_EPOCH + timedelta(milliseconds=row.event_time_ms), values) if values else (None, None)


def _value_protos(values: Iterable[RowValue]) -> list[ValueProto]:
    """A row's values as Feast's messages."""
    return [_VALUE_PROTOS[type(value)](value) for value in values]


_VALUE_PROTOS: Mapping[type, Callable[[Any], ValueProto]] = {
    type(None): lambda _null: ValueProto(),
    bool: lambda value: ValueProto(bool_val=value),
    int: lambda value: ValueProto(int64_val=value),
    float: lambda value: ValueProto(double_val=value),
    str: lambda value: ValueProto(string_val=value),
    UnixSeconds: lambda value: ValueProto(unix_timestamp_val=value),
    Collection: lambda value: _COLLECTION_PROTOS[value.type](value.elements),
    Ext: lambda value: ValueProto.FromString(bytes(value.data)),
}

_COLLECTION_PROTOS: Mapping[ValueType, Callable[[Any], ValueProto]] = {
    ValueType.INT64_LIST: lambda elements: ValueProto(int64_list_val=Int64List(val=elements)),
    ValueType.FLOAT64_LIST: lambda elements: ValueProto(double_list_val=DoubleList(val=elements)),
    ValueType.STRING_LIST: lambda elements: ValueProto(string_list_val=StringList(val=elements)),
    ValueType.INT64_MAP: lambda elements: _map_proto({key: ValueProto(int64_val=one) for key, one in elements.items()}),
    ValueType.FLOAT64_MAP: lambda elements: _map_proto(
        {key: ValueProto(double_val=one) for key, one in elements.items()}
    ),
}


def _map_proto(entries: Mapping[str, ValueProto]) -> ValueProto:
    """A map as Feast's message."""
    return ValueProto(map_val=Map(val=entries))


def _timestamp(event_time_ms: int) -> Timestamp:
    """A protobuf timestamp; the epoch where there is no event."""
    seconds, rest_ms = divmod(event_time_ms, _MS_PER_SECOND)
    return Timestamp(seconds=seconds, nanos=rest_ms * _NS_PER_MS)


def is_windowed(table: object) -> TypeGuard[StreamFeatureView]:
    """Whether a view's values are computed from its stream; a stream view without aggregations is a plain one."""
    return isinstance(table, StreamFeatureView) and bool(table.aggregations)


def ttl_ms(table: FeatureView) -> int | None:
    """Time to live of a view; None where it has none."""
    ttl: timedelta | None = getattr(table, "ttl", None)
    return ttl // _MILLISECOND if ttl else None
