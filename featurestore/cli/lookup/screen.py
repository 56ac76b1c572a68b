"""Looked up rows for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurestore.serving.client.result import FeatureValue, LookupResult, ViewFreshness

SHOWN_ELEMENTS_MAX = 10
"""Elements of a list or map in the table, one a line; JSON has them all."""


def as_json(
    result: LookupResult, row: int, entity: Mapping[str, object], request: Mapping[str, object], names: Sequence[str]
) -> dict[str, object]:
    """Everything that is known of a row."""
    values = result.rows()[row]
    return {
        "feature_service": result.schema.service,
        "entity": entity,
        **({"request": request} if request else {}),
        "as_of_ms": _as_of_ms(result, row),
        "features": {
            name: {"value": plain_json(values[name]), "status": result.status(name)[row].name} for name in names
        },
        "views": {
            view.view: {
                "event_time_ms": int(view.event_time_ms[row]),
                "freshness_ms": int(view.freshness_ms[row]),
                "positions": [
                    {"topic": each.topic, "partition": each.partition, "next_offset": each.next_offset}
                    for each in (view.positions[row] if view.positions else ())
                ],
            }
            for view in _views_of(result, names)
        },
    }


def _as_of_ms(result: LookupResult, row: int) -> int:
    """The read time of a row."""
    return result.as_of_ms[row if len(result.as_of_ms) > 1 else 0]


def _views_of(result: LookupResult, names: Sequence[str]) -> list[ViewFreshness]:
    """Those that the features are of."""
    views = {result.schema.views[feature.view].name for feature in result.schema.features if feature.name in names}
    return [view for view in result.views if view.view in views]


def plain_json(value: object) -> object:
    """A value as JSON has it; floats that it has no numbers for become texts, as in protobuf's JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: plain_json(one) for key, one in value.items()}
    return [plain_json(one) for one in value] if isinstance(value, list) else value


def show_table(result: LookupResult, row: int, entity: Mapping[str, object], names: Sequence[str]) -> None:
    """A table on a terminal, columns of text otherwise."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from featurestore.core.spec import ValueType
    from featurestore.core.windows.durations import readable_duration

    values = result.rows()[row]
    whose = ", ".join(f"{name}={value}" for name, value in entity.items())
    title = f"{result.schema.service} of {whose or 'everybody'} as of {moment_text(_as_of_ms(result, row))}"
    table = Table(title=escape(title), title_justify="left")
    table.add_column("feature", overflow="fold")
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("view", overflow="fold")
    for feature in result.schema.features:
        if feature.name not in names:
            continue
        value = values[feature.name]
        is_moment = feature.type is ValueType.TIMESTAMP and isinstance(value, int)
        text = moment_text(int(value)) if is_moment else value_text(value)  # type: ignore[arg-type]  # an int, then
        status = result.status(feature.name)[row].name
        table.add_row(feature.name, escape(text), status, result.schema.views[feature.view].name)
    console = Console()
    console.print(table)
    for view in _views_of(result, names):
        freshness_ms = int(view.freshness_ms[row])
        age = (
            f"newest event {moment_text(int(view.event_time_ms[row]))}, {readable_duration(freshness_ms)} before"
            if freshness_ms >= 0
            else "no event"
        )
        console.print(f"{view.view}: {age}", highlight=False)


def moment_text(moment_ms: int) -> str:
    """ISO 8601, as `--as-of` takes it."""
    moment = datetime.fromtimestamp(0, tz=UTC) + timedelta(milliseconds=moment_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def value_text(value: FeatureValue) -> str:
    """A value for people; the first elements of lists and maps."""
    if value is None:
        return "-"
    if isinstance(value, list | dict):
        shown = (
            [f"{key}: {value_text(one)}" for key, one in value.items()]
            if isinstance(value, dict)
            else map(value_text, value)
        )
        texts = list(islice(shown, SHOWN_ELEMENTS_MAX))
        more = [f"{len(value) - len(texts)} more"] if len(value) > len(texts) else []
        return "\n".join(texts + more) or "(empty)"
    return f"{value:,.4f}" if isinstance(value, float) else str(value)
