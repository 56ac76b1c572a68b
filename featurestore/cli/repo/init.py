"""`featurestore init DIR`: a feature repo to begin with, where there is no checkout to copy one from.

    DIR/feature_store.yaml           project and stores
    DIR/definitions.py               one entity, one source, one view, one service
    DIR/tests/card_activity.yaml     what its features are over a few payments, for `featurestore test`
    DIR/README.md                    from here to a lookup, command by command
    DIR/.feastignore  .gitignore     data/ is neither definition nor source code
    DIR/data/log/payments/0.jsonl    some payments of the last days, so that the first lookup has an answer

The texts are the files in `templates`. One of them is the module featurestore.cli.repo.templates.definitions to linters
and type checker, so that it cannot rot; nothing imports it here, and so this command needs no Feast.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from shlex import quote

import click

from featurestore.cli.settings import FILE_NAME
from featurestore.clock import SystemClock
from featurestore.errors import InvalidRequest

PLACEHOLDER = "my_project"
"""The project's name in the templates."""

SAMPLE_PATH = "data/log/payments/0.jsonl"

WRITTEN: Mapping[str, tuple[str, str]] = {
    FILE_NAME: (FILE_NAME, "where registry, history and features are"),
    "definitions.py": ("definitions.py", "entity, source, view and service: begin here"),
    "README.md": ("README.md", "from here to a lookup, command by command"),
    "tests/card_activity.yaml": ("card_activity.yaml", "what features are over a few payments"),
    ".feastignore": ("feastignore", "what is not searched for definitions"),
    ".gitignore": ("gitignore", "what is not committed"),
}
"""File of the new repo -> (template, what it is). Templates have no dot: package data named by "*" is without those."""

TOLERATED = frozenset({".git", ".venv", "venv"})
"""What may be in the directory before: people make these first, and no file of ours goes there."""

NAMES_SHOWN_MAX = 5

_PROJECT_NAME = re.compile(r"(?!_)\w+")
"""The names that Feast loads, here without Feast.

Its message allows hyphens too, but then it refuses them, since it takes every store for SQLite.
"""

_MINUTE_MS = 60_000
_DAY_MS = 24 * 60 * _MINUTE_MS

_SAMPLE = (
    ("card-1", 3 * _DAY_MS, 4_550, False),
    ("card-1", 2 * _DAY_MS, 12_900, False),
    ("card-1", 12 * _MINUTE_MS, 9_900, True),
    ("card-1", 11 * _MINUTE_MS, 9_900, False),
    ("card-2", 10 * _MINUTE_MS, 700, False),
)
"""Payments: card, how long ago, amount, whether it was declined."""


@click.command("init")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--project", metavar="NAME", help="Feast project. Default: the directory's name.")
def command(directory: Path, project: str | None) -> None:
    """Write a small feature repo that works, into a new or empty directory.

    Its README.md leads from there to a lookup. Whatever goes wrong, nothing half written stays behind.
    """
    project = require_project_name(directory.resolve().name if project is None else project, directory)
    require_room(directory)
    write_all_or_nothing(directory, {**render_templates(project), SAMPLE_PATH: sample_payments(SystemClock().now_ms())})
    click.echo(f'project "{project}" in {directory}')
    descriptions = {name: text for name, (_, text) in WRITTEN.items()} | {SAMPLE_PATH: "five payments to begin with"}
    for name, text in descriptions.items():
        click.echo(f"  {name:<{len(SAMPLE_PATH)}}  {text}")
    is_here = directory.resolve() == Path.cwd()
    click.echo(f"next: {'' if is_here else f'cd {quote(str(directory))}, then '}featurestore plan")


def require_project_name(name: str, directory: Path) -> str:
    """The name, if Feast takes it.

    Raises:
        InvalidRequest: it does not.
    """
    if _PROJECT_NAME.fullmatch(name):
        return name
    similar = re.sub(r"\W+", "_", name).strip("_") or PLACEHOLDER
    raise InvalidRequest(
        f'project name "{name}" is not possible',
        detail="Feast takes letters, digits and underscores, but no underscore at the beginning.",
        hint=f"featurestore init {quote(str(directory))} --project {similar}",
    )


def require_room(directory: Path) -> None:
    """Refuse a directory in which something is.

    Raises:
        InvalidRequest: it names what is there.
    """
    if not directory.exists():
        return
    names = sorted({path.name for path in directory.iterdir()} - TOLERATED)
    if not names:
        return
    shown = ", ".join(names[:NAMES_SHOWN_MAX])
    more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
    fact, remedy = "not empty", "name a new directory, or an empty one"
    if FILE_NAME in names:
        fact, remedy = "a feature repo already", f"run `featurestore plan --repo {quote(str(directory))}`"
    raise InvalidRequest(f'directory "{directory}" is {fact}', detail=f"It has {shown}{more}.", hint=remedy)


def render_templates(project: str) -> dict[str, str]:
    """File -> text, of every template."""
    templates = files("featurestore.cli.repo") / "templates"
    return {
        name: (templates / template).read_text(encoding="utf-8").replace(PLACEHOLDER, project)
        for name, (template, _) in WRITTEN.items()
    }


def sample_payments(now_ms: int) -> str:
    """JSON lines of the columns in `templates/definitions.py`, dated from `now_ms` back."""
    rows = [
        {
            "payment_id": f"payment-{number}",
            "event_time": _iso8601(now_ms - age_ms),
            "card_id": card_id,
            "amount": amount,
            "is_declined": is_declined,
        }
        for number, (card_id, age_ms, amount, is_declined) in enumerate(_SAMPLE, 1)
    ]
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)


def write_all_or_nothing(directory: Path, texts: Mapping[str, str]) -> None:
    """Write new files; when one cannot be written, neither files nor directories made so far are left.

    Args:
        directory: made where missing.
        texts: path below it -> content.

    Raises:
        OSError: something cannot be written, or has come into being meanwhile.
    """
    with contextlib.ExitStack() as undo:
        for name, text in texts.items():
            path = directory / name
            missing = [parent for parent in path.parents if not parent.exists()]
            for parent in reversed(missing):
                parent.mkdir()
                undo.callback(parent.rmdir)
            with path.open("x", encoding="utf-8") as file:
                undo.callback(path.unlink)
                file.write(text)
        undo.pop_all()


def _iso8601(moment_ms: int) -> str:
    moment = datetime.fromtimestamp(moment_ms / 1_000, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
