"""`featurestore serve` and `featurestore lookup` as processes, on an applied registry."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurestore.clock import SystemClock
from featurestore.definitions.registry import read_registry
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.testing.batches import keyed_batch
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import DAY_MS
from featurestore.testing.writers import open_writer
from tests.serving.registries import write_registry

START_SECONDS_MAX = 10.0
"""Far beyond the second that it takes, for machines that do other things."""

NOW_MS = SystemClock().now_ms()


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A `featurestore serve` process, as (line printed when ready, process)."""
    command = [sys.executable, "-m", "featurestore", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline(), process
    finally:
        process.kill()
        process.communicate()


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Any `featurestore` command."""
    command = [sys.executable, "-m", "featurestore", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env={**os.environ, "COLUMNS": "120"})


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry file as `feast apply` writes it."""
    path = tmp_path / "registry.db"
    write_registry(path)
    return path


@pytest.fixture
def options(registry: Path, redis_url: str) -> list[str]:
    """Options that name registry, project and a store with one event of merchant 7."""
    repo = read_registry(registry, project="payments")
    store = connect(redis_url)
    catalog = GenerationCatalog(store, "payments")
    generation = catalog.register(repo.views[0])
    writer = open_writer(store, generation, catalog.lane_count(), SystemClock())
    writer.write([keyed_batch(repo.views[0], [NaiveEvent(b"7", NOW_MS - 60_000, b"e-1", {"amount": 250})])])
    store.close()
    return ["--registry", str(registry), "--project", "payments", "--store-url", redis_url]


def test_serve_says_when_it_is_ready_answers_and_drains_on_sigterm(options: list[str]) -> None:
    """From the shell: one line when ready, a lookup by `featurestore lookup`, exit code 0 after SIGTERM."""
    started_ns = SystemClock().monotonic_ns()
    with serving(*options) as (line, process):
        ready_seconds = (SystemClock().monotonic_ns() - started_ns) / 1e9
        found = re.fullmatch(r"serving project payments on (127\.0\.0\.1:\d+)\n", line)
        assert found, line
        address = ["--address", found[1]]

        table = run("lookup", "merchant_monitoring", "merchant_id=7", *address)
        answer = run("lookup", "merchant_monitoring", "merchant_id=7", "--format", "json", *address)
        before = run(
            "lookup", "merchant_monitoring", "merchant_id=7", "--as-of", str(NOW_MS - 90_000), "--format=json", *address
        )
        unknown = run("lookup", "merchant_monitoring", "merchant=7", *address)
        wrong = run("lookup", "merchant_monitoring", "merchant_id=seven", *address)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

    assert ready_seconds < START_SECONDS_MAX
    assert table.returncode == 0, table.stderr
    assert re.search(r"amount_sum_1d .* 250 .* PRESENT .* merchant_activity", table.stdout)
    features = json.loads(answer.stdout)["features"]
    assert features["amount_sum_1d"] == {"value": 250, "status": "PRESENT"}
    assert json.loads(answer.stdout)["views"]["merchant_activity"]["event_time_ms"] == NOW_MS - 60_000
    assert json.loads(before.stdout)["features"]["amount_sum_1d"] == {"value": 0, "status": "NOT_FOUND"}
    assert unknown.returncode == 1
    assert 'join key "merchant_id"' in unknown.stderr
    assert wrong.returncode == 2


def test_serve_without_a_registry_fails_with_a_hint(tmp_path: Path, redis_url: str) -> None:
    """The first thing a newcomer forgets is to apply, and the message says so."""
    found = run(
        "serve", "--port", "0", "--registry", str(tmp_path / "none.db"), "--project", "p", "--store-url", redis_url
    )

    assert found.returncode == 1
    assert "featurestore apply" in found.stderr
    assert "Traceback" not in found.stderr


def test_serve_starts_while_the_store_is_down(registry: Path) -> None:
    """A server that is rolled out before its store becomes ready by itself; it does not crash-loop."""
    store = ["--store-url", "redis://127.0.0.1:1/0"]
    with serving("--registry", str(registry), "--project", "payments", *store) as (line, process):
        assert "serving project payments" in line
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_lookup_without_a_server_says_so() -> None:
    """No stack trace when nobody answers."""
    found = run("lookup", "x", "a=1", "--address", "127.0.0.1:1", "--timeout", "0.2")

    assert found.returncode == 1
    assert "check that the server runs at this address" in found.stderr


@pytest.mark.parametrize("moment", ["2026-11-22T10:00:00Z", "2026-11-22T11:00:00+01:00", "1795341600000"])
def test_a_read_time_is_iso_or_milliseconds(moment: str) -> None:
    """All the usual ways to write a moment mean the same."""
    from featurestore.cli.lookup.given import MomentType

    assert MomentType().convert(moment, None, None) == 1_795_341_600_000
    assert DAY_MS == 86_400_000


def scrape(port: str) -> dict[str, float]:
    """The samples of a /metrics page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something comes true within half a minute."""
    until_ns = SystemClock().monotonic_ns() + 30 * 10**9
    while not (is_true := holds()) and SystemClock().monotonic_ns() < until_ns:
        threading.Event().wait(0.05)
    return is_true


def children(process: "subprocess.Popen[str]") -> set[int]:
    """Processes that a process has started."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return {int(pid) for pid in found.split()}


LOOKUPS = 'featurestore_requests_total{method="Lookup",status="OK"}'


def test_several_processes_answer_on_one_port_as_one_server(options: list[str]) -> None:
    """One line when all are ready, one /metrics that adds them up through a death and a renewal, one end."""
    with serving(*options, "--processes", "2", "--metrics-port", "0") as (line, process):
        found = re.fullmatch(
            r"serving project payments on (127\.0\.0\.1:\d+) with 2 processes, metrics on http://127\.0\.0\.1:(\d+)/metrics\n",
            line,
        )
        assert found, line
        lookup = ("lookup", "merchant_monitoring", "merchant_id=7", "--address", found[1])
        first = children(process)

        answers = [run(*lookup).returncode for _ in range(4)]
        counted = scrape(found[2])
        os.kill(min(first), signal.SIGKILL)
        has_another = eventually(lambda: len(children(process) - first) == 1 and len(children(process)) == 2)
        is_whole = eventually(lambda: scrape(found[2])["featurestore_server_processes"] == 2)
        second = children(process)
        answers += [run(*lookup).returncode for _ in range(4)]
        process.send_signal(signal.SIGHUP)
        is_renewed = eventually(lambda: len(children(process)) == 2 and not children(process) & second)
        answers += [run(*lookup).returncode for _ in range(4)]
        total = scrape(found[2])
        last = children(process)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)

    assert [0] * 12 == answers
    assert (2, 2) == (len(first), len(last))
    assert 4 == counted[LOOKUPS]
    assert (True, True, True) == (has_another, is_whole, is_renewed)
    assert 12 == total[LOOKUPS]
    assert (2, 1) == (total["featurestore_server_processes"], total["featurestore_server_restarts_total"])
    assert 1 == total["featurestore_online_store_up"]
    assert 0 == code
    assert not any(Path(f"/proc/{pid}").exists() for pid in first | second | last)


def test_processes_end_when_their_parent_is_killed(options: list[str]) -> None:
    """Nobody else would ever stop them, and the port would stay taken."""
    with serving(*options, "--processes", "2") as (_, process):
        started = children(process)
        process.kill()
        process.wait(10)

        assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))


def test_several_processes_of_which_none_can_start_say_why(options: list[str], tmp_path: Path) -> None:
    """The words of a process are not lost, and nothing is left running."""
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")

    found = run(
        "serve", "--port", "0", "--processes", "2", *options, "--tls-cert", str(broken), "--tls-key", str(broken)
    )

    assert 1 == found.returncode
    assert "not all of 2 server processes became ready" in found.stderr
    assert "broken.pem" in found.stderr or "cannot be bound" in found.stderr


def test_several_processes_refuse_a_port_that_somebody_else_has(options: list[str]) -> None:
    """Sharing is for processes that were started together, or that were told to."""
    with serving(*options) as (line, _):
        port = line.rstrip().rpartition(":")[2]

        found = run("serve", *options, "--processes", "2", "--port", port)

    assert 1 == found.returncode
    assert "cannot be bound" in found.stderr
