"""Data frames as entities: the same training set as of an Arrow table, or a refusal that says what to give."""

from __future__ import annotations

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from featurestore.errors import InvalidRequest
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory
from tests.offline.training_set.test_inputs import EXPECTED, FEATURES, HISTORY, LABELS, REPO


def features_of(entities: object) -> dict[str, list[object]]:
    """The features of label rows."""
    found = build_training_set(REPO, "all", entities, history=FileHistory(HISTORY))
    assert isinstance(found, pa.Table)
    return dict(found.select(FEATURES).to_pydict())


def test_a_pandas_frame_is_what_its_columns_are() -> None:
    """Also one with an index of its own, whose rows are some of another's, and whose integers a gap made floats."""
    frame = LABELS.to_pandas()
    doubled = pd.concat([frame, frame], ignore_index=True)
    some = doubled[doubled.index >= len(frame)]
    floats = frame.assign(shop=frame["shop"].astype("float64"))

    assert features_of(frame) == features_of(some) == features_of(floats) == EXPECTED
    kept = build_training_set(REPO, "all", some, history=FileHistory(HISTORY))
    assert kept.column_names == [*LABELS.column_names, *FEATURES]


def test_a_polars_frame_is_taken_too() -> None:
    """Whatever says what it holds as Arrow does."""
    assert features_of(pl.from_arrow(LABELS)) == EXPECTED


@pytest.mark.parametrize("entities", [LABELS.to_pylist(), "labels.parquet", None])
def test_what_is_no_table_is_refused_with_what_to_give(entities: object) -> None:
    """Rows of dicts and paths are none."""
    with pytest.raises(InvalidRequest, match=f"the entities are a {type(entities).__name__}, not a table") as caught:
        features_of(entities)
    assert "pyarrow.Table, or a data frame of pandas or Polars" in caught.value.hint


def test_a_frame_of_mixed_columns_is_refused() -> None:
    """Arrow has one type a column; the column is named."""
    frame = LABELS.to_pandas().assign(note=["a", 1, None, 2.5, b"x"])

    with pytest.raises(InvalidRequest, match="make no Arrow table") as caught:
        features_of(frame)
    assert "note" in caught.value.detail
