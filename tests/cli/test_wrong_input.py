"""Whatever is typed wrongly ends in one line that names it, and in an exit code; never in a traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from dataflows import supervisor
from dataflows.log_to_table.settings import event_log_settings
from dataflows.logs.kafka_log import KafkaLog
from dataflows.settings import from_command_line
from featurestore.cli import main as command_line
from featurestore.cli.main import main
from featurestore.cli.processes.simulate import command as simulate
from featurestore.clock import SystemClock
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.errors import TRACEBACK_VARIABLE, FeatureStoreError, InvalidRequest, OnlineStoreDown, of_system
from featurestore.online.embedded import DATA_DIR_VARIABLE, EmbeddedStore
from featurestore.online.redis.store import RedisStore, connect
from featurestore.process import serve_metrics
from featurestore.testing.servers import redis_server
from tests.serving.registries import write_registry

Capture = pytest.CaptureFixture[str]

STREAM = ["--project", "p", "--registry", "r.db", "--store-url", "redis://s:1"]
EVENT_LOG = ["--project", "p", "--registry", "r.db", "--event-log", "log"]


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A TCP port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "must specify one of the following schemes"),
        ("redis://h:abc", "Port could not be cast"),
        ("redis://h:99999", "Port out of range"),
        ("redis://h:1/first", 'database "first" is not a number'),
        ("redis://:secret@h:1/0?colour=red", "colour"),
    ],
)
@pytest.mark.parametrize("is_cluster", [False, True])
def test_an_address_that_is_none_is_refused_before_anything_is_connected(
    url: str, reason: str, *, is_cluster: bool
) -> None:
    """With the forms that there are, and without the password."""
    with pytest.raises(InvalidRequest, match="is not an address") as caught:
        RedisStore(url, cluster=is_cluster)

    assert reason in caught.value.detail
    assert "redis://host:port/db" in caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [["status"], ["rollback", "v"], ["drop", "v"], ["bootstrap", "v"], ["serve", "--port", "0"]]
)
def test_every_command_explains_a_wrong_address_of_the_store(
    arguments: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error and exit code 1."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    write_registry(tmp_path / "registry.db")
    options = ["--registry", str(tmp_path / "registry.db"), "--project", "payments", "--store-url", "nonsense"]
    if arguments[0] == "bootstrap":
        arguments = ["bootstrap", "merchant_activity", "--event-log", str(tmp_path)]

    assert main([*arguments, *options]) == 1
    assert "online store nonsense is not an address" in capsys.readouterr().err


def test_a_wrong_password_is_not_a_store_that_must_be_started() -> None:
    """Wrong, missing, or of a user without the right: the hint says where to look."""
    with redis_server() as server:
        administer = connect(server.url)._client().execute_command
        administer("ACL", "SETUSER", "writer", "on", ">word", "~*", "+set")
        administer("CONFIG", "SET", "requirepass", "right")
        for user in ("", ":wrong@", "writer:word@"):
            with pytest.raises(OnlineStoreDown, match="refuses this user") as caught:
                connect(server.url.replace("redis://", f"redis://{user}"))
            assert "correct user and password" in caught.value.hint


@pytest.mark.parametrize("option", ["--port", "--metrics-port"])
@pytest.mark.parametrize("port", ["99999", "-1"])
def test_the_server_refuses_ports_that_are_none(option: str, port: str, capsys: Capture) -> None:
    """GRPC would listen on another one without a word."""
    assert main(["serve", option, port]) == 2
    assert f"Invalid value for '{option}': {port} is not in the range" in capsys.readouterr().err


def test_a_metrics_port_that_is_taken_is_named(taken_port: int) -> None:
    """By the server and by the streams: it is one listener."""
    with pytest.raises(InvalidRequest, match=f'metrics address "127.0.0.1:{taken_port}" cannot be bound'):
        serve_metrics(CollectorRegistry(), "127.0.0.1", taken_port)


def test_a_server_whose_metrics_port_is_taken_ends(taken_port: int, tmp_path: Path, capsys: Capture) -> None:
    """At once, with one line, and with nothing left running that would keep the process."""
    write_registry(tmp_path / "registry.db")
    options = ["--registry", str(tmp_path / "registry.db"), "--project", "payments"]
    options += ["--store-url", "redis://127.0.0.1:1", "--port", "0", "--metrics-port", str(taken_port)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signal.signal", lambda *_: None)
        patch.setattr("featurestore.serving.server.start_server", lambda *_: pytest.fail("it must not have started"))
        assert main(["serve", *options]) == 1

    assert f'metrics address "127.0.0.1:{taken_port}" cannot be bound' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--store-patience-seconds", "nan"], "store patience seconds of nan is not possible"),
        (["--store-patience-seconds", "-1"], "store patience seconds of -1 is not possible"),
        (["--progress-seconds", "inf"], "progress seconds of inf is not possible"),
        (["--metrics-port", "99999"], "metrics port 99999 is not within 0 to 65535"),
    ],
)
def test_times_and_ports_that_are_none_are_refused_by_the_stream(options: list[str], message: str) -> None:
    """Before anything is connected; a patience of "nan" would never end, and say nothing."""
    with pytest.raises(InvalidRequest, match=message):
        from_command_line([*STREAM, *options], {}, program="stream")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compact-minutes", "nan"], "compact minutes of nan is not possible"),
        (["--compact-minutes", "soon"], "compact minutes is not a number of minutes"),
        (["--metrics-port", "-1"], "metrics port -1 is not within 0 to 65535"),
    ],
)
def test_times_and_ports_that_are_none_are_refused_by_the_event_log(options: list[str], message: str) -> None:
    """As by the stream."""
    with pytest.raises(InvalidRequest, match=message):
        event_log_settings([*EVENT_LOG, *options], {}, program="event-log")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [("foo", "bar", 'No such configuration property: "foo"'), ("security.protocol", "NOPE", 'Invalid value "NOPE"')],
)
def test_kafka_options_that_librdkafka_does_not_know_are_named(key: str, value: str, reason: str) -> None:
    """Whatever is asked first, and without a broker."""
    source = SourceSpec("s", "topic", (Column("at", ValueType.INT64),), "at")
    log = KafkaLog(bootstrap_servers="127.0.0.1:1", options={key: value}, group="", clock=SystemClock())
    for ask in (log.partitions, lambda source: log.ends(source, [0]), lambda source: log.open(source, 0, None)):
        with pytest.raises(InvalidRequest, match="kafka options are not usable") as caught:
            ask(source)
        assert reason in caught.value.detail
        assert "--kafka-option" in caught.value.hint


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, capsys: Capture) -> None:
    """What the operating system says, with the path, and no traceback."""
    (tmp_path / "file").write_text("")
    wrong = tmp_path / "file" / "below"

    assert main(["simulate", "--to", f"log:{wrong}", "--days", "0.001", "--cards", "5"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert f'"{wrong}' in said
    assert "Not a directory" in said
    assert "Traceback" not in said


def test_errors_that_nobody_foresaw_are_one_line_and_a_traceback_on_demand(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the system and of libraries alike; an error of any other kind is our bug and is not caught."""

    def fail(**_: object) -> None:
        raise failure

    monkeypatch.setattr(command_line.command, "main", fail)
    failure: Exception = ValueError("year 0 is out of range")
    assert main(["status"]) == 1
    plain = capsys.readouterr().err
    assert "error: ValueError: year 0 is out of range\nhint: set FEATURESTORE_TRACEBACK=1" in plain
    assert "Traceback" not in plain

    monkeypatch.setenv(TRACEBACK_VARIABLE, "1")
    assert main(["status"]) == 1
    assert "Traceback" in capsys.readouterr().err

    failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main(["status"])


def test_the_streams_explain_errors_of_the_system_too(caplog: pytest.LogCaptureFixture) -> None:
    """They are processes of their own, with an edge of their own."""

    def start() -> None:
        Path("/proc/nothing/here").mkdir()

    assert supervisor.exit_code_of(start) == 1
    assert ['"/proc/nothing/here": No such file or directory'] == [
        record.getMessage().splitlines()[0] for record in caplog.records
    ]


def test_the_examples_of_the_simulator_have_lines_of_their_own() -> None:
    """Ready to be copied from the help."""
    lines = CliRunner().invoke(simulate, ["--help"], terminal_width=100).output.splitlines()

    assert "  featurestore simulate --to log:data/log --days 21 --labels data/labels.parquet" in [
        line.removeprefix("  ") for line in lines
    ]
    assert not any("\\b" in line or "\b" in line for line in lines)


def test_an_unforeseen_error_names_both_paths() -> None:
    """Of a rename, for instance."""
    error = of_system(FileExistsError(17, "File exists", "a", None, "b"))

    assert isinstance(error, FeatureStoreError)
    assert '"a" and "b": File exists' == error.message


@pytest.mark.parametrize(
    "arguments",
    [
        ["lookup", "service", "--timeout", "nan"],
        ["lookup", "service", "--timeout", "0"],
        ["simulate", "--to", "log:d", "--days", "nan"],
        ["simulate", "--to", "log:d", "--days", "1e300"],
        ["simulate", "--to", "log:d", "--rate", "inf"],
        ["serve", "--log-share", "nan"],
        ["serve", "--log-seconds", "inf"],
    ],
)
def test_numbers_that_are_none_are_wrong_usage(arguments: list[str], capsys: Capture) -> None:
    """The option is named; click's own range takes "nan"."""
    assert main(arguments) == 2
    assert f"Invalid value for '{arguments[-2]}'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["serve", "stream"])
def test_a_command_without_a_registry_leaves_no_store_behind(name: str, tmp_path: Path) -> None:
    """The embedded store is started for a command that can run, not for one that cannot."""
    store = EmbeddedStore(tmp_path / "store")
    command = [sys.executable, "-m", "featurestore", name, "--registry", "absent.db", "--project", "p"]
    environment = os.environ | {DATA_DIR_VARIABLE: str(store.data_dir)}

    try:
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

        assert ended.returncode == 1
        assert 'registry "absent.db" cannot be read' in ended.stderr
        assert store.status() is None
    finally:
        store.stop()


@pytest.mark.parametrize("options", [["--batch-records", "0"], ["--no-such-option"], ["--process-id", "x"]])
def test_a_stream_with_a_wrong_option_leaves_no_store_behind(tmp_path: Path, options: list[str]) -> None:
    """It is found out before a store is started for it."""
    registry = tmp_path / "registry.db"
    write_registry(registry)
    store = EmbeddedStore(tmp_path / "store")
    command = [sys.executable, "-m", "featurestore", "stream", "--registry", str(registry), "--project", "payments"]
    try:
        ended = subprocess.run(
            [*command, *options],
            cwd=tmp_path,
            env=os.environ | {DATA_DIR_VARIABLE: str(store.data_dir)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        assert ended.returncode in (1, 2), ended.stdout + ended.stderr
        assert ended.stderr
        assert store.status() is None
    finally:
        store.stop()


@pytest.mark.parametrize("is_running", [False, True], ids=["started for it", "there before"])
def test_a_server_that_cannot_listen_leaves_the_store_as_it_was(tmp_path: Path, *, is_running: bool) -> None:
    """A store that was started for it is stopped; one that others use is not."""
    registry = tmp_path / "registry.db"
    write_registry(registry)
    command = [sys.executable, "-m", "featurestore", "serve", "--registry", str(registry), "--project", "payments"]
    store = EmbeddedStore(tmp_path / "store")
    if is_running:
        store.ensure()
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            ended = subprocess.run(
                [*command, "--port", port],
                cwd=tmp_path,
                env=os.environ | {DATA_DIR_VARIABLE: str(store.data_dir)},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

        assert ended.returncode == 1, ended.stdout + ended.stderr
        assert port in ended.stderr
        assert (store.status() is not None) == is_running
    finally:
        store.stop()
