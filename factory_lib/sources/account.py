"""What became of every file and column that a source has: used, or left out and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from factory_lib.redaction import redact
from factory_lib.storage.files import path_of

Kind = Literal["files", "columns"]
EXAMPLES = 3
"""Names that are kept of each group."""

_PICTURES = frozenset("heic heif raw dng cr2 nef arw psd svg pdf eps ico tga jxl exr hdr mp4 webm mov avi mkv".split())
_UNFINISHED = frozenset("part partial tmp temp crdownload download".split())
_PROSE = frozenset("md rst html log lock sha256 md5 yaml yml toml py sh".split())
_ABOUT = (
    "readme", "license", "licence", "_success", "_metadata", "_common_metadata", "thumbs.db", "desktop.ini",
)  # fmt: skip
ABOUT_OTHERS = (
    "_stats.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "/sizes.json",
    "/sample_ids.npy", "/provenance.json", "/croissant.json",
)  # fmt: skip
"""Ends of the names of files that img2dataset, DataComp's resharder, OpenCLIP, Hugging Face, and exports, write
beside the samples."""


@dataclass
class Group:
    """Files or columns of which the same is true.

    Attributes:
        kind: `files` or `columns`.
        what: the extension of files, with its dot; the type of columns.
        used: whether they are in the dataset.
        reason: why not; of what is used, what it became, where that is not plain.
        loss: whether samples or values may be missing for it: not so for what was left out by choice or holds none.
        count: how many.
        examples: the first of their names.
    """

    kind: Kind
    what: str
    used: bool
    reason: str = ""
    loss: bool = False
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        names = ", ".join(self.examples) + (", …" if self.count > len(self.examples) else "")
        if self.used:
            return f"{self.count:,} {self.what}" + (f" ({self.reason}: {names})" if self.reason else "")
        return f"{self.count:,} {self.what} ({names}): {self.reason}"


@dataclass
class Account:
    """Files and columns that were seen while a source was opened. Each is counted once, by its name.

    Readers say what they leave out, and why; of files that no shard depends on, and that no reader said anything of,
    `settle_files` says what can be told from their names.
    """

    groups: dict[tuple[str, str, bool, str], Group] = field(default_factory=dict)
    names: dict[str, dict[str, Group]] = field(default_factory=lambda: {"files": {}, "columns": {}})

    def use(self, kind: Kind, what: str, name: str, reason: str = "") -> None:
        """Something is in the dataset; `reason` says as what, where that is not plain."""
        self._add(Group(kind, what, True, reason), name)

    def leave_out(self, kind: Kind, what: str, name: str, reason: str, *, loss: bool = True) -> None:
        """Something is not in the dataset.

        Args:
            what: extension of the file, or type of the column.
            name: of the file or column, as the source has it.
            reason: in words that a user understands.
            loss: whether samples or values may be missing for it.
        """
        self._add(Group(kind, what, False, reason, loss), name)

    def forget(self, kind: Kind, name: str) -> Group | None:
        """Count something no longer; the group that it was in, None where nobody said anything of it."""
        group = self.names[kind].pop(name, None)
        if group is not None:
            group.count -= 1
            group.examples[:] = [one for one in group.examples if one != printable(redact(name))]
            if not group.count:
                del self.groups[group.kind, group.what, group.used, group.reason]
        return group

    def member(self, archive: str, path: str, reason: str = "", *, used: bool = False, loss: bool = True) -> None:
        """A file within an archive, which is counted whenever it is named: there may be millions.

        Args:
            archive: its name.
            path: within the archive.
        """
        self._count(Group("files", extension_of(path), used, reason, loss and not used), f"{archive}/{path}")

    def take(self, other: Account) -> None:
        """Add what another one counted, of other files."""
        for key, group in other.groups.items():
            found = self.groups.setdefault(key, replace(group, count=0, examples=[]))
            found.count += group.count
            found.examples += group.examples[: EXAMPLES - len(found.examples)]

    def with_those(self, others: Iterable[Account]) -> Account:
        """This account, and what others counted of other files."""
        every = Account()
        for account in (self, *others):
            every.take(account)
        return every

    def _add(self, group: Group, name: str) -> None:
        if name in self.names[group.kind]:
            return
        self.names[group.kind][name] = self._count(group, name)

    def _count(self, group: Group, name: str) -> Group:
        found = self.groups.setdefault((group.kind, group.what, group.used, group.reason), group)
        found.count += 1
        if len(found.examples) < EXAMPLES:
            found.examples.append(printable(redact(name)))
        return found

    def settle_files(self, root: str, seen: Iterable[str], used: set[str], format: str) -> None:
        """Account for files by their names.

        Args:
            root: the source.
            seen: uris of all files below it.
            used: uris of those that shards depend on.
            format: which reader took the source.
        """
        for uri in seen:
            path = path_of(uri)
            name = path.removeprefix(path_of(root).rstrip("/") + "/") if uri != root else path.rsplit("/", 1)[-1]
            ending = extension_of(path)
            if uri in used:
                self.use("files", ending, name)
            else:
                reason, loss = reason_of(name, format)
                self.leave_out("files", ending, name, reason, loss=loss)

    def settle_columns(self, columns: Mapping[str, str], remarks: Mapping[str, str]) -> None:
        """Account for the columns of the dataset: name -> type, and what there is to say of some of them."""
        for name, kind in columns.items():
            self.use("columns", kind, name, remarks.get(name, ""))

    def data(self) -> list[dict[str, Any]]:
        """For JSON: one entry a group, those left out first, then by number."""
        ordered = sorted(self.groups.values(), key=lambda g: (g.kind != "files", g.used, -g.count))
        return [
            {"kind": g.kind, "what": g.what, "used": g.used, "reason": g.reason, "loss": g.loss, "count": g.count,
             "examples": list(g.examples)}
            for g in ordered
        ]  # fmt: skip


def lines(account: Sequence[Mapping[str, Any]]) -> list[str]:
    """An account (see `Account.data`) in lines: what is used, then one line for each group that was left out."""
    found = []
    for kind in ("files", "columns"):
        groups = [Group(**entry) for entry in account if entry["kind"] == kind]
        used = sum(g.count for g in groups if g.used)
        missing = sum(g.count for g in groups if not g.used)
        if not groups:
            continue
        shown = ", ".join(str(g) for g in groups if g.used and (kind == "files" or g.reason))
        detail = f" ({shown})" if shown else ""
        found.append(f"{kind}: {used:,} used{detail}" + (f", {missing:,} left out:" if missing else ""))
        found += [f"  {g}" for g in groups if not g.used]
    return found


def losses(account: Sequence[Mapping[str, Any]]) -> int:
    """How many files and columns were left out that may hold samples or values."""
    return sum(int(entry["count"]) for entry in account if entry["loss"])


def extension_of(uri: str) -> str:
    """The last extension of a file in lower case with its dot; `without extension` for none."""
    stem, dot, ending = uri.rsplit("/", 1)[-1].rpartition(".")
    return f".{printable(ending.lower()[:20])}" if dot and stem and ending else "without extension"


def printable(name: str) -> str:
    """A name that can be printed and stored: what is no text in it is shown as an escape."""
    return name.encode("utf-8", "backslashreplace").decode()


def reason_of(name: str, format: str) -> tuple[str, bool]:
    """Why a file is in no shard, as far as its name tells; and whether it may hold samples."""
    ending = extension_of(name).removeprefix(".")
    if ending in _UNFINISHED:
        return "looks like an unfinished download", True
    if "_delta_log" in name.split("/"):
        return "the log of a Delta table, whose files are read as they lie, also those that it took out", False
    if any(part.startswith(".") for part in name.split("/")):
        return "hidden", False
    if ending in _PICTURES:
        return "a format that is not read: convert it to JPEG, PNG or WebP", True
    base = name.rsplit("/", 1)[-1].lower()
    if f"/{name}".lower().endswith(ABOUT_OTHERS):
        return "says how other files were made", False
    if "imagesets" in name.lower().split("/"):
        return "lists the pictures of a split, which becomes no column", False
    if ending in _PROSE or base.startswith(_ABOUT):
        return "holds no samples", False
    return f"belongs to no sample of the format {format}", True
