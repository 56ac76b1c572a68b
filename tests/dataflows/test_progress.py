"""What the stream says about itself: a lag of nothing only where nothing is left to read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY

from dataflows.logs.file_log import FileLog
from dataflows.logs.kafka_log import KafkaLog
from dataflows.logs.sources import EventSource, PartitionStart, Shared, SourceLog
from dataflows.progress import StreamProgress, show_owners
from dataflows.run_outcome import Conductor
from featurestore.clock import SystemClock
from featurestore.core.spec import Column, MemberSpec, SourceSpec, ValueType, ViewSpec
from featurestore.core.spec.access import STREAM_FEATURE_VIEW, AccessSpec, Guarded
from featurestore.online.generation import Generation
from featurestore.testing.clock import ManualClock
from featurestore.testing.servers import KafkaBroker
from featurestore.wire.payloads import RawBatch

SOURCE = SourceSpec("payments", "payments", (Column("at", ValueType.INT64),), "at")


class Reading:
    """Partitions that are read as the flow reads them, and what is said of it."""

    def __init__(self, log: SourceLog, starts: list[PartitionStart]) -> None:
        clock = ManualClock(now_ms=1_795_996_740_000)
        self.progress = StreamProgress(clock, interval_seconds=10, terminal=None)
        self.shared = Shared(Conductor(), self.progress, clock, until_end=False, patience_seconds=600)
        source = EventSource("live", log, starts, self.shared, records_max=1_000)
        self.parts = [source.build_part("read", name, None) for name in source.list_parts()]

    def read(self) -> int:
        """One look at each partition; what was read is as good as committed."""
        records = 0
        for part in self.parts:
            for batch in part.next_batch():
                assert isinstance(batch, RawBatch), "partitions do not end here"
                records += len(batch.payloads)
                self.progress.logged(batch.topic, batch.partition, batch.next_offset)
        return records

    def line(self, caplog: pytest.LogCaptureFixture) -> str:
        """What is said now."""
        caplog.clear()
        with caplog.at_level("INFO"):
            self.progress.show()
        return caplog.messages[-1]

    def close(self) -> None:
        """Let go of the partitions."""
        for part in self.parts:
            part.close()


def lag_metric(topic: str, partition: int) -> float | None:
    """As Prometheus sees it."""
    return REGISTRY.get_sample_value("featurestore_stream_lag_records", {"topic": topic, "partition": str(partition)})


def test_a_partition_that_cannot_be_read_is_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """How far is not known; it is named, and counted until it can be read again."""
    (tmp_path / "payments").mkdir()
    (tmp_path / "payments" / "0.jsonl").write_bytes(b'{"at": 1}\n' * 5)
    reading = Reading(FileLog(tmp_path), [PartitionStart(SOURCE, 0, None), PartitionStart(SOURCE, 1, 2)])

    assert reading.read() == 5
    line = reading.line(caplog)
    assert "lag at least 1 (payments[1] cannot be read)" in line
    assert lag_metric("payments", 1) == 1

    (tmp_path / "payments" / "1.jsonl").write_bytes(b'{"at": 1}\n' * 4)
    assert reading.read() == 2
    reading.read()
    assert "lag 0" in reading.line(caplog)
    assert lag_metric("payments", 1) == 0
    reading.close()


@pytest.fixture
def topic(kafka: KafkaBroker) -> Iterator[str]:
    """A topic of one partition, deleted after the test."""
    name = f"held-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(name, partitions=1)
    yield name
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.delete_topics([name], operation_timeout=30).values():
        future.result(timeout=30)


@pytest.mark.kafka
def test_records_that_an_open_transaction_holds_back_are_behind(
    kafka: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They are in the topic, and nobody can read them before the transaction ends."""
    source = SourceSpec(topic, topic, (Column("at", ValueType.INT64),), "at")
    plain = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for _ in range(10):
        plain.produce(topic, b"{}")
    assert plain.flush(30) == 0
    log = KafkaLog(bootstrap_servers=kafka.bootstrap_servers, options={}, group="", clock=SystemClock())
    reading = Reading(log, [PartitionStart(source, 0, None)])
    clock = SystemClock()

    def read_until(text: str) -> None:
        deadline_ns = clock.monotonic_ns() + 30_000_000_000
        while text not in reading.line(caplog):
            assert clock.monotonic_ns() < deadline_ns, reading.line(caplog)
            reading.read()
            clock.sleep(0.01)

    read_until("10 read")
    read_until("lag 0")
    held = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic})
    held.init_transactions(30)
    held.begin_transaction()
    for _ in range(7):
        held.produce(topic, b"{}")
    assert held.flush(30) == 0
    read_until(f"lag 7 (most in {topic}[0]: 7)")
    held.commit_transaction(30)
    read_until("lag 0")
    reading.close()


def test_each_team_has_its_share_of_what_is_stored() -> None:
    """Of a storage group as many parts as it has views there: what costs by view can be joined with it."""
    alone = ViewSpec("alone", (Column("card_id", ValueType.STRING),), SOURCE, (), None)
    names = ("risk_a", "risk_b", "growth")
    members = tuple(MemberSpec(name, "", (), None, 0) for name in names)
    group = replace(alone, name="payments_by_card", members=members)
    owners = {"alone": "risk", "risk_a": "risk", "risk_b": "risk", "growth": "growth"}
    kind = STREAM_FEATURE_VIEW
    access = AccessSpec(guarded={(kind, name): Guarded(kind, name, owner) for name, owner in owners.items()})
    show_owners([Generation("p", view, 1, "") for view in (alone, group)], access)

    def share(view: str, owner: str) -> float | None:
        return REGISTRY.get_sample_value("featurestore_stream_view_owner", {"view": view, "owner": owner})

    shares = [share("alone", "risk"), share("payments_by_card", "risk"), share("payments_by_card", "growth")]
    assert [1.0, pytest.approx(2 / 3), pytest.approx(1 / 3)] == shares
