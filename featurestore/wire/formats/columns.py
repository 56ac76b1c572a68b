"""The protocol of payload formats, and what all of them have: texts and moments as columns, and what none may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias
from uuid import UUID

import numpy as np
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from featurestore.core.events import (
    TEXT_BYTES_MAX,
    BoolArray,
    ColumnValues,
    Float64Array,
    Int64Array,
    ObjectArray,
)
from featurestore.core.spec import SourceSpec, ValueType
from featurestore.errors import InvalidRequest
from featurestore.wire.formats import iso8601
from featurestore.wire.moments import MILLISECONDS, UNITS, as_ms

STRING_CHARACTERS_MAX = TEXT_BYTES_MAX // 4
"""Longest text that fits a head row whatever its characters; a longer one makes its record undecodable."""


@dataclass(frozen=True, slots=True)
class WantedColumn:
    """A column that is read.

    Attributes:
        name: of the column.
        type: of its values.
        field: what the payload calls it.
        unit: "s", "ms", "us" or "ns": of integers that are moments.
    """

    name: str
    type: ValueType
    field: str
    unit: str = MILLISECONDS


@dataclass(frozen=True, slots=True)
class ReadColumns:
    """N payloads as columns.

    Attributes:
        rows: (K,) the payload that each row comes from, ascending; what cannot be read at all is missing.
        columns: by name, of K rows; TIMESTAMP columns are milliseconds, INT64 ones are as they were given.
        refused: what is wrong with payloads that are no events; some may be among `rows`.
        given: what a row of a column was before it was a moment, for whoever has to tell its author.
    """

    rows: Int64Array
    columns: Mapping[str, ColumnValues]
    refused: Mapping[int, str]
    given: Callable[[str, int], object]


ID_BYTES, GUID_BYTES = 5, 17
"""What Confluent's serializers put before a record: a zero and the id of the writer's schema in four bytes, big-endian,
or a one and its GUID. What they put into a header of Kafka's is put there by whoever reads the topic."""

SchemaId: TypeAlias = int | UUID
"""A schema's number in its registry, or its GUID."""


def id_bytes(payload: bytes) -> int:
    """How many bytes of a payload are the id of its schema; 0 of one that does not begin with one."""
    kind = payload[0] if payload else -1
    size = ID_BYTES if kind == 0 else GUID_BYTES if kind == 1 else 0
    return size if len(payload) >= size else 0


def header_mistake(payload: bytes) -> str:
    """What is wrong with a payload that does not begin with the id of a schema."""
    return "does not begin with the id of a schema, and no header has one" if payload else "is empty"


class Schemas(Protocol):
    """A registry's schemas by their ids; None of one that it does not know.

    May raise what a registry that does not answer raises, and the payloads are read again then.
    """

    def text(self, schema_id: SchemaId) -> str | None:
        """An Avro schema."""
        ...

    def files(self, schema_id: SchemaId) -> FileDescriptorSet | None:
        """The files of a Protobuf schema, its own last.

        Raises:
            UnusableSchema: it cannot be compiled.
        """
        ...


class UnusableSchema(InvalidRequest):
    """A registry has a schema that is none; a matter of its records alone."""


class NoSchemas:
    """Of plain JSON."""

    def text(self, schema_id: SchemaId) -> str | None:
        """See Schemas."""
        return None

    def files(self, schema_id: SchemaId) -> FileDescriptorSet | None:
        """See Schemas."""
        return None


class PayloadReader(Protocol):
    """Reads the payloads of one source."""

    def read(self, payloads: Sequence[bytes]) -> ReadColumns:
        """The columns of some payloads. Never fails for what a payload holds; that is refused, by payload."""
        ...


def wanted_columns(source: SourceSpec, names: Sequence[str]) -> tuple[WantedColumn, ...]:
    """The columns of a source's payload of these names, which it has."""
    field_of = dict(source.renamed)
    wanted = []
    for name in dict.fromkeys(names):
        column = source.column(name)
        assert column is not None, "names were looked up"
        unit = source.event_time_unit if name == source.event_time_column else MILLISECONDS
        wanted.append(WantedColumn(name, column.type, field_of.get(name, name), unit))
    return tuple(wanted)


def moments(values: Sequence[int | str | None], unit: str) -> tuple[ColumnValues, Int64Array]:
    """Texts and integers of a unit as milliseconds, and the rows whose text is no time.

    Args:
        values: N values.
        unit: of the integers.
    """
    kinds = set(map(type, values))
    if kinds == {str}:
        times_ms, parsed = iso8601.parse_column(values)  # type: ignore[arg-type]  # kinds says all are str
        return ColumnValues(times_ms), np.flatnonzero(~parsed)
    if str not in kinds and type(None) not in kinds:
        return ColumnValues(as_ms(np.fromiter(values, np.int64, len(values)), unit)), np.empty(0, dtype=np.int64)
    parsed_each = [iso8601.parse_text(value) if isinstance(value, str) else value for value in values]
    filled = np.fromiter((time or 0 for time in parsed_each), dtype=np.int64, count=len(values))
    if unit != MILLISECONDS:
        are_integers = np.fromiter((isinstance(value, int) for value in values), dtype=np.bool_, count=len(values))
        filled = np.where(are_integers, as_ms(filled, unit), filled)
    valid = validity(values)
    return ColumnValues(filled, none_if_all(valid)), np.flatnonzero(valid & ~validity(parsed_each))


def no_moment(name: str, unit: str, value: object) -> str:
    """What is wrong with a text that is no time: what it looks like, as its value may be somebody's.

    >>> no_moment("at", "ms", "28.05.2026")
    'at is neither ISO 8601 nor milliseconds: it is like 99.99.9999'
    """
    looks = "".join("9" if one.isdigit() else "a" if one.isalpha() else one for one in str(value)[:40])
    return f"{name} is neither ISO 8601 nor {UNITS[unit]}: it is like {looks}"


def numbers(values: Sequence[int | float | bool | None], kind: ValueType) -> ColumnValues:
    """A column of numbers; True and False become 1 and 0."""
    try:
        return ColumnValues(_numbers(values, kind))
    except TypeError:  # a null among them
        return ColumnValues(_numbers([0 if value is None else value for value in values], kind), validity(values))


def texts(values: Sequence[str | None]) -> ColumnValues:
    """A STRING column as UTF-8 bytes; null rows hold b""."""
    try:
        return ColumnValues(objects(list(map(str.encode, values))))  # type: ignore[arg-type]  # a None raises
    except TypeError:
        return ColumnValues(objects([b"" if text is None else text.encode() for text in values]), validity(values))


def refuse_unfit(
    column: WantedColumn, rows: Int64Array, values: Int64Array | Float64Array | Sequence[bytes], refused: dict[int, str]
) -> None:
    """Refuse what no payload may hold: doubles that are no finite number, bytes that are no text, endless texts.

    Args:
        column: whose values.
        rows: (K,) the payloads they are of.
        values: K numbers or texts.
        refused: gets what is wrong, by payload, unless something else was.
    """
    if isinstance(values, np.ndarray):
        if values.dtype == np.float64 and not (finite := np.isfinite(values)).all():
            for row in rows[~finite].tolist():
                refused.setdefault(row, f"{column.name} is no finite number")
        return
    if max(map(len, values), default=0) <= STRING_CHARACTERS_MAX and b"".join(values).isascii():
        return
    for index, text in enumerate(values):
        if text.isascii() and len(text) <= STRING_CHARACTERS_MAX:
            continue
        try:
            if len(text.decode()) <= STRING_CHARACTERS_MAX:
                continue
            detail = f"{column.name} has more than {STRING_CHARACTERS_MAX} characters"
        except UnicodeDecodeError as error:
            detail = f"{column.name} is no UTF-8: {error.reason}"
        refused.setdefault(int(rows[index]), detail)


def validity(values: Sequence[object]) -> BoolArray:
    """(N,) True where the value is not None."""
    return np.fromiter((value is not None for value in values), dtype=np.bool_, count=len(values))


def none_if_all(valid: BoolArray) -> BoolArray | None:
    """None where no row is null, as `ColumnValues` says it."""
    return None if valid.all() else valid


def objects(values: Sequence[bytes]) -> ObjectArray:
    """An object array of N bytes; np.array would make a fixed-width one and cut trailing zero bytes."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def _numbers(values: Sequence[int | float | bool | None], kind: ValueType) -> Int64Array | Float64Array:
    """(N,) numbers of a column without nulls. Raises TypeError at a None."""
    if kind is ValueType.FLOAT64:
        floats = np.fromiter(values, dtype=np.float64, count=len(values))
        if np.isnan(floats).any():
            # NumPy takes None for NaN, which no record can hold.
            raise TypeError("a value is None")
        return floats
    return np.fromiter(values, dtype=np.int64, count=len(values))
