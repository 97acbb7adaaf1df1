"""What a signal declares that its values depend on, and the code does not show: `@signal(depends_on=[…])`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory_lib.environment import environment
from factory_lib.errors import SignalError
from factory_lib.fingerprints.files import content


@dataclass(frozen=True)
class Variable:
    """A variable of the environment that values depend on: its value of now is part of the fingerprint.

    Attributes:
        name: as in the environment.
    """

    name: str

    @property
    def fingerprint_name(self) -> str:
        """The name of its component."""
        return f"env:{self.name}"

    def __fingerprint__(self) -> dict[str, str]:
        """Its value, or that it is not set."""
        value = environment().get(self.name)
        return {"value": "not set" if value is None else repr(value)}


def env(name: str) -> Variable:
    """A variable of the environment, for `@signal(depends_on=[env("LANG")])`."""
    return Variable(name)


@dataclass(frozen=True)
class DeclaredPath:
    """A file or folder that values depend on, by content.

    Attributes:
        path: where it is; a relative one is looked for from the working directory.
        signal: for messages.
    """

    path: Path
    signal: str

    @property
    def fingerprint_name(self) -> str:
        """The name of its component."""
        return f"file:{self.path.name}"

    def __fingerprint__(self) -> dict[str, str]:
        """Digest of what it holds."""
        found = content(str(self.path.expanduser()))
        if found is None:
            raise SignalError(
                f"{self.signal}: it depends on {str(self.path)!r}, which is not there.",
                f"A relative path is looked for from the working directory, {os.getcwd()}.",
            )
        return {"content": found.partition(":")[2][:16]}


def declared_dependencies(given: Sequence[Any], where: str) -> tuple[Any, ...]:
    """Check what `depends_on=` was given.

    Raises:
        SignalError: it is no list.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Sequence | set | frozenset):
        raise SignalError(f"{where}: depends_on= takes a list.", "Write depends_on=[Path('labels.json'), env('LANG')].")
    return tuple(DeclaredPath(one, where) if isinstance(one, Path) else one for one in given)
