"""contracts: what ten expectations cost an ingest, beside the same ingest without them.

The same transactions into two stores, batch by batch in turn, so that whatever else the machine does falls on both.
What is timed is the processor time of this process: decode, check, key, write. What no view reads is decoded for the
check alone.
"""

from __future__ import annotations

import json
from collections import Counter

from benchmarks.filling import BATCH_RECORDS, Filling, raw_batch
from benchmarks.parts import applied_repo
from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.workload import PaymentSchemas, check_against_oracle, make_workload
from featurestore.core.expressions import compile_expression
from featurestore.core.spec import Expectation, OnFail, RepoSpec
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.servers import redis_server
from featurestore.wire.contracts import ContractCheck
from featurestore.wire.counts.contracts import PartitionCounts
from featurestore.wire.entity_routing import columns_read, key_events
from featurestore.wire.payloads import EventDecoder

CONDITIONS = (
    "amount IS NOT NULL",
    "amount <> 0",
    "amount < 10000000",
    "card_id IS NOT NULL",
    "merchant_id > 0",
    "terminal_id > 0",
    "NOT (is_refund AND is_declined)",
    "is_card_present IS NOT NULL",
    "currency IN ('EUR', 'SEK', 'GBP', 'PLN')",
    "market IS NOT NULL",
)


class CheckedFilling(Filling):
    """Fills a store, and holds every record against the ten expectations.

    Attributes:
        counts: of the records that meet them, and of those that do not.
    """

    def __init__(self, store: RedisStore, repo: RepoSpec) -> None:
        super().__init__(store, repo)
        source = repo.views[0].source
        types = {column.name: column.type for column in source.columns}
        texts = [compile_expression(text, types).text for text in CONDITIONS]
        self._check = ContractCheck(source, [Expectation(source.name, text, text, OnFail.COUNT) for text in texts])
        names = [name for view in repo.views for name in columns_read(view)]
        self._decoder = EventDecoder(source, dict.fromkeys([*names, *self._check.columns]), PaymentSchemas())
        self.counts = PartitionCounts(source.name)

    def _write_batch(self, payloads: list[bytes]) -> None:  # type: ignore[override]  # a list is what it gets
        raw = raw_batch(self._topic, payloads, from_offset=self._next_offset)
        self._next_offset = raw.next_offset
        with self._timed("decode"):
            decoded = self._decoder.decode(raw, now_ms=self._clock.now_ms())
        with self._timed("check"):
            events = self._check.flagged(decoded.events)
            self.counts.add(events, self._check.failures(events))
        for name, generation in self.generations.items():
            with self._timed("key"):
                keyed = key_events(events, generation.view, self._lane_count)
            with self._timed("write"):
                self._writers[name].write([keyed])


def run(run: Run) -> Result:
    """Fill two stores in turn; values and counts are checked."""
    count = run.choose(smoke=3_000, full=200_000)
    workload = make_workload(
        count, cards=run.choose(smoke=300, full=40_000), merchants=run.choose(smoke=60, full=4_000)
    )
    repo, payloads = applied_repo(run.directory).spec, workload.payloads
    with redis_server() as first, redis_server() as second:
        stores = connect(first.url), connect(second.url)
        plain, checked = Filling(stores[0], repo), CheckedFilling(stores[1], repo)
        for begin in range(0, len(payloads), BATCH_RECORDS):
            for filling in (plain, checked) if begin // BATCH_RECORDS % 2 else (checked, plain):
                filling.write(payloads[begin : begin + BATCH_RECORDS])
        hashes = []
        for filling, store in zip((plain, checked), stores, strict=True):
            filling.close()
            hashes.append(check_against_oracle(store, repo, workload, sample=run.choose(smoke=5, full=40)))
            store.close()
    require(hashes[0] == hashes[1], "the values differ where records are checked")
    failed = Counter[str]()
    for hour in checked.counts.hours.values():
        failed.update(hour.failed)
    records = [json.loads(payload) for payload in workload.json_payloads]
    nulls = sum(one.get("amount") is None for one in records)
    require(failed["amount IS NOT NULL"] == nulls, "nulls were not counted right")
    return Result(
        scenario="contracts",
        question="What do ten expectations on a source cost an ingest?",
        lines=tuple(_lines(plain, checked, len(payloads))),
        checked=f"{hashes[0][1]} values equal the oracle's in both stores; {nulls} nulls among {len(records)} records",
        answer_hash=digest([hashes[0][0], *(f"{name} {failed[name]}" for name in sorted(failed))]),
        notes=("Processor time of the ingesting process; Redis beside it does the same for both.",),
    )


def _lines(plain: Filling, checked: Filling, count: int) -> list[Line]:
    """Microseconds of the processor a record; ratios to the ingest without expectations."""
    before, after = (sum(filling.cpu_s.values()) for filling in (plain, checked))
    lines = [Line("ingest without expectations", before / count * 1e6, "us of CPU a tx")]
    lines.append(Line("ingest with ten", after / count * 1e6, "us of CPU a tx", after / before, "without"))
    check_s = checked.cpu_s["check"]
    lines.append(Line("of that: the check", check_s / count * 1e6, "us of CPU a tx", check_s / before, "without"))
    more_s = max(checked.cpu_s["decode"] - plain.cpu_s["decode"], 1e-9)
    lines.append(Line("of that: two more columns", more_s / count * 1e6, "us of CPU a tx", more_s / before, "without"))
    return lines
