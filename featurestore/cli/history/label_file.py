"""Read label rows from a file: Parquet, CSV, JSON or Arrow IPC, by the ending of its name.

Join keys are read as what they are: of text, "007" stays a text; of integers, the 39.0 that pandas writes into a CSV
for a column with a gap is 39, exactly, however large. What is none of these files is refused with what there is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet

from featurestore.core.spec import ValueType
from featurestore.errors import InvalidRequest
from featurestore.serving.client.entity_file import integers

PARQUET = ("", ".parquet", ".pq")
JSON = (".json", ".jsonl", ".ndjson")
ARROW = (".arrow", ".feather", ".ipc")

REMEDY = "write them as Parquet, CSV, JSON or Arrow, under a name that ends so; in pandas: frame.to_parquet(...)"


def read_label_rows(path: Path, join_keys: Mapping[str, ValueType]) -> pa.Table:
    """The rows of a file.

    Args:
        path: of the file, or of a directory of Parquet.
        join_keys: types of the columns that are join keys.

    Raises:
        InvalidRequest: it cannot be read.
    """
    ending = path.suffix.lower()
    try:
        if ending == ".csv":
            return _read_csv(path, join_keys)
        if ending in JSON:
            return _read_json_array(path) if _begins_with_bracket(path) else pa.json.read_json(path)
        if ending in ARROW:
            return pa.feather.read_table(path)
        return pa.parquet.read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        # Any other ending may be Parquet's all the same, such as that of a part of a directory.
        hint = "" if ending in (*PARQUET, ".csv", *JSON, *ARROW) else REMEDY
        detail = " ".join(str(error).split())
        raise InvalidRequest(f'the entities in "{path}" cannot be read', detail=detail, hint=hint) from error


def _read_csv(path: Path, join_keys: Mapping[str, ValueType]) -> pa.Table:
    """A CSV; join keys are read as texts and become integers here, since Arrow refuses 39.0 as one."""
    options = pa.csv.ConvertOptions(column_types=dict.fromkeys(join_keys, pa.string()))
    table = pa.csv.read_csv(path, convert_options=options)
    for name, kind in join_keys.items():
        if kind is ValueType.INT64 and name in table.column_names:
            at = table.column_names.index(name)
            table = table.set_column(at, name, integers(table.column(name), name, options.null_values))
    return table


def _begins_with_bracket(path: Path) -> bool:
    """Whether it is an array of JSON objects, and not an object a line."""
    with path.open("rb") as file:
        return file.read(1_024).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _read_json_array(path: Path) -> pa.Table:
    """An array of JSON objects."""
    rows: list[Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("an element of the array is no object")
    # Arrow takes its columns from the first row alone.
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
