"""The page docs/health.md, typed in as it is written, with an embedded log."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.online.embedded import EmbeddedStore
from tests.docs.pages import Reader, clean_environment, type_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "health.md"

pytestmark = pytest.mark.slow


def test_the_page_works_as_written(tmp_path: Path, port: int) -> None:
    """Every command succeeds; what is late, strange and drifted is said to be."""
    reader = Reader(tmp_path, clean_environment())
    try:
        languages = type_in(PAGE.read_text(encoding="utf-8").replace("6566", str(port)), reader)
    finally:
        reader.leave()
        EmbeddedStore(tmp_path / "shop" / "data" / "store").stop()

    assert languages == {"bash", "python", "text"}
