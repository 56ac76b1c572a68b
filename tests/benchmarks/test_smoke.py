"""Benchmarks do not rot: every scenario runs at its smoke size. Answers are asserted, times never."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from benchmarks import render
from benchmarks.__main__ import SCENARIOS
from benchmarks.load import LoadPlan, exchange, run_clients
from benchmarks.parts import module_process, running
from benchmarks.peers import echo_server
from benchmarks.scenario import Run, Size, WrongAnswer, require
from featurestore.testing.servers import kafka_missing

NEEDS_KAFKA = {"ingest", "freshness"}


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run at smoke size; scenarios share the applied repo."""
    return Run(Size.SMOKE, tmp_path_factory.mktemp("benchmarks"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.kafka] if name in NEEDS_KAFKA else []) for name in SCENARIOS]
)
def test_every_scenario_answers_right(name: str, smoke_run: Run) -> None:
    """A scenario compares what it measures with the oracle or a peer, and reports figures that are numbers."""
    missing = kafka_missing() if name in NEEDS_KAFKA else None
    if missing is not None:
        assert os.environ.get("CI") != "true", missing
        pytest.skip(missing)

    result = SCENARIOS[name](smoke_run)

    assert name == result.scenario
    assert result.answer_hash
    assert result.checked
    assert all(line.value > 0 and math.isfinite(line.value) for line in result.lines)
    assert any(line.ratio is not None for line in result.lines)
    assert f"## {name}" in render.markdown([result], {"commit": "none"}, Size.SMOKE)


def test_equal_sizes_give_equal_answers(smoke_run: Run) -> None:
    """The answer's hash depends on code and seed alone."""
    assert SCENARIOS["core"](smoke_run).answer_hash == SCENARIOS["core"](smoke_run).answer_hash


def test_a_load_client_notices_wrong_answers(tmp_path: Path) -> None:
    """A server that answers other bytes than expected is found out, however fast it is."""
    path = tmp_path / "exchanges.json"
    path.write_text('[["' + '","'.join(exchange(b"ask", b"wrong")) + '"]]')
    server = module_process("echo", tmp_path, "benchmarks.peers.echo_server", ["sync", str(path), "2"])
    with running(server, echo_server.READY) as line:
        address = line.removeprefix(echo_server.READY)
        plan = LoadPlan(address, echo_server.METHOD, [exchange(b"ask", b"right")], seconds=0.05, warm_up_calls=1)
        report = run_clients(tmp_path, plan)

    assert report.calls > 0
    assert report.mismatches == report.calls


def test_a_wrong_answer_stops_the_run() -> None:
    """No figure is reported for something that does not work."""
    require(True, "fine")
    with pytest.raises(WrongAnswer, match="card 7"):
        require(False, "card 7 is off by one")
