"""Where the audit log is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

AUDIT_VARIABLE = "FEATURESTORE_AUDIT"
"""Environment variable: directory of the audit log; before what feature_store.yaml says."""


def audit_directory(content: Mapping[str, object], repo: Path | None) -> Path | None:
    """Where the audit log is: the environment, else `audit` of feature_store.yaml; None for nowhere.

    Args:
        content: of the file.
        repo: from which a relative path counts.
    """
    said = os.environ.get(AUDIT_VARIABLE)
    if said:
        return Path(said)
    found = content.get("audit")
    return (repo or Path()) / found if isinstance(found, str) and found else None
