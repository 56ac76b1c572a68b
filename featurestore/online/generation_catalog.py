"""Generations: versions of a view's definition that live side by side in the online store.

    register(new definition)      -> filling        the stream fills it (a new view too, when the stream registers it)
    begin_bootstrap(definition)   -> bootstrapping  computed from the event log; the stream leaves it alone
    hand_over(bootstrapping)      -> filling        the stream goes on where the event log ended
    promote(it has caught up)     -> serving        the old one becomes retired, and is kept
    park(filling)                 -> rolled_back    it cannot be brought up to date
    roll_back(view)               -> the retired one serves again; the other is rolled_back: kept, not fed
    retire(view)                  -> retired, all of them: the view left the registry
    replace_damaged(it lost keys) -> retired, and another one of the same definition fills from the beginning
    refill(some entities are damaged) -> it goes on serving, and another one of the same definition fills beside it
    drop(retired)                 -> its keys are deleted

The record of each generation holds the whole definition, so a reader can answer from the old one after the registry has
moved on to the new. A definition that comes back is found by its hash. One that was rolled back is known as well, so
that the stream does not fill it anew while the registry still has it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import msgspec

from featurestore.core.spec import ViewSpec
from featurestore.errors import CorruptData, InvalidRequest, StoreMismatch
from featurestore.online.generation import Generation, GenerationState, decode_generations, encode_generations
from featurestore.online.serving_view import serving_views
from featurestore.online.store import OnlineStore
from featurestore.wire.codecs.view_json import LAYOUT_VERSION, definition_hash
from featurestore.wire.store_layout import (
    DEFAULT_LANE_COUNT,
    LANE_COUNT_MAX,
    PACKS_MAX,
    GenerationKeys,
    generations_key,
    layout_key,
    packs_for,
)


class _Layout(msgspec.Struct, frozen=True):
    """What is fixed for the whole project."""

    lanes: int
    version: int


_PENDING = frozenset({GenerationState.BOOTSTRAPPING, GenerationState.FILLING, GenerationState.ROLLED_BACK})
"""What another definition of the view supersedes."""

DAMAGED_TOLD_MAX = 20
"""Damaged entities whose names are kept."""

LOOKS_AT_ALL = 30
"""Every so many looks all is read, also where nothing seems to have changed: an older release leaves no trace."""

_encoder = msgspec.json.Encoder()
_layout_decoder = msgspec.json.Decoder(_Layout)


class GenerationCatalog:
    """The generations of a project's views.

    Args:
        store: the online store.
        project: Feast project.
        packs: how many packs a lane of a generation has that is begun here; None for as many as its view asks for.
    """

    def __init__(self, store: OnlineStore, project: str, *, packs: int | None = None) -> None:
        self._packs = packs
        if packs is not None and not 0 <= packs <= PACKS_MAX:
            raise InvalidRequest(f"{packs} packs a lane are not between 0 and {PACKS_MAX}")
        self._looks = 0
        self._seen: tuple[bytes, dict[str, tuple[Generation, ...]]] | None = None
        self._store = store
        self.project = project

    def lane_count(self, wanted: int = DEFAULT_LANE_COUNT) -> int:
        """Number of lanes; fixed by the first caller, whose wish counts.

        Raises:
            StoreMismatch: the store was laid out by another layout version.
            InvalidRequest: `wanted` is out of bounds.
        """
        if not 0 < wanted <= LANE_COUNT_MAX:
            raise InvalidRequest(f"lane count {wanted} is not between 1 and {LANE_COUNT_MAX}")
        key = layout_key(self.project)
        stored = self._store.read_groups([[key]])[0]
        if stored is None:
            self._store.compare_and_set(key, None, _encoder.encode(_Layout(wanted, LAYOUT_VERSION)))
            stored = self._store.read_groups([[key]])[0]
        return self._lanes_of(stored or b"")

    def packs(self, view: ViewSpec) -> int:
        """How many packs a lane of a generation gets that is begun now."""
        if self._packs is not None or not view.expected_entities:
            return self._packs or 0
        # Asking for the number of lanes would fix it, where nobody has yet.
        stored = self._store.read_groups([[layout_key(self.project)]])[0]
        return packs_for(view.expected_entities, DEFAULT_LANE_COUNT if stored is None else self._lanes_of(stored))

    def _lanes_of(self, stored: bytes) -> int:
        """The number of lanes of a layout, which is one of ours."""
        try:
            layout = _layout_decoder.decode(stored)
        except msgspec.MsgspecError as error:
            raise CorruptData(f'layout of project "{self.project}" does not decode', detail=str(error)) from error
        if layout.version != LAYOUT_VERSION:
            raise StoreMismatch(
                f'online store of project "{self.project}" has layout version {layout.version}, not {LAYOUT_VERSION}',
                hint="use another store or project, or the release that wrote it",
            )
        return layout.lanes

    def all(self) -> dict[str, tuple[Generation, ...]]:
        """Every view's generations, oldest first; what has not changed since the last look is not read again."""
        key = generations_key(self.project)
        self._looks += 1
        if self._seen is not None and self._looks % LOOKS_AT_ALL:
            version, known = self._seen
            if self._store.hash_version(key) == version:
                return dict(known)
        # The version first: what changes between the two is read again the next time.
        version = self._store.hash_version(key)
        fields = self._store.hash_fields(key)
        found = {name.decode(): decode_generations(self.project, name.decode(), data) for name, data in fields.items()}
        self._seen = (version, found) if version else None
        return dict(found)

    def generations(self, view_name: str) -> tuple[Generation, ...]:
        """A view's generations, oldest first; empty when it was never registered."""
        return self.all().get(view_name, ())

    def serving(self, view_name: str) -> Generation | None:
        """The generation that readers use."""
        return next((found for found in self.generations(view_name) if found.state is GenerationState.SERVING), None)

    def register(self, view: ViewSpec, *, fills_first: bool = False) -> Generation:
        """The generation of this definition, made if there is none: serving for a new view, else filling.

        Args:
            view: the definition.
            fills_first: let a new view fill too, and not be answered from until it has read what there is. In a store
                that has lost everything every view is new.

        A newer definition retires those that were filling, being bootstrapped or rolled back; one that was retired
        fills anew under a new number, since its tiles have a hole. So does the same definition for another number of
        expected entities.
        """
        wanted, packs = definition_hash(view), self.packs(view)
        while True:
            known, raw = self._read(view.name)
            alive = [one for one in known if one.state is not GenerationState.RETIRED]
            found = next((one for one in alive if _is_as_wanted(one, view, packs)), None)
            others = [
                replace(one, state=GenerationState.RETIRED)
                if one.state in _PENDING and not _is_as_wanted(one, view, packs)
                else one
                for one in known
            ]
            if (
                found is not None
                and others == list(known)
                and all(a.state is b.state for a, b in zip(others, known, strict=True))
            ):
                return found
            if found is None:
                state = GenerationState.FILLING if alive or fills_first else GenerationState.SERVING
                # A store that has only lost its records holds what was the first.
                number = self._unused_number(view, known) if known else 1
                found = Generation(self.project, view, number, wanted, state, packs=packs)
                others.append(found)
            if self._write(view.name, raw, others):
                return found

    def promote(self, generation: Generation) -> Generation:
        """Make a generation the serving one; the one that was serving retires."""
        while True:
            known, raw = self._read(generation.view.name)
            found = next((one for one in known if one.number == generation.number), None)
            if found is None or found.state is GenerationState.RETIRED:
                raise InvalidRequest(
                    f"generation {generation.number} of {generation.view.title} is gone or retired",
                    hint="a newer definition was registered meanwhile; that one is filling now",
                )
            before = next((one.number for one in known if one.state is GenerationState.SERVING), None)
            changed = [_promoted(one, generation.number, before) for one in known]
            if self._write(generation.view.name, raw, changed):
                return next(one for one in changed if one.number == generation.number)

    def begin_bootstrap(self, view: ViewSpec, *, is_anew: bool = False) -> Generation:
        """The generation of this definition that is computed from the event log; what was pending retires.

        Args:
            view: the definition.
            is_anew: begin another one, whatever there is.

        Returns:
            A bootstrapping one, new or begun before; or the filling or serving one that was bootstrapped already.
        """
        packs = self.packs(view)
        while True:
            known, raw = self._read(view.name)
            for one in () if is_anew else known:
                is_done = one.is_bootstrapped and one.state.is_fed
                if _is_as_wanted(one, view, packs) and (is_done or one.state is GenerationState.BOOTSTRAPPING):
                    return one
            number = self._unused_number(view, known)
            state = GenerationState.BOOTSTRAPPING
            begun = Generation(self.project, view, number, definition_hash(view), state, packs=packs)
            others = [replace(one, state=GenerationState.RETIRED) if one.state in _PENDING else one for one in known]
            if self._write(view.name, raw, [*others, begun]):
                return begun

    def hand_over(self, generation: Generation) -> Generation:
        """Give a bootstrapped generation to the stream, which brings it up to date.

        Raises:
            InvalidRequest: it is not being bootstrapped any more.
        """
        while True:
            known, raw = self._read(generation.view.name)
            found = next((one for one in known if one.number == generation.number), None)
            if found is None or found.state is not GenerationState.BOOTSTRAPPING:
                title = generation.view.title
                raise InvalidRequest(
                    f"no bootstrap of generation {generation.number} of {title} is under way",
                    hint="a newer definition was registered, or another bootstrap begun, meanwhile",
                )
            ready = replace(found, state=GenerationState.FILLING, is_bootstrapped=True)
            if self._write(generation.view.name, raw, [ready if one is found else one for one in known]):
                return ready

    def park(self, generation: Generation) -> None:
        """Feed a generation no more that the stream cannot bring up to date; one that is not filling stays as it is.

        It is known as one that was rolled back, so that the stream does not fill its definition anew from what the
        source still has: that would serve windows with a hole. A bootstrap begins another one.
        """
        while True:
            known, raw = self._read(generation.view.name)
            parked = [
                replace(one, state=GenerationState.ROLLED_BACK)
                if one.number == generation.number and one.state is GenerationState.FILLING
                else one
                for one in known
            ]
            if self._write(generation.view.name, raw, parked):
                return

    def retire(self, view_name: str) -> None:
        """Feed and serve nothing of a view that is not registered any more; its keys stay until they are dropped."""
        while True:
            known, raw = self._read(view_name)
            if all(one.state is GenerationState.RETIRED for one in known):
                return
            if self._write(view_name, raw, [replace(one, state=GenerationState.RETIRED) for one in known]):
                return

    def is_opened(self, generation: Generation) -> bool:
        """Whether every lane of a generation has had a checkpoint, as the store knows now; also one that is gone."""
        found = (one for one in self.generations(generation.view.name) if one.number == generation.number)
        return all(one.is_opened for one in found)

    def note_opened(self, generation: Generation, now_ms: int) -> None:
        """Remember that every lane has a checkpoint now; without this, a lost one looks like one that never was.

        Args:
            generation: which one; nothing is written of one that is known to be opened.
            now_ms: processing time.
        """
        while True:
            known, raw = self._read(generation.view.name)
            if all(one.is_opened for one in known if one.number == generation.number):
                return
            noted = [replace(one, opened_ms=now_ms) if one.number == generation.number else one for one in known]
            if self._write(generation.view.name, raw, noted):
                return

    def replace_damaged(self, generation: Generation) -> None:
        """Let another generation of the same definition fill in the place of one that is not whole any more.

        The damaged one retires: readers get no answer of the view rather than one from what is left. Does nothing
        where somebody has done so before, or where the store has lost the record too.
        """
        while True:
            known, raw = self._read(generation.view.name)
            if not any(one.number == generation.number and one.state.is_fed for one in known):
                return
            retired = [
                replace(one, state=GenerationState.RETIRED) if one.number == generation.number else one for one in known
            ]
            others = [one for one in retired if one.definition_hash == generation.definition_hash]
            if all(one.state is GenerationState.RETIRED for one in others):
                number = self._unused_number(generation.view, known)
                retired.append(self._filling(generation, number))
            if self._write(generation.view.name, raw, retired):
                return

    def refill(self, generation: Generation, damaged: Sequence[str]) -> None:
        """Let another generation of the same definition fill beside one that serves with damaged entities.

        Does nothing where one fills already, whatever its definition: it takes the place of the damaged one.

        Args:
            generation: the one that serves.
            damaged: what is wrong with which entities.
        """
        while True:
            known, raw = self._read(generation.view.name)
            serving = next((one for one in known if one.number == generation.number), None)
            if serving is None or serving.state is not GenerationState.SERVING:
                return
            told = tuple(dict.fromkeys((*serving.damaged, *damaged)))[:DAMAGED_TOLD_MAX]
            changed = [replace(one, damaged=told) if one is serving else one for one in known]
            if not any(one.state in (GenerationState.FILLING, GenerationState.BOOTSTRAPPING) for one in known):
                number = self._unused_number(generation.view, known)
                changed.append(self._filling(generation, number))
            if self._write(generation.view.name, raw, changed):
                return

    def forget_damaged(self, generation: Generation, fingerprints: Collection[str]) -> None:
        """Leave out of what is told of a generation's damaged entities what names one of these."""
        while True:
            known, raw = self._read(generation.view.name)
            kept = [[said for said in one.damaged if not any(name in said for name in fingerprints)] for one in known]
            changed = [replace(one, damaged=tuple(told)) for one, told in zip(known, kept, strict=True)]
            if [one.damaged for one in changed] == [one.damaged for one in known]:
                return
            if self._write(generation.view.name, raw, changed):
                return

    def roll_back(self, view_name: str) -> tuple[Generation, Generation]:
        """Make the generation serve again that served before; the one that serves now is kept, but not fed.

        A view that is stored by itself since its definition changed goes back to its storage group.

        Args:
            view_name: of a view or a storage group.

        Returns:
            The one that serves now, and the one that does not any more. A second call returns to the latter.

        Raises:
            InvalidRequest: there is none to return to.
        """
        while True:
            known, raw = self._read(view_name)
            group = self._group_of(view_name)
            serving = next((one for one in known if one.state is GenerationState.SERVING), None)
            kept = (GenerationState.RETIRED, GenerationState.ROLLED_BACK)
            back = next(
                (one for one in known if serving and one.number == serving.replaces and one.state in kept), None
            )
            if group is not None and serving is None:
                raise InvalidRequest(
                    f'feature view "{view_name}" is stored in {group.view.title}',
                    hint=f'apply its earlier definition, or roll "{group.view.name}" back with all its views',
                )
            if serving is not None and back is None and group is not None:
                away = replace(serving, state=GenerationState.ROLLED_BACK)
                if self._write(view_name, raw, [away if one is serving else one for one in known]):
                    return group, away
                continue
            if serving is None or back is None:
                raise InvalidRequest(
                    f'feature view "{view_name}" has no earlier generation to return to',
                    hint="see `featurestore status`; a definition that is gone can be applied and bootstrapped again",
                )
            away = replace(serving, state=GenerationState.ROLLED_BACK)
            serves = replace(back, state=GenerationState.SERVING, replaces=serving.number)
            changed = [serves if one is back else away if one is serving else one for one in known]
            if self._write(view_name, raw, changed):
                return serves, away

    def _group_of(self, view_name: str) -> Generation | None:
        """The storage group that answers for a view, or would if the view had no generation of its own."""
        apart = {name: found for name, found in self.all().items() if name != view_name}
        serving = serving_views(apart).get(view_name)
        return None if serving is None else serving.generation

    def drop(self, generation: Generation) -> int:
        """Delete the keys of a retired generation and forget it; returns how many keys went.

        Raises:
            InvalidRequest: it is not retired.
        """
        while True:
            known, raw = self._read(generation.view.name)
            found = next((one for one in known if one.number == generation.number), None)
            if found is None or found.state is not GenerationState.RETIRED:
                raise InvalidRequest(
                    f"generation {generation.number} of {generation.view.title} is not retired",
                    hint="only what no reader and no writer uses can be dropped",
                )
            # First of all nothing rolls back to it any more, or a generation without keys could come to serve.
            kept = [replace(one, replaces=None) if one.replaces == found.number else one for one in known]
            if self._write(generation.view.name, raw, kept):
                break
        keys = found.keys
        deleted = self._store.delete(key for key in self._store.scan(keys.pattern()) if keys.has(key))
        while not self._write(generation.view.name, raw, [one for one in known if one.number != generation.number]):
            known, raw = self._read(generation.view.name)
        return deleted

    def _filling(self, generation: Generation, number: int) -> Generation:
        """Another one of the same definition."""
        state, packs = GenerationState.FILLING, self.packs(generation.view)
        return Generation(self.project, generation.view, number, generation.definition_hash, state, packs=packs)

    def _unused_number(self, view: ViewSpec, known: Sequence[Generation]) -> int:
        """The next number under which the store holds nothing: a record that was lost may have given it out before."""
        number, lanes = max((one.number for one in known), default=0), range(self.lane_count())
        packs = self.packs(view)
        while True:
            number += 1
            keys = GenerationKeys(self.project, view.name, number, definition_hash(view), packs)
            names = [*map(keys.incarnations, lanes), *map(keys.checkpoint, lanes)]
            if not any(self._store.read_groups([[name] for name in names])):
                return number

    def _read(self, view_name: str) -> tuple[tuple[Generation, ...], bytes | None]:
        """A view's generations and the bytes they were read from."""
        raw = self._store.hash_field(generations_key(self.project), view_name.encode())
        return (decode_generations(self.project, view_name, raw) if raw else ()), raw

    def _write(self, view_name: str, expected: bytes | None, generations: Sequence[Generation]) -> bool:
        """Replace a view's generations unless somebody else did meanwhile."""
        return self._store.compare_and_set_field(
            generations_key(self.project), view_name.encode(), expected, encode_generations(generations)
        )


def _promoted(generation: Generation, number: int, before: int | None) -> Generation:
    """The generation after `number` was made the serving one in the place of `before`."""
    if generation.number == number:
        replaces = generation.replaces if before == number else before
        return replace(generation, state=GenerationState.SERVING, replaces=replaces)
    if generation.state is GenerationState.SERVING:
        return replace(generation, state=GenerationState.RETIRED)
    return generation


def _is_as_wanted(one: Generation, view: ViewSpec, packs: int) -> bool:
    """Whether a generation is of this definition, and has as many packs as its author asks for.

    Those of before there were packs go on until their author says something else than then.
    """
    has_packs = one.packs == packs or one.view.expected_entities == view.expected_entities
    return one.definition_hash == definition_hash(view) and has_packs
