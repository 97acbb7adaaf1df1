"""The parts of a shard are written: tars of new samples, and beside each its record."""

from __future__ import annotations

import contextlib
import json

from factory_lib.build.made_answers import FIELDS, ParentAnswer, Row, inputs_hash
from factory_lib.build.made_tars import PART_BYTES, ShardFolder, TarPart
from factory_lib.errors import InvalidName
from factory_lib.plan.nodes import OPERATION, PARENT
from factory_lib.storage.tars import TarWriter, check_key, writing_tar


class PartWriter:
    """Writes answers into the parts of a folder.

    Args:
        number: of the first part.

    Attributes:
        rows: of the record of the part that is being written.
    """

    def __init__(self, folder: ShardFolder, number: int, suffix: str, operation: str) -> None:
        self._folder, self._number, self._suffix, self._operation = folder, number, suffix, operation
        self._open = contextlib.ExitStack()
        self._tar: TarWriter | None = None
        self.rows: list[Row] = []

    @property
    def is_full(self) -> bool:
        """Whether the part should end here."""
        return self._tar is not None and self._tar.size >= PART_BYTES

    def add(self, parent: Row, answer: ParentAnswer) -> None:
        """Write an answer; a new sample that cannot be in a tar is none."""
        row = {**answer.row, "position": parent["position"], "inputs": answer.inputs, "offset": None, "size": None}
        if answer.content is not None:
            row["inputs"] = inputs_hash(answer.content, parent["given"])
        if row["error"] is None:
            try:
                row["offset"], row["size"] = self._put(parent, answer)
            except InvalidName as error:
                row |= {**dict.fromkeys(FIELDS), "error": f"InvalidName: {error.message}"}
        self.rows.append(row)

    def _put(self, parent: Row, answer: ParentAnswer) -> tuple[int, int]:
        key = parent["key"] + self._suffix
        check_key(key)
        if self._tar is None:
            self._tar = self._open.enter_context(writing_tar(self._folder.tar_uri(self._number)))
        caption = answer.row["caption"]
        about = {OPERATION: self._operation, "parent_key": parent["key"], PARENT: str(parent["sample_id"])}
        members: dict[str, bytes | memoryview] = {answer.row["extension"]: answer.data}
        if caption is not None:
            members["txt"] = caption.encode()
        members["json"] = json.dumps(about, ensure_ascii=False).encode()
        return self._tar.add(key, members)[answer.row["extension"]]

    def end_part(self) -> TarPart:
        """End the part: its tar, then its record."""
        self._open.close()
        part = self._folder.write_record(self._number, self.rows)
        self._number, self._tar, self.rows = self._number + 1, None, []
        return part

    def close(self) -> None:
        """Leave the part that is being written, if any, as if it had not been begun."""
        self._open.__exit__(GeneratorExit, GeneratorExit(), None)
