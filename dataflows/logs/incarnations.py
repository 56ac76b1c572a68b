"""Which topic it was that was read: one that is deleted and made again has the same name, and other records.

    kept      (topic, partition) -> incarnation, beside the positions: Kafka's topic id, or of a file what begins it
    found     the same, of the log as it is now; where a log cannot tell ("") nothing is compared

A position of one incarnation says nothing of another. Where the new one is shorter it is found out by its end; where it
has outgrown the position, its first records would be skipped in silence. What has no kept incarnation, of an older
release or never read, takes the log as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dataflows.logs.sources import SourceLog
from featurestore.core.spec import SourceSpec
from featurestore.errors import EventsLost
from featurestore.wire.incarnations import Incarnations


def found_incarnations(log: SourceLog, sources: Iterable[SourceSpec]) -> dict[tuple[str, int], str]:
    """Of all partitions of some sources of one topic each, as far as the log can tell.

    Raises:
        SourceUnavailable: the log does not answer.
    """
    return {
        (source.topic, partition): incarnation
        for source in sources
        for partition, incarnation in log.incarnations(source, log.partitions(source)).items()
        if incarnation
    }


def made_anew(kept: Incarnations, found: Incarnations, read: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
    """Partitions of another incarnation than the one that was read.

    Args:
        kept: what was read.
        found: what is there.
        read: partitions of which there were records to read; of the others nothing can be missing.
    """
    return sorted(place for place in read if place in found and kept.get(place, found[place]) != found[place])


def anew(topic: str, partition: int, hint: str) -> EventsLost:
    """The error that names the topic and the way out."""
    return EventsLost(
        f'topic "{topic}" was made anew since its partition {partition} was read: its first records would be skipped',
        detail="What was read of the old one says nothing of where to go on in the new one.",
        hint=hint,
    )
