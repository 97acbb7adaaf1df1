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


def split_list(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """Callback of an option that takes names with commas between them."""
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


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
