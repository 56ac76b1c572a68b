"""Registries of the stream tests' feature repo, and processes that end with their test."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from featurestore.online.probe import free_port
from featurestore.testing.servers import KafkaBroker
from tests.conftest import ENTITY
from tests.dataflows.payments import CONFIG, REPO, TOPIC, Payments
from tests.dataflows.stream_process import ROOT, StreamProcess

StartStream = Callable[..., StreamProcess]
Fill = Callable[[Payments], None]


def applied_repo(directory: Path, card_window: str = "1d", more: str = "", repo: str = REPO) -> Path:
    """The registry of the repo, applied as users apply it; with more definitions if need be."""
    (directory / "data").mkdir(parents=True)
    (directory / "feature_store.yaml").write_text(CONFIG)
    (directory / "definitions.py").write_text(repo % {"card_window": card_window} + more)
    command = [sys.executable, "-m", "featurestore", "apply", "--repo", str(directory)]
    applied = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert applied.returncode == 0, applied.stderr
    return directory / "data" / "registry.db"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repo's registry."""
    return applied_repo(tmp_path_factory.mktemp("repo") / "first", "1d")


@pytest.fixture(scope="session")
def changed_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry after one window of the view "cards" was changed."""
    return applied_repo(tmp_path_factory.mktemp("repo") / "second", "2d")


@pytest.fixture
def start_stream(tmp_path: Path, registry: Path, redis_url: str) -> Iterator[StartStream]:
    """Starts a stream process on the test's own Redis; whatever still runs at the end is killed."""
    started: list[StreamProcess] = []

    def start(*options: str, use_registry: Path | None = None, url: str = redis_url, **more: object) -> StreamProcess:
        process = StreamProcess(tmp_path, use_registry or registry, url, *options, **more)  # type: ignore[arg-type]  # passed on
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        assert not (named := ENTITY.findall(process.output.encode())), f"logs have keys of entities: {named[:3]}"


@pytest.fixture
def fill(kafka: KafkaBroker) -> Iterator[Fill]:
    """Appends payments to the topic, which is made for the test and deleted with its dead letters after it."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    is_made = False

    def append(payments: Payments) -> None:
        nonlocal is_made
        if not is_made:
            kafka.create_topic(TOPIC, partitions=len(payments.records))
            is_made = True
        kafka.append(TOPIC, payments.records)

    yield append
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(TOPIC)]
    for future in admin.delete_topics(names, operation_timeout=30).values():
        future.result(timeout=30)
    while any(name.startswith(TOPIC) for name in admin.list_topics(timeout=10).topics):
        time.sleep(0.1)


def start_cluster(start_stream: StartStream, count: int, *options: str) -> list[StreamProcess]:
    """One process, or several that form a cluster."""
    if count == 1:
        return [start_stream(*options)]
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(count))
    return [start_stream(*options, "--addresses", addresses, "--process-id", str(number)) for number in range(count)]
