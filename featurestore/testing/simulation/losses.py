"""Keys that vanish, bytes that flip, a store that evicts: what of it the product promises to notice.

An entity of which the store holds a single key, and loses it, looks like one that never was (decision 0011). Such
losses are counted apart: the entity is not found at once, and nothing is said of it from then on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from featurestore.errors import CorruptData
from featurestore.online.generation import Generation
from featurestore.testing.simulation.definitions import KEYS
from featurestore.testing.simulation.process import LANES, PROJECT
from featurestore.testing.simulation.world import World
from featurestore.wire.codecs.body import decode_entity
from featurestore.wire.codecs.pack_members import read_packs
from featurestore.wire.entity_key import lane_of, pack_of
from featurestore.wire.store_layout import decode_checkpoint, generations_key, layout_key

_HALVES = {b"/b/": b"/h/", b"/h/": b"/b/", b"/B/": b"/H/", b"/H/": b"/B/"}
"""The kind of key that an entity's, or a pack's, other half has."""

ONLY_KEY_SHARE = 0.1
"""Losses of an entity's only key, which nobody can notice, among losses."""


def lose_key(world: World, draw: random.Random) -> None:
    """A single key goes: half of an entity, a checkpoint, event ids; or, apart from those, an entity's only key."""
    if draw.random() < ONLY_KEY_SHARE:
        _lose_only_key(world, draw)
        return
    kind = draw.choice(("half", "half", "half", "checkpoint", "ids"))
    chosen = draw.choice([*_keys_of_kind(world, kind), b""])
    if chosen:
        _remember_checkpoint(world, chosen)
        world.store.delete([chosen])
        world.counts[f"lost {kind}"] += 1
        if kind == "ids" and draw.random() < 0.5 and world.processes and world.process.is_running:
            # The next commit begins the key anew, and a new process must not take what is there for everything.
            world.producer.send(draw, world.clock.now_ms(), draw.randint(1, 8))
            world.process.read_all()
            world.process.commit()
            world.crash()
            world.producer.send_again()


def lose_record(world: World, draw: random.Random) -> None:
    """The record of all generations goes, or the one of the layout."""
    key = draw.choice((generations_key(PROJECT), layout_key(PROJECT)))
    world.counts["lost generations" if key == generations_key(PROJECT) else "lost layout"] += world.store.delete([key])


def spoil(world: World, draw: random.Random) -> None:
    """A bit of some value flips, or somebody writes a list there."""
    kind = draw.choice(("value", "value", "head", "half", "checkpoint"))
    wanted = (
        [key for key in _keys_of_kind(world, "value") if _kind_of(key) in (b"/h/", b"/H/")] if kind == "head" else None
    )
    chosen = draw.choice([*(_keys_of_kind(world, kind) if wanted is None else wanted), b""])
    [value] = world.store.read_groups([[chosen]])
    if value is None:
        return
    _remember_checkpoint(world, chosen)
    at = draw.randrange(len(value))
    flipped = value[:at] + bytes([value[at] ^ (1 << draw.randrange(8))]) + value[at + 1 :]
    # A checkpoint is no checksummed record; what becomes of it must at least not be JSON any more.
    written = b"{" + flipped if kind == "checkpoint" else flipped
    # An operator deletes a list: of a head, and with its body lost, nothing would be left to be missed.
    is_list = kind == "half" and _kind_of(chosen) in (b"/b/", b"/B/")
    world.store.spoil(chosen, None if is_list else written)
    world.counts[f"spoilt {'value' if kind == 'head' else kind}"] += 1


def evict(world: World, draw: random.Random) -> None:
    """Somebody sets a policy that evicts, or takes it back; some keys are gone by then."""
    world.store.evicts = not world.store.evicts
    if not world.store.evicts:
        return
    for key in list(_keys_of_kind(world, "half"))[:: draw.randint(2, 4)]:
        if _other_half(key) in world.store.contents():
            world.store.delete([key])
            world.store.evicted_keys += 1
    world.counts["evicted"] += 1
    world.clock.advance_ms(30_001)


def _lose_only_key(world: World, draw: random.Random) -> None:
    """The known limit: not found, and nobody can know."""
    contents = world.store.contents()
    alone = [
        name
        for _, _, pair in _entities(world)
        for name, other in (pair, pair[::-1])
        if name in contents and other not in contents
    ]
    if not alone:
        return
    name = draw.choice(alone)
    # Of a pack, that is the only key of all who are in it.
    lost = {(one.keys.stem, key) for one, key, pair in _entities(world) if name in pair}
    world.store.delete([name])
    world.auditor.unknowable |= lost
    world.counts["lost only key"] += 1


def _keys_of_kind(world: World, kind: str) -> Iterator[bytes]:
    """Keys whose loss must be noticed, or, of values, whose bytes must be."""
    contents = world.store.contents()
    if kind in ("value", "half"):
        # Of two damages to one entity the second may hide the first: a lost body, and the bit by which its head knew.
        for generation, key, pair in _entities(world):
            if _is_whole(world, generation, key, pair):
                found = [name for name in pair if name in contents]
                yield from found if kind == "value" or len(found) == len(pair) else ()
        return
    for generation in _generations(world):
        for lane in range(LANES):
            name = generation.keys.checkpoint(lane)
            if name in contents and name not in world.auditor.lost_checkpoints:
                if kind == "checkpoint":
                    yield name
                else:
                    [stored] = world.store.read_groups([[name]])
                    buckets = decode_checkpoint(stored).id_buckets
                    yield from (generation.keys.id_bucket(lane, bucket) for bucket, _ in buckets)


def _is_whole(world: World, generation: Generation, key: bytes, pair: tuple[bytes, bytes]) -> bool:
    """Whether a reader gets an answer."""
    body, head = world.store.read_groups([pair])
    try:
        if _kind_of(pair[0]) == b"/B/":
            return not read_packs(generation.compiled, [(body, head)])[1]
        decode_entity(generation.compiled, body, head)
    except CorruptData:
        return False
    return True


def _remember_checkpoint(world: World, name: bytes) -> None:
    """What a checkpoint said holds on: nobody writes the lane any more."""
    [stored] = world.store.read_groups([[name]])
    if name.endswith(b"/c") and stored is not None:
        world.auditor.lost_checkpoints[name] = stored


def _generations(world: World) -> list[Generation]:
    """All of all views."""
    return [one for each in world.catalog.all().values() for one in each]


def _entities(world: World) -> Iterator[tuple[Generation, bytes, tuple[bytes, bytes]]]:
    """Each entity of each generation, with the names of its body and its head, or of those of its pack."""
    contents = world.store.contents()
    for generation in _generations(world):
        for text in KEYS:
            key = text.encode()
            lane, names = lane_of(key, LANES), generation.keys
            pair = (names.body_prefix(lane) + key, names.head_prefix(lane) + key)
            if generation.packs and not any(name in contents for name in pair):
                pack = b"%d" % pack_of(key, generation.packs)
                pair = (names.pack_body_prefix(lane) + pack, names.pack_head_prefix(lane) + pack)
            yield generation, key, pair


def _other_half(name: bytes) -> bytes:
    """The head of a body, the body of a head."""
    return name.replace(_kind_of(name), _HALVES[_kind_of(name)])


def _kind_of(name: bytes) -> bytes:
    """Of a key of an entity or a pack; b"" of any other."""
    return next((kind for kind in _HALVES if kind in name), b"")
