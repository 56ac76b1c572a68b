"""The command line: a table of commands, and how errors end.

A new command is a module with a click command and one line in COMMANDS. The table holds the one-line help too, so that
`featurestore --help` imports no command and so neither Feast nor gRPC nor Bytewax.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 130 interrupted; a command may have others.

What the operating system or a library refuses without any code of ours having foreseen it ends with one line too. With
FEATURESTORE_TRACEBACK=1 the way to every error is shown before it.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence

import click

from featurestore.cli.extras import OWN_PACKAGES, missing_package
from featurestore.errors import FeatureStoreError, of_system, shows_tracebacks

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("featurestore.cli.repo.init:command", "Write a small feature repo to begin with."),
    "plan": ("featurestore.cli.repo.plan:command", "Show what an apply would add, change and remove."),
    "check-schema": (
        "featurestore.cli.repo.check_schema:command",
        "Tell a producer what a schema would break, by view and feature.",
    ),
    "contract": (
        "featurestore.cli.repo.contract:command",
        "Write a source's contract as a document, or hold one against definitions and data.",
    ),
    "test": ("featurestore.cli.repo.test:command", "Run the repo's feature tests, in memory."),
    "preview": (
        "featurestore.cli.repo.preview:command",
        "Show what a view's features would be over the newest records.",
    ),
    "apply": ("featurestore.cli.repo.apply:command", "Register the feature repo's definitions."),
    "list": ("featurestore.cli.repo.catalog.commands:list_command", "List what is registered, and whose it is."),
    "describe": (
        "featurestore.cli.repo.catalog.commands:describe_command",
        "Say what a view, feature, source or service means.",
    ),
    "search": ("featurestore.cli.repo.catalog.commands:search_command", "Find features by words."),
    "monitoring": (
        "featurestore.cli.repo.catalog.monitoring:command",
        "Write rules for Prometheus and a dashboard for Grafana.",
    ),
    "lineage": (
        "featurestore.cli.repo.catalog.lineage:command",
        "Say what depends on a column or feature, and what it is made of.",
    ),
    "ui": ("featurestore.cli.repo.catalog.pages:command", "Show the catalog as pages that people open."),
    "bill": ("featurestore.cli.repo.catalog.bill:command", "Add up what lookups took, by team."),
    "audit": ("featurestore.cli.repo.catalog.audit:command", "Show who did what, and whether the log of it is whole."),
    "mcp": ("featurestore.cli.repo.catalog.tools:command", "Let an assistant search and describe what is registered."),
    "stream": ("featurestore.cli.processes.stream:command", "Keep the features fresh from the stream of events."),
    "event-log": (
        "featurestore.cli.processes.event_log:command",
        "Keep every event as Parquet, and look after the files.",
    ),
    "publish": (
        "featurestore.cli.processes.publish:command",
        "Pass feature vectors on to a topic, as events change them.",
    ),
    "history": (
        "featurestore.cli.history.training_set:command",
        "Compute training sets: features as they were at each label's time.",
    ),
    "bootstrap": ("featurestore.cli.generations.bootstrap:command", "Compute a view's history from the event log."),
    "rollback": ("featurestore.cli.generations.rollback:command", "Let a view's earlier generation serve again."),
    "drop": ("featurestore.cli.generations.drop:command", "Delete a retired generation of a view."),
    "erase": ("featurestore.cli.generations.erase:command", "Remove a person's data, with a receipt."),
    "serve": ("featurestore.cli.processes.serve:command", "Serve features over gRPC."),
    "lookup": ("featurestore.cli.lookup.command:command", "Look up the features of entities."),
    "explain": ("featurestore.cli.explain.command:command", "Explain why features have the values that they have."),
    "fingerprint": (
        "featurestore.cli.explain.fingerprint:command",
        "Say what logs and errors call an entity.",
    ),
    "parity": (
        "featurestore.cli.history.parity:command",
        "Recompute what the server answered, and explain every difference.",
    ),
    "statistics": (
        "featurestore.cli.history.statistics:command",
        "Show what feature values look like, as they were served or in a training set.",
    ),
    "drift": ("featurestore.cli.history.drift:command", "Compare what is served with what a model was trained on."),
    "status": ("featurestore.cli.generations.status:command", "Show what the online store holds and how fresh it is."),
    "dead-letters": (
        "featurestore.cli.processes.dead_letters:command",
        "Look at records that could not be used, and give them to the stream again.",
    ),
    "doctor": ("featurestore.cli.generations.doctor:command", "Find what is wrong, and what grows without bound."),
    "simulate": ("featurestore.cli.processes.simulate:command", "Produce simulated card transactions."),
    "store": ("featurestore.cli.processes.store:command", "Start, stop or look at the embedded store."),
    "warm-up": (
        "featurestore.cli.processes.warm_up:command",
        "Compile the calculator's loops ahead of their first use.",
    ),
    "demo": (
        "featurestore.cli.demo.demo:command",
        "Show all of it at work in a minute or two; nothing is left behind.",
    ),
}
"""Command -> (module:attribute, one line of help), in the order of `featurestore --help`."""


RENAMED: Mapping[str, str] = {
    "--events": "--event-log",
    "--cluster": "--store-cluster",
    "--no-cluster": "--no-store-cluster",
}
"""Earlier name of an option -> the one that it has in every command now; both work, the help shows one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the console script's entry point.

    Args:
        arguments: without the program's name; default sys.argv[1:].

    Returns:
        The exit code.
    """
    try:
        outcome = command.main(
            args=None if arguments is None else list(arguments), prog_name="featurestore", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except (FeatureStoreError, OSError, ValueError) as error:
        if shows_tracebacks():
            traceback.print_exc()
        show_error(error if isinstance(error, FeatureStoreError) else of_system(error))
        return EXIT_ERROR
    return outcome if isinstance(outcome, int) else 0


def show_error(error: FeatureStoreError) -> None:
    """Message, detail and hint on stderr."""
    click.echo(click.style("error: ", fg="red", bold=True) + error.message, err=True)
    if error.detail:
        click.echo(error.detail, err=True)
    if error.hint:
        click.echo(click.style("hint: ", fg="cyan") + error.hint, err=True)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module_name, _, attribute = COMMANDS[cmd_name][0].partition(":")
        try:
            found = getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in OWN_PACKAGES:
                raise  # our bug, and no package that could be installed
            raise missing_package(cmd_name, error) from error
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command and its arguments, options by their names of today."""
        name, found, rest = super().resolve_command(ctx, args)
        end = rest.index("--") if "--" in rest else len(rest)
        return name, found, [_of_today(argument) for argument in rest[:end]] + rest[end:]

    def invoke(self, ctx: click.Context) -> object:
        """Run a command, which may import only then what its work needs."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in OWN_PACKAGES:
                raise  # our bug, and no package that could be installed
            raise missing_package(str(ctx.invoked_subcommand), error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _of_today(argument: str) -> str:
    """An option by the name that it has now, with what stands behind its "="."""
    option, equals, value = argument.partition("=")
    return f"{RENAMED[option]}{equals}{value}" if option in RENAMED else argument


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="featurestore", prog_name="featurestore")
def command() -> None:
    """Real-time features for payments: define, stream, look up.

    With FEATURESTORE_TRACEBACK=1 in the environment every error comes with its traceback.
    """


if __name__ == "__main__":
    sys.exit(main())
