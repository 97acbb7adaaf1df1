"""Prints constraints.txt: the versions that uv settles on for the project, its development extra and its server extra.

Packages that only an accelerator build of torch needs are left out: torch itself says which it wants. Needs uv.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = "2.13.0"
ACCELERATOR = ("nvidia-", "cuda-", "triton", "pytorch-triton")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pin = Path(folder) / "torch.txt"
        pin.write_text(f"torch=={TORCH}\n")
        command = ["uv", "pip", "compile", "--quiet", "--python-version", "3.11", "--constraint", str(pin)]
        command += ["--no-annotate", "--no-header", "--no-config", "pyproject.toml"]
        command += ["--extra", "dev", "--extra", "server"]
        settled = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    versions = dict(line.split("==") for line in settled.splitlines())
    print("# Versions that `make install` takes; `make lock` settles them anew.")
    for name in sorted(versions):
        if not name.startswith(ACCELERATOR):
            print(f"{name}=={versions[name].partition('+')[0]}")


if __name__ == "__main__":
    main()
