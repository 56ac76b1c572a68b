"""Two topics, computed columns, conditions, undoing events and derived features, from log files to stored values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore.offline.event_log.reader import EventLog
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import Reader
from featurestore.online.redis.store import connect
from featurestore.testing.answers import AnswerValues, stored_answers
from featurestore.wire.entity_key import encode_key
from tests.dataflows.conftest import StartStream
from tests.dataflows.payments import BEGIN_MS, CONFIG, PROJECT, iso
from tests.dataflows.stream_process import ROOT, StreamProcess

REPO = """
from feast import Entity, FileSource, ValueType
from featurestore.definitions.authoring import aggregate, count, derive, kafka_source, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)

events = kafka_source(
    name="events",
    topic="payments",
    columns={
        "payment_id": "string", "paid_at": "timestamp", "card_id": "string", "amount": "bigint", "country": "string",
        "kind": "string",
    },
    event_time="paid_at",
    event_id="payment_id",
    computed={"euro": "amount / 100", "is_large": "euro >= 500", "hour": "extract(hour from paid_at)"},
    more_topics={"chargebacks": {"chargeback_id": "payment_id", "filed_at": "paid_at", "value": "amount"}},
    topic_column="origin",
    history=FileSource(name="events_history", path="data/events.parquet", timestamp_field="paid_at"),
)

spending = stream_view(
    name="spending",
    entities=[card],
    source=events,
    where="origin = 'payments'",
    undo="kind = 'reversal'",
    features=[
        *count(over="1d"),
        *aggregate("amount", "sum", over="1d"),
        *aggregate("euro", "sum", over="1d"),
        *count(over="1d", where="is_large", name="large"),
        *derive("large_share", "large_1d / count_1d"),
    ],
)
disputes = stream_view(
    name="disputes",
    entities=[card],
    source=events,
    features=[
        *count(over="1d", where="origin = 'chargebacks'", name="chargebacks"),
        *aggregate("amount", ["sum", "max"], over="1d", where="origin = 'chargebacks'"),
        *count(over="1d", where="hour < 6", name="at_night"),
    ],
)
"""

PAYMENTS = [
    {"payment_id": "p1", "paid_at": BEGIN_MS, "card_id": "a", "amount": 60_000, "country": "DE", "kind": "sale"},
    {"payment_id": "p2", "paid_at": BEGIN_MS + 1_000, "card_id": "a", "amount": 500, "country": "SE", "kind": "sale"},
    {"payment_id": "p3", "paid_at": BEGIN_MS + 2_000, "card_id": "a", "amount": 500, "kind": "reversal"},
    {"payment_id": "p4", "paid_at": BEGIN_MS + 3_000, "card_id": "b", "amount": None, "kind": None},
]
CHARGEBACKS = [
    {"chargeback_id": "c1", "filed_at": BEGIN_MS + 5_000, "card_id": "a", "value": 60_000},
    {"chargeback_id": "c2", "filed_at": BEGIN_MS + 6_000, "card_id": "a", "value": -5},
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repo, applied as users apply it."""
    directory = tmp_path_factory.mktemp("repo")
    (directory / "data").mkdir()
    (directory / "feature_store.yaml").write_text(CONFIG)
    (directory / "definitions.py").write_text(REPO)
    command = [sys.executable, "-m", "featurestore", "apply", "--repo", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "data" / "registry.db"


def test_two_topics_with_conditions_reach_the_store(
    start_stream: StartStream, tmp_path: Path, redis_url: str, registry: Path
) -> None:
    """Each view takes its own events of both topics, and every value is what it is by hand."""
    write_log(tmp_path / "log")

    stream = start_stream("--log-dir", str(tmp_path / "log"), "--until-end", use_registry=registry)

    assert 0 == stream.wait(), stream.output
    is_night = int(iso(BEGIN_MS)[11:13]) < 6
    expected = {
        ("spending", "a"): {
            "count_1d": 1,
            "amount_sum_1d": 60_000,
            "euro_sum_1d": 600.0,
            "large_1d": 1,
            "large_share": 1.0,
        },
        ("spending", "b"): {"count_1d": 1, "amount_sum_1d": 0, "euro_sum_1d": 0.0, "large_1d": 0, "large_share": 0.0},
        ("disputes", "a"): {
            "chargebacks_1d": 2,
            "amount_sum_1d": 59_995,
            "amount_max_1d": 60_000,
            "at_night_1d": 5 if is_night else 0,
        },
    }
    for (view, card), values in expected.items():
        assert values == _stored(redis_url, view, card), (view, card)


def test_two_topics_are_logged_into_one_event_log(tmp_path: Path, registry: Path) -> None:
    """With the columns mapped; what a topic does not have is null."""
    write_log(tmp_path / "log")
    options = ("--event-log", str(tmp_path / "event_log"), "--log-dir", str(tmp_path / "log"), "--until-end")

    run = StreamProcess(tmp_path, registry, "", *options, program=("-m", "dataflows.log_to_table"))

    assert 0 == run.wait(), run.output
    log = EventLog(tmp_path / "event_log" / "events")
    rows = [row for batch in log.scan(["topic", "payment_id", "amount", "kind"]) for row in batch.to_pylist()]
    expected = [("payments", one["payment_id"], one["amount"], one["kind"]) for one in PAYMENTS]
    expected += [("chargebacks", one["chargeback_id"], one["value"], None) for one in CHARGEBACKS]
    assert sorted(map(str, expected)) == sorted(str(tuple(row.values())) for row in rows)
    assert {("payments", 0): 4, ("chargebacks", 0): 2} == log.positions()


def write_log(directory: Path) -> None:
    """Both topics, as their producers write them."""
    for topic, records in (("payments", PAYMENTS), ("chargebacks", CHARGEBACKS)):
        (directory / topic).mkdir(parents=True)
        lines = [json.dumps({**one, **_times(one)}) + "\n" for one in records]
        (directory / topic / "0.jsonl").write_text("".join(lines))


def _times(record: dict[str, object]) -> dict[str, str]:
    """Times of a record as its producer writes them."""
    return {name: iso(int(str(record[name]))) for name in ("paid_at", "filed_at") if name in record}


def _stored(url: str, view: str, card: str) -> AnswerValues:
    """What a lookup a minute later says of a card, by feature name; derived features included."""
    store = connect(url)
    catalog = GenerationCatalog(store, PROJECT)
    generation = catalog.serving(view)
    assert generation is not None
    reader = Reader(store, catalog.lane_count())
    [found] = stored_answers(reader, generation, [encode_key([card])], BEGIN_MS + 60_000)
    store.close()
    return found
