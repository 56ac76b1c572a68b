"""The page docs/clients.md, typed in: its Python, Go and Java ask a real server, and must answer alike."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from featurestore.client import LookupClient
from featurestore.clock import SystemClock
from featurestore.definitions.registry import open_registry
from featurestore.errors import OnlineStoreDown
from featurestore.online.redis.store import connect
from featurestore.serving._generated import lookup_pb2
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.servers import redis_server
from tests.docs.desk import PAGE, TIMEOUT_S, Desk, is_printed
from tests.docs.pages import ROOT, clean_environment
from tests.serving.crowds import eventually, stood_still
from tests.serving.store_reads import Groups, before_lookup_reads

pytestmark = pytest.mark.slow

DEFINITIONS = ROOT / "docs" / "add-your-own-feature.md"
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.8.0"
"""Old enough to be compiled quickly: later ones bring half of Envoy."""
GHZ = "github.com/bojand/ghz/cmd/ghz@v0.93.0"

PACKAGES = {
    "curl": "curl",
    "go": "golang-go",
    "java": "openjdk-17-jdk-headless",
    "javac": "openjdk-17-jdk-headless",
    "mvn": "maven",
    "openssl": "openssl",
}

FEAST_ANSWERS = Path(__file__).with_name("FeastAnswers.java")
"""Asks as Feast's client for Java does, with the page's jars."""

PROGRAMS = {
    "go": ("go/bin/risk",),
    "java": ("java", "-cp", "java/target/classes:java/target/dependency/*", "risk.Risk"),
}
CARDS = ("my-card", "traveller", "quiet", "nobody")

EVERY_TYPE = '''
"""A feature of every type, and features that read columns of the request."""

from entities import card
from feast import FeatureService, Field, RequestSource
from feast.types import Bool, Float64, Int64, String
from sources import transactions

from featurestore.features import aggregate, count, request_features, series, stream_view

card_habits = stream_view(
    name="card_habits",
    entities=[card],
    source=transactions,
    features=[
        *count(over=["90d", series("1d", 3)]),
        *aggregate("amount", ["mean", "sum", "last_n(3)", "sum by market(10)", "mean by market(10)"], over="90d"),
        *aggregate("amount", "mean", over=series("1d", 3)),
        *aggregate(["market", "is_declined", "event_time"], "last", over="90d"),
        *aggregate("market", "last_n(4)", over="90d"),
    ],
)

every_type = FeatureService(name="every_type", features=[card_habits])

asked = {"spent": Float64, "country": String, "is_new": Bool, "tries": Int64}
checks = request_features(
    name="checks",
    request=RequestSource(name="asked", schema=[Field(name=name, dtype=kind) for name, kind in asked.items()]),
    sources=[card_habits],
    features={
        "spent_ratio": "spent / nullif(amount_mean_90d, 0)",
        "is_abroad": "is_new or country <> market_last_90d",
        "place": "country || '!'",
        "tries_and_payments": "tries + count_90d",
    },
)
with_request = FeatureService(name="with_request", features=[card_habits, checks])
'''

PAYMENTS: tuple[tuple[str, timedelta, int | None, str], ...] = (
    ("my-card", timedelta(minutes=20), 12_900, "SE"),
    ("my-card", timedelta(minutes=15), 4_550, "SE"),
    ("my-card", timedelta(minutes=10), 9_000, "SE"),
    ("traveller", timedelta(days=2.5), 2**53 + 1, "ÖL"),
    ("traveller", timedelta(minutes=12), -3, '"<\\'),
    ("traveller", timedelta(minutes=11), 1, "ÖL"),
    ("quiet", timedelta(minutes=10), None, ""),
)
"""Card, age, amount, market: far from every edge on which a window could move while the test runs."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk with the example repo, some payments, and a server that has answered once."""
    directory = tmp_path_factory.mktemp("clients")
    with ExitStack() as running:
        redis = running.enter_context(redis_server())
        environment = clean_environment() | {"FEATURESTORE_STORE_URL": redis.url, "LC_ALL": "C.UTF-8"}
        environment["PATH"] = f"{directory / 'tools'}{os.pathsep}{environment['PATH']}"
        desk = Desk(directory, environment, running)
        environment["FEATURESTORE_ADDRESS"] = f"127.0.0.1:{desk.port}"
        shutil.copytree(ROOT / "feature_repo", directory / "feature_repo", ignore=shutil.ignore_patterns("data"))
        desk.write("feature_repo/every_type.py", EVERY_TYPE)
        page = DEFINITIONS.read_text(encoding="utf-8")
        for path, content in re.findall(
            r"^```python\n# (feature_repo/\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL
        ):
            desk.write(path, content)
        desk.write("payments.jsonl", _payment_lines(datetime.now(UTC)))
        desk.type("featurestore simulate --to log:log --records payments.jsonl")
        desk.type("featurestore apply; featurestore stream --log-dir log --until-end")
        desk.serve(f"featurestore serve --port {desk.port}")
        with LookupClient(f"127.0.0.1:{desk.port}", timeout_s=TIMEOUT_S) as client:
            client.lookup("every_type", {"card_id": "my-card"})
        desk.follow("The protos")
        yield desk


@pytest.fixture(scope="module")
def go_program(desk: Desk) -> Desk:
    """The desk, after the page's Go section."""
    _require("go")
    desk.follow("Go")
    return desk


@pytest.fixture(scope="module")
def java_program(desk: Desk) -> Desk:
    """The desk, after the page's Java section."""
    _require("javac", "mvn")
    desk.follow("Java")
    return desk


@pytest.fixture(params=["go", "java"])
def language(request: pytest.FixtureRequest) -> str:
    """A language in which the page has a program, which is built by now."""
    request.getfixturevalue(f"{request.param}_program")
    return str(request.param)


def test_the_python_examples_print_what_the_page_says(desk: Desk) -> None:
    """Sync, asyncio, what errors say, and a stream."""
    desk.follow("Python")
    desk.follow("Millions of rows")


def test_any_program_may_ask_by_http(desk: Desk) -> None:
    """Several processes, of which any answers: a lookup, an error, and the document from which clients are made."""
    _require("curl")
    desk.follow("HTTP and JSON")


def test_stubs_of_the_protos_need_nothing_of_this_package(desk: Desk) -> None:
    """Generated as the page says they make a call; also beside this package and Feast, whoever is imported first."""
    desk.follow("Python, from the protos")
    *_, (_, program), (language, printed) = desk.blocks("Python, from the protos")
    ours = f"""
import featurestore.client, feast
from feast.protos.feast.serving import ServingService_pb2
with featurestore.client.LookupClient("127.0.0.1:{desk.port}") as client:
    print(client.lookup("known_shop", {{"card_id": "my-card", "merchant_id": 42}}).to_dict()["pair_amount_sum_90d"])
"""

    assert language == "text"
    for together in (program + ours, ours + program):
        answers = desk.python(together)
        assert "[26450]" in answers
        assert is_printed(printed.strip(), answers)


def test_other_languages_answer_as_python_does(desk: Desk, language: str) -> None:
    """Values of every type, nulls, lists, maps and statuses, for known and unknown entities."""
    address = f"127.0.0.1:{desk.port}"
    cards = ",".join(CARDS)
    with LookupClient(address) as client:
        result = client.lookup("every_type", {"card_id": list(CARDS)})
        shop = client.lookup("known_shop", {"card_id": list(CARDS), "merchant_id": [42, 42, 42, 7]})

    types = {feature.type.name for feature in result.schema.features}
    assert types == {*lookup_pb2.ValueType.keys()} - {"VALUE_TYPE_UNSPECIFIED"}
    assert {name for names in _statuses(result) for name in names} == {"PRESENT", "NULL_VALUE", "NOT_FOUND"}
    assert _rows(result) == _ask(desk, language, address, "every_type", f"card_id={cards}")
    assert _rows(shop) == _ask(desk, language, address, "known_shop", f"card_id={cards}", "merchant_id=42,42,42,7")


def test_other_languages_learn_the_kind_of_an_error(desk: Desk, language: str) -> None:
    """The trailing metadata names it, beside gRPC's status."""
    done = desk.outcome([*PROGRAMS[language], f"127.0.0.1:{desk.port}", "known_shops", "card_id=my-card"])

    assert done.returncode == 1
    assert re.search(r"UnknownFeatureService .*(NotFound|NOT_FOUND).*", done.stderr), done.stderr
    assert 'did you mean "known_shop"' in done.stderr


def test_other_languages_try_again_while_the_store_is_away(
    desk: Desk, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The retry policy of the page is understood: two failures of the store are not seen by the model."""
    reads: list[Groups] = []

    def fail_twice(groups: Groups, _timeout_ms: float) -> None:
        reads.append(groups)
        if len(reads) <= 2:
            raise OnlineStoreDown("the store is away")

    before_lookup_reads(monkeypatch, fail_twice)
    with _server(desk) as port:
        (row,) = _ask(desk, language, f"127.0.0.1:{port}", "every_type", "card_id=my-card")

    assert row["count_90d"] == {"value": 3, "status": "PRESENT"}
    assert len(reads) == 3


def test_other_languages_ask_for_many_rows_in_one_call(
    desk: Desk, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four batches ahead while nobody reads the answers, and on in a new stream when another server takes the place."""
    chunks: list[Groups] = []
    before_lookup_reads(monkeypatch, lambda groups, _timeout_ms: chunks.append(groups))
    cards = random.Random(7).choices(CARDS, k=8_345)
    rows = desk.directory / "cards.jsonl"
    rows.write_text("".join(json.dumps({"card_id": card}) + "\n" for card in cards), encoding="utf-8")
    with LookupClient(f"127.0.0.1:{desk.port}") as client:
        expected = dict(zip(CARDS, _rows(client.lookup("every_type", {"card_id": list(CARDS)})), strict=True))

    with _server(desk) as port:
        job = desk.start([*PROGRAMS[language], f"127.0.0.1:{port}", "every_type"], rows)
        eventually(lambda: chunks != [], "the job begins")
        stood_still(lambda: len(chunks))
        assert len(chunks) <= 4
    with _server(desk, port):
        printed, complaints = job.communicate(timeout=TIMEOUT_S)

    assert (job.returncode, complaints) == (0, "")
    lines = printed.splitlines()
    answers = {line: _comparable(json.loads(line)) for line in set(lines)}
    assert len(lines) == len(cards)
    assert all(answers[line] == expected[card] for line, card in zip(lines, cards, strict=True))
    assert 9 <= len(chunks) <= 9 + 4


def test_other_languages_learn_which_batch_of_many_was_wrong(desk: Desk, language: str) -> None:
    """Those before it are answered, and written."""
    cards: list[str | int] = ["my-card"] * 2_500
    cards[2_100] = 7
    rows = "".join(json.dumps({"card_id": card}) + "\n" for card in cards)
    done = desk.outcome([*PROGRAMS[language], f"127.0.0.1:{desk.port}", "every_type"], given=rows)

    assert (done.returncode, len(done.stdout.splitlines())) == (1, 2_000)
    assert {'{"value":3,"status":"PRESENT"}'} == set(re.findall(r'"count_90d":({.*?})', done.stdout))
    assert re.search('batch 2: .*join key "card_id" has both strings and integers', done.stderr), done.stderr
    assert re.search("InvalidRequest .*(InvalidArgument|INVALID_ARGUMENT)", done.stderr), done.stderr


def test_every_client_speaks_mutual_tls(go_program: Desk, java_program: Desk) -> None:
    """As the page says, with its certificates; without the client's the same programs are turned away."""
    _require("openssl")
    desk = go_program
    assert desk is java_program
    desk.follow("TLS")

    for program in PROGRAMS.values():
        arguments = [*program, f"127.0.0.1:{desk.tls_port}", "known_shop", "card_id=my-card", "merchant_id=42"]
        assert desk.outcome(arguments, TLS_CA="ca.pem").returncode == 1
        assert desk.outcome(arguments).returncode == 1


def test_the_shell_sees_both_services_by_reflection(desk: Desk) -> None:
    """Grpcurl is not told of any proto, nor is ghz, whose requests are all answered."""
    _require("go")
    for program in (GRPCURL, GHZ):
        done = desk.outcome(["go", "install", program], GOBIN=str(desk.directory / "tools"))
        assert done.returncode == 0, done.stderr

    desk.follow("A look from the shell")


def test_feasts_own_client_for_java_reads_every_feature(desk: Desk) -> None:
    """The page's program; then each value, status and time, by reference and by feature service, as ours reads them."""
    _require("java", "mvn")
    desk.follow("Feast's contract")
    context: dict[str, list[Any]] = {
        "spent": [12.5, 80.0, None, -1.0],
        "country": ["FR", "ÖL", None, ""],
        "is_new": [True, None, False, True],
        "tries": [2**53 + 1, None, 0, -1],
    }
    with LookupClient(f"127.0.0.1:{desk.port}") as client:
        schema = client.describe("with_request")
        ours = client.lookup("with_request", {"card_id": list(CARDS)}, request=context, with_metadata=True)
    asked = {
        "service": "with_request",
        "references": [f"{schema.views[feature.view].name}:{feature.name}" for feature in schema.features],
        "entities": [{"card_id": card} for card in CARDS],
        "context": [dict(zip(context, values, strict=True)) for values in zip(*context.values(), strict=True)],
    }

    printed = desk.run(["java", "-cp", "feast/jars/*", str(FEAST_ANSWERS), str(desk.port)], given=json.dumps(asked))

    answers, maps = json.loads(printed), {"INT64_MAP", "FLOAT64_MAP"}
    expected = [_as_feast_has_it(row, {f.name for f in schema.features if f.type.name in maps}) for row in _rows(ours)]
    times = {view.view: view.event_time_ms.tolist() for view in ours.views}
    for row, (by_reference, by_service) in enumerate(zip(answers["by_reference"], answers["by_service"], strict=True)):
        key = {"value": CARDS[row], "status": "PRESENT"}
        assert key == by_reference["card_id"]
        assert {**key, "event_time_ms": 0} == by_service.pop("card_id")
        assert {name: by_service[name].pop("event_time_ms") for name in ours.names} == {
            feature.name: times[schema.views[feature.view].name][row] for feature in schema.features
        }
        assert expected[row] == _comparable(by_service)
        assert expected[row] == {name: _comparable(by_reference[name]) for name in ours.names}
    assert {"PRESENT", "NULL_VALUE", "NOT_FOUND"} == {each["status"] for row in expected for each in row.values()}


def test_no_block_of_the_page_is_left_out(desk: Desk) -> None:
    """Sections with something to run are those that the tests above follow."""
    titles = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

    assert [title for title in titles if desk.blocks(title)] == [
        "Python",
        "Millions of rows",
        "HTTP and JSON",
        "The protos",
        "Go",
        "Java",
        "Python, from the protos",
        "TLS",
        "A look from the shell",
        "Feast's contract",
    ]


@contextmanager
def _server(desk: Desk, port: int = 0) -> Iterator[int]:
    """The desk's registry and store served by this process, where a test can look at the reads; on which port."""
    store = connect(desk.environment["FEATURESTORE_STORE_URL"])
    registry = open_registry(str(desk.registry), "payments")
    server = FeatureServer(registry, store, SystemClock(), ServerSettings(port=port))
    try:
        yield server.port
    finally:
        server.stop(drain_seconds=1.0)
        store.close()


def _require(*programs: str) -> None:
    """Skip where a program is missing; in CI, where everything is installed, fail."""
    missing = [f"{program} (Debian: {PACKAGES[program]})" for program in programs if shutil.which(program) is None]
    if missing:
        reason = f"the clients of docs/clients.md are built with {', '.join(missing)}, not found here"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def _ask(desk: Desk, language: str, address: str, *arguments: str) -> list[dict[str, Any]]:
    """What a program of the page answers."""
    printed = desk.run([*PROGRAMS[language], address, *arguments])
    return [_comparable(json.loads(line)) for line in printed.splitlines()]


def _payment_lines(now: datetime) -> str:
    """The payments as JSON lines."""
    payments = [
        {
            "transaction_id": f"payment-{number}",
            "event_time": (now - age).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "card_id": card,
            "merchant_id": 42,
            "terminal_id": 4201,
            "market": market,
            "currency": "SEK",
            "merchant_category": "grocery",
            "amount": amount,
            "is_declined": number % 2 == 0,
            "is_refund": False,
            "is_card_present": True,
        }
        for number, (card, age, amount, market) in enumerate(PAYMENTS)
    ]
    return "".join(json.dumps(payment) + "\n" for payment in payments)


def _statuses(result: Any) -> list[list[str]]:
    """Names of the statuses of each feature."""
    return [[status.name for status in result.status(name)] for name in result.names]


def _rows(result: Any) -> list[dict[str, Any]]:
    """A result of the Python client in the form in which the page's programs print theirs."""
    statuses = dict(zip(result.names, _statuses(result), strict=True))
    return [
        {name: _comparable({"value": value, "status": statuses[name][row]}) for name, value in values.items()}
        for row, values in enumerate(result.rows())
    ]


def _as_feast_has_it(row: dict[str, Any], maps: set[str]) -> dict[str, Any]:
    """Moments are whole seconds, and maps are newer than the protos of the client."""
    found = {name: dict(feature) for name, feature in row.items()}
    for name, feature in found.items():
        if name in maps:
            feature["value"] = None
        elif name.startswith("event_time_") and feature["value"] is not None:
            feature["value"] //= 1_000
    return found


def _comparable(value: Any) -> Any:
    """NaN as null, as JSON wants it; and truth values as texts, since to Python they equal 0 and 1."""
    if isinstance(value, Mapping):
        return {key: _comparable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    if isinstance(value, bool):
        return str(value)
    return None if isinstance(value, float) and math.isnan(value) else value
