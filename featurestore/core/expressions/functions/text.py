"""Operations on text. A character is a Unicode code point, everywhere: in LENGTH, SUBSTRING and in the `_` of LIKE.

Upper and lower case are Unicode's simple mappings, one code point to one, as in DuckDB: the capitals of 'straße' are
'STRAẞE', 'ﬁ' (one code point) stays as it is, and no language has rules of its own (no Turkish dotless i).
"""

from __future__ import annotations

from featurestore.core.events import ObjectArray
from featurestore.core.expressions.functions.each_text import to_condition, to_integer, to_text
from featurestore.core.expressions.kinds import Kind
from featurestore.core.expressions.overload import Overload, Overloads, fixed, variadic
from featurestore.core.expressions.vector import Array, Kernel, Vector, objects, strict

SPACES = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
"""What TRIM takes off: Unicode's space separators (Zs). Tabs and line ends are not among them."""

_CAPITALS = {"ß": "ẞ"}
"""Python maps it to two letters; Unicode has had a single one since 5.1."""


def lower(value: bytes) -> bytes:
    """Small letters."""
    if value.isascii():
        return value.lower()
    return _encoded("".join(map(_lower_letter, decoded(value))))


def decoded(value: bytes) -> str:
    """Characters of a value; bytes that are not UTF-8 become U+FFFD, since nothing may raise on data."""
    return value.decode("utf-8", errors="replace")


def _encoded(characters: str) -> bytes:
    return characters.encode("utf-8")


def _upper(value: bytes) -> bytes:
    if value.isascii():
        return value.upper()
    return _encoded("".join(map(_upper_letter, decoded(value))))


def _lower_letter(letter: str) -> str:
    """Only İ has a small form of two code points (i, and a combining dot); its simple mapping is the first."""
    return letter.lower()[0]


def _upper_letter(letter: str) -> str:
    """Where capitals are several code points, the title case is the simple mapping if it is one (ᾳ to ᾼ, but not ŉ)."""
    capital = _CAPITALS.get(letter) or letter.upper()
    if len(capital) == 1:
        return capital
    title = letter.title()
    return title if len(title) == 1 else letter


def _length(value: bytes) -> int:
    return len(value) if value.isascii() else len(decoded(value))


def _trim(value: bytes, characters: bytes) -> bytes:
    return _encoded(decoded(value).strip(decoded(characters))) if characters else value


def _trim_left(value: bytes, characters: bytes) -> bytes:
    return _encoded(decoded(value).lstrip(decoded(characters))) if characters else value


def _trim_right(value: bytes, characters: bytes) -> bytes:
    return _encoded(decoded(value).rstrip(decoded(characters))) if characters else value


def _substring(value: bytes, start: int, length: int) -> bytes:
    characters = decoded(value)
    begin = _begin(characters, start)
    low, high = sorted((begin, begin + length))
    return _encoded(characters[max(low, 0) : max(high, 0)])


def _substring_to_end(value: bytes, start: int) -> bytes:
    characters = decoded(value)
    return _encoded(characters[max(_begin(characters, start), 0) :])


def _begin(characters: str, start: int) -> int:
    """Index of the first character: SQL counts from 1, and from the end when negative."""
    return start - 1 if start >= 0 else len(characters) + start


def _left(value: bytes, count: int) -> bytes:
    return _encoded(decoded(value)[:count])


def _right(value: bytes, count: int) -> bytes:
    characters = decoded(value)
    return _encoded(characters[max(len(characters) - count, 0) :] if count >= 0 else characters[-count:])


def _replace(value: bytes, wanted: bytes, replacement: bytes) -> bytes:
    return value.replace(wanted, replacement) if wanted else value


def _concatenate(*columns: ObjectArray) -> Array:
    total = columns[0]
    for column in columns[1:]:
        total = total + column
    return total


def _concat(*operands: Vector) -> Vector:
    """CONCAT: null counts as empty."""
    return Vector(_concatenate(*[_empty_if_null(operand) for operand in operands]), None)


def _empty_if_null(operand: Vector) -> ObjectArray:
    if operand.valid is None:
        return operand.values
    # Repetition by a boolean keeps or empties a byte string, in one pass over the objects.
    emptied: ObjectArray = operand.values * operand.valid.astype(object)
    return emptied


def _unary(kernel: Kernel, gives: Kind = Kind.TEXT) -> tuple[Overload, ...]:
    return (fixed(Kind.TEXT, gives=gives, kernel=kernel),)


def _of_two(kernel: Kernel, gives: Kind) -> tuple[Overload, ...]:
    return (fixed(Kind.TEXT, Kind.TEXT, gives=gives, kernel=kernel),)


def _counted(kernel: Kernel) -> tuple[Overload, ...]:
    return (fixed(Kind.TEXT, Kind.INT, gives=Kind.TEXT, kernel=kernel),)


def _trimming(kernel: Kernel, spaces: Vector) -> tuple[Overload, ...]:
    return (
        fixed(Kind.TEXT, gives=Kind.TEXT, kernel=lambda operand: kernel(operand, spaces)),
        fixed(Kind.TEXT, Kind.TEXT, gives=Kind.TEXT, kernel=kernel),
    )


_SPACES = Vector(objects([_encoded(SPACES)]), None)

OVERLOADS: Overloads = {
    "LOWER": _unary(to_text(lower)),
    "UPPER": _unary(to_text(_upper)),
    "LENGTH": _unary(to_integer(_length), Kind.INT),
    "TRIM": _trimming(to_text(_trim), _SPACES),
    "LTRIM": _trimming(to_text(_trim_left), _SPACES),
    "RTRIM": _trimming(to_text(_trim_right), _SPACES),
    "SUBSTRING": (
        *_counted(to_text(_substring_to_end)),
        fixed(Kind.TEXT, Kind.INT, Kind.INT, gives=Kind.TEXT, kernel=to_text(_substring)),
    ),
    "LEFT": _counted(to_text(_left)),
    "RIGHT": _counted(to_text(_right)),
    "REPLACE": (fixed(Kind.TEXT, Kind.TEXT, Kind.TEXT, gives=Kind.TEXT, kernel=to_text(_replace)),),
    "STARTS_WITH": _of_two(to_condition(bytes.startswith), Kind.BOOL),
    "ENDS_WITH": _of_two(to_condition(bytes.endswith), Kind.BOOL),
    "CONTAINS": _of_two(to_condition(bytes.__contains__), Kind.BOOL),
    "||": (variadic(Kind.TEXT, gives=Kind.TEXT, kernel=strict(_concatenate), at_least=2),),
    "CONCAT": (variadic(Kind.TEXT, gives=Kind.TEXT, kernel=_concat),),
}
