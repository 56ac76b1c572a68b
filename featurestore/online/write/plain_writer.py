"""Write and delete the values of plain views: what materialize and push bring.

A value never replaces a newer one, and one of equal event time does: correcting a row and materializing it again must
take effect. Of two calls with one millisecond the later to arrive wins. No row may be dated further ahead of the clock
than an event of a stream, as it would beat all others until its time comes. A key lives one ttl after it was written
(never less than until its values' event time + ttl), so that old values are answered as too old for a while, and then
take no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from featurestore.clock import Clock
from featurestore.core.spec import DEFAULT_MAX_FUTURE_MS
from featurestore.errors import InvalidRequest, LimitExceeded
from featurestore.online.store import OnlineStore
from featurestore.wire.codecs.plain_row import StoredValue, encode_values
from featurestore.wire.entity_key import KEY_BYTES_MAX, fingerprint, lane_of
from featurestore.wire.store_layout import is_of_project, plain_key, plain_pattern, project_pattern

ROWS_PER_ROUND_TRIP = 1_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PlainValues:
    """New values of one entity.

    Attributes:
        key: canonical entity key.
        event_time_ms: event time of the values.
        values: by feature name, None where null.
    """

    key: bytes
    event_time_ms: int
    values: Mapping[str, StoredValue | None]


class PlainWriter:
    """Writes plain views of one project.

    Args:
        store: the online store.
        project: Feast project.
        lane_count: the store's number of lanes (`GenerationCatalog.lane_count`).
        clock: for expiry.
    """

    def __init__(self, store: OnlineStore, project: str, lane_count: int, clock: Clock) -> None:
        self._store = store
        self._project = project
        self._lane_count = lane_count
        self._clock = clock

    def write(
        self, view: str, rows: Sequence[PlainValues], *, ttl_ms: int | None, progress: Callable[[int], object]
    ) -> None:
        """Write rows; of one entity's rows with equal event time the last wins.

        A row that is refused keeps no other one out: the error is raised when those are written.

        Args:
            view: name of the view.
            rows: any number.
            ttl_ms: age after which a value is too old to serve; None never.
            progress: called with the number of rows of each round trip, after it.

        Raises:
            OnlineStoreDown: the store does not answer; repeating the call is safe.
            InvalidRequest: a row lies in the future.
            LimitExceeded: an entity key is too long.
        """
        refused: list[InvalidRequest] = []
        for start in range(0, len(rows), ROWS_PER_ROUND_TRIP):
            now_ms, entries = self._clock.now_ms(), []
            chunk = rows[start : start + ROWS_PER_ROUND_TRIP]
            for row in chunk:
                mistake = _mistake(view, row, now_ms)
                if mistake is None:
                    entries.append(self._entry(view, row, ttl_ms, now_ms))
                else:
                    refused.append(mistake)
            if entries:
                self._store.write_newer(entries)
            progress(len(chunk))
        if refused:
            first, count = refused[0], len(refused)
            told = f"{count} {'row was' if count == 1 else 'rows were'} refused, the others are written."
            raise type(first)(first.message, detail=told, hint=first.hint)

    def _entry(self, view: str, row: PlainValues, ttl_ms: int | None, now_ms: int) -> tuple[bytes, int, bytes, int]:
        """Arguments of `OnlineStore.write_newer`."""
        expire_ms = 0 if ttl_ms is None else ttl_ms + max(row.event_time_ms - now_ms, 0)
        key = plain_key(self._project, lane_of(row.key, self._lane_count), view, row.key)
        return key, row.event_time_ms, encode_values(row.values), expire_ms


def _mistake(view: str, row: PlainValues, now_ms: int) -> InvalidRequest | None:
    """Why a row cannot be written."""
    if len(row.key) > KEY_BYTES_MAX:
        return LimitExceeded(
            f'an entity key of feature view "{view}" is {len(row.key)} bytes long, the limit is {KEY_BYTES_MAX}',
            hint="write shorter keys",
        )
    ahead_ms = row.event_time_ms - now_ms
    if ahead_ms <= DEFAULT_MAX_FUTURE_MS:
        return None
    return InvalidRequest(
        f'feature view "{view}" has a row of {_iso(row.event_time_ms)} for entity {fingerprint(row.key)},'
        f" {ahead_ms} ms ahead of the clock, {DEFAULT_MAX_FUTURE_MS} allowed",
        hint="correct its time, or the clock of this machine, and write it again",
    )


def _iso(time_ms: int) -> str:
    """A time for people; one beyond the calendar as it is."""
    try:
        return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"{time_ms} ms"


def delete_plain_view(store: OnlineStore, project: str, view: str) -> int:
    """Delete everything that a plain view keeps; how many keys it was. Scans the whole store."""
    return store.delete(key for key in store.scan(plain_pattern(project, view)) if is_of_project(project, key))


def delete_project(store: OnlineStore, project: str) -> int:
    """Delete everything that a project keeps, tiles and checkpoints too; how many keys it was."""
    return store.delete(key for key in store.scan(project_pattern(project)) if is_of_project(project, key))
