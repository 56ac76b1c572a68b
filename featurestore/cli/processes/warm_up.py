"""`featurestore warm-up`: compile every loop of the calculator now, so that no process has to at its first event."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil

import click

import featurestore.core
import featurestore.online.answer
import featurestore.serving
import featurestore.wire
from featurestore.cli.extras import OWN_PACKAGES
from featurestore.core.compiled import count_loops, load_all, load_one

PROCESSES_MAX = 4
"""Each of them takes half a gigabyte while it compiles."""


@click.command("warm-up")
def command() -> None:
    """Compile the calculator's loops on this machine, or load them when that has been done.

    Takes a minute and a half of processor time once after an installation, on all cores; for image builds and fresh
    machines. Without it the first process that needs a loop compiles it.
    """
    import_all()
    # Processes of their own: Numba compiles one function at a time. The last modules have the longest loops.
    numbers = reversed(range(count_loops()))
    processes = min(os.cpu_count() or 1, PROCESSES_MAX)
    with multiprocessing.get_context("spawn").Pool(processes, initializer=import_all) as pool:
        for _ in pool.imap_unordered(load_one, numbers):
            pass
    click.echo(f"{load_all()} loops are ready")


def import_all() -> None:
    """Import every module that has loops."""
    for room in (featurestore.core, featurestore.wire, featurestore.online.answer, featurestore.serving):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                # What a missing extra brings does not run here, nor do its loops.
                if (error.name or "").partition(".")[0] in OWN_PACKAGES:
                    raise
