"""An answer as Feast's vectors: one for each feature, with a value, a status and an event timestamp for every row.

Feast's Java client indexes all three without looking at their lengths, so all three are filled for every row.

    ours               Feast's
    PRESENT            PRESENT
    NULL_VALUE         NULL_VALUE, value unset
    NOT_FOUND          NOT_FOUND, value 0 for counts and sums, else unset
    NOT_READY          NOT_FOUND, value unset: not ingested yet
    OUTSIDE_MAX_AGE    OUTSIDE_MAX_AGE, value unset

An empty list or map is a value that is set and empty. The messages may be of Feast's own module or of any other pool
(`wire.feast.protos`): vectors are filled in place, which costs half of building values and adding them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.msgpack import Ext

from featurestore.core.spec import ValueType
from featurestore.online.answer.assembly import Answer
from featurestore.online.answer.schema import FeatureSlot, FeatureStatus, Matrix, ServiceSchema

PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = 1, 2, 3, 4
"""Numbers of feast.serving.FieldStatus."""

_FEAST_STATUS: dict[int, int] = {
    FeatureStatus.PRESENT: PRESENT,
    FeatureStatus.NULL_VALUE: NULL_VALUE,
    FeatureStatus.NOT_FOUND: NOT_FOUND,
    FeatureStatus.NOT_READY: NOT_FOUND,
    FeatureStatus.OUTSIDE_MAX_AGE: OUTSIDE_MAX_AGE,
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

_STORED_FIELDS: dict[type, str] = {bool: "bool_val", int: "int64_val", float: "double_val", str: "string_val"}

_MS_PER_SECOND = 1_000
_NS_PER_MS = 1_000_000


class FeastVectors:
    """Vectors of one answer.

    Args:
        schema: layout of the answer.
        answer: N rows.
        timestamp: makes a google.protobuf.Timestamp of the messages' pool, from seconds and nanos.
    """

    def __init__(self, schema: ServiceSchema, answer: Answer, timestamp: Callable[..., Any]) -> None:
        self._schema = schema
        self._answer = answer
        self._stamps = [[_stamp(timestamp, at) for at in moments] for moments in answer.event_time_ms.tolist()]
        self._statuses: list[list[int]] = answer.statuses.tolist()
        self._null: list[list[bool]] = answer.null.tolist()
        self._matrices = {Matrix.INTEGERS: answer.integers.tolist(), Matrix.DOUBLES: answer.doubles.tolist()}

    def add(self, results: Any, index: int) -> None:
        """Append the vector of one feature.

        Args:
            results: the response's field of vectors.
            index: of the feature, in the schema's features.
        """
        feature = self._schema.features[index]
        vector = results.add()
        vector.statuses.extend([_FEAST_STATUS[status] for status in self._statuses[index]])
        vector.event_timestamps.extend(self._stamps[feature.view])
        cells = self._cells(feature)
        if feature.type in _VALUE_FIELDS:
            _add_numbers_and_texts(vector.values, feature.type, cells, self._null[index])
        else:
            _add_objects(vector.values, feature.type, cells)

    def _cells(self, feature: FeatureSlot) -> Sequence[Any]:
        """The values of one feature as they stand in its matrix."""
        answer, rows = self._answer, self._answer.row_count
        if feature.matrix in self._matrices:
            cells: Sequence[Any] = self._matrices[feature.matrix][feature.slot]
            return cells
        cells = answer.strings if feature.matrix is Matrix.STRINGS else answer.objects[feature.matrix]
        return cells[feature.slot * rows : (feature.slot + 1) * rows]


def add_nothing(results: Any, row_count: int, timestamp: Callable[..., Any]) -> None:
    """Append the vector of a feature that nothing can be said of: NOT_FOUND in every row, no value."""
    vector = results.add()
    for _ in range(row_count):
        vector.values.add()
    vector.statuses.extend([NOT_FOUND] * row_count)
    vector.event_timestamps.extend([timestamp()] * row_count)


def _add_numbers_and_texts(values: Any, value_type: ValueType, cells: Sequence[Any], null: Sequence[bool]) -> None:
    """A value for each cell, unset where it is null."""
    if value_type is ValueType.TIMESTAMP:
        # Feast's timestamps are whole seconds.
        cells = [cell // _MS_PER_SECOND for cell in cells]
    field = _VALUE_FIELDS[value_type]
    add_value = values.add
    for cell, is_null in zip(cells, null, strict=True):
        added = add_value()
        if not is_null:
            setattr(added, field, cell)


def _add_objects(values: Any, value_type: ValueType, cells: Sequence[Any]) -> None:
    """A value for each list, map or stored value, unset where it is None."""
    for cell in cells:
        added = values.add()
        if cell is None:
            continue
        if isinstance(cell, Ext):
            added.MergeFromString(bytes(cell.data))
        elif value_type is ValueType.AS_STORED:
            setattr(added, _STORED_FIELDS[type(cell)], cell)
        elif value_type in _MAP_VALUE_FIELDS:
            # Present even when it is empty.
            added.map_val.SetInParent()
            entries, field = added.map_val.val, _MAP_VALUE_FIELDS[value_type]
            for key, value in cell.items():
                setattr(entries[key], field, value)
        else:
            elements = getattr(added, _LIST_FIELDS[value_type])
            elements.SetInParent()
            elements.val.extend(cell)


def _stamp(timestamp: Callable[..., Any], event_time_ms: int) -> Any:
    """A timestamp; the epoch where there is no event."""
    seconds, rest_ms = divmod(event_time_ms, _MS_PER_SECOND)
    return timestamp(seconds=seconds, nanos=rest_ms * _NS_PER_MS)
