"""What a source is: shards of files, and a way to read each as Arrow batches with a report of what was odd."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.errors import SourceError, nearest
from factory_lib.redaction import redact
from factory_lib.sources.account import Account
from factory_lib.storage.files import path_of
from factory_lib.storage.store import FileInfo

LONGEST_PROBLEM = 1000
"""Characters of a message that are kept."""
PROBLEMS_KEPT = 50
REASONS_KEPT = 20
"""Kinds of failed downloads that are counted by their reason."""
POINTER = pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])
"""Where the bytes of a member are; an absent member is `('', 0, 0)`."""


@dataclass(frozen=True)
class SourceShard:
    """The unit of work: one tar or a few, with every other file that its rows depend on.

    Attributes:
        name: unique in the source, `^[A-Za-z0-9][A-Za-z0-9_.-]*$`; of one of several sources there may stand what its
            shards begin with before that, and a colon.
        files: as listed; the tars first, in the order of their rows.
        mapping: what the user says of the source; empty for nothing.
    """

    name: str
    files: tuple[FileInfo, ...]
    mapping: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes when any file of the shard is added, removed, renamed or overwritten, or when something else is said
        of the source: 32 hex digits."""
        lines = "".join(f"{file.uri}\t{file.etag}\t{file.size}\n" for file in self.files)
        return hashlib.sha256((lines + self.mapping).encode()).hexdigest()[:32]


@dataclass
class ShardReport:
    """What reading a shard found.

    Attributes:
        shard: name of the shard.
        samples: rows yielded.
        counts: how often each kind of oddity occurred, such as `{"failed_rows": 8, "no_image": 3}`.
        problems: messages that say where; the first `PROBLEMS_KEPT` of them.
        account: what became of files within the shard's archives.
        losing: how many of the problems, which stand first, say why something is not in the dataset.
    """

    shard: str
    samples: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    account: Account = field(default_factory=Account, compare=False)
    losing: int = 0

    def count(self, kind: str, number: int = 1) -> None:
        """Add to a count; nothing happens when `number` is 0."""
        if number:
            self.counts[kind] = self.counts.get(kind, 0) + number

    def problem(self, message: str, *, loses: bool = False) -> None:
        """Keep a message, unless there are too many already.

        Args:
            loses: it says why something is not in the dataset: it stands before those that only remark on something.
        """
        shown = redact(message[: 4 * LONGEST_PROBLEM])
        shown = shown if len(shown) <= LONGEST_PROBLEM else shown[: LONGEST_PROBLEM - 1] + "…"
        if loses:
            self.problems.insert(self.losing, shown)
            self.losing += 1
        else:
            self.problems.append(shown)
        if len(self.problems) > PROBLEMS_KEPT:
            self.problems.pop()
            self.losing = min(self.losing, PROBLEMS_KEPT)
            self.count("problems_not_shown")

    def copy(self) -> ShardReport:
        """The report as it is now, to go back to."""
        return replace(self, counts=dict(self.counts), problems=list(self.problems))

    def restore(self, earlier: ShardReport) -> None:
        """Go back to an earlier state."""
        self.samples, self.counts = earlier.samples, earlier.counts
        self.problems, self.losing = earlier.problems, earlier.losing


@dataclass(frozen=True)
class SourceListing:
    """What a source lists now, and what of it does not answer.

    Attributes:
        shards: by name.
        prefixes: name of each of several sources -> what the names of its shards begin with; a source that is the only
            one has no name.
        away: name of a source that cannot be listed now -> why: of its shards nothing is known.
    """

    shards: tuple[SourceShard, ...]
    prefixes: Mapping[str, str] = field(default_factory=lambda: {"": ""})
    away: Mapping[str, str] = field(default_factory=dict)

    def source_of(self, shard: str) -> str | None:
        """Name of the source that a shard of this name belongs to; None for one that is not declared any more."""
        fitting = [name for name, prefix in self.prefixes.items() if shard.startswith(prefix)]
        return max(fitting, key=lambda name: len(self.prefixes[name]), default=None)

    def by_source(self, sources: Collection[str]) -> dict[str, list[SourceShard]]:
        """The shards of these sources."""
        found: dict[str, list[SourceShard]] = {source: [] for source in sorted(sources)}
        for shard in self.shards:
            if (source := self.source_of(shard.name)) in found:
                found[str(source)].append(shard)
        return found

    def is_away(self, shard: str) -> bool:
        """Whether a shard of this name belongs to a source that is away."""
        return self.source_of(shard) in self.away


class Source(Protocol):
    """Samples of one storage format."""

    @property
    def uri(self) -> str:
        """The file or folder."""

    @property
    def format(self) -> str:
        """Which reader this is, such as `webdataset`."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch of every shard."""

    def shards(self) -> list[SourceShard]:
        """All shards, by name."""

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows of a shard in byte order."""


def group_files(root: str, files: Sequence[FileInfo], per_shard: int = 1) -> list[SourceShard]:
    """Make shards of `per_shard` consecutive files each.

    A shard is named after its first file, so that names stay when files are appended; shards of several files end in
    `.xN`.
    """
    if per_shard < 1:
        raise SourceError(f"tars_per_shard is {per_shard}.", "It is how many tars make one shard: 1 or more.")
    groups = [tuple(files[at : at + per_shard]) for at in range(0, len(files), per_shard)]
    suffix = f".x{per_shard}" if per_shard > 1 else ""
    return name_shards(root, [(group[0].path, group) for group in groups], suffix)


def name_shards(root: str, groups: Iterable[tuple[str, tuple[FileInfo, ...]]], suffix: str = "") -> list[SourceShard]:
    """Name groups of files after a path each (see `path_of`), relative to `root`, without its extension."""
    shards: list[SourceShard] = []
    taken: set[str] = set()
    above = path_of(root).rstrip("/")
    for path, files in groups:
        relative = path.removeprefix(f"{above}/") if path != above else path.rsplit("/", 1)[-1]
        stem = re.sub(r"\.[A-Za-z0-9]{1,8}$", "", relative)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", stem.replace("/", ".")).lstrip("_.-") or "shard"
        name += suffix
        if name in taken:
            name += "-" + hashlib.sha256(path.encode()).hexdigest()[:8]
        taken.add(name)
        shards.append(SourceShard(name, files))
    return sorted(shards, key=lambda shard: shard.name)


def find_shard(source: Source, name: str) -> SourceShard:
    """The shard of that name.

    Raises:
        SourceError: there is none; the hint names the nearest.
    """
    by_name = {shard.name: shard for shard in source.shards()}
    if name not in by_name:
        raise SourceError(f"{redact(source.uri)} has no shard {name!r}.", nearest(name, by_name))
    return by_name[name]


def failed_rows(rows: pa.RecordBatch) -> pa.BooleanArray | None:
    """Which rows say that their download failed; None where the table says nothing of the kind."""
    names = rows.schema.names
    if "status" not in names or not {"error_message", "url"} & set(names):
        return None
    return pc.fill_null(pc.not_equal(rows.column("status").cast(pa.string()), "success"), False)


def count_failures(failed: pa.RecordBatch, report: ShardReport) -> None:
    """Count rows whose download failed, by their error."""
    report.count("failed_rows", len(failed))
    if not len(failed) or "error_message" not in failed.schema.names:
        return
    reasons = pc.fill_null(failed.column("error_message"), "unknown")
    counted = sorted(pc.value_counts(reasons).to_pylist(), key=lambda entry: -entry["counts"])
    for entry in counted[:REASONS_KEPT]:
        report.count(f"failed: {str(entry['values'])[:100]}", entry["counts"])
