"""Derived features: SQL over the answers of other features of the same view, evaluated whenever they are read.

They are computed behind lowering, for all rows of a request or training set at once, by the same code everywhere; a
service that asks for a derived feature alone still has the features it reads lowered, unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.events import BoolArray, ColumnValues, Float64Array, Int64Array
from featurestore.core.expressions import Expression, compile_expression
from featurestore.core.spec import ComputedColumn, FeatureSpec, ValueType


@dataclass(frozen=True, slots=True)
class CompiledDerivedFeature:
    """A derived feature of a view.

    Attributes:
        expression: what it is.
        reads: index, among the view's windowed features, and type of each feature that it reads, by name.
    """

    expression: Expression
    reads: Mapping[str, tuple[int, ValueType]]


def derived_feature(spec: ComputedColumn, features: Sequence[FeatureSpec]) -> CompiledDerivedFeature:
    """A derived feature of a view with those windowed features."""
    types = {feature.name: feature.type for feature in features}
    expression = compile_expression(spec.expression, types)
    index = {feature.name: at for at, feature in enumerate(features)}
    return CompiledDerivedFeature(expression, {name: (index[name], types[name]) for name in expression.columns})


@dataclass(frozen=True, slots=True)
class Answers:
    """What derived features read: see `core.lowering.LoweredFeatures`."""

    ints: Int64Array
    floats: Float64Array
    objects: Mapping[int, Sequence[object]]
    null: BoolArray


def evaluate(feature: CompiledDerivedFeature, answers: Answers) -> ColumnValues:
    """(R,) values of a derived feature.

    Args:
        feature: its `reads` are rows of the answers.
        answers: (F, R) answers.
    """
    columns = {name: _column(answers, at, value_type) for name, (at, value_type) in feature.reads.items()}
    return feature.expression.evaluate(columns, answers.null.shape[1]).storable()


def _column(answers: Answers, at: int, value_type: ValueType) -> ColumnValues:
    """One feature's answers as a column."""
    valid = ~answers.null[at]
    if value_type is ValueType.STRING:
        texts = np.empty(len(valid), dtype=np.object_)
        texts[:] = [b"" if value is None else str(value).encode() for value in answers.objects[at]]
        return ColumnValues(texts, valid)
    return ColumnValues((answers.floats if value_type is ValueType.FLOAT64 else answers.ints)[at], valid)
