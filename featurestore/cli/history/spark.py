"""`featurestore history --engine spark`: the same command on a Spark session of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.extras import missing_package

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.core.spec import RepoSpec
    from featurestore.offline.spark.events import SparkHistory
    from featurestore.offline.training_set.plain_join import PlainHistory


class PlaceType(click.ParamType[Path | str]):
    """A path; or, for Spark, an address: a URI, or a directory to write, with a slash at its end.

    Args:
        exists: whether it is read; else it is written.
    """

    name = "path"

    def __init__(self, *, exists: bool) -> None:
        self._exists = exists

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        """Parse one place."""
        text = str(value)
        path = Path(text)
        if "://" in text or (not self._exists and text.endswith("/")):
            return text
        if self._exists and not path.exists():
            self.fail(f'"{text}" does not exist', param, ctx)
        if not self._exists and path.is_dir():
            self.fail(f'"{text}" is a directory', param, ctx)
        return path


@dataclass(frozen=True, slots=True)
class SparkOptions:
    """What --engine spark was given.

    Attributes:
        master: of the cluster; None leaves it to spark-submit.
        settings: NAME=VALUE texts.
    """

    master: str | None
    settings: tuple[str, ...]


def spark_options(function: Callable[..., None]) -> Callable[..., None]:
    """--engine and what belongs to Spark, for a click command; it gets all as `spark`, None for the local engine."""

    @functools.wraps(function)
    def command(engine: str, spark_master: str | None, spark_settings: tuple[str, ...], **others: object) -> None:
        function(spark=SparkOptions(spark_master, spark_settings) if engine == "spark" else None, **others)

    for option in (
        click.option(
            "--spark-conf",
            "spark_settings",
            multiple=True,
            metavar="NAME=VALUE",
            help="A setting of Spark; may be repeated.",
        ),
        click.option(
            "--spark-master",
            metavar="URL",
            help="Where Spark runs: local[2], spark://..., yarn. Default: spark-submit's.",
        ),
        click.option(
            "--engine",
            type=click.Choice(["local", "spark"]),
            default="local",
            show_default=True,
            help="With spark, --entities and --out may be URIs, and an --out that ends in / is a directory.",
        ),
    ):
        command = option(command)
    return command


def write_with_spark(
    options: SparkOptions,
    wanted: tuple[RepoSpec, str | list[str]],
    entities: Path | str,
    read_entities: Callable[[Path], pa.Table],
    out: Path | str,
    *,
    events: Mapping[str, str] | str,
    ingested_before_ms: int | None,
    plain: Mapping[str, PlainHistory],
    moments: tuple[str, int | None],
    full_names: bool,
    event_sources: tuple[str, ...],
    repo_path: Path | None,
    work_dir: Path | None,
) -> None:
    """Write a training set, and say how many rows and features it has.

    Args:
        options: of Spark.
        wanted: the definitions, and a service or features of theirs.
        entities: labels; a file is read here, a directory or URI by the executors.
        read_entities: reads a file.
        out: one file, or a directory or URI.
        events: an event log's root, a Parquet file or table, or these by source.
        ingested_before_ms: only events that had been read before.
        plain: tables of plain views, beside the registered ones.
        moments: the label times' column, and the one moment that is asked for instead.
        full_names: call features "view__feature".
        event_sources: names of sources of which each row is an event.
        repo_path: where relative paths of registered tables start.
        work_dir: must not be given.
    """
    if work_dir is not None:
        raise click.UsageError("--work-dir is for --engine local: Spark repeats only the tasks that failed")
    try:
        from featurestore.offline.spark.files import (
            SparkRequest,
            open_session,
            write_spark_directory,
            write_spark_file,
        )
    except ModuleNotFoundError as error:
        raise missing_package("history --engine spark", error, extra="spark") from error

    labels = entities if isinstance(entities, str) or entities.is_dir() else read_entities(entities)
    if isinstance(out, Path) and isinstance(labels, str | Path):
        raise click.UsageError("rows that Spark reads have no order: let --out be a URI, or a directory that ends in /")
    spec, features = wanted
    request = SparkRequest(
        spec,
        features,
        _history(events, ingested_before_ms),
        plain,
        *moments,
        full_names=full_names,
        repo_path=repo_path,
        event_sources=event_sources,
    )
    spark = open_session(options.master, dict(map(_setting, options.settings)))
    try:
        if isinstance(out, Path):
            assert not isinstance(labels, str | Path), "one file is of labels that the driver holds"
            size = write_spark_file(spark, request, labels, out)
        else:
            size = write_spark_directory(spark, request, labels, out)
    finally:
        spark.stop()
    click.echo(f"{out}: {size.rows:,} rows, {size.features} features")


def local_file(place: Path | str) -> Path:
    """A place that the local engine can read or write."""
    if isinstance(place, str):
        raise click.UsageError(f'"{place}" is not a file: use --engine spark, or name a file')
    return place


def are_files(places: Mapping[str, str] | str) -> bool:
    """Whether events are in files, or in a table that somebody else keeps, and not in event logs below a root."""
    from featurestore.offline.foreign_tables.opening import is_table

    if not isinstance(places, str):
        return True
    return Path(places).suffix in (".parquet", ".pq") or is_table(places)


def _history(events: Mapping[str, str] | str, ingested_before_ms: int | None) -> SparkHistory:
    """Event logs below a root, or files and tables; by source where the option says so."""
    from featurestore.offline.spark.events import SparkEventLog, SparkFiles

    if not isinstance(events, str) or are_files(events):
        return SparkFiles(events)
    return SparkEventLog(events, ingested_before_ms=ingested_before_ms)


def _setting(text: str) -> tuple[str, str]:
    """One setting of Spark."""
    name, equals, value = text.partition("=")
    if not equals or not name.startswith("spark."):
        raise click.UsageError(f'"{text}" is not spark.NAME=VALUE')
    return name, value
