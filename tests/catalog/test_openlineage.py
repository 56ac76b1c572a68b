"""What other catalogs are told keeps to what OpenLineage's own schemas require, and names every column."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pyarrow.parquet as pq
import pytest

from featurestore.catalog.lineage.openlineage import dataset_events
from featurestore.catalog.model import Catalog
from featurestore.cli.main import main
from featurestore.core.inputs import ViewInputs
from tests.catalog.test_snippets import NOON_MS, payments_table, without_permissions
from tests.docs.pages import clean_environment

URI, TEXT = {"type": "string", "format": "uri"}, {"type": "string"}


def required(**properties: Any) -> dict[str, Any]:
    """An object that has all of these, and may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def facet(name: str, **properties: Any) -> dict[str, Any]:
    """A facet of that schema, in whichever version."""
    pattern = rf"^https://openlineage\.io/spec/facets/\d-\d-\d/{name}\.json#/\$defs/{name}$"
    return required(_producer=URI, _schemaURL={"type": "string", "pattern": pattern}, **properties)


INPUT_FIELD = required(
    namespace=TEXT,
    name=TEXT,
    field=TEXT,
    transformations={"type": "array", "items": required(type={"enum": ["DIRECT", "INDIRECT"]})},
)
DATASET = required(namespace=TEXT, name=TEXT)
DATASET["properties"]["facets"] = {
    "type": "object",
    "properties": {
        "schema": facet("SchemaDatasetFacet", fields={"type": "array", "items": required(name=TEXT)}),
        "columnLineage": facet(
            "ColumnLineageDatasetFacet",
            fields={
                "type": "object",
                "additionalProperties": required(inputFields={"type": "array", "items": INPUT_FIELD}),
            },
        ),
        "documentation": facet("DocumentationDatasetFacet", description=TEXT),
        "ownership": facet("OwnershipDatasetFacet", owners={"type": "array", "items": required(name=TEXT)}),
    },
    "additionalProperties": False,
}
MOMENT = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}


def event(kind: str, **properties: Any) -> dict[str, Any]:
    """What the specification 2-0-2 requires of an event."""
    address = {"const": f"https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/{kind}"}
    return required(eventTime=MOMENT, producer=URI, schemaURL=address, **properties)


DATASET_EVENT = event("DatasetEvent", dataset=DATASET)
RUN_EVENT = event(
    "RunEvent",
    eventType={"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
    run=required(
        runId={"type": "string", "pattern": r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
        facets={
            "type": "object",
            "properties": {"errorMessage": facet("ErrorMessageRunFacet", message=TEXT, programmingLanguage=TEXT)},
            "additionalProperties": False,
        },
    ),
    job=required(
        namespace=TEXT,
        name=TEXT,
        facets=required(jobType=facet("JobTypeJobFacet", processingType=TEXT, integration=TEXT)),
    ),
    inputs={"type": "array", "items": DATASET},
    outputs={"type": "array", "items": DATASET},
)


def keeps_to(schema: dict[str, Any], events: list[Any]) -> None:
    """Each of them does."""
    for one in events:
        jsonschema.validate(one, schema, format_checker=jsonschema.FormatChecker())


def test_a_view_is_described_with_every_column_behind_each_feature(catalog: Catalog, registry: Path) -> None:
    """Down to the payload, as the stream decodes it for the feature; with owner and meaning."""
    events = dataset_events(catalog.spec, registry.read_bytes(), NOON_MS)
    keeps_to(DATASET_EVENT, events)
    by_view = {one["dataset"]["name"]: one["dataset"]["facets"] for one in events}

    assert ["card_activity", "merchant_activity"] == sorted(by_view)
    assert [{"name": "team:payments-risk", "type": "OWNER"}] == by_view["card_activity"]["ownership"]["owners"]
    for view in catalog.spec.views:
        fields = by_view[view.name]["columnLineage"]["fields"]
        for feature in view.features:
            decoded = set(ViewInputs(replace(view, features=(feature,))).payload_columns) | {"paid_at", "payment_id"}
            assert decoded == {field["field"] for field in fields[feature.name]["inputFields"]}
    fields = by_view["card_activity"]["columnLineage"]["fields"]
    large = {one["field"]: one for one in fields["large_1d"]["inputFields"]}
    assert "payments" == large["amount"]["name"]
    assert "GROUP_BY" == large["card_id"]["transformations"][0]["subtype"]


class Collector(http.server.BaseHTTPRequestHandler):
    """An endpoint that keeps what it is sent; the second event of a run it refuses."""

    received: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        """One event."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.received.append((self.path, self.headers["authorization"], json.loads(body)))
        self.send_response(201 if len(self.received) == 1 else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_runs_are_told_and_never_wait_for_whom_they_are_told(
    registry: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training set that is made, one that fails, and a stream; into a file, and to an endpoint that breaks."""
    pq.write_table(payments_table(3), tmp_path / "payments.parquet")
    (tmp_path / "labels.csv").write_text("merchant_id,event_timestamp\n1,2026-11-29T10:00Z\n")
    open_registry = without_permissions(registry, tmp_path / "registry.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "k-1")
    where = ["--registry", str(open_registry), "--project", "catalog"]
    command = ["history", *where, "--entities", "labels.csv", "--service", "merchant_watch", "--out", "train.parquet"]
    command += ["--event-log", "payments.parquet", "--lineage"]

    assert 0 == main([*command, "file:lineage.jsonl"])
    (tmp_path / "labels.csv").write_text("merchant_id,event_timestamp\n1,yesterday\n")
    assert 1 == main([*command, "file:lineage.jsonl"])
    (tmp_path / "log" / "payments").mkdir(parents=True)
    (tmp_path / "log" / "payments" / "0.jsonl").touch()
    stream = ["stream", *where, "--store-url", redis_url, "--log-dir", "log", "--until-end"]
    subprocess.run(
        [sys.executable, "-m", "featurestore", *stream, "--lineage", "file:lineage.jsonl"],
        env=clean_environment(),
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=120,
    )
    told = [json.loads(line) for line in (tmp_path / "lineage.jsonl").read_text().splitlines()]
    keeps_to(RUN_EVENT, told)
    jobs = [(one["job"]["name"], one["eventType"]) for one in told]
    made, failed = ["START", "COMPLETE"], ["START", "FAIL"]
    assert [*[("history.merchant_watch", kind) for kind in made + failed], ("stream", "START")] == jobs
    assert told[0]["run"]["runId"] == told[1]["run"]["runId"] != told[2]["run"]["runId"]
    assert "yesterday" in told[3]["run"]["facets"]["errorMessage"]["message"]
    assert [{"namespace": "file", "name": str(tmp_path / "train.parquet")}] == told[0]["outputs"]
    assert told[0]["inputs"][0] in told[4]["outputs"]

    (tmp_path / "labels.csv").write_text("merchant_id,event_timestamp\n1,2026-11-29T10:00Z\n")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as endpoint:
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        assert 0 == main([*command, f"http://127.0.0.1:{endpoint.server_port}/api/v1/lineage"])
        endpoint.shutdown()
    assert [("/api/v1/lineage", "Bearer k-1", kind) for kind in ("START", "COMPLETE")] == [
        (path, key, content["eventType"]) for path, key, content in Collector.received
    ]
    assert "note: lineage was not sent to http://127.0.0.1" in capsys.readouterr().err
    assert 1 == main([*command, "ftp://somewhere"])
