"""Source that workers cannot read from files as this process did: edited since, deleted, or of a notebook cell.

A module that functions import when they run is loaded where a signal arrives. Where its file says something else by
now, it is loaded there from what the file said when it was loaded here; and code that looks at its own source finds
the lines of cells there, too.
"""

from __future__ import annotations

import importlib
import importlib.util
import linecache
import marshal
import sys
from collections.abc import Iterable, Mapping, Sequence

from factory_lib.compute.wire import LoadedModule
from factory_lib.fingerprints.places import place_of
from factory_lib.fingerprints.sources import code_then, is_loaded_from, loaded_from
from factory_lib.fingerprints.walk import Walk


def loaded_modules(walk: Walk) -> tuple[LoadedModule, ...]:
    """The modules that functions import when they run and whose files were edited since, in the order of loading."""
    found = []
    for name in [name for name in sys.modules if name in walk.modules]:
        code, place = code_then(name), place_of(name)
        if code is not None and place.path is not None:
            found.append(LoadedModule(name, place.path, place.folders, marshal.dumps(code)))
    return tuple(found)


def load(modules: Iterable[LoadedModule], lines: Mapping[str, Sequence[str]]) -> None:
    """Load modules that arrived, and make lines known under their names.

    Raises:
        Exception: whatever a module raises.
    """
    for name, own in lines.items():
        linecache.cache[name] = (sum(map(len, own)), None, list(own), name)
    for one in modules:
        code = marshal.loads(one.code)
        if is_loaded_from(one.name, code):
            continue
        parent, _, last = one.name.rpartition(".")
        within = importlib.import_module(parent) if parent else None
        spec = importlib.util.spec_from_file_location(
            one.name, one.path, submodule_search_locations=list(one.folders) or None
        )
        if spec is None:
            continue
        module = sys.modules[one.name] = importlib.util.module_from_spec(spec)
        loaded_from(module, code)
        exec(code, vars(module))
        if within is not None:
            setattr(within, last, module)
