"""The stream on real parts: an embedded log, a real Redis, processes as users start them."""

from __future__ import annotations

import json
import random
import re
import time
import urllib.request
from pathlib import Path

import pytest

from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.probe import free_port
from featurestore.online.redis.store import connect
from featurestore.testing.servers import redis_server
from tests.dataflows.conftest import StartStream, start_cluster
from tests.dataflows.payments import PROJECT, TOPIC, assert_every_value_is_exact, make_payments
from tests.dataflows.stream_process import StreamProcess


def wait_until_both_serve(stream: StreamProcess) -> None:
    """New views are answered from once they have read what there was."""
    stream.wait_until(lambda: stream.output.count("has caught up and serves") == 2)


def wait_until_it_follows(stream: StreamProcess) -> None:
    """Both views are in the live stage, and the stage runs."""

    def follows() -> bool:
        _, planned, since = stream.output.partition("live: cards@1, merchants@1 from")
        return bool(planned) and "lag 0" in since

    stream.wait_until(follows)


def test_every_value_of_a_log_is_the_oracles(start_stream: StartStream, tmp_path: Path, redis_url: str) -> None:
    """Late, null and repeated events included, after one run to the end of the log."""
    payments = make_payments(20_000, seed=1)
    payments.append_to(tmp_path / "log")

    stream = start_stream("--log-dir", str(tmp_path / "log"), "--until-end")

    assert stream.wait() == 0, stream.output
    assert_every_value_is_exact(redis_url, payments)


def test_an_unreadable_record_goes_to_the_dead_letters_and_stops_nothing(
    start_stream: StartStream, tmp_path: Path, redis_url: str
) -> None:
    """Every refused record is in the file of its partition, with reason, position and bytes; the rest is folded."""
    payments = make_payments(5_000, seed=2, partitions=2)
    payments.records[1] += [
        b'{"payment_id": "x1", "paid_at": "2026-09-23T00:00:00Z", "card_id": null, "merchant_id": 1, "amount": 1}',
        b'{"payment_id": "x2", "card_id": "c", "merchant_id": 1}',
        b'{"payment_id": "x3", "paid_at": "2999-01-01T00:00:00Z", "card_id": "c", "merchant_id": 1}',
    ]
    payments.append_to(tmp_path / "log")

    assert start_stream("--log-dir", str(tmp_path / "log"), "--until-end").wait() == 0

    directory = tmp_path / "log" / f"{TOPIC}.dead-letters"
    letters = [json.loads(line) for path in directory.iterdir() for line in path.read_text().splitlines()]
    found = {(letter["reason"], letter["view"]) for letter in letters if letter["partition"] == 1}
    assert sum(letter["reason"] == "undecodable" for letter in letters) == payments.bad > 0
    assert {("missing_join_key", "cards"), ("missing_event_time", None), ("too_far_in_future", None)} <= found
    assert len(letters) == payments.bad + 3


def test_sigterm_commits_what_was_read_and_exits_zero(
    start_stream: StartStream, tmp_path: Path, redis_url: str
) -> None:
    """A stream that follows a growing log ends in order, and the next one goes on where it stopped."""
    first, second = make_payments(3_000, seed=3), make_payments(3_000, seed=4, first=3_000)
    first.append_to(tmp_path / "log")
    stream = start_stream("--log-dir", str(tmp_path / "log"))
    stream.wait_for("lag 0")
    wait_until_both_serve(stream)

    stream.terminate()
    assert stream.wait() == 0, stream.output
    assert_every_value_is_exact(redis_url, first)

    second.append_to(tmp_path / "log")
    again = start_stream("--log-dir", str(tmp_path / "log"), "--until-end")
    assert again.wait() == 0, again.output
    assert f"{sum(map(len, second.records)):,} read" in again.output
    assert_every_value_is_exact(redis_url, first, second)


def test_events_are_servable_while_the_log_grows(start_stream: StartStream, tmp_path: Path, redis_url: str) -> None:
    """A record whose last line is still being written waits for its newline, the others are folded at once."""
    payments = make_payments(200, seed=5, partitions=1)
    last = payments.records[0].pop()
    payments.append_to(tmp_path / "log")
    stream = start_stream("--log-dir", str(tmp_path / "log"))
    file = tmp_path / "log" / TOPIC / "0.jsonl"
    with file.open("ab", buffering=0) as log:
        log.write(last[:20])
        stream.wait_for(f"{len(payments.records[0])} read")
        log.write(last[20:] + b"\n")
    stream.wait_for(f"{len(payments.records[0]) + 1} read · ")
    wait_until_both_serve(stream)
    stream.terminate()

    assert stream.wait() == 0, stream.output
    assert_every_value_is_exact(redis_url, payments)


@pytest.mark.parametrize("process_count", [1, 2])
def test_kills_lose_nothing_and_double_nothing(
    start_stream: StartStream, tmp_path: Path, redis_url: str, process_count: int
) -> None:
    """SIGKILL at random moments, then a run to the end: every value is the oracle's."""
    payments = make_payments(60_000, seed=6)
    payments.append_to(tmp_path / "log")
    draw = random.Random(process_count)
    options = ["--log-dir", str(tmp_path / "log"), "--batch-records", "500"]

    for _ in range(5):
        cluster = start_cluster(start_stream, process_count, *options)
        cluster[0].wait_for(" live: ")
        time.sleep(draw.uniform(0.05, 0.6))
        draw.choice(cluster).kill()
        for process in cluster:
            process.kill()
    for process in start_cluster(start_stream, process_count, *options, "--until-end"):
        assert process.wait() == 0, process.output

    assert_every_value_is_exact(redis_url, payments)


def test_both_processes_of_a_cluster_work_and_end_together(
    start_stream: StartStream, tmp_path: Path, redis_url: str
) -> None:
    """Each reads partitions and owns lanes; SIGTERM to one ends both with exit code 0."""
    payments = make_payments(20_000, seed=7)
    payments.append_to(tmp_path / "log")
    first, second = start_cluster(start_stream, 2, "--log-dir", str(tmp_path / "log"))
    for process in (first, second):
        wait_until_it_follows(process)

    second.terminate()

    assert (first.wait(), second.wait()) == (0, 0), first.output + second.output
    assert " 0 read" not in first.output.splitlines()[-2] + second.output.splitlines()[-2]
    assert_every_value_is_exact(redis_url, payments)


def test_the_other_process_of_a_cluster_ends_when_one_is_killed(start_stream: StartStream, tmp_path: Path) -> None:
    """It does not hang with half of the lanes: exit code 4 tells the supervisor to restart all."""
    make_payments(2_000, seed=8).append_to(tmp_path / "log")
    first, second = start_cluster(start_stream, 2, "--log-dir", str(tmp_path / "log"))
    for process in (first, second):
        wait_until_it_follows(process)

    first.kill()

    assert second.wait(30) == 4, second.output


def test_a_second_stream_takes_over_and_the_first_stops(
    start_stream: StartStream, tmp_path: Path, redis_url: str
) -> None:
    """The first ends with exit code 3 at its next commit, and nothing counts twice."""
    first_part, second_part = make_payments(2_000, seed=9), make_payments(2_000, seed=10, first=2_000)
    first_part.append_to(tmp_path / "log")
    first = start_stream("--log-dir", str(tmp_path / "log"))
    wait_until_it_follows(first)
    second = start_stream("--log-dir", str(tmp_path / "log"))
    wait_until_it_follows(second)

    second_part.append_to(tmp_path / "log")

    assert first.wait(30) == 3, first.output
    assert "another writer took over" in first.output
    second.wait_for(f"{sum(map(len, second_part.records)):,} read")
    second.terminate()
    assert second.wait() == 0, second.output
    assert start_stream("--log-dir", str(tmp_path / "log"), "--until-end").wait() == 0
    assert_every_value_is_exact(redis_url, first_part, second_part)


def test_a_store_restored_from_an_older_copy_heals_itself(start_stream: StartStream, tmp_path: Path) -> None:
    """The same process notices at its next commit, reads again from the store's own checkpoint, and goes on."""
    parts = [make_payments(1_500, seed=20 + part, first=part * 1_500) for part in range(3)]
    with redis_server() as server:
        parts[0].append_to(tmp_path / "log")
        stream = start_stream("--log-dir", str(tmp_path / "log"), url=server.url)
        stream.wait_for("lag 0")
        copy = tmp_path / "older.rdb"
        server.save_copy(copy)
        parts[1].append_to(tmp_path / "log")
        stream.wait_for(f"{sum(len(lines) for part in parts[:2] for lines in part.records):,} read")
        time.sleep(0.5)
        server.load_copy(copy)

        parts[2].append_to(tmp_path / "log")
        stream.wait_for("planning again")
        stream.wait_for("lag 0")
        time.sleep(1)
        stream.terminate()

        assert stream.wait() == 0, stream.output
        again = start_stream("--log-dir", str(tmp_path / "log"), "--until-end", url=server.url)
        assert again.wait() == 0, again.output
        assert_every_value_is_exact(server.url, *parts)


def test_a_store_that_is_down_for_a_while_is_waited_for(start_stream: StartStream, tmp_path: Path) -> None:
    """Events that arrive meanwhile are committed when it is back, by the same process."""
    first_part, second_part = make_payments(1_500, seed=11), make_payments(1_500, seed=12, first=1_500)
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        first_part.append_to(tmp_path / "log")
        stream = start_stream("--log-dir", str(tmp_path / "log"), url=server.url)
        stream.wait_for("lag 0")
        server.process.kill()
        second_part.append_to(tmp_path / "log")
        stream.wait_for("retrying")
        server.restart()
        stream.wait_for(f"{sum(len(lines) for lines in first_part.records + second_part.records):,} read")
        stream.terminate()

        assert stream.wait() == 0, stream.output
        again = start_stream("--log-dir", str(tmp_path / "log"), "--until-end", url=server.url)
        assert again.wait() == 0
        assert_every_value_is_exact(server.url, first_part, second_part)


def test_a_store_that_stays_down_ends_the_stream_with_an_error(start_stream: StartStream, tmp_path: Path) -> None:
    """Exit code 1 and the reason, once the patience is spent."""
    make_payments(10, seed=13).append_to(tmp_path / "log")
    url = f"redis://127.0.0.1:{free_port()}/0"

    stream = start_stream("--log-dir", str(tmp_path / "log"), "--store-patience-seconds", "0.5", url=url)

    assert stream.wait() == 1
    assert "does not answer" in stream.output


def test_a_changed_view_is_filled_beside_the_old_one_and_then_serves(
    start_stream: StartStream, tmp_path: Path, redis_url: str, changed_registry: Path
) -> None:
    """The new generation reads the log from its beginning, is promoted, and equals the oracle; the other view stays."""
    first_part, second_part = make_payments(4_000, seed=14), make_payments(4_000, seed=15, first=4_000)
    first_part.append_to(tmp_path / "log")
    assert start_stream("--log-dir", str(tmp_path / "log"), "--until-end").wait() == 0
    second_part.append_to(tmp_path / "log")

    stream = start_stream("--log-dir", str(tmp_path / "log"), use_registry=changed_registry)
    stream.wait_for('feature view "cards" generation 2 has caught up')
    stream.wait_for("live: cards@2, merchants@1 ")
    stream.terminate()

    assert stream.wait() == 0, stream.output
    store = connect(redis_url)
    serving = {name: GenerationCatalog(store, PROJECT).serving(name) for name in ("cards", "merchants")}
    store.close()
    assert {name: found and found.number for name, found in serving.items()} == {"cards": 2, "merchants": 1}
    assert_every_value_is_exact(redis_url, first_part, second_part)


def test_a_changed_view_is_promoted_by_a_run_to_the_end(
    start_stream: StartStream, tmp_path: Path, redis_url: str, changed_registry: Path
) -> None:
    """Where the run ends before the first look at positions, the last look promotes."""
    payments = make_payments(1_000, seed=16)
    payments.append_to(tmp_path / "log")
    assert start_stream("--log-dir", str(tmp_path / "log"), "--until-end").wait() == 0

    stream = start_stream("--log-dir", str(tmp_path / "log"), "--until-end", use_registry=changed_registry)

    assert stream.wait() == 0, stream.output
    store = connect(redis_url)
    serving = GenerationCatalog(store, PROJECT).serving("cards")
    store.close()
    assert serving is not None
    assert serving.number == 2
    assert_every_value_is_exact(redis_url, payments)


def test_bytewaxs_own_runner_runs_the_flow(start_stream: StartStream, tmp_path: Path, redis_url: str) -> None:
    """`python -m bytewax.run dataflows.log_to_tiles.flow:flow` with the settings in the environment."""
    payments = make_payments(2_000, seed=17)
    payments.append_to(tmp_path / "log")
    stream = start_stream(
        program=["-m", "bytewax.run", "dataflows.log_to_tiles.flow:flow"],
        environment={"FEATURESTORE_LOG_DIR": str(tmp_path / "log")},
    )
    stream.wait_for("lag 0")
    wait_until_both_serve(stream)
    stream.terminate()

    assert stream.wait() == 0, stream.output
    assert_every_value_is_exact(redis_url, payments)


def test_a_log_that_is_shorter_than_what_was_read_is_refused(start_stream: StartStream, tmp_path: Path) -> None:
    """Lost events are an error with a remedy, never a silent new beginning."""
    make_payments(1_000, seed=18, partitions=1).append_to(tmp_path / "log")
    assert start_stream("--log-dir", str(tmp_path / "log"), "--until-end").wait() == 0
    path = tmp_path / "log" / TOPIC / "0.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))

    stream = start_stream("--log-dir", str(tmp_path / "log"), "--until-end")

    assert stream.wait() == 1
    assert "were read from it before" in stream.output


def test_the_stream_writes_to_a_redis_cluster(
    start_stream: StartStream, tmp_path: Path, redis_cluster_url: str
) -> None:
    """Lanes are hash tags: the same flow, every value the oracle's."""
    payments = make_payments(5_000, seed=19)
    payments.append_to(tmp_path / "log")

    stream = start_stream("--log-dir", str(tmp_path / "log"), "--until-end", "--store-cluster", url=redis_cluster_url)

    assert stream.wait() == 0, stream.output
    assert_every_value_is_exact(redis_cluster_url, payments, cluster=True)


def test_prometheus_sees_what_the_progress_line_says(start_stream: StartStream, tmp_path: Path, port: int) -> None:
    """Records read, events applied, dead letters by reason, lag by partition, freshness by view, and every step."""
    payments = make_payments(2_000, seed=21)
    payments.append_to(tmp_path / "log")
    stream = start_stream("--log-dir", str(tmp_path / "log"), "--metrics-port", str(port))
    stream.wait_for("lag 0")

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        metrics = response.read().decode()
    stream.terminate()

    read = sum(len(lines) for lines in payments.records)
    assert f'featurestore_stream_records_read_total{{topic="payments"}} {read}.0' in metrics
    assert 'featurestore_stream_events_applied_total{view="cards"} 2000.0' in metrics
    assert f'reason="undecodable",topic="payments",view=""}} {payments.bad}.0' in metrics
    assert 'featurestore_stream_lag_records{partition="0",topic="payments"} 0.0' in metrics
    assert 'featurestore_stream_freshness_ms{view="merchants"}' in metrics
    for step in ("decode", "key", "wait", "prepare", "store"):
        [count] = re.findall(rf'^featurestore_stream_step_seconds_count{{step="{step}"}} (\S+)$', metrics, re.MULTILINE)
        assert float(count) > 0, step
    assert stream.wait() == 0
