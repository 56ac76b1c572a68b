"""`featurestore monitoring`: rules for Prometheus and a dashboard for Grafana, made from what is registered."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.settings import load_settings, registry_options

RULES_FILE, DASHBOARD_FILE = "featurestore.rules.yml", "featurestore.dashboard.json"


@click.command("monitoring")
@registry_options
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the files; made where it is missing.",
)
def command(repo: Path | None, registry: str | None, project: str | None, out: Path) -> None:
    """Write rules for Prometheus and a dashboard for Grafana, of what is registered; again after each apply.

    An alert for each promise of freshness says whose view it is and whom to reach. Its error budget is of 30 days, so
    let Prometheus keep as much.
    """
    from featurestore.definitions.governance.monitoring.dashboard import dashboard_text
    from featurestore.definitions.governance.monitoring.rules import rules_text
    from featurestore.definitions.registry import compile_registry, read_registry_bytes

    settings = load_settings(repo=repo, registry=registry, project=project)
    content = read_registry_bytes(settings.registry)
    spec = compile_registry(content, project=settings.project).spec
    out.mkdir(parents=True, exist_ok=True)
    for name, text in ((RULES_FILE, rules_text(spec, content)), (DASHBOARD_FILE, dashboard_text(spec))):
        (out / name).write_text(text, encoding="utf-8")
        click.echo(out / name)
    click.echo(f"{len(spec.promises)} promises of freshness")
