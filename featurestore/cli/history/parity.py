"""`featurestore parity`: what a server logged, recomputed from the event log, and every difference explained or not."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.history.training_set import BytesType, parse_table
from featurestore.cli.lookup.given import MomentType
from featurestore.cli.lookup.screen import moment_text, plain_json
from featurestore.cli.narrow_table import narrow_table
from featurestore.cli.settings import event_log_option, format_option, load_settings, print_json, registry_options
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.table import Table

    from featurestore.offline.parity.checking.batch import LoggedRows
    from featurestore.offline.parity.report import Example, ParityReport

EXIT_UNEXPLAINED = 1
MESSAGES_SUFFIX = ".jsonl"
EXAMPLES_SHOWN_MAX = 10
VALUE_CHARACTERS_MAX = 60

_VALUES = ("logged", "recomputed", "at_positions")


@click.command("parity")
@registry_options
@click.option(
    "--log",
    required=True,
    metavar="DIR|URI|FILE.jsonl",
    envvar="FEATURESTORE_LOG_FEATURES",
    show_envvar=True,
    help="Feature log, as `featurestore serve --log-features` wrote it; or the messages of its topic, a line each.",
)
@event_log_option("events", "DIR|URI", "Event logs.")
@click.option("--service", metavar="NAME", help="Only this feature service. Default: all that were logged.")
@click.option("--since", "since_ms", type=MomentType(), help="Only rows that were logged from then on.")
@click.option("--until", "until_ms", type=MomentType(), help="Only rows that were logged before.")
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="VIEW=PATH:TIMESTAMP[:CREATED]",
    help="Parquet table behind a materialized view, to compare that view too; may be repeated.",
)
@click.option(
    "--stream-since",
    "stream_since_ms",
    type=MomentType(),
    help="The store was filled from events from then on: windows that reach back further may differ.",
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as a page with plots.")
@click.option(
    "--memory",
    "memory_bytes",
    type=BytesType(),
    default="2GB",
    show_default=True,
    help="What events may take; more go through the disk.",
)
@click.option(
    "--shadow",
    "is_of_shadow",
    is_flag=True,
    help="Compare the answers of --service with those of its shadow, and not with history.",
)
@format_option
@click.pass_context
def command(
    context: click.Context,
    repo: Path | None,
    project: str | None,
    registry: str | None,
    log: str,
    events: str | None,
    service: str | None,
    since_ms: int | None,
    until_ms: int | None,
    tables: tuple[str, ...],
    stream_since_ms: int | None,
    html: Path | None,
    memory_bytes: int,
    is_of_shadow: bool,
    output: str,
) -> None:
    """Recompute what was answered; exit code 0 when every difference is explained, 1 when one is not.

    Example: featurestore parity --log data/served --event-log data/event_log --html parity.html

    With --shadow it says of every feature how often the shadow of a service answers the same, and how far off it is.
    """
    if is_of_shadow:
        from featurestore.cli.history.shadow import show_shadow

        if service is None:
            raise click.UsageError("--shadow is of one service: name it by --service")
        show_shadow(_read_log(log, None, since_ms, until_ms), service, since_ms, until_ms, output)
        return
    from rich.console import Console

    from featurestore.definitions.registry import read_registry
    from featurestore.offline.parity.check import check_parity
    from featurestore.offline.parity.checking.batch import ParityOptions
    from featurestore.offline.parity.reads import PinnedEventLogs

    plain = dict(map(parse_table, tables))
    settings = load_settings(repo=repo, project=project, registry=registry)
    root = events or settings.event_logs
    spec = read_registry(settings.registry, project=settings.project)
    logged = _read_log(log, service, since_ms, until_ms)
    with Console(stderr=True).status("recomputing ...") as status:
        report = check_parity(
            spec,
            logged,
            PinnedEventLogs(root),
            plain=plain,
            options=ParityOptions(since_ms, until_ms, stream_since_ms, memory_bytes),
            on_rows=lambda rows: status.update(f"{rows:,} logged rows compared"),
        )
    if not report.row_count:
        raise InvalidRequest(
            f'feature log "{log}" has no rows to compare',
            hint="check --service, --since and --until, and that the server runs with --log-features",
        )
    if output == "json":
        print_json(report_content(report))
    else:
        show_report(report)
    if html is not None:
        from featurestore.offline.parity.page import render_page

        html.write_text(render_page(report, settings.project), encoding="utf-8")
        click.echo(f"report: {html}", err=output == "json")
    context.exit(EXIT_UNEXPLAINED if report.has_unexplained else 0)


def _read_log(log: str, service: str | None, since_ms: int | None, until_ms: int | None) -> Iterable[LoggedRows]:
    """Files of a feature log, or messages of one."""
    from featurestore.offline.parity.feature_log import find_logged_files
    from featurestore.offline.parity.log_directory import LogDirectory

    if log.endswith(MESSAGES_SUFFIX):
        return _read_messages(Path(log), service)
    return find_logged_files(LogDirectory(log), service=service, since_ms=since_ms, until_ms=until_ms)


def _read_messages(path: Path, service: str | None) -> Sequence[LoggedRows]:
    """Messages that were consumed from a topic."""
    from featurestore.offline.parity.feature_log_json import decode_messages

    try:
        with path.open("rb") as lines:
            return decode_messages(lines, service=service)
    except OSError as error:
        raise InvalidRequest(f'feature log "{path}" cannot be read', detail=str(error)) from error


def show_report(report: ParityReport) -> None:
    """A row for each feature, the causes, and examples of what nothing explains; fits on 80 columns."""
    from rich.console import Console

    from featurestore.offline.parity.report import ValueOutcome

    console = Console()
    console.print(f"{report.row_count:,} logged rows", highlight=False)
    for uri, version in report.event_logs.items():
        console.print(f"event log {uri}, version {version}", highlight=False, markup=False)
    for service, view in dict.fromkeys((name.service, name.view) for name in report.outcomes):
        console.print(_table_of(report, service, view))
    for outcome, count in sorted(report.total.items()):
        style = "red" if outcome is ValueOutcome.UNEXPLAINED else None
        console.print(_filled(f"{count:>12,}  ", outcome.text, console.width), style=style, highlight=False)
    for example in report.examples[:EXAMPLES_SHOWN_MAX]:
        for line in _example_lines(example):
            text = _filled(line[: len(line) - len(line.lstrip())], line.lstrip(), console.width)
            console.print(text, style="red", highlight=False, markup=False)


def _table_of(report: ParityReport, service: str, view: str) -> Table:
    """The features of a view in a service; what both are called stands once, above them."""
    from featurestore.offline.parity.report import kinds_of

    numbers = ("values", "equal", "explained", "unexplained", "not\ncompared")
    table = narrow_table(f"{service}: {view}", texts=("feature",), numbers=numbers)
    for name, outcomes in report.outcomes.items():
        if (name.service, name.view) != (service, view):
            continue
        kinds, count = kinds_of(outcomes), sum(outcomes.values())
        cells = [f"{each:,}" for each in (count, *kinds, count - sum(kinds))]
        table.add_row(name.feature, *cells, style="red" if kinds[2] else None)
    return table


def _example_lines(example: Example) -> list[str]:
    """A value that nothing explains: whose, what it was and would be, and where to look it up."""
    logged, recomputed, at_positions = map(_shortened, (example.logged, example.recomputed, example.at_positions))
    return [
        f"unexplained: {example.name.view}:{example.name.feature} of {example.entity_text} at "
        f"{moment_text(example.as_of_ms)}",
        f"    logged {logged}, recomputed {recomputed}, at its positions {at_positions}",
        f"    request {example.request_id} row {example.request_row}, positions {example.positions_text}",
    ]


def _filled(begin: str, text: str, width: int) -> str:
    """Lines of a width, the later ones below the first one's text."""
    return textwrap.fill(
        text,
        width,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,
        break_on_hyphens=False,
    )


def report_content(report: ParityReport) -> dict[str, object]:
    """All that was found, for --format json."""
    return {
        "row_count": report.row_count,
        "first_ms": report.first_ms,
        "last_ms": report.last_ms,
        "event_logs": [{"uri": uri, "version": version} for uri, version in report.event_logs.items()],
        "features": [
            {**asdict(name), "outcomes": {outcome.name.lower(): count for outcome, count in sorted(outcomes.items())}}
            for name, outcomes in report.outcomes.items()
        ],
        "outcomes": {outcome.name.lower(): count for outcome, count in sorted(report.total.items())},
        "examples": [
            {**asdict(example), **{name: plain_json(getattr(example, name)) for name in _VALUES}}
            for example in report.examples
        ],
    }


def _shortened(value: object) -> str:
    """A value as text, cut where it is long."""
    text = "null" if value is None else str(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + " ..."
