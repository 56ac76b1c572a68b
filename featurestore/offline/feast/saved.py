"""Training sets as files: written with a mark, so that Feast's saved datasets can be read back whole.

Feast reads a saved dataset as any table: the join keys that it knows, the features, `event_timestamp`.
Labels and whatever else the entities had would be lost, and of stream views the join keys too. A file of ours says that
it is a training set, and then all its rows and columns come back as they were written.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
from feast.data_source import DataSource

from featurestore.errors import InvalidRequest
from featurestore.offline.feast.pull import TableJob
from featurestore.offline.feast.tables import Tables, is_parquet_source, write_file

PART_ROWS = 1 << 20
"""Rows of a file of a directory."""

_MARK = b"featurestore.training_set"


def write_training_set_files(blocks: Iterator[pa.Table], filesystem: pafs.FileSystem, path: str) -> list[str]:
    """A file if the path ends in .parquet, else a directory of files instead of what was there.

    Args:
        blocks: at least one, all of one schema.
        filesystem: where.
        path: on it.

    Returns:
        Names of the files, within the directory.
    """
    marked = map(_marked, blocks)
    if path.endswith(".parquet"):
        write_file(marked, filesystem, path)
        return [path.rpartition("/")[2]]
    first = next(marked)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from first.to_batches()
        for block in marked:
            yield from block.to_batches()

    names: list[str] = []
    pads.write_dataset(
        batches(),
        path,
        schema=first.schema,
        filesystem=filesystem,
        format="parquet",
        basename_template="part-{i}.parquet",
        max_rows_per_file=PART_ROWS,
        max_rows_per_group=PART_ROWS,
        existing_data_behavior="delete_matching",
        file_visitor=lambda written: names.append(written.path.rpartition("/")[2]),
    )
    return sorted(names)


def _marked(block: pa.Table) -> pa.Table:
    """A block that says what it is part of."""
    return block.replace_schema_metadata({**(block.schema.metadata or {}), _MARK: b"1"})


def saved_training_set(source: DataSource, tables: Tables) -> TableJob | None:
    """The training set in a file; None where a data source is something else, or is not there."""
    if not is_parquet_source(source):
        return None
    try:
        dataset = tables.dataset(source)
    except InvalidRequest:
        return None
    return TableJob(dataset.to_table) if _MARK in (dataset.schema.metadata or {}) else None
