"""The feature log as a Kafka topic: a JSON message for each row, keyed by the request's id.

    kafka://127.0.0.1:9092/served_features        or kafka:///served_features, with the servers of the environment

What a message holds is said in `featurestore.offline.parity.feature_log_json`.
Logging is at most once: what the broker does not take within librdkafka's patience is counted and dropped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

import pyarrow as pa
from confluent_kafka import KafkaError, Message, Producer

from dataflows.settings import options_setting
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.offline.parity.feature_log import LogLayout
from featurestore.offline.parity.feature_log_json import encode_messages

FLUSH_TIMEOUT_SECONDS = 10.0


def open_topic(address: str) -> KafkaFeatureLog:
    """The topic of a kafka:// address.

    Servers that the address does not name, and TLS, SASL and other settings of librdkafka, are those of the
    environment, by the names that the stream has for them: FEATURESTORE_BOOTSTRAP_SERVERS, FEATURESTORE_KAFKA_CONFIG,
    FEATURESTORE_KAFKA_OPTION.

    Raises:
        InvalidRequest: the address names no topic, or no servers are known.
    """
    parts = urlsplit(address)
    topic = parts.path.strip("/")
    servers = parts.netloc or os.environ.get("FEATURESTORE_BOOTSTRAP_SERVERS", "")
    if parts.netloc and not topic and ":" not in parts.netloc:
        topic, servers = parts.netloc, os.environ.get("FEATURESTORE_BOOTSTRAP_SERVERS", "")
    if not topic or not servers:
        raise InvalidRequest(
            f'"{address}" does not name a topic and its servers',
            hint="write kafka://HOST:PORT/TOPIC, or kafka://TOPIC and set FEATURESTORE_BOOTSTRAP_SERVERS",
        )
    environment = os.environ
    options = options_setting(
        "kafka", environment.get("FEATURESTORE_KAFKA_CONFIG", ""), environment.get("FEATURESTORE_KAFKA_OPTION", "")
    )
    return KafkaFeatureLog(topic, {**options, "bootstrap.servers": servers})


class KafkaFeatureLog:
    """Produces rows; a `featurestore.serving.sampling.sample.FeatureRowsWriter`.

    Args:
        topic: made by the broker or by its operator.
        settings: of librdkafka.
    """

    def __init__(self, topic: str, settings: Mapping[str, str]) -> None:
        self._topic = topic
        self._producer = Producer({"linger.ms": "100", "compression.type": "zstd", **settings})
        self._written = 0
        self._refused = 0
        self._last_error = ""

    def write(self, layout: LogLayout, table: pa.Table, now_ms: int) -> int:
        """Hand rows to the producer; returns how many were acknowledged meanwhile.

        Raises:
            SourceUnavailable: rows were refused, now or before.
        """
        for request_id, message in encode_messages(layout, table):
            try:
                self._producer.produce(self._topic, key=request_id, value=message, on_delivery=self._delivered)
            except BufferError:
                self._refused += 1
                self._last_error = "the producer's queue is full"
        return self.advance(now_ms)

    def advance(self, now_ms: int) -> int:
        """Look for acknowledgements; returns and raises as `write`."""
        self._producer.poll(0)
        return self._settle()

    def close(self, now_ms: int) -> int:
        """Wait for acknowledgements; returns and raises as `write`."""
        missing = self._producer.flush(FLUSH_TIMEOUT_SECONDS)
        if missing:
            self._refused += missing
            self._last_error = f"no acknowledgement within {FLUSH_TIMEOUT_SECONDS:.0f} s"
        return self._settle()

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        """Of one row."""
        if error is None:
            self._written += 1
        else:
            self._refused += 1
            self._last_error = str(error)

    def _settle(self) -> int:
        """What was acknowledged since the last call."""
        if self._refused:
            refused, self._refused = self._refused, 0
            raise SourceUnavailable(
                f'feature log topic "{self._topic}" cannot be written',
                detail=f"{refused} rows are lost: {self._last_error}",
                hint="check the broker, and that the topic exists or may be created",
            )
        written, self._written = self._written, 0
        return written
