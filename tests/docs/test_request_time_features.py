"""The page docs/request-time-features.md, typed in beside a copy of the example repo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import Reader, type_in

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "request-time-features.md"
PORT_ON_PAGE = "6566"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with a fresh copy of the example repo, and nothing else running."""
    shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo", ignore=shutil.ignore_patterns("data"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEATURESTORE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(ROOT)
    reader = Reader(tmp_path, environment)
    yield reader
    reader.leave()
    subprocess.run(["featurestore", "store", "stop"], cwd=tmp_path, env=environment, check=True, capture_output=True)


@pytest.mark.slow
def test_the_page_works_as_written(reader: Reader, port: int) -> None:
    """Typed in from top to bottom, every command succeeds and prints what the page says."""
    languages = type_in(PAGE.read_text(encoding="utf-8").replace(PORT_ON_PAGE, str(port)), reader)

    assert languages == {"bash", "python", "text"}
