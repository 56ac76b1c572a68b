"""The example repo's registry, one load in a real Kafka, and stream processes that end with their test."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from featurestore.core.spec import ViewSpec
from featurestore.definitions.registry import read_registry
from featurestore.definitions.schemas.directory import SchemaDirectory
from featurestore.online.probe import free_port
from featurestore.testing.servers import KafkaBroker
from tests.dataflows.stream_process import ROOT, StreamProcess
from tests.system.load import PROJECT, SCHEMAS, TOPIC, Load, make_load

StartStream = Callable[..., list[StreamProcess]]

BATCH_RECORDS = "250"
"""Small commits, so that a kill has many of them to hit."""


@pytest.fixture(scope="session")
def example_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The payments example, applied as users apply it."""
    repo = tmp_path_factory.mktemp("example") / "feature_repo"
    shutil.copytree(
        ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__", "spending_views.py")
    )
    (repo / "data").mkdir()
    command = [sys.executable, "-m", "featurestore", "apply", "--repo", str(repo)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return repo / "data" / "registry.db"


@pytest.fixture(scope="session")
def views(example_registry: Path) -> tuple[ViewSpec, ...]:
    """Its stream views."""
    return read_registry(str(example_registry), project=PROJECT).views


@pytest.fixture(scope="session")
def load(kafka: KafkaBroker) -> Iterator[Load]:
    """The load, all of it in its topic."""
    made = make_load(seed=7)
    kafka.create_topic(TOPIC, partitions=len(made.partitions))
    kafka.append(TOPIC, made.partitions)
    yield made
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(TOPIC)]
    for future in admin.delete_topics(names, operation_timeout=30).values():
        future.result(timeout=30)


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in the place of the example's schema registry."""
    directory = tmp_path_factory.mktemp("schemas")
    for number, text in SCHEMAS.items():
        assert SchemaDirectory(directory).register(f"{TOPIC}-value", text) == number
    return directory


@pytest.fixture
def start_stream(tmp_path: Path, example_registry: Path, kafka: KafkaBroker, schemas: Path) -> Iterator[StartStream]:
    """Starts one stream process, or a cluster of several; whatever still runs at the end is killed."""
    started: list[StreamProcess] = []

    def start(url: str, *options: str, process_count: int = 1) -> list[StreamProcess]:
        always = ["--project", PROJECT, "--bootstrap-servers", kafka.bootstrap_servers]
        always += ["--schema-registry-option", f"url=file:{schemas}"]
        addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(process_count))
        processes = []
        for number in range(process_count):
            cluster = ["--addresses", addresses, "--process-id", str(number)] if process_count > 1 else []
            more = [*always, "--batch-records", BATCH_RECORDS, *cluster, *options]
            processes.append(StreamProcess(tmp_path, example_registry, url, *more))
        started.extend(processes)
        return processes

    yield start
    for process in started:
        process.kill()
