"""Histories in tables that somebody else keeps: the values of the same rows in Parquet, whatever happened to them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from moto.server import ThreadedMotoServer
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFileContent
from pyiceberg.utils.config import Config

from featurestore.core.spec import Column, PlainViewSpec, ValueType
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.foreign_tables.opening import is_table
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import EVENT_TIME, FileHistory, open_dataset
from featurestore.offline.training_set.plain_join import PlainHistory
from tests.offline.training_set.foreign_tables import (
    DAY_MS,
    LABELS,
    WRITERS,
    Write,
    as_delta,
    commit,
    delete_from_iceberg,
    delete_with_vector,
    enable_deletion_vectors,
    iceberg_catalog,
    labels_after,
    microseconds,
    random_payments,
    values,
    write_iceberg,
)
from tests.offline.training_set.label_tables import HOUR_MS, NOON_MS, SOURCE, payments, repo_of


@WRITERS
def test_a_table_gives_the_values_of_its_rows_in_parquet(write: Write, tmp_path: Path) -> None:
    """Several files, columns that are in paths only, microseconds instead of milliseconds, a schema's other types."""
    rows = random_payments(600)
    pq.write_table(rows, tmp_path / "rows.parquet")
    expected = values(tmp_path / "rows.parquet")

    found = values({"payments": write(tmp_path / "table", rows)})

    assert expected["count_1h"].to_pylist() != [0] * LABELS.num_rows
    assert expected.equals(found)


def test_what_was_taken_out_of_a_delta_table_is_not_read(tmp_path: Path) -> None:
    """Rows deleted, changed, replaced and merged: the files of the versions before are still there."""
    rows = random_payments(300)
    address = as_delta(tmp_path, rows)
    table = DeltaTable(address)
    table.delete("amount < 50")
    table.update(updates={"amount": "amount + 1"}, predicate="card = 'c-1'")
    table.optimize.compact()
    kept = rows.filter(pc.fill_null(pc.greater_equal(rows["amount"], 50), True))
    grown = pc.if_else(pc.fill_null(pc.equal(kept["card"], "c-1"), False), pc.add(kept["amount"], 1), kept["amount"])
    expected = values(kept.set_column(4, "amount", grown))

    assert expected.equals(values(address))
    assert len(list(tmp_path.rglob("*.parquet"))) > len(table.file_uris()), "old files are beside new ones"

    write_deltalake(address, rows.slice(0, 90), mode="overwrite", partition_by=["market"])
    again = values(rows.slice(0, 90))
    assert again.equals(values(address))


def test_what_was_taken_out_of_an_iceberg_table_is_not_read(tmp_path: Path) -> None:
    """By files written anew, and by a delete file that names positions; columns keep their values under a new name."""
    rows = random_payments(300).append_column("n", pa.array(range(300)))
    table = write_iceberg(tmp_path, rows.slice(0, 150), rows.slice(150))
    table.delete("amount < 50")
    kept = rows.filter(pc.fill_null(pc.greater_equal(rows["amount"], 50), True))
    file = min(task.file.file_path for task in table.scan().plan_files())
    gone = set(pq.read_table(file.removeprefix("file://"))["n"].to_pylist()[2:9])
    pq.write_table(pa.table({"file_path": [file] * 7, "pos": range(2, 9)}), tmp_path / "deletes.parquet")
    delete_from_iceberg(table, str(tmp_path / "deletes.parquet"), DataFileContent.POSITION_DELETES)
    with table.update_schema() as schema:
        schema.rename_column("shop", "shop_number")
    with table.update_schema() as schema:
        schema.rename_column("shop_number", "shop")
    left = kept.filter(pc.invert(pc.is_in(kept["n"], pa.array(sorted(gone)))))

    assert kept.num_rows - 7 == left.num_rows
    assert not values(kept).equals(values(left)), "the deleted rows matter"
    assert values(left).equals(values(table.metadata_location))


@WRITERS
def test_a_table_is_read_as_it_was_when_it_was_first_asked_for(write: Write, tmp_path: Path) -> None:
    """Also by a process that goes on after a killed one; a new request is other work, and reads the newest version."""
    rows = random_payments(200)
    write(tmp_path / "table", rows)
    address = str(tmp_path / "table" if write is as_delta else tmp_path / "table" / "bank" / "payments")
    history = FileHistory(address)
    history.keep_versions(tmp_path / "versions.json")
    before = history.row_count(SOURCE)
    more = microseconds(random_payments(50, seed=9))
    if write is as_delta:
        write_deltalake(address, more, mode="append", partition_by=["market"])
    else:
        iceberg_catalog(tmp_path / "table").load_table("bank.payments").append(more)

    gone_on, anew = FileHistory(address), FileHistory(address)
    gone_on.keep_versions(tmp_path / "versions.json")

    assert 200 == before == gone_on.row_count(SOURCE)
    assert 200 == sum(batch.num_rows for batch in history.scan(SOURCE, ["card"], from_ms=0, to_ms=2 * NOON_MS))
    assert 200 == sum(batch.num_rows for batch in gone_on.scan(SOURCE, ["card"], from_ms=0, to_ms=2 * NOON_MS))
    assert history.version(SOURCE) == gone_on.version(SOURCE)
    assert 250 == anew.row_count(SOURCE)
    assert history.version(SOURCE) != anew.version(SOURCE)


def test_a_version_that_is_gone_is_begun_anew_and_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    """A vacuum took the files of the version that a run had begun with."""
    address = as_delta(tmp_path / "table", random_payments(100))
    begun = FileHistory(address)
    begun.keep_versions(tmp_path / "versions.json")
    assert 100 == begun.row_count(SOURCE)
    write_deltalake(address, random_payments(30), mode="overwrite", partition_by=["market"])
    DeltaTable(address).vacuum(0, dry_run=False, enforce_retention_duration=False)

    with pytest.raises(Unavailable, match="has lost a file of version"):
        list(begun.scan(SOURCE, ["card"], from_ms=0, to_ms=2 * NOON_MS))

    newest = DeltaTable(address)
    newest.create_checkpoint()
    for version in range(newest.version()):
        (tmp_path / "table" / "_delta_log" / f"{version:020d}.json").unlink()
    anew = FileHistory(address)
    anew.keep_versions(tmp_path / "versions.json")
    assert 30 == anew.row_count(SOURCE)


def test_deletion_vectors_are_refused_and_only_those(tmp_path: Path) -> None:
    """A table that may have them is read as long as it has none; a vector leaves rows in files that are not its own."""
    write_deltalake(tmp_path, random_payments(60))
    enable_deletion_vectors(tmp_path)
    assert values(random_payments(60)).equals(values(tmp_path))

    delete_with_vector(tmp_path, [1, 4])
    assert 58 == pa.table(DeltaTable(tmp_path).scan()).num_rows, "delta-rs reads the vector as we wrote it"
    with pytest.raises(InvalidRequest, match="uses deletion vectors") as caught:
        values(tmp_path)
    assert "REORG TABLE ... APPLY (PURGE)" in caught.value.hint


def test_what_a_table_means_by_something_new_is_not_guessed(tmp_path: Path) -> None:
    """Columns with other names in the files, and features that are not known here."""
    for name in ("mapped", "widened"):
        write_deltalake(tmp_path / name, random_payments(10))
    first = (tmp_path / "mapped" / "_delta_log" / f"{0:020d}.json").read_text().splitlines()
    metadata = next(json.loads(line) for line in first if line.startswith('{"metaData"'))
    metadata["metaData"]["configuration"] = {"delta.columnMapping.mode": "name"}
    commit(tmp_path / "mapped", metadata)
    features = {"readerFeatures": ["typeWidening"], "writerFeatures": ["typeWidening"]}
    commit(tmp_path / "widened", {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}})

    with pytest.raises(InvalidRequest, match="uses column mapping"):
        values(str(tmp_path / "mapped"))
    with pytest.raises(InvalidRequest, match="uses typeWidening"):
        values(str(tmp_path / "widened"))


def test_equality_deletes_are_refused(tmp_path: Path) -> None:
    """Pyiceberg does not read them, and without them rows would be there that were deleted."""
    table = write_iceberg(tmp_path, random_payments(20))
    pq.write_table(pa.table({"payment_id": ["p3"]}), tmp_path / "deletes.parquet")
    delete_from_iceberg(table, str(tmp_path / "deletes.parquet"), DataFileContent.EQUALITY_DELETES, [1])

    with pytest.raises(InvalidRequest, match="has equality deletes") as caught:
        values(table.metadata_location)
    assert "rewrite_data_files" in caught.value.hint


def test_files_of_a_delta_table_are_not_read_without_it(tmp_path: Path) -> None:
    """Neither a directory above it nor one inside; a file by its name, and a directory beside it, are."""
    rows = random_payments(30)
    as_delta(tmp_path / "lake" / "table", rows)
    (tmp_path / "files").mkdir()
    pq.write_table(rows, tmp_path / "files" / "rows.parquet")
    inside = next((tmp_path / "lake" / "table").glob("market=a*"))

    for directory in (tmp_path / "lake", inside):
        with pytest.raises(InvalidRequest, match="has files of the Delta table") as caught:
            open_dataset(directory)
        assert "name the table's directory" == caught.value.hint
    assert 30 == open_dataset(tmp_path / "files").count_rows()
    assert not is_table(tmp_path / "files")
    assert open_dataset(next(inside.iterdir())).count_rows() > 0


@WRITERS
def test_a_column_that_is_missing_is_named(write: Write, tmp_path: Path) -> None:
    """With the one that was meant, before anything is read."""
    rows = random_payments(30)
    renamed = rows.rename_columns(["amounts" if name == "amount" else name for name in rows.column_names])

    with pytest.raises(InvalidRequest, match='the history of source "payments" has no column "amount"') as caught:
        values(write(tmp_path, renamed))
    assert 'did you mean "amounts"?' in caught.value.hint


def test_an_iceberg_table_is_found_by_each_of_its_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata file, directory, hint, catalog; a name that could mean two versions is refused."""
    table = write_iceberg(tmp_path, random_payments(20), random_payments(20))
    directory = tmp_path / "bank" / "payments"
    metadata = directory / "metadata"
    first = next(metadata.glob("00001-*.metadata.json"))
    monkeypatch.setenv("PYICEBERG_CATALOG__TESTS__URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__TESTS__TYPE", "sql")
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())

    newest = [str(directory), table.metadata_location, "iceberg://tests/bank.payments"]
    assert [40] * 3 == [open_dataset(address).count_rows() for address in newest]
    assert 20 == open_dataset(first).count_rows()
    with pytest.raises(InvalidRequest, match='there is no Iceberg table "iceberg://tests/bank'):
        open_dataset("iceberg://tests/bank.refunds")
    with pytest.raises(InvalidRequest, match="names no table of a catalog"):
        open_dataset("iceberg://tests")

    (metadata / "00002-another.metadata.json").write_bytes(first.read_bytes())
    with pytest.raises(InvalidRequest, match="the newest metadata file of Iceberg table"):
        open_dataset(directory)
    (metadata / "v7.metadata.json").write_bytes(first.read_bytes())
    (metadata / "version-hint.text").write_text("7\n")
    assert 20 == open_dataset(directory).count_rows()


def test_tables_of_an_object_store_are_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the address that Arrow takes, with its options; files without their table are refused there too."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        options = {"region": "us-east-1", "endpoint_override": f"{host}:{port}", "scheme": "http"}
        pafs.S3FileSystem(**options, allow_bucket_creation=True).create_dir("lake")
        query = "?" + "&".join(f"{name}={value}" for name, value in options.items())
        rows, address = random_payments(30), f"http://{host}:{port}"
        delta = {"AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        for begin in (0, 10):
            write_deltalake("s3://lake/delta", rows.slice(begin), mode="overwrite", storage_options=delta)
        s3 = {"s3.endpoint": address, "s3.region": "us-east-1", "s3.access-key-id": "a", "s3.secret-access-key": "b"}
        catalog = SqlCatalog("tests", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse="s3://lake/ice", **s3)
        catalog.create_namespace("bank")
        iceberg = catalog.create_table("bank.payments", microseconds(rows).schema)
        iceberg.append(microseconds(rows))
        expected = values(rows.slice(10))

        assert expected.equals(values(f"s3://lake/delta{query}"))
        assert expected.equals(values(f"s3a://lake/delta{query}"))
        for found in (iceberg.metadata_location, iceberg.location()):
            assert values(rows).equals(values(found + query))
        with pytest.raises(InvalidRequest, match='has files of the Delta table "lake/delta"'):
            open_dataset(f"s3://lake{query}")
    finally:
        server.stop()


def test_only_wanted_files_are_opened(tmp_path: Path) -> None:
    """Smallest and largest event times are the table's to tell: a file that is out of reach may be broken."""
    old, new = (payments((f"p{at}", at, "c-1", 1, 5, "A")) for at in (-9 * DAY_MS, 0))
    write_deltalake(tmp_path, old)
    (broken,) = tmp_path.glob("*.parquet")
    write_deltalake(tmp_path, new, mode="append")
    broken.write_bytes(b"no Parquet")
    history = FileHistory(tmp_path)

    found = list(history.scan(SOURCE, ["amount"], from_ms=NOON_MS - HOUR_MS, to_ms=NOON_MS + 1))

    assert 1 == sum(batch.num_rows for batch in found)
    with pytest.raises(Unavailable, match="cannot be read"):
        list(history.scan(SOURCE, ["amount"], from_ms=0, to_ms=NOON_MS + 1))


@WRITERS
def test_the_table_of_a_plain_view_can_be_one_too(write: Write, tmp_path: Path) -> None:
    """The newest row at or before the label, of the table as it is now."""
    key, tier = Column("card", ValueType.STRING), Column("market", ValueType.STRING)
    view = PlainViewSpec("profile", (key,), (tier,), None)
    rows = random_payments(60)
    labels = labels_after(0.5).drop_columns("shop")
    repo = replace(repo_of(), plain_views=(view,))
    expected, found = (
        build_training_set(
            repo,
            ["profile:market"],
            labels,
            history=FileHistory({}),
            plain={"profile": PlainHistory(data, "paid_at")},
        )
        for data in (rows, write(tmp_path, rows))
    )

    assert any(expected["market"].to_pylist())
    assert expected.equals(found)


def test_event_times_of_a_topic_table_are_the_logs_own(tmp_path: Path) -> None:
    """A column event_time_ms stands for the source's, as in an event log; rows without a time are no events."""
    rows = payments(("p1", 0, "c-1", 1, 5, "A"), ("p2", 1, "c-1", 1, 7, "B"))
    times = pa.array([NOON_MS, None], pa.int64())
    write_deltalake(tmp_path, rows.drop_columns("paid_at").append_column(EVENT_TIME, times))

    (batch,) = FileHistory(tmp_path).scan(SOURCE, ["payment_id"], from_ms=0, to_ms=2 * NOON_MS)

    assert {"payment_id": ["p1"], EVENT_TIME: [NOON_MS]} == batch.to_pydict()
