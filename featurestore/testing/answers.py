"""A view's answers by name and typed as the oracle's, whatever they were computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from featurestore.core.lowering.lowering import INT_TYPES
from featurestore.core.spec import ValueType, ViewSpec
from featurestore.core.view import ViewAnswer
from featurestore.online.answer.selection import Asked, Selection
from featurestore.online.generation import Generation
from featurestore.online.read.reader import EntityBytes, EntityRead, Reader
from featurestore.online.serving_view import ServingView, views_of
from featurestore.testing.oracle.naive import NaiveAnswer

AnswerValues = dict[str, NaiveAnswer | None]
"""Feature name -> value; moments are milliseconds, flags 0 and 1."""


def stored_answers(
    reader: Reader, stored: Generation | ServingView, keys: Sequence[bytes], as_of_ms: int
) -> list[AnswerValues]:
    """What lookups of some entities would say, from what the store holds of them.

    Args:
        reader: of the store.
        stored: which view to ask, or the generation of one that is stored by itself.
        keys: canonical entity keys.
        as_of_ms: read time, exclusive.

    Raises:
        AsOfTooOld: an entity's tiles cannot answer that read time.
    """
    serving = views_of(stored)[0] if isinstance(stored, Generation) else stored
    selection = all_of(serving)
    found: list[AnswerValues] = []
    for read in reader.read([EntityRead(serving.generation, key) for key in keys]):
        assert isinstance(read, EntityBytes), "a stream view is read as body and head"
        answer = selection.answer(selection.decode(read.body, read.head), as_of_ms)
        found.append(answer_values(serving.view, answer))
    return found


def all_of(serving: ServingView) -> Selection:
    """Reads every feature of a view."""
    asked = Asked(serving.view, range(len(serving.view.answers)))
    return Selection(serving.generation.compiled, [asked])


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
