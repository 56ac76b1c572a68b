"""Typed trees, and their canonical SQL.

The canonical text is part of definition hashes, so it is written here, from our own tree, and not by the SQL library:
a release of that library must not change a hash. It is SQL that compiles to the same tree again.

>>> from featurestore.core.expressions import compile_expression
>>> from featurestore.core.spec import ValueType
>>> compile_expression("((Amount)>=  1.50) and Not market In ('DE','FR')",
...                    {"amount": ValueType.FLOAT64, "market": ValueType.STRING}).text
"(amount >= 1.5e0) AND (market NOT IN ('DE', 'FR'))"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from featurestore.core.expressions.functions.casts import format_time
from featurestore.core.expressions.kinds import Kind

INFIX = frozenset({"+", "-", "*", "/", "//", "%", "||", "AND", "OR", "=", "<>", "<", "<=", ">", ">="} | {
    "IS DISTINCT FROM", "AT TIME ZONE",
})  # fmt: skip
"""Operations written between their operands."""

NEGATED_FORMS = {
    "IS NULL": "IS NOT NULL",
    "IS TRUE": "IS NOT TRUE",
    "IS FALSE": "IS NOT FALSE",
    "IS DISTINCT FROM": "IS NOT DISTINCT FROM",
    "IN": "NOT IN",
    "LIKE": "NOT LIKE",
    "ILIKE": "NOT ILIKE",
}
"""Operations that swallow a NOT before them."""

# fmt: off
RESERVED_WORDS = frozenset({
    "all", "analyse", "analyze", "and", "anti", "any", "array", "as", "asc", "asof", "at", "between", "both", "by",
    "case", "cast", "check", "collate", "column", "columns", "constraint", "create", "cross", "current_catalog",
    "current_date", "current_role", "current_schema", "current_time", "current_timestamp", "current_user", "date",
    "date_trunc", "day", "default", "deferrable", "desc", "describe", "distinct", "else", "end", "epoch", "escape",
    "except", "exists", "extract", "false", "fetch", "for", "foreign", "from", "full", "glob", "grant", "group",
    "having", "hour", "if", "ilike", "in", "initially", "inner", "intersect", "interval", "into", "is", "isnull",
    "join", "lambda", "lateral", "leading", "left", "like", "limit", "localtime", "localtimestamp", "map", "minute",
    "month", "natural", "not", "notnull", "null", "offset", "on", "only", "or", "order", "outer", "overlaps", "pivot",
    "pivot_longer", "pivot_wider", "placing", "positional", "primary", "qualify", "quarter", "references",
    "returning", "right", "row", "second", "select", "semi", "session_user", "show", "similar", "some", "struct",
    "summarize", "symmetric", "table", "tablesample", "then", "time", "timestamp", "timestamptz", "to", "trailing",
    "true", "try", "try_cast", "union", "unique", "unknown", "unpivot", "user", "using", "values", "variadic",
    "verbose", "week", "when", "where", "window", "with", "year",
})
# fmt: on
"""Column names that are quoted, as SQL would read them as something else. Fixed here, for the sake of hashes."""

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Read:
    """A column."""

    column: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant. Times are ms, as in columns; the value of NULL is None."""

    value: int | float | str | None
    kind: Kind


@dataclass(frozen=True, slots=True)
class Call:
    """An operation on operands.

    Attributes:
        name: its name in the catalog.
        operands: in the catalog's order.
        takes: the kind that each operand is converted to.
        kind: what it gives.
    """

    name: str
    operands: tuple[Node, ...]
    takes: tuple[Kind, ...]
    kind: Kind


Node: TypeAlias = Read | Literal | Call


def render(node: Node) -> str:
    """Canonical SQL of a tree; every operation inside another one's operand stands in parentheses."""
    if isinstance(node, Read):
        return quoted(node.column)
    if isinstance(node, Literal):
        return _literal(node)
    return _call(node)


def quoted(column: str) -> str:
    """A column's name as SQL writes it."""
    if _PLAIN_NAME.match(column) and column not in RESERVED_WORDS:
        return column
    return '"' + column.replace('"', '""') + '"'


def columns_of(node: Node) -> frozenset[str]:
    """Names of the columns that a tree reads."""
    if isinstance(node, Read):
        return frozenset((node.column,))
    if isinstance(node, Literal):
        return frozenset()
    return frozenset().union(*map(columns_of, node.operands))


def _literal(node: Literal) -> str:
    value = node.value
    if value is None:
        return "NULL"
    if node.kind is Kind.TEXT:
        return "'" + str(value).replace("'", "''") + "'"
    if node.kind is Kind.BOOL:
        return "TRUE" if value else "FALSE"
    if node.kind is Kind.FLOAT:
        # With an exponent, since DuckDB reads 1.5 as a DECIMAL.
        return repr(value) if "e" in repr(value) else f"{value!r}e0"
    if node.kind is Kind.INT:
        return str(value)
    assert isinstance(value, int)
    if node.kind is Kind.INSTANT:
        return f"TIMESTAMPTZ '{format_time(value, suffix='+00')}'"
    return f"TIMESTAMP '{format_time(value, suffix='')}'"


def _call(node: Call) -> str:
    name, operands = node.name, node.operands
    if name == "NOT":
        inner = operands[0]
        if isinstance(inner, Call) and inner.name in NEGATED_FORMS:
            return _form(NEGATED_FORMS[inner.name], inner)
        return f"NOT {_operand(inner)}"
    return _form(name, node)


def _form(name: str, node: Call) -> str:
    operands = node.operands
    first = _operand(operands[0])
    if node.name in INFIX:
        return f" {name} ".join(map(_operand, operands))
    if node.name in {"IS NULL", "IS TRUE", "IS FALSE"}:
        return f"{first} {name}"
    if node.name == "NEGATE":
        return f"-{first}"
    if node.name == "IN":
        return f"{first} {name} ({_list(operands[1:])})"
    if node.name in {"LIKE", "ILIKE"}:
        escape = f" ESCAPE {_operand(operands[2])}" if len(operands) == 3 else ""
        return f"{first} {name} {_operand(operands[1])}{escape}"
    if node.name == "CASE":
        return _case(operands)
    function, _, option = name.partition(" ")
    if function == "CAST":
        # Nothing raises here, so DuckDB's name for what happens is TRY_CAST.
        return f"TRY_CAST({render(operands[0])} AS {option})"
    if function == "EXTRACT":
        return f"EXTRACT({option} FROM {render(operands[0])})"
    if function == "DATE_TRUNC":
        return f"DATE_TRUNC('{option}', {render(operands[0])})"
    return f"{name}({_list(operands)})"


def _case(operands: tuple[Node, ...]) -> str:
    whens = "".join(
        f" WHEN {render(condition)} THEN {render(value)}"
        for condition, value in zip(operands[:-1:2], operands[1::2], strict=True)
    )
    otherwise = operands[-1]
    ending = "" if isinstance(otherwise, Literal) and otherwise.value is None else f" ELSE {render(otherwise)}"
    return f"CASE{whens}{ending} END"


def _list(operands: tuple[Node, ...]) -> str:
    return ", ".join(map(render, operands))


def _operand(node: Node) -> str:
    text = render(node)
    return f"({text})" if text.startswith("-") or (isinstance(node, Call) and not _encloses_itself(node)) else text


def _encloses_itself(node: Call) -> bool:
    """Whether its text is one unit already: a function call or CASE ... END."""
    open_ended = {"NOT", "NEGATE", "IN", "LIKE", "ILIKE", "IS NULL", "IS TRUE", "IS FALSE"}
    return node.name not in INFIX and node.name not in open_ended
