"""Patterns that meet foreign text take time in proportion to it: each is run on a megabyte of what is worst for it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
METHODS = {"match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}
CPU_SECONDS = 120
"""For all of them; what is quadratic takes hours."""

RUNNER = """
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
for where, pattern, flags, anchored, texts in json.load(sys.stdin):
    print(where, repr(pattern)[:200], flush=True)
    found = re.compile(pattern, flags)
    for piece, end in texts:
        text = piece * (1_000_000 // len(piece)) + end
        if anchored:
            found.match(text), found.fullmatch(text)
        else:
            sum(1 for _ in found.finditer(text))
print("done")
"""


def patterns() -> list[tuple[str, str, int, bool]]:
    """Where, pattern, flags, and whether it is only tried at the beginning of a text: of every pattern in the source."""
    found = []
    for package in ("factory_lib", "factory_assets"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                if not isinstance(node, ast.Call) or not _is_of_re(node):
                    continue
                method = node.func.attr  # type: ignore[attr-defined]
                name = _assigned(tree, node)
                used = _uses(tree, name) if method == "compile" else {method}
                text = _text(node.args[0])
                flags = sum({_flag(n) for a in [*node.args[1:], *node.keywords] for n in ast.walk(a)})
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                found.append((where, text, flags, bool(used) and used <= {"match", "fullmatch"}))
    return found


def test_patterns_are_linear() -> None:
    import json

    found = patterns()
    assert len(found) > 60
    work = [(where, text, flags, anchored, worst(text)) for where, text, flags, anchored in found]
    ran = subprocess.run(
        [sys.executable, "-c", RUNNER.format(seconds=CPU_SECONDS)],
        input=json.dumps(work),
        capture_output=True,
        text=True,
    )
    last = ran.stdout.strip().rpartition("\n")[2]
    assert (ran.returncode, last) == (0, "done"), f"{last} does not end: {ran.stderr[-300:]}"


def test_the_test_finds_what_is_quadratic() -> None:
    for pattern in (r"(\w+)\s*\(", r"<Code>(.*?)</Code>", r"\s*$", r"[a-z]+://[^/\s@]*@"):
        work = f'[["x", {pattern!r}, 0, false, {[list(t) for t in worst(pattern)]!r}]]'
        ran = subprocess.run(
            [sys.executable, "-c", "import ast, io, json, sys; sys.stdin = io.StringIO(json.dumps(ast.literal_eval("
             "sys.stdin.read().replace('false', 'False'))));" + RUNNER.format(seconds=1)],
            input=work, capture_output=True, text=True,
        )  # fmt: skip
        assert "done" not in ran.stdout, pattern


def worst(pattern: str) -> list[tuple[str, str]]:
    """Pieces to be repeated, with what follows them: what the pattern looks for, over and over, and never its end."""
    plain = re.sub(r"\\([sSdDwWbBAZ])", r"\0\1", pattern)
    plain = re.sub(r"\(\?[:=!<P]+\w*>?|\[[^\]]*\]|[\^$*+?{}|()]|\\", "\0", plain)
    literals = [piece for piece in re.split(r"\0[sSdDwWbBAZ]?|\.", plain) if piece]
    begin = literals[0] if literals else "x"
    pieces = ["a", " ", begin, f"{begin}a"]
    return [(piece, end) for piece in dict.fromkeys(pieces) for end in ("\0",)]


def _is_of_re(node: ast.Call) -> bool:
    f = node.func
    return (
        isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name) and f.value.id == "re"
        and f.attr in METHODS | {"compile"}
    )  # fmt: skip


def _text(node: ast.expr) -> str:
    """A pattern; what is put into it when the program runs stands as a word."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else node.value.decode("latin-1")
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "word" for v in node.values)
    return "word"


def _assigned(tree: ast.Module, call: ast.Call) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and node.value is call and isinstance(node.targets[0], ast.Name):
            return node.targets[0].id
    return ""


def _uses(tree: ast.Module, name: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    } & METHODS


def _flag(node: ast.AST) -> int:
    return int(getattr(re, node.attr)) if isinstance(node, ast.Attribute) and node.attr.isupper() else 0
