"""What a schema would break, by view and feature."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from featurestore.core.spec import CHANGE_ID, IS_UNDO, Column, FeatureSpec, SourceSpec, ValueType, ViewSpec, Window
from featurestore.definitions.schemas.breaks import Break, Consequence, find_breaks
from featurestore.definitions.schemas.subjects import Subject, SubjectSchema
from featurestore.errors import InvalidRequest

COLUMNS = {
    "payment_id": ValueType.STRING,
    "paid_at": ValueType.TIMESTAMP,
    "card_id": ValueType.STRING,
    "amount": ValueType.FLOAT64,
    "channel": ValueType.STRING,
    "note": ValueType.STRING,
}
SOURCE = SourceSpec(
    name="payments",
    topic="payments",
    columns=tuple(Column(name, of) for name, of in COLUMNS.items()),
    event_time_column="paid_at",
    event_id_column="payment_id",
    renamed=(("card_id", "card.id"),),
    format="avro",
    schema_registry="http://schemas.test",
)
HOUR = Window(3_600_000, 60_000)
VIEW = ViewSpec(
    "cards",
    (Column("card_id", ValueType.STRING),),
    SOURCE,
    (
        FeatureSpec("count_1h", "count", None, HOUR, ValueType.INT64),
        FeatureSpec("amount_sum_1h", "sum", "amount", HOUR, ValueType.FLOAT64),
        FeatureSpec("web_count_1h", "count", None, HOUR, ValueType.INT64, "channel = 'WEB'"),
    ),
    retention_ms=None,
    lookback_ms=0,
)
EVERY = {"cards": ("count_1h", "amount_sum_1h", "web_count_1h")}
AVRO: dict[str, Any] = {
    "payment_id": "string",
    "paid_at": {"type": "long", "logicalType": "timestamp-millis"},
    "card": {"type": "record", "name": "Card", "fields": [{"name": "id", "type": "string"}]},
    "amount": ["null", "double"],
    "channel": "string",
}


def avro(**changes: Any) -> str:
    """A schema that breaks nothing, with other types of some fields; None takes one out."""
    fields = {name: of for name, of in {**AVRO, **changes}.items() if of is not None}
    return json.dumps(
        {"type": "record", "name": "Payment", "fields": [{"name": name, "type": of} for name, of in fields.items()]}
    )


VALUES = Subject("payments-value")
BY_UNIT = {"type": "double", "unit": "EUR"}


def breaks_of(text: str, source: SourceSpec = SOURCE, before: str = "", **references: str) -> tuple[Break, ...]:
    """What a schema breaks of the view, by names of imports without their endings."""
    imports = {f"{name}.proto": of for name, of in references.items()}
    view = replace(VIEW, source=source)
    return find_breaks(
        source, [view], VALUES, SubjectSchema(text, imports), SubjectSchema(before, imports) if before else None
    )


def test_a_schema_that_has_what_is_read_breaks_nothing() -> None:
    """Whatever else it has; a column that nobody reads may be missing."""
    assert breaks_of(avro(more={"type": "map", "values": "int"})) == ()


def test_what_is_dropped_or_changed_is_told_with_who_reads_it() -> None:
    """Worst first: keys, times and ids lose their records, and so does a type that does not fit."""
    found = breaks_of(avro(card=None, channel=None, amount="string"))

    assert [(one.column, one.reason, one.consequence, one.features) for one in found] == [
        (
            "amount",
            "amount is a string, which no column of type float64 holds",
            Consequence.LOSES_RECORDS,
            {"cards": ("amount_sum_1h",)},
        ),
        ("card_id", 'the schema has no field "card.id"', Consequence.LOSES_RECORDS, EVERY),
        ("channel", 'the schema has no field "channel"', Consequence.IS_NULL, {"cards": ("web_count_1h",)}),
    ]


LISTS = {
    "avro": avro(amount={"type": "array", "items": "double"}),
    "json_schema": json.dumps({"properties": {"amount": {"type": "array"}}}),
    "protobuf": 'syntax = "proto3"; message P { repeated double amount = 1; }',
}


@pytest.mark.parametrize("format_name", LISTS)
def test_a_list_is_refused_with_what_to_ask_for(format_name: str) -> None:
    """No function reads one, so that no column holds one."""
    found = {one.column: one for one in breaks_of(LISTS[format_name], replace(SOURCE, format=format_name))}

    assert found["amount"].consequence is Consequence.LOSES_RECORDS
    assert found["amount"].remedy == "read a field of one value, or ask the producer for one, such as the list's length"


def test_a_field_that_went_elsewhere_is_named_in_the_remedy() -> None:
    """By its own name at another place, or by one that is like it."""
    moved = {"type": "record", "name": "More", "fields": [{"name": "Channel", "type": "string"}]}
    (broken,) = breaks_of(avro(channel=None, more=moved))

    assert 'such as "more.Channel"' in broken.remedy


def test_of_changes_the_rows_are_checked() -> None:
    """A column that is gone is gone before and after; those that are made are no schema's matter."""
    source = replace(
        SOURCE,
        columns=(*SOURCE.columns, Column(CHANGE_ID, ValueType.STRING), Column(IS_UNDO, ValueType.BOOL)),
        event_id_column=CHANGE_ID,
        changes="debezium",
        row_id_column="payment_id",
    )
    view = replace(VIEW, source=source, undo=IS_UNDO)

    def envelope(**changes: Any) -> str:
        row = json.loads(avro(**changes))
        before = {"name": "before", "type": ["null", row]}
        op = {"name": "op", "type": "string"}
        return json.dumps(
            {"type": "record", "name": "E", "fields": [before, {"name": "after", "type": ["null", "Payment"]}, op]}
        )

    def broken(text: str) -> list[tuple[str, str, Consequence]]:
        found = find_breaks(source, [view], VALUES, SubjectSchema(text, {}))
        return [(one.column, one.reason, one.consequence) for one in found]

    assert [] == broken(envelope(note="string"))
    assert [
        ("amount", "after.amount is a string, which no column of type float64 holds", Consequence.LOSES_RECORDS),
        ("payment_id", 'the schema has no field "after.payment_id"', Consequence.LOSES_RECORDS),
    ] == broken(envelope(payment_id=None, amount="string"))


def test_protobuf_is_checked_as_it_is_read() -> None:
    """By the file's first message, or the one that is named, with what the file imports."""
    text = """
        syntax = "proto3";
        package shop;
        import "card.proto";
        message Other { string payment_id = 1; }
        message Payment {
            string payment_id = 1; int64 paid_at = 2; Card card = 3; repeated double amount = 4; string channel = 5;
        }
    """
    card = 'syntax = "proto3"; message Card { string id = 1; }'
    source = replace(SOURCE, format="protobuf")
    schema = SubjectSchema(text, {"card.proto": card})

    (broken,) = find_breaks(source, [VIEW], Subject("payments-value", "shop.Payment"), schema)
    assert (broken.column, broken.consequence) == ("amount", Consequence.LOSES_RECORDS)
    assert {one.column for one in find_breaks(source, [VIEW], VALUES, schema)} >= {"card_id", "paid_at"}
    assert all("no message" in one.reason for one in find_breaks(source, [VIEW], Subject("x", "shop.No"), schema))


def test_json_schemas_are_checked_by_what_they_promise() -> None:
    """Nested objects, references, alternatives with null; a number that may be none of our integers is a doubt."""
    card = {"type": "object", "properties": {"id": {"type": ["string", "null"]}}}
    properties = {
        "payment_id": {"type": "string"},
        "paid_at": {"type": "string", "format": "date-time"},
        "card": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/Card"}]},
        "amount": {"type": "integer"},
        "channel": {"enum": ["WEB", 7]},
    }
    text = json.dumps({"type": "object", "properties": properties, "$defs": {"Card": card}})
    source = replace(SOURCE, format="json_schema")

    (doubt,) = breaks_of(text, source)
    assert (doubt.column, doubt.consequence) == ("channel", Consequence.MAY_LOSE_RECORDS)
    (lost, _) = breaks_of(text.replace('"Card"', '"Cart"'), source)
    assert (lost.column, lost.reason) == ("card_id", 'the schema has no field "card.id"')


UNITS = {
    "avro": avro(amount=["null", BY_UNIT]),
    "json_schema": json.dumps(
        {
            "properties": {
                **{name: {"type": "string"} for name in ("payment_id", "paid_at", "channel")},
                "card": {"properties": {"id": {"type": "string"}}},
                "amount": {"type": "number", "unit": "EUR"},
            }
        }
    ),
    "protobuf": """
        syntax = "proto3";
        import "confluent/meta.proto";
        message Payment {
            string payment_id = 1; int64 paid_at = 2; Card card = 3; string channel = 5;
            double amount = 4 [(confluent.field_meta).params = {key: "unit", value: "EUR"}];
            message Card { string id = 1; }
        }
    """,
}


@pytest.mark.parametrize("format_name", UNITS)
def test_a_unit_that_changes_is_told(format_name: str) -> None:
    """From the version before, or from what the source declares, which goes before."""
    text = UNITS[format_name]
    source = replace(SOURCE, format=format_name)
    declared = replace(source, units=(("amount", "EUR"),))

    assert breaks_of(text, source, before=text) == breaks_of(text, declared, before=text.replace("EUR", "USD")) == ()
    (changed,) = breaks_of(text.replace("EUR", "cents"), source, before=text)
    assert changed.reason == 'amount was in "EUR", and is in "cents"'
    assert (changed.consequence, changed.features) == (Consequence.MEANS_OTHER, {"cards": ("amount_sum_1h",)})
    (gone,) = breaks_of(text.replace("EUR", ""), source, before=text)
    assert gone.reason == 'amount was in "EUR", and has no unit any more'
    (other,) = breaks_of(text.replace("EUR", "cents"), declared)
    assert other.reason == 'amount is in "cents", and the source says "EUR"'


def test_a_text_that_is_no_schema_is_an_error() -> None:
    """And nothing that breaks; so is a schema of another kind."""
    with pytest.raises(InvalidRequest, match="an Avro schema is not JSON"):
        breaks_of("{")
    with pytest.raises(
        InvalidRequest, match='subject "payments-value" has schemas of kind JSON, and source "payments"'
    ):
        find_breaks(SOURCE, [VIEW], VALUES, SubjectSchema("{}", kind="JSON"))
