"""How commands fail: a message and a hint on stderr, and an exit code that scripts can rely on."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from factory_lib.errors import FactoryError
from factory_lib.redaction import quiet, redact
from factory_lib.settings import settings
from factory_lib.warehouse.space import disk_full

DEBUG = "factory.debug"
_INTERRUPTED, _READER_LEFT = 130, 141


class CommandFailed(click.ClickException):
    """What was asked cannot be done: exit code 1."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message and, on a line of its own, the hint."""
        click.echo(f"Error: {self.message}", file=file, err=file is None)
        if self.hint:
            click.echo(self.hint, file=file, err=file is None)


@contextmanager
def failures_shown(ctx: click.Context) -> Iterator[None]:
    """Turn errors that a user can meet into a message; with --debug they come with their traceback."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        ctx.exit(_INTERRUPTED)
    except BrokenPipeError:
        # Without this the interpreter complains once more when it flushes on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        ctx.exit(_READER_LEFT)
    except FactoryError as error:
        if ctx.meta.get(DEBUG):
            raise
        raise CommandFailed(error.message, error.hint) from None
    except OSError as error:
        if ctx.meta.get(DEBUG):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            full = disk_full(Path(error.filename or settings().home))
            raise CommandFailed(full.message, full.hint) from None
        where = f"{error.filename}: " if error.filename else ""
        raise CommandFailed(redact(f"{where}{error.strerror or error}")) from None
    except Exception as error:
        if (said := quiet(error)) is error:
            raise
        raise said from None
