"""What a version costs whose parts lie in a bucket: bytes and requests beside the same on a disk.

`python -m bench.bucket [rows]`: a filter, a column and a clone of a table of 8 shards, then the start of the engine with a warm
and an empty cache. The bucket is moto's in this process: its bytes and requests are those of a real one; its seconds are those
of a store that answers in some 5 ms and takes one request at a time, so that they show where requests are waited for.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
        on_disk = costs(folder / "disk", rows, lambda: (part_bytes(), 0))
        os.environ["FACTORY_VERSIONS"] = "s3://bench/versions"
        seen.requests.clear()
        in_bucket = costs(folder / "bucket", rows, lambda: (seen.sent, seen.kept), seen.requests)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = [
        [name, disk.size / 1e6, sent.size / 1e6, sent.kept / 1e3, disk.seconds, sent.seconds]
        + [sent.requests.get(method, 0) for method in ("PUT", "GET")]
        for (name, sent), disk in zip(in_bucket.items(), on_disk.values(), strict=True)
    ]
    titles = ["", "MB on disk", "MB of parts sent", "KB for a lost folder", "s on disk", "s in bucket", "PUT", "GET"]
    print_report(f"Versions in a bucket, {rows:,} rows", titles, report)


@dataclass(frozen=True)
class Cost:
    """What a step cost.

    Attributes:
        size: bytes of parts that were written.
        kept: bytes that were sent so that a lost folder can be made anew.
        seconds: until it had returned.
        requests: method -> how many.
    """

    size: int
    kept: int
    seconds: float
    requests: Counter[str]


class Seen:
    """What passed between the engine and the bucket.

    Attributes:
        sent: bytes of bodies: of parts.
        kept: of others, by which a lost folder is made anew.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        self.requests: Counter[str] = Counter()
        self.sent = self.kept = 0
        self.url = ""

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        self.requests[environ["REQUEST_METHOD"]] += 1
        size = int(environ.get("CONTENT_LENGTH") or 0) if environ["REQUEST_METHOD"] == "PUT" else 0
        if "/versions/parts/" in environ["PATH_INFO"]:
            self.sent += size
        else:
            self.kept += size
        answer: Iterable[bytes] = self._application(environ, start)
        return answer


def serve() -> Seen:
    """An S3 in a thread, with an empty bucket."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells of each request
    seen = Seen(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, seen, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seen.url = f"http://127.0.0.1:{server.server_port}"
    keys = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench"}
    boto3.client("s3", endpoint_url=seen.url, region_name="us-east-1", **keys).create_bucket(Bucket="bench")
    return seen


def part_bytes() -> int:
    """Bytes of the files of datasets' parts on the disk, those with several names once."""
    from factory_lib.warehouse.client import warehouse

    home = warehouse().home
    assert home is not None
    rows = warehouse().rows("SELECT path FROM system.parts WHERE database NOT LIKE 'factory%'")
    files = [path for row in rows for path in (home / "data" / row["path"]).rglob("*") if path.is_file()]
    return sum({about.st_ino: about.st_size for about in (path.stat() for path in files)}.values())


def costs(
    home: Path, rows: int, written: Callable[[], tuple[int, int]], requests: Counter[str] | None = None
) -> dict[str, Cost]:
    """What each step costs.

    Args:
        written: bytes of parts so far, and of what makes a lost folder anew.
    """
    os.environ["FACTORY_HOME"] = str(home)
    from factory_lib import C, DatasetQuery
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.embedded import stop_engine

    found: dict[str, Cost] = {}

    def step(name: str, action: Callable[[], object]) -> None:
        (size, kept), asked, began = written(), Counter(requests), time.perf_counter()
        action()
        seconds, (size_after, kept_after) = time.perf_counter() - began, written()
        found[name] = Cost(size_after - size, kept_after - kept, seconds, Counter(requests) - asked)

    def start(*, cached: bool) -> None:
        stop_engine(home)
        warehouse().close()
        if not cached:
            shutil.rmtree(home / "data" / "cache", ignore_errors=True)
        warehouse().rows("SELECT 1")

    step("base version", lambda: DatasetQuery.from_arrow(table(rows), shard="part").save("base"))
    base = DatasetQuery("base")
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
