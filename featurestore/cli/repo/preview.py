"""`featurestore preview`: what a view's features would be over the newest records, before anything is applied."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.extras import require_packages
from featurestore.cli.narrow_table import narrow_table
from featurestore.cli.settings import format_option, load_settings, print_json, repo_option

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.core.spec import ViewSpec

COMMAND = "preview"
NEWEST = "dataflows.logs.newest"
"""As a text: the stream is a program of its own, and Kafka's packages are its."""

BARS = " ▁▂▃▄▅▆▇█"
BINS = 12
FAR = 10
"""Medians from which the 99th percentile is so far away that bins of equal widths would show one bar."""

LAST_MAX = 1_000_000
MOMENT = "event_timestamp"

_TEXTS = ("log_dir", "bootstrap_servers", "kafka_config", "schema_registry_config")
_LISTS = ("kafka_option", "schema_registry_option")


@dataclass(frozen=True, slots=True)
class Shape:
    """One feature over all records.

    Attributes:
        feature: its name.
        null_share: share of records for which it has no value.
        middle, high, largest: median, 99th percentile, maximum; of texts and times None.
        histogram: records by value, from the smallest to the 99th percentile, in BINS bins; of equal widths, or, where
            the largest are far away, of equal ratios.
        top: of texts the most frequent ones, with their share.
    """

    feature: str
    null_share: float
    middle: float | None
    high: float | None
    largest: float | None
    histogram: tuple[int, ...]
    top: tuple[tuple[str, float], ...]


@click.command(COMMAND)
@click.argument("view")
@repo_option
@click.option("--last", type=click.IntRange(1, LAST_MAX), default=10_000, show_default=True, help="So many records.")
@click.option("--log-dir", type=click.Path(path_type=Path), help="The embedded log, instead of Kafka.")
@click.option("--bootstrap-servers", help="Kafka addresses; default: those of the definitions.")
@click.option("--kafka-option", multiple=True, metavar="KEY=VALUE", help="librdkafka setting; may be repeated.")
@click.option("--kafka-config", type=click.Path(path_type=Path), help="File of librdkafka settings.")
@click.option("--schema-registry-option", multiple=True, metavar="KEY=VALUE", help="Setting of the registry's client.")
@click.option("--schema-registry-config", type=click.Path(path_type=Path), help="File of settings of that client.")
@format_option
def command(view: str, repo: Path | None, last: int, output: str, **given: Any) -> None:
    """Show what the features of VIEW would be over the newest records of its source: a line for each, with its shape.

    Nothing is applied, stored or moved. Each record is a moment: the values are those right after it. What happened
    before the oldest of these records is not known here, so long windows hold less than they will.
    """
    require_packages(COMMAND)
    from featurestore.errors import InvalidRequest

    found = _view_of(repo, view)
    texts = {name: str(given[name]) for name in _TEXTS if given[name]}
    texts |= {name: "\n".join(given[name]) for name in _LISTS if given[name]}
    newest = importlib.import_module(NEWEST).newest_of(found.source, last, texts, os.environ)
    if not newest.rows.num_rows:
        refused = f"; {newest.refused:,} could not be decoded: {newest.first_refusal}" if newest.refused else ""
        raise InvalidRequest(
            f'source "{found.source.name}" has no records to look at{refused}',
            hint="check the topic, and --log-dir or --bootstrap-servers",
        )
    span_ms, answers = preview(found, newest.rows)
    shapes = [shape_of(name, answers[name]) for name in answers.column_names]
    if output == "json":
        told = {"records": newest.records, "refused": newest.refused, "span_ms": span_ms}
        print_json({**told, "features": [asdict(shape) for shape in shapes]})
        return
    _show(found, newest, span_ms, shapes)


def _view_of(repo: Path | None, name: str) -> ViewSpec:
    """The view as the repo's files define it.

    Raises:
        InvalidRequest: there is no such stream view.
        DefinitionError: the definitions have mistakes.
    """
    from featurestore.definitions.problems import suggest
    from featurestore.definitions.registry import find_registry_bytes
    from featurestore.definitions.repo import load_repo
    from featurestore.errors import InvalidRequest

    settings = load_settings(repo=repo)
    registered = find_registry_bytes(settings.registry, with_all_versions=True)
    spec = load_repo(settings.require_repo(), settings.project).compile(registered).require_sound()
    found = next((one for one in spec.views if one.name == name), None)
    if found is None:
        known = [one.name for one in spec.views]
        raise InvalidRequest(f'there is no stream feature view "{name}"', hint=suggest(name, known))
    return found


def preview(view: ViewSpec, rows: pa.Table) -> tuple[int, pa.Table]:
    """What a view's features are right after each event.

    Args:
        view: the view.
        rows: N events of its source, as an event log has them.

    Returns:
        Milliseconds between the oldest and the newest event; and a column of N values for each feature.

    Raises:
        InvalidRequest: a join key is computed, so that the rows do not say it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from featurestore.core.spec import RepoSpec
    from featurestore.errors import InvalidRequest
    from featurestore.offline.training_set.build import build_training_set
    from featurestore.offline.training_set.histories import FileHistory

    keys = [key.name for key in view.join_keys]
    for name in keys:
        if name not in rows.column_names:
            raise InvalidRequest(
                f'join key "{name}" of feature view "{view.name}" is no column of source "{view.source.name}"',
                hint="apply it, and build a training set: a preview knows columns of records alone",
            )
    times = rows[view.source.event_time_column].cast(pa.timestamp("ms", "UTC"))
    moments = pc.add(times, pa.scalar(1, pa.duration("ms")))
    labels = pa.table({**{name: rows[name] for name in keys}, MOMENT: moments})
    wanted = [f"{view.name}:{column.name}" for column in view.answers]
    answers = build_training_set(
        RepoSpec("preview", (view,), (), ()),
        wanted,
        labels,
        history=FileHistory({view.source.name: rows}),
        timestamp_column=MOMENT,
    )
    span = pc.min_max(times).as_py()
    span_ms = round((span["max"] - span["min"]).total_seconds() * 1000)
    return span_ms, answers.drop_columns([*keys, MOMENT])


def shape_of(name: str, values: pa.ChunkedArray) -> Shape:
    """A feature's values in a few figures; lists and maps by their lengths, times by how they are spread."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    null_share = values.null_count / max(1, len(values))
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        counts = Counter(values.drop_null().to_pylist())
        total = max(1, counts.total())
        top = tuple((text, count / total) for text, count in counts.most_common(3))
        return Shape(name, null_share, None, None, None, (), top)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        values = pa.chunked_array([[None if one is None else len(one) for one in values.to_pylist()]], pa.int64())
    is_time = pa.types.is_temporal(kind)
    if is_time:
        values = pc.cast(pc.cast(values, pa.timestamp("ms", "UTC")), pa.int64())
    numbers = np.asarray(pc.cast(values.drop_null(), pa.float64()), dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return Shape(name, null_share, None, None, None, (), ())
    middle, high = (float(one) for one in np.quantile(numbers, (0.5, 0.99), method="inverted_cdf"))
    shown = numbers[numbers <= high]
    if not is_time and shown.min() >= 0 and high > FAR * max(middle, 1.0):
        shown = np.log1p(shown)
    histogram = tuple(int(one) for one in np.histogram(shown, BINS)[0])
    if is_time:
        return Shape(name, null_share, None, None, None, histogram, ())
    return Shape(name, null_share, middle, high, float(numbers.max()), histogram, ())


def sparkline(counts: Sequence[int]) -> str:
    """A histogram as a line of bars; what there is at all is seen."""
    most = max(counts, default=0)
    return "".join(BARS[-(-count * (len(BARS) - 1) // most)] if count else BARS[0] for count in counts)


def _show(view: ViewSpec, newest: Any, span_ms: int, shapes: Sequence[Shape]) -> None:
    """For people."""
    from rich.console import Console

    click.echo(
        f"{view.name} over {newest.records:,} records of {view.source.name}, {newest.partitions} partitions, "
        f"{_duration(span_ms)} from the oldest to the newest"
    )
    if newest.refused:
        click.echo(f"{newest.refused:,} could not be decoded, the first: {newest.first_refusal}")
    table = narrow_table("", texts=("feature", "shape"), numbers=("null", "p50", "p99", "max"))
    for shape in shapes:
        seen = sparkline(shape.histogram)
        if shape.top:
            seen = ", ".join(f"{text[:12] or repr(text)} {share:.0%}" for text, share in shape.top[:2])
        figures = [_figure(one) for one in (shape.middle, shape.high, shape.largest)]
        table.add_row(shape.feature, seen, f"{shape.null_share:.0%}", *figures)
    Console().print(table)
    longest_ms = max((one.window.length_ms or 0 for one in view.features), default=0)
    if longest_ms > span_ms:
        click.echo(f"windows longer than {_duration(span_ms)} hold less here than they will")


def _figure(value: float | None) -> str:
    """In at most six characters: three digits and a unit."""
    if value is None:
        return "-"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _duration(span_ms: int) -> str:
    """In one unit, roughly."""
    for unit, length_ms in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000)):
        if span_ms >= 2 * length_ms:
            return f"{span_ms / length_ms:.0f} {unit}"
    return f"{span_ms / 1_000:.0f} s"
