"""The store follows a real Postgres by what Debezium's engine really sends of it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.wire.changes.decoder import decoder_of
from featurestore.wire.payloads import DeadLetterReason
from tests.dataflows.log_to_tiles.test_changes import REPO, counted, seen, stored_of
from tests.dataflows.payments import CONFIG
from tests.dataflows.stream_process import ROOT, StreamProcess
from tests.system.debezium import Connector, Postgres, debezium_missing, postgres_server
from tests.wire.changed_table import BEGIN_MS, HOUR_MS, SOURCE, TOPIC, Row, raw_batch

TABLE = """
create table %s (
    payment_id bigint primary key, paid_at timestamptz not null, card_id text not null, cents bigint not null,
    amount numeric(12, 2) not null, declined boolean not null, note text
);
"""
LONG = "x" * 9_000
"""A text that Postgres keeps beside its table, and leaves out of changes that do not change it."""


def values(draw: random.Random, payment_id: int) -> str:
    """A row, as SQL has it."""
    at = f"to_timestamp({(BEGIN_MS + draw.randrange(2 * HOUR_MS)) / 1_000})"
    note = draw.choice(["null", "'short'", f"'{LONG}'"])
    cents = draw.randrange(20_000)
    return f"({payment_id}, {at}, 'c-{draw.randrange(5)}', {cents}, {cents / 100}, {draw.random() < 0.3}, {note})"


def transactions(draw: random.Random, first: int, count: int) -> str:
    """Whatever services do to a table: statements of one row and of many, rolled back, of new keys, copied."""
    statements = []
    for number in range(first, first + count):
        some = f"payment_id % 7 = {draw.randrange(7)}"
        rows = ", ".join(values(draw, 10 * number + one) for one in range(draw.randint(1, 3)))
        statements += draw.choice(
            [
                [f"insert into payment values {rows}"],
                [f"insert into payment values {rows}", f"update payment set cents = cents + 7 where {some}"],
                [f"update payment set card_id = 'c-{draw.randrange(5)}', declined = not declined where {some}"],
                ["begin", f"delete from payment where {some}", "rollback"],
                ["begin", f"insert into payment values {rows}", f"delete from payment where {some}", "commit"],
                [f"update payment set payment_id = payment_id + 1000000 where {some} and payment_id < 1000"],
                [f"update payment set note = note || '!' where {some}"],
            ]
        )  # fmt: skip
    return ";\n".join(statements) + ";\n"


def marked(postgres: Postgres, connector: Connector, number: int) -> None:
    """Wait until everything that was done so far was sent."""
    postgres.run(
        f"insert into payment values (-{number}, to_timestamp({BEGIN_MS / 1_000}), 'c-9', 1, 1, false, 'mark {number}')"
    )
    connector.wait_for(TOPIC, f"mark {number}")


def table_of(postgres: Postgres) -> list[Row]:
    """What is in the table."""
    columns = "payment_id, (extract(epoch from paid_at) * 1000)::bigint as paid_at, card_id, cents, declined"
    printed = postgres.run(f"select row_to_json(one) from (select {columns} from payment) one")
    return [json.loads(line) for line in printed.splitlines()]


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """An empty server, where there is Postgres at all."""
    missing = debezium_missing()
    if missing:
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with postgres_server() as server:
        yield server


@pytest.mark.slow
def test_the_store_says_what_the_table_says(postgres: Postgres, tmp_path: Path, redis_url: str) -> None:
    """After a snapshot, a hundred transactions, a kill that made the connector repeat, and kills of the stream."""
    draw = random.Random(11)
    postgres.run((TABLE + "alter table %s replica identity full;") % ("payment", "payment"))
    postgres.run(TABLE % "plain")
    postgres.run(transactions(draw, 1, 20))
    connector = Connector(postgres, tmp_path)
    try:
        connector.start(notes_every_ms=0)
        connector.process.wait_until(lambda: bool(connector.lines(TOPIC)), timeout_s=120)
        postgres.run(transactions(draw, 100, 60))
        marked(postgres, connector, 1)
        connector.process.kill()
        connector.start(notes_every_ms=600_000)
        postgres.run(transactions(draw, 200, 60))
        postgres.run("insert into plain select * from payment where payment_id > 0; update plain set cents = 1;")
        postgres.run("update plain set payment_id = -payment_id; delete from plain; truncate plain;")
        marked(postgres, connector, 2)
        connector.process.kill()
        connector.start(notes_every_ms=0)
        postgres.run(transactions(draw, 300, 20))
        marked(postgres, connector, 3)
    finally:
        connector.process.kill()
    rows = table_of(postgres)

    sent = [wrapped for wrapped, bare in connector.lines(TOPIC) if bare]
    places = Counter(
        (one["op"], one["source"]["lsn"], str(one["before"]), str(one["after"])) for one in map(_payload, sent)
    )
    assert places.most_common(1)[0][1] > 1, "nothing was sent twice"
    log = tmp_path / "log" / TOPIC
    log.mkdir(parents=True)
    (log / "0.jsonl").write_text("".join(line + "\n" for line in sent))
    registry = _applied(tmp_path / "repo")
    options = ("--log-dir", str(log.parent), "--batch-records", "7")
    for _ in range(3):
        killed = StreamProcess(tmp_path, registry, redis_url, *options)
        killed.wait_for(" read")
        killed.kill()
    stream = StreamProcess(tmp_path, registry, redis_url, *options, "--until-end")
    assert 0 == stream.wait(), stream.output

    now_ms = BEGIN_MS + 2 * HOUR_MS
    assert len(rows) > 20
    assert counted(rows, now_ms) == seen(stored_of(redis_url, "large", now_ms), stored_of(redis_url, "cards", now_ms))
    _check_plain(connector.lines("shop.public.plain"))


def _check_plain(lines: list[list[str]]) -> None:
    """Of a table whose database logs keys alone nothing but the inserts counts, and the rest says what to do."""
    payloads = [bare.encode() for _, bare in lines]
    decoded = decoder_of(SOURCE, ["is_undo"]).decode(raw_batch(payloads), now_ms=BEGIN_MS * 2)
    ops = Counter(json.loads(one)["op"] for one in payloads if one)

    assert ops["u"] > 0
    assert ops["d"] > 0
    assert ops["c"] == len(decoded.events.offsets)
    assert {DeadLetterReason.UNUSABLE_CHANGE} == {one.reason for one in decoded.dead_letters}
    assert ops["u"] + ops["d"] == sum("REPLICA IDENTITY FULL" in one.detail for one in decoded.dead_letters)
    assert ops["t"] == sum("truncated" in one.detail for one in decoded.dead_letters) > 0


def _payload(line: str) -> Row:
    found: Row = json.loads(line)["payload"]
    return found


def _applied(directory: Path) -> Path:
    """The registry of the repo of changing tables."""
    (directory / "data").mkdir(parents=True)
    (directory / "feature_store.yaml").write_text(CONFIG)
    (directory / "definitions.py").write_text(REPO % "1h")
    command = [sys.executable, "-m", "featurestore", "apply", "--repo", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return directory / "data" / "registry.db"
