"""A registry's schemas, as a table, that says what it was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from featurestore.wire.formats.columns import SchemaId


@dataclass
class Registered:
    """Schemas by their ids.

    Attributes:
        texts: of Avro.
        sets: of Protobuf.
        asked: the ids, in the order of the questions.
    """

    texts: dict[SchemaId, str] = field(default_factory=dict)
    sets: dict[SchemaId, FileDescriptorSet] = field(default_factory=dict)
    asked: list[SchemaId] = field(default_factory=list)

    def text(self, schema_id: SchemaId) -> str | None:
        """See Schemas."""
        self.asked.append(schema_id)
        return self.texts.get(schema_id)

    def files(self, schema_id: SchemaId) -> FileDescriptorSet | None:
        """See Schemas."""
        self.asked.append(schema_id)
        return self.sets.get(schema_id)
