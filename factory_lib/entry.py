"""Where the `factory` script begins: Ctrl-C is a word and an exit code from the first import on."""

from __future__ import annotations

import os
import sys

_INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        from factory_lib.cli import main as run

        run()
    except KeyboardInterrupt:
        # What was loading when it came may be half there: nothing more is asked of it.
        sys.stderr.write("Interrupted.\n")
        sys.stderr.flush()
        os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
