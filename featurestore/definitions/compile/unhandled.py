"""What is legal in Feast and not done here: why, so that the plan can tell it and everything else goes on.

A mistake is different: nobody wants what it would do, so it stops the whole repo until it is corrected.
"""

from __future__ import annotations

from collections.abc import Mapping

from featurestore.definitions import limits
from featurestore.definitions.compile.source import AVRO, COLUMNS_TAG, KAFKA, PROTOBUF
from featurestore.definitions.compile.types import KEY_TYPES, UNDECLARED, VALUE_TYPES, key_type_name
from featurestore.wire.feast.registry import RegisteredEntity, RegisteredView


def why_not_computed(view: RegisteredView, entities: Mapping[str, RegisteredEntity]) -> str:
    """Why no stream computes a view with aggregations; "" where one does."""
    source = view.source
    if source is None or source.kind != KAFKA:
        return f"reads a source of kind {source.kind if source else 'none'}, not a stream of events"
    if source.format in (AVRO, PROTOBUF) and COLUMNS_TAG not in source.tags:
        return f'reads messages of {source.format} without the tag "{COLUMNS_TAG}", which says what of them'
    if view.has_function:
        return "transforms events by a function before aggregating"
    if not view.entities:
        return "has no entity"
    return why_not_keyed(view, entities)


def why_not_keyed(view: RegisteredView, entities: Mapping[str, RegisteredEntity]) -> str:
    """Why no entity key of a view can be made; "" where one can, or where its author has to correct something."""
    if len(view.name) > limits.NAME_LENGTH_MAX:
        return f"has a name of more than {limits.NAME_LENGTH_MAX} characters"
    if len(view.entities) > limits.JOIN_KEYS_MAX:
        return f"has more than {limits.JOIN_KEYS_MAX} entities"
    for name in view.entities:
        type_name = UNDECLARED if name not in entities else key_type_name(view, entities[name])
        if type_name != UNDECLARED and VALUE_TYPES.get(type_name) not in KEY_TYPES:
            return f'has entity "{name}" of type {type_name}, and keys are STRING or INT64'
    return ""
