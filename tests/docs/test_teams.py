"""The pages docs/teams.md and docs/testing-features.md, typed in as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Reader, clean_environment, type_in

DOCS = Path(__file__).resolve().parents[2] / "docs"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", ["teams.md", "testing-features.md"])
def test_the_page_works_as_written(page: str, tmp_path: Path) -> None:
    """Every command succeeds, and prints what the page says."""
    reader = Reader(tmp_path, clean_environment())
    try:
        languages = type_in((DOCS / page).read_text(encoding="utf-8"), reader)
    finally:
        reader.leave()

    assert languages >= {"bash", "text"}
