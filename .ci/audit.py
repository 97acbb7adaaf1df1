"""Looks for known vulnerabilities of the pinned packages, by pip-audit in an environment of its own.

Exit code 0: none is known. 1: some are. 2: the list of them cannot be had here, and nothing was looked at.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".venv-audit"
TOOL = "pip-audit==2.10.1"
LOCKS = ("requirements.lock", "docker/requirements.lock", "installer.lock")
NO_NETWORK = (
    "could not be audited",
    "ConnectionError",
    "Could not connect",
    "ServiceError",
    "No matching distribution",
    "Max retries",
    "timed out",
)


def main() -> int:
    """Audit every lock."""
    python = HOME / "bin" / "python"
    if not python.exists():
        venv.create(HOME, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", TOOL]
    if not _ran(command, "pip-audit cannot be installed"):
        return 2
    found = 0
    for lock in LOCKS:
        ran = subprocess.run(
            [str(python), "-m", "pip_audit", "--disable-pip", "--require-hashes", "--requirement", str(ROOT / lock)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if any(words in ran.stdout + ran.stderr for words in NO_NETWORK):
            print(
                f"Nothing was looked at: the list of vulnerabilities cannot be had here.\n{ran.stderr[-300:].strip()}"
            )
            return 2
        print(ran.stdout + ran.stderr, end="")
        found |= ran.returncode
    return 1 if found else 0


def _ran(command: list[str], otherwise: str) -> bool:
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    if ran.returncode:
        print(f"Nothing was looked at: {otherwise}. Is there a network?\n{ran.stderr[-300:].strip()}")
    return ran.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
