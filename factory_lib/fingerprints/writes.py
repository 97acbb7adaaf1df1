"""Where code writes to: a folder that a signal fills itself is not what its values depend on.

Told from the instructions, statement by statement: which names stand for the path in `(CACHE / key).write_bytes(data)`,
`open(LOG, "a")`, `target = self.folder / key; np.save(target, value)`. Where that cannot be told, nothing is said to be
written: content counts, and values are at worst computed once more.
"""

from __future__ import annotations

import dis
import itertools
import re
import types
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

_METHODS = {
    "write_text", "write_bytes", "mkdir", "touch", "unlink", "rmdir", "symlink_to", "hardlink_to", "rename",
}  # fmt: skip
"""Of a path."""
_FUNCTIONS = {
    "makedirs", "mkdir", "tofile", "savetxt", "savez", "savez_compressed", "save", "dump", "to_csv", "to_parquet",
    "to_json", "to_pickle", "imwrite", "save_file", "rmtree", "copyfile", "mkdtemp", "connect", "FileHandler",
    "write_table", "write_parquet", "write_csv", "urlretrieve",
}  # fmt: skip
"""That are given a path."""
_WRITES = _METHODS | _FUNCTIONS | {"open"}
_BUILD = {
    "join", "joinpath", "with_name", "with_suffix", "with_stem", "str", "Path", "PurePath", "format", "encode",
    "hexdigest", "sha256", "sha1", "md5", "blake2b", "crc32", "hash", "fspath", "abspath", "resolve", "absolute",
    "expanduser", "strip", "lower", "hex", "repr", "len", "int", "open", "exists", "is_file", "quote", "getpid", "time",
    "time_ns", "monotonic", "monotonic_ns", "perf_counter", "uuid4", "now", "isoformat", "strftime", "token_hex",
}  # fmt: skip
"""Calls that a path is built with."""
_MODE = re.compile(r"[rwaxbt+]{1,3}")
_AFTER_ARGUMENTS = ("PRECALL", "CALL", "KW_NAMES", "LOAD_CONST")
_ENDS = ("STORE_", "POP_TOP", "RETURN_", "POP_JUMP", "FOR_ITER", "DELETE_", "RAISE", "YIELD")


@lru_cache(maxsize=8192)
def written(code: types.CodeType) -> frozenset[str]:
    """Names of globals, attributes and variables of enclosing functions that stand for what a code object writes to."""
    inner = [written(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return _written(code).union(*inner)


def _written(code: types.CodeType) -> frozenset[str]:
    if _WRITES.isdisjoint(code.co_names):
        return frozenset()
    found: set[str] = set()
    means: dict[str, frozenset[str]] = {}
    for statement in _statements(code):
        found |= _targets(statement, means)
        last = statement[-1]
        if last.operation == "STORE_FAST":
            known = _names(statement[:-1], means) if _calls(statement) <= _BUILD else frozenset()
            means[last.local[0]] = known
    return frozenset(found)


class _Step(NamedTuple):
    """An instruction as it matters here: a name that is called, or read; a local variable; a text; or none of these."""

    operation: str
    calls: str = ""
    reads: str = ""
    local: tuple[str, ...] = ()
    text: str = ""


def _statements(code: types.CodeType) -> Iterator[list[_Step]]:
    held: list[_Step] = []
    instructions = list(dis.get_instructions(code))
    called = False  # a global that begins `package.module.function(…)`
    for one, after in zip(instructions, [*instructions[1:], None], strict=True):
        goes_on = after is not None and after.opname == "LOAD_ATTR"
        name = str(one.argval)
        if one.opname in {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"} or one.opname.startswith("LOAD_ATTR"):
            called = "NULL" in one.argrepr or (called and one.opname == "LOAD_ATTR")
            held.append(_Step(one.opname, calls=name) if called and not goes_on else _Step(one.opname, reads=name))
            called = called and goes_on
        elif one.opname == "LOAD_METHOD":
            held.append(_Step(one.opname, calls=name))
        elif "_FAST" in one.opname:
            names = one.argval if isinstance(one.argval, tuple) else (one.argval,)
            held.append(_Step(one.opname, local=tuple(map(str, names))))
        else:
            held.append(_Step(one.opname, text=one.argval if isinstance(one.argval, str) else ""))
        if one.opname.startswith(_ENDS):
            yield held
            held = []
    if held:
        yield held


def _targets(statement: list[_Step], means: dict[str, frozenset[str]]) -> frozenset[str]:
    """What a statement writes to; nothing where other calls in it make that unclear."""
    for place, one in enumerate(statement):
        if one.calls in _METHODS and place and not _is_module(statement[place - 1]):
            return _names(_clear(statement[:place], _BUILD), means)
    calls = _calls(statement)
    opens = "open" in calls and _opens_to_write(statement)
    if not (opens or calls & _FUNCTIONS):
        return frozenset()
    return _names(_clear(statement, _BUILD | _FUNCTIONS), means)


def _opens_to_write(statement: list[_Step]) -> bool:
    is_open = False
    for one, after in itertools.pairwise(statement):
        if one.calls:
            is_open = one.calls == "open" or (is_open and one.calls in _BUILD)
        if is_open and _is_mode(one.text) and after.operation.startswith(_AFTER_ARGUMENTS):
            return True
    return False


def _clear(statement: list[_Step], known: set[str]) -> list[_Step]:
    """The beginning of a statement, up to a call whose arguments may be read: they come after it."""
    first = next((place for place, one in enumerate(statement) if one.calls and one.calls not in known), None)
    return statement[:first]


def _is_module(step: _Step) -> bool:
    return step.operation == "LOAD_GLOBAL" and step.reads in {"os", "shutil"}


def _names(statement: Iterable[_Step], means: dict[str, frozenset[str]]) -> frozenset[str]:
    read = {one.reads for one in statement if one.reads}
    return frozenset(read).union(*(means.get(name, frozenset()) for one in statement for name in one.local))


def _calls(statement: Iterable[_Step]) -> set[str]:
    return {one.calls for one in statement if one.calls}


def _is_mode(text: str) -> bool:
    return bool(_MODE.fullmatch(text)) and bool(set(text) & set("wax+"))
