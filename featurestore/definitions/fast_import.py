"""Import Feast in about a second instead of five.

Feast decorates its classes with `typeguard.typechecked`, which re-parses the source of each at import: four fifths of
the import's time, for argument checks that mypy does better. While Feast is first imported here, the decorator does
nothing. Only our own processes do so: an author's notebook that imports `featurestore.features` keeps Feast's checks,
and a Feast that is already imported is left as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

Decorated = TypeVar("Decorated")


@contextmanager
def skip_typeguard() -> Iterator[None]:
    """Within the block `typeguard.typechecked` returns what it is given."""
    if "feast" in sys.modules:
        yield
        return
    # Imported before Feast: Feast switches prometheus_client to files shared by processes unless it is loaded already.
    with suppress(ImportError):
        import prometheus_client  # noqa: F401
    try:
        import typeguard
    except ImportError:
        yield
        return
    original = typeguard.typechecked
    typeguard.typechecked = _unchanged  # type: ignore[assignment]  # two overloads in one function
    try:
        yield
    finally:
        typeguard.typechecked = original


def _unchanged(target: Decorated | None = None, **_: object) -> Decorated | Callable[[Decorated], Decorated]:
    """Stands for the decorator with and without arguments."""
    return (lambda inner: inner) if target is None else target
