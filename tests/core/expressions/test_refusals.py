"""What is refused, and that the message names the expression, the piece and the remedy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.expressions import compile_expression
from featurestore.core.spec import ValueType
from featurestore.errors import InvalidExpression, InvalidRequest

COLUMNS = {
    "amount": ValueType.INT64,
    "price": ValueType.FLOAT64,
    "market": ValueType.STRING,
    "declined": ValueType.BOOL,
    "opened_at": ValueType.TIMESTAMP,
    "A": ValueType.INT64,
    "a": ValueType.INT64,
}

REFUSALS = [
    # text, part of the fact, part of the place, part of the remedy
    ("amuont > 3", "column 'amuont' is unknown", "near character 1: amuont", 'did you mean "amount"?'),
    ('market = "DE"', "column 'DE' is unknown", "DE", "text stands in single quotes"),
    ("events.amount", "qualified name", "near character 1: events.amount", "column's name alone"),
    ("amount = 'a'", "gives = what it does not take: (BIGINT, VARCHAR)", "amount = 'a'", "CAST"),
    ("declined = 1", "(BOOLEAN, BIGINT)", "declined = 1", "CAST"),
    ("amount AND declined", "(BIGINT, BOOLEAN)", "amount AND declined", "compare first"),
    ("CASE WHEN amount THEN 1 END", "what is no condition", "amount", "a <> 0"),
    ("COALESCE(amount, market)", "(BIGINT, VARCHAR)", "COALESCE(amount, market)", "one type with CAST"),
    ("price // 2", "(DOUBLE, BIGINT)", "price // 2", "FLOOR(a / b)"),
    ("opened_at - opened_at", "(TIMESTAMPTZ, TIMESTAMPTZ)", "opened_at", "EPOCH_MS(a) - EPOCH_MS(b)"),
    ("opened_at > 'yesterday'", "(TIMESTAMPTZ, VARCHAR)", "'yesterday'", "CAST"),
    ("opened_at > TIMESTAMP '2026-02-30'", "a time that cannot be read", "2026-02-30", "2026-01-31 10:20:30.5"),
    ("opened_at > opened_at AT TIME ZONE 'UTC'", "local TIMESTAMP", "AT TIME ZONE", "to one side with AT TIME ZONE"),
    ("opened_at AT TIME ZONE 'Europe/Berlin'", "ends in a local time", "", "EXTRACT(hour FROM"),
    ("opened_at AT TIME ZONE 'Europe/Berln' IS NULL", "unknown time zone", "Berln", "Europe/Berlin"),
    ("EXTRACT(century FROM opened_at)", "unknown unit", "CENTURY", "isodow"),
    ("opened_at + INTERVAL 1 MONTH", "no fixed length", "INTERVAL '1' MONTH", "INTERVAL 90 MINUTE"),
    ("amount IN (SELECT 1)", "a subquery", "SELECT 1", "one row"),
    ("EXISTS (SELECT 1)", "a subquery", "SELECT 1", "one row"),
    ("SELECT amount", "a subquery", "SELECT amount", "one row"),
    ("sum(amount) > 3", "an aggregate", "near character 1: SUM(amount)", "aggregation"),
    ("sum(amount) OVER ()", "a window function", "OVER", "time window"),
    ("now() > opened_at", "answers differently each time", "NOW()", "event's time"),
    ("current_timestamp > opened_at", "answers differently each time", "CURRENT_TIMESTAMP", "event's time"),
    ("random() < 0.5", "answers differently each time", "RANDOM()", "use a column"),
    ("lenght(market)", "not supported (LENGHT)", "LENGHT(market)", "did you mean LENGTH"),
    ("regexp_matches(market, 'a')", "not supported", "REGEXP", ""),
    ("FLOOR(price, 2)", "clause that is not supported", "near character 7", "leave it out"),
    ("amount BETWEEN SYMMETRIC 1 AND 2", "clause that is not supported (symmetric)", "amount", "leave it out"),
    ("market LIKE 'a' ESCAPE 'bc'", "escapes with more than one character", "ESCAPE", "ESCAPE"),
    ("CAST(amount AS INTEGER)", "type that columns do not have", "CAST(amount AS INT)", "BIGINT, DOUBLE"),
    ("CAST(price AS DECIMAL(10, 2))", "type that columns do not have", "DECIMAL(10, 2)", "BIGINT, DOUBLE"),
    ("9223372036854775808", "integer beyond 64 bits", "9223372036854775808", "1e20"),
    ("LOG(2, price)", "logarithm of another base", "LOG(2, price)", "LN(x) / LN(base)"),
    ("amount total", "a name behind it", "amount AS total", "leave the name out"),
    ("amount > ?", "a placeholder", "?", "write the value"),
    ("amount[1]", "syntax that is not supported", "amount", "CASE"),
    ("amount +", "an operand is missing near character 8", "", "check brackets"),
    ("(amount", "not valid SQL", "", "check brackets"),
    ("'open", "not valid SQL", "", "check quotes"),
    ("amount; price", "is more than one", "", "one SQL expression"),
    ("", "is empty", "", "one SQL expression"),
    ("NULL", "NULL without a type", "", "CAST(NULL AS BIGINT)"),
    ("amount > " + "(" * 2_000 + "1" + ")" * 2_000, "nested too deeply", "", "at most"),
    ("NOT " * 60 + "declined", "nested too deeply", "", "nest at most 50"),
    ("ABS(" * 60 + "amount" + ")" * 60, "nested too deeply", "", "nest at most 50"),
    ("amount = 1 " + "OR amount = 1 " * 1_000, "more than 10000 characters", "", "several columns"),
]


@pytest.mark.parametrize(("text", "fact", "place", "remedy"), REFUSALS, ids=[case[0][:40] for case in REFUSALS])
def test_a_wrong_expression_is_refused_with_place_and_remedy(text: str, fact: str, place: str, remedy: str) -> None:
    """The message names the expression and what is wrong, the detail where, the hint what to write."""
    with pytest.raises(InvalidExpression) as caught:
        compile_expression(text, COLUMNS)

    assert isinstance(caught.value, InvalidRequest)
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    assert caught.value.message.startswith(f"expression {shown!r} ")
    assert fact in caught.value.message
    assert place in caught.value.detail
    assert remedy in caught.value.hint
    assert caught.value.hint


def test_names_match_as_spelled_and_only_then_without_case() -> None:
    """Two columns that differ by case alone are told apart; a third spelling is ambiguous only where it fits both."""
    assert '"A" - a' == compile_expression("A - a", COLUMNS).text
    assert "amount" == compile_expression("AMOUNT", COLUMNS).text
    with pytest.raises(InvalidExpression, match="'ab' is ambiguous"):
        compile_expression("ab", {"aB": ValueType.INT64, "Ab": ValueType.INT64})


@given(st.text(st.sampled_from("Aamountprice()'\"=<>+-*/%|.,;:0123456789 \n\0é[]{}$?@#"), max_size=30) | st.text())
def test_any_text_compiles_or_is_refused(text: str) -> None:
    """Nothing else ever comes out of it, whatever is typed."""
    try:
        expression = compile_expression(text, COLUMNS)
    except InvalidExpression:
        return

    assert expression == compile_expression(expression.text, COLUMNS)
