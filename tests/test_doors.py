"""The doors: names that users import, which must not disappear, and beside which they need nothing else of us."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from featurestore.definitions.fast_import import skip_typeguard

ROOT = Path(__file__).resolve().parents[1]

DOORS = {
    "featurestore.features": """
        DerivedFeature ExpectedOfHours ExpectedOfRecords LIFETIME NamedWindow TableColumns WindowedFeature about
        aggregate count derive expect kafka_source label_source null_share one_of last_events request_features series
        session stream_view table this_month this_week this_year today usual_lateness usual_volume
    """,
    "featurestore.on_demand": "compute",
    "featurestore.client": """
        AsyncLookupClient ClientTls FeatureStatus LookupBatch LookupClient LookupResult ServiceSchema SourcePosition
        ViewFreshness
    """,
    "featurestore.training": """
        EventLog EventLogHistory FileHistory History LabelCounts LabelRows ParityOptions PlainHistory RepoSpec
        TrainingSetProgress build_training_set check_parity labelled last_drift read_registry statistics_of
        write_training_set
    """,
    "featurestore.spark": "SparkEventLog SparkFiles SparkHistory spark_training_set",
    "featurestore.feast": """
        PlainViewEngine PlainViewEngineConfig PointInTimeOfflineStore PointInTimeOfflineStoreConfig
        RealTimeOnlineStore RealTimeOnlineStoreConfig
    """,
    "featurestore.testing": "ManualClock NaiveEvent NaiveValue naive_value naive_values",
    "featurestore.testing.servers": """
        KafkaBroker RedisCluster RedisServer SchemaRegistry ServerDidNotStart ServerProcess free_port kafka_broker
        kafka_missing redis_cluster redis_server schema_registry
    """,
    "featurestore.testing.simulation": """
        Finding LogConnection Outcome Schedule SimulatedLog SimulatedStore StartStream Step StoreClient
        StreamParts StreamProcess as_text draw_schedule find from_text never_met run_schedule schedule_of shrink
    """,
    "featurestore.testing.simulator": """
        KafkaSink LabelsWriter LogDirectorySink ParquetSink PayloadEncoder Population PopulationSize Scenario Simulation
        TransactionSink open_sink write_merchant_table
    """,
    "featurestore.errors": """
        AsOfTooOld CorruptData CorruptTile DeadlineSpent DefinitionError EventsLost FeatureStoreError InternalError
        InvalidExpression InvalidRequest InvariantBroken LimitExceeded OnlineStoreDown SourceUnavailable StoreMismatch
        StoreRolledBack Unavailable UnknownFeatureService UnknownJoinKey UnknownRequestColumn
        UnknownTileVersion WriterFenced WriterStopped
    """,
}
"""Door -> its names. One that is taken out breaks somebody's code: deprecate it, for a release at least."""

MODULES_OF_NAMES = {"featurestore.testing.strategies"}
"""Doors without a list: everything public in them."""

GENERATORS = {"aggregations_page.py", "reference_pages.py", "reference"}
"""Scripts that write pages about our insides; nobody copies them."""

CODE_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


@pytest.mark.parametrize("door", DOORS)
def test_no_name_disappears_from_a_door(door: str) -> None:
    """What was once there stays, and what is new is promised on purpose: here too."""
    module = importlib.import_module(door)
    promised = set(DOORS[door].split())
    listed = set(getattr(module, "__all__", promised))

    assert promised == listed
    assert [] == sorted(name for name in promised if not hasattr(module, name))


@pytest.mark.parametrize("file", ["feature_repo", "scripts/handbook_repo"])
def test_feast_finds_the_classes_that_a_repo_names(file: str) -> None:
    """Stores and engine by Feast's own loader, with their config classes in the same module."""
    with skip_typeguard():
        from feast.repo_config import load_repo_config

    directory = ROOT / file
    text = yaml.safe_load((directory / "feature_store.yaml").read_text(encoding="utf-8"))
    config = load_repo_config(directory, directory / "feature_store.yaml")

    assert text["online_store"]["type"] == config.online_store.type == "featurestore.feast.RealTimeOnlineStore"
    assert "featurestore.online.feast.online_store" == type(config.online_store).__module__
    if "offline_store" in text:
        assert "featurestore.offline.feast.offline_store" == type(config.offline_store).__module__


def test_the_package_itself_costs_nothing_to_import() -> None:
    """`import featurestore` brings the standard library alone; the client neither Feast nor pandas nor a compiler."""
    assert set() == _imported_by("featurestore") - {"featurestore"}
    assert set() == _imported_by("featurestore.client") & {"feast", "pandas", "pyarrow", "numba", "bytewax", "sqlglot"}
    assert set() == _imported_by("featurestore.training") & {"feast", "grpc", "redis", "bytewax"}
    assert set() == _imported_by("featurestore.feast") & {"feast", "pandas", "pyarrow", "redis"}


def test_examples_and_pages_use_the_doors_alone() -> None:
    """Whoever copies them has code that goes on working."""
    wrong = [
        f"{place}: {module}"
        for place, code in _shown_code()
        for module in _modules_imported(code)
        if module.partition(".")[0] in {"featurestore", "dataflows"}
        if module not in DOORS and module not in MODULES_OF_NAMES
    ]

    assert wrong == []


def _shown_code() -> Iterator[tuple[str, str]]:
    """Python that users see: the example repo, scripts, and the blocks of pages."""
    for path in [*(ROOT / "feature_repo").glob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        if not set(path.relative_to(ROOT / "scripts").parts if "scripts" in path.parts else ()) & GENERATORS:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for block in CODE_BLOCK.findall(path.read_text(encoding="utf-8")):
            yield str(path.relative_to(ROOT)), block


def _modules_imported(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from featurestore.testing import simulator` opens another door.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [name for name in names if name in DOORS or name in MODULES_OF_NAMES] or [node.module]


def _imported_by(module: str) -> set[str]:
    """Top-level names that are not the standard library's, after importing one module in a new process."""
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    names = {name for name in printed.split() if not name.startswith(("_", "sitecustomize", "usercustomize"))}
    return names - sys.stdlib_module_names
