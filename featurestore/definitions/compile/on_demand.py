"""Compile on-demand views: SQL over features of several views and columns of the request, or an author's function.

    sources     card[amount_mean_30d]   merchant[country]        request   amount double, country string
    expression  amount / nullif(amount_mean_30d, 0)              merchant__country where the name alone is not enough

SQL is in the view's tags, "expression.NAME" for each Field, so nothing of the author's is run to know what is computed.
A function is passed on as the text that the registry has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from featurestore.core.expressions import compile_expression
from featurestore.core.spec import (
    SCALAR_TYPES,
    Column,
    ComputedColumn,
    OnDemandInput,
    OnDemandViewSpec,
    PlainViewSpec,
    PythonFunction,
    ValueType,
    ViewSpec,
)
from featurestore.definitions.compile.service import Servable, unserved_reason
from featurestore.definitions.compile.types import EXACT_TYPES, VALUE_TYPES
from featurestore.definitions.problems import Place, ProblemList, suggest
from featurestore.errors import InvalidExpression, InvalidRequest
from featurestore.wire.feast.registry import RegisteredOnDemandView

EXPRESSION_TAG_PREFIX = "expression."
"""Tags of a view on demand: the SQL of the feature NAME over other views' features and columns of the request."""

KIND = "on-demand feature view"

FUNCTION_MODES = ("python", "pandas")

_ROUNDED = "FLOAT"
"""A request's value of this type is not the one that the caller sent once Feast's SDK has had it."""


@dataclass(frozen=True, slots=True)
class Names:
    """What names mean within the expressions of one view.

    Attributes:
        types: type of each name that means one thing.
        inputs: those that are features.
        ambiguous: name -> what could be written instead; "" where nothing can.
    """

    types: Mapping[str, ValueType]
    inputs: Mapping[str, OnDemandInput]
    ambiguous: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, sources: Iterable[tuple[str, Column]], request: Iterable[Column]) -> Names:
        """The names of features, by the view that has them, and of columns of the request."""
        types: dict[str, ValueType] = {}
        inputs: dict[str, OnDemandInput] = {}
        full_names: dict[str, list[str]] = {}
        for view, column in sources:
            if column.type not in SCALAR_TYPES:
                continue
            full = f"{view}__{column.name}"
            full_names.setdefault(column.name, []).append(full)
            for name in (column.name, full):
                types[name], inputs[name] = column.type, OnDemandInput(name, view, column.name, column.type)
        ambiguous = {name: fulls for name, fulls in full_names.items() if len(fulls) > 1}
        for column in request:
            if column.name in types:
                ambiguous.setdefault(column.name, full_names.get(column.name, []))
            types[column.name] = column.type
        for name in ambiguous:
            del types[name]
            inputs.pop(name, None)
        return cls(types, inputs, ambiguous)

    def compile(self, text: str) -> tuple[ValueType, str, frozenset[str]]:
        """Type, canonical text and the names that it reads.

        Raises:
            InvalidRequest: it is no expression over these names.
        """
        try:
            expression = compile_expression(text, self.types)
        except InvalidRequest:
            unclear = sorted(self.ambiguous.keys() & set(re.findall(r"\w+", text)))
            if not unclear:
                raise
            choices = " or ".join(self.ambiguous[unclear[0]])
            raise InvalidExpression(
                f'"{unclear[0]}" may mean several things',
                hint=f"write {choices}; a column of the request must have a name of its own",
            ) from None
        return expression.type, expression.text, expression.columns


def compile_on_demand_view(
    view: RegisteredOnDemandView,
    known: Mapping[str, ViewSpec | PlainViewSpec],
    servables: Mapping[str, Servable],
    problems: ProblemList,
) -> OnDemandViewSpec | str:
    """The spec, or why only the Feast SDK serves it; "" where a mistake (of its own or of a view) stands.

    Args:
        view: as registered.
        known: the views that are served, by name.
        servables: every registered view but the on-demand ones.
        problems: where mistakes go.
    """
    place, found_before = Place(KIND, view.name), len(problems.found)
    if not view.online:
        return "is not online"
    if problems.add_mistake(place, view.tags):
        return ""
    texts = {
        tag.removeprefix(EXPRESSION_TAG_PREFIX): text
        for tag, text in view.tags.items()
        if tag.startswith(EXPRESSION_TAG_PREFIX)
    }
    keys: dict[str, Column] = {}
    sources: list[tuple[str, Column]] = []
    for projection in view.sources:
        servable = servables.get(projection.view)
        if servable is None:
            return f'reads "{projection.view}", which is no feature view that is registered'
        if servable.is_broken:
            return ""
        if reason := unserved_reason(projection, servable):
            return f"reads what is not served: {reason}"
        spec = known[projection.view]
        columns = {column.name: column for column in (spec.answers if isinstance(spec, ViewSpec) else spec.features)}
        for name in projection.features or tuple(columns):
            if name in columns:
                sources.append((projection.view, columns[name]))
            elif name not in {key.name for key in spec.join_keys}:
                problems.add(place, f'feature view "{projection.view}" has no feature "{name}"', suggest(name, columns))
        for key in spec.join_keys:
            if keys.setdefault(key.name, key).type is not key.type:
                return f'reads views that disagree about the type of join key "{key.name}"'
    for field in (*view.fields, *view.request):
        if field.value_type not in VALUE_TYPES:
            return f'has "{field.name}" of a type that is not served'
    request = tuple(Column(field.name, VALUE_TYPES[field.value_type]) for field in view.request)
    if texts:
        compiled = _of_sql(view, texts, Names.of(sources, request), problems)
    else:
        compiled = _of_function(view, sources)
    if len(problems.found) > found_before:
        return ""
    features, inputs, function = compiled
    return OnDemandViewSpec(view.name, tuple(keys.values()), inputs, request, features, function)


_Compiled = tuple[tuple[ComputedColumn, ...], tuple[OnDemandInput, ...], PythonFunction | None]
"""Features, what they read of other views, and the function that computes them."""


def _of_sql(view: RegisteredOnDemandView, texts: Mapping[str, str], names: Names, problems: ProblemList) -> _Compiled:
    """Features that are expressions."""
    view_place = Place(KIND, view.name)
    for request in view.request:
        place = view_place.of(request.name)
        if request.value_type == _ROUNDED:
            problems.add(place, "the column of the request is a Float32, which rounds what is sent", "write Float64")
        elif VALUE_TYPES[request.value_type] not in SCALAR_TYPES:
            problems.add(place, "the column of the request is a list, which SQL does not read", "send plain values")
    for name in sorted(texts.keys() - {field.name for field in view.fields}):
        problems.add(view_place.of(name), "it has an expression and no Field", f'add Field(name="{name}", ...)')
    features: list[ComputedColumn] = []
    read: set[str] = set()
    for field in view.fields:
        place = view_place.of(field.name)
        if field.name not in texts:
            problems.add(place, "it has no expression", f'add the tag "{EXPRESSION_TAG_PREFIX}{field.name}"')
            continue
        try:
            value_type, text, columns = names.compile(texts[field.name])
        except InvalidRequest as error:
            problems.add(place, f"its expression: {error.message}", error.hint or "correct the SQL")
            continue
        registered, written = EXACT_TYPES[value_type]
        if field.value_type != registered:
            fact = f"the Field is of type {field.value_type}, but its expression is {registered}"
            problems.add(place, fact, f"write dtype={written}")
            continue
        features.append(ComputedColumn(field.name, value_type, text))
        read |= columns
    return tuple(features), tuple(names.inputs[name] for name in sorted(read) if name in names.inputs), None


def _of_function(view: RegisteredOnDemandView, sources: Sequence[tuple[str, Column]]) -> _Compiled:
    """Features that a function of the author's computes; one that runs when its sources are written is none."""
    features = tuple(ComputedColumn(field.name, VALUE_TYPES[field.value_type], "") for field in view.fields)
    inputs = tuple(OnDemandInput(f"{name}__{column.name}", name, column.name, column.type) for name, column in sources)
    is_runnable = view.mode in FUNCTION_MODES and not view.is_written and not view.has_aggregations
    if not is_runnable or not view.function_text:
        return features, inputs, None
    return features, inputs, PythonFunction(view.function_name, view.function_text, view.mode, view.is_by_row)
