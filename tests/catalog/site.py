"""A catalog's site with a store, a server that wants to know who asks, and an issuer of tokens behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from featurestore.catalog.callers import ServiceCallers
from featurestore.catalog.live import LiveStore
from featurestore.catalog.model import WatchedCatalog
from featurestore.catalog.served_values import ServedValues
from featurestore.catalog.web.asking import Server
from featurestore.catalog.web.pages import Pages
from featurestore.catalog.web.running import CatalogServer
from featurestore.clock import SystemClock
from featurestore.core.spec import RepoSpec
from featurestore.definitions.governance.access.auth_section import OidcSettings
from featurestore.definitions.governance.access.tokens import Tokens
from featurestore.definitions.governance.audit.journal import Journal
from featurestore.definitions.registry import open_registry
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.serving.request.callers import Callers
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.batches import keyed_batch
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.writers import open_writer
from tests.catalog.conftest import PROJECT
from tests.catalog.served import served_log
from tests.serving.issuer import AUDIENCE, ISSUER, Issuer

LANES = 4
MINUTE_MS = 60_000

CARD = "c-1"
AMOUNTS = (1_200, 60_000, 300, 4_500)
"""Of its payments, in minor units, ten minutes apart; one is large, and every second one is declined."""


@dataclass(frozen=True)
class Site:
    """What runs.

    Attributes:
        address: of the catalog's pages.
        server: that answers lookups.
        risk, crm: tokens of somebody who may read `card_check`, and of somebody who may not.
    """

    address: str
    server: FeatureServer
    risk: str
    crm: str


@contextmanager
def running_site(registry: Path, store_url: str, keys: Path) -> Iterator[Site]:
    """The site, with four payments of a card in the store."""
    clock, issuer = SystemClock(), Issuer(keys)
    with ExitStack() as running:
        store = connect(store_url)
        running.callback(store.close)
        catalog = WatchedCatalog(str(registry), PROJECT)
        fill(store_url, catalog.current.spec)
        tokens = Tokens(OidcSettings(ISSUER, AUDIENCE, str(issuer.path)), clock)
        callers = Callers(tokens, certificates=False, anonymous=False)
        source = open_registry(str(registry), PROJECT)
        server = FeatureServer(source, store, clock, ServerSettings(port=0), http_port=0, callers=callers)
        running.callback(server.stop, drain_seconds=0.5)
        addresses = {"address": f"127.0.0.1:{server.port}", "http": f"127.0.0.1:{server.http_port}"}
        live = LiveStore(lambda: connect(store_url), clock)
        audit = keys.parent / "audit"
        journal = Journal(audit, clock)
        details = {"service": "card_check", "requests": 7, "rows": 1_234, "until_ms": clock.now_ms()}
        journal.write([{"who": "fraud-model", "what": "lookup", "on": "", "outcome": "done", "details": details}])
        journal.close()
        asked = Server(addresses["address"])
        pages = Pages(
            catalog,
            live,
            clock,
            server=asked,
            addresses=addresses,
            callers=ServiceCallers(audit, clock),
            values=ServedValues(served_log(keys.parent / "served", clock.now_ms()), clock),
        )
        listening = CatalogServer(catalog, pages, "127.0.0.1", 0)
        thread = threading.Thread(target=listening.run)
        thread.start()
        running.callback(thread.join)
        running.callback(listening.stop)
        yield Site(f"http://127.0.0.1:{listening.port}", server, issuer.token("risk"), issuer.token("crm"))


def fill(store_url: str, spec: RepoSpec) -> None:
    """Write the card's payments as a stream would have."""
    store, clock = connect(store_url), SystemClock()
    view = spec.view("card_activity")
    assert view is not None
    generations = GenerationCatalog(store, PROJECT)
    generations.lane_count(LANES)
    writer = open_writer(store, generations.register(view), LANES, clock)
    begin_ms = clock.now_ms() - 41 * MINUTE_MS
    events = [
        NaiveEvent(
            CARD.encode(),
            begin_ms + number * 10 * MINUTE_MS,
            b"p-%d" % number,
            {"amount": amount, "is_declined": number % 2, "email": f"{number}@example.com", "market": "DE"},
        )
        for number, amount in enumerate(AMOUNTS)
    ]
    writer.write([keyed_batch(view, events, lane_count=LANES)])
    store.close()
