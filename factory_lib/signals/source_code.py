"""Source code as it counts: the syntax tree of a function or class, found and written without what does not matter."""

from __future__ import annotations

import ast
import copy
import hashlib
import linecache
import os
import sys
import time
import types
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from factory_lib.signals.references import stored_names

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_IMPORTED_AT = time.time()
_LAYOUT = {"ctx", "type_comment", "kind", "type_ignores"}


@dataclass
class ModuleSource:
    """A parsed source file.

    Attributes:
        tree: its syntax tree.
        text: its source.
        definitions: functions, lambdas and classes with their qualified names, in the order of the file.
    """

    tree: ast.Module
    text: str
    definitions: list[tuple[str, Definition]]
    codes: dict[tuple[str, int], list[types.CodeType]] | None = field(default=None, repr=False)

    @cached_property
    def bindings(self) -> dict[str, list[ast.stmt]]:
        """Global names with the statements that bind them; those that import all names under "*"."""
        found: dict[str, list[ast.stmt]] = {}
        for statement in _statements(self.tree.body):
            for name in _bound_names(statement):
                found.setdefault(name, []).append(statement)
        return found

    @cached_property
    def changing(self) -> set[str]:
        """Globals that functions of the module write to: caches and counters, whose value is no constant."""
        names: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Global):
                names.update(node.names)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                for inner in ast.walk(node):
                    names.update(_mutated(inner))
        return names


_parsed: dict[str, tuple[Any, ModuleSource | None]] = {}


def module_source(path: str, namespace: dict[str, Any] | None = None) -> ModuleSource | None:
    """Parse a source file (or a notebook's cell), once for each state of it; None where there is no source."""
    try:
        status = os.stat(path)
        stamp: Any = (status.st_mtime_ns, status.st_size)
        linecache.checkcache(path)
    except OSError:
        stamp = None
    lines = linecache.getlines(path, namespace)
    stamp = stamp or hash(tuple(lines))
    known = _parsed.get(path)
    if known is not None and known[0] == stamp:
        return known[1]
    text = "".join(lines)
    try:
        tree = ast.parse(text) if text else None
    except SyntaxError:
        tree = None
    found = ModuleSource(tree, text, list(_definitions(tree, ""))) if tree is not None else None
    _parsed[path] = (stamp, found)
    return found


def function_definition(function: types.FunctionType) -> Definition | None:
    """The syntax tree of a function or lambda, found by its code: its name may be a decorator's copy.

    Several lambdas on a line are told apart by the columns of their instructions.
    """
    code = function.__code__
    source = module_source(code.co_filename, function.__globals__)
    if source is None:
        return None
    if code.co_name != "<lambda>":
        return next(
            (
                node
                for name, node in source.definitions
                if not isinstance(node, ast.ClassDef | ast.Lambda)
                and name == code.co_qualname
                and _first_line(node) == code.co_firstlineno
            ),
            None,
        )
    lambdas = [
        node for _, node in source.definitions if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno
    ]
    if len(lambdas) == 1:
        return lambdas[0]
    spots = [
        (line, column)
        for line, _, column, end in code.co_positions()
        if line is not None and column is not None and column != end
    ]
    fitting = [node for node in lambdas if spots and all(_within(spot, node.body) for spot in (min(spots), max(spots)))]
    return min(fitting, key=lambda node: _extent(node.body), default=None)


def class_definition(kind: type) -> tuple[ast.ClassDef | None, ModuleSource | None]:
    """The syntax tree of a class and the file it is in."""
    methods = [value for value in vars(kind).values() if isinstance(value, types.FunctionType)]
    methods = [method for method in methods if method.__qualname__ == f"{kind.__qualname__}.{method.__name__}"]
    module = sys.modules.get(kind.__module__)
    path = getattr(module, "__file__", None) or (methods[0].__code__.co_filename if methods else None)
    source = module_source(path) if path else None
    if source is None and methods:
        source = module_source(methods[0].__code__.co_filename, methods[0].__globals__)
    if source is None:
        return None, None
    found = [node for name, node in source.definitions if name == kind.__qualname__ and isinstance(node, ast.ClassDef)]
    lines = [method.__code__.co_firstlineno for method in methods]
    holding = [node for node in found if all(node.lineno <= line <= (node.end_lineno or line) for line in lines)]
    return next(reversed(holding or found), None), source


def is_edited(function: types.FunctionType) -> bool:
    """Whether the file of a function was changed since this process started and no longer holds the code that runs."""
    try:
        changed = os.stat(function.__code__.co_filename).st_mtime
    except OSError:
        return False
    # The start is known to a second.
    return changed > _process_start() + 1 and not _is_loaded_code(function)


@lru_cache(maxsize=1)
def _process_start() -> float:
    """Seconds since the epoch; where the system does not tell, when this module was imported."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/stat", "rb") as file:
            booted = next(int(line.split()[1]) for line in file if line.startswith(b"btime"))
        return booted + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration, ValueError, IndexError):
        return _IMPORTED_AT


def _is_loaded_code(function: types.FunctionType) -> bool:
    """Whether the file still holds the code that was loaded from it: it may have been edited since."""
    code = function.__code__
    source = module_source(code.co_filename, function.__globals__)
    if source is None:
        return True
    if source.codes is None:
        source.codes = {}
        try:
            pending = [compile(source.text, code.co_filename, "exec", dont_inherit=True)]
        except (SyntaxError, ValueError):
            return False
        while pending:
            current = pending.pop()
            source.codes.setdefault((current.co_qualname, current.co_firstlineno), []).append(current)
            pending += [constant for constant in current.co_consts if isinstance(constant, types.CodeType)]
    candidates = source.codes.get((code.co_qualname, code.co_firstlineno), [])
    return any(_same_code(code, candidate) for candidate in candidates)


def digest_of(node: ast.AST, without: Collection[ast.AST] = ()) -> str:
    """Short digest of code as it counts: without comments, docstrings, formatting and no-ops.

    Args:
        node: the code.
        without: its decorators that do not count.
    """
    if without and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        kept: list[Any] = [decorator for decorator in node.decorator_list if decorator not in without]
        node = copy.copy(node)
        node.decorator_list = kept
    return hashlib.sha256(repr(_plain(node)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, those under `if`, `try`, `with` and loops included."""
    for statement in body:
        yield statement
        for inner in ("body", "orelse", "finalbody"):
            if not isinstance(statement, _SCOPES) and isinstance(getattr(statement, inner, None), list):
                yield from _statements(getattr(statement, inner))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _bound_names(statement: ast.stmt) -> set[str]:
    """The names that a statement at module level binds, without those of its inner statements."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Assign):
        return {name for target in statement.targets for name in stored_names(target)}
    if isinstance(statement, ast.AnnAssign | ast.AugAssign | ast.For):
        return stored_names(statement.target)
    if isinstance(statement, ast.With):
        return {name for item in statement.items if item.optional_vars for name in stored_names(item.optional_vars)}
    return {node.target.id for node in ast.walk(statement) if isinstance(node, ast.NamedExpr)}


_MUTATORS = {
    "append",
    "extend",
    "insert",
    "add",
    "update",
    "setdefault",
    "pop",
    "popitem",
    "clear",
    "remove",
    "discard",
}


def _mutated(node: ast.AST) -> set[str]:
    if (
        isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Store | ast.Del)
        and isinstance(node.value, ast.Name)
    ):
        return {node.value.id}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS:
        return {node.func.value.id} if isinstance(node.func.value, ast.Name) else set()
    return set()


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _SCOPES):
            name = prefix + ("<lambda>" if isinstance(child, ast.Lambda) else child.name)
            yield name, child
            yield from _definitions(child, f"{name}." if isinstance(child, ast.ClassDef) else f"{name}.<locals>.")
        else:
            yield from _definitions(child, prefix)


def _first_line(node: Definition) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _within(spot: tuple[int, int], node: ast.expr) -> bool:
    start = (node.lineno, node.col_offset)
    end = (node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)
    return start <= spot <= end


def _extent(node: ast.expr) -> tuple[int, int]:
    return (node.end_lineno or 0) - node.lineno, (node.end_col_offset or 0) - node.col_offset


def _same_code(one: types.CodeType, other: types.CodeType) -> bool:
    if one.co_code != other.co_code or one.co_names != other.co_names or len(one.co_consts) != len(other.co_consts):
        return False
    return all(
        _same_code(a, b) if isinstance(a, types.CodeType) and isinstance(b, types.CodeType) else repr(a) == repr(b)
        for a, b in zip(one.co_consts, other.co_consts, strict=True)
    )


def _plain(node: Any) -> Any:
    """A syntax tree as nested tuples, the same for all Python versions: empty and layout-only fields are left out."""
    if isinstance(node, ast.Constant):
        return ("Constant", type(node.value).__name__, repr(node.value))
    if isinstance(node, ast.JoinedStr):
        return ("JoinedStr", *_merged([_plain(value) for value in node.values]))
    if isinstance(node, ast.AST):
        fields = [(name, _plain(getattr(node, name, None))) for name in node._fields if name not in _LAYOUT]
        return (
            type(node).__name__,
            *((name, value) for name, value in fields if value not in (None, (), ("JoinedStr",))),
        )
    if isinstance(node, list):
        return tuple(_plain(item) for item in node if not _is_nothing(item))
    return node


def _is_nothing(node: Any) -> bool:
    """Docstrings and other strings that stand alone, and `pass`."""
    if isinstance(node, ast.Pass):
        return True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _merged(values: list[Any]) -> list[Any]:
    """The parts of an f-string, neighbouring constants as one, no empty ones: Python versions cut them differently."""
    merged: list[Any] = []
    for value in values:
        if value == ("Constant", "str", "''"):
            continue
        if merged and value[0] == "Constant" and merged[-1][0] == "Constant":
            text = ast.literal_eval(merged[-1][2]) + ast.literal_eval(value[2])
            merged[-1] = ("Constant", "str", repr(text))
        else:
            merged.append(value)
    return merged
