"""The catalog page of the docs is what the code says."""

import pytest

from scripts.aggregations_page import PAGE, page


def test_the_page_of_aggregations_is_written_from_the_code() -> None:
    """A function that changes, or joins the catalog, changes the page in the same commit."""
    if PAGE.read_text(encoding="utf-8") != page():
        pytest.fail("docs/aggregations.md is out of date: run python scripts/aggregations_page.py")
