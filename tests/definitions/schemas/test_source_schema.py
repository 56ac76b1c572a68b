"""Payload schemas and durations: the two little languages of a feature repo."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.spec import SCALAR_TYPES, Column, ValueType
from featurestore.core.windows import durations
from featurestore.core.windows.durations import format_duration, parse_duration_ms
from featurestore.definitions.schemas import source_schema
from featurestore.definitions.schemas.source_schema import format_source_schema, parse_source_schema
from featurestore.errors import InvalidRequest, near_names

names = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)
columns = st.lists(
    st.builds(Column, names, st.sampled_from(SCALAR_TYPES)), min_size=1, unique_by=lambda column: column.name
)


@given(columns.map(tuple))
def test_a_written_schema_reads_back_the_same(written: tuple[Column, ...]) -> None:
    """Format and parse are inverse, for any name that a JSON payload can have."""
    schema = parse_source_schema(format_source_schema(written))

    assert written == schema.columns
    assert schema.unsupported == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amount bigint", "amount int64"),
        ("  amount   BIGINT  ,\n at TIMESTAMP", "amount int64, at timestamp"),
        ("a: int, b: smallint, c:tinyint, d LONG", "a int64, b int64, c int64, d int64"),
        ("a float, b double, c real", "a float64, b float64, c float64"),
        ("ok boolean NOT NULL, name varchar(20) COMMENT 'a, b'", "ok bool, name string"),
        ("`odd name` string", "odd name string"),
    ],
)
def test_schemas_are_read_as_spark_reads_them(text: str, expected: str) -> None:
    """Case, blanks, colons, lengths, "not null", comments and backticks do not matter."""
    read = ", ".join(f"{column.name} {column.type}" for column in parse_source_schema(text).columns)

    assert expected == read


def test_types_without_a_meaning_here_are_kept_by_name() -> None:
    """So that a payload may have them, and a feature of one gets a proper answer."""
    schema = parse_source_schema("a decimal(10,2), b array<struct<x:int,y:int>>, c map<string,int>, d date, e int")

    assert [Column("e", ValueType.INT64)] == list(schema.columns)
    assert {
        "a": "decimal(10,2)",
        "b": "array<struct<x:int,y:int>>",
        "c": "map<string,int>",
        "d": "date",
    } == schema.unsupported


@pytest.mark.parametrize("text", ["", "  ", "amount", "a int,", "a int, a string", "1 2 3 ?", '{"type": "record"}'])
def test_what_is_no_schema_is_refused(text: str) -> None:
    """With the part that is wrong in the message."""
    with pytest.raises(InvalidRequest):
        parse_source_schema(text)


@given(st.integers(0, 10**14))
def test_a_written_duration_reads_back_the_same(duration_ms: int) -> None:
    """Format and parse are inverse."""
    assert duration_ms == parse_duration_ms(format_duration(duration_ms))


@pytest.mark.parametrize("text", ["", "1", "h", "1.5h", "-1h", "1 month", "1M", "1h30m", "١h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A number and a unit, nothing else: 1M could be a minute or a month."""
    with pytest.raises(InvalidRequest, match="is not a duration"):
        parse_duration_ms(text)


@pytest.mark.parametrize("module", [durations, near_names, source_schema], ids=lambda module: module.__name__)
def test_examples_in_docstrings_are_true(module: object) -> None:
    """A docstring's example is a promise like any other."""
    from types import ModuleType

    assert isinstance(module, ModuleType)
    outcome = doctest.testmod(module)

    assert outcome.attempted > 0
    assert outcome.failed == 0
