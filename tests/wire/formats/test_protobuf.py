"""Protobuf payloads to columns, against Google's own messages: whatever they write is read as they read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.core.spec import ValueType
from featurestore.definitions.schemas.proto_text import descriptors
from featurestore.wire.formats.columns import STRING_CHARACTERS_MAX, ReadColumns, WantedColumn
from featurestore.wire.formats.protobuf.descriptors import Schema
from featurestore.wire.formats.protobuf.program import compile_message
from featurestore.wire.formats.protobuf.reader import ProtobufReader
from tests.wire.formats.drawn_protobuf import SCALARS, expected, message_of, same, topics
from tests.wire.formats.registered import Registered


def written(message: bytes, schema_id: int = 1, indexes: bytes = b"\0") -> bytes:
    """A payload in Confluent's wire format."""
    return b"\0" + schema_id.to_bytes(4, "big") + indexes + message


def read(columns: Sequence[WantedColumn], payloads: Sequence[bytes], *schemas: FileDescriptorSet) -> ReadColumns:
    """Payloads of schemas 1, 2 ..."""
    return ProtobufReader(columns, Registered(sets=dict(enumerate(schemas, start=1)))).read(payloads)


def values(found: ReadColumns, name: str) -> list[Any]:
    """A column as Python has it, with None where it is null."""
    column = found.columns[name]
    valid = [True] * len(found.rows) if column.valid is None else column.valid.tolist()
    assert isinstance(column.values, np.ndarray)
    return [value if is_there else None for value, is_there in zip(column.values.tolist(), valid, strict=True)]


@given(topics())
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_every_column_is_what_google_reads(drawn: tuple[FileDescriptorSet, list[WantedColumn], list[bytes]]) -> None:
    """Presence, defaults, oneofs, messages that are merged, enums, wrappers, Timestamps."""
    files, columns, messages = drawn
    cls = message_of(files, 0)

    found = read(columns, [written(message) for message in messages], files)

    assert found.rows.tolist() == list(range(len(messages))), found.refused
    for column in columns:
        for got, message in zip(values(found, column.name), messages, strict=True):
            assert same(got, expected(cls.FromString(message), column), column), (column, got, message)


@given(topics(), st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_message_is_refused_or_what_google_reads_and_its_neighbours_are_as_they_were(
    drawn: tuple[FileDescriptorSet, list[WantedColumn], list[bytes]], data: st.DataObject
) -> None:
    """Whatever its bytes say of tags, lengths and symbols."""
    files, columns, messages = drawn
    whole, damaged = written(messages[0]), bytearray(messages[0])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged)))
        damaged[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    cls = message_of(files, 0)

    alone = read(columns, [whole], files)
    found = read(columns, [whole, written(bytes(damaged)), whole], files)

    assert {0, 2} <= set(found.rows.tolist())
    assert set(found.rows.tolist()) | set(found.refused) == {0, 1, 2}
    assert set(found.refused) <= {1}
    for column in columns:
        (value,) = values(alone, column.name)
        got = values(found, column.name)
        assert same(got[0], value, column)
        assert same(got[-1], value, column)
    if not found.refused:
        try:
            message = cls.FromString(bytes(damaged))
        except DecodeError:
            return  # in what nobody wants
        for column in columns:
            assert same(values(found, column.name)[1], expected(message, column), column), (column, bytes(damaged))


PAYMENT = """
syntax = "proto3";
package bank;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message Heartbeat { int64 beat = 1; }
message Payment {
  string id = 1;
  double amount = 2;
  Channel channel = 3;
  Card card = 4;
  google.protobuf.Timestamp at = 5;
  google.protobuf.DoubleValue fee = 6;
  uint64 units = 7;
  repeated string tags = 8;
  map<string, int32> limits = 9;
  bytes raw = 10;
  int64 sent = 11;
  string told = 12;
  map<int32, string> by_day = 15;
  oneof payee { string iban = 13; Card to = 14; }
  message Card { string bin = 1; optional int32 year = 2; Card before = 3; }
}
enum Channel { POS = 0; WEB = 1; APP = 2; }
"""


@pytest.fixture(scope="module")
def payment() -> FileDescriptorSet:
    """What a registry's text means."""
    return descriptors(PAYMENT, {})


def test_messages_of_one_partition_may_be_of_several_types_and_schemas(payment: FileDescriptorSet) -> None:
    """Indexes say which message of a schema; a field that a type does not have is null in its messages."""
    new = descriptors(
        """
        syntax = "proto2";
        import "parts/channel.proto";
        message Payment { optional string id = 4; optional float amount = 2 [default = 7.5]; optional Ch channel = 9; }
        """,
        {"parts/channel.proto": 'syntax = "proto2"; enum Ch { TAP = 5; CHIP = 6; }'},
    )
    columns = [
        WantedColumn("id", ValueType.STRING, "id"),
        WantedColumn("amount", ValueType.FLOAT64, "amount"),
        WantedColumn("channel", ValueType.STRING, "channel"),
        WantedColumn("beat", ValueType.INT64, "beat"),
        WantedColumn("bin", ValueType.STRING, "card.bin"),
        WantedColumn("own bin", ValueType.STRING, "bin"),
    ]
    Old, Beat, Card = (message_of(payment, *indexes) for indexes in ((1,), (0,), (1, 0)))
    payloads = [
        written(Old(id="a", channel=1, card={"bin": "4"}).SerializeToString(), 1, b"\x02\x02"),
        written(message_of(new, 0)(id="b", channel=6).SerializeToString(), 2),
        written(Beat(beat=3).SerializeToString()),
        written(Card(bin="5").SerializeToString(), 1, b"\x04\x02\x00"),
        b"\x01" + UUID(int=9).bytes + b"\x02\x02" + Old(amount=1.5).SerializeToString(),
    ]

    found = ProtobufReader(columns, Registered(sets={1: payment, 2: new, UUID(int=9): payment})).read(payloads)

    assert found.refused == {}
    assert values(found, "id") == [b"a", b"b", None, None, b""]
    assert values(found, "amount") == [0.0, 7.5, None, None, 1.5]
    assert values(found, "channel") == [b"WEB", b"CHIP", None, None, b"POS"]
    assert values(found, "beat") == [None, None, 3, None, None]
    assert values(found, "bin") == [b"4", None, None, None, None]
    assert values(found, "own bin") == [None, None, None, b"5", None]


def test_what_no_column_of_the_type_holds_is_told_by_field(payment: FileDescriptorSet) -> None:
    """By whoever plans; a message of such a type is refused as a whole, and not read with a null."""
    fields = {
        "tags": ValueType.STRING,
        "limits": ValueType.INT64,
        "limits.value": ValueType.STRING,
        "by_day.7": ValueType.STRING,
        "raw": ValueType.STRING,
        "card": ValueType.STRING,
        "amount": ValueType.INT64,
        "amount.value": ValueType.INT64,
        "units": ValueType.BOOL,
        "channel": ValueType.INT64,
        "at": ValueType.INT64,
        "at.seconds": ValueType.INT64,
        "fee": ValueType.STRING,
        "id": ValueType.STRING,
        "card.before.before.bin": ValueType.STRING,
        "card.gone": ValueType.STRING,
        "gone": ValueType.STRING,
    }
    columns = [WantedColumn(name, kind, name) for name, kind in fields.items()]
    columns.append(WantedColumn("id again", ValueType.STRING, "id"))
    found = Schema(payment).message((1,))
    assert not isinstance(found, str)

    program = compile_message(found, columns)

    assert program.misfits == {
        "tags": "tags is a repeated field, which no column holds",
        "limits": "limits is a map, which no column holds: name one of its keys, limits.KEY",
        "limits.value": "limits.value is an int32, which no column of type string holds",
        "by_day.7": "by_day is a map whose keys are no texts, which no column holds",
        "raw": "raw is a bytes, which no column of type string holds",
        "card": "card is a message: name one of its fields, card.bin",
        "amount": "amount is a double, which no column of type int64 holds",
        "amount.value": "amount is a double, which has no fields",
        "units": "units is a uint64, which no column of type bool holds",
        "channel": "channel is an enum, which no column of type int64 holds",
        "at": "at is a google.protobuf.Timestamp, which no column of type int64 holds",
        "at.seconds": "at is column at already",
        "fee": "fee is a google.protobuf.DoubleValue, which no column of type string holds",
        "id again": "id is column id already",
    }
    assert program.missing == {"card.gone", "gone"}
    refused = read(columns[:1], [written(b"", 1, b"\x02\x02")], payment).refused
    assert refused == {0: "is of schema 1, in which tags is a repeated field, which no column holds"}


def test_payloads_that_are_no_events_say_why(payment: FileDescriptorSet) -> None:
    """Each alone; the others are read."""
    fields = {
        "id": ValueType.STRING,
        "amount": ValueType.FLOAT64,
        "channel": ValueType.STRING,
        "units": ValueType.INT64,
    }
    columns = [WantedColumn(name, kind, name) for name, kind in fields.items()]
    columns += [WantedColumn("at", ValueType.TIMESTAMP, "at"), WantedColumn("bin", ValueType.STRING, "card.bin")]
    of_payment, Payment = b"\x02\x02", message_of(payment, 1)
    good = written(Payment(id="a", amount=1.5).SerializeToString(), 1, of_payment)
    payloads = {
        good: None,
        b"": "is empty",
        b'{"id": "a"}': "does not begin with the id of a schema, and no header has one",
        good[:-1]: "ends in the middle of amount",
        good + b"\x07": "has a tag at a field that cannot be",
        good + b"\x05": "has a tag at a field that cannot be",
        good + b"\x22\x02\x0a\x01": "ends in the middle of card.bin",
        good + b"\x22\x01\x09": "ends in the middle of a field of card",
        good + b"\x18\x08": "has a number in the enum channel that its schema does not have",
        good + b"\x38" + b"\xff" * 9 + b"\x01": "has a number above 2^63 at units",
        good + b"\x38" + b"\xff" * 9 + b"\x02": "has a number of more than 64 bits at units",
        good + b"\x0a" + b"\xff" * 5 + b"\x01": "has a length at id that cannot be",
        good + b"\xfb\x3f" * 101: "is nested too deep at a field",
        good + b"\xfb\x3f" * 100 + b"\xfc\x3f" * 100: None,
        good + b"\xfb\x3f\xf4\x3f": "has a tag at a field that cannot be",
        good + b"\x2a\x02\x10\x7f": None,
        good + b"\x2a\x02\x10" + b"\xff" * 9 + b"\x01": "ends in the middle of at",
        written(Payment(amount=math.nan).SerializeToString(), 1, of_payment): "amount is no finite number",
        good.replace(b"a", b"\xff"): "id is no UTF-8: invalid start byte",
        written(Payment(id="x" * (STRING_CHARACTERS_MAX + 1)).SerializeToString(), 1, of_payment): (
            f"id has more than {STRING_CHARACTERS_MAX} characters"
        ),
        written(Payment(at={"seconds": 10**12}).SerializeToString(), 1, of_payment): (
            "at is 1000000000000 seconds and 0 nanoseconds, which is no Timestamp"
        ),
        written(b"", 77): "is of schema 77, which the registry does not know",
        written(b"", 1, b""): "does not say which message of its schema it is",
        written(b"", 1, b"\x02"): "does not say which message of its schema it is",
        written(b"", 1, b"\x01"): "does not say which message of its schema it is",
        written(b"", 1, b"\x02\x01"): "does not say which message of its schema it is",
        written(b"", 1, b"\x02\x0c"): "is of schema 1, which has no message of the index that it names",
        written(b"", 1, b"\x04\x02\x08"): "is of schema 1, which has no message of the index that it names",
    }

    found = read(columns, list(payloads), payment)

    assert found.refused == {row: detail for row, detail in enumerate(payloads.values()) if detail}


def test_moments_come_in_every_form(payment: FileDescriptorSet) -> None:
    """Integers are of the source's unit, texts ISO 8601; what nobody has set is no moment of 1970."""
    columns = [
        WantedColumn("at", ValueType.TIMESTAMP, "at"),
        WantedColumn("sent", ValueType.TIMESTAMP, "sent", "us"),
        WantedColumn("told", ValueType.TIMESTAMP, "told"),
    ]
    Payment = message_of(payment, 1)
    written_at = {"seconds": 1_780_000_000, "nanos": 123_999_999}
    messages = [
        Payment(at=written_at, sent=1_780_000_000_123_456, told="2026-05-28T20:26:40.123Z"),
        Payment(at={"seconds": -1, "nanos": 999_000_001}),
        Payment(told="yesterday"),
    ]

    found = read(columns, [written(each.SerializeToString(), 1, b"\x02\x02") for each in messages], payment)

    assert values(found, "at") == [1_780_000_000_123, -1, None]
    assert values(found, "sent") == [1_780_000_000_123, None, None]
    assert values(found, "told")[:2] == [1_780_000_000_123, None]
    assert found.refused == {2: "told is neither ISO 8601 nor milliseconds: it is like aaaaaaaaa"}
    assert found.given("told", 2) == "yesterday"
    assert found.given("sent", 0) == 1_780_000_000_123


def test_a_message_behind_a_map_is_refused_where_serializers_count_differently() -> None:
    """Java's count the nested messages of the text, those of Python and Go the entries of maps too."""
    files = descriptors(
        """
        syntax = "proto3";
        message Top {
          map<string, string> notes = 1;
          message A { string a = 1; }
          message B { string b = 1; }
        }
        """,
        {},
    )
    schema = Schema(files)

    found = [schema.message((0, index)) for index in range(4)]

    assert [each if isinstance(each, str) else each.name for each in found] == [
        "A",
        "in which its message is nested behind a map, and serializers count those differently",
        "B",
        "which has no message of the index that it names",
    ]


def test_a_schema_that_cannot_be_read_refuses_its_payloads() -> None:
    """And no crash at the first record."""
    torn = FileDescriptorSet(file=[FileDescriptorProto(name="a.proto", dependency=["google/protobuf/gone.proto"])])
    wrong = FileDescriptorSet(file=[FileDescriptorProto(name="a.proto")])
    wrong.file[0].message_type.add(name="A").field.add(name="a", number=1, type_name=".B")
    column = WantedColumn("a", ValueType.STRING, "a")

    found = read([column], [written(b"", 1), written(b"", 2), written(b"", 3)], torn, wrong, FileDescriptorSet())

    assert found.refused == {
        0: 'is of schema 1, which cannot be read: a Protobuf schema imports "google/protobuf/gone.proto", '
        "which it does not bring along",
        1: 'is of schema 2, which cannot be read: a Protobuf schema\'s file "a.proto" is not valid',
        2: "is of schema 3, which cannot be read: a Protobuf schema has no file",
    }
    assert len(found.rows) == 0


def test_bits_of_another_type_are_cut_or_stepped_over_as_google_does() -> None:
    """Numbers of 64 bits in fields of 32, and wire types that are not the field's, in fields of all types."""
    file = FileDescriptorProto(name="a.proto", syntax="proto3")
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    file.enum_type.add(name="E").value.add(name="ZERO", number=0)
    file.enum_type[0].value.add(name="MINUS", number=-1)
    message = file.message_type.add(name="A")
    for kind in [kind for kind in SCALARS if kind != FieldDescriptorProto.TYPE_BYTES]:
        field = message.field.add(name=f"f{kind}", number=kind, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
        if kind == FieldDescriptorProto.TYPE_ENUM:
            field.type_name = ".E"
    for number, name in ((30, "Timestamp"), (31, "UInt32Value"), (32, "StringValue")):
        message.field.add(
            name=f"f{number}",
            number=number,
            type=FieldDescriptorProto.TYPE_MESSAGE,
            type_name=f".google.protobuf.{name}",
            label=FieldDescriptorProto.LABEL_OPTIONAL,
        )
    files = FileDescriptorSet(file=[file])
    cls = message_of(files, 0)
    columns = [WantedColumn(field.name, _held_by(field), field.name) for field in cls.DESCRIPTOR.fields]
    bits = {
        0: [b"\x00", b"\x05", b"\x85\x80\x80\x80\x20", b"\xff" * 9 + b"\x01", b"\xff" * 8 + b"\x7f"],
        1: [b"\x01\x02\x03\x04\x05\x06\x07\x08", b"\xff" * 8],
        2: [b"\x00", b"\x02\x08\x05", b"\x03\x08\x85\x00"],
        5: [b"\x01\x02\x03\x04", b"\xff" * 4],
    }
    # Numbers beyond ours, symbols, texts and doubles that are none: refused, and tested as that.
    refusable = {FieldDescriptorProto.TYPE_UINT64, FieldDescriptorProto.TYPE_FIXED64, FieldDescriptorProto.TYPE_ENUM}
    refusable |= {FieldDescriptorProto.TYPE_FLOAT, FieldDescriptorProto.TYPE_DOUBLE, FieldDescriptorProto.TYPE_STRING}
    fields = [
        (field.number, _varint(field.number << 3 | wire) + value)
        for field in cls.DESCRIPTOR.fields
        for wire, all_of_it in bits.items()
        for value in all_of_it
    ]

    found = read(columns, [written(one) for _, one in fields], files)

    assert {fields[row][0] for row in found.refused} <= refusable
    kept = {row: place for place, row in enumerate(found.rows.tolist()) if row not in found.refused}
    assert len(kept) > 200
    for column in columns:
        got = values(found, column.name)
        for row, place in kept.items():
            assert same(got[place], expected(cls.FromString(fields[row][1]), column), column), (column, fields[row])


def _held_by(field: Any) -> ValueType:
    """The type of the column that holds a field."""
    value = field.message_type.fields_by_name.get("value") if field.message_type else field
    if value is None:
        return ValueType.TIMESTAMP
    if value.type in (FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_ENUM):
        return ValueType.STRING
    if value.type in (FieldDescriptorProto.TYPE_FLOAT, FieldDescriptorProto.TYPE_DOUBLE):
        return ValueType.FLOAT64
    return ValueType.BOOL if value.type == FieldDescriptorProto.TYPE_BOOL else ValueType.INT64


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80, *_varint(number >> 7)])
