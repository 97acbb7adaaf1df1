"""Writes the locks: every package of constraints.txt with the hashes of its files, for all platforms. Needs uv.

`requirements.lock` is what `make install` takes and `docker/requirements.lock` what the image takes, where torch comes
from an index of its own. `torch-cpu.lock` is torch's build for processors alone, `accelerator.lock` what the others
want besides; `installer.lock` is uv itself, which installs them.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ACCELERATOR = ("nvidia-", "cuda-", "triton", "pytorch-triton")
HEAD = "# Written by .ci/hashes.py from constraints.txt: `make lock`.\n"


def compiled(extras: list[str]) -> list[str]:
    """The entries of a lock of the project, each a pinned package with its hashes."""
    wanted = ["--constraint", "constraints.txt", "pyproject.toml"]
    return _compiled([*wanted, *(word for extra in extras for word in ("--extra", extra))])


def installer() -> list[str]:
    """The entry of uv, of the version that writes this."""
    said = subprocess.run(["uv", "--version"], check=True, capture_output=True, text=True).stdout
    return _compiled(["-"], f"uv=={said.split()[1]}")


def _compiled(wanted: list[str], given: str = "") -> list[str]:
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--no-annotate", "--no-header", "--no-config", *wanted]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, input=given).stdout
    return re.findall(r"^\S.*(?:\n\s+\S.*)*", text, re.MULTILINE)


def light_torch(version: str, before: str) -> str:
    """The entry of torch's build for processors alone: with the hashes that it had, and of wheels in PIP_FIND_LINKS."""
    entry = f"torch=={version}+cpu"
    hashes = set(re.findall(r"sha256:\w+", before)) if entry in before else set()
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        for wheel in Path(folder).glob(f"torch-{version}+cpu-*.whl"):
            hashes.add("sha256:" + hashlib.sha256(wheel.read_bytes()).hexdigest())
    return " \\\n".join([entry, *(f"    --hash={one}" for one in sorted(hashes))])


def main() -> None:
    """Write the locks."""
    entries = compiled(["dev"])
    torch = next(e.partition(" ")[0] for e in entries if e.startswith("torch=="))
    light = ROOT / "torch-cpu.lock"
    served = [e for e in compiled(["server", "ray"]) if not e.startswith((*ACCELERATOR, "torch=="))]
    locks = {
        ROOT / "requirements.lock": [e for e in entries if not e.startswith(ACCELERATOR)],
        ROOT / "accelerator.lock": [e for e in entries if e.startswith(ACCELERATOR)],
        ROOT / "docker" / "requirements.lock": served,
        ROOT / "installer.lock": installer(),
        light: [light_torch(torch.partition("==")[2], light.read_text() if light.exists() else "")],
    }
    for path, lines in locks.items():
        path.write_text(HEAD + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
