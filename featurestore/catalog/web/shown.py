"""What the store holds, in the words of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.catalog.live import ViewNow
from featurestore.catalog.web.words import moment_text
from featurestore.core.windows.durations import readable_duration
from featurestore.definitions.governance.audit.reading import ServiceCaller
from featurestore.errors import FeatureStoreError
from featurestore.offline.health.drift import DriftReport
from featurestore.offline.health.statistics import FeatureStatistics
from featurestore.online.read.store_sizes import MemoryOverview, bytes_text
from featurestore.online.read.store_status import GenerationOverview
from featurestore.wire.counts.contracts import ExpectationState
from featurestore.wire.counts.freshness import BUDGET_DAYS, PromiseState

_HASH_DIGITS = 8

TOP_VALUES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation in texts; "" for what is not known.

    Attributes:
        name: such as "card_activity@2".
        state: filling, serving ...
        definition: the hash's first digits.
        is_registered: whether that is what is registered.
        freshness: age of the newest event.
        newest: when it was.
        lag: records that are still to come.
        progress: share of the records that it has read, 0 to 1; None where the sources' ends are not known.
        entities, memory, each: how many, their bytes, those of one.
        notes: what is wrong, and what else should be known.
    """

    name: str
    state: str
    definition: str
    is_registered: bool
    freshness: str
    newest: str
    lag: str
    progress: float | None
    entities: str
    memory: str
    each: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """An expectation, and how it is met in the newest two hours of event time."""

    source: str
    name: str
    on_fail: str
    records: str
    failed: str
    share: str
    at_most: str
    failed_1d: str
    is_broken: bool
    newest: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who asks a service; `newest` is when he did last."""

    who: str
    requests: int
    rows: int
    newest: str


@dataclass(frozen=True, slots=True)
class Now:
    """What the store holds of a view, in texts.

    Attributes:
        as_of: when it was looked at.
        trouble: why nothing is known; "" otherwise.
        generations: newest first.
        contracts: of the source's records.
        usual: sentences about its hours.
        notes: what else should be known.
        plain: size of a materialized view.
        promise: what is promised of its freshness and how that is kept, in a sentence; "" for nothing.
        is_promise_kept: whether it is.
    """

    as_of: str
    trouble: str
    generations: Sequence[Generation]
    contracts: Sequence[Contract]
    usual: Sequence[tuple[str, bool]]
    notes: Sequence[str]
    plain: str
    promise: str
    is_promise_kept: bool


def now_of(seen: ViewNow) -> Now:
    """The texts of a look."""
    notes = ["it is registered, and nothing streams it yet"] if seen.is_unstreamed else []
    for pin in seen.pins:
        where = f"answered by {pin.stored_as}@{pin.number}" if pin.number else "not ready yet"
        notes.append(f"{pin.version} is pinned by {', '.join(pin.services)}: {where}")
    return Now(
        as_of=moment_text(seen.as_of_ms)[:19] if seen.as_of_ms else "",
        trouble=seen.trouble,
        generations=[_generation(one) for one in seen.generations],
        contracts=[_contract(one) for one in seen.contracts],
        usual=[(one.text, one.is_broken) for one in seen.usual_hours],
        notes=notes,
        plain="" if seen.plain is None else f"{_entities(seen.plain)} entities, {_memory(seen.plain)}",
        promise="" if seen.promise is None else _promise(seen.promise),
        is_promise_kept=seen.promise is None or seen.promise.is_kept,
    )


def callers_shown(found: Sequence[ServiceCaller] | FeatureStoreError) -> Sequence[Caller] | FeatureStoreError:
    """The texts of callers; an error as it is."""
    if isinstance(found, FeatureStoreError):
        return found
    return [Caller(one.who, one.requests, one.rows, moment_text(one.newest_ms)[:16]) for one in found]


@dataclass(frozen=True, slots=True)
class Drift:
    """The last comparison of a service with its baseline, in texts.

    Attributes:
        checked: when.
        baseline: what it was compared with.
        features: how many were.
        drifted: (view and feature, window, distances) of those that have.
    """

    checked: str
    baseline: str
    features: int
    drifted: Sequence[tuple[str, str, str]]


def drift_shown(found: DriftReport | FeatureStoreError | None) -> Drift | FeatureStoreError | str:
    """The texts of a comparison; an error as it is, and "" where none was made."""
    if found is None or isinstance(found, FeatureStoreError):
        return found or ""
    rows = [
        (
            f"{one.view}:{one.feature}",
            one.window,
            ", ".join(
                f"{name} {value:.2f}"
                for name, value in (("PSI", one.psi), ("KS", one.ks), ("JS", one.js))
                if value is not None
            ),
        )
        for one in found.drifted
    ]
    baseline = f"{found.baseline_source}, taken {moment_text(found.baseline_taken_ms)[:16]}"
    features = len({(one.view, one.feature) for one in found.features})
    return Drift(moment_text(found.at_ms)[:16], baseline, features, rows)


def statistics_text(one: FeatureStatistics) -> str:
    """What was served of a feature, in a line."""
    parts = [f"{one.num_rows:,} answers", f"{one.missing_share:.1%} missing"]
    if one.mean is not None:
        parts.append(f"mean {one.mean:,.4g}")
    if "0.5" in one.quantiles:
        parts.append(f"median {one.quantiles['0.5']:,.4g}")
    if one.min is not None and one.max is not None:
        parts.append(f"{one.min:,.4g} to {one.max:,.4g}")
    if one.mean is None and one.top_values:
        parts.append("most often " + ", ".join(list(one.top_values)[:TOP_VALUES_SHOWN]))
    return ", ".join(parts)


def _promise(one: PromiseState) -> str:
    """How a promise of freshness is kept."""
    promised = f"servable within {readable_duration(one.freshness_ms)} for {100 * one.target:.6g} % of the events"
    if one.is_silent:
        return f"{promised}; no stream says that it counts"
    late = f"{one.late:,} of {one.events:,} were late in {BUDGET_DAYS} days"
    if one.budget_left < 0:
        return f"{promised}; {late}, {1 - one.budget_left:.1f} times what the error budget has"
    return f"{promised}; {late}, {one.budget_left:.0%} of the error budget are left"


def _generation(one: GenerationOverview) -> Generation:
    ends = [(at.next_offset, at.end_offset) for at in one.partitions if at.end_offset is not None]
    total = sum(end for _, end in ends)
    lag = one.lag_records
    notes = list(one.damaged) if one.state == "serving" else []
    notes += [f"stored in {one.view} with {', '.join(one.views)}"] if one.views != (one.view,) else []
    notes += ["no entity of it is ever forgotten"] if one.is_for_ever and one.state == "serving" else []
    return Generation(
        name=f"{one.view}@{one.number}",
        state=one.state.replace("_", " "),
        definition=one.definition_hash[:_HASH_DIGITS],
        is_registered=one.is_registered_definition,
        freshness="" if one.freshness_ms is None else readable_duration(max(one.freshness_ms, 0)),
        newest=moment_text(one.watermark_ms)[:19] if one.watermark_ms else "",
        lag="" if lag is None else f"{lag:,}",
        progress=None if lag is None or not total else 1 - lag / total,
        entities="" if one.memory is None else _entities(one.memory),
        memory="" if one.memory is None else _memory(one.memory),
        each="" if one.memory is None else bytes_text(one.memory.entity_bytes_mean),
        notes=tuple(notes),
    )


def _entities(memory: MemoryOverview) -> str:
    return f"{'' if memory.is_complete else 'at least '}{memory.entities:,}"


def _memory(memory: MemoryOverview) -> str:
    return f"{'' if memory.is_complete else 'at least '}{bytes_text(memory.bytes_total)}"


def _contract(one: ExpectationState) -> Contract:
    newest = f"{one.last_topic}/{one.last_partition}/{one.last_offset}" if one.last_topic else ""
    return Contract(
        one.source,
        one.name,
        one.on_fail.replace("_", " "),
        f"{one.records:,}",
        f"{one.failed:,}",
        f"{one.share:.2%}",
        f"{one.at_most:.2%}",
        f"{one.failed_1d:,}",
        one.is_broken,
        newest,
    )
