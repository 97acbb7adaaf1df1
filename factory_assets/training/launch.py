"""torchrun that ends with its parent: ``python -m factory_assets.training.launch PARENT_PID TORCHRUN_ARGUMENTS…``.

Workers of torchrun have a session of their own each, so no signal to a process group reaches them all: torchrun passes
a SIGTERM on to them, and each of them watches torchrun (see `lifeline`).
"""

from __future__ import annotations

import signal
import sys

from factory_lib.lifeline import end_with


def main() -> None:
    """The command line."""
    # Ignored signals are inherited, and a shell has what it starts in the background ignore some.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_DFL)
    end_with(int(sys.argv[1]), signal.SIGTERM)
    from torch.distributed.run import main as torchrun

    torchrun(sys.argv[2:])


if __name__ == "__main__":
    main()
