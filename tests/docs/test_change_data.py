"""The page docs/change-data.md, typed in: rows are inserted, corrected and deleted, and some changes come twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.online.embedded import EmbeddedStore
from featurestore.online.probe import free_port
from tests.docs.pages import Reader, clean_environment, type_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "change-data.md"


@pytest.mark.slow
def test_the_page_works_as_written(tmp_path: Path) -> None:
    """Every lookup says what the rows that are left say."""
    page = PAGE.read_text(encoding="utf-8").replace("6566", str(free_port()))
    reader = Reader(tmp_path, clean_environment())
    try:
        languages = type_in(page, reader)
    finally:
        reader.leave()
        EmbeddedStore(tmp_path / "data" / "store").stop()

    assert languages == {"bash", "python", "text"}
