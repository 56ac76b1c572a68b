"""Connections and what stands before them: readiness, certificates that are renewed, ages."""

import socket
import subprocess
import threading
from pathlib import Path

import grpc
import pytest

from featurestore.core import compiled
from featurestore.errors import InvalidRequest, Unavailable
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.tls import ClientTls
from featurestore.serving.request.tls import Tls, TlsFiles
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.payments import Payments, RegistryInMemory

PATIENCE_S = 30.0

both_servers = pytest.mark.parametrize("io", ["sync", "aio"])


def make_certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


@both_servers
def test_a_renewed_certificate_needs_no_restart(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, tmp_path: Path, io: str
) -> None:
    """New connections see the new certificate; a pair that does not fit together leaves the old one in use."""
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    in_use = Tls(tmp_path / "in-use.pem", tmp_path / "in-use.key")

    def put(certificate: Path, key: Path) -> None:
        for source, target in ((key, in_use.key), (certificate, in_use.certificate)):
            new = target.with_suffix(".new")
            new.write_bytes(source.read_bytes())
            new.replace(target)

    def answers(authority: Path) -> bool:
        """Whether who trusts nobody else is answered."""
        tls = ClientTls(authority)
        with LookupClient(f"localhost:{server.port}", tls=tls, timeout_s=PATIENCE_S) as client:
            return client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1

    def is_turned_away(authority: Path) -> bool:
        with LookupClient(f"localhost:{server.port}", tls=ClientTls(authority), timeout_s=0.3) as client:
            try:
                client.services()
            except Unavailable:
                return True
        return False

    put(*first)
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0, io=io, tls=in_use))
    assert answers(first[0])
    put(second[0], first[1])
    assert answers(first[0])
    put(*second)
    assert answers(second[0])
    assert is_turned_away(first[0])
    in_use.key.unlink()
    assert answers(second[0])
    server.stop(drain_seconds=1.0)


@both_servers
def test_connections_end_with_age_and_calls_do_not_notice(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, io: str
) -> None:
    """A client is sent away from time to time, so that it finds servers that were added."""
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0, io=io, connection_age_s=0.05))
    address = f"127.0.0.1:{server.port}"
    is_sent_away = threading.Event()
    with grpc.insecure_channel(address) as channel, LookupClient(address, timeout_s=PATIENCE_S) as client:
        states: list[grpc.ChannelConnectivity] = []

        def see(state: grpc.ChannelConnectivity) -> None:
            if grpc.ChannelConnectivity.READY in states and state is grpc.ChannelConnectivity.IDLE:
                is_sent_away.set()
            states.append(state)

        channel.subscribe(see, try_to_connect=True)

        assert is_sent_away.wait(PATIENCE_S)
        for _ in range(50):
            assert client.lookup("merchant_monitoring", {"merchant_id": 7}).row_count == 1
        channel.unsubscribe(see)
    server.stop(drain_seconds=1.0)


def test_tls_files_that_could_not_be_read_are_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may read them after a `chown` sees the same time, size and inode as before."""
    certificate, key = make_certificate(tmp_path, "first")
    files = TlsFiles(Tls(certificate, key))
    files.read()
    renewed, renewed_key = make_certificate(tmp_path, "second")
    renewed.replace(certificate)
    renewed_key.replace(key)
    with monkeypatch.context() as forbidden:
        forbidden.setattr(Path, "read_bytes", _raise_permission_error)
        assert files.read_if_changed() is None

    assert files.read_if_changed() is not None
    assert files.read_if_changed() is None


def _raise_permission_error(path: Path) -> bytes:
    raise PermissionError(f"{path}: not yours")


def test_a_server_whose_registry_cannot_be_read_leaves_no_port_bound(
    payments: Payments, clock: ManualClock, registry: RegistryInMemory
) -> None:
    """Whoever tries again in the same process finds the metrics port free."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ServerSettings(port=0)
    registry.change(broken=True)
    with pytest.raises(InvalidRequest, match="on purpose"):
        FeatureServer(registry, payments.store, clock, settings, metrics_port=port)

    registry.change()
    FeatureServer(registry, payments.store, clock, settings, metrics_port=port).stop(drain_seconds=1.0)


def test_a_server_that_is_ready_has_nothing_left_to_compile(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health says SERVING when every loop is machine code: no payment waits for the compiler."""
    for loop in compiled._loops:
        monkeypatch.setattr(loop, "code", None)

    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0))
    missing = [str(loop) for loop in compiled._loops if loop.code is None]
    known = len(compiled._loops)
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=PATIENCE_S) as client:
        client.lookup("fraud_detection", {"card_id": "c-1", "merchant_id": 7})
    server.stop(drain_seconds=1.0)

    assert [] == missing
    assert known == len(compiled._loops)
