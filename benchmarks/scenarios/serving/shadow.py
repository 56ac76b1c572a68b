"""shadow: what a logged answer costs a server's processor, and what the answer of the service's shadow beside it.

    alone     a version of the views answers, and nothing is logged
    logged    the same, and every answer is logged
    shadowed  the same, and what the newest definition would have answered is logged too, from the same read

Handlers run in this process on a real store, and its processor time is that of the log's thread too. Kinds take turns.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.parts import AppliedRepo, applied_repo
from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.scenarios.serving.lookup import SERVICE, fill, requests
from benchmarks.workload import make_workload
from featurestore.clock import Deadline, SystemClock
from featurestore.core.spec import FeatureReference, PinnedView, RepoSpec, ServiceSpec, ViewSpec
from featurestore.definitions.compile.versions import stored_name
from featurestore.offline.parity.feature_log import FeatureLogWriter
from featurestore.offline.parity.log_directory import LogDirectory
from featurestore.online.redis.store import RedisStore, connect
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.catalog.catalog import CatalogSource
from featurestore.serving.client.messages import LookupBatch, make_request
from featurestore.serving.lookup import FeatureLookup
from featurestore.serving.request.steps import Handler, encoded, run_blocking
from featurestore.serving.sampling.sample import FeatureLog
from featurestore.serving.services.packed import PackedService
from featurestore.testing.servers import redis_server

KINDS = ("alone", "logged", "shadowed")
NEWEST, PLAIN, SHADOWED = SERVICE, "plain", "shadowed"
_clock = SystemClock()


@dataclass(frozen=True, slots=True)
class TwoDefinitions:
    """Every stream view has a version that decides, and a newest definition without declined payments.

    Attributes:
        served: what is registered.
        stored: what the store holds.
    """

    served: RepoSpec
    stored: RepoSpec

    def stamp(self) -> Hashable:
        """It never changes."""
        return 0

    def read(self) -> RepoSpec:
        """See `Registry`."""
        return self.served


class Counter:
    """Rows by what became of them."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}

    def count_logged_rows(self, outcome: str, row_count: int) -> None:
        """See `RowCounter`."""
        self.rows[outcome] = self.rows.get(outcome, 0) + row_count

    def count_log_failure(self) -> None:
        """See `RowCounter`."""
        self.rows["failed"] = self.rows.get("failed", 0) + 1


def run(run: Run) -> Result:
    """Fill both definitions, and answer the same requests in each way."""
    repo = applied_repo(run.directory)
    workload = make_workload(0, cards=run.choose(smoke=20, full=400), merchants=40, days=90)
    two = _two_definitions(repo.spec)
    asked = requests(workload, run.choose(smoke=5, full=200))
    with redis_server() as redis:
        store = connect(redis.url)
        fill(store, AppliedRepo(repo.registry, two.stored), workload)
        catalog = CatalogSource(two, store)
        messages = {
            service: [
                make_request(service, LookupBatch(one), workload.as_of_ms, with_metadata=False).SerializeToString()
                for one in asked
            ]
            for service in (NEWEST, PLAIN, SHADOWED)
        }
        answers = _answers(catalog, store, messages)
        # A file's own cost is spread over as many rows as a busy server's.
        repeats = run.choose(smoke=1, full=5)
        least = dict.fromkeys(KINDS, float("inf"))
        for turn in range(run.choose(smoke=1, full=3)):
            for kind in KINDS:
                log = run.directory / f"shadow-{kind}-{turn}"
                mine = messages[SHADOWED if kind == "shadowed" else PLAIN] * repeats
                cpu_us, rows = _cpu_us(catalog, store, mine, None if kind == "alone" else log)
                expected = len(mine) * KINDS.index(kind)
                require(rows == ({"written": expected} if expected else {}), f"{kind}: {rows}, not {expected} rows")
                least[kind] = min(least[kind], cpu_us)
        compared = _compare(run.directory / "shadow-shadowed-0", len(asked) * repeats)
        store.close()
    return Result(
        scenario="shadow",
        question="What does an answer cost that is logged, and one beside which a shadow's is?",
        lines=(
            Line("a lookup", least["alone"], "us of CPU"),
            Line("logged", least["logged"], "us of CPU", least["logged"] / least["alone"], "a lookup"),
            Line(
                "logged with its shadow", least["shadowed"], "us of CPU", least["shadowed"] / least["logged"], "logged"
            ),
        ),
        answer_hash=digest(answers),
        checked=f"every answer is logged, and {compared} rows of the shadow beside as many answers",
        notes=(
            f"{len(two.served.services[0].features)} features of three "
            "entities a request; without gRPC; the least of all turns. Logged answers are written as Parquet, and the "
            "processor time is that of the whole process.",
        ),
    )


def _two_definitions(spec: RepoSpec) -> TwoDefinitions:
    """The example with a version of each view, and another newest definition."""
    newest = tuple(replace(view, where=_and_not_declined(view)) for view in spec.views)
    service = spec.service(SERVICE)
    assert service is not None, "the example has it"
    versions = {view.name: f"{view.name}@v1" for view in spec.views}
    pins = tuple(
        PinnedView(replace(view, name=versions[view.name]), (PLAIN, SHADOWED))
        for view in spec.views
        if any(reference.view == view.name for reference in service.features)
    )
    references = tuple(
        FeatureReference(versions.get(one.view, one.view), one.feature, one.output_name) for one in service.features
    )
    plain = ServiceSpec(PLAIN, references, service.join_keys)
    services = (service, plain, replace(plain, name=SHADOWED, shadow=NEWEST))
    served = RepoSpec(spec.project, newest, spec.plain_views, services, pinned=pins)
    stored = (*newest, *(replace(pin.view, name=stored_name(pin.view)) for pin in pins))
    return TwoDefinitions(served, replace(spec, views=stored))


def _and_not_declined(view: ViewSpec) -> str:
    return f"({view.where}) AND NOT is_declined" if view.where else "NOT is_declined"


def _handler(catalog: CatalogSource, sink: FeatureLog | None) -> Handler:
    return encoded(PackedService(catalog, FeatureLookup(_clock, sink=sink)).lookup, pb.LookupResponse.SerializeToString)


def _answer(handler: Handler, store: RedisStore, message: bytes) -> bytes:
    steps = handler(pb.LookupRequest.FromString(message), Deadline.after(_clock, 60_000))
    answer: bytes = run_blocking(steps, store)
    return answer


def _answers(catalog: CatalogSource, store: RedisStore, messages: dict[str, list[bytes]]) -> list[bytes]:
    """Of the service with a shadow, which are those of the one without, and not those of the shadow."""
    handler = _handler(catalog, None)
    found = {service: [_answer(handler, store, one) for one in mine] for service, mine in messages.items()}
    values = {service: [pb.LookupResponse.FromString(answer) for answer in mine] for service, mine in found.items()}
    pairs = list(zip(values[PLAIN], values[SHADOWED], strict=True))
    require(all(one.integers == other.integers and one.statuses == other.statuses for one, other in pairs), "a shadow")
    others = zip(values[PLAIN], values[NEWEST], strict=True)
    require(any(one.integers != other.integers for one, other in others), "both definitions answer the same")
    return [one.SerializeToString() for one in values[PLAIN]]


def _cpu_us(
    catalog: CatalogSource, store: RedisStore, messages: Sequence[bytes], log: Path | None
) -> tuple[float, dict[str, int]]:
    """Processor time of this process for each request, until all is written; and what the log counted."""
    counter, sink = Counter(), None
    if log is not None:
        writer = FeatureLogWriter(LogDirectory(log), secrets.token_hex(4), roll_seconds=60.0)
        sink = FeatureLog(writer, _clock, share=1.0)
    begun_s = time.process_time()
    if sink is not None:
        sink.start(counter)
    handler = _handler(catalog, sink)
    for message in messages:
        _answer(handler, store, message)
    if sink is not None:
        sink.stop()
    return (time.process_time() - begun_s) / len(messages) * 1e6, counter.rows


def _compare(log: Path, asked: int) -> int:
    """Both services have a row of each request."""
    rows = {path.name: pq.read_table(path).num_rows for path in log.iterdir() if path.name.startswith("service=")}
    require(list(rows.values()) == [asked, asked], f"the log has {rows}")
    return asked
