"""An applied repo, and the SDK on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.definitions.repo import apply_repo, load_repo
from featurestore.online.redis.store import RedisStore, connect
from tests.online.feast.stand import PROJECT, Stand, stand_on

PROJECT_ROOT = Path(__file__).resolve().parents[2]

collect_ignore = ["feast/extras"]  # modules of a feature repo, importable only from inside one


@pytest.fixture(scope="module")
def applied_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The payments example and what a team adds to it, applied; apply needs no store."""
    repo = tmp_path_factory.mktemp("feast") / "feature_repo"
    shutil.copytree(PROJECT_ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
    shutil.copy(Path(__file__).parent / "feast" / "extras" / "extras.py", repo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATURESTORE_STORE_URL", "redis://127.0.0.1:1/0")
        apply_repo(load_repo(repo, PROJECT))
    return repo


@pytest.fixture
def stand(applied_repo: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """The SDK on an empty store."""
    monkeypatch.setenv("FEATURESTORE_STORE_URL", redis_url)
    store = connect(redis_url)
    yield stand_on(applied_repo, store)
    store.close()


@pytest.fixture(params=["standalone", "cluster"])
def store(request: pytest.FixtureRequest) -> Iterator[RedisStore]:
    """An empty online store of either kind."""
    is_cluster = request.param == "cluster"
    url = request.getfixturevalue("redis_cluster_url" if is_cluster else "redis_url")
    connected = connect(url, cluster=is_cluster)
    yield connected
    connected.close()
