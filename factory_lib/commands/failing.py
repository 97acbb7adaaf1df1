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
from factory_lib.warehouse.space import RESERVE_BYTES, data_folder_unusable, disk_full, free_bytes

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
        failed = _of_files(error)
        raise CommandFailed(failed.message, failed.hint) from None
    except Exception as error:
        if (said := quiet(error)) is error:
            raise
        raise said from None


def _of_files(error: OSError) -> FactoryError:
    """What the system said of a file, with the next step."""
    named = error.filename2 or error.filename  # of a copy the second is what was written
    path = Path(os.fsdecode(named)).absolute() if isinstance(named, str | bytes | os.PathLike) else None
    said, home = redact(error.strerror or str(error)), settings().home
    of_home = path is not None and path.is_relative_to(home)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        if of_home or (path is None and free_bytes(home) < RESERVE_BYTES):
            return disk_full(home)
        return FactoryError(
            f"{path or 'The output'} cannot be written: {said}.", "Make room there, or write elsewhere."
        )
    if path is None:
        return FactoryError(f"{said}.")
    if of_home:
        return data_folder_unusable(home, f"{path}: {said}" if path != home else said)
    return FactoryError(f"{redact(str(path))}: {said}.", _next(error, path))


def _next(error: OSError, path: Path) -> str:
    if isinstance(error, PermissionError):
        return "Check its rights, or name another place."
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return instead_of(path)
    return ""


def instead_of(path: str | Path) -> str:
    """What is there instead of a file or folder that does not exist: a hint, or an empty string."""
    from factory_lib.storage.store import store

    return store().instead_of(str(path))
