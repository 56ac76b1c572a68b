"""Runs schedules until one fails, and makes that one small."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from featurestore.testing.simulation.definitions import APART, TOGETHER, Definitions, expecting_entities
from featurestore.testing.simulation.process import LANES, StartStream
from featurestore.testing.simulation.rest import run_to_rest
from featurestore.testing.simulation.schedule import Schedule, as_text, draw_schedule, shrink
from featurestore.testing.simulation.steps import take_step
from featurestore.testing.simulation.world import a_world
from featurestore.wire.store_layout import ENTITIES_OF_PACK

STEPS_MAX = 60
KIND_CHARACTERS = 30
"""So much of a failure's beginning says what kind it is."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a schedule.

    Attributes:
        counts: how often what happened.
        failure: what is wrong; "" if nothing is.
        contents: everything that the store holds at the end, to compare runs.
    """

    counts: Counter[str]
    failure: str
    contents: object = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A schedule that fails.

    Attributes:
        seed: which.
        failure: what is wrong.
        schedule: the smallest that still fails.
        small_failure: what is wrong with that one.
    """

    seed: int
    failure: str
    schedule: Schedule
    small_failure: str

    def __str__(self) -> str:
        """To be read, and to be run again."""
        return (
            f"SEED={self.seed}\n{self.failure}\nsmallest schedule, {len(self.schedule)} steps: "
            f"{as_text(self.schedule)}\n{self.small_failure}"
        )


def schedule_of(seed: int) -> Schedule:
    """Of some length up to STEPS_MAX."""
    return draw_schedule(seed, random.Random(seed).randint(10, STEPS_MAX))


def definitions_of(seed: int) -> Definitions:
    """Views that are stored by themselves, or a storage group, in turns."""
    return TOGETHER if seed % 2 else APART


def packs_of(seed: int) -> int:
    """Generations without packs, or with one or two a lane, in turns of two."""
    return seed // 2 % 2


def run_schedule(
    schedule: Schedule, start_stream: StartStream, definitions: Definitions = APART, packs: int = 0
) -> Outcome:
    """Let a schedule happen in a new world, then let it come to rest.

    Args:
        schedule: what happens.
        start_stream: starts a stream process.
        definitions: of the views, to change between.
        packs: how many a lane has in the beginning; it may become twice as many.
    """
    if packs:
        definitions = expecting_entities(definitions, packs * ENTITIES_OF_PACK * LANES)
    with a_world(start_stream, definitions) as world:
        try:
            for step in schedule:
                take_step(world, step)
            run_to_rest(world)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what was looked for
            return Outcome(world.counts, f"{type(error).__name__}: {error}")
        return Outcome(world.counts, "", world.store.contents())


def find(seed: int, start_stream: StartStream) -> tuple[Counter[str], Finding | None]:
    """Run the schedule of a seed; what was found is made small."""
    schedule, definitions, packs = schedule_of(seed), definitions_of(seed), packs_of(seed)
    outcome = run_schedule(schedule, start_stream, definitions, packs)
    if not outcome.failure:
        return outcome.counts, None
    kind = outcome.failure[:KIND_CHARACTERS]

    def fails_alike(candidate: Schedule) -> bool:
        return run_schedule(candidate, start_stream, definitions, packs).failure.startswith(kind)

    smallest = shrink(schedule, fails_alike)
    small_failure = run_schedule(smallest, start_stream, definitions, packs).failure
    return outcome.counts, Finding(seed, outcome.failure, smallest, small_failure)
