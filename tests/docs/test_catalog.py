"""The page docs/catalog.md, typed in as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import reader_in, type_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "catalog.md"
PORT_ON_PAGE = "8765"

pytestmark = pytest.mark.slow


def test_the_page_works_as_written(tmp_path: Path, port: int) -> None:
    """Every command succeeds, and prints what the page says."""
    page = PAGE.read_text(encoding="utf-8").replace(PORT_ON_PAGE, str(port))
    page = page.replace("```bash\nfeaturestore ui\n", f"```bash\nfeaturestore ui --port {port}\n")
    with reader_in(tmp_path) as reader:
        languages = type_in(page, reader)
        reader.interrupt_all()

    assert languages >= {"bash", "text"}
