"""Where simulated records go: a Kafka topic, a log directory, or a Parquet file.

    kafka://host:port/topic      one partition key a card; the schema of Avro records goes to a registry
    log:DIR                      DIR/<topic>/<partition>.base64, one Avro record a line, offset = line number from 0;
                                 the schema in DIR/_schemas; of JSON .jsonl
    parquet:FILE                 typed columns

A log directory may be written while it is read: lines are appended whole, and a line without its end is not there yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.definitions.schemas.directory import BASE64_ENDING, JSON_ENDING
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.testing.simulator.avro_payload import AvroPayloadEncoder, embedded_encoder, registered_encoder
from featurestore.testing.simulator.payload import PayloadEncoder, card_id
from featurestore.testing.simulator.population import Population
from featurestore.testing.simulator.rows import Rows
from featurestore.testing.simulator.tables import TRANSACTION_SCHEMA, transaction_table
from featurestore.wire.entity_key import encode_key, lanes_of

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

DEFAULT_TOPIC = "transactions"
DEFAULT_PARTITIONS = 4
DEFAULT_REGISTRY = "http://127.0.0.1:8081/apis/ccompat/v7"
FLUSH_TIMEOUT_S = 60.0


Encoder = PayloadEncoder | AvroPayloadEncoder


class TransactionSink(Protocol):
    """Takes batches of rows in arrival order."""

    def write(self, rows: Rows) -> None:
        """Take N rows; they may be buffered until `close`."""
        ...

    def close(self) -> None:
        """Make sure that everything taken has arrived."""
        ...


def open_sink(
    address: str,
    population: Population,
    *,
    topic: str = DEFAULT_TOPIC,
    partitions: int = DEFAULT_PARTITIONS,
    registry: str = DEFAULT_REGISTRY,
    is_json: bool = False,
) -> TransactionSink:
    """The sink of an address, see the module's head.

    Args:
        address: "kafka://host:port/topic", "log:DIR" or "parquet:FILE".
        population: whose rows will be written.
        topic: name of the log; Kafka's is in the address.
        partitions: of a topic or log that does not exist yet; an existing one keeps its own.
        registry: URL of the registry that Kafka's schema goes to.
        is_json: JSON instead of Avro.

    Raises:
        InvalidRequest: the address is none of these.
        SourceUnavailable: Kafka, or the registry, does not answer.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "log" and rest:
        return LogDirectorySink(Path(rest), population, topic=topic, partitions=partitions, is_json=is_json)
    if scheme == "parquet" and rest:
        return ParquetSink(Path(rest), population)
    bootstrap_servers, _, kafka_topic = rest.removeprefix("//").partition("/")
    if scheme == "kafka" and bootstrap_servers:
        topic = kafka_topic or topic
        encoder = None if is_json else registered_encoder(population, topic, registry)
        return KafkaSink(bootstrap_servers, population, topic=topic, partitions=partitions, encoder=encoder)
    raise InvalidRequest(
        f'"{address}" is not an address of records', hint="write kafka://host:port/topic, log:DIR or parquet:FILE"
    )


class LogDirectorySink:
    """Appends to the partition files of a log directory; records of a card stay in one partition, in order."""

    def __init__(
        self, directory: Path, population: Population, *, topic: str, partitions: int, is_json: bool = False
    ) -> None:
        self._encoder = PayloadEncoder(population) if is_json else embedded_encoder(population, directory, topic)
        folder, ending = directory / topic, JSON_ENDING if is_json else BASE64_ENDING
        folder.mkdir(parents=True, exist_ok=True)
        existing = len(list(folder.glob(f"*{ending}")))
        paths = [folder / f"{partition}{ending}" for partition in range(existing or partitions)]
        self._files: list[BinaryIO] = [_open_after_last_line(path) for path in paths]
        self._partition_of_card = _card_partitions(population, len(paths))

    def write(self, rows: Rows) -> None:
        """Append the rows to their partitions; they can be read when this returns."""
        self._append(self._encoder.lines(rows), self._partition_of_card[rows["card"]])

    def write_records(self, records: Sequence[Mapping[str, object]]) -> None:
        """Append records that somebody made up, by their columns.

        Raises:
            InvalidRequest: one is no transaction.
        """
        lines = self._encoder.lines_of(records)
        keys = [encode_key([str(record.get("card_id"))]) for record in records]
        self._append(lines, lanes_of(keys, len(self._files)))

    def _append(self, lines: Sequence[bytes], partitions: Int64Array) -> None:
        """Append lines to their partitions."""
        for partition, file in enumerate(self._files):
            of_partition = [lines[row] for row in np.flatnonzero(partitions == partition).tolist()]
            if of_partition:
                file.write(b"\n".join(of_partition) + b"\n")
                file.flush()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


class ParquetSink:
    """Writes one file, a row group a batch."""

    def __init__(self, path: Path, population: Population) -> None:
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        self._population = population
        self._writer = pq.ParquetWriter(path, TRANSACTION_SCHEMA)

    def write(self, rows: Rows) -> None:
        """Append a row group."""
        if len(rows):
            self._writer.write_table(transaction_table(self._population, rows))

    def close(self) -> None:
        """Finish the file; before this it cannot be read."""
        self._writer.close()


class KafkaSink:
    """Produces to a topic, which is made when it does not exist; the record's key is the card.

    Args:
        bootstrap_servers: Kafka's addresses.
        population: whose rows will be written.
        topic: to produce to.
        partitions: of one that is made.
        encoder: of the records; by default JSON.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        population: Population,
        *,
        topic: str,
        partitions: int,
        encoder: Encoder | None = None,
    ) -> None:
        from confluent_kafka import Producer

        self._topic = topic
        self._encoder: Encoder = encoder or PayloadEncoder(population)
        self._failure: KafkaError | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 2,
                "queue.buffering.max.messages": 500_000,
                "log_level": 3,
            }
        )
        self._partition_of_card = _card_partitions(population, _ensure_topic(bootstrap_servers, topic, partitions))

    def write(self, rows: Rows) -> None:
        """Hand the rows to the producer; blocks while its buffer is full.

        Raises:
            SourceUnavailable: an earlier record could not be delivered.
        """
        partitions = self._partition_of_card[rows["card"]].tolist()
        cards = rows["card"].tolist()
        for payload, card, partition in zip(self._encoder.encode(rows), cards, partitions, strict=True):
            while True:
                try:
                    self._producer.produce(
                        self._topic, payload, card_id(card), partition=partition, on_delivery=self._on_delivery
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
        self._producer.poll(0)
        self._raise_failure()

    def close(self) -> None:
        """Wait until the broker has everything.

        Raises:
            SourceUnavailable: it does not take it.
        """
        remaining = self._producer.flush(FLUSH_TIMEOUT_S)
        self._raise_failure()
        if remaining:
            raise SourceUnavailable(f'topic "{self._topic}" did not take {remaining} records')

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise SourceUnavailable(f'topic "{self._topic}" did not take a record', detail=str(self._failure))


def _ensure_topic(bootstrap_servers: str, topic: str, partitions: int) -> int:
    """Number of the topic's partitions; makes the topic when there is none."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        found = admin.list_topics(timeout=10).topics.get(topic)
        if found is not None and found.error is None:
            return len(found.partitions)
        admin.create_topics([NewTopic(topic, num_partitions=partitions)])[topic].result(timeout=30)
    except KafkaException as error:
        raise SourceUnavailable(
            f"kafka at {bootstrap_servers} does not answer", detail=str(error), hint="start it, or correct the address"
        ) from error
    return partitions


def _card_partitions(population: Population, partitions: int) -> Int64Array:
    """(C,) partition of each card, by the hash of its id."""
    return lanes_of([encode_key([card_id(card)]) for card in range(population.size.cards)], partitions)


def _open_after_last_line(path: Path) -> BinaryIO:
    """Open for appending; a last line that a killed writer left without its end is removed."""
    if path.exists():
        with open(path, "rb+") as file:
            file.truncate(_complete_length(file, path.stat().st_size))
    return open(path, "ab")


def _complete_length(file: BinaryIO, length: int) -> int:
    """Bytes up to the last line end, looking backwards."""
    step = 1 << 16
    while length > 0:
        start = max(length - step, 0)
        file.seek(start)
        position = file.read(length - start).rfind(b"\n")
        if position >= 0:
            return start + position + 1
        length = start
    return 0
