"""The stream on an embedded log of Avro records: what Kafka and a registry are elsewhere, in a directory."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from dataflows.logs.file_log import FileLog
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.definitions.schemas.directory import SchemaDirectory
from featurestore.errors import SourceUnavailable
from tests.dataflows.conftest import StartStream
from tests.dataflows.logs.test_schemas import FIRST, SECOND, repo_of, written
from tests.dataflows.payments import TOPIC, assert_every_value_is_exact, make_payments


def test_every_value_of_an_embedded_log_is_the_oracles(
    start_stream: StartStream, redis_url: str, tmp_path: Path
) -> None:
    """Two schemas, an id that is none's, a line that is no base64; the source's own registry is not asked."""
    log = tmp_path / "log"
    use_registry = repo_of(tmp_path / "repo", "avro", "http://127.0.0.1:1")
    schemas = SchemaDirectory(log / "_schemas")
    ids = [schemas.register(f"{TOPIC}-value", json.dumps(schema)) for schema in (FIRST, SECOND)]
    parsed = [fastavro.parse_schema(schema) for schema in (FIRST, SECOND)]

    def write(record: dict[str, Any], is_second: bool) -> bytes:
        fastavro.schemaless_writer(stream := io.BytesIO(), parsed[is_second], record)
        return b"\0" + ids[is_second].to_bytes(4, "big") + stream.getvalue()

    before, after = make_payments(600, seed=1), make_payments(600, seed=2, first=600)
    (log / TOPIC).mkdir()
    for number, records in enumerate(
        zip(written(before, write, is_second=False), written(after, write, is_second=True), strict=True)
    ):
        lines = [base64.b64encode(record) for some in records for record in some]
        lines += [base64.b64encode(b"\0\0\0\0\x09" + b"x"), b"{not base64}"] if number == 0 else []
        (log / TOPIC / f"{number}.base64").write_bytes(b"".join(line + b"\n" for line in lines))

    stream = start_stream("--log-dir", str(log), "--until-end", use_registry=use_registry)

    assert stream.wait() == 0, stream.output
    assert_every_value_is_exact(redis_url, before, after)
    letters = [json.loads(line) for path in log.rglob("*.jsonl") for line in path.read_text().splitlines()]
    details = [letter["detail"] for letter in letters]
    assert details.count("is of schema 9, which the registry does not know") == 1
    assert len(details) == 2 + before.bad + after.bad
    assert base64.b64encode(b"{not base64}").decode() in {letter["payload"] for letter in letters}


def test_a_log_of_another_format_says_what_it_looks_for(tmp_path: Path) -> None:
    """Lines of JSON are not taken for records of Avro."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "0.jsonl").write_text("{}\n")
    source = SourceSpec("s", "t", (Column("at", ValueType.INT64),), "at", format="avro")

    with pytest.raises(SourceUnavailable) as missing:
        FileLog(tmp_path).partitions(source)
    assert missing.value.hint == f"write records to {tmp_path}/t/0.base64, one avro record a line, in base64"
