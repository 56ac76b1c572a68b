"""Commands that become a program of their own, because Bytewax must own its process: one help, and one way over.

What the command does not know among its options is the program's; its help lists both in one table.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from featurestore.cli.extras import require_packages

VARIABLE_TEXT = "  [env var: {}]"


class ProgramCommand(click.Command):
    """A command with further options, which are those of a program.

    Args:
        options: "module:attribute" of the program's options; that module alone is imported, for the help.
        given: names of those that the command gives to the program itself.
    """

    def __init__(self, *arguments: Any, options: str, given: frozenset[str], **settings: Any) -> None:
        settings["context_settings"] = {"ignore_unknown_options": True, "allow_extra_args": True}
        super().__init__(*arguments, **settings)
        self._options = options
        self._given = given

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Its own and the program's, in one table, --help last."""
        module, _, attribute = self._options.partition(":")
        own = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        rows = [record for one in own if (record := one.get_help_record(ctx)) is not None]
        more = [_row(one) for one in getattr(importlib.import_module(module), attribute) if one.name not in self._given]
        with formatter.section("Options"):
            formatter.write_dl([*rows[:-1], *more, rows[-1]])


def become(
    command: str, program: str, options: list[str], environment: Mapping[str, str], renamed: Mapping[str, str]
) -> NoReturn:
    """Replace this process by a program: signals and the exit code are then its own.

    Args:
        command: as it is typed after `featurestore`; the program calls itself so.
        program: its module.
        options: of the program.
        environment: variables by which it gets what the command found out.
        renamed: option -> what the program calls it.

    Raises:
        InvalidRequest: a package is missing that it needs.
    """
    require_packages(command)
    sys.stdout.flush()
    sys.stderr.flush()
    variables = {**os.environ, **environment, "FEATURESTORE_PROGRAM": f"featurestore {command}"}
    os.execve(sys.executable, [sys.executable, "-m", program, *program_words(options, renamed)], variables)


def program_words(options: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Options under the names that the program has for them."""
    return [
        renamed.get(word.partition("=")[0], word.partition("=")[0]) + "".join(word.partition("=")[1:])
        for word in options
    ]


def _row(option: Any) -> tuple[str, str]:
    """One option of a program."""
    flag = "--" + option.name.replace("_", "-")
    value = "" if option.is_flag else " " + option.name.rpartition("_")[2].upper()
    return flag + value, option.help[:1].upper() + option.help[1:] + "." + VARIABLE_TEXT.format(
        option.environment_variable
    )
