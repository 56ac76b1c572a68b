"""Where the streams' metrics are served: to this machine alone, unless somebody says otherwise."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from dataflows.log_to_table.settings import event_log_settings
from dataflows.settings import from_environment
from featurestore.errors import InvalidRequest
from featurestore.process import serve_metrics

ENVIRONMENT = {
    "FEATURESTORE_PROJECT": "p",
    "FEATURESTORE_REGISTRY": "r",
    "FEATURESTORE_STORE_URL": "redis://127.0.0.1:1",
    "FEATURESTORE_EVENT_LOG": "log",
}


def answers(host: str, port: int) -> bool:
    """Whether there are metrics at an address."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as response:
            return bool(response.status == 200)
    except urllib.error.URLError:
        return False


def test_metrics_are_served_at_the_address_that_was_given_and_at_no_other(port: int) -> None:
    """All of 127.0.0.0/8 is this machine, so another of its addresses stands for the network."""
    _, stop = serve_metrics(CollectorRegistry(), "127.0.0.2", port)

    assert answers("127.0.0.2", port)
    assert not answers("127.0.0.1", port)
    stop()
    assert not answers("127.0.0.2", port)


def test_both_streams_take_the_address_and_are_loopback_without_one() -> None:
    """From an option, or from the environment."""
    everywhere = {**ENVIRONMENT, "FEATURESTORE_HOST": "0.0.0.0"}

    assert from_environment(ENVIRONMENT).host == "127.0.0.1"
    assert from_environment(everywhere).host == "0.0.0.0"
    assert event_log_settings([], ENVIRONMENT, program="p").host == "127.0.0.1"
    assert event_log_settings(["--host", "0.0.0.0"], ENVIRONMENT, program="p").host == "0.0.0.0"


def test_an_address_that_is_not_this_machines_is_an_error_with_a_remedy(port: int) -> None:
    """It names the address and the port."""
    with pytest.raises(InvalidRequest, match=f'metrics address "192.0.2.1:{port}" cannot be bound') as raised:
        serve_metrics(CollectorRegistry(), "192.0.2.1", port)

    assert "--host" in raised.value.hint
