"""The page docs/request-time-features.md, typed in beside a copy of the example repo."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, reader_in, type_in

PAGE = ROOT / "docs" / "request-time-features.md"
PORT_ON_PAGE = "6566"


@pytest.mark.slow
def test_the_page_works_as_written(tmp_path: Path, port: int) -> None:
    """Typed in from top to bottom, every command succeeds and prints what the page says."""
    page = PAGE.read_text(encoding="utf-8").replace(PORT_ON_PAGE, str(port))
    with reader_in(tmp_path) as reader:
        assert type_in(page, reader) == {"bash", "python", "text"}
