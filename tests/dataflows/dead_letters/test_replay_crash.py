"""Dead letters replayed on a real Kafka and Redis, killed in the middle: each record counts once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from dataflows.dead_letters.book import REPLAY_HEADER
from dataflows.dead_letters.writer import TOPIC_SUFFIX
from featurestore.testing.servers import KafkaBroker
from tests.dataflows.conftest import StartStream, applied_repo
from tests.dataflows.payments import PROJECT, REPO, TOPIC, assert_every_value_is_exact, make_payments
from tests.dataflows.stream_process import ROOT

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

RECORDS, PARTITIONS, KILLS = 3_000, 4, 5
WRONG = 'event_time="paid_at", format="json_schema", registry="http://127.0.0.1:9",'
"""What no record of plain JSON begins with is the id of a schema: every one is a letter."""


@pytest.fixture
def topic(kafka: KafkaBroker) -> Iterator[KafkaBroker]:
    """The broker, with an empty topic of payments that is gone after the test, as are its letters."""
    kafka.create_topic(TOPIC, partitions=PARTITIONS)
    yield kafka
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(TOPIC)]
    for deletion in admin.delete_topics(names, operation_timeout=30).values():
        deletion.result(timeout=30)


def test_letters_that_are_replayed_through_kills_count_once(
    start_stream: StartStream, topic: KafkaBroker, redis_url: str, tmp_path: Path
) -> None:
    """The source's format was wrong and is mended: whatever the kills hit, each letter's record comes once more."""
    repo = REPO.replace('dedup_horizon="1h"', 'dedup_horizon="7d"')
    broken = applied_repo(tmp_path / "broken", repo=repo.replace('event_time="paid_at",', WRONG))
    mended = applied_repo(tmp_path / "mended", repo=repo)
    made = make_payments(RECORDS, seed=5, partitions=PARTITIONS)
    topic.append(TOPIC, made.records)
    options = ["--bootstrap-servers", topic.bootstrap_servers, "--until-end"]
    stream = start_stream(*options, use_registry=broken)
    assert stream.wait() == 0, stream.output
    words = ["--registry", str(mended), "--bootstrap-servers", topic.bootstrap_servers]
    sound = sum(map(len, made.records)) - made.bad

    refused = command("count", *words, "--format", "json")
    draw = random.Random(1)
    for _ in range(KILLS):
        kill_in_the_middle("replay", *words, after_s=draw.uniform(2.0, 6.0))
    last = json.loads(command("replay", *words, "--format", "json", code=1))
    again = json.loads(command("replay", *words, "--format", "json", code=1))

    assert sum(map(len, made.records)) == sum(row["letters"] for row in json.loads(refused))
    assert {"undecodable"} == {row["reason"] for row in json.loads(refused)}
    assert (0, made.bad) == (again["replayed"], len(last["unfit"]))
    copies = replayed_places(topic)
    assert sound == len(copies) == len(set(copies))
    stream = start_stream(*options, use_registry=mended)
    assert stream.wait() == 0, stream.output
    assert_every_value_is_exact(redis_url, made)


def command(*words: str, code: int = 0) -> str:
    """What a command of dead letters prints."""
    done = subprocess.run(words_of(*words), cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def kill_in_the_middle(*words: str, after_s: float) -> None:
    """Begin a command, and kill it some time later, wherever it is then."""
    process = subprocess.Popen(words_of(*words), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def words_of(*words: str) -> list[str]:
    """A command line."""
    return [sys.executable, "-m", "featurestore", "dead-letters", words[0], "--project", PROJECT, *words[1:]]


def environment() -> dict[str, str]:
    """Nothing that this machine may have set."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FEATURESTORE_LOG")}


def replayed_places(broker: KafkaBroker) -> list[str]:
    """First places of all records that a reader of what is committed finds replayed."""
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap_servers, "group.id": "copies", "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])
    found: list[str] = []
    ended: set[int] = set()
    deadline = time.monotonic() + 60
    while len(ended) < PARTITIONS and time.monotonic() < deadline:
        for message in consumer.consume(1_000, timeout=0.1):
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add(message.partition() or 0)
                continue
            headers = dict(message.headers() or [])
            if REPLAY_HEADER in headers:
                place = headers[REPLAY_HEADER]
                found.append(place.decode() if isinstance(place, bytes) else str(place))
    consumer.close()
    assert TOPIC_SUFFIX not in "".join(found)
    return found
