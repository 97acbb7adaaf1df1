"""Installs what locks name, into the environment of the Python that runs this: `python .ci/install.py LOCK…`.

uv does it, in a fraction of pip's time; pip brings uv. Where uv cannot be had or fails, pip does it all, and a line
says so. uv does not read pip's configuration: it is told the indexes, folders of wheels and certificates of pip.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTALLER = ROOT / "installer.lock"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
LOCKED = ["--no-deps", "--require-hashes"]
_NAMES = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE"}
_EARLIER = {"UV_INDEX_URL": "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL": "UV_INDEX"}


def settings_for_uv(configured: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What uv's environment is to say, by what pip is configured with; what it says of uv already stays.

    Args:
        configured: what `pip config list` prints, `global.index-url='https://…'` each; environment variables are in it.
    """
    found: dict[str, str] = {}
    for place in ("global", "install", ":env:"):  # as pip does: what comes last counts
        for name, value in re.findall(rf"^{place}\.([\w-]+)=(.*)$", configured, re.MULTILINE):
            found[name.replace("_", "-")] = " ".join(str(ast.literal_eval(value)).split())
    told = {_NAMES[name]: value for name, value in found.items() if name in _NAMES}
    if "find-links" in found:
        told["UV_FIND_LINKS"] = found["find-links"].replace(" ", ",")
    told["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # all come with hashes: whichever index has a file may give it
    own = {_EARLIER.get(name, name) for name in environment}
    return {name: value for name, value in told.items() if name not in own}


def install(lock: str) -> None:
    """Install a lock's packages, by uv where that can be had."""
    problem = _by_uv(lock)
    if problem is None:
        return
    print(f"{lock}: uv cannot ({problem}), pip does it.", flush=True)
    code = subprocess.run([*PIP, "install", *LOCKED, "--requirement", lock], check=False).returncode
    if code:
        sys.exit(code)


def _by_uv(lock: str) -> str | None:
    """Why uv could not install a lock's packages; None when it did."""
    brought = subprocess.run(
        [*PIP, "install", "--quiet", *LOCKED, "--requirement", str(INSTALLER)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if brought.returncode:
        return _last_line(brought.stderr)
    listed = subprocess.run([*PIP, "config", "list"], check=False, capture_output=True, text=True).stdout
    command = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--python", sys.executable, *LOCKED]
    environment = {**os.environ, **settings_for_uv(listed, os.environ)}
    code = subprocess.run([*command, "--requirement", lock], check=False, env=environment).returncode
    return f"it ended with {code}" if code else None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["pip said nothing"])[-1]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        install(name)
