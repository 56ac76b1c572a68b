"""Read SQL, as sqlglot parses DuckDB's, into a typed tree. With `syntax.py` the only file that knows sqlglot.

What sqlglot parses is far more than is supported, so this is a list of what is let in: a kind of syntax that is not
listed, or a listed one with a clause that is not, is refused by name. Some syntax is another one written shorter and
becomes that: BETWEEN two comparisons, simple CASE, IF and NULLIF a searched CASE, IFNULL a COALESCE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError

from featurestore.core.expressions import syntax
from featurestore.core.expressions.functions.calendar import PARTS, TRUNCATIONS
from featurestore.core.expressions.functions.casts import has_offset, parse_time_ms
from featurestore.core.expressions.kinds import KIND_OF_TYPE, TYPE_OF_KIND, Kind
from featurestore.core.expressions.tree import Call, Literal, Node, Read
from featurestore.core.expressions.typing import resolve, usages
from featurestore.core.spec import ValueType
from featurestore.core.windows.time_zones import zone_names
from featurestore.errors import InvalidExpression
from featurestore.errors.near_names import near_names, quoted

CHARACTERS_MAX = 10_000
"""Longest text of an expression."""

DEPTH_MAX = 50
"""Most operations inside one another; chains of AND, OR and || count once."""

_NAMES_SHOWN_MAX = 12


def parse(text: str, columns: Mapping[str, ValueType]) -> Node:
    """A typed tree of the text, of a kind that a column can have.

    Raises:
        InvalidExpression: it is not an expression of the supported language over these columns.
    """
    reader = _Reader(text, columns)
    tree = reader.read(reader.syntax_tree(), 0)
    if isinstance(tree, Literal) and tree.kind is Kind.LOCAL:
        return Literal(tree.value, Kind.INSTANT)
    if tree.kind is Kind.LOCAL:
        reader.refuse(
            "ends in a local time, which no column can hold",
            hint="take a part of it (EXTRACT(hour FROM ...)), or lead it back: (...) AT TIME ZONE 'Europe/Berlin'",
        )
    if tree.kind not in TYPE_OF_KIND:
        reader.refuse("is NULL without a type", hint="write CAST(NULL AS BIGINT)")
    return tree


class _Reader:
    """Reads one text; holds it for messages."""

    def __init__(self, text: str, columns: Mapping[str, ValueType]) -> None:
        self.text = text
        self.columns = columns

    def refuse(self, fact: str, *, node: exp.Expr | None = None, hint: str) -> NoReturn:
        """Raise, naming the expression, and the place and piece at fault."""
        shown = self.text if len(self.text) <= 200 else f"{self.text[:200]}..."
        raise InvalidExpression(f"expression {shown!r} {fact}", detail=syntax.place(node), hint=hint)

    def syntax_tree(self) -> exp.Expr:
        """What sqlglot makes of the text: exactly one expression."""
        if len(self.text) > CHARACTERS_MAX:
            self.refuse(f"has more than {CHARACTERS_MAX} characters", hint="split it into several columns")
        try:
            trees = sqlglot.parse(self.text, dialect="duckdb")
        except ParseError as error:
            self.refuse(
                f"is not valid SQL: {syntax.syntax_fault(error)}", hint="check brackets, quotes and operators there"
            )
        except SqlglotError as error:
            self.refuse(f"is not valid SQL: {str(error).splitlines()[0]}", hint="check quotes and special characters")
        except RecursionError:
            self.refuse("is nested too deeply", hint=f"nest at most {DEPTH_MAX} operations")
        if len(trees) != 1 or trees[0] is None:
            self.refuse("is empty" if not any(trees) else "is more than one", hint="write one SQL expression")
        return trees[0]

    def read(self, node: exp.Expr, depth: int) -> Node:
        """A typed tree of a piece."""
        if depth > DEPTH_MAX:
            self.refuse("is nested too deeply", hint=f"nest at most {DEPTH_MAX} operations")
        kind = type(node)
        if kind in syntax.TRANSPARENT:
            self._only(node, "this")
            return self.read(node.this, depth)
        if kind in syntax.BINARY:
            self._only(node, "this", "expression")
            return self.call(syntax.BINARY[kind], node, depth, node.this, node.expression)
        if kind in syntax.CHAINS:
            return self.call(syntax.CHAINS[kind], node, depth, *syntax.chain(node, kind))
        if kind in syntax.FUNCTIONS:
            name, arguments = syntax.FUNCTIONS[kind]
            self._only(node, *arguments)
            return self.call(name, node, depth, *syntax.arguments(node, arguments))
        if kind in _READERS:
            return _READERS[kind](self, node, depth)
        return self._unsupported(node)

    def call(self, name: str, node: exp.Expr, depth: int, *pieces: exp.Expr) -> Node:
        """An operation on pieces that are still to be read."""
        return self.made(name, node, *[self.read(piece, depth + 1) for piece in pieces])

    def made(self, name: str, node: exp.Expr, *operands: Node) -> Node:
        """An operation on operands, or the refusal of their types."""
        if name in _ASSOCIATIVE:
            # Beside what was written as one chain, BETWEEN brings an AND of its own.
            operands = tuple(inner for operand in operands for inner in _links(name, operand))
        call = resolve(name, operands)
        if call is None:
            given = ", ".join(operand.kind.value for operand in operands)
            self.refuse(
                f"gives {name} what it does not take: ({given})",
                node=node,
                hint=f"it takes {usages(name)}; {syntax.remedy(name, {operand.kind for operand in operands})}",
            )
        return call

    def _only(self, node: exp.Expr, *known: str) -> None:
        """Refuse clauses that would be ignored."""
        extra = [name for name, value in node.args.items() if value and name not in {*known, *syntax.HARMLESS}]
        if extra:
            self.refuse(f"has a clause that is not supported ({', '.join(extra)})", node=node, hint="leave it out")

    def _unsupported(self, node: exp.Expr) -> NoReturn:
        what, hint = syntax.refusal(node)
        self.refuse(f"has {what}", node=node, hint=hint)

    def column(self, node: exp.Expr, depth: int) -> Node:
        """A name: exactly as spelled, else the only one that differs by case alone."""
        if node.args.get("table") is not None or not isinstance(node.this, exp.Identifier):
            self.refuse("has a qualified name", node=node, hint="write the column's name alone")
        name = node.name
        if name not in self.columns:
            folded = [column for column in self.columns if column.lower() == name.lower()]
            if len(folded) != 1:
                fact = "column {!r} is ambiguous" if folded else "column {!r} is unknown"
                self.refuse(f"cannot be read: {fact.format(name)}", node=node, hint=self._near(name))
            name = folded[0]
        return Read(name, KIND_OF_TYPE[self.columns[name]])

    def _near(self, name: str) -> str:
        meant = near_names(name, self.columns)
        if meant:
            return f"did you mean {' or '.join(quoted(meant))}?"
        if not self.columns:
            return "there is no column that it could name; text stands in single quotes"
        shown = sorted(self.columns)[:_NAMES_SHOWN_MAX]
        more = ", ..." if len(self.columns) > len(shown) else ""
        return f"columns are {', '.join(shown)}{more}; text stands in single quotes"

    def literal(self, node: exp.Expr, depth: int) -> Node:
        """A number or a text."""
        if node.args["is_string"]:
            return Literal(str(node.this), Kind.TEXT)
        return self._number(node, str(node.this), negative=False)

    def _number(self, node: exp.Expr, digits: str, *, negative: bool) -> Node:
        sign = -1 if negative else 1
        if not digits.isdigit():
            try:
                return Literal(sign * float(digits), Kind.FLOAT)
            except ValueError:
                self.refuse("has a number that cannot be read", node=node, hint="write 12, 1.5 or 2e3")
        value = sign * int(digits) if len(digits) <= 19 else None
        if value is None or not -(2**63) <= value < 2**63:
            self.refuse("has an integer beyond 64 bits", node=node, hint="write it as a double, 1e20")
        return Literal(value, Kind.INT)

    def negation(self, node: exp.Expr, depth: int) -> Node:
        """Minus; of a number it is part of the number, or the smallest integer could not be written."""
        inner = node.this
        while isinstance(inner, exp.Paren):
            inner = inner.this
        if isinstance(inner, exp.Literal) and not inner.args["is_string"]:
            return self._number(node, str(inner.this), negative=True)
        operand = self.read(inner, depth + 1)
        if isinstance(operand, Literal) and isinstance(operand.value, int | float) and operand.value != -(2**63):
            return (
                Literal(-operand.value, operand.kind)
                if operand.kind in _NUMBERS
                else self.made("NEGATE", node, operand)
            )
        return self.made("NEGATE", node, operand)

    def case(self, node: exp.Expr, depth: int) -> Node:
        """CASE, simple or searched; IF."""
        self._only(node, "this", "ifs", "default", "true", "false")
        is_if = isinstance(node, exp.If)
        subject = None if is_if or node.this is None else self.read(node.this, depth + 2)
        operands: list[Node] = []
        for branch in [node] if is_if else node.args["ifs"]:
            condition = self.read(branch.this, depth + 2)
            if subject is not None:
                condition = self.made("=", branch, subject, condition)
            if condition.kind not in {Kind.BOOL, Kind.NULL}:
                self.refuse("decides by what is no condition", node=branch, hint="compare it, as in a <> 0")
            operands.append(condition)
            operands.append(self.read(branch.args["true"], depth + 1))
        default = node.args.get("false" if is_if else "default")
        operands.append(Literal(None, Kind.NULL) if default is None else self.read(default, depth + 1))
        return self.made("CASE", node, *operands)

    def null_if(self, node: exp.Expr, depth: int) -> Node:
        """NULLIF(a, b) is a, unless a = b."""
        first, second = self.read(node.this, depth + 2), self.read(node.expression, depth + 2)
        same = self.made("=", node, first, second)
        return self.made("CASE", node, same, Literal(None, Kind.NULL), first)

    def between(self, node: exp.Expr, depth: int) -> Node:
        """Both ends belong to it."""
        self._only(node, "this", "low", "high")
        subject = self.read(node.this, depth + 2)
        low, high = self.read(node.args["low"], depth + 2), self.read(node.args["high"], depth + 2)
        return self.made("AND", node, self.made(">=", node, subject, low), self.made("<=", node, subject, high))

    def membership(self, node: exp.Expr, depth: int) -> Node:
        """IN, of a list."""
        if node.args.get("query") is not None:
            self._unsupported(node.args["query"])
        self._only(node, "this", "expressions")
        return self.call("IN", node, depth, node.this, *node.expressions)

    def like(self, node: exp.Expr, depth: int) -> Node:
        """LIKE and ILIKE, with ESCAPE and NOT around them."""
        escape = [node.expression] if isinstance(node, exp.Escape) else []
        match = node.this if escape else node
        if type(match) not in _LIKES:
            self._unsupported(node)
        self._only(match, "this", "expression", "negate")
        pieces = [match.this, match.expression, *escape]
        operands = [self.read(piece, depth + 1) for piece in pieces]
        if len(operands) == 3 and isinstance(operands[2], Literal) and len(str(operands[2].value)) > 1:
            self.refuse("escapes with more than one character", node=node, hint="write ESCAPE '\\'")
        call = self.made(_LIKES[type(match)], node, *operands)
        return self.made("NOT", node, call) if match.args.get("negate") else call

    def being(self, node: exp.Expr, depth: int) -> Node:
        """IS NULL, IS TRUE, IS FALSE."""
        state = node.expression
        if isinstance(state, exp.Boolean):
            return self.call("IS TRUE" if state.this else "IS FALSE", node, depth, node.this)
        if not isinstance(state, exp.Null):
            self._unsupported(node)
        return self.call("IS NULL", node, depth, node.this)

    def not_distinct(self, node: exp.Expr, depth: int) -> Node:
        """IS NOT DISTINCT FROM."""
        return self.made("NOT", node, self.call("IS DISTINCT FROM", node, depth + 1, node.this, node.expression))

    def cast(self, node: exp.Expr, depth: int) -> Node:
        """CAST, TRY_CAST, ::, and typed literals such as TIMESTAMP '2026-01-31'."""
        self._only(node, "this", "to")
        target = syntax.CASTS.get(node.args["to"].this)
        if target is None or node.args["to"].expressions:
            self.refuse("casts to a type that columns do not have", node=node, hint=syntax.CASTS_HINT)
        operand = self.read(node.this, depth + 1)
        if isinstance(operand, Literal) and operand.kind is Kind.TEXT and target is Kind.INSTANT:
            return self._time_literal(node, str(operand.value))
        return operand if operand.kind is target else self.made(f"CAST {target.value}", node, operand)

    def _time_literal(self, node: exp.Expr, text: str) -> Node:
        time_ms = parse_time_ms(text)
        if time_ms is None:
            self.refuse("has a time that cannot be read", node=node, hint="write TIMESTAMP '2026-01-31 10:20:30.5'")
        zoned = has_offset(text) or node.args["to"].this == exp.DataType.Type.TIMESTAMPTZ
        return Literal(time_ms, Kind.INSTANT if zoned else Kind.LOCAL)

    def extract(self, node: exp.Expr, depth: int) -> Node:
        """EXTRACT(part FROM x) and DATE_PART('part', x)."""
        return self._with_unit("EXTRACT", PARTS, node, str(node.this.name), node.expression, depth)

    def truncate(self, node: exp.Expr, depth: int) -> Node:
        """DATE_TRUNC('unit', x)."""
        self._only(node, "this", "unit")
        return self._with_unit("DATE_TRUNC", TRUNCATIONS, node, str(node.args["unit"].name), node.this, depth)

    def _with_unit(
        self,
        function: str,
        units: Mapping[str, object],
        node: exp.Expr,
        unit: str,
        piece: exp.Expr,
        depth: int,
    ) -> Node:
        name = syntax.UNIT_ALIASES.get(unit.upper(), unit.upper())
        if name not in units:
            hint = f"units are {', '.join(unit.lower() for unit in units)}"
            self.refuse(f"has an unknown unit {unit!r}", node=node, hint=hint)
        return self.call(f"{function} {name}", node, depth, piece)

    def epoch_ms(self, node: exp.Expr, depth: int) -> Node:
        """EPOCH_MS, in either direction."""
        if node.args.get("scale") != exp.UnixToTime.MILLIS:
            self._unsupported(node)
        return self.call("EPOCH_MS", node, depth, node.this)

    def at_time_zone(self, node: exp.Expr, depth: int) -> Node:
        """AT TIME ZONE; a zone that is written out has to exist."""
        time, zone = self.read(node.this, depth + 1), self.read(node.args["zone"], depth + 1)
        if isinstance(zone, Literal) and zone.kind is Kind.TEXT and zone.value not in zone_names():
            near = near_names(str(zone.value), zone_names())
            known = f"did you mean {' or '.join(quoted(near))}?"
            hint = known if near else "write an IANA name such as 'Europe/Berlin'"
            self.refuse(f"has an unknown time zone {zone.value!r}", node=node, hint=hint)
        return self.made("AT TIME ZONE", node, time, zone)

    def shift(self, node: exp.Expr, depth: int) -> Node:
        """A moment plus or minus a fixed span becomes arithmetic on its milliseconds; anything else is plain + or -."""
        sign = "-" if isinstance(node, exp.Sub) else "+"
        if not isinstance(node.expression, exp.Interval):
            return self.call(sign, node, depth, node.this, node.expression)
        span_ms = syntax.interval_ms(node.expression)
        if span_ms is None:
            self.refuse("has an interval that has no fixed length", node=node.expression, hint=syntax.INTERVAL_HINT)
        moment = self.read(node.this, depth + 3)
        if moment.kind is not Kind.INSTANT:
            self.refuse(f"moves a {moment.kind.value} by an interval", node=node, hint="move a TIMESTAMP column")
        moved = self.made(sign, node, self.made("EPOCH_MS", node, moment), Literal(span_ms, Kind.INT))
        return self.made("EPOCH_MS", node, moved)

    def named(self, node: exp.Expr, depth: int) -> Node:
        """A function that sqlglot has no class for."""
        name = str(node.this).upper()
        if name in {"DATE_PART", "DATEPART"} and len(node.expressions) == 2:
            unit, piece = node.expressions
            return self._with_unit("EXTRACT", PARTS, node, unit.name, piece, depth)
        name = syntax.NAMED.get(name, "")
        if not name:
            self._unsupported(node)
        return self.call(name, node, depth, *node.expressions)

    def logarithm(self, node: exp.Expr, depth: int) -> Node:
        """LOG10(x), which sqlglot reads as LOG(10, x); LOG(x) is the same in DuckDB."""
        base, piece = node.this, node.expression
        if piece is not None and base.name != "10":
            self.refuse("has a logarithm of another base", node=node, hint="write LN(x) / LN(base)")
        return self.call("LOG10", node, depth, base if piece is None else piece)

    def trim(self, node: exp.Expr, depth: int) -> Node:
        """TRIM, LTRIM and RTRIM, of spaces or of given characters."""
        self._only(node, "this", "expression", "position")
        name = syntax.TRIMS[node.args.get("position") or "BOTH"]
        return self.call(name, node, depth, *syntax.arguments(node, ("this", "expression")))


def _links(name: str, operand: Node) -> tuple[Node, ...]:
    return operand.operands if isinstance(operand, Call) and operand.name == name else (operand,)


_ASSOCIATIVE = frozenset(syntax.CHAINS.values())
_NUMBERS = {Kind.INT, Kind.FLOAT}
_LIKES: dict[type[exp.Expr], str] = {exp.Like: "LIKE", exp.ILike: "ILIKE"}

_READERS: dict[type[exp.Expr], Callable[[_Reader, exp.Expr, int], Node]] = {
    exp.Column: _Reader.column,
    exp.Literal: _Reader.literal,
    exp.Boolean: lambda _, node, depth: Literal(bool(node.this), Kind.BOOL),
    exp.Null: lambda _, node, depth: Literal(None, Kind.NULL),
    exp.Neg: _Reader.negation,
    exp.Add: _Reader.shift,
    exp.Sub: _Reader.shift,
    exp.Case: _Reader.case,
    exp.If: _Reader.case,
    exp.Nullif: _Reader.null_if,
    exp.Between: _Reader.between,
    exp.In: _Reader.membership,
    exp.Like: _Reader.like,
    exp.ILike: _Reader.like,
    exp.Escape: _Reader.like,
    exp.Is: _Reader.being,
    exp.NullSafeEQ: _Reader.not_distinct,
    exp.Cast: _Reader.cast,
    exp.TryCast: _Reader.cast,
    exp.Extract: _Reader.extract,
    exp.TimestampTrunc: _Reader.truncate,
    exp.UnixToTime: _Reader.epoch_ms,
    exp.AtTimeZone: _Reader.at_time_zone,
    exp.Log: _Reader.logarithm,
    exp.Trim: _Reader.trim,
    exp.Anonymous: _Reader.named,
}
