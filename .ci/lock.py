"""Prints constraints.txt: the versions that pip settles on for the project, its development extra and its server extra.

Packages that only an accelerator build of torch needs are left out: torch itself says which it wants.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

TORCH = "2.13.0"
ACCELERATOR = ("nvidia-", "cuda-", "triton", "pytorch-triton")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pin = Path(folder) / "torch.txt"
        pin.write_text(f"torch=={TORCH}\n")
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        subprocess.run([*command, "--constraint", str(pin), "--report", str(report), "-e", ".[dev,server]"], check=True)
        settled = json.loads(report.read_text())["install"]
    versions = {entry["metadata"]["name"].lower().replace("_", "-"): entry["metadata"]["version"] for entry in settled}
    print("# Versions that `make install` takes; `make lock` settles them anew.")
    for name in sorted(versions):
        if name != "dataset-factory" and not name.startswith(ACCELERATOR):
            print(f"{name}=={versions[name].partition('+')[0]}")


if __name__ == "__main__":
    main()
