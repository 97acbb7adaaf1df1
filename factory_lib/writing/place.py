"""Where an export goes: a folder that is whole, or was begun, and is never taken for the other.

An export is whole when it has its `provenance.json`, which is written last. Until then there is an `_unfinished.json`,
which says what is being made and by whom, and names files before they come or go: those of another export that are
removed first, then those that will be written. So whatever is there after a kill is known to be an export's. Each part
that is done has an `_unfinished.PART.json` with its report, so that the same export can go on where it was killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from factory_lib.errors import ExportError, FileMissing
from factory_lib.owners import Owner, is_unfinished
from factory_lib.redaction import redact
from factory_lib.storage.files import path_of
from factory_lib.storage.store import store
from factory_lib.writing.parts import PartReport

PROVENANCE = "provenance.json"
_UNFINISHED = "_unfinished."
_BEGUN = f"{_UNFINISHED}json"


class ExportPlace:
    """The target of an export.

    Args:
        uri: a folder, or a prefix of a bucket.
        identity: of the export: of what is written and how.
    """

    def __init__(self, uri: str, identity: str) -> None:
        self.uri = store().resolve(uri)
        self.identity = identity
        self._there: dict[str, int] = {}
        self._mine: dict[str, Any] = {}

    def begin(self, what: str, *, overwrite: bool) -> dict[str, Any] | None:
        """Make sure that the export may be written here.

        Args:
            what: is exported, for messages of others.
            overwrite: remove another export that is here, or what there is of one.

        Returns:
            The provenance of the same export where it is here and whole; then nothing is left to do.

        Raises:
            ExportError: something else is here, or another process is writing here.
        """
        self._there = self._listed()
        begun, whole = self._json(_BEGUN), self._json(PROVENANCE)
        self._check_owner(begun)
        if whole.get("export") == self.identity and not self._changed(whole["files"]):
            self._remove(self._unfinished())
            return whole
        self._mine = {"export": self.identity, "what": what, "owner": Owner.here().as_dict()}
        goes_on = begun.get("export") == self.identity
        if old := self._old(begun, whole, goes_on=goes_on, overwrite=overwrite):
            self._put(_BEGUN, {**self._mine, "old": old})
            self._remove(self._named(old))
        self.announce(begun.get("files", ()) if goes_on else ())
        return None

    def announce(self, files: Iterable[str]) -> None:
        """Say which files will be written, before the first is.

        Args:
            files: their names; one that ends with `/` is a folder, of whose files all are the export's.
        """
        self._put(_BEGUN, {**self._mine, "files": list(files)})

    def done(self, names: Iterable[str]) -> dict[str, PartReport]:
        """The parts, of those with these names, that are whole already, with their reports."""
        found = {}
        for name in names:
            if _record(name) in self._there:
                report = PartReport(**self._json(_record(name)))
                if not self._changed(report.files):
                    found[name] = report
        return found

    def record(self, name: str, report: PartReport) -> None:
        """Say that a part is whole."""
        self._put(_record(name), asdict(report))

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Say that the export is whole."""
        self._put(PROVENANCE, provenance)
        self._there = self._listed()
        self._remove(self._unfinished())

    def _check_owner(self, begun: Mapping[str, Any]) -> None:
        owner = Owner.read(begun.get("owner"))
        if owner is not None and owner.is_here and owner.is_alive and owner != Owner.here():
            raise ExportError(f"{owner} is writing to {redact(self.uri)}.", "Wait for its end, or name another folder.")

    def _old(self, begun: Mapping[str, Any], whole: Mapping[str, Any], *, goes_on: bool, overwrite: bool) -> list[str]:
        """Files of other exports that have to go, `provenance.json` before those that it speaks for."""
        old = list(begun.get("old", ()))
        if PROVENANCE in self._there:
            found = f"an export of {whole.get('what', 'something else')}"
            if whole.get("export") == self.identity:
                found = f"this export, and its files are not what {PROVENANCE} says"
            self._refuse(found, overwrite)
            return [*old, PROVENANCE, *whole.get("files", ()), *self._unfinished()]
        if _BEGUN in self._there:
            if goes_on:
                return old
            self._refuse(f"an unfinished export of {begun.get('what', 'something else')}", overwrite)
            return [*old, *begun.get("files", ()), *self._unfinished()]
        if self._there:
            first = min(self._there)
            raise ExportError(f"{redact(self.uri)} is no export and holds {first}.", "Name a folder that is empty.")
        return []

    def _refuse(self, what: str, overwrite: bool) -> None:
        if not overwrite:
            raise ExportError(
                f"{redact(self.uri)} holds {what}.",
                "Name another folder, or overwrite it: overwrite=True, --overwrite.",
            )

    def _unfinished(self) -> list[str]:
        """Records that are there, that of the export itself last: without it the others would be nobody's."""
        return sorted((name for name in self._there if name.startswith(_UNFINISHED)), key=lambda name: name == _BEGUN)

    def _named(self, files: Sequence[str]) -> list[str]:
        """Those of the files that are there but for the record of the export; of folders, all that is below them."""
        folders = [name for name in files if name.endswith("/")]
        below = [name for name in self._there if any(name.startswith(folder) for folder in folders)]
        return [name for name in (*files, *below) if name in self._there and name != _BEGUN]

    def _changed(self, files: Mapping[str, int]) -> bool:
        return any(self._there.get(name) != size for name, size in files.items())

    def _listed(self) -> dict[str, int]:
        try:
            found = store().list(self.uri)
        except FileMissing:
            return {}
        prefix = f"{path_of(self.uri)}/"
        names = {file.path.removeprefix(prefix): file.size for file in found}
        return {name: size for name, size in names.items() if not is_unfinished(name)}

    def _json(self, name: str) -> dict[str, Any]:
        """What a file says; nothing where it is not there."""
        if name not in self._there:
            return {}
        try:
            found: dict[str, Any] = json.loads(store().read(f"{self.uri}/{name}"))
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}

    def _put(self, name: str, value: Mapping[str, Any]) -> None:
        with store().writing(f"{self.uri}/{name}") as file:
            file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            store().remove(f"{self.uri}/{name}")
            self._there.pop(name, None)


def _record(name: str) -> str:
    return f"{_UNFINISHED}{name.replace('/', '-')}.json"
