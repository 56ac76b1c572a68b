"""Choose the overload of an operation that fits its operands: as they are, or by one of few implied conversions.

    NULL                    to any kind
    BIGINT                  to DOUBLE
    '2026-01-31 10:20'      a literal only, to a moment or a local time, next to one
    TIMESTAMP '...'         a literal only, from a local time to a moment (UTC)

Nothing else converts by itself: 'BIGINT = VARCHAR' is refused, since it hides a mistake more often than it helps.
"""

from __future__ import annotations

from featurestore.core.expressions.catalog import CATALOG
from featurestore.core.expressions.functions.casts import has_offset, parse_time_ms
from featurestore.core.expressions.kinds import Kind
from featurestore.core.expressions.overload import Overload
from featurestore.core.expressions.tree import Call, Literal, Node

USAGES_SHOWN_MAX = 4
"""An operation with more ways of calling it takes whatever is of one type."""

_WIDENING_COST = 1
_READING_COST = 2
"""An overload whose operands need less conversion wins."""


def resolve(name: str, operands: tuple[Node, ...]) -> Call | None:
    """The operation on the operands, by its cheapest overload (the first of equals); None when none takes them."""
    best: tuple[int, Overload, tuple[Kind, ...]] | None = None
    for overload in CATALOG[name]:
        kinds = overload.shape(len(operands))
        if kinds is None:
            continue
        costs = [_cost(operand, kind) for operand, kind in zip(operands, kinds, strict=True)]
        known = [cost for cost in costs if cost is not None]
        if len(known) == len(costs) and (best is None or sum(known) < best[0]):
            best = (sum(known), overload, kinds)
    if best is None:
        return None
    _, overload, kinds = best
    adapted = tuple(_adapted(operand, kind) for operand, kind in zip(operands, kinds, strict=True))
    return Call(name, adapted, kinds, overload.gives)


def overload_of(call: Call) -> Overload:
    """The catalog's line that a call was resolved to."""
    return next(o for o in CATALOG[call.name] if o.shape(len(call.takes)) == call.takes and o.gives is call.kind)


def usages(name: str) -> str:
    """What an operation takes, for messages."""
    ways = list(dict.fromkeys(overload.usage for overload in CATALOG[name]))
    return " or ".join(ways) if len(ways) <= USAGES_SHOWN_MAX else "operands that are all of one type"


def _cost(operand: Node, kind: Kind) -> int | None:
    """How far an operand is from a kind; None when it does not convert."""
    if operand.kind in {kind, Kind.NULL}:
        return 0
    if operand.kind is Kind.INT and kind is Kind.FLOAT:
        return _WIDENING_COST
    return _READING_COST if _time_literal_ms(operand, kind) is not None else None


def _adapted(operand: Node, kind: Kind) -> Node:
    """A literal time as what its place makes of it; everything else is converted at run time."""
    time_ms = None if operand.kind is kind else _time_literal_ms(operand, kind)
    return operand if time_ms is None else Literal(time_ms, kind)


def _time_literal_ms(operand: Node, kind: Kind) -> int | None:
    if not isinstance(operand, Literal) or kind not in {Kind.INSTANT, Kind.LOCAL}:
        return None
    if operand.kind is Kind.LOCAL and kind is Kind.INSTANT:
        assert isinstance(operand.value, int)
        return operand.value
    if operand.kind is not Kind.TEXT:
        return None
    text = str(operand.value)
    return None if kind is Kind.LOCAL and has_offset(text) else parse_time_ms(text)
