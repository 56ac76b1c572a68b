"""The page docs/versions.md, typed in beside a copy of the example repo."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.docs.pages import Reader, type_in

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "versions.md"


def test_the_page_works_as_written(tmp_path: Path) -> None:
    """The service is written, and both applies go through as the page shows."""
    shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo", ignore=shutil.ignore_patterns("data"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEATURESTORE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(ROOT)
    reader = Reader(tmp_path, environment)
    try:
        assert type_in(PAGE.read_text(encoding="utf-8"), reader) == {"bash", "python", "text"}
    finally:
        reader.leave()
