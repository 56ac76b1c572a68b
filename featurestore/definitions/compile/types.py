"""Types as Feast names them, and the typed join keys of a view."""

from __future__ import annotations

from collections.abc import Mapping

from featurestore.core.spec import Column, ValueType
from featurestore.definitions import limits
from featurestore.definitions.problems import Place, ProblemList, suggest
from featurestore.wire.feast.registry import RegisteredEntity, RegisteredView

VALUE_TYPES: Mapping[str, ValueType] = {
    "INT64": ValueType.INT64,
    "INT32": ValueType.INT64,
    "DOUBLE": ValueType.FLOAT64,
    "FLOAT": ValueType.FLOAT64,
    "STRING": ValueType.STRING,
    "BOOL": ValueType.BOOL,
    "UNIX_TIMESTAMP": ValueType.TIMESTAMP,
    "INT64_LIST": ValueType.INT64_LIST,
    "INT32_LIST": ValueType.INT64_LIST,
    "DOUBLE_LIST": ValueType.FLOAT64_LIST,
    "FLOAT_LIST": ValueType.FLOAT64_LIST,
    "STRING_LIST": ValueType.STRING_LIST,
}
"""Feast's ValueType.Enum names that can be keys (KEY_TYPES) or plain features, by how they are held."""

EXACT_TYPES: Mapping[ValueType, tuple[str, str]] = {
    ValueType.INT64: ("INT64", "Int64"),
    ValueType.FLOAT64: ("DOUBLE", "Float64"),
    ValueType.STRING: ("STRING", "String"),
    ValueType.BOOL: ("BOOL", "Bool"),
    ValueType.TIMESTAMP: ("UNIX_TIMESTAMP", "UnixTimestamp"),
    ValueType.INT64_LIST: ("INT64_LIST", "Array(Int64)"),
    ValueType.FLOAT64_LIST: ("DOUBLE_LIST", "Array(Float64)"),
    ValueType.STRING_LIST: ("STRING_LIST", "Array(String)"),
    ValueType.INT64_MAP: ("MAP", "Map"),
    ValueType.FLOAT64_MAP: ("MAP", "Map"),
}
"""Output type -> (the ValueType.Enum name that a windowed feature's Field must have, its name in feast.types)."""

KEY_TYPES = frozenset({ValueType.STRING, ValueType.INT64})
"""Types of which canonical entity keys exist."""

UNDECLARED = "INVALID"
"""What Feast stores for an entity whose author gave no value_type."""


def join_keys_of(
    view: RegisteredView, entities: Mapping[str, RegisteredEntity], place: Place, problems: ProblemList
) -> tuple[Column, ...] | None:
    """The typed join keys of a view, in the order of its entities; None when something is wrong with one."""
    found_before = len(problems.found)
    declared = {field.name: field.value_type for field in view.entity_columns}
    declared |= {field.name: field.value_type for field in view.fields if field.name not in declared}
    columns: list[Column] = []
    for name in view.entities:
        entity = entities.get(name)
        if entity is None:
            problems.add(place, f'entity "{name}" is not registered', suggest(name, entities))
            continue
        type_name = entity.value_type
        if type_name == UNDECLARED:
            type_name = declared.get(entity.join_key, UNDECLARED)
        value_type = VALUE_TYPES.get(type_name)
        entity_place = Place("entity", name)
        if type_name == UNDECLARED:
            problems.add(entity_place, "it has no value type", "give Entity(value_type=ValueType.STRING) or INT64")
        elif value_type not in KEY_TYPES:
            problems.add(entity_place, f"type {type_name} cannot be an entity key", "use ValueType.STRING or INT64")
        else:
            columns.append(Column(entity.join_key, value_type))
    if not view.entities:
        problems.add(place, "it has no entity", "give entities=[...], the keys by which its features are looked up")
    if len(columns) > limits.JOIN_KEYS_MAX:
        problems.add(place, f"it has more than {limits.JOIN_KEYS_MAX} entities", "combine keys into one column")
    return tuple(columns) if len(problems.found) == found_before else None
