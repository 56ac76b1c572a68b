"""Settings: an option and its environment variable mean the same, and what cannot work is refused at the door."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflows.settings import OPTIONS, from_command_line, from_environment
from featurestore.errors import InvalidRequest

REQUIRED = ["--project", "p", "--registry", "r.db", "--store-url", "redis://s:1"]
ENVIRONMENT = {"FEATURESTORE_PROJECT": "p", "FEATURESTORE_REGISTRY": "r.db", "FEATURESTORE_STORE_URL": "redis://s:1"}


def test_options_and_environment_give_the_same_settings(tmp_path: Path) -> None:
    """Every kind of option once; the config file comes first, options override it."""
    config = tmp_path / "kafka.properties"
    config.write_text("# comment\nsecurity.protocol=SSL\nssl.ca.location=/a\n")
    options = [*REQUIRED, "--log-dir", "d", "--until-end", "--kafka-config", str(config), "--writers", "3"]
    options += ["--kafka-option", "ssl.ca.location=/b", "--kafka-option", "sasl.password=x=y"]
    environment = {
        **ENVIRONMENT,
        "FEATURESTORE_LOG_DIR": "d",
        "FEATURESTORE_UNTIL_END": "true",
        "FEATURESTORE_KAFKA_CONFIG": str(config),
        "FEATURESTORE_WRITERS": "3",
        "FEATURESTORE_KAFKA_OPTION": "ssl.ca.location=/b\nsasl.password=x=y",
    }

    given = from_command_line(options, {}, program="stream")

    assert from_environment(environment) == given
    assert given.kafka_options == {"security.protocol": "SSL", "ssl.ca.location": "/b", "sasl.password": "x=y"}


def test_an_option_wins_over_the_environment() -> None:
    """As everywhere on a command line."""
    assert from_command_line(["--project", "other"], ENVIRONMENT, program="stream").project == "other"


def test_a_cluster_has_a_writer_for_each_process_unless_told_otherwise() -> None:
    """The addresses are known, so the number need not be given."""
    options = [*REQUIRED, "--addresses", "a:1;b:2", "--process-id", "1"]

    assert from_command_line(options, {}, program="stream").writers == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--project", "p"], "registry of the stream is not set"),
        ([*REQUIRED, "--batch-records", "0"], "batch of 0 records"),
        ([*REQUIRED, "--batch-records", "many"], "batch records is not an integer"),
        ([*REQUIRED, "--addresses", "a:1;b:2", "--process-id", "2"], "process id 2"),
        ([*REQUIRED, "--addresses", "a:1;b:2", "--writers", "1"], "1 writers cannot be shared by 2 processes"),
        ([*REQUIRED, "--kafka-option", "linger"], 'kafka option "linger" has no value'),
        ([*REQUIRED, "--kafka-config", "/does/not/exist"], "cannot be read"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: list[str], message: str) -> None:
    """Before anything is connected."""
    with pytest.raises(InvalidRequest, match=message):
        from_command_line(options, {}, program="stream")


def test_no_two_options_share_an_environment_variable() -> None:
    """Or one would silently set the other."""
    variables = [option.environment_variable for option in OPTIONS]

    assert len(set(variables)) == len(variables)
