"""The page docs/first-day.md, typed in as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.online.embedded import EmbeddedStore
from tests.docs.pages import Reader, clean_environment, type_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "first-day.md"


@pytest.mark.slow
def test_the_page_works_as_written(tmp_path: Path) -> None:
    """Three teams, one policy, one violation, one refused read, one deprecation, one drift, one erased card."""
    reader = Reader(tmp_path, clean_environment())
    try:
        languages = type_in(PAGE.read_text(encoding="utf-8"), reader)
    finally:
        reader.leave()
        EmbeddedStore(tmp_path / "risk" / "data" / "store").stop()

    assert languages >= {"bash", "python", "text"}
