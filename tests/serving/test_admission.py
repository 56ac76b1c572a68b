"""Who is let in, on a clock that is driven: lanes, queues and shares without a server."""

import pytest

from featurestore.clock import Deadline
from featurestore.errors import DeadlineSpent, Overloaded
from featurestore.serving.request.admission import Admission, AdmissionSettings, Ticket, Visit
from featurestore.serving.request.limits import WAITING_MAX
from featurestore.testing.clock import ManualClock

WORK_MS = 8


class Door:
    """A server of one request at work, which takes WORK_MS each."""

    def __init__(self, *, wait_ms_max: float = 20.0, at_work_max: int = 1) -> None:
        self.clock = ManualClock()
        self.refused: list[str] = []
        self.woken: list[str] = []
        settings = AdmissionSettings(wait_ms_max=wait_ms_max)
        self.admission = Admission(settings, at_work_max, self.clock, self.refused.append)
        for _ in range(500):  # the running mean has forgotten that it began with nothing
            ticket = self.enter("first")
            self.clock.advance_ms(WORK_MS)
            self.admission.small.leave(ticket)

    def enter(self, name: str, deadline_ms: float = 1_000) -> Ticket:
        """A request of so much patience comes."""
        deadline = Deadline.after(self.clock, deadline_ms)
        return self.admission.small.enter(deadline, lambda: self.woken.append(name))


def test_a_request_that_would_wait_beyond_its_deadline_is_refused_at_once() -> None:
    """The wait is the queue times the running mean; whoever has less time is told so, and counted."""
    door = Door()
    door.enter("at work")

    with pytest.raises(Overloaded, match="overloaded") as raised:
        door.enter("impatient", deadline_ms=WORK_MS - 1)
    patient = door.enter("patient", deadline_ms=WORK_MS + 1)

    assert "hint" in str(raised.value)
    assert ["small"] == door.refused
    assert patient.begun_ns is None


def test_the_queue_is_short_however_patient_the_callers_are() -> None:
    """Sixteen milliseconds of work may wait where twenty are allowed, and nothing more."""
    door = Door(wait_ms_max=20)
    door.enter("at work")
    for name in ("one", "two"):
        door.enter(name, deadline_ms=10_000)

    with pytest.raises(Overloaded):
        door.enter("three", deadline_ms=10_000)
    assert door.admission.small.is_full()


def test_the_queue_has_an_end_also_before_anything_was_measured() -> None:
    """A new server has no mean yet, and a bound on its memory all the same."""
    clock = ManualClock()
    admission = Admission(AdmissionSettings(), 1, clock, lambda _full: None)
    for _ in range(1 + WAITING_MAX):
        admission.small.enter(Deadline(clock), lambda: None)

    with pytest.raises(Overloaded):
        admission.small.enter(Deadline(clock), lambda: None)


def test_what_has_expired_in_the_queue_takes_nobodys_turn() -> None:
    """The next one begins, and the expired one is told that its time is over."""
    door = Door(wait_ms_max=100)
    working = door.enter("at work")
    expired = door.enter("expired", deadline_ms=WORK_MS + 1)
    patient = door.enter("patient", deadline_ms=1_000)
    door.clock.advance_ms(WORK_MS + 2)

    door.admission.small.leave(working)

    assert ["expired", "patient"] == door.woken
    assert (expired.is_expired, expired.begun_ns) == (True, None)
    assert patient.begun_ns is not None


def test_whoever_gives_up_waiting_leaves_the_queue() -> None:
    """A caller that hung up is not worked for."""
    door = Door(wait_ms_max=100)
    working = door.enter("at work")
    door.admission.small.leave(door.enter("gone"))

    door.admission.small.leave(working)

    assert [] == door.woken
    assert 0 == door.admission.small.count_waiting()


def test_a_slow_store_refuses_nobody_while_there_is_room() -> None:
    """The mean may be far beyond every deadline; it is measured anew only if somebody is let in."""
    door = Door(at_work_max=1)
    ticket = door.enter("slow")
    door.clock.advance_ms(1_000_000)
    door.admission.small.leave(ticket)

    assert door.enter("next", deadline_ms=5).begun_ns is not None


def test_a_visit_whose_time_is_over_ends_with_its_deadline() -> None:
    """The error that callers know from a server which gave their request up."""
    door = Door(wait_ms_max=100)
    working = door.enter("at work")
    visit = Visit(door.admission, Deadline.after(door.clock, WORK_MS + 1))
    assert not visit.enter(lambda: door.woken.append("visit"))
    door.clock.advance_ms(WORK_MS + 2)
    door.admission.small.leave(working)

    with pytest.raises(DeadlineSpent):
        visit.require_turn()
    visit.end()
    assert door.enter("next").begun_ns is not None


def test_a_large_request_leaves_its_turn_to_the_small_ones() -> None:
    """Going on among the large ones frees the place among the small ones, and two of them wait for each other."""
    door = Door(at_work_max=1)
    first, second = (Visit(door.admission, Deadline.after(door.clock, 1_000)) for _ in range(2))
    assert first.enter(lambda: None)
    assert first.enter(lambda: None, is_large=True)
    assert second.enter(lambda: None)
    assert not second.enter(lambda: door.woken.append("second"), is_large=True)
    assert door.enter("small").begun_ns is not None

    first.end()

    assert ["second"] == door.woken
