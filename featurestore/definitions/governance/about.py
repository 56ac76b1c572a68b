"""Whose something is and what it is for: Feast's own owner and description, and tags for what it has no field for.

    stream_view(..., owner="payments-risk", tags=about(on_call="#risk-oncall", tier=1, use_case="fraud"))

None of it is part of what a view means: its hash stays, and so do its values. Whatever a feature does not say of
itself, its view says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from featurestore.definitions.problems import Place, ProblemList, suggest
from featurestore.wire.feast.authors import Authored, AuthoredField, authored_in

OWNER_TAG = "owner"
"""Tag of a Field: the team that answers for it, where that is not its view's."""

ON_CALL_TAG = "on_call"
"""Tag of a source, view, Field or service: whom to reach when it is wrong, such as "#risk-oncall"."""

TIER_TAG = "tier"
"""Tag of a source, view, Field or service: how much depends on it: 1 most, 4 nothing."""

PII_TAG = "pii"
"""Tag of a source, view, Field or service: what it tells of a person, "none" to "sensitive"."""

PII_COLUMN_TAG_PREFIX = "pii."
"""Tag of a source: the same of the values of the column NAME."""

USE_CASE_TAG = "use_case"
"""Tag of a source, view, Field or service: what it is for, such as "fraud"."""

DOCS_TAG = "docs"
"""Tag of a source, view, Field or service: address of the page about it."""

DEPRECATED_UNTIL_TAG = "deprecated_until"
"""Tag of a view or Field: its last day, such as "2027-01-31"; after it, it may change for those who read it."""

REPO_TAG = "repo"
"""Tag of a source, view or service: the repo that it belongs to, where several share a registry."""

_DAY = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")

TIERS = ("1", "2", "3", "4")
PII_CLASSES = ("none", "pseudonymous", "personal", "sensitive")
"""What values tell of a person, least first: nothing, something of who has the key, who it is, what hurts him."""


@dataclass(frozen=True, slots=True)
class About:
    """What people are told of an object; "" for what nobody wrote."""

    owner: str = ""
    on_call: str = ""
    tier: str = ""
    description: str = ""
    pii: str = ""
    use_case: str = ""
    docs: str = ""

    @property
    def contact(self) -> str:
        """Owner, whom to reach and tier in one line; "" where nobody wrote any."""
        parts = (self.owner, self.on_call and f"on call {self.on_call}", self.tier and f"tier {self.tier}")
        return ", ".join(part for part in parts if part)


def about(
    *,
    on_call: str = "",
    tier: int | None = None,
    pii: str = "",
    pii_columns: Mapping[str, str] | None = None,
    use_case: str = "",
    docs: str = "",
    owner: str = "",
    deprecated_until: str = "",
) -> dict[str, str]:
    """Tags that say whose something is and what it is for; for the `tags=` of everything, plain Feast objects too.

    Args:
        on_call: whom to reach when it is wrong, such as "#risk-oncall".
        tier: how much depends on it, 1 most, 4 nothing.
        pii: what it tells of a person: "none", "pseudonymous", "personal" or "sensitive".
        pii_columns: of a source, column -> what its values tell.
        use_case: what it is for, such as "fraud".
        docs: address of the page about it.
        deprecated_until: its last day, such as "2027-01-31": then it may change for those who read it.
        owner: of features that are another team's than their view; whatever has an `owner=` of its own has it there.
    """
    tags = {ON_CALL_TAG: on_call, TIER_TAG: "" if tier is None else str(tier), PII_TAG: pii, USE_CASE_TAG: use_case}
    tags |= {DOCS_TAG: docs, OWNER_TAG: owner, DEPRECATED_UNTIL_TAG: deprecated_until}
    tags |= {PII_COLUMN_TAG_PREFIX + column: text for column, text in (pii_columns or {}).items()}
    return {tag: text for tag, text in tags.items() if text}


def about_of(authored: Authored) -> About:
    """What is said of a source, view or service."""
    return _about(authored.owner, authored.description, authored.tags)


def about_feature(view: Authored, feature: str) -> About:
    """What is said of a feature; by its view, where not by itself. A view's description is not its features'."""
    mine = view.fields.get(feature, AuthoredField())
    own = _about(mine.tags.get(OWNER_TAG, ""), mine.description, mine.tags)
    whole = replace(about_of(view), description="")
    return About(**{one.name: getattr(own, one.name) or getattr(whole, one.name) for one in fields(About)})


def contacts_of(registry: bytes | None, project: str) -> dict[str, str]:
    """View -> owner, whom to reach and tier in one line, of all that say any.

    Args:
        registry: a serialized feast.core.Registry that has been decoded before; None where there is none.
        project: Feast project.
    """
    found = () if registry is None else authored_in(registry, project)
    contacts = {one.name: about_of(one).contact for one in found if one.kind.endswith("view")}
    return {name: text for name, text in contacts.items() if text}


def pii_columns_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Column -> class, of a source's tags."""
    prefix = PII_COLUMN_TAG_PREFIX
    return {tag.removeprefix(prefix): text for tag, text in tags.items() if tag.startswith(prefix)}


def check_about(authored: Iterable[Authored], problems: ProblemList) -> None:
    """Note tiers, classes and addresses that are none. A server never asks for them, so only a plan does."""
    for one in authored:
        place = Place(one.kind, one.name)
        _check(one.tags, place, problems)
        for column, text in pii_columns_of(one.tags).items() if one.kind == "source" else ():
            if text not in PII_CLASSES:
                problems.add(place, f'the PII class of column "{column}" is "{text}"', suggest(text, PII_CLASSES))
        for feature, field in one.fields.items():
            _check(field.tags, place.of(feature), problems)


def _check(tags: Mapping[str, str], place: Place, problems: ProblemList) -> None:
    """Of one object."""
    tier, pii, docs = (tags.get(tag, "") for tag in (TIER_TAG, PII_TAG, DOCS_TAG))
    if tier and tier not in TIERS:
        problems.add(place, f'tag "{TIER_TAG}" is "{tier}"', "write 1 (most depends on it) to 4")
    if pii and pii not in PII_CLASSES:
        problems.add(place, f'tag "{PII_TAG}" is "{pii}"', suggest(pii, PII_CLASSES))
    if (until := tags.get(DEPRECATED_UNTIL_TAG, "")) and not _DAY.fullmatch(until):
        problems.add(place, f'tag "{DEPRECATED_UNTIL_TAG}" is "{until}"', 'write its last day: "2027-01-31"')
    if docs and not docs.startswith(("https://", "http://")):
        problems.add(place, f'tag "{DOCS_TAG}" is "{docs}"', "write an address: https://...")


def _about(owner: str, description: str, tags: Mapping[str, str]) -> About:
    return About(
        owner=owner,
        on_call=tags.get(ON_CALL_TAG, ""),
        tier=tags.get(TIER_TAG, ""),
        description=description,
        pii=tags.get(PII_TAG, ""),
        use_case=tags.get(USE_CASE_TAG, ""),
        docs=tags.get(DOCS_TAG, ""),
    )
