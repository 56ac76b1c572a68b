"""`featurestore lookup --compare`: two versions of a view on the same entities, on a real Redis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.core.spec import ViewSpec
from featurestore.definitions.compile.versions import stored_views
from featurestore.definitions.registry import read_registry
from featurestore.definitions.repo import apply_repo, load_repo
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import naive_value
from featurestore.testing.writers import open_writer
from tests.dataflows.payments import CONFIG, PROJECT, REPO, make_payments

Capture = pytest.CaptureFixture[str]

LANES = 2
PINS = """
from feast import FeatureService
old = FeatureService(name="old", features=["cards@v0"])
new = FeatureService(name="new", features=[cards, merchants])
"""
MADE = make_payments(600, seed=51, entities=60)
AS_OF = MADE.newest_ms + 1
CONDITIONS = {"amount < 50000": lambda columns: columns["amount"] is not None and columns["amount"] < 50_000}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """The cards' largest amount of a day is, since the second apply, that of smaller payments."""
    repo = tmp_path / "repo"
    (repo / "data").mkdir(parents=True)
    (repo / "feature_store.yaml").write_text(CONFIG)
    first = REPO % {"card_window": "1d"}
    for text in (first, first.replace('"max", over=["1d"]', '"max", over=["1d"], where="amount < 50000"') + PINS):
        (repo / "definitions.py").write_text(text)
        apply_repo(load_repo(repo, PROJECT))
    return repo / "data" / "registry.db"


def fill(store: RedisStore, view: ViewSpec) -> None:
    """All payments of the cards, in a generation that serves."""
    generation = GenerationCatalog(store, PROJECT).register(view)
    events = [event for key in sorted(MADE.cards) for event in MADE.cards[key]]
    clock = ManualClock(now_ms=AS_OF)
    open_writer(store, generation, LANES, clock).write([keyed_batch(view, events, lane_count=LANES)])


def test_versions_are_compared_feature_by_feature(redis_url: str, registry: Path, capsys: Capture) -> None:
    """How many rows differ, by how much and whose, and how many are null: what two plain loops say."""
    options = ["--registry", str(registry), "--project", PROJECT, "--store-url", redis_url, "--as-of", str(AS_OF)]
    repo = read_registry(registry)
    old, new = repo.view("cards@v0"), repo.view("cards")
    assert old is not None
    assert new is not None
    store = connect(redis_url)
    GenerationCatalog(store, PROJECT).lane_count(LANES)
    for view in stored_views(repo):
        if view.name.startswith("cards"):
            fill(store, view)
    store.close()

    assert main(["lookup", "new", "--compare", "cards@v0", "cards@latest", *options, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(MADE.cards) == found["rows"]
    for one in found["features"]:
        sides = [next(each for each in view.features if each.name == one["feature"]) for view in (old, new)]
        rows = [[naive_value(each, events, AS_OF, CONDITIONS) for each in sides] for events in MADE.cards.values()]
        gaps = [abs(a - b) for a, b in rows if isinstance(a, int) and isinstance(b, int) and a != b]
        assert sum(a != b for a, b in rows) == one["differing"], one
        assert [sum(row[side] is None for row in rows) for side in (0, 1)] == [one["null_left"], one["null_right"]]
        assert (max(gaps) if gaps else None) == one["largest"]
    assert {"amount_max_1d"} == {one["feature"] for one in found["features"] if one["differing"]}

    given = ["lookup", "old", "card_id=card-1", "card_id=nobody", "--compare", "v0", "latest", *options]
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert "cards@v0 and cards, 2 entities" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_what_is_not_kept_or_not_ready_is_refused(redis_url: str, registry: Path, capsys: Capture) -> None:
    """A comparison with what nothing feeds would say nothing."""
    options = ["--registry", str(registry), "--project", PROJECT, "--store-url", redis_url]
    store = connect(redis_url)
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(LANES)
    [now] = [view for view in read_registry(registry).views if view.name == "cards"]
    catalog.register(now)
    store.close()

    for versions, said in (
        (("v0", "latest"), "cards@v0 is not ready"),
        (("v7", "latest"), "cards@v7 is not pinned, so nothing keeps it up to date"),
        (("latest", "latest"), "are not two versions of one view"),
    ):
        assert main(["lookup", "old", "--compare", *versions, *options]) == 1
        assert said in capsys.readouterr().err
    assert main(["lookup", "new", "--compare", "v0", "latest", *options]) == 1
    assert 'has 2 stream views, and "v0" names none' in capsys.readouterr().err
