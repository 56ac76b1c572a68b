"""Schedules: what happens, in which order. Drawn from a seed, and made smaller while they still fail.

A step is a name and a seed of its own, from which it draws whatever else it needs. So a step does nearly the same when
others before it are left out, which is what makes shrinking work.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

STEPS: Mapping[str, int] = {
    "produce": 30,
    "read": 18,
    "commit": 18,
    "pump": 12,
    "watch": 8,
    "pass_time": 8,
    "pass_long": 2,
    "fault": 9,
    "deliver": 4,
    "jump_clock": 3,
    "crash": 4,
    "stop": 2,
    "second_writer": 3,
    "copy": 5,
    "restore": 3,
    "restore_node": 2,
    "restore_idle": 2,
    "restore_in_outage": 3,
    "lose_key": 4,
    "lose_record": 1,
    "spoil": 5,
    "evict": 2,
    "letters_short": 2,
    "add_partition": 1,
    "truncate": 1,
    "make_anew": 1,
    "define": 4,
    "roll_back": 2,
    "bootstrap": 3,
    "begin_bootstrap": 2,
    "fill_bootstrap": 3,
    "hand_over": 2,
    "drop": 2,
}
"""Steps and how often each is drawn: so many times in the sum of all."""

CALM = ("produce", "pump", "pump", "watch", "pass_time")
"""What every schedule begins with, so that something is there to be broken."""


class Step(NamedTuple):
    """Something that happens."""

    name: str
    seed: int


Schedule = tuple[Step, ...]


def draw_schedule(seed: int, length: int) -> Schedule:
    """The schedule of a seed."""
    draw = random.Random(seed)
    names = draw.choices(list(STEPS), weights=list(STEPS.values()), k=length)
    return tuple(Step(name, draw.randrange(1 << 32)) for name in (*CALM, *names))


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """A smaller schedule that still fails: runs of steps are left out, shorter and shorter ones.

    Args:
        schedule: one that fails.
        fails: tries another one.

    >>> steps = tuple(Step("produce", number) for number in range(9))
    >>> [step.seed for step in shrink(steps, lambda found: {2, 7} <= {step.seed for step in found})]
    [2, 7]
    """
    size = max(1, len(schedule) // 2)
    while True:
        smaller = _without_runs(schedule, size, fails)
        if size == 1 and len(smaller) == len(schedule):
            return smaller
        schedule, size = smaller, max(1, size // 2)


def _without_runs(schedule: Schedule, size: int, fails: Callable[[Schedule], bool]) -> Schedule:
    """Without every run of `size` steps that the failure does not need."""
    at = 0
    while at < len(schedule):
        candidate = schedule[:at] + schedule[at + size :]
        if candidate and fails(candidate):
            schedule = candidate
        else:
            at += size
    return schedule


def as_text(schedule: Sequence[Step]) -> str:
    """A schedule to be read, and to be run again."""
    return " ".join(f"{name}:{seed}" for name, seed in schedule)


def from_text(text: str) -> Schedule:
    """What `as_text` wrote.

    >>> from_text("produce:1 pump:2")
    (Step(name='produce', seed=1), Step(name='pump', seed=2))
    """
    pairs = (word.partition(":") for word in text.split())
    return tuple(Step(name, int(seed)) for name, _, seed in pairs)
