"""The formulas by which most features are lowered, as one compiled loop over all of them.

An aggregation whose answer is one of these names it (`Aggregation.formula`), and its features cost nanoseconds instead
of some numpy calls a kind. Its own `lower` stays the definition; the law suite holds the two against each other.
"""

from __future__ import annotations

import enum

import numpy as np

from featurestore.core.compiled import FLOAT_MATRIX, INT, INT_MATRIX, TRUTH_MATRIX, compiled
from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.tiles.parts import LOW_BITS

PROGRAM_COLUMNS = 8
"""Columns of a program: formula, feature, kind of the value, slots of count, value (or upper half) and lower half,
degrees of freedom that are taken off, whether the answer is a float."""

KIND_INT, KIND_FLOAT, KIND_HALVES, KIND_TEXT = 0, 1, 2, 3
"""Of the value; a text is none of the numbers that the loop sees, so that it only says where there is one."""


class Formula(enum.IntEnum):
    """How merged fields become an answer; numbers are the loop's."""

    AS_IS = 0
    """The only field; never null."""
    WHERE_COUNTED = 1
    """The second field, null where the first, a count, is 0."""
    TOTAL = 2
    """A sum in two halves; null where it does not fit in 64 bits."""
    MEAN = 3
    """A sum, in halves or not, divided by the count before it; null where that is 0."""
    MEAN_SQUARE = 4
    """The second field divided by the count before it less some degrees; null where nothing is left of them."""
    ROOT_MEAN_SQUARE = 5
    """Its square root."""


_AS_IS, _WHERE_COUNTED, _TOTAL, _MEAN, _MEAN_SQUARE, _ROOT_MEAN_SQUARE = (int(formula) for formula in Formula)
_UNIT = float(1 << LOW_BITS)
_LIMIT = 1 << (63 - LOW_BITS)
_LOW_MASK = (1 << LOW_BITS) - 1


@compiled(INT, INT_MATRIX, INT_MATRIX, FLOAT_MATRIX, INT_MATRIX, FLOAT_MATRIX, TRUTH_MATRIX)
def lower_by_formula(
    program: Int64Array,
    ints: Int64Array,
    floats: Float64Array,
    out_ints: Int64Array,
    out_floats: Float64Array,
    null: BoolArray,
) -> int:
    """Lower features over R rows.

    program        (P, 8) see PROGRAM_COLUMNS
    ints, floats   (slots, R) what was merged
    receive        out_ints, out_floats, null (features, R); zeros where there is no answer
    """
    for step in range(len(program)):
        formula, feature, kind = program[step, 0], program[step, 1], program[step, 2]
        counts, value, rest = program[step, 3], program[step, 4], program[step, 5]
        degrees, is_float = program[step, 6], program[step, 7]
        for row in range(ints.shape[1]):
            if formula <= _WHERE_COUNTED:
                if formula == _WHERE_COUNTED and ints[counts, row] == 0:
                    null[feature, row] = True
                elif kind == KIND_TEXT:
                    continue
                elif is_float:
                    out_floats[feature, row] = floats[value, row]
                else:
                    out_ints[feature, row] = ints[value, row]
            elif formula == _TOTAL:
                upper = ints[value, row] + (ints[rest, row] >> LOW_BITS)
                if upper < -_LIMIT or upper >= _LIMIT:
                    null[feature, row] = True
                else:
                    out_ints[feature, row] = (upper << LOW_BITS) | (ints[rest, row] & _LOW_MASK)
            else:
                number = ints[counts, row] - degrees
                if number <= 0:  # also below zero, where more was undone than done
                    null[feature, row] = True
                    continue
                if kind == KIND_HALVES:
                    total = ints[value, row] * _UNIT + ints[rest, row]
                elif kind == KIND_INT:
                    total = float(ints[value, row])
                else:
                    total = floats[value, row]
                total /= number
                out_floats[feature, row] = np.sqrt(total) if formula == _ROOT_MEAN_SQUARE else total
    return 0
