"""`featurestore lookup --entities`: every row of a file with its features, as single lookups answer them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from featurestore.cli.lookup.command import command
from featurestore.cli.main import main
from featurestore.errors import InvalidRequest, OnlineStoreDown
from featurestore.online.redis.store import RedisStore
from featurestore.serving.client import vector_file
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.habits import CARDS, write_habits
from tests.serving.habits import REPO as HABITS_REPO
from tests.serving.payments import HOUR_MS, NOW_MS, PAYMENT, Payments, RegistryInMemory
from tests.serving.request_features import BY_PYTHON, CHECKS, ROWS, repo_with, server_of
from tests.serving.store_reads import Groups, before_lookup_reads

Capture = pytest.CaptureFixture[str]
NOW = datetime.fromtimestamp(NOW_MS / 1_000, tz=UTC)


def look_up(server: FeatureServer, service: str, entities: Path, out: Path, *options: str) -> Result:
    """The command, as a job runs it."""
    files = ["--entities", str(entities), "--out", str(out), "--address", f"127.0.0.1:{server.port}"]
    return CliRunner().invoke(command, [service, *files, *options], catch_exceptions=False)


def rows_of(columns: dict[str, Any], path: Path, *, row_group_rows: int = 700) -> Path:
    """A Parquet file."""
    pq.write_table(pa.table(columns), path, row_group_size=row_group_rows)
    return path


def comparable(value: Any) -> Any:
    """A value of either side: maps of Arrow are lists of pairs, moments are datetimes, and NaN equals itself."""
    if isinstance(value, datetime):
        return round(value.timestamp() * 1_000)
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return dict(value)
    if isinstance(value, list):
        return [comparable(each) for each in value]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def test_every_row_has_the_features_of_a_lookup(
    server: FeatureServer, client: LookupClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the file, its own columns kept, whatever its row groups and those that are written."""
    monkeypatch.setattr(vector_file, "ROW_GROUP_ROWS", 900)
    count = 2_300
    rng = np.random.default_rng(7)
    cards = [f"c-{number}" for number in rng.integers(0, 4, count)]
    merchants = rng.integers(5, 9, count).tolist()
    given = {"score": rng.random(count), "card_id": cards, "merchant_id": merchants, "label": [None] * count}
    entities, out = rows_of(given, tmp_path / "rows.parquet"), tmp_path / "vectors.parquet"

    done = look_up(server, "fraud_detection", entities, out, "--statuses", "--as-of-column", "read_at")

    assert (0, f"{out}: 2,300 rows, 16 features\n") == (done.exit_code, done.output)
    found, before = pq.read_table(out), pq.read_table(entities)
    expected = [
        client.lookup("fraud_detection", {"card_id": cards[at : at + 1_000], "merchant_id": merchants[at : at + 1_000]})
        for at in range(0, count, 1_000)
    ]
    assert found.select(before.column_names).equals(before)
    assert {NOW} == set(found.column("read_at").to_pylist())
    for name in expected[0].names:
        values = [comparable(each) for result in expected for each in result.to_dict()[name]]
        assert values == [comparable(each) for each in found.column(name).to_pylist()], name
        statuses = [each.name for result in expected for each in result.status(name)]
        assert statuses == found.column(f"{name}__status").to_pylist()
    assert pq.ParquetFile(out).metadata.num_row_groups < 4


@pytest.mark.parametrize("io", ["sync", "aio"])
def test_lists_maps_and_their_nulls_are_columns_too(
    store: RedisStore, clock: ManualClock, tmp_path: Path, io: str
) -> None:
    """Of every type; null is not empty."""
    write_habits(Payments(store, clock))
    server = FeatureServer(RegistryInMemory(HABITS_REPO), store, clock, ServerSettings(port=0, io=io))
    entities, out = rows_of({"card_id": CARDS}, tmp_path / "rows.parquet"), tmp_path / "vectors.parquet"
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
        expected = client.lookup("card_review", {"card_id": CARDS}).to_dict()
    done = look_up(server, "card_review", entities, out)
    server.stop(drain_seconds=1.0)

    assert 0 == done.exit_code
    found = pq.read_table(out)
    assert ["card_id", *expected] == found.column_names
    for name, values in expected.items():
        # An empty map of Arrow is a list without pairs.
        plain = [[] if each == {} else comparable(each) for each in values]
        assert plain == [comparable(each) for each in found.column(name).to_pylist()], name


def test_a_csv_is_read_as_what_it_is(server: FeatureServer, client: LookupClient, tmp_path: Path) -> None:
    """Keys of text stay texts, integers that pandas made floats are integers, and other columns are as Arrow reads."""
    entities, out = tmp_path / "rows.csv", tmp_path / "vectors.parquet"
    entities.write_text("card_id,merchant_id,note\nc-1,7.0,1\n007,8,2\nc-2, 7 ,3\n")

    done = look_up(server, "fraud_detection", entities, out, "--feature", "merchant_activity:count_lifetime")

    assert 0 == done.exit_code
    expected = client.lookup("fraud_detection", {"card_id": ["c-1", "007", "c-2"], "merchant_id": [7, 8, 7]})
    name = next(each for each in expected.names if each.endswith("count_lifetime"))
    assert {
        "card_id": ["c-1", "007", "c-2"],
        "merchant_id": [7, 8, 7],
        "note": [1, 2, 3],
        name: expected.to_dict()[name],
    } == pq.read_table(out).to_pydict()


def test_rows_can_be_asked_as_of_a_moment(server: FeatureServer, client: LookupClient, tmp_path: Path) -> None:
    """The same for all."""
    entities, out = rows_of({"merchant_id": [7, 8]}, tmp_path / "rows.parquet"), tmp_path / "vectors.parquet"
    moment_ms = NOW_MS - 3_600_000

    done = look_up(server, "merchant_monitoring", entities, out, "--as-of", str(moment_ms), "--as-of-column", "at")

    assert 0 == done.exit_code
    expected = client.lookup("merchant_monitoring", {"merchant_id": [7, 8]}, as_of_ms=moment_ms).to_dict()
    found = pq.read_table(out).to_pydict()
    assert [moment_ms] * 2 == [comparable(each) for each in found.pop("at")]
    assert {"merchant_id": [7, 8], **expected} == found


def test_a_file_without_rows_makes_one_without_rows(server: FeatureServer, tmp_path: Path) -> None:
    """With all its columns: what comes next need not know."""
    entities = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"merchant_id": pa.array([], pa.int64())}), entities)

    done = look_up(server, "merchant_monitoring", entities, tmp_path / "vectors.parquet", "--statuses")

    found = pq.read_table(tmp_path / "vectors.parquet")
    assert (0, 0) == (done.exit_code, found.num_rows)
    assert ["merchant_id", "count_1h", "count_1h__status"] == found.column_names[:3]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", "merchant_id\n7\n", 'has no column "card_id"'),
        ("rows.csv", "card_id,merchant_id\n" + "c-1,7\n" * 1_500 + "c-1,seven\n", 'row 1500 of column "merchant_id"'),
        ("rows.csv", "card_id,merchant_id\n" + "c-1,7\n" * 1_500 + "c-1,\n", 'row 1500 of column "merchant_id" has no'),
        ("rows.csv", "card_id,merchant_id,risk_tier\nc-1,7,low\n", 'there would be 2 columns "risk_tier"'),
        ("rows.parquet", "this is no Parquet", "cannot be read"),
        ("rows.csv", "card_id,merchant_id\nc-1,7\nc-1\n", "cannot be read"),
    ],
    ids=["a key is missing", "no integer", "no value", "a name twice", "no Parquet", "a short line"],
)
def test_what_cannot_be_looked_up_is_said_and_leaves_no_file(
    server: FeatureServer, tmp_path: Path, capsys: Capture, name: str, content: str, said: str
) -> None:
    """Exit code 1, and nothing in the place of an earlier file."""
    (tmp_path / name).write_text(content)
    out = tmp_path / "vectors.parquet"
    out.write_text("of yesterday")

    files = ["--entities", str(tmp_path / name), "--out", str(out), "--address", f"127.0.0.1:{server.port}"]
    code = main(["lookup", "fraud_detection", *files])

    assert 1 == code
    assert said in capsys.readouterr().err
    assert "of yesterday" == out.read_text()
    assert {name, "vectors.parquet"} == {each.name for each in tmp_path.iterdir()}


def test_a_job_that_fails_in_the_middle_leaves_nothing(
    server: FeatureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The store is away for longer than --timeout; the error says which thousand rows had no answer."""
    entities = rows_of({"merchant_id": list(range(3_000))}, tmp_path / "rows.parquet", row_group_rows=1_000)
    reads: list[Groups] = []

    def fail_after_one(groups: Groups, _timeout_ms: float) -> None:
        reads.append(groups)
        if len(reads) > 1:
            raise OnlineStoreDown("the store is away")

    before_lookup_reads(monkeypatch, fail_after_one)
    files = ["--entities", str(entities), "--out", str(tmp_path / "vectors.parquet")]
    code = main(["lookup", "merchant_monitoring", *files, "--timeout", "0.5", "--address", f"127.0.0.1:{server.port}"])

    assert 1 == code
    said = capsys.readouterr().err
    assert "batch 1: " in said
    assert "the store is away" in said
    assert [entities] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--entities", "{rows}"],
        ["--entities", "{rows}", "--out", "{rows}"],
        ["--entities", "{rows}", "--out", "vectors.csv"],
        ["--entities", "{rows}", "--out", "vectors.parquet", "merchant_id=7"],
        ["merchant_id=7", "--out", "vectors.parquet"],
        ["merchant_id=7", "--statuses"],
        ["merchant_id=7", "--include-event", "events"],
        ["merchant_id=7", "--full-names"],
        ["--entities", "{rows}", "--out", "vectors.parquet", "--include-event", "events", "--as-of", "2026-01-01"],
    ],
)
def test_options_that_do_not_belong_together_are_refused(
    server: FeatureServer, tmp_path: Path, arguments: list[str]
) -> None:
    """Exit code 2."""
    rows = rows_of({"merchant_id": [7]}, tmp_path / "rows.parquet")
    given = [each.replace("{rows}", str(rows)) for each in arguments]
    done = CliRunner().invoke(command, ["merchant_monitoring", *given, "--address", f"127.0.0.1:{server.port}"])

    assert 2 == done.exit_code


@pytest.fixture
def checks(payments: Payments, clock: ManualClock) -> Iterator[FeatureServer]:
    """A server whose service "with_request" reads columns of the request."""
    with server_of(repo_with(CHECKS, BY_PYTHON), payments, clock) as server:
        yield server


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_features_of_the_request_read_columns_of_the_file(checks: FeatureServer, tmp_path: Path, ending: str) -> None:
    """By name and as their types, however long their texts are; a column that no feature needs may be missing."""
    rows = {name: list(values) for name, values in ROWS.items()}
    rows["country"][1] = "007" if ending == "csv" else "x" * 9_000
    if ending == "csv":
        rows["country"][2] = ""  # which a CSV does not tell from null
    moments = [value and datetime.fromtimestamp(value / 1_000, tz=UTC) for value in rows["paid_at"]]
    table = pa.concat_tables([pa.table({**rows, "paid_at": moments})] * (150 if ending == "parquet" else 1))
    entities, out = tmp_path / f"rows.{ending}", tmp_path / "vectors.parquet"
    if ending == "csv":
        pa.csv.write_csv(table, entities)
    else:
        pq.write_table(table, entities)

    done = look_up(checks, "with_request", entities, out, "--statuses")

    assert 0 == done.exit_code, done.output
    found = pq.read_table(out)
    assert table.num_rows == found.num_rows
    with LookupClient(f"127.0.0.1:{checks.port}", timeout_s=30) as client:
        for row in range(4):
            keys = {name: rows[name][row] for name in ("card_id", "merchant_id")}
            request = {name: values[row] for name, values in rows.items() if name not in keys}
            single = client.lookup("with_request", keys, request=request)
            for name, [value] in single.to_dict().items():
                for at in (row, found.num_rows - 4 + row):
                    assert comparable(value) == comparable(found.column(name)[at].as_py()), (name, at)
                    assert single.status(name)[0].name == found.column(f"{name}__status")[at].as_py()


def test_rows_that_are_events_count_their_own(server: FeatureServer, client: LookupClient, tmp_path: Path) -> None:
    """As a lookup with the payment in flight does, each at its own time, under the names of the source."""
    count, kinds = 1_100, 11
    moments = [datetime.fromtimestamp((NOW_MS - row % kinds * HOUR_MS) / 1_000, tz=UTC) for row in range(count)]
    given: dict[str, Any] = {
        "card_id": [f"c-{row % kinds % 4}" for row in range(count)],
        "merchant_id": [row % kinds % 3 + 6 for row in range(count)],
        "event_time": moments,
        "amount": [None if row % kinds == 1 else row % kinds * 100 for row in range(count)],
        "price": [float("nan") if row % kinds == 2 else row % kinds / 3 for row in range(count)],
        "market": [["SE", "DE", None][row % kinds % 3] for row in range(count)],
        "is_declined": [row % kinds == 4 for row in range(count)],
        "opened_at": [moment - timedelta(days=400) for moment in moments],
    }
    entities, out = rows_of(given, tmp_path / "rows.parquet"), tmp_path / "vectors.parquet"

    options = ["--include-event", "events", "--as-of-column", "read_at"]
    with pytest.raises(InvalidRequest, match='there would be 2 columns "opened_at"'):
        look_up(server, "fraud_detection", entities, out, *options)
    done = look_up(server, "fraud_detection", entities, out, *options, "--full-names")

    assert 0 == done.exit_code, done.output
    found = pq.read_table(out).to_pydict()
    assert moments == found["read_at"]
    views = client.describe("fraud_detection").views
    for row in range(kinds):
        payment = {name: values[row] for name, values in given.items() if name not in ("card_id", "merchant_id")}
        keys = {name: given[name][row] for name in ("card_id", "merchant_id")}
        [single] = client.lookup("fraud_detection", keys, events={"events": payment}).rows()
        for feature in client.describe("fraud_detection").features:
            name = feature.name if "__" in feature.name else f"{views[feature.view].name}__{feature.name}"
            for at in (row, row + kinds):
                assert comparable(single[feature.name]) == comparable(found[name][at]), (name, at)


@pytest.mark.parametrize(
    ("source", "columns", "said"),
    [
        ("event", {}, 'no features of source "event"'),
        ("events", {}, 'has no column "event_time"'),
        ("events", {**PAYMENT, "event_time": None}, 'row 0 of column "event_time" has no value'),
        ("events", {**PAYMENT, "amount": "a"}, 'column "amount" is of type string, not int64'),
    ],
    ids=["no such source", "a column is missing", "no time", "a text"],
)
def test_what_is_wrong_with_events_of_a_file_is_said(
    server: FeatureServer, tmp_path: Path, capsys: Capture, source: str, columns: dict[str, Any], said: str
) -> None:
    """Exit code 1."""
    given = {"card_id": ["c-1"], "merchant_id": [7], **{name: [value] for name, value in columns.items()}}
    files = ["--entities", str(rows_of(given, tmp_path / "rows.parquet")), "--out", str(tmp_path / "vectors.parquet")]
    options = ["--include-event", source, "--full-names", "--address", f"127.0.0.1:{server.port}"]
    code = main(["lookup", "fraud_detection", *files, *options])

    assert 1 == code
    assert said in capsys.readouterr().err


def test_a_column_of_the_request_that_the_file_lacks_is_named(
    checks: FeatureServer, tmp_path: Path, capsys: Capture
) -> None:
    """As a lookup would."""
    rows = {name: values for name, values in ROWS.items() if name != "amount"}
    files = ["--entities", str(rows_of(rows, tmp_path / "rows.parquet")), "--out", str(tmp_path / "vectors.parquet")]
    code = main(["lookup", "with_request", *files, "--address", f"127.0.0.1:{checks.port}"])

    assert 1 == code
    assert 'column "amount" of the request is missing' in capsys.readouterr().err
    assert ["rows.parquet"] == [each.name for each in tmp_path.iterdir()]
