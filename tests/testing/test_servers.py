"""The real servers of the kit start, survive being killed, and leave nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from featurestore.online.probe import ask
from featurestore.testing.servers import (
    KafkaBroker,
    ServerDidNotStart,
    ServerProcess,
    kafka_broker,
    kafka_missing,
    redis_cluster,
    redis_server,
)


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_redis_server_ends_with_its_block_and_takes_its_data_along() -> None:
    """Neither process nor directory remains."""
    with redis_server() as server:
        pid, directory = server.process.pid, server.directory
        assert ask(server.port, "PING") == b"+PONG"

    assert not _is_alive(pid)
    assert not directory.exists()


def test_a_killed_redis_server_comes_back_with_its_append_only_file() -> None:
    """kill, restart: same port, same data when persistence was asked for."""
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        ask(server.port, "SET", "key", "value")
        server.process.kill()
        server.restart()

        assert ask(server.port, "GET", "key") == b"value"


def test_a_redis_server_can_be_put_back_to_an_older_copy(tmp_path: Path) -> None:
    """save_copy and load_copy play a restore from backup."""
    with redis_server() as server:
        ask(server.port, "SET", "key", "old")
        server.save_copy(tmp_path / "copy.rdb")
        ask(server.port, "SET", "key", "new")
        server.load_copy(tmp_path / "copy.rdb")

        assert ask(server.port, "GET", "key") == b"old"


def test_a_cluster_serves_every_slot_from_its_own_node() -> None:
    """A key of another node is answered with MOVED, one of its own with its value."""
    with redis_cluster(3) as cluster:
        replies = [ask(node.port, "SET", "{lane-1}key", "value") for node in cluster.nodes]

        assert sorted(reply.split()[0] for reply in replies) == [b"+OK", b"-MOVED", b"-MOVED"]
        cluster.flush()


def test_a_server_that_dies_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    """The error carries what the server said."""
    process = ServerProcess("liar", ("sh", "-c", "echo no such option; exit 3"), tmp_path)
    process.start()

    with pytest.raises(ServerDidNotStart, match="no such option"):
        process.wait_until(lambda: False, timeout_s=30)


@pytest.mark.kafka
def test_kafka_keeps_what_it_was_sent(kafka: KafkaBroker) -> None:
    """A record produced to a new topic is consumed from offset 0."""
    kafka.create_topic("kit_round_trip", partitions=1)
    kafka.append("kit_round_trip", [[b"payload"]])
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "kit", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["kit_round_trip"])

    messages = consumer.consume(1, timeout=30)
    consumer.close()

    assert [(message.value(), message.offset()) for message in messages] == [(b"payload", 0)]


@pytest.mark.kafka
def test_kafka_is_sent_more_than_a_producer_holds_back(kafka: KafkaBroker) -> None:
    """A producer's queue takes 100,000 records, then it refuses; none is lost and none comes twice."""
    count = 110_000
    kafka.create_topic("kit_crowd", partitions=1)
    kafka.append("kit_crowd", [(b"%d" % number for number in range(count))])
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "kit"})
    consumer.assign([TopicPartition("kit_crowd", 0, count - 1)])

    messages = consumer.consume(2, timeout=2)
    consumer.close()

    assert [(b"%d" % (count - 1), count - 1)] == [(message.value(), message.offset()) for message in messages]


@pytest.mark.kafka
@pytest.mark.slow
def test_a_killed_kafka_comes_back_with_its_topics() -> None:
    """Kill -9, restart: same address, same records."""
    missing = kafka_missing()
    if missing is not None and os.environ.get("CI") != "true":
        pytest.skip(missing)
    with kafka_broker() as broker:
        broker.create_topic("survivor", partitions=1)
        broker.append("survivor", [[b"payload"]])
        broker.process.kill()
        broker.restart()
        consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "kit"})

        assert consumer.list_topics(timeout=30).topics["survivor"].partitions.keys() == {0}
        consumer.close()
