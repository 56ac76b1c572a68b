"""What `featurestore plan --physical` shows: which views are stored together, and what that saves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import click

from featurestore.cli.narrow_table import narrow_table
from featurestore.cli.settings import print_json
from featurestore.core.spec import ViewSpec
from featurestore.core.view import CompiledView
from featurestore.definitions.compile.storage_groups import plan_storage, storage_group
from featurestore.wire.codecs.head import head_codec


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored under one name, and what it would be if every view in it were stored by itself.

    Attributes:
        name: of the storage group, or the view.
        views: names of the views in it.
        head_bytes: of an event, without its texts.
        head_bytes_apart: the same, of all views by themselves.
        fields: numbers and texts of a tile.
        fields_apart: likewise.
        commits: scripts that a batch takes a lane.
        commits_apart: likewise.
    """

    name: str
    views: tuple[str, ...]
    head_bytes: int
    head_bytes_apart: int
    fields: int
    fields_apart: int
    commits: int
    commits_apart: int


def physical_plan(views: Iterable[ViewSpec]) -> list[Stored]:
    """What is stored of some views, groups first."""
    plan = plan_storage(views)
    groups = [_stored(storage_group(name, members), members) for name, members in plan.groups.items()]
    return [*groups, *(_stored(view, [view]) for view in sorted(plan.apart, key=lambda view: view.name))]


def show_physical(views: Sequence[ViewSpec], output: str) -> None:
    """Print the physical plan."""
    found = physical_plan(views)
    if output == "json":
        print_json([asdict(one) for one in found])
        return
    if not found:
        click.echo("the repo has no stream feature views")
        return
    from rich.console import Console

    console = Console()
    table = narrow_table(
        "stored", texts=("name",), numbers=("views", "bytes of\nan event", "fields of\na tile", "commits\na lane")
    )
    for one in found:
        table.add_row(
            one.name,
            str(len(one.views)),
            _compared(one.head_bytes, one.head_bytes_apart),
            _compared(one.fields, one.fields_apart),
            _compared(one.commits, one.commits_apart),
        )
    console.print(table)
    if any(len(one.views) > 1 for one in found):
        console.print("in brackets: what it would be if every view were stored by itself")
    for one in found:
        if len(one.views) > 1:
            console.print(f"{one.name}: {', '.join(one.views)}")


def _stored(view: ViewSpec, members: Sequence[ViewSpec]) -> Stored:
    """What is stored of some views together."""
    apart = [_sizes(CompiledView(member)) for member in members]
    head_bytes, fields = _sizes(CompiledView(view))
    return Stored(
        view.name,
        tuple(member.name for member in members),
        head_bytes,
        sum(bytes_apart for bytes_apart, _ in apart),
        fields,
        sum(fields_apart for _, fields_apart in apart),
        1,
        len(members),
    )


def _sizes(compiled: CompiledView) -> tuple[int, int]:
    """Bytes of an event in a head, and fields of a tile."""
    layout = compiled.layout
    fields = len(layout.int_fields) + len(layout.float_fields) + len(layout.blob_fields)
    return head_codec(compiled).row_bytes_min, fields


def _compared(together: int, apart: int) -> str:
    """A figure, and what it would be."""
    return str(together) if together == apart else f"{together} ({apart})"
