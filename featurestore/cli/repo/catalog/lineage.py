"""`featurestore lineage`: what breaks if a column goes, and what a feature is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.settings import format_option, load_settings, print_json, registry_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featurestore.catalog.lineage.graph import Reached


@click.command("lineage")
@click.argument("name", metavar="COLUMN|FEATURE|NAME")
@click.option("--up", is_flag=True, help="What it is made of, instead of what depends on it.")
@registry_options
@format_option
def command(name: str, up: bool, repo: Path | None, registry: str | None, project: str | None, output: str) -> None:
    """Say what depends on a column of a source, and how; or on a topic, table, source, view or feature.

    A column is written SOURCE.COLUMN, a feature VIEW:FEATURE; alone, where only one is called so.

    Example: featurestore lineage transactions.market
    """
    from featurestore.catalog.lineage.graph import Lineage
    from featurestore.definitions.registry import compile_registry, read_registry_bytes

    settings = load_settings(repo=repo, registry=registry, project=project)
    content = read_registry_bytes(settings.registry)
    lineage = Lineage(compile_registry(content, project=settings.project).spec)
    node = lineage.find(name)
    reached = lineage.comes_from(node) if up else lineage.depends_on(node)
    if output == "json":
        print_json(
            {
                "kind": node.kind,
                "name": node.name,
                "direction": "up" if up else "down",
                "reached": [_as_json(one) for one in reached],
            }
        )
        return
    click.echo(f"{node.kind} {node.name}")
    if not reached:
        click.echo("  it is made of nothing else" if up else "  nothing depends on it")
    for line in _lines(reached):
        click.echo(line)


def _lines(reached: Sequence[Reached]) -> list[str]:
    """By kind, each with how it comes."""
    from featurestore.catalog.lineage.graph import KINDS

    lines = []
    for kind in KINDS:
        mine = [one for one in reached if one.node.kind == kind]
        width = max((len(one.node.name) for one in mine), default=0)
        if mine:
            lines.append(f"  {len(mine)} {kind}{'s' if len(mine) > 1 else ''}")
        lines += [f"    {one.node.name:<{width}}  {one.arrow.why}" for one in mine]
    return lines


def _as_json(one: Reached) -> dict[str, Any]:
    return {
        "kind": one.node.kind,
        "name": one.node.name,
        "steps": one.steps,
        "from": one.arrow.begin.name,
        "to": one.arrow.end.name,
        "why": one.arrow.why,
    }
