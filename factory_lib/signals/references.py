"""What code refers to: the names it takes from outside itself, with the attributes it reads from them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True)
class Imported:
    """What a name stands for that a function imports itself.

    Attributes:
        module: the module, as written; relative ones have their dots in `level`.
        attribute: the name taken from it; None for `import module`.
        level: leading dots.
    """

    module: str
    attribute: str | None = None
    level: int = 0


@dataclass(frozen=True)
class Reference:
    """A name that code takes from outside, with the attributes it reads from it: `config.LIMITS.low`.

    Attributes:
        root: the name, or what the code itself imported under it.
        attributes: read one after the other.
    """

    root: str | Imported
    attributes: tuple[str, ...] = ()


def references(node: ast.AST, *, outside: bool = False) -> list[Reference]:
    """What code takes from outside itself, sorted.

    Names count where Python would look them up as globals, builtins or closure variables; annotations do not count.

    Args:
        node: a function, a class, a statement or an expression.
        outside: of a function, also what its decorators and default values refer to.
    """
    finder = _References()
    finder.top(node, outside)
    return sorted(finder.found, key=repr)


def stored_names(target: ast.AST) -> set[str]:
    """The names that an assignment's target binds."""
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


class _References(ast.NodeVisitor):
    """Walks code scope by scope and collects the names that no scope of it binds."""

    def __init__(self) -> None:
        self.found: set[Reference] = set()
        self._scopes: list[dict[str, Imported | None]] = []

    def top(self, node: ast.AST, outside: bool) -> None:
        if isinstance(node, _Function) and not outside:
            self._function(node)
        else:
            self.visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._decorators_and_defaults(node)
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._decorators_and_defaults(node)
        self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._decorators_and_defaults(node)
        self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for outside in (*node.bases, *node.keywords, *node.decorator_list):
            self.visit(outside)
        # Names bound in the body of a class are seen by its statements but not by its methods.
        bound = _bound_here(node.body)
        for statement in node.body:
            inside = [*self._scopes, bound]
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                self._in(inside, self._decorators_and_defaults, statement)
                self._function(statement)
            else:
                self._in(inside, self.visit, statement)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self._comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._refer(node.id, ())

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain = _chain(node)
        if chain is None:
            self.generic_visit(node)
        else:
            self._refer(chain[0], chain[1:])

    def visit_Call(self, node: ast.Call) -> None:
        named = len(node.args) > 1 and isinstance(node.args[1], ast.Constant) and isinstance(node.args[1].value, str)
        if named and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            chain = _chain(node.args[0])
            if chain is not None:
                self._refer(chain[0], (*chain[1:], node.args[1].value))  # type: ignore[attr-defined]
                for argument in node.args[2:]:
                    self.visit(argument)
                return
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        for part in (node.target, node.value):
            if part is not None:
                self.visit(part)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            # The import alone uses nothing of the module, but shows the package; uses are references of their own.
            self.found.add(Reference(Imported(alias.name), ("__name__",)))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.found.add(Reference(Imported(node.module or "", alias.name, node.level)))

    def _function(self, node: _Function) -> None:
        arguments = node.args
        names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        body: list[Any] = node.body if isinstance(node.body, list) else [node.body]
        bound = {argument.arg: None for argument in names if argument is not None} | _bound_here(body)
        for statement in body:
            self._in([*self._scopes, bound], self.visit, statement)

    def _comprehension(self, node: _Comprehension) -> None:
        bound: dict[str, Imported | None] = {
            name: None for part in node.generators for name in stored_names(part.target)
        }
        self._in([*self._scopes, bound], self.generic_visit, node)

    def _decorators_and_defaults(self, node: _Function) -> None:
        for outside in (*getattr(node, "decorator_list", []), *node.args.defaults, *node.args.kw_defaults):
            if outside is not None:
                self.visit(outside)

    def _in(self, scopes: list[dict[str, Imported | None]], visit: Callable[[Any], object], node: ast.AST) -> None:
        before, self._scopes = self._scopes, scopes
        visit(node)
        self._scopes = before

    def _refer(self, name: str, attributes: tuple[str, ...]) -> None:
        for scope in reversed(self._scopes):
            if name in scope:
                imported = scope[name]
                if imported is not None:
                    self.found.add(Reference(imported, attributes))
                return
        self.found.add(Reference(name, attributes))


def _chain(node: ast.expr) -> tuple[str, ...] | None:
    """`a.b.c` as names; None where it does not start with a name."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return (node.id, *reversed(attributes)) if isinstance(node, ast.Name) else None


def _bound_here(body: list[Any]) -> dict[str, Imported | None]:
    """The names that a scope binds itself, and what it imports under them."""
    bound: dict[str, Imported | None] = {}
    outside: set[str] = set()
    pending: list[ast.AST] = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound[node.name] = None
            continue
        if isinstance(node, ast.Lambda | _Comprehension):
            # Only an assignment expression reaches out of a comprehension.
            bound.update({inner.target.id: None for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)})
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name if alias.asname else alias.name.partition(".")[0]
                bound[alias.asname or top] = Imported(top)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                bound[alias.asname or alias.name] = Imported(node.module or "", alias.name, node.level)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            outside.update(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            bound.setdefault(node.id, None)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound[node.name] = None
        elif isinstance(node, ast.MatchMapping) and node.rest:
            bound[node.rest] = None
        pending += ast.iter_child_nodes(node)
    return {name: imported for name, imported in bound.items() if name not in outside}
