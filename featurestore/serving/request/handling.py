"""What every server does around a handler, whichever protocol asks: deadline, decoding, how a request ends, counting.

request -> deadline -> admission -> bytes -> message -> steps -> response
|-> error -> Refusal: status, text, kind
'-> counted, with status and latency
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

import grpc
import msgspec
from google.protobuf.message import DecodeError

from featurestore.clock import Clock, Deadline
from featurestore.errors import FeatureStoreError, InvalidRequest, Overloaded, PermissionDenied, Unauthenticated
from featurestore.serving.request.grpc_status import code_of, metadata_of
from featurestore.serving.request.limits import DEADLINE_DEFAULT_MS, STREAM_SILENCE_MS_MAX
from featurestore.serving.request.metrics import ServerMetrics

if TYPE_CHECKING:
    # Brings OpenTelemetry, which a server that traces nothing does without.
    from featurestore.serving.request.traces import RequestSpan, Traces

STATUS_TEXT_BYTES_MAX = 4_000
"""Clients end a stream whose trailers exceed their limit, 8 or 16 KiB, and the status is lost: somebody who sent a name
of a megabyte could not be told that it is unknown."""

COMPLAINT_SECONDS = 60

QUIET_SECONDS = 0.05
"""Without a new request for so long, those that were sent before the stop have all come in."""

QUIET_SECONDS_MAX = 1.0

STOP_SECONDS = 2.0
"""For cancelled calls to end, once the time to drain is over; a call that does not must not hold the process."""

STUBS_HINT = "make the client's stubs from this server's .proto files"
"""What to say to a caller whose message is none."""

_MS_PER_SECOND = 1_000
_NS_PER_SECOND = 1_000_000_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Silence:
    """What to say to a caller who says nothing."""

    message: str
    hint: str


SILENT = Silence("deadline passed before the request's message came", "send the message with the call")
SILENT_STREAM = Silence(
    f"no chunk came for {STREAM_SILENCE_MS_MAX / _MS_PER_SECOND:.0f} s", "end the stream after the last chunk"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a request ends that has no answer."""

    code: grpc.StatusCode
    text: str
    metadata: tuple[tuple[str, str], ...]


class CallerGone(Exception):
    """Nobody waits for the answer any more."""


class Complaints:
    """Log lines that callers can cause as often as they like: one a minute, which says how many there were.

    Args:
        clock: measures the minute.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_ns: dict[str, int] = {}
        self._counts: Counter[str] = Counter()

    def tell(self, what: str, error: Exception) -> None:
        """One more.

        Args:
            what: happened; of few kinds.
            error: the one that happened now.
        """
        self._counts[what] += 1
        now_ns = self._clock.monotonic_ns()
        if now_ns >= self._next_ns.get(what, now_ns):
            # Two threads may both come here; a line more does no harm.
            self._next_ns[what] = now_ns + COMPLAINT_SECONDS * _NS_PER_SECOND
            count = self._counts.pop(what, 1)
            _log.warning("%s, %d since this was last said: %s", what, count, str(error).replace("\n", "; "))


class Handling:
    """What happens around the handler of one method.

    Args:
        name: of the method.
        clock: measures latency and deadlines.
        metrics: counts requests.
        complaints: where to say what callers do wrong.
        traces: makes spans.
    """

    def __init__(
        self, name: str, clock: Clock, metrics: ServerMetrics, complaints: Complaints, traces: Traces | None = None
    ) -> None:
        self._name = name
        self._traces = traces
        self._clock = clock
        self._observe = metrics.observer(name)
        self._complaints = complaints

    def started_ns(self) -> int:
        """When a request begins that begins now."""
        return self._clock.monotonic_ns()

    def span(self, method: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> RequestSpan | None:
        """The request's span, which has begun; None without traces.

        Args:
            method: "package.Service/Method".
            metadata: what came with the request.
        """
        return None if self._traces is None else self._traces.request(method, metadata or ())

    def deadline(self, budget_s: float | None) -> Deadline:
        """The deadline of a request whose caller gives so much time; see `caller_budget_s`."""
        return Deadline.after(self._clock, DEADLINE_DEFAULT_MS if budget_s is None else budget_s * _MS_PER_SECOND)

    def chunk_deadline(self, budget_s: float | None) -> Deadline:
        """The deadline of one chunk's work, of a stream whose caller gives so much time."""
        return self.deadline(None if budget_s is None else min(budget_s, DEADLINE_DEFAULT_MS / _MS_PER_SECOND))

    def decoded(self, decode: Callable[[bytes], Any], data: bytes | None, *, hint: str = STUBS_HINT) -> Any:
        """The request's message.

        Args:
            decode: bytes -> message.
            data: as received; None where the caller ended the call without any.
            hint: what to do where it cannot be decoded.

        Raises:
            InvalidRequest: it is none.
        """
        try:
            if data is None:
                raise DecodeError("There is no message.")
            return decode(data)
        except (DecodeError, msgspec.DecodeError) as error:
            refused = InvalidRequest(f"the message to {self._name} cannot be read", detail=str(error), hint=hint)
            self._complaints.tell(f"messages to {self._name} cannot be read", refused)
            raise refused from error

    def ended(self, error: Exception, started_ns: int, span: RequestSpan | None = None) -> Refusal:
        """Count a request that failed; how to tell the caller.

        An error that nobody raised on purpose is logged, and its text kept from callers.
        """
        latency_ns: int | None = self._clock.monotonic_ns() - started_ns
        if isinstance(error, FeatureStoreError):
            refusal = Refusal(code_of(error), _bounded(error.public or str(error)), metadata_of(error))
            if error.public:
                self._complaints.tell("the online store fails", error)
            if isinstance(error, PermissionDenied | Unauthenticated):
                self._complaints.tell("callers are turned away", error)
            if isinstance(error, Overloaded):
                latency_ns = None
                self._complaints.tell("requests are refused", error)
        elif isinstance(error, CallerGone):
            refusal = Refusal(grpc.StatusCode.CANCELLED, "the caller hung up", ())
        else:
            _log.error("%s failed", self._name, exc_info=error)
            refusal = Refusal(grpc.StatusCode.INTERNAL, f"{self._name} failed; the server's log says why", ())
        self._observe(refusal.code.name, latency_ns)
        if span is not None:
            span.end(refusal.code.name)
        return refusal

    def answered(self, started_ns: int, span: RequestSpan | None = None) -> None:
        """Count a request that was answered."""
        if span is not None:
            span.end(grpc.StatusCode.OK.name)
        self._observe(grpc.StatusCode.OK.name, self._clock.monotonic_ns() - started_ns)


HandlingOf: TypeAlias = Callable[[str], Handling]
"""What happens around the handler of a method, by its name."""


def quiet_pauses_s(arrivals: Callable[[], int], drain_seconds: float) -> Iterator[float]:
    """Pauses until no more requests come in, for the time between the wish to stop and the end of listening.

    What has reached the process, but not Python yet, is lost when gRPC's server stops; so it is let in first. Callers
    who go on sending are not waited for.
    """
    seen = -1
    for _ in range(int(min(QUIET_SECONDS_MAX, drain_seconds) / QUIET_SECONDS)):
        if arrivals() == seen:
            return
        seen = arrivals()
        yield QUIET_SECONDS


def _bounded(text: str) -> str:
    """A status text that fits the trailers of any client; what is not printable ASCII takes three bytes there."""
    # No character takes more than twelve bytes: what is short enough need not be looked at, which takes time.
    if 12 * len(text) <= STATUS_TEXT_BYTES_MAX or len(quote(text)) <= STATUS_TEXT_BYTES_MAX:
        return text
    kept = STATUS_TEXT_BYTES_MAX // 12 // 2
    return f"{text[:kept]} ... ({len(text)} characters) ... {text[-kept:]}"
