"""Who may do what with what is registered: Feast's Permission objects, and how they are decided.

A permission covers objects (by kind, name and tags) and actions, and grants them to users (by role, group or
namespace). What several cover is granted when one of them grants it; what none covers is granted to nobody. Where there
are no permissions at all, whoever has said who he is may do everything.

Source: https://docs.feast.dev/getting-started/concepts/permission. One difference: Feast looks for required tags among
attributes that most objects do not have, and then takes them as met; here they are looked for among the object's tags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

READ_ONLINE, READ_OFFLINE, DESCRIBE = "READ_ONLINE", "READ_OFFLINE", "DESCRIBE"
WRITE_ONLINE, WRITE_OFFLINE = "WRITE_ONLINE", "WRITE_OFFLINE"
CREATE, UPDATE, DELETE = "CREATE", "UPDATE", "DELETE"
"""Actions of Feast's AuthzedAction."""

FEATURE_SERVICE, PROJECT, FEATURE_VIEW = "FEATURE_SERVICE", "PROJECT", "FEATURE_VIEW"
STREAM_FEATURE_VIEW, ON_DEMAND_FEATURE_VIEW = "STREAM_FEATURE_VIEW", "ON_DEMAND_FEATURE_VIEW"

KINDS: Mapping[str, frozenset[str]] = {
    STREAM_FEATURE_VIEW: frozenset({STREAM_FEATURE_VIEW, FEATURE_VIEW}),
    "BATCH_FEATURE_VIEW": frozenset({"BATCH_FEATURE_VIEW", FEATURE_VIEW}),
}
"""Kinds that are also of another kind, as Feast's classes inherit."""


@dataclass(frozen=True, slots=True)
class User:
    """Who asks.

    Attributes:
        name: for messages, quotas and logs.
        roles, groups, namespaces: what permissions go by.
        known_by: "token" or "certificate"; "" for nothing.
    """

    name: str
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    known_by: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Guarded:
    """Something registered.

    Attributes:
        kind: of Feast's PermissionSpec.Type, such as "FEATURE_SERVICE".
        name: its name.
        owner: whom to ask; "" where nobody is named.
        tags: its tags.
        is_personal: whether it, or what it reads, has columns or features that tell who somebody is, or hurt him.
    """

    kind: str
    name: str
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    is_personal: bool = False


@dataclass(frozen=True, slots=True)
class Permission:
    """A Feast Permission.

    Attributes:
        name: its name.
        kinds: of objects that it covers; none for all.
        name_patterns: regular expressions for whole names, of which one must match; none for all names.
        required_tags: that the object must have.
        actions: that it is about.
        roles, groups, namespaces: of users; one that a user has will do.
        is_for_everybody: its policy names nobody.
    """

    name: str
    kinds: frozenset[str]
    name_patterns: tuple[re.Pattern[str], ...]
    required_tags: Mapping[str, str] = field(hash=False)
    actions: frozenset[str]
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    is_for_everybody: bool = False

    def covers(self, what: Guarded, action: str) -> bool:
        """Whether it has a say in that."""
        return (
            action in self.actions
            and not (self.kinds and self.kinds.isdisjoint(KINDS.get(what.kind, (what.kind,))))
            and (not self.name_patterns or any(one.fullmatch(what.name) for one in self.name_patterns))
            and all(what.tags.get(name) == value for name, value in self.required_tags.items())
        )

    def grants(self, user: User) -> bool:
        """Whether it is for that user."""
        return (
            self.is_for_everybody
            or not self.roles.isdisjoint(user.roles)
            or not self.groups.isdisjoint(user.groups)
            or not self.namespaces.isdisjoint(user.namespaces)
        )


@dataclass(frozen=True, slots=True)
class AccessSpec:
    """All permissions of a project, and what they are about.

    Attributes:
        permissions: in the registry's order.
        guarded: by kind and name.
    """

    permissions: tuple[Permission, ...] = ()
    guarded: Mapping[tuple[str, str], Guarded] = field(default_factory=dict, hash=False)

    def find(self, kind: str, name: str) -> Guarded:
        """What is registered so, or would be: whoever may not read a name is not told whether it is there."""
        return self.guarded.get((kind, name)) or Guarded(kind, name)

    def view(self, name: str) -> Guarded:
        """The view of a name, whichever kind of view it is; of a version ("card_activity@v2"), the view itself."""
        name = name.partition("@")[0]
        kinds = (STREAM_FEATURE_VIEW, FEATURE_VIEW, ON_DEMAND_FEATURE_VIEW)
        found = (self.guarded.get((kind, name)) for kind in kinds)
        return next((one for one in found if one is not None), Guarded(FEATURE_VIEW, name))

    def missing(self, user: User, action: str, what: Guarded) -> str | None:
        """None where the user may; else what would let him, as the end of a sentence."""
        if not self.permissions:
            return None
        covering = [one for one in self.permissions if one.covers(what, action)]
        if any(one.grants(user) for one in covering):
            return None
        wanted = [
            f"{kind} {name}"
            for kind, names in (
                ("role", {name for one in covering for name in one.roles}),
                ("group", {name for one in covering for name in one.groups}),
                ("namespace", {name for one in covering for name in one.namespaces}),
            )
            for name in sorted(names)
        ]
        return " or ".join(wanted) or "a permission that nobody has yet"
