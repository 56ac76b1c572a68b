"""What a JSON schema promises of a column, held against what is really read of all that it allows."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.spec import SCALAR_TYPES, ValueType
from featurestore.definitions.schemas.json_schema import JsonSchema
from featurestore.wire.formats.columns import WantedColumn
from featurestore.wire.formats.json_objects import JsonReader

EXAMPLES: dict[str, tuple[object, ...]] = {
    "string": ("2024-01-01T00:00:00Z",),
    "integer": (7,),
    "number": (7, 0.5),
    "boolean": (True,),
    "object": ({},),
    "array": ([],),
    "null": (None,),
}
"""Values of each of JSON's types; the text is a time, as a column of times reads texts that are some."""

kinds = st.lists(st.sampled_from(list(EXAMPLES)), min_size=1, max_size=3, unique=True)


def schemas(wanted: list[str], way: int) -> tuple[Any, Any]:
    """The same types in one of the ways in which a schema says several; and what it defines beside it."""
    one_of_each: list[dict[str, object]] = [{"type": kind} for kind in wanted]
    return (
        ({"type": wanted}, {}),
        ({"anyOf": one_of_each}, {}),
        ({"oneOf": [{"$ref": "#/$defs/It"}]}, {"It": {"type": wanted}}),
        ({"allOf": [{"anyOf": one_of_each}, {}]}, {}),
        ({"enum": [value for kind in wanted for value in EXAMPLES[kind]]}, {}),
    )[way]


@given(kinds, st.integers(0, 4), st.sampled_from(SCALAR_TYPES), st.booleans())
def test_a_fit_is_what_the_reader_makes_of_all_that_is_allowed(
    wanted: list[str], way: int, column_type: ValueType, is_nested: bool
) -> None:
    """No misfit and no doubt: all is read. A doubt: some of it. A misfit: nothing but nulls."""
    said, defined = schemas(wanted, way)
    column = WantedColumn("it", column_type, "in.it" if is_nested else "it")
    properties = {"in": {"type": "object", "properties": {"it": said}}} if is_nested else {"it": said}
    allowed = [value for kind in wanted for value in EXAMPLES[kind]]

    fit = JsonSchema(json.dumps({"properties": properties, "$defs": defined})).fit([column])
    read = JsonReader([column]).read(
        [json.dumps({"in": {"it": value}} if is_nested else {"it": value}).encode() for value in allowed]
    )

    given_values = [row for row, value in enumerate(allowed) if value is not None]
    refused = [row for row in given_values if row in read.refused]
    assert (not fit.misfits and not fit.doubts) == (not refused)
    assert bool(fit.misfits) == (refused == given_values != [])
    assert fit.missing == frozenset()
