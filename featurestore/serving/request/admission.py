"""Who is let in: a request that cannot be answered in time is refused at once, before it costs anything.

    arrives -> lane full and the wait too long? -> Overloaded
                    |
                    v
               waits its turn -> expired meanwhile? -> DeadlineSpent
                    |
                    v
               at work, one of a few -> more than some hundred keys? -> waits for its turn among the large ones

Without it a server that is offered twice what it can do answers everybody late, which is nobody: it works on requests
whose callers have hung up. How long a request will wait is the length of the queue times a running mean of the time at
work (EWMA), over the number at work at once. It is held against what is left of the caller's deadline, and against a
limit of its own: a queue longer than a few answers only makes payments wait that will not be answered sooner for it.

Source: "Fail at Scale", Maurer, ACM Queue 2015 (short queues); "The Tail at Scale", Dean and Barroso, CACM 2013.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, TypeVar

from featurestore.clock import NS_PER_MS, Clock, Deadline
from featurestore.core.spec.access import READ_ONLINE, User
from featurestore.definitions.governance.quotas import Quotas
from featurestore.errors import DeadlineSpent, Overloaded, PermissionDenied, QuotaSpent, Unauthenticated
from featurestore.serving.request.callers import NamedCaller as Caller
from featurestore.serving.request.callers import client_of
from featurestore.serving.request.gate import Asked, Gate
from featurestore.serving.request.limits import (
    LARGE_AT_WORK_MAX,
    LARGE_WAIT_MS_MAX,
    LARGE_WAITING_MAX,
    WAIT_MS_MAX,
    WAITING_MAX,
)
from featurestore.serving.request.usage.buckets import Meter
from featurestore.serving.request.usage.counts import NOBODY, Usage, asker_of, metered
from featurestore.serving.request.usage.shares import HINT, Shares, share_of

MEMORY = 32
"""Requests over which the running mean forgets: long enough for one slow answer, short enough for a slow store."""

_Wanted = TypeVar("_Wanted")
_Given = TypeVar("_Given")
_Answer = TypeVar("_Answer")

PAUSES_MAX = 20
"""Before one request's work, however many come."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in a lane.

    Attributes:
        deadline: of the request.
        wake: called when its turn has come, or its time is over.
        begun_ns: when its turn came, None before.
        is_expired: its time was over when its turn would have come.
    """

    deadline: Deadline
    wake: Callable[[], object]
    begun_ns: int | None = None
    is_expired: bool = False


class Lane:
    """Some requests at work, and a short queue. Thread-safe; nothing in it blocks.

    Args:
        name: for messages and metrics.
        at_work_max: requests at work at once.
        waiting_max: requests that may wait.
        wait_ms_max: longest time that one is let in to wait.
        clock: measures the time at work.
        count_refusal: called with the name for each request that is refused.
    """

    def __init__(
        self,
        name: str,
        at_work_max: int,
        *,
        waiting_max: int,
        wait_ms_max: float,
        clock: Clock,
        count_refusal: Callable[[str], None],
    ) -> None:
        self.name = name
        self._at_work_max = at_work_max
        self._waiting_max = waiting_max
        self._wait_ns_max = int(wait_ms_max * NS_PER_MS)
        self._clock = clock
        self._count_refusal = count_refusal
        self._lock = threading.Lock()
        self._at_work = 0
        self._waiting: deque[Ticket] = deque()
        self._work_ns = 0.0

    def count_waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    def is_full(self) -> bool:
        """Whether nobody is let in now, however patient."""
        return self._at_work >= self._at_work_max and (
            len(self._waiting) >= self._waiting_max or self._wait_ns() > self._wait_ns_max
        )

    def refuse(self) -> NoReturn:
        """Refuse a request.

        Raises:
            Overloaded: always.
        """
        self._count_refusal(self.name)
        raise Overloaded(
            f"the server is overloaded: {len(self._waiting)} {self.name} requests wait",
            detail=f"This one would wait {self._wait_ns() / NS_PER_MS:.0f} ms.",
            hint=HINT,
        )

    def check(self, deadline: Deadline) -> None:
        """Refuse a request that would not be answered in time; called before it is read, and again as it enters.

        Raises:
            Overloaded: it would wait too long.
        """
        if self._at_work < self._at_work_max:
            return
        if self.is_full():
            self.refuse()
        expires_ns = deadline.expires_ns
        if expires_ns is not None and self._wait_ns() > expires_ns - self._clock.monotonic_ns():
            self.refuse()

    def _wait_ns(self) -> float:
        """How long one that came now would wait for its turn."""
        return (len(self._waiting) + 1) * self._work_ns / self._at_work_max

    def enter(self, deadline: Deadline, wake: Callable[[], object], *, is_patient: bool = False) -> Ticket:
        """Begin at once or wait; whoever has entered must leave.

        Args:
            deadline: of the request.
            wake: called once, from any thread, if the ticket says that its turn has not come yet.
            is_patient: it is let in however long it would wait.

        Raises:
            Overloaded: it would wait too long.
        """
        ticket = Ticket(deadline, wake)
        with self._lock:
            if not is_patient:
                self.check(deadline)
            if self._at_work < self._at_work_max:
                self._at_work += 1
                ticket.begun_ns = self._clock.monotonic_ns()
            else:
                self._waiting.append(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """The request has ended, or gives up waiting; the next ones begin."""
        with self._lock:
            if ticket.begun_ns is None:
                if not ticket.is_expired:
                    self._waiting.remove(ticket)
                return
            now_ns = self._clock.monotonic_ns()
            self._work_ns += (now_ns - ticket.begun_ns - self._work_ns) / MEMORY
            self._at_work -= 1
            woken = self._next(now_ns)
        for each in woken:
            each.wake()

    def _next(self, now_ns: int) -> list[Ticket]:
        """Those whose turn has come, and those before them whose time is over."""
        woken = []
        while self._waiting and self._at_work < self._at_work_max:
            ticket = self._waiting.popleft()
            expires_ns = ticket.deadline.expires_ns
            if expires_ns is not None and expires_ns <= now_ns:
                ticket.is_expired = True
            else:
                ticket.begun_ns = now_ns
                self._at_work += 1
            woken.append(ticket)
        return woken


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """How many requests are let in.

    Attributes:
        wait_ms_max: longest wait for a turn.
        client_max: requests of one client at once; None for no limit.
        client_key: metadata key that names the client; empty for its certificate, else its address.
        service_max: requests at once of some feature services.
        quotas: how much callers and services may take.
    """

    wait_ms_max: float = WAIT_MS_MAX
    client_max: int | None = None
    client_key: str = ""
    service_max: Mapping[str, int] = field(default_factory=dict)
    quotas: Quotas = field(default_factory=Quotas)


class Admission:
    """The lanes and shares of one server.

    Args:
        settings: how many.
        at_work_max: requests at work at once; more would only take turns on one interpreter.
        clock: measures.
        count_refusal: called with the reason of each refusal.
        gate: who may ask what.
        usage: counts who asks what; None counts nothing.

    Attributes:
        small: where all requests begin.
        large: where those go on that would hold up the others.
        arrivals: requests that have come so far.
        clients: shares of the clients, None for no limit.
        services: shares of the feature services, None for no limit.
        client_key: metadata key that names the client, if any.
        meter: keeps quotas by the second, None for none.
        gate: who may ask what; None lets everybody ask everything.
        usage: counts who asks what; None counts nothing.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        at_work_max: int,
        clock: Clock,
        count_refusal: Callable[[str], None],
        gate: Gate | None = None,
        usage: Usage | None = None,
    ) -> None:
        self.gate, self.usage = gate, usage
        self.small = Lane(
            "small",
            at_work_max,
            waiting_max=WAITING_MAX,
            wait_ms_max=settings.wait_ms_max,
            clock=clock,
            count_refusal=count_refusal,
        )
        self.large = Lane(
            "large",
            LARGE_AT_WORK_MAX,
            waiting_max=LARGE_WAITING_MAX,
            wait_ms_max=LARGE_WAIT_MS_MAX,
            clock=clock,
            count_refusal=count_refusal,
        )
        self.arrivals = 0
        quotas, room = settings.quotas, at_work_max + WAITING_MAX
        self.meter = Meter(quotas, clock, count_refusal) if quotas != Quotas() else None

        def client_max(name: str) -> int | None:
            return share_of(quotas.of_caller(name), room) or settings.client_max

        def service_max(name: str) -> int | None:
            return share_of(quotas.of_service(name), room) or settings.service_max.get(name)

        has_clients = settings.client_max is not None or any(one.share for one in quotas.of_callers)
        has_services = settings.service_max or any(one.share for one in quotas.of_services)
        self.clients = Shares("client", client_max, count_refusal) if has_clients else None
        self.services = Shares("feature service", service_max, count_refusal) if has_services else None
        self.client_key = settings.client_key.lower()


class Visit:
    """One request's way through the lanes; whatever becomes of it, it must be ended.

    Args:
        admission: whose lanes.
        deadline: of the request.
    """

    __slots__ = ("_admission", "_arrival", "_asked", "_asker", "_lane", "_shares", "_ticket", "_user", "deadline")

    def __init__(self, admission: Admission, deadline: Deadline) -> None:
        self._admission = admission
        self.deadline = deadline
        self._arrival = 0
        self._lane: Lane | None = None
        self._ticket: Ticket | None = None
        self._shares: list[tuple[Shares, str]] = []
        self._user: User | None = None
        self._asker, self._asked = NOBODY, Asked("")

    def begin(self, caller: Caller) -> None:
        """The request has come and is not read yet.

        Args:
            caller: who asks.

        Raises:
            Overloaded: it is not let in.
            Unauthenticated: nobody knows who asks.
        """
        admission = self._admission
        admission.arrivals += 1
        self._arrival = admission.arrivals
        admission.small.check(self.deadline)
        if admission.gate is not None:
            self._user = self._known(admission.gate, caller)
        if admission.usage is not None or admission.meter is not None:
            self._asker = asker_of(caller, admission.client_key, self._user)
        if admission.clients is not None:
            name = client_of(caller, admission.client_key) if self._user is None else self._user.name
            self._take(admission.clients, name)

    def permit(self, asks: Callable[[Any], Asked | None], request: Any) -> None:
        """What it wants is known now.

        Args:
            asks: what a request message wants; None where everybody may have it.
            request: the message.

        Raises:
            PermissionDenied: the caller may not have it.
            QuotaSpent: he, or the service, has asked for enough.
        """
        gate, usage, meter = self._admission.gate, self._admission.usage, self._admission.meter
        asked = None if gate is None and usage is None and meter is None else asks(request)
        if asked is None:
            return
        self._asked = asked
        try:
            if gate is not None and self._user is not None:
                gate.require(self._user, asked)
            if meter is not None and asked.action == READ_ONLINE:
                meter.take(self._asker.who, asked.service, asked.rows)
        except (PermissionDenied, QuotaSpent) as error:
            if usage is not None:
                usage.refuse(self._asker, error)
            raise

    def counted(self, steps: Generator[_Wanted, _Given, _Answer]) -> Generator[_Wanted, _Given, _Answer]:
        """The steps of a request that was permitted, as counted as they are to be."""
        usage, asked, asker = self._admission.usage, self._asked, self._asker
        if usage is None or asked.action != READ_ONLINE:
            return steps
        return metered(steps, usage.clock, partial(usage.count, asker, asked))

    def _known(self, gate: Gate, caller: Caller) -> User:
        """Who asks; whom nobody knows is in the log too."""
        try:
            return gate.user_of(caller)
        except Unauthenticated as error:
            if self._admission.usage is not None:
                self._admission.usage.refuse(asker_of(caller, "", None), error)
            raise

    @property
    def counts_services(self) -> bool:
        """Whether it is let in also by the feature service that it asks for."""
        return self._admission.services is not None

    def name_service(self, name: str) -> None:
        """It asks for a feature service; before it waits, or one service could fill the queue.

        Raises:
            Overloaded: the service has as many requests as it may.
        """
        if self._admission.services is not None and name:
            self._take(self._admission.services, name)

    def enter(self, wake: Callable[[], object], *, is_large: bool = False) -> bool:
        """Enter a lane, after leaving the other; whether the turn has come already, or `wake` is to be waited for.

        Raises:
            Overloaded: it would wait too long.
        """
        self._leave()
        self._lane = self._admission.large if is_large else self._admission.small
        self._ticket = self._lane.enter(self.deadline, wake)
        return self._ticket.begun_ns is not None

    def pauses(self) -> Iterator[None]:
        """Pauses before the work, for those who have come meanwhile.

        What gRPC has received is let in by Python one call after another. While Python computes nobody is, and the
        answers of an overloaded server would go to those who have waited outside for longest, and hang up first. So
        whoever is about to compute lets in everybody who is there: until nobody more has come during a pause.
        """
        seen = self._arrival
        for _ in range(PAUSES_MAX):
            if self._admission.arrivals == seen:
                return
            seen = self._admission.arrivals
            yield

    def require_turn(self) -> None:
        """After the wait.

        Raises:
            DeadlineSpent: it ended because the request's time is over.
        """
        if self._ticket is None or self._ticket.begun_ns is None:
            raise DeadlineSpent("deadline passed before the request's turn came", hint=HINT)

    def end(self) -> None:
        """Leave and give back."""
        self._leave()
        while self._shares:
            shares, name = self._shares.pop()
            shares.give_back(name)

    def _take(self, shares: Shares, name: str) -> None:
        """Take a share until the visit ends."""
        shares.take(name)
        self._shares.append((shares, name))

    def _leave(self) -> None:
        if self._lane is not None and self._ticket is not None:
            self._lane.leave(self._ticket)
        self._lane = self._ticket = None


async def wait_for_turn(visit: Visit, *, is_large: bool = False) -> None:
    """Wait in an event loop until the visit's turn has come, or its time is over.

    Raises:
        FeatureStoreError: see `Visit.enter` and `Visit.require_turn`.
    """
    loop, turn = asyncio.get_running_loop(), asyncio.Event()
    # Whoever leaves the lane may serve another protocol, in another thread.
    if not visit.enter(lambda: loop.call_soon_threadsafe(turn.set), is_large=is_large):
        await turn.wait()
        visit.require_turn()
