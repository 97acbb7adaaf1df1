"""The fingerprint of a signal: what its values depend on."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factory_lib.signals.signal import Signal


def components_of(signal: Signal) -> dict[str, str]:
    """What the values of a signal depend on: dotted name -> short hash."""
    target = signal.target if inspect.isroutine(signal.target) else type(signal.target)
    tree = ast.dump(ast.parse(textwrap.dedent(inspect.getsource(target))))
    return {"code": hashlib.sha256(tree.encode()).hexdigest()[:16], "output": signal.output.clickhouse}


def digest(components: Mapping[str, str]) -> str:
    """Hex digest over components."""
    return hashlib.sha256(json.dumps(sorted(components.items())).encode()).hexdigest()[:32]
