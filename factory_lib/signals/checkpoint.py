"""Which files a CLIP checkpoint is made of and what they hold, found out without loading torch or transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from factory_lib.errors import SignalError
from factory_lib.home import private_folder
from factory_lib.owners import replacing
from factory_lib.settings import settings

BUNDLED = Path(__file__).with_name("tinyclip.safetensors")
"""The weights of TinyCLIP that come with the package."""

TINY_DIMENSION = 64

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_DESCRIPTIONS = (".json", ".txt", ".model")
_REACHED_WITHIN = 10.0  # seconds
_REMEMBER_FROM = 16 << 20  # bytes; digests of smaller files are computed each time


@dataclass(frozen=True)
class Checkpoint:
    """A model's files.

    Attributes:
        kind: "tinyclip" (one safetensors file) or "transformers" (a folder or hub id).
        path: the safetensors file, or the folder.
        dimension: length of the embeddings.
        revision: commit on the hub, "" for a local checkpoint.
        repository: id on the hub, "" for a local checkpoint.
    """

    kind: Literal["tinyclip", "transformers"]
    path: Path
    dimension: int
    revision: str = ""
    repository: str = ""

    def components(self) -> dict[str, str]:
        """What the embeddings depend on, name -> short text: weights, and preprocessing with the tokenizer."""
        if self.repository:
            return {"weights": f"{self.repository}@{self.revision}"}
        if self.kind == "tinyclip":
            return {"weights": file_digest(self.path)[:16]}
        weights = [file for file in _files(self.path) if file.suffix in _WEIGHTS]
        described = [file for file in _files(self.path) if file.suffix in _DESCRIPTIONS]
        return {"weights": _combined(weights), "preprocessing": _combined(described)}


def resolve(checkpoint: str | Path, revision: str | None = None) -> Checkpoint:
    """Find a checkpoint's files.

    Args:
        checkpoint: "tinyclip", a TinyCLIP safetensors file, a folder with a transformers model, or a hub id
            (`owner/name`), of which the configuration is fetched unless it is cached.
        revision: branch, tag or commit of a hub id.

    Raises:
        SignalError: no such file or folder, the hub does not have it, or it is no CLIP-like model.
    """
    if str(checkpoint) == "tinyclip":
        return Checkpoint("tinyclip", BUNDLED, TINY_DIMENSION)
    path = Path(checkpoint).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        return Checkpoint("tinyclip", path.absolute(), TINY_DIMENSION)
    if path.is_dir():
        return Checkpoint("transformers", path.absolute(), _dimension(path / "config.json"))
    if str(checkpoint).count("/") == 1 and not str(checkpoint).startswith((".", "~", "/")):
        return _on_hub(str(checkpoint), revision)
    raise SignalError(
        f"There is no checkpoint {str(checkpoint)!r}.",
        "Give 'tinyclip', a TinyCLIP .safetensors file, a folder with a transformers CLIP or SigLIP, or a hub id.",
    )


def _on_hub(repository: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import hf_hub_download

    unreachable = _unreachable()  # the hub's own client would try for half a minute
    try:
        config = Path(hf_hub_download(repository, "config.json", revision=revision, local_files_only=bool(unreachable)))
    except Exception as error:
        said = f"the cache does not have it, and {unreachable}" if unreachable else " ".join(str(error).split())[:200]
        reason = f"{type(error).__name__}: {said}"
        raise SignalError(
            f"Checkpoint {repository!r} is no folder here, and cannot be had from the hub: {reason}",
            "Check the name and the network, or download it and give the folder.",
        ) from error
    # The cache keeps files as snapshots/<commit>/<file>.
    return Checkpoint("transformers", config.parent, _dimension(config), config.parent.name, repository)


def _unreachable() -> str:
    """Why the hub cannot be reached; empty where it can."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set."
    try:
        get_session().head(constants.ENDPOINT, timeout=_REACHED_WITHIN)
    except Exception as error:
        return f"{constants.ENDPOINT} cannot be reached: {error}"
    return ""


def _dimension(config: Path) -> int:
    if not config.is_file():
        raise SignalError(f"{config.parent} has no config.json.", "Give a folder that save_pretrained() wrote.")
    described: Mapping[str, Any] = json.loads(config.read_text())
    kind = str(described.get("model_type", "model"))
    if "vision_config" not in described or "text_config" not in described:
        raise SignalError(
            f"{config} describes a {kind!r}, which has no image and text towers.",
            "Use a CLIP-like checkpoint (clip, siglip, siglip2, altclip, …).",
        )
    # SigLIP has no projection: its embeddings have the width of the vision tower. The file may leave out values that
    # are transformers' defaults.
    if kind.startswith("siglip"):
        return int(described["vision_config"].get("hidden_size", 768))
    return int(described.get("projection_dim", 512))


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file())


def _combined(files: list[Path]) -> str:
    names = "".join(f"{file.name} {file_digest(file)}\n" for file in files)
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """sha256 of a file as hex; of large files remembered under `FACTORY_HOME` by path, size and modification time."""
    stat = path.stat()
    return _file_digest(str(path.absolute()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_digest(path: str, size: int, modified: int) -> str:
    name = hashlib.sha256(f"{path}\n{size}\n{modified}".encode()).hexdigest()
    note = settings().home / "digests" / name
    large = size >= _REMEMBER_FROM
    if large and note.is_file() and len(known := note.read_text()) == 64:
        return known
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if large:
        private_folder(note.parent)
        with replacing(note) as written:
            written.write_text(digest)
    return digest
