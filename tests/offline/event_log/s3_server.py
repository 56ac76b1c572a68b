"""An S3 on loopback: moto's server, and a network in front of it that can lose what matters.

They are processes of their own: delta-rs holds the interpreter's lock while it waits for some of its answers.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from featurestore.online.probe import LOOPBACK, free_port
from featurestore.testing.servers.process import ServerProcess, on_free_ports, server_directory

BUCKET, REGION = "history", "eu-north-1"
ROOT = Path(__file__).resolve().parents[3]
START_TIMEOUT_S = 60.0
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
"""What clients must have; any will do for moto."""

MOTO_CHECKS_AFTER = "INITIAL_NO_AUTH_ACTION_COUNT"
"""Requests that moto answers before it wants keys that it knows."""

STRIP, LOSE = "strip", "lose"
"""What the network does: take If-None-Match away from requests; lose the answers of commits that were made."""

CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3.

    Attributes:
        process: to pause and stop it; what it holds is lost when it ends.
        port: on the loopback interface.
    """

    process: ServerProcess
    port: int

    def uri(self, path: str, *, port: int | None = None, bucket: str = BUCKET) -> str:
        """Address of something in the bucket; through another port if need be."""
        options = f"region={REGION}&endpoint_override={LOOPBACK}:{port or self.port}&scheme=http"
        return f"s3://{bucket}/{path}?{options}"

    def keys(self, path: str) -> list[str]:
        """Names of the objects below a path."""
        pages = _client(self.port).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{path}/")
        return [one["Key"].removeprefix(f"{path}/") for page in pages for one in page.get("Contents", ())]


@contextlib.contextmanager
def s3_server(*, checks_keys: bool = False) -> Iterator[S3Server]:
    """An S3 with one bucket; it takes any keys, or none at all once the bucket is there."""
    with server_directory("s3") as directory:
        server = on_free_ports(lambda: _start(directory, {MOTO_CHECKS_AFTER: "1"} if checks_keys else {}))
        try:
            yield server
        finally:
            server.process.stop()


@contextlib.contextmanager
def network(server: S3Server, fault: str) -> Iterator[int]:
    """A port that leads to the server, with a fault on the way."""
    with server_directory("s3-network") as directory:
        process, port = on_free_ports(lambda: _start_network(server, fault, directory))
        try:
            yield port
        finally:
            process.stop()


def _start(directory: Path, settings: Mapping[str, str]) -> S3Server:
    port = free_port()
    command = (sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port))
    process = ServerProcess("moto", command, directory, environment={**os.environ, **settings})
    server = S3Server(process, port)
    server.process.start()
    try:
        server.process.wait_until(lambda: _has_bucket(port), timeout_s=START_TIMEOUT_S)
    except BaseException:
        server.process.stop()
        raise
    return server


def _start_network(server: S3Server, fault: str, directory: Path) -> tuple[ServerProcess, int]:
    port = free_port()
    command = (sys.executable, "-m", __name__, str(port), str(server.port), fault)
    process = ServerProcess("network", command, directory, environment={**os.environ, "PYTHONPATH": str(ROOT)})
    process.start()
    try:
        process.wait_until(lambda: _answers(port), timeout_s=START_TIMEOUT_S)
    except BaseException:
        process.stop()
        raise
    return process, port


def _client(port: int):  # type: ignore[no-untyped-def]  # boto3 makes its classes when it runs
    retries = Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=10)
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    return boto3.client("s3", endpoint_url=f"http://{LOOPBACK}:{port}", region_name=REGION, config=retries, **keys)


def _has_bucket(port: int) -> bool:
    """The bucket was made."""
    try:
        _client(port).create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    except (BotoCoreError, ClientError):
        return False
    return True


def _answers(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


class _Network:
    """Copies bytes between clients and a server.

    A request and its answer come in one piece when they are as small as a commit and what is said to it.
    """

    def __init__(self, server_port: int, fault: str) -> None:
        self._server_port = server_port
        self._fault = fault
        self._lost = 0

    def serve(self, port: int) -> None:
        """For ever."""
        listening = socket.create_server((LOOPBACK, port))
        while True:
            client, _ = listening.accept()
            server = socket.create_connection((LOOPBACK, self._server_port))
            committing = threading.Event()
            for copy in (self._requests, self._answers):
                threading.Thread(target=copy, args=(client, server, committing), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        with _ending(client, server):
            while data := client.recv(CHUNK_BYTES):
                if self._fault == STRIP:
                    data = data.replace(b"if-none-match: *", b"x-none-match-ed: *")
                elif data.startswith(b"PUT") and b"if-none-match" in data:
                    committing.set()
                server.sendall(data)

    def _answers(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        with _ending(client, server):
            while data := server.recv(CHUNK_BYTES):
                if self._fault == LOSE and committing.is_set():
                    committing.clear()
                    self._lost += 1
                    if self._lost % 2:  # the next one, which is the same commit again, gets through
                        return
                client.sendall(data)


@contextlib.contextmanager
def _ending(*ends: socket.socket) -> Iterator[None]:
    """When one direction ends, the connection does."""
    with contextlib.suppress(OSError):
        yield
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)  # it wakes up who waits for more of it


if __name__ == "__main__":
    _Network(int(sys.argv[2]), sys.argv[3]).serve(int(sys.argv[1]))
