"""What a training tells whoever started it, while it runs: over Dagster Pipes, or as lines where nobody listens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Tell = Callable[[dict[str, Any]], None]
"""Takes a message: its "kind" (`PROGRESS`, `CHECKPOINT`, `RESUMED`, `SCORED`), the part, the step, and numbers."""

PROGRESS, CHECKPOINT, RESUMED, SCORED = "progress", "checkpoint", "resumed", "scored"


@contextmanager
def reporter(first: bool) -> Iterator[Tell]:
    """Where messages go: those of the first process to Dagster or to the terminal, all others nowhere."""
    if not first:
        yield lambda message: None
        return
    from dagster_pipes import PipesEnvVarParamsLoader, open_dagster_pipes

    if not PipesEnvVarParamsLoader().is_dagster_pipes_process():  # type: ignore[no-untyped-call]
        yield lambda message: print(json.dumps(message), flush=True)
        return
    with open_dagster_pipes() as pipes:
        yield pipes.report_custom_message
