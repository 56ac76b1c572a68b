"""What happens around an operation, from the head of a request to its response.

    head -> route -> deadline -> admission ... body -> turn -> message -> steps -> response
               '-> 404, 405      '-> 429, before the body is read

The same admission, deadlines, counts and kinds of errors as over gRPC; see `serving.request`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import Executor
from http import HTTPStatus
from typing import Any

import msgspec

from featurestore.clock import Clock
from featurestore.errors import DeadlineSpent, InvalidRequest, LimitExceeded
from featurestore.online.store import AsyncReads, OnlineStore
from featurestore.serving.http import problems
from featurestore.serving.http.messages import Head, Response
from featurestore.serving.http.openapi import TIMEOUT_HEADER, document
from featurestore.serving.http.operations import Operation
from featurestore.serving.request.admission import Admission, Visit, wait_for_turn
from featurestore.serving.request.callers import NamedCaller
from featurestore.serving.request.handling import CallerGone, Complaints, Handling
from featurestore.serving.request.limits import REQUEST_BYTES_MAX
from featurestore.serving.request.metrics import ServerMetrics
from featurestore.serving.request.steps import run_async

BODY_HINT = "send JSON as GET /openapi.json describes it"

_MS_PER_SECOND = 1_000


class Edge:
    """Lets requests in and answers them. Belongs to one event loop.

    Args:
        operations: what may be asked.
        store: what their steps read.
        reads: the same store for this loop.
        threads: where large requests go.
        clock: measures latency and deadlines.
        metrics: counts requests.
        admission: who is let in.

    Attributes:
        is_serving: whether the store answers.
        is_draining: whether the server is about to stop.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        store: OnlineStore,
        reads: AsyncReads,
        threads: Executor,
        clock: Clock,
        metrics: ServerMetrics,
        admission: Admission,
    ) -> None:
        complaints = Complaints(clock)
        self._operations = [(each, Handling(each.title, clock, metrics, complaints)) for each in operations]
        self._document = Response(200, msgspec.json.encode(document(operations)))
        self.store, self.reads, self.threads, self.admission = store, reads, threads, admission
        self.is_serving = self.is_draining = False

    def receive(self, head: Head, caller: NamedCaller) -> Call | Response:
        """Let a request in whose body is still to come; a Response where that makes no difference."""
        verb, path = "GET" if head.verb == "HEAD" else head.verb, head.path
        verbs = []
        for operation, handling in self._operations:
            name = operation.name_in(path)
            if name is not None and operation.verb == verb:
                return self._let_in(operation, handling, name, head, caller)
            if name is not None:
                verbs.append(operation.verb)
        own = self._own(path)
        if own is not None and verb == "GET":
            return own
        if own is not None:
            verbs.append("GET")
        if verbs:
            allowed = (("allow", ", ".join(verbs)),)
            return problems.plain(HTTPStatus.METHOD_NOT_ALLOWED, f"{head.verb} is not for this path", headers=allowed)
        return problems.plain(
            HTTPStatus.NOT_FOUND, "this path leads nowhere", hint="see GET /openapi.json for those that there are"
        )

    def _let_in(
        self, operation: Operation, handling: Handling, name: str, head: Head, caller: NamedCaller
    ) -> Call | Response:
        started_ns = handling.started_ns()
        visit = None
        try:
            visit = Visit(self.admission, handling.deadline(_budget_s(head)))
            visit.begin(caller)
        except Exception as error:  # noqa: BLE001  # the process edge: one bad request must not take the loop down
            if visit is not None:
                visit.end()
            return problems.refused(handling.ended(error, started_ns))
        return Call(self, operation, handling, name, visit, started_ns)

    def _own(self, path: str) -> Response | None:
        """What the server says of itself."""
        if path == "/openapi.json":
            return self._document
        if path == "/healthz":
            return Response(200, b'{"status":"ok"}')
        if path == "/readyz":
            if self.is_serving and not self.is_draining:
                return Response(200, b'{"status":"ok"}')
            why = "the server is about to stop" if self.is_draining else "the online store does not answer"
            return problems.plain(HTTPStatus.SERVICE_UNAVAILABLE, why)
        return None


class Call:
    """A request that was let in; it must be answered or given up.

    Args:
        edge: what lets it in.
        operation: what is asked.
        handling: what happens around it.
        name: that stands in its path.
        visit: its way through the lanes, begun.
        started_ns: when it came.
    """

    __slots__ = ("_edge", "_handling", "_name", "_operation", "_started_ns", "_visit")

    def __init__(
        self, edge: Edge, operation: Operation, handling: Handling, name: str, visit: Visit, started_ns: int
    ) -> None:
        self._edge = edge
        self._operation = operation
        self._handling = handling
        self._name = name
        self._started_ns = started_ns
        self._visit = visit

    def remaining_s(self) -> float:
        """Seconds that its caller still waits."""
        try:
            return self._visit.deadline.remaining_ms("the body came") / _MS_PER_SECOND
        except DeadlineSpent:
            return 0.0

    async def answer(self, data: bytes) -> Response:
        """The response to the whole request; errors are responses too."""
        edge, visit, handling = self._edge, self._visit, self._handling
        try:
            message = self._message(data) if visit.counts_services else None
            if message is not None:
                visit.name_service(self._operation.service_of(message))
            await wait_for_turn(visit)
            for _ in visit.pauses():
                await asyncio.sleep(0)
            if message is None:
                message = self._message(data)
            visit.permit(self._operation.asks, message)
            steps = visit.counted(self._operation.handle(message, visit.deadline))
            body = await run_async(
                steps, edge.reads, edge.store, edge.threads, lambda: wait_for_turn(visit, is_large=True)
            )
        except asyncio.CancelledError:
            handling.ended(CallerGone(), self._started_ns)
            raise
        except Exception as error:  # noqa: BLE001  # the process edge: one bad request must not take the loop down
            return problems.refused(handling.ended(error, self._started_ns))
        finally:
            visit.end()
        handling.answered(self._started_ns)
        return Response(200, body)

    def give_up(self, error: Exception, status: HTTPStatus | None = None) -> Response:
        """The response to a request whose body does not come, or is too large.

        Args:
            error: what is wrong.
            status: instead of the one that the error stands for.
        """
        self._visit.end()
        return problems.refused(self._handling.ended(error, self._started_ns), status)

    def _message(self, data: bytes) -> Any:
        return self._handling.decoded(lambda body: self._operation.decode(self._name, body), data, hint=BODY_HINT)


def too_large() -> LimitExceeded:
    """The error for a body that is not read to its end."""
    return LimitExceeded(f"the body is larger than {REQUEST_BYTES_MAX} bytes", hint="split it into several requests")


def _budget_s(head: Head) -> float | None:
    """How much time the caller gives; None where it does not say.

    Raises:
        InvalidRequest: the header is no number of seconds.
    """
    text = head.header(TIMEOUT_HEADER)
    if text is None:
        return None
    try:
        budget_s = float(text)
    except ValueError:
        budget_s = math.nan
    if not 0 < budget_s < math.inf:
        raise InvalidRequest(f'the header {TIMEOUT_HEADER} is "{text}"', hint="send seconds, such as 0.2")
    return budget_s
