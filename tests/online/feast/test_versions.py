"""Versioned references of the Feast SDK: "view@v2:feature"."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from featurestore.definitions.repo import apply_repo, load_repo
from featurestore.errors import InvalidRequest
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from tests.online.feast.stand import NOT_FOUND, NOW, PRESENT, PROJECT, Stand, payments, profile, stand_on

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def stand(applied_repo: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """A registry with versions online, in which one window of the cards was changed; the stream has the first one."""
    monkeypatch.setenv("FEATURESTORE_STORE_URL", redis_url)
    repo = tmp_path / "feature_repo"
    shutil.copytree(applied_repo, repo, ignore=shutil.ignore_patterns("data"))
    settings = yaml.safe_load((repo / "feature_store.yaml").read_text())
    settings["registry"] = {"path": "data/registry.db", "enable_online_feature_view_versioning": True}
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    apply_repo(load_repo(repo, PROJECT))
    store = connect(redis_url)
    first = stand_on(repo, store)
    first.stream("card_activity", payments(3, key=b"c-1"))
    views = repo / "card_views.py"
    views.write_text(views.read_text().replace('"1m", "5m", "15m", "1h"', '"1m", "5m", "20m", "1h"'))
    apply_repo(load_repo(repo, PROJECT))
    yield stand_on(repo, store)
    store.close()


def test_a_version_is_answered_by_the_generation_of_its_definition(stand: Stand) -> None:
    """By the serving one alone: what fills has not caught up, and what retired is fed no more."""
    asked, rows = ["card_activity@v{}:card_count_1d"], [{"card_id": "c-1"}]
    numbers = [one["version_number"] for one in stand.feast.list_feature_view_versions("card_activity")]

    def cells(version: int) -> object:
        return stand.cells([asked[0].format(version)], rows)["card_count_1d"][0][:2]

    first, last = min(numbers), max(numbers)
    assert ((3, PRESENT), (None, NOT_FOUND)) == (cells(first), cells(last))
    catalog = GenerationCatalog(stand.store, PROJECT)
    stand.writer("card_activity")
    filling = catalog.generations("card_activity")[-1]
    assert (None, NOT_FOUND) == cells(last)
    catalog.promote(filling)
    stand.clock.advance_ms(1_000)
    assert (0, NOT_FOUND) == cells(last)
    assert (None, NOT_FOUND) == cells(first)


def test_no_versions_of_plain_views_are_kept(stand: Stand) -> None:
    """Neither read nor written: a row holds what was written last, which is of no version."""
    stand.feast.write_to_online_store("merchant_profile", pd.DataFrame([profile(1, NOW)]))

    with pytest.raises(InvalidRequest, match='feature view "merchant_profile" is a plain one') as caught:
        stand.cells(["merchant_profile@v0:home_market"], [{"merchant_id": 1}])
    assert 'without "@v0"' in caught.value.hint
    assert "SE" == stand.cells(["merchant_profile:home_market"], [{"merchant_id": 1}])["home_market"][0][0]
