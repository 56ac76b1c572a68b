"""A registry that is a directory: what a registry's URL stands for where there is none, on a desk and in tests.

    DIR/<subject>/<id>.avsc | .proto | .json        DIR/transactions-value/1.avsc

The number is the schema's id, which a record begins with, and the version of its subject: rising, and of one schema in
all of the directory. What a .proto file imports is beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from featurestore.definitions.schemas.proto_text import descriptors
from featurestore.definitions.schemas.subjects import SubjectSchema
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.wire.formats.columns import SchemaId, UnusableSchema

SCHEME = "file:"
"""Of the address of such a registry: "file:schemas" is one in the working directory."""

SCHEMAS = "_schemas"
"""Directory of an embedded log with the schemas of its topics; a registry's own topic in Kafka is called so, too."""

JSON_ENDING, BASE64_ENDING = ".jsonl", ".base64"
"""Of the partitions of an embedded log: lines of JSON, and lines of bytes in base64."""

_READ_BYTES = 4 * 1024 * 1024

KINDS = {".avsc": "AVRO", ".proto": "PROTOBUF", ".json": "JSON"}
"""Ending of a schema's file -> its kind."""


def ending_of(source_format: str) -> str:
    """The ending of an embedded log's partitions whose records are of a source's format."""
    return JSON_ENDING if source_format == "json" else BASE64_ENDING


class SchemaDirectory:
    """The schemas of a directory; it may be filled while it is read.

    Args:
        path: of the directory, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def text(self, schema_id: SchemaId) -> str | None:
        """See Schemas.

        Raises:
            InvalidRequest: several schemas have the id.
        """
        texts = {_read(path) for _, number, path in self._schemas() if number == schema_id}
        if len(texts) > 1:
            raise InvalidRequest(
                f'directory "{self._path}" has several schemas of id {schema_id}', hint="give each file its own number"
            )
        return next(iter(texts), None)

    def files(self, schema_id: SchemaId) -> FileDescriptorSet | None:
        """See Schemas."""
        for _, number, path in self._schemas():
            if number == schema_id:
                try:
                    return descriptors(_read(path), _imports(path))
                except InvalidRequest as error:
                    raise UnusableSchema(error.message, detail=error.detail) from error
        return None

    def newest(self, subject: str) -> SubjectSchema | None:
        """See Registries."""
        return self._newest(subject, None)

    def before(self, subject: str, version: int) -> SubjectSchema | None:
        """See Registries."""
        return self._newest(subject, version)

    def compatibility(self, subject: str) -> str:
        """See Registries: nobody checks what is put into a directory, and nobody promised to."""
        return ""

    def register(self, subject: str, text: str, ending: str = ".avsc") -> int:
        """The id of a schema, which is written where the subject does not have it yet.

        Raises:
            SourceUnavailable: it cannot be written.
        """
        known = list(self._schemas())
        for name, number, path in known:
            if name == subject and _read(path) == text:
                return number
        schema_id = max((number for _, number, _ in known), default=0) + 1
        path = self._path / subject / f"{schema_id}{ending}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whole or not at all: somebody may be reading.
            written = path.with_name(f".{path.name}")
            written.write_text(text, encoding="utf-8")
            written.replace(path)
        except OSError as error:
            raise SourceUnavailable(f'schema "{path}" cannot be written', detail=str(error)) from error
        return schema_id

    def _newest(self, subject: str, before: int | None) -> SubjectSchema | None:
        versions = {number: path for name, number, path in self._schemas() if name == subject}
        older = [number for number in versions if before is None or number < before]
        if not older:
            return None
        path = versions[max(older)]
        return SubjectSchema(_read(path), _imports(path), KINDS[path.suffix], max(older))

    def _schemas(self) -> Iterator[tuple[str, int, Path]]:
        """Subject, id and file of each schema."""
        for path in sorted(self._path.glob("*/*")):
            if path.suffix in KINDS and path.stem.isdecimal():
                yield path.parent.name, int(path.stem), path


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SourceUnavailable(f'schema "{path}" cannot be read', detail=str(error)) from error


def _imports(path: Path) -> dict[str, str]:
    """Files beside a .proto that are no schemas of their own."""
    beside = path.parent.glob("*.proto") if path.suffix == ".proto" else ()
    return {one.name: _read(one) for one in beside if not one.stem.isdecimal()}


def log_ends(log_dir: Path) -> dict[tuple[str, int], int]:
    """Number of records of each (topic, partition) of a log directory."""
    return {
        (path.parent.name, int(path.stem)): _count_lines(path)
        for path in sorted(log_dir.glob("*/*"))
        if path.stem.isdecimal() and path.suffix in (JSON_ENDING, BASE64_ENDING)
    }


def _count_lines(path: Path) -> int:
    """Complete lines of a file."""
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_READ_BYTES), b""))
