"""Following live objects: functions with the values of what they name, classes, modules, and on from there.

Each function and class of the user, each global, closure variable, default and field becomes a component of its own, so
that what changed can be named; where one refers to another, it holds that one's name.
"""

from __future__ import annotations

import abc
import copyreg
import enum
import hashlib
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

from factory_lib.fingerprints.codes import Facts, facts
from factory_lib.fingerprints.places import Place, is_module, place_of
from factory_lib.fingerprints.sources import Sources
from factory_lib.fingerprints.values import ATOMS, Values, declared_by, kept_state, type_name
from factory_lib.fingerprints.writes import written

_OF_MODULES = {"__file__", "__name__", "__doc__", "__package__", "__spec__", "__path__", "__loader__", "__builtins__"}
_OF_CLASSES = {
    "__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__annotations__", "__firstlineno__",
    "__static_attributes__", "__abstractmethods__", "_abc_impl", "__orig_bases__", "__parameters__", "__annotate__",
    "__annotate_func__", "__annotations_cache__", "__match_args__", "__slotnames__",
}  # fmt: skip
_SHOWS_DOCS = {"__doc__", "getdoc"}
_SHOWS_ANNOTATIONS = {"__annotations__", "get_type_hints", "get_annotations", "signature"}
_IMPORTS = {"import_module", "__import__"}
_MISSING = object()


class Walk:
    """Collects the components that objects depend on.

    Args:
        counts_for_nothing: whether a module is machinery, whose code changes no value.
        shows: kinds of text of functions that count, too: "docs", "annotations".
        texts: texts that may name what is used of a folder.
        written_to: names of variables and attributes that code writes to where they name a file or folder.

    Attributes:
        found: dotted name -> short hash or value.
        opaque: (path, type) of what cannot be taken apart.
        held: (path, object) of all that holds no value that could be told: locks, loggers, open files.
        uses: module of the user -> the attributes of it that are used; None for all of them.
        reads: (file, line, what) of code that opens files or reads the environment.
        changed: (module that is imported inside, dotted name in it) -> its value, where that is not what the file says.
        of_files: components that hold the content of files, which may change while others are taken.
        texts: string constants of code, which may name what is used of a folder.
        shows: what code does with docstrings and annotations, as for the argument.
        written: names of variables and attributes that stand for what code writes to.
    """

    def __init__(
        self,
        counts_for_nothing: Callable[[str], bool] = lambda module: False,
        shows: Collection[str] = (),
        texts: Collection[str] = (),
        written_to: Collection[str] = (),
    ) -> None:
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
        self._skips = counts_for_nothing
        self._shown = frozenset(shows)
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()
        self._kept: list[Any] = []
        self._sources = Sources(self.found, counts_for_nothing, self._changed)
        self._values = Values(self._refer, self._is_opaque, self._isolated, self._holds)
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

    @staticmethod
    def _is_code(value: Any) -> bool:
        kind = type(value)
        code = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)
        return kind in code or issubclass(kind, type)

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
        state = _plain_state(target)
        if state is None:
            self.use(target, f"{name}.state")
            return
        for field, value in kept_state(type(target), state):
            self.use(value, f"{name}.{field}")

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
            elif self._is_code(one):
                self._refer(one, f"{name}.{key}")
            else:
                self._object(one, "") if key == "target" else self.use(one, f"{name}.{key}")
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
        self.package(module)
        return f"{module}.{name}"

    def _function(self, function: types.FunctionType, path: str) -> str:
        namespace = function.__globals__
        module = str(namespace.get("__name__") or function.__module__ or "")
        code = function.__code__
        if not self._is_own(module, namespace):
            return self._foreign(function, module, path)
        name = self._claim(function, f"{module}.{code.co_qualname}", path)
        known = facts(code)
        parts = [known.digest, *self._bound(function, known, name, module)]
        for parameter, default in _defaults(function):
            parts.append(f"{parameter}={self.use(default, f'{name}.{parameter}')}")
        for key, value in sorted(function.__dict__.items()):
            parts.append(f"{key}:{self.use(value, f'{name}.{key}')}")
        if "docs" in self._shown:
            parts.append(repr(function.__doc__))
        if "annotations" in self._shown:
            parts.append(
                repr(
                    {
                        k: v if isinstance(v, str) else getattr(v, "__name__", v)
                        for k, v in function.__annotations__.items()
                    }
                )
            )
        self.found[name] = _hash(parts)
        self._note(known, code)
        return name

    def _bound(self, function: types.FunctionType, known: Facts, name: str, module: str) -> list[str]:
        """What the names in a function stand for, looked up as Python would: closure, globals."""
        namespace, parts = function.__globals__, []
        cells = _closure(function)
        for root, attributes in known.references:
            if root.startswith("."):
                value = cells.get(root[1:], _MISSING)
                where = f"{name}.{root[1:]}"
            else:
                value = _MISSING if root in _OF_MODULES else namespace.get(root, _MISSING)
                where = f"{module}.{root}"
            if value is not _MISSING:
                parts.append(f"{root}{attributes}={self._reach(value, attributes, where)}")
        package = str(
            namespace.get("__package__") or (module if "__path__" in namespace else module.rpartition(".")[0])
        )
        for one in known.imports:
            self._sources.imported(one, package)
        if known.names & _IMPORTS:
            for text in sorted(known.texts):
                if text.replace(".", "_").isidentifier() and is_module(text):
                    self._sources.imported((text, 0, ()), package)
        return parts

    def _changed(self, module: types.ModuleType, name: str, value: Any) -> None:
        """Of a module that is imported inside, something is not what its file says; all of one without a file."""
        self.changed[module.__name__, name] = value
        self.use(value, f"{module.__name__}.{name}" if name else module.__name__)

    def _note(self, known: Facts, code: types.CodeType) -> None:
        self.texts |= known.texts
        self.shows |= {"docs"} if known.names & _SHOWS_DOCS else set()
        self.shows |= {"annotations"} if known.names & _SHOWS_ANNOTATIONS else set()
        self.reads += [(code.co_filename, line, what) for line, what in known.reads]
        self.written |= written(code)

    def _reach(self, value: Any, attributes: tuple[str, ...], path: str) -> str:
        """Go through the modules of `package.module.name`, then use what is found."""
        while isinstance(value, types.ModuleType) and attributes:
            module, (name, *rest) = value.__name__, attributes
            if self._skips(module):
                return f"{module}.{name}"
            owner = self._place(module, vars(value)).owner
            if owner == "own":
                self._uses(module, name)
                inner = getattr(value, name, _MISSING)
            else:
                self.package(module)
                inner = vars(value).get(name, _MISSING)
            path = f"{module}.{name}"
            if inner is _MISSING:
                return path
            value, attributes = inner, tuple(rest)
            if owner != "own" and not isinstance(value, types.ModuleType) and not self._is_code(value):
                return f"{path}={value!r}" if owner == "installed" and type(value) in ATOMS else path
        return self.use(value, path)

    def _uses(self, module: str, name: str) -> None:
        used = self.uses.setdefault(module, set())
        if used is not None:
            used.add(name)

    def _module(self, module: types.ModuleType) -> str:
        """A module that is used as a value: any of it may be."""
        name = self._names[id(module)] = module.__name__
        place = self._place(name, vars(module))
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
        methods = [member for member in map(_function_in, vars(kind).values()) if member is not None]
        homes = [one.__globals__ for one in methods if one.__globals__.get("__name__") == module]
        if not self._is_own(module, homes[0] if homes else None):
            return self._foreign_class(kind, module, path)
        name = self._claim(kind, f"{module}.{kind.__qualname__}", path)
        parts = [self._refer(base, f"{name}.{base.__name__}") for base in kind.__bases__]
        if type(kind) is not type:
            parts.append(f"metaclass {self._refer(type(kind), f'{name}.metaclass')}")
        for key, member in sorted(vars(kind).items(), key=lambda item: item[0]):
            if key in _OF_CLASSES or _is_made_by_enum(kind, key):
                continue
            parts.append(f"{key}: {self._member(member, key, name)}")
        if isinstance(kind, enum.EnumMeta):
            members: Mapping[str, Any] = kind.__members__
            values = {key: one._value_ for key, one in members.items()}
            parts.append(self._put(f"{name}.members", self._values.digest(values, f"{name}.members")))
        parts += sorted(self._refer(one, f"{name}.{one.__name__}") for one in _registered(kind))
        if "docs" in self._shown:
            parts.append(repr(kind.__doc__))
        if "annotations" in self._shown:
            parts.append(repr(list(vars(kind).get("__annotations__", ()))))
        self.found[name] = _hash(parts)
        return name

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
            for key, member in list(vars(base).items()):
                home = str(member.__globals__.get("__name__") or "") if type(member) is types.FunctionType else None
                if home not in (None, base.__module__) and self._is_own(str(home), member.__globals__):
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
        parts = [f"{key}={self.use(value, f'{name}.{key}')}" for key, value in sorted(_closure(function).items())]
        if wrapped is not _MISSING:
            parts.append(self.use(wrapped, f"{name}.wrapped"))
        self.found[name] = _hash([own, *parts])
        return name

    def package(self, module: str) -> bool:
        """Count the version of the package of a module; whether it has one."""
        if self._skips(module) or self._place(module).owner != "installed":
            return False
        self._sources.package(module)
        return True

    def _place(self, module: str, namespace: Mapping[str, Any] | None = None) -> Place:
        return place_of(module, namespace)

    def _is_own(self, module: str, namespace: Mapping[str, Any] | None = None) -> bool:
        return not self._skips(module) and self._place(module, namespace).owner == "own"

    def _isolated(self, value: Any, path: str) -> str:
        """Hash of a value and all that it refers to, by itself."""
        if type(value) in ATOMS:
            return self._values.text(value, path)
        inner = Walk(self._skips, self._shown, self._values.names, self._values.written)
        written = inner._values.text(value, path)
        self.opaque += inner.opaque
        self.held += inner.held
        self.found |= {name: version for name, version in inner.found.items() if name.startswith("package:")}
        for module, names in inner.uses.items():
            self.uses[module] = None if names is None else (self.uses.get(module) or set()) | names
        return _hash([written, *sorted(f"{n} {v}" for n, v in inner.found.items())])

    def _is_opaque(self, path: str, value: Any) -> None:
        self.opaque.append((path, type_name(value)))
        self.held.append((path, value))

    def _holds(self, path: str, value: Any) -> None:
        self.held.append((path, value))

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


def _hash(parts: Collection[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _closure(function: types.FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return found


def _defaults(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Parameters with their default values."""
    code, values = function.__code__, function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount][code.co_argcount - len(values) :] if values else ()
    return sorted((dict(zip(positional, values, strict=True)) | (function.__kwdefaults__ or {})).items())


def _plain_state(value: Any) -> dict[str, Any] | None:
    """The fields of an object that is nothing but its fields; None for others."""
    import dataclasses

    kind = type(value)
    if kind in copyreg.dispatch_table:
        return None
    if dataclasses.is_dataclass(value):
        skipped = {field.name for field in dataclasses.fields(value) if not field.compare}
        names = [field.name for field in dataclasses.fields(value)]
        state = {name: getattr(value, name) for name in names if hasattr(value, name)} | getattr(value, "__dict__", {})
        return {name: one for name, one in state.items() if name not in skipped}
    try:
        parts: Any = value.__reduce_ex__(4)
    except Exception:
        return None
    if isinstance(parts, str) or parts[0] is not vars(copyreg)["__newobj__"] or len(parts[1]) != 1:
        return None
    if any(part is not None for part in parts[3:]):
        return None
    whole = parts[2] if isinstance(parts[2], tuple) and len(parts[2]) == 2 else (parts[2],)
    if not all(isinstance(one, dict | None) for one in whole):
        return None
    return {name: one for part in whole for name, one in (part or {}).items()}


def _function_in(member: Any) -> types.FunctionType | None:
    """The function inside a method, a static or class method, or a property."""
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    elif isinstance(member, property):
        member = member.fget
    return member if type(member) is types.FunctionType else None


def _registered(kind: type) -> list[type]:
    """Classes that an abstract class was told are its subclasses."""
    if not isinstance(kind, abc.ABCMeta):
        return []
    known: Collection[Any] = abc._get_dump(kind)[0]  # type: ignore[attr-defined]
    return [one for one in (reference() for reference in known) if one is not None]


def _is_made_by_enum(kind: type, key: str) -> bool:
    if not isinstance(kind, enum.EnumMeta):
        return False
    single = key.startswith("_") and key.endswith("_") and key not in {"_missing_", "_generate_next_value_"}
    return single or key in vars(kind).get("_member_map_", ())
