"""`factory trace`: the history of one sample."""

from __future__ import annotations

from collections.abc import Iterator

import click

from factory_lib.catalog import trace
from factory_lib.commands.naming import VersionName
from factory_lib.commands.options import command
from factory_lib.commands.output import console, print_json
from factory_lib.history.tracing import Step, Trace
from factory_lib.tables import cell


@command(
    """
    factory trace training_set 000012345
    factory trace laion.v3 17565608069137409552 --json
    """
)
@click.argument("dataset", type=VersionName())
@click.argument("sample")
def trace_command(dataset: str, sample: str, as_json: bool) -> None:
    """Follow one sample from the source to a dataset.

    SAMPLE is its key or sample_id, DATASET a version, or a name for the latest. Shows where the bytes are, what each
    stage computed, and which stage dropped it and by which condition. Of a sample that an operation made its parent
    comes first; of a parent it is said what was made of it.
    """
    found = trace(dataset, sample)
    if as_json:
        print_json({**vars(found), "is_kept": found.is_kept, "dropped_by": found.dropped_by})
        return
    out = console()
    for line in _lines(found):
        out.print(line)


def _lines(found: Trace) -> Iterator[str]:
    if found.parent is not None:
        yield from _lines(found.parent)
        yield ""
    yield f"sample {found.sample_id}  key {found.key}"
    if found.parent is not None:
        yield f"made of {found.parent.sample_id}  key {found.parent.key}"
    for child in found.children:
        yield f"of it  {child.key}  {child.operation}  in {', '.join(child.versions)}"
    for member, pointer in found.pointers.items():
        yield f"{member}  {pointer['uri']}  {pointer['size']:,} bytes at {pointer['offset']:,}"
    for step in found.steps:
        yield ""
        yield from _step_lines(step, found.dropped_by)
    if len(found.spans) > 1 or any(span.changed for span in found.spans):
        yield ""
        yield f"over the versions of {found.version.partition('.')[0]}"
        for span in found.spans:
            which = span.first if span.first == span.last else f"{span.first} … {span.last.rpartition('.')[2]}"
            changed = f", changed: {', '.join(span.changed)}" if span.changed else ""
            yield f"  {which}  {'there' if span.is_there else 'not there'}{changed}"


def _step_lines(step: Step, dropped_by: str | None) -> Iterator[str]:
    if step.version == dropped_by:
        state = "DROPPED"
    elif step.is_there is None:
        state = "unknown: the version was deleted"
    else:
        state = f"shard {step.shard}, position {step.position}" if step.is_there else "not there"
    yield f"{step.version}  {state}"
    for failure in step.failures:
        values = ", ".join(f"{name} = {cell(value)}" for name, value in failure.values.items())
        yield f"  does not meet {failure.condition}" + (f"  ({values})" if values else "")
    if step.reason:
        yield f"  {step.reason}"
    if step.version == dropped_by and not step.failures:
        yield f"  query {step.python}"
    for mention in step.mentions:
        values = ", ".join(f"{name} = {cell(value)}" for name, value in mention.values.items())
        yield f"  in {mention.version}: {values or 'yes'}"
        if mention.duplicate_of:
            pointers = ", ".join(cell(v) for v in mention.duplicate_of.values() if isinstance(v, dict))
            yield f"    near-duplicate of key {mention.duplicate_of['key']}" + (f"  ({pointers})" if pointers else "")
    for value in step.values:
        by = f"   by signal {value.column.removesuffix('_error')} {value.signal[:16]}" if value.signal else ""
        yield f"  {value.column} = {cell(value.value)}{by}"
