"""Compiled loops: the few functions that run over tiles while a payment waits, turned into machine code by Numba.

A lookup merges a hundred tiles into eighty values. As numpy calls that is four hundred times a microsecond of
overhead; as one loop it is ten microseconds. A function is compiled for exactly one signature, once a machine: the code
is cached beside the source (or in the user's cache directory). It is loaded when it is first called, so that a command
that computes nothing does not wait for Numba; servers call every loop they need once before they say they are ready.

A cached function does not notice changes of functions it calls in other files: keep each loop in one file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])

INT = "int64"
FLOAT = "float64"
BYTES = "readonly uint8[::1]"
"""What `np.frombuffer` makes of bytes."""
FLAGS = "uint8[::1]"
INTS = "int64[::1]"
FLOATS = "float64[::1]"
INT_MATRIX = "int64[:, ::1]"
TRUTH_MATRIX = "boolean[:, ::1]"
FLOAT_MATRIX = "float64[:, ::1]"

_OPTIONS: dict[str, Any] = {"error_model": "numpy"}
_loops: list[_Loop] = []


def compiled(result: str, *arguments: str, releases_gil: bool = False) -> Callable[[_Function], _Function]:
    """Compile a function for one signature, when it is first called.

    Args:
        result: type of what it returns.
        arguments: types of its arguments; all arrays C-contiguous. Anything else that it is called with is a TypeError.
        releases_gil: let other threads run meanwhile. For loops of milliseconds; one of microseconds would wait longer
            to get the interpreter back than it took.
    """

    def compile_one(function: _Function) -> _Function:
        loop = _Loop(function, result, arguments, releases_gil)
        _loops.append(loop)
        return cast(_Function, loop)

    return compile_one


def compiled_for_bulk(result: str, *arguments: str) -> Callable[[_Function], _Function]:
    """As `compiled`, for loops over many events that threads run side by side."""
    return compiled(result, *arguments, releases_gil=True)


def load_all() -> int:
    """Load, and where need be compile, every loop of the modules imported so far; how many there are."""
    for loop in _loops:
        if loop.code is None:
            loop.load()
    return len(_loops)


def inlined(function: _Function) -> _Function:
    """A helper of loops in the same file, which is compiled into them; it cannot be called from elsewhere."""
    return cast(_Function, _Helper(function))


class _Loop:
    """A function that becomes machine code at its first call."""

    def __init__(
        self, function: Callable[..., Any], result: str, arguments: tuple[str, ...], releases_gil: bool
    ) -> None:
        functools.update_wrapper(self, function)
        self._options = {"nogil": releases_gil, **_OPTIONS}
        self._function = function
        self._signature = (result, arguments)
        self.code: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the machine code."""
        code = self.code
        return (self.load() if code is None else code)(*arguments)

    def load(self) -> Callable[..., Any]:
        """From the cache, or by compiling."""
        import numba  # takes a third of a second; see the module's docstring

        # Two threads may do this at once: Numba lets one compile at a time, and both get equal code.
        _compile_helpers(self._function)
        result, arguments = self._signature
        signature = _type_of(result)(*map(_type_of, arguments))
        try:
            self.code = numba.njit(signature, cache=True, **self._options)(self._function)
        except RuntimeError:
            # Nowhere to keep the code (a read-only image without a home): compile at every start instead.
            self.code = numba.njit(signature, **self._options)(self._function)
        return cast(Callable[..., Any], self.code)


class _Helper:
    """A function that is compiled together with the loops that call it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__doc__ = function.__doc__
        self.function = function


def _compile_helpers(function: Callable[..., Any]) -> None:
    """Put what Numba can call in place of the helpers in a function's module."""
    import numba

    namespace = function.__globals__
    helpers = {name: value for name, value in namespace.items() if isinstance(value, _Helper)}
    are_at_home = all(helper.function.__globals__ is namespace for helper in helpers.values())
    assert are_at_home, f"a cached loop of {function.__module__} would not notice changes of a helper in another file"
    # Helpers call each other by name, so that all names must hold what Numba can call before anything is compiled.
    namespace.update(
        {name: numba.njit(forceinline=True, **_OPTIONS)(helper.function) for name, helper in helpers.items()}
    )


def _type_of(text: str) -> Any:
    """Numba's type."""
    from numba import types

    if text == BYTES:
        return types.Array(types.uint8, 1, "C", readonly=True)
    name, _, dimensions = text.partition("[")
    scalar = getattr(types, name)
    if not dimensions:
        return scalar
    return types.Array(scalar, 2 if "," in dimensions else 1, "C")
