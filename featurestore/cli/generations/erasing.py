"""The places that an erasure goes through, and its receipt.

Each place says what it removed, or what it found, in the same few words (`PlaceReport`). What nothing here can remove
is in the receipt as well, with the moment until which it remains, where that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featurestore.clock import Clock
from featurestore.core.spec import Column, RepoSpec, SourceSpec, ValueType, ViewSpec
from featurestore.core.windows.durations import format_duration
from featurestore.definitions.compile.versions import stored_views
from featurestore.definitions.problems import suggest
from featurestore.errors import FeatureStoreError, InvalidRequest, UnknownJoinKey
from featurestore.offline.event_log.address import below, place_of
from featurestore.offline.event_log.erasing import erase_rows, remaining_rows
from featurestore.offline.event_log.table import is_log_table
from featurestore.offline.foreign_tables.opening import is_table
from featurestore.offline.parity.feature_log import erase_logged
from featurestore.offline.parity.log_directory import LogDirectory
from featurestore.offline.training_set.resume import forget_kept_work
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.store import OnlineStore
from featurestore.online.write.erasure.book import ErasureBook
from featurestore.online.write.erasure.project import ErasedView, StoreEraser
from featurestore.wire.entity_key import EntityValue, encode_value
from featurestore.wire.erasures import Erasure

RECEIPT_VERSION = 1

SOURCE_TOPIC = "source topic"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PlaceReport:
    """What was removed from a place, or found there.

    Attributes:
        place: what kind of place it is.
        name: which one.
        unit: of the count.
        count: how many were removed, or found.
        version: of a table, without them; None elsewhere.
        remains: what of it is still there; "" for nothing.
        until_ms: until when, ms UTC; None where nothing remains, or nobody knows.
        is_failure: it could not be done, and is to be done again.
    """

    place: str
    name: str
    unit: str
    count: int
    version: int | None = None
    remains: str = ""
    until_ms: int | None = None
    is_failure: bool = False


def attempt(place: str, name: str, erase: Callable[[], list[PlaceReport]]) -> list[PlaceReport]:
    """What became of a place; where it cannot be reached, that: the other places are cleaned all the same."""
    try:
        return erase()
    except FeatureStoreError as error:
        return [PlaceReport(place, name, "", 0, remains=f"not done: {error.message}", is_failure=True)]


@dataclass(frozen=True, slots=True)
class Remains:
    """What an erasure does not reach.

    Attributes:
        place: what kind of place it is.
        name: which one.
        why: what is there, and what becomes of it.
    """

    place: str
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose data is meant.

    Attributes:
        join_key: name and type of the join key.
        value: of it.
    """

    join_key: Column
    value: EntityValue

    @property
    def key(self) -> bytes:
        """Canonical bytes of the value."""
        return encode_value(self.value)


def subject_of(text: str, repo: RepoSpec, store: OnlineStore, project: str) -> Subject:
    """Whose data KEY=VALUE means.

    Raises:
        InvalidRequest: it is not written so, or the value is none of the join key's type.
        UnknownJoinKey: nothing registered or stored has such a join key.
    """
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise InvalidRequest("an erasure needs a join key and its value", hint="write KEY=VALUE, as card_id=c-17")
    known = {key.name: key for key in _join_keys(repo, store, project)}
    if name not in known:
        raise UnknownJoinKey(f'no view has a join key "{name}"', hint=suggest(name, sorted(known)))
    if known[name].type is not ValueType.INT64:
        return Subject(known[name], value)
    try:
        return Subject(known[name], int(value))
    except ValueError:
        # Not the value: it may be somebody's.
        raise InvalidRequest(f'join key "{name}" is a whole number, and the value is none') from None


def _join_keys(repo: RepoSpec, store: OnlineStore, project: str) -> Iterator[Column]:
    """Of all that is registered, and of all that is stored."""
    for view in repo.views:
        yield from view.join_keys
    for plain in repo.plain_views:
        yield from plain.join_keys
    for generations in GenerationCatalog(store, project).all().values():
        for one in generations:
            yield from one.view.join_keys


def erase_from_store(
    store: OnlineStore, repo: RepoSpec, subject: Subject, clock: Clock, say: Say, before_ms: int | None = None
) -> tuple[Erasure, list[PlaceReport]]:
    """The record that stream and bootstrap read from now on, and what was removed.

    Args:
        store: the online store.
        repo: what is registered.
        subject: whose data.
        clock: says what has happened.
        say: told what is being done.
        before_ms: only what is older goes; None for all until now.

    Raises:
        InvalidRequest: the moment is ahead of the clock.
    """
    eraser = _eraser(store, repo, subject, clock, say)
    if before_ms is None:
        done = eraser.erase()
    elif before_ms <= clock.now_ms():
        done = eraser.erase_before(before_ms)
    else:
        raise InvalidRequest("what has not happened yet cannot be erased", hint="give a moment of the past, or none")
    return done.record, [report_of(one) for one in done.views]


def remaining_in_store(
    store: OnlineStore, repo: RepoSpec, subject: Subject, record: Erasure, clock: Clock, say: Say
) -> list[PlaceReport]:
    """What the online store has of before the record's moment."""
    found = _eraser(store, repo, subject, clock, say).remaining(record.before_ms)
    return [report_of(one) for one in found]


def record_of(store: OnlineStore, project: str, subject: Subject) -> Erasure:
    """What was erased of somebody.

    Raises:
        InvalidRequest: nothing was.
    """
    found = ErasureBook(store, project).find(subject.join_key.name, subject.key)
    if found is None:
        raise InvalidRequest(
            f'nothing of this "{subject.join_key.name}" is erased, as far as this store knows',
            hint="a store that was lost has lost its records too: erase again",
        )
    return found


def _eraser(store: OnlineStore, repo: RepoSpec, subject: Subject, clock: Clock, say: Say) -> StoreEraser:
    return StoreEraser(store, repo.project, repo.plain_views, subject.join_key.name, subject.key, clock, say)


def report_of(one: ErasedView) -> PlaceReport:
    """A generation, or a plain view."""
    if not one.uncut:
        name = f"{one.view}@{one.generation}" if one.generation else one.view
        return PlaceReport("online store", name, "entities", one.entities)
    why = (
        f"{one.uncut:,} entities, whose values of before are merged with later ones; compute them without: "
        f"`featurestore bootstrap {one.view}`, and `featurestore drop {one.view}` when it serves"
    )
    return PlaceReport(
        "online store", f"{one.view}@{one.generation}", "entities", one.entities, remains=why, is_failure=True
    )


def erase_from_event_logs(
    root: str, repo: RepoSpec, subject: Subject, record: Erasure, clock: Clock, say: Say
) -> list[PlaceReport]:
    """What was removed from the logs of all sources that have the column."""
    reports = []
    for place in _event_logs(root, repo, subject):
        done = erase_rows(place_of(place), record, subject.value, clock, say)
        older = "versions from before, for who reads them now; the next upkeep after that deletes their files"
        reports.append(PlaceReport("event log", place, "rows", done.rows, done.version, older, done.kept_until_ms))
    return reports


def remaining_in_event_logs(root: str, repo: RepoSpec, subject: Subject, record: Erasure) -> list[PlaceReport]:
    """What the newest versions of the logs have."""
    return [
        PlaceReport("event log", place, "rows", remaining_rows(place_of(place), record, subject.value))
        for place in _event_logs(root, repo, subject)
    ]


def erase_letters(desk: Any, subject: Subject, record: Erasure, *, is_trial: bool = False) -> list[PlaceReport]:
    """What was removed from dead letters, or is there.

    Args:
        desk: `dataflows.dead_letters.desk.Desk`.
        subject: whose.
        record: of the erasure.
        is_trial: only look.
    """
    found = desk.erase(subject.join_key.name, subject.key, record.before_ms, is_trial=is_trial)
    unknown = "letters that only a key opens which is not here, until their retention"
    return [
        PlaceReport(
            "dead letters", one.topic, "letters", one.erased, remains=f"{one.unknown:,} {unknown}" * bool(one.unknown)
        )
        for one in found
    ]


def erase_records(desk: Any, subject: Subject, record: Erasure, *, is_trial: bool = False) -> list[PlaceReport]:
    """What was taken out of an embedded log, or is there; see `erase_letters`."""
    found = desk.erase_records(subject.join_key.name, subject.key, record.before_ms, is_trial=is_trial)
    return [
        PlaceReport(
            SOURCE_TOPIC,
            one.topic,
            "records",
            one.erased,
            remains=f"{one.first} first records of files, by which these are known" * bool(one.first),
        )
        for one in found
    ]


def erase_from_feature_logs(
    places: Sequence[str], subject: Subject, record: Erasure, *, is_trial: bool = False
) -> list[PlaceReport]:
    """What was removed from feature logs, or is there; a topic of one keeps what it has until its own retention."""
    reports = []
    for place in places:
        if place.startswith("kafka:"):
            why = (
                ""
                if is_trial
                else "all that was logged, until the topic's own retention: a topic loses no single records"
            )
            reports.append(PlaceReport("feature log", place, "rows", 0, remains=why))
            continue
        directory = LogDirectory(place)
        rows = erase_logged(directory, subject.join_key.name, subject.value, record.before_ms, is_trial=is_trial)
        reports.append(PlaceReport("feature log", place, "rows", rows))
    return reports


def forget_work(places: Sequence[Path]) -> list[PlaceReport]:
    """What was removed from work directories of training sets: all of it, as it can be computed again."""
    reports = []
    for place in places:
        deleted, busy = forget_kept_work(place)
        why = f"{busy} that a process is at: run this again when it is done" if busy else ""
        reports.append(PlaceReport("kept work", str(place), "training sets", deleted, remains=why))
    return reports


def take_back_published(
    take_back: Callable[..., int],
    desk: Any,
    repo: RepoSpec,
    given: Sequence[str],
    subject: Subject,
    record: Erasure,
    *,
    is_trial: bool = False,
) -> list[PlaceReport]:
    """Keys whose vectors were taken back, or are there.

    Args:
        take_back: `dataflows.log_to_features.tombstones.take_back`.
        desk: knows where Kafka is.
        repo: what is registered.
        given: SERVICE=TOPIC each.
        subject: whose.
        record: of the erasure.
        is_trial: only look.

    Raises:
        InvalidRequest: there is no such service, or it is published to an embedded log.
    """
    reports = []
    for text in given:
        name, _, topic = text.partition("=")
        service = repo.service(name)
        if service is None or not topic:
            names = sorted(one.name for one in repo.services)
            raise InvalidRequest(
                f'"{text}" does not name a registered service and its topic',
                hint=f"write SERVICE=TOPIC; {suggest(name, names)}",
            )
        parts = [key.name for key in service.join_keys]
        if subject.join_key.name not in parts:
            continue
        view = next(found for one in service.features if (found := repo.view(one.view)) is not None)
        settings = desk.kafka_settings(view.source.topic)
        if settings is None:
            raise InvalidRequest(
                f'topic "{topic}" lies in an embedded log, in which nothing is taken back',
                hint="delete its directory, and publish anew",
            )
        part = parts.index(subject.join_key.name)
        keys = take_back(
            topic,
            settings,
            part=part,
            part_count=len(parts),
            value=subject.key,
            before_ms=record.before_ms,
            is_trial=is_trial,
        )
        remains = "" if is_trial else "what was published before, until the topic is compacted"
        reports.append(PlaceReport("published topic", topic, "keys", keys, remains=remains))
    return reports


def _event_logs(root: str, repo: RepoSpec, subject: Subject) -> list[str]:
    """Where the logs are that may have rows of somebody."""
    names = sorted({source.name for source in sources_with(repo, subject)})
    places = [below(root, name) for name in names]
    return [place for place in places if is_log_table(place_of(place))]


def sources_with(repo: RepoSpec, subject: Subject) -> list[SourceSpec]:
    """Sources that have the join key as a column."""
    sources = {view.source: None for view in (*stored_views(repo), *repo.views)}
    return [one for one in sources if one.column(subject.join_key.name) is not None]


def unreached(repo: RepoSpec, subject: Subject, reports: Sequence[PlaceReport], root: str) -> list[Remains]:
    """What no erasure removes, whoever runs it; and the places that nobody named.

    Args:
        repo: what is registered.
        subject: whose data.
        reports: of places that were cleaned.
        root: of the event logs.
    """
    asked = {one.place for one in reports if not one.is_failure}
    sources = sources_with(repo, subject)
    found = [
        Remains(SOURCE_TOPIC, topic, "records as they were sent, until the topic's retention; never counted again")
        for topic in dict.fromkeys(topic for source in sources for topic in source.topics)
        if SOURCE_TOPIC not in asked
    ]
    foreign = [
        place for place in sorted({below(root, one.name) for one in sources}) if not is_log_table(place_of(place))
    ]
    found += [
        Remains("table of others", place, "history reads it as events, and it is its owner's; delete there too")
        for place in foreign
        if is_table(place)
    ]
    found += [
        Remains("table of others", one.table, "events get columns of it, and it is its owner's; delete there too")
        for one in dict.fromkeys(one for source in sources for one in source.enrichments)
        if one.on == subject.join_key.name
    ]
    found += [
        Remains("feature view", view.name, _in_others(view))
        for view in repo.views
        if _reads_but_is_not_of(view, subject)
    ]
    found += [
        Remains("batch table", view.name, "what the view is materialized from is its owner's; delete there too")
        for view in repo.plain_views
        if subject.join_key.name in [key.name for key in view.join_keys]
    ]
    found.append(
        Remains("online store", "event ids", "hashes of ids and keys, until the source's dedup horizon has passed")
    )
    found.append(Remains("training sets", "files", "what `featurestore history` wrote is its owner's"))
    found.append(Remains("backups", "copies", "of the online store and of tables: erase again after one is restored"))
    found += [Remains(place, "not named", why) for place, why in _OPTIONAL.items() if place not in asked]
    return found


_OPTIONAL = {
    "feature log": "answers that were logged, in files (--feature-log) or topics",
    "published topic": "messages of `featurestore publish` (--published)",
    "kept work": "parts of training sets that were not finished (--work-dir)",
}
"""Places that are cleaned if they are named."""


def _reads_but_is_not_of(view: ViewSpec, subject: Subject) -> bool:
    """Events of somebody are in a view of others."""
    name = subject.join_key.name
    return view.source.column(name) is not None and name not in [key.name for key in view.join_keys]


def _in_others(view: ViewSpec) -> str:
    """What becomes of them there."""
    if view.retention_ms is None:
        return "values of other entities have counted the events, for ever; a bootstrap computes them without"
    lasts = format_duration(view.retention_ms)
    return f"values of other entities have counted the events, for {lasts} at most; a bootstrap computes them without"


def receipt(
    record: Erasure, project: str, reports: Sequence[PlaceReport], remains: Sequence[Remains]
) -> dict[str, object]:
    """What is handed over: names, counts and moments; nobody's key."""
    return {
        "version": RECEIPT_VERSION,
        "project": project,
        **asdict(record),
        "places": [asdict(one) for one in reports],
        "remains": [asdict(one) for one in remains],
    }
