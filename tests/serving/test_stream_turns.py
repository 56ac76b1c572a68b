"""When a chunk's turn comes, on a clock that is driven: streams beside payments and batches, without a server."""

from types import SimpleNamespace
from typing import Any

import pytest

from featurestore.clock import Deadline
from featurestore.errors import Overloaded
from featurestore.serving.request.admission import Admission, AdmissionSettings, Visit
from featurestore.serving.request.limits import CHUNK_REST_MS_MAX, CHUNK_WAIT_MS_MAX, LARGE_WAITING_MAX
from featurestore.serving.rpc.streams import Streams, StreamVisit
from featurestore.testing.clock import ManualClock

CONTEXT: Any = SimpleNamespace()
"""Of a call; nothing is asked of it where clients have no limit."""


class Hall:
    """A server's lanes."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.refused: list[str] = []
        self.woken: list[str] = []
        self.admission = Admission(AdmissionSettings(), 1, self.clock, self.refused.append)
        self.streams = Streams(self.admission, self.clock, self.refused.append)

    def stream(self, budget_s: float | None = None) -> StreamVisit:
        """A stream that is open."""
        visit = StreamVisit(self.streams, budget_s)
        visit.begin(CONTEXT)
        return visit

    def payment(self) -> Visit:
        """A small request that has come."""
        visit = Visit(self.admission, Deadline.after(self.clock, 1_000))
        visit.begin(CONTEXT)
        return visit

    def large(self, name: str = "large") -> bool:
        """A batch of one request that has come; whether its turn has."""
        visit = self.payment()
        return visit.enter(lambda: self.woken.append(name), is_large=True)

    def let_in(self) -> int:
        """Payments that come until one is refused: how many were not."""
        count = 0
        try:
            while True:
                self.payment().enter(lambda: None)
                count += 1
        except Overloaded:
            return count

    def work(self, visit: StreamVisit, work_ms: int, *, payments: int = 0) -> None:
        """One chunk, from its turn to its answer, while so many payments come."""
        assert visit.enter(lambda: None)
        assert visit.enter(lambda: None, is_large=True)
        for _ in range(payments):
            self.payment().end()
        self.clock.advance_ms(work_ms)
        visit.chunk_answered()


def test_a_chunk_rests_as_long_as_the_last_one_worked_if_others_came() -> None:
    """Whichever stream it is of; so chunks have half of the time at most."""
    hall = Hall()
    first, second = hall.stream(), hall.stream()

    hall.work(first, 80, payments=1)

    assert [0.08, 0.08] == [first.rest_s(), second.rest_s()]
    hall.clock.advance_ms(60)
    assert 0.02 == pytest.approx(second.rest_s())
    hall.clock.advance_ms(60)
    assert 0.0 == second.rest_s()


def test_chunks_have_all_of_the_time_while_nobody_else_asks() -> None:
    """A night's job is not slowed down."""
    hall = Hall()
    stream = hall.stream()

    hall.work(stream, 80)

    assert 0.0 == stream.rest_s()


def test_a_rest_is_short_also_after_a_chunk_that_waited_for_a_slow_store() -> None:
    """Which took nothing from anybody."""
    hall = Hall()
    stream = hall.stream()

    hall.work(stream, 5_000, payments=3)

    assert CHUNK_REST_MS_MAX / 1_000 == stream.rest_s()


def test_one_chunk_of_all_streams_is_under_way() -> None:
    """From the beginning of its rest; the others take turns in the order in which they came."""
    hall = Hall()
    first, second, third = hall.stream(), hall.stream(), hall.stream()
    assert first.enter(lambda: None)

    assert not second.enter(lambda: hall.woken.append("second"))
    assert not third.enter(lambda: hall.woken.append("third"))
    first.chunk_answered()

    assert ["second"] == hall.woken
    second.end()
    assert ["second", "third"] == hall.woken


def test_a_chunk_waits_behind_the_large_requests_that_were_there_and_is_never_refused_for_them() -> None:
    """It is one large request more, however many streams there are; and nothing to the small ones."""
    hall = Hall()
    assert hall.large()
    for number in range(LARGE_WAITING_MAX):
        assert not hall.large(f"large {number}")
    with pytest.raises(Overloaded):
        hall.large()
    stream = hall.stream()
    assert stream.enter(lambda: None)

    assert not stream.enter(lambda: hall.woken.append("chunk"), is_large=True)
    assert hall.payment().enter(lambda: None)
    assert ["large"] == hall.refused


def test_payments_are_refused_no_sooner_for_chunks_that_work_or_wait() -> None:
    """The lane of payments knows nothing of them, so what it lets in is the same with streams and without."""
    admitted = []
    for streams in (0, 5):
        hall = Hall()
        for visit in [hall.stream() for _ in range(streams)]:
            if visit.enter(lambda: None):
                visit.enter(lambda: None, is_large=True)
        admitted.append((hall.let_in(), hall.refused))

    assert admitted[0] == admitted[1]


def test_a_chunk_is_refused_only_where_it_would_wait_for_too_long() -> None:
    """Half a minute, or what is left of the stream's deadline."""
    hall = Hall()
    slow = hall.stream()
    for _ in range(300):
        hall.work(slow, int(0.6 * CHUNK_WAIT_MS_MAX))
    assert slow.enter(lambda: None)
    patient, impatient = hall.stream(), hall.stream(budget_s=10)
    late = hall.stream()

    with pytest.raises(Overloaded):
        impatient.enter(lambda: None)
    assert not patient.enter(lambda: None)
    with pytest.raises(Overloaded):
        late.enter(lambda: None)
    assert ["chunk", "chunk"] == hall.refused
