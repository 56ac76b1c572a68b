"""Which DataSource messages of a registry have labels."""

from __future__ import annotations

from typing import Any

LABEL_COLUMNS_TAG = "label_columns"
"""Tag of a DataSource: it has labels, in these columns, by commas."""


def label_sources(registry: Any, project: str) -> list[Any]:
    """Those of a project, by name; of Feast's own classes or of `wire.feast.protos`."""
    mine = [each for each in registry.data_sources if each.project in ("", project) and LABEL_COLUMNS_TAG in each.tags]
    return sorted(mine, key=lambda each: str(each.name))
