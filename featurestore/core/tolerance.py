"""When two answers of one feature are the same: integers, texts and nulls exactly, floats to 1e-9."""

from __future__ import annotations

import sys

RELATIVE_TOLERANCE = 1e-9
"""Between answers of two paths, relative."""

SMALLEST_DIFFERENCE = sys.float_info.min
"""Between any answers: doubles below the smallest normal one have fewer digits the smaller they are."""

SHAPE_TOLERANCE = 1e-12
"""Between skews and kurtoses, for values as large as their standard deviation; in proportion for larger ones."""


def agrees(expected: object, actual: object, *, scale: float = 0.0) -> bool:
    """Whether two answers of one feature are the same; lists and maps element by element.

    Args:
        expected: the answer to trust.
        actual: of the path under test.
        scale: magnitude of the numbers that went in. Rounding is relative to what is added, not to what is left:
            (1e9 + 0.1) - 1e9 cannot be 0.1 to nine digits in doubles.

    >>> agrees(2, 2), agrees(2**60, 2**60 + 1), agrees(None, 0), agrees(0.1 + 0.2, 0.3)
    (True, False, False, True)
    >>> agrees([0.1 + 0.2], [0.3]), agrees([1, 2], [1]), agrees({"a": 1}, {"b": 1}), agrees(float("nan"), float("nan"))
    (True, False, False, True)
    >>> agrees(1.38e-321, 1.383e-321)
    True
    """
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(
            agrees(left, right, scale=scale) for left, right in zip(expected, actual, strict=True)
        )
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            agrees(value, actual[key], scale=scale) for key, value in expected.items()
        )
    if not isinstance(expected, float) or not isinstance(actual, float | int):
        return expected == actual
    if expected != expected:
        return actual != actual
    if expected in (float("inf"), float("-inf")):
        return expected == actual
    return abs(expected - actual) <= max(RELATIVE_TOLERANCE * max(abs(expected), scale), SMALLEST_DIFFERENCE)
