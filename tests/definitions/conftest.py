"""Feature repos in directories of their own, applied by Feast's own code."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from featurestore.definitions.fast_import import skip_typeguard

with skip_typeguard():
    from feast.repo_config import load_repo_config
    from feast.repo_operations import apply_total

PROJECT = Path(__file__).resolve().parents[2]

SQLITE_ONLINE_STORE = "online_store:\n  type: sqlite\n  path: data/online.db\n"


@pytest.fixture
def example_repo(tmp_path: Path) -> Path:
    """A copy of the payments example; its online store is Feast's own, which needs no server."""
    repo = tmp_path / "feature_repo"
    shutil.copytree(PROJECT / "feature_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
    config = repo / "feature_store.yaml"
    config.write_text(re.sub(r"online_store:\n(?:  .*\n)+", SQLITE_ONLINE_STORE, config.read_text()))
    return repo


@pytest.fixture
def plain_repo(tmp_path: Path) -> Path:
    """A copy of a repo that uses Feast alone."""
    repo = tmp_path / "plain_repo"
    shutil.copytree(Path(__file__).parent / "plain_repo", repo, ignore=shutil.ignore_patterns("__pycache__"))
    return repo


@pytest.fixture
def stock_apply(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """What the command `feast apply` does in a repo's directory; answers with the registry's path."""

    def apply(repo: Path) -> Path:
        modules = set(sys.modules)
        with monkeypatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
            patch.chdir(repo)
            patch.syspath_prepend(str(repo))
            apply_total(load_repo_config(repo, repo / "feature_store.yaml"), repo, skip_source_validation=False)
        for name in set(sys.modules) - modules:
            if str(repo) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
        return repo / "data" / "registry.db"

    return apply
