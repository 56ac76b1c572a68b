"""`featurestore drift`: a baseline of a service's values, and how far what is served is from it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.callers import token_option
from featurestore.cli.history.statistics import profile_of, profile_options
from featurestore.cli.lookup.given import MomentType
from featurestore.cli.narrow_table import narrow_table
from featurestore.cli.settings import FiniteRange, format_option, load_settings, print_json, registry_options
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.offline.health.drift import DriftReport

EXIT_DRIFTED = 10
DISTANCE_DEFAULT = 0.2

_log_option = click.option(
    "--log",
    required=True,
    metavar="DIR|URI",
    envvar="FEATURESTORE_LOG_FEATURES",
    show_envvar=True,
    help="Feature log; baselines and results lie beside its files.",
)


@click.group("drift")
def command() -> None:
    """Compare what is served with what a model was trained on."""


@command.command("baseline")
@click.argument("service")
@registry_options
@_log_option
@profile_options("The training set, in Parquet. Default: what was served.")
@token_option
def baseline(
    repo: Path | None,
    project: str | None,
    registry: str | None,
    service: str,
    log: str,
    file: Path | None,
    timestamp_column: str | None,
    since_ms: int | None,
    until_ms: int | None,
) -> None:
    """Keep what values look like now, or did in a training set: what `drift check` compares with.

    Example: featurestore drift baseline fraud_detection --log data/served --from-file data/training_set.parquet
    """
    from featurestore.clock import SystemClock
    from featurestore.definitions.registry import read_registry
    from featurestore.offline.health.baselines import keep_baseline
    from featurestore.offline.parity.log_directory import LogDirectory

    settings = load_settings(repo=repo, project=project, registry=registry)
    spec = read_registry(settings.registry, project=settings.project)
    profile = profile_of(
        settings,
        spec,
        service,
        log=log,
        file=file,
        timestamp_column=timestamp_column,
        since_ms=since_ms,
        until_ms=until_ms,
    )
    if spec.service(service) is None:
        raise InvalidRequest(f'"{service}" is no feature service', hint="a baseline is of what a model is given")
    source = "what was served" if file is None else f"training set {file.name}"
    kept = keep_baseline(LogDirectory(log), service, profile, source, SystemClock().now_ms())
    rows = max(int(one.rows[0]) for one in kept.profile.values())
    click.echo(f"baseline {kept.digest} of {service}: {len(kept.profile)} features, {rows:,} rows, {source}")


@command.command("check")
@click.argument("service")
@registry_options
@_log_option
@click.option("--at", "at_ms", type=MomentType(), help="Until when. Default: now.")
@click.option(
    "--psi", type=FiniteRange(min=0), default=DISTANCE_DEFAULT, show_default=True, help="From here on it has drifted."
)
@click.option(
    "--ks", type=FiniteRange(min=0), default=DISTANCE_DEFAULT, show_default=True, help="Likewise, of numbers."
)
@click.option("--js", type=FiniteRange(min=0), default=DISTANCE_DEFAULT, show_default=True, help="Likewise.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as a page with plots.")
@click.option(
    "--metrics",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a file for Prometheus's textfile collector.",
)
@token_option
@format_option
@click.pass_context
def check(
    context: click.Context,
    repo: Path | None,
    project: str | None,
    registry: str | None,
    service: str,
    log: str,
    at_ms: int | None,
    psi: float,
    ks: float,
    js: float,
    html: Path | None,
    metrics: Path | None,
    output: str,
) -> None:
    """Compare the values of the last hour and day with the baseline; exit code 10 when one has drifted, else 0.

    PSI and JS are over tenths of the baseline and the missing values, KS over all numbers. Fewer than 200 rows are not
    judged.

    Example: featurestore drift check fraud_detection --log data/served --html drift.html
    """
    from featurestore.cli.callers import require_permission
    from featurestore.clock import SystemClock
    from featurestore.core.spec.access import READ_OFFLINE
    from featurestore.offline.health.baselines import compare, keep_report
    from featurestore.offline.health.drift import Limits
    from featurestore.offline.parity.log_directory import LogDirectory

    settings = load_settings(repo=repo, project=project, registry=registry)
    require_permission(settings, READ_OFFLINE, service=service)
    place = LogDirectory(log)
    now_ms = SystemClock().now_ms() if at_ms is None else at_ms
    compared = compare(place, service, now_ms, Limits(psi, ks, js))
    keep_report(place, compared.report)
    if output == "json":
        print_json(asdict(compared.report))
    else:
        show(compared.report)
    if html is not None:
        from featurestore.offline.health.page import render_page

        html.write_text(render_page(compared), encoding="utf-8")
        click.echo(f"report: {html}", err=output == "json")
    if metrics is not None:
        from featurestore.offline.health.drift_metrics import write_metrics

        write_metrics(metrics, compared.report)
    context.exit(EXIT_DRIFTED if compared.report.drifted else 0)


def show(report: DriftReport) -> None:
    """A table for each view; fits on 80 columns."""
    from rich.console import Console

    console = Console()
    console.print(
        f"{report.service} against baseline {report.baseline_digest}: {report.baseline_source}", highlight=False
    )
    numbers = ("rows", "missing", "before", "PSI", "KS", "JS")
    for view in dict.fromkeys(one.view for one in report.features):
        table = narrow_table(view, texts=("feature", "window"), numbers=numbers)
        for one in report.features:
            if one.view == view:
                distances = ["-" if found is None else f"{found:.3f}" for found in (one.psi, one.ks, one.js)]
                cells = [f"{one.rows:,}", f"{one.missing_share:.1%}", f"{one.baseline_missing_share:.1%}", *distances]
                table.add_row(one.feature, one.window, *cells, style="red" if one.is_drifted else None)
        console.print(table)
    for text, names in (("not served", report.only_baseline), ("not in the baseline", report.only_served)):
        if names:
            console.print(f"{text}: {', '.join(names)}", highlight=False)
    for one in report.drifted:
        console.print(f"[bold red]{one.view}:{one.feature} has drifted[/] in {one.window}", highlight=False)
    few = sum(not one.is_judged for one in report.features)
    if few:
        console.print(f"{few} of {len(report.features)} are not judged: too few rows")
