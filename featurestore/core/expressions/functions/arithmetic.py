"""Arithmetic. Integers never wrap: an answer that does not fit 64 bits is null, as is division by zero.

DOUBLE follows IEEE 754 (overflow is an infinity), except that division by zero and arguments outside a function's
domain give null: they are what DuckDB refuses under `ieee_floating_point_ops = false`.
"""

from __future__ import annotations

import numpy as np

from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.expressions.kinds import Kind
from featurestore.core.expressions.overload import Overload, Overloads, fixed
from featurestore.core.expressions.vector import Kernel, partial, strict

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

_POWER_OF_TEN_MAX = 18
"""Largest power of ten that fits 64 bits."""

_WRAP_GAP = 2.0**63
"""A product that wrapped is off by a multiple of 2**64, one that did not by rounding alone; this tells them apart."""


def _add(left: Int64Array, right: Int64Array) -> tuple[Int64Array, BoolArray]:
    total = left + right
    # It wrapped if both operands differ from it in sign.
    return total, ((left ^ total) & (right ^ total)) >= 0


def _subtract(left: Int64Array, right: Int64Array) -> tuple[Int64Array, BoolArray]:
    difference = left - right
    return difference, ((left ^ right) & (left ^ difference)) >= 0


def _multiply(left: Int64Array, right: Int64Array) -> tuple[Int64Array, BoolArray]:
    product = left * right
    return product, np.abs(left.astype(np.float64) * right - product) < _WRAP_GAP


def _divide(left: Float64Array, right: Float64Array) -> tuple[Float64Array, BoolArray]:
    return left / right, right != 0


def _divide_integers(left: Int64Array, right: Int64Array) -> tuple[Int64Array, BoolArray]:
    defined = (right != 0) & ~((left == INT64_MIN) & (right == -1))
    divisor = np.where(defined, right, 1)
    floor = left // divisor
    # SQL truncates towards zero where numpy floors.
    return floor + ((floor * divisor != left) & ((left < 0) != (divisor < 0))), defined


def _remainder_integers(left: Int64Array, right: Int64Array) -> tuple[Int64Array, BoolArray]:
    defined = right != 0
    # -1 divides everything; the hardware traps on the smallest integer there.
    return np.fmod(left, np.where(defined & (right != -1), right, 1)), defined


def _remainder(left: Float64Array, right: Float64Array) -> tuple[Float64Array, BoolArray]:
    return np.fmod(left, right), right != 0


def _negate(values: Int64Array) -> tuple[Int64Array, BoolArray]:
    return -values, values != INT64_MIN


def _absolute(values: Int64Array) -> tuple[Int64Array, BoolArray]:
    return np.abs(values), values != INT64_MIN


def _sign(values: Float64Array) -> Int64Array:
    return (values > 0).astype(np.int64) - (values < 0)


def _half_away(values: Float64Array) -> Float64Array:
    """To the nearest integer, halves away from zero; exact, as adding 0.5 first would not be."""
    whole = np.trunc(values)
    # Not by adding 0.0 where nothing is to be added: that would turn -0.0 into 0.0.
    return np.where(np.abs(values - whole) >= 0.5, whole + np.copysign(1.0, values), whole)


def _round_digits(values: Float64Array, digits: Int64Array) -> Float64Array:
    scale = np.power(10.0, np.abs(digits))
    rounded = np.where(digits < 0, _half_away(values / scale) * scale, _half_away(values * scale) / scale)
    return np.where(np.isfinite(rounded), rounded, values)


def _round_integers(values: Int64Array, digits: Int64Array) -> tuple[Int64Array, BoolArray]:
    power = np.clip(-digits, 0, _POWER_OF_TEN_MAX)
    scale = np.power(np.int64(10), power)
    rest = np.fmod(values, scale)
    whole = values - rest
    # Twice the rest could wrap; half of the scale cannot, and is exact but for 10**0, where the rest is 0.
    away = (power > 0) & (np.abs(rest) >= np.maximum(scale // 2, 1))
    rounded, defined = _add(whole, np.where(away, np.where(values < 0, -scale, scale), 0))
    # Beyond 10**19 everything rounds to 0; at 10**19 itself the large half rounds to what does not fit.
    beyond = -digits > _POWER_OF_TEN_MAX
    half = 5 * 10**_POWER_OF_TEN_MAX
    fits = (-digits > _POWER_OF_TEN_MAX + 1) | ((values < half) & (values > -half))
    return np.where(beyond, 0, rounded), np.where(beyond, fits, defined)


def _square_root(values: Float64Array) -> tuple[Float64Array, BoolArray]:
    return np.sqrt(values), ~(values < 0)


def _logarithm(values: Float64Array) -> tuple[Float64Array, BoolArray]:
    return np.log(values), ~(values <= 0)


def _logarithm_10(values: Float64Array) -> tuple[Float64Array, BoolArray]:
    return np.log10(values), ~(values <= 0)


def _power(base: Float64Array, exponent: Float64Array) -> tuple[Float64Array, BoolArray]:
    raised = np.power(base, exponent)
    given = np.isnan(base) | np.isnan(exponent)
    return raised, (~np.isnan(raised) | given) & ~((base == 0) & (exponent < 0))


def _of_doubles(kernel: Kernel) -> tuple[Overload, ...]:
    return (fixed(Kind.FLOAT, gives=Kind.FLOAT, kernel=kernel),)


def _of_numbers(integers: Kernel, doubles: Kernel) -> tuple[Overload, ...]:
    return (
        fixed(Kind.INT, Kind.INT, gives=Kind.INT, kernel=integers),
        fixed(Kind.FLOAT, Kind.FLOAT, gives=Kind.FLOAT, kernel=doubles),
    )


OVERLOADS: Overloads = {
    "+": _of_numbers(partial(_add), strict(np.add)),
    "-": _of_numbers(partial(_subtract), strict(np.subtract)),
    "*": _of_numbers(partial(_multiply), strict(np.multiply)),
    "%": _of_numbers(partial(_remainder_integers), partial(_remainder)),
    "/": (fixed(Kind.FLOAT, Kind.FLOAT, gives=Kind.FLOAT, kernel=partial(_divide)),),
    "//": (fixed(Kind.INT, Kind.INT, gives=Kind.INT, kernel=partial(_divide_integers)),),
    "NEGATE": (
        fixed(Kind.INT, gives=Kind.INT, kernel=partial(_negate)),
        fixed(Kind.FLOAT, gives=Kind.FLOAT, kernel=strict(np.negative)),
    ),
    "ABS": (
        fixed(Kind.INT, gives=Kind.INT, kernel=partial(_absolute)),
        fixed(Kind.FLOAT, gives=Kind.FLOAT, kernel=strict(np.abs)),
    ),
    "SIGN": (
        fixed(Kind.INT, gives=Kind.INT, kernel=strict(np.sign)),
        fixed(Kind.FLOAT, gives=Kind.INT, kernel=strict(_sign)),
    ),
    "ROUND": (
        fixed(Kind.INT, gives=Kind.INT, kernel=strict(np.positive)),
        fixed(Kind.FLOAT, gives=Kind.FLOAT, kernel=strict(_half_away)),
        fixed(Kind.INT, Kind.INT, gives=Kind.INT, kernel=partial(_round_integers)),
        fixed(Kind.FLOAT, Kind.INT, gives=Kind.FLOAT, kernel=strict(_round_digits)),
    ),
    "FLOOR": _of_doubles(strict(np.floor)),
    "CEIL": _of_doubles(strict(np.ceil)),
    "SQRT": _of_doubles(partial(_square_root)),
    "LN": _of_doubles(partial(_logarithm)),
    "LOG10": _of_doubles(partial(_logarithm_10)),
    "EXP": _of_doubles(strict(np.exp)),
    "POWER": (fixed(Kind.FLOAT, Kind.FLOAT, gives=Kind.FLOAT, kernel=partial(_power)),),
    "ISNAN": (fixed(Kind.FLOAT, gives=Kind.BOOL, kernel=strict(np.isnan)),),
}
