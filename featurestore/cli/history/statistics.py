"""`featurestore statistics`: what values look like, of what was served or of a training set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.callers import require_permission, token_option
from featurestore.cli.lookup.given import MomentType
from featurestore.cli.narrow_table import narrow_table
from featurestore.cli.settings import Decorated, Settings, format_option, load_settings, print_json, registry_options
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featurestore.core.spec import RepoSpec
    from featurestore.offline.health.kept import Profile
    from featurestore.offline.health.statistics import FeatureStatistics

MESSAGES_SUFFIX = ".jsonl"
NONE = "-"
TOP_SHOWN = 5

_LARGE, _SMALL = 1e7, 1e-3


def profile_options(of_file: str) -> Callable[[Decorated], Decorated]:
    """Options of what `profile_of` reads, but for the log.

    Args:
        of_file: help of --from-file.
    """
    options = (
        click.option("--from-file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=of_file),
        click.option(
            "--timestamp-column", metavar="NAME", help="Of that file: times of the rows, for the age of moments."
        ),
        click.option("--since", "since_ms", type=MomentType(), help="Only hours of the log from then on."),
        click.option("--until", "until_ms", type=MomentType(), help="Only hours of the log that begin before."),
    )

    def decorate(function: Decorated) -> Decorated:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.command("statistics")
@click.argument("name", metavar="SERVICE|VIEW")
@registry_options
@click.option(
    "--log",
    metavar="DIR|URI|FILE.jsonl",
    envvar="FEATURESTORE_LOG_FEATURES",
    show_envvar=True,
    help="Of what was served: the feature log, or the messages of its topic, a line each.",
)
@profile_options("Of history: a training set in Parquet, instead of a log.")
@click.option("--by-hour", is_flag=True, help="Each hour of the log by itself; with --format json.")
@token_option
@format_option
def command(
    repo: Path | None,
    project: str | None,
    registry: str | None,
    name: str,
    log: str | None,
    file: Path | None,
    timestamp_column: str | None,
    since_ms: int | None,
    until_ms: int | None,
    by_hour: bool,
    output: str,
) -> None:
    """Show counts, missing values, spread, quantiles and frequent values of each feature of a service or view.

    Counts, extremes, mean and deviation are exact; quantiles are within 1 %. Of a log they are kept by hour, beside its
    files. Lists and maps are counted by their lengths, moments by their ages in ms.

    Example: featurestore statistics fraud_detection --log data/served --since 2026-11-21
    """
    from featurestore.definitions.registry import read_registry
    from featurestore.offline.health.statistics import statistics_of_sketches

    if by_hour and output != "json":
        raise click.UsageError("--by-hour goes with --format json")
    settings = load_settings(repo=repo, project=project, registry=registry)
    spec = read_registry(settings.registry, project=settings.project)
    profile = profile_of(
        settings,
        spec,
        name,
        log=log,
        file=file,
        timestamp_column=timestamp_column,
        since_ms=since_ms,
        until_ms=until_ms,
    )
    found = [statistics_of_sketches(key, one) for key, one in profile.items()]
    if output == "table":
        show(found)
        return
    contents = [as_json(one) for one in found]
    if by_hour:
        for content, (key, sketches) in zip(contents, profile.items(), strict=True):
            hours = [sketches.take(sketches.hours_ms == hour) for hour in sketches.hours_ms.tolist()]
            content["hours"] = [as_json(statistics_of_sketches(key, hour)) for hour in hours]
    print_json(contents)


def profile_of(
    settings: Settings,
    spec: RepoSpec,
    name: str,
    *,
    log: str | None,
    file: Path | None,
    timestamp_column: str | None,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> Profile:
    """The values of a service's or view's features, in their order; of a file, else of a log.

    Raises:
        InvalidRequest: nothing is called so, or has no rows.
        PermissionDenied: whoever runs the command may not read them.
    """
    from featurestore.core.spec.access import READ_OFFLINE
    from featurestore.offline.health.gather import features_of, file_profile, logged_profile, served_profile, within
    from featurestore.offline.parity.feature_log_json import decode_messages
    from featurestore.offline.parity.log_directory import LogDirectory

    is_service = spec.service(name) is not None
    views, service = (() if is_service else (name,)), name if is_service else None
    require_permission(settings, READ_OFFLINE, views=views, service=service or "", access=spec.access)
    features = features_of(spec, name)
    if file is not None:
        return file_profile(file, features, timestamp_column)
    if log is None:
        raise click.UsageError("give --log, the feature log, or --from-file, a training set")
    if log.endswith(MESSAGES_SUFFIX):
        try:
            with open(log, "rb") as lines:
                found = within(logged_profile(decode_messages(lines, service=service)), since_ms, until_ms)
        except OSError as error:
            raise InvalidRequest(f'feature log "{log}" cannot be read', detail=str(error)) from error
    else:
        found = served_profile(LogDirectory(log), service=service, since_ms=since_ms, until_ms=until_ms)
    order = {place: number for number, place in enumerate(features)}
    mine = sorted(
        (key for key in found if (key.view, key.feature) in order), key=lambda one: order[one.view, one.feature]
    )
    if not mine:
        raise InvalidRequest(
            f'feature log "{log}" has no answers of "{name}"',
            hint="check --since and --until, and that the server runs with --log-features",
        )
    return {key: found[key] for key in mine}


def as_json(one: FeatureStatistics) -> dict[str, object]:
    """With the shares that follow from it."""
    return {**asdict(one), "missing_share": one.missing_share, "not_found_share": one.not_found_share}


def show(found: Sequence[FeatureStatistics]) -> None:
    """A table for each view; fits on 80 columns with short names."""
    from rich.console import Console

    console = Console()
    for view in dict.fromkeys(one.view for one in found):
        mine = [one for one in found if one.view == view]
        numbers = ("rows", "missing", "not\nfound", "mean", "std dev", "min", "median", "max", "unique")
        table = narrow_table(view, texts=("feature",), numbers=numbers)
        for one in mine:
            absent = NONE if one.not_found_share is None else f"{one.not_found_share:.1%}"
            shares = (f"{one.num_rows:,}", f"{one.missing_share:.1%}", absent)
            values = (one.mean, one.std_dev, one.min, one.quantiles.get("0.5"), one.max, one.unique)
            table.add_row(one.feature, *shares, *map(number_text, values))
        console.print(table)
        for one in mine:
            if one.type in ("string", "bool") and one.top_values:
                values_count = one.num_rows - one.num_missing
                shown = list(one.top_values.items())[:TOP_SHOWN]
                texts = ", ".join(f"{value} {count / values_count:.1%}" for value, count in shown)
                console.print(f"{one.feature}: {texts}", highlight=False, markup=False)


def number_text(number: float | None) -> str:
    """Four digits; few where it is very large or small.

    >>> number_text(1234.5678), number_text(0), number_text(None), number_text(1.5e9)
    ('1235', '0', '-', '1.5e+09')
    """
    if number is None:
        return NONE
    if number == int(number) and abs(number) < _LARGE:
        return str(int(number))
    is_readable = _SMALL <= abs(number) < _LARGE
    return f"{number:.4g}" if not is_readable or abs(number) < 1_000 else f"{number:.0f}"
