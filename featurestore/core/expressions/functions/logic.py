"""Three-valued logic and choice: AND, OR, NOT, IS, CASE, COALESCE, GREATEST and LEAST.

Every branch of a choice is computed for every row; that is safe because no operation raises.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from featurestore.core.events import BoolArray
from featurestore.core.expressions.functions.comparison import ORDERS, Comparer
from featurestore.core.expressions.kinds import VALUE_KINDS, Kind
from featurestore.core.expressions.overload import Overloads, branches, fixed, variadic
from featurestore.core.expressions.vector import Array, Kernel, Vector, all_valid, strict, validity


def _and(*operands: Vector) -> Vector:
    """False if any is false, else null if any is null."""
    values = reduce(np.logical_and, [operand.values for operand in operands])
    valid = all_valid(*operands)
    if valid is None:
        return Vector(values, None)
    decided = reduce(np.logical_or, [validity(operand) & ~operand.values for operand in operands])
    return Vector(values, valid | decided)


def _or(*operands: Vector) -> Vector:
    """True if any is true, else null if any is null."""
    values = reduce(np.logical_or, [operand.values for operand in operands])
    valid = all_valid(*operands)
    if valid is None:
        return Vector(values, None)
    decided = reduce(np.logical_or, [validity(operand) & operand.values for operand in operands])
    return Vector(values, valid | decided)


def _is_true(operand: Vector) -> Vector:
    return Vector(operand.values if operand.valid is None else operand.values & operand.valid, None)


def _is_false(operand: Vector) -> Vector:
    return Vector(~operand.values if operand.valid is None else ~operand.values & operand.valid, None)


def is_null(operand: Vector) -> Vector:
    """Never null itself."""
    return Vector(np.zeros(1, dtype=np.bool_) if operand.valid is None else ~operand.valid, None)


def _case(*operands: Vector) -> Vector:
    """The value after the first condition that is true: condition, value, ..., value of ELSE."""
    chosen = operands[-1]
    for condition, value in reversed(list(zip(operands[:-1:2], operands[1::2], strict=True))):
        chosen = _where(_is_true(condition).values, value, chosen)
    return chosen


def _coalesce(*operands: Vector) -> Vector:
    """The first that is not null."""
    chosen = operands[-1]
    for operand in reversed(operands[:-1]):
        chosen = operand if operand.valid is None else _where(operand.valid, operand, chosen)
    return chosen


def _where(take: Array, accepted: Vector, refused: Vector) -> Vector:
    values: Array = np.where(take, accepted.values, refused.values)
    if accepted.valid is None and refused.valid is None:
        return Vector(values, None)
    valid: BoolArray = np.where(take, validity(accepted), validity(refused))
    return Vector(values, valid)


def _extreme(less: Comparer, *, largest: bool) -> Kernel:
    """The largest or smallest that is not null; null when all are."""

    def better(best: Vector, other: Vector) -> Vector:
        wins = less(best.values, other.values) if largest else less(other.values, best.values)
        if best.valid is None and other.valid is None:
            return Vector(np.where(wins, other.values, best.values), None)
        best_valid, other_valid = validity(best), validity(other)
        take = other_valid & (wins | ~best_valid)
        return Vector(np.where(take, other.values, best.values), best_valid | other_valid)

    return lambda *operands: reduce(better, operands)


OVERLOADS: Overloads = {
    "AND": (variadic(Kind.BOOL, gives=Kind.BOOL, kernel=_and, at_least=2),),
    "OR": (variadic(Kind.BOOL, gives=Kind.BOOL, kernel=_or, at_least=2),),
    "NOT": (fixed(Kind.BOOL, gives=Kind.BOOL, kernel=strict(np.logical_not)),),
    "IS TRUE": (fixed(Kind.BOOL, gives=Kind.BOOL, kernel=_is_true),),
    "IS FALSE": (fixed(Kind.BOOL, gives=Kind.BOOL, kernel=_is_false),),
    "IS NULL": tuple(fixed(kind, gives=Kind.BOOL, kernel=is_null) for kind in VALUE_KINDS),
    "CASE": tuple(branches(kind, kernel=_case) for kind in VALUE_KINDS),
    "COALESCE": tuple(variadic(kind, gives=kind, kernel=_coalesce) for kind in VALUE_KINDS),
    "GREATEST": tuple(
        variadic(kind, gives=kind, kernel=_extreme(ORDERS[kind].less, largest=True)) for kind in VALUE_KINDS
    ),
    "LEAST": tuple(
        variadic(kind, gives=kind, kernel=_extreme(ORDERS[kind].less, largest=False)) for kind in VALUE_KINDS
    ),
}
