"""Avro payloads to columns, against fastavro: whatever it writes by a drawn schema is read as it reads it."""

from __future__ import annotations

import io
import json
import math
import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.spec import ValueType
from featurestore.errors import InvalidRequest
from featurestore.wire.formats.avro.program import compile_schema
from featurestore.wire.formats.avro.reader import AvroReader
from featurestore.wire.formats.columns import STRING_CHARACTERS_MAX, ReadColumns, WantedColumn
from tests.wire.formats.registered import Registered

Schema = Any

_INT = st.integers(-(2**31), 2**31 - 1)
_LONG = st.integers(-(2**63), 2**63 - 1)
_TEXT = st.text(max_size=12)
_DECIMAL: Schema = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3}
_KEYS = ("a", "ab", "ü")
_PRIMITIVES: dict[str, tuple[Schema, st.SearchStrategy[Any], ValueType | None]] = {
    "int": ("int", _INT, ValueType.INT64),
    "long": ("long", _LONG, ValueType.INT64),
    "int as double": ("int", _INT, ValueType.FLOAT64),
    "float": ("float", st.floats(width=32, allow_nan=False, allow_infinity=False), ValueType.FLOAT64),
    "double": ("double", st.floats(allow_nan=False, allow_infinity=False), ValueType.FLOAT64),
    "boolean": ("boolean", st.booleans(), ValueType.BOOL),
    "string": ("string", _TEXT, ValueType.STRING),
    "bytes": ("bytes", st.binary(max_size=9), None),
    "decimal as double": (_DECIMAL, st.decimals(-99_999_999, 99_999_999, places=3), ValueType.FLOAT64),
    "decimal as text": (_DECIMAL, st.decimals(-99_999_999, 99_999_999, places=3), ValueType.STRING),
    "millis": ({"type": "long", "logicalType": "timestamp-millis"}, st.integers(0, 4 * 10**12), ValueType.TIMESTAMP),
    "micros": ({"type": "long", "logicalType": "timestamp-micros"}, st.integers(0, 4 * 10**15), ValueType.TIMESTAMP),
    "date": ({"type": "int", "logicalType": "date"}, st.integers(0, 40_000), ValueType.TIMESTAMP),
}
"""Name -> schema, values, type of the column that reads it; None of what no column holds."""


@st.composite
def _types(
    draw: st.DrawFn, depth: int, path: str, columns: list[WantedColumn]
) -> tuple[Schema, st.SearchStrategy[Any]]:
    """A schema and values of it; columns of some of what it holds are added."""
    kind = draw(st.sampled_from([*_PRIMITIVES, "enum", "fixed", "union", *(["record", "array", "map"] * (depth > 0))]))
    name = f"T{draw(st.integers(0, 10**9))}_{path.replace('.', '_')}"
    if kind == "record":
        fields = [
            (f"f{number}", draw(_types(depth - 1, f"{path}.f{number}", columns)))
            for number in range(draw(st.integers(1, 3)))
        ]
        schema = {"type": "record", "name": name, "fields": [{"name": each, "type": of[0]} for each, of in fields]}
        return schema, st.fixed_dictionaries({each: of[1] for each, of in fields})
    if kind in ("array", "map"):
        wanted_of: list[WantedColumn] = []
        of = draw(_types(depth - 1, path, wanted_of))
        if kind == "array":
            return {"type": "array", "items": of[0]}, st.lists(of[1], max_size=4)
        # Of a map, what is wanted is wanted of the values of some keys.
        for key in draw(st.sets(st.sampled_from(_KEYS), max_size=2)):
            for column in wanted_of:
                field = f"{path}.{key}{column.field.removeprefix(path)}"
                columns.append(WantedColumn(f"c{len(columns)}", column.type, field))
        return {"type": "map", "values": of[0]}, st.dictionaries(st.sampled_from(_KEYS) | _TEXT, of[1], max_size=4)
    if kind == "enum":
        symbols = ["A", "B", "C"]
        _want(draw, columns, path, ValueType.STRING)
        return {"type": "enum", "name": name, "symbols": symbols}, st.sampled_from(symbols)
    if kind == "fixed":
        return {"type": "fixed", "name": name, "size": 3}, st.binary(min_size=3, max_size=3)
    if kind == "union":
        schema, values = draw(_types(max(depth - 1, 0), path, columns))
        if isinstance(schema, list):
            return schema, values
        return draw(st.sampled_from([["null", schema], [schema, "null"]])), st.none() | values
    schema, values, wanted = _PRIMITIVES[kind]
    if wanted is not None:
        _want(draw, columns, path, wanted)
    return schema, values


def _want(draw: st.DrawFn, columns: list[WantedColumn], path: str, wanted: ValueType) -> None:
    if draw(st.integers(0, 3)):
        columns.append(WantedColumn(f"c{len(columns)}", wanted, path))


@st.composite
def _topics(draw: st.DrawFn) -> tuple[Schema, list[WantedColumn], list[dict[str, Any]]]:
    """A schema of records, columns of it, and some records."""
    columns: list[WantedColumn] = []
    fields = [(f"f{number}", draw(_types(3, f"f{number}", columns))) for number in range(draw(st.integers(1, 6)))]
    schema = {"type": "record", "name": "Top", "fields": [{"name": name, "type": of[0]} for name, of in fields]}
    records = draw(st.lists(st.fixed_dictionaries({name: of[1] for name, of in fields}), min_size=1, max_size=6))
    return schema, columns, records


def written(schema: Schema, record: object, schema_id: int = 1) -> bytes:
    """A payload in Confluent's wire format."""
    out = io.BytesIO()
    out.write(b"\0" + schema_id.to_bytes(4, "big"))
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return out.getvalue()


def read(columns: Sequence[WantedColumn], payloads: Sequence[bytes], *schemas: Schema) -> ReadColumns:
    """Payloads of schemas 1, 2 ..."""
    registered = Registered({number: json.dumps(schema) for number, schema in enumerate(schemas, start=1)})
    return AvroReader(columns, registered).read(payloads)


def values(found: ReadColumns, name: str) -> list[Any]:
    """A column as Python has it, with None where it is null."""
    column = found.columns[name]
    valid = [True] * len(found.rows) if column.valid is None else column.valid.tolist()
    assert isinstance(column.values, np.ndarray)
    return [value if is_there else None for value, is_there in zip(column.values.tolist(), valid, strict=True)]


def expected(record: Any, column: WantedColumn) -> object:
    """What fastavro's own reading says of a column."""
    value = record
    for name in column.field.split("."):
        value = None if value is None else value.get(name)
    if isinstance(value, Decimal):
        return f"{value:f}".encode() if column.type is ValueType.STRING else float(value)
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution * 1_000)
    if isinstance(value, date):
        return (value - date(1970, 1, 1)).days * 86_400_000
    if isinstance(value, str):
        return value.encode()
    return float(value) if column.type is ValueType.FLOAT64 and value is not None else value


def same(one: object, other: object) -> bool:
    """Equal to the bit, and 1 is True."""
    if isinstance(one, float) and isinstance(other, float):
        return math.copysign(1, one) == math.copysign(1, other) and one == other
    return one == other


@given(_topics())
@settings(max_examples=150)
def test_every_column_is_what_fastavro_reads(drawn: tuple[Schema, list[WantedColumn], list[dict[str, Any]]]) -> None:
    """Nested records, unions, arrays, maps, enums, decimals, moments."""
    schema, columns, records = drawn
    payloads = [written(schema, record) for record in records]
    parsed = fastavro.parse_schema(schema)
    read_back = [fastavro.schemaless_reader(io.BytesIO(payload[5:]), parsed) for payload in payloads]

    found = read(columns, payloads, schema)

    assert found.rows.tolist() == list(range(len(records))), found.refused
    for column in columns:
        for got, record in zip(values(found, column.name), read_back, strict=True):
            assert same(got, expected(record, column)), (column, got, record)


@given(_topics(), st.data())
@settings(max_examples=150)
def test_a_damaged_record_is_refused_or_read_and_its_neighbours_are_as_they_were(
    drawn: tuple[Schema, list[WantedColumn], list[dict[str, Any]]], data: st.DataObject
) -> None:
    """Whatever its bytes say of lengths, branches and symbols."""
    schema, columns, records = drawn
    whole = written(schema, records[0])
    payload = bytearray(whole[5:])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(payload)))
        payload[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))

    alone = read(columns, [whole], schema)
    found = read(columns, [whole, whole[:5] + bytes(payload), whole], schema)

    assert {0, 2} <= set(found.rows.tolist())
    assert set(found.rows.tolist()) | set(found.refused) == {0, 1, 2}
    assert set(found.refused) <= {1}
    for column in columns:
        (value,) = values(alone, column.name)
        got = values(found, column.name)
        assert same(got[0], value)
        assert same(got[-1], value)


def test_records_of_one_partition_may_be_of_several_schemas() -> None:
    """A field that a schema does not have is null in its records; int becomes double, an enum a text."""
    old = _record(amount="int", channel={"type": "enum", "name": "C", "symbols": ["POS", "WEB"]})
    new = _record(channel=["null", "string"], amount=["null", "double"], note="string")
    columns = [
        WantedColumn("amount", ValueType.FLOAT64, "amount"),
        WantedColumn("channel", ValueType.STRING, "channel"),
        WantedColumn("note", ValueType.STRING, "note"),
    ]
    payloads = [
        written(old, {"amount": 3, "channel": "WEB"}, 1),
        written(new, {"amount": 2.5, "channel": None, "note": "n"}, 2),
        written(old, {"amount": -1, "channel": "POS"}, 1),
    ]
    # Named by a GUID: each batch has them in another order.
    guids = {UUID(int=2**127 + 1): old, UUID(int=5): new}
    named = [b"\x01" + guid.bytes + payload[5:] for guid, payload in zip(guids, payloads, strict=False)]
    registered = Registered({1: json.dumps(old), 2: json.dumps(new)})
    registered.texts |= {guid: json.dumps(schema) for guid, schema in guids.items()}
    reader = AvroReader(columns, registered)

    for batch in ([*payloads, *named], [*payloads, *named[::-1]]):
        found = reader.read(batch)
        turn = 1 if batch[3] == named[0] else -1
        assert values(found, "amount") == [3.0, 2.5, -1.0, *[3.0, 2.5][::turn]]
        assert values(found, "channel") == [b"WEB", None, b"POS", *[b"WEB", None][::turn]]
        assert values(found, "note") == [None, b"n", None, *[None, b"n"][::turn]]
    assert sorted(map(str, registered.asked)) == sorted(map(str, [1, 2, *guids])), "what is known is not asked again"


def test_a_schema_that_the_registry_did_not_know_is_asked_for_again() -> None:
    """Its nodes do not learn of it at once; what is known is not asked for twice."""
    schema, registered = _record(id="string"), Registered()
    reader = AvroReader([WantedColumn("id", ValueType.STRING, "id")], registered)
    payload = written(schema, {"id": "a"})

    assert reader.read([payload]).refused == {0: "is of schema 1, which the registry does not know"}
    registered.texts[1] = json.dumps(schema)
    assert [values(reader.read([payload]), "id") for _ in range(2)] == [[b"a"], [b"a"]]
    assert registered.asked == [1, 1]


def test_a_type_that_contains_itself_is_stepped_over() -> None:
    """As deep as it is reasonable."""
    schema = {
        "type": "record",
        "name": "Node",
        "namespace": "a.b",
        "fields": [{"name": "next", "type": ["null", "Node"]}, {"name": "id", "type": "long"}],
    }
    columns = [WantedColumn("id", ValueType.INT64, "id"), WantedColumn("second", ValueType.INT64, "next.id")]
    chain: dict[str, Any] = {"next": None, "id": 0}
    for number in range(1, 40):
        chain = {"next": chain, "id": number}

    assert values(read(columns[:1], [written(schema, chain)], schema), "id") == [39]
    assert compile_schema(json.dumps(schema), columns).misfits == {"second": "next.id is inside of itself"}
    for number in range(80):
        chain = {"next": chain, "id": number}
    assert read(columns[:1], [written(schema, chain)], schema).refused == {0: "is nested too deep at a.b.Node.next"}


def test_the_last_value_of_a_key_counts_that_a_map_has_twice() -> None:
    """As in a dictionary; also where it is null, and in whatever blocks they are."""
    schema = _record(tags={"type": "map", "values": ["null", "long"]})
    columns = [WantedColumn(key, ValueType.INT64, f"tags.{key}") for key in ("a", "ab")]
    a7, a_null, ab8 = b"\2a\2\x0e", b"\2a\0", b"\4ab\2\x10"
    in_blocks = (b"\6" + a7 + ab8 + a_null, b"\2" + a_null + b"\2" + a7, b"\1" + bytes([2 * len(a7)]) + a7, b"")
    payloads = [b"\0\0\0\0\1" + blocks + b"\0" for blocks in in_blocks]
    parsed = fastavro.parse_schema(schema)
    told: list[Any] = [fastavro.schemaless_reader(io.BytesIO(payload[5:]), parsed) for payload in payloads]

    found = read(columns, payloads, schema)

    assert [None, 7, 7, None] == values(found, "a") == [one["tags"].get("a") for one in told]
    assert [8, None, None, None] == values(found, "ab")


def test_what_no_column_of_the_type_holds_is_told_by_field() -> None:
    """By whoever plans; a record of such a schema is refused as a whole, and not read with a null."""
    schema = _record(
        tags={"type": "array", "items": "string"},
        card={"type": "record", "name": "Card", "fields": [{"name": "bin", "type": "string"}]},
        amount="double",
        state=["null", "string", "long"],
        raw="bytes",
    )
    columns = [
        WantedColumn("tags", ValueType.STRING, "tags"),
        WantedColumn("card", ValueType.STRING, "card"),
        WantedColumn("amount", ValueType.INT64, "amount"),
        WantedColumn("deep", ValueType.INT64, "amount.value"),
        WantedColumn("state", ValueType.STRING, "state"),
        WantedColumn("raw", ValueType.STRING, "raw"),
        WantedColumn("bin", ValueType.STRING, "card.bin"),
        WantedColumn("gone", ValueType.STRING, "gone"),
    ]

    program = compile_schema(json.dumps(schema), columns)

    assert program.misfits == {
        "tags": "tags is an array, which no column holds",
        "card": "card is a record: name one of its fields, card.bin",
        "amount": "amount is a double, which no column of type int64 holds",
        "deep": "amount is a double, which has no fields",
        "state": "state is a long, which no column of type string holds",
        "raw": "raw is a bytes, which no column of type string holds",
    }
    assert program.missing == {"gone"}
    record = {"tags": [], "card": {"bin": "4"}, "amount": 1.0, "state": None, "raw": b""}
    found = read(columns[2:3], [written(schema, record)], schema)
    assert found.refused == {0: "is of schema 1, in which amount is a double, which no column of type int64 holds"}


def test_payloads_that_are_no_events_say_why() -> None:
    """Each alone; the others are read."""
    schema = _record(id="string", amount="double")
    columns = [WantedColumn("id", ValueType.STRING, "id"), WantedColumn("amount", ValueType.FLOAT64, "amount")]
    good = written(schema, {"id": "a", "amount": 1.5})
    longest = "💳" * STRING_CHARACTERS_MAX
    payloads = [
        good,
        b"",
        b'{"id": "a"}',
        good[:-1],
        good + b"x",
        written(schema, {"id": "a", "amount": 1.5}, 77),
        written(schema, {"id": "a", "amount": math.inf}),
        good.replace(b"a", b"\xff"),
        written(schema, {"id": longest, "amount": 1.5}),
        written(schema, {"id": "x" * (STRING_CHARACTERS_MAX + 1), "amount": 1.5}),
        good[:5] + b"\x01" + good[6:],
        b"\x01" + bytes(15),
        b"\x01" + UUID(int=7).bytes + good[5:],
    ]

    found = read(columns, payloads, schema)

    kept = [row for row in found.rows.tolist() if row not in found.refused]
    assert kept == [0, 8]
    assert found.refused == {
        1: "is empty",
        2: "does not begin with the id of a schema, and no header has one",
        3: "ends in the middle of amount",
        4: "goes on behind its last field",
        5: "is of schema 77, which the registry does not know",
        6: "amount is no finite number",
        7: "id is no UTF-8: invalid start byte",
        9: f"id has more than {STRING_CHARACTERS_MAX} characters",
        10: "has a length at id that cannot be",
        11: "does not begin with the id of a schema, and no header has one",
        12: f"is of schema {UUID(int=7)}, which the registry does not know",
    }


def test_moments_come_in_every_form_that_avro_has() -> None:
    """Numbers without a logical type are of the source's unit; texts are ISO 8601."""
    schema = _record(
        nanos={"type": "long", "logicalType": "timestamp-nanos"},
        local={"type": "long", "logicalType": "local-timestamp-millis"},
        plain="long",
        text="string",
        id={"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"},
    )
    fields = {"nanos": "ms", "local": "ms", "plain": "s", "text": "ms"}
    columns = [WantedColumn(name, ValueType.TIMESTAMP, name, unit) for name, unit in fields.items()]
    columns.append(WantedColumn("id", ValueType.STRING, "id"))
    one = uuid.UUID(int=7)
    body = b"".join(
        [
            _zigzag(1_780_000_000_123_456_789),
            _zigzag(1_780_000_000_123),
            _zigzag(1_780_000_000),
            _zigzag(24),
            b"2026-05-28T20:26:40.123Z",
            one.bytes,
        ]
    )

    found = read(columns, [b"\0\0\0\0\1" + body, b"\0\0\0\0\1" + body.replace(b"2026", b"2O26")], schema)

    assert [values(found, name)[0] for name in fields] == [1_780_000_000_123] * 2 + [
        1_780_000_000_000,
        1_780_000_000_123,
    ]
    assert values(found, "id")[0] == str(one).encode()
    assert found.refused == {1: "text is neither ISO 8601 nor milliseconds: it is like 9a99-99-99a99:99:99.999a"}
    assert found.given("plain", 0) == 1_780_000_000_000
    assert found.given("text", 0) == "2026-05-28T20:26:40.123Z"


def test_a_decimal_is_exact_however_many_digits_it_has() -> None:
    """Thirty-eight are common, and more than Python's own arithmetic keeps unless it is told to."""
    number = -(10**37 + 7)
    schema = _record(amount={"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 4})
    body = number.to_bytes(17, "big", signed=True)
    payloads = [b"\0\0\0\0\1" + _zigzag(len(each)) + each for each in (body, b"", (5).to_bytes(1, "big"))]

    text = read([WantedColumn("amount", ValueType.STRING, "amount")], payloads, schema)
    double = read([WantedColumn("amount", ValueType.FLOAT64, "amount")], payloads, schema)

    assert values(text, "amount") == [b"-1000000000000000000000000000000000.0007", b"0.0000", b"0.0005"]
    assert values(double, "amount") == [-1e33, 0.0, 0.0005]


def test_types_that_are_used_again_and_again_are_written_once() -> None:
    """Each is of two of the one before: what is stepped over is not unrolled."""
    kind: Schema = "long"
    for depth in range(40):
        both = [{"name": "a", "type": kind}, {"name": "b", "type": f"T{depth - 1}" if depth else "long"}]
        kind = {"type": "record", "name": f"T{depth}", "fields": both}
    schema = {"type": "record", "name": "R", "fields": [{"name": "deep", "type": kind}, {"name": "id", "type": "long"}]}

    program = compile_schema(json.dumps(schema), [WantedColumn("id", ValueType.INT64, "id")])

    assert len(program.steps) < 500


@pytest.mark.parametrize(
    "fields",
    [
        {"fields": 3},
        {"fields": [{"name": "a"}]},
        {},
        {"fields": [{"name": "a", "type": {"type": "enum", "name": "E"}}]},
        {"fields": [{"name": "a", "type": {"type": 5}}]},
        {"fields": [{"name": "a", "type": {"type": "array"}}]},
    ],
)
def test_a_schema_with_parts_missing_is_no_schema(fields: dict[str, Any]) -> None:
    """Its records are refused one by one, and nothing ends."""
    schema = {"type": "record", "name": "R", **fields}

    found = read([WantedColumn("a", ValueType.STRING, "a")], [b"\0\0\0\0\1x"], schema)

    assert found.refused[0].startswith("is of schema 1, which cannot be read: ")


@pytest.mark.parametrize(
    "text", ["nothing", '"string"', '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "B"}]}']
)
def test_a_text_that_is_no_schema_of_records_is_an_error(text: str) -> None:
    """And no crash at the first record."""
    with pytest.raises(InvalidRequest, match="an Avro schema"):
        compile_schema(text, [WantedColumn("a", ValueType.STRING, "a")])
    found = AvroReader([WantedColumn("a", ValueType.STRING, "a")], Registered({1: text})).read([b"\0\0\0\0\1x"])
    assert found.refused[0].startswith("is of schema 1, which cannot be read: an Avro schema")
    assert len(found.rows) == 0
    assert np.asarray(found.columns["a"].values).shape == (0,)


def _record(**fields: Schema) -> Schema:
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": of} for name, of in fields.items()]}


def _zigzag(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
