"""What the steps of a schedule do to a world; each draws what it needs from its own seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from featurestore.errors import CorruptData, InternalError, InvalidRequest, Unavailable, WriterStopped
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.write import bootstrap
from featurestore.testing.simulation.losses import evict, lose_key, lose_record, spoil
from featurestore.testing.simulation.process import LANES, PROJECT
from featurestore.testing.simulation.schedule import Step
from featurestore.testing.simulation.stand_ins.client import FAULTS
from featurestore.testing.simulation.stand_ins.store import Stored
from featurestore.testing.simulation.world import COPIES_MAX, RECORDS_TAG, World
from featurestore.wire.store_layout import lane_tag

Action = Callable[[World, random.Random], None]


def take_step(world: World, step: Step) -> None:
    """Let a step happen, and look at everything afterwards."""
    draw = random.Random(step.seed)
    world.counts[f"step {step.name}"] += 1
    try:
        ACTIONS[step.name](world, draw)
    except InternalError:
        raise
    except (CorruptData, InvalidRequest, Unavailable, WriterStopped) as error:
        world.counts[f"step refused: {type(error).__name__}"] += 1
    world.judge()
    world.check(draw)


def _produce(world: World, draw: random.Random) -> None:
    world.producer.send(draw, world.clock.now_ms(), draw.randint(1, 8))


def _read(world: World, draw: random.Random) -> None:
    world.supervise()
    for _ in range(draw.randint(1, 4)):
        draw.choice(world.processes).read(draw)


def _commit(world: World, draw: random.Random) -> None:
    world.clock.advance_ms(draw.choice((0, 20, 600)))
    for process in draw.sample(world.processes, k=len(world.processes)):
        if process.is_running:
            process.commit()
            world.check(draw)


def _pump(world: World, draw: random.Random) -> None:
    world.supervise()
    process = draw.choice(world.processes)
    for _ in range(draw.randint(1, 3)):
        if process.is_running:
            process.read_all()
            process.commit()
            world.clock.advance_ms(600)


def _watch(world: World, draw: random.Random) -> None:
    world.supervise()
    world.clock.advance_ms(1_000)
    for client in world.clients:
        client.disarm()
    for process in world.processes:
        process.watch()
        if process.is_running:
            process.commit()


def _pass_time(world: World, draw: random.Random) -> None:
    world.clock.advance_ms(draw.choice((1, 999, 5_000, 31_000, 61_000)))


def _pass_long(world: World, draw: random.Random) -> None:
    world.clock.advance_ms(draw.choice((130_000, 400_000, 700_000)))


def _fault(world: World, draw: random.Random) -> None:
    draw.choice(world.clients[-3:]).arm(draw.choice(FAULTS), draw.choice((1, 1, 2, 12)), draw.randrange(1 << 30))


def _deliver(world: World, draw: random.Random) -> None:
    for client in world.clients:
        client.deliver()


def _jump_clock(world: World, draw: random.Random) -> None:
    world.skewed.skew_ms += draw.choice((2_000, -2_000, 30_000, -30_000, 3_600_000, -3_600_000))
    world.counts["clock jumped"] += 1


def _crash(world: World, draw: random.Random) -> None:
    world.crash()


def _stop(world: World, draw: random.Random) -> None:
    world.supervise()
    world.process.stop()


def _second_writer(world: World, draw: random.Random) -> None:
    if len(world.processes) < 3:
        world.start()
        world.counts["second writer"] += 1


def _copy(world: World, draw: random.Random) -> None:
    world.copies = [*world.copies[-COPIES_MAX + 1 :], world.copy()]


def _restore(world: World, draw: random.Random) -> None:
    world.restore(draw)


def _restore_node(world: World, draw: random.Random) -> None:
    """Some of the lanes, or what belongs to none."""
    tag = draw.choice([*(lane_tag(PROJECT, lane).encode() for lane in range(LANES)), RECORDS_TAG])
    world.restore(draw, tag)


def _restore_idle(world: World, draw: random.Random) -> None:
    """While nothing arrives: a stream that goes on notices within two seconds, whatever its clock says."""
    world.supervise()
    world.clock.advance_ms(1_000)
    world.process.watch()  # what was handed over or rolled back meanwhile is fed from now on
    world.supervise()
    world.process.commit()
    before = _checkpoints(world)
    world.restore(draw)
    changed = {key for key, stored in before.items() if _checkpoints(world).get(key) != stored}
    if not world.process.is_running or len(world.processes) > 1:
        return
    for client in world.clients:
        client.disarm()
    for _ in range(2):
        world.clock.advance_ms(1_001)
        if world.process.is_running:
            world.process.commit()
            world.process.commit()
    if changed and world.process.is_running:
        raise AssertionError(f"the stream did not notice, while idle, that the store went back: {sorted(changed)}")
    if changed:
        world.counts["rollback noticed while idle"] += 1


def _restore_in_outage(world: World, draw: random.Random) -> None:
    """The store is away, and an older copy when it is back; meanwhile the stream has read on."""
    world.supervise()
    process = world.process
    _copy(world, draw)
    for _ in range(2):
        _produce(world, draw)
        process.read_all()
        if process.is_running:
            process.commit()
    _produce(world, draw)
    process.read_all()
    world.client.arm("rolled back", draw.choice((1, 1, 2)), draw.randrange(1 << 30))
    if process.is_running:
        process.commit()
        process.commit()


def _checkpoints(world: World) -> dict[bytes, Stored]:
    """Checkpoints of the generations that are fed."""
    fed = [one for each in world.catalog.all().values() for one in each if one.state.is_fed]
    keys = {one.keys.checkpoint(lane) for one in fed for lane in range(LANES)}
    return {key: stored for key, stored in world.store.contents().items() if key in keys}


def _letters_short(world: World, draw: random.Random) -> None:
    world.disk.fill(draw.choice((1, 2, 2, 9)))
    world.counts["disk of the letters full"] += 1


def _add_partition(world: World, draw: random.Random) -> None:
    if world.log.count < 4:
        world.log.add_partition()
        world.clock.advance_ms(31_000)
        world.counts["partition added"] += 1


def _truncate(world: World, draw: random.Random) -> None:
    number = draw.randrange(world.log.count)
    partition = world.log.at(number)
    world.log.truncate(number, draw.randint(partition.oldest, partition.end))
    world.counts["log truncated"] += 1


def _make_anew(world: World, draw: random.Random) -> None:
    world.log.make_anew(draw.randint(1, 2))
    world.counts["topic made anew"] += 1


def _define(world: World, draw: random.Random) -> None:
    """Another definition of a view is applied; the stream is started with it."""
    name = draw.choice(list(world.definitions))
    world.views[name] = draw.choice(world.definitions[name])
    world.crash()


def _roll_back(world: World, draw: random.Random) -> None:
    """Back to what served before; half of the times a definition was promoted just now."""
    name = draw.choice(list(world.definitions))
    if draw.random() < 0.5:
        world.views[name] = draw.choice([one for one in world.definitions[name] if one != world.views[name]])
        world.processes.clear()
        world.catch_up()
    groups = [group for group in world.catalog.all() if group not in world.definitions]
    world.catalog.roll_back(draw.choice([name, *groups]) if groups else name)
    world.counts["generation rolled back"] += 1


def _bootstrap(world: World, draw: random.Random) -> None:
    """All of it at once, while events go on to come."""
    generation = world.begin_bootstrap(draw.choice(list(world.views)), is_anew=True)
    world.fill(generation, world.new_client(), dict.fromkeys(range(world.log.count), 1 << 40))
    _produce(world, draw)
    bootstrap.hand_over(world.store, generation, LANES)
    world.counts["generation handed over"] += 1
    _produce(world, draw)


def _begin_bootstrap(world: World, draw: random.Random) -> None:
    name = draw.choice(list(world.views))
    world.begun.append(world.begin_bootstrap(name, is_anew=draw.random() < 0.5))


def _fill_bootstrap(world: World, draw: random.Random) -> None:
    """A run of a bootstrap, which may fail midway; another may have been begun, or this one handed over."""
    begun = [one for one in world.begun if one.state is GenerationState.BOOTSTRAPPING]
    if not begun:
        return
    client = world.new_client()
    if draw.random() < 0.4:
        client.arm(draw.choice(("lost", "unacknowledged", "twice")), draw.randint(1, 4), draw.randrange(1 << 30))
    ends = {number: draw.randint(0, world.log.at(number).end) for number in range(world.log.count)}
    world.fill(draw.choice(begun), client, ends if draw.random() < 0.3 else dict.fromkeys(ends, 1 << 40))
    world.counts["bootstrap filled"] += 1


def _hand_over(world: World, draw: random.Random) -> None:
    if world.begun:
        bootstrap.hand_over(world.store, world.begun.pop(draw.randrange(len(world.begun))), LANES)
        world.counts["generation handed over"] += 1


def _drop(world: World, draw: random.Random) -> None:
    """An operator drops what is retired, when readers have long looked elsewhere."""
    retired = _of_state(world, GenerationState.RETIRED)
    if retired:
        world.auditor.look()
        dropped = draw.choice(retired)
        world.catalog.drop(dropped)
        for lane in range(LANES):
            world.auditor.lost_checkpoints.pop(dropped.keys.checkpoint(lane), None)
        world.counts["generation dropped"] += 1


def _of_state(world: World, state: GenerationState) -> list[Generation]:
    """Generations of all views that are in a state."""
    return [one for each in world.catalog.all().values() for one in each if one.state is state]


ACTIONS: Mapping[str, Action] = {
    "produce": _produce,
    "read": _read,
    "commit": _commit,
    "pump": _pump,
    "watch": _watch,
    "pass_time": _pass_time,
    "pass_long": _pass_long,
    "fault": _fault,
    "deliver": _deliver,
    "jump_clock": _jump_clock,
    "crash": _crash,
    "stop": _stop,
    "second_writer": _second_writer,
    "copy": _copy,
    "restore": _restore,
    "restore_node": _restore_node,
    "restore_idle": _restore_idle,
    "restore_in_outage": _restore_in_outage,
    "lose_key": lose_key,
    "lose_record": lose_record,
    "spoil": spoil,
    "evict": evict,
    "letters_short": _letters_short,
    "add_partition": _add_partition,
    "truncate": _truncate,
    "make_anew": _make_anew,
    "define": _define,
    "roll_back": _roll_back,
    "bootstrap": _bootstrap,
    "begin_bootstrap": _begin_bootstrap,
    "fill_bootstrap": _fill_bootstrap,
    "hand_over": _hand_over,
    "drop": _drop,
}
"""What each step does."""
