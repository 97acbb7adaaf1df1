"""What the commands have in common: `--json`, `--debug`, and an example in the help text."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from factory_lib.commands.failing import DEBUG, instead_of
from factory_lib.commands.naming import PathOrUri, Word
from factory_lib.errors import nearest

_FORMATS = ("webdataset", "img2dataset", "datacomp", "zip", "tables", "folder")


class FactoryCommand(click.Command):
    """A command whose arguments are never empty: `""` is a variable that a script forgot to set."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line.

        Raises:
            click.UsageError: an argument is empty; the message names it.
        """
        if "" in args or any(one.startswith("--") and one.endswith("=") for one in args):
            given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            for param in self.params:
                value = given.get(param.name or "")
                if value == "" or (isinstance(value, list | tuple) and "" in value):
                    raise click.UsageError(f"{param.get_error_hint(ctx)} is empty.", ctx)
        return super().parse_args(ctx, args)


class OneOf(click.Choice[str]):
    """One of a few words; a wrong one is told the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """What is said of a wrong word."""
        return f"{value!r} is not one of {', '.join(self.choices)}. {nearest(str(value), self.choices)}".strip()


class Folder(click.Path):
    """A folder of this machine; of one that is not there it is told what is.

    Args:
        exists: it must be there.
    """

    def __init__(self, *, exists: bool = False) -> None:
        super().__init__(exists=exists, file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        if self.exists and not Path(value).exists():
            self.fail(f"{value} does not exist. {instead_of(value)}".strip(), param, ctx)
        return super().convert(value, param, ctx)


class FolderOrUri(Folder):
    """A folder of this machine that is there, or a URI of something else."""

    def __init__(self) -> None:
        super().__init__(exists=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a URI as text, without a slash at its end."""
        if isinstance(value, str) and "://" in value:
            return value.rstrip("/")
        return super().convert(value, param, ctx)


def command(example: str, *, json: bool = True) -> Callable[[Callable[..., None]], click.Command]:
    """Make a function a command.

    Args:
        example: lines that show how it is called, for `--help`.
        json: whether it takes `--json`, as the argument `as_json`.
    """

    def wrap(function: Callable[..., None]) -> click.Command:
        name = function.__name__.removesuffix("_command").replace("_", "-")
        made = click.command(name, cls=FactoryCommand, help=_help(function, example))(function)
        if json:
            made.params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for scripts."))
        made.params.append(_debug_option())
        return made

    return wrap


def mapping_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say what of a source becomes which column; lists come with commas between the names."""
    options = (
        click.option(
            "--format",
            type=Word(_FORMATS),
            help="webdataset, img2dataset, datacomp, zip, tables or folder. [default: found out]",
        ),
        click.option(
            "--metadata", metavar="URI", type=PathOrUri(), help="Tables (parquet, CSV, npz, …) joined to the samples."
        ),
        click.option("--on", metavar="COLUMN", help="Column to join them by. [default: key, uid, hash or url]"),
        click.option("--image", metavar="NAME", help="Extension (input.jpg) or column of pointers that becomes image."),
        click.option("--caption", metavar="NAME", help="Extension, JSON field or column that becomes caption."),
        click.option("--key", metavar="NAME", help="Column that becomes key."),
        click.option("--members", metavar="A,B", help="Only these members besides the image."),
        click.option("--columns", metavar="A,B", help="Only these attributes."),
        click.option("--drop-columns", metavar="A,B", help="Without these attributes and members."),
        click.option("--rename", metavar="NEW=OLD,…", help="Other names for these columns."),
        click.option("--key-pattern", metavar="REGEX", help="Groups key and extension of members' names, or last-dot."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def group(example: str) -> Callable[[Callable[..., None]], click.Group]:
    """Make a function a group of commands. Arguments as for `command`."""

    def wrap(function: Callable[..., None]) -> click.Group:
        name = function.__name__.removesuffix("_command").replace("_", "-")
        made = click.group(name, help=_help(function, example))(function)
        made.params.append(_debug_option())
        return made

    return wrap


def _help(function: Callable[..., None], example: str) -> str:
    lines = "".join(f"\n  {line}" for line in inspect.cleandoc(example).splitlines())
    return f"{inspect.cleandoc(function.__doc__ or '')}\n\n\b\nExample:{lines}"


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=_debug, help="Show tracebacks of errors."
    )


def _debug(ctx: click.Context, _: click.Parameter, value: bool) -> Any:
    ctx.meta[DEBUG] = value or ctx.meta.get(DEBUG, False)
    return value
