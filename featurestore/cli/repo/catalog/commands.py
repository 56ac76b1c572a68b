"""`featurestore list | describe | search`: what there is, whose it is, and what it means."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.settings import format_option, load_settings, print_json, registry_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featurestore.definitions.governance.catalog import Item

KINDS = ("sources", "views", "features", "services")


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS))
@click.option("--owner", metavar="TEAM", help="Only what this team answers for.")
@click.option("--tier", type=click.IntRange(1, 4), help="Only what is of this tier.")
@registry_options
@format_option
def list_command(
    repo: Path | None,
    registry: str | None,
    project: str | None,
    kind: str | None,
    owner: str | None,
    tier: int | None,
    output: str,
) -> None:
    """List what is registered: sources, views and services, or the one kind that is named; features only by name.

    Each with its owner, tier and class of personal data, and what its author says of it.
    """
    wanted = {kind.removesuffix("s")} if kind else {"source", "view", "service"}
    items = [item for item in _items(repo, registry, project) if item.kind in wanted]
    items = [item for item in items if owner in (None, item.about.owner)]
    items = [item for item in items if tier is None or item.about.tier == str(tier)]
    _print_items(items, output)


@click.command("search")
@click.argument("words", nargs=-1, required=True)
@registry_options
@format_option
def search_command(
    repo: Path | None, registry: str | None, project: str | None, words: tuple[str, ...], output: str
) -> None:
    """Find what is registered by words: of its name, description, owner, use case, or of what it means.

    All the words must be said of it. What is called so comes first.
    """
    from featurestore.definitions.governance.catalog import search_items

    _print_items(search_items(_items(repo, registry, project), words), output)


@click.command("describe")
@click.argument("name", metavar="NAME")
@registry_options
@format_option
def describe_command(repo: Path | None, registry: str | None, project: str | None, name: str, output: str) -> None:
    """Describe a source, view, service, or a feature as VIEW:FEATURE.

    What a feature means is one sentence made from its definition: function, column, window and how exact it is.
    """
    from featurestore.cli.repo.catalog.screen import described
    from featurestore.definitions.governance.catalog import item_called

    items = _items(repo, registry, project)
    item = item_called(items, name)
    known = {one.name: one for one in items if one.kind == "feature"}
    parts = [known[part] for part in item.parts if part in known]
    if output == "json":
        print_json({**_as_json(item), "features": [_as_json(part) for part in parts]})
        return
    click.echo(described(item, parts))


def _items(repo: Path | None, registry: str | None, project: str | None) -> list[Item]:
    """The catalog of what is registered; what has a mistake there is left out."""
    from featurestore.definitions.governance.catalog import catalog_of
    from featurestore.definitions.registry import compile_registry, read_registry_bytes

    settings = load_settings(repo=repo, registry=registry, project=project)
    content = read_registry_bytes(settings.registry)
    return catalog_of(compile_registry(content, project=settings.project).spec, content)


def _print_items(items: Sequence[Item], output: str) -> None:
    """Some of the catalog."""
    if output == "json":
        print_json([_as_json(item) for item in items])
        return
    from featurestore.cli.repo.catalog.screen import listed

    click.echo(listed(items))


def _as_json(item: Item) -> dict[str, Any]:
    content = asdict(item)
    return {**content, "parts": list(item.parts)}
