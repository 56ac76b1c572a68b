"""Who shares what is remembered of a partition, and from where it is read again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dataflows.plan.recalls import recalls_of
from dataflows.plan.tile_store import OnlineTileStore
from featurestore.core.events import ColumnValues, Horizon, KeyedBatch
from featurestore.core.inputs import view_inputs
from featurestore.core.spec import ViewSpec
from featurestore.testing.clock import ManualClock
from featurestore.testing.simulation.stand_ins.log import LogConnection, SimulatedLog
from featurestore.testing.simulation.stand_ins.store import SimulatedStore
from featurestore.wire.changes.versions import Recall
from tests.dataflows.log_to_tiles.test_replacements import FIRST
from tests.wire.changed_table import BEGIN_MS, TOPIC

NEWEST_MS = BEGIN_MS + 5


def nothing_until(view: ViewSpec, offset: int, horizon: Horizon) -> KeyedBatch:
    """A read of partition 0 without an event of the view."""
    none = np.empty(0, dtype=np.int64)
    columns = {one.name: ColumnValues(none) for one in view_inputs(view).event_columns}
    ids = np.empty(0, dtype=np.object_)
    return KeyedBatch(view.name, TOPIC, 0, 0, offset, none, none, ids, (), none, none, columns, horizon)


def test_one_that_began_behind_what_is_held_remembers_for_itself() -> None:
    """The others share a memory from the first offset that one of them needs, if the log still has that."""
    clock = ManualClock(now_ms=BEGIN_MS)
    store = OnlineTileStore(SimulatedStore(clock.now_ms), "tests", clock)
    known: dict[str, tuple[int, Horizon] | None] = {
        "a": (30, Horizon(10, NEWEST_MS, is_whole=True)),
        "b": (20, Horizon(8, BEGIN_MS, NEWEST_MS - 1, is_whole=True)),
        "late": (30, late := Horizon(15, NEWEST_MS)),
        "new": None,
    }
    store.register([replace(FIRST, name=name) for name in known])
    generations = store.generations()
    for one in generations:
        if (found := known[one.view.name]) is not None:
            store.lane_positions(one)
            writer = store.writer(one, range(store.lane_count), {})
            writer.open()
            writer.write([nothing_until(one.view, *found)])
            writer.close()
    lanes = {(one.view.name, one.number): store.lane_positions(one) for one in generations}
    log, place = SimulatedLog(TOPIC, 1), (TOPIC, 0)
    log.abort(0, 40)
    recalls = recalls_of(store, generations, lanes, LogConnection(log))
    log.truncate(0, 9)
    lost = recalls_of(store, generations, lanes, LogConnection(log))

    of = {one.view.name: recalls.of_generation(one) for one in generations}
    shared = Recall(Horizon(8, NEWEST_MS, NEWEST_MS - 1, is_whole=True), 20, 30)
    assert {
        "a": {place: shared},
        "b": {place: shared},
        "late": {place: Recall(late, 30, 30)},
        "new": {},
    } == of
    assert 3 == len({recalls.memory_of(one) for one in generations})
    assert ({place: 8}, {}) == (recalls.begins, lost.begins)
    assert recalls.of == lost.of
