"""What a service's values were when its model was trained, and how far they are from that now; beside the feature log.

LOG/baselines/service=fraud_detection.parquet      sketches, each feature one tile; with source, moment and digest
LOG/drift/service=fraud_detection.json             what the last comparison found, for whoever shows it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from featurestore.errors import CorruptData, InvalidRequest
from featurestore.offline.health.drift import WINDOWS_MS, DriftReport, Limits, drift_of
from featurestore.offline.health.gather import served_profile
from featurestore.offline.health.kept import Profile, digest_of, read_profile, write_profile
from featurestore.offline.health.sketches import HOUR_MS, FeatureKey, Sketches
from featurestore.offline.parity.log_directory import LogDirectory

_SOURCE, _TAKEN, _DIGEST = "featurestore.source", "featurestore.taken_ms", "featurestore.digest"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What values are compared with.

    Attributes:
        profile: a tile of each feature.
        source: where it is from.
        taken_ms: when it was taken.
        digest: of the sketches.
    """

    profile: Profile
    source: str
    taken_ms: int
    digest: str


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison with what it was made from, for a page.

    Attributes:
        report: what was found.
        baseline: by feature.
        windows: window -> feature -> what was served.
    """

    report: DriftReport
    baseline: Profile
    windows: Mapping[str, Profile]


def keep_baseline(log: LogDirectory, service: str, profile: Profile, source: str, now_ms: int) -> Baseline:
    """Make values the baseline of a service, in the place of the one before.

    Raises:
        InvalidRequest: there are none.
        OSError, Unavailable: it cannot be written.
    """
    whole = {key: one.whole() for key, one in profile.items() if len(one.rows)}
    if not whole:
        raise InvalidRequest(f'there are no values of "{service}" to compare with', hint="check --since and --until")
    found = Baseline(whole, source, now_ms, digest_of(whole))
    about = {_SOURCE: source, _TAKEN: str(now_ms), _DIGEST: found.digest}
    write_profile(log, _baseline_path(service), whole, about)
    return found


def read_baseline(log: LogDirectory, service: str) -> Baseline:
    """The baseline of a service.

    Raises:
        InvalidRequest: there is none.
        CorruptData, Unavailable: it cannot be read, or is not what was written.
    """
    found = read_profile(log, _baseline_path(service))
    if found is None:
        raise InvalidRequest(
            f'feature service "{service}" has no baseline in "{log.uri}"',
            hint=f"take one: featurestore drift baseline {service} --from-file training_set.parquet",
        )
    profile, about = found
    digest = digest_of(profile)
    if digest != about.get(_DIGEST):
        raise CorruptData(f'the baseline of "{service}" is not what was written', hint="take it anew")
    return Baseline(profile, about[_SOURCE], int(about[_TAKEN]), digest)


def compare(log: LogDirectory, service: str, at_ms: int, limits: Limits) -> Compared:
    """What was served until a moment, against the baseline.

    Raises:
        InvalidRequest: there is no baseline.
        CorruptData, Unavailable: log or baseline cannot be read.
    """
    baseline = read_baseline(log, service)
    until_ms = at_ms // HOUR_MS * HOUR_MS + HOUR_MS
    since = {window: until_ms - max(length_ms, 2 * HOUR_MS) for window, length_ms in WINDOWS_MS.items()}
    served = served_profile(log, service=service, since_ms=min(since.values()), until_ms=until_ms)
    windows = {window: _part(baseline.profile, served, since_ms, until_ms) for window, since_ms in since.items()}
    features = tuple(
        drift_of(key, one, windows[window][key], window, limits)
        for key, one in baseline.profile.items()
        for window in WINDOWS_MS
        if key in served
    )
    report = DriftReport(
        service=service,
        at_ms=at_ms,
        baseline_digest=baseline.digest,
        baseline_source=baseline.source,
        baseline_taken_ms=baseline.taken_ms,
        features=features,
        only_baseline=tuple(sorted(f"{key.view}:{key.feature}" for key in baseline.profile if key not in served)),
        only_served=tuple(sorted(f"{key.view}:{key.feature}" for key in served if key not in baseline.profile)),
    )
    return Compared(report, baseline.profile, windows)


def keep_report(log: LogDirectory, report: DriftReport) -> None:
    """Let `read_report` find it.

    Raises:
        OSError, Unavailable: it cannot be written.
    """
    with log.new_file(_report_path(report.service)) as stream:
        stream.write(msgspec.json.encode(report))


def read_report(log: LogDirectory, service: str) -> DriftReport | None:
    """What the last comparison found; None before the first.

    Raises:
        CorruptData, Unavailable: it cannot be read.
    """
    path = _report_path(service)
    if not log.identity(path):
        return None
    try:
        with log.open(path) as source:
            return msgspec.json.decode(source.read(), type=DriftReport)
    except (OSError, msgspec.MsgspecError) as error:
        raise CorruptData(f'"{path}" says nothing of drift', detail=str(error)) from error


def _part(baseline: Profile, served: Profile, since_ms: int, until_ms: int) -> dict[FeatureKey, Sketches]:
    """Some hours of the features of the baseline that were served, as a tile each."""
    return {key: served[key].within(since_ms, until_ms).whole() for key in baseline if key in served}


def _baseline_path(service: str) -> str:
    return f"baselines/service={quote(service, safe='')}.parquet"


def _report_path(service: str) -> str:
    return f"drift/service={quote(service, safe='')}.json"
