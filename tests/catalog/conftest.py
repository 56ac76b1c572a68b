"""A registry with something of everything, as Feast writes it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from pathlib import Path

import pytest

from featurestore.catalog.model import Catalog
from featurestore.definitions.fast_import import skip_typeguard

PROJECT = "catalog"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the repo beside this file, applied once."""
    with skip_typeguard():
        from feast.repo_config import load_repo_config
        from feast.repo_operations import apply_total

    repo = tmp_path_factory.mktemp("catalog") / "repo"
    shutil.copytree(Path(__file__).parent / "repo", repo, ignore=shutil.ignore_patterns("__pycache__", "data"))
    modules, here = set(sys.modules), Path.cwd()
    os.chdir(repo)
    sys.path.insert(0, str(repo))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            apply_total(load_repo_config(repo, repo / "feature_store.yaml"), repo, skip_source_validation=False)
    finally:
        os.chdir(here)
        sys.path.remove(str(repo))
    for name in set(sys.modules) - modules:
        if str(repo) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    return repo / "data" / "registry.db"


@pytest.fixture(scope="session")
def catalog(registry: Path) -> Catalog:
    """All of it."""
    return Catalog(registry.read_bytes(), PROJECT)
