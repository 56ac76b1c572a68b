"""The embedded store: one server for all processes of a directory, whatever died before."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import featurestore.online.embedded as embedded
from featurestore.online.embedded import EmbeddedStore
from featurestore.online.probe import ask

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """A store in an empty directory, stopped in the end."""
    made = EmbeddedStore(tmp_path / "store")
    yield made
    made.stop()


@pytest.fixture
def _orphans_are_ours() -> Iterator[None]:
    """This process gets the daemons that it starts as its children, and does not wait for them: they stay zombies."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
    yield
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 0) == 0


def _port(url: str) -> int:
    return int(url.rpartition(":")[2].removesuffix("/0"))


def _password(url: str) -> str:
    return urlsplit(url).password or ""


def test_nobody_else_on_the_machine_gets_in(store: EmbeddedStore) -> None:
    """Loopback is everybody's: the server asks for a password, and its files are its user's alone."""
    url = store.ensure()
    server = store.status()
    assert server is not None
    data = [path for path in store.data_dir.rglob("*") if path.suffix in {".aof", ".rdb", ".manifest", ".password"}]
    commands = Path(f"/proc/{server.pid}/cmdline").read_text()

    assert ask(_port(url), "PING").startswith(b"-NOAUTH")
    assert ask(_port(url), "PING", password="guess").startswith(b"-WRONGPASS")
    assert _password(url) not in commands
    assert len(data) > 1
    assert [] == [path for path in [store.data_dir, *data] if path.stat().st_mode & 0o077]


def test_several_processes_share_one_server(store: EmbeddedStore, tmp_path: Path) -> None:
    """Commands that start at the same moment find one server, not one each."""
    code = "import sys, pathlib; from featurestore.online.embedded import EmbeddedStore as E; "
    code += "print(E(pathlib.Path(sys.argv[1])).ensure())"
    command = (sys.executable, "-c", code, str(tmp_path / "store"))

    with ThreadPoolExecutor(3) as pool:
        urls = set(pool.map(lambda _: subprocess.check_output(command, text=True).strip(), range(3)))

    assert urls == {store.ensure()}


def test_data_and_address_survive_a_stop(store: EmbeddedStore) -> None:
    """A stopped store starts again with its data, on the port that clients know."""
    url = store.ensure()
    ask(_port(url), "SET", "key", "value", password=_password(url))

    assert store.stop()
    assert store.status() is None
    assert store.ensure() == url
    assert ask(_port(url), "GET", "key", password=_password(url)) == b"value"


def test_a_killed_server_is_replaced(store: EmbeddedStore) -> None:
    """Files that name a dead process are not believed."""
    store.ensure()
    server = store.status()
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)

    url = store.ensure()
    replacement = store.status()

    assert replacement is not None
    assert replacement.pid != server.pid
    assert ask(_port(url), "PING", password=_password(url)) == b"+PONG"


def test_a_foreign_server_on_the_recorded_port_is_not_taken_over(store: EmbeddedStore, redis_url: str) -> None:
    """The port answers, but it is another process: the store starts its own elsewhere."""
    store.ensure()
    store.stop()
    data_dir = store.log_path.parent
    (data_dir / "server.port").write_text(str(_port(redis_url)))
    (data_dir / "server.pid").write_text("999999999")

    assert store.status() is None
    assert _port(store.ensure()) != _port(redis_url)


@pytest.mark.usefixtures("_orphans_are_ours")
def test_a_server_that_nobody_waits_for_counts_as_stopped(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container whose first process collects no children, an ended server keeps its process id for ever."""
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 2.0)
    store.ensure()
    server = store.status()
    assert server is not None

    assert store.stop()
    assert server.pid == os.waitpid(server.pid, 0)[0]


def test_stopping_what_does_not_run_says_so(tmp_path: Path) -> None:
    """No server, no directory: False, and nothing is made."""
    assert not EmbeddedStore(tmp_path / "absent").stop()
    assert not (tmp_path / "absent").exists()
