"""From a typed tree to a function of columns: a closure a node, constants folded, repeated pieces once a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np

from featurestore.core.events import BlobRow, ColumnValues, ObjectArray
from featurestore.core.expressions.functions.casts import integers_to_doubles
from featurestore.core.expressions.functions.logic import is_null
from featurestore.core.expressions.kinds import Kind
from featurestore.core.expressions.tree import Call, Literal, Node, Read, render
from featurestore.core.expressions.typing import overload_of
from featurestore.core.expressions.vector import Array, Vector, objects, strict

_DTYPE = {Kind.FLOAT: np.float64, Kind.TEXT: np.object_, Kind.BOOL: np.bool_}
"""Of values; int64 for the others."""

_widen = strict(integers_to_doubles)


class Frame:
    """One batch on its way through an expression.

    Attributes:
        columns: the columns by name, each of N rows.
        shared: what pieces that occur more than once gave, by their text.
    """

    __slots__ = ("columns", "shared", "texts")

    def __init__(self, columns: Mapping[str, ColumnValues]) -> None:
        self.columns = columns
        self.shared: dict[str, Vector] = {}
        self.texts: dict[str, ObjectArray] = {}

    def text(self, name: str, column: ColumnValues) -> ObjectArray:
        """A column of text as objects; spans of a buffer are cut out once a batch, however often they are read."""
        text = self.texts.get(name)
        if text is None:
            values = column.values
            text = self.texts[name] = objects(values.values()) if isinstance(values, BlobRow) else np.asarray(values)
        return text


Evaluate: TypeAlias = Callable[[Frame], Vector]


def compile_tree(node: Node) -> Evaluate:
    """A function of a frame that computes the tree's rows."""
    counts = Counter(render(call) for call in _calls(node))
    repeated = frozenset(text for text, count in counts.items() if count > 1)
    return _compile(node, node.kind, repeated)


def _calls(node: Node) -> Iterator[Call]:
    if isinstance(node, Call):
        yield node
        for operand in node.operands:
            yield from _calls(operand)


def _compile(node: Node, kind: Kind, repeated: frozenset[str]) -> Evaluate:
    """A node, converted to a kind."""
    if isinstance(node, Literal):
        return _constant(_literal(node, kind))
    evaluate = _read(node) if isinstance(node, Read) else _call(node, repeated)
    if node.kind is Kind.INT and kind is Kind.FLOAT:
        return lambda frame: _widen(evaluate(frame))
    return evaluate


def _constant(vector: Vector) -> Evaluate:
    return lambda frame: vector


def _literal(node: Literal, kind: Kind) -> Vector:
    values: Array = np.empty(1, dtype=_DTYPE.get(kind, np.int64))
    if node.value is None:
        values[0] = b"" if kind is Kind.TEXT else 0
        return Vector(values, np.zeros(1, dtype=np.bool_))
    values[0] = str(node.value).encode() if kind is Kind.TEXT else node.value
    return Vector(values, None)


def _read(node: Read) -> Evaluate:
    name = node.column
    if node.kind is Kind.TEXT:

        def read_text(frame: Frame) -> Vector:
            column = frame.columns[name]
            return Vector(frame.text(name, column), column.valid)

        return read_text
    if node.kind is Kind.BOOL:

        def read_bool(frame: Frame) -> Vector:
            column = frame.columns[name]
            return Vector(_plain(column) != 0, column.valid)

        return read_bool

    def read(frame: Frame) -> Vector:
        column = frame.columns[name]
        return Vector(_plain(column), column.valid)

    return read


def _plain(column: ColumnValues) -> Array:
    values = column.values
    assert not isinstance(values, BlobRow)
    return values


def _call(node: Call, repeated: frozenset[str]) -> Evaluate:
    only = node.operands[0]
    if node.name == "IS NULL" and isinstance(only, Read):
        return _column_is_null(only)
    kernel = overload_of(node).kernel
    operands = [_compile(operand, kind, repeated) for operand, kind in zip(node.operands, node.takes, strict=True)]
    evaluate: Evaluate
    if len(operands) == 1:
        one = operands[0]
        evaluate = lambda frame: kernel(one(frame))  # noqa: E731  # a closure for each common arity
    elif len(operands) == 2:
        left, right = operands
        evaluate = lambda frame: kernel(left(frame), right(frame))  # noqa: E731
    else:
        evaluate = lambda frame: kernel(*[operand(frame) for operand in operands])  # noqa: E731
    if not any(True for _ in _reads(node)):
        with np.errstate(all="ignore"):
            return _constant(evaluate(Frame({})))
    text = render(node)
    return _once(text, evaluate) if text in repeated else evaluate


def _reads(node: Node) -> Iterator[Read]:
    if isinstance(node, Read):
        yield node
    elif isinstance(node, Call):
        for operand in node.operands:
            yield from _reads(operand)


def _column_is_null(node: Read) -> Evaluate:
    """Without touching the values: text need not be cut out of its buffer to know that it is there."""
    name, none = node.column, np.zeros(1, dtype=np.bool_)
    return lambda frame: is_null(Vector(none, frame.columns[name].valid))


def _once(text: str, evaluate: Evaluate) -> Evaluate:
    def remembered(frame: Frame) -> Vector:
        vector = frame.shared.get(text)
        if vector is None:
            vector = frame.shared[text] = evaluate(frame)
        return vector

    return remembered
