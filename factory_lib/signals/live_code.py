"""Following live objects: a function's code, the globals, closures and defaults it uses, and so on."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

from factory_lib.signals.bytecode import bytecode_digest, global_references
from factory_lib.signals.canonical import Canonical, OpaqueValueError
from factory_lib.signals.member import Member, to_rgb
from factory_lib.signals.packages import distribution, place_of
from factory_lib.signals.references import Imported, Reference, references
from factory_lib.signals.signal import Signal
from factory_lib.signals.source_code import (
    ModuleSource,
    class_definition,
    digest_of,
    function_definition,
    is_edited,
    module_source,
)
from factory_lib.signals.static_code import StaticCode, is_machinery, package_of

_OF_MODULES = {"__file__", "__name__", "__doc__", "__package__", "__spec__", "__path__", "__loader__"}


class LiveCode:
    """Collects the components that objects depend on.

    Attributes:
        found: dotted name -> short hash or value.
        problems: what could not be fingerprinted, as sentences.
    """

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.problems: list[str] = []
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []
        self._static = StaticCode(self.found, self.problems)
        self._canonical = Canonical(self._refer)

    def add(self, target: Any) -> None:
        """Follow what computes: a function, class, method, partial, or an object with `__call__` and its fields."""
        is_object = not isinstance(target, types.FunctionType | types.MethodType | type | functools.partial)
        if is_object and not hasattr(target, "__wrapped__") and not isinstance(target, types.BuiltinFunctionType):
            self.add_state(target, self._refer(type(target), ""))
        elif isinstance(target, functools.partial):
            self._use(target, "partial", None)
        else:
            self._refer(target, "")

    def add_signal(self, signal: Signal) -> None:
        """Follow a signal: how its pictures are decoded, and its code; of a pinned one what it declares alone."""
        self._names.setdefault(id(signal), f"signal:{signal.name}")
        if signal.pinned:
            if not isinstance(signal.target, types.FunctionType):
                self.add_state(signal.target, type(signal.target).__qualname__)
            return
        kinds = {given.kind for given in signal.inputs}
        if kinds & {"image", "member"}:
            self.add(Member if "member" in kinds else to_rgb)
            self._package("PIL")
        self.add(signal.target)

    def add_state(self, target: Any, path: str) -> None:
        """Follow the fields of an object: what `__fingerprint__()` declares, else its attributes.

        Fields of a dataclass with `compare=False` do not count.
        """
        hook = getattr(type(target), "__fingerprint__", None)
        state: Any = hook(target) if hook is not None else None
        if hook is None and dataclasses.is_dataclass(target):
            fields = [field.name for field in dataclasses.fields(target) if field.compare]
            state = {name: getattr(target, name) for name in fields if hasattr(target, name)}
        elif hook is None:
            state = getattr(target, "__dict__", None)
        if not isinstance(state, Mapping):
            self._use(target if hook is None else state, f"{path}.state", None)
            return
        for name, value in state.items():
            self._use(value, f"{path}.{name}", None)

    def _refer(self, target: Any, path: str) -> str:
        """Follow code; returns the text that stands for it where it is used."""
        known = self._names.get(id(target))
        if known is not None:
            return known
        self._kept.append(target)  # its id has to stay its own
        if isinstance(target, types.ModuleType):
            return self._module(target)
        if isinstance(target, types.MethodType):
            name = self._refer(target.__func__, path)
            if not isinstance(target.__self__, type):
                self._use(target.__self__, f"{path}.self", None)
            return name
        if isinstance(target, Signal):
            return self._signal(target)
        if isinstance(target, types.FunctionType):
            return self._function(target, path)
        if isinstance(target, type):
            return self._class(target, path)
        return self._foreign(target, getattr(target, "__module__", None) or type(target).__module__)

    def _use(self, value: Any, path: str, home: tuple[str, str] | None) -> None:
        """A value that code uses under some name.

        Args:
            value: the value.
            path: name of its component.
            home: module and name, for a global.
        """
        if home is not None and (binding := _initial_statements(*home)):
            self._static.assigned(*home, binding)
            return
        if self._canonical.is_code(value):
            self._refer(value, path)
            return
        try:
            self.found[path] = self._canonical.digest(value, path)
        except OpaqueValueError as error:
            self.found[path] = f"opaque:{error}"
            self.problems.append(
                f"{path} is a {error}, whose value cannot be told; a change of it is not noticed. "
                "Give its class __fingerprint__(), or make it in setup() from parameters."
            )

    def _function(self, function: types.FunctionType, path: str) -> str:
        module = function.__globals__.get("__name__") or function.__module__ or ""
        if place_of(module).owner != "own":
            return self._foreign(function, module)
        code = function.__code__
        node = function_definition(function)
        source = module_source(code.co_filename, function.__globals__)
        lookup = _closure(function)
        if node is None or is_edited(function):
            if node is not None:
                self.problems.append(
                    f"{module}.{code.co_qualname} was edited after it was loaded: start a new process."
                )
            kind = "bytecode" if node is None else "edited"
            value, found = f"{kind}:{bytecode_digest(code)}", global_references(code)
        else:
            value, found = digest_of(node, self._machinery(node, function.__globals__, source)), references(node)
        name = self._named(function, f"{module}.{code.co_qualname}", path, value)
        for parameter, default in _defaults(function, node):
            self._use(default, f"{name}.{parameter}", None)
        self._follow(found, name, lookup, function.__globals__)
        self._refer_wrapped(function, path)
        return name

    def _class(self, kind: type, path: str) -> str:
        module = kind.__module__
        if place_of(module).owner != "own":
            return self._foreign(kind, module)
        node, source = class_definition(kind)
        methods = [inner for inner in map(_plain_function, vars(kind).values()) if inner is not None]
        namespace = vars(sys.modules[module]) if module in sys.modules else {}
        if methods and methods[0].__globals__.get("__name__") == module:
            namespace = methods[0].__globals__
        if node is None or source is None or any(is_edited(method) for method in methods):
            return self._class_without_source(kind, path)
        value = digest_of(node, self._machinery(node, namespace, source))
        name = self._named(kind, f"{module}.{kind.__qualname__}", path, value)
        lookup = {key: cell for method in methods for key, cell in _closure(method).items() if key != "__class__"}
        self._follow(references(node), name, lookup, namespace)
        for base in kind.__mro__[1:]:
            self._refer(base, f"{name}.{base.__name__}")
        return name

    def _class_without_source(self, kind: type, path: str) -> str:
        """A class made at run time: its members one by one."""
        members = {key: value for key, value in vars(kind).items() if not isinstance(value, types.GetSetDescriptorType)}
        shape = repr(sorted(members)) + repr([base.__qualname__ for base in kind.__mro__])
        value = "made:" + hashlib.sha256(shape.encode()).hexdigest()[:16]
        name = self._named(kind, f"{kind.__module__}.{kind.__qualname__}", path, value)
        for key, member in sorted(members.items()):
            function = _plain_function(member)
            if function is not None:
                self._refer(function, f"{name}.{key}")
            elif not (key.startswith("__") or key.startswith("_abc_")) or key == "__match_args__":
                self._use(member, f"{name}.{key}", None)
        for base in kind.__mro__[1:]:
            self._refer(base, f"{name}.{base.__name__}")
        return name

    def _foreign(self, target: Any, module: str) -> str:
        """Code that is not the user's: the version of its package, and the user's functions that it wraps."""
        name = f"{module}.{getattr(target, '__qualname__', type(target).__qualname__)}"
        self._names[id(target)] = name
        self._package(module)
        if isinstance(target, types.FunctionType):
            for key, value in _closure(target).items():
                if isinstance(value, types.FunctionType | types.MethodType | type):
                    self._refer(value, f"{name}.{key}")
        self._refer_wrapped(target, name)
        return name

    def _refer_wrapped(self, target: Any, path: str) -> None:
        wrapped = getattr(target, "__wrapped__", None)
        if wrapped is not None and not isinstance(target, type):
            self._refer(wrapped, path)

    def _module(self, module: types.ModuleType) -> str:
        """A module that is used as a value: any of it may be."""
        self._names[id(module)] = module.__name__
        self._static.name(module.__name__, ())
        return module.__name__

    def _signal(self, signal: Signal) -> str:
        """A signal that other code uses."""
        name = self._names[id(signal)] = f"signal:{signal.name}"
        self.found |= {f"{name}.{key}": value for key, value in signal.declaration.items()}
        self.add_signal(signal)
        return name

    def _package(self, module: str) -> None:
        if place_of(module).owner == "installed":
            name, version = distribution(module)
            self.found[f"package:{name}"] = version

    def _follow(
        self, found: Iterable[Reference], name: str, closure: Mapping[str, Any], namespace: Mapping[str, Any]
    ) -> None:
        """Look up what code refers to as Python would: closure, globals, builtins."""
        module = str(namespace.get("__name__", ""))
        for reference in found:
            if isinstance(reference.root, Imported):
                package = str(namespace.get("__package__") or package_of(module))
                self._static.imported(reference.root, reference.attributes, package)
            elif reference.root in closure:
                self._reach(closure[reference.root], reference.attributes, f"{name}.{reference.root}", None)
            elif reference.root in namespace and reference.root not in _OF_MODULES:
                home = (module, reference.root)
                self._reach(namespace[reference.root], reference.attributes, ".".join(home), home)

    def _reach(self, value: Any, attributes: tuple[str, ...], path: str, home: tuple[str, str] | None) -> None:
        """Go through the modules of `package.module.name`, then use what is found."""
        while isinstance(value, types.ModuleType) and attributes:
            module, (name, *rest) = value.__name__, attributes
            inner = getattr(value, name, None)
            if place_of(module).owner != "own" and not isinstance(inner, types.ModuleType):
                self._package(module)
                return
            if not hasattr(value, name):
                return
            value, attributes, path, home = inner, tuple(rest), f"{module}.{name}", (module, name)
        self._use(value, path, home)

    def _machinery(self, node: ast.AST, namespace: Mapping[str, Any], source: ModuleSource | None) -> list[ast.expr]:
        """Decorators such as `@signal`: what they declare is a component of its own."""
        dropped = []
        written_in = str(namespace.get("__name__", ""))
        for decorator in getattr(node, "decorator_list", []):
            callee = decorator.func if isinstance(decorator, ast.Call) else decorator
            for reference in references(callee):
                # A function that came by pickle has no globals but those it reads: its decorator is found in the file.
                target = namespace.get(reference.root) if isinstance(reference.root, str) else None
                module = target.__name__ if isinstance(target, types.ModuleType) else getattr(target, "__module__", "")
                known = module and place_of(module).owner == "machinery"
                if known or (target is None and source is not None and is_machinery(source, written_in, decorator)):
                    dropped.append(decorator)
        return dropped

    def _named(self, target: Any, own: str, path: str, value: str) -> str:
        """The name of a component: its own, or for lambdas and inner functions the path on which they were met."""
        name = path if "<" in own and path else own
        number = 1
        while self.found.get(name if number == 1 else f"{name}#{number}", value) != value:
            number += 1
        name = name if number == 1 else f"{name}#{number}"
        self.found[name] = value
        self._names[id(target)] = name
        return name


def _initial_statements(module: str, name: str) -> list[ast.stmt]:
    """The statements that first make a global which functions of its module change later; empty for a constant."""
    place = place_of(module)
    source = module_source(place.path) if place.owner == "own" and place.path else None
    binding = source.bindings.get(name, []) if source is not None and name in source.changing else []
    made = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    return [] if any(isinstance(statement, made) for statement in binding) else binding


def _closure(function: types.FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return found


def _defaults(function: types.FunctionType, node: ast.AST | None) -> list[tuple[str, Any]]:
    """Parameters with their default values, but for those written as a literal: they are in the code."""
    code = function.__code__
    values = function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount][code.co_argcount - len(values) :] if values else ()
    found = dict(zip(positional, values, strict=True)) | (function.__kwdefaults__ or {})
    arguments: ast.arguments | None = getattr(node, "args", None)
    if arguments is not None:
        written = dict(
            zip(reversed([*arguments.posonlyargs, *arguments.args]), reversed(arguments.defaults), strict=False)
        )
        written |= {
            one: default for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default
        }
        literal = {argument.arg for argument, default in written.items() if isinstance(default, ast.Constant)}
        found = {name: value for name, value in found.items() if name not in literal}
    return sorted(found.items())


def _plain_function(member: Any) -> types.FunctionType | None:
    """The function inside a method, a static or class method, or a property."""
    member = (
        getattr(member, "__func__", None) or getattr(member, "fget", None) or getattr(member, "func", None) or member
    )
    return member if isinstance(member, types.FunctionType) else None
