"""A real single-node Apache Kafka (KRaft) from its published jars: no Docker, no ZooKeeper, up in two seconds.

The jars come from FEATURESTORE_KAFKA_LIBS, or are fetched once by Maven into a cache directory.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featurestore.online.probe import LOOPBACK, free_port
from featurestore.testing.servers.maven import cached_jars, fetch_jars
from featurestore.testing.servers.process import ServerDidNotStart, ServerProcess, on_free_ports, server_directory

KAFKA_VERSION = "4.1.1"
"""The same in docker-compose.yml."""

LIBS_VARIABLE = "FEATURESTORE_KAFKA_LIBS"
"""Environment variable: directory that holds Kafka's jars."""

START_TIMEOUT_S = 120.0
"""After kill -9 the broker first recovers its log segments."""

PRODUCE_TIMEOUT_S = 60.0

_HEAP = "-Xmx768m"


@dataclass(frozen=True, slots=True)
class KafkaBroker:
    """A running broker.

    Attributes:
        process: to kill and stop it; start again with `restart`.
        bootstrap_servers: "host:port" for clients, kept over restarts.
        directory: its data.
    """

    process: ServerProcess
    bootstrap_servers: str
    directory: Path

    def create_topic(self, name: str, *, partitions: int = 4, settings: Mapping[str, str] | None = None) -> None:
        """Create a topic and wait until clients can use it.

        Args:
            name: topic name.
            partitions: number of partitions.
            settings: topic configuration, such as {"retention.ms": "1000"}.
        """
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(settings or {}))
        admin.create_topics([topic])[name].result(timeout=30)

    def append(self, topic: str, partitions: Sequence[Iterable[bytes]]) -> None:
        """Append records in their order, each once, and wait until the broker has them all.

        Args:
            topic: name of a topic that exists.
            partitions: the records of each partition, from partition 0 on.

        Raises:
            BufferError: the broker takes nothing for a minute.
            AssertionError: it did not take the last ones within a minute.
        """
        from confluent_kafka import Producer

        # Idempotent: offsets are the records' places also after a retry.
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "enable.idempotence": True, "linger.ms": 20})
        for partition, records in enumerate(partitions):
            for record in records:
                try:
                    producer.produce(topic, record, partition=partition)
                except BufferError:
                    producer.poll(PRODUCE_TIMEOUT_S)  # until some of the queue has been delivered
                    producer.produce(topic, record, partition=partition)
        assert producer.flush(PRODUCE_TIMEOUT_S) == 0, "the broker did not take the last records"

    def restart(self) -> None:
        """Start it again on the same port and data, after `process.kill()` or `process.stop()`, and wait."""
        self.process.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the broker answers a request for its metadata."""
        self.process.wait_until(self._answers, timeout_s=START_TIMEOUT_S)

    def _answers(self) -> bool:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        # A client per attempt: librdkafka backs off between connection attempts for longer than the start takes.
        settings: dict[str, str | int | float | bool] = {"bootstrap.servers": self.bootstrap_servers, "log_level": 0}
        try:
            return bool(AdminClient(settings).list_topics(timeout=1).brokers)
        except KafkaException:
            return False


@contextlib.contextmanager
def kafka_broker(settings: Mapping[str, str] | None = None) -> Iterator[KafkaBroker]:
    """A broker with empty topics, data in a temporary directory.

    Args:
        settings: server.properties to add or replace.

    Raises:
        ServerDidNotStart: jars cannot be had, or the broker does not come up.
    """
    libs = kafka_libs()
    with server_directory("kafka") as directory:
        broker = on_free_ports(lambda: _start(libs, Path(tempfile.mkdtemp(dir=directory)), settings or {}))
        try:
            yield broker
        finally:
            broker.process.stop()


def _start(libs: Path, directory: Path, settings: Mapping[str, str]) -> KafkaBroker:
    """A broker that is ready."""
    port = free_port()
    properties = directory / "server.properties"
    lines = {**_server_properties(port, directory), **settings}
    properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    _format_storage(libs, properties)
    command = ("java", _HEAP, "-cp", f"{libs}/*", "kafka.Kafka", str(properties))
    broker = KafkaBroker(ServerProcess("kafka", command, directory), f"{LOOPBACK}:{port}", directory)
    broker.process.start()
    try:
        broker.wait_ready()
    except BaseException:
        broker.process.stop()
        raise
    return broker


def kafka_missing() -> str | None:
    """Why no broker can run here, as a sentence with a remedy; None when one can."""
    if shutil.which("java") is None:
        return "Apache Kafka needs Java 17 or newer: install openjdk-17-jre-headless"
    if LIBS_VARIABLE in os.environ or cached_jars("kafka", KAFKA_VERSION).is_dir() or shutil.which("mvn") is not None:
        return None
    return f"Apache Kafka's jars are fetched by Maven: install maven, or set {LIBS_VARIABLE} to a directory of them"


def kafka_libs() -> Path:
    """Directory of Kafka's jars; fetches them with Maven the first time.

    Raises:
        ServerDidNotStart: there is no Java, no jars and no Maven, or Maven failed.
    """
    missing = kafka_missing()
    if missing is not None:
        raise ServerDidNotStart(missing)
    if LIBS_VARIABLE in os.environ:
        return Path(os.environ[LIBS_VARIABLE])
    return fetch_jars("kafka", "org.apache.kafka:kafka_2.13", version=KAFKA_VERSION)


def _format_storage(libs: Path, properties: Path) -> None:
    """Kafka refuses to start on a data directory without a cluster id."""
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    if cluster_id.startswith("-"):
        cluster_id = "A" + cluster_id[1:]  # it would be read as an option
    tool = ("java", "-cp", f"{libs}/*", "kafka.tools.StorageTool", "format", "--standalone")
    formatted = subprocess.run(
        (*tool, "-t", cluster_id, "-c", str(properties)), capture_output=True, text=True, check=False
    )
    if formatted.returncode != 0:
        raise ServerDidNotStart(f"Kafka's storage could not be formatted\n{formatted.stdout}{formatted.stderr}")


def _server_properties(port: int, directory: Path) -> dict[str, str]:
    controller = f"{LOOPBACK}:{free_port()}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": controller,
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(directory / "data"),
        "auto.create.topics.enable": "false",  # a misspelt topic must fail, not appear
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
    }
