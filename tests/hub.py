"""A stand-in for Hugging Face's hub: one data set out of a folder, by the hub's own paths."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.web import Ranged

COMMIT = "0" * 40


class Hub(Ranged):
    """Serves `folder/NAME` as the data set `user/NAME`."""

    def do_GET(self) -> None:  # noqa: N802
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "api":
            self._answer(parts[2:])
        elif parts[3:4] == ["resolve"]:
            self.path = "/" + "/".join([parts[2], *parts[5:]])
            super().do_GET()
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:  # noqa: N802
        self.do_GET()

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        root = Path(self.directory) / parts[3]
        self._send([_about(root, root / path) for path in paths if (root / path).exists()])

    def _answer(self, parts: list[str]) -> None:
        root = Path(self.directory) / parts[1]
        folder = root.joinpath(*parts[4:])
        if not folder.is_dir():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if root.is_dir() else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif parts[2:3] == ["tree"]:
            deep = "recursive=true" in self.path.lower()
            found = sorted(folder.rglob("*") if deep else folder.glob("*"))
            self._send([_about(root, path) for path in found])
        else:
            self._send({"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": []})

    def _send(self, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _about(root: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": COMMIT}
    data = path.read_bytes()
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
