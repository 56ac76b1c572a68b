"""What operators see of a version that a feature service pins: status, doctor, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.definitions.registry import read_registry
from featurestore.definitions.repo import apply_repo, load_repo
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from tests.dataflows.payments import CONFIG, PROJECT, REPO

Capture = pytest.CaptureFixture[str]

PIN = '\nfrom feast import FeatureService\nmodel = FeatureService(name="model", features=["cards@v0"])\n'

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A repo that was applied twice, the second time with a service that pins what the first one wrote."""
    repo = tmp_path / "repo"
    (repo / "data").mkdir(parents=True)
    (repo / "feature_store.yaml").write_text(CONFIG)
    for more in ("", PIN):
        (repo / "definitions.py").write_text(REPO % {"card_window": "1d"} + more)
        apply_repo(load_repo(repo, PROJECT))
    return repo / "data" / "registry.db"


def test_a_pin_is_shown_and_keeps_what_it_needs(redis_url: str, registry: Path, capsys: Capture) -> None:
    """Neither drop nor rollback takes away what alone answers for it, and both say who pins it."""
    options = ["--registry", str(registry), "--project", PROJECT, "--store-url", redis_url]
    store = connect(redis_url)
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(2)
    [view] = [one for one in read_registry(registry).views if one.name == "cards"]
    catalog.register(view)

    assert main(["status", "--no-memory", *options]) == 0
    assert "cards@v0 is pinned by model: answered by cards@1" in capsys.readouterr().out
    assert main(["drop", "cards", "--generation", "1", *options]) == 1
    assert "cards@v0 is pinned by model" in capsys.readouterr().err

    catalog.promote(catalog.register(replace(view, lookback_ms=view.lookback_ms + 1)))
    assert main(["status", "--no-memory", *options]) == 0
    assert "cards@v0 is pinned by model: not ready yet" in capsys.readouterr().out
    assert main(["doctor", *options]) == 0
    assert "model pins it, and nothing answers for it yet" in " ".join(capsys.readouterr().out.split())

    assert main(["rollback", "cards", *options]) == 0
    assert "cards@1 serves again" in capsys.readouterr().out
    assert main(["rollback", "cards", *options]) == 1
    said = capsys.readouterr().err
    assert 'feature service "model" pins cards@v0' in said
    assert "let it pin another version, or follow cards" in said
    assert "serving" == str(catalog.generations("cards")[0].state)
    store.close()
