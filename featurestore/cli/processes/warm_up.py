"""`featurestore warm-up`: compile every loop of the calculator now, so that no process has to at its first event."""

from __future__ import annotations

import importlib
import pkgutil

import click

import featurestore.core
import featurestore.online.answer
import featurestore.serving
import featurestore.wire
from featurestore.cli.extras import OWN_PACKAGES
from featurestore.core.compiled import load_all


@click.command("warm-up")
def command() -> None:
    """Compile the calculator's loops on this machine, or load them when that has been done.

    Takes up to a minute once after an installation; for image builds and fresh machines. Without it the first
    process that needs a loop compiles it.
    """
    for room in (featurestore.core, featurestore.wire, featurestore.online.answer, featurestore.serving):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                # What a missing extra brings does not run here, nor do its loops.
                if (error.name or "").partition(".")[0] in OWN_PACKAGES:
                    raise
    click.echo(f"{load_all()} loops are ready")
