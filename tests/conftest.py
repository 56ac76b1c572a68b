"""Fixtures that several rooms' tests use: real servers, one of each a session, emptied for every test."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator

# Before gRPC: what it would do in a forked process ends that process, if another thread is at work in gRPC just then.
# PySpark forks to start Java, and may be told so in the worker that has served gRPC before.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# Before Feast, which would have it count in files that all servers of the process share; a worker inherits that wish
# from a process that has imported Feast already.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
os.environ.pop("prometheus_multiproc_dir", None)
import prometheus_client  # noqa: F401
import pytest
from hypothesis import HealthCheck, settings

from featurestore.online.probe import free_port
from featurestore.testing.servers import (
    KafkaBroker,
    RedisCluster,
    RedisServer,
    SchemaRegistry,
    kafka_broker,
    kafka_missing,
    redis_cluster,
    redis_server,
    schema_registry,
)
from tests.offline.event_log.s3_server import ENVIRONMENT, S3Server, s3_server

# How long an example takes says something about the machine, and nothing about the code.
settings.register_profile("featurestore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("featurestore")

ENTITY = re.compile(rb"\b(?:c|card|m)-\d+\b")
"""What entity keys of tests look like."""


class _EntitiesInLogs(logging.Handler):
    """Keeps what was logged of an entity by its key."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a line."""
        line = record.getMessage()
        if ENTITY.search(line.encode()):
            self.lines.append(line)


@pytest.fixture(autouse=True)
def _logs_name_nobody() -> Iterator[None]:
    """Whatever a test does to the product: no line of its logs has an entity's key."""
    found = _EntitiesInLogs()
    loggers = [logging.getLogger(name) for name in ("featurestore", "dataflows")]
    for logger in loggers:
        logger.addHandler(found)
    yield
    for logger in loggers:
        logger.removeHandler(found)
    assert not found.lines, "logs have keys of entities: name them by their fingerprints"


@pytest.fixture(scope="session")
def _session_redis() -> Iterator[RedisServer]:
    """One standalone server for all tests."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def _session_redis_cluster() -> Iterator[RedisCluster]:
    """One cluster of three primaries for all tests."""
    with redis_cluster(3) as cluster:
        yield cluster


@pytest.fixture
def redis_url(_session_redis: RedisServer) -> str:
    """Url of an empty standalone Redis; do not kill it, start your own with `redis_server` for that."""
    _session_redis.flush()
    return _session_redis.url


@pytest.fixture
def redis_cluster_url(_session_redis_cluster: RedisCluster) -> str:
    """Url of an empty Redis Cluster of three nodes."""
    _session_redis_cluster.flush()
    return _session_redis_cluster.url


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """A real Apache Kafka shared by all tests: use topic names of your own."""
    missing = kafka_missing()
    if missing is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with kafka_broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def registry_of_schemas(kafka: KafkaBroker) -> Iterator[SchemaRegistry]:
    """A real schema registry shared by all tests, where Kafka runs: use subjects of your own."""
    with schema_registry() as registry:
        yield registry


@pytest.fixture
def port() -> int:
    """A free TCP port on the loopback interface."""
    return free_port()


@pytest.fixture(scope="session")
def _session_s3() -> Iterator[S3Server]:
    """One S3 for all tests."""
    with s3_server() as running:
        yield running


@pytest.fixture
def s3(_session_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """That S3, with keys as a user's environment has them; processes inherit them."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return _session_s3
