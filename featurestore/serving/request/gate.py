"""Who may ask what: each request's user, and the permissions of the registry that is served now.

request -> Callers -> User ... message -> Asked -> Permission objects -> goes on, or PermissionDenied
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from featurestore.core.spec.access import FEATURE_SERVICE, PROJECT, AccessSpec, User
from featurestore.definitions.governance.access.require import Wanted, denied
from featurestore.serving.request.callers import Caller, Callers

DECISIONS_MAX = 100_000
"""That are remembered; then all are forgotten."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request wants.

    Attributes:
        action: of Feast's AuthzedAction.
        service: the feature service that it is about; "" for none.
        views: the views, where it names features by themselves.
        rows: counts the entity rows that it wants.
    """

    action: str
    service: str = ""
    views: tuple[str, ...] = ()
    rows: Callable[[], int] = field(default=lambda: 1, compare=False)

    @property
    def title(self) -> str:
        """Such as: feature service "card_check"."""
        if self.service:
            return f'feature service "{self.service}"'
        return f"features of {', '.join(self.views)}"


class Gate:
    """Lets requests through; safe to share between threads.

    Args:
        callers: says who asks.
        project: Feast project, which is asked where a request is about no service and no view.
        access: what is permitted now.
    """

    def __init__(self, callers: Callers, project: str, access: Callable[[], AccessSpec]) -> None:
        self._callers, self._project, self._access = callers, project, access
        self._decided: tuple[AccessSpec, dict[tuple[User, str, str, str], str | None]] = AccessSpec(), {}

    def user_of(self, caller: Caller) -> User:
        """Who asks.

        Raises:
            Unauthenticated, Unavailable: see `Callers.user_of`.
        """
        return self._callers.user_of(caller)

    def require(self, user: User, asked: Asked) -> None:
        """Let a request through.

        Raises:
            PermissionDenied: it wants what the user may not have; names what is missing, and nothing that is there.
        """
        access = self._access()
        spec, decided = self._decided
        if spec is not access or len(decided) > DECISIONS_MAX:
            decided = {}
            self._decided = access, decided
        if asked.service:
            self._require(user, asked.action, FEATURE_SERVICE, asked.service, access, decided)
        for view in asked.views:
            self._require(user, asked.action, "", view, access, decided)
        if not asked.service and not asked.views:
            self._require(user, asked.action, PROJECT, self._project, access, decided)

    def stop(self) -> None:
        """End."""
        self._callers.stop()

    def _require(
        self,
        user: User,
        action: str,
        kind: str,
        name: str,
        access: AccessSpec,
        decided: dict[tuple[User, str, str, str], str | None],
    ) -> None:
        """One object; the view of a name where no kind is given."""
        key = (user, action, kind, name)
        try:
            missing = decided[key]
        except KeyError:
            what = access.find(kind, name) if kind else access.view(name)
            missing = decided[key] = access.missing(user, action, what)
        if missing is not None:
            what = access.find(kind, name) if kind else access.view(name)
            raise denied(user, Wanted(action, what), missing)
