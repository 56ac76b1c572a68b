"""docker-compose.yml without Docker: it says what the compose format allows, and what the rest of the project says."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflows.settings import OPTIONS, from_environment
from featurestore.cli.main import COMMANDS, command
from featurestore.core.windows.durations import parse_duration_ms
from featurestore.online.embedded import server_binary
from featurestore.testing.servers.kafka import KAFKA_VERSION
from featurestore.testing.servers.kafka import _server_properties as kafka_properties

ROOT = Path(__file__).parent.parent

SERVICE_KEYS = {
    "build",
    "command",
    "depends_on",
    "entrypoint",
    "environment",
    "healthcheck",
    "hostname",
    "image",
    "ports",
    "profiles",
    "restart",
    "stop_grace_period",
    "user",
    "volumes",
}
"""The part of the compose format that the file uses; a misspelt key is not in it."""

HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
CONDITIONS = {"service_healthy", "service_completed_successfully"}
ONE_SHOT = {"topics", "apply", "monitoring"}
WITHOUT_HEALTH_CHECK = ONE_SHOT | {"simulate"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """The file's services, YAML anchors resolved."""
    content = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert content.keys() <= {"name", "services", "volumes", "x-store", "x-definitions"}
    found: dict[str, dict[str, Any]] = content["services"]
    return found


def _values(services: dict[str, dict[str, Any]], key: str) -> Iterator[tuple[str, Any]]:
    return ((name, service[key]) for name, service in services.items() if key in service)


def test_the_system_is_complete(services: dict[str, dict[str, Any]]) -> None:
    """Every part that the product consists of has a service."""
    assert {"kafka", "schema-registry", "valkey", "stream", "server", "prometheus"} <= services.keys()


def test_services_use_keys_that_compose_knows(services: dict[str, dict[str, Any]]) -> None:
    """Keys, shapes and references are those of the compose format."""
    volumes = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["volumes"]
    for name, service in services.items():
        assert service.keys() <= SERVICE_KEYS, name
        assert "image" in service
        for dependency, how in service.get("depends_on", {}).items():
            assert how["condition"] in CONDITIONS
            assert dependency in services
            is_one_shot = how["condition"] == "service_completed_successfully"
            assert is_one_shot == (dependency in ONE_SHOT), f"{name} waits for {dependency}"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in volumes
        assert all(isinstance(value, str | int) for value in service.get("environment", {}).values())


def test_every_lasting_service_has_a_health_check(services: dict[str, dict[str, Any]]) -> None:
    """With a command in exec form and bounded patience."""
    checks = dict(_values(services, "healthcheck"))

    assert services.keys() - checks.keys() == WITHOUT_HEALTH_CHECK
    for check in checks.values():
        assert check.keys() <= HEALTH_KEYS
        assert check["test"][0] == "CMD"
        assert parse_duration_ms(check["timeout"]) <= parse_duration_ms(check["interval"])


def test_health_checks_in_python_compile(services: dict[str, dict[str, Any]]) -> None:
    """An inline program is a program."""
    programs = [check["test"][3] for _, check in _values(services, "healthcheck") if check["test"][1] == "python"]

    assert len(programs) == 2
    for program in programs:
        compile(program, "healthcheck", "exec")


def test_images_are_pinned_to_what_the_tests_run(services: dict[str, dict[str, Any]]) -> None:
    """Kafka's version is that of the test broker, Valkey's that of the embedded binary; nothing is `latest`."""
    version = subprocess.check_output([server_binary(), "--version"], text=True)
    running = re.search(r"v=(\d+\.\d+)", version)
    assert running is not None

    assert services["kafka"]["image"] == services["topics"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    if "Valkey" in version:
        assert services["valkey"]["image"] == f"valkey/valkey:{running[1]}"
    assert all(re.search(r":v?\d", image) for _, image in _values(services, "image"))


def test_kafka_is_set_up_like_the_test_broker(services: dict[str, dict[str, Any]]) -> None:
    """Same replication, no automatic topics; only addresses and paths differ."""
    environment = services["kafka"]["environment"]
    of_this_machine = ("listener", "quorum", "log.dirs")
    for name, value in kafka_properties(9092, Path("/data")).items():
        if not any(part in name for part in of_this_machine):
            assert str(environment["KAFKA_" + name.upper().replace(".", "_")]) == value, name


def test_ports_are_published_once_and_on_loopback_only(services: dict[str, dict[str, Any]]) -> None:
    """Nothing here has a password, so nothing listens to the network."""
    published = [port.split(":") for _, ports in _values(services, "ports") for port in ports]

    assert all(len(port) == 3 and port[0] == "127.0.0.1" for port in published)
    assert len({port[1] for port in published}) == len(published)


def test_commands_and_their_options_exist(services: dict[str, dict[str, Any]]) -> None:
    """What the containers run is what the command line offers."""
    ours = [words[1:] for _, words in _values(services, "command") if words[0] == "featurestore"]

    assert {words[0] for words in ours} == {"apply", "monitoring", "serve", "simulate"}
    for name, *words in ours:
        assert name in COMMANDS
        with command.make_context("featurestore", ["--help"], resilient_parsing=True) as context:
            subcommand = command.get_command(context, name)
        assert subcommand is not None
        known = {option for parameter in subcommand.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_the_streams_settings_are_those_that_it_reads(services: dict[str, dict[str, Any]]) -> None:
    """Every variable is one of its options, and together they are enough to start."""
    environment = {name: str(value) for name, value in services["stream"]["environment"].items()}

    assert environment.keys() <= {option.environment_variable for option in OPTIONS}
    assert from_environment(environment).bootstrap_servers == "kafka:19092"


def test_prometheus_scrapes_the_ports_that_are_served(services: dict[str, dict[str, Any]]) -> None:
    """Targets are services of the file at their metrics ports."""
    config = yaml.safe_load((ROOT / "ops" / "prometheus.yml").read_text())
    targets = {job["static_configs"][0]["targets"][0] for job in config["scrape_configs"]}
    metrics_port = services["server"]["command"][services["server"]["command"].index("--metrics-port") + 1]

    assert targets == {
        f"stream:{services['stream']['environment']['FEATURESTORE_METRICS_PORT']}",
        f"server:{metrics_port}",
    }
    assert services["stream"]["environment"]["FEATURESTORE_HOST"] == "0.0.0.0"


def test_images_are_built_from_existing_requirements(services: dict[str, dict[str, Any]]) -> None:
    """Each build names a lock for the Python of the Dockerfile, and the image is named after it."""
    dockerfile = (ROOT / "ops" / "Dockerfile").read_text()
    python = re.search(r"^FROM python:(\d+)\.(\d+)-", dockerfile, re.MULTILINE)
    assert python is not None
    for name, build in _values(services, "build"):
        requirements = build["args"]["REQUIREMENTS"]
        assert (ROOT / "requirements" / f"{requirements}-py{python[1]}{python[2]}.txt").is_file()
        assert services[name]["image"].startswith(f"featurestore/{requirements}:")


def test_compose_itself_accepts_the_file() -> None:
    """Where the docker client has its compose plugin; no daemon is needed for that."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("needs the docker client with its compose plugin")
    checked = subprocess.run(
        [docker, "compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
