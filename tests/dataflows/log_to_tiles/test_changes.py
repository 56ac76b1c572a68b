"""A table that changes: the stream, its bootstrap, history and a foreign table say what the rows that are left say."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.cli.main import main
from featurestore.core.events import KeyedBatch
from featurestore.core.spec import Column, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.definitions.registry import read_registry
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.schema import log_schema, payload_columns, rows_of
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import EventLogHistory, FileHistory, History
from featurestore.online.answer.in_flight.reader import EventReader
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityBytes, EntityRead, Reader
from featurestore.online.redis.store import connect
from featurestore.online.serving_view import serving_views, views_of
from featurestore.testing.answers import AnswerValues, all_of, answer_values, stored_answers
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent, naive_values
from featurestore.testing.writers import open_writer
from featurestore.wire.changes.decoder import decoder_of
from featurestore.wire.entity_key import encode_key
from featurestore.wire.entity_routing import columns_read, key_events, with_computed
from tests.dataflows.conftest import StartStream
from tests.dataflows.payments import CONFIG, PROJECT
from tests.dataflows.stream_process import ROOT, StreamProcess
from tests.offline.training_set.label_tables import repo_of
from tests.wire.changed_table import (
    BEGIN_MS,
    FORMATS,
    HOUR_MS,
    SOURCE,
    TOPIC,
    ChangedTable,
    Row,
    as_json,
    raw_batch,
    registered,
)

LANES = 4
CARDS = [f"c-{number}" for number in range(5)]
TIMES_MS = [BEGIN_MS + at for at in (1, 60_000, HOUR_MS, HOUR_MS + 30_001, 2 * HOUR_MS + 5)]
WINDOWS = {"1h": Window(HOUR_MS, 60_000), "10m": Window(600_000, 1), "lifetime": Window(None)}
VIEW = ViewSpec(
    "cards",
    (Column("card_id", ValueType.STRING),),
    SOURCE,
    tuple(
        feature
        for name, window in WINDOWS.items()
        for feature in (
            FeatureSpec(f"count_{name}", "count", None, window, ValueType.INT64),
            FeatureSpec(f"cents_{name}", "sum", "cents", window, ValueType.INT64),
            FeatureSpec(f"amount_{name}", "sum", "amount", window, ValueType.FLOAT64),
            FeatureSpec(f"mean_{name}", "mean", "amount", window, ValueType.FLOAT64),
            FeatureSpec(f"noted_{name}", "count", "note", window, ValueType.INT64),
            FeatureSpec(f"declined_{name}", "count", None, window, ValueType.INT64, where="declined"),
        )
    ),
    None,
    undo="is_undo",
)

REPO = """
from feast import Entity, FeatureService, FileSource, ValueType
from featurestore.features import aggregate, count, derive, kafka_source, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)

payment = kafka_source(
    name="payment",
    topic="shop.public.payment",
    changes="debezium",
    columns={
        "payment_id": "bigint", "paid_at": "timestamp", "card_id": "string", "cents": "bigint", "amount": "double",
        "declined": "boolean", "note": "string",
    },
    computed={"euro": "cents / 100"},
    event_time="paid_at",
    event_id="payment_id",
    history=FileSource(name="payment_history", path="data/payment.parquet", timestamp_field="paid_at"),
)
cards = stream_view(
    name="cards",
    entities=[card],
    source=payment,
    features=[
        *count(over=["10m", "1h", "lifetime"]),
        *aggregate("cents", "sum", over=["1h", "lifetime"]),
        *aggregate("euro", "mean", over="1h"),
        *count(over="1h", where="declined", name="declined"),
        *derive("declined_share", "declined_1h / nullif(count_1h, 0)"),
    ],
)
large = stream_view(
    name="large",
    entities=[card],
    source=payment,
    where="cents >= 10000",
    features=[*count(over="%s", name="large")],
    storage="own",
)
scoring = FeatureService(name="scoring", features=[cards, large])
"""


def events_of(rows: Sequence[Row], card: str) -> list[NaiveEvent]:
    """The rows of one card as events that were never anything else."""
    mine = [row for row in rows if row["card_id"] == card]
    return [NaiveEvent(card.encode(), row["paid_at"], str(row["payment_id"]).encode(), row) for row in mine]


def by_the_table(view: ViewSpec, rows: Sequence[Row], card: str, as_of_ms: int) -> AnswerValues:
    """What the rows that are there now say."""
    conditions = {"declined": lambda columns: bool(columns["declined"])}
    return naive_values(replace(view, undo=""), events_of(rows, card), as_of_ms, conditions)


def by_history(view: ViewSpec, history: History) -> list[AnswerValues]:
    """What history says of each card at each time."""
    labels = pa.table(
        {
            "card_id": [card for _ in TIMES_MS for card in CARDS],
            "event_timestamp": pa.array([at for at in TIMES_MS for _ in CARDS], pa.timestamp("ms", tz="UTC")),
        }
    )
    found = build_training_set(repo_of(view), "all", labels, history=history)
    rows: list[AnswerValues] = found.select([feature.name for feature in view.features]).to_pylist()
    return rows


@pytest.mark.parametrize("kind", ["json", "avro"])
@given(draw=st.randoms(use_true_random=False), cut=st.integers(1, 60))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_store_and_history_say_what_the_rows_that_are_left_say(
    kind: str, redis_url: str, draw: random.Random, cut: int
) -> None:
    """Whatever was inserted, updated, deleted, and sent again; a reader that starts anew reads it again, too."""
    source, write = FORMATS[kind]
    view = replace(VIEW, source=source)
    table = ChangedTable(draw)
    table.snapshot(draw.randint(0, 5))
    table.change(draw.randint(1, 50))
    store, clock = connect(redis_url), ManualClock(now_ms=BEGIN_MS + 10 * HOUR_MS)
    store.delete(list(store.scan(b"*")))
    catalog = GenerationCatalog(store, "tests")
    catalog.lane_count(LANES)
    generation = catalog.register(view)
    writer = open_writer(store, generation, LANES, clock)
    decoder, logged = (
        decoder_of(source, names, registered()) for names in (columns_read(view), payload_columns(source))
    )
    batches, log = list[KeyedBatch](), list[pa.RecordBatch]()
    for first in range(0, len(table.sent), cut):
        raw = raw_batch([write(one) for one in table.sent[first : first + cut]], first=first)
        events = with_computed(decoder.decode(raw, now_ms=clock.now_ms()).events, [view])
        batches.append(key_events(events, view, LANES))
        writer.write(batches[-1:])
        if draw.random() < 0.2:
            writer = open_writer(store, generation, LANES, clock)
            position = writer.positions().get((TOPIC, 0), 0)
            for batch in batches:
                if batch.next_offset > position:
                    writer.write([batch])
        rows = rows_of(logged.decode(raw, now_ms=clock.now_ms()).events, log_schema(source), ingest_time_ms=0)
        log.append(rows)

    expected = [by_the_table(view, list(table.rows.values()), card, at) for at in TIMES_MS for card in CARDS]
    reader, keys = Reader(store, LANES), [encode_key([card]) for card in CARDS]
    last_ms = BEGIN_MS + 3 * HOUR_MS
    now = [by_the_table(view, list(table.rows.values()), card, last_ms) for card in CARDS]
    assert now == stored_answers(reader, generation, keys, last_ms)
    assert expected == by_history(view, FileHistory(pa.Table.from_batches(log)))
    store.close()


def test_a_payment_in_flight_is_a_row_that_is_done(redis_url: str) -> None:
    """Neither a request nor a label has to say that it takes nothing back."""
    table = ChangedTable(random.Random(5))
    table.change(80)
    payments = decoder_of(SOURCE, payload_columns(SOURCE))
    events = payments.decode(raw_batch([as_json(one) for one in table.sent]), now_ms=BEGIN_MS + 10 * HOUR_MS).events
    store = connect(redis_url)
    catalog = GenerationCatalog(store, "tests")
    catalog.lane_count(LANES)
    generation = catalog.register(VIEW)
    writer = open_writer(store, generation, LANES, ManualClock(now_ms=BEGIN_MS))
    writer.write([key_events(with_computed(events, [VIEW]), VIEW, LANES)])

    selection, at_ms = all_of(views_of(generation)[0]), BEGIN_MS + 2 * HOUR_MS
    [read] = Reader(store, LANES).read([EntityRead(generation, encode_key(["c-1"]))])
    assert isinstance(read, EntityBytes)
    payment: Row = {"paid_at": at_ms, "card_id": "c-1", "cents": 77, "amount": 1.5, "declined": True, "note": "new"}
    taken = EventReader(SOURCE, {0: selection}, {})
    given = {name: ([payment[name]], b"") for name in (*taken.read, "paid_at") if name != "is_undo"}
    seen = taken.take(given, (), 1).seen[0]
    answered = answer_values(VIEW, selection.answer_in_flight(read.body, read.head, seen, 0))
    labels = pa.table(
        {name: [value] for name, value in payment.items() if name != "paid_at"}
        | {"event_timestamp": pa.array([at_ms], pa.timestamp("ms", tz="UTC"))}
    )
    log = pa.Table.from_batches([rows_of(events, log_schema(SOURCE), ingest_time_ms=0)])
    found = build_training_set(repo_of(VIEW), "all", labels, history=FileHistory(log), event_sources=["payment"])
    store.close()

    conditions = {"declined": lambda columns: bool(columns["declined"])}
    mine = events_of(list(table.rows.values()), "c-1")
    flying = NaiveEvent(b"c-1", at_ms, b"new", payment)
    expected = naive_values(replace(VIEW, undo=""), mine, at_ms, conditions, flying)
    assert expected == answered
    assert [expected] == found.select(list(expected)).to_pylist()


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The repo, applied as users apply it, and again after one view was changed."""
    found = []
    for window in ("1h", "2h"):
        directory = tmp_path_factory.mktemp("repo")
        (directory / "data").mkdir()
        (directory / "feature_store.yaml").write_text(CONFIG)
        (directory / "definitions.py").write_text(REPO % window)
        command = [sys.executable, "-m", "featurestore", "apply", "--repo", str(directory)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(directory / "data" / "registry.db")
    return found[0], found[1]


def write_changes(directory: Path, tables: Sequence[ChangedTable], begun: Sequence[int]) -> None:
    """Append what was sent of each partition since some record; tombstones are no lines of a file."""
    (directory / TOPIC).mkdir(parents=True, exist_ok=True)
    for partition, (table, first) in enumerate(zip(tables, begun, strict=True)):
        with (directory / TOPIC / f"{partition}.jsonl").open("ab") as file:
            file.writelines(as_json(one) + b"\n" for one in table.sent[first:] if one is not None)


def stored_of(url: str, view: str, as_of_ms: int) -> list[AnswerValues]:
    """What lookups of all cards say."""
    store = connect(url)
    catalog = GenerationCatalog(store, PROJECT)
    serving = serving_views(catalog.all())[view]
    found = stored_answers(
        Reader(store, catalog.lane_count()), serving, [encode_key([card]) for card in CARDS], as_of_ms
    )
    store.close()
    return found


def counted(rows: Sequence[Row], as_of_ms: int, hours: int = 1) -> list[tuple[int, int, int, float | None, int]]:
    """Large rows of some hours, all and declined of one, their mean in euro, and all: by hand, of each card."""
    found = []
    for card in CARDS:
        mine = [row for row in rows if row["card_id"] == card and row["paid_at"] < as_of_ms]
        begin_ms, large_ms = ((as_of_ms - hour * HOUR_MS) // 60_000 * 60_000 for hour in (1, hours))
        lately = [row for row in mine if row["paid_at"] >= begin_ms]
        large = sum(row["cents"] >= 10_000 and row["paid_at"] >= large_ms for row in mine)
        mean = round(sum(row["cents"] / 100 for row in lately) / len(lately), 6) if lately else None
        found.append((large, len(lately), sum(row["declined"] for row in lately), mean, len(mine)))
    return found


def seen(large: Sequence[AnswerValues], cards: Sequence[AnswerValues], hours: int = 1) -> list[tuple[object, ...]]:
    """The same of what was read."""
    found: list[tuple[object, ...]] = []
    for one, other in zip(large, cards, strict=True):
        mean = other["euro_mean_1h"]
        rounded = round(mean, 6) if isinstance(mean, float) else None
        found.append(
            (one[f"large_{hours}h"], other["count_1h"], other["declined_1h"], rounded, other["count_lifetime"])
        )
    return found


def test_a_changing_table_from_end_to_end(
    start_stream: StartStream, tmp_path: Path, redis_url: str, registries: tuple[Path, Path]
) -> None:
    """Stream, event log, training set, a foreign table that has rows twice, and a bootstrap, all by the rows left."""
    tables = [ChangedTable(random.Random(seed), _next_id=1 + 1_000 * seed) for seed in range(2)]
    log, event_log = tmp_path / "log", tmp_path / "event_log"
    for table in tables:
        table.snapshot(20)
        table.change(150)
    write_changes(log, tables, [0, 0])
    logging = ("--log-dir", str(log), "--event-log", str(event_log), "--until-end")

    def run(*options: str, program: tuple[str, str] = ("-m", "dataflows.log_to_tiles"), of: int = 0) -> StreamProcess:
        return start_stream(*options, program=program, use_registry=registries[of])

    processes = [run("--log-dir", str(log), "--until-end"), run(*logging, program=("-m", "dataflows.log_to_table"))]
    assert [0, 0] == [one.wait() for one in processes], processes[0].output + processes[1].output

    now_ms = BEGIN_MS + 2 * HOUR_MS
    rows = [row for table in tables for row in table.rows.values()]
    assert counted(rows, now_ms) == seen(stored_of(redis_url, "large", now_ms), stored_of(redis_url, "cards", now_ms))

    # A changed view is filled from the event log, and goes on with the changes that come after it.
    where = ["--registry", str(registries[1]), "--project", PROJECT, "--store-url", redis_url]
    assert 0 == main(["bootstrap", "large", "--event-log", str(event_log), *where])
    begun = [len(table.sent) for table in tables]
    for table in tables:
        table.change(60)
    write_changes(log, tables, begun)
    processes = [
        run("--log-dir", str(log), "--until-end", of=1),
        run(*logging, program=("-m", "dataflows.log_to_table")),
    ]
    assert [0, 0] == [one.wait() for one in processes], processes[0].output + processes[1].output

    rows = [row for table in tables for row in table.rows.values()]
    expected = counted(rows, now_ms, 2)
    assert expected == seen(stored_of(redis_url, "large", now_ms), stored_of(redis_url, "cards", now_ms), 2)
    assert expected == by_training_set(registries[1], EventLogHistory(event_log), now_ms)
    assert expected == by_training_set(
        registries[1], FileHistory(foreign_table(event_log, tmp_path / "foreign")), now_ms
    )


def by_training_set(registry: Path, history: History, as_of_ms: int) -> list[tuple[object, ...]]:
    """What a training set says of all cards."""
    times = pa.array([as_of_ms] * len(CARDS), pa.timestamp("ms", tz="UTC"))
    labels = pa.table({"card_id": CARDS, "event_timestamp": times})
    found = build_training_set(read_registry(str(registry), project=PROJECT), "scoring", labels, history=history)
    rows = found.to_pylist()
    return seen(rows, rows, 2)


def foreign_table(event_log: Path, directory: Path) -> str:
    """The rows of the log as a table of somebody else's, whose sink wrote some of them twice."""
    rows = EventLog(event_log / "payment").dataset().to_table()
    write_deltalake(directory, rows.drop_columns(["event_date"] if "event_date" in rows.column_names else []))
    write_deltalake(directory, rows.slice(rows.num_rows // 2), mode="append")
    return str(directory)
