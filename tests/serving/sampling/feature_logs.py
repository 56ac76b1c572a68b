"""What tests of the feature log share: writers to watch, a server that logs, one answer to add."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from featurestore.errors import Unavailable
from featurestore.offline.parity.feature_log import LogLayout
from featurestore.online.answer.schema import FeatureStatus
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.sampling.answered import AnsweredRequest
from featurestore.serving.sampling.sample import FeatureLog, FeatureRowsWriter
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.payments import Payments, RegistryInMemory

ENTITIES: dict[str, list[str] | list[int]] = {"card_id": ["c-1", "c-2", "nobody"], "merchant_id": [7, 404, 7]}

Row = dict[str, Any]


@dataclass
class Table:
    """A writer that keeps rows in memory, and may be told to wait or to fail.

    Attributes:
        rows: what was written.
        may_write: cleared, writing waits.
        has_begun: somebody has begun to write.
        fails: writing raises.
    """

    rows: list[Row] = field(default_factory=list)
    may_write: threading.Event = field(default_factory=threading.Event)
    fails: bool = False
    has_begun: threading.Event = field(default_factory=threading.Event)

    def write(self, layout: LogLayout, table: pa.Table, now_ms: int) -> int:
        """Keep rows."""
        assert layout.schema.names == table.schema.names
        self.has_begun.set()
        assert self.may_write.wait(30)
        if self.fails:
            raise Unavailable("the table is full on purpose")
        self.rows += table.cast(layout.schema).to_pylist(maps_as_pydicts="strict")
        return int(table.num_rows)

    def advance(self, now_ms: int) -> int:
        """Nothing waits."""
        return 0

    def close(self, now_ms: int) -> int:
        """Nothing waits."""
        return 0


@dataclass
class Counts:
    """What the metrics are told."""

    rows: Counter[str] = field(default_factory=Counter)
    failures: int = 0

    def count_logged_rows(self, outcome: str, row_count: int) -> None:
        """Add up."""
        self.rows[outcome] += row_count

    def count_log_failure(self) -> None:
        """Add up."""
        self.failures += 1


@contextmanager
def logging_server(
    payments: Payments,
    registry: RegistryInMemory,
    clock: ManualClock,
    writer: FeatureRowsWriter,
    *,
    io: str = "aio",
    share: float = 1.0,
) -> Iterator[FeatureServer]:
    """A server that logs to a writer; everything is written when the block ends."""
    log = FeatureLog(writer, clock, share=share)
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0, io=io), feature_log=log)
    try:
        yield server
    finally:
        server.stop(drain_seconds=1.0)


def one_answer(payments: Payments, registry: RegistryInMemory, clock: ManualClock) -> AnsweredRequest:
    """What the lookup hands to the log for one row."""
    taken: list[AnsweredRequest] = []

    class Keep(FeatureLog):
        """Keeps what is added."""

        def add(self, answered: AnsweredRequest) -> None:
            """Keep it."""
            taken.append(answered)

    log = Keep(Table(), clock, share=1.0)
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0), feature_log=log)
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
        client.lookup("fraud_detection", {"card_id": ["c-1"], "merchant_id": [7]})
    server.stop(drain_seconds=1.0)
    assert {FeatureStatus.PRESENT} <= set(taken[0].answer.statuses.ravel().tolist())
    return taken[0]


def wait_for(holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Until something that another thread does is done."""
    waiting = threading.Event()
    for _ in range(round(timeout_s / 0.01)):
        if holds():
            return
        waiting.wait(0.01)
    raise AssertionError("it never happened")
