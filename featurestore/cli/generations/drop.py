"""`featurestore drop VIEW`: list the retired generations of a view, and delete one for good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.settings import format_option, load_settings, print_json, settings_options
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.online.generation import Generation


@click.command("drop")
@click.argument("view")
@click.option(
    "--generation", "number", type=click.IntRange(min=1), metavar="N", help="Delete this one. Default: list only."
)
@settings_options
@format_option
def command(
    view: str,
    number: int | None,
    output: str,
    repo: Path | None,
    registry: str | None,
    project: str | None,
    store_url: str | None,
    cluster: bool | None,
) -> None:
    """List the retired generations of VIEW; with --generation, delete the keys of one for good, without asking.

    Retired ones expire by themselves one retention after their last write, those of lifetime features never. A dropped
    one cannot be rolled back to. Only retired generations can be dropped: nothing reads or writes them.
    """
    from featurestore.cli.generations.status import open_running_store
    from featurestore.online.generation import GenerationState
    from featurestore.online.generation_catalog import GenerationCatalog

    settings = load_settings(repo=repo, registry=registry, project=project, store_url=store_url, cluster=cluster)
    store = open_running_store(settings)
    try:
        catalog = GenerationCatalog(store, settings.project)
        known = _generations(catalog.all(), view)
        retired = [one for one in known if one.state is GenerationState.RETIRED]
        if number is None:
            _list(view, known, retired, output)
            return
        wanted = next((one for one in known if one.number == number), None)
        if wanted is None or wanted not in retired:
            raise InvalidRequest(_why_not(view, number, wanted), hint=_remedy(view, retired))
        keys = catalog.drop(wanted)
        if output == "json":
            print_json({"view": view, "dropped": number, "keys": keys})
        else:
            click.echo(f"{view}@{number} is dropped: {keys:,} keys")
    finally:
        store.close()


def _generations(known: dict[str, tuple[Generation, ...]], view: str) -> tuple[Generation, ...]:
    """A view's generations.

    Raises:
        InvalidRequest: the store has none.
    """
    from featurestore.definitions.problems import suggest

    if view not in known:
        raise InvalidRequest(
            f'the online store holds no stream feature view or storage group "{view}"', hint=suggest(view, known)
        )
    return known[view]


def _list(view: str, known: Sequence[Generation], retired: Sequence[Generation], output: str) -> None:
    """What can be dropped, and what a drop takes away."""
    before = next((one.replaces for one in known if one.state == "serving"), None)
    if output == "json":
        rows = [
            {"generation": one.number, "expires": one.view.retention_ms is not None, "rollback": one.number == before}
            for one in retired
        ]
        print_json({"view": view, "retired": rows})
        return
    if not retired:
        click.echo(f"{view} has no retired generation")
    for one in retired:
        lives = "until it is dropped" if one.view.retention_ms is None else "until its keys expire"
        rollback = ", `featurestore rollback` returns to it" if one.number == before else ""
        click.echo(f"{view}@{one.number}  retired, kept {lives}{rollback}")


def _why_not(view: str, number: int, found: Generation | None) -> str:
    """The fact behind a refusal."""
    name = f'generation {number} of feature view "{view}"'
    return f"{name} is {found.state.replace('_', ' ')}, not retired" if found else f"there is no {name}"


def _remedy(view: str, retired: Sequence[Generation]) -> str:
    """What can be dropped instead."""
    numbers = " or ".join(str(one.number) for one in retired)
    return f"give --generation {numbers}" if numbers else f"nothing of {view} can be dropped; see `featurestore status`"
