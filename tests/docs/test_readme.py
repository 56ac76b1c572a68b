"""What README shows is what runs: the definition within the example repo, and the lookup against a real server."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from featurestore.clock import SystemClock
from featurestore.definitions.fast_import import skip_typeguard
from featurestore.definitions.registry import RegistryFile
from featurestore.definitions.repo import apply_repo, load_repo
from featurestore.online.redis.store import connect
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer

ROOT = Path(__file__).resolve().parents[2]
DECLARE, LOOK_UP = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
PORT_ON_PAGE = "6566"


def test_the_definition_of_the_readme_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain Feast view with the features that the text promises."""
    with skip_typeguard():
        from feast import StreamFeatureView
    monkeypatch.syspath_prepend(str(ROOT / "feature_repo"))
    loaded = set(sys.modules)
    names: dict[str, Any] = {}
    exec(DECLARE, names)
    for module in set(sys.modules) - loaded:
        if module in {"entities", "sources"}:
            del sys.modules[module]
    view = names["card_activity"]

    assert isinstance(view, StreamFeatureView)
    assert len(view.aggregations) == 6 + 12 + 2 + 1
    assert {"card_count_lifetime", "card_amount_max_90d", "card_declines_1h", "card_market_last_1d"} <= {
        field.name for field in view.schema
    }


def test_the_lookup_of_the_readme_answers_every_feature(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """91 features of three entities, as the text says."""
    repo = tmp_path / "feature_repo"
    shutil.copytree(ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
    monkeypatch.setenv("FEATURESTORE_STORE_URL", redis_url)
    apply_repo(load_repo(repo, "payments"))
    store = connect(redis_url)
    registry = RegistryFile(repo / "data" / "registry.db", "payments")
    server = FeatureServer(registry, store, SystemClock(), ServerSettings(port=0))
    names: dict[str, Any] = {}
    try:
        exec(LOOK_UP.replace(PORT_ON_PAGE, str(server.port)).replace("timeout_s=0.1", "timeout_s=30"), names)
    finally:
        server.stop(drain_seconds=0)
        store.close()

    assert len(names["features"]) == 91
