"""An answered row, or one that is refused, with everything that stands behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from featurestore.core.inputs import python_values
from featurestore.core.spec import PlainViewSpec, RepoSpec, ValueType, ViewSpec
from featurestore.core.windows.durations import duration_words, readable_duration
from featurestore.definitions.compile.meaning import feature_sentence
from featurestore.errors import CorruptTile, InvalidRequest
from featurestore.errors.near_names import suggest
from featurestore.online.answer.assembly import Answer, DistinctReads
from featurestore.online.answer.explaining.evidence import EventInFlight, FeatureEvidence, PartEvidence
from featurestore.online.answer.explaining.explanation import (
    ExplainedFeature,
    ExplainedPosition,
    ExplainedTile,
    ExplainedValue,
    ExplainedView,
    Explanation,
)
from featurestore.online.answer.in_flight.payments import InFlight
from featurestore.online.answer.schema import FeatureSlot, FeatureStatus, Matrix
from featurestore.online.answer.service_plan import ComputedSlot, PlainPart, ServicePlan, StreamPart
from featurestore.online.read.reader import EntityBytes, PlainBytes
from featurestore.online.serving_view import ServingView
from featurestore.wire.codecs.plain_row import decode_values
from featurestore.wire.codecs.view_json import on_demand_hash
from featurestore.wire.store_layout import Checkpoint, decode_checkpoint


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """One row as it was asked, read and answered.

    Attributes:
        plan: the feature service.
        repo: the registry.
        serving: what answers for each stream view.
        entity: join key -> value, all of the plan's.
        reads, found: what was wanted of the store, and what it returned, checkpoints with it.
        as_of_ms: the read time.
        stored: the answer of the plan's stored plan; None where the lookup is refused.
        answer: with what is computed on demand; likewise.
        refusal: then, why.
        request: columns of the request that features are computed from.
        in_flight: the payments in flight; None without.
    """

    plan: ServicePlan
    repo: RepoSpec
    serving: Mapping[str, ServingView]
    entity: Mapping[str, str | int]
    reads: DistinctReads
    found: Sequence[EntityBytes | PlainBytes]
    as_of_ms: int
    stored: Answer | None
    answer: Answer | None
    refusal: str
    request: Mapping[str, ExplainedValue] = field(default_factory=dict)
    in_flight: InFlight | None = None


def explain(row: AnsweredRow, wanted: Sequence[str] = ()) -> Explanation:
    """Why a row has the values that it has.

    Args:
        row: the row.
        wanted: names of features, as they are answered or "view:feature"; empty for all.

    Raises:
        InvalidRequest: the service has no such feature, with near names.
        CorruptData: the stored bytes are damaged.
    """
    chosen, on_demand = chosen_features(row.plan, wanted), row.plan.on_demand
    if on_demand is None:
        return _Explainer(row).explain(chosen)
    copied = {to: of for of, to in on_demand.copied}
    computed = {one.at: one for one in on_demand.computed}
    read = sorted(
        {copied[at] for at in chosen if at in copied}.union(
            *(computed[at].reads.values() for at in chosen if at in computed)
        )
    )
    below = _Explainer(replace(row, plan=on_demand.stored, answer=row.stored)).explain(read)
    found = dict(zip(read, below.features, strict=True))
    schema, views = row.plan.schema, list(below.views)
    numbers: dict[str, int] = {}
    features = []
    for at in chosen:
        slot = schema.features[at]
        if at in copied:
            features.append(replace(found[copied[at]], name=slot.name))
            continue
        one = computed[at]
        if one.view not in numbers:
            numbers[one.view] = len(views)
            views.append(_on_demand_view(row, one.view))
        features.append(
            ExplainedFeature(
                name=slot.name,
                view=numbers[one.view],
                feature=one.feature,
                type=slot.type,
                meaning=_on_demand_sentence(row.repo, one),
                hop_ms=0,
                value=None if row.answer is None else answered_value(row.answer, slot, at),
                status=None if row.answer is None else FeatureStatus(int(row.answer.statuses[at, 0])),
                reads=(reads := tuple(replace(found[of], name=name) for name, of in one.reads.items())),
                counts_event=_any_counts(reads),
            )
        )
    return replace(below, views=tuple(views), features=tuple(features), request=dict(row.request))


def _any_counts(reads: Sequence[ExplainedFeature]) -> bool | None:
    """Whether a payment in flight is among what some features cover; None where it is of none of their sources."""
    said = [read.counts_event for read in reads if read.counts_event is not None]
    return any(said) if said else None


def _on_demand_view(row: AnsweredRow, name: str) -> ExplainedView:
    """A view that is computed while it is asked for."""
    view = row.repo.on_demand_view(name)
    assert view is not None, f'a plan has on-demand view "{name}", the registry does not'
    return ExplainedView(
        name=name,
        entity={key.name: row.entity[key.name] for key in view.join_keys if key.name in row.entity},
        definition_hash=on_demand_hash(view),
        stored_as="",
        generation=0,
        state="computed while it is asked for, from other features and the columns of the request",
        event_time_ms=0,
        freshness_ms=-1,
        lookback_ms=0,
        watermark_ms=0,
        positions=(),
        tiles=(),
    )


def _on_demand_sentence(repo: RepoSpec, slot: ComputedSlot) -> str:
    """What a feature is computed from."""
    view = repo.on_demand_view(slot.view)
    assert view is not None, f'a plan has on-demand view "{slot.view}", the registry does not'
    expression = next(one.expression for one in view.features if one.name == slot.feature)
    return f"{expression or 'what the function of the view makes of its inputs'}, computed when it is asked for"


def chosen_features(plan: ServicePlan, wanted: Sequence[str]) -> list[int]:
    """Indices of some features of a service, in answer order; all where none is named.

    Raises:
        InvalidRequest: the service has no such feature, with near names.
    """
    schema = plan.schema
    at = {f"{one.view}:{one.feature}": index for index, one in enumerate(plan.references)}
    at |= {feature.name: index for index, feature in enumerate(schema.features)}
    for name in wanted:
        if name not in at:
            known = [one for one in at if (":" in one) == (":" in name)]
            raise InvalidRequest(
                f'feature service "{schema.service}" has no feature "{name}"', hint=suggest(name, known)
            )
    return sorted({at[name] for name in wanted}) or list(range(len(schema.features)))


@dataclass(frozen=True, slots=True)
class _Lowered:
    """Where a feature is lowered: which part, and which of what it computes."""

    part: int
    index: int


class _Explainer:
    """Explains one row."""

    def __init__(self, row: AnsweredRow) -> None:
        self._row, self._plan = row, row.plan
        self._lowered = _places(row.plan)

    def explain(self, features: Sequence[int]) -> Explanation:
        """See `explain`."""
        row, schema = self._row, self._plan.schema
        numbers = {view: number for number, view in enumerate(sorted({schema.features[at].view for at in features}))}
        views, explained = [], dict[int, ExplainedFeature]()
        for view, number in numbers.items():
            mine = [at for at in features if schema.features[at].view == view]
            tiles, evidence = self._evidence(view, mine)
            views.append(self._view(view, tiles))
            explained |= {at: self._feature(at, number, evidence) for at in mine}
        return Explanation(
            schema.service,
            dict(row.entity),
            row.as_of_ms,
            row.refusal,
            tuple(views),
            tuple(explained[at] for at in features),
            events=self._events(),
        )

    @cached_property
    def _parts(self) -> list[PartEvidence]:
        """What stands behind each stream part."""
        found: list[PartEvidence] = []
        for part, (read,) in zip(self._plan.stream_parts, self._row.reads.rows, strict=False):
            mine = self._row.found[read]
            assert isinstance(mine, EntityBytes)
            found.append(PartEvidence(part, mine, self._row.as_of_ms, self._event_of(len(found))))
        return found

    def _event_of(self, part: int) -> EventInFlight | None:
        """The payment in flight, if there is one of a part's source."""
        in_flight, selection = self._row.in_flight, self._plan.stream_parts[part].selection
        seen = None if in_flight is None else in_flight.of_parts[part]
        if in_flight is None or seen is None:
            return None
        columns = in_flight.columns[selection.source.name]
        selection.event_inputs.compute(columns, 1)
        return EventInFlight(seen, columns)

    def _events(self) -> dict[str, dict[str, ExplainedValue]]:
        """The payments in flight by source: their columns that are read."""
        in_flight, columns = self._row.in_flight, dict[str, dict[str, ExplainedValue]]()
        for source in self._plan.schema.event_sources:
            if in_flight is not None and source.name in in_flight.columns:
                values = in_flight.columns[source.name]
                columns[source.name] = {
                    one.name: python_values(values[one.name], one.type)[0] for one in source.columns
                }
        return columns

    def _evidence(
        self, view: int, features: Sequence[int]
    ) -> tuple[tuple[ExplainedTile, ...], dict[int, FeatureEvidence]]:
        """Tiles behind some features of a view, and what each of these, and of those that they read, comes to."""
        places = [self._lowered[at] for at in features if at in self._lowered]
        if not places:
            return (), {}
        part = self._parts[places[0].part]
        own = [place.index for place in places]
        read = [index for one in own for index in part.read_by(one).values()]
        try:
            return part.show(sorted({*own, *read}))
        except UnicodeDecodeError as error:
            name = self._plan.schema.views[view].name
            raise CorruptTile(f'stored text of feature view "{name}" is not UTF-8', detail=str(error)) from error

    def _feature(self, at: int, view: int, evidence: Mapping[int, FeatureEvidence]) -> ExplainedFeature:
        """One feature of the answer."""
        slot, reference = self._plan.schema.features[at], self._plan.references[at]
        spec = self._spec_of(reference.view, reference.feature)
        answer, place = self._row.answer, self._lowered.get(at)
        mine = None if place is None else evidence[place.index]
        reads: tuple[ExplainedFeature, ...] = ()
        if place is not None and isinstance(spec, ViewSpec):
            part = self._parts[place.part]
            reads = tuple(
                replace(
                    self._read_feature(spec, name, view, part.hop_ms(index), evidence[index]),
                    counts_event=part.counts_event(index),
                )
                for name, index in part.read_by(place.index).items()
            )
        return ExplainedFeature(
            name=slot.name,
            view=view,
            feature=reference.feature,
            type=slot.type,
            meaning=feature_sentence(spec, reference.feature),
            hop_ms=0 if place is None else self._parts[place.part].hop_ms(place.index),
            value=None if answer is None else answered_value(answer, slot, at),
            status=None if answer is None else FeatureStatus(int(answer.statuses[at, 0])),
            windows=() if mine is None else mine.windows,
            partials=() if mine is None else mine.partials,
            reads=reads,
            counts_event=None if place is None else self._parts[place.part].counts_event(place.index),
        )

    def _read_feature(
        self, spec: ViewSpec, name: str, view: int, hop_ms: int, evidence: FeatureEvidence
    ) -> ExplainedFeature:
        """A feature that a derived one reads; whether the lookup is refused as a whole does not matter to it."""
        value_type = next(feature.type for feature in spec.features if feature.name == name)
        status = FeatureStatus.NULL_VALUE if evidence.value is None else FeatureStatus.PRESENT
        return ExplainedFeature(
            name=name,
            view=view,
            feature=name,
            type=value_type,
            meaning=feature_sentence(spec, name),
            hop_ms=hop_ms,
            value=None if self._row.answer is None else evidence.value,
            status=None if self._row.answer is None else status,
            windows=evidence.windows,
            partials=evidence.partials,
        )

    def _spec_of(self, view: str, feature: str) -> ViewSpec | PlainViewSpec:
        """The definition that answers for a feature; the registered one where it was renamed, or none answers."""
        plain = self._row.repo.plain_view(view)
        if plain is not None:
            return plain
        served, spec = self._row.serving.get(view), self._row.repo.view(view)
        assert spec is not None, f'a plan has feature view "{view}", the registry does not'
        is_served = served is not None and any(one.name == feature for one in served.view.answers)
        return served.view if served is not None and is_served else spec

    def _view(self, view: int, tiles: tuple[ExplainedTile, ...]) -> ExplainedView:
        """One view, and what is known of the entity there."""
        row, schema = self._row, self._plan.schema
        name, definition_hash = schema.views[view].name, schema.views[view].definition_hash
        part = next((one for one in self._plan.stream_parts if view in [at for at, _ in one.views]), None)
        plain = next((one for one in self._plan.plain_parts if one.view == view), None)
        keys = [schema.join_keys[key].name for key in (part or plain or _NOBODY).key_columns]
        checkpoint = self._checkpoint(part)
        newest_ms = self._newest_ms(view, part)
        return ExplainedView(
            name=name,
            entity={key: row.entity[key] for key in keys},
            definition_hash=definition_hash if part is not None else "",
            stored_as="" if part is None else part.generation.view.name,
            generation=0 if part is None else part.generation.number,
            state=self._state(view, part, plain),
            event_time_ms=newest_ms,
            freshness_ms=row.as_of_ms - newest_ms if newest_ms else -1,
            lookback_ms=0 if part is None else part.generation.view.lookback_ms,
            watermark_ms=checkpoint.watermark_ms,
            positions=tuple(ExplainedPosition(*position) for position in checkpoint.positions),
            tiles=tiles,
        )

    def _newest_ms(self, view: int, part: StreamPart | None) -> int:
        """Newest event behind a view's values; of a refused lookup, that of what is stored."""
        if self._row.answer is not None:
            return int(self._row.answer.event_time_ms[view, 0])
        return 0 if part is None else self._parts[self._plan.stream_parts.index(part)].newest_ms

    def _checkpoint(self, part: StreamPart | None) -> Checkpoint:
        """What the entity's lane had seen; nothing of materialized views."""
        if part is None:
            return Checkpoint()
        (read,) = self._row.reads.rows[self._plan.stream_parts.index(part)]
        found = self._row.found[read]
        assert isinstance(found, EntityBytes)
        return decode_checkpoint(found.checkpoint)

    def _state(self, view: int, part: StreamPart | None, plain: PlainPart | None) -> str:
        """Whether the entity is known, and if not, why; no full stop."""
        if plain is not None:
            return self._plain_state(plain)
        if part is None:
            return "no generation of this view answers yet: it is still being computed, or was never filled"
        evidence = self._parts[self._plan.stream_parts.index(part)]
        if evidence.is_refused:
            lookback = duration_words(part.generation.view.lookback_ms)
            unclear = (
                ", and whether it had an event within what is kept cannot be told"
                if evidence.is_presence_unclear
                else ""
            )
            return (
                f"this moment lies more than the lookback of {lookback} before the entity's newest event: "
                f"tiles may be too wide for it{unclear}"
            )
        if self._newest_ms(view, part):
            return "the entity is known"
        if self._is_in_flight(view, part):
            return "nothing but the payment in flight is known of the entity"
        spec = self._row.serving[self._plan.schema.views[view].name].view
        kept = (
            "" if spec.retention_ms is None else f" within the {duration_words(spec.retention_ms)} that the view keeps"
        )
        if not evidence.stored_count:
            return (
                "nothing is stored of this entity: the stream has read no event of it, or none for longer than is kept"
            )
        return f"no event of this entity{kept} before the read time"

    def _is_in_flight(self, view: int, part: StreamPart) -> bool:
        """Whether the payment in flight is an event of a view."""
        event = self._event_of(self._plan.stream_parts.index(part))
        views = [at for at, _ in part.views]
        if event is None:
            return False
        is_of_view = event.seen.is_of_view[views.index(view)]
        return is_of_view is None or bool(is_of_view[0])

    def _plain_state(self, plain: PlainPart) -> str:
        """Of a materialized view."""
        (read,) = self._row.reads.rows[len(self._plan.stream_parts) + self._plan.plain_parts.index(plain)]
        found = self._row.found[read]
        assert isinstance(found, PlainBytes)
        if found.value is None:
            return "nothing was materialized for this entity"
        age_ms = self._row.as_of_ms - decode_values(found.value).event_time_ms
        if age_ms < 0:
            return f"materialized with a time {readable_duration(-age_ms)} after the read time"
        text = f"materialized with a time {readable_duration(age_ms)} before the read time"
        ttl_ms = plain.spec.ttl_ms
        if ttl_ms is not None and age_ms > ttl_ms:
            return f"{text}, which is older than the {duration_words(ttl_ms)} that the view holds for"
        return text


@dataclass(frozen=True, slots=True)
class _NoPart:
    """Stands for a view that nothing answers for."""

    key_columns: tuple[int, ...] = ()


_NOBODY = _NoPart()


def answered_value(answer: Answer, slot: FeatureSlot, at: int) -> ExplainedValue:
    """A feature's value in an answer's only row.

    Args:
        answer: one row.
        slot: where the feature is.
        at: its index in the schema.
    """
    if answer.null[at, 0]:
        return None
    if slot.matrix is Matrix.DOUBLES:
        return float(answer.doubles[slot.slot, 0])
    if slot.matrix is Matrix.INTEGERS:
        number = int(answer.integers[slot.slot, 0])
        return bool(number) if slot.type is ValueType.BOOL else number
    if slot.matrix is Matrix.STRINGS:
        return answer.strings[slot.slot]
    found: ExplainedValue = answer.objects[slot.matrix][slot.slot]  # type: ignore[assignment]  # lists and maps only
    return found


def _places(plan: ServicePlan) -> dict[int, _Lowered]:
    """Where each feature that a stream view answers is lowered, by its index in the schema."""
    at_output = {output: at for output, at, _, _ in plan.places.tolist()}
    found, first = dict[int, _Lowered](), 0
    for number, part in enumerate(plan.stream_parts):
        outputs = part.selection.lowered.outputs
        for output, index in enumerate(outputs):
            if first + output in at_output:
                found[at_output[first + output]] = _Lowered(number, index)
        first += len(outputs)
    return found
