"""Following source files without importing them: what a function imports when it runs, and on from there."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from factory_lib.signals.packages import distribution, is_module, place_of
from factory_lib.signals.references import Imported, Reference, references
from factory_lib.signals.source_code import ModuleSource, digest_of, module_source


class StaticCode:
    """Adds components that are found in source files.

    Args:
        found: dotted name -> short hash; added to.
        problems: what could not be fingerprinted; added to.
    """

    def __init__(self, found: dict[str, str], problems: list[str]) -> None:
        self._found = found
        self._problems = problems
        self._seen: set[tuple[str, str | None]] = set()

    def imported(self, imported: Imported, attributes: tuple[str, ...], package: str) -> None:
        """Follow a name that code imports itself.

        Args:
            imported: what is imported.
            attributes: what is read from it.
            package: the package that relative imports start from.
        """
        module = absolute(imported, package)
        names = attributes if imported.attribute is None else (imported.attribute, *attributes)
        self.name(module, names)

    def name(self, module: str, names: tuple[str, ...]) -> None:
        """Follow `module.name`, through submodules and what the module imports; all of the module without names."""
        place = place_of(module)
        while place.owner == "installed" and names and is_module(f"{module}.{names[0]}"):
            module, names = f"{module}.{names[0]}", names[1:]
        if place.owner == "installed":
            name, version = distribution(module)
            self._found[f"package:{name}"] = version
        if place.owner != "own" or (module, names[0] if names else None) in self._seen:
            return
        self._seen.add((module, names[0] if names else None))
        source = module_source(place.path) if place.path else None
        if source is None:
            self._unknown(module, bool(place.folders), names)
        elif not names:
            self._whole(module, source)
        else:
            self._bound(module, source, names)

    def _unknown(self, module: str, is_namespace: bool, names: tuple[str, ...]) -> None:
        if is_namespace and names:
            self.name(f"{module}.{names[0]}", names[1:])
        elif not is_namespace:
            self._found[module] = "opaque:module"
            self._problems.append(f"the module {module} has no source that can be read.")

    def _whole(self, module: str, source: ModuleSource) -> None:
        self._found[f"{module} (module)"] = digest_of(source.tree)
        for statement in source.tree.body:
            self._follow(module, references(statement, outside=True))

    def _bound(self, module: str, source: ModuleSource, names: tuple[str, ...]) -> None:
        binding = source.bindings.get(names[0], [])
        if not binding:
            self._elsewhere(module, source, names)
        plain: list[ast.stmt] = []
        for statement in binding:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self.imported(*_behind(statement, names), package_of(module))
            elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                dropped = [one for one in statement.decorator_list if is_machinery(source, module, one)]
                self._put(f"{module}.{names[0]}", digest_of(statement, dropped))
                self._follow(module, references(statement, outside=True))
            else:
                plain.append(statement)
        if plain:
            self.assigned(module, names[0], plain)

    def assigned(self, module: str, name: str, binding: Iterable[ast.stmt]) -> None:
        """A global by the statements that make it."""
        together = ast.Module(list(binding), [])
        self._put(f"{module}.{name} (source)", digest_of(together))
        for statement in together.body:
            self._follow(module, references(statement, outside=True))

    def _elsewhere(self, module: str, source: ModuleSource, names: tuple[str, ...]) -> None:
        """A name that no statement binds: a submodule, or one of what `import *` brings, or made by `__getattr__`."""
        if is_module(f"{module}.{names[0]}"):
            self.name(f"{module}.{names[0]}", names[1:])
            return
        stars = [one for one in source.bindings.get("*", []) if isinstance(one, ast.ImportFrom)]
        for statement in stars:
            self.imported(Imported(statement.module or "", names[0], statement.level), names[1:], package_of(module))
        if not stars and names[0] not in {"__file__", "__name__", "__doc__"}:
            self._whole(module, source)

    def _follow(self, module: str, found: Iterable[Reference]) -> None:
        for reference in found:
            if isinstance(reference.root, Imported):
                self.imported(reference.root, reference.attributes, package_of(module))
            elif self._has(module, reference.root):
                self.name(module, (reference.root, *reference.attributes))

    def _has(self, module: str, name: str) -> bool:
        """Whether a name that is no local is a global of the module; builtins are none, but for `import *`."""
        source = module_source(place_of(module).path or "")
        if source is None:
            return False
        return name in source.bindings or "*" in source.bindings

    def _put(self, name: str, value: str) -> None:
        if self._found.get(name, value) != value:
            name = f"{name} (source)"
        self._found[name] = value


def is_machinery(source: ModuleSource, module: str, decorator: ast.expr) -> bool:
    """Whether a decorator in a source file is one of the factory's."""
    callee = decorator.func if isinstance(decorator, ast.Call) else decorator
    for reference in references(callee):
        for statement in source.bindings.get(str(reference.root), []):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                imported, _ = _behind(statement, (str(reference.root), *reference.attributes))
                return place_of(absolute(imported, package_of(module))).owner == "machinery"
    return False


def absolute(imported: Imported, package: str) -> str:
    """The full name of the module that an import names."""
    if not imported.level:
        return imported.module
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - imported.level + 1])
    return f"{base}.{imported.module}".strip(".")


def package_of(module: str) -> str:
    """The package that relative imports of a module start from."""
    return module if place_of(module).folders else module.rpartition(".")[0]


def _behind(statement: ast.Import | ast.ImportFrom, names: tuple[str, ...]) -> tuple[Imported, tuple[str, ...]]:
    """What the first of some names stands for by an import statement, and the names left to read from it."""
    for alias in statement.names:
        if isinstance(statement, ast.ImportFrom) and names[0] == (alias.asname or alias.name):
            return Imported(statement.module or "", alias.name, statement.level), names[1:]
        if isinstance(statement, ast.Import) and alias.asname == names[0]:
            return Imported(alias.name), names[1:]
    return Imported(names[0]), names[1:]
