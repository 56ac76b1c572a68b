"""Delta tables that somebody else keeps, under Spark: the values of the local engine, and nothing that was removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from featurestore.errors import InvalidRequest
from featurestore.offline.spark import events as spark_events
from featurestore.offline.spark.engine import spark_training_set
from featurestore.offline.spark.events import SparkFiles
from featurestore.offline.spark.files import open_session
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory
from tests.offline.spark.tables import differing
from tests.offline.spark.test_engine import SETTINGS
from tests.offline.training_set.foreign_tables import LABELS, random_payments, with_positions, write_iceberg
from tests.offline.training_set.label_tables import CARD, PAIR, SOURCE, repo_of

REPO = repo_of(CARD, PAIR)
NUMBERED = LABELS.append_column("n", pa.array(range(LABELS.num_rows)))


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    """A session for these tests."""
    session = open_session("local[2]", SETTINGS)
    yield session
    session.stop()


def values(spark: SparkSession, address: str | Path, repo: object = REPO) -> pa.Table:
    """The training set of Spark, in the labels' order."""
    found = spark_training_set(spark, repo, "all", spark.createDataFrame(NUMBERED), history=SparkFiles(address))  # type: ignore[arg-type]  # a repo
    return found.toArrow().sort_by("n")


def test_a_table_is_read_without_what_was_removed_from_it(spark: SparkSession, tmp_path: Path) -> None:
    """Old files lie beside new ones; the columns of directories' names have their types, and letters as they are."""
    rows = random_payments(300)
    directory = tmp_path / "a b"
    for begin in (0, 100, 200):
        write_deltalake(directory, rows.slice(begin, 100), mode="append", partition_by=["market", "shop"])
    DeltaTable(directory).delete("amount < 50")
    kept = rows.filter(pc.fill_null(pc.greater_equal(rows["amount"], 50), True))
    expected = build_training_set(REPO, "all", NUMBERED, history=FileHistory(kept))

    found = values(spark, directory)

    assert {} == differing(expected, found)
    assert not expected.equals(build_training_set(REPO, "all", NUMBERED, history=FileHistory(rows)))


def test_positions_order_rows_and_tell_those_that_are_there_twice(spark: SparkSession, tmp_path: Path) -> None:
    """As the local engine has them; also where the source has no ids."""
    rows = with_positions(random_payments(200), [0] * 200, range(200))
    for part in (rows.slice(100), rows.slice(0, 120)):
        write_deltalake(tmp_path, part, mode="append")
    repo = repo_of(replace(CARD, source=replace(SOURCE, event_id_column=None, dedup_horizon_ms=0)))
    expected = build_training_set(repo, "all", NUMBERED, history=FileHistory(rows))

    assert {} == differing(expected, values(spark, tmp_path, repo))
    assert {} == differing(expected, build_training_set(repo, "all", NUMBERED, history=FileHistory(tmp_path)))


def test_a_table_without_rows_has_no_events(spark: SparkSession, tmp_path: Path) -> None:
    """Its columns are there."""
    write_deltalake(tmp_path, random_payments(10).slice(0, 0))
    expected = build_training_set(REPO, "all", NUMBERED, history=FileHistory(random_payments(10).slice(0, 0)))

    assert {} == differing(expected, values(spark, tmp_path))


def test_tables_that_cannot_be_read_name_the_remedy(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Iceberg table, and a Delta table at a place that only Spark reaches; never their files."""
    rows = random_payments(20)
    iceberg = write_iceberg(tmp_path / "iceberg", rows)
    write_deltalake(tmp_path / "delta", rows)
    pq.write_table(rows, tmp_path / "rows.parquet")

    for address in (iceberg.metadata_location, str(tmp_path / "iceberg" / "bank" / "payments")):
        with pytest.raises(InvalidRequest, match="is the Iceberg table") as caught:
            values(spark, address)
        assert 'spark.read.format("iceberg")' in caught.value.hint
    monkeypatch.setattr(spark_events, "open_table", lambda address: None)
    with pytest.raises(InvalidRequest, match="is the Delta table"):
        values(spark, tmp_path / "delta")
    assert LABELS.num_rows == values(spark, tmp_path / "rows.parquet").num_rows
