"""Following live objects: functions with the values of what they name, classes, modules, and on from there.

Each function and class of the user, each global, closure variable, default and field becomes a component of its own, so
that what changed can be named; where one refers to another, it holds that one's name.
"""

from __future__ import annotations

import builtins
import enum
import hashlib
import sys
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

from factory_lib.fingerprints import by_name
from factory_lib.fingerprints.codes import CodeFacts, facts
from factory_lib.fingerprints.compiled import ParsedFile, constants_set, differs
from factory_lib.fingerprints.inspected import annotations_of, lines_of, looked_at, source_of
from factory_lib.fingerprints.owned import OwnedFindings
from factory_lib.fingerprints.parts import (
    closure,
    defaults,
    home_of,
    is_salted,
    members_of,
    plain_state,
    put_into,
    registered,
    with_attributes,
)
from factory_lib.fingerprints.places import place_of, same_package
from factory_lib.fingerprints.sources import Sources
from factory_lib.fingerprints.values import ATOMS, Values, declared_by, kept_state, type_name
from factory_lib.fingerprints.writes import written

_OF_MODULES = {"__file__", "__name__", "__doc__", "__package__", "__spec__", "__path__", "__loader__", "__builtins__"}
_HERE = __name__.partition(".")[0]
_MISSING = object()


class Walk(OwnedFindings):
    """Collects the components that objects depend on.

    Args:
        counts_for_nothing: whether a module is machinery, whose code changes no value.
        shows: what of functions and classes counts, too (see `inspected`).
        texts: texts that may name what is used of a folder.
        written_to: names of variables and attributes that code writes to where they name a file or folder.
    """

    def __init__(
        self,
        counts_for_nothing: Callable[[str], bool] = lambda module: False,
        shows: Collection[str] = (),
        texts: Collection[str] = (),
        written_to: Collection[str] = (),
    ) -> None:
        super().__init__(counts_for_nothing)
        self._looked_into: set[int] = set()
        self._packages: dict[str, bool] = {}
        self._finished = (0, 0, 0)
        self._shown = frozenset(shows)
        self._sources = Sources(self.found, counts_for_nothing, self._changed, self.others)
        self._values = Values(self._refer, self._is_opaque, self.isolated, self._holds)
        self._values.names, self._values.written = texts, frozenset(written_to)

    @property
    def modules(self) -> set[str]:
        """Modules of the user that functions import when they run."""
        return self._sources.modules

    @property
    def files(self) -> int:
        """How many values stood for the content of files."""
        return self._values.files

    def follow(self, target: Any, path: str = "") -> None:
        """Follow what computes: a function, class, method, or an object with `__call__` and its fields."""
        if self._is_code(target):
            self._refer(target, path)
        else:
            self._object(target, path)

    def use(self, value: Any, path: str) -> str:
        """A value under a name of its own; returns the text that stands for it."""
        if self._is_code(value):
            return self._refer(value, path)
        hook = declared_by(type(value), "__fingerprint__")
        if hook is not None and declared_by(type(value), "fingerprint_name"):
            self._refer(type(value), path)
            return self._declared(value, hook(value), value.fingerprint_name)
        before = self.files
        name = self._put(path, self._values.digest(value, path))
        if self.files != before:
            self.of_files.add(name)
        return name

    def _object(self, target: Any, path: str) -> None:
        """An object: its class, and its fields."""
        self.fields(target, path or self._refer(type(target), path))
        self._refer(type(target), path)

    def fields(self, target: Any, name: str) -> None:
        """The fields of an object: what `__fingerprint__()` declares, else its attributes one by one."""
        hook = declared_by(type(target), "__fingerprint__")
        if hook is not None:
            self._declared(target, hook(target), getattr(target, "fingerprint_name", name))
            return
        state = plain_state(target)
        if state is None:
            self.use(target, f"{name}.state")
            return
        for field, value in kept_state(type(target), state):
            self.keep(value, f"{name}.{field}")

    def keep(self, value: Any, path: str) -> None:
        """A value as a component; of a bound method, whose name says nothing of its object, that it is of this one."""
        text = self.use(value, path)
        if isinstance(value, types.MethodType | types.BuiltinFunctionType):
            self._put(path, _hash([text]))

    def _declared(self, value: Any, declared: Any, name: str) -> str:
        if id(value) in self._names:
            return self._names[id(value)]
        self._names[id(value)] = name
        self._kept.append(value)
        if not isinstance(declared, Mapping):
            declared = {"declared": declared}
        for key, one in declared.items():
            if isinstance(one, str) and len(one) <= 64:
                self._put(f"{name}.{key}", one)
            elif key == "target" and not self._is_code(one):
                self._object(one, "")
            else:
                self.keep(one, f"{name}.{key}")
        return name

    def _refer(self, value: Any, path: str) -> str:
        """Follow code; returns the text that stands for it where it is used."""
        known = self._names.get(id(value))
        if known is not None:
            return known
        self._kept.append(value)  # its id has to stay its own
        kind = type(value)
        if issubclass(kind, types.ModuleType):
            return self._module(value)
        if kind is types.MethodType:
            return self._method(value, path)
        if kind is types.FunctionType:
            return self._function(value, path)
        if issubclass(kind, type):
            return self._class(value, path)
        return self._builtin(value, path)

    def _method(self, method: types.MethodType, path: str) -> str:
        name = self._refer(method.__func__, path)
        owner = method.__self__
        if isinstance(owner, type):
            return f"{name} of {self._refer(owner, path)}"
        if path:
            return f"{name} of {self._values.text(owner, f'{path}.self')}"
        self._object(owner, path)
        return name

    def _builtin(self, value: Any, path: str) -> str:
        owner = getattr(value, "__self__", None)
        name = getattr(value, "__qualname__", None) or type_name(value)
        if owner is not None and not isinstance(owner, types.ModuleType):
            return f"{name} of {self._values.text(owner, f'{path}.self')}"
        home = getattr(value, "__objclass__", None)
        if isinstance(home, type):
            return f"{name} of {self._refer(home, path)}"
        module = getattr(value, "__module__", None)
        module = module if isinstance(module, str) else ""
        if module and not self.package(module):
            self._extension(module)
        return f"{module}.{name}"

    def _function(self, function: types.FunctionType, path: str) -> str:
        namespace = function.__globals__
        module = str(namespace.get("__name__") or function.__module__ or "")
        code = function.__code__
        if not self._is_own(module, namespace):
            return self._foreign(function, module, path)
        if is_salted(code):
            return "hash"
        name = self._claim(function, f"{module}.{code.co_qualname}", path)
        known = facts(code)
        parts = [known.digest, *self._bound(function, known, name, module)]
        if module.partition(".")[0] != _HERE:
            self._set_beside(namespace)
        for parameter, default in defaults(function):
            parts.append(f"{parameter}={self.use(default, f'{name}.{parameter}')}")
        for key, value in sorted(function.__dict__.items()):
            parts.append(f"{key}:{self.use(value, f'{name}.{key}')}")
        if self._shown:
            parts += self._looked_at(function, function.__annotations__, name)
        self.found[name] = _hash(parts)
        self._note(known, code)
        return name

    def _bound(self, function: types.FunctionType, known: CodeFacts, name: str, module: str) -> list[str]:
        """What the names in a function stand for, looked up as Python would: closure, globals."""
        namespace, parts = function.__globals__, []
        cells, values = closure(function), []
        for root, attributes in known.references:
            if root.startswith("."):
                value = cells.get(root[1:], _MISSING)
                where = f"{name}.{root[1:]}"
            else:
                value = _MISSING if root in _OF_MODULES else namespace.get(root, _MISSING)
                where = f"{module}.{root}"
            if value is not _MISSING:
                values.append(value)
                parts.append(f"{root}{attributes}={self._reach(value, attributes, where)}")
            elif not root.startswith((".", "_")) and self._is_put_there(vars(builtins).get(root)):
                parts.append(f"{root}={self._set_from_outside(builtins, root)}")
        texts = by_name.texts_in(values)
        self.texts |= known.texts
        self.texts |= texts
        if by_name.looks_up(known.names) or any(one[0] == "__main__" for one in known.imports):
            parts += self._by_texts(known, known.texts | texts, namespace, module)
        package = str(
            namespace.get("__package__") or (module if "__path__" in namespace else module.rpartition(".")[0])
        )
        for one in known.imports:
            if one[0] != "__main__":
                self._sources.imported(one, package)
        if by_name.imports(known.names):
            self._importers.add(package)
            packages = [value.__name__ for value in values if isinstance(value, types.ModuleType)]
            self._by_name |= {inner for one in packages for inner in by_name.submodules(one)}
        return parts

    def _by_texts(
        self, known: CodeFacts, texts: Collection[str], namespace: Mapping[str, Any], module: str
    ) -> list[str]:
        """What the texts that a function may make names of stand for."""
        parts = []
        for key in sorted(by_name.looked_up(known.names, texts, namespace)):
            self._uses(module, key)
            parts.append(f"{key}={self._reach(namespace[key], (), f'{module}.{key}')}")
        if "modules" in known.names or any(one[0] == "__main__" for one in known.imports):
            parts += self._of_modules_by_text(known, {*texts, *(one[0] for one in known.imports)}, module)
        if by_name.looks_for_module(known.names) and module in sys.modules:
            self.changed[module, ""] = sys.modules[module]
        return parts

    def _of_modules_by_text(self, known: CodeFacts, texts: Collection[str], own: str) -> list[str]:
        """What code takes from `sys.modules["name"]` or `__main__`: what of these modules bears a name in it."""
        parts = []
        for name in sorted(texts & sys.modules.keys()):
            held = vars(sys.modules[name])
            if not self._is_own(name, held) or (name == own and by_name.looks_for_module(known.names)):
                continue
            self.modules.add(name)
            for key in sorted((known.names | known.texts) & held.keys()):
                if not key.startswith("__"):
                    self.changed[name, key] = held[key]
                    parts.append(f"{name}.{key}={self._reach(held[key], (), f'{name}.{key}')}")
        return parts

    def finish(self) -> None:
        """Follow the modules that code imports by texts, which may be those of other code."""
        known = (len(self.texts), len(self._importers), len(self._by_name))
        if known == self._finished:
            return
        for package in sorted(self._importers):
            self._by_name |= set(by_name.modules(self.texts, package))
        self._finished = (*known[:2], len(self._by_name))
        for name in sorted(self._by_name):
            self._sources.imported((name, 0, ()), "")

    @property
    def imported_later(self) -> dict[str, ParsedFile]:
        """Loaded modules of the user that functions import when they run, with what their files say."""
        return self._sources.loaded

    @property
    def inner_names(self) -> frozenset[str]:
        """All names in functions of these modules."""
        return frozenset[str]().union(*(what.facts.inner_names for what in self._sources.loaded.values()))

    def configured(self, module: str, name: str, value: Any) -> None:
        """Count what somebody configured in a module, though no code that is followed names it."""
        self.found_configured.add((module, name))
        if (module, name) not in self.changed:
            self._changed(sys.modules[module], name, value)

    def _changed(self, module: types.ModuleType, name: str, value: Any) -> None:
        """Of a module that is imported inside, something is not what its file says; all of one without a file."""
        self.changed[module.__name__, name] = value
        self.use(value, f"{module.__name__}.{name}" if name else module.__name__)

    def _note(self, known: CodeFacts, code: types.CodeType) -> None:
        self.shows |= looked_at(known.names)
        if known.reads:
            self.reads += [(code.co_filename, line, what) for line, what in known.reads]
        self.written |= written(code)
        self.names |= known.names

    def _reach(self, value: Any, attributes: tuple[str, ...], path: str) -> str:
        """Go through the modules of `package.module.name`, then use what is found.

        A name of a package of others stands for what came with it, whether its module was imported yet or not.
        """
        known = None if attributes else self._names.get(id(value))
        if known is not None:
            return known
        theirs = ""
        while isinstance(value, types.ModuleType) and attributes:
            module, (name, *rest) = value.__name__, attributes
            if self._skips(module):
                return f"{module}.{name}"
            path = f"{module}.{name}"
            if place_of(module, vars(value)).owner != "own":
                theirs = theirs or path
                inner = vars(value).get(name, _MISSING)
                if not isinstance(inner, types.ModuleType):
                    return self._of_others(value, name, inner, theirs)
            else:
                self._uses(module, name)
                self._extension(module)
                inner = getattr(value, name, _MISSING)
            if inner is _MISSING:
                return path
            value, attributes = inner, tuple(rest)
        text = self.use(value, path)
        return theirs if theirs and same_package(text, theirs) else text

    def _of_others(self, module: types.ModuleType, name: str, value: Any, known_as: str) -> str:
        """Something that an installed module, or one of Python's, holds: as it came with it, or set by the user."""
        path = f"{module.__name__}.{name}"
        is_installed = self.package(module.__name__)
        if value is _MISSING:
            return known_as
        if self._is_code(value):
            if self._is_users(value):
                return self._set_from_outside(module, name)
            text = self._refer(value, path)
            return known_as if same_package(text, known_as) and text.rpartition(".")[2] == name else text
        if type(value) not in ATOMS:
            return known_as
        if differs(module, name, value):
            return self._set_from_outside(module, name)
        if not is_installed:
            return path
        self.changed[module.__name__, name] = value
        return f"{path}={value!r}"

    def _set_beside(self, namespace: Mapping[str, Any]) -> None:
        """Count what was set in installed modules that a module of the user holds: their packages read it."""
        for module in list(namespace.values()):
            if type(module) is types.ModuleType and id(module) not in self._looked_into:
                self._looked_into.add(id(module))
                if place_of(module.__name__, vars(module)).owner == "installed":
                    for name in constants_set(module):
                        self.configured(module.__name__, name, vars(module)[name])

    def _set_from_outside(self, module: types.ModuleType, name: str) -> str:
        """What the user put into a module of somebody else's: it counts, and travels."""
        value = vars(module)[name]
        self.changed[module.__name__, name] = value
        return self.use(value, f"{module.__name__}.{name}")

    def _uses(self, module: str, name: str) -> None:
        used = self.uses.setdefault(module, set())
        if used is not None:
            used.add(name)

    def _module(self, module: types.ModuleType) -> str:
        """A module that is used as a value: any of it may be."""
        name = self._names[id(module)] = module.__name__
        place = place_of(name, vars(module))
        if self._skips(name) or place.owner != "own":
            self.package(name)
            return name
        self.uses[name] = None
        parts = [
            f"{key}={self._reach(value, (), f'{name}.{key}')}"
            for key, value in sorted(vars(module).items())
            if not (key.startswith("__") and key.endswith("__"))
        ]
        self.found[f"{name} (module)"] = _hash(parts)
        return name

    def _class(self, kind: type, path: str) -> str:
        module: Any = kind.__module__
        module = module if isinstance(module, str) else "builtins"  # compiled classes may have a descriptor there
        if not self._is_own(module, home_of(kind, module)):
            return self._foreign_class(kind, module, path)
        self._extension(module)
        name = self._claim(kind, f"{module}.{kind.__qualname__}", path)
        parts = [self._refer(base, f"{name}.{base.__name__}") for base in kind.__bases__]
        if type(kind) is not type:
            parts.append(f"metaclass {self._refer(type(kind), f'{name}.metaclass')}")
        for key, member in members_of(kind):
            parts.append(f"{key}: {self._member(member, key, name)}")
        if isinstance(kind, enum.EnumMeta):
            members: Mapping[str, Any] = kind.__members__
            values = {key: with_attributes(one) for key, one in members.items()}
            parts.append(self._put(f"{name}.members", self._values.digest(values, f"{name}.members")))
        parts += sorted(self._refer(one, f"{name}.{one.__name__}") for one in registered(kind))
        if "subclasses" in self._shown:
            below: list[type] = type.__subclasses__(kind)
            parts += sorted(self._refer(one, f"{name}.{one.__name__}") for one in below)
        if self._shown:
            parts += self._looked_at(kind, annotations_of(kind), name)
        self.found[name] = _hash(parts)
        return name

    def _looked_at(self, value: Any, annotations: Mapping[str, Any], name: str) -> list[str]:
        """What code looks at of a function or class besides what it does."""
        parts = [repr(value.__doc__)] if "docs" in self._shown else []
        if "annotations" in self._shown:
            parts.append(self._values.text(dict(annotations), f"{name}.annotations"))
        if "source" in self._shown:
            parts.append(source_of(value))
            self.lines |= lines_of(value)
        return parts

    def _member(self, member: Any, key: str, name: str) -> str:
        if isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType):
            return "slot"
        if self._is_code(member):
            return self._refer(member, f"{name}.{key}")
        if key.startswith("__") or isinstance(member, property | staticmethod | classmethod):
            return self._values.text(member, f"{name}.{key}")
        return self.use(member, f"{name}.{key}")

    def _foreign_class(self, kind: type, module: str, path: str) -> str:
        """A class of an installed package: its version, and methods of the user that were put into it."""
        name = self._names[id(kind)] = f"{module}.{kind.__qualname__}"
        if self._skips(module) or not self.package(module):
            return name
        for base in kind.__mro__[:-1]:
            for key, member in put_into(base):
                if self._is_own(str(member.__globals__.get("__name__") or ""), member.__globals__):
                    self.found[f"{name}.{key}"] = _hash([self._refer(member, f"{name}.{key}")])
        return name

    def _foreign(self, function: types.FunctionType, module: str, path: str) -> str:
        """A function that is not the user's: the version of its package, and what it was given to wrap."""
        own = f"{module}.{function.__code__.co_qualname}"
        wrapped = function.__dict__.get("__wrapped__", _MISSING)
        if self._skips(module) or not (function.__closure__ or wrapped is not _MISSING):
            self._names[id(function)] = own
            self.package(module)
            return own
        name = self._claim(function, own, path)
        self.package(module)
        parts = [f"{key}={self.use(value, f'{name}.{key}')}" for key, value in sorted(closure(function).items())]
        if wrapped is not _MISSING:
            parts.append(self.use(wrapped, f"{name}.wrapped"))
        self.found[name] = _hash([own, *parts])
        return name

    def package(self, module: str) -> bool:
        """Count the version of the package of a module; whether it has one."""
        known = self._packages.get(module)
        if known is None:
            known = self._packages[module] = self._counts_package(module)
        return known

    def _counts_package(self, module: str) -> bool:
        if self._skips(module):
            return False
        self.others.add(module.partition(".")[0])
        if place_of(module).owner != "installed":
            return False
        self._sources.package(module)
        return True

    def isolated(self, value: Any, path: str) -> str:
        """Hash of a value and all that it refers to, by itself."""
        if type(value) in ATOMS:
            return self._values.text(value, path)
        inner = Walk(self._skips, self._shown, self._values.names, self._values.written)
        written = inner._values.text(value, path)
        self._take_over(inner)
        self.modules.update(inner.modules)
        return _hash([written, *sorted(f"{n} {v}" for n, v in inner.found.items())])

    def _is_opaque(self, path: str, value: Any) -> None:
        self.opaque.append((path, type_name(value)))
        self.held.append((path, value))

    def _holds(self, path: str, value: Any) -> None:
        self.held.append((path, value))


def _hash(parts: Collection[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
