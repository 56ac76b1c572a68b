"""The registry of what is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dataflows.conftest import applied_repo

SERVICE = """
from feast import FeatureService

cards_service = FeatureService(name="cards_service", features=[cards])
"""


@pytest.fixture(scope="session")
def published_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repo with a service of cards."""
    return applied_repo(tmp_path_factory.mktemp("published") / "repo", more=SERVICE)
