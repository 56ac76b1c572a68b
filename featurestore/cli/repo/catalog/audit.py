"""`featurestore audit`: who did what, and whether the log of it is whole."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.settings import format_option, load_settings, print_json, repo_option, time_ms
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.definitions.governance.audit.reading import Entry

EXIT_BROKEN = 1
"""The log is not whole."""

AUDIT_OPTION = click.option(
    "--audit",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the audit log. Default: what feature_store.yaml says.  [env var: FEATURESTORE_AUDIT]",
)


@click.group("audit", invoke_without_command=True)
@click.option("--who", default="", metavar="NAME", help='Only what this user or model did; "risk-*" for several.')
@click.option(
    "--what", default="", metavar="TEXT", help="Only this, such as apply or refused, or what it was done with."
)
@click.option("--since", metavar="TIME", help="Only since then: 30d ago, or 2026-11-30T12:00:00Z.")
@AUDIT_OPTION
@repo_option
@format_option
@click.pass_context
def command(
    context: click.Context,
    who: str,
    what: str,
    since: str | None,
    directory: Path | None,
    repo: Path | None,
    output: str,
) -> None:
    """Show who did what: applies, lookups by the minute, training sets, erasures, refusals.

    With `verify` it says whether a line is missing, changed or out of place.
    """
    if context.invoked_subcommand is not None:
        return
    from featurestore.definitions.governance.audit.reading import find_entries

    found = find_entries(log_directory(directory, repo), who=who, what=what, since_ms=since_ms_of(since))
    if output == "json":
        print_json([asdict(one) for one in found])
        return
    for one in found:
        click.echo(_shown(one))


@command.command("verify")
@click.option("--since", metavar="TIME", help="Files that were complete before then may have been taken away.")
@click.option("--head", default="", metavar="HASH", help="A head that was printed before, and must be there still.")
@AUDIT_OPTION
@repo_option
@format_option
def verify_command(since: str | None, head: str, directory: Path | None, repo: Path | None, output: str) -> int:
    """Read the whole log, and say what does not fit; prints its head, to be kept where nobody can change it.

    Exit code 1: something is missing, changed or out of place.
    """
    from featurestore.definitions.governance.audit.reading import verify

    found = verify(log_directory(directory, repo), since_ms=since_ms_of(since), head=head)
    if output == "json":
        print_json(asdict(found))
    else:
        for problem in found.problems:
            click.echo(f"problem: {problem}")
        for note in found.notes:
            click.echo(f"note: {note}")
        click.echo(f"{found.lines:,} lines of {found.writers:,} writers; head {found.head.hash}")
        click.echo("something is missing, changed or out of place" if found.problems else "all of them fit")
    return EXIT_BROKEN if found.problems else 0


def log_directory(directory: Path | None, repo: Path | None) -> Path:
    """Where the log is: what was given, else what the repo says.

    Raises:
        InvalidRequest: nothing says it.
    """
    found = directory or load_settings(repo=repo).audit
    if found is None:
        raise InvalidRequest(
            "there is no audit log", hint="write `audit: DIRECTORY` into feature_store.yaml, or give --audit"
        )
    return found


def since_ms_of(text: str | None) -> int:
    """A moment, or a duration before now; 0 where nothing was given."""
    from featurestore.clock import SystemClock

    return time_ms(text, SystemClock().now_ms()) or 0


def _shown(entry: Entry) -> str:
    """One line: when, who, what, with what, and what is to be known about it."""
    moment = datetime.fromtimestamp(entry.at_ms / 1_000, tz=UTC).isoformat(sep=" ", timespec="seconds")[:19]
    told = ", ".join(f"{name} {_short(value)}" for name, value in entry.details.items() if value not in ("", [], {}))
    who = entry.who or "somebody"
    return f"{moment}  {who}  {entry.what} {entry.outcome}  {entry.on}" + (f"  ({told})" if told else "")


def _short(value: Any) -> str:
    """A value within a line."""
    if isinstance(value, list):
        return f"{len(value)}" if value and isinstance(value[0], dict) else " ".join(map(str, value))
    return str(value)
