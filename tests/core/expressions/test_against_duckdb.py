"""The same text on the same rows, here and in DuckDB."""

from __future__ import annotations

import math
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.core.expressions import compile_expression
from featurestore.core.spec import ValueType
from tests.core.expressions.columns import column_of, values_of
from tests.core.expressions.sql_strategies import COLUMNS, ROOTS, rounded_doubles, rows

ARROW_TYPES = {
    ValueType.INT64: pa.int64(),
    ValueType.FLOAT64: pa.float64(),
    ValueType.STRING: pa.string(),
    ValueType.BOOL: pa.bool_(),
    ValueType.TIMESTAMP: pa.timestamp("ms", tz="UTC"),
}

Rows = list[dict[str, object]]

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with the meaning that ours is compared with: UTC, and no infinities from division."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 1; SET ieee_floating_point_ops = false")
        yield connection


def answers_of_duckdb(database: duckdb.DuckDBPyConnection, texts: list[str], table: Rows) -> list[list[object]]:
    """Its answers to each text, for each row; times in ms."""
    columns = {name: pa.array([row[name] for row in table], ARROW_TYPES[kind]) for name, kind in COLUMNS.items()}
    database.register("events", pa.table(columns))
    selected = ", ".join(f"({text}) AS answer_{number}" for number, text in enumerate(texts))
    return [
        _python_values(column) for column in database.sql(f"SELECT {selected} FROM events").to_arrow_table().columns
    ]


def _python_values(column: pa.ChunkedArray) -> list[object]:
    if not pa.types.is_timestamp(column.type):
        return list(column.to_pylist())
    microseconds = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_pylist()
    return [None if value is None else value // 1000 for value in microseconds]


def assert_equal(database: duckdb.DuckDBPyConnection, texts: list[str], table: Rows, *, tolerance: float = 0.0) -> None:
    """Both agree on every row of every text; the canonical text compiles to the same expression."""
    columns = {name: column_of([row[name] for row in table], kind) for name, kind in COLUMNS.items()}
    expressions = [compile_expression(text, COLUMNS) for text in texts]
    for expression, text, theirs in zip(expressions, texts, answers_of_duckdb(database, texts, table), strict=True):
        ours = values_of(expression.evaluate(columns, len(table)), expression.type)

        assert all(agree(a, b, tolerance) for a, b in zip(theirs, ours, strict=True)), (text, theirs, ours)
        assert compile_expression(expression.text, COLUMNS) == expression


def agree(theirs: object, ours: object, tolerance: float) -> bool:
    """Equal, NaN with NaN too, doubles within the tolerance."""
    if isinstance(theirs, float) and isinstance(ours, float):
        if math.isnan(theirs) or math.isnan(ours):
            return math.isnan(theirs) and math.isnan(ours)
        return theirs == ours or math.isclose(theirs, ours, rel_tol=tolerance, abs_tol=0.0)
    if isinstance(theirs, str):
        # The sign of a NaN is its processor's: inf / inf prints "-nan" there.
        theirs = theirs.replace("-nan", "nan")
    return theirs == ours and type(theirs) is type(ours)


@pytest.mark.parametrize("value_type", ROOTS, ids=lambda value_type: value_type.value)
@quick
@given(data=st.data(), table=rows())
def test_any_expression_gives_what_duckdb_gives(
    database: duckdb.DuckDBPyConnection, value_type: ValueType, data: st.DataObject, table: Rows
) -> None:
    """On nulls, NaN, infinities, the ends of int64, empty and odd texts, changes of the clock."""
    texts = data.draw(st.lists(ROOTS[value_type](), min_size=1, max_size=8))

    assert_equal(database, texts, table)


@quick
@given(texts=st.lists(rounded_doubles(), min_size=1, max_size=8), table=rows())
def test_transcendental_functions_agree_to_the_last_digits(
    database: duckdb.DuckDBPyConnection, texts: list[str], table: Rows
) -> None:
    """LN, LOG10, EXP and POWER, whose last bit is the library's."""
    assert_equal(database, texts, table, tolerance=1e-14)
