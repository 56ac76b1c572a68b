"""The supported SQL as tables: which of sqlglot's syntax stands for which operation, and what to say of the rest."""

from __future__ import annotations

import difflib

from sqlglot import exp
from sqlglot.errors import ParseError

from featurestore.core.expressions.catalog import CATALOG
from featurestore.core.expressions.kinds import Kind

TRANSPARENT = {exp.Paren, exp.Try}
"""Read through: TRY(x) is x, since nothing here raises."""

HARMLESS = {"safe", "typed", "coalesce", "ignore_nulls", "big_int"}
"""Marks of sqlglot's dialects that say what we do anyway."""

BINARY: dict[type[exp.Expr], str] = {
    exp.Mul: "*",
    exp.Div: "/",
    exp.IntDiv: "//",
    exp.Mod: "%",
    exp.Pow: "POWER",
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeNEQ: "IS DISTINCT FROM",
}

CHAINS: dict[type[exp.Expr], str] = {exp.And: "AND", exp.Or: "OR", exp.DPipe: "||"}
"""Associative: brackets between them mean nothing."""

FUNCTIONS: dict[type[exp.Expr], tuple[str, tuple[str, ...]]] = {
    exp.Not: ("NOT", ("this",)),
    exp.Coalesce: ("COALESCE", ("this", "expressions")),
    exp.Greatest: ("GREATEST", ("this", "expressions")),
    exp.Least: ("LEAST", ("this", "expressions")),
    exp.Abs: ("ABS", ("this",)),
    exp.Sign: ("SIGN", ("this",)),
    exp.Floor: ("FLOOR", ("this",)),
    exp.Ceil: ("CEIL", ("this",)),
    exp.Round: ("ROUND", ("this", "decimals")),
    exp.Sqrt: ("SQRT", ("this",)),
    exp.Ln: ("LN", ("this",)),
    exp.Exp: ("EXP", ("this",)),
    exp.IsNan: ("ISNAN", ("this",)),
    exp.Lower: ("LOWER", ("this",)),
    exp.Upper: ("UPPER", ("this",)),
    exp.Length: ("LENGTH", ("this",)),
    exp.Substring: ("SUBSTRING", ("this", "start", "length")),
    exp.Left: ("LEFT", ("this", "expression")),
    exp.Right: ("RIGHT", ("this", "expression")),
    exp.Replace: ("REPLACE", ("this", "expression", "replacement")),
    exp.Concat: ("CONCAT", ("expressions",)),
    exp.StartsWith: ("STARTS_WITH", ("this", "expression")),
    exp.EndsWith: ("ENDS_WITH", ("this", "expression")),
    exp.Contains: ("CONTAINS", ("this", "expression")),
    exp.TimeToUnix: ("EXTRACT EPOCH", ("this",)),
    exp.Year: ("EXTRACT YEAR", ("this",)),
    exp.Quarter: ("EXTRACT QUARTER", ("this",)),
    exp.Month: ("EXTRACT MONTH", ("this",)),
    exp.Day: ("EXTRACT DAY", ("this",)),
    exp.Hour: ("EXTRACT HOUR", ("this",)),
    exp.Minute: ("EXTRACT MINUTE", ("this",)),
    exp.Second: ("EXTRACT SECOND", ("this",)),
}
"""Operation, and the arguments of sqlglot's node in the operation's order."""

NAMED = {
    "HAVERSINE_KM": "HAVERSINE_KM",
    "PREFIX": "STARTS_WITH",
    "SUFFIX": "ENDS_WITH",
}
"""Functions that sqlglot knows by name alone."""

TRIMS = {"BOTH": "TRIM", "LEADING": "LTRIM", "TRAILING": "RTRIM"}

UNIT_ALIASES = {"DAYOFWEEK": "DOW", "DAYOFWEEKISO": "ISODOW", "DAYOFYEAR": "DOY"}

_TYPE = exp.DataType.Type
CASTS = {
    _TYPE.BIGINT: Kind.INT,
    _TYPE.DOUBLE: Kind.FLOAT,
    _TYPE.TEXT: Kind.TEXT,
    _TYPE.VARCHAR: Kind.TEXT,
    _TYPE.BOOLEAN: Kind.BOOL,
    _TYPE.TIMESTAMP: Kind.INSTANT,
    _TYPE.TIMESTAMPNTZ: Kind.INSTANT,
    _TYPE.TIMESTAMPTZ: Kind.INSTANT,
}
CASTS_HINT = "cast to BIGINT, DOUBLE, VARCHAR, BOOLEAN or TIMESTAMP"

INTERVAL_HINT = "write INTERVAL 90 MINUTE; units are millisecond, second, minute, hour, day and week"
_INTERVAL_UNITS_MS = {
    "MILLISECOND": 1,
    "SECOND": 1_000,
    "MINUTE": 60_000,
    "HOUR": 3_600_000,
    "DAY": 86_400_000,
    "WEEK": 604_800_000,
}
_INTERVAL_DIGITS_MAX = 9

_NONDETERMINISTIC = (exp.CurrentTimestamp, exp.CurrentDate, exp.CurrentTime, exp.Rand, exp.Uuid)
_NONDETERMINISTIC_NAMES = {"NOW", "TODAY", "GET_CURRENT_TIMESTAMP", "TRANSACTION_TIMESTAMP", "SETSEED", "NEXTVAL"}


def interval_ms(interval: exp.Expr) -> int | None:
    """Length of INTERVAL 5 MINUTE; None when it depends on the calendar or is not a plain number."""
    unit = interval.args.get("unit")
    name = "" if unit is None else unit.name.upper()
    length_ms = _INTERVAL_UNITS_MS.get(name) or _INTERVAL_UNITS_MS.get(name.removesuffix("S"))
    digits = interval.this.name if isinstance(interval.this, exp.Literal) else ""
    if length_ms is None or not digits.isdigit() or len(digits) > _INTERVAL_DIGITS_MAX:
        return None
    return int(digits) * length_ms


def remedy(name: str, kinds: set[Kind]) -> str:
    """What usually helps against the wrong kinds of operands."""
    if Kind.LOCAL in kinds and Kind.INSTANT in kinds:
        return "bring both to one side with AT TIME ZONE"
    if kinds & {Kind.INSTANT, Kind.LOCAL} and name in {"+", "-", "*", "/", "//", "%", "ABS"}:
        return "calculate with milliseconds: EPOCH_MS(a) - EPOCH_MS(b)"
    if name == "//":
        return "for doubles write FLOOR(a / b)"
    if name in {"CASE", "COALESCE", "GREATEST", "LEAST"}:
        return "bring all branches to one type with CAST"
    if name in {"AND", "OR", "NOT"}:
        return "compare first, as in a <> 0"
    return "convert one side with CAST" if len(kinds) > 1 else "convert it with CAST"


def refusal(node: exp.Expr) -> tuple[str, str]:
    """What a piece that is not supported is, and what to do instead."""
    name = str(node.this).upper() if isinstance(node, exp.Anonymous) else type(node).__name__.upper()
    if isinstance(node, exp.Query | exp.Exists | exp.SubqueryPredicate | exp.Table):
        return "a subquery", "an expression sees one row; bring what you need into a column"
    if isinstance(node, exp.Window):
        return "a window function", "declare an aggregation with a time window instead"
    if isinstance(node, exp.AggFunc):
        return "an aggregate", "declare an aggregation instead; an expression sees one row"
    if isinstance(node, _NONDETERMINISTIC) or name in _NONDETERMINISTIC_NAMES:
        return "a function that answers differently each time", "use a column, such as the event's time"
    if isinstance(node, exp.Alias):
        return "a name behind it (or a missing operator)", "leave the name out; the name is declared beside it"
    if isinstance(node, exp.Interval):
        return "an interval on its own", "add it to a TIMESTAMP, or compare EPOCH_MS(a) - EPOCH_MS(b) with a number"
    if isinstance(node, exp.Placeholder | exp.Parameter):
        return "a placeholder", "write the value"
    if not isinstance(node, exp.Func):
        return f"syntax that is not supported ({name})", "use comparisons, arithmetic, CASE and the listed functions"
    near = difflib.get_close_matches(name, _FUNCTION_NAMES, n=3, cutoff=0.5)
    listed = " or ".join(near) if near else ", ".join(_FUNCTION_NAMES)
    return f"a function that is not supported ({name})", f"did you mean {listed}?" if near else f"there are {listed}"


def chain(node: exp.Expr, kind: type[exp.Expr]) -> list[exp.Expr]:
    """Operands of a chain of one associative operation, however it is bracketed; without recursion."""
    pieces: list[exp.Expr] = []
    waiting = [node]
    while waiting:
        piece = waiting.pop()
        while isinstance(piece, exp.Paren):
            piece = piece.this
        if type(piece) is kind:
            waiting += [piece.expression, piece.this]
        else:
            pieces.append(piece)
    return pieces


def arguments(node: exp.Expr, names: tuple[str, ...]) -> list[exp.Expr]:
    """The arguments that are given; one that holds a list is spread."""
    given = [node.args.get(name) for name in names]
    return [piece for value in given if value is not None for piece in (value if isinstance(value, list) else [value])]


def place(node: exp.Expr | None) -> str:
    """Where a piece is and how it reads, as far as sqlglot remembers: its first name, and DuckDB's spelling."""
    if node is None:
        return ""
    positions = [piece.meta["start"] for piece in node.walk() if "start" in piece.meta]
    piece = node.sql(dialect="duckdb")
    return f"near character {min(positions) + 1}: {piece}" if positions else f"at: {piece}"


def syntax_fault(error: ParseError) -> str:
    """What sqlglot could not parse, and where, without its own class names."""
    first = error.errors[0] if error.errors else {}
    fact = str(first.get("description", "it cannot be parsed"))
    if fact.startswith("Required keyword"):
        fact = "an operand is missing"
    return f"{fact} near character {first.get('col')}, {first.get('highlight')!r}"


_FUNCTION_NAMES = sorted(
    {name.partition(" ")[0] for name in CATALOG if name[0].isalpha()} - {"AND", "OR", "IN", "IS", "AT", "NEGATE"}
)
