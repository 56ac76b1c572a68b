"""OpenLineage events about a project: its datasets as they are registered, and runs that read and write them.

    apply      a DatasetEvent for each view: columns, owner, and which columns of topics each feature is made of
    stream     a RunEvent: topics -> views; it begins and has no end of its own
    history    RunEvents: views -> training set, begun and completed, or failed
    bootstrap  RunEvents: topics -> view

Source: https://openlineage.io/spec/2-0-2/OpenLineage.json, and the facets' own schemas, which each event names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from featurestore import __version__
from featurestore.catalog.lineage.graph import COLUMN, FEATURE, Arrow, Lineage, Node, feature
from featurestore.core.spec import Column, RepoSpec, SourceSpec, ViewSpec
from featurestore.definitions.governance.about import about_feature, about_of
from featurestore.wire.feast.authors import Authored, authored_in

Event = Mapping[str, Any]

PRODUCER = f"urn:x-featurestore:{__version__}"
"""Who says all this; a URI, as the specification wants, that leads nowhere."""

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/"
FACETS = "https://openlineage.io/spec/facets/"

START, COMPLETE, FAIL, ABORT = "START", "COMPLETE", "FAIL", "ABORT"

_GROUPING, _FILTERING = "GROUP_BY", "FILTER"


@dataclass(frozen=True, slots=True)
class Run:
    """What reads datasets and writes others.

    Attributes:
        job: its name, such as "history.fraud_detection".
        processing: "BATCH" or "STREAMING".
        inputs, outputs: datasets.
    """

    job: str
    processing: str
    inputs: Sequence[Event]
    outputs: Sequence[Event]


def namespace_of(project: str) -> str:
    """Of jobs, views and training sets' features: the project."""
    return f"featurestore://{project}"


def topics_of(source: SourceSpec, project: str) -> list[Event]:
    """Datasets of a source's topics."""
    servers = source.bootstrap_servers.split(",")[0]
    place = f"kafka://{servers}" if servers else namespace_of(project)
    return [{"namespace": place, "name": topic} for topic in source.topics]


def view_dataset(project: str, view: str) -> Event:
    """A view by its name."""
    return {"namespace": namespace_of(project), "name": view}


def file_dataset(place: str) -> Event:
    """A file or an object by where it is."""
    parts = urlsplit(place)
    if parts.scheme and parts.netloc:
        return {"namespace": f"{parts.scheme}://{parts.netloc}", "name": parts.path.lstrip("/")}
    return {"namespace": "file", "name": str(Path(place).absolute())}


def run_event(run: Run, run_id: str, kind: str, project: str, now_ms: int, error: str = "") -> Event:
    """That a run begins, has ended, or has failed.

    Args:
        run: what it is.
        run_id: a UUID, the same in all events of the run.
        kind: START, COMPLETE, FAIL or ABORT.
        project: whose it is.
        now_ms: when.
        error: why it failed.
    """
    job_type = {"processingType": run.processing, "integration": "FEATURESTORE", "jobType": "JOB"}
    failed = {"errorMessage": _facet("1-0-1/ErrorMessageRunFacet", message=error, programmingLanguage="PYTHON")}
    return {
        "eventType": kind,
        **_base("RunEvent", now_ms),
        "run": {"runId": run_id, "facets": failed if error else {}},
        "job": {
            "namespace": namespace_of(project),
            "name": run.job,
            "facets": {"jobType": _facet("2-0-3/JobTypeJobFacet", **job_type)},
        },
        "inputs": list(run.inputs),
        "outputs": list(run.outputs),
    }


def dataset_events(spec: RepoSpec, registry: bytes, now_ms: int) -> list[Event]:
    """Every stream view as it is registered.

    Args:
        spec: the project, compiled.
        registry: the serialized feast.core.Registry that it was compiled from.
        now_ms: when.
    """
    lineage = Lineage(spec)
    authored = {one.name: one for one in authored_in(registry, spec.project) if one.kind == "feature view"}
    events: list[Event] = []
    for view in spec.views:
        said = authored.get(view.name, Authored("feature view", view.name))
        dataset = {**view_dataset(spec.project, view.name), "facets": _facets(view, lineage, said, spec.project)}
        events.append({**_base("DatasetEvent", now_ms), "dataset": dataset})
    return events


def stream_run(spec: RepoSpec) -> Run:
    """The stream of all views."""
    sources = {view.source.name: view.source for view in spec.views}
    inputs = [topic for source in sources.values() for topic in topics_of(source, spec.project)]
    return Run("stream", "STREAMING", inputs, [view_dataset(spec.project, view.name) for view in spec.views])


def bootstrap_run(project: str, view: ViewSpec) -> Run:
    """The history of a view, or of a storage group."""
    outputs = [view_dataset(project, name) for name in [one.name for one in view.members] or [view.name]]
    return Run(f"bootstrap.{view.name}", "BATCH", topics_of(view.source, project), outputs)


def training_set_run(spec: RepoSpec, wanted: str | Sequence[str], out: str) -> Run:
    """A training set of a service, or of features "view:feature"."""
    service = spec.service(wanted) if isinstance(wanted, str) else None
    names = [one.view for one in service.features] if service is not None else []
    names += [one.partition(":")[0] for one in wanted] if not isinstance(wanted, str) else []
    inputs = [view_dataset(spec.project, name) for name in dict.fromkeys(names)]
    job = f"history.{wanted}" if isinstance(wanted, str) else "history"
    return Run(job, "BATCH", inputs, [file_dataset(out)])


def _base(kind: str, now_ms: int) -> dict[str, Any]:
    moment = datetime.fromtimestamp(now_ms / 1_000, tz=UTC).isoformat(timespec="milliseconds")
    return {"eventTime": moment.replace("+00:00", "Z"), "producer": PRODUCER, "schemaURL": SPEC + kind}


def _facet(schema: str, **content: object) -> Event:
    """A facet; `schema` is version and name, such as "1-0-1/DocumentationDatasetFacet"."""
    name = schema.partition("/")[2]
    return {"_producer": PRODUCER, "_schemaURL": f"{FACETS}{schema}.json#/$defs/{name}", **content}


def _facets(view: ViewSpec, lineage: Lineage, said: Authored, project: str) -> dict[str, Event]:
    about = about_of(said)
    columns: Sequence[Column] = (*view.join_keys, *view.answers)
    fields = [
        {"name": one.name, "type": str(one.type), "description": about_feature(said, one.name).description}
        for one in columns
    ]
    fields = [{name: text for name, text in field.items() if text} for field in fields]
    facets = {
        "schema": _facet("1-1-1/SchemaDatasetFacet", fields=fields),
        "columnLineage": _facet("1-2-0/ColumnLineageDatasetFacet", fields=_column_lineage(view, lineage, project)),
    }
    if about.description:
        facets["documentation"] = _facet("1-0-1/DocumentationDatasetFacet", description=about.description)
    if about.owner:
        owners = [{"name": f"team:{about.owner}", "type": "OWNER"}]
        facets["ownership"] = _facet("1-0-1/OwnershipDatasetFacet", owners=owners)
    return facets


def _column_lineage(view: ViewSpec, lineage: Lineage, project: str) -> dict[str, Event]:
    """Feature -> fields of the topics' payloads that it is made of, and how."""
    found: dict[str, Event] = {}
    payload = {one.name for one in view.source.columns} - view.source.generated
    for one in view.answers:
        inputs = []
        for reached in lineage.comes_from(feature(view.name, one.name)):
            node = reached.node
            if node.kind == COLUMN and node.owner == view.source.name and node.short in payload:
                inputs += _input_fields(view.source, node, reached.arrow, project)
        found[one.name] = {"inputFields": inputs}
    return found


def _input_fields(source: SourceSpec, node: Node, arrow: Arrow, project: str) -> list[Event]:
    """A column as a field of each topic, under the name that it has there."""
    is_value = arrow.end.kind in (FEATURE, COLUMN) and not arrow.why.startswith("only where")
    subtype = ("AGGREGATION" if arrow.end.kind == FEATURE else "TRANSFORMATION") if is_value else _FILTERING
    subtype = _GROUPING if arrow.why == "key" else subtype
    kind = "DIRECT" if is_value else "INDIRECT"
    transformation = {"type": kind, "subtype": subtype, "description": arrow.why, "masking": False}
    renamed = {one.topic: dict(one.renamed) for one in source.per_topic}
    return [
        {**topic, "field": renamed[topic["name"]].get(node.short, node.short), "transformations": [transformation]}
        for topic in topics_of(source, project)
    ]
