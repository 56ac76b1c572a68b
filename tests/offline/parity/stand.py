"""All parts that parity is about, as users run them: a log of events, the stream, Redis, a server, the event log."""

from __future__ import annotations

import random
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import redis

from featurestore.clock import SystemClock
from featurestore.core.spec import RepoSpec, SourceSpec
from featurestore.definitions.registry import open_registry, read_registry
from featurestore.offline.event_log.address import below
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.table import Positions
from featurestore.offline.parity.check import check_parity
from featurestore.offline.parity.checking.batch import ParityOptions
from featurestore.offline.parity.feature_log import FeatureLogWriter, find_logged_files
from featurestore.offline.parity.log_directory import LogDirectory
from featurestore.offline.parity.reads import PinnedEventLogs
from featurestore.offline.parity.report import ParityReport, ValueOutcome
from featurestore.offline.training_set.plain_join import PlainHistory
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.online.serving_view import serving_views
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.sampling.sample import FeatureLog
from featurestore.serving.server import FeatureServer
from featurestore.wire.codecs.head_kernels import BESIDE_BODY
from featurestore.wire.codecs.plain_row import encode_values
from featurestore.wire.entity_key import lane_of
from featurestore.wire.store_layout import plain_key
from tests.dataflows.payments import CONFIG, PROJECT, Payments
from tests.dataflows.payments import REPO as TWO_VIEWS
from tests.dataflows.stream_process import ROOT, StreamProcess

SERVICE = "scoring"
CARDS, MERCHANTS = 60, 12
PAYMENTS = 4_000

REPO = (
    (TWO_VIEWS % {"card_window": "1d"})
    + """
from datetime import timedelta

from feast import FeatureService, FeatureView, Field, RequestSource
from feast.types import Float64, String
from featurestore.definitions.authoring import derive, request_features

habits = stream_view(
    name="habits",
    entities=[card],
    source=payments,
    features=[
        *aggregate("amount", ["mean", "stddev_pop", "last_n(3)"], over="1d"),
        *aggregate("amount", "sum by merchant_id(5)", over="1d", name="amount_by_merchant"),
        *count(over="6h", where="is_declined", name="declines"),
        *derive("decline_share", "declines_6h / nullif(amount_mean_1d, 0)"),
    ],
)
profile = FeatureView(
    name="profile",
    entities=[merchant],
    ttl=timedelta(days=30),
    schema=[Field(name="tier", dtype=String), Field(name="risk", dtype=Float64)],
    source=FileSource(name="profiles", path="data/profiles.parquet", timestamp_field="updated_at"),
)
checks = request_features(
    name="checks",
    request=RequestSource(
        name="asked", schema=[Field(name="amount", dtype=Float64), Field(name="country", dtype=String)]
    ),
    sources=[cards, habits, profile],
    features={
        "amount_ratio": "amount / nullif(amount_mean_1d, 0)",
        "is_largest": "amount > amount_max_1d",
        "label": "coalesce(country, '?') || ':' || cast(count_1d as varchar)",
        "tier_abroad": "tier || country",
    },
)
scoring = FeatureService(name="scoring", features=[cards, merchants, habits, profile])
watched = FeatureService(name="watched", features=[checks, cards[["count_1d"]]], tags={"shadow": "deciding"})
deciding = FeatureService(
    name="deciding",
    features=[checks, merchants[["amount_sum_1d"]], habits[["declines_6h", "decline_share"]]],
)
unaware = FeatureService(name="unaware", features=[checks, cards, habits[["declines_6h"]]], tags={"in_flight": "false"})
"""
)


class EventLogUpTo(EventLog):
    """An event log as it was when its partitions ended earlier.

    Args:
        uri: where it is.
        ends: next offset of each partition.
    """

    def __init__(self, uri: str, ends: Sequence[int]) -> None:
        super().__init__(uri)
        self._ends = np.array(ends)

    def positions(self) -> Positions:
        """The earlier ones."""
        return {place: int(self._ends[place[1]]) for place in super().positions()}

    def scan(self, columns: Sequence[str], **span: int | None) -> Iterator[pa.RecordBatch]:
        """Rows below them."""
        for batch in super().scan(list(dict.fromkeys([*columns, "partition", "offset"])), **span):
            is_below = batch.column("offset").to_numpy() < self._ends[batch.column("partition").to_numpy()]
            yield batch.filter(pa.array(is_below)).select(list(columns))


class EventLogsUpTo(PinnedEventLogs):
    """The event logs as they were when their partitions ended earlier.

    Args:
        root: where they are.
        ends: next offset of each partition; None is today's.
    """

    def __init__(self, root: str, ends: Sequence[int] | None) -> None:
        super().__init__(root)
        self._root, self._ends = root, ends

    def log(self, source: SourceSpec) -> EventLog:
        """The log with earlier positions."""
        return super().log(source) if self._ends is None else EventLogUpTo(below(self._root, source.name), self._ends)


@dataclass
class Stand:
    """One directory with everything in it.

    Attributes:
        directory: of the test.
        redis_url: an empty Redis.
        repo: the definitions.
        records: of each partition, all that has arrived.
    """

    directory: Path
    redis_url: str
    repo: RepoSpec
    records: list[list[bytes]] = field(default_factory=list)

    @property
    def registry(self) -> Path:
        """The applied registry."""
        return self.directory / "data" / "registry.db"

    def append(self, payments: Payments) -> None:
        """Let payments arrive."""
        payments.append_to(self.directory / "events")
        self.records = [
            [*before, *more] for before, more in zip(self.records or [[]] * 2, payments.records, strict=True)
        ]

    def run_stream(self) -> None:
        """`featurestore stream --until-end`."""
        self._run("dataflows.log_to_tiles")

    @contextmanager
    def live_stream(self, payments: Payments) -> Iterator[None]:
        """`featurestore stream` at work while payments trickle in; at the end of the block it stops, all applied."""
        options = ("--log-dir", str(self.directory / "events"))
        pieces = list(_pieces(payments, count=40))
        self.append(pieces[0])
        process = StreamProcess(self.directory, self.registry, self.redis_url, *options)
        try:
            process.wait_for(" live: ")
            trickle = threading.Thread(target=self._trickle, args=(pieces[1:],))
            trickle.start()
            yield
            trickle.join()
            process.wait_for(f"{sum(map(len, payments.records)):,} read")
            process.terminate()
            assert process.wait() == 0, process.output
        finally:
            process.kill()

    def _trickle(self, pieces: Iterable[Payments]) -> None:
        """Append some payments now and then."""
        pause = threading.Event()
        for piece in pieces:
            self.append(piece)
            pause.wait(0.03)

    def run_event_log(self) -> None:
        """`featurestore event-log run --until-end`."""
        self._run("dataflows.log_to_table", "--event-log", str(self.directory / "event_log"))

    def ask(self, log: Path, rows: Iterable[tuple[str, int, int]]) -> None:
        """Look rows up at a server that logs all of them.

        Args:
            log: the feature log.
            rows: card, merchant and read time of each; a request each.
        """
        with self.server(log) as client:
            for card, merchant, as_of_ms in rows:
                client.lookup(SERVICE, {"card_id": card, "merchant_id": merchant}, as_of_ms=as_of_ms)

    def ask_in_flight(
        self, log: Path, rows: Iterable[tuple[str, int, int]], *, seed: int, service: str = "deciding"
    ) -> None:
        """The same of the service that reads the request; two in three requests bring a payment along.

        The request says another amount than the payment.
        """
        draw = random.Random(seed)
        with self.server(log) as client:
            for card, merchant, as_of_ms in rows:
                asked = {"amount": draw.choice([None, 12.5, 50_000.0]), "country": draw.choice([None, "SE"])}
                payment: dict[str, Any] = {
                    "paid_at": as_of_ms,
                    "amount": draw.choice([None, draw.randrange(100_000)]),
                    "is_declined": draw.random() < 0.5,
                }
                client.lookup(
                    service,
                    {"card_id": card, "merchant_id": merchant},
                    as_of_ms=as_of_ms,
                    request=asked,
                    events={"payments": payment} if draw.random() < 2 / 3 else None,
                )

    @contextmanager
    def server(self, log: Path) -> Iterator[LookupClient]:
        """A server that logs all that it answers, and its client; everything is written when the block ends."""
        store, clock = connect(self.redis_url), SystemClock()
        writer = FeatureLogWriter(LogDirectory(log), secrets.token_hex(4), roll_seconds=60.0)
        server = FeatureServer(
            open_registry(str(self.registry), PROJECT),
            store,
            clock,
            ServerSettings(port=0),
            feature_log=FeatureLog(writer, clock, share=1.0),
        )
        with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
            yield client
        server.stop(drain_seconds=5.0)
        store.close()

    def check(
        self,
        *logs: Path,
        repo: RepoSpec | None = None,
        event_log: Path | None = None,
        ends: Sequence[int] | None = None,
        plain: dict[str, PlainHistory] | None = None,
        options: ParityOptions | None = None,
    ) -> ParityReport:
        """The report on some feature logs; as if the event log's partitions had only come to `ends`."""
        events = EventLogsUpTo(str(event_log or self.directory / "event_log"), ends)
        logged = [file for log in logs for file in find_logged_files(LogDirectory(log))]
        return check_parity(repo or self.repo, logged, events, plain=plain, options=options)

    def materialize(self, merchant_id: int, tier: str, risk: float, event_time_ms: int) -> None:
        """Store one merchant's profile, as Feast's materialize does through our store."""
        store = connect(self.redis_url)
        key = b"%d" % merchant_id
        lane = lane_of(key, GenerationCatalog(store, PROJECT).lane_count())
        values = encode_values({"tier": tier, "risk": risk})
        store.write_newer([(plain_key(PROJECT, lane, "profile", key), event_time_ms, values, 0)])
        store.close()

    def double_events(self, view: str, key: str) -> None:
        """Let the store hold an entity's recent events twice."""
        client: Any = redis.Redis.from_url(self.redis_url)
        [head] = client.scan_iter(match=f"*{self._stem(view)}/h/{key}")
        rows = client.get(head)
        # A mark stands in the first row of a head alone.
        mark = BESIDE_BODY if client.exists(head.replace(b"/h/", b"/b/")) else 0
        client.append(head, bytes([rows[0] ^ mark]) + rows[1:])
        client.close()

    def forget(self, view: str, key: int) -> None:
        """Let the store hold nothing of an entity."""
        client = redis.Redis.from_url(self.redis_url)
        assert client.delete(*client.scan_iter(match=f"*{self._stem(view)}/[hb]/{key}"))
        client.close()

    def _stem(self, view: str) -> str:
        """What the names of the keys have that are read for a view."""
        store = connect(self.redis_url)
        serving = serving_views(GenerationCatalog(store, PROJECT).all())[view]
        store.close()
        return serving.generation.keys.stem

    def _run(self, module: str, *options: str) -> None:
        """One of the programs, over all that has arrived."""
        process = StreamProcess(
            self.directory,
            self.registry,
            self.redis_url,
            *("--log-dir", str(self.directory / "events"), "--until-end", *options),
            program=("-m", module),
        )
        assert process.wait() == 0, process.output


def make_stand(directory: Path, redis_url: str, repo: str = REPO) -> Stand:
    """Apply a repo; no payment has arrived."""
    (directory / "data").mkdir(parents=True)
    (directory / "feature_store.yaml").write_text(CONFIG)
    (directory / "definitions.py").write_text(repo)
    command = [sys.executable, "-m", "featurestore", "apply", "--repo", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return Stand(directory, redis_url, read_registry(str(directory / "data" / "registry.db"), project=PROJECT))


def _pieces(payments: Payments, *, count: int) -> Iterator[Payments]:
    """The records in so many arrivals."""
    for piece in range(count):
        cut = [
            records[len(records) * piece // count : len(records) * (piece + 1) // count] for records in payments.records
        ]
        yield replace(payments, records=cut)


def split(payments: Payments, *, late: float, seed: int) -> tuple[Payments, Payments]:
    """The same records as two arrivals: a share of them, drawn at random, comes late.

    A producer's repeat comes with its original: one that came long after it would count again in the stream, and not
    in history (see the page on training sets).
    """
    draw = random.Random(seed)
    first: list[list[bytes]] = [[] for _ in payments.records]
    second: list[list[bytes]] = [[] for _ in payments.records]
    for partition, records in enumerate(payments.records):
        for _, same in groupby(records, key=lambda record: record.split(b'"', 4)[3]):
            (second if draw.random() < late else first)[partition] += same
    return replace(payments, records=first), replace(payments, records=second)


def questions(count: int, *, seed: int, newest_ms: int) -> list[tuple[str, int, int]]:
    """Cards and merchants, unknown ones too, at moments near the newest event: the store answers a minute back."""
    draw = random.Random(seed)
    return [
        (
            f"card-{draw.randrange(CARDS + 3)}",
            draw.randrange(MERCHANTS + 2),
            newest_ms + draw.randrange(-50_000, 10_000),
        )
        for _ in range(count)
    ]


def outcomes_of(report: ParityReport) -> dict[ValueOutcome, int]:
    """All features together."""
    return {outcome: count for outcome, count in sorted(report.total.items()) if count}
