"""The first line of a failure: stage, shard, sample, cause, and the command that repeats it.

Dagster's pages show the description of a `Failure` before anything else; of any other error they show first that an
error occurred while a step was executed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import dagster as dg

from factory_lib.orchestration.retrying import one_line
from factory_lib.redaction import quiet, redact

LONGEST = 600
"""Characters of a cause."""
_NAMED = 5
_IN_COMMAND = 20


def repeat(stage: str, shards: Sequence[str] = ()) -> str:
    """The command that makes these shards of a stage; without any, or where they are many, what is behind of it."""
    named = f" --shards {shlex.quote(','.join(shards))}" if 0 < len(shards) <= _IN_COMMAND else ""
    return f"factory run --select {shlex.quote(stage)}{named}"


def first_line(
    stage: str, errors: Mapping[str, BaseException] | Mapping[str | None, BaseException], *, of: int = 0, rest: str = ""
) -> str:
    """What failed, in one line.

    Args:
        stage: its name.
        errors: shard to what went wrong with it; under None where it was no one shard's doing.
        of: how many shards the run was for.
        rest: what became of the others, if anything did.
    """
    shards = [shard for shard in errors if shard is not None]
    shown = "; ".join(_cause(shard, error) for shard, error in list(errors.items())[:_NAMED])
    more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    count = f"{len(shards)} of {of} shards failed: " if len(shards) > 1 else ""
    parts = [f"{stage}: {count}{shown}{more}", rest, f"repeat: {repeat(stage, shards)}"]
    return " · ".join(part for part in parts if part)


def _cause(shard: str | None, error: BaseException) -> str:
    sample = getattr(error, "sample", None)
    where = "" if shard is None else f"shard {shard}" + (f" (sample {shard}/{sample})" if sample is not None else "")
    said = redact(one_line(error))
    said = said if len(said) <= LONGEST else f"{said[:LONGEST]} …"
    return f"{where}: {said}" if where else said


@contextmanager
def explained(stage: str, shards: Sequence[str] = ()) -> Iterator[None]:
    """Whatever is raised within becomes a failure whose description is such a line.

    Args:
        stage: its name.
        shards: those that the run is for; none for a stage without partitions.

    Raises:
        dagster.Failure: in place of the error, which is its cause.
    """
    try:
        yield
    except (dg.Failure, dg.RetryRequested, dg.DagsterError):
        raise
    except Exception as error:
        raise failure(first_line(stage, {_blamed(error, shards): error}, of=len(shards))) from quiet(error)


def partitions_of(context: dg.AssetExecutionContext) -> Sequence[str]:
    """The partitions that a run makes of an asset; none of an asset without."""
    if context.assets_def.partitions_def is None or not (context.has_partition_key or context.has_partition_key_range):
        return ()
    return list(context.partition_keys)


def _blamed(error: Exception, shards: Sequence[str]) -> str | None:
    """The shard that an error is about: the one that it names, or the only one there is."""
    named = getattr(error, "shard", None)
    return named if named in shards else shards[0] if len(shards) == 1 else None


def line_of(event: dg.DagsterEvent) -> str:
    """What a failed step said: the line of its failure, or what was at the bottom of any other error."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    said = " ".join(error.message.split()) if error is not None else "failed without saying why"
    return f"{event.step_key}: {said} · repeat: {repeat(str(event.step_key))}"


def failure(line: str, failed: Mapping[str, BaseException] | None = None) -> dg.Failure:
    """A failure that Dagster does not try again: what is worth it was tried again already.

    Args:
        line: its description.
        failed: shard to what went wrong with it, for its metadata.
    """
    found = {shard: redact(one_line(error)) for shard, error in (failed or {}).items()}
    metadata = {"failed_shards": dg.MetadataValue.json(found)} if found else {}
    return dg.Failure(line, metadata=metadata, allow_retries=False)
