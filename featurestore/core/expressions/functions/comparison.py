"""Comparison, of every kind with itself.

NaN equals NaN and is greater than every other number, so that DOUBLE has a total order; text is compared by its UTF-8
bytes, which is the order of code points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from featurestore.core.events import BoolArray, Float64Array
from featurestore.core.expressions.kinds import VALUE_KINDS, Kind
from featurestore.core.expressions.overload import Overload, Overloads, fixed, variadic
from featurestore.core.expressions.vector import Array, Kernel, Vector, all_valid, strict, validity

CANDIDATES_ONE_BY_ONE_MAX = 4
"""Up to this many candidates of IN are compared one after another, more are looked up."""

Comparer = Callable[[Array, Array], BoolArray]


class Order(NamedTuple):
    """How values of one kind compare."""

    equal: Comparer
    less: Comparer
    at_most: Comparer


def _doubles_equal(left: Float64Array, right: Float64Array) -> BoolArray:
    equal: BoolArray = (left == right) | ((left != left) & (right != right))
    return equal


def _doubles_less(left: Float64Array, right: Float64Array) -> BoolArray:
    less: BoolArray = ~(left >= right) & (left == left)
    return less


def _doubles_at_most(left: Float64Array, right: Float64Array) -> BoolArray:
    at_most: BoolArray = (left <= right) | (right != right)
    return at_most


_PLAIN = Order(np.equal, np.less, np.less_equal)
_TEXT = Order(lambda a, b: a == b, lambda a, b: a < b, lambda a, b: a <= b)
"""np.less and its like give objects for objects; the operators give booleans."""
ORDERS: dict[Kind, Order] = dict.fromkeys(VALUE_KINDS, _PLAIN) | {
    Kind.FLOAT: Order(_doubles_equal, _doubles_less, _doubles_at_most),
    Kind.TEXT: _TEXT,
}
"""The order of each kind."""


def _swapped(compare: Comparer) -> Comparer:
    return lambda left, right: compare(right, left)


def _unequal(order: Order) -> Comparer:
    return lambda left, right: ~order.equal(left, right)


def _distinct(order: Order) -> Kernel:
    def kernel(left: Vector, right: Vector) -> Vector:
        differ = ~order.equal(left.values, right.values)
        if left.valid is None and right.valid is None:
            return Vector(differ, None)
        left_valid, right_valid = validity(left), validity(right)
        return Vector((left_valid ^ right_valid) | (left_valid & right_valid & differ), None)

    return kernel


def _contained(kind: Kind) -> Kernel:
    order = ORDERS[kind]

    def kernel(operand: Vector, *candidates: Vector) -> Vector:
        if len(candidates) > CANDIDATES_ONE_BY_ONE_MAX and all(len(c.values) == 1 for c in candidates):
            found = _found(operand.values, candidates, kind)
        else:
            found = np.zeros(1, dtype=np.bool_)
            for candidate in candidates:
                equal = order.equal(operand.values, candidate.values)
                found = found | (equal if candidate.valid is None else equal & candidate.valid)
        # What is not found is unknown if a candidate is null; what is null itself is unknown in any case.
        certain = all_valid(*candidates)
        if certain is None:
            return Vector(found, operand.valid)
        return Vector(found, (found | certain) & validity(operand))

    return kernel


def _found(values: Array, candidates: tuple[Vector, ...], kind: Kind) -> BoolArray:
    """Rows that equal a constant; one look-up a row, however many constants there are."""
    known = [candidate.values for candidate in candidates if candidate.valid is None or candidate.valid.all()]
    if not known:
        return np.zeros(1, dtype=np.bool_)
    wanted = np.concatenate(known)
    if kind is Kind.TEXT:
        return np.fromiter(map(frozenset(wanted.tolist()).__contains__, values.tolist()), np.bool_, len(values))
    found: BoolArray = np.isin(values, wanted)
    if kind is Kind.FLOAT and np.isnan(wanted).any():
        found = found | np.isnan(values)
    return found


_COMPARISONS: dict[str, Callable[[Order], Comparer]] = {
    "=": lambda order: order.equal,
    "<>": _unequal,
    "<": lambda order: order.less,
    "<=": lambda order: order.at_most,
    ">": lambda order: _swapped(order.less),
    ">=": lambda order: _swapped(order.at_most),
}


def _of_two(kernels: dict[Kind, Kernel]) -> tuple[Overload, ...]:
    return tuple(fixed(kind, kind, gives=Kind.BOOL, kernel=kernel) for kind, kernel in kernels.items())


OVERLOADS: Overloads = {
    **{
        name: _of_two({kind: strict(comparer(order)) for kind, order in ORDERS.items()})
        for name, comparer in _COMPARISONS.items()
    },
    "IS DISTINCT FROM": _of_two({kind: _distinct(order) for kind, order in ORDERS.items()}),
    "IN": tuple(variadic(kind, gives=Kind.BOOL, kernel=_contained(kind), at_least=2) for kind in ORDERS),
}
