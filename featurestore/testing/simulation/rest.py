"""How a world comes to rest: no more faults, and an operator who does what the stream says when it cannot go on."""

from __future__ import annotations

import random

from featurestore.errors import CorruptData, EventsLost, InvalidRequest, WriterFenced
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.registration import bootstrap_target
from featurestore.online.write import bootstrap
from featurestore.testing.simulation.audit.auditor import WrongAnswer
from featurestore.testing.simulation.process import LANES
from featurestore.testing.simulation.stand_ins.disk import payloads_in
from featurestore.testing.simulation.world import World


def run_to_rest(world: World) -> None:
    """No more faults: the stream catches up, and where it says that it cannot, an operator does what it says."""
    world.store.evicts = False
    world.disk.fill(0)
    for client in world.clients:
        client.disarm()
        client.deliver()
    world.skewed.skew_ms = 0
    world.processes[:-1] = []
    world.store.delete(world.store.unusable())
    finish_bootstraps(world)
    for help_with in (_bootstrap_all, _bootstrap_all, _promote_all, None):
        world.catch_up()
        world.auditor.look()
        wanting = world.wanting()
        if not wanting:
            break
        if help_with is None or not _needs_help(world):
            raise WrongAnswer(f"after all was quiet: {'; '.join(wanting)}")
        help_with(world)
    world.check(random.Random(0), is_everything=True)
    _check_letters(world)


def _needs_help(world: World) -> bool:
    """Whether the stream has said that the log lacks what it needs: of a generation that is parked, or that waits."""
    is_short = any(world.log.at(number).oldest for number in range(world.log.count))
    for known in world.catalog.all().values():
        states = {one.state for one in known}
        is_parked = GenerationState.ROLLED_BACK in states and GenerationState.SERVING not in states
        if is_parked or (is_short and GenerationState.FILLING in states):
            return True
    return isinstance(world.last_error, EventsLost)


def _bootstrap_all(world: World) -> None:
    """An operator computes every view from the event log."""
    world.counts["operator bootstrapped"] += 1
    targets = {}
    for name in world.views:
        target = bootstrap_target(world.catalog.all(), tuple(world.views.values()), name)
        assert target is not None, "the view is registered"
        targets[target.name] = target
    for target in targets.values():
        world.catalog.begin_bootstrap(target, is_anew=True)
    finish_bootstraps(world)


def finish_bootstraps(world: World) -> None:
    """An operator does not leave them undone."""
    for known in world.catalog.all().values():
        for generation in known:
            if generation.state is GenerationState.BOOTSTRAPPING:
                _bootstrap(world, generation)


def _bootstrap(world: World, generation: Generation) -> None:
    """Fill a generation and hand it over, or one that is begun anew in its place."""
    ends = {number: world.log.at(number).end for number in range(world.log.count)}
    while True:
        try:
            world.fill(generation, world.new_client(), ends)
            bootstrap.hand_over(world.store, generation, LANES)
        except (WriterFenced, CorruptData, InvalidRequest):
            # A record that was lost gave the number out again, whose lanes a stream has written; or one is spoilt; or
            # the topic was made anew.
            world.counts["bootstrap refused"] += 1
            generation = world.catalog.begin_bootstrap(generation.view, is_anew=True)
        else:
            return


def _promote_all(world: World) -> None:
    """An operator promotes by hand what was bootstrapped.

    A generation that serves, and cannot be brought up to date, ends the stream before what is to replace it has
    caught up.
    """
    world.counts["operator promoted by hand"] += 1
    for known in world.catalog.all().values():
        for generation in known:
            if generation.state is GenerationState.FILLING and generation.is_bootstrapped:
                world.catalog.promote(generation)


def _check_letters(world: World) -> None:
    """What nobody could use, and streams have passed, is in the files, each line whole."""
    kept = payloads_in(world.letters)
    for serving in world.auditor.served.views.values() if world.auditor.served else ():
        generation = serving.generation
        for place, partition in world.log.everything.items():
            begins = [
                world.auditor.begins.get((generation.keys.checkpoint(lane), place.number)) for lane in range(LANES)
            ]
            first = max((begin[1] for begin in begins if begin and begin[0] == place.incarnation), default=None)
            if first is None:
                continue
            boot = max((of.get(place, 0) for of in world.bootstrapped.values()), default=0)
            for record in partition.records:
                is_due = record.event is None and record.offset >= max(first, boot)
                if is_due and place.incarnation == world.log.incarnation and record.payload not in kept:
                    raise AssertionError(f"{place} {record.offset} was passed, and is not among the dead letters")
    world.counts["dead letters checked"] += 1
