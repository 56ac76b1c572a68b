"""What some features read of what is stored: just the parts that they need, and their windows.

stored      a view, or a storage group of several: all parts, all windows
asked       card_activity: count_1h, mean_1d      card_declines: count_10m
selection   the parts and windows of those three, as a view of its own; derived features by each view's names
answers     count_1h, mean_1d, count_10m, and the time of the newest event of each view that has one of its own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from featurestore.core.lowering.derived import CompiledDerivedFeature, derived_feature
from featurestore.core.lowering.lowering import Lowering
from featurestore.core.lowering.view_input import LoweredView
from featurestore.core.spec import FeatureSpec, ViewSpec
from featurestore.core.tiles.tiles import TileTable
from featurestore.core.view import CompiledView, Reach, ViewAnswer
from featurestore.definitions.compile.storage_groups import presence_feature, stored_feature
from featurestore.wire.codecs.body import EntityCodec


@dataclass(frozen=True, slots=True)
class Asked:
    """Some features of a view.

    Attributes:
        view: the view, as it is stored or as a member of a group.
        outputs: indices among the view's answers.
    """

    view: ViewSpec
    outputs: Sequence[int]


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
                    outputs.append(number_of(stored_feature(stored.spec, view, view.features[output])))
                    continue
                computed = derived_feature(view.derived[output - windowed], view.features)
                reads = {
                    name: (number_of(stored_feature(stored.spec, view, view.features[at])), value_type)
                    for name, (at, value_type) in computed.reads.items()
                }
                outputs.append(f"derived {len(derived)}")
                derived.append(replace(computed, reads=reads))
        presences = [presence_feature(stored.spec, one.view) for one in asked]
        distinct = list(dict.fromkeys(one for one in presences if one is not None))
        at_end = {feature: len(outputs) + index for index, feature in enumerate(distinct)}
        outputs += [number_of(feature) for feature in distinct]
        self.presences = tuple(None if one is None else at_end[one] for one in presences)
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
        lowered = lowering.lower(merged, np.array([as_of_ms], dtype=np.int64))
        newest_ms, presence = 0 if reach is None else reach.newest_event_time_ms, self.presences[0]
        if presence is not None:
            newest_ms = int(lowered.ints[presence, 0])
        return ViewAnswer(
            lowered.ints[:, 0],
            lowered.floats[:, 0],
            {feature: values[0] for feature, values in lowered.objects.items() if values[0] is not None},
            lowered.null[:, 0],
            reach is not None if presence is None else not lowered.null[presence, 0],
            newest_ms,
        )

    @cached_property
    def _alone(self) -> Lowering:
        """Lowers what is asked, and nothing beside it."""
        return Lowering([self.lowered])
