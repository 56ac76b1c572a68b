"""The pytest fixture `features`: the calculator of a feature repo, loaded once a session.

pytest_plugins = ["featurestore.testing.features.fixture"]     in conftest.py; the repo is --feature-repo, else where
feature_store.yaml is: above the tests, or feature_repo/
"""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.definitions.repo import load_repo
from featurestore.testing.features.calculator import FeatureCalculator

FILE_NAME = "feature_store.yaml"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option --feature-repo."""
    parser.addoption("--feature-repo", metavar="DIR", help=f"directory of {FILE_NAME} for the fixture `features`")


@pytest.fixture(scope="session")
def features(request: pytest.FixtureRequest) -> FeatureCalculator:
    """Computes features of the repo's definitions, in memory."""
    given = request.config.getoption("--feature-repo")
    root = Path(str(request.config.rootpath))
    places = [Path(given)] if given else [root, root / "feature_repo"]
    found = next((place for place in places if (place / FILE_NAME).is_file()), None)
    if found is None:
        pytest.fail(f"no {FILE_NAME} in {', '.join(map(str, places))}: give --feature-repo")
    return FeatureCalculator(load_repo(found, "tests").compile().require_sound())
