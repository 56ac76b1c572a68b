"""Operands at run time, and the three ways of making a kernel: strict, partial and by hand.

A kernel takes vectors and returns one. Each vector has N rows, or one row that stands for all of them (a constant), so
numpy's broadcasting does the rest. Values at null rows are of the right type and otherwise arbitrary: every kernel is
total, nothing may raise on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featurestore.core.events import BoolArray, ObjectArray

Array: TypeAlias = NDArray[Any]
"""Values of some kind. The kind decides the dtype and is checked when overloads are resolved, not by mypy: a union of
the four dtypes has no operators."""


class Vector(NamedTuple):
    """N rows, or one that stands for all.

    Attributes:
        values: int64 for BIGINT and both kinds of time, float64 for DOUBLE, bool for BOOLEAN, objects (UTF-8 bytes)
            for VARCHAR.
        valid: False where null; None when nothing is. May have one row where `values` has N, or N where it has one.
    """

    values: Array
    valid: BoolArray | None


Kernel: TypeAlias = Callable[..., Vector]


def strict(function: Callable[..., Array]) -> Kernel:
    """A kernel that is null where an operand is; `function` sees plain arrays."""

    def kernel(*operands: Vector) -> Vector:
        return Vector(function(*[operand.values for operand in operands]), all_valid(*operands))

    return kernel


def partial(function: Callable[..., tuple[Array, BoolArray]]) -> Kernel:
    """A strict kernel that is also null where `function` says its answer is not defined."""

    def kernel(*operands: Vector) -> Vector:
        values, defined = function(*[operand.values for operand in operands])
        valid = all_valid(*operands)
        if valid is not None:
            return Vector(values, valid & defined)
        return Vector(values, None if defined.all() else defined)

    return kernel


def all_valid(*operands: Vector) -> BoolArray | None:
    """Rows where no operand is null; None when none ever is."""
    valid: BoolArray | None = None
    for operand in operands:
        if operand.valid is not None:
            valid = operand.valid if valid is None else valid & operand.valid
    return valid


def validity(operand: Vector) -> BoolArray:
    """The operand's mask, written out."""
    return np.ones(1, dtype=np.bool_) if operand.valid is None else operand.valid


def objects(values: list[bytes]) -> ObjectArray:
    """A list of byte strings as a column."""
    column = np.empty(len(values), dtype=np.object_)
    column[:] = values
    return column
