"""What a version costs whose parts lie in a bucket: bytes and requests beside the same on a disk.

`python -m bench.bucket [rows]`: a filter, a column and a clone of a table of 8 shards, then the start of the engine with a warm
and an empty cache. The bucket is moto's in this process: its bytes and requests are those of a real one, its seconds are not.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.report import print_report

SHARDS = 8
COLUMNS = 10


def main() -> None:
    rows = int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="bench-bucket-", dir=os.environ.get("BENCH_FOLDER")))
    seen = serve()
    os.environ |= {"AWS_ENDPOINT_URL": seen.url, "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    try:
        on_disk = costs(folder / "disk", rows, lambda: file_bytes(folder / "disk" / "data" / "store"))
        os.environ["FACTORY_VERSIONS"] = "s3://bench/versions"
        seen.requests.clear()
        in_bucket = costs(folder / "bucket", rows, lambda: seen.sent, seen.requests)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = [
        [name, on_disk[name][0] / 1e6, size / 1e6, requests.get("PUT", 0), requests.get("GET", 0)]
        for name, (size, requests) in in_bucket.items()
    ]
    print_report(f"Versions in a bucket, {rows:,} rows", ["", "MB on disk", "MB sent", "PUT", "GET"], report)


class Seen:
    """What passed between the engine and the bucket.

    Attributes:
        sent: bytes of bodies.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        self.requests: Counter[str] = Counter()
        self.sent = 0
        self.url = ""

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        self.requests[environ["REQUEST_METHOD"]] += 1
        self.sent += int(environ.get("CONTENT_LENGTH") or 0)
        answer: Iterable[bytes] = self._application(environ, start)
        return answer


def serve() -> Seen:
    """An S3 in a thread, with an empty bucket."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    seen = Seen(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, seen, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seen.url = f"http://127.0.0.1:{server.server_port}"
    keys = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench"}
    boto3.client("s3", endpoint_url=seen.url, region_name="us-east-1", **keys).create_bucket(Bucket="bench")
    return seen


def file_bytes(folder: Path) -> int:
    """Bytes of the files below a folder, those with several names once."""
    found = {about.st_ino: about.st_size for path in folder.rglob("*") if path.is_file() and (about := path.stat())}
    return sum(found.values())


def costs(
    home: Path, rows: int, size: Callable[[], int], requests: Counter[str] | None = None
) -> dict[str, tuple[int, Counter[str]]]:
    """What each step writes in bytes, and its requests."""
    os.environ["FACTORY_HOME"] = str(home)
    from factory_lib import C, DatasetQuery
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.embedded import stop_engine

    found: dict[str, tuple[int, Counter[str]]] = {}

    def step(name: str, action: Callable[[], object]) -> None:
        before, asked = size(), Counter(requests)
        action()
        found[name] = size() - before, Counter(requests) - asked

    def start(*, cached: bool) -> None:
        stop_engine(home)
        warehouse().close()
        if not cached:
            shutil.rmtree(home / "data" / "cache", ignore_errors=True)
        warehouse().rows("SELECT 1")

    base = DatasetQuery("base")
    step("base version", lambda: DatasetQuery.from_arrow(table(rows), shard="part").save("base"))
    step("keep 31 %", lambda: base.filter(C.c0 < 0.31).save("kept"))
    step("a float column", lambda: base.mutate(x=(C.c0 * C.c1).cast("Float32")).save("wide"))
    step("a clone", lambda: base.save("cloned"))
    start(cached=True)  # what came in the background is not in the cache yet
    step("a start of the engine", lambda: start(cached=True))
    step("a start with an empty cache", lambda: start(cached=False))
    stop_engine(home)
    return found


def table(rows: int) -> pa.Table:
    rng = np.random.default_rng(0)
    columns = {f"c{number}": rng.random(rows) for number in range(COLUMNS)}
    return pa.table({"part": np.char.add("s", (np.arange(rows) % SHARDS).astype(str)), **columns})


if __name__ == "__main__":
    main()
