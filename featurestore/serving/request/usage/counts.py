"""What was asked of a server, by whom, and what it took; for the audit log and for the bill.

    request ── user, service, rows ──┐
    its steps ── CPU, bytes ─────────┴──> counts of this minute ── thread ──> audit log, one line a caller and service
    refusals, single calls ──────────────> queue ──────────────── thread ──> audit log, one line each

Requests only count, which takes a microsecond; a thread writes. What cannot be written is kept: counts add up however
long that lasts, single lines up to a number, beyond which they are counted. Nobody's payment waits for an audit log.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from featurestore.clock import Clock
from featurestore.core.spec.access import FEATURE_SERVICE, READ_ONLINE, AccessSpec, User
from featurestore.errors import FeatureStoreError
from featurestore.serving.request.callers import NamedCaller, client_of
from featurestore.serving.request.gate import Asked

WAKE_SECONDS = 1.0
"""What a crash can take of refusals and single calls."""

MINUTE_MS = 60_000
NOTE_MS = 600_000
"""How often the manifest learns how far this writer is."""

LINES_MAX = 100_000
"""That wait for a disk that has no room; 50 MB."""

NAMES_MAX = 10_000
"""Callers and services, or refusals, that are told apart within a minute."""

OTHERS = "others"

_POINTS, _GOLDEN_STEP = 1 << 32, 2_654_435_769
"""Every so manieth call without chance: multiples of the golden ratio spread evenly."""

_US = 1_000
_log = logging.getLogger(__name__)

_Wanted = TypeVar("_Wanted")
_Given = TypeVar("_Given")
_Answer = TypeVar("_Answer")


class Asker(NamedTuple):
    """Who asks, and how that is known: "token", "certificate", "header" or "address"; "" for not at all."""

    who: str
    known_by: str = ""


NOBODY = Asker("")


@dataclass(slots=True)
class Used:
    """What one caller has used of one service.

    Attributes:
        requests: how many.
        failed: of them.
        rows: answered.
        answer_bytes: sent.
        worked_ns: of the processor.
    """

    requests: int = 0
    failed: int = 0
    rows: int = 0
    answer_bytes: int = 0
    worked_ns: int = 0

    def details(self) -> dict[str, int]:
        """As the audit log has it."""
        told = {"requests": self.requests, "failed": self.failed, "rows": self.rows}
        return {**told, "bytes": self.answer_bytes, "cpu_us": self.worked_ns // _US}


class AuditLog(Protocol):
    """Where lines go."""

    def write(self, records: list[Mapping[str, object]]) -> None:
        """See `Journal`."""
        ...

    def note(self) -> None:
        """See `Journal`."""
        ...

    def close(self) -> None:
        """See `Journal`."""
        ...


class BillCounter(Protocol):
    """Counts for metrics."""

    def count_used(self, owner: str, service: str, used: Used) -> None:
        """What was used of a service, and which team it belongs to."""
        ...

    def show_audit(self, waiting: int, lost: int, *, has_failed: bool) -> None:
        """How the log fares."""
        ...


class Usage:
    """Counts, and writes. Thread-safe.

    Args:
        access: what is registered now: owners, and what is personal.
        clock: dates lines.
        log: where lines go; None for nowhere, and counts go to the metrics alone.
        share: of single calls that are written, whatever the service.
    """

    def __init__(
        self, access: Callable[[], AccessSpec], clock: Clock, log: AuditLog | None = None, share: float = 0.0
    ) -> None:
        self.clock = clock
        self._access, self._journal = access, log
        self._below, self._point = round(share * _POINTS), 0
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._used: dict[tuple[Asker, str, tuple[str, ...]], Used] = {}
        self._refused: dict[tuple[Asker, str], int] = {}
        self._lines: deque[Mapping[str, object]] = deque()
        self._lost, self._begun_ms, self._noted_ms = 0, clock.now_ms(), clock.now_ms()
        self._personal: tuple[AccessSpec, dict[str, bool]] = AccessSpec(), {}
        self._counter: BillCounter | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self, counter: BillCounter) -> None:
        """Begin to write."""
        self._counter = counter
        self._thread.start()

    def stop(self) -> None:
        """Write everything that was counted, and end."""
        self._stopping.set()
        self._thread.join()
        if self._journal is not None:
            try:
                self._journal.close()
            except FeatureStoreError as error:
                _log.error("%s", error)

    def count(self, asker: Asker, asked: Asked, worked_ns: int, size: int, has_failed: bool) -> None:
        """A request has ended.

        Args:
            asker: whose.
            asked: what it asked for.
            worked_ns: of the processor.
            size: of the answer in bytes.
            has_failed: whether there is none.
        """
        key, rows = (asker, asked.service, asked.views), 0 if has_failed else asked.rows()
        with self._lock:
            used = self._used.get(key)
            if used is None:
                if len(self._used) >= NAMES_MAX:
                    key = Asker(OTHERS), asked.service, ()
                used = self._used.setdefault(key, Used())
            used.requests += 1
            used.failed += has_failed
            used.rows += rows
            used.answer_bytes += size
            used.worked_ns += worked_ns
        if self._journal is not None and (self._is_chosen() or self._is_personal(asked.service)):
            told = Used(1, int(has_failed), rows, size, worked_ns).details()
            self._queue(_line(asker, "call", asked.title, "failed" if has_failed else "done", told, self.clock))

    def refuse(self, asker: Asker, error: FeatureStoreError) -> None:
        """A request was turned away."""
        key = asker, error.message
        with self._lock:
            if key not in self._refused and len(self._refused) >= NAMES_MAX:
                key = Asker(OTHERS), "refused"
            self._refused[key] = self._refused.get(key, 0) + 1

    def _is_chosen(self) -> bool:
        """Whether this call is of the sample. Two threads at once may take one step together, which does no harm."""
        point = self._point = (self._point + _GOLDEN_STEP) % _POINTS
        return point < self._below

    def _is_personal(self, service: str) -> bool:
        """Whether each call of a service is written by itself."""
        access = self._access()
        spec, known = self._personal
        if spec is not access:
            self._personal = access, (known := {})
        if service not in known:
            known[service] = bool(service) and access.find(FEATURE_SERVICE, service).is_personal
        return known[service]

    def _queue(self, line: Mapping[str, object]) -> None:
        with self._lock:
            if len(self._lines) >= LINES_MAX:
                self._lost += 1
            else:
                self._lines.append(line)

    def _run(self) -> None:
        """The thread."""
        while not self._stopping.wait(WAKE_SECONDS):
            self.write(is_over=False)
        self.write(is_over=True)

    def write(self, *, is_over: bool) -> None:
        """Write what waits; what goes wrong is said once a minute, and requests never notice.

        Args:
            is_over: whether the minute is, whatever the clock says.
        """
        with self._writing:
            self._attempt(is_over=is_over)

    def _attempt(self, *, is_over: bool) -> None:
        now_ms = self.clock.now_ms()
        is_due = is_over or now_ms - self._begun_ms >= MINUTE_MS
        has_failed = False
        try:
            self._write(now_ms, is_due=is_due)
        except Exception as error:  # noqa: BLE001  # the thread's edge: a log that ended here would end in silence
            has_failed = True
            if is_due:
                _log.error("what was asked cannot be written to the audit log, and waits: %s", error)
        if self._counter is not None:
            self._counter.show_audit(len(self._lines), self._lost, has_failed=has_failed)

    def _write(self, now_ms: int, *, is_due: bool) -> None:
        """Lines that wait, and the counts of a minute that is over."""
        with self._lock:
            refused, self._refused = self._refused, {}
        for (asker, message), times in refused.items():
            self._queue(_line(asker, "request", message, "refused", {"times": times}, self.clock))
        if is_due:
            with self._lock:
                used, self._used = self._used, {}
            begun_ms, self._begun_ms = self._begun_ms, now_ms
            for line in self._minute(used, begun_ms, now_ms):
                self._queue(line)
        if self._journal is None:
            self._lines.clear()
            return
        while self._lines:
            with self._lock:
                some = [self._lines[index] for index in range(min(1_000, len(self._lines)))]
            if self._lost:
                some.append(_line(NOBODY, "lines lost", "", "failed", {"lines": self._lost}, self.clock))
            self._journal.write(some)
            with self._lock:
                for _ in range(len(some) - bool(self._lost)):
                    self._lines.popleft()
                self._lost = 0
        if now_ms - self._noted_ms >= NOTE_MS:
            self._journal.note()
            self._noted_ms = now_ms

    def _minute(
        self, used: Mapping[tuple[Asker, str, tuple[str, ...]], Used], begun_ms: int, now_ms: int
    ) -> Iterator[Mapping[str, object]]:
        """A line for each caller and service, and the metrics of their teams."""
        access = self._access()
        for (asker, service, views), one in used.items():
            owner = access.find(FEATURE_SERVICE, service).owner if service else ""
            if self._counter is not None:
                self._counter.count_used(owner, service, one)
            told = {"service": service, "owner": owner, **one.details(), "from_ms": begun_ms, "until_ms": now_ms}
            yield _line(asker, "lookup", Asked(READ_ONLINE, service, views).title, "done", told, self.clock)


def metered(
    steps: Generator[_Wanted, _Given, _Answer], clock: Clock, ended: Callable[[int, int, bool], None]
) -> Generator[_Wanted, _Given, _Answer]:
    """The same steps, which say at their end what they took.

    Args:
        steps: of a handler.
        clock: measures the processor's time.
        ended: called with it in ns, the bytes of the answer, and whether there is none.
    """
    worked_ns, size, has_failed = 0, 0, True
    given: Any = None
    error: FeatureStoreError | None = None
    try:
        while True:
            begun_ns = clock.worked_ns()
            try:
                wanted = steps.send(given) if error is None else steps.throw(error)
            except StopIteration as end:
                answer: _Answer = end.value
                size, has_failed = len(answer) if isinstance(answer, bytes) else 0, False
                return answer
            finally:
                worked_ns += clock.worked_ns() - begun_ns
            error = None
            try:
                given = yield wanted
            except FeatureStoreError as thrown:
                error = thrown
    finally:
        ended(worked_ns, size, has_failed)


def _line(
    asker: Asker, what: str, on: str, outcome: str, details: Mapping[str, object], clock: Clock
) -> Mapping[str, object]:
    said = {"who": asker.who, "known_by": asker.known_by, "what": what, "on": on, "outcome": outcome}
    return {"at_ms": clock.now_ms(), **said, "details": details}


def asker_of(caller: NamedCaller, key: str, user: User | None) -> Asker:
    """Who asks, and how that is known."""
    if user is not None:
        return Asker(user.name, user.known_by)
    known_by = "header" if key else "certificate" if caller.peer_identities() else "address"
    return Asker(client_of(caller, key), known_by)
