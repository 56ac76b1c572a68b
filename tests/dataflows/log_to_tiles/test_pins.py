"""A service pins what a view was, and the view changes while payments go on: both definitions stay exact."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore.definitions.registry import read_registry
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.online.serving_view import definition_of, served_definitions
from featurestore.testing.oracle.naive import naive_values
from tests.dataflows.conftest import StartStream, applied_repo
from tests.dataflows.payments import (
    PROJECT,
    REPO,
    Payments,
    assert_every_value_is_exact,
    make_payments,
    stored_values,
)
from tests.dataflows.stream_process import ROOT

PIN = '\nfrom feast import FeatureService\nmodel = FeatureService(name="model", features=["cards@v0"])\n'


@pytest.fixture(scope="session")
def registries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """As it was applied first, and after a window was changed and the first version pinned."""
    repo = tmp_path_factory.mktemp("repo") / "pinning"
    first = repo.with_suffix(".first")
    shutil.copy(applied_repo(repo), first)
    (repo / "definitions.py").write_text(REPO % {"card_window": "2d"} + PIN)
    command = [sys.executable, "-m", "featurestore", "apply", "--repo", str(repo)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return first, repo / "data" / "registry.db"


def kept_generation(url: str, registry: Path) -> Generation | None:
    """What is stored for the version that is pinned, and for nothing else."""
    [pin] = read_registry(str(registry), project=PROJECT).pinned
    store = connect(url)
    found = served_definitions(GenerationCatalog(store, PROJECT).all()).get(definition_of(pin.view), ())
    store.close()
    return next((one.generation for one in found if one.generation.view.name != "cards"), None)


def assert_version_is_exact(url: str, registry: Path, *parts: Payments) -> None:
    """It answers as the naive oracle does by the definition that it was."""
    generation = kept_generation(url, registry)
    assert generation is not None
    as_of_ms = max(part.newest_ms for part in parts) + 1
    keys = sorted(parts[0].cards)[::5]
    found = stored_values(url, generation, keys, as_of_ms)
    for key, answer in zip(keys, found, strict=True):
        events = [event for part in parts for event in part.cards[key]]
        expected = naive_values(generation.view, events, as_of_ms)
        assert {name: expected[name] for name in answer} == answer


def test_a_pinned_version_is_fed_beside_the_newest(
    start_stream: StartStream, tmp_path: Path, redis_url: str, registries: tuple[Path, Path]
) -> None:
    """By one stream, which kept the first definition as the other one took over; so is what comes later."""
    first, pinned = registries
    applied = tmp_path / "registry.db"
    shutil.copy(first, applied)
    parts = [make_payments(1_500, seed=41 + part, first=1_500 * part) for part in range(3)]
    parts[0].append_to(tmp_path / "log")
    stream = start_stream("--log-dir", str(tmp_path / "log"), use_registry=applied)
    stream.wait_for("live: cards@1, merchants@1 from")
    shutil.copy(pinned, tmp_path / "next.db")
    (tmp_path / "next.db").replace(applied)
    parts[1].append_to(tmp_path / "log")
    stream.wait_for("other definitions were applied")
    stream.wait_until(lambda: stream.output.count("has caught up and serves") == 4)
    parts[2].append_to(tmp_path / "log")
    stream.terminate()

    assert stream.wait() == 0, stream.output
    again = start_stream("--log-dir", str(tmp_path / "log"), "--until-end", use_registry=applied)
    assert again.wait() == 0, again.output
    assert_every_value_is_exact(redis_url, *parts)
    assert_version_is_exact(redis_url, pinned, *parts)
    store = connect(redis_url)
    states = [one.state for one in GenerationCatalog(store, PROJECT).generations("cards")]
    store.close()
    assert [GenerationState.RETIRED, GenerationState.SERVING] == states
