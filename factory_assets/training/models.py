"""Trained models by number: `v1.safetensors`, `v2.safetensors`, … in one folder, each with what it was trained on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from factory_lib.home import private_folder
from factory_lib.settings import settings

_NAME = re.compile(r"v([1-9][0-9]*)\.safetensors")


@dataclass(frozen=True)
class StoredModel:
    """One of the models of a folder."""

    number: int
    path: Path

    def facts(self) -> dict[str, str]:
        """The header of its file: version and table it was trained on, recipe, scores, vocabulary."""
        from safetensors import safe_open

        with safe_open(str(self.path), framework="numpy") as file:
            return dict(file.metadata() or {})


def models_folder(name: str) -> Path:
    """Where the models of an asset are kept, in the data folder."""
    return settings().home / "models" / name


def stored_models(folder: Path) -> list[StoredModel]:
    """The models of a folder, the newest last."""
    if not folder.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    models = [StoredModel(int(match.group(1)), path) for match, path in found if match]
    return sorted(models, key=lambda model: model.number)


def publish(folder: Path, weights: Path) -> StoredModel:
    """Give a finished file the next number; it appears whole, and two publishers never share a number."""
    private_folder(folder)
    while True:
        known = stored_models(folder)
        number = known[-1].number + 1 if known else 1
        path = folder / f"v{number}.safetensors"
        try:
            os.link(weights, path)
        except FileExistsError:
            continue
        return StoredModel(number, path)
