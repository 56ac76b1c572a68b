"""Compiled loops: the few functions that run over tiles while a payment waits, turned into machine code by Numba.

A lookup merges a hundred tiles into eighty values. As numpy calls that is four hundred times a microsecond of
overhead; as one loop it is ten microseconds. A function is compiled for exactly one signature, once a machine: the code
is cached beside the source (or in the user's cache directory). It is loaded when it is first called, so that a command
that computes nothing does not wait for Numba; servers call every loop they need once before they say they are ready.

A cached function does not notice changes of functions it calls in other files. So one that is given helpers from other
files is cached under a name that has a digest of theirs.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])

INT = "int64"
FLOAT = "float64"
BYTES = "readonly uint8[::1]"
"""What `np.frombuffer` makes of bytes."""
BYTE_STRING = "bytes"
"""Bytes themselves, which costs half of what making an array of them does."""
FLAGS = "uint8[::1]"
INTS = "int64[::1]"
FLOATS = "float64[::1]"
INT_MATRIX = "int64[:, ::1]"
TRUTH_MATRIX = "boolean[:, ::1]"
FLOAT_MATRIX = "float64[:, ::1]"

_OPTIONS: dict[str, Any] = {"error_model": "numpy"}
_BORROWING: dict[str, Any] = {"_nrt": False}
_loops: list[_Loop] = []


def compiled(
    result: str, *arguments: str, releases_gil: bool = False, allocates: bool = True
) -> Callable[[_Function], _Function]:
    """Compile a function for one signature, when it is first called.

    Args:
        result: type of what it returns.
        arguments: types of its arguments; all arrays C-contiguous. Anything else that it is called with is a TypeError.
        releases_gil: let other threads run meanwhile. For loops of milliseconds; one of microseconds would wait longer
            to get the interpreter back than it took.
        allocates: False for a loop that makes no arrays but views of those that it is given. Numba then does not count
            who refers to one, which costs two locked instructions for each array of each call of a helper. Its helpers
            are `borrowing` ones.
    """

    def compile_one(function: _Function) -> _Function:
        loop = _Loop(function, result, arguments, {"nogil": releases_gil} | ({} if allocates else _BORROWING))
        _loops.append(loop)
        return cast(_Function, loop)

    return compile_one


def compiled_for_bulk(result: str, *arguments: str) -> Callable[[_Function], _Function]:
    """As `compiled`, for loops over many events that threads run side by side."""
    return compiled(result, *arguments, releases_gil=True)


def load_all() -> int:
    """Load, and where need be compile, every loop of the modules imported so far; how many there are."""
    for at in range(len(_loops)):
        load_one(at)
    return len(_loops)


def load_one(at: int) -> None:
    """As `load_all`, the loop of that number: loops are numbered in the order in which their modules were imported."""
    if _loops[at].code is None:
        _loops[at].load()


def count_loops() -> int:
    """How many there are in the modules imported so far."""
    return len(_loops)


def inlined(function: _Function) -> _Function:
    """A helper of loops, which is compiled into them; nothing else can call it."""
    return cast(_Function, _Helper(function, {}))


def borrowing(function: _Function) -> _Function:
    """As `inlined`, for loops that do not allocate."""
    return cast(_Function, _Helper(function, _BORROWING))


def spliced(function: _Function) -> _Function:
    """As `borrowing`, and written into what calls it; so it may return a part of an array."""
    return cast(_Function, _Helper(function, {**_BORROWING, "inline": "always"}))


def within(loop: _Function) -> _Function:
    """A compiled loop as a helper of loops of other files: what it does stands once, whoever calls it."""
    assert isinstance(loop, _Loop), "helpers are called as they are"
    return cast(_Function, loop.as_helper())


class _Loop:
    """A function that becomes machine code at its first call."""

    def __init__(
        self, function: Callable[..., Any], result: str, arguments: tuple[str, ...], options: dict[str, Any]
    ) -> None:
        functools.update_wrapper(self, function)
        self._options = {**options, **_OPTIONS}
        self._function = function
        self._signature = (result, arguments)
        self.code: Callable[..., Any] | None = None

    def as_helper(self) -> _Helper:
        """The same function, to be compiled into others."""
        return _Helper(self._function, {name: self._options[name] for name in _BORROWING if name in self._options})

    def __call__(self, *arguments: Any) -> Any:
        """Call the machine code."""
        code = self.code
        return (self.load() if code is None else code)(*arguments)

    def load(self) -> Callable[..., Any]:
        """From the cache, or by compiling."""
        import numba  # takes a third of a second; see the module's docstring

        # Two threads may do this at once: Numba lets one compile at a time, and both get equal code.
        _compile_helpers(self._function.__globals__)
        files = _helper_files(self._function.__globals__)
        if files:
            digest = hashlib.blake2b(b"".join(Path(file).read_bytes() for file in sorted(files)), digest_size=4)
            self._function.__qualname__ = f"{self._function.__name__}_{digest.hexdigest()}"
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

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.__doc__ = function.__doc__
        self.function = function
        self.options = {**({} if "inline" in options else {"forceinline": True}), **options, **_OPTIONS}
        self.code: Callable[..., Any] | None = None


def _compile_helpers(namespace: dict[str, Any]) -> None:
    """Put what Numba can call in place of the helpers in a module, and in the modules that it has them from."""
    import numba

    found = {}
    for name, helper in namespace.items():
        if isinstance(helper, _Helper):
            home = helper.function.__globals__
            if home is not namespace:
                _compile_helpers(home)
            if helper.code is None:
                helper.code = numba.njit(**helper.options)(helper.function)
            found[name] = helper.code
    # Helpers call each other by name, so that all names must hold what Numba can call before anything is compiled.
    namespace.update(found)


def _helper_files(namespace: dict[str, Any]) -> set[str]:
    """The other files that the helpers of a module come from, when they have been compiled."""
    from numba.core.dispatcher import Dispatcher

    files = set()
    for value in namespace.values():
        if isinstance(value, Dispatcher) and value.py_func.__globals__ is not namespace:
            files |= {value.py_func.__code__.co_filename} | _helper_files(value.py_func.__globals__)
    return files


def _type_of(text: str) -> Any:
    """Numba's type."""
    from numba import types

    if text == BYTES:
        return types.Array(types.uint8, 1, "C", readonly=True)
    if text == BYTE_STRING:
        return types.Bytes(types.uint8, 1, "C", readonly=True)
    name, _, dimensions = text.partition("[")
    scalar = getattr(types, name)
    if not dimensions:
        return scalar
    return types.Array(scalar, 2 if "," in dimensions else 1, "C")
