"""The page docs/small-entities.md, typed in beside a copy of the example repo."""

from pathlib import Path

from tests.docs.pages import ROOT, reader_in, type_in

PAGE = ROOT / "docs" / "small-entities.md"


def test_the_page_works_as_written(tmp_path: Path) -> None:
    """The view is written and applied."""
    with reader_in(tmp_path) as reader:
        assert type_in(PAGE.read_text(encoding="utf-8"), reader) == {"bash", "python"}
