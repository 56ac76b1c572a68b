"""`featurestore lookup`: several rows, chosen features, client certificates, and times that people can read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featurestore.cli.lookup.command import command
from featurestore.cli.main import main
from featurestore.serving.request.tls import Tls
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.payments import NOW_MS, Payments, RegistryInMemory

COUNT = "card_activity__count_1h"

Capture = pytest.CaptureFixture[str]


def look_up(server: FeatureServer, *arguments: str) -> Result:
    """The command against a server, on a terminal of 120 columns."""
    address = ["--address", f"127.0.0.1:{server.port}"]
    return CliRunner().invoke(command, [*arguments, *address], env={"COLUMNS": "120"})


def test_a_key_that_is_given_twice_makes_two_rows(server: FeatureServer) -> None:
    """Each with its own values, as a table each and as a list of JSON; one row stays the object that it was."""
    both = ["merchant_monitoring", "merchant_id=7", "merchant_id=8"]
    tables = look_up(server, *both).output
    first, second = json.loads(look_up(server, *both, "--format", "json").output)
    alone = json.loads(look_up(server, *both[:2], "--format", "json").output)

    assert tables.index("merchant_monitoring of merchant_id=7") < tables.index("merchant_monitoring of merchant_id=8")
    assert alone == first
    assert [{"merchant_id": 7}, {"merchant_id": 8}] == [first["entity"], second["entity"]]
    assert {"PRESENT"} == {each["status"] for each in first["features"].values() if each["value"] is not None}
    assert {"NOT_FOUND"} == {each["status"] for each in second["features"].values()}


def test_what_is_given_once_holds_for_every_row(server: FeatureServer) -> None:
    """Two cards at one merchant; numbers of values that do not fit are wrong usage."""
    rows = json.loads(
        look_up(
            server, "fraud_detection", "card_id=c-1", "merchant_id=7", "card_id=c-2", "card_id=c-3", "--format", "json"
        ).output
    )
    uneven = look_up(server, "fraud_detection", "merchant_id=7", "merchant_id=8", *(f"card_id=c-{n}" for n in range(3)))

    assert [("c-1", 7), ("c-2", 7), ("c-3", 7)] == [tuple(row["entity"].values()) for row in rows]
    assert uneven.exit_code == 2
    assert 'join key "merchant_id" has 2 values where another has 3' in uneven.output


def test_a_payment_in_flight_is_typed_column_by_column(server: FeatureServer) -> None:
    """One a row, or one for all rows; nothing is null; its time is the read time."""
    words = ["fraud_detection", "card_id=c-1", "card_id=c-2", "merchant_id=7", "--format", "json"]
    columns = ["amount=1000", "amount=", "price=2", "market=SE", "is_declined=true", "opened_at=2025-01-01"]
    columns += ["events:event_time=2026-01-11T00:00:00Z"]
    payment = [word for column in columns for word in ("--event", column)]
    before, after = (json.loads(look_up(server, *words, *more).output) for more in ([], payment))

    counts, sums = ([row["features"][name]["value"] for row in (*before, *after)] for name in (COUNT, "amount_sum_1h"))
    assert [2, 0, 3, 1] == counts
    assert [219, 0, 219 + 1_000, 0] == sums
    assert [NOW_MS] * 2 == [row["as_of_ms"] for row in after]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("amount", '"amount" is not KEY=VALUE, such as amount=1250'),
        ("amuont=1", 'reads no column "amuont" of source "events"'),
        ("event:amount=1", 'has no features of source "event"'),
        ("amount=1.5", 'column "amount" is int64, "1.5" is not'),
        ("is_declined=yes", 'column "is_declined" is bool, "yes" is not'),
        ("event_time=yesterday", '"yesterday" is neither ISO 8601 nor milliseconds'),
    ],
)
def test_a_column_that_is_typed_wrong_is_named(server: FeatureServer, capsys: Capture, column: str, said: str) -> None:
    """Before anything is asked."""
    address = ["--address", f"127.0.0.1:{server.port}"]

    assert main(["lookup", "fraud_detection", "card_id=c-1", "merchant_id=7", "--event", column, *address]) in (1, 2)
    assert said in " ".join(capsys.readouterr().err.split())


def test_only_the_wanted_features_are_shown(server: FeatureServer) -> None:
    """By their names, with or without their views, in the service's order; with no views but theirs."""
    service = look_up(server, "fraud_detection", "card_id=c-1", "merchant_id=7", "--format", "json")
    names = list(json.loads(service.output)["features"])
    views = json.loads(service.output)["views"]
    view = next(iter(views))
    found = json.loads(
        look_up(
            server,
            "fraud_detection",
            "card_id=c-1",
            "merchant_id=7",
            "--feature",
            f"{view}:{names[0]}",
            "--format=json",
        ).output
    )

    assert [names[0]] == list(found["features"])
    assert [view] == list(found["views"])


def test_an_unknown_feature_is_named(server: FeatureServer, capsys: Capture) -> None:
    """With those that are like it."""
    address = ["--address", f"127.0.0.1:{server.port}"]
    arguments = ["fraud_detection", "card_id=c-1", "merchant_id=7", "--feature", "pair_activity:count_77d"]

    assert main(["lookup", *arguments, *address]) == 1
    said = capsys.readouterr().err
    assert 'feature service "fraud_detection" has no feature "pair_activity:count_77d"' in said
    assert 'did you mean "pair_activity:count_7d"' in said


def test_times_are_times(server: FeatureServer) -> None:
    """A TIMESTAMP and the newest event in ISO 8601, which --as-of takes; JSON keeps milliseconds."""
    arguments = ["fraud_detection", "card_id=c-1", "merchant_id=7"]
    table = look_up(server, *arguments).output
    features = json.loads(look_up(server, *arguments, "--format", "json").output)["features"]

    assert features["opened_at"]["value"] == 5_000
    assert "1970-01-01T00:00:05.000Z" in table
    assert "card_activity: newest event " in table
    assert "Z, 7 ms before" in table
    assert str(NOW_MS) not in table


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two pairs of certificates and keys, and a file that is neither."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    for name in ("own", "other"):
        made = ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        subprocess.run([*command, *made], check=True, capture_output=True)
    (tmp_path / "text").write_text("not a certificate\n")
    return tmp_path


def test_a_client_certificate_is_presented(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, files: Path, capsys: Capture
) -> None:
    """To a server that asks for one; without it nobody is let in."""
    own = files / "own.pem"
    settings = ServerSettings(port=0, tls=Tls(own, files / "own.key", client_authority=own))
    server = FeatureServer(registry, payments.store, clock, settings)
    arguments = ["lookup", "merchant_monitoring", "merchant_id=7", "--address", f"localhost:{server.port}"]
    mutual = ["--tls-ca", str(own), "--tls-cert", str(own), "--tls-key", str(files / "own.key")]

    assert main([*arguments, *mutual, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["entity"] == {"merchant_id": 7}
    assert main([*arguments, "--tls-ca", str(own), "--timeout", "0.3"]) == 1
    server.stop(drain_seconds=1.0)


WRONG = {
    "no authority": (["--tls-ca", "text"], '"{}/text" holds no certificate'),
    "no certificate": (["--tls-cert", "text", "--tls-key", "own.key"], '"{}/text" holds no certificate'),
    "no key": (["--tls-cert", "own.pem", "--tls-key", "text"], '"{}/text" holds no key that can be read'),
    "another key": (
        ["--tls-cert", "own.pem", "--tls-key", "other.key"],
        '"{0}/other.key" is not the key of the certificate in "{0}/own.pem"',
    ),
    "half": (["--tls-cert", "own.pem"], "a TLS certificate without its key"),
}


@pytest.mark.parametrize(("options", "fact"), WRONG.values(), ids=WRONG.keys())
def test_the_file_that_is_wrong_is_named(files: Path, capsys: Capture, options: list[str], fact: str) -> None:
    """Before anything is connected: of a handshake nobody learns which of them it was."""
    given = [text if text.startswith("--") else str(files / text) for text in options]

    assert main(["lookup", "service", "key=1", "--address", "127.0.0.1:1", *given]) == 1
    assert f"error: {fact.format(files)}" in capsys.readouterr().err
