"""`featurestore test`: the repo's feature tests, against the calculator in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.settings import format_option, load_settings, print_json, repo_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featurestore.testing.features.cases import CaseOutcome

TESTS_DIRECTORY = "tests"
EXIT_FAILED = 1
"""A test has failed."""


@click.command("test")
@click.argument("paths", metavar="[FILE]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@repo_option
@format_option
def command(repo: Path | None, paths: tuple[Path, ...], output: str) -> int:
    """Run the repo's feature tests: given these events, what are the values at that moment?

    They are YAML, in tests/ of the repo. The values are computed in memory by what computes training sets: no store, no
    stream, nothing registered. Exit code 1: some are other ones.
    """
    from featurestore.clock import SystemClock
    from featurestore.definitions.registry import find_registry_bytes
    from featurestore.definitions.repo import load_repo
    from featurestore.errors import InvalidRequest
    from featurestore.testing.features.calculator import FeatureCalculator
    from featurestore.testing.features.cases import read_cases, run_case

    settings = load_settings(repo=repo)
    directory = settings.require_repo()
    files = _files(paths or (directory / TESTS_DIRECTORY,))
    if not files:
        hint = f"write {TESTS_DIRECTORY}/NAME.yaml; docs/testing-features.md shows one"
        raise InvalidRequest(f'there are no feature tests in "{directory / TESTS_DIRECTORY}"', hint=hint)
    cases = [case for path in files for case in read_cases(path)]
    registered = find_registry_bytes(settings.registry, with_all_versions=True)
    calculator = FeatureCalculator(load_repo(directory, settings.project).compile(registered).require_sound())
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    outcomes = [run_case(case, calculator) for case in cases]
    took_ms = (clock.monotonic_ns() - began_ns) / 1_000_000
    if output == "json":
        print_json([_as_json(outcome) for outcome in outcomes])
    else:
        _show(outcomes, took_ms)
    return 0 if all(outcome.has_passed for outcome in outcomes) else EXIT_FAILED


def _files(paths: Sequence[Path]) -> list[Path]:
    """YAML files, and those in directories."""
    found = [sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")]) if path.is_dir() else [path] for path in paths]
    return [path for some in found for path in some]


def _show(outcomes: Sequence[CaseOutcome], took_ms: float) -> None:
    """What failed, and how many did."""
    for outcome in outcomes:
        if outcome.has_passed:
            continue
        click.echo(click.style("failed  ", fg="red", bold=True) + outcome.case.place)
        if outcome.error:
            click.echo(f"    {outcome.error}")
        for name, (expected, value) in outcome.differences.items():
            click.echo(f"    {name}: expected {expected!r}, is {value!r}")
    failed = sum(not outcome.has_passed for outcome in outcomes)
    click.echo(f"{len(outcomes) - failed} passed, {failed} failed, in {took_ms:.0f} ms")


def _as_json(outcome: CaseOutcome) -> dict[str, object]:
    told = {name: {"expected": str(was), "is": str(now)} for name, (was, now) in outcome.differences.items()}
    return {"test": outcome.case.place, "passed": outcome.has_passed, "error": outcome.error, "differences": told}
