"""ingest: Kafka to store by the whole stream, beside decoding alone and beside Bytewax's own windows."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.filling import Filling, decode_seconds
from benchmarks.machine import environment
from benchmarks.parts import AppliedRepo, applied_repo, cpu_seconds, cpu_seconds_since, run_to_end, stream_process
from benchmarks.peers import bytewax_windows
from benchmarks.scenario import Line, Result, Run, require
from benchmarks.workload import SCHEMA_ID, Workload, check_against_oracle, make_workload
from featurestore.definitions.schemas.directory import SchemaDirectory
from featurestore.online.redis.store import connect
from featurestore.testing.servers import KafkaBroker, RedisServer, kafka_broker, redis_server
from featurestore.testing.simulator import KafkaSink
from featurestore.testing.simulator.avro_payload import SCHEMA, AvroPayloadEncoder

PARTITIONS = 4


def run(run: Run) -> Result:
    """Fill a topic, then let one stream process work it off."""
    repo = applied_repo(run.directory)
    count = run.choose(smoke=20_000, full=1_000_000)
    workload = make_workload(
        count, cards=run.choose(smoke=2_000, full=200_000), merchants=run.choose(smoke=200, full=20_000)
    )
    run.say(f"{count:,} transactions made")
    with kafka_broker() as kafka, redis_server() as redis:
        _produce(kafka, workload)
        run.say("topic is full")
        stream_lines = _measure_stream(run, repo, kafka, redis, count)
        store = connect(redis.url)
        answer_hash, compared = check_against_oracle(store, repo.spec, workload, sample=run.choose(smoke=4, full=40))
        store.close()
        run.say(f"{compared} values are the oracle's")
    per_cpu_s = stream_lines[0].value
    decode_per_s = count / decode_seconds(repo.spec, workload.payloads)
    windows_per_s = _measure_windows(run, workload)
    run.say("peer and floor measured")
    stages = _stage_lines(repo, workload, per_cpu_s)
    features = sum(len(view.features) for view in repo.spec.views)
    return Result(
        scenario="ingest",
        question=f"How many transactions does one stream process take from Kafka into Redis ({len(repo.spec.views)} "
        f"views, {features} features)?",
        lines=(
            *stream_lines,
            Line(
                "floor: decode only",
                decode_per_s,
                "tx per CPU second",
                per_cpu_s / decode_per_s,
                "floor for the stream",
            ),
            Line(
                "Bytewax sliding windows (1 view, 3 features, 5 min hop)",
                windows_per_s,
                "tx per CPU second",
                per_cpu_s / windows_per_s,
                "peer for the stream",
            ),
            *stages,
        ),
        answer_hash=answer_hash,
        checked=f"{compared:,} values of the busiest, the median and other entities equal the naive oracle's",
        notes=(
            "The stream's start (measured by a second run that finds nothing to do) is taken off wall and CPU time.",
            "CPU seconds of the stream include librdkafka's and the commit threads; aim: 50,000 tx a CPU second.",
            "The steps at the end are the same functions in this process, one after the other, from memory.",
            "Smoke sizes are too small for a rate.",
        ),
    )


def _produce(kafka: KafkaBroker, workload: Workload) -> None:
    encoder = AvroPayloadEncoder(workload.population, SCHEMA_ID)
    sink = KafkaSink(
        kafka.bootstrap_servers, workload.population, topic="transactions", partitions=PARTITIONS, encoder=encoder
    )
    for begin in range(0, len(workload.rows), 20_000):
        sink.write(workload.rows[begin : begin + 20_000])
    sink.close()


def _measure_stream(run: Run, repo: AppliedRepo, kafka: KafkaBroker, redis: RedisServer, count: int) -> list[Line]:
    """Rates of the stream process, and what Redis spent beside it."""
    registry = run.directory / "schemas"
    number = SchemaDirectory(registry).register("transactions-value", SCHEMA)
    require(number == SCHEMA_ID, f"the payments' schema has number {number}")
    options = ["--bootstrap-servers", kafka.bootstrap_servers, "--schema-registry-option", f"url=file:{registry}"]
    process = stream_process(repo, run.directory, redis.url, *options, "--until-end")
    redis_before_s = cpu_seconds(redis.process.pid)
    busy = run_to_end(process)
    redis_s = cpu_seconds_since(redis.process.pid, redis_before_s)
    start = run_to_end(process)
    run.say(f"stream took {busy.wall_s:.1f} s, {start.wall_s:.1f} s of it to start")
    wall_s, cpu_s = max(busy.wall_s - start.wall_s, 1e-3), max(busy.cpu_s - start.cpu_s, 1e-3)
    return [
        Line("stream, by its processor time", count / cpu_s, "tx per CPU second"),
        Line("stream, by the wall clock, one process", count / wall_s, "tx/s", cpu_s / wall_s, "cores busy"),
        Line("Redis beside it", redis_s / count * 1e6, "us of CPU a tx", redis_s / cpu_s, "stream's CPU"),
        Line("start and end of a stream that finds nothing to do", start.wall_s, "s"),
    ]


def _stage_lines(repo: AppliedRepo, workload: Workload, per_cpu_s: float) -> list[Line]:
    """Processor time of each step, this process alone."""
    with redis_server() as redis:
        store = connect(redis.url)
        filling = Filling(store, repo.spec)
        filling.write(workload.payloads)
        filling.close()
        store.close()
    whole_us = 1e6 / per_cpu_s
    steps = {step: seconds / len(workload.payloads) * 1e6 for step, seconds in filling.cpu_s.items()}
    return [Line(f"step: {step}", us, "us of CPU a tx", us / whole_us, "stream's CPU") for step, us in steps.items()]


def _measure_windows(run: Run, workload: Workload) -> float:
    """Rate of the peer on a part of the input, after a check of its answer."""
    part = workload.json_payloads[: run.choose(smoke=500, full=20_000)]
    path = run.directory / "records.jsonl"
    path.write_bytes(b"\n".join(part))
    command = [sys.executable, "-m", "benchmarks.peers.bytewax_windows", str(path)]
    begun_s = time.monotonic()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"Bytewax's windows failed\n{done.stderr}")
    found = json.loads(done.stdout)
    run.say(f"Bytewax's windows took {time.monotonic() - begun_s:.1f} s for {len(part):,} transactions")
    rows = workload.rows[: len(part)]
    amount = int(rows["amount"][rows["is_amount_known"]].sum())
    expected = (bytewax_windows.WINDOWS_PER_EVENT * len(part), bytewax_windows.WINDOWS_PER_EVENT * amount)
    require((found["count"], found["total"]) == expected, f"Bytewax's windows found {found}, expected {expected}")
    return float(found["events"] / found["cpu_s"])
