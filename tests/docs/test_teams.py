"""The page docs/teams.md, typed in as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Reader, clean_environment, type_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "teams.md"

pytestmark = pytest.mark.slow


def test_the_page_works_as_written(tmp_path: Path) -> None:
    """Every command succeeds, and prints what the page says."""
    reader = Reader(tmp_path, clean_environment())
    try:
        languages = type_in(PAGE.read_text(encoding="utf-8"), reader)
    finally:
        reader.leave()

    assert languages == {"bash", "python", "text"}
