"""Which rows `featurestore history` adds features to: those of a file, or the labels of a registered source."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from featurestore.cli.history.spark import PlaceType, local_file
from featurestore.cli.lookup.given import MomentType

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.core.spec import RepoSpec

TIMESTAMP_COLUMN = "event_timestamp"


@dataclass(frozen=True, slots=True)
class AskedRows:
    """Label rows, before they are read.

    Attributes:
        entities: file of them; None where a source is named.
        labels: name of a source of labels; "" where a file is.
        as_of_ms: when labels must have been known; None is now.
        immature: what becomes of events that are too young.
        timestamp_column: of a file.
    """

    entities: Path | str | None
    labels: str
    as_of_ms: int | None
    immature: Literal["drop", "mark"]
    timestamp_column: str

    @property
    def place(self) -> str:
        """Where they are, for the audit log."""
        return f"labels {self.labels}" if self.labels else str(self.entities)

    def read(
        self, spec: RepoSpec, read_file: Callable[[Path], pa.Table], repo_path: Path | None, out: Path | str
    ) -> tuple[pa.Table, str]:
        """The rows, and the column with their times; says what of the labels was left out.

        Raises:
            UsageError: what is written is the table of labels.
        """
        if self.entities is not None:
            return read_file(local_file(self.entities)), self.timestamp_column
        from featurestore.offline.labels import counts_text, labelled
        from featurestore.offline.training_set.plain_join import located

        found = labelled(spec, self.labels, as_of_ms=self.as_of_ms, immature=self.immature, repo_path=repo_path)
        source = next(one for one in spec.label_sources if one.name == self.labels)
        read = located(source.table, repo_path)
        if isinstance(read, Path) and Path(out).exists() and read.samefile(out):
            raise click.UsageError(f'"{out}" is the table of the labels, and would be written over: name another file')
        click.echo(counts_text(found.counts, source, self.immature), err=True)
        return found.table, found.timestamp_column


def rows_options(function: Callable[..., None]) -> Callable[..., None]:
    """--entities, --labels and what belongs to them, for a click command; it gets all as `asked`."""

    @functools.wraps(function)
    def command(
        entities: Path | str | None,
        timestamp_column: str,
        labels: str | None,
        labels_as_of: int | None,
        immature: Literal["drop", "mark"] | None,
        **others: object,
    ) -> None:
        if (entities is None) == (labels is None):
            raise click.UsageError("give --entities, or --labels with the name of a registered source")
        if labels is None and (labels_as_of is not None or immature is not None):
            raise click.UsageError("--labels-as-of and --immature are for --labels")
        if labels is not None and (others.get("at_ms") is not None or timestamp_column != TIMESTAMP_COLUMN):
            raise click.UsageError("--labels have the times of their events: leave --at and --timestamp-column out")
        if labels is not None and others.get("engine") == "spark":
            raise click.UsageError("--labels are for --engine local: give Spark the rows as a file, by --entities")
        asked = AskedRows(entities, labels or "", labels_as_of, immature or "drop", timestamp_column)
        function(asked=asked, **others)

    for option in (
        click.option(
            "--timestamp-column", default=TIMESTAMP_COLUMN, show_default=True, help="Column with the label times."
        ),
        click.option(
            "--immature",
            type=click.Choice(["drop", "mark"]),
            help="Labels of events too young to be sure: leave them out (the default), or keep them and mark them in"
            " label_is_mature.",
        ),
        click.option(
            "--labels-as-of",
            type=MomentType(),
            help="Only labels that were known then count. Default: now.",
        ),
        click.option("--labels", metavar="NAME", help="A source of labels (label_source), instead of a file."),
        click.option(
            "--entities",
            type=PlaceType(exists=True),
            help="Label rows: Parquet, CSV, JSON (lines or an array) or Arrow IPC, by the name's ending.",
        ),
    ):
        command = option(command)
    return command
