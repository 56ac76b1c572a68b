"""A view's answers by name and typed as the oracle's, whatever they were computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from featurestore.core.lowering.lowering import INT_TYPES
from featurestore.core.spec import ValueType, ViewSpec
from featurestore.core.view import ViewAnswer
from featurestore.online.generation import Generation
from featurestore.online.read.reader import EntityBytes, EntityRead, Reader
from featurestore.testing.oracle.naive import NaiveAnswer
from featurestore.wire.codecs.body import decode_entity

AnswerValues = dict[str, NaiveAnswer | None]
"""Feature name -> value; moments are milliseconds, flags 0 and 1."""


def stored_answers(reader: Reader, generation: Generation, keys: Sequence[bytes], as_of_ms: int) -> list[AnswerValues]:
    """What lookups of some entities would say, from what the store holds of them.

    Args:
        reader: of the store.
        generation: which one to ask.
        keys: canonical entity keys.
        as_of_ms: read time, exclusive.

    Raises:
        AsOfTooOld: an entity's tiles cannot answer that read time.
    """
    compiled = generation.compiled
    found: list[AnswerValues] = []
    for read in reader.read([EntityRead(generation, key) for key in keys]):
        assert isinstance(read, EntityBytes), "a stream view is read as body and head"
        answer = compiled.answer(decode_entity(compiled, read.body, read.head), as_of_ms)
        found.append(answer_values(generation.view, answer))
    return found


def answer_values(view: ViewSpec, answer: ViewAnswer) -> AnswerValues:
    """All answers of a view, those of its derived features behind the others."""
    return {column.name: _value(answer, index, column.type) for index, column in enumerate(view.answers)}


def _value(answer: ViewAnswer, index: int, value_type: ValueType) -> NaiveAnswer | None:
    """One of them."""
    if answer.null[index]:
        return None
    if value_type in INT_TYPES:
        return int(answer.ints[index])
    if value_type is ValueType.FLOAT64:
        return float(answer.floats[index])
    return cast(NaiveAnswer, answer.objects[index])
