"""Label rows from the files that people have: read as they are meant, or refused with what to write instead."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from featurestore.cli.history.label_file import read_label_rows
from featurestore.core.spec import ValueType
from featurestore.errors import InvalidRequest

KEYS = {"merchant_id": ValueType.INT64, "card_id": ValueType.STRING}
ROWS = [
    {"merchant_id": 39, "card_id": "007", "event_timestamp": "2026-01-01T12:00:00Z", "is_fraud": 0},
    {"merchant_id": None, "card_id": "c-1", "event_timestamp": "2026-01-01T12:00:00Z", "is_fraud": 1},
    {"merchant_id": 2**53 + 1, "card_id": "", "event_timestamp": "2026-01-02T12:00:00Z", "is_fraud": None},
]


def keys_of(path: Path) -> dict[str, list[object]]:
    """The join keys that are read from a file."""
    table = read_label_rows(path, KEYS)
    return {name: table.column(name).to_pylist() for name in KEYS}


@pytest.mark.parametrize("gap", ["", "nan", "NULL"])
@pytest.mark.parametrize("written", ["39", "39.0", " 39.", "39.000"])
def test_an_integer_key_that_pandas_made_a_float_is_an_integer(tmp_path: Path, written: str, gap: str) -> None:
    """A gap in the column makes it 39.0; text keys keep their zeros, and large integers their last digit."""
    path = tmp_path / "labels.csv"
    path.write_text(f"merchant_id,card_id,is_fraud\n{written},007,0\n{gap},c-1,1\n9007199254740993.0,8,0\n")

    assert keys_of(path) == {"merchant_id": [39, None, 2**53 + 1], "card_id": ["007", "c-1", "8"]}


@pytest.mark.parametrize("written", ["39.5", "c-1", "9223372036854775808", "1e3"])
def test_what_is_no_integer_is_named_with_its_row(tmp_path: Path, written: str) -> None:
    """Not rounded, and not passed over."""
    path = tmp_path / "labels.csv"
    path.write_text(f"merchant_id\n1\n\n{written}\n")

    with pytest.raises(InvalidRequest, match=f'column "merchant_id" is "{written}", which is no integer of 64 bits'):
        read_label_rows(path, KEYS)


@pytest.mark.parametrize("begin", ["", "\n  ", "\ufeff"])
def test_an_array_of_json_objects_is_read_as_lines_are(tmp_path: Path, begin: str) -> None:
    """As `frame.to_json(orient="records")` writes them; a name that the first object lacks is a column too."""
    array, lines = tmp_path / "array.json", tmp_path / "lines.jsonl"
    array.write_text(begin + json.dumps([*ROWS, {"card_id": "c-9", "merchant_id": 1, "more": 5}]), encoding="utf-8")
    lines.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    assert keys_of(lines) == {name: values[:3] for name, values in keys_of(array).items()}
    assert read_label_rows(array, KEYS).column("more").to_pylist() == [None, None, None, 5]
    assert keys_of(array)["merchant_id"][2] == 2**53 + 1


def test_parquet_and_arrow_are_read_whatever_their_size(tmp_path: Path) -> None:
    """Parquet also without an ending, as files of a directory have."""
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "part-0")
    pq.write_table(table, tmp_path / "labels.parquet")
    pa.feather.write_feather(table, str(tmp_path / "labels.arrow"))

    assert {len(keys_of(tmp_path / name)["card_id"]) for name in ("part-0", "labels.parquet", "labels.arrow")} == {3}


def test_a_pickle_is_refused_with_what_is_read(tmp_path: Path) -> None:
    """It could run anything, so it is not even opened as one; so are spreadsheets, and whatever else is no table."""
    for name, content in (
        ("labels.pkl", pickle.dumps(ROWS)),
        ("labels.xlsx", b"PK\x03\x04"),
        ("labels.tsv", b"a\tb\n"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InvalidRequest, match=f'the entities in ".*{name}" cannot be read') as caught:
            read_label_rows(path, KEYS)
        assert "write them as Parquet, CSV, JSON or Arrow" in caught.value.hint


@pytest.mark.parametrize("content", ["[1, 2]", "[{}", '["a"]'])
def test_an_array_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    """With the file's name."""
    (tmp_path / "labels.json").write_text(content)

    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_label_rows(tmp_path / "labels.json", KEYS)
