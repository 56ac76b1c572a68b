"""Where a stage begins to read, and where the log ends that it is to come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dataflows.logs.sources import PartitionStart, SourceLog
from dataflows.plan.recalls import Recalls
from dataflows.plan.tile_store import Positions
from featurestore.core.spec import SourceSpec
from featurestore.online.generation import Generation


def starts_of(
    generations: Sequence[Generation],
    lanes: Mapping[tuple[str, int], Sequence[Positions]],
    recalls: Recalls,
    log: SourceLog,
) -> tuple[PartitionStart, ...]:
    """Where a stage begins in every partition of its topics: at the least advanced lane of its generations, or before.

    Before it where records are read again for what later ones may replace; whoever has counted them skips them.
    """
    sources: dict[str, SourceSpec] = {}
    for generation in generations:
        for source in generation.view.source.per_topic:
            sources.setdefault(source.topic, source)
    starts = []
    for topic, source in sorted(sources.items()):
        readers = [
            lane for one in generations if topic in one.view.source.topics for lane in lanes[one.view.name, one.number]
        ]
        for partition in log.partitions(source):
            offsets = [reader.get((topic, partition)) for reader in readers]
            known_offsets = [offset for offset in offsets if offset is not None]
            begin = recalls.begins.get((topic, partition))
            needed = min([*known_offsets, *([] if begin is None else [begin])], default=None)
            start = needed if len(known_offsets) == len(offsets) else None
            starts.append(PartitionStart(source, partition, start, needed))
    return tuple(starts)


def ends_of(starts: Iterable[PartitionStart], live: Sequence[Positions], log: SourceLog) -> Positions:
    """Where the log ends now, of those partitions that no live generation has read."""
    unread: dict[str, list[PartitionStart]] = {}
    for start in starts:
        topic = start.source.topic
        if not any((topic, start.partition) in positions for positions in live):
            unread.setdefault(topic, []).append(start)
    return {
        (topic, partition): end
        for topic, of_topic in unread.items()
        for partition, end in log.ends(of_topic[0].source, [start.partition for start in of_topic]).items()
    }
