"""The names and small records of the online store.

    {payments/7}card_activity@2.9f3a12bc/h/c-17      head of card c-17: recent events, written by APPEND
    {payments/7}card_activity@2.9f3a12bc/b/c-17      body of card c-17: rolled-up tiles, written by SET
    {payments/7}card_activity@2.9f3a12bc.4096/H/311  head of pack 311: recent events of entities of few events
    {payments/7}card_activity@2.9f3a12bc.4096/B/311  body of pack 311: older events of the same entities
    {payments/7}card_activity@2.9f3a12bc/c           checkpoint of lane 7
    {payments/7}card_activity@2.9f3a12bc/t           which topics it was that lane 7 has read
    {payments/7}card_activity@2.9f3a12bc/i/17              ids that lane 7 took in while its writer's clock stood there
    {payments/7}merchant_profile/p/4711              a plain view's values, written by materialize and push
    {payments}/generations                           hash: view name -> generations, newest last
    {payments}/generations/history                   another one after every change of them
    {payments}/layout                                lane count and layout version, fixed by the first writer
    {payments}/contracts                             hash: topic and partition -> how its records keep their contract
    {payments}/freshness                             hash: view and day -> how its events keep its promise of freshness
    {payments}/erasures                              hash: digest of a join-key value -> what of its data is erased

What stands in braces is a Redis hash tag: all keys of a lane share one cluster slot, so that a lane commits in one
atomic step on a cluster just as on a single server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from featurestore.core.events import Horizon
from featurestore.errors import CorruptData

DEFAULT_LANE_COUNT = 16
LANE_COUNT_MAX = 1_024
HASH_DIGITS_IN_KEY = 8

PACKS_MAX = 1 << 20
"""Packs of a lane."""

ENTITIES_OF_PACK = 30
"""So many of those that are expected share a pack: twice as many take a sixth less, and lookups read twice as much."""

SMALL_ENTITIES_MIN, SMALL_ENTITY_BYTES = 100_000, 1_000
"""So many entities that take no more each, on average, would take a good deal less if they shared keys."""

Position = tuple[str, int, int]
"""(topic, partition, next offset)."""

StoredHorizon = tuple[str, int, int, int, int, bool]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What one lane of one view generation has seen; stored as JSON and compared byte for byte at every commit.

    Attributes:
        epoch: fencing epoch; grows by one whenever a writer opens the lane.
        writer: token of the writer that holds the epoch.
        watermark_ms: newest event time that was applied.
        positions: next offset of each (topic, partition), ascending.
        id_buckets: (bucket, ids in it) of the event-id buckets that exist for the lane, ascending: of a bucket that was
            lost, and begun anew since, more ids are missing than there are.
        erasures: another number after every erasure of the lane: its writer's next commit fails, and it opens anew.
        horizons: (topic, partition, begin, newest, refused, is whole) of partitions whose events replace one another,
            at their positions; see `core.events.Horizon`.
    """

    epoch: int = 0
    writer: str = ""
    watermark_ms: int = 0
    positions: tuple[Position, ...] = ()
    id_buckets: tuple[tuple[int, int], ...] = ()
    erasures: int = 0
    horizons: tuple[StoredHorizon, ...] = ()

    def next_offsets(self) -> dict[tuple[str, int], int]:
        """Its positions by (topic, partition)."""
        return {(topic, partition): offset for topic, partition, offset in self.positions}

    def horizon_of(self) -> dict[tuple[str, int], Horizon]:
        """Its horizons by (topic, partition)."""
        return {(one[0], one[1]): Horizon(*one[2:]) for one in self.horizons}


def stored_horizons(horizons: Mapping[tuple[str, int], Horizon]) -> tuple[StoredHorizon, ...]:
    """Horizons as a checkpoint has them."""
    return tuple(
        (*place, one.begin, one.newest_ms, one.refused_ms, one.is_whole) for place, one in sorted(horizons.items())
    )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Checkpoint)


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Canonical bytes."""
    return _encoder.encode(checkpoint)


def decode_checkpoint(data: bytes | None) -> Checkpoint:
    """The checkpoint; an empty one where nothing is stored.

    Raises:
        CorruptData: the bytes are not a checkpoint.
    """
    if not data:
        return Checkpoint()
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CorruptData("stored checkpoint does not decode", detail=str(error)) from error


def packs_for(expected_entities: int, lane_count: int) -> int:
    """How many packs a lane gets for so many expected entities of all lanes; 0, so no packs, where nobody expects any.

    >>> packs_for(4_000_000, 16), packs_for(1, 16), packs_for(0, 16)
    (8334, 1, 0)
    """
    return min(-(-expected_entities // (ENTITIES_OF_PACK * lane_count)), PACKS_MAX)


class GenerationKeys:
    """Key names of one generation of one view.

    Args:
        project: Feast project.
        view: name of the view.
        number: generation, from 1.
        definition_hash: hash of its definition.
        packs: how many packs each of its lanes has. It is in the names, so that a generation whose record was lost is
            never taken up with another number of packs, in which its entities would not be found.

    Attributes:
        stem: "view@number.hash", or "view@number.hash.packs": what its keys have between lane and kind.
    """

    def __init__(self, project: str, view: str, number: int, definition_hash: str, packs: int = 0) -> None:
        self._project = project
        self.stem = f"{view}@{number}.{definition_hash[:HASH_DIGITS_IN_KEY]}" + (f".{packs}" if packs else "")
        # By kind and lane: every lookup asks for the same few.
        self._known: dict[tuple[str, int], bytes] = {}

    def head_prefix(self, lane: int) -> bytes:
        """Followed by the entity key."""
        return self._known.get(("h/", lane)) or self._name("h/", lane)

    def body_prefix(self, lane: int) -> bytes:
        """Followed by the entity key."""
        return self._known.get(("b/", lane)) or self._name("b/", lane)

    def pack_head_prefix(self, lane: int) -> bytes:
        """Followed by the number of the pack."""
        return self._known.get(("H/", lane)) or self._name("H/", lane)

    def pack_body_prefix(self, lane: int) -> bytes:
        """Followed by the number of the pack."""
        return self._known.get(("B/", lane)) or self._name("B/", lane)

    def checkpoint(self, lane: int) -> bytes:
        """The lane's checkpoint."""
        return self._known.get(("c", lane)) or self._name("c", lane)

    def incarnations(self, lane: int) -> bytes:
        """Which topics the lane's positions belong to; beside them, as a node may come back older than others."""
        return self._known.get(("t", lane)) or self._name("t", lane)

    def _name(self, kind: str, lane: int) -> bytes:
        """A name, kept from now on; there are six for each lane."""
        name = self._known[kind, lane] = f"{lane_tag(self._project, lane)}{self.stem}/{kind}".encode()
        return name

    def id_bucket(self, lane: int, bucket: int) -> bytes:
        """The lane's event-id hashes of one bucket."""
        return f"{lane_tag(self._project, lane)}{self.stem}/i/{bucket}".encode()

    def pattern(self, lane: int | None = None) -> bytes:
        """SCAN pattern of everything the generation keeps, in a lane or in all; see `has` for the last word."""
        project = _glob_escape(self._project)
        return f"{{{project}/{'*' if lane is None else lane}}}{_glob_escape(self.stem)}/*".encode()

    def has(self, key: bytes) -> bool:
        """Whether a key that matched the pattern is the generation's: a wildcard also spans "/" and "}"."""
        return is_of_project(self._project, key) and key.partition(b"}")[2].startswith(f"{self.stem}/".encode())


def lane_tag(project: str, lane: int) -> str:
    """The hash tag of a lane."""
    return f"{{{project}/{lane}}}"


def plain_key(project: str, lane: int, view: str, entity_key: bytes) -> bytes:
    """Where a plain view keeps an entity's values."""
    return f"{lane_tag(project, lane)}{view}/p/".encode() + entity_key


def plain_pattern(project: str, view: str) -> bytes:
    """SCAN pattern of everything a plain view keeps, in all lanes; see `is_of_project` for the last word."""
    return f"{{{_glob_escape(project)}/*}}{_glob_escape(view)}/p/*".encode()


def project_pattern(project: str) -> bytes:
    """SCAN pattern of everything a project keeps; see `is_of_project` for the last word."""
    return f"{{{_glob_escape(project)}*}}*".encode()


def is_of_project(project: str, key: bytes) -> bool:
    """Whether a key that matched a pattern is the project's own: a wildcard also spans "/" and "}"."""
    tag, _, _ = key.removeprefix(b"{").partition(b"}")
    name, _, lane = tag.rpartition(b"/")
    return tag == project.encode() or (name == project.encode() and lane.isdigit())


def generations_key(project: str) -> bytes:
    """Hash of every view's generations."""
    return f"{{{project}}}/generations".encode()


def history_key(key: bytes) -> bytes:
    """Beside a hash: which changes it has been through."""
    return key + b"/history"


def rights_key(project: str) -> bytes:
    """Where a writer tries what it may do; gone a moment later."""
    return f"{{{project}}}/rights".encode()


def contracts_key(project: str) -> bytes:
    """Hash of every partition's counts of records that keep their source's contract."""
    return f"{{{project}}}/contracts".encode()


def freshness_key(project: str) -> bytes:
    """Hash of how the events of every view have kept its promise of freshness, by day."""
    return f"{{{project}}}/freshness".encode()


def freshness_field(view: str, slot: int) -> bytes:
    """A day of a view in that hash: they go round."""
    return f"{view}/{slot}".encode()


def erasures_key(project: str) -> bytes:
    """Hash of what was erased."""
    return f"{{{project}}}/erasures".encode()


def contracts_field(topic: str, partition: int) -> bytes:
    """A partition in that hash."""
    return f"{topic}/{partition}".encode()


def partition_of(field: bytes) -> tuple[str, int]:
    """What `contracts_field` made."""
    topic, _, partition = field.decode().rpartition("/")
    return topic, int(partition)


def layout_key(project: str) -> bytes:
    """Lane count and layout version."""
    return f"{{{project}}}/layout".encode()


def _glob_escape(text: str) -> str:
    """Names may hold characters that SCAN would take for wildcards."""
    return "".join(f"\\{letter}" if letter in "*?[]^-\\" else letter for letter in text)


def smallest_positions(lanes: Sequence[Mapping[tuple[str, int], int]]) -> dict[tuple[str, int], int]:
    """Smallest next offset over lanes for each (topic, partition) that every lane has seen."""
    seen = set(lanes[0]).intersection(*lanes[1:]) if lanes else set()
    return {partition: min(positions[partition] for positions in lanes) for partition in seen}
