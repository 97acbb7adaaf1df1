"""Prints the components of the signals of a module, for each line of input, each in a fresh process.

A line is JSON: folders to put on `sys.path`, the module, and statements to run before. The answer is a line of JSON: name of
each signal -> its components. The process forks for each line, so that every answer starts from a clean interpreter.
"""

import importlib
import json
import os
import sys
import warnings

from factory_lib.signals.fingerprint import code_components
from factory_lib.signals.signal import Signal


def answer(paths: list[str], module: str) -> str:
    sys.path[:0] = paths
    found = vars(importlib.import_module(module))
    components = {name: value.components for name, value in found.items() if isinstance(value, Signal)}
    components |= {name: code_components(found[name]) for name in found.get("PLAIN", ())}
    return json.dumps(components | {"modules": sorted({"torch", "scipy", "PIL"} & set(sys.modules))})


warnings.simplefilter("ignore")
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            print(answer(request["paths"], request["module"]), flush=True)
        except BaseException as error:
            print(json.dumps({"failed": repr(error)}), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
