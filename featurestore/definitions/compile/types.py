"""Types as Feast names them, and the typed join keys of a view."""

from __future__ import annotations

from collections.abc import Mapping

from featurestore.core.spec import Column, ValueType
from featurestore.definitions.problems import Place, ProblemList, suggest
from featurestore.errors.near_names import near_names
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
    """The typed join keys of a view, in the order of its entities; None when something is wrong with one.

    A view whose keys are of types that cannot be keys is not asked about (`unhandled.why_not_keyed`). One without
    entities has no join keys: its one row is everybody's.
    """
    found_before = len(problems.found)
    columns: list[Column] = []
    for name in view.entities:
        entity = entities.get(name)
        if entity is None:
            near = f"{suggest(name, entities)} If not, " if near_names(name, entities) else ""
            remedy = f"{near}assign it to a name in a module, such as {name} = Entity(...): Feast registers no others"
            problems.add(place, f'entity "{name}" is not registered', remedy)
            continue
        type_name = key_type_name(view, entity)
        if type_name == UNDECLARED:
            remedy = "give Entity(value_type=ValueType.STRING) or INT64"
            problems.add(Place("entity", name), "it has no value type", remedy)
        else:
            columns.append(Column(entity.join_key, VALUE_TYPES[type_name]))
    return tuple(columns) if len(problems.found) == found_before else None


def key_type_name(view: RegisteredView, entity: RegisteredEntity) -> str:
    """Feast's name of a join key's type: its entity's, else its field's in the view; UNDECLARED where nobody says."""
    if entity.value_type != UNDECLARED:
        return entity.value_type
    fields = (*view.entity_columns, *view.fields)
    return next((field.value_type for field in fields if field.name == entity.join_key), UNDECLARED)
