"""What a walk over objects has found: components under names of their own, and what was noticed besides."""

from __future__ import annotations

from typing import Any


class Found:
    """What was found.

    Attributes:
        found: dotted name -> short hash or value.
        opaque: (path, type) of what cannot be taken apart.
        held: (path, object) of all that holds no value that could be told: locks, loggers, open files.
        uses: module of the user -> the attributes of it that are used; None for all of them.
        reads: (file, line, what) of code that opens files or reads the environment.
        changed: (module that is imported inside, dotted name in it) -> its value, where that is not what the file says.
        of_files: components that hold the content of files, which may change while others are taken.
        texts: string constants of code, which may name what is used of a folder.
        shows: what code does with docstrings, annotations and subclasses, as for the argument.
        written: names of variables and attributes that stand for what code writes to.
        found_configured: (module, name) of what somebody configured in modules, and no code that is followed names.
        others: outermost names of the modules of others that are used.
        names: all names in code of the user.
        lines: name of what is no file -> the lines in it, where code looks at the source of what they make.
    """

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.opaque: list[tuple[str, str]] = []
        self.held: list[tuple[str, Any]] = []
        self.uses: dict[str, set[str] | None] = {}
        self.reads: list[tuple[str, int, str]] = []
        self.of_files: set[str] = set()
        self.changed: dict[tuple[str, str], Any] = {}
        self.texts: set[str] = set()
        self.written: set[str] = set()
        self.shows: set[str] = set()
        self.others: set[str] = set()
        self.found_configured: set[tuple[str, str]] = set()
        self.names: set[str] = set()
        self.lines: dict[str, list[str]] = {}
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()
        self._kept: list[Any] = []
        self._importers: set[str] = set()
        self._by_name: set[str] = set()

    def _take_over(self, inner: Found) -> None:
        """Add what was noticed in a walk of its own, whose components stand under one."""
        self.opaque += inner.opaque
        self.held += inner.held
        self.reads += inner.reads
        self.changed |= inner.changed
        self.texts |= inner.texts
        self.written |= inner.written
        self.shows |= inner.shows
        self.others |= inner.others
        self.names |= inner.names
        self.lines |= inner.lines
        self._importers |= inner._importers
        self._by_name |= inner._by_name
        self.found |= {name: version for name, version in inner.found.items() if name.startswith("package:")}
        for module, names in inner.uses.items():
            self.uses[module] = None if names is None else (self.uses.get(module) or set()) | names

    def _claim(self, value: Any, own: str, path: str) -> str:
        """The name of a component: its own, or for lambdas and inner functions the path on which they were met."""
        name = path if "<" in own and path else own
        number, wanted = 1, name
        while name in self._taken:
            number += 1
            name = f"{wanted}#{number}"
        self._taken.add(name)
        self._names[id(value)] = name
        return name

    def _put(self, path: str, value: str) -> str:
        number, name = 1, path
        while self.found.get(name, value) != value:
            number += 1
            name = f"{path}#{number}"
        self.found[name] = value
        return name
