"""The command line: `factory ls`, `factory show laion.v3`, `factory up`, …

Each command lives in a module of `factory_lib.commands`, loaded when it is used: a quick command does not wait for what
the others import. Packages that stand on the library bring commands of their own, such as `factory demo`, by the
entry-point group `dataset_factory.commands`.

Exit codes: 0 done; 1 what was asked cannot be done (message and hint on stderr); 2 the command was called wrongly;
130 interrupted; 141 the reader of the output left.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factory_lib.commands.failing import failures_shown
from factory_lib.environment import completes, use_env_file
from factory_lib.errors import nearest
from factory_lib.settings import mistyped

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from click.shell_completion import CompletionItem

_MODULES = {
    "ls": "ls",
    "show": "show",
    "sql": "sql",
    "search": "search",
    "diff": "diff",
    "lineage": "lineage",
    "uses": "uses",
    "trace": "trace",
    "reproduce": "reproduce",
    "verify": "verify",
    "backup": "backup",
    "restore": "backup",
    "move": "move",
    "tag": "tag",
    "publish": "publish",
    "pull": "pull",
    "ingest": "ingest",
    "export": "export",
    "import": "importing",
    "gc": "gc",
    "cache": "cache",
    "run": "run",
    "unsynced": "unsynced",
    "why-stale": "why_stale",
    "accept": "accept",
    "up": "services",
    "down": "services",
    "status": "services",
    "init": "init",
    "completion": "completion",
}
"""Command -> module of `factory_lib.commands` that has it as a function of the same name."""

BROUGHT = "dataset_factory.commands"
"""Entry-point group of commands that other packages bring, each a click command under its name."""


def _brought() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {command.name: command for command in entry_points(group=BROUGHT)}


class FactoryGroup(click.Group):
    """Commands that are imported when they are used; errors are shown as a message and a hint."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which `--help` lists them."""
        return [*_MODULES, *_brought()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name; None where there is none."""
        if cmd_name not in _MODULES:
            brought = _brought().get(cmd_name)
            return brought.load() if brought else None
        module = importlib.import_module(f"factory_lib.commands.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """The commands that begin with what was typed, none of them loaded, and options."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name) for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name.

        Raises:
            click.UsageError: there is no such command; the message names the nearest.
        """
        name = args[0]
        if not name.startswith("-") and name not in (known := self.list_commands(ctx)):
            raise click.UsageError(f"There is no command {name!r}. {nearest(name, known)}".rstrip(), ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with failures_shown(ctx):
            return super().invoke(ctx)


@click.group(cls=FactoryGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dataset-factory", prog_name="factory")
def factory() -> None:
    """Curate image-text datasets: versions that are tables, bytes that stay where they are.

    A version is named `laion.v3`; `laion` alone is the latest, `laion@icml` the one with that tag.

    The warehouse is the ClickHouse server that FACTORY_CLICKHOUSE_URL names, or else an engine of its own in the
    folder FACTORY_HOME (default: .factory), which starts and stops by itself.
    """


def main() -> None:
    """Entry point of the `factory` script."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
    # Names of samples may hold what the terminal cannot show.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if completes():
        _complete()
    use_env_file(Path.cwd())
    for name, setting in mistyped().items():
        click.echo(f"{name} is set and is no setting. Is {setting} meant?", err=True)
    factory(prog_name="factory")


def _complete() -> None:
    """Answer a shell. Whatever is wrong, a TAB is no place to tell it."""
    importlib.import_module("factory_lib.commands.completion")
    with contextlib.suppress(Exception):
        use_env_file(Path.cwd())
        factory(prog_name="factory")
    sys.exit(0)


if __name__ == "__main__":
    main()
