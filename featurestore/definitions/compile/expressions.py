"""Compile the SQL of a repo: computed columns of sources, conditions of views and features, derived features."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from featurestore.core.expressions import Expression, compile_expression
from featurestore.core.spec import SCALAR_TYPES, ComputedColumn, FeatureSpec, SourceSpec, ValueType
from featurestore.definitions.compile.types import EXACT_TYPES
from featurestore.definitions.problems import Place, ProblemList
from featurestore.errors import InvalidRequest
from featurestore.wire.feast.registry import RegisteredField

COMPUTED_TAG_PREFIX = "computed."
"""Tags of a source: "computed.amount_eur" holds the SQL of the column amount_eur."""

WHERE_TAG = "where"
"""Tag of a Field: the condition under which events count. Of a view: which of its source's events are the view's."""

UNDO_TAG = "undo"
"""Tag of a view: events for which the condition is true take back what an equal event added."""

EXPRESSION_TAG = "expression"
"""Tag of a Field without an aggregation: the feature is computed from the view's other features."""


def computed_columns(
    tags: Mapping[str, str], payload: Mapping[str, ValueType], place: Place, problems: ProblemList
) -> tuple[ComputedColumn, ...]:
    """The computed columns of a source, each behind those it reads, else by name."""
    texts = {
        tag.removeprefix(COMPUTED_TAG_PREFIX): text
        for tag, text in sorted(tags.items())
        if tag.startswith(COMPUTED_TAG_PREFIX)
    }
    types, columns = dict(payload), list[ComputedColumn]()
    for name in texts.keys() & payload.keys():
        problems.add(place, f'computed column "{name}" is a column of its payload too', "give it another name")
        del texts[name]
    while texts:
        compiled = {name: found for name, text in texts.items() if (found := _try(text, types)) is not None}
        if not compiled:
            break
        for name, expression in compiled.items():
            del texts[name]
            types[name] = expression.type
            columns.append(ComputedColumn(name, expression.type, expression.text))
    # What is left has a mistake of its own, or reads a column that has one.
    for name, text in texts.items():
        others = sorted(texts.keys() - {name})
        try:
            compile_expression(text, types)
        except InvalidRequest as error:
            hint = error.hint or "correct the SQL"
            if others:
                hint += f"; these computed columns have mistakes too, or read each other: {', '.join(others)}"
            problems.add(place, f'computed column "{name}": {error.message}', hint)
    return tuple(columns)


def condition(text: str, source: SourceSpec, what: str, place: Place, problems: ProblemList) -> str | None:
    """Canonical text of a condition over a source's columns, "" for none; None when it has a mistake."""
    if not text.strip():
        return ""
    try:
        expression = compile_expression(text, types_of(source))
    except InvalidRequest as error:
        problems.add(place, f"{what}: {error.message}", error.hint or "correct the SQL")
        return None
    if not expression.is_condition:
        fact = f"{what} is of type {expression.type}, not a condition"
        problems.add(place, fact, "write a comparison, or anything else that is true or false")
        return None
    return expression.text


def derived_features(
    fields: Sequence[RegisteredField],
    features: Sequence[FeatureSpec],
    broken: Collection[str],
    view_place: Place,
    problems: ProblemList,
) -> tuple[ComputedColumn, ...]:
    """Features that are expressions over the others.

    Args:
        fields: of the derived features.
        features: those without a mistake.
        broken: names of the others; what names one of them is not blamed for it.
        view_place: of their view.
        problems: where mistakes go.
    """
    types = {feature.name: feature.type for feature in features if feature.type in SCALAR_TYPES}
    derived = []
    for field in fields:
        place = view_place.of(field.name)
        try:
            expression = compile_expression(field.tags[EXPRESSION_TAG], types)
        except InvalidRequest as error:
            if not set(re.findall(r"\w+", field.tags[EXPRESSION_TAG])) & set(broken):
                problems.add(place, f"its expression: {error.message}", error.hint or "correct the SQL")
            continue
        registered, written = EXACT_TYPES[expression.type]
        if field.value_type != registered:
            fact = f"the Field is of type {field.value_type}, but its expression is {registered}"
            problems.add(place, fact, f"write dtype={written}")
            continue
        derived.append(ComputedColumn(field.name, expression.type, expression.text))
    return tuple(derived)


def types_of(source: SourceSpec) -> dict[str, ValueType]:
    """Type of every column of a source, computed ones included."""
    types = {column.name: column.type for column in source.columns}
    types.update({column.name: column.type for column in source.computed})
    return types


def _try(text: str, types: Mapping[str, ValueType]) -> Expression | None:
    """The expression, if it compiles with the columns known so far."""
    try:
        return compile_expression(text, types)
    except InvalidRequest:
        return None
