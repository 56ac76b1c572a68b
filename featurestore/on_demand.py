"""What registered on-demand views call: SQL over features and columns of a request, wherever Feast computes them.

    def checks(inputs):
        from featurestore.on_demand import compute

        return compute(inputs, {"amount": "float64", "mean_30d": "float64"}, {"ratio": "amount / mean_30d"})

Texts like that are written by `featurestore.features.request_features`, and stand in registries. A door: its names and
their meaning stay from release to release. It imports neither Feast nor pandas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from featurestore.core.expressions import Expression, compile_expression
from featurestore.core.lowering.request_time import RequestValue, column_of, values_of
from featurestore.core.spec import ValueType

__all__ = ["compute"]


def compute(
    inputs: Mapping[str, Sequence[object]], columns: Mapping[str, str], features: Mapping[str, str]
) -> dict[str, list[RequestValue]]:
    """Features of N rows.

    Args:
        inputs: name -> N values, None where null; whatever else is there is not looked at.
        columns: name -> type, such as "float64", of all that the features read.
        features: name -> SQL.

    Returns:
        Name -> N values, None where null.

    Raises:
        InvalidRequest: a value is of another type, or the SQL is none.
        KeyError: a column is missing.
    """
    types = {name: ValueType(type_name) for name, type_name in columns.items()}
    read = {name: column_of(name, inputs[name], value_type) for name, value_type in types.items()}
    count = len(next(iter(inputs.values()), ()))
    found = {}
    for name, text in features.items():
        expression = _compiled(text, tuple(types.items()))
        found[name] = values_of(expression.evaluate(read, count).storable(), expression.type)
    return found


@lru_cache(maxsize=1_024)
def _compiled(text: str, columns: tuple[tuple[str, ValueType], ...]) -> Expression:
    """SQL, compiled once: Feast calls for each request."""
    return compile_expression(text, dict(columns))
