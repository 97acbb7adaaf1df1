"""How runs of the graph are followed: a bar in a terminal, lines in a pipe, nothing where nobody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from factory_lib.progress import log_lines

if TYPE_CHECKING:
    from rich.console import Console

    from factory_lib.orchestration.runs.running import Telling


@contextmanager
def followed(console: Console) -> Iterator[Telling]:
    """Whom runs of the graph tell what they are at.

    Args:
        console: where it is shown.
    """
    from factory_lib.orchestration.runs.running import Telling

    def begun(stages: tuple[str, ...], partitions: tuple[str, ...]) -> None:
        where = f" for {partitions[0]}" if len(partitions) == 1 else f" for {len(partitions):,} shards"
        console.print(f"  {' → '.join(stages)}{where if partitions else ''}")

    if not console.is_terminal:
        lines = log_lines(lambda line: console.print(f"    {line}"))
        yield Telling(run=begun, report=lines)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("looking at the source", total=None, count="")

        def stage(name: str) -> None:
            bar.reset(task, description=name, total=None, count="")

        def report(what: str, done: int, total: int | None) -> None:
            count = f"{done:,}" + (f" of {total:,}" if total else "")
            bar.update(task, description=what, completed=done, total=total, count=count)

        yield Telling(run=begun, stage=stage, report=report)
