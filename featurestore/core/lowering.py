"""From merged windows to answers: the plan that lowers all features of a view in a few numpy calls.

    merged ints    rows x windows    ─ one gather ─>  [ count | sum high | sum low | mean n | ... ]
                                                         └ each aggregation lowers its slices, in group order
    answers        ─ one gather ───>  in the order of the view's features

Features that share aggregation, kinds of fields and output type form a group and are lowered together, so the cost
follows the number of groups (a handful) and not of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import Aggregation
from featurestore.core.blocks import FieldPosition
from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.parts import Array, Storage
from featurestore.core.spec import FeatureSpec, ValueType
from featurestore.core.tiles import Accumulators


@dataclass(frozen=True, slots=True)
class LoweredFeatures:
    """Answers of F features, in their order; see `core.view.ViewAnswer`."""

    ints: Int64Array
    floats: Float64Array
    texts: dict[int, str]
    null: BoolArray


@dataclass(frozen=True, slots=True)
class FeatureFields:
    """A feature and where the fields that lower it are.

    Attributes:
        feature: what is asked.
        aggregation: how it is lowered.
        positions: its parts' fields.
        window: index of its window.
    """

    feature: FeatureSpec
    aggregation: Aggregation
    positions: tuple[FieldPosition, ...]
    window: int


@dataclass(frozen=True, slots=True)
class _Group:
    """Features that one call lowers.

    Attributes:
        aggregation: lowers them.
        inputs: for each field, its storage and its slice of what was gathered from there.
        outputs: slice of the answers in group order.
        type: type of the answers.
        features: indices of the features.
    """

    aggregation: Aggregation
    inputs: tuple[tuple[int, slice], ...]
    outputs: slice
    type: ValueType
    features: tuple[int, ...]


_STORAGES = (Storage.INT, Storage.FLOAT, Storage.BLOB)


class Lowering:
    """Lowers the features of one view.

    Args:
        features: in the view's order.
        window_count: number of windows that are merged.
    """

    def __init__(self, features: Sequence[FeatureFields], window_count: int) -> None:
        members: dict[tuple[str, tuple[Storage, ...], ValueType], list[int]] = {}
        for index, each in enumerate(features):
            storages = tuple(at.storage for at in each.positions)
            members.setdefault((each.aggregation.name, storages, each.feature.type), []).append(index)
        gathered: tuple[list[int], ...] = ([], [], [])
        groups, order = [], list[int]()
        for (_, storages, feature_type), indices in members.items():
            inputs = []
            for field, storage in enumerate(storages):
                positions = gathered[_STORAGES.index(storage)]
                begin = len(positions)
                positions += [
                    features[index].positions[field].row * window_count + features[index].window for index in indices
                ]
                inputs.append((_STORAGES.index(storage), slice(begin, len(positions))))
            outputs = slice(len(order), len(order) + len(indices))
            order += indices
            aggregation = features[indices[0]].aggregation
            groups.append(_Group(aggregation, tuple(inputs), outputs, feature_type, tuple(indices)))
        self._groups = tuple(groups)
        self._gathered = tuple(np.array(positions, dtype=np.int64) for positions in gathered)
        self._place = np.argsort(np.array(order, dtype=np.int64))
        self._count = len(features)

    def lower(self, merged: Accumulators) -> LoweredFeatures:
        """Answers from merged windows."""
        ints_at, floats_at, blobs_at = self._gathered
        sources: tuple[Array, Array, Array] = (
            merged.ints.take(ints_at),
            merged.floats.take(floats_at) if len(floats_at) else merged.floats,
            merged.blobs.take(blobs_at) if len(blobs_at) else merged.blobs,
        )
        ints = np.zeros(self._count, dtype=np.int64)
        floats = np.zeros(self._count, dtype=np.float64)
        null = np.zeros(self._count, dtype=np.bool_)
        texts: dict[int, str] = {}
        for group in self._groups:
            lowered = group.aggregation.lower([sources[storage][span] for storage, span in group.inputs])
            if lowered.null is not None:
                null[group.outputs] = lowered.null
            if group.type is ValueType.FLOAT64:
                floats[group.outputs] = lowered.values
            elif group.type is not ValueType.STRING:
                ints[group.outputs] = lowered.values
            else:
                gone = [False] * len(group.features) if lowered.null is None else lowered.null.tolist()
                texts.update(
                    (feature, value.decode())
                    for feature, value, is_gone in zip(group.features, lowered.values, gone, strict=True)
                    if not is_gone
                )
        if null.any():
            ints[null] = 0
            floats[null] = 0.0
        place = self._place
        return LoweredFeatures(ints.take(place), floats.take(place), texts, null.take(place))
