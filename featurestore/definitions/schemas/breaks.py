"""What a schema would break: columns that it does not have, or that cannot hold what it has, by view and feature.

The schema is compiled as the stream compiles it, so that both say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from featurestore.core.inputs import ViewInputs
from featurestore.core.spec import SourceSpec, ViewSpec
from featurestore.definitions.schemas.proto_text import descriptors
from featurestore.wire.formats.avro.program import compile_schema
from featurestore.wire.formats.columns import WantedColumn, wanted_columns
from featurestore.wire.formats.protobuf.descriptors import Schema
from featurestore.wire.formats.protobuf.program import compile_message

CHECKED_FORMATS = frozenset({"avro", "protobuf"})
"""A JSON schema promises less than what JSON says itself."""


@dataclass(frozen=True, slots=True)
class Break:
    """A column that a schema breaks.

    Attributes:
        source: name of the source.
        column: of it.
        reason: what the schema has in its place.
        loses_records: every record would be a dead letter; otherwise the column would be null.
        features: view -> names of its features that read the column.
    """

    source: str
    column: str
    reason: str
    loses_records: bool
    features: Mapping[str, tuple[str, ...]]

    @property
    def what_follows(self) -> str:
        """In a clause."""
        return "every record would be a dead letter" if self.loses_records else "it would be null"


def find_breaks(
    source: SourceSpec, views: Sequence[ViewSpec], text: str, references: Mapping[str, str]
) -> tuple[Break, ...]:
    """What a schema would break of the views of a source.

    Args:
        source: of one topic, Avro or Protobuf.
        views: those that read it.
        text: the schema.
        references: what it imports, by the names of the imports.

    Raises:
        InvalidRequest: the text is no schema.
    """
    readers = _readers(source, views)
    columns = wanted_columns(source, sorted(readers))
    missing, misfits = _compiled(source, columns, text, references)
    needed = {source.event_time_column, source.event_id_column}
    needed |= {key.name for view in views for key in view.join_keys}
    field_of = {column.name: column.field for column in columns}
    breaks = [Break(source.name, name, reason, True, readers[name]) for name, reason in misfits.items()]
    breaks += [
        Break(source.name, name, f'the schema has no field "{field_of[name]}"', name in needed, readers[name])
        for name in missing
    ]
    return tuple(sorted(breaks, key=lambda one: (not one.loses_records, one.column)))


def _compiled(
    source: SourceSpec, columns: Sequence[WantedColumn], text: str, references: Mapping[str, str]
) -> tuple[frozenset[str], Mapping[str, str]]:
    """Columns that a schema does not have, and why others do not fit."""
    if source.format == "avro":
        of_avro = compile_schema(text, columns)
        return of_avro.missing, of_avro.misfits
    message = Schema(descriptors(text, references)).message((0,))
    if isinstance(message, str):
        return frozenset(), {column.name: message for column in columns}
    of_protobuf = compile_message(message, columns)
    return of_protobuf.missing, of_protobuf.misfits


def _readers(source: SourceSpec, views: Sequence[ViewSpec]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Column of the payload -> view -> the features that read it."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    always = [name for name in (source.event_time_column, source.event_id_column) if name]
    for view in views:
        for feature in view.features:
            for name in (*always, *ViewInputs(replace(view, features=(feature,))).payload_columns):
                if name == source.topic_column:
                    continue
                of_view = found.setdefault(name, {})
                if feature.name not in of_view.get(view.name, ()):
                    of_view[view.name] = (*of_view.get(view.name, ()), feature.name)
    return found
