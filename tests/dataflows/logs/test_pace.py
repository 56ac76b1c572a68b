"""What is behind leaves half of the time to what is live, and takes all of it when nothing live comes."""

from dataflows.logs.pace import LIVE_FOR_MS, REST_MS_MAX, Pace
from featurestore.testing.clock import ManualClock


def test_what_is_behind_rests_as_long_as_it_worked_while_live_events_come() -> None:
    """Once for each batch; the others of its stage wait with it."""
    clock = ManualClock()
    pace = Pace(clock)
    pace.live_was_read()
    pace.late_was_read()
    clock.advance_ms(40)

    assert 40 == pace.rest_ms()
    clock.advance_ms(15)
    assert 25 == pace.rest_ms()
    clock.advance_ms(25)
    assert 0 == pace.rest_ms()


def test_a_long_wait_is_not_paid_back_in_full() -> None:
    """A store that was away is no work of ours."""
    clock = ManualClock()
    pace = Pace(clock)
    pace.late_was_read()
    clock.advance_ms(60_000)
    pace.live_was_read()

    assert REST_MS_MAX == pace.rest_ms()


def test_without_live_events_nobody_rests() -> None:
    """Neither before the first, nor once none has come for a while."""
    clock = ManualClock()
    pace = Pace(clock)
    pace.late_was_read()
    clock.advance_ms(40)
    assert 0 == pace.rest_ms()

    pace.live_was_read()
    pace.late_was_read()
    clock.advance_ms(LIVE_FOR_MS)
    assert 0 == pace.rest_ms()
