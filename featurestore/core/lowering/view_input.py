"""What lowering is told of a view: its features, where their fields are, and which of them are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from featurestore.core.aggregations.base import Aggregation
from featurestore.core.lowering.derived import CompiledDerivedFeature
from featurestore.core.lowering.series import ELEMENT_TYPES
from featurestore.core.spec import FeatureSpec
from featurestore.core.tiles.parts import Storage
from featurestore.core.tiles.tiles import PartPosition, TileLayout


@dataclass(frozen=True, slots=True)
class FeatureFields:
    """A feature and where the fields that lower it are.

    Attributes:
        feature: what is asked.
        aggregation: how it is lowered.
        parts: what it reads.
        windows: index of its window; of a series of each, oldest first.
    """

    feature: FeatureSpec
    aggregation: Aggregation
    parts: tuple[PartPosition, ...]
    windows: tuple[int, ...]

    @property
    def storages(self) -> tuple[Storage, ...]:
        """Storage of each field that is read, in the order in which `lower` takes them."""
        return tuple(
            at.storage
            for placed in self.parts
            for field, at in zip(placed.part.fields, placed.fields, strict=True)
            if field.is_read
        )

    @property
    def elements(self) -> tuple[FeatureFields, ...]:
        """The feature itself, or one for each window of its series."""
        if not self.feature.window.series:
            return (self,)
        element = replace(self.feature, type=ELEMENT_TYPES[self.feature.type])
        return tuple(FeatureFields(element, self.aggregation, self.parts, (window,)) for window in self.windows)


@dataclass(frozen=True, slots=True)
class LoweredView:
    """One view's share.

    Attributes:
        layout: of its tiles.
        window_count: number of its windows.
        features: its windowed features.
        derived: features computed from them.
        outputs: which of them to answer, in this order; derived features count on behind the windowed ones.
    """

    layout: TileLayout
    window_count: int
    features: Sequence[FeatureFields]
    derived: Sequence[CompiledDerivedFeature]
    outputs: Sequence[int]

    @staticmethod
    def of(
        layout: TileLayout,
        window_count: int,
        features: Sequence[FeatureFields],
        derived: Sequence[CompiledDerivedFeature],
    ) -> LoweredView:
        """A view that answers everything, in its own order."""
        return LoweredView(layout, window_count, features, derived, range(len(features) + len(derived)))

    def choose(self, outputs: Sequence[int]) -> LoweredView:
        """The same view answering some features; others are only lowered if a derived one reads them."""
        count = len(self.features)
        derived = sorted({at - count for at in outputs if at >= count})
        read = {at for index in derived for at, _ in self.derived[index].reads.values()}
        needed = sorted(read.union(at for at in outputs if at < count))
        new_at = {at: index for index, at in enumerate(needed)}
        moved = [
            replace(
                self.derived[at],
                reads={name: (new_at[old], kind) for name, (old, kind) in self.derived[at].reads.items()},
            )
            for at in derived
        ]
        new_at |= {count + at: len(needed) + index for index, at in enumerate(derived)}
        chosen = [self.features[at] for at in needed]
        return LoweredView(self.layout, self.window_count, chosen, moved, [new_at[at] for at in outputs])
