"""A short way to write an OnDemandFeatureView of SQL: features of several views and columns of the request in a line.

    request_features(
        name="checks",
        request=payment_request,                    a feast.RequestSource
        sources=[card_activity, merchant_profile],
        features={"amount_ratio": "amount / nullif(card_amount_mean_30d, 0)"},
    )

What comes out is plain Feast: its function computes the same SQL by the same engine, so the stock SDK answers what the
server does. The SQL itself is in tags, where `compile.on_demand` reads it. The view names just the features that the
SQL reads, so Feast looks up no others.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from feast import FeatureView, Field, OnDemandFeatureView, RequestSource
from feast.feature_view_projection import FeatureViewProjection
from feast.transformation.python_transformation import PythonTransformation

from featurestore.core.spec import Column, ValueType
from featurestore.definitions.authoring.views import FEAST_TYPES
from featurestore.definitions.compile.on_demand import EXPRESSION_TAG_PREFIX, Names
from featurestore.definitions.compile.types import VALUE_TYPES
from featurestore.errors import InvalidRequest


class _SqlTransformation(PythonTransformation):
    """Feast would infer types from what the function makes of samples, which may be null; the Fields say them."""

    fields: Sequence[Field] = ()

    def infer_features(self, random_input: dict[str, Any], singleton: bool | None = False) -> list[Field]:
        """The view's fields."""
        return list(self.fields)


def request_features(
    *,
    name: str,
    features: Mapping[str, str],
    request: RequestSource | None = None,
    sources: Sequence[FeatureView] = (),
    tags: Mapping[str, str] | None = None,
    description: str = "",
    owner: str = "",
) -> OnDemandFeatureView:
    """An OnDemandFeatureView whose features are SQL over other features and columns of the request.

    What is wrong with the SQL is not raised but reported by the plan, beside the other mistakes of the repo.

    Args:
        name: of the view.
        features: name -> SQL over names of features of the sources and of the request's fields. A feature that two
            sources have is called `view__feature`.
        request: the columns that come with a request, and their types.
        sources: the views whose features may be read.
        tags: kept beside those that are set here, as in Feast.
        description: as in Feast.
        owner: as in Feast.

    Raises:
        InvalidRequest: the name is none of a Python function, which Feast makes of it; or there is nothing to read.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise InvalidRequest(f'"{name}" is no name of an on-demand view', hint="use letters, digits and underscores")
    if request is None and not sources:
        raise InvalidRequest(f'on-demand view "{name}" has neither sources nor a request', hint="give one of them")
    columns = [Column(field.name, value_type) for field in _fields(request) if (value_type := _type_of(field))]
    answers = [
        (view.name, Column(field.name, value_type))
        for view in sources
        for field in view.features
        if (value_type := _type_of(field))
    ]
    names = Names.of(answers, columns)
    types: dict[str, ValueType] = {}
    texts: dict[str, str] = {}
    read: set[str] = set()
    is_sound = True
    for feature, text in features.items():
        try:
            types[feature], texts[feature], reads = names.compile(text)
            read |= reads
        except InvalidRequest:
            types[feature], is_sound = ValueType.FLOAT64, False  # the mistake is reported when the view is compiled
    fields = [Field(name=feature, dtype=FEAST_TYPES[value_type]) for feature, value_type in types.items()]
    text = _function_text(name, {column: names.types[column] for column in sorted(read)}, texts)
    transformation = _SqlTransformation(udf=_function(name, text), udf_string=text)
    transformation.fields = fields
    wanted = {(names.inputs[column].view, names.inputs[column].feature) for column in read if column in names.inputs}
    projections = [_projection(view, wanted if is_sound else None) for view in sources]
    return OnDemandFeatureView(
        name=name,
        schema=fields,
        sources=[*(one for one in projections if one.features), *([request] if request is not None else [])],
        feature_transformation=transformation,
        mode="python",
        tags={**(tags or {}), **{EXPRESSION_TAG_PREFIX + feature: text for feature, text in features.items()}},
        description=description,
        owner=owner,
    )


def _fields(request: RequestSource | None) -> Sequence[Field]:
    return [] if request is None else request.schema


def _type_of(field: Field) -> ValueType | None:
    """How values of a Field are held; None where no SQL reads them."""
    return VALUE_TYPES.get(field.dtype.to_value_type().name)


def _projection(view: FeatureView, wanted: set[tuple[str, str]] | None) -> FeatureViewProjection:
    """A view with the features that are read; with all where nobody can tell."""
    projection = copy.copy(view.projection)
    projection.features = [
        field for field in view.projection.features if wanted is None or (view.name, field.name) in wanted
    ]
    return projection


def _function_text(name: str, columns: Mapping[str, ValueType], features: Mapping[str, str]) -> str:
    """The source of the function that Feast registers."""
    types = {column: value_type.value for column, value_type in columns.items()}
    return (
        f"def {name}(inputs):\n"
        "    from featurestore.on_demand import compute\n\n"
        f"    return compute(inputs, {types!r}, {dict(features)!r})\n"
    )


def _function(name: str, text: str) -> Any:
    """The function itself, of a module that nobody can import: so Feast pickles it as a whole."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(text, namespace)  # a text that was written two lines above
    return namespace[name]
