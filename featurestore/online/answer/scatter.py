"""Compiled loops that put lowered values where a plan wants them, and say what stands behind each.

lowered    feature 0   feature 1   feature 2            newest event     of all stream views, one after another
places     integers 0  doubles 7   (a text: no number)  (none)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featurestore.core.compiled import FLOAT_MATRIX, INT, INT_MATRIX, INTS, TRUTH_MATRIX, compiled
from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.online.answer.schema import FeatureStatus

INTEGER, DOUBLE, OTHER = 0, 1, 2
"""Which matrix a value goes to: these loops see numbers only."""

PLACE_COLUMNS = 4
"""Of a place: the lowered feature, its index in the answer, INTEGER, DOUBLE or OTHER, row of that matrix."""

_FLAG_MATRIX = "uint8[:, ::1]"
_PRESENT, _NULL, _NOT_READY = (
    int(status) for status in (FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE, FeatureStatus.NOT_READY)
)


@compiled(INT, INT_MATRIX, INT, INT_MATRIX, FLOAT_MATRIX, TRUTH_MATRIX, INT_MATRIX, FLOAT_MATRIX, TRUTH_MATRIX)
def place_numbers(
    places: Int64Array,
    first_row: int,
    ints: Int64Array,
    floats: Float64Array,
    null: BoolArray,
    out_integers: Int64Array,
    out_doubles: Float64Array,
    out_null: BoolArray,
) -> int:
    """Lowered features into the matrices of an answer.

    Args:
        places: (K, PLACE_COLUMNS), see there.
        first_row: where the R rows begin in the answer.
        ints: (L, R) lowered integers.
        floats: (L, R) lowered floats.
        null: (L, R) True where there is no value.
        out_integers: (I, N).
        out_doubles: (D, N).
        out_null: (F, N).
    """
    for index in range(len(places)):
        feature, at, matrix, slot = places[index, 0], places[index, 1], places[index, 2], places[index, 3]
        for row in range(null.shape[1]):
            out_null[at, first_row + row] = null[feature, row]
            if matrix == INTEGER:
                out_integers[slot, first_row + row] = ints[feature, row]
            elif matrix == DOUBLE:
                out_doubles[slot, first_row + row] = floats[feature, row]
    return 0


@compiled(INT, INTS, INTS, INTS, _FLAG_MATRIX, TRUTH_MATRIX, FLOAT_MATRIX, _FLAG_MATRIX)
def give_statuses(
    view_of_feature: Int64Array,
    double_features: Int64Array,
    not_ready: Int64Array,
    view_status: NDArray[np.uint8],
    null: BoolArray,
    doubles: Float64Array,
    statuses: NDArray[np.uint8],
) -> int:
    """The status of every value, and NaN for the doubles that are null.

    Args:
        view_of_feature: (F,) index of the view.
        double_features: (D,) which feature a row of the doubles is.
        not_ready: (P,) features that cannot be answered yet.
        view_status: (V, N) of FeatureStatus.
        null: (F, N).
        doubles: (D, N).
        statuses: (F, N) receives FeatureStatus.
    """
    rows = null.shape[1]
    for feature in range(len(view_of_feature)):
        view = view_of_feature[feature]
        for row in range(rows):
            status = view_status[view, row]
            statuses[feature, row] = _NULL if null[feature, row] and status == _PRESENT else status
    for index in range(len(not_ready)):
        for row in range(rows):
            statuses[not_ready[index], row] = _NOT_READY
    for slot in range(len(double_features)):
        for row in range(rows):
            if null[double_features[slot], row]:
                doubles[slot, row] = np.nan
    return 0
