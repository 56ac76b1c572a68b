"""One way of calling an operation: which kinds it takes, which it gives, and the kernel that does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from featurestore.core.expressions.kinds import Kind
from featurestore.core.expressions.vector import Kernel

Shape = Callable[[int], tuple[Kind, ...] | None]
"""Kinds of the operands, given how many there are; None when that many will not do."""


@dataclass(frozen=True, slots=True)
class Overload:
    """One line of the catalog.

    Attributes:
        shape: kinds of the operands by their number.
        gives: kind of the answer.
        kernel: computes it.
        usage: the shape in words, for messages.
    """

    shape: Shape
    gives: Kind
    kernel: Kernel
    usage: str


Overloads = dict[str, tuple[Overload, ...]]


def fixed(*kinds: Kind, gives: Kind, kernel: Kernel) -> Overload:
    """Exactly these operands."""
    return Overload(lambda count: kinds if count == len(kinds) else None, gives, kernel, _listed(kinds))


def variadic(kind: Kind, *, gives: Kind, kernel: Kernel, at_least: int = 1) -> Overload:
    """Any number of operands of one kind."""
    return Overload(lambda count: (kind,) * count if count >= at_least else None, gives, kernel, f"({kind.value}, ...)")


def branches(kind: Kind, *, kernel: Kernel) -> Overload:
    """Condition, value, condition, value, ..., value: the operands of CASE."""

    def shape(count: int) -> tuple[Kind, ...] | None:
        return (Kind.BOOL, kind) * (count // 2) + (kind,) if count >= 3 and count % 2 else None

    return Overload(shape, kind, kernel, f"(WHEN BOOLEAN THEN {kind.value} ... ELSE {kind.value})")


def _listed(kinds: tuple[Kind, ...]) -> str:
    return f"({', '.join(kind.value for kind in kinds)})"
