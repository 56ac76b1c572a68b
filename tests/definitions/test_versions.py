"""Versions that services pin, out of a registry as Feast writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.definitions.compile.versions import stored_views
from featurestore.definitions.registry import find_registry_bytes, read_compilation, read_registry
from featurestore.definitions.repo import apply_repo, load_repo
from featurestore.wire.codecs.view_json import definition_hash

pytestmark = pytest.mark.filterwarnings("ignore")

PINS = """
from feast import FeatureService

pinning = FeatureService(name="pinning", features=["card_activity@v0"])
one_feature = FeatureService(name="one_feature", features=["card_activity@v0:card_count_15m", "card_activity"])
"""


@pytest.fixture(params=["file", "sql"])
def repo(request: pytest.FixtureRequest, example_repo: Path) -> Path:
    """The payments example, in a registry of either kind."""
    if request.param == "sql":
        config = example_repo / "feature_store.yaml"
        address = f"sqlite:///{example_repo}/data/registry.sqlite"
        lines = [line for line in config.read_text().splitlines() if not line.startswith("registry:")]
        (example_repo / "data").mkdir(exist_ok=True)
        config.write_text("\n".join([*lines, f"registry: {{registry_type: sql, path: '{address}'}}"]) + "\n")
    return example_repo


def registry_of(repo: Path) -> str:
    """Where it is."""
    sql = repo / "data" / "registry.sqlite"
    return f"sqlite:///{sql}" if sql.exists() else str(repo / "data" / "registry.db")


def test_a_pinned_version_is_the_view_as_it_was_applied(repo: Path) -> None:
    """By its definition's hash; and a plan of the repo that pins it compiles to the same before it is applied."""
    apply_repo(load_repo(repo, "payments"))
    first = read_registry(registry_of(repo)).view("card_activity")
    views = repo / "card_views.py"
    views.write_text(views.read_text().replace('"1m", "5m", "15m", "1h"', '"1m", "5m", "20m", "1h"'))
    (repo / "pins.py").write_text(PINS)
    loaded = load_repo(repo, "payments")
    planned = loaded.compile(find_registry_bytes(registry_of(repo), with_all_versions=True)).require_sound()
    apply_repo(loaded)
    applied = read_registry(registry_of(repo))

    assert first is not None
    assert planned == applied
    [pin] = applied.pinned
    assert ("card_activity@v0", ("one_feature", "pinning")) == (pin.view.name, pin.services)
    assert definition_hash(first) == definition_hash(pin.view)
    now = applied.view("card_activity")
    assert now is not None
    assert definition_hash(first) != definition_hash(now)
    assert len(applied.views) + 1 == len(stored_views(applied))
    pinning, one = applied.service("pinning"), applied.service("one_feature")
    assert pinning is not None
    assert one is not None
    assert [answer.name for answer in first.answers] == [each.feature for each in pinning.features]
    assert {"card_activity@v0"} == {each.view for each in pinning.features}
    assert ("card_activity@v0", "card_count_15m") == (one.features[0].view, one.features[0].feature)


def test_a_version_that_was_never_applied_is_a_note(repo: Path) -> None:
    """One service's mistake stops no other service."""
    apply_repo(load_repo(repo, "payments"))
    (repo / "pins.py").write_text(PINS.replace("@v0", "@v77"))

    compiled = load_repo(repo, "payments").compile(find_registry_bytes(registry_of(repo), with_all_versions=True))
    assert 'feature view "card_activity" is pinned to version 77' in compiled.unserved["pinning"]
    assert () == compiled.problems
    assert () == read_compilation(registry_of(repo)).spec.pinned
