"""A table for terminals of 80 columns: no lines between its columns, long names folded, figures never cut off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def narrow_table(title: str, *, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """An empty table, texts to the left and numbers to the right; the first column takes what the others leave."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 1, 0, 0),
    )
    for index, heading in enumerate(texts):
        table.add_column(heading, no_wrap=index > 0, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
