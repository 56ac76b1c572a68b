"""Tables of somebody else's for tests: the same rows as Parquet, as a Delta table and as an Iceberg table."""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestWriterV2
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record

from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory
from tests.offline.training_set.label_tables import CARD, HOUR_MS, NOON_MS, PAIR, SOURCE, payments, repo_of

TOPIC = "payments"
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_BITMAP_MAGIC, _COOKIE_WITHOUT_RUNS = 1_681_511_377, 12_346


REPO = repo_of(CARD, PAIR)
WITHOUT_IDS = replace(SOURCE, event_id_column=None, dedup_horizon_ms=0)
DAY_MS = 86_400_000

Write = Callable[[Path, pa.Table], str]


def random_payments(count: int, seed: int = 7) -> pa.Table:
    """Payments of two hours of two days: repeats, ties, nulls, late ones."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        at = draw.randrange(-DAY_MS - HOUR_MS, -DAY_MS) if number % 3 == 0 else draw.randrange(HOUR_MS)
        card = None if number % 31 == 0 else f"c-{draw.randrange(5)}"
        amount = None if number % 13 == 0 else draw.randrange(200)
        rows.append(
            (f"p{number % 190}", at, card, draw.randrange(3), amount, draw.choice(["a/b", "New York", "é", None]))
        )
    return payments(*rows)


def labels_after(*hours: float) -> pa.Table:
    """Every card, one that is nobody's and none, at some hours after noon."""
    cards = ["c-0", "c-1", "c-2", "c-3", "c-4", "nobody", None]
    return pa.table(
        {
            "card": [card for _ in hours for card in cards],
            "shop": pa.array([number % 3 for number in range(len(hours) * len(cards))], pa.int64()),
            "event_timestamp": pa.array(
                [NOON_MS + round(hour * HOUR_MS) for hour in hours for _ in cards], pa.timestamp("ms", tz="UTC")
            ),
        }
    )


LABELS = labels_after(-23.9, 0.2, 0.6, 1.5)


def values(events: str | Path | pa.Table | dict[str, object]) -> pa.Table:
    """The training set from a history."""
    return build_training_set(REPO, "all", LABELS, history=FileHistory(events))


def as_delta(directory: Path, rows: pa.Table) -> str:
    """A Delta table in three commits, by a column of whose values paths have to be written in other letters."""
    step = max(1, rows.num_rows // 3)
    for begin in range(0, rows.num_rows, step):
        write_deltalake(directory, rows.slice(begin, step), mode="append", partition_by=["market"])
    return str(directory)


def as_iceberg(directory: Path, rows: pa.Table) -> str:
    """An Iceberg table in three commits; its newest metadata file."""
    step = max(1, rows.num_rows // 3)
    return write_iceberg(
        directory, *(rows.slice(begin, step) for begin in range(0, rows.num_rows, step))
    ).metadata_location


WRITERS = pytest.mark.parametrize("write", [as_delta, as_iceberg])


def with_positions(table: pa.Table, partitions: Sequence[int], offsets: Sequence[int]) -> pa.Table:
    """A history with the columns of a topic's position, in the sizes that stream platforms give them."""
    return (
        table.append_column("topic", pa.array([TOPIC] * table.num_rows))
        .append_column("partition", pa.array(partitions, pa.int32()))
        .append_column("offset", pa.array(offsets, pa.int64()))
    )


def iceberg_catalog(directory: Path) -> SqlCatalog:
    """A catalog in SQLite, with a namespace `bank`."""
    directory.mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog("tests", uri=f"sqlite:///{directory}/catalog.db", warehouse=f"file://{directory}")
    catalog.create_namespace_if_not_exists("bank")
    return catalog


def write_iceberg(directory: Path, *tables: pa.Table, **properties: str) -> Table:
    """A table of one commit for each of some tables; Iceberg has microseconds."""
    rows = [microseconds(table) for table in tables]
    made = iceberg_catalog(directory).create_table("bank.payments", rows[0].schema, properties=properties)
    for each in rows:
        made.append(each)
    return made


def microseconds(table: pa.Table) -> pa.Table:
    """The rows with timestamps as Iceberg takes them."""
    schema = pa.schema(
        [
            field.with_type(pa.timestamp("us", tz="UTC")) if pa.types.is_timestamp(field.type) else field
            for field in table.schema
        ]
    )
    return table.cast(schema)


def delete_with_vector(directory: Path, rows: Sequence[int]) -> None:
    """Delete rows of a Delta table's only file as Databricks does: the file stays, a vector takes the rows out.

    Source: the Delta protocol, "Deletion Vector Format"; the serialization of RoaringFormatSpec.
    """
    (added,) = pa.table(DeltaTable(directory).get_add_actions()).to_pylist()
    content = struct.pack("<IQI", _BITMAP_MAGIC, 1, 0) + struct.pack("<II", _COOKIE_WITHOUT_RUNS, 1)
    content += struct.pack("<HHI", 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *sorted(rows))
    content += bytes(-len(content) % 4)
    vector = {
        "storageType": "i",
        "pathOrInlineDv": _z85(content),
        "sizeInBytes": len(content),
        "cardinality": len(rows),
    }
    statistics = json.dumps({"numRecords": added["num_records"], "tightBounds": False})
    common = {"path": added["path"], "partitionValues": {}, "size": added["size_bytes"], "dataChange": True}
    commit(
        directory,
        {"remove": {**common, "deletionTimestamp": 1, "extendedFileMetadata": True}},
        {"add": {**common, "modificationTime": 1, "stats": statistics, "deletionVector": vector}},
    )


def enable_deletion_vectors(directory: Path) -> None:
    """Let a table be of the protocol in which it may have deletion vectors."""
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    commit(directory, {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}})


def commit(directory: Path, *actions: dict[str, object]) -> None:
    """A version of a Delta table, by hand: delta-rs does not write what is needed here."""
    version = DeltaTable(directory).version() + 1
    lines = [json.dumps(action) for action in ({"commitInfo": {"timestamp": 1}}, *actions)]
    (directory / "_delta_log" / f"{version:020d}.json").write_text("\n".join(lines) + "\n")


def delete_from_iceberg(table: Table, path: str, content: DataFileContent, equality_ids: Sequence[int] = ()) -> None:
    """Commit a delete file, as Flink and Spark write them (merge on read), and pyiceberg does not."""

    class DeleteManifest(ManifestWriterV2):
        """A manifest of delete files."""

        def content(self) -> ManifestContent:
            return ManifestContent.DELETES

        @property
        def _meta(self) -> dict[str, str]:
            return {**super()._meta, "content": "deletes"}

    class Deletes(_FastAppendFiles):
        """A snapshot that adds delete files to what there is."""

        def new_manifest_writer(self, spec: PartitionSpec) -> ManifestWriterV2:
            output = self.new_manifest_output()
            return DeleteManifest(spec, self._transaction.table_metadata.schema(), output, self._snapshot_id, "null")

    deletes = DataFile.from_args(
        content=content,
        file_path=f"file://{path}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=pq.read_metadata(path).num_rows,
        file_size_in_bytes=Path(path).stat().st_size,
        column_sizes={},
        value_counts={},
        null_value_counts={},
        nan_value_counts={},
        lower_bounds={},
        upper_bounds={},
        equality_ids=list(equality_ids) or None,
    )
    deletes.spec_id = 0
    with table.transaction() as transaction, Deletes(Operation.DELETE, transaction, table.io) as snapshot:
        snapshot.append_data_file(deletes)


def _z85(content: bytes) -> str:
    """ZeroMQ's base 85: that of `base64.b85encode` in other letters."""
    python = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    return base64.b85encode(content).decode().translate(str.maketrans(python, _Z85))
