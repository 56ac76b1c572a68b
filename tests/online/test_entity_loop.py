"""The one loop of an entity gives what the loops that stand behind it give, to the bit, or leaves it to them."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.lowering.lowering import Lowering
from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.tiles.ranges import Gathered
from featurestore.core.view import CompiledView
from featurestore.errors import AsOfTooOld, CorruptData
from featurestore.online.answer.entity_loop.kernel import MOVES_MAX
from featurestore.online.answer.entity_loop.loop import NOTHING, UNKNOWN, EntityLoop
from featurestore.online.answer.in_flight.reader import EventReader
from featurestore.online.answer.selection import Asked, EventsInFlight, Selection
from featurestore.testing.oracle.events import NaiveValue
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE, event_streams, read_times, view_specs
from featurestore.wire.codecs.pack import member_of
from featurestore.wire.moments import are_moments
from tests.online.test_in_flight import lifted
from tests.online.test_storage_groups import companions, selected, stored
from tests.wire.codecs.test_packs import KEYS, stored_pack

REFUSED = "refused"

KNOWN = (
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "stddev_samp",
    "var_pop",
    "skew",
    "kurtosis",
    "first",
    "last",
    "ewma_mean(15m)",
    "time_since_last",
)
"""Functions that the loop can gather."""

FEATURES = (
    FeatureSpec("count", "count", None, Window(DAY_MS, 1_000), ValueType.INT64),
    FeatureSpec("mean", "mean", "amount", Window(30 * DAY_MS, DAY_MS), ValueType.FLOAT64),
    FeatureSpec("spread", "stddev_samp", "amount", Window(DAY_MS, 60_000), ValueType.FLOAT64),
    FeatureSpec("last", "last", "market", Window(DAY_MS, 60_000), ValueType.STRING),
)


class Reading:
    """Some features of a view, read in both ways."""

    def __init__(self, view: ViewSpec, outputs: Sequence[int]) -> None:
        self.selection = Selection(CompiledView(view), [Asked(view, outputs)])
        self.lowering = Lowering([self.selection.lowered])
        [lifting] = EventReader(view.source, {0: self.selection}, {}).liftings.values()
        [merges], [in_flight] = self.lowering.merges, self.lowering.merges_in_flight
        self.loop = EntityLoop.of(self.selection, merges, in_flight, lifting)

    def at_once(
        self, body: bytes | None, head: bytes | None, as_of_ms: int, event: EventsInFlight | None = None
    ) -> tuple[object, ...]:
        """By the one loop: the newest event's time, and every slot."""
        assert self.loop is not None
        out = self._gathered()
        newest_ms = self.loop.gather(body, head, as_of_ms, out, 1, event.rows[0] if event else b"")
        return (newest_ms, *_slots(out))

    def step_by_step(
        self, body: bytes | None, head: bytes | None, as_of_ms: int, event: EventsInFlight | None = None
    ) -> tuple[object, ...] | str:
        """By the loops one after another; REFUSED where they refuse."""
        out = self._gathered()
        try:
            if event is not None:
                table, found = self.selection.decode_in_flight(body, head, event, 0)
                self.lowering.gather_in_flight(0, table, found.bounds, out, 1)
                newest_ms = found.newest_event_time_ms
                return (NOTHING if newest_ms is None else newest_ms, *_slots(out))
            table = self.selection.decode(body, head)
            reach = self.selection.reach(table, as_of_ms)
        except (AsOfTooOld, CorruptData):
            return REFUSED
        if reach is None:
            return (NOTHING, *_slots(out))
        self.lowering.gather(0, table, reach.bounds, out, 1)
        return (reach.newest_event_time_ms, *_slots(out))

    def _gathered(self) -> Gathered:
        """Room for two rows, the same each time."""
        out = self.lowering.gathered(2)
        out.ints[:], out.floats[:], out.objects[:] = 7, 7.5, None
        return out


def _slots(out: Gathered) -> tuple[object, ...]:
    return (out.ints.tobytes(), out.floats.tobytes(), out.objects.tolist())


def _damaged(data: bytes, chance: random.Random) -> bytes:
    """Some byte another one, or some end cut off."""
    at = chance.randrange(len(data))
    if chance.random() < 0.3:
        return data[:at]
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def _agree(
    reading: Reading, body: bytes | None, head: bytes | None, as_of_ms: int, event: EventsInFlight | None
) -> None:
    """Both ways say the same; what the one loop leaves to the others, it leaves as it was."""
    for brought in (None, event) if event else (None,):
        at_once = reading.at_once(body, head, as_of_ms, brought)
        if at_once[0] == UNKNOWN:
            assert at_once[1:] == _slots(reading._gathered())
        else:
            assert at_once == reading.step_by_step(body, head, as_of_ms, brought)


views = st.one_of(view_specs(functions=KNOWN), companions().map(lambda views: views[0]))


@given(view=views, data=st.data())
def test_one_call_gathers_what_the_loops_one_by_one_do(view: ViewSpec, data: st.DataObject) -> None:
    """Whatever is compacted, late, damaged, asked or in flight."""
    answers = len(view.features) + len(view.derived)
    outputs = data.draw(st.lists(st.integers(0, answers - 1), min_size=1, max_size=answers, unique=True))
    reading = Reading(view, outputs)
    if reading.loop is None:
        return
    events = data.draw(event_streams(view))
    split, chance = data.draw(st.integers(0, len(events))), data.draw(st.randoms(use_true_random=False))
    key = events[0].key if events else b""
    mine = [event for event in events if event.key == key]
    early = {event.event_id for event in events[:split]}
    old, new = ([one for one in mine if (one.event_id in early) is is_early] for is_early in (True, False))
    body, head = stored(view, old, new)
    kinds = [(body, head)]
    if body:
        kinds += [(_damaged(body, chance), head), (body, None)]
    if head:
        kinds += [(body, _damaged(head, chance)), (None, head)]
    for kind in kinds:
        for as_of_ms in data.draw(read_times(view, mine)):
            _agree(reading, *kind, as_of_ms, _in_flight(reading, view, events, as_of_ms, data))


def _in_flight(
    reading: Reading, view: ViewSpec, events: Sequence[NaiveEvent], as_of_ms: int, data: st.DataObject
) -> EventsInFlight | None:
    """An event like one of these, at the read time; None where there is none that a request could bring."""
    if not events or not are_moments(np.array([as_of_ms]))[0]:
        return None
    return lifted(reading.selection, view, replace(data.draw(st.sampled_from(events)), event_time_ms=as_of_ms))


@given(view=views, data=st.data())
def test_one_call_gathers_members_of_packs(view: ViewSpec, data: st.DataObject) -> None:
    """Whichever events are whose, in the body or in the head; also of a pack that is damaged."""
    compiled, reading = CompiledView(view), Reading(view, range(len(view.features)))
    if reading.loop is None:
        return
    events = selected(view, data.draw(event_streams(view)))
    owners = data.draw(st.lists(st.integers(0, 2), min_size=len(events), max_size=len(events)))
    body, head = stored_pack(compiled, events, owners, data.draw(st.integers(0, len(events))))
    chance = data.draw(st.randoms(use_true_random=False))
    for number, key in enumerate(KEYS):
        members = [member_of(key, body, head), member_of(key, body, None), member_of(key, None, head)]
        members.append(_damaged(members[0], chance))
        mine = [event for event, owner in zip(events, owners, strict=True) if owner == number]
        for as_of_ms in data.draw(read_times(view, mine)):
            event = _in_flight(reading, view, events, as_of_ms, data)
            for member in members:
                _agree(reading, member, None, as_of_ms, event)
            if reading.step_by_step(members[0], None, as_of_ms) != REFUSED:
                assert reading.at_once(members[0], None, as_of_ms)[0] != UNKNOWN


@pytest.mark.parametrize("count", [1, 40, 3_000])
@pytest.mark.parametrize("is_first_late", [False, True])
def test_the_loop_leaves_little_to_the_others(count: int, is_first_late: bool) -> None:
    """Entities of more tiles than there is room for at first, with a late event: just that of thousands is not its."""
    view = ViewSpec("v", (), SOURCE, FEATURES, 40 * DAY_MS)
    reading = Reading(view, range(len(FEATURES)))
    times = [ANCHOR_MS + 1_000 * number for number in range(count)]
    order = [*times[1:], times[0]] if is_first_late else times
    events = []
    for number, time in enumerate(order):
        columns: dict[str, NaiveValue | None] = {"amount": number % 90, "market": f"M{number % 7}"}
        events.append(NaiveEvent(b"k", time, b"%d" % number, columns))
    for split in {0, count // 2, count}:
        body, head = stored(view, events[:split], events[split:])
        at_once = reading.at_once(body, head, times[-1] + 1)

        if is_first_late and count - split > MOVES_MAX:
            assert at_once[0] == UNKNOWN
        else:
            assert at_once[0] != UNKNOWN
            assert at_once == reading.step_by_step(body, head, times[-1] + 1)
