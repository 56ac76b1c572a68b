"""Paths into objects of JSON, beside the library that reads all of it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.spec import ValueType
from featurestore.wire.formats.columns import WantedColumn
from featurestore.wire.formats.json_objects import JsonReader

COLUMNS = (
    WantedColumn("id", ValueType.STRING, "id"),
    WantedColumn("bin", ValueType.INT64, "card.bin"),
    WantedColumn("country", ValueType.STRING, "card.bank.country"),
    WantedColumn("share", ValueType.FLOAT64, "card.bank.share"),
    WantedColumn("card.bin", ValueType.STRING, "card.bin"),
)
"""The last is called as its field is, so that the name has a point and is no path."""

names = st.sampled_from(["id", "card", "bin", "bank", "country", "share", "card.bin", "more"])
values = st.none() | st.text("ab", max_size=3) | st.integers(-3, 3) | st.just(0.5)
records = st.dictionaries(
    names, st.recursive(values, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=8), max_size=5
)


class _Unreadable(Exception):
    """What a typed reader refuses."""


def value_at(record: Any, column: WantedColumn) -> object:
    """The value of a column, by walking the record."""
    steps = column.field.split(".") if column.field != column.name else [column.field]
    for step in steps:
        if record is None:
            return None
        if not isinstance(record, dict):
            raise _Unreadable
        record = record.get(step)
    kinds = {ValueType.STRING: str, ValueType.INT64: int, ValueType.FLOAT64: (int, float)}[column.type]
    if record is not None and not isinstance(record, kinds):  # type: ignore[arg-type]  # a type or several
        raise _Unreadable
    return record


@given(st.lists(records, max_size=6))
def test_what_is_nested_is_read_as_the_record_has_it(given_records: list[dict[str, Any]]) -> None:
    """What is in no object is null; a value in an object's place refuses its record, and no other."""
    expected: dict[int, list[object]] = {}
    for row, record in enumerate(given_records):
        with contextlib.suppress(_Unreadable):
            expected[row] = [value_at(record, column) for column in COLUMNS]

    read = JsonReader(COLUMNS).read([json.dumps(record).encode() for record in given_records])

    assert read.rows.tolist() == list(expected)
    assert set(read.refused) == set(range(len(given_records))) - set(expected)
    for place, column in enumerate(COLUMNS):
        of_column = read.columns[column.name]
        assert isinstance(of_column.values, np.ndarray)
        valid = of_column.valid if of_column.valid is not None else np.ones(len(read.rows), dtype=np.bool_)
        found = [
            None if not is_there else value.decode() if isinstance(value, bytes) else value
            for value, is_there in zip(of_column.values.tolist(), valid.tolist(), strict=True)
        ]
        assert found == [row[place] for row in expected.values()]
