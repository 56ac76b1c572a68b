"""A load client that offers more than a server can take: bare HTTP/2, some 20 us a call, one process.

    python -m benchmarks.flood_client PLAN.json      prints "ready", waits for a line, prints a report as JSON

gRPC's own client costs as much a call as the server does, so that on a small machine it is the client that gives in.
Calls begin by a timetable, or by a fixed number that are under way. A late one counts from when it was due. Whoever has
waited for the deadline hangs up, as gRPC's clients do.
"""

from __future__ import annotations

import base64
import itertools
import json
import selectors
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from featurestore.clock import SystemClock
from featurestore.errors import Overloaded
from featurestore.serving.client.throttle import Throttle

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_BYTES = (1 << 31) - 1
WINDOW_BYTES_FIRST = 65_535
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4
CANCEL = 8

DRAIN_SECONDS = 2.0
OK, REFUSED, EXPIRED, HELD_BACK = "0", "8", "EXPIRED", "HELD BACK"
"""gRPC's status of an answer and of a refusal; what the client itself calls an answer that did not come in time, and a
call that it did not send."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def header_block(path: str, authority: str, deadline_ms: int) -> bytes:
    """A call's headers, without a table, so that they are the same bytes for every call."""

    def literal(name: bytes, value: str) -> bytes:
        return name + bytes((len(value),)) + value.encode()

    return b"".join(
        (
            b"\x83\x86",  # :method POST, :scheme http
            literal(b"\x04", path),
            literal(b"\x01", authority),
            literal(b"\x0f\x10", "application/grpc"),
            literal(b"\x00\x02te", "trailers"),
            literal(b"\x00\x0cgrpc-timeout", f"{deadline_ms}m"),
        )
    )


class Flood:
    """Calls of one plan and what became of them.

    Args:
        plan: see `benchmarks.load.FloodPlan`.
    """

    def __init__(self, plan: dict[str, object]) -> None:
        address, method = str(plan["address"]), str(plan["method"])
        exchanges: list[tuple[str, str]] = plan["exchanges"]  # type: ignore[assignment]  # as JSON has it
        self.deadline_s = float(str(plan["deadline_ms"])) / 1e3
        self.seconds, self.per_second = float(str(plan["seconds"])), float(str(plan["per_second"]))
        self.in_flight_max = int(str(plan["in_flight"]))
        self.statuses: Counter[str] = Counter()
        self.latencies_s: list[float] = []
        self.mismatches = 0
        self.throttle = Throttle(SystemClock()) if plan["is_throttled"] else None
        self._headers = header_block(method, address, round(self.deadline_s * 1e3))
        self._exchanges = itertools.cycle(
            [(_message(base64.b64decode(ask)), _message(base64.b64decode(answer))) for ask, answer in exchanges]
        )
        host, _, port = address.rpartition(":")
        self._selector = selectors.DefaultSelector()
        self._links = [_Link(self, host, int(port)) for _ in range(int(str(plan["connections"])))]
        for link in self._links:
            self._selector.register(link.socket, selectors.EVENT_READ, link)
        self._turn: Iterator[_Link] = itertools.cycle(self._links)
        self.pending = 0

    def warm_up(self, calls: int) -> None:
        """So many, one after another; they do not count."""
        for _ in range(calls):
            self._begin(time.perf_counter())
            while self.pending:
                self._step(0.1)
        self.statuses.clear()
        self.latencies_s.clear()

    def run(self) -> dict[str, object]:
        """Carry the plan out."""
        begun_s = time.perf_counter()
        ends_s, number, cpu_before_s = begun_s + self.seconds, 0, time.process_time()
        while (now_s := time.perf_counter()) < ends_s:
            if self.per_second:
                while (due_s := begun_s + number / self.per_second) <= now_s:
                    self._begin(due_s)
                    number += 1
                self._step(max(0.0, due_s - time.perf_counter()))
            else:
                while self.pending < self.in_flight_max:
                    self._begin(time.perf_counter())
                    number += 1
                self._step(0.01)
        measured_s, in_time = time.perf_counter() - begun_s, self.statuses[OK]
        while self.pending and time.perf_counter() < ends_s + self.deadline_s + DRAIN_SECONDS:
            self._step(0.05)
        return {
            "calls": number,
            "seconds": measured_s,
            "in_time_per_s": in_time / measured_s,
            "statuses": dict(self.statuses),
            "latencies_s": self.latencies_s,
            "mismatches": self.mismatches,
            "cpu_s": time.process_time() - cpu_before_s,
        }

    def _begin(self, due_s: float) -> None:
        if self.throttle is not None:
            try:
                self.throttle.check()
            except Overloaded:
                self.statuses[HELD_BACK] += 1
                return
        ask, answer = next(self._exchanges)
        next(self._turn).call(self._headers, ask, answer, due_s)
        self.pending += 1

    def _step(self, wait_s: float) -> None:
        """Send what is due, read what has come, hang up on what is late."""
        for link in self._links:
            link.flush()
        for key, _ in self._selector.select(wait_s):
            key.data.receive()
        now_s = time.perf_counter()
        for link in self._links:
            link.hang_up(now_s)


class _Link:
    """One connection."""

    def __init__(self, flood: Flood, host: str, port: int) -> None:
        self._flood = flood
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = b"".join(
            key.to_bytes(2, "big") + value.to_bytes(4, "big")
            for key, value in ((HEADER_TABLE_SIZE, 0), (INITIAL_WINDOW_SIZE, WINDOW_BYTES))
        )
        more = (WINDOW_BYTES - WINDOW_BYTES_FIRST).to_bytes(4, "big")
        self._out = bytearray(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, more))
        self._in = bytearray()
        self._window_bytes = WINDOW_BYTES_FIRST
        self._stream = -1
        self._calls: dict[int, tuple[float, bytes]] = {}
        self._bodies: dict[int, bytearray] = {}
        self._by_age: deque[tuple[float, int]] = deque()
        self._waiting: deque[tuple[bytes, bytes, int]] = deque()
        self.flush()
        # All settings must have been exchanged before the first call: the header table is one of them.
        while not self._in.startswith(b"\0\0"):
            self._in += self.socket.recv(1 << 16)
        self._frames()

    def call(self, headers: bytes, ask: bytes, answer: bytes, due_s: float) -> None:
        """Begin a call."""
        self._stream += 2
        self._calls[self._stream] = due_s, answer
        self._bodies[self._stream] = bytearray()
        self._by_age.append((due_s + self._flood.deadline_s, self._stream))
        self._waiting.append((headers, ask, self._stream))

    def flush(self) -> None:
        """Send what the server's window allows."""
        while self._waiting and len(self._waiting[0][1]) <= self._window_bytes:
            headers, ask, stream = self._waiting.popleft()
            self._window_bytes -= len(ask)
            self._out += frame(HEADERS, END_HEADERS, stream, headers) + frame(DATA, END_STREAM, stream, ask)
        if self._out:
            self.socket.sendall(self._out)
            self._out.clear()

    def receive(self) -> None:
        """Read what has come."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._in += data
        self._frames()

    def hang_up(self, now_s: float) -> None:
        """Give up the calls whose time is over."""
        while self._by_age and self._by_age[0][0] < now_s:
            _, stream = self._by_age.popleft()
            if stream in self._calls:
                self._out += frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))
                self._end(stream, EXPIRED)

    def _frames(self) -> None:
        """Take whole frames from what has been read."""
        data, begin = self._in, 0
        while len(data) - begin >= 9:
            end = begin + 9 + int.from_bytes(data[begin : begin + 3], "big")
            if end > len(data):
                break
            kind, flags, stream = data[begin + 3], data[begin + 4], int.from_bytes(data[begin + 5 : begin + 9], "big")
            self._take(kind, flags, stream, bytes(data[begin + 9 : end]))
            begin = end
        del data[:begin]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """One frame."""
        if kind == DATA and stream in self._bodies:
            self._bodies[stream] += payload
        elif kind == HEADERS and flags & END_STREAM and stream in self._calls:
            at = payload.find(b"grpc-status") + len(b"grpc-status")
            self._end(stream, payload[at + 1 : at + 1 + payload[at]].decode())
        elif kind == RST_STREAM and stream in self._calls:
            self._end(stream, f"RESET {int.from_bytes(payload, 'big')}")
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window_bytes += int.from_bytes(payload, "big")
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._out += frame(kind, ACK, 0, payload if kind == PING else b"")
        elif kind == GOAWAY and int.from_bytes(payload[4:8], "big"):
            raise ConnectionError(f"the server ended the connection: {payload!r}")

    def _end(self, stream: int, status: str) -> None:
        """A call has ended."""
        flood = self._flood
        due_s, answer = self._calls.pop(stream)
        body = self._bodies.pop(stream)
        latency_s = time.perf_counter() - due_s
        if latency_s > flood.deadline_s:
            status = EXPIRED
        flood.pending -= 1
        flood.statuses[status] += 1
        if flood.throttle is not None and status == REFUSED:
            flood.throttle.refused()
        elif flood.throttle is not None and status == OK:
            flood.throttle.answered()
        if status == OK:
            flood.latencies_s.append(latency_s)
            flood.mismatches += len(answer) > len(_message(b"")) and body != answer


def _message(data: bytes) -> bytes:
    """A gRPC message: not compressed, length, bytes."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def main(arguments: list[str]) -> int:
    """Carry out a plan."""
    plan = json.loads(Path(arguments[0]).read_text())
    flood = Flood(plan)
    flood.warm_up(plan["warm_up_calls"])
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(flood.run()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
