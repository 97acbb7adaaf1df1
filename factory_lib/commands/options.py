"""What the commands have in common: `--json`, `--debug`, and an example in the help text."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import click

from factory_lib.commands.failing import DEBUG


def command(example: str, *, json: bool = True) -> Callable[[Callable[..., None]], click.Command]:
    """Make a function a command.

    Args:
        example: lines that show how it is called, for `--help`.
        json: whether it takes `--json`, as the argument `as_json`.
    """

    def wrap(function: Callable[..., None]) -> click.Command:
        name = function.__name__.removesuffix("_command").replace("_", "-")
        made = click.command(name, help=_help(function, example))(function)
        if json:
            made.params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for scripts."))
        made.params.append(_debug_option())
        return made

    return wrap


def mapping_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say what of a source becomes which column; lists come with commas between the names."""
    options = (
        click.option("--format", help="webdataset, img2dataset, datacomp, zip, tables or folder. [default: found out]"),
        click.option("--metadata", metavar="URI", help="Tables (parquet, CSV, npz, …) joined to the samples."),
        click.option("--on", metavar="COLUMN", help="Column to join them by. [default: key, uid, hash or url]"),
        click.option("--image", metavar="NAME", help="Extension (input.jpg) or column of pointers that becomes image."),
        click.option("--caption", metavar="NAME", help="Extension, JSON field or column that becomes caption."),
        click.option("--key", metavar="NAME", help="Column that becomes key."),
        click.option("--members", metavar="A,B", help="Only these members besides the image."),
        click.option("--columns", metavar="A,B", help="Only these attributes."),
        click.option("--drop-columns", metavar="A,B", help="Without these attributes and members."),
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
