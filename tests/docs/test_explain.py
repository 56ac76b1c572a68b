"""The page docs/explain.md, typed in: what it says that the command prints is what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.online.embedded import EmbeddedStore
from featurestore.online.probe import free_port
from tests.docs.pages import ROOT, Reader, clean_environment, type_in

PAGE = ROOT / "docs" / "explain.md"
PORT_ON_PAGE = "6566"


@pytest.mark.slow
def test_the_page_works_as_written(tmp_path: Path) -> None:
    """A late payment, the logged answer from before it, and a recount that tells the two apart."""
    reader = Reader(tmp_path, clean_environment())
    try:
        languages = type_in(PAGE.read_text(encoding="utf-8").replace(PORT_ON_PAGE, str(free_port())), reader)
    finally:
        reader.leave()
        EmbeddedStore(tmp_path / "data" / "store").stop()

    assert languages == {"bash", "python", "text"}
