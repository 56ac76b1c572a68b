"""The manual clock."""

from __future__ import annotations

from featurestore.clock import Clock
from featurestore.testing.clock import ManualClock


def test_a_correction_of_the_wall_clock_leaves_the_monotonic_clock_alone() -> None:
    """Sleeping moves both clocks; setting the wall clock back moves one."""
    manual = ManualClock(now_ms=1_000)
    clock: Clock = manual

    clock.sleep(1.5)
    manual.advance_ms(10)
    manual.set_now_ms(400)

    assert clock.now_ms() == 400
    assert clock.monotonic_ns() == 1_510_000_000
