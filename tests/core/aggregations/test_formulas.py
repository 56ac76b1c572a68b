"""The compiled formulas answer what the aggregations' own `lower` answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import names, resolve
from featurestore.core.lowering.lowering import Lowering
from featurestore.core.lowering.view_input import FeatureFields, LoweredView
from featurestore.core.spec import SCALAR_TYPES, Column, FeatureSpec, ValueType, Window
from featurestore.core.tiles.parts import Storage
from featurestore.core.tiles.tiles import TileLayout

CASES = [
    (function, column_type)
    for function in names()
    for column_type in SCALAR_TYPES
    if resolve(function).formula is not None and resolve(function).output_type(column_type) is not None
    if (function, column_type) not in {("min", ValueType.STRING), ("max", ValueType.STRING)}  # states, not numbers
]
INTEGERS = st.one_of(
    st.integers(-3, 3), st.integers(-(2**62), 2**62), st.sampled_from((2**31 - 1, 2**31, -(2**31), -(2**31) - 1))
)
FLOATS = st.one_of(st.floats(0, 1e9), st.sampled_from((0.0, 1e300)))


@pytest.mark.parametrize(("function", "column_type"), CASES)
@settings(max_examples=30)
@given(data=st.data())
def test_a_formula_is_what_lower_says(function: str, column_type: ValueType, data: st.DataObject) -> None:
    """Equal to the bit, nulls included, for counts of nothing and halves that do not fit in 64 bits too."""
    aggregation, column = resolve(function), Column("value", column_type)
    layout = TileLayout(aggregation.parts(column))
    output = aggregation.output_type(column_type)
    assert output is not None
    spec = FeatureSpec("f", aggregation.name, "value", Window(None), output)
    parts = tuple(layout.position_of(part) for part in aggregation.parts(column))
    feature = FeatureFields(spec, aggregation, parts, (0,))
    lowering = Lowering([LoweredView.of(layout, 1, [feature], [])])
    rows = 4
    merged = lowering.gathered(rows)
    for block, values in ((merged.ints, INTEGERS), (merged.floats, FLOATS)):
        for field in block:
            field[:] = data.draw(st.lists(values, min_size=rows, max_size=rows))
    merged.objects[:] = b"text"
    taken = {Storage.INT: iter(merged.ints), Storage.FLOAT: iter(merged.floats), Storage.BLOB: iter(merged.objects)}
    as_of_ms = np.zeros(rows, dtype=np.int64)
    with np.errstate(all="ignore"):
        expected = aggregation.lower([next(taken[kind])[np.newaxis] for kind in feature.storages], as_of_ms)

    actual = lowering.lower(merged, as_of_ms)

    null = np.zeros(rows, dtype=np.bool_) if expected.null is None else expected.null[0]
    assert null.tolist() == actual.null[0].tolist()
    if output is ValueType.STRING:
        return
    answers = (actual.floats if output is ValueType.FLOAT64 else actual.ints)[0]
    assert np.array_equal(np.where(null, 0, expected.values[0]), answers, equal_nan=True)
