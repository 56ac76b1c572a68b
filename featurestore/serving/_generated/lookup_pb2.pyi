from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FeatureStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEATURE_STATUS_UNSPECIFIED: _ClassVar[FeatureStatus]
    PRESENT: _ClassVar[FeatureStatus]
    NULL_VALUE: _ClassVar[FeatureStatus]
    NOT_FOUND: _ClassVar[FeatureStatus]
    NOT_READY: _ClassVar[FeatureStatus]
    OUTSIDE_MAX_AGE: _ClassVar[FeatureStatus]

class ValueType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VALUE_TYPE_UNSPECIFIED: _ClassVar[ValueType]
    INT64: _ClassVar[ValueType]
    FLOAT64: _ClassVar[ValueType]
    STRING: _ClassVar[ValueType]
    BOOL: _ClassVar[ValueType]
    TIMESTAMP: _ClassVar[ValueType]
    INT64_LIST: _ClassVar[ValueType]
    FLOAT64_LIST: _ClassVar[ValueType]
    STRING_LIST: _ClassVar[ValueType]
    INT64_MAP: _ClassVar[ValueType]
    FLOAT64_MAP: _ClassVar[ValueType]
FEATURE_STATUS_UNSPECIFIED: FeatureStatus
PRESENT: FeatureStatus
NULL_VALUE: FeatureStatus
NOT_FOUND: FeatureStatus
NOT_READY: FeatureStatus
OUTSIDE_MAX_AGE: FeatureStatus
VALUE_TYPE_UNSPECIFIED: ValueType
INT64: ValueType
FLOAT64: ValueType
STRING: ValueType
BOOL: ValueType
TIMESTAMP: ValueType
INT64_LIST: ValueType
FLOAT64_LIST: ValueType
STRING_LIST: ValueType
INT64_MAP: ValueType
FLOAT64_MAP: ValueType

class EntityColumn(_message.Message):
    __slots__ = ("join_key", "strings", "integers")
    JOIN_KEY_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    join_key: str
    strings: _containers.RepeatedScalarFieldContainer[str]
    integers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, join_key: _Optional[str] = ..., strings: _Optional[_Iterable[str]] = ..., integers: _Optional[_Iterable[int]] = ...) -> None: ...

class RequestColumn(_message.Message):
    __slots__ = ("name", "strings", "integers", "doubles", "nulls")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    DOUBLES_FIELD_NUMBER: _ClassVar[int]
    NULLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    strings: _containers.RepeatedScalarFieldContainer[str]
    integers: _containers.RepeatedScalarFieldContainer[int]
    doubles: _containers.RepeatedScalarFieldContainer[float]
    nulls: bytes
    def __init__(self, name: _Optional[str] = ..., strings: _Optional[_Iterable[str]] = ..., integers: _Optional[_Iterable[int]] = ..., doubles: _Optional[_Iterable[float]] = ..., nulls: _Optional[bytes] = ...) -> None: ...

class RequestEvents(_message.Message):
    __slots__ = ("source", "columns")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    source: str
    columns: _containers.RepeatedCompositeFieldContainer[RequestColumn]
    def __init__(self, source: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[RequestColumn, _Mapping]]] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("feature_service", "entities", "as_of_ms", "include_metadata", "columns", "events")
    FEATURE_SERVICE_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_METADATA_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    feature_service: str
    entities: _containers.RepeatedCompositeFieldContainer[EntityColumn]
    as_of_ms: _containers.RepeatedScalarFieldContainer[int]
    include_metadata: bool
    columns: _containers.RepeatedCompositeFieldContainer[RequestColumn]
    events: _containers.RepeatedCompositeFieldContainer[RequestEvents]
    def __init__(self, feature_service: _Optional[str] = ..., entities: _Optional[_Iterable[_Union[EntityColumn, _Mapping]]] = ..., as_of_ms: _Optional[_Iterable[int]] = ..., include_metadata: _Optional[bool] = ..., columns: _Optional[_Iterable[_Union[RequestColumn, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[RequestEvents, _Mapping]]] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("schema_id", "row_count", "doubles", "integers", "strings", "statuses", "as_of_ms", "views", "integer_lists", "double_lists", "string_lists", "integer_maps", "double_maps")
    SCHEMA_ID_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    DOUBLES_FIELD_NUMBER: _ClassVar[int]
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    INTEGER_LISTS_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_LISTS_FIELD_NUMBER: _ClassVar[int]
    STRING_LISTS_FIELD_NUMBER: _ClassVar[int]
    INTEGER_MAPS_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_MAPS_FIELD_NUMBER: _ClassVar[int]
    schema_id: int
    row_count: int
    doubles: _containers.RepeatedScalarFieldContainer[float]
    integers: _containers.RepeatedScalarFieldContainer[int]
    strings: _containers.RepeatedScalarFieldContainer[str]
    statuses: bytes
    as_of_ms: _containers.RepeatedScalarFieldContainer[int]
    views: _containers.RepeatedCompositeFieldContainer[ViewMetadata]
    integer_lists: IntegerLists
    double_lists: DoubleLists
    string_lists: StringLists
    integer_maps: IntegerMaps
    double_maps: DoubleMaps
    def __init__(self, schema_id: _Optional[int] = ..., row_count: _Optional[int] = ..., doubles: _Optional[_Iterable[float]] = ..., integers: _Optional[_Iterable[int]] = ..., strings: _Optional[_Iterable[str]] = ..., statuses: _Optional[bytes] = ..., as_of_ms: _Optional[_Iterable[int]] = ..., views: _Optional[_Iterable[_Union[ViewMetadata, _Mapping]]] = ..., integer_lists: _Optional[_Union[IntegerLists, _Mapping]] = ..., double_lists: _Optional[_Union[DoubleLists, _Mapping]] = ..., string_lists: _Optional[_Union[StringLists, _Mapping]] = ..., integer_maps: _Optional[_Union[IntegerMaps, _Mapping]] = ..., double_maps: _Optional[_Union[DoubleMaps, _Mapping]] = ...) -> None: ...

class IntegerLists(_message.Message):
    __slots__ = ("lengths", "values")
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, lengths: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[int]] = ...) -> None: ...

class DoubleLists(_message.Message):
    __slots__ = ("lengths", "values")
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, lengths: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class StringLists(_message.Message):
    __slots__ = ("lengths", "values")
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lengths: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...

class IntegerMaps(_message.Message):
    __slots__ = ("lengths", "keys", "values")
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, lengths: _Optional[_Iterable[int]] = ..., keys: _Optional[_Iterable[str]] = ..., values: _Optional[_Iterable[int]] = ...) -> None: ...

class DoubleMaps(_message.Message):
    __slots__ = ("lengths", "keys", "values")
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, lengths: _Optional[_Iterable[int]] = ..., keys: _Optional[_Iterable[str]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class ViewMetadata(_message.Message):
    __slots__ = ("event_time_ms", "freshness_ms", "checkpoints", "checkpoint_index")
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_MS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_INDEX_FIELD_NUMBER: _ClassVar[int]
    event_time_ms: _containers.RepeatedScalarFieldContainer[int]
    freshness_ms: _containers.RepeatedScalarFieldContainer[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[LaneCheckpoint]
    checkpoint_index: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, event_time_ms: _Optional[_Iterable[int]] = ..., freshness_ms: _Optional[_Iterable[int]] = ..., checkpoints: _Optional[_Iterable[_Union[LaneCheckpoint, _Mapping]]] = ..., checkpoint_index: _Optional[_Iterable[int]] = ...) -> None: ...

class LaneCheckpoint(_message.Message):
    __slots__ = ("watermark_ms", "positions")
    WATERMARK_MS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    watermark_ms: int
    positions: _containers.RepeatedCompositeFieldContainer[SourcePosition]
    def __init__(self, watermark_ms: _Optional[int] = ..., positions: _Optional[_Iterable[_Union[SourcePosition, _Mapping]]] = ...) -> None: ...

class SourcePosition(_message.Message):
    __slots__ = ("topic", "partition", "next_offset")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    next_offset: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., next_offset: _Optional[int] = ...) -> None: ...

class JoinKeyDescription(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: ValueType
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[ValueType, str]] = ...) -> None: ...

class FeatureDescription(_message.Message):
    __slots__ = ("name", "type", "slot", "view", "zero_when_not_found")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    ZERO_WHEN_NOT_FOUND_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: ValueType
    slot: int
    view: int
    zero_when_not_found: bool
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[ValueType, str]] = ..., slot: _Optional[int] = ..., view: _Optional[int] = ..., zero_when_not_found: _Optional[bool] = ...) -> None: ...

class ViewDescription(_message.Message):
    __slots__ = ("name", "definition_hash")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_HASH_FIELD_NUMBER: _ClassVar[int]
    name: str
    definition_hash: str
    def __init__(self, name: _Optional[str] = ..., definition_hash: _Optional[str] = ...) -> None: ...

class DescribeFeatureServiceRequest(_message.Message):
    __slots__ = ("feature_service",)
    FEATURE_SERVICE_FIELD_NUMBER: _ClassVar[int]
    feature_service: str
    def __init__(self, feature_service: _Optional[str] = ...) -> None: ...

class EventSourceDescription(_message.Message):
    __slots__ = ("name", "event_time_column", "columns")
    class Column(_message.Message):
        __slots__ = ("name", "type")
        NAME_FIELD_NUMBER: _ClassVar[int]
        TYPE_FIELD_NUMBER: _ClassVar[int]
        name: str
        type: ValueType
        def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[ValueType, str]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_COLUMN_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    name: str
    event_time_column: str
    columns: _containers.RepeatedCompositeFieldContainer[EventSourceDescription.Column]
    def __init__(self, name: _Optional[str] = ..., event_time_column: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[EventSourceDescription.Column, _Mapping]]] = ...) -> None: ...

class DescribeFeatureServiceResponse(_message.Message):
    __slots__ = ("schema_id", "feature_service", "join_keys", "features", "views", "request_columns", "event_sources")
    SCHEMA_ID_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SERVICE_FIELD_NUMBER: _ClassVar[int]
    JOIN_KEYS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    EVENT_SOURCES_FIELD_NUMBER: _ClassVar[int]
    schema_id: int
    feature_service: str
    join_keys: _containers.RepeatedCompositeFieldContainer[JoinKeyDescription]
    features: _containers.RepeatedCompositeFieldContainer[FeatureDescription]
    views: _containers.RepeatedCompositeFieldContainer[ViewDescription]
    request_columns: _containers.RepeatedCompositeFieldContainer[RequestColumnDescription]
    event_sources: _containers.RepeatedCompositeFieldContainer[EventSourceDescription]
    def __init__(self, schema_id: _Optional[int] = ..., feature_service: _Optional[str] = ..., join_keys: _Optional[_Iterable[_Union[JoinKeyDescription, _Mapping]]] = ..., features: _Optional[_Iterable[_Union[FeatureDescription, _Mapping]]] = ..., views: _Optional[_Iterable[_Union[ViewDescription, _Mapping]]] = ..., request_columns: _Optional[_Iterable[_Union[RequestColumnDescription, _Mapping]]] = ..., event_sources: _Optional[_Iterable[_Union[EventSourceDescription, _Mapping]]] = ...) -> None: ...

class RequestColumnDescription(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: ValueType
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[ValueType, str]] = ...) -> None: ...

class ListFeatureServicesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListFeatureServicesResponse(_message.Message):
    __slots__ = ("services",)
    class Service(_message.Message):
        __slots__ = ("name", "join_keys", "feature_count")
        NAME_FIELD_NUMBER: _ClassVar[int]
        JOIN_KEYS_FIELD_NUMBER: _ClassVar[int]
        FEATURE_COUNT_FIELD_NUMBER: _ClassVar[int]
        name: str
        join_keys: _containers.RepeatedScalarFieldContainer[str]
        feature_count: int
        def __init__(self, name: _Optional[str] = ..., join_keys: _Optional[_Iterable[str]] = ..., feature_count: _Optional[int] = ...) -> None: ...
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[ListFeatureServicesResponse.Service]
    def __init__(self, services: _Optional[_Iterable[_Union[ListFeatureServicesResponse.Service, _Mapping]]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("lookup", "features")
    LOOKUP_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    lookup: LookupRequest
    features: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lookup: _Optional[_Union[LookupRequest, _Mapping]] = ..., features: _Optional[_Iterable[str]] = ...) -> None: ...

class ExplainedValue(_message.Message):
    __slots__ = ("integer", "number", "text", "flag", "list", "map")
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    integer: int
    number: float
    text: str
    flag: bool
    list: ExplainedList
    map: ExplainedMap
    def __init__(self, integer: _Optional[int] = ..., number: _Optional[float] = ..., text: _Optional[str] = ..., flag: _Optional[bool] = ..., list: _Optional[_Union[ExplainedList, _Mapping]] = ..., map: _Optional[_Union[ExplainedMap, _Mapping]] = ...) -> None: ...

class ExplainedList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[ExplainedValue]
    def __init__(self, values: _Optional[_Iterable[_Union[ExplainedValue, _Mapping]]] = ...) -> None: ...

class ExplainedMap(_message.Message):
    __slots__ = ("keys", "values")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    values: _containers.RepeatedCompositeFieldContainer[ExplainedValue]
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., values: _Optional[_Iterable[_Union[ExplainedValue, _Mapping]]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("as_of_ms", "refusal", "views", "features", "request", "events")
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    as_of_ms: int
    refusal: str
    views: _containers.RepeatedCompositeFieldContainer[ExplainedView]
    features: _containers.RepeatedCompositeFieldContainer[ExplainedFeature]
    request: ExplainedMap
    events: _containers.RepeatedCompositeFieldContainer[ExplainedEvent]
    def __init__(self, as_of_ms: _Optional[int] = ..., refusal: _Optional[str] = ..., views: _Optional[_Iterable[_Union[ExplainedView, _Mapping]]] = ..., features: _Optional[_Iterable[_Union[ExplainedFeature, _Mapping]]] = ..., request: _Optional[_Union[ExplainedMap, _Mapping]] = ..., events: _Optional[_Iterable[_Union[ExplainedEvent, _Mapping]]] = ...) -> None: ...

class ExplainedEvent(_message.Message):
    __slots__ = ("source", "columns")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    source: str
    columns: ExplainedMap
    def __init__(self, source: _Optional[str] = ..., columns: _Optional[_Union[ExplainedMap, _Mapping]] = ...) -> None: ...

class ExplainedView(_message.Message):
    __slots__ = ("name", "entity", "definition_hash", "stored_as", "generation", "state", "event_time_ms", "freshness_ms", "lookback_ms", "checkpoint", "tiles")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_HASH_FIELD_NUMBER: _ClassVar[int]
    STORED_AS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_MS_FIELD_NUMBER: _ClassVar[int]
    LOOKBACK_MS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    name: str
    entity: _containers.RepeatedCompositeFieldContainer[EntityColumn]
    definition_hash: str
    stored_as: str
    generation: int
    state: str
    event_time_ms: int
    freshness_ms: int
    lookback_ms: int
    checkpoint: LaneCheckpoint
    tiles: _containers.RepeatedCompositeFieldContainer[ExplainedTile]
    def __init__(self, name: _Optional[str] = ..., entity: _Optional[_Iterable[_Union[EntityColumn, _Mapping]]] = ..., definition_hash: _Optional[str] = ..., stored_as: _Optional[str] = ..., generation: _Optional[int] = ..., state: _Optional[str] = ..., event_time_ms: _Optional[int] = ..., freshness_ms: _Optional[int] = ..., lookback_ms: _Optional[int] = ..., checkpoint: _Optional[_Union[LaneCheckpoint, _Mapping]] = ..., tiles: _Optional[_Iterable[_Union[ExplainedTile, _Mapping]]] = ...) -> None: ...

class ExplainedTile(_message.Message):
    __slots__ = ("start_ms", "end_ms", "event_count", "merged", "is_event", "columns", "is_in_flight")
    START_MS_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    EVENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    MERGED_FIELD_NUMBER: _ClassVar[int]
    IS_EVENT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    IS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    start_ms: int
    end_ms: int
    event_count: int
    merged: int
    is_event: bool
    columns: ExplainedMap
    is_in_flight: bool
    def __init__(self, start_ms: _Optional[int] = ..., end_ms: _Optional[int] = ..., event_count: _Optional[int] = ..., merged: _Optional[int] = ..., is_event: _Optional[bool] = ..., columns: _Optional[_Union[ExplainedMap, _Mapping]] = ..., is_in_flight: _Optional[bool] = ...) -> None: ...

class ExplainedFeature(_message.Message):
    __slots__ = ("name", "view", "type", "meaning", "hop_ms", "value", "status", "windows", "partials", "reads", "feature", "counts_event")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MEANING_FIELD_NUMBER: _ClassVar[int]
    HOP_MS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    PARTIALS_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_EVENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    view: int
    type: ValueType
    meaning: str
    hop_ms: int
    value: ExplainedValue
    status: FeatureStatus
    windows: _containers.RepeatedCompositeFieldContainer[ExplainedWindow]
    partials: _containers.RepeatedCompositeFieldContainer[ExplainedValue]
    reads: _containers.RepeatedCompositeFieldContainer[ExplainedFeature]
    feature: str
    counts_event: bool
    def __init__(self, name: _Optional[str] = ..., view: _Optional[int] = ..., type: _Optional[_Union[ValueType, str]] = ..., meaning: _Optional[str] = ..., hop_ms: _Optional[int] = ..., value: _Optional[_Union[ExplainedValue, _Mapping]] = ..., status: _Optional[_Union[FeatureStatus, str]] = ..., windows: _Optional[_Iterable[_Union[ExplainedWindow, _Mapping]]] = ..., partials: _Optional[_Iterable[_Union[ExplainedValue, _Mapping]]] = ..., reads: _Optional[_Iterable[_Union[ExplainedFeature, _Mapping]]] = ..., feature: _Optional[str] = ..., counts_event: _Optional[bool] = ...) -> None: ...

class ExplainedWindow(_message.Message):
    __slots__ = ("begin_ms", "end_ms", "first_tile", "end_tile", "cut")
    BEGIN_MS_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    FIRST_TILE_FIELD_NUMBER: _ClassVar[int]
    END_TILE_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    begin_ms: int
    end_ms: int
    first_tile: int
    end_tile: int
    cut: ExplainedCut
    def __init__(self, begin_ms: _Optional[int] = ..., end_ms: _Optional[int] = ..., first_tile: _Optional[int] = ..., end_tile: _Optional[int] = ..., cut: _Optional[_Union[ExplainedCut, _Mapping]] = ...) -> None: ...

class ExplainedCut(_message.Message):
    __slots__ = ("kind", "start_ms", "end_ms")
    KIND_FIELD_NUMBER: _ClassVar[int]
    START_MS_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    start_ms: int
    end_ms: int
    def __init__(self, kind: _Optional[str] = ..., start_ms: _Optional[int] = ..., end_ms: _Optional[int] = ...) -> None: ...
