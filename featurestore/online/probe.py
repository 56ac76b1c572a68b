"""One command to one Redis or Valkey over a raw socket: for starting, checking and stopping servers.

Everything else talks through `redis/store.py`. This exists because a process that only wants to know whether a store
lives should not load a client library, and because it must work before a cluster has slots.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

LOOPBACK = "127.0.0.1"

PROBE_TIMEOUT_S = 2.0
"""A loopback server that takes longer than this for PING is as good as down."""

_RECEIVE_BYTES = 65_536


def ask(port: int, *words: str, timeout_s: float = PROBE_TIMEOUT_S, password: str = "") -> bytes:
    """Send one command to a server on this machine and return its reply.

    Args:
        port: TCP port on the loopback interface.
        words: the command and its arguments, such as "PING" or "CLUSTER", "INFO".
        timeout_s: longest wait for the connection and for each part of the reply, seconds.
        password: of the server's default user; "" where it has none.

    Returns:
        The reply's payload: a simple string or error with its sign ("+PONG", "-LOADING ..."), or the content of a
        bulk string; the error with which the password was refused.

    Raises:
        OSError: nobody listens, or the connection broke.
    """
    with socket.create_connection((LOOPBACK, port), timeout=timeout_s) as connection:
        if password:
            connection.sendall(_request("AUTH", password))
            admitted = _receive_until(connection, b"", lambda data: b"\r\n" in data)
            if admitted != b"+OK\r\n":
                return admitted.rstrip()
        connection.sendall(_request(*words))
        reply = _receive_until(connection, b"", lambda data: b"\r\n" in data)
        line, _, rest = reply.partition(b"\r\n")
        if not line.startswith(b"$"):
            return line
        length = int(line[1:])
        return _receive_until(connection, rest, lambda data: len(data) >= length)[: max(length, 0)]


def server_pid(port: int, password: str = "") -> int | None:
    """Process id of the server that answers on the port and is ready; None when there is none that takes us."""
    try:
        if ask(port, "PING", password=password) != b"+PONG":
            return None
        lines = ask(port, "INFO", "server", password=password).split(b"\r\n")
    except OSError:
        return None
    pids = [line.partition(b":")[2] for line in lines if line.startswith(b"process_id:")]
    return int(pids[0]) if pids else None


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the port now; lingering closed connections do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _request(*words: str) -> bytes:
    """A command as Redis reads it."""
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def _receive_until(connection: socket.socket, data: bytes, is_complete: Callable[[bytes], bool]) -> bytes:
    """`data` and what follows it, as soon as that is complete."""
    while not is_complete(data):
        received = connection.recv(_RECEIVE_BYTES)
        if not received:
            raise ConnectionResetError("the server closed the connection in the middle of a reply")
        data += received
    return data
