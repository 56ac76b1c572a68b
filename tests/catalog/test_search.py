"""What is found is what a person would find who reads everything."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.catalog.model import FACETS, Catalog, Entry
from featurestore.catalog.search import find
from featurestore.definitions.governance.catalog import FEATURE

WORDS = ["card", "AMOUNT", "sum", "payments-risk", "q3-goals", "email", "churn", "merchant_activity", "1 h", "zebra"]
VALUES = {
    "kind": ["view", "feature", "service", "source"],
    "team": ["payments-risk", "merchant-growth", ""],
    "entity": ["card_id", "merchant_id"],
    "source": ["payments"],
    "tier": ["1", "2", ""],
    "pii": ["pseudonymous", "personal", ""],
}


def filter_sets() -> st.SearchStrategy[dict[str, str]]:
    """Any filters together."""
    one = st.sampled_from([(facet, value) for facet, values in VALUES.items() for value in values])
    return st.lists(one, max_size=3).map(dict)


def is_shown(entry: Entry, text: str, filters: Mapping[str, str]) -> bool:
    """Read from the top, with no index and no shortcut."""
    words = text.lower().split()
    passes = all(value in entry.marks[FACETS.index(facet)] for facet, value in filters.items())
    says = all(word in entry.said for word in words)
    stands_for_itself = bool(words) or "kind" in filters or entry.item.kind != FEATURE
    return passes and says and stands_for_itself


@given(text=st.lists(st.sampled_from(WORDS), max_size=2).map(" ".join), filters=filter_sets())
@settings(max_examples=150)
def test_a_search_finds_what_reading_everything_finds(catalog: Catalog, text: str, filters: dict[str, str]) -> None:
    """All of it and nothing else; and a count beside a filter is how many are there when it is chosen."""
    found = find(catalog.entries, text, filters)
    expected = {entry.item.name for entry in catalog.entries if is_shown(entry, text, filters)}
    counted = {
        (facet, value): sum(is_shown(entry, text, {**filters, facet: value}) for entry in catalog.entries)
        for facet, counts in found.counts.items()
        for value, _ in counts
    }

    assert expected == {entry.item.name for entry in found.entries}
    assert len(expected) == len(found.entries)
    assert counted == {(facet, value): count for facet, counts in found.counts.items() for value, count in counts}


def test_what_is_called_so_comes_first(catalog: Catalog) -> None:
    """Before what only mentions the words; tags, columns and owners are searched as well as names."""
    names = {text: [one.item.name for one in find(catalog.entries, text, {}).entries] for text in WORDS}

    assert "card_activity:amount_sum_1d" == find(catalog.entries, "amount sum 1d", {}).entries[0].item.name
    assert "merchant_activity" == names["merchant_activity"][0]
    assert ["merchant_activity"] == names["q3-goals"]
    assert {"card_activity:email_last_1d", "payments"} == set(names["email"])
    assert "personal" == next(one.pii for one in catalog.entries if one.item.name == "card_activity:email_last_1d")
    assert [] == names["zebra"]
