"""Run Feast's own universal test suites on this project's stores, from a checkout of Feast that is given by its path.

    python scripts/feast_suites.py ../feast                 all suites, on a Redis or Valkey that is started here
    python scripts/feast_suites.py ../feast -k entity_ttl   whatever pytest takes

Nothing of Feast's tests is kept here. They run with the online store, offline store and batch engine of a
feature_store.yaml of ours; docs/feast.md has the results. The checkout should be of the release that is installed, or
near it. The suites need the package assertpy, beside what tests need here. Object stores and containers, which they
import and these runs do not use, are stood in for.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import subprocess
import sys
import tempfile
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

SUITES = (
    "online_store/test_universal_online.py",
    "online_store/test_universal_online_types.py",
    "online_store/test_universal_e2e.py",
    "online_store/test_push_features_to_online_store.py",
    "materialization/test_universal_materialization.py",
    "offline_store/test_universal_historical_retrieval.py",
    "offline_store/test_universal_materialization.py",
    "offline_store/test_universal_types.py",
    "offline_store/test_non_entity_mode.py",
    "offline_store/test_feature_logging.py",
    "offline_store/test_offline_write.py",
    "offline_store/test_persist.py",
    "offline_store/test_push_features_to_offline_store.py",
)
"""Below sdk/python/tests/integration."""

URL_VARIABLE = "FEATURESTORE_STORE_URL"
CONFIGS_VARIABLE = "FULL_REPO_CONFIGS_MODULE"
"""Where Feast's suites look for the name of a module with the stores to run on: this one."""

ONLINE_STORE = "featurestore.feast.RealTimeOnlineStore"
ENGINE = "featurestore.feast.PlainViewEngine"
STOOD_IN_FOR = (
    "boto3",
    "botocore",
    "cryptography",
    "docker",
    "google.cloud",
    "keycloak",
    "minio",
    "pymongo",
    "testcontainers",
)

PYTEST_INI = """\
[pytest]
markers =
    universal_offline_stores
    universal_online_stores
    integration
    slow
    local_only
    xdist_group
    asyncio
"""


class _OnlineStores(dict[str, Any]):
    """One store, which is also there where a suite asks for SQLite's alone."""

    def __contains__(self, name: object) -> bool:
        return name in ("redis", "sqlite")

    def get(self, name: str, _default: object = None) -> Any:
        """The store."""
        return self["redis"]


class _Anything(ModuleType):
    """A package of which everything can be imported."""

    __path__: list[str] = []  # noqa: RUF012  # what makes a module a package

    def __getattr__(self, name: str) -> Any:
        return MagicMock(name=f"{self.__name__}.{name}")


class _StandIns(Loader):
    """Imports of packages that are not installed and not used."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> Any:
        """A module of any name below them."""
        is_below = any(f"{name}.".startswith(f"{package}.") for package in STOOD_IN_FOR)
        return ModuleSpec(name, self, is_package=True) if is_below else None

    def create_module(self, spec: Any) -> ModuleType:
        """An empty one."""
        return _Anything(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


if os.environ.get(CONFIGS_VARIABLE) == "feast_suites":  # as a plugin, before the suites are imported
    sys.meta_path.append(_StandIns())


def __getattr__(name: str) -> Any:
    """What Feast's suites ask of the module that CONFIGS_VARIABLE names."""
    if name == "AVAILABLE_ONLINE_STORES":
        return _OnlineStores(redis=({"type": ONLINE_STORE, "connection_string": os.environ[URL_VARIABLE]}, None))
    if name == "AVAILABLE_OFFLINE_STORES":
        return [("local", _of_suites("universal.data_sources.file").FileDataSourceCreator)]
    raise AttributeError(name)


def pytest_configure(config: pytest.Config) -> None:
    """As a plugin: let the suites' default stores be ours."""
    from featurestore.feast import PointInTimeOfflineStoreConfig

    files = _of_suites("universal.data_sources.file").FileDataSourceCreator
    files.create_offline_store_config = lambda _self: PointInTimeOfflineStoreConfig.model_validate({})
    configs = _of_suites("integration_test_repo_config").IntegrationTestRepoConfig
    start = configs.__init__

    def with_our_engine(self: Any, *arguments: Any, **options: Any) -> None:
        start(self, *arguments, **{"batch_engine": {"type": ENGINE}, **options})

    configs.__init__ = with_our_engine


def _of_suites(name: str) -> Any:
    """A module of the suites."""
    return importlib.import_module(f"tests.universal.feature_repos.{name}")


@pytest.fixture
def worker_id() -> str:
    """What pytest-xdist would give."""
    return "master"


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutines, as pytest-asyncio would."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


def main() -> int:
    """Start a store, and pytest on the checkout; returns its exit code."""
    from featurestore.testing.servers import redis_server

    checkout, *options = sys.argv[1:]
    tests = Path(checkout).resolve() / "sdk" / "python" / "tests"
    project = Path(__file__).resolve().parents[1]
    with redis_server() as server, tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "pytest.ini").write_text(PYTEST_INI)
        environment = {
            **os.environ,
            URL_VARIABLE: server.url,
            CONFIGS_VARIABLE: "feast_suites",
            "IS_TEST": "True",
            "FEAST_IS_LOCAL_TEST": "True",
            "FEAST_USAGE": "False",
            "PYTHONPATH": os.pathsep.join(
                [str(project / "scripts"), str(project), str(tests.parent), os.environ.get("PYTHONPATH", "")]
            ),
        }
        command = [sys.executable, "-m", "pytest", "-p", "feast_suites", "-c", f"{scratch}/pytest.ini"]
        command += ["--rootdir", str(tests.parent), "--integration", "--tb=short", "-q", *options]
        command += [str(tests / "integration" / suite) for suite in SUITES]
        return subprocess.run(command, cwd=scratch, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
