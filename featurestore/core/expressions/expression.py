"""Compile an expression once, evaluate it on any number of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from featurestore.core.events import ColumnValues
from featurestore.core.expressions.compiler import Evaluate, Frame, compile_tree
from featurestore.core.expressions.kinds import TYPE_OF_KIND
from featurestore.core.expressions.tree import columns_of, render
from featurestore.core.expressions.vector import Vector
from featurestore.core.spec import ValueType

_ZERO = {ValueType.STRING: b""}


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression; equal when text, type and columns are.

    Attributes:
        text: canonical SQL, the same for every spelling of one tree; compiles to an equal expression.
        type: type of its rows.
        columns: the columns that it reads.
    """

    text: str
    type: ValueType
    columns: frozenset[str]
    _run: Evaluate = field(repr=False, compare=False)

    @property
    def is_condition(self) -> bool:
        """Whether it can select rows; those where it is true, neither false nor null, are meant."""
        return self.type is ValueType.BOOL

    def evaluate(self, columns: Mapping[str, ColumnValues], count: int) -> ColumnValues:
        """Compute N rows.

        Args:
            columns: at least `self.columns`, of the types that the expression was compiled for, each of N rows.
            count: N, which an expression without columns cannot know otherwise.

        Returns:
            N rows; null rows hold 0, 0.0 or b"". Inputs are not changed, and may be part of the answer.

        Raises:
            KeyError: a column is missing. Nothing is raised for data.
        """
        with quietly():
            return self.evaluate_in(Frame(columns), count)

    def evaluate_in(self, frame: Frame, count: int) -> ColumnValues:
        """As `evaluate`, of columns that other expressions are evaluated over too; within `quietly`.

        Entering that takes as long as a comparison of few rows.
        """
        return _column(self._run(frame), count, self.type)


def quietly() -> np.errstate:
    """While expressions are evaluated: what numpy would warn of is null, or infinite, and meant."""
    return np.errstate(all="ignore")


def compile_expression(text: str, columns: Mapping[str, ValueType]) -> Expression:
    """Parse, type-check and compile SQL.

    Args:
        text: a scalar expression in the subset of DuckDB's SQL that the package describes.
        columns: name and type of every column it may read. Names match as spelled, else without regard to case.

    Returns:
        The expression, ready to evaluate.

    Raises:
        InvalidExpression: it is not such an expression; says where, what and what to write instead.
    """
    from featurestore.core.expressions.sql import parse  # with sqlglot it takes half a second, and most need none

    tree = parse(text, columns)
    assert tree.kind in TYPE_OF_KIND, tree
    return Expression(render(tree), TYPE_OF_KIND[tree.kind], columns_of(tree), compile_tree(tree))


def _column(vector: Vector, count: int, value_type: ValueType) -> ColumnValues:
    """Rows written out in the form of stored columns."""
    values, valid = vector
    if value_type is ValueType.BOOL:
        values = values.astype(np.int64)
    if len(values) != count:
        values = np.repeat(values, count)
    if valid is None or valid.all():
        return ColumnValues(values)
    if len(valid) != count:
        valid = np.repeat(valid, count)
    return ColumnValues(np.where(valid, values, _ZERO.get(value_type, 0)).astype(values.dtype, copy=False), valid)
