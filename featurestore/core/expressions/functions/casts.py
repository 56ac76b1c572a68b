"""CAST between kinds. What cannot be converted is null, never an error: CAST and TRY_CAST are the same here."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

import numpy as np

from featurestore.core.events import BoolArray, Float64Array, Int64Array, ObjectArray
from featurestore.core.expressions.functions.each_text import (
    to_condition_or_null,
    to_double_or_null,
    to_integer_or_null,
    to_text,
    to_text_or_null,
)
from featurestore.core.expressions.kinds import VALUE_KINDS, Kind
from featurestore.core.expressions.overload import Overload, Overloads, fixed
from featurestore.core.expressions.vector import Array, Kernel, objects, partial, strict

INT64_LIMIT = 2.0**63

_SHORT_DIGITS_MAX = 18
"""So many digits always fit 64 bits."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_MS = 1_000
_YEAR_1_MS = -62_135_596_800_000
_YEAR_10000_MS = 253_402_300_800_000

_NUMBER = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")
_WORD_NUMBER = re.compile(rb"[+-]?(?:nan|inf|infinity)\Z", re.IGNORECASE)
_TRUE = {b"true", b"t", b"yes", b"y", b"1"}
_FALSE = {b"false", b"f", b"no", b"n", b"0"}
_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[ T](?P<clock>[0-9]{2}:[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,9}))?)?"
    r"(?P<zone>Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?\Z"
)


def parse_time_ms(text: str) -> int | None:
    """ISO 8601 `date[ T]hh:mm[:ss[.fraction]][Z|+hh[:mm]]` as ms, UTC unless it says otherwise; None if it is not.

    Digits beyond the millisecond are cut off.
    """
    found = _TIME.match(text.strip())
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(f"{found['date']}T{found['clock'] or '00:00'}:{found['second'] or '00'}")
        moment = moment.replace(tzinfo=_offset(found["zone"]))
    except ValueError:
        return None
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return seconds * _SECOND_MS + int((found["fraction"] or "0")[:3].ljust(3, "0"))


def has_offset(text: str) -> bool:
    """Whether a time says how far it is from UTC."""
    found = _TIME.match(text.strip())
    return found is not None and found["zone"] is not None


def format_time(time_ms: int, *, suffix: str) -> str | None:
    """`2026-01-31 10:20:30.5` and the suffix, in years 1 to 9999; None beyond."""
    if not _YEAR_1_MS <= time_ms < _YEAR_10000_MS:
        return None
    seconds, milliseconds = divmod(time_ms, _SECOND_MS)
    whole = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(" ")
    fraction = f".{milliseconds:03d}".rstrip("0") if milliseconds else ""
    return f"{whole}{fraction}{suffix}"


def _offset(zone: str | None) -> timezone:
    if zone is None or zone == "Z":
        return UTC
    minutes = int(zone[1:3]) * 60 + int(zone[-2:] if len(zone) > 3 else 0)
    return timezone(timedelta(minutes=-minutes if zone[0] == "-" else minutes))


def _text_to_integer(value: bytes) -> int | None:
    digits = value.strip()
    if not _NUMBER.match(digits):
        return None
    if len(digits) <= _SHORT_DIGITS_MAX and digits.lstrip(b"+-").isdigit():
        return int(digits)
    try:
        number = Decimal(digits.decode())
    except InvalidOperation:  # an exponent of twenty digits
        return None
    # Before it is written out: 1e999999999 would be a billion digits.
    if number.adjusted() > _SHORT_DIGITS_MAX + 1:
        return None
    if number.adjusted() < -2:
        return 0
    whole = int(number.to_integral_value(ROUND_HALF_UP))
    return whole if -(2**63) <= whole < 2**63 else None


def _text_to_double(value: bytes) -> float | None:
    digits = value.strip()
    return float(digits) if _NUMBER.match(digits) or _WORD_NUMBER.match(digits) else None


def _text_to_bool(value: bytes) -> bool | None:
    word = value.lower()
    return True if word in _TRUE else False if word in _FALSE else None


def _text_to_instant(value: bytes) -> int | None:
    return parse_time_ms(value.decode("utf-8", errors="replace"))


def _doubles_to_integers(values: Float64Array) -> tuple[Int64Array, BoolArray]:
    # Halves go to the even neighbour, as in DuckDB; ROUND's go away from zero.
    defined = (values >= -INT64_LIMIT) & (values < INT64_LIMIT)
    return np.rint(np.where(defined, values, 0.0)).astype(np.int64), defined


def _integer_to_text(value: int) -> bytes:
    return b"%d" % value


def _doubles_to_text(values: Float64Array) -> ObjectArray:
    # Not through the memory of distinct values: there 0.0 and -0.0 are one.
    return objects([repr(value).encode() for value in values.tolist()])


def _bool_to_text(value: bool) -> bytes:
    return b"true" if value else b"false"


def _instant_to_text(value: int) -> bytes | None:
    text = format_time(value, suffix="+00")
    return None if text is None else text.encode()


def _local_to_text(value: int) -> bytes | None:
    text = format_time(value, suffix="")
    return None if text is None else text.encode()


def _itself(values: Array) -> Array:
    return values


def _cast(source: Kind, gives: Kind, kernel: Kernel) -> Overload:
    return fixed(source, gives=gives, kernel=kernel)


def integers_to_doubles(values: Int64Array) -> Float64Array:
    """The nearest double; beyond 2**53 not every integer has one of its own."""
    return values.astype(np.float64)


_TO_INT = {
    Kind.FLOAT: partial(_doubles_to_integers),
    Kind.TEXT: to_integer_or_null(_text_to_integer),
    Kind.BOOL: strict(lambda values: values.astype(np.int64)),
}
_TO_FLOAT = {
    Kind.INT: strict(integers_to_doubles),
    Kind.TEXT: to_double_or_null(_text_to_double),
    Kind.BOOL: strict(lambda values: values.astype(np.float64)),
}
_TO_BOOL = {
    Kind.INT: strict(lambda values: values != 0),
    Kind.FLOAT: strict(lambda values: values != 0),
    Kind.TEXT: to_condition_or_null(_text_to_bool),
}
_TO_TEXT = {
    Kind.INT: to_text(_integer_to_text),
    Kind.FLOAT: strict(_doubles_to_text),
    Kind.BOOL: to_text(_bool_to_text),
    Kind.INSTANT: to_text_or_null(_instant_to_text),
    Kind.LOCAL: to_text_or_null(_local_to_text),
}
_TO_INSTANT = {Kind.TEXT: to_integer_or_null(_text_to_instant)}

OVERLOADS: Overloads = {
    f"CAST {target.value}": tuple(
        _cast(source, target, strict(_itself) if source is target else kernels[source])
        for source in VALUE_KINDS
        if source is target or source in kernels
    )
    for target, kernels in {
        Kind.INT: _TO_INT,
        Kind.FLOAT: _TO_FLOAT,
        Kind.BOOL: _TO_BOOL,
        Kind.TEXT: _TO_TEXT,
        Kind.INSTANT: _TO_INSTANT,
    }.items()
}
