"""What some features read of what is stored: just the parts that they need, and their windows.

stored      a view, or a storage group of several: all parts, all windows
asked       card_activity: count_1h, mean_1d      card_declines: count_10m
selection   the parts and windows of those three, as a view of its own; derived features by each view's names
answers     count_1h, mean_1d, count_10m, and the time of the newest event of each view that has one of its own

A payment in flight is lifted into the same parts, of just the columns that they need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from featurestore.core.events import BoolArray, ColumnValues
from featurestore.core.inputs import ViewInputs, flag_name
from featurestore.core.lowering.derived import CompiledDerivedFeature, derived_feature
from featurestore.core.lowering.lowering import Lowering
from featurestore.core.lowering.view_input import LoweredView
from featurestore.core.spec import FeatureSpec, SourceSpec, ViewSpec
from featurestore.core.tiles.ranges import Gathered
from featurestore.core.tiles.tiles import TileTable
from featurestore.core.view import CompiledView, Reach, ReachInFlight, ViewAnswer
from featurestore.definitions.compile.storage_groups import presence_feature, stored_feature
from featurestore.wire.codecs.body import EntityCodec, EventLifting


@dataclass(frozen=True, slots=True)
class Asked:
    """Some features of a view.

    Attributes:
        view: the view, as it is stored or as a member of a group.
        outputs: indices among the view's answers.
    """

    view: ViewSpec
    outputs: Sequence[int]


class EventsInFlight:
    """N payments in flight, as a part of a service sees them.

    Args:
        rows: the payments as rows of `lifting`.
        lifting: makes tiles of them.
        is_event: (N,) whether it is an event of what is stored; None where all are.
        is_of_view: for each view that is asked, (N,) whether it is an event of that; None likewise.
    """

    def __init__(
        self,
        rows: Sequence[bytes],
        lifting: EventLifting,
        is_event: BoolArray | None,
        is_of_view: tuple[BoolArray | None, ...],
    ) -> None:
        self.rows = rows
        self._lifting = lifting
        self.is_event = is_event
        self.is_of_view = is_of_view

    @cached_property
    def tiles(self) -> TileTable:
        """A tile for each; the one compiled call makes its own."""
        return self._lifting.lift(self.rows)


class Selection:
    """Reads some features of views that are stored together.

    Args:
        stored: what is stored.
        asked: the features, view by view.

    Attributes:
        compiled: the parts and windows that are asked, as a view of their own.
        codec: reads entities of just those parts.
        lowered: the features that are asked, in the given order, then those that `presences` counts on to.
        presences: for each view, the index among the lowered features of its newest event's time, null where the
            view has no event of the entity; None where any event of what is stored is one of the view.
    """

    def __init__(self, stored: CompiledView, asked: Sequence[Asked]) -> None:
        numbers: dict[FeatureSpec, int] = {}

        def number_of(feature: FeatureSpec) -> int:
            return numbers.setdefault(feature, len(numbers))

        outputs: list[int | str] = []
        derived: list[CompiledDerivedFeature] = []
        for one in asked:
            view, windowed = one.view, len(one.view.features)
            for output in one.outputs:
                if output < windowed:
                    outputs.append(number_of(_read(stored.spec, view, view.features[output])))
                    continue
                computed = derived_feature(view.derived[output - windowed], view.features)
                reads = {
                    name: (number_of(_read(stored.spec, view, view.features[at])), value_type)
                    for name, (at, value_type) in computed.reads.items()
                }
                outputs.append(f"derived {len(derived)}")
                derived.append(replace(computed, reads=reads))
        presences = [presence_feature(stored.spec, one.view) for one in asked]
        self._presence_flags = [None if one is None or not one.where else flag_name(one.where) for one in presences]
        distinct = list(dict.fromkeys(one for one in presences if one is not None))
        at_end = {feature: len(outputs) + index for index, feature in enumerate(distinct)}
        outputs += [number_of(feature) for feature in distinct]
        self.presences = tuple(None if one is None else at_end[one] for one in presences)
        # The condition of a group is that of any member; a column that no asked view knows need not be sent.
        self._where = stored.spec.where if any(one.view.where == stored.spec.where for one in asked) else ""
        features = tuple(replace(feature, name=str(number)) for feature, number in numbers.items())
        self.compiled = CompiledView(replace(stored.spec, features=features, derived=(), members=()))
        self.codec = EntityCodec(stored, self.compiled.layout)
        whole = self.compiled.lowered
        places = {f"derived {index}": len(features) + index for index in range(len(derived))}
        self.lowered = LoweredView(
            whole.layout,
            whole.window_count,
            whole.features,
            derived,
            [places[output] if isinstance(output, str) else output for output in outputs],
        )

    def prepare(self) -> None:
        """Load whatever reading takes, before a payment waits for it."""
        self.codec.prepare()
        self.event_inputs.prepare()

    def decode(self, body: bytes | None, head: bytes | None) -> TileTable:
        """The tiles of an entity, of just the parts that are asked for.

        Raises:
            CorruptTile: see `wire.codecs.body.EntityCodec`.
        """
        return self.codec.decode(body, head)

    def reach(self, table: TileTable, as_of_ms: int) -> Reach | None:
        """Where the windows are; None when nothing that is stored is within its retention.

        Raises:
            AsOfTooOld: the tiles cannot tell a window's edge.
        """
        return self.compiled.reach(table, as_of_ms)

    @property
    def source(self) -> SourceSpec:
        """Where the events come from."""
        return self.compiled.spec.source

    @cached_property
    def event_inputs(self) -> ViewInputs:
        """What is read of a payment in flight; of its keys only those behind features and conditions."""
        return ViewInputs(replace(self.compiled.spec, where=self._where, join_keys=()))

    def which_are_events(
        self, columns: Mapping[str, ColumnValues], count: int
    ) -> tuple[BoolArray | None, tuple[BoolArray | None, ...]]:
        """Which of N payments in flight are events of what is stored, and of each view that is asked; None: all are.

        Args:
            columns: went through `event_inputs.compute`.
            count: N.
        """
        is_event = self.event_inputs.selected(columns, count)
        flags = [None if name is None else columns[name] for name in self._presence_flags]
        of_views = [None if flag is None else np.asarray(flag.values, dtype=np.bool_) for flag in flags]
        return is_event, tuple(
            is_event if mine is None else mine if is_event is None else mine & is_event for mine in of_views
        )

    def decode_in_flight(
        self, body: bytes | None, head: bytes | None, events: EventsInFlight, row: int
    ) -> tuple[TileTable, ReachInFlight]:
        """The tiles of an entity with one of the payments among them, and where the windows are at its time.

        Raises:
            AsOfTooOld, CorruptTile: as `reach` and `decode`.
        """
        table = self.codec.decode(body, head, events.tiles, row)
        return table, self.compiled.reach_in_flight(table, int(events.tiles.start_ms[row]))

    def answer(self, table: TileTable, as_of_ms: int) -> ViewAnswer:
        """Everything that is asked, of one entity at one read time; `found` and the newest event are the first view's.

        Raises:
            AsOfTooOld: see `reach`.
        """
        lowering, reach = self._alone, self.reach(table, as_of_ms)
        merged = lowering.gathered(1)
        if reach is None:
            lowering.gather_nothing(0, merged, 0)
        else:
            lowering.gather(0, table, reach.bounds, merged, 0)
        return self._lowered(merged, as_of_ms, None if reach is None else reach.newest_event_time_ms)

    def answer_in_flight(self, body: bytes | None, head: bytes | None, events: EventsInFlight, row: int) -> ViewAnswer:
        """As `answer`, of an entity with one of the payments, at its time.

        Raises:
            AsOfTooOld, CorruptTile: as `reach` and `decode`.
        """
        as_of_ms = int(events.tiles.start_ms[row])
        if events.is_event is not None and not events.is_event[row]:
            return self.answer(self.decode(body, head), as_of_ms)
        table, reach = self.decode_in_flight(body, head, events, row)
        merged = self._alone.gathered(1)
        self._alone.gather_in_flight(0, table, reach.bounds, merged, 0)
        answer = self._lowered(merged, as_of_ms, reach.newest_event_time_ms)
        is_of_view = events.is_of_view[0]
        return replace(answer, found=True) if is_of_view is None or is_of_view[row] else answer

    def _lowered(self, merged: Gathered, as_of_ms: int, newest_event_time_ms: int | None) -> ViewAnswer:
        """The answer of what was gathered; None: nothing that is stored is in reach."""
        lowering = self._alone
        lowered = lowering.lower(merged, np.array([as_of_ms], dtype=np.int64))
        newest_ms, presence = newest_event_time_ms or 0, self.presences[0]
        if presence is not None:
            newest_ms = int(lowered.ints[presence, 0])
        return ViewAnswer(
            lowered.ints[:, 0],
            lowered.floats[:, 0],
            {feature: values[0] for feature, values in lowered.objects.items() if values[0] is not None},
            lowered.null[:, 0],
            newest_event_time_ms is not None if presence is None else not lowered.null[presence, 0],
            newest_ms,
        )

    @cached_property
    def _alone(self) -> Lowering:
        """Lowers what is asked, and nothing beside it."""
        return Lowering([self.lowered])


def _read(stored: ViewSpec, view: ViewSpec, feature: FeatureSpec) -> FeatureSpec:
    """A feature of what is stored as a view reads it."""
    return replace(stored_feature(stored, view, feature), in_flight=feature.in_flight)
