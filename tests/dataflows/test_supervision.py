"""What one fault may stop, and what it may not: waiting, other definitions, one view among several."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dataflows import supervisor
from dataflows.logs.sources import ControlSource, Shared
from dataflows.plan.definitions import Definitions
from dataflows.progress import StreamProgress
from dataflows.run_outcome import Conductor
from dataflows.settings import from_environment
from featurestore.clock import SystemClock
from featurestore.core.events import Horizon
from featurestore.core.spec import ViewSpec
from featurestore.definitions.registry import read_registry
from featurestore.errors import SourceUnavailable
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.probe import free_port
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.write.bootstrap import EventPart, fill_lanes, hand_over
from tests.dataflows.conftest import StartStream
from tests.dataflows.payments import PROJECT, TOPIC, assert_every_value_is_exact, make_payments
from tests.dataflows.stream_process import ROOT, StreamProcess


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    """The stream's store."""
    connected = connect(redis_url)
    yield connected
    connected.close()


@dataclass(frozen=True)
class NothingUpTo:
    """A log without events of the view, that ends at some offsets."""

    positions: Mapping[tuple[str, int], int]
    incarnations: Mapping[tuple[str, int], str] = field(default_factory=dict)
    horizons: Mapping[tuple[str, int], Horizon] = field(default_factory=dict)

    def parts(self, lane: int) -> Iterator[EventPart]:
        """None."""
        return iter(())


def cards_of(registry: Path) -> ViewSpec:
    """The view "cards" as it is registered."""
    return next(view for view in read_registry(registry, project=PROJECT).views if view.name == "cards")


def bootstrapped(
    store: RedisStore, view: ViewSpec, positions: Mapping[tuple[str, int], int], *, is_anew: bool = False
) -> Generation:
    """A generation that the stream is to bring up to date from these positions."""
    catalog = GenerationCatalog(store, PROJECT)
    generation, lanes = catalog.begin_bootstrap(view, is_anew=is_anew), catalog.lane_count()
    fill_lanes(store, generation, NothingUpTo(positions), range(lanes), SystemClock())
    return hand_over(store, generation, lanes)


def test_a_bootstrap_that_cannot_be_continued_is_parked_and_the_others_go_on(
    start_stream: StartStream, tmp_path: Path, redis_url: str, store: RedisStore, changed_registry: Path
) -> None:
    """At this run and at each restart; the definition is not filled anew with a hole, and can be bootstrapped again."""
    first, second = make_payments(1_000, seed=61), make_payments(1_000, seed=62, first=1_000)
    options = ("--log-dir", str(tmp_path / "log"), "--until-end")
    first.append_to(tmp_path / "log")
    assert start_stream(*options).wait() == 0
    view = cards_of(changed_registry)
    bad = bootstrapped(store, view, {(TOPIC, partition): 1_000_000 for partition in range(4)})
    second.append_to(tmp_path / "log")

    stream = start_stream(*options, use_registry=changed_registry)
    assert stream.wait() == 0, stream.output
    assert f'feature view "cards" generation {bad.number} cannot be brought up to date and is parked' in stream.output
    assert "run `featurestore bootstrap cards` again" in stream.output
    stream = start_stream(*options, use_registry=changed_registry)
    assert stream.wait() == 0, stream.output
    assert "is parked" not in stream.output

    catalog = GenerationCatalog(store, PROJECT)
    states = [one.state for one in catalog.generations("cards")]
    assert states == [GenerationState.SERVING, GenerationState.ROLLED_BACK]
    assert_every_value_is_exact(redis_url, first, second)
    assert catalog.begin_bootstrap(view).number == bad.number + 1


def test_a_stream_that_waits_does_not_undo_what_is_begun_for_a_newer_definition(
    tmp_path: Path, redis_url: str, store: RedisStore, registry: Path, changed_registry: Path
) -> None:
    """The wait for the log outlives an apply: the definitions of before are not registered any more."""
    used = shutil.copy(registry, tmp_path / "registry.db")
    settings = from_environment(
        {
            "FEATURESTORE_PROJECT": PROJECT,
            "FEATURESTORE_REGISTRY": str(used),
            "FEATURESTORE_STORE_URL": redis_url,
            "FEATURESTORE_LOG_DIR": str(tmp_path / "log"),
            "FEATURESTORE_STORE_PATIENCE_SECONDS": "0",
        }
    )
    definitions = Definitions(settings.registry, settings.project)
    catalog, parts = GenerationCatalog(store, PROJECT), supervisor.connect_parts(settings, definitions)
    with pytest.raises(SourceUnavailable):
        supervisor.plan(settings, parts)
    assert catalog.all() == {}, "what cannot be read yet is not registered"

    make_payments(10, seed=63).append_to(tmp_path / "log")
    assert supervisor.plan(settings, parts) is not None
    shutil.copy(changed_registry, used)
    begun = catalog.begin_bootstrap(cards_of(changed_registry))
    assert supervisor.plan(settings, parts) is None, "connect again"
    parts.store.close()
    parts = supervisor.connect_parts(settings, definitions)
    assert supervisor.plan(settings, parts) is not None
    parts.store.close()

    assert catalog.generations("cards")[-1] == begun
    assert catalog.generations("cards")[-1].state is GenerationState.BOOTSTRAPPING


def test_a_stream_that_waits_for_its_store_is_stopped_by_sigterm(
    start_stream: StartStream, tmp_path: Path, port: int
) -> None:
    """As a stop, not as a failure: nothing was begun."""
    make_payments(10, seed=64).append_to(tmp_path / "log")
    stream = start_stream(
        "--log-dir", str(tmp_path / "log"), "--store-patience-seconds", "600", url=f"redis://127.0.0.1:{port}"
    )
    stream.wait_for("retrying")
    stream.terminate()

    assert stream.wait(20) == 0, stream.output
    assert "stream ended: received SIGTERM while it waited" in stream.output


def test_a_log_stream_that_waits_for_its_source_is_stopped_by_sigterm(tmp_path: Path, registry: Path) -> None:
    """The event log's stream too."""
    options = ("--event-log", str(tmp_path / "event_log"), "--log-dir", str(tmp_path / "events"))
    stream = StreamProcess(tmp_path, registry, "", *options, program=("-m", "dataflows.log_to_table"))
    try:
        stream.wait_for("retrying")
        stream.terminate()
        assert stream.wait(20) == 0, stream.output
    finally:
        stream.kill()


LONELY = """
import sys
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource
from dataflows.run_outcome import Conductor
from dataflows.supervisor import run_flow

flow = Dataflow("lonely")
op.output("out", op.input("in", flow, TestingSource([1])), TestingSink([]))
run_flow(flow, Conductor(), sys.argv[1:], 0, peers_patience_s=0.5)
"""


def test_a_process_whose_peers_do_not_come_back_ends(tmp_path: Path) -> None:
    """Killed while the flow was planned again, they would be waited for for ever: 4 says restart all."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    ended = subprocess.run([sys.executable, "-c", LONELY, *addresses], cwd=ROOT, capture_output=True, timeout=60)

    assert supervisor.EXIT_PEER_GONE == ended.returncode, ended.stderr
    assert b"did not come within 0.5 s" in ended.stderr


def test_a_flow_that_runs_is_not_waited_for() -> None:
    """Bytewax builds the control source once the processes have found each other."""
    conductor = Conductor()
    shared = Shared(conductor, StreamProgress(SystemClock(), interval_seconds=1.0), SystemClock(), False, 0.0)
    source = ControlSource(["0000"], shared, ())
    assert not conductor.has_begun.is_set()
    source.build("control", 0, 1)

    assert conductor.has_begun.is_set()
