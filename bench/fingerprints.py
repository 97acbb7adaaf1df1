"""What fingerprints cost: the first of each bundled signal in a process, all again, and one of a large array.

`python -m bench.fingerprints [--rounds 5]`: CPU milliseconds, the median over fresh processes. The package is compiled
before, as pip leaves it.
"""

from __future__ import annotations

import argparse
import compileall
import json
import statistics
import subprocess
import sys
from pathlib import Path

_MEASURED = """
import json, time
import numpy as np
import factory_lib.signals
from factory_lib.signals import clip, hashes, image, signal, text
from factory_lib.signals.signal import Signal
bundled = [one for room in (image, text, hashes, clip) for one in vars(room).values() if isinstance(one, Signal)]
TABLE = np.zeros(20_000_000, np.float32)

@signal
def looked_up(caption: str) -> float:
    return float(TABLE[len(caption)])

def milliseconds(*signals):
    started = time.process_time()
    for one in signals:
        one.fingerprint
    return 1000 * (time.process_time() - started)

first = {one.name: milliseconds(one) for one in bundled}
print(json.dumps({**first, "all bundled, first": sum(first.values()), "all bundled, again": milliseconds(*bundled),
                  "array of 20M elements": milliseconds(looked_up)}))
"""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    compileall.compile_dir(Path(__file__).parents[1] / "factory_lib", quiet=1)
    command = [sys.executable, "-c", _MEASURED]
    found = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(rounds)]
    for name in found[0]:
        print(f"{name:24} {statistics.median(one[name] for one in found):8.1f} ms")


if __name__ == "__main__":
    main()
