"""The page docs/erasure.md, typed in."""

from pathlib import Path

from tests.docs.pages import ROOT, reader_in, type_in

PAGE = ROOT / "docs" / "erasure.md"


def test_the_page_works_as_written(tmp_path: Path) -> None:
    """A card is erased, verified, and counts anew."""
    with reader_in(tmp_path) as reader:
        assert type_in(PAGE.read_text(encoding="utf-8"), reader) == {"bash", "text"}
