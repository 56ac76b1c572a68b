"""What the package promises beside being DuckDB: canonical text, columns, totality, and where it differs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.events import ColumnValues
from featurestore.core.expressions import compile_expression
from featurestore.core.expressions.tree import RESERVED_WORDS
from featurestore.core.spec import ValueType
from tests.core.expressions.columns import column_of, values_of

TYPES = {
    "i": ValueType.INT64,
    "f": ValueType.FLOAT64,
    "s": ValueType.STRING,
    "b": ValueType.BOOL,
    "t": ValueType.TIMESTAMP,
    "zone": ValueType.STRING,
}

NAN = float("nan")


def evaluated(text: str, *, as_spans: bool = False, **columns: list[object]) -> list[object]:
    """Rows of an expression over columns that are given by name."""
    expression = compile_expression(text, TYPES)
    count = len(next(iter(columns.values()), [None]))
    stored = {name: column_of(values, TYPES[name], as_spans=as_spans) for name, values in columns.items()}
    return values_of(expression.evaluate(stored, count), expression.type)


@pytest.mark.parametrize(
    ("spellings", "text"),
    [
        (["i>1 and b", "((I) > 1) AND (b)", "i > 01 AND b -- the large ones"], "(i > 1) AND b"),
        (["b and b and b", "b AND (b AND b)"], "b AND b AND b"),
        (["b or b and not b", "b OR (b AND (NOT b))"], "b OR (b AND (NOT b))"),
        (["f >= 1.50", "f >= 15e-1", "f >= +1.5"], "f >= 1.5e0"),
        (["i != - 3", "i <> (-3)"], "i <> (-3)"),
        (["s not in ('x','it''s')", "NOT s IN ('x', 'it''s')"], "s NOT IN ('x', 'it''s')"),
        (["i between 1 and 2", "i >= 1 and i <= 2"], "(i >= 1) AND (i <= 2)"),
        (["b and i between 1 and 2", "(b and i >= 1) and i <= 2"], "b AND (i >= 1) AND (i <= 2)"),
        (["i::varchar", "cast(i as text)", "TRY_CAST(i AS VARCHAR)"], "TRY_CAST(i AS VARCHAR)"),
        (["case i when 1 then 'a' end", "if(i = 1, 'a', null)"], "CASE WHEN i = 1 THEN 'a' END"),
        (["ifnull(i, 0)", "coalesce(i,0)"], "COALESCE(i, 0)"),
        (["hour(t)", "date_part('hour', t)", "extract(HOUR from t)"], "EXTRACT(HOUR FROM t)"),
        (["t > '2026-01-31'", "t > timestamp '2026-01-31 00:00Z'"], "t > TIMESTAMPTZ '2026-01-31 00:00:00+00'"),
        (["try(i / 0)", "i/0"], "i / 0"),
        (["s ^@ 'a'", "prefix(s, 'a')"], "STARTS_WITH(s, 'a')"),
    ],
)
def test_every_spelling_of_a_tree_has_one_text(spellings: list[str], text: str) -> None:
    """Case, spaces, comments, redundant brackets and synonyms do not reach the hash of a definition."""
    assert [text] * len(spellings) == [compile_expression(spelling, TYPES).text for spelling in spellings]


@pytest.mark.parametrize("name", [*sorted(RESERVED_WORDS), "Amount", "betrag €", 'say "hi"', "9th", "_x", "try_it"])
def test_a_column_of_any_name_survives_its_own_text(name: str) -> None:
    """A keyword, capitals, spaces and quotes are quoted where SQL needs it."""
    columns = {name: ValueType.INT64}
    quoted = '"' + name.replace('"', '""') + '"'
    expression = compile_expression(f"ABS({quoted}) + {quoted} > 3 OR NOT {quoted} IN (1, 2)", columns)

    assert expression == compile_expression(expression.text, columns)
    assert frozenset((name,)) == expression.columns


def test_an_expression_says_what_it_is() -> None:
    """Type, columns, and whether it can select rows."""
    price = compile_expression("CASE WHEN s = 'x' THEN i ELSE f END", TYPES)
    condition = compile_expression("i > 3", TYPES)

    assert (ValueType.FLOAT64, frozenset({"s", "i", "f"}), False) == (price.type, price.columns, price.is_condition)
    assert (ValueType.BOOL, True) == (condition.type, condition.is_condition)
    assert condition == compile_expression("(I)>3", TYPES)
    assert condition != price


def test_a_condition_is_true_false_or_unknown() -> None:
    """NULL AND FALSE is false, NULL OR TRUE is true, everything else with NULL is null."""
    assert [None, False, None] == evaluated("b AND i > 1", b=[None, None, True], i=[2, 1, None])
    assert [True, None, None] == evaluated("b OR i > 1", b=[None, None, False], i=[2, 1, None])
    assert [None, True, False] == evaluated("NOT b", b=[None, False, True])


@pytest.mark.parametrize(
    "text",
    ["i + 1", "i - -1", "i * 2", "-(-i - 1)", "ABS(-i - 1)", "(-i - 1) // -1", "ROUND(i, -19)", "CAST(f AS BIGINT)"],
)
def test_an_integer_that_does_not_fit_is_null_and_never_wraps(text: str) -> None:
    """At the end of 64 bits."""
    assert [None] == evaluated(text, i=[2**63 - 1], f=[2.0**63])


@given(left=st.integers(-(2**63), 2**63 - 1), right=st.integers(-(2**63), 2**63 - 1))
def test_products_are_exact_or_null(left: int, right: int) -> None:
    """Python's integers are the judge; operands near the square root of the limit too."""
    small = (left >> 31, right >> 32)
    expected = [a * b if -(2**63) <= a * b < 2**63 else None for a, b in ((left, right), small)]

    assert expected[:1] == evaluated(f"i * ({right})", i=[left])
    assert expected[1:] == evaluated(f"i * ({small[1]})", i=[small[0]])


def test_division_and_domains_give_null() -> None:
    """As DuckDB in TRY, with ieee_floating_point_ops off."""
    for text in ("i / 0", "i % 0", "i // 0", "f % 0", "LN(f - f)", "LOG10(-f)", "SQRT(-f)", "POWER(-f, 0.5)"):
        assert [None] == evaluated(text, i=[1], f=[2.0])
    assert [math.inf] == evaluated("f * 10", f=[1e308])


def test_nan_is_the_greatest_number_and_equals_itself() -> None:
    """So that doubles have a total order, as in DuckDB."""
    values: list[object] = [NAN, math.inf, 1.0, None]

    assert [True, False, False, None] == evaluated("f = CAST('nan' AS DOUBLE)", f=values)
    assert [True, False, False, None] == evaluated("f > CAST('inf' AS DOUBLE)", f=values)
    assert [False, True, True, None] == evaluated("f < CAST('nan' AS DOUBLE)", f=values)
    assert [True, False, True, None] == evaluated("f IN (1, 2, 3, 4, 5, CAST('nan' AS DOUBLE))", f=values)


def test_what_differs_from_duckdb_is_as_documented() -> None:
    """Each line of the package's list that gives a value."""
    assert [0.1 + 0.2] == evaluated("0.1 + 0.2")
    assert [10**12] == evaluated("1000000 * 1000000")
    assert [None] == evaluated("-(-9223372036854775808)")
    assert [None, None] == evaluated("CAST(s AS BIGINT)", s=["1_000", "0x1F"])
    assert [None, 1] == evaluated("EPOCH_MS(CAST(s AS TIMESTAMP))", s=["2026-1-1", "1970-01-01T00:00:00.0019Z"])
    assert [None] == evaluated("POWER(f, 1.0 / 3)", f=[-8.0])
    assert [None] == evaluated("EXTRACT(year FROM t AT TIME ZONE 'UTC')", t=[2**62])


def test_characters_are_code_points() -> None:
    """In LENGTH, SUBSTRING and the _ of LIKE; capitals are one to one."""
    values: list[object] = ["straße", "e\u0301", "🤦🏼", ""]

    assert [6, 2, 2, 0] == evaluated("LENGTH(s)", s=values)
    assert ["STRAẞE", "E\u0301", "🤦🏼", ""] == evaluated("UPPER(s)", s=values)
    assert [False, True, True, False] == evaluated("s LIKE '__'", s=values)
    assert ["ß", "", "", ""] == evaluated("SUBSTRING(s, 5, 1)", s=values)


def test_a_pattern_cannot_stop_the_stream() -> None:
    """Matching takes time linear in the text where backtracking would take hours."""
    text = "a" * 5_000

    assert [False] == evaluated(f"s LIKE '{'%a' * 30}%b'", s=[text])
    assert [True] == evaluated(f"s LIKE '{'%a' * 30}%'", s=[text])


@given(
    text=st.text("ab%_é", max_size=8),
    pattern=st.text("ab%_é", max_size=6),
)
def test_like_is_what_its_definition_says(text: str, pattern: str) -> None:
    """Against the two-line recursive definition."""

    def matches(rest: str, wanted: str) -> bool:
        if not wanted:
            return not rest
        if wanted[0] == "%":
            return any(matches(rest[begin:], wanted[1:]) for begin in range(len(rest) + 1))
        return bool(rest) and wanted[0] in {"_", rest[0]} and matches(rest[1:], wanted[1:])

    assert [matches(text, pattern)] == evaluated(f"s LIKE '{pattern}'", s=[text])


@pytest.mark.parametrize("as_spans", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "s = 'b'",
        "s IN ('a', 'b', 'c', 'd', 'é', NULL)",
        "s IS NULL",
        "UPPER(s)",
        "s || s",
        "s",
        "s LIKE '%b'",
        "s < 'b'",
    ],
)
def test_text_may_be_objects_or_spans_of_a_buffer(text: str, as_spans: bool) -> None:
    """Many rows, few rows and none give the same rows; null stays null."""
    values: list[object] = ["a", "b", None, "é", "", "ab"]
    many = evaluated(text, as_spans=as_spans, s=values * 5)

    assert evaluated(text, s=values) * 5 == many
    assert many[:6] == [evaluated(text, as_spans=as_spans, s=[value])[0] for value in values]
    assert [] == evaluated(text, as_spans=as_spans, s=[])


def test_constants_have_as_many_rows_as_asked_for() -> None:
    """An expression without columns learns the number of rows from the caller."""
    for text, row in (("1 + 1", 2), ("'a' || 'b'", "ab"), ("1 > 2", False), ("CAST(NULL AS BIGINT)", None)):
        expression = compile_expression(text, TYPES)
        assert [row] * 3 == values_of(expression.evaluate({}, 3), expression.type)
        assert [] == values_of(expression.evaluate({}, 0), expression.type)


def test_columns_that_go_in_are_not_changed() -> None:
    """Neither values nor masks."""
    values = np.array([1, 0, -3], dtype=np.int64)
    valid = np.array([True, False, True])
    for text in ("i", "-i", "COALESCE(i, 5)", "CASE WHEN i > 0 THEN i END", "i IS NULL", "GREATEST(i, 0)"):
        compile_expression(text, TYPES).evaluate({"i": ColumnValues(values, valid)}, 3)

    assert [1, 0, -3] == values.tolist()
    assert [True, False, True] == valid.tolist()


def haversine_by_cosines_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Independent formula: the angle between two unit vectors."""
    vectors = [
        (math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat))
        for lat, lon in ((math.radians(x), math.radians(y)) for x, y in (a, b))
    ]
    (x1, y1, z1), (x2, y2, z2) = vectors
    cross = math.hypot(y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2)
    return 6371.0088 * math.atan2(cross, x1 * x2 + y1 * y2 + z1 * z2)


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180))
def test_distance_is_the_angle_between_two_directions(lat1: float, lon1: float, lat2: float, lon2: float) -> None:
    """Within a metre, whose only cause is that the haversine loses digits near antipodes."""
    expression = compile_expression(f"haversine_km({lat1!r}, {lon1!r}, {lat2!r}, {lon2!r})", {})
    (distance_km,) = values_of(expression.evaluate({}, 1), expression.type)

    assert haversine_by_cosines_km((lat1, lon1), (lat2, lon2)) == pytest.approx(distance_km, abs=1e-3)


def test_distance_of_places_that_are_not_on_earth_is_null() -> None:
    """Beyond a pole, not a number, or unknown; around the date line it is short."""
    assert [None, None, None] == evaluated("haversine_km(f, 0, 0, 0)", f=[90.1, NAN, None])
    assert [True] == evaluated("haversine_km(0, 179.9, 0, -179.9) BETWEEN 22 AND 23")
