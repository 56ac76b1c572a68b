"""The page docs/enrichment.md, typed in: rates by topic, cards by files, a lookup and a training set of the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.online.embedded import EmbeddedStore
from featurestore.online.probe import free_port
from tests.docs.pages import Reader, clean_environment, type_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "enrichment.md"


@pytest.mark.slow
def test_the_page_works_as_written(tmp_path: Path) -> None:
    """Every value is that of the version which was in force."""
    page = PAGE.read_text(encoding="utf-8").replace("6566", str(free_port()))
    reader = Reader(tmp_path, clean_environment())
    try:
        languages = type_in(page, reader)
    finally:
        reader.leave()
        EmbeddedStore(tmp_path / "data" / "store").stop()

    assert languages == {"bash", "python", "text"}
